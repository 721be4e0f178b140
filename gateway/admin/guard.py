"""Who may use the operator's listener: whoever has its token, where one is set; where not, whoever reaches it.

`/healthz` stays open, since those who ask it (kubelets, load balancers) carry no secrets and learn one bit. The token
is kept and compared as a digest: nothing here can print it, and the comparison takes as long for any guess.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import TYPE_CHECKING, Final, Protocol

from aiohttp import web

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware

OPEN: Final = frozenset({"/healthz"})
_REALM: Final = 'realm="gateway admin"'
_CHALLENGE: Final = {"WWW-Authenticate": f"Bearer {_REALM}, Basic {_REALM}", "Cache-Control": "no-store"}
_READS: Final = frozenset({"GET", "HEAD"})


class SecretText(Protocol):
    """A value that hides itself."""

    def get_secret_value(self) -> str:
        """The value."""
        ...


def guard(application: web.Application, token: SecretText | None) -> None:
    """Make an application ask for a bearer token (RFC 6750 §2.1) on every path but `/healthz`.

    A browser may read with the token as the password of Basic (RFC 7617), which it can be asked for; it may not write
    that way, for browsers send a password along with whatever another site makes them send.

    Args:
        application: not yet started; whatever is routed in it, sub-applications included, is guarded.
        token: what to ask for; None asks for nothing.
    """
    if token is not None:
        # First in the list is outermost: nothing runs before it.
        application.middlewares.insert(0, _middleware(_digest(token.get_secret_value())))


def _middleware(expected: bytes) -> Middleware:
    @web.middleware
    async def asking(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in OPEN and not _allowed(request, expected):
            return web.Response(status=401, text="The operator's token is needed here.\n", headers=_CHALLENGE)
        return await handler(request)

    return asking


def _allowed(request: web.Request, expected: bytes) -> bool:
    given = request.headers.getall("Authorization", [])
    if len(given) != 1:
        return False
    scheme, _, credentials = given[0].partition(" ")
    match scheme.lower():
        case "bearer":
            return hmac.compare_digest(_digest(credentials.strip(" ")), expected)
        case "basic" if request.method in _READS:
            return hmac.compare_digest(_digest(_password(credentials.strip(" "))), expected)
        case _:
            return False


def _password(credentials: str) -> str:
    try:
        decoded = base64.b64decode(credentials.encode("utf-8", "surrogateescape"), validate=True)
    except ValueError:
        return ""
    return decoded.decode("utf-8", "surrogateescape").partition(":")[2]


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
