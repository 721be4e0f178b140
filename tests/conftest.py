"""Fixtures shared by all tests: a gateway on real sockets, scripted upstreams, tokens of the seed's kind."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import jwt
import pytest

from gateway.app import Gateway
from gateway.settings import parse

SECRET = "a-secret-that-is-long-enough-for-hs256-and-its-tests"
ADVERTISED = "https://api.internal.example.org"


def pytest_collection_finish() -> None:
    """Leave ten thousand collected tests to themselves.

    Looking through them for garbage takes the process 200 ms each time, and what is under test in it counts that
    as the fault of whoever it waits for.
    """
    gc.collect()
    gc.freeze()


def token(**claims: Any) -> str:
    """A token as the 2015 seed has it: HS256, no iss, jti or kid."""
    defaults = {
        "user_id": "uaa-id-432",
        "email": "email-300@somedomain.com",
        "scope": ["cloud_controller.read", "cloud_controller.write"],
        "aud": ["cloud_controller"],
        "exp": int(time.time()) + 3600,
    }
    return jwt.encode({**defaults, **claims}, SECRET, algorithm="HS256")


def bearer(**claims: Any) -> dict[str, str]:
    """An Authorization field with such a token."""
    return {"Authorization": f"bearer {token(**claims)}"}


@dataclass
class Received:
    """One request as it arrived at a stub."""

    head: bytes
    body: bytes = b""

    @property
    def line(self) -> str:
        return self.head.split(b"\r\n", 1)[0].decode("latin-1")

    @property
    def fields(self) -> list[tuple[str, str]]:
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        return [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines) if name]

    def field(self, name: str) -> str | None:
        values = [value for key, value in self.fields if key.lower() == name.lower()]
        return ", ".join(values) if values else None


Script = Callable[[Received, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Stub:
    """An upstream that writes whatever bytes its script says."""

    url: str = ""
    received: list[Received] = field(default_factory=list)
    script: Script | None = None
    connections: int = 0
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    serving: dict[asyncio.Task[None], asyncio.WriteTransport] = field(default_factory=dict)

    def answers(self, *pieces: bytes) -> None:
        """Answer every request with these bytes."""

        async def script(_: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()

        self.script = script

    def answers_json(self, body: bytes, *fields: str, status: str = "200 OK") -> None:
        """Answer every request with a JSON document."""
        head = [f"HTTP/1.1 {status}", "Content-Type: application/json; charset=utf-8", *fields]
        self.answers("\r\n".join([*head, f"Content-Length: {len(body)}", "", ""]).encode() + body)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self.serving[task] = writer.transport
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                request = Received(head[:-4])
                self.received.append(request)
                length = request.field("content-length")
                if length is not None:
                    request.body = await reader.readexactly(int(length))
                elif request.field("transfer-encoding") == "chunked":
                    request.body = await _chunked(reader)
                assert self.script is not None
                await self.script(request, reader, writer)
                if writer.is_closing():
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            self.closed.set()
        finally:
            writer.close()

    async def hang_up(self) -> None:
        """End every connection, and see to it that its socket is closed."""
        for task, transport in self.serving.items():
            task.cancel()
            transport.abort()
        await asyncio.gather(*self.serving, return_exceptions=True)
        await asyncio.sleep(0)  # the transports close their sockets in the next round of the loop


async def _chunked(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int((await reader.readuntil(b"\r\n")).strip(), 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return body


@asynccontextmanager
async def listening(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], port: int = 0
) -> AsyncIterator[str]:
    """A server on a real socket that leaves nothing open behind; gives its URL."""
    tasks: set[asyncio.Task[None]] = set()
    writers: list[asyncio.StreamWriter] = []

    async def serving(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client hung up
        finally:
            writer.close()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        tasks.add(asyncio.create_task(serving(reader, writer)))

    server = await asyncio.start_server(connected, "127.0.0.1", port, limit=1 << 20)
    host, port = server.sockets[0].getsockname()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await closed(writers)


async def closed(writers: list[asyncio.StreamWriter]) -> None:
    """Close connections, also those whose other side does not read any more."""
    for writer in writers:
        writer.close()
        if writer.transport.get_write_buffer_size():
            writer.transport.abort()
    await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)


@pytest.fixture
async def stub() -> AsyncIterator[Stub]:
    """A scripted upstream on a real socket."""
    upstream = Stub()
    upstream.answers_json(b"{}")
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0, limit=1 << 20)
    host, port = server.sockets[0].getsockname()
    upstream.url = f"http://{host}:{port}"
    yield upstream
    server.close()
    await upstream.hang_up()
    await server.wait_closed()


@pytest.fixture(params=["plain", "session"])
def exchange(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """By which exchange requests without content go to the controller: the plain one where it may, or the session."""
    if request.param == "session":
        monkeypatch.setattr("gateway.upstream.client.plain", lambda _: None)
    return request.param


StartGateway = Callable[..., Awaitable[Gateway]]


@pytest.fixture
async def start_gateway() -> AsyncIterator[StartGateway]:
    """Starts gateways from settings text and stops them at the end."""
    running: list[Gateway] = []

    async def start(
        upstream: str,
        extra: str = "",
        *,
        public_url: str = "https://gateway.example.org",
        listen: str = "{port: 0}",
        admin: str = "{port: 0}",
        drain: str = "1s",
        more_upstream: str = "",
        urls: tuple[str, ...] = (),
    ) -> Gateway:
        text = f"""
