"""From counted series to metric families: what Prometheus is given when it asks. Nothing is counted here.

Every name, help text and label set of the gateway's own counting stands here; what other parts count comes in through
`Read`. Closed label sets are exposed in full from the start, so that rates have a first value.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from gateway.core.errors import Reason
from gateway.pipeline.exchange import Stale

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prometheus_client.core import Metric

    from gateway.telemetry.metrics import Metrics
    from gateway.telemetry.series import Histogram, Series

Values: TypeAlias = "float | Mapping[str, float] | Mapping[tuple[str, ...], float]"
Merge: TypeAlias = Literal["sum", "max", "min"]

COUNTERS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "gateway_requests_total": (
        (
            "Requests by route template, method, status code (499: the client left before the answer; other: none that "
            "HTTP knows) and what the cache did: none, hit, stale, miss, revalidated, collapsed or bypass."
        ),
        ("route", "method", "code", "cache"),
    ),
    "gateway_denials_total": ("Answers that the gateway made itself, by the name in X-Gateway-Error.", ("reason",)),
    "gateway_cache_stale_served_total": (
        (
            "Pages served past their time, by why: revalidating (fetched anew behind the answer), accepted (the client "
            "said max-stale), budget (to spare the controller's own rate limit), or in place of a failure of the "
            "controller: unreachable, timeout, broken, breaker, overload, status (500, 502, 503, 504)."
        ),
        ("reason",),
    ),
    "gateway_auth_decisions_total": (
        (
            "Decisions about access. allowed: token, public (the route asks for none), unjudged (left to the "
            "controller); denied: the refusal's name."
        ),
        ("result", "reason"),
    ),
    "gateway_cache_requests_avoided_total": (
        (
            "Answers for which the controller was not asked: hits, stale pages that stand in for no failure, requests "
            "that waited for another's fetch. Fetches behind answers are gateway_cache_refreshes_total."
        ),
        ("route",),
    ),
    "gateway_cache_upstream_saved_seconds_total": (
        "The controller's time for these, as long as the fetch of each page had taken.",
        ("route",),
    ),
}
HISTOGRAMS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "gateway_request_duration_seconds": ("From the request head to the last byte of the answer.", ("route", "cache")),
    "gateway_upstream_request_duration_seconds": (
        "From sending a request to the controller to its answer.",
        ("route",),
    ),
    "gateway_overhead_seconds": (
        (
            "What of a request's duration was not the controller's: the gateway's own time, and the client's to take "
            "the answer."
        ),
        ("cache",),
    ),
    "gateway_cache_served_age_seconds": ("Age of the stored pages that were answers.", ("cache",)),
    "gateway_event_loop_lag_seconds": ("By how much a timer missed its time, four times a second.", ()),
}
_DENIED: Final = ("no-token", "invalid-token", "insufficient-scope", "denied-route", "keys-unavailable")


class ExchangeFamilies:
    """A collector over the series of `Metrics`.

    Args:
        metrics: who counts.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics: Final = metrics

    def describe(self) -> Iterable[Metric]:
        """The families without samples."""
        yield from (CounterMetricFamily(name, text, labels=labels) for name, (text, labels) in COUNTERS.items())
        yield from (HistogramMetricFamily(name, text, labels=labels) for name, (text, labels) in HISTOGRAMS.items())

    def collect(self) -> Iterator[Metric]:
        """Everything counted until now."""
        metrics = self._metrics
        series = list(metrics.series.values())
        for one in series:
            one.settle()
        yield _counter(
            "gateway_requests_total", _sums(series, lambda one: (one.route, one.method, one.code, one.cache))
        )
        reasons = {(reason.value,): 0.0 for reason in Reason}
        yield _counter("gateway_denials_total", reasons | _sums(series, lambda one: one.denied and (one.denied,)))
        stale = {(reason.value,): 0.0 for reason in Stale}
        yield _counter(
            "gateway_cache_stale_served_total", stale | _sums(series, lambda one: one.stale and (one.stale,))
        )
        allowed = {("allowed", reason): 0.0 for reason in ("token", "public", "unjudged")}
        auth = allowed | {("denied", reason): 0.0 for reason in _DENIED}
        yield _counter("gateway_auth_decisions_total", auth | _sums(series, lambda one: one.auth))
        avoided = [one for one in series if one.avoided]
        yield _counter("gateway_cache_requests_avoided_total", _sums(avoided, lambda one: (one.route,)))
        saved: dict[tuple[str, ...], float] = defaultdict(float)
        for one in avoided:
            saved[one.route,] += one.saved
        yield _counter("gateway_cache_upstream_saved_seconds_total", saved)
        yield _histogram("gateway_request_duration_seconds", metrics.seconds)
        upstream = metrics.upstream_seconds.items()
        asked: dict[tuple[str, ...], Histogram] = {(route,): each for route, each in upstream if any(each.counts)}
        yield _histogram("gateway_upstream_request_duration_seconds", asked)
        yield _histogram("gateway_overhead_seconds", {(cache,): each for cache, each in metrics.overhead.items()})
        yield _histogram("gateway_cache_served_age_seconds", {(cache,): each for cache, each in metrics.ages.items()})
        yield _histogram("gateway_event_loop_lag_seconds", {(): metrics.lag})


class Read:
    """A collector over somebody else's numbers.

    Args:
        name: metric name; one ending in `_total` is a counter, any other a gauge.
        help_text: what it says.
        read: the value, or values by label value or values.
        labels: the labels' names.
    """

    def __init__(self, name: str, help_text: str, read: Callable[[], Values], labels: tuple[str, ...]) -> None:
        self._name: Final = name
        self._help: Final = help_text
        self._read: Final = read
        self._labels: Final = labels

    def describe(self) -> Iterable[Metric]:
        """The family without samples."""
        return [self._family()]

    def collect(self) -> Iterable[Metric]:
        """The values of this moment."""
        family = self._family()
        values = self._read()
        if isinstance(values, Mapping):
            for found, value in sorted(values.items()):
                family.add_metric([found] if isinstance(found, str) else found, value)
        else:
            family.add_metric([], values)
        return [family]

    def _family(self) -> CounterMetricFamily | GaugeMetricFamily:
        if self._name.endswith("_total"):
            return CounterMetricFamily(self._name, self._help, labels=self._labels)
        return GaugeMetricFamily(self._name, self._help, labels=self._labels)


def _sums(
    series: list[Series], labels: Callable[[Series], tuple[str, ...] | str | None]
) -> dict[tuple[str, ...], float]:
    """How many exchanges there were for each set of label values; those without one are left out."""
    sums: dict[tuple[str, ...], float] = defaultdict(float)
    for one in series:
        found = labels(one)
        if isinstance(found, tuple):
            sums[found] += one.count
    return sums


def _counter(name: str, values: Mapping[tuple[str, ...], float]) -> CounterMetricFamily:
    text, labels = COUNTERS[name]
    family = CounterMetricFamily(name, text, labels=labels)
    for found, value in sorted(values.items()):
        family.add_metric(found, value)
    return family


def _histogram(name: str, by_labels: Mapping[tuple[str, ...], Histogram]) -> HistogramMetricFamily:
    text, labels = HISTOGRAMS[name]
    family = HistogramMetricFamily(name, text, labels=labels)
    for found, histogram in sorted(by_labels.items(), key=lambda item: item[0]):
        family.add_metric(found, histogram.buckets(), histogram.total)
    return family
