"""The synchronous front half: route, authenticate, authorize, key, lookup, admit, precondition.

Pure policy over an `Exchange`: an ordinary function without `await`, so that it can be called from any lane and tested
with literal values. Each step either lets the exchange go on (None) or ends the front half with an outcome. A need is
satisfied by `fulfil`, which calls `decide` again; the exchange continues at the step that stated it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from gateway.core import bearer
from gateway.core.early import refresh_early
from gateway.core.errors import Denial, Reason, render
from gateway.core.fields import cache_control
from gateway.core.keys import CacheKey, accept_class, canonical_query, shareable_query
from gateway.core.model import ANONYMOUS_DOMAIN, PUBLIC_DOMAIN, Principal
from gateway.core.routes import Access, CacheMode, Route, RouteTable, Share
from gateway.pipeline import origin
from gateway.pipeline.admission import FREE, Admission
from gateway.pipeline.content import limit_content
from gateway.pipeline.entry import CLOCK_SKEW, Entry
from gateway.pipeline.exchange import Bypass, Chosen, Exchange, Reply, Stale, Verdict
from gateway.pipeline.ports import KeyUnknown, PageStore, Rejected, TokenVerifier
from gateway.pipeline.representation import from_entry

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.core.fields import Directives
    from gateway.core.model import VisibilityDomain
    from gateway.pipeline.budget import Budget
    from gateway.pipeline.drift import Drift
    from gateway.pipeline.representation import Encoder


def _never() -> float:
    return 1.0


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything `decide` judges by.

    Attributes:
        routes: the route table.
        verifier: bearer token verification.
        store: cached pages.
        cache_name: the gateway's name in Cache-Status (RFC 9211 §2).
        chance: a number between 0 and 1 for each hit, by which one of many refreshes a page early; 1 is never.
        admission: rate limits, None for none.
        budget: what the controller's own limits leave, None when nobody looks.
        debug_scopes: who has one of these and sends `Gateway-Debug: 1` is told the decision in a field of the answer.
        encoder: makes encoded forms of pages, None when there are none.
        emit_groups: whether caches behind the gateway are told of cache groups (RFC 9875).
        drift: samples hits whose page is compared with the controller's answer of now, None for none.
    """

    routes: RouteTable
    verifier: TokenVerifier
    store: PageStore
    cache_name: str = "gateway"
    chance: Callable[[], float] = _never
    admission: Admission | None = None
    budget: Budget | None = None
    encoder: Encoder | None = None
    emit_groups: bool = False
    drift: Drift | None = None
    debug_scopes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class FetchKeys:
    """A need: the token names a key that is not held.

    Attributes:
        kid: the key id in the token's header, None when it has none.
    """

    kid: str | None


@dataclass(frozen=True, slots=True)
class Fetch:
    """A need: the controller must be asked.

    Attributes:
        fill: whether the answer may be stored under the exchange's key.
    """

    fill: bool


Outcome = Reply | FetchKeys | Fetch


def decide(exchange: Exchange, policy: Policy, now: float) -> Outcome:
    """Carry an exchange as far as it goes without waiting.

    Args:
        exchange: the request so far; written to.
        policy: what to judge by.
        now: epoch seconds.

    Returns:
        The answer, or what must be had before there can be one.
    """
    known = exchange.known
    try:
        if known is not None and exchange.step == 0 and known.policy is policy:
            exchange.route, exchange.step = known.route, _AUTHENTICATE
            need = authenticate(exchange, policy, now)
            if need is not None:
                return need
            settled = known.key_for(exchange.principal) if exchange.token_fault is None else None
            exchange.key = settled
            exchange.step = _AUTHENTICATE + 1 if settled is None else _LOOKUP
        while exchange.step < len(STEPS):
            outcome = STEPS[exchange.step](exchange, policy, now)
            if outcome is not None:
                return outcome
            exchange.step += 1
    except Denial as denial:
        # What is refused before it could be admitted counts too, or guessing would be free.
        if policy.admission is not None and exchange.step < _ADMIT:
            denial = policy.admission.refused(exchange, denial, now)
        return refuse(exchange, denial)
    return Fetch(fill=exchange.key is not None and exchange.bypass is None and exchange.head.method == "GET")


def refuse(exchange: Exchange, denial: Denial) -> Reply:
    """A denial as the reply of this exchange."""
    exchange.denied = denial.reason
    exchange.detail = denial.detail or None
    status, fields, body = render(denial, exchange.head.target.path)
    return Reply(status, fields, body)


