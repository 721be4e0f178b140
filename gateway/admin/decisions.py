"""Recent decisions for the operator: `GET /-/decisions`, filtered by request id, status, route or reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    Newest = Callable[[int, Mapping[str, str]], Awaitable[list[dict[str, Any]]]]

_FILTERS: Final = ("request_id", "status", "route", "denied", "cache", "method")
_MOST: Final = 1000
_DEFAULT: Final = 50


def add_decisions(app: web.Application, newest: Newest) -> None:
    """Serve `/-/decisions`.

    Args:
        app: the admin application.
        newest: gives the newest decisions that say so, at most so many.
    """

    async def answer(request: web.Request) -> web.Response:
        unknown = sorted(set(request.query) - {*_FILTERS, "limit"})
        limit = request.query.get("limit", str(_DEFAULT))
        if unknown or not (limit.isascii() and limit.isdigit() and 0 < int(limit) <= _MOST):
            known = f"{', '.join(_FILTERS)} and limit (1 to {_MOST})"
            return web.json_response({"error": f"expected {known}"}, status=400)
        wanted = {name: request.query[name] for name in _FILTERS if name in request.query}
        # The controller answers with `<given>::<its own>` (controller.md §4); what was given is what is remembered.
        if "request_id" in wanted:
            wanted["request_id"] = wanted["request_id"].partition("::")[0]
        found = await newest(int(limit), wanted)
        return web.json_response({"decisions": found}, headers={"Cache-Control": "no-store"})

    app.router.add_get("/-/decisions", answer)
