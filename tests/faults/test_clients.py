"""Clients' faults on real sockets: what becomes of them, that nothing else suffers, that the gateway recovers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import struct
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from gateway.app import Gateway
from tests.conftest import Connect, Received, StartGateway, StartUpstream, Stub, Wire
from tests.processes import running

LIMITS = "limits: {head_timeout: 600ms, body_idle_timeout: 600ms}"


def ended(gateway: Gateway) -> dict[str, int]:
    return {reason: count for reason, count in gateway.wheel.endings.items() if count}


def in_flight(gateway: Gateway) -> float:
    text = generate_latest(gateway.metrics.registry).decode()
    (line,) = (line for line in text.splitlines() if line.startswith("gateway_requests_in_flight "))
    return float(line.split()[1])


async def until(condition: object) -> None:
    """Wait until a condition holds."""
    assert callable(condition)
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def beside(gateway: Gateway, connect: Connect) -> AsyncIterator[None]:
    """An ordinary client that asks all the while, and suffers nothing; afterwards nothing is left under way."""
    client = await connect(gateway.url)
    served = 0
    done = asyncio.Event()

    async def ask() -> None:
        nonlocal served
        while not done.is_set() or not served:
            assert (await client.ask("GET /staging/ordinary")).status == 200
            served += 1
            await asyncio.sleep(0.01)

    asking = asyncio.create_task(ask())
    try:
        yield
    finally:
        done.set()
        await asking
    assert served
    await until(lambda: in_flight(gateway) == 0 and len(gateway.wheel) == 1)


def reset(client: Wire) -> None:
    """End a connection with a reset."""
    connection = client.writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.writer.transport.abort()


class Slow:
    """A controller that answers `/staging/ordinary` at once and leaves all else to a script.

    Attributes:
        asked: a request has come.
        gone: the gateway has given up a request.
    """

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.gone = asyncio.Event()
        self.answers: tuple[bytes, ...] = ()

    async def serve(self, request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if "/ordinary" in request.line:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        self.asked.set()
        try:
            for piece in self.answers:
                writer.write(piece)
                await writer.drain()
            while await reader.read(65536):
                pass
        except ConnectionError:
            pass
        finally:
            self.gone.set()


@pytest.mark.parametrize("how", ["half-closes", "closes", "resets"])
@pytest.mark.parametrize(
    ("sent", "answers"),
    [
        (b"GET /staging/x HTTP/1.1\r\nHost: a\r\n\r\n", ()),
        (b"POST /staging/x HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nhalf", ()),
        (b"POST /staging/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", ()),
        (
            b"GET /staging/x HTTP/1.1\r\nHost: a\r\n\r\n",
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"4\r\nhalf\r\n"),
        ),
    ],
    ids=["waiting for an answer", "in the content", "in a chunk", "in the answer"],
)
async def test_a_client_that_goes_takes_its_request_with_it(
    start_gateway: StartGateway,
    start_upstream: StartUpstream,
    connect: Connect,
    caplog: pytest.LogCaptureFixture,
    sent: bytes,
    answers: tuple[bytes, ...],
    how: str,
) -> None:
    """What the controller was asked for it is let go of at once, and never completed. A half-close is a going, too."""
    slow = Slow()
    slow.answers = answers
    gateway = await start_gateway(await start_upstream(slow.serve))
    async with beside(gateway, connect):
        client = await connect(gateway.url)
        await client.send(sent)
        await slow.asked.wait()
        if answers:
            await client.reader.readuntil(b"half")
        if how == "half-closes":
            client.writer.write_eof()
            assert await client.reader.read() in {b"", b"\r\n"}
        elif how == "closes":
            client.writer.close()
        else:
            reset(client)
        async with asyncio.timeout(10):
            await slow.gone.wait()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_client_that_goes_in_its_head_leaves_nothing(
    stub: Stub, start_gateway: StartGateway, connect: Connect
) -> None:
    gateway = await start_gateway(stub.url)
    async with beside(gateway, connect):
        for index in range(60):
            client = await connect(gateway.url)
            await client.send(b"GET /staging/x HTTP/1.1\r\nHost: a\r\n"[: index % 40])
            if index % 3:
                reset(client)
            else:
                client.writer.write_eof()
    assert all("ordinary" in request.line or "healthz" in request.line for request in stub.received)


async def test_clients_that_never_read_are_cut_off(stub: Stub, start_gateway: StartGateway, connect: Connect) -> None:
    large = b"HTTP/1.1 200 OK\r\nContent-Length: 20000000\r\n\r\n" + bytes(20_000_000)

    async def script(request: Received, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(large if "large" in request.line else b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    stub.script = script
    gateway = await start_gateway(stub.url, LIMITS)
    loop = asyncio.get_running_loop()
    host, _, port = gateway.url.removeprefix("http://").rpartition(":")
    with contextlib.ExitStack() as open_:
        async with beside(gateway, connect):
            for _ in range(10):
                client = open_.enter_context(socket.socket())
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.settimeout(0)
                await loop.sock_connect(client, (host, int(port)))
                await loop.sock_sendall(client, b"GET /staging/large HTTP/1.1\r\nHost: a\r\n\r\n")
            await until(lambda: ended(gateway) == {"answer-stalled": 10})


async def test_slowloris_hundreds_of_slow_heads_cost_nobody_an_answer(
    stub: Stub, start_gateway: StartGateway, connect: Connect
) -> None:
    """Two thousand are measured by `bench/slowloris.py`; here it is their end, and everyone else's answers."""
    gateway = await start_gateway(stub.url, LIMITS)
    async with beside(gateway, connect):
        slow = [await connect(gateway.url) for _ in range(300)]

        async def drip(client: Wire) -> int:
            answering = asyncio.ensure_future(client.answer())
            await client.send(b"GET /staging/x HTTP/1.1\r\nHost: a\r\n")
            while not answering.done():
                client.writer.write(b"X: a\r\n")
                await asyncio.wait([answering], timeout=0.1)
            return (await answering).status

        assert set(await asyncio.gather(*map(drip, slow))) == {408}
    assert ended(gateway) == {"head-timeout": 300}


