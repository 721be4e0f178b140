"""Mode `origin`, the synchronous half: which stored response answers a request, and how it is written (RFC 9111).

Called from the steps of `decide`; like them it never waits. What is stored, fetched and shared is in `origin_fetch.py`;
the rules themselves are in `core`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from gateway.core import cache_status, ranges
from gateway.core.caching import request_directives
from gateway.core.conditional import Precondition, evaluate, not_modified_fields, range_applies
from gateway.core.early import refresh_early
from gateway.core.errors import Denial, Reason
from gateway.core.freshness import State
from gateway.core.keys import CacheKey
from gateway.core.reuse import Action, Forwarded, Reuse, may_reuse
from gateway.core.validation import validation_request
from gateway.pipeline.entry import CLOCK_SKEW
from gateway.pipeline.exchange import Bypass, Exchange, Reply, Stale, Verdict
from gateway.pipeline.resource import Resource

if TYPE_CHECKING:
    from gateway.core.cache_status import Forward
    from gateway.core.caching import StoredResponse
    from gateway.core.freshness import Freshness
    from gateway.core.model import Fields, RequestHead, VisibilityDomain
    from gateway.pipeline.ports import PageStore
    from gateway.pipeline.resource import Variant

# The key's variant part: pages of mode `policy` and responses of this mode never meet under one key.
KEY_VARIANT: Final = "origin"
# Addressed to this cache alone, so it goes no further (RFC 9213 §2).
_CONSUMED: Final = "gateway-cache-control"
# Whoever asks for these wants to hear it from the origin: a cache does not judge them (RFC 9111 §4.3.2).
_ORIGINS_TO_JUDGE: Final = ("if-match", "if-unmodified-since")
_FORWARD: Final[dict[Forwarded, Forward]] = {
    Forwarded.METHOD: "method",
    Forwarded.URI_MISS: "uri-miss",
    Forwarded.VARY_MISS: "vary-miss",
    Forwarded.REQUEST: "request",
    Forwarded.STALE: "stale",
}


@dataclass(frozen=True, slots=True)
class Lookup:
    """What the store had for a request.

    Attributes:
        resource: everything stored for its target, None when nothing is.
        reuse: what may be done with it.
    """

    resource: Resource | None
    reuse: Reuse

    @property
    def variant(self) -> Variant | None:
        """The stored response that the request selects."""
        if self.resource is None or self.reuse.stored is None:
            return None
        return self.resource.variant_of(self.reuse.stored)


def bypass(head: RequestHead) -> Bypass | None:
    """Why the cache has no part in a request for a row of mode `origin`."""
    if head.method not in {"GET", "HEAD"}:
        return Bypass.METHOD
    if head.has_body:
        return Bypass.CONTENT
    if any(name in head.fields for name in _ORIGINS_TO_JUDGE):
        return Bypass.PRECONDITION
    return None


def key(head: RequestHead, domain: VisibilityDomain) -> CacheKey:
    """The primary key (RFC 9111 §2): the target as it came, since only the origin knows what its query means."""
    target = head.target
    return CacheKey(domain.id, target.path, "" if target.query is None else f"?{target.query}", KEY_VARIANT)


def lookup(exchange: Exchange, store: PageStore, now: float, *, chance: float) -> None:
    """Find what is stored for the exchange and say what may be done with it.

    Args:
        exchange: an exchange with a key; its `origin` and verdict are written.
        store: where to look.
        now: epoch seconds.
        chance: a random number from 0 to 1, for the early refresh.

    Raises:
        Denial: only-if-cached, and nothing may be served (RFC 9111 §5.2.1.7).
    """
    found = store.get(exchange.key) if exchange.key is not None else None
    resource = found if isinstance(found, Resource) and found.key == exchange.key else None
    stored = () if resource is None else resource.responses
    candidates = tuple(response for response in stored if response.freshness.born <= now + CLOCK_SKEW)
    reuse = may_reuse(exchange.head.method, exchange.head.fields, candidates, now)
    exchange.origin = Lookup(resource, reuse)
    match reuse.action:
        case Action.UNSATISFIABLE:
            raise Denial(Reason.ONLY_IF_CACHED)
        case Action.SERVE if reuse.state is State.FRESH:
            exchange.verdict = Verdict.HIT
            exchange.refresh = _early(exchange.origin, now, chance)
        case Action.SERVE | Action.SERVE_AND_REFRESH:
            exchange.verdict = Verdict.STALE
            exchange.refresh = reuse.action is Action.SERVE_AND_REFRESH
            exchange.stale = Stale.REVALIDATING if exchange.refresh else Stale.ACCEPTED
        case Action.VALIDATE if reuse.forwarded is Forwarded.REQUEST:
            exchange.verdict = Verdict.REVALIDATED
        case Action.VALIDATE | Action.FETCH:
            exchange.verdict = Verdict.MISS


def _early(found: Lookup, now: float, chance: float) -> bool:
    """Whether this hit on a fresh response begins a refresh behind it."""
    variant = found.variant
    if variant is None:
        return False
    freshness = variant.response.freshness
    return refresh_early(
        now=now,
        stored_at=freshness.born,
        fresh_until=freshness.fresh_until,
        fetch_seconds=variant.seconds,
        chance=chance,
    )


def serve(exchange: Exchange, variant: Variant, cache_name: str, now: float) -> Reply:
    """A stored response as the answer to this request: 304, the part asked for, or all of it.

    Preconditions come before ranges (RFC 9110 §13.2.2), and both only count for a 200 (§13.2.1, §14.2).

    Args:
        exchange: the request; its verdict says how the response came to be served.
        variant: the response, of the exchange's own key.
        cache_name: name in Cache-Status.
        now: epoch seconds.
    """
    response, head = variant.response, exchange.head
    fields = served_fields(exchange, response, cache_name, now).without("content-length")
    if response.status == 200:
        if evaluate(head.method, head.fields, response.fields, now) is Precondition.NOT_MODIFIED:
            return Reply(304, not_modified(fields))
        asked = head.fields.get_all("range")
        if asked and head.method == "GET" and range_applies(head.fields, response.fields, now):
            parts = ranges.select(asked, len(variant.body))
            if parts is ranges.NoRange.UNSATISFIABLE:
                status, only, body = ranges.unsatisfiable(fields, len(variant.body))
                return Reply(status, only.plus(*_own(fields)), body)
            if not isinstance(parts, ranges.NoRange):
                return Reply(*ranges.partial(fields, variant.body, parts, uuid4().hex))
    if response.status == 204:
        return Reply(204, fields)
    if head.method == "HEAD":
        return Reply(response.status, fields.plus(("Content-Length", str(len(variant.body)))))
    return Reply(response.status, fields, variant.body)


def not_modified(fields: Fields) -> Fields:
    """The fields of a 304 in place of a response with these, which already carry what this cache says."""
    return not_modified_fields(fields).plus(*_own(fields))


def _own(fields: Fields) -> tuple[tuple[str, str], ...]:
    """What this cache said of the answer, which holds for its shorter forms too."""
    return tuple(pair for pair in fields if pair[0] in {"Age", "Via", "Cache-Status"})


def served_fields(exchange: Exchange, response: StoredResponse, cache_name: str, now: float) -> Fields:
    """The fields of a stored response as they are sent: with its Age, and without what was meant for this cache."""
    own = describe(exchange, cache_name, response.freshness, now)
    kept = response.fields.without("age", "cache-status", _CONSUMED)
    status = cache_status.append(response.fields.get_all("cache-status"), own)
    age = str(int(response.freshness.age(now)))
    return kept.plus(("Age", age), (cache_status.FIELD, status))


def passed_fields(exchange: Exchange, fields: Fields, cache_name: str, now: float) -> Fields:
    """The fields of an answer that is passed on and not stored."""
    status = cache_status.append(fields.get_all("cache-status"), describe(exchange, cache_name, None, now))
    return fields.without("cache-status", _CONSUMED).plus((cache_status.FIELD, status))


def describe(exchange: Exchange, cache_name: str, fresh: Freshness | None, now: float) -> str:
    """The Cache-Status member of an exchange in mode `origin` (RFC 9211 §2).

    Args:
        exchange: what became of it.
        cache_name: name in Cache-Status.
        fresh: freshness of the stored response that is served, if one is.
        now: epoch seconds.
    """
    ttl = None if fresh is None else math.floor(fresh.ttl(now))
    if exchange.bypass is not None:
        method = exchange.bypass is Bypass.METHOD
        return cache_status.render(
            cache_name,
            fwd="method" if method else "bypass",
            fwd_status=exchange.fwd_status,
            detail=None if method else exchange.bypass.value,
        )
    if exchange.fwd_status is None and exchange.detail is None and exchange.verdict in {Verdict.HIT, Verdict.STALE}:
        return cache_status.render(cache_name, hit=True, ttl=ttl)
    reuse = None if exchange.origin is None else exchange.origin.reuse
    return cache_status.render(
        cache_name,
        fwd=_FORWARD[reuse.forwarded] if reuse is not None and reuse.forwarded is not None else "miss",
        fwd_status=exchange.fwd_status,
        ttl=ttl,
        stored=exchange.stored,
        collapsed=exchange.collapsed,
        detail=exchange.detail,
    )


def collapsible(exchange: Exchange, now: float) -> bool:
    """Whether a request may lead or join a fetch that others share.

    Not when it says that only the origin's own word to *it* counts, nor when it would be sent with a range or with
    conditions of its own; a validation of what is stored replaces these.
    """
    head, found = exchange.head, exchange.origin
    asked = request_directives(head.fields)
    if asked.no_cache or asked.no_store or asked.max_age == 0:
        return False
    if not any(name in head.fields for name in ("range", "if-none-match", "if-modified-since")):
        return True
    if found is None or found.reuse.stored is None or found.reuse.action is not Action.VALIDATE:
        return False
    return validation_request(head.fields, found.reuse.stored, now) is not None
