"""When a page that is still fresh is fetched anew, so that a page in demand never expires.

Each hit throws a die, and the odds grow as expiry nears: of many hits some one is likely to begin the refresh early
enough for it to be done in time, while a page nobody asks for is left to expire. (Vattani, Chierichetti and Lowenstein,
"Optimal probabilistic cache stampede prevention", 2015.) Pure: time and chance are given.
"""

from __future__ import annotations

from math import log
from typing import Final

# The first part of a page's life is safe from dice: a page slower to fetch than it lives would be fetched all the time.
EARLIEST: Final = 0.5


def refresh_early(*, now: float, stored_at: float, fresh_until: float, fetch_seconds: float, chance: float) -> bool:
    """Whether this hit on a fresh page begins a refresh behind it.

    The margin before expiry is drawn from an exponential distribution whose mean is the time that fetching took.

    Args:
        now: epoch seconds.
        stored_at: when the page was fetched, epoch seconds.
        fresh_until: when it expires, epoch seconds.
        fetch_seconds: how long fetching took.
        chance: uniform between 0 and 1; 1 never begins one.
    """
    left = fresh_until - now
    if left <= 0 or fetch_seconds <= 0 or left > EARLIEST * (fresh_until - stored_at):
        return False
    return chance <= 0 or -fetch_seconds * log(chance) >= left
