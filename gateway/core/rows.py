"""Which rows a page shows, so that the change of one row drops the pages that show it and no others.

The tags of a page before its content is known are those of `invalidation.tags_of_page`. Here they are made finer where
that is certainly right: the request must be one whose filter and order cannot be reached by the change of a row (any
write bumps `updated_at`, controller.md §4), and its content must name each row and the app it belongs to. Everything
else keeps the coarse tags. Knows no HTTP and no store.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

import msgspec

from gateway.core.invalidation import any_row, row, tags_of_page
from gateway.core.templates import Matcher

if TYPE_CHECKING:
    from gateway.core.model import Target
    from gateway.core.routes import Route

# A page of more rows than this is dropped by any of them: each tag costs memory beside the page.
MAX_TAGS: Final = 250
# Larger content is not looked into: it would hold the event loop, and has more rows than that anyhow.
MAX_BODY: Final = 256 * 1024

_PAGING: Final = frozenset(
    ("page", "per_page", "order_by", "created_ats", "guids", "space_guids", "organization_guids")
)
# `created_ats[gt]=`, in whatever spelling the brackets come.
_NAME: Final = re.compile(r"([a-z_]+)(?:(?:\[|%5[Bb])[a-z]*(?:\]|%5[Dd]))?")
_BY_CREATION: Final = frozenset({"created_at", "+created_at", "-created_at"})


class _Guid(msgspec.Struct, gc=False):
    guid: str


class _ToOne(msgspec.Struct, gc=False):
    data: _Guid


class _ToApp(msgspec.Struct, gc=False):
    app: _ToOne


class _Process(msgspec.Struct, gc=False):
    guid: str
    relationships: _ToApp

    def owners(self) -> tuple[str, ...]:
        """The guids whose change may show in this row."""
        return self.guid, self.relationships.app.data.guid


class _App(msgspec.Struct, gc=False):
    guid: str

    def owners(self) -> tuple[str, ...]:
        """The guids whose change may show in this row."""
        return (self.guid,)


class _Processes(msgspec.Struct, gc=False):
    resources: list[_Process]


class _Apps(msgspec.Struct, gc=False):
    resources: list[_App]


@dataclass(frozen=True, slots=True)
class _Kind:
    """How pages of a path name their rows.

    Attributes:
        name: the type of its rows.
        parameters: those that filter, order or cut by what no write to a row changes; all others make the page coarse.
        lists: reads a list, None where there is but one row.
        one: reads a single row.
    """

    name: str
    parameters: frozenset[str]
    lists: msgspec.json.Decoder[_Processes] | msgspec.json.Decoder[_Apps] | None
    one: msgspec.json.Decoder[_Process] | msgspec.json.Decoder[_App]


# `label_selector`, `updated_ats`, `names` and whatever comes in later versions are missing on purpose.
_OF_PROCESSES: Final = _PAGING | {"app_guids", "app_guid", "types"}
_PROCESS: Final = msgspec.json.Decoder(_Process)
_PROCESSES: Final = _Kind("processes", _OF_PROCESSES, msgspec.json.Decoder(_Processes), _PROCESS)
_APPS: Final = _Kind("apps", _PAGING | {"include"}, msgspec.json.Decoder(_Apps), msgspec.json.Decoder(_App))
_ONE_PROCESS: Final = _Kind("processes", frozenset(), None, _PROCESS)
_ONE_APP: Final = _Kind("apps", frozenset({"include"}), None, msgspec.json.Decoder(_App))
_PATHS: Final = Matcher(
    (template, frozenset({"GET"}), kind)
    for template, kind in (
        ("/v3/processes", _PROCESSES),
        ("/v3/processes/:guid", _ONE_PROCESS),
        ("/v3/apps/:guid/processes", _PROCESSES),
        ("/v3/apps/:guid/processes/:type", _ONE_PROCESS),
        ("/v3/apps", _APPS),
        ("/v3/apps/:guid", _ONE_APP),
    )
)


def tags_of_content(route: Route, target: Target, body: bytes) -> tuple[str, ...]:
    """The tags that a page carries once its content is known.

    Args:
        route: the row its request fell under.
        target: the canonical target.
        body: the content of a 200 answer to it; never raises, whatever it is.
    """
    coarse = tags_of_page(route, target.path)
    kind = _PATHS.match("GET", target.path)
    if kind is None or kind.name != route.resource or not _unmoved(kind, target.query) or len(body) > MAX_BODY:
        return coarse
    try:
        rows = [kind.one.decode(body)] if kind.lists is None else kind.lists.decode(body).resources
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return coarse
    fine = {row(kind.name, guid) for each in rows for guid in each.owners()}
    if len(fine) > MAX_TAGS:
        return coarse
    return (*(tag for tag in coarse if tag != any_row(kind.name)), *sorted(fine))


def _unmoved(kind: _Kind, query: str | None) -> bool:
    """Whether no write to a row can move it into, out of or within the list that this query asks for."""
    for pair in (query or "").split("&"):
        name, _, value = pair.partition("=")
        found = _NAME.fullmatch(name)
        if not pair:
            continue
        if found is None or found[1] not in kind.parameters:
            return False
        if found[1] == "order_by" and unquote(value) not in _BY_CREATION:
            return False
    return True