@pytest.fixture
def no_descriptors() -> Iterator[contextlib.AbstractContextManager[None]]:
    """While it is entered this process can open no file and accept no connection."""

    @contextlib.contextmanager
    def exhausted() -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(int(entry.name) for entry in Path("/proc/self/fd").iterdir())
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
        fillers: list[int] = []
        try:
            with contextlib.suppress(OSError):
                while True:
                    fillers.append(os.dup(0))
            yield
        finally:
            for filler in fillers:
                os.close(filler)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    return exhausted()


async def test_out_of_descriptors_who_is_connected_is_served_and_who_waits_comes_next(
    stub: Stub,
    start_gateway: StartGateway,
    connect: Connect,
    no_descriptors: contextlib.AbstractContextManager[None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    gateway = await start_gateway(stub.url)
    host, _, port = gateway.url.removeprefix("http://").rpartition(":")
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as open_:
        waiting = [open_.enter_context(socket.socket()) for _ in range(20)]
        for client in waiting:
            client.settimeout(0)
        here = await connect(gateway.url)
        assert (await here.ask("GET /staging/x")).status == 200  # its way to the controller is open, too
        with no_descriptors:
            for client in waiting:
                await loop.sock_connect(client, (host, int(port)))
                await loop.sock_sendall(client, b"GET /staging/y HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            await until(lambda: gateway.doors.refused()["exhausted"] > 1)
            for _ in range(20):
                assert (await here.ask("GET /staging/x")).status == 200
            assert all("/staging/y" not in request.line for request in stub.received)
        for client in waiting:
            assert (await asyncio.wait_for(loop.sock_recv(client, 65536), 10)).startswith(b"HTTP/1.1 200 OK")
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_blocked_event_loop_costs_time_and_nothing_else(
    start_gateway: StartGateway, start_upstream: StartUpstream, connect: Connect
) -> None:
    """Blocked for longer than every deadline, with one connection in each state."""

    async def echo(request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = int(request.field("content-length") or "0")
        body = await reader.readexactly(size) if size else b""
        if request.field("transfer-encoding"):
            await reader.readuntil(b"0\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    gateway = await start_gateway(await start_upstream(echo), LIMITS, listen="{port: 0, keepalive: 600ms}")
    fresh, idle, head, content = [await connect(gateway.url) for _ in range(4)]
    assert (await idle.ask("GET /staging/x")).status == 200
    await head.send(b"GET /staging/x HTTP/1.1\r\n")
    await content.request("POST /staging/x", "Content-Length: 10", body=b"12345")
    await asyncio.sleep(0.05)
    time.sleep(1.5)  # noqa: ASYNC251 - this is the fault
    await head.send(b"Host: a\r\n\r\n")
    await content.send(b"67890")
    for client in (fresh, idle):
        assert (await client.ask("GET /staging/x")).status == 200
    assert (await head.answer()).status == 200
    assert (await content.answer("POST")).body == b"1234567890"
    assert ended(gateway) == {}


async def test_the_process_as_it_is_run_has_the_same_limits(stub: Stub, connect: Connect, tmp_path: Path) -> None:
    """`gateway run` has another event loop than these tests, with transports of its own kind."""
    path = tmp_path / "gateway.yaml"
    path.write_text(f"""
listen: {{port: 0, keepalive: 700ms, max_connections: 3}}
admin: {{port: 0}}
public_url: https://gateway.example.org
upstream: {{url: {stub.url}, host_header: api.internal.example.org}}
route_table: none
routes: [{{match: "* /*", access: public}}]
limits: {{head_timeout: 400ms, body_idle_timeout: 400ms}}
""")
    large = 30_000_000
    stub.answers(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % large + bytes(large))
    async with running(path) as process:
        head, content, deaf = [await connect(process.url) for _ in range(3)]
        turned_away = await connect(process.url)
        assert (await turned_away.answer()).status == 503
        await head.send(b"GET /x HTTP/1.1\r\n")
        await content.request("POST /x", "Content-Length: 10", body=b"12345")
        await deaf.request("GET /x")
        assert (await head.answer()).status == 408
        assert (await content.answer("POST")).status == 408
        assert await head.ended()
        assert await content.ended()
        idle = await connect(process.url)
        assert await idle.ended()
        async with asyncio.timeout(20):
            while b'reason="answer-stalled"} 1.0' not in await metrics(connect, process.admin_url):
                await asyncio.sleep(0.05)


async def metrics(connect: Connect, url: str) -> bytes:
    client = await connect(url)
    return (await client.ask("GET /metrics")).body
