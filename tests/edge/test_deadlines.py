"""How long a client may take: the arithmetic on literal values, then each deadline on a real socket."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

from gateway.edge.deadlines import Deadlines, Pace
from tests.conftest import token

DEADLINES = Deadlines(head=10, keepalive=75, body_idle=30, request=3600, min_rate=100)


@pytest.mark.parametrize(
    ("steps", "slow"),
    [
        pytest.param([], False, id="nothing yet"),
        pytest.param([(0, 29.9, True)], False, id="patient"),
        pytest.param([(0, 30, True)], True, id="still"),
        pytest.param([(0, 29, True), (1, 1, True), (1, 29, True)], True, id="one byte in 59 s"),
        pytest.param([(0, 29, True), (5000, 1, True), (5000, 29, True)], False, id="a burst buys time"),
        pytest.param([(0, 29, True), (5000, 1, True), (5000, 30, True)], True, id="but not to stand still"),
        pytest.param([(0, 1000, False)], False, id="our fault"),
        pytest.param([(0, 15, True), (0, 1000, False), (0, 14, True)], False, id="our fault in between"),
        pytest.param([(step * 99, 1.0, True) for step in range(2000)], False, id="fast enough with what it had"),
        pytest.param([(step * 90, 1.0, True) for step in range(2000)], True, id="too slow on the whole"),
        pytest.param([(step * 90, 1.0, False) for step in range(2000)], False, id="we are as slow"),
        pytest.param([(1000, 1, True), (0, 1, True), (0, 27, True)], False, id="a new count is not progress"),
    ],
)
def test_pace(steps: list[tuple[int, float, bool]], slow: bool) -> None:
    pace = Pace()
    for mark, seconds, waiting in steps:
        pace.step(mark, seconds, waiting=waiting)
    assert pace.too_slow(DEADLINES) is slow
    assert not pace.too_slow(Deadlines(head=0, keepalive=0, body_idle=0)), "0 sets no limit"


def ended(gateway) -> dict[str, int]:
    return {reason: count for reason, count in gateway.wheel.endings.items() if count}


@pytest.mark.parametrize(
    "drip",
    [b"\r", b"G", b"GET /v3 HT", b"GET /v3 HTTP/1.1\r\nHost: a\r\nX", b"GET /v3 HTTP/1.1\r\nHost: a\r\n"],
    ids=["blank line", "method", "line", "field", "all but the end"],
)
async def test_slowloris_a_head_begun_and_not_ended_is_408(stub, start_gateway, connect, drip: bytes) -> None:
    gateway = await start_gateway(stub.url, "limits: {head_timeout: 200ms}")
    client = await connect(gateway.url)
    await client.send(drip)
    answer = await client.answer()
    assert (answer.status, answer.field("x-gateway-error"), answer.field("connection")) == (
        *(408, "request-timeout"),
        "close",
    )
    assert json.loads(answer.body)["errors"][0]["title"] == "CF-RequestTimeout"
    assert answer.field("date")
    assert await client.ended()
    assert ended(gateway) == {"head-timeout": 1}


async def test_slowloris_drips_do_not_buy_time(stub, start_gateway, connect) -> None:
    gateway = await start_gateway(stub.url, "limits: {head_timeout: 300ms}")
    client = await connect(gateway.url)
    await client.send(b"GET /v3/info HTTP/1.1\r\nHost: a\r\n")
    answering = asyncio.ensure_future(client.answer())
    drips = 0
    while not answering.done():
        await client.send(b"X-%d: 1\r\n" % drips)
        drips += 1
        await asyncio.wait([answering], timeout=0.05)
    assert (await answering).status == 408
    assert drips > 2


async def test_a_slow_head_within_its_time_is_a_request(stub, start_gateway, connect) -> None:
    gateway = await start_gateway(stub.url, "limits: {head_timeout: 5s}", listen="{port: 0, keepalive: 100ms}")
    client = await connect(gateway.url)
    await client.send(b"GET /v3/info HTTP/1.1\r\nHost: a\r\n")
    while not (gateway.wheel.now > 0.5):  # it was an unfinished head for longer than `keepalive`
        await asyncio.sleep(0.02)
    await client.send(b"\r\n")
    assert (await client.answer()).status == 200


@pytest.mark.parametrize("before", [False, True], ids=["new", "after a request"])
async def test_an_idle_connection_is_closed_without_a_word(stub, start_gateway, connect, before: bool) -> None:
    gateway = await start_gateway(stub.url, listen="{port: 0, keepalive: 200ms}")
    client = await connect(gateway.url)
    if before:
        assert (await client.ask("GET /v3/info")).status == 200
    assert await client.ended()
    assert ended(gateway) == {"idle": 1}
    assert len(gateway.wheel) == 0


async def test_a_connection_that_never_asked_gets_the_time_of_a_head(stub, start_gateway, connect) -> None:
    gateway = await start_gateway(stub.url, "limits: {head_timeout: 200ms}", listen="{port: 0, keepalive: 1h}")
    kept, closed = await connect(gateway.url), await connect(gateway.url)
    assert (await kept.ask("GET /v3/info")).status == 200
    assert await closed.ended()
    assert (await kept.ask("GET /v3/info")).status == 200


async def test_a_partial_head_behind_a_request_has_its_time_from_when_it_is_waited_for(
    stub, start_gateway, connect
) -> None:
    gateway = await start_gateway(stub.url, "limits: {head_timeout: 200ms}")
    client = await connect(gateway.url)
    await client.request("GET /v3/info")
    assert (await client.answer()).status == 200
    await client.send(b"GET /v3/info HTTP/1.1\r\n")
    assert (await client.answer()).status == 408


async def test_requests_keep_a_connection_whoever_answers_them(stub, start_gateway, connect) -> None:
    """Pages from the cache included: whoever answers below aiohttp must tell the wheel (`Watched.below`)."""
    stub.answers_json(b'{"pagination":{},"resources":[]}')
    gateway = await start_gateway(
        stub.url,
        "routes: [{match: GET /v3/processes, cache: {mode: policy, ttl: 1h}}]",
        listen="{port: 0, keepalive: 400ms}",
    )
    client = await connect(gateway.url)
    start = gateway.wheel.now
    while gateway.wheel.now - start < 1.2:
        assert (await client.ask("GET /v3/processes", f"Authorization: bearer {token()}")).status == 200
        await asyncio.sleep(0.05)
    assert ended(gateway) == {}
    assert await client.ended()
    assert ended(gateway) == {"idle": 1}


@pytest.mark.parametrize(
    "fields", [["Content-Length: 100"], ["Transfer-Encoding: chunked"]], ids=["Content-Length", "chunked"]
)
@pytest.mark.parametrize("continued", [False, True], ids=["sent at once", "100-continue"])
async def test_content_that_stands_still_is_408(stub, start_gateway, connect, fields, continued: bool) -> None:
    gateway = await start_gateway(stub.url, "limits: {body_idle_timeout: 300ms}")
    client = await connect(gateway.url)
    expect = ["Expect: 100-continue"] if continued else []
    await client.request("POST /staging/x", *fields, *expect, body=b"" if continued else b"5\r\nhello\r\n")
    answer = await client.answer("POST")
    assert (answer.status, answer.field("x-gateway-error"), answer.interim) == (
        408,
        "request-timeout; the request content stood still or came too slowly",
        [100] if continued else [],
    )
    assert await client.ended()
    assert ended(gateway) == {"content-stalled": 1}


async def test_content_that_only_drips_is_408(stub, start_gateway, connect) -> None:
    gateway = await start_gateway(stub.url, "limits: {body_idle_timeout: 400ms, min_transfer_rate: 1KiB}")
    client = await connect(gateway.url)
    await client.request("POST /staging/x", "Content-Length: 1000000")
    answering = asyncio.ensure_future(client.answer("POST"))
    while not answering.done():
        await client.send(b"x")
        await asyncio.wait([answering], timeout=0.05)
    assert (await answering).status == 408
    assert ended(gateway) == {"content-stalled": 1}


async def test_content_waits_for_a_slow_controller_as_long_as_it_takes(start_gateway, start_upstream, connect) -> None:
    """The client is not hurried when it is the controller that does not read, or has read all and thinks."""
    reading = asyncio.Event()
    size = 16_000_000

    async def late(_request, reader, writer) -> None:
        await reading.wait()
        left = size
        while left:
            left -= len(await reader.read(1 << 20))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    gateway = await start_gateway(
        await start_upstream(late), "limits: {body_idle_timeout: 200ms, min_transfer_rate: 1MiB}"
    )
    client = await connect(gateway.url)
    await client.request("POST /staging/x", f"Content-Length: {size}")
    sending = asyncio.ensure_future(client.send(bytes(size)))
    start = gateway.wheel.now
    while gateway.wheel.now - start < 0.8:
        await asyncio.sleep(0.02)
    reading.set()
    await sending
    assert (await client.answer("POST")).status == 200
    assert ended(gateway) == {}


def deaf(url: str) -> socket.socket:
    """A client with a small window, so that the gateway's kernel does not swallow its answer."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect((host, int(port)))
    client.setblocking(False)
    return client


