"""Calls between the supervisor and a worker, over a socket pair: either side asks, the other answers.

Messages are MessagePack with a length before them. Both ends are this program, of one version, on one machine; nobody
else holds the socket. When the other side is gone every call that waits fails, and `closed` says so.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Mapping

    Handler = Callable[[Any], Awaitable[Any]]

_LENGTH: Final = 4
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(tuple[int, str, Any])
_ANSWER: Final = ""  # the name in an answer


class GoneError(Exception):
    """The other side has gone."""


class Channel:
    """One end.

    Args:
        handlers: what the other side may ask, by name. One is called for each message as it arrives; a handler runs
            until its first `await` before the next message is read.
    """

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers: Final = handlers
        self._waiting: Final[dict[int, asyncio.Future[Any]]] = {}
        self._tasks: Final[set[asyncio.Task[None]]] = set()
        self._number = 0
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self.closed: Final = asyncio.Event()

    async def open(self, connected: socket.socket) -> None:
        """Begin to talk over one of a pair of sockets."""
        reader, self._writer = await asyncio.open_connection(sock=connected)
        self._reading = asyncio.create_task(self._read(reader))

    async def close(self) -> None:
        """Say no more. Handlers under way are ended."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        if self._writer is not None:
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def call(self, name: str, content: Any = None) -> Any:
        """Ask the other side.

        Args:
            name: of its handler.
            content: plain data.

        Raises:
            GoneError: it has gone before it answered.
        """
        self._number += 1
        number = self._number
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            self._send((number, name, content))
            return await answer
        finally:
            del self._waiting[number]

    def _send(self, message: tuple[int, str, Any]) -> None:
        if self._writer is None or self.closed.is_set():
            raise GoneError
        encoded = _ENCODER.encode(message)
        self._writer.write(len(encoded).to_bytes(_LENGTH, "big") + encoded)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                length = int.from_bytes(await reader.readexactly(_LENGTH), "big")
                number, name, content = _DECODER.decode(await reader.readexactly(length))
                if name == _ANSWER:
                    answer = self._waiting.get(number)
                    if answer is not None and not answer.done():
                        answer.set_result(content)
                    continue
                task = asyncio.create_task(self._answer(number, name, content))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            self.closed.set()
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(GoneError())

    async def _answer(self, number: int, name: str, content: Any) -> None:
        result = await self._handlers[name](content)
        with contextlib.suppress(GoneError):
            self._send((number, _ANSWER, result))
