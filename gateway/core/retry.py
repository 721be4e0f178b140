"""When a failed request may be sent again, and how many may be.

RFC 9110 §9.2.2: a proxy repeats nothing by itself that is not idempotent, unless it knows that nothing arrived. A
budget keeps retries a small share of requests, so that they never become the load that keeps a controller down.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})


class Again(Enum):
    """Where a failed request may be sent again."""

    NOWHERE = "nowhere"
    ELSEWHERE = "elsewhere"  # at another endpoint, as far as the budget goes
    ANEW = "anew"  # at once, on a new connection


class Failure(Enum):
    """How a request failed."""

    UNSENT = "unsent"  # no connection: refused, unreachable, or none in time
    LOST = "lost"  # a kept connection ended before a byte of the answer: the controller had closed it
    BROKEN = "broken"  # it ended otherwise, or what came is no answer
    TIMEOUT = "timeout"  # no answer in time


def again(method: str, failure: Failure, *, begun: bool) -> Again:
    """Whether and where a request may be sent again.

    Args:
        method: its method.
        failure: how it failed.
        begun: whether any of its content has been read from the client, and so is gone.
    """
    if begun:
        return Again.NOWHERE
    if failure is Failure.UNSENT:
        return Again.ELSEWHERE
    if method not in IDEMPOTENT or failure is Failure.TIMEOUT:
        return Again.NOWHERE
    return Again.ANEW if failure is Failure.LOST else Again.ELSEWHERE


class RetryBudget:
    """Retries that may still be made: each request earns a share of one, each second a few.

    In any run at most `burst + ratio * requests + per_second * seconds` retries are made.

    Args:
        ratio: what a request earns.
        per_second: what a second earns.
        burst: the most that is saved up.
    """

    __slots__ = ("_burst", "_per_second", "_ratio", "_saved", "_seen", "refused", "spent")

    def __init__(self, ratio: float, per_second: float, burst: float = 20.0) -> None:
        self._ratio: Final = ratio
        self._per_second: Final = per_second
        self._burst: Final = burst
        self._saved = burst
        self._seen: float | None = None
        self.spent = 0
        self.refused = 0

    def earn(self, now: float) -> None:
        """A request came."""
        self._flow(now)
        self._saved = min(self._burst, self._saved + self._ratio)

    def spend(self, now: float) -> bool:
        """Whether a retry may be made; if so it is counted."""
        self._flow(now)
        if self._saved < 1.0:
            self.refused += 1
            return False
        self._saved -= 1.0
        self.spent += 1
        return True

    def _flow(self, now: float) -> None:
        if self._seen is not None:
            self._saved = min(self._burst, self._saved + self._per_second * max(0.0, now - self._seen))
        self._seen = now
