"""Requests that are answered below aiohttp although they wait for the controller: order, ends, and what is handed back.

That the answers are the ordinary lane's, byte for byte, is for `test_lanes.py`, whose misses are all carried.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.web_protocol import RequestHandler

from gateway.app import Gateway
from gateway.edge.hitlane import Begun
from gateway.edge.outbox import Outbox
from gateway.pipeline.exchange import Reply
from tests.conftest import Connect, StartGateway, Stub, Wire, bearer
from tests.edge.test_lanes import Wired

FIELDS = [f"{name}: {value}" for name, value in bearer().items()]
LINE = "GET /v3/stacks"
PAGE = b'{"resources":[]}'
JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"


class Controller:
    """A stub whose answers wait to be let go."""

    def __init__(self, stub: Stub) -> None:
        self.asked, self.go_on, self.left = asyncio.Semaphore(0), asyncio.Event(), asyncio.Event()
        self.stub = stub
        stub.script = self.script
        self.answer = JSON % (len(PAGE), PAGE)

    async def script(self, request: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if "/v3/" not in request.line:
            writer.write(self.answer)
            return
        self.asked.release()
        gone = asyncio.ensure_future(reader.read())
        going = asyncio.ensure_future(self.go_on.wait())
        await asyncio.wait([gone, going], return_when=asyncio.FIRST_COMPLETED)
        if gone.done() and not going.done():
            self.left.set()
        gone.cancel()
        going.cancel()
        await asyncio.gather(gone, going, return_exceptions=True)
        writer.write(self.answer)


@pytest.fixture
async def controller(stub: Stub) -> Controller:
    return Controller(stub)


Open = Callable[..., Awaitable[tuple[Gateway, Wire, Any]]]


@pytest.fixture
async def open_(stub: Stub, start_gateway: StartGateway, connect: Connect) -> Open:
    async def open_one(extra: str = "", **options: Any) -> tuple[Gateway, Wire, Any]:
        gateway = await start_gateway(stub.url, extra, **options)
        client = await connect(gateway.url)
        while not gateway._server.connections:
            await asyncio.sleep(0)
        return gateway, client, gateway._server.connections[0]

    return open_one


def counted(gateway: Gateway) -> dict[tuple[str, str], float]:
    registry = gateway.metrics.registry
    samples = [sample for metric in registry.collect() for sample in metric.samples]
    found = {
        (sample.labels["route"], sample.labels["code"]): sample.value
        for sample in samples
        if sample.name == "gateway_requests_total"
    }
    assert registry.get_sample_value("gateway_requests_in_flight") == 0
    return found


def test_the_private_parts_of_aiohttp_that_are_read_are_there() -> None:
    slots = {*RequestHandler.__slots__, *BaseProtocol.__slots__}
    assert slots >= {"_reading_paused", "_buffer_paused", "_messages", "_force_close", "transport", "_loop"}


async def test_aiohttp_never_sees_what_is_carried(stub: Stub, open_: Open) -> None:
    gateway, client, connection = await open_()
    stub.answers_json(PAGE)
    for count in range(1, 4):
        assert (await client.ask(LINE, *FIELDS)).body == PAGE
        assert (connection._request_count, connection.below) == (0, count)
    assert counted(gateway) == {("/v3/stacks", "200"): 3}


@pytest.mark.parametrize("pieces", [1, 2, 7, 1000], ids=str)
async def test_what_comes_behind_is_held_and_answered_in_order(
    controller: Controller, open_: Open, pieces: int
) -> None:
    _, client, connection = await open_()
    await client.request(LINE, *FIELDS)
    await controller.asked.acquire()
    behind = (
        b"GET /internal/1 HTTP/1.1\r\nHost: a\r\n\r\n"
        b"POST /staging/2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
        b"HEAD /internal/3 HTTP/1.1\r\nHost: a\r\n\r\n"
        b"GET /v3/info HTTP/1.1\r\nHost: a\r\n\r\n"
    )
    size = -(-len(behind) // pieces)
    for at in range(0, len(behind), size):
        await client.send(behind[at : at + size])
        held = connection._held_bytes
        while connection._held_bytes < min(at + size, len(behind)):
            await asyncio.sleep(0)
        assert connection._held_bytes > held
    assert not connection._messages
    assert not connection._waits()
    controller.go_on.set()
    assert (await client.answer()).status == 200
    assert [(await client.answer(method)).status for method in ("GET", "POST", "HEAD", "GET")] == [403, 200, 403, 200]
    assert (await client.ask(LINE, *FIELDS)).status == 200


async def test_requests_that_wait_behind_each_other_are_carried_one_by_one(controller: Controller, open_: Open) -> None:
    _, client, connection = await open_()
    await client.request(LINE, *FIELDS)
    await controller.asked.acquire()
    for count in range(1, 6):
        await client.request(LINE, *FIELDS)
        while len(connection._held) < count:
            await asyncio.sleep(0)
    assert controller.asked.locked(), "one at a time"
    controller.go_on.set()
    for _ in range(6):
        assert (await client.answer()).body == PAGE
    assert (connection._request_count, connection.below) == (0, 6)


async def test_no_more_is_read_than_may_be_held(controller: Controller, open_: Open) -> None:
    _, client, connection = await open_()
    await client.request(LINE, *FIELDS)
    await controller.asked.acquire()
    one = b"GET /internal/x HTTP/1.1\r\nHost: a\r\nX-Fill: %s\r\n\r\n" % (b"x" * 4000)
    sending = asyncio.ensure_future(client.send(one * 2000))
    while connection.transport.is_reading():
        await asyncio.sleep(0)
    for _ in range(100):
        await asyncio.sleep(0)
    assert connection._held_bytes < 1 << 20
    controller.go_on.set()
    assert (await client.answer()).status == 200
    for _ in range(2000):
        assert (await client.answer()).status == 403
    await sending
    assert connection.transport.is_reading()


async def test_a_client_that_leaves_takes_what_is_carried_with_it(controller: Controller, open_: Open) -> None:
    gateway, client, connection = await open_()
    await client.request(LINE, *FIELDS)
    await controller.asked.acquire()
    await client.request(LINE, *FIELDS)
    client.writer.close()
    await asyncio.wait_for(controller.left.wait(), 5)
    while gateway._server.connections:
        await asyncio.sleep(0)
    assert connection.carrying is None
    assert not connection._held
    assert sum(counted(gateway).values()) == 1, "recorded, once"
    assert gateway.client.balancer.endpoints[0].in_flight == 0


async def test_a_request_that_takes_too_long_is_answered_and_the_connection_goes_on(
    controller: Controller, open_: Open
) -> None:
    gateway, client, connection = await open_("limits: {request_timeout: 200ms, body_idle_timeout: 100ms}")
    answer = await client.ask(LINE, *FIELDS)
    assert (answer.status, answer.field("x-gateway-error")) == (504, "upstream-timeout")
    assert gateway.wheel.endings["request-timeout"] == 1
    controller.go_on.set()
    assert (await client.ask(LINE, *FIELDS)).status == 200
    assert connection._request_count == 0
    assert counted(gateway) == {("/v3/stacks", "504"): 1, ("/v3/stacks", "200"): 1}


async def test_who_waits_for_an_answer_is_not_idle(controller: Controller, open_: Open) -> None:
    gateway, client, connection = await open_(listen="{port: 0, keepalive: 100ms}")
    await client.request(LINE, *FIELDS)
    await controller.asked.acquire()
    began = gateway.wheel.now
    while gateway.wheel.now - began < 0.3:
        await asyncio.sleep(0.01)
    connection.close_idle()
    controller.go_on.set()
    assert (await client.answer()).status == 200
    assert await client.ended(), "and from then on it is"
    assert gateway.wheel.endings["idle"] == 1


async def test_a_drain_waits_for_what_is_carried_and_its_answer_is_the_last(
    controller: Controller, open_: Open
) -> None:
    gateway, client, connection = await open_(drain="20s")
    await client.request(LINE, *FIELDS)
    await controller.asked.acquire()
    stopping = asyncio.create_task(gateway.stop())
    while not gateway._server.draining:
        await asyncio.sleep(0)
    connection.close_idle()
    controller.go_on.set()
    answer = await client.answer()
    assert (answer.status, answer.body, answer.field("connection")) == (200, PAGE, "close")
    assert await client.ended()
    await asyncio.wait_for(stopping, 10)
    assert counted(gateway) == {("/v3/stacks", "200"): 1}


async def test_what_outlives_the_drain_is_cut_off(controller: Controller, open_: Open) -> None:
    gateway, client, connection = await open_(drain="100ms")
    await client.request(LINE, *FIELDS)
    await controller.asked.acquire()
    await asyncio.wait_for(gateway.stop(), 10)
    assert await client.ended()
    assert connection.carrying is None
    assert sum(counted(gateway).values()) == 1


BIG = b'"%s"' % (b"x" * 100_000)
HANDED_BACK = {
    "a stream": b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok",
    "a large page": JSON % (len(BIG), BIG),
    "a reason of its own": (JSON % (len(PAGE), PAGE)).replace(b"OK", b"Fine"),
    "a status of its own": (JSON % (len(PAGE), PAGE)).replace(b"200 OK", b"299 Odd"),
    "no content": b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("answer", HANDED_BACK.values(), ids=HANDED_BACK)
async def test_what_the_ordinary_lane_must_write_it_gets_and_counts_once(
    stub: Stub, open_: Open, answer: bytes
) -> None:
    gateway, client, connection = await open_()
    stub.answers(answer)
    for count in range(1, 4):
        got = await client.ask(LINE, *FIELDS)
        assert got.body == answer.partition(b"\r\n\r\n")[2]
        assert got.complete
        assert connection.begun_requests + connection.below == count
        assert sum(request.line.startswith("GET /v3/stacks") for request in stub.received) == count
    assert list(counted(gateway).values()) == [3]


async def test_a_fault_of_ours_is_500_and_logged_as_any_other(
    open_: Open, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway, client, _ = await open_()

    async def fault(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(gateway.pipeline, "_fetch", lambda *_, **__: fault())
    answer = await client.ask(LINE, *FIELDS)
    assert (answer.status, answer.field("x-gateway-error")) == (500, "internal")
    assert "unhandled fault" in caplog.text
    assert await client.ended()
    assert sum(counted(gateway).values()) == 1


class Stream:
    """A body that says when it is let go."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    def __aiter__(self) -> AsyncIterator[bytes]:
        raise AssertionError("nobody reads it")

    async def aclose(self) -> None:
        self.closed.set()