@pytest.mark.parametrize("streamed", [False, True], ids=["from memory", "streamed"])
async def test_an_answer_that_nobody_reads_ends_the_connection(stub, start_gateway, streamed: bool) -> None:
    body = bytes(30_000_000)
    if streamed:
        stub.answers(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body), body)
    else:
        stub.answers_json(b'"%s"' % (b"x" * len(body)))
    gateway = await start_gateway(stub.url, "limits: {body_idle_timeout: 300ms}")
    client = deaf(gateway.url)
    with client:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(client, b"GET /staging/x HTTP/1.1\r\nHost: a\r\n\r\n")
        while not ended(gateway):
            await asyncio.sleep(0.02)
        while len(gateway.wheel):
            await asyncio.sleep(0.02)
    assert ended(gateway) == {"answer-stalled": 1}


async def test_a_slow_reader_within_the_rate_gets_all_of_it(stub, start_gateway) -> None:
    size = 12_000_000
    stub.answers(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size, bytes(size))
    gateway = await start_gateway(stub.url, "limits: {body_idle_timeout: 400ms, min_transfer_rate: 64KiB}")
    client = deaf(gateway.url)
    loop = asyncio.get_running_loop()
    with client:
        await loop.sock_sendall(client, b"GET /staging/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        got, start = 0, gateway.wheel.now
        while piece := await loop.sock_recv(client, 200_000):
            got += len(piece)
            if gateway.wheel.now - start < 1.5:
                await asyncio.sleep(0.05)
    assert got > size
    assert ended(gateway) == {}


@pytest.mark.parametrize(
    ("line", "fields", "status", "reason"),
    [
        ("GET /staging/x", [], 504, "upstream-timeout"),
        ("POST /staging/x", ["Content-Length: 1000000"], 408, "request-timeout; the whole request took too long"),
    ],
    ids=["the controller's time", "the client's time"],
)
async def test_a_request_takes_no_longer_than_it_may(
    start_gateway, start_upstream, connect, line: str, fields: list[str], status: int, reason: str
) -> None:
    async def never(_request, reader, _writer) -> None:
        while await reader.read(65536):
            pass

    gateway = await start_gateway(
        await start_upstream(never), "limits: {request_timeout: 400ms, body_idle_timeout: 300ms, min_transfer_rate: 0}"
    )
    client = await connect(gateway.url)
    await client.request(line, *fields)
    answering = asyncio.ensure_future(client.answer(line.split(maxsplit=1)[0]))
    while not answering.done():
        if fields:
            await client.send(b"x")
        await asyncio.wait([answering], timeout=0.05)
    answer = await answering
    assert (answer.status, answer.field("x-gateway-error")) == (status, reason)
    assert ended(gateway) == {"request-timeout": 1}


async def test_an_answer_under_way_is_broken_off_when_the_request_takes_too_long(
    start_gateway, start_upstream, connect
) -> None:
    async def endless(_request, _reader, writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"1\r\nx\r\n")
            await writer.drain()
            await asyncio.sleep(0.02)

    gateway = await start_gateway(
        await start_upstream(endless), "limits: {request_timeout: 400ms, body_idle_timeout: 300ms}"
    )
    client = await connect(gateway.url)
    answer = await client.ask("GET /staging/x")
    assert (answer.status, answer.complete) == (200, False)
    assert ended(gateway) == {"request-timeout": 1}


async def test_a_head_that_never_ends_is_not_collected(stub, start_gateway, connect) -> None:
    gateway = await start_gateway(stub.url, "limits: {max_header_bytes: 4KiB, max_line_bytes: 4KiB}")
    client = await connect(gateway.url)
    await client.send(b"GET /v3/info HTTP/1.1\r\nHost: a\r\n")
    for number in range(16):
        await client.send(b"X-%d: %s\r\n" % (number, b"x" * 1000))
    answer = await client.answer()
    assert (answer.status, answer.field("x-gateway-error")) == (431, "fields-too-large")
    assert await client.ended()
    assert ended(gateway) == {"head-too-large": 1}


async def test_time_in_which_the_loop_was_blocked_counts_for_nobody(stub, start_gateway, connect) -> None:
    gateway = await start_gateway(stub.url, "limits: {head_timeout: 400ms}", listen="{port: 0, keepalive: 400ms}")
    idle, head = await connect(gateway.url), await connect(gateway.url)
    assert (await idle.ask("GET /v3/info")).status == 200
    await head.send(b"GET /v3/info HTTP/1.1\r\n")
    await asyncio.sleep(0)
    loop = asyncio.get_running_loop()
    until = loop.time() + 1
    while loop.time() < until:  # nothing else runs
        pass
    await head.send(b"Host: a\r\n\r\n")
    assert (await head.answer()).status == 200
    assert (await idle.ask("GET /v3/info")).status == 200
