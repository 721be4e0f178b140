"""One fetch of a page for all who wait for it, unless waiting has proved to be in vain (hit-for-miss).

What cannot be stored is the answer of the one who asked; the others have to ask anyhow, so for a short time nobody
waits for the same page again. A failing controller is another matter: there it is waiting that spares it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.core.freshness import ERROR_STATUSES
from gateway.pipeline.collapse import Collapse
from gateway.pipeline.ports import OwnError
from gateway.pipeline.recent import Recent

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable

    from gateway.core.keys import CacheKey
    from gateway.pipeline.second_level import Fill

# How long nobody waits for a page whose answer turned out not to be shareable, in seconds.
HIT_FOR_MISS: Final = 5.0
# A write came between: the next answer may be stored.
_BY_CHANCE: Final = "invalidated-meanwhile"


class Fills:
    """The fetches of pages that are under way.

    Args:
        clock: epoch seconds.
    """

    __slots__ = ("_clock", "_flights", "_unshared")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock: Final = clock
        self._flights: Final[Collapse[Fill]] = Collapse(OwnError)
        self._unshared: Final = Recent(HIT_FOR_MISS)

    async def run(
        self,
        key: CacheKey | None,
        lane: Hashable,
        fetch: Callable[[], Coroutine[object, object, Fill]],
        *,
        anew: bool = False,
    ) -> tuple[Fill, bool]:
        """What a fetch for a page brought, and whether another one had begun it.

        Args:
            key: of the page.
            lane: who asks in the same lane at the same time is content with the same answer.
            fetch: makes the fetch.
            anew: whether only a fetch that begins after this call will do.

        Raises:
            Whatever the fetch raises.
        """
        if self._unshared.holds(key, self._clock()):
            fill, joined = await fetch(), False
        else:
            fill, joined = await (self._flights.run_next if anew else self._flights.run)(lane, fetch)
        if fill.entry is not None:
            self._unshared.forget(key)
        elif fill.why_not != _BY_CHANCE and fill.page.status not in ERROR_STATUSES:
            self._unshared.note(key, self._clock())
        return fill, joined
