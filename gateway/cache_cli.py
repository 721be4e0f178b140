"""`gateway cache …`: talks to the admin listener of a running gateway (docs/caching.md) and prints what it says.

Exit codes: 0 done, 1 refused or nobody there, 2 faulty arguments.
"""

from __future__ import annotations

import json
import sys
from enum import Enum
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn
from urllib.parse import quote, urlencode, urlsplit

import typer

DEFAULT: Final = "http://127.0.0.1:9090"
_SECONDS: Final = 30.0

cache = typer.Typer(
    help="List, inspect and purge the pages that a running gateway keeps; asks its admin listener.",
    no_args_is_help=True,
)


class Sort(Enum):
    """Which entries come first."""

    NEWEST = "newest"
    OLDEST = "oldest"
    SIZE = "size"
    HITS = "hits"


class Domain(Enum):
    """Classes of visibility domains."""

    PUBLIC = "public"
    ANONYMOUS = "anonymous"
    GLOBAL = "global"
    PRINCIPAL = "principal"


Admin = Annotated[
    str,
    typer.Option("--admin", metavar="URL", envvar="GATEWAY_ADMIN_URL", help="The admin listener of the gateway."),
]
Token = Annotated[
    str | None, typer.Option(envvar="GATEWAY_ADMIN_TOKEN", help="The admin listener's token, or @FILE that holds it.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the answer as it comes.")]
Url = Annotated[str | None, typer.Option(metavar="URL", help="Path and query, or the whole URL.")]
Prefix = Annotated[str | None, typer.Option(metavar="PREFIX", help="What path and query begin with.")]
Type = Annotated[str | None, typer.Option("--type", metavar="TYPE", help="Pages that show a type: processes, apps, …")]
Guid = Annotated[str | None, typer.Option(metavar="GUID", help="Pages that name this guid.")]
Space = Annotated[str | None, typer.Option(metavar="GUID", help="Pages that name this space.")]
Principal = Annotated[str | None, typer.Option(metavar="ID", help="Pages of this user or client alone.")]


@cache.command("list")
def list_(
    *,
    admin: Admin = DEFAULT,
    token: Token = None,
    url: Url = None,
    prefix: Prefix = None,
    type_: Type = None,
    guid: Guid = None,
    space: Space = None,
    principal: Principal = None,
    domain: Annotated[Domain | None, typer.Option(help="Pages of one class of visibility domains.")] = None,
    sort: Annotated[Sort, typer.Option(help="Which come first.")] = Sort.NEWEST,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The most that are listed.")] = 100,
    raw: Json = False,
) -> None:
    """List entries."""
    asked = _given(url=url, prefix=prefix, type=type_, guid=guid, space=space, principal=principal)
    asked |= _given(domain=None if domain is None else domain.value, sort=sort.value, limit=str(limit))
    found = _ask((admin, token), "GET", f"/cache/entries?{urlencode(asked)}")
    if raw:
        _print_json(found)
        return
    columns = ("id", "domain", "mode", "size", "age", "ttl", "hits", "url")
    lines = [columns, *(tuple(_cell(entry, name) for name in columns) for entry in found["entries"])]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns) - 1)]
    for line in lines:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[-1]]))
    print(f"{len(found['entries'])} of {found['total']} entries, {found['bytes']} bytes in all")


@cache.command()
def show(
    number: Annotated[str, typer.Argument(metavar="ID", help="The id that `list` prints.")],
    *,
    admin: Admin = DEFAULT,
    token: Token = None,
) -> None:
    """Show all of one entry but its content."""
    _print_json(_ask((admin, token), "GET", _entry(number)))


