"""How large request content may be: by its route, else by the settings for all.

What the head announces is judged here, before a byte of it is read; what comes without a length the edge counts by the
same limit as it comes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core.errors import Denial, Reason

if TYPE_CHECKING:
    from gateway.core.routes import Route
    from gateway.pipeline.exchange import Exchange


def limit_content(exchange: Exchange, row: Route) -> None:
    """Settle the limit of a request that has content.

    Args:
        exchange: with the limit for all routes in `max_body_bytes`; that of its route takes its place.
        row: its route.

    Raises:
        Denial: the content says itself that it is larger.
    """
    if row.max_body_bytes is not None:
        exchange.max_body_bytes = row.max_body_bytes
    limit = exchange.max_body_bytes
    if limit is not None and int(exchange.head.fields.get("content-length") or "0") > limit:
        raise Denial(Reason.BODY_TOO_LARGE, f"at most {limit} bytes")
