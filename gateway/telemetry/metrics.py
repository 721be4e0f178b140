"""The metric catalogue: every metric of the gateway, with closed labels, bound once.

Labels are route templates, methods of a closed set, status codes and enum members: never a guid, a user or a raw path
(peers.md, "Metrics"). Values that other parts already count are read from them when Prometheus asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from gateway.pipeline.exchange import Stale

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from prometheus_client.core import Metric

    from gateway.pipeline.exchange import Exchange

    Values = float | Mapping[str, float] | Mapping[tuple[str, ...], float]

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_NO_ROUTE: Final = "none"


class Metrics:
    """Counts exchanges and exposes the state of the parts.

    Args:
        version: the gateway's version, for `gateway_info`.
    """

    def __init__(self, version: str) -> None:
        self.registry: Final = CollectorRegistry(auto_describe=True)
        registry = self.registry
        self._requests: Final = Counter(
            "gateway_requests_total",
            "Requests by route template, method, status code and what the cache did.",
            ("route", "method", "code", "cache"),
            registry=registry,
        )
        self._seconds: Final = Histogram(
            "gateway_request_duration_seconds",
            "From the request head to the last byte of the answer.",
            ("route", "cache"),
            buckets=_SECONDS,
            registry=registry,
        )
        self._upstream_seconds: Final = Histogram(
            "gateway_upstream_request_duration_seconds",
            "From sending a request to the controller to its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._denials: Final = Counter(
            "gateway_denials_total",
            "Answers that the gateway made itself, by named reason.",
            ("reason",),
            registry=registry,
        )
        self._stale: Final = Counter(
            "gateway_cache_stale_served_total", "Pages served past their time, by why.", ("reason",), registry=registry
        )
        for reason in Stale:
            self._stale.labels(reason.value)
        self._aborted: Final = Counter(
            "gateway_aborted_total", "Exchanges whose answer was not delivered in full.", registry=registry
        )
        self._malformed: Final = Counter(
            "gateway_malformed_requests_total", "Requests that could not be parsed.", registry=registry
        )
        self._in_flight: Final = Gauge("gateway_requests_in_flight", "Exchanges under way.", registry=registry)
        info = Gauge("gateway_info", "Always 1; the version is a label.", ("version",), registry=registry)
        info.labels(version).set(1)

    def begin(self) -> None:
        """An exchange has begun."""
        self._in_flight.inc()

    def record(self, exchange: Exchange, *, complete: bool, seconds: float) -> None:
        """An exchange is over.

        Args:
            exchange: what is known of it.
            complete: whether its answer was delivered in full.
            seconds: from the request head to the end.
        """
        self._in_flight.dec()
        route = exchange.route.template if exchange.route is not None else _NO_ROUTE
        method = exchange.head.method if exchange.head.method in _METHODS else "other"
        cache = exchange.verdict.value
        self._requests.labels(route, method, str(exchange.status), cache).inc()
        self._seconds.labels(route, cache).observe(seconds)
        if exchange.upstream_seconds:
            self._upstream_seconds.labels(route).observe(exchange.upstream_seconds)
        if exchange.denied is not None:
            self._denials.labels(exchange.denied.value).inc()
        if exchange.stale is not None:
            self._stale.labels(exchange.stale.value).inc()
        if not complete:
            self._aborted.inc()

    def malformed(self) -> None:
        """A request could not be parsed."""
        self._malformed.inc()

    def observe(self, name: str, help_text: str, read: Callable[[], Values], label: str | tuple[str, ...] = "") -> None:
        """Expose a value that another part keeps; read when scraped.

        Args:
            name: metric name; one ending in `_total` is a counter, any other a gauge.
            help_text: what it says.
            read: the value, or values by label value, or by a tuple of them.
            label: the label's name, or their names, when there are several values.
        """
        labels = (label,) if isinstance(label, str) else label
        self.registry.register(_Read(name, help_text, read, tuple(name for name in labels if name)))


class _Read:
    """A collector over somebody else's numbers."""

    def __init__(self, name: str, help_text: str, read: Callable[[], Values], labels: tuple[str, ...]) -> None:
        self._name = name
        self._help = help_text
        self._read = read
        self._labels = labels

    def describe(self) -> Iterable[Metric]:
        return [self._family()]

    def collect(self) -> Iterable[Metric]:
        family = self._family()
        values = self._read()
        if isinstance(values, (int, float)):
            family.add_metric([], values)
        else:
            for found, value in sorted(values.items()):
                family.add_metric([found] if isinstance(found, str) else found, value)
        return [family]

    def _family(self) -> CounterMetricFamily | GaugeMetricFamily:
        if self._name.endswith("_total"):
            return CounterMetricFamily(self._name, self._help, labels=self._labels)
        return GaugeMetricFamily(self._name, self._help, labels=self._labels)