def route(exchange: Exchange, policy: Policy, _now: float) -> None:
    """Find the row of the table."""
    row = policy.routes.match(exchange.head.method, exchange.head.target.path)
    if row is None:
        raise Denial(Reason.UNKNOWN_ROUTE)
    exchange.route = row
    if row.access is Access.DENY:
        raise Denial(Reason.DENIED_ROUTE, f"the rule {row.template} lets nobody pass")
    if exchange.head.has_body:
        limit_content(exchange, row)


def authenticate(exchange: Exchange, policy: Policy, now: float) -> FetchKeys | None:
    """Find out whom the token speaks for (RFC 6750, RFC 7519, controller.md §2).

    A public row does not fail on a bad token, and a lenient one leaves it to the controller.
    """
    row, admission = exchange.row, policy.admission
    if row.access is _PUBLIC and tokenless(row, policy):
        return None
    try:
        token = exchange.token or bearer.extract(exchange.head.fields.get_all("authorization"))
        if token is None:
            raise bearer.no_token()
        if admission is not None:
            admission.guard(exchange, token, policy.verifier, now)
        verdict = policy.verifier.verify(token, now)
        if isinstance(verdict, KeyUnknown):
            if not exchange.keys_fetched:
                return FetchKeys(verdict.kid)
            verdict = Rejected("unknown-key")
        if isinstance(verdict, Rejected):
            if admission is not None:
                admission.failed(admission.failure(exchange), now)
            raise bearer.invalid_token(verdict.fault, verdict.detail)
    except Denial as denial:
        exchange.token_fault = denial.detail or denial.reason.value
        if not forgiving(row) or (denial.reason is Reason.IP_RATE_LIMITED and row.rate not in FREE):
            raise
        return None
    exchange.principal = verdict
    return None


def tokenless(row: Route, policy: Policy) -> bool:
    """Whether nobody asks who makes requests of this row."""
    if row.access is not _PUBLIC or (row.cache.mode is not CacheMode.OFF and row.cache.share is not Share.PUBLIC):
        return False
    return policy.admission is None or not policy.admission.identifies(row)


def forgiving(row: Route) -> bool:
    """Whether a request of this row goes on without a token, or with one that does not count or cannot be judged."""
    return row.lenient or row.access is Access.PUBLIC


def authorize(exchange: Exchange, _policy: Policy, _now: float) -> None:
    """Check that the token carries one of the scopes the row asks for."""
    row = exchange.row
    principal = exchange.principal
    if row.access is not Access.SCOPES or principal is None or not row.scopes_any:
        return
    if principal.scopes.isdisjoint(row.scopes_any):
        raise bearer.insufficient_scope(row.scopes_any, principal.scopes)


def key(exchange: Exchange, policy: Policy, _now: float) -> None:
    """Say under which key a page of this request is kept, or name why it is not."""
    _file(exchange)
    known = exchange.known
    if known is not None and exchange.bypass is None and exchange.token_fault is None:
        known.settle(policy, exchange.route, exchange.principal, exchange.key)


def _file(exchange: Exchange) -> None:
    exchange.bypass = _bypass(exchange)
    if exchange.bypass is not None:
        exchange.verdict = Verdict.BYPASS
        return
    domain = _domain(exchange)
    if domain is not None and exchange.row.cache.mode is CacheMode.ORIGIN:
        exchange.key = origin.key(exchange.head, domain)
        return
    variant = accept_class(exchange.head.fields.get_all("accept"))
    if domain is None or variant is None:
        exchange.bypass = Bypass.TOKEN if domain is None else Bypass.ACCEPT
        exchange.verdict = Verdict.BYPASS
        return
    target = exchange.head.target
    exchange.key = CacheKey(domain.id, target.path, canonical_query(target.query), variant)


def lookup(exchange: Exchange, policy: Policy, now: float) -> None:
    """Look for a page that may answer this request, within what its Cache-Control allows (RFC 9111 §5.2.1)."""
    key = exchange.key
    if key is not None and exchange.row.cache.mode is _ORIGIN:
        origin.lookup(exchange, policy.store, now, chance=policy.chance())
        return
    asked = cache_control(exchange.head.fields.get_all("cache-control"))
    if key is not None and asked.no_store:
        exchange.bypass = Bypass.NO_STORE
        exchange.verdict = Verdict.BYPASS
    if key is not None and exchange.bypass is None:
        entry = policy.store.get(key)
        # The key holds the domain; what the store hands out is believed only if it says so itself.
        if isinstance(entry, Entry) and entry.key == key and entry.stored_at <= now + CLOCK_SKEW:
            exchange.entry = entry
        verdict = exchange.verdict = _verdict(exchange.entry, asked, now)
        if verdict is _STALE:
            exchange.stale, exchange.refresh = Stale.REVALIDATING, True
        else:
            exchange.stale, exchange.refresh = None, _due_early(exchange, policy, now)
        if policy.drift is not None and verdict is _HIT and (exchange.chosen is Chosen.DRIFT or policy.drift.due()):
            exchange.refresh = exchange.drift = True
        # Out of touch a page may lack what was written elsewhere: it stands in for a controller that fails, not for one
        # that is to be spared.
        if policy.budget is not None and ((in_touch := policy.store.in_touch) is None or in_touch()):
            policy.budget.spare(exchange, now)
    if asked.only_if_cached and exchange.head.method in _READS and exchange.verdict not in _SERVED:
        raise Denial(Reason.ONLY_IF_CACHED)


