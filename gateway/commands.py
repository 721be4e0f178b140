"""The commands: run · demo · check · explain · schema · top · cache. Parses and prints; others do the work.

Exit codes: 0 done, 1 a check failed, a request would be refused or a second signal did not wait for requests, 2 faulty
settings or arguments, 3 an address in use.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from gateway import __version__
from gateway.cache_cli import cache
from gateway.serving import fail, faulty_keys, serve_file, served, settings_of

app = typer.Typer(
    help="A front door for the Cloud Foundry API: token checks, link rewriting, a page cache that never leaks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(cache, name="cache")


class Output(Enum):
    """How findings are printed."""

    TEXT = "text"
    JSON = "json"


Config = Annotated[Path, typer.Option("--config", "-c", metavar="FILE", help="The settings file (YAML).")]
Port = Annotated[int, typer.Option(min=0, max=65535)]


def _version(asked: bool) -> None:
    if asked:
        print(f"gateway {__version__}")
        raise typer.Exit


@app.callback()
def common(
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """What all commands share."""


@app.command()
def run(config: Config) -> None:
    """Serve until SIGINT or SIGTERM; SIGHUP reads the file again."""
    raise typer.Exit(serve_file(config))


@app.command()
def demo(
    *,
    port: Port = 8080,
    admin_port: Port = 9090,
    processes: Annotated[int, typer.Option(min=1, max=200_000, help="How many processes the world has.")] = 60,
    workers: Annotated[int, typer.Option(min=1, max=64, help="How many gateway processes serve.")] = 1,
) -> None:
    """Serve before an embedded controller and UAA, and print requests to try."""
    from gateway.demo import Demo
    from gateway.telemetry.log import configure

    configure(level="warning", style="console")
    raise typer.Exit(served(Demo(port=port, admin_port=admin_port, processes=processes, workers=workers).run()))


@app.command()
def check(
    *,
    config: Config,
    offline: Annotated[bool, typer.Option("--offline", help="Judge the settings alone, without the network.")] = False,
    output: Annotated[Output, typer.Option("--output", "-o", help="For people, or for a CI.")] = Output.TEXT,
    strict: Annotated[bool, typer.Option("--strict", help="Fail on warnings, too.")] = False,
) -> None:
    """Judge the settings, and test whether keys, controller and advertised origin can be reached."""
    from gateway.check import check_reach, check_settings

    settings = settings_of(config)
    findings = check_settings(settings)
    if not offline:
        with faulty_keys(config):
            findings += asyncio.run(check_reach(settings))
    if output is Output.JSON:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        print(*findings, sep="\n")
    bad = {"error", "fail", "warning"} if strict else {"error", "fail"}
    raise typer.Exit(1 if any(finding.level in bad for finding in findings) else 0)


@app.command()
def schema() -> None:
    """Print the JSON Schema of the settings file, for editors."""
    from gateway.settings.schema import json_schema

    print(json.dumps(json_schema(), indent=1))


@app.command()
def explain(
    *,
    config: Config,
    method: Annotated[str, typer.Argument(metavar="METHOD", help="GET, POST, ...")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="Path and query, e.g. '/v3/processes?page=1'.")],
    token: Annotated[str | None, typer.Option(help="A token, or @FILE that holds one.")] = None,
) -> None:
    """Say what would be decided about a request, without the network."""
    from gateway.explain import explain as explained

    settings = settings_of(config)
    with faulty_keys(config):
        report = explained(settings, method, target, _token(token))
    print(report)
    raise typer.Exit(0 if report.allowed else 1)


@app.command()
def top(
    *,
    admin: Annotated[str, typer.Option(help="The admin listener.", metavar="URL")] = "http://127.0.0.1:9090",
    interval: Annotated[float, typer.Option(min=0.2, max=3600, help="Seconds between two looks.")] = 2.0,
    token: Annotated[
        str | None, typer.Option(envvar="GATEWAY_ADMIN_TOKEN", help="The admin listener's token, or @FILE.")
    ] = None,
    single: Annotated[bool, typer.Option("--once", help="Print one view and exit.")] = False,
) -> None:
    """Watch a running gateway: rates, hit ratio, latencies, what the controller is spared."""
    from rich.console import Console

    from gateway.live.top import Source, once, watch

    console = Console()
    try:
        source = Source(admin, _token(token))
        if single or not (console.is_terminal and sys.stdin.isatty()):
            once(source, interval, console)
        else:
            watch(source, interval, console)
    except (OSError, ValueError) as error:
        fail(f"{admin}: {error}", 1)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _token(given: str | None) -> str | None:
    if given is None or not given.startswith("@"):
        return given
    try:
        return Path(given[1:]).read_text(encoding="utf-8").strip()
    except OSError as error:
        fail(f"{given[1:]}: {error.strerror}", 2)
