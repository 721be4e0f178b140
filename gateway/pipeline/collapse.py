"""One upstream fetch for many waiters.

Knows nothing of HTTP: a key, a coroutine to run once, and the callers that wait for it. The fetch belongs to all of its
waiters: it goes on while one of them is left and is cancelled with the last.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable

Result = TypeVar("Result")


class _Flight(Generic[Result]):
    __slots__ = ("task", "waiters")

    def __init__(self, task: asyncio.Task[Result]) -> None:
        self.task = task
        self.waiters = 0


class Collapse(Generic[Result]):
    """Runs at most one coroutine a key at a time.

    Args:
        own: failures that are only those of the one who began; who waited for it begins anew.
    """

    __slots__ = ("_flights", "_own")

    def __init__(self, *own: type[Exception]) -> None:
        self._own = own
        self._flights: dict[Hashable, _Flight[Result]] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def __contains__(self, key: Hashable) -> bool:
        """Whether a fetch for `key` is under way."""
        return key in self._flights

    async def run(self, key: Hashable, fetch: Callable[[], Coroutine[Any, Any, Result]]) -> tuple[Result, bool]:
        """The result of the one fetch for `key`, started here or joined.

        Args:
            key: must hold everything that makes results differ, visibility domain included.
            fetch: makes the coroutine; called only when none is under way.

        Returns:
            The result, and whether this call joined a fetch that another one had started.

        Raises:
            Whatever the fetch raises; to every waiter, unless it is one of `own`.
        """
        while True:
            joined = key in self._flights
            try:
                return await self._join(key, fetch), joined
            except self._own:
                if not joined:
                    raise

    async def _join(self, key: Hashable, fetch: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        flight = self._flights.get(key)
        if flight is None:
            flight = _Flight(asyncio.ensure_future(fetch()))
            self._flights[key] = flight
            flight.task.add_done_callback(lambda _: self._forget(key, flight))
        flight.waiters += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiters -= 1
            if flight.waiters == 0 and not flight.task.done():
                # Forgotten before it is cancelled: who comes now must not join a dying fetch.
                self._forget(key, flight)
                flight.task.cancel()

    async def run_next(self, key: Hashable, fetch: Callable[[], Coroutine[Any, Any, Result]]) -> tuple[Result, bool]:
        """Like `run`, but joins no fetch that began before this call: waits for that, and joins the one after it.

        Where nobody can tell what a write has made void, only what began after a question may answer it.
        """
        flight = self._flights.get(key)
        if flight is not None:
            await asyncio.wait({flight.task})
            # All who waited go on in this round of the loop, and the first of them begins what the others join.
        return await self.run(key, fetch)

    def _forget(self, key: Hashable, flight: _Flight[Result]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
