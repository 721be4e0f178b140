"""What `run` does: settings read and judged, then one process that serves, or one that looks after several.

Says on standard error why not, and with which exit code (docs/operations.md). Of the two kinds of process only what is
its own is imported: they stay for months.
"""

from __future__ import annotations

import contextlib
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator
    from pathlib import Path

    from gateway.settings import Settings


def serve_file(config: Path) -> int:
    """Serve by these settings until SIGINT or SIGTERM.

    Returns:
        The exit code.
    """
    from gateway.lean import begin

    begin()
    from gateway.telemetry.log import configure
    from gateway.workers.share import count

    settings = settings_of(config)
    _refuse_leaks(config, settings)
    _take_all_descriptors()
    configure(level=settings.log.level, style=settings.log.format)
    return _supervise(config) if count(settings) > 1 else _alone(config, settings)


def settings_of(path: Path) -> Settings:
    """The settings of a file; exits when they are faulty."""
    from gateway.settings import ConfigError, load

    try:
        return load(path)
    except ConfigError as error:
        fail(str(error), 2)


@contextmanager
def faulty_keys(path: Path) -> Iterator[None]:
    """Keys and certificates that cannot be used are a fault of the settings."""
    from gateway.edge.tls import TlsError
    from gateway.identity.keys import KeyLoadError

    try:
        yield
    except TlsError as error:
        fail(f"{path}: {error}", 2)
    except KeyLoadError as error:
        fail(f"{path}: auth.keys: {error}", 2)


def served(serving: Coroutine[object, object, bool]) -> int:
    """Run what serves until it ends; the exit code."""
    import uvloop

    try:
        finished = uvloop.run(serving)
    except OSError as error:
        fail(f"cannot listen: {error.strerror or error}", 3)
    return 0 if finished else 1


def fail(message: str, code: int) -> NoReturn:
    """Say why not, and exit."""
    sys.stderr.write(f"{message}\n")
    raise SystemExit(code)


def _alone(config: Path, settings: Settings) -> int:
    """Serve by this process."""
    from gateway.app import Gateway
    from gateway.settings import load
    from gateway.workers.steady import steady

    with faulty_keys(config):
        gateway = Gateway(settings, source=lambda: load(config))
    return served(gateway.run(ready=steady))


def _supervise(config: Path) -> int:
    """Serve by several processes; what they read is what was judged here."""
    from gateway.edge.tls import TlsError
    from gateway.settings import ConfigError, parse
    from gateway.settings.load import read_file
    from gateway.workers.supervisor import StartError, Supervisor

    try:
        raw = read_file(str(config))
        settings = parse(raw, name=str(config), base=config.parent)
        _refuse_leaks(config, settings)
        return served(Supervisor(config, raw, settings).run())
    except TlsError as error:
        fail(f"{config}: {error}", 2)
    except (ConfigError, StartError) as error:
        fail(str(error), 2)


def _refuse_leaks(path: Path, settings: Settings) -> None:
    """Rules that would show somebody what is not theirs are a fault of the settings."""
    from gateway.lint import refused

    leaks = [f"{path}: {doubt.key}: {doubt.detail}" for doubt in refused(settings)]
    if leaks:
        fail("\n".join(leaks), 2)


def _take_all_descriptors() -> None:
    """Raise the number of files that may be open as far as is allowed; every connection takes one."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
