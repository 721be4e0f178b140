"""A circuit breaker: when to stop asking an endpoint that fails, and when to try it again.

*Closed*: everything passes, and what came of it is counted over a sliding window. *Open*: nothing passes, for a time.
*Half-open*: a few trials pass; the first success closes it, the first failure opens it again for twice as long.
Arithmetic alone: `now` is any clock that does not go back, in seconds. Knows nothing of requests or connections.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

_SLICES: Final = 10
_DOUBLINGS: Final = 20


class State(Enum):
    """Where a breaker stands; the value of `gateway_upstream_breaker_state` is its place in this list."""

    CLOSED = "closed"
    HALF_OPEN = "half-open"
    OPEN = "open"


class Outcome(Enum):
    """What a request says of the endpoint."""

    SUCCESS = "success"
    FAILURE = "failure"
    NEUTRAL = "neutral"  # nothing: it was given up, or the client was at fault


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When a breaker opens and for how long.

    Attributes:
        window: seconds over which outcomes are counted.
        minimum: how many there must be before their ratio means anything.
        ratio: the share of failures, from above 0 to 1, at which it opens.
        rest: seconds it stays open the first time; doubled each time it opens again soon.
        longest: the most seconds it stays open.
        trials: how many requests may be under way while it is half-open.
    """

    window: float = 10.0
    minimum: int = 20
    ratio: float = 0.5
    rest: float = 2.0
    longest: float = 60.0
    trials: int = 3


class SlidingWindow:
    """Outcomes of the last so many seconds, in ten slices.

    Args:
        seconds: how long an outcome counts, to within a tenth.
    """

    __slots__ = ("_failed", "_slices", "_total", "_width")

    def __init__(self, seconds: float) -> None:
        self._width: Final = seconds / _SLICES
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._slices = [-_SLICES - 1] * _SLICES
        self._total = [0] * _SLICES
        self._failed = [0] * _SLICES

    def add(self, now: float, *, failed: bool) -> None:
        """Count an outcome."""
        number = int(now / self._width)
        place = number % _SLICES
        if self._slices[place] != number:
            self._slices[place], self._total[place], self._failed[place] = number, 0, 0
        self._total[place] += 1
        self._failed[place] += failed

    def counts(self, now: float) -> tuple[int, int]:
        """How many outcomes count now, and how many of them are failures."""
        oldest = int(now / self._width) - _SLICES
        live = [place for place in range(_SLICES) if self._slices[place] > oldest]
        return sum(self._total[place] for place in live), sum(self._failed[place] for place in live)


class Breaker:
    """The breaker of one endpoint.

    Args:
        policy: when it opens.

    Attributes:
        opened: how often it has opened.
    """

    __slots__ = ("_closed_at", "_generation", "_policy", "_state", "_strikes", "_trials", "_until", "_window", "opened")

    def __init__(self, policy: BreakerPolicy) -> None:
        self._policy: Final = policy
        self._window: Final = SlidingWindow(policy.window)
        self._state = State.CLOSED
        self._generation = 0
        self._trials = 0
        self._strikes = 0
        self._until = 0.0
        self._closed_at = float("-inf")
        self.opened = 0

    def state(self, now: float) -> State:
        """Where it stands; what has been open long enough is half-open."""
        return State.HALF_OPEN if self._state is State.OPEN and now >= self._until else self._state

    def admits(self, now: float) -> bool:
        """Whether a request may pass."""
        if self._state is State.CLOSED:
            return True
        match self.state(now):
            case State.CLOSED:
                return True
            case State.HALF_OPEN:
                return self._state is State.OPEN or self._trials < self._policy.trials
            case State.OPEN:
                return False

    def wait(self, now: float) -> float:
        """Seconds until it will be half-open; 0 unless it is open."""
        return max(0.0, self._until - now) if self._state is State.OPEN else 0.0

    def begin(self, now: float) -> int:
        """A request passes. Only while it `admits` one.

        Returns:
            A ticket for `end`; each request has to be ended, whatever comes of it.
        """
        if self._state is State.CLOSED:
            return self._generation
        state = self.state(now)
        if state is not self._state:
            self._enter(state)
        if state is State.HALF_OPEN:
            self._trials += 1
        return self._generation

    def end(self, ticket: int, outcome: Outcome, now: float) -> None:
        """Something came of a request. What began before the state last changed says nothing any more.

        Args:
            ticket: from `begin`.
            outcome: what came of it; a request that succeeded may fail once more, later.
            now: seconds.
        """
        if ticket != self._generation:
            return
        if self._state is State.HALF_OPEN:
            self._trials -= 1
            if outcome is Outcome.SUCCESS:
                self._close(now)
            elif outcome is Outcome.FAILURE:
                self._open(now)
            return
        if outcome is Outcome.NEUTRAL:
            return
        self._window.add(now, failed=outcome is Outcome.FAILURE)
        if outcome is Outcome.FAILURE:
            total, failed = self._window.counts(now)
            if total >= self._policy.minimum and failed >= self._policy.ratio * total:
                if now - self._closed_at >= self._policy.longest:
                    self._strikes = 0
                self._open(now)

    def _open(self, now: float) -> None:
        self._until = now + min(self._policy.longest, self._policy.rest * 2 ** min(self._strikes, _DOUBLINGS))
        self._strikes += 1
        self.opened += 1
        self._enter(State.OPEN)

    def _close(self, now: float) -> None:
        self._closed_at = now
        self._window.clear()
        self._enter(State.CLOSED)

    def _enter(self, state: State) -> None:
        self._state = state
        self._generation += 1
        self._trials = 0
