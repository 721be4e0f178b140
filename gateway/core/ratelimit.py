"""The arithmetic of rate limits: how much of a quota is left, and when a refused request would pass.

Two algorithms. GCRA, in its virtual scheduling form (ITU-T I.371), keeps one instant for each bucket: when it will be
full again. The fixed window counts in windows whose start is staggered by a hash of the principal, exactly as the
Cloud Controller does (controller.md §3). Both are pure: a state and `now` in, a verdict and the next state out. Nothing
here knows who is counted, where states are kept, or HTTP.

A request that costs more than a bucket can ever hold is charged the whole bucket: it passes when the bucket is full.
A clock that goes backwards neither gives units away nor locks anybody out for longer than an emptied bucket would.
"""

from __future__ import annotations

import hashlib
from functools import partial
from math import floor
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

# Instants near the present are floats 0.24 µs apart, so sums of intervals miss by a few of those: a request due within
# a microsecond is due. Nothing is given away by it, since what was taken is written down in full.
ROUNDING: Final = 1e-6


class Decision(NamedTuple):
    """What a bucket says of one request. A named tuple, because one is made for every policy and request.

    Attributes:
        remaining: units left, after the request when it is allowed.
        reset_after: seconds until the bucket is full again.
        retry_after: seconds until the same request would be allowed; 0 when it is allowed now.
        state: the bucket afterwards, in its algorithm's own form; None when it is full, so that nothing need be kept.
            A refused request takes nothing.
    """

    remaining: float
    reset_after: float
    retry_after: float
    state: Any

    @property
    def allowed(self) -> bool:
        """Whether the bucket holds as much as the request costs."""
        return self.retry_after == 0


# The same less its name, for who looks at it by place, on the path of every hit: naming it costs as much as a third of
# the arithmetic.
Said: TypeAlias = tuple[float, float, float, Any]

# Skips the Python-level constructor of named tuples, a third of the cost of a decision.
_decision: Final[Callable[[tuple[float, float, float, Any]], Decision]] = partial(tuple.__new__, Decision)


class Gcra:
    """The generic cell rate algorithm: units flow back steadily, and up to `burst` of them may be taken at once.

    Its state is the instant at which the bucket is full again, epoch seconds.

    Args:
        limit: units that flow back in one window.
        window: seconds.
        burst: units a full bucket holds; `limit` when None.

    Raises:
        ValueError: one of them is not above 0.
    """

    __slots__ = ("_interval", "limit", "quota", "span", "window")

    def __init__(self, limit: float, window: float, burst: float | None = None) -> None:
        self.limit: Final = limit
        self.window: Final = window
        self.quota: Final = limit if burst is None else burst  # units a full bucket holds
        if min(self.limit, self.window, self.quota) <= 0:
            raise ValueError("limit, window and burst must be above 0")
        self._interval: Final = window / limit
        # Seconds from empty to full: after as many without a request nothing need be remembered.
        self.span: Final = self.quota * self._interval

    def decide(self, state: float | None, now: float, cost: float, subject: str = "") -> Decision:
        """Judge a request.

        Args:
            state: the bucket.
            now: epoch seconds.
            cost: units asked for; 0 is always allowed.
            subject: not needed.
        """
        return _decision(self.judge(state, now, cost, subject))

    def judge(self, state: float | None, now: float, cost: float, subject: str = "") -> Said:  # noqa: ARG002 - one form for both algorithms
        """`decide`, less the name of what is said."""
        interval, span = self._interval, self.span
        latest = now + span
        price = cost * interval
        if price > span:  # noqa: PLR1730 - the built-in function costs a fifth of the decision
            price = span
        full_at = now
        if state is not None and state > now:
            full_at = state if state <= latest + ROUNDING else latest
            due = full_at + price - span
            if due > now + ROUNDING and cost > 0:
                return ((latest - full_at + ROUNDING) / interval, full_at - now, due - now, full_at)
        elif cost <= 0:
            return (self.quota, 0.0, 0.0, None)
        full_at += price
        return ((latest - full_at + ROUNDING) / interval, full_at - now, 0.0, full_at)

    def idle(self, state: float, now: float) -> bool:
        """Whether the bucket is full again, so that it need not be kept."""
        return state <= now


class FixedWindow:
    """The Cloud Controller's own limiter: so many units a window, and windows that begin at another time for each.

    Its state is (start of the window in epoch seconds, units counted in it).

    Args:
        limit: units of one window.
        window: seconds.

    Raises:
        ValueError: one of them is not above 0.
    """

    __slots__ = ("limit", "quota", "span", "window")

    def __init__(self, limit: float, window: float) -> None:
        if min(limit, window) <= 0:
            raise ValueError("limit and window must be above 0")
        self.limit: Final = limit
        self.quota: Final = limit
        self.window: Final = window
        self.span: Final = window

    def decide(self, state: tuple[float, float] | None, now: float, cost: float, subject: str = "") -> Decision:
        """Judge a request.

        Args:
            state: the bucket.
            now: epoch seconds.
            cost: units asked for; 0 is always allowed.
            subject: who is counted; places the window when there is no state.
        """
        return _decision(self.judge(state, now, cost, subject))

    def judge(self, state: tuple[float, float] | None, now: float, cost: float, subject: str = "") -> Said:
        """`decide`, less the name of what is said."""
        window, limit = self.window, self.limit
        if state is None:
            start, count = stagger(subject, now, window), 0.0
        else:
            start, count = state
            if not 0 <= now - start < window:
                if now >= start:
                    count = 0.0
                # The window's phase stays; with the clock set back, so does what was counted.
                start += floor((now - start) / window) * window
        end = start + window - now
        total = count + min(cost, limit)
        if cost > 0 and total > limit:
            return (limit - count, end, end, (start, count))
        return (limit - total, end, 0.0, (start, total) if total > 0 else None)

    def idle(self, state: tuple[float, float], now: float) -> bool:
        """Whether the window is over, so that the bucket need not be kept."""
        return now - state[0] >= self.window


Algorithm: TypeAlias = Gcra | FixedWindow


def stagger(subject: str, now: float, window: float) -> float:
    """Where the window around `now` begins for this subject, epoch seconds (controller.md §3).

    The MD5 of the principal's id, modulo the window, moves its windows against those of others, so that not all
    clients come back in the same second (recordings: each X-RateLimit-Reset of ratelimit.jsonl).
    """
    digest = hashlib.md5(subject.encode("utf-8", "surrogateescape"), usedforsecurity=False).digest()
    offset = int.from_bytes(digest, "big") % max(1, int(window))
    return floor((now - offset) / window) * window + offset
