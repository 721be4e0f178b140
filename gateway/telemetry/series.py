"""What is counted of exchanges: series of those that are alike, and the cheapest histogram Prometheus can read.

A lock for each observation costs more than the observation. Everything here is written and read on the event loop's
thread alone, and so has none.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final

from prometheus_client.samples import Exemplar

from gateway.core.errors import Reason
from gateway.core.routes import Access
from gateway.pipeline.exchange import Stale, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.pipeline.exchange import Exchange

# Seconds for which a bucket keeps its exemplar: parsing a trace context costs more than counting.
EXEMPLAR_AGE: Final = 1.0
_EVER: Final = float("inf")


class Histogram:
    """Observations of one label set.

    Args:
        bounds: upper bounds of the buckets, ascending, without infinity.
    """

    __slots__ = ("_bounds", "_exemplars", "counts", "due", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds: Final = bounds
        self.counts: Final = [0] * (len(bounds) + 1)
        self.total = 0.0
        self.due: Final = [0.0] * (len(bounds) + 1)
        self._exemplars: Final[list[Exemplar | None]] = [None] * (len(bounds) + 1)

    def observe(self, value: float) -> int:
        """Count a value; gives the number of its bucket."""
        index = bisect_left(self._bounds, value)
        self.counts[index] += 1
        self.total += value
        return index

    def bucket(self, value: float) -> tuple[int, float, float]:
        """The number of a value's bucket, and the bounds that it is above of and not above of."""
        bounds = self._bounds
        index = bisect_left(bounds, value)
        return index, bounds[index - 1] if index else -_EVER, bounds[index] if index < len(bounds) else _EVER

    def keep(self, index: int, trace_id: str, value: float, now: float) -> None:
        """Keep an exemplar for a bucket.

        Args:
            index: the bucket.
            trace_id: the trace in which the value was observed.
            value: the value.
            now: epoch seconds.
        """
        self._exemplars[index] = Exemplar({"trace_id": trace_id}, value, now)

    def buckets(self) -> list[tuple[str, float] | tuple[str, float, Exemplar]]:
        """Cumulative counts by upper bound, infinity last."""
        rows: list[tuple[str, float] | tuple[str, float, Exemplar]] = []
        count = 0
        names = [*(repr(float(bound)) for bound in self._bounds), "+Inf"]
        for name, here, exemplar in zip(names, self.counts, self._exemplars, strict=True):
            count += here
            rows.append((name, count) if exemplar is None else (name, count, exemplar))
        return rows


class Series:
    """What is counted of all exchanges that are alike, and what can be said of each of them.

    Args:
        exchange: the first of them.
        method: label value.
        code: label value.
        seconds: duration of the route's requests with this cache verdict.
        upstream: the controller's time for the route.
        overhead: the gateway's own time for this cache verdict.
        ages: ages of pages served with this cache verdict; None when none are.

    Attributes:
        count: how many.
        saved: seconds of the controller's time that were not needed.
        aged: of hits that are in nothing but `quick_seconds` and `quick_ages` yet, how many were in which bucket of
            ages; all were in the first one of durations. Of refusals, which have no ages, the first alone.
        refuses: whether these are refusals.
        bucket: of ages, in which the last one was that is in `aged`,
        above: and the ages that belong there: above this,
        upto: and not above this, seconds.
        due: until when, in epoch seconds, a hit need not ask whether it is an exemplar.
        avoided: whether the controller was not asked although the route is one that it answers.
        auth: the decision about access and its reason, None when it did not come to one.
    """

    __slots__ = (
        *("above", "aged", "ages", "auth", "avoided", "bucket", "cache", "code", "count", "denied", "due", "method"),
        *("overhead", "quick_ages", "quick_seconds", "refuses", "route", "saved", "seconds", "stale", "upstream"),
        "upto",
    )

    def __init__(
        self,
        exchange: Exchange,
        *,
        method: str,
        code: str,
        seconds: Histogram,
        upstream: Histogram,
        overhead: Histogram,
        ages: Histogram | None,
    ) -> None:
        self.count = 0
        self.saved = 0.0
        self.quick_seconds = self.quick_ages = 0.0
        self.due = 0.0
        self.bucket = 0
        self.above = self.upto = 0.0
        self.route: Final = "none" if exchange.route is None else exchange.route.template
        self.method: Final = method
        self.code: Final = code
        self.cache: Final = exchange.verdict.value
        self.denied: Final = None if exchange.denied is None else exchange.denied.value
        self.stale: Final = None if exchange.stale is None else exchange.stale.value
        self.seconds: Final = seconds
        self.upstream: Final = upstream
        self.overhead: Final = overhead
        self.ages: Final = ages if exchange.denied is None else None
        self.refuses: Final = exchange.denied is not None
        self.aged: Final = [0] * (1 if self.ages is None else len(self.ages.counts))
        self.avoided: Final = exchange.denied is None and (
            exchange.verdict in {Verdict.HIT, Verdict.COLLAPSED}
            or (exchange.verdict is Verdict.STALE and exchange.stale in _WITHOUT_ASKING)
        )
        self.auth: Final = _auth(exchange)

    def turn_to(self, age: float) -> None:
        """Go by the bucket of this age, in seconds and above 0."""
        ages = self.ages
        if ages is not None:
            self.bucket, self.above, self.upto = ages.bucket(age)

    def settle(self) -> None:
        """Count everywhere what is counted in part."""
        number = sum(self.aged)
        if not number:
            return
        self.count += number
        for histogram in (self.seconds, self.overhead):
            histogram.counts[0] += number
            histogram.total += self.quick_seconds
        for bucket, here in enumerate(self.aged):
            if self.ages is not None:
                self.ages.counts[bucket] += here
            self.aged[bucket] = 0
        if self.ages is not None:
            self.ages.total += self.quick_ages
        self.quick_seconds = self.quick_ages = 0.0


# A page that stands in for a failure was asked for in vain; these were not asked for.
_WITHOUT_ASKING: Final = frozenset({Stale.REVALIDATING, Stale.ACCEPTED, Stale.BUDGET})
_REFUSALS: Final = frozenset(
    {Reason.NO_TOKEN, Reason.INVALID_TOKEN, Reason.INSUFFICIENT_SCOPE, Reason.DENIED_ROUTE, Reason.KEYS_UNAVAILABLE}
)


def _auth(exchange: Exchange) -> tuple[str, str] | None:
    """The decision about access: its result and reason."""
    if exchange.denied in _REFUSALS:
        return "denied", exchange.denied.value
    if exchange.route is None or (exchange.denied is Reason.IP_RATE_LIMITED and exchange.principal is None):
        return None  # refused before anybody asked who it was
    if exchange.principal is not None:
        return "allowed", "token"
    return "allowed", "public" if exchange.route.access is Access.PUBLIC else "unjudged"
