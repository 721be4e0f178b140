"""May a stored response answer a request (RFC 9111 §4), and if not, why.

Variant first, freshness second; nothing is known of content, stores or waiting.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from gateway.core.caching import request_directives
from gateway.core.dates import http_date
from gateway.core.freshness import State
from gateway.core.variants import selects

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.core.caching import StoredResponse
    from gateway.core.fields import Directives
    from gateway.core.model import Fields


class Action(Enum):
    """What a request leads to."""

    SERVE = "serve"
    SERVE_AND_REFRESH = "serve-and-refresh"
    VALIDATE = "validate"
    FETCH = "fetch"
    UNSATISFIABLE = "unsatisfiable"  # only-if-cached: 504 (RFC 9111 §5.2.1.7)


class Forwarded(Enum):
    """Why a request goes to the origin: the `fwd` of Cache-Status (RFC 9211 §2.2)."""

    METHOD = "method"
    URI_MISS = "uri-miss"
    VARY_MISS = "vary-miss"
    REQUEST = "request"
    STALE = "stale"


@dataclass(frozen=True, slots=True)
class Reuse:
    """How a request is answered.

    Attributes:
        action: what to do.
        stored: the selected response: to serve, to validate, or to fall back on.
        state: what its freshness allows, None without one.
        forwarded: why the request goes to the origin, None when it does not.
    """

    action: Action
    stored: StoredResponse | None = None
    state: State | None = None
    forwarded: Forwarded | None = None


def may_reuse(method: str, request: Fields, candidates: Sequence[StoredResponse], now: float) -> Reuse:
    """Whether one of the responses stored for a target answers this request (RFC 9111 §4).

    Of several that the request selects the most recently made counts. A request with no-store is not answered from the
    cache: the RFC leaves that open, and whoever writes it wants the origin.

    Args:
        method: the request method.
        request: the request fields.
        candidates: every response stored under the request's key.
        now: epoch seconds.
    """
    if method not in {"GET", "HEAD"}:
        return Reuse(Action.FETCH, forwarded=Forwarded.METHOD)
    asked = request_directives(request)
    matching = [stored for stored in candidates if selects(request, stored.vary, stored.selecting, stored.fields)]
    if not matching:
        reuse = Reuse(Action.FETCH, forwarded=Forwarded.VARY_MISS if candidates else Forwarded.URI_MISS)
    else:
        reuse = _by_freshness(max(matching, key=lambda stored: _made(stored, now)), asked, now)
    if asked.only_if_cached and reuse.forwarded is not None and reuse.action is not Action.SERVE_AND_REFRESH:
        return Reuse(Action.UNSATISFIABLE, reuse.stored, reuse.state, reuse.forwarded)
    return reuse


def _by_freshness(stored: StoredResponse, asked: Directives, now: float) -> Reuse:
    state = stored.freshness.state(asked, now)
    if asked.no_store:
        return Reuse(Action.FETCH, stored, state, Forwarded.REQUEST)
    match state:
        case State.FRESH | State.STALE_ACCEPTED:
            return Reuse(Action.SERVE, stored, state)
        case State.STALE_SERVE_AND_REFRESH:
            return Reuse(Action.SERVE_AND_REFRESH, stored, state, Forwarded.STALE)
        case State.CLIENT_WANTS_VALIDATION:
            return Reuse(Action.VALIDATE, stored, state, Forwarded.REQUEST)
        case State.STALE_NEEDS_VALIDATION | State.FRESH_NEEDS_VALIDATION:
            return Reuse(Action.VALIDATE, stored, state, Forwarded.STALE)


def _made(stored: StoredResponse, now: float) -> tuple[float, float]:
    date = http_date(stored.fields.get("date") or "", now)
    return (stored.freshness.born if date is None else float(date), stored.freshness.born)