@pytest.mark.parametrize("when", ["before", "between", "behind"])
async def test_a_connection_that_ends_while_it_is_handed_over_lets_go_of_everything(
    open_: Open, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Before the answer is there, in the step that hands over, and before aiohttp's task has taken it."""
    gateway, *_ = await open_()
    stream, go_on = Stream(), asyncio.Event()

    async def streamed(begun: Begun, connection: Any) -> Begun:
        gateway.metrics.begin()
        await go_on.wait()
        if when == "between":
            connection.force_close()
        begun.exchange.status = 200
        return Begun(begun.exchange, Reply(200, begun.exchange.head.fields, stream), counted=True)

    carrier = gateway._server._carrier
    monkeypatch.setattr(carrier, "answer", streamed)
    recorded = []
    monkeypatch.setattr(carrier, "_record", lambda begun, *, complete: recorded.append((begun, complete)))
    wire, connection = Wired(), gateway._server()
    connection.connection_made(wire)
    while connection._waiter is None:
        await asyncio.sleep(0)
    connection.data_received(b"GET /v3/stacks HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n" % FIELDS[0].encode())
    await asyncio.sleep(0)
    assert connection.carried
    if when == "before":
        connection.connection_lost(None)
        await asyncio.sleep(0)
        assert not connection.carried
        return
    go_on.set()
    while connection.carried:
        await asyncio.sleep(0)
        if when == "behind" and connection._handed_over is not None:
            break
    connection.connection_lost(None)
    await asyncio.wait_for(stream.closed.wait(), 5)
    assert [complete for _, complete in recorded] == [False]
    assert wire.written == b""


async def test_answers_to_what_was_held_wait_for_a_client_that_does_not_read(
    controller: Controller, open_: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is a hit, answered as soon as it is looked at; it is the transport that sees what lies unread."""
    page = b'{"resources":[],"x":"%s"}' % (b"x" * 40_000)
    _, client, connection = await open_(
        "routes: [{match: GET /v3/processes, cache: {mode: policy, ttl: 1h, share: global}}]"
    )
    answer, controller.answer = controller.answer, JSON % (len(page), page)
    controller.go_on.set()
    assert (await client.ask("GET /v3/processes", *FIELDS)).status == 200
    await controller.asked.acquire()
    controller.go_on.clear()
    controller.answer = answer
    await client.request(LINE, *FIELDS)
    await controller.asked.acquire()
    held = 30
    for count in range(1, held + 1):
        await client.request("GET /v3/processes", *FIELDS)
        while len(connection._held) < count:
            await asyncio.sleep(0)
    most, send = [0], Outbox.send

    def sending(outbox: Outbox) -> None:
        most.append(sum(len(written) for _, written in outbox.posted))
        send(outbox)

    monkeypatch.setattr(Outbox, "send", sending)
    controller.go_on.set()
    while connection._held:
        await asyncio.sleep(0)
    assert connection.transport.get_write_buffer_size() < 10 * len(page)
    for _ in range(held + 1):
        assert (await client.answer()).status == 200
    assert max(most) < 3 * len(page)
