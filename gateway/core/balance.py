"""Which of several endpoints gets a request, and which of them is passed over for a while.

The least loaded of the best standing. Ejection is advice: where nobody stands better, an ejected endpoint is used all
the same, the last good one is never ejected, and when it fails the others get another chance. Arithmetic alone: `now`
is any clock that does not go back, in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_DOUBLINGS: Final = 20


class Standing(IntEnum):
    """What speaks for an endpoint; less is better."""

    GOOD = 0
    DOUBTFUL = 1  # ejected, or its probe fails: used when there is no good one
    SHUT = 2  # its breaker lets nothing pass, or this request has been there already: not used


def choose(candidates: Sequence[tuple[Standing, int]], turn: int) -> int | None:
    """The endpoint for the next request.

    Args:
        candidates: standing and requests under way of each endpoint.
        turn: a number that counts up; equals are taken in turns by it.

    Returns:
        The place of an endpoint of the best standing with the fewest requests under way; None when all are shut.
    """
    count = len(candidates)
    best: tuple[Standing, int] | None = None
    chosen = None
    for step in range(count):
        place = (turn + step) % count
        candidate = candidates[place]
        if candidate[0] is not Standing.SHUT and (best is None or candidate < best):
            best, chosen = candidate, place
    return chosen


@dataclass(frozen=True, slots=True)
class EjectionPolicy:
    """When an endpoint is passed over.

    Attributes:
        failures: how many in a row eject it.
        rest: seconds the first time; doubled each time it is ejected again soon.
        longest: the most seconds.
        probes: how many failed probes in a row put it in doubt until one succeeds.
    """

    failures: int = 5
    rest: float = 5.0
    longest: float = 300.0
    probes: int = 3


class Health:
    """What is known of one endpoint's health, from requests (passive) and from probes (active).

    Args:
        policy: when it is ejected.

    Attributes:
        ejections: how often it was ejected.
    """

    __slots__ = ("_failures", "_policy", "_probes", "_returned", "_strikes", "_until", "ejections")

    def __init__(self, policy: EjectionPolicy) -> None:
        self._policy: Final = policy
        self._failures = 0
        self._probes = 0
        self._strikes = 0
        self._until = float("-inf")
        self._returned = float("-inf")
        self.ejections = 0

    def good(self, now: float) -> bool:
        """Whether nothing speaks against it."""
        return now >= self._until and self._probes < self._policy.probes

    def succeeded(self) -> None:
        """A request was answered."""
        self._failures = 0

    def failed(self, now: float) -> bool:
        """A request failed; whether so many did in a row that it should be ejected."""
        self._failures += 1
        return self._failures >= self._policy.failures and now >= self._until

    def eject(self, now: float) -> None:
        """Pass it over for a while, unless nobody is better."""
        if now - self._returned >= self._policy.longest:
            self._strikes = 0
        rest = min(self._policy.longest, self._policy.rest * 2 ** min(self._strikes, _DOUBLINGS))
        self._until = self._returned = now + rest
        self._strikes += 1
        self._failures = 0
        self.ejections += 1

    def pardon(self) -> None:
        """End its ejection: those that were preferred to it fail, too."""
        self._until = float("-inf")

    def probed(self, *, answered: bool) -> None:
        """A probe was answered, or was not."""
        self._probes = 0 if answered else self._probes + 1
