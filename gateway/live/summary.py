"""The numbers that a person looks at first, from a change of the gateway's metrics.

The one place that knows which metric is which number; `gateway top` and the status page only lay them out.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from gateway.live.samples import Change

_REQUESTS: Final = "gateway_requests_total"
_SECONDS: Final = "gateway_request_duration_seconds"
_UPSTREAM: Final = "gateway_upstream_request_duration_seconds"
_SERVED: Final = ("hit", "stale")
_ASKED: Final = ("miss", "collapsed", "revalidated")
_MOST_ROUTES: Final = 12


@dataclass(frozen=True, slots=True)
class RouteLine:
    """One route.

    Attributes:
        route: its template.
        rate: requests a second.
        hit_ratio: share answered from the cache, of those that could be; None when none could.
        p99: seconds.
    """

    route: str
    rate: float
    hit_ratio: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class Summary:
    """A gateway at a glance. Rates are a second, times are seconds; None where nothing was observed.

    Attributes:
        seconds: the time it speaks of.
        requests: requests.
        errors: answers from 500 on.
        refused: answers 401, 403 and 429.
        in_flight: requests under way.
        hit_ratio: share answered from the cache, of those that could be.
        p50: median time of all requests.
        p99: the time that one of a hundred exceeds.
        hit_p99: the same of hits.
        upstream: requests to the controller.
        upstream_mean: mean time the controller took.
        avoided: requests that the controller was spared.
        stale: stale answers, by reason.
        denials: answers made by the gateway, by reason.
        limits: rate limit decisions other than "allowed", by policy.
        verdicts: requests by what the cache did.
        codes: requests by status code.
        routes: the busiest routes.
        entries: pages stored.
        cache_bytes: bytes they count for.
        breaker: state of the worst circuit breaker: 0 closed, 1 half-open, 2 open; None without one.
        budget: least share left of the controller's own limit.
        loop_lag: the event-loop lag that one of a hundred timers exceeds.
        resident_bytes: memory.
        cpu: seconds of processor time a second.
        waiting: keys of the settings that were changed and wait for a restart.
        access: decisions about access: with a token, without one, unjudged, and refusals by name.
        domains: visibility domains that have pages stored, by the class of principals who share them.
    """

    seconds: float
    requests: float
    errors: float
    refused: float
    in_flight: float
    hit_ratio: float | None
    p50: float | None
    p99: float | None
    hit_p99: float | None
    upstream: float
    upstream_mean: float | None
    avoided: float
    stale: dict[str, float]
    denials: dict[str, float]
    limits: dict[str, float]
    verdicts: dict[str, float]
    codes: dict[str, float]
    routes: tuple[RouteLine, ...]
    entries: float
    cache_bytes: float
    breaker: float | None
    budget: float | None
    loop_lag: float | None
    resident_bytes: float | None
    cpu: float | None
    waiting: tuple[str, ...] = ()
    access: dict[str, float] = field(default_factory=dict)
    domains: dict[str, float] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """The same as JSON's own types."""
        return asdict(self)


def summarize(change: Change) -> Summary:
    """What a person wants to know of a change of the gateway's metrics."""
    now = change.after
    codes = change.rates(_REQUESTS, "code")
    verdicts = change.rates(_REQUESTS, "cache")
    routes = change.rates(_REQUESTS, "route")
    return Summary(
        seconds=change.seconds,
        requests=change.rate(_REQUESTS),
        errors=sum(rate for code, rate in codes.items() if code.startswith("5")),
        refused=sum(codes.get(code, 0.0) for code in ("401", "403", "429")),
        in_flight=now.total("gateway_requests_in_flight"),
        hit_ratio=_hit_ratio(verdicts),
        p50=change.quantile(_SECONDS, 0.5),
        p99=change.quantile(_SECONDS, 0.99),
        hit_p99=change.quantile(_SECONDS, 0.99, cache="hit"),
        upstream=change.rate(f"{_UPSTREAM}_count"),
        upstream_mean=change.mean(_UPSTREAM),
        avoided=sum(verdicts.get(verdict, 0.0) for verdict in (*_SERVED, "collapsed")),
        stale=change.rates("gateway_cache_stale_served_total", "reason"),
        denials=change.rates("gateway_denials_total", "reason"),
        limits={
            policy: rate
            for policy in change.after.values("gateway_ratelimit_decisions_total", "policy")
            if (rate := change.rate("gateway_ratelimit_decisions_total", policy=policy, decision="limited"))
        },
        verdicts=verdicts,
        codes=codes,
        routes=tuple(_route(change, route, rate) for route, rate in list(routes.items())[:_MOST_ROUTES]),
        entries=now.total("gateway_cache_entries"),
        cache_bytes=now.total("gateway_cache_bytes"),
        breaker=now.worst("gateway_upstream_breaker_state"),
        budget=now.worst("gateway_upstream_budget_ratio"),
        loop_lag=change.quantile("gateway_event_loop_lag_seconds", 0.99),
        resident_bytes=now.worst("process_resident_memory_bytes"),
        cpu=change.rate("process_cpu_seconds_total") if "process_cpu_seconds_total" in now.series else None,
        waiting=tuple(sorted(now.values("gateway_config_restart_required", "key"))),
        access=change.rates("gateway_auth_decisions_total", "reason"),
        domains={
            kind: count
            for kind in sorted(now.values("gateway_cache_domains", "kind"))
            if (count := now.total("gateway_cache_domains", kind=kind))
        },
    )


def _route(change: Change, route: str, rate: float) -> RouteLine:
    verdicts = change.rates(_REQUESTS, "cache", route=route)
    return RouteLine(route, rate, _hit_ratio(verdicts), change.quantile(_SECONDS, 0.99, route=route))


def _hit_ratio(verdicts: dict[str, float]) -> float | None:
    served = sum(verdicts.get(verdict, 0.0) for verdict in _SERVED)
    asked = sum(verdicts.get(verdict, 0.0) for verdict in _ASKED)
    return served / (served + asked) if served + asked else None