def _due_early(exchange: Exchange, policy: Policy, now: float) -> bool:
    entry = exchange.entry
    if entry is None or exchange.verdict is not _HIT or not exchange.row.cache.early_refresh:
        return False
    if exchange.chosen is not None:
        return exchange.chosen is Chosen.EARLY
    return refresh_early(
        now=now,
        stored_at=entry.stored_at,
        fresh_until=entry.fresh_until,
        fetch_seconds=entry.fetch_seconds,
        chance=policy.chance(),
    )


def admit(exchange: Exchange, policy: Policy, now: float) -> None:
    """Take what the request costs from every rate limit that counts it, or refuse it."""
    if policy.admission is not None:
        policy.admission.admit(exchange, now)


def precondition(exchange: Exchange, policy: Policy, now: float) -> Reply | None:
    """Answer from the page: 304 when the client has it already, else the page (RFC 9110 §13)."""
    if exchange.verdict not in _SERVED:
        return None
    if exchange.origin is not None and exchange.origin.variant is not None:
        return origin.serve(exchange, exchange.origin.variant, policy.cache_name, now)
    return None if exchange.entry is None else from_entry(exchange, exchange.entry, policy, now)


_READS: Final = frozenset({"GET", "HEAD"})
_SERVED: Final = frozenset({Verdict.HIT, Verdict.STALE})
_HIT: Final = Verdict.HIT  # looking a member up costs as much as the rest of a step
_STALE: Final = Verdict.STALE
_PUBLIC: Final = Access.PUBLIC
_ORIGIN: Final = CacheMode.ORIGIN

Step: TypeAlias = "Callable[[Exchange, Policy, float], Reply | FetchKeys | None]"
STEPS: Final[tuple[Step, ...]] = (route, authenticate, authorize, key, lookup, admit, precondition)
_AUTHENTICATE: Final = STEPS.index(authenticate)
_LOOKUP: Final = STEPS.index(lookup)
_ADMIT: Final = STEPS.index(admit)


def _bypass(exchange: Exchange) -> Bypass | None:
    """Why the cache has no part in this request, whatever its domain is."""
    head = exchange.head
    if head.method not in _READS:
        return Bypass.METHOD
    if exchange.row.cache.mode is CacheMode.OFF:
        return Bypass.ROUTE
    if exchange.principal is None and exchange.row.cache.share is not Share.PUBLIC and "cookie" in head.fields:
        return Bypass.COOKIE
    if exchange.row.cache.mode is CacheMode.ORIGIN:
        return origin.bypass(head)
    if "origin" in head.fields:
        return Bypass.ORIGIN_FIELD
    if "range" in head.fields:
        return Bypass.RANGE
    if head.has_body:
        return Bypass.CONTENT
    return None if shareable_query(head.target.query) else Bypass.QUERY


def _domain(exchange: Exchange) -> VisibilityDomain | None:
    """The visibility domain of this request's page; None when the token could not be judged."""
    row = exchange.row
    principal: Principal | None = exchange.principal
    if row.access is Access.PUBLIC and row.cache.share is Share.PUBLIC:
        return PUBLIC_DOMAIN
    if principal is None:
        anonymous = row.access is Access.PUBLIC and "authorization" not in exchange.head.fields
        return ANONYMOUS_DOMAIN if anonymous else None
    if row.cache.share is Share.GLOBAL and principal.global_domain is not None:
        return principal.global_domain
    return principal.domain


def _verdict(entry: Entry | None, asked: Directives, now: float) -> Verdict:
    """What becomes of a request whose stored page is `entry`, fresh, refreshable or neither."""
    if asked.no_cache:
        return Verdict.REVALIDATED
    if entry is None or (now >= entry.fresh_until and now >= entry.refresh_until):
        return Verdict.MISS
    if asked.max_age is not None and now - entry.stored_at > asked.max_age:
        return Verdict.REVALIDATED
    return _HIT if now < entry.fresh_until else _STALE
