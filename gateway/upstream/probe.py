"""Whether the controller can be reached: a small request now and then, for readiness only.

It never takes part in answering a request: a controller that is down fails its requests, or they are served stale.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from gateway.core.model import Fields, RequestHead, Target
from gateway.pipeline.ports import UpstreamError

if TYPE_CHECKING:
    from gateway.pipeline.ports import Upstream


class Probe:
    """Asks one path of the controller at an interval.

    Args:
        upstream: the controller.
        host: Host field to send.
        path: what to ask; any answer below 500 counts.
        interval: seconds between two questions.
        patience: seconds to wait for an answer.
    """

    def __init__(
        self, upstream: Upstream, *, host: str, path: str, interval: float = 5.0, patience: float = 5.0
    ) -> None:
        self._upstream: Final = upstream
        self._head: Final = RequestHead("GET", Target(path), Fields((("Host", host), ("Accept", "*/*"))))
        self._interval: Final = interval
        self._patience: Final = patience
        self._task: asyncio.Task[None] | None = None
        self.fault: str | None = "not asked yet"

    async def start(self) -> None:
        """Ask once, then go on behind."""
        await self.ask()
        self._task = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Stop asking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def ask(self) -> None:
        """Ask once and note the outcome in `fault`."""
        try:
            async with asyncio.timeout(self._patience):
                response = await self._upstream.send(self._head, None)
                await response.release()
            status = response.head.status
            self.fault = None if status < 500 else f"answered {status}"
        except TimeoutError:
            self.fault = f"no answer within {self._patience:g} s"
        except UpstreamError as error:
            self.fault = error.detail

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            await self.ask()
