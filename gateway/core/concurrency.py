"""How many requests the upstream may have at once: a limit that follows its latency.

Additive increase, multiplicative decrease. Each kind of request is held against the least latency of its own kind over
a moving window, since a page of 5,000 rows is not slow for being slower than `GET /v3/info`. A batch of requests whose
median is slow shrinks the limit, any other batch lets it grow. Arithmetic alone: `now` is any clock that does not go
back, in seconds. Who waits for a place is in `fair_slots.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Final

_BATCH: Final = 16
_BATCH_SECONDS: Final = 1.0
_LEAST_SHRINK: Final = 0.9
_MOST_SHRINK: Final = 0.5
_KINDS: Final = 4096
_NEVER: Final = float("inf")


@dataclass(frozen=True, slots=True)
class LimitPolicy:
    """How a limit moves.

    Attributes:
        initial: where it begins.
        least: it never falls below.
        most: it never rises above.
        tolerance: how many times the least latency is still no sign of strain.
        window: seconds for which the least latency is remembered.
        floor: seconds; what is faster is as good as this, so that noise is no sign.
    """

    initial: int = 50
    least: int = 4
    most: int = 100
    tolerance: float = 3.0
    window: float = 600.0
    floor: float = 0.05


class MovingMinimum:
    """The least of the last `window` seconds, to within half of it.

    Args:
        window: seconds.
    """

    __slots__ = ("_before", "_half", "_least", "_number")

    def __init__(self, window: float) -> None:
        self._half: Final = window / 2
        self._number = 0
        self._least = self._before = _NEVER

    def least(self, value: float, now: float) -> float:
        """The least with `value` among it."""
        number = int(now / self._half)
        if number != self._number:
            self._before = self._least if number == self._number + 1 else _NEVER
            self._least, self._number = _NEVER, number
        self._least = min(self._least, value)
        return min(self._before, self._least)


class AdaptiveLimit:
    """A limit that follows latency.

    Args:
        policy: how it moves.
    """

    __slots__ = ("_began", "_limit", "_minima", "_policy", "_ratios", "_since")

    def __init__(self, policy: LimitPolicy) -> None:
        self._policy: Final = policy
        self._limit = float(min(max(policy.initial, policy.least), policy.most))
        self._minima: Final[dict[str, MovingMinimum]] = {}
        self._ratios: list[float] = []
        self._began = float("-inf")  # when the batch did
        self._since = float("-inf")  # when it last shrank: what was sent before says nothing of the new limit

    def __int__(self) -> int:
        return int(self._limit)

    def sample(self, kind: str, began: float, now: float, *, failed: bool = False) -> None:
        """A request has its answer.

        Args:
            kind: what is like it; a closed set, the first 4,096 count.
            began: when it was sent.
            now: when the head of its answer came.
            failed: whether there is none: no connection, or not in time.
        """
        if began < self._since:
            return
        if not self._ratios:
            self._began = now
        self._ratios.append(_NEVER if failed else self._ratio(kind, now - began, now))
        if len(self._ratios) >= _BATCH or now - self._began >= _BATCH_SECONDS:
            self._judge(now)

    def _ratio(self, kind: str, seconds: float, now: float) -> float:
        minimum = self._minima.get(kind)
        if minimum is None:
            if len(self._minima) >= _KINDS:
                return 1.0
            minimum = self._minima[kind] = MovingMinimum(self._policy.window)
        floor = self._policy.floor
        return max(seconds, floor) / max(minimum.least(seconds, now), floor)

    def _judge(self, now: float) -> None:
        slow = median(self._ratios)
        self._ratios = []
        if slow <= self._policy.tolerance:
            self._limit = min(float(self._policy.most), self._limit + 1.0)
            return
        shrunk = self._limit * max(_MOST_SHRINK, min(_LEAST_SHRINK, self._policy.tolerance / slow))
        self._limit = max(float(self._policy.least), shrunk)
        self._since = now
