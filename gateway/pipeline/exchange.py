"""The per-request context: what is known about one exchange so far, filled in step by step.

A plain record with slots. It decides nothing; `decide` and `fulfil` write it, delivery and recording read it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.core.errors import Reason
    from gateway.core.keys import CacheKey
    from gateway.core.model import Fields, Principal, RequestHead
    from gateway.core.routes import Route
    from gateway.core.tracing import TraceContext
    from gateway.pipeline.decision import Decision
    from gateway.pipeline.entry import Entry
    from gateway.pipeline.known import Known
    from gateway.pipeline.origin import Lookup


class Stream(Protocol):
    """Content that arrives piece by piece; must be exhausted or closed."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The pieces."""

    async def aclose(self) -> None:
        """Let go of what it is read from."""


class Bypass(Enum):
    """Why a request is not answered from, or kept out of, the cache; the `detail` of Cache-Status (RFC 9211 §2.8)."""

    METHOD = "method"
    ROUTE = "route"
    ORIGIN_FIELD = "origin-field"
    RANGE = "range"
    CONTENT = "request-content"
    COOKIE = "cookie"  # it may be what the answer depends on, and it is not in the key
    ACCEPT = "accept"
    QUERY = "query"
    TOKEN = "unverified-token"  # noqa: S105 - a reason, not a secret
    NO_STORE = "no-store"
    PRECONDITION = "precondition"


class Verdict(Enum):
    """What the cache did; the closed `cache` label of metrics and logs."""

    NONE = "none"  # answered before the cache was asked
    HIT = "hit"
    STALE = "stale"
    MISS = "miss"
    REVALIDATED = "revalidated"  # the client did not want the stored page
    COLLAPSED = "collapsed"  # a miss that waited for another's fetch
    BYPASS = "bypass"

    __hash__ = object.__hash__  # members are compared by identity; Enum's own hash is Python code on every hit


class Chosen(Enum):
    """What a hit was chosen for by a die that fell before `decide` was asked."""

    EARLY = "early"  # to refresh its page before that is stale
    DRIFT = "drift"  # to have it compared with what the controller says now


class Stale(Enum):
    """Why a page past its time was served; the closed `reason` label of `gateway_cache_stale_served_total`."""

    REVALIDATING = "revalidating"  # it is being fetched anew (RFC 5861 §3)
    ACCEPTED = "accepted"  # the client said max-stale (RFC 9111 §5.2.1.2)
    UNREACHABLE = "unreachable"  # the controller failed in the way `UpstreamError.kind` says (RFC 5861 §4)
    TIMEOUT = "timeout"
    BROKEN = "broken"
    STATUS = "status"  # it answered 500, 502, 503 or 504
    BREAKER = "breaker"  # it was not asked: it has failed too often just now
    OVERLOAD = "overload"  # it was not asked: too many requests wait for it
    BUDGET = "budget"  # little of the controller's own rate limit is left


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer ready to be delivered.

    Attributes:
        status: status code.
        fields: response fields without framing ones, except a Content-Length that describes a body not in hand.
        body: the whole content, or a stream of it, or None when there is none.
        reason: the reason phrase when it is not the usual one.
    """

    status: int
    fields: Fields
    body: bytes | Stream | None = field(default=None, repr=False)
    reason: str | None = None


_NONE: Final = Verdict.NONE  # looking a member up costs as much as all the other fields of an exchange


class Exchange:
    """One request on its way through the pipeline."""

    __slots__ = (
        "asked",
        "bypass",
        "chosen",
        "collapsed",
        "denied",
        "detail",
        "drift",
        "entry",
        "filed",
        "fwd_status",
        "head",
        "key",
        "keys_fetched",
        "known",
        "like",
        "limited",
        "max_body_bytes",
        "origin",
        "principal",
        "rate_lines",
        "received_at",
        "refresh",
        "request_id",
        "route",
        "saved_seconds",
        "stale",
        "status",
        "step",
        "stored",
        "token",
        "token_fault",
        "trace",
        "upstream_seconds",
        "verdict",
    )

    def __init__(
        self,
        head: RequestHead,
        *,
        request_id: str,
        received_at: float,
        known: Known | None = None,
        token: str | None = None,
    ) -> None:
        """Begin an exchange.

        Args:
            head: the request head, target already canonical.
            request_id: the id sent to the controller (controller.md §4).
            received_at: when the head had arrived, epoch seconds.
            known: what was settled for such a head before, to be read and filled in; None when nobody keeps it.
            token: what `bearer.extract` would take from the head, when whoever read it knows; else None.
        """
        self.head = head
        self.request_id = request_id
        self.received_at = received_at
        self.known = known
        self.token = token
        self.step = 0
        self.route: Route | None = None
        self.principal: Principal | None = None
        self.token_fault: str | None = None
        self.keys_fetched = False
        self.key: CacheKey | None = None
        self.entry: Entry | None = None
        self.origin: Lookup | None = None
        self.verdict = _NONE
        self.bypass: Bypass | None = None
        self.refresh = False
        self.chosen: Chosen | None = None
        self.drift = False  # the refresh is also to tell whether the page was still what the controller says
        self.stale: Stale | None = None
        self.collapsed = False
        self.stored = False
        self.detail: str | None = None
        self.fwd_status: int | None = None
        self.denied: Reason | None = None
        self.rate_lines = ""  # fields of the answer, whatever it will be (core/rate_fields.py)
        self.limited: tuple[str, ...] = ()  # the rate policies that refused, those in shadow mode included
        self.max_body_bytes: int | None = None  # of the request content, by the settings or by the route
        self.status = 0
        self.upstream_seconds = 0.0
        self.saved_seconds = 0.0  # what the controller took for another's request that answered this one too
        self.trace: TraceContext | None = None
        self.asked: tuple[str, float] | None = None  # the span of asking the controller, and when that began
        # Of an exchange that is used again (standing.py): what is said of each, and what a recorder counts it under.
        self.like: Decision | None = None
        self.filed: Any = None

    def stand_in(self, reason: Stale, status: int | None) -> None:
        """Note that a stored page is served in place of a failure (RFC 5861 §4).

        Args:
            reason: how the controller failed.
            status: what it answered, None when it did not.
        """
        self.verdict, self.stale, self.fwd_status = Verdict.STALE, reason, status
        self.detail = "stale-if-error" if reason is Stale.STATUS else f"stale-if-error: {reason.value}"

    @property
    def row(self) -> Route:
        """The route, once the first step has found it."""
        if self.route is None:
            raise RuntimeError("this exchange has not been routed")
        return self.route
