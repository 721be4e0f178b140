"""The gateway watches the jobs that its clients' writes began: it asks for them until they are over, then drops pages.

Nobody else may ask: a client that deletes an app need not wait for the job, and one that waits may do so past this
gateway. Each job is asked for with the token of the write that began it, held here in memory for as long as the watch
lasts and shown nowhere. Bounded in number and time; a watch that is given up drops the pages once more, since the job
may have ended unseen. Knows jobs by their paths and nothing of routes or pages.
"""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import TYPE_CHECKING, Final

from gateway.pipeline.jobs import is_over
from gateway.pipeline.ports import UpstreamError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.core.model import RequestHead

FIRST_DELAY: Final = 0.5
LONGEST_DELAY: Final = 10.0
PATIENCE: Final = 600.0
_UNAUTHORIZED: Final = frozenset({401, 403})


class End(Enum):
    """How a watch ended; the closed `result` label of `gateway_job_watches_total`."""

    ENDED = "ended"  # the job is over
    SEEN = "seen"  # an answer on its way to a client said so first
    TIMEOUT = "timeout"  # given up: it took too long
    EXPIRED = "token-expired"  # given up: the token of the write is not valid any more
    UNAUTHORIZED = "unauthorized"  # given up: the controller does not take the token any more
    MISSING = "missing"  # the controller does not know the job (any more)
    CROWDED = "crowded"  # never begun: too many are watched
    STOPPED = "stopped"  # the gateway stops


class JobWatch:
    """Jobs under way that the gateway asks for.

    Args:
        ask: sends a request, gives status and content. May raise UpstreamError.
        drop: drops pages by their tags.
        clock: epoch seconds.
        sleep: waits so many seconds.
        capacity: the most jobs watched at once.
    """

    def __init__(
        self,
        *,
        ask: Callable[[RequestHead], Awaitable[tuple[int, bytes]]],
        drop: Callable[[frozenset[str]], object],
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        capacity: int = 256,
    ) -> None:
        self._ask: Final = ask
        self._drop: Final = drop
        self._clock: Final = clock
        self._sleep: Final = sleep
        self._capacity: Final = capacity
        self._tasks: Final[dict[str, asyncio.Task[None]]] = {}
        self.ends: Final[dict[str, int]] = {end.value: 0 for end in End}

    def __len__(self) -> int:
        return len(self._tasks)

    def begin(self, request: RequestHead, tags: frozenset[str], *, expires: float | None) -> None:
        """Watch the job that a request asks for, unless it is watched already or there is no room.

        Args:
            request: how to ask for it, the writer's token included.
            tags: what its end drops.
            expires: when that token expires, epoch seconds; None when that is not known.
        """
        path = request.target.path
        if path in self._tasks:
            return
        if len(self._tasks) >= self._capacity:
            self.ends[End.CROWDED.value] += 1
            return
        until = self._clock() + PATIENCE
        task = asyncio.ensure_future(self._watch(request, tags, until, expires))
        self._tasks[path] = task
        task.add_done_callback(lambda _: self._forget(path, task))

    def seen(self, path: str) -> None:
        """Stop asking for a job: its end was seen and its pages are dropped already."""
        task = self._tasks.pop(path, None)
        if task is not None:
            self.ends[End.SEEN.value] += 1
            task.cancel()

    async def stop(self) -> None:
        """Stop asking for any."""
        tasks = list(self._tasks.values())
        self._tasks.clear()
        self.ends[End.STOPPED.value] += len(tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, request: RequestHead, tags: frozenset[str], until: float, expires: float | None) -> None:
        delay, end = FIRST_DELAY, None
        while end is None:
            await self._sleep(delay)
            delay = min(2 * delay, LONGEST_DELAY)
            end = self._too_late(until, expires) or await self._look(request)
        self._drop(tags)
        self.ends[end.value] += 1

    def _too_late(self, until: float, expires: float | None) -> End | None:
        now = self._clock()
        if expires is not None and now >= expires:
            return End.EXPIRED
        return End.TIMEOUT if now >= until else None

    async def _look(self, request: RequestHead) -> End | None:
        """Ask once; None when there is reason to ask again."""
        try:
            status, body = await self._ask(request)
        except UpstreamError:
            return None
        if status in _UNAUTHORIZED:
            return End.UNAUTHORIZED
        if status == 404:
            return End.MISSING
        return End.ENDED if status == 200 and is_over(body) else None

    def _forget(self, path: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(path) is task:
            del self._tasks[path]