@cache.command()
def purge(
    number: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="One entry, by the id that `list` prints.")
    ] = None,
    *,
    admin: Admin = DEFAULT,
    token: Token = None,
    url: Url = None,
    prefix: Prefix = None,
    type_: Type = None,
    guid: Guid = None,
    space: Space = None,
    principal: Principal = None,
    everything: Annotated[bool, typer.Option("--all", help="Everything.")] = False,
    soft: Annotated[bool, typer.Option("--soft", help="Make stale instead of dropping.")] = False,
) -> None:
    """Purge entries: what all of the options given select."""
    asked: dict[str, Any] = _given(url=url, prefix=prefix, type=type_, guid=guid, space=space, principal=principal)
    if (number is not None) + everything + bool(asked) != 1:
        _fail("say what to purge: an ID, --all, or options that select", 2)
    if number is not None:
        found = _ask((admin, token), "DELETE", f"{_entry(number)}?soft={'true' if soft else 'false'}")
    else:
        found = _ask((admin, token), "POST", "/cache/purge", {**asked, "all": everything, "soft": soft})
    print(f"{found['purged']} entries {'made stale' if soft else 'dropped'}")


@cache.command()
def stats(*, admin: Admin = DEFAULT, token: Token = None, raw: Json = False) -> None:
    """Say what is stored, in sum."""
    found = _ask((admin, token), "GET", "/cache")
    if raw:
        _print_json(found)
        return
    print(f"entries   {found['entries']}: {found['stale']} stale, {found['settled']} settled")
    print(f"bytes     {found['bytes']} of {found['max_bytes']}")
    print(f"domains   {found['domains']}; the largest of one principal has {found['largest_principal_bytes']} bytes")
    for kind, held in sorted(found["by_class"].items()):
        print(f"          {kind}: {held['entries']} entries, {held['bytes']} bytes")
    for title in ("evicted", "purged"):
        print(f"{title:10}{', '.join(f'{count} {why}' for why, count in found[title].items())}")


def _entry(number: str) -> str:
    return f"/cache/entries/{quote(number, safe='')}"


def _given(**values: str | None) -> dict[str, str]:
    return {name: value for name, value in values.items() if value is not None}


def _cell(entry: dict[str, Any], name: str) -> str:
    if name == "domain":
        domain = entry["domain"]
        return f"{domain['class']} {domain.get('principal', domain['label'])}"
    value = entry[name]
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def _ask(where: tuple[str, str | None], method: str, target: str, content: object = None) -> dict[str, Any]:
    """The answer of an admin listener, asked with its token; ends the command where there is none, or a refusal."""
    admin, token = where
    try:
        parts = urlsplit(admin)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not host:
        _fail(f"not a URL: {admin!r}; expected one such as {DEFAULT}", 2)
    connection = (HTTPSConnection if parts.scheme == "https" else HTTPConnection)(host, port, timeout=_SECONDS)
    body = None if content is None else json.dumps(content)
    fields = {"Content-Type": "application/json"}
    if token is not None:
        fields["Authorization"] = f"Bearer {_token(token)}"
    try:
        connection.request(method, parts.path.rstrip("/") + target, body, fields)
        response = connection.getresponse()
        if response.status == 401:
            _fail(f"{admin}: asks for its token (--token or GATEWAY_ADMIN_TOKEN)", 1)
        answer: dict[str, Any] = json.loads(response.read())
    except (OSError, HTTPException) as error:
        _fail(f"{admin}: {getattr(error, 'strerror', None) or str(error) or type(error).__name__}", 1)
    except ValueError:
        _fail(f"{admin}: no gateway's admin listener", 1)
    finally:
        connection.close()
    if "error" in answer:
        _fail(str(answer["error"]["detail"]), 1)
    return answer


def _token(given: str) -> str:
    if not given.startswith("@"):
        return given
    try:
        return Path(given[1:]).read_text(encoding="utf-8").strip()
    except OSError as error:
        _fail(f"{given[1:]}: {error.strerror}", 2)


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2))


def _fail(message: str, code: int) -> NoReturn:
    print(message, file=sys.stderr)
    raise typer.Exit(code)
