"""Counts exchanges, once each, and exposes the state of the parts. Labels are closed sets, values plain numbers.

Labels are route templates, methods of a closed set, status codes and enum members: never a guid, a user or a raw path
(peers.md, "Metrics"). A request costs one dictionary look-up and a few additions: everything that can be said of its
series is worked out when the series is new, everything that is a sum when Prometheus asks (`families.py`). Written and
read on the event loop's thread alone, so nothing is locked. Values that other parts count are read from them then.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, ProcessCollector

from gateway.core.tracing import extract
from gateway.pipeline.exchange import Verdict
from gateway.telemetry.families import ExchangeFamilies, Merge, Read, Values
from gateway.telemetry.looplag import LoopLag
from gateway.telemetry.series import EXEMPLAR_AGE, Histogram, Series

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.pipeline.exchange import Exchange

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
OVERHEAD: Final = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
AGES: Final = (0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0)
LAGS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_FASTEST, _LEAST_OVERHEAD = SECONDS[0], OVERHEAD[0]
QUICK: Final = min(_FASTEST, _LEAST_OVERHEAD)  # a hit as quick as this is in the first bucket of either
NO_ROUTE: Final = "none"
OTHER: Final = "other"


class Metrics:
    """The metrics of one process.

    Args:
        version: the gateway's version, for `gateway_info`.

    Attributes:
        registry: what `/metrics` exposes.
        merge: how the values of several processes become one, by metric name: "sum" unless told otherwise.
    """

    def __init__(self, version: str) -> None:
        self.registry: Final = CollectorRegistry(auto_describe=True)
        self.merge: Final[dict[str, Merge]] = {}
        self.in_flight = 0
        self.aborted = 0
        self.unparsed = 0
        # What one series is told apart by decides everything else that is said of it.
        self.series: Final[dict[tuple[str, str, int, str, str | None, str | None, bool], Series]] = {}
        self.seconds: Final[dict[tuple[str, ...], Histogram]] = {}
        self.upstream_seconds: Final[dict[str, Histogram]] = {}
        self.overhead: Final = {verdict.value: Histogram(OVERHEAD) for verdict in Verdict}
        self.ages: Final = {verdict.value: Histogram(AGES) for verdict in (Verdict.HIT, Verdict.STALE)}
        self.lag: Final = Histogram(LAGS)
        self.loop_lag: Final = LoopLag(self.lag.observe)
        self.registry.register(ExchangeFamilies(self))
        ProcessCollector(registry=self.registry)
        self.merge["process_start_time_seconds"] = "min"
        self.observe("gateway_requests_in_flight", "Exchanges under way.", lambda: self.in_flight)
        self.observe("gateway_aborted_total", "Exchanges whose answer was not delivered in full.", lambda: self.aborted)
        self.observe("gateway_malformed_requests_total", "Requests that could not be parsed.", lambda: self.unparsed)
        self.observe("gateway_info", "Always 1; the version is a label.", lambda: {version: 1}, "version", merge="max")

    def begin(self) -> None:
        """An exchange has begun."""
        self.in_flight += 1

    def record(self, exchange: Exchange, *, complete: bool, seconds: float) -> None:
        """An exchange is over.

        Args:
            exchange: what is known of it.
            complete: whether its answer was delivered in full.
            seconds: from the request head to the end.
        """
        self.in_flight -= 1
        if not complete:
            self.aborted += 1
        self.again(exchange, seconds)

    def again(self, exchange: Exchange, seconds: float) -> None:
        """Count an exchange that is over; all but that it had begun, and was not delivered in full.

        Args:
            exchange: what is known of it.
            seconds: from the request head to the end.
        """
        if seconds < 0:
            seconds = 0.0  # the clock was set back
        series: Series | None = exchange.filed
        if series is None:
            series = self._series(exchange)
            if exchange.like is not None:
                exchange.filed = series
        series.count += 1
        histogram = series.seconds
        # `Histogram.observe`, without the call, and without looking for the first bucket: this is the hit path.
        bucket = 0 if seconds <= _FASTEST else bisect_left(SECONDS, seconds)
        histogram.counts[bucket] += 1
        histogram.total += seconds
        if exchange.received_at >= histogram.due[bucket]:
            self._exemplar(exchange, histogram, bucket, seconds)
        upstream = exchange.upstream_seconds
        if upstream:
            series.upstream.observe(upstream)
            seconds = seconds - upstream if seconds > upstream else 0.0
        overhead = series.overhead
        overhead.counts[0 if seconds <= _LEAST_OVERHEAD else bisect_left(OVERHEAD, seconds)] += 1
        overhead.total += seconds
        if series.ages is not None:
            self._served(exchange, series, series.ages)
            if exchange.filed is not None and series.avoided and not upstream:
                series.due = histogram.due[0]
        elif exchange.saved_seconds:
            series.saved += exchange.saved_seconds
        elif series.refuses and exchange.filed is not None and not upstream:
            series.due = histogram.due[0]

    def malformed(self) -> None:
        """A request could not be parsed."""
        self.unparsed += 1

    def observe(
        self,
        name: str,
        help_text: str,
        read: Callable[[], Values],
        label: str | tuple[str, ...] = "",
        *,
        merge: Merge = "sum",
    ) -> None:
        """Expose a value that another part keeps; read when scraped.

        Args:
            name: metric name; one ending in `_total` is a counter, any other a gauge.
            help_text: what it says.
            read: the value, or values by label value, or by a tuple of them.
            label: the label's name, or their names, when there are several values.
            merge: how the values of several processes become one.
        """
        labels = (label,) if isinstance(label, str) else label
        self.registry.register(Read(name, help_text, read, tuple(name for name in labels if name)))
        self.merge[name] = merge

    def _served(self, exchange: Exchange, series: Series, ages: Histogram) -> None:
        """A stored page was the answer: how old it was, and how long the controller would have taken."""
        entry, found = exchange.entry, exchange.origin
        if entry is not None:
            age = exchange.received_at - entry.stored_at
            if age < 0:
                age = 0.0
            ages.counts[bisect_left(AGES, age)] += 1
            ages.total += age
            if series.avoided:
                series.saved += entry.fetch_seconds
        elif found is not None and found.variant is not None:
            ages.observe(found.variant.response.freshness.age(exchange.received_at))
            if series.avoided:
                series.saved += found.variant.seconds

    def _exemplar(self, exchange: Exchange, histogram: Histogram, bucket: int, seconds: float) -> None:
        """Keep the trace of a slow or fast request, if somebody records it."""
        histogram.due[bucket] = exchange.received_at + EXEMPLAR_AGE
        trace = exchange.trace or extract(exchange.head.fields)
        if trace is not None and trace.sampled:
            histogram.keep(bucket, trace.trace_id, seconds, exchange.received_at)

    def _series(self, exchange: Exchange) -> Series:
        route, denied, stale = exchange.route, exchange.denied, exchange.stale
        key = (
            NO_ROUTE if route is None else route.template,
            exchange.head.method,
            exchange.status,
            exchange.verdict.value,
            None if denied is None else denied.value,
            None if stale is None else stale.value,
            exchange.principal is not None,
        )
        return self.series.get(key) or self._begin_series(exchange, key)

    def _begin_series(self, exchange: Exchange, key: tuple[str, str, int, str, str | None, str | None, bool]) -> Series:
        route, method, status, cache, denied, stale, known = key
        known_method = method if method in METHODS else OTHER
        known_status = status if 100 <= status <= 599 else 0
        closed = (route, known_method, known_status, cache, denied, stale, known)
        series = self.series.get(closed)
        if series is not None:
            return series
        seconds = self.seconds.setdefault((route, cache), Histogram(SECONDS))
        upstream = self.upstream_seconds.setdefault(route, Histogram(SECONDS))
        series = Series(
            exchange,
            method=known_method,
            code=str(known_status) if known_status else OTHER,
            seconds=seconds,
            upstream=upstream,
            overhead=self.overhead[cache],
            ages=self.ages.get(cache),
        )
        self.series[closed] = series
        return series
