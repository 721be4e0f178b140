"""The status page: one file without external parts, and the numbers it draws. Reads; changes nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_PAGE: Final = Path(__file__).with_name("status.html")


def add_status(app: web.Application, status: Callable[[], Mapping[str, Any]]) -> None:
    """Serve the page at `/` and its numbers at `/-/status.json`.

    Args:
        app: the admin application.
        status: makes the numbers.
    """
    page = _PAGE.read_text(encoding="utf-8")
    headers = {
        "Cache-Control": "no-store",
        "Content-Security-Policy": _policy(page),
        "X-Content-Type-Options": "nosniff",
    }

    async def html(_request: web.Request) -> web.Response:
        return web.Response(text=page, content_type="text/html", headers=headers)

    async def numbers(_request: web.Request) -> web.Response:
        return web.json_response(status(), dumps=_strict, headers={"Cache-Control": "no-store"})

    app.router.add_get("/", html)
    app.router.add_get("/-/status.json", numbers)


def _strict(value: object) -> str:
    return json.dumps(value, allow_nan=False)


def _policy(page: str) -> str:
    """Lets the page's own script and style run and nothing else, and nobody frame it."""

    def digest(tag: str) -> str:
        found = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        text = found[1] if found else ""
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    return (
        f"default-src 'none'; script-src {digest('script')}; style-src {digest('style')}; "
        "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'"
    )
