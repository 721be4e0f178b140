"""Long work on the event loop: in steps, one step of one piece of work in each round, everybody else in between.

The law: however many big pages come in at once, what waits for the loop waits for one step. Threads do not keep that:
what they do in Python or msgspec they do with the interpreter's lock, and a loop that wants it back waits until the
call under way is over, or for the switch interval of 5 ms, each time it has asked for events.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, TypeVar
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Generator

T = TypeVar("T")

_turns: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock]] = WeakKeyDictionary()


async def in_turn(steps: Generator[None, None, T]) -> T:
    """What comes of work that is done step by step, in turn with other such work.

    Args:
        steps: the work; ended early when the caller is cancelled.
    """
    turn = _turns.setdefault(asyncio.get_running_loop(), asyncio.Lock())
    try:
        while True:
            async with turn:
                try:
                    next(steps)
                except StopIteration as end:
                    return end.value  # type: ignore[no-any-return]
                await asyncio.sleep(0)
    finally:
        steps.close()
