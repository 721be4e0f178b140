"""How many requests may be under way at once, as the operator writes it.

What the words mean is decided in `core/concurrency.py` and `core/fair_slots.py`.
"""

from collections.abc import Iterator
from typing import Annotated

from gateway.core.concurrency import LimitPolicy
from gateway.core.rate_policy import Mode
from gateway.settings.errors import Problem
from gateway.settings.rate_limits import Units
from gateway.settings.scalars import Count, Duration, integer
from gateway.settings.section import Section


class UpstreamConcurrency(Section):
    """A limit for all requests together that follows their latency; with `min` and `max` alike it is fixed."""

    initial: Count = 50
    """Where it begins."""
    min: Count = 4
    """It never falls below."""
    max: Count = 100
    """It never rises above; more than all `upstream.connections` together is of no use."""
    tolerance: Units = 3.0
    """How many times the least latency of their kind (route, and rows asked for) half of the answers may take."""
    window: Duration = 600.0
    """For how long the least latency is remembered."""

    def problems(self) -> Iterator[Problem]:
        """Bounds the wrong way round."""
        if self.max < self.min:
            yield Problem(("max",), f"at least min ({self.min})", str(self.max))
        elif not self.min <= self.initial <= self.max:
            yield Problem(("initial",), f"a number from min ({self.min}) to max ({self.max})", str(self.initial))
        if self.tolerance <= 1:
            yield Problem(("tolerance",), "a number above 1", f"{self.tolerance:g}")
        if self.window <= 0:
            yield Problem(("window",), "a duration above 0", "0")

    def policy(self) -> LimitPolicy:
        """The same in the core's words."""
        return LimitPolicy(self.initial, self.min, self.max, self.tolerance, self.window)


class Concurrency(Section):
    """How many requests the upstream has at once. What is answered from the cache is not counted and never waits."""

    mode: Mode = Mode.ENFORCE
    """`shadow` counts which requests would wait and lets them pass."""
    per_principal: Count | None = None
    """Of one user or client, whatever its tokens; of requests without a token one address or IPv6 /64. Without it any \
number."""
    upstream: UpstreamConcurrency | None = None
    """Of all together: slower answers shrink the limit, answers as fast as ever let it grow. Without it any number."""
    queue: Annotated[int, integer(0, 100_000)] = 200
    """How many may wait. When it is full, whoever has most waiting gives way."""
    queue_timeout: Duration = 5.0
    """How long one may wait; then it is a 503, or served stale."""

    def problems(self) -> Iterator[Problem]:
        """A queue in which nobody may wait."""
        if self.queue and self.queue_timeout <= 0:
            yield Problem(("queue_timeout",), "a duration above 0", "0", "queue: 0 lets nobody wait")

    @property
    def limits(self) -> bool:
        """Whether there is any limit."""
        return self.upstream is not None or self.per_principal is not None

    def part(self, of: int) -> "Concurrency":
        """What one of so many processes gets of it: nobody adds up what they have under way."""
        given, own = self.upstream, self.per_principal
        least, most = (0, 0) if given is None else (max(1, given.min // of), max(1, given.max // of))
        return self.model_copy(
            update={
                "per_principal": None if own is None else max(1, own // of),
                "upstream": None
                if given is None
                else given.model_copy(
                    update={"min": least, "max": most, "initial": min(max(given.initial // of, least), most)}
                ),
                "queue": -(-self.queue // of),
            }
        )
