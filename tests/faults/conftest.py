"""A controller that behaves, except where it is told not to: shared by the fault suites."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from tests.conftest import Received, closed

Fault = Callable[[Received, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

PAGE = b'{"pagination":{"total_results":0},"resources":[]}'
FAULTY = "faulty"  # a target with this word in it meets the fault


class FaultyController:
    """A controller on a real socket. `/healthz` is answered 200 (while `healthy`), any other target with `PAGE`.

    Attributes:
        url: where it is, also after it was down.
        fault: what happens to requests whose target contains `FAULTY`; None for nothing.
        healthy: whether `/healthz` says 200, not 500.
        received: every request but those for `/healthz`, in order.
        connections: how many were ever accepted.
    """

    def __init__(self) -> None:
        self.url = ""
        self.fault: Fault | None = None
        self.healthy = True
        self.received: list[Received] = []
        self.connections = 0
        self._port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    async def up(self) -> None:
        """Accept connections, on the same port as before."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self._port, limit=4 << 20)
        self._port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"

    async def down(self) -> None:
        """Refuse connections and end those there are."""
        if self._server is not None:
            self._server.close()
            self._server = None
        await self.hang_up()

    async def hang_up(self) -> None:
        """End every connection; new ones are accepted as before."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        writers, self._writers = self._writers, []
        await closed(writers)

    def targets(self) -> list[str]:
        """What was asked, as `METHOD target`."""
        return [request.line.rpartition(" ")[0] for request in self.received]

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        self._tasks.add(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while not writer.is_closing():
                request = Received((await reader.readuntil(b"\r\n\r\n"))[:-4])
                if " /healthz " in request.line:
                    await answer(b"OK" if self.healthy else b"", status=b"200 OK" if self.healthy else b"500 No")(
                        request, reader, writer
                    )
                    continue
                self.received.append(request)
                if self.fault is not None and FAULTY in request.line:
                    await self.fault(request, reader, writer)
                    continue
                length = request.field("content-length")
                if length is not None:
                    request.body = await reader.readexactly(int(length))
                await answer(PAGE)(request, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the gateway hung up
        finally:
            writer.close()


def head(*fields: str, status: bytes = b"200 OK", content_type: str = "application/json") -> bytes:
    """A response head."""
    lines = [f"Content-Type: {content_type}", *fields, "", ""]
    return b"HTTP/1.1 " + status + b"\r\n" + "\r\n".join(lines).encode()


def answer(body: bytes, *, status: bytes = b"200 OK", content_type: str = "application/json") -> Fault:
    """Answer in full."""

    async def fault(_: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head(f"Content-Length: {len(body)}", status=status, content_type=content_type) + body)
        await writer.drain()

    return fault


def then_stall(*pieces: bytes) -> Fault:
    """Write these bytes, then nothing, until the gateway hangs up."""

    async def fault(_: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
        while await reader.read(1 << 16):
            pass
        raise ConnectionResetError

    return fault


def then_close(*pieces: bytes) -> Fault:
    """Write these bytes and close in order."""

    async def fault(_: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
        await writer.drain()
        writer.close()

    return fault


def then_reset(*pieces: bytes) -> Fault:
    """Write these bytes and end with a RST."""

    async def fault(_: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
        await writer.drain()
        reset(writer)

    return fault


def dripping(data: bytes, *, size: int = 1, pause: float = 0.005) -> Fault:
    """Write these bytes a few at a time."""

    async def fault(_: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for start in range(0, len(data), size):
            writer.write(data[start : start + size])
            await writer.drain()
            await asyncio.sleep(pause)

    return fault


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with a RST."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@pytest.fixture
async def controller() -> AsyncIterator[FaultyController]:
    """A controller that is up and behaves."""
    async with running() as one:
        yield one


StartController = Callable[[], Awaitable[FaultyController]]


@pytest.fixture
async def start_controller() -> AsyncIterator[StartController]:
    """Starts as many controllers as a test wants."""
    async with AsyncExitStack() as stack:

        async def start() -> FaultyController:
            return await stack.enter_async_context(running())

        yield start


@asynccontextmanager
async def running() -> AsyncIterator[FaultyController]:
    """A controller that leaves nothing open behind."""
    one = FaultyController()
    await one.up()
    try:
        yield one
    finally:
        await one.down()


@pytest.fixture
async def unanswered() -> AsyncIterator[str]:
    """The URL of a listener whose queue is full: a connection to it is neither accepted nor refused."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=0)
    port = listener.getsockname()[1]
    waiting: list[socket.socket] = []
    loop = asyncio.get_running_loop()
    try:
        while True:
            one = socket.socket()
            one.setblocking(False)
            waiting.append(one)
            try:
                async with asyncio.timeout(0.2):
                    await loop.sock_connect(one, ("127.0.0.1", port))
            except TimeoutError:
                break
        yield f"http://127.0.0.1:{port}"
    finally:
        for one in (*waiting, listener):
            one.close()
