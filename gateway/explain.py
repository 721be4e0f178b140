"""`gateway explain`: what would be decided about a request, by the same code that decides it, without the network."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.assembly import identity, rate_limits
from gateway.core import target as targets
from gateway.core.errors import ERRORS, Denial
from gateway.core.model import Fields, RequestHead
from gateway.core.rate_policy import Mode, Who
from gateway.core.routes import CacheMode
from gateway.derived import route_table
from gateway.pipeline.decide import FetchKeys, Policy, decide
from gateway.pipeline.exchange import Exchange
from gateway.store.memory import MemoryStore

if TYPE_CHECKING:
    from gateway.core.model import Principal
    from gateway.core.routes import Route
    from gateway.pipeline.admission import Admission
    from gateway.settings import Settings


@dataclass(frozen=True, slots=True)
class Report:
    """What was found, ready to print.

    Attributes:
        allowed: whether the request would go on.
        lines: (label, text) in reading order.
    """

    allowed: bool
    lines: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        width = max(len(label) for label, _ in self.lines)
        return "\n".join(f"{label:<{width}}  {text}" for label, text in self.lines)


def explain(settings: Settings, method: str, target: str, token: str | None) -> Report:
    """Decide about a request and say why.

    Args:
        settings: valid settings.
        method: the request method.
        target: path and query.
        token: a bearer token, or None. With keys at a URL its signature is not checked, and the report says so.
    """
    try:
        canonical = targets.parse(target, strict_api=settings.route_table == "cloud_foundry")
    except Denial as denial:
        return Report(
            allowed=False, lines=(("target", target), ("decision", _refused(denial.reason.value, denial.detail)))
        )
    verifier, unchecked = identity(settings).offline()
    limits = rate_limits(settings)
    admission = None if limits is None else limits[0]
    store = MemoryStore(max_bytes=1 << 20, max_entry_bytes=1 << 20)
    policy = Policy(route_table(settings), verifier, store, admission=admission)
    fields = Fields(() if token is None else (("Authorization", f"bearer {token}"),))
    exchange = Exchange(RequestHead(method, canonical, fields), request_id="", received_at=0)
    outcome = decide(exchange, policy, time.time())
    allowed = exchange.denied is None and not isinstance(outcome, FetchKeys)
    lines = [("request", f"{method} {canonical}")]
    if exchange.route is not None:
        lines += _route(exchange.route)
    lines += _identity(exchange.principal, exchange.token_fault, unchecked=unchecked and token is not None)
    if admission is not None:
        lines += _limits(exchange, admission)
    if exchange.denied is not None:
        lines.append(("decision", _refused(exchange.denied.value, exchange.detail or "")))
        error = ERRORS[exchange.denied]
        lines.append(("answer", f"{error.status} {error.title} ({error.code})"))
    elif isinstance(outcome, FetchKeys):
        lines.append(("decision", f"undecided: the key {outcome.kid!r} is not among those in the settings"))
    else:
        lines.append(("decision", "allowed"))
        lines += _cache(exchange)
    return Report(allowed, tuple(lines))


def _refused(reason: str, detail: str) -> str:
    return f"refused: {reason}{f' ({detail})' if detail else ''}"


def _route(route: Route) -> list[tuple[str, str]]:
    methods = ",".join(sorted(route.methods)) or "*"
    lines = [
        ("route", f"{methods} {route.template}{' (from the settings)' if route.operator else ''}"),
        ("access", route.access.value + (", a bad token is left to the controller" if route.lenient else "")),
        ("scopes required", " | ".join(route.scopes_any) or "none"),
        ("rate class", route.rate),
    ]
    rule = route.cache
    if rule.mode is not CacheMode.POLICY:
        return [*lines, ("cache rule", rule.mode.value)]
    times = f"ttl {rule.ttl:g}s, stale-while-revalidate {rule.stale_while_revalidate:g}s"
    text = f"policy, share {rule.share.value}, {times}, stale-if-error {rule.stale_if_error:g}s"
    return [*lines, ("cache rule", text)]


def _identity(principal: Principal | None, fault: str | None, *, unchecked: bool) -> list[tuple[str, str]]:
    if principal is None:
        return [("token", fault or "none")]
    doubt = ", signature NOT checked (keys are at a URL)" if unchecked else ""
    return [
        ("token", f"{principal.kind.value} {principal.id}{doubt}"),
        ("scopes present", " ".join(sorted(principal.scopes)) or "none"),
    ]


def _limits(exchange: Exchange, admission: Admission) -> list[tuple[str, str]]:
    """The rate policies that count the request, and what it costs when no page answers it."""
    counting, charges = admission.charges(exchange, denied=exchange.denied is not None)
    found = []
    for rule, (_, key, units) in zip(counting, charges, strict=True):
        policy = rule.policy
        whose = key[-1] or ("the client's address" if policy.who in (Who.IP, Who.ANONYMOUS) else "everybody")
        held = f"{policy.bucket.limit:g} per {policy.bucket.window:g}s, {policy.bucket.quota:g} at once"
        shadow = ", shadow" if policy.mode is Mode.SHADOW else ""
        costs = f"{units:g} units ({policy.cost.hit:g} from the cache)"
        found.append(("rate limit", f"{policy.name}: {costs} of {policy.who.value} {whose}; {held}{shadow}"))
    return found or [("rate limit", "none counts it")]


def _cache(exchange: Exchange) -> list[tuple[str, str]]:
    if exchange.key is None or exchange.bypass is not None:
        return [("cache key", f"none: {exchange.bypass.value if exchange.bypass else 'not cached'}")]
    return [("visibility domain", exchange.key.domain), ("cache key", f"{exchange.key.path}{exchange.key.query}")]
