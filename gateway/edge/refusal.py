"""Why connections are ended, exchanges have no answer, and answers to what is no request: raw bytes, then a close.

Nothing of them depends on what the client sent, so nothing of it can be reflected.
"""

from __future__ import annotations

from enum import Enum
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING

from aiohttp.helpers import rfc822_formatted_time

from gateway.core.errors import CLIENT_CLOSED, Denial, render

if TYPE_CHECKING:
    from gateway.core.errors import Reason
    from gateway.core.model import Pair
    from gateway.pipeline.exchange import Exchange


class Ending(Enum):
    """Why the gateway ended a connection; the closed `reason` label of `gateway_connections_ended_total`."""

    IDLE = "idle"
    HEAD_TIMEOUT = "head-timeout"
    HEAD_TOO_LARGE = "head-too-large"
    CONTENT_STALLED = "content-stalled"
    ANSWER_STALLED = "answer-stalled"
    REQUEST_TIMEOUT = "request-timeout"
    FULL = "full"  # turned away: too many connections in all
    ADDRESS_FULL = "address-full"  # turned away: too many from its address


def unanswered(exchange: Exchange, *, cut: bool) -> None:
    """Say how an exchange ended without an answer.

    Args:
        exchange: it.
        cut: whether the end of the drain cut it off; else its client has left.
    """
    exchange.status = HTTPStatus.SERVICE_UNAVAILABLE.value if cut else CLIENT_CLOSED
    exchange.detail = "cut off before the answer" if cut else "the client left before the answer"


def plain(reason: Reason, *fields: Pair) -> bytes:
    """A whole response in the controller's v3 format, after which the connection closes.

    Args:
        reason: why it is refused.
        fields: further response fields.
    """
    return _written(reason, fields, rfc822_formatted_time())


@lru_cache(maxsize=8)  # thousands of them may go out in one second
def _written(reason: Reason, more: tuple[Pair, ...], date: str) -> bytes:
    status, fields, body = render(Denial(reason, fields=more), "/v3")
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        *(f"{name}: {value}" for name, value in fields.pairs),
        f"Content-Length: {len(body)}",
        f"Date: {date}",
        "Connection: close",
        "",
        "",
    ]
    return "\r\n".join(lines).encode("latin-1") + body