listen: {listen}
admin: {admin}
public_url: {public_url}
drain: {drain}
upstream:
  {f"urls: [{', '.join(urls)}]" if urls else f"url: {upstream}"}
  advertised_urls: [{ADVERTISED}]
  host_header: api.internal.example.org
  {more_upstream}
auth: {{keys: [{{secret: {SECRET}}}]}}
{extra}
"""
        gateway = Gateway(parse(text, {}))
        await gateway.start()
        running.append(gateway)
        return gateway

    yield start
    for gateway in running:
        await gateway.stop()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A client that follows nothing, keeps nothing and decodes nothing."""
    async with aiohttp.ClientSession(
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
    ) as session:
        yield session


@dataclass
class Answer:
    """A response as it stood on the wire."""

    status: int
    reason: str
    fields: list[tuple[str, str]]
    version: str = "HTTP/1.1"
    interim: list[int] = field(default_factory=list)
    body: bytes = b""
    complete: bool = True

    def field(self, name: str) -> str | None:
        values = self.all(name)
        return values[0] if values else None

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key.lower() == name.lower()]


class Wire:
    """A client that writes bytes and reads answers by the framing rules (RFC 9112 §6.3), and no more than that."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        """Write bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    async def request(self, line: str, *fields: str, body: bytes = b"", host: bool = True) -> None:
        """Write a request: its line, without the version unless it has one, and its fields."""
        full = line if " HTTP/" in line else f"{line} HTTP/1.1"
        lines = [full, *(["Host: api.example.org"] if host else []), *fields]
        await self.send("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    async def answer(self, method: str = "GET") -> Answer:
        """Read one answer; `complete` says whether its framing was honoured to the end."""
        async with asyncio.timeout(10):
            interim: list[int] = []
            while (answer := await self._head()).status < 200 and answer.status != 101:
                interim.append(answer.status)
            answer.interim = interim
            if method != "HEAD" and answer.status not in {101, 204, 304}:
                await self._content(answer)
            return answer

    async def ask(self, line: str, *fields: str, body: bytes = b"") -> Answer:
        """Write a request and read its answer."""
        await self.request(line, *fields, body=body)
        return await self.answer(line.split(maxsplit=1)[0])

    async def ended(self) -> bool:
        """Whether the other side closes without another byte."""
        async with asyncio.timeout(10):
            try:
                return await self.reader.read(1) == b""
            except ConnectionError:
                return True

    async def _head(self) -> Answer:
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        version, status, reason = lines[0].split(" ", 2)
        pairs = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines[1:]) if name]
        return Answer(int(status), reason, pairs, version)

    async def _content(self, answer: Answer) -> None:
        length = answer.field("content-length")
        try:
            if answer.field("transfer-encoding") == "chunked":
                while size := int(await self.reader.readuntil(b"\r\n"), 16):
                    answer.body += await self.reader.readexactly(size)
                    await self.reader.readexactly(2)
                await self.reader.readuntil(b"\r\n")
            elif length is not None:
                answer.body = await self.reader.readexactly(int(length))
            else:
                answer.body = await self.reader.read()
        except asyncio.IncompleteReadError as error:
            answer.body += error.partial if answer.field("transfer-encoding") is None else b""
            answer.complete = False
        except ConnectionError:
            answer.complete = False


Connect = Callable[..., Awaitable[Wire]]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Opens client connections to a URL and closes them at the end."""
    writers: list[asyncio.StreamWriter] = []

    async def open_(url: str, **options: Any) -> Wire:
        address = urlsplit(url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=1 << 20, **options)
        writers.append(writer)
        return Wire(reader, writer)

    yield open_
    await closed(writers)


Serving = Callable[[Received, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
StartUpstream = Callable[[Serving], Awaitable[str]]


@pytest.fixture
async def start_upstream() -> AsyncIterator[StartUpstream]:
    """Starts upstreams that treat what comes after the first request head as they please; gives their URL.

    The gateway's own question for health is answered here.
    """
    async with AsyncExitStack() as stack:

        async def start(serving: Serving) -> str:
            async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                request = Received((await reader.readuntil(b"\r\n\r\n"))[:-4])
                if request.line == "GET /healthz HTTP/1.1":
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                else:
                    await serving(request, reader, writer)

            return await stack.enter_async_context(listening(connected))

        yield start
