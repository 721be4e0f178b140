"""The operator's cache API below /cache: list, inspect, purge, statistics. GET reads, POST and DELETE change.

Every answer is JSON, errors included. Whether a token is needed is decided before (`guard.py`); without one a page in
an operator's browser must not be able to do anything either: what such a page sends from another site is refused
(`Sec-Fetch-Site`, `Origin`), and a purge has to say `Content-Type: application/json`, which no form can and no script
may without a preflight that is never granted.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import msgspec
from aiohttp import web

from gateway.core.selection import SelectionError
from gateway.pipeline.operations import CLASSES, CRITERIA, SORTS, chosen

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    Perform = Callable[[str, Mapping[str, Any]], Awaitable[dict[str, Any] | None]]
    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_OTHERS: Final = frozenset({"domain", "sort", "limit"})
_LARGEST_REQUEST: Final = 64 * 1024
_MOST: Final = 1000


class _Purge(msgspec.Struct, forbid_unknown_fields=True):
    """What a purge may say; `all` stands for no criterion, so that an empty object purges nothing."""

    url: str | None = None
    prefix: str | None = None
    type: str | None = None
    guid: str | None = None
    space: str | None = None
    principal: str | None = None
    all: bool = False
    soft: bool = False


class _RefusedError(Exception):
    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


def cache_api(perform: Perform, *, public_path: str) -> web.Application:
    """The application to mount at /cache.

    Args:
        perform: carries out an operation (`pipeline/operations.py`), here or elsewhere.
        public_path: the path of the public URL, "" when it has none.
    """
    handlers: Final = _Handlers(perform, public_path)
    app = web.Application(middlewares=[_guarded])
    app.router.add_get("", handlers.statistics)
    app.router.add_get("/entries", handlers.entries)
    app.router.add_get("/entries/{id}", handlers.entry)
    app.router.add_delete("/entries/{id}", handlers.purge_entry)
    app.router.add_post("/purge", handlers.purge)
    return app


@web.middleware
async def _guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse what a foreign page sends, and say everything in JSON."""
    if request.headers.get("Sec-Fetch-Site", "none") != "none" or "Origin" in request.headers:
        return _error(403, "not for pages in browsers")
    try:
        response = await handler(request)
    except _RefusedError as refusal:
        return _error(refusal.status, str(refusal))
    except SelectionError as error:
        return _error(400, str(error))
    except web.HTTPException as error:
        allow = error.headers.get("Allow")
        return _error(error.status, error.reason.lower(), **({"Allow": allow} if allow else {}))
    response.headers["Cache-Control"] = "no-store"
    return response


def _error(status: int, detail: str, **fields: str) -> web.Response:
    return _json({"error": {"status": status, "detail": detail}}, status, **fields)


def _json(value: object, status: int = 200, **fields: str) -> web.Response:
    body = json.dumps(value, ensure_ascii=True).encode() + b"\n"
    headers = {"Content-Type": "application/json", "X-Content-Type-Options": "nosniff", **fields}
    return web.Response(status=status, body=body, headers=headers)


class _Handlers:
    def __init__(self, perform: Perform, public_path: str) -> None:
        self._perform = perform
        self._public_path = public_path

    async def statistics(self, _request: web.Request) -> web.Response:
        """What is stored, in sum."""
        return _json(await self._done("statistics", {}))

    async def entries(self, request: web.Request) -> web.Response:
        """The pages that the query selects, at most `limit` of them, the first by `sort`."""
        asked = _query(request)
        criteria = self._judged({name: value for name, value in asked.items() if name in CRITERIA})
        domain, limit, sort = asked.get("domain"), _limit(asked.get("limit", "100")), asked.get("sort", "newest")
        if sort not in SORTS:
            raise _RefusedError(400, f"sort is one of {', '.join(SORTS)}")
        if domain is not None and domain not in CLASSES:
            raise _RefusedError(400, f"domain is one of {', '.join(CLASSES)}")
        wanted = {"criteria": criteria, "domain": domain, "sort": sort, "limit": limit}
        return _json(await self._done("entries", wanted))

    async def entry(self, request: web.Request) -> web.Response:
        """All of one page but its content."""
        return _json(await self._done("entry", {"id": request.match_info["id"]}))

    async def purge_entry(self, request: web.Request) -> web.Response:
        """Purge one page."""
        asked = _query(request, frozenset({"soft"}))
        if asked.get("soft", "false") not in ("true", "false"):
            raise _RefusedError(400, "soft is true or false")
        wanted = {"id": request.match_info["id"], "soft": asked.get("soft") == "true"}
        return _json(await self._done("purge-entry", wanted))

    async def purge(self, request: web.Request) -> web.Response:
        """Purge what the content selects."""
        if request.content_type != "application/json":
            raise _RefusedError(415, "a purge says Content-Type: application/json")
        if request.query_string:
            raise _RefusedError(400, "what to purge is said in the content, not in the query")
        content = await request.read()
        if len(content) > _LARGEST_REQUEST:
            raise _RefusedError(413, f"more than {_LARGEST_REQUEST} bytes")
        try:
            asked = msgspec.json.decode(content, type=_Purge)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _RefusedError(400, f"not a purge: {error}") from None
        given = {name: value for name in CRITERIA if (value := getattr(asked, name)) is not None}
        if bool(given) == asked.all:
            raise _RefusedError(400, f"either all: true, or at least one of {', '.join(sorted(CRITERIA))}")
        return _json(await self._done("purge", {"criteria": self._judged(given), "soft": asked.soft}))

    async def _done(self, name: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        answer = await self._perform(name, asked)
        if answer is None:
            raise _RefusedError(404, "no such entry; it may have gone meanwhile")
        return answer

    def _judged(self, criteria: dict[str, str]) -> dict[str, str]:
        if "guid" in criteria and "space" in criteria:
            raise SelectionError("guid or space, not both")
        chosen(criteria, self._public_path)
        return criteria


def _query(request: web.Request, known: frozenset[str] = CRITERIA | _OTHERS) -> dict[str, Any]:
    """The parameters of a request, each of them known and given once."""
    asked: dict[str, Any] = {}
    for name, value in request.query.items():
        if name not in known:
            raise _RefusedError(400, f"unknown parameter; there are {', '.join(sorted(known))}")
        if name in asked:
            raise _RefusedError(400, f"{name} is given twice")
        asked[name] = value
    return asked


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 5 and 1 <= int(text) <= _MOST):
        raise _RefusedError(400, f"limit is a number from 1 to {_MOST}")
    return int(text)
