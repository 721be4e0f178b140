"""Pages larger than the hit lane writes: sent as they are stored, to clients that read, dawdle, leave or ask last."""

from __future__ import annotations

import asyncio
import socket
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from gateway.app import Gateway
from gateway.edge.connection import Connection
from gateway.edge.hitlane import LARGEST_BODY
from tests.conftest import Connect, StartGateway, Stub, Wire, bearer

CACHED = "routes: [{match: GET /v3/stacks, cache: {mode: policy, ttl: 1h}}]"
FIELDS = [f"{name}: {value}" for name, value in bearer().items()]
LINE = "GET /v3/stacks"
HUGE = 8_000_000  # more than the kernel takes in for a client that does not read


class Recorder:
    """A transport that remembers what was written to it."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self.written: list[Any] = []

    def write(self, data: Any) -> None:
        self.written.append(data)
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


@pytest.fixture
def recorders(monkeypatch: pytest.MonkeyPatch) -> list[Recorder]:
    found: list[Recorder] = []
    made = Connection.connection_made

    def connection_made(self: Connection, transport: Any) -> None:
        found.append(Recorder(transport))
        made(self, found[-1])  # type: ignore[arg-type]

    monkeypatch.setattr(Connection, "connection_made", connection_made)
    return found


@cache
def page(size: int) -> bytes:
    """A document of exactly so many bytes that says at each place which one it is."""
    text = b"".join([b"%07x," % place for place in range(size // 8 + 1)])
    return b'"%s"' % text[: size - 2]


def stored(gateway: Gateway) -> bytes:
    (node,) = gateway.store.nodes()
    return node.entry.body  # type: ignore[union-attr]


def deaf(url: str) -> socket.socket:
    """A connected client whose kernel takes in but little."""
    address = urlsplit(url)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect((address.hostname, address.port))
    client.setblocking(False)
    return client


def request(*more: str) -> bytes:
    return "\r\n".join([f"{LINE} HTTP/1.1", "Host: a", *FIELDS, *more, "", ""]).encode()


async def warmed(stub: Stub, gateway: Gateway, connect: Connect, body: bytes) -> Wire:
    """A client that has just had the page, which is stored."""
    stub.answers_json(body)
    client = await connect(gateway.url)
    first = await client.ask(LINE, *FIELDS)
    assert (first.status, first.complete, first.body == body) == (200, True, True)
    return client


def recorded(gateway: Gateway, name: str, **labels: str) -> float:
    return gateway.metrics.registry.get_sample_value(name, labels) or 0.0


@pytest.mark.parametrize("size", [LARGEST_BODY - 1, LARGEST_BODY, LARGEST_BODY + 1, 65536, 262_145, 5_000_000], ids=str)
async def test_a_hit_has_every_byte_and_the_connection_goes_on(
    stub: Stub, start_gateway: StartGateway, connect: Connect, size: int
) -> None:
    gateway = await start_gateway(stub.url, CACHED)
    body = page(size)
    client = await warmed(stub, gateway, connect, body)
    for _ in range(3):
        hit = await client.ask(LINE, *FIELDS)
        assert (hit.status, hit.complete, len(hit.body)) == (200, True, size)
        assert hit.body == body
        assert "hit" in (hit.field("cache-status") or "")
    tag = hit.field("etag")
    assert (await client.ask(LINE, *FIELDS, f"If-None-Match: {tag}")).status == 304
    head = await client.ask(LINE.replace("GET", "HEAD"), *FIELDS)
    assert (head.status, head.field("content-length"), head.body) == (200, str(size), b"")
    assert (await client.ask(LINE, *FIELDS)).body == body


async def test_a_big_page_is_written_as_it_is_stored_and_never_copied(
    stub: Stub, start_gateway: StartGateway, connect: Connect, recorders: list[Recorder]
) -> None:
    gateway = await start_gateway(stub.url, CACHED)
    client = await warmed(stub, gateway, connect, page(LARGEST_BODY + 1))
    connection = recorders[-1]
    connection.written.clear()
    await client.ask(LINE, *FIELDS)
    head, body = connection.written
    assert head.endswith(b"\r\n\r\n")
    assert body is stored(gateway)


@pytest.mark.parametrize(
    ("listen", "expected"),
    [("port: 0", 1024), ("port: 0, send_buffer: 64KiB", 128), ("port: 0, send_buffer: 16KiB", 32)],
    ids=["default", "given", "the least"],
)
async def test_the_kernel_takes_in_no_more_than_it_is_told_to(
    stub: Stub, start_gateway: StartGateway, connect: Connect, recorders: list[Recorder], listen: str, expected: int
) -> None:
    """tcp(7): connections have what the listening socket has, of which Linux makes twice as much, and do not grow."""
    gateway = await start_gateway(stub.url, CACHED, listen=f"{{{listen}}}")
    await taken_in(stub, gateway, connect)
    granted = recorders[-1].get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    (most,) = kernel("core/wmem_max")
    assert granted == min(expected * 1024, 2 * most)


async def test_left_to_the_kernel_a_buffer_grows(
    stub: Stub, start_gateway: StartGateway, connect: Connect, recorders: list[Recorder]
) -> None:
    """tcp(7): a buffer that was not asked for begins small, and becomes as large as the client is fast and far."""
    gateway = await start_gateway(stub.url, CACHED, listen="{port: 0, send_buffer: 0}")
    await taken_in(stub, gateway, connect)
    granted = recorders[-1].get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    _, begins, grows_to = kernel("ipv4/tcp_wmem")
    assert begins < granted <= grows_to


def kernel(name: str) -> list[int]:
    return [int(number) for number in (Path("/proc/sys/net") / name).read_text().split()]


async def taken_in(stub: Stub, gateway: Gateway, connect: Connect) -> None:
    """A client has read many big pages, the last ones from the store."""
    client = await warmed(stub, gateway, connect, page(HUGE))
    for _ in range(3):
        await client.ask(LINE, *FIELDS)


async def test_a_client_that_dawdles_gets_all_of_it_and_others_do_not_wait(
    stub: Stub, start_gateway: StartGateway, connect: Connect
) -> None:
    gateway = await start_gateway(stub.url, CACHED)
    body = page(HUGE)
    other = await warmed(stub, gateway, connect, body)
    loop = asyncio.get_running_loop()
    with deaf(gateway.url) as client:
        await loop.sock_sendall(client, request("Connection: close"))
        got = bytearray(await loop.sock_recv(client, 1000))
        assert (await other.ask("GET /internal/x")).status == 403
        assert recorded(gateway, "gateway_requests_in_flight") == 1
        while piece := await loop.sock_recv(client, 1 << 20):
            got += piece
    assert got.partition(b"\r\n\r\n")[2] == body
    assert not any(gateway.wheel.endings.values())


async def test_a_client_that_leaves_in_the_middle_is_counted_once_and_holds_nothing(
    stub: Stub, start_gateway: StartGateway, connect: Connect
) -> None:
    gateway = await start_gateway(stub.url, CACHED)
    other = await warmed(stub, gateway, connect, page(HUGE))
    loop = asyncio.get_running_loop()
    with deaf(gateway.url) as client:
        await loop.sock_sendall(client, request())
        await loop.sock_recv(client, 1000)
        assert recorded(gateway, "gateway_requests_in_flight") == 1
    while recorded(gateway, "gateway_requests_in_flight"):
        await asyncio.sleep(0.01)
    count = sum(
        sample.value
        for metric in gateway.metrics.registry.collect()
        for sample in metric.samples
        if sample.name == "gateway_requests_total"
    )
    assert count == 2
    assert (await other.ask(LINE, *FIELDS)).complete


async def test_a_drain_waits_for_a_big_page_that_is_on_its_way(
    stub: Stub, start_gateway: StartGateway, connect: Connect
) -> None:
    gateway = await start_gateway(stub.url, CACHED, drain="20s")
    body = page(HUGE)
    await warmed(stub, gateway, connect, body)
    loop = asyncio.get_running_loop()
    with deaf(gateway.url) as client:
        await loop.sock_sendall(client, request())
        got = bytearray(await loop.sock_recv(client, 1000))
        stopping = asyncio.create_task(gateway.stop())
        while not gateway._server.draining:
            await asyncio.sleep(0)
        while piece := await loop.sock_recv(client, 1 << 20):
            got += piece
        await asyncio.wait_for(stopping, 20)
    assert got.partition(b"\r\n\r\n")[2] == body
