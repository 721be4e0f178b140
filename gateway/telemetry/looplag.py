"""How late the event loop is: a timer that measures by how much it missed its time.

Whatever holds the loop delays every request under way; this is where it shows. One timer, no task.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

INTERVAL: Final = 0.25


class LoopLag:
    """Measures the loop it is started on.

    Args:
        observe: told the lag in seconds, four times a second.
    """

    def __init__(self, observe: Callable[[float], object]) -> None:
        self._observe: Final = observe
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to measure."""
        self._again(asyncio.get_running_loop())

    def stop(self) -> None:
        """Measure no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _again(self, loop: asyncio.AbstractEventLoop) -> None:
        due = loop.time() + INTERVAL
        self._timer = loop.call_at(due, self._tick, loop, due)

    def _tick(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self._observe(max(0.0, loop.time() - due))
        self._again(loop)
