"""The decisions of the last requests, kept in a ring for the operator's questions; and the short way for what stands.

A hit that stands is told of the next recorder only when there is more to it than one more of a series: it was slow, an
exemplar or a log line is due. All others are counted here, in one call: two sums, one count, one row of the ring;
likewise a refusal that stands, where refusals have no lines. What that makes of the metrics is added up when somebody
reads them (`Series.settle`), and is the same (tests/telemetry).
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from gateway.pipeline.decision import Decision, decision
from gateway.telemetry.metrics import QUICK

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.core.model import Principal, Target
    from gateway.pipeline.exchange import Exchange
    from gateway.telemetry.log import AccessLog
    from gateway.telemetry.series import Series

    _Like: TypeAlias = "tuple[Decision | None, float, str, Target, Principal | None, float, tuple[str, ...]]"


class Decisions:
    """A recorder that remembers the last decisions and passes on to the next recorder.

    Args:
        following: told everything too, but of hits only what it needs.
        kept: how many are remembered, 0 for none.
        quick: whether hits may be counted here; not when somebody behind must see each of them.
    """

    def __init__(self, following: AccessLog, kept: int, *, quick: bool = False) -> None:
        self._following: Final = following
        self.begin: Final = following.begin  # nothing of its own
        self._following_again: Final = following.again
        self._kept: Final = kept > 0
        self._quick: Final = QUICK if quick else -1.0
        self._ring: Final[deque[Decision | _Like]] = deque(maxlen=kept)

    def malformed(self) -> None:
        """A request could not be parsed."""
        self._following.malformed()

    def record(self, exchange: Exchange, *, complete: bool, seconds: float) -> None:
        """An exchange is over; remember its decision."""
        self._following.record(exchange, complete=complete, seconds=seconds)
        if self._kept:
            self._ring.append(decision(exchange, complete=complete, seconds=seconds))

    def again(self, exchange: Exchange, seconds: float) -> None:
        """An exchange like one before; of its decision only what is its own is kept."""
        series: Series | None = exchange.filed
        entry, at, limited = exchange.entry, exchange.received_at, exchange.limited
        self._ring.append(
            (exchange.like, at, exchange.request_id, exchange.head.target, exchange.principal, seconds, limited)
        )
        if series is not None and at < series.due and 0 <= seconds <= self._quick and not limited:
            lines = self._following
            if entry is None:
                if series.refuses and not lines.written:  # each refusal has a line
                    series.aged[0] += 1
                    series.quick_seconds += seconds
                    return
            elif lines.skips > 0 and (age := at - entry.stored_at) > 0:
                if not series.above < age <= series.upto:
                    series.turn_to(age)
                lines.skips -= 1
                series.aged[series.bucket] += 1
                series.quick_seconds += seconds
                series.quick_ages += age
                series.saved += entry.fetch_seconds
                return
        self._following_again(exchange, seconds)

    async def newest(self, most: int, wanted: Mapping[str, str]) -> list[dict[str, Any]]:
        """The newest decisions first.

        Args:
            most: how many at most.
            wanted: which ones: what `Decision.plain` must say, as text.
        """
        told = (whole.plain() for whole in map(_whole, reversed(self._ring)) if whole is not None)
        return list(islice((one for one in told if all(str(one.get(name)) == wanted[name] for name in wanted)), most))


def _whole(one: Decision | _Like) -> Decision | None:
    if isinstance(one, Decision):
        return one
    like, at, request_id, target, principal, seconds, limited = one
    if like is None:
        return None
    return like._replace(
        at=at, request_id=request_id, target=target, principal=principal, limited=limited, seconds=seconds
    )
