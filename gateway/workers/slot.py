"""The place of one worker: its process, the channel to it, and the next process when it has ended unasked."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from typing import TYPE_CHECKING, Any, Final

from gateway.telemetry.structured import structlog
from gateway.workers.channel import Channel, GoneError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

_PATIENCE: Final = 60.0  # to start: keys and origins may have to be fetched
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 10.0
_STABLE: Final = 30.0  # whoever lived so long begins with the first pause again


class StartError(Exception):
    """A worker did not begin to serve; the text says why."""


class Slot:
    """One worker at a time.

    Args:
        number: its place, from 1.
        listening: sockets to accept from.
        start: what a new worker is told.
        announce: called with what a worker tells the others.
        ended: called when a worker has ended, with whether it was told to.

    Attributes:
        serving: whether there is a worker that serves.
        restarts: how many ended unasked.
    """

    def __init__(
        self,
        number: int,
        listening: Sequence[socket.socket],
        start: Callable[[], dict[str, Any]],
        announce: Callable[[Slot, list[str]], Awaitable[None]],
        ended: Callable[[Slot], None],
    ) -> None:
        self.number: Final = number
        self._listening: Final = listening
        self._start: Final = start
        self._announce: Final = announce
        self._ended: Final = ended
        self._log: Final = structlog.get_logger("gateway")
        self._process: asyncio.subprocess.Process | None = None
        self._channel: Channel | None = None
        self._watching: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self.serving = False
        self.restarts = 0

    async def begin(self) -> None:
        """Start the first worker, and replace it from then on.

        Raises:
            StartError: it does not serve.
        """
        await self._spawn()
        self._watching = asyncio.create_task(self._watch())

    async def ask(self, name: str, content: Any = None, *, within: float) -> Any:
        """What the worker answers; None when there is none, or it has gone, or it takes too long.

        Args:
            name: of what it is asked.
            content: plain data.
            within: seconds.
        """
        channel = self._channel
        if channel is None:
            return None
        with contextlib.suppress(GoneError, TimeoutError):
            async with asyncio.timeout(within):
                return await channel.call(name, content)
        return None

    async def insist(self, name: str, content: Any, *, within: float) -> None:
        """Have the worker do something, or end it."""
        channel = self._channel
        if channel is None:
            return
        try:
            async with asyncio.timeout(within):
                await channel.call(name, content)
        except GoneError:
            pass
        except TimeoutError:
            self._log.error("worker does not answer", number=self.number, asked=name)
            self.kill()

    def kill(self) -> None:
        """End the process at once."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    def stopping(self) -> None:
        """Replace nobody from now on."""
        self._stopping.set()

    async def stopped(self) -> None:
        """Wait for the process to end."""
        if self._process is not None:
            await self._process.wait()
        if self._watching is not None:
            await self._watching
        elif self._channel is not None:
            await self._channel.close()

    async def _spawn(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            numbers = [theirs.fileno(), *(one.fileno() for one in self._listening)]
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "gateway.workers",
                *map(str, numbers),
                pass_fds=numbers,
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        self._channel = channel = Channel({"announce": self._told})
        await channel.open(ours)
        try:
            async with asyncio.timeout(_PATIENCE):
                answer = await channel.call("start", {**self._start(), "number": self.number})
        except (GoneError, TimeoutError):
            self.kill()
            raise StartError(f"worker {self.number} ended before it served, or took too long") from None
        if answer["faults"]:
            self.kill()
            raise StartError("\n".join(answer["faults"]))
        self.serving = True

    async def _told(self, tags: list[str]) -> None:
        await self._announce(self, tags)

    async def _watch(self) -> None:
        clock = asyncio.get_running_loop().time
        pause = _FIRST_PAUSE
        while True:
            begun = clock()
            await self._wait()
            if self._stopping.is_set():
                return
            pause = _FIRST_PAUSE if clock() - begun >= _STABLE else min(2 * pause, _LONGEST_PAUSE)
            while not self.serving and not await self._pause(pause):
                try:
                    await self._spawn()
                except StartError as error:
                    self._log.error("worker does not start", number=self.number, fault=str(error))
                    await self._wait()
                    pause = min(2 * pause, _LONGEST_PAUSE)
            if not self.serving:
                return

    async def _wait(self) -> None:
        """Until the process has ended and everything of it is put away."""
        process, channel = self._process, self._channel
        if process is None or channel is None:
            return
        code = await process.wait()
        served, self.serving, self._channel = self.serving, False, None
        await channel.close()
        if not self._stopping.is_set() and served:
            self.restarts += 1
            self._log.error("worker ended", number=self.number, code=code)
        self._ended(self)

    async def _pause(self, seconds: float) -> bool:
        """Whether the gateway stops meanwhile."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        return self._stopping.is_set()
