"""Whether the controllers can be reached: a small request to each now and then.

Probes never take part in answering a request and are sent past breaker and balancing. What they find is readiness of
the gateway, and an endpoint whose probes fail is used only when there is no better one.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from gateway.core.model import Fields, RequestHead, Target
from gateway.pipeline.ports import UpstreamError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.pipeline.ports import Upstream
    from gateway.upstream.endpoint import Endpoint


class Probe:
    """Asks one path of every controller at an interval.

    Args:
        endpoints: the controllers there are now.
        host: Host field to send.
        path: what to ask; any answer below 500 counts.
        interval: seconds between two questions.
        patience: seconds to wait for an answer.

    Attributes:
        fault: what is wrong with the first of them, None as soon as one answers.
    """

    def __init__(
        self,
        endpoints: Callable[[], Sequence[Endpoint]],
        *,
        host: str,
        path: str,
        interval: float = 5.0,
        patience: float = 5.0,
    ) -> None:
        self._endpoints: Final = endpoints
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
        """Ask each once, and note what came of it in `fault` and in its health."""
        faults = await asyncio.gather(*(self._ask_one(endpoint) for endpoint in self._endpoints()))
        self.fault = None if None in faults else next(iter(faults), "there is none")

    async def _ask_one(self, endpoint: Endpoint) -> str | None:
        fault = await self._fault_of(endpoint.client)
        endpoint.health.probed(answered=fault is None)
        return fault

    async def _fault_of(self, upstream: Upstream) -> str | None:
        try:
            async with asyncio.timeout(self._patience):
                response = await upstream.send(self._head, None)
                await response.release()
        except TimeoutError:
            return f"no answer within {self._patience:g} s"
        except UpstreamError as error:
            return error.detail
        return None if response.head.status < 500 else f"answered {response.head.status}"

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            await self.ask()
