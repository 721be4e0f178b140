"""The controller's faults on real sockets: what the client gets, that nothing else suffers, that it recovers."""

from __future__ import annotations

import asyncio

import pytest

from tests.conftest import Connect, StartGateway, bearer
from tests.faults.conftest import (
    FAULTY,
    PAGE,
    Fault,
    FaultyController,
    StartController,
    answer,
    dripping,
    head,
    then_close,
    then_reset,
    then_stall,
)

TIMEOUTS = "timeouts: {connect: 400ms, head: 400ms, idle: 400ms}"
AUTHORIZATION = f"Authorization: {bearer()['Authorization']}"
PAGE_HEAD = head(f"Content-Length: {len(PAGE)}")
CHUNKED = head("Transfer-Encoding: chunked")
MIB = 1 << 20

TIMEOUT = (504, "upstream-timeout")
BROKEN = (502, "upstream-broken")
TOO_LARGE = (502, "upstream-head-too-large")

FAULTS: dict[str, tuple[Fault, tuple[int, str | None]]] = {
    "stalls before the head": (then_stall(), TIMEOUT),
    "stalls in the status line": (then_stall(b"HTTP/1.1 2"), TIMEOUT),
    "stalls mid-head": (then_stall(b"HTTP/1.1 200 OK\r\nContent-Le"), TIMEOUT),
    "stalls before the body": (then_stall(PAGE_HEAD), TIMEOUT),
    "stalls mid-body": (then_stall(PAGE_HEAD + PAGE[:9]), TIMEOUT),
    "stalls mid-chunk": (then_stall(CHUNKED + b"31\r\n" + PAGE[:9]), TIMEOUT),
    "stalls before the last chunk": (then_stall(CHUNKED + b"%x\r\n" % len(PAGE) + PAGE + b"\r\n"), TIMEOUT),
    "closes before the head": (then_close(), BROKEN),
    "closes mid-head": (then_close(b"HTTP/1.1 200 OK\r\nContent-Le"), BROKEN),
    "closes mid-body": (then_close(PAGE_HEAD + PAGE[:9]), BROKEN),
    "closes mid-chunk": (then_close(CHUNKED + b"31\r\n" + PAGE[:9]), BROKEN),
    "resets before the head": (then_reset(), BROKEN),
    "resets mid-head": (then_reset(b"HTTP/1.1 200 OK\r\nContent-Le"), BROKEN),
    "resets mid-body": (then_reset(PAGE_HEAD + PAGE[:9]), BROKEN),
    "Content-Length too long, then closes": (then_close(head("Content-Length: 999") + PAGE), BROKEN),
    "Content-Length too long, then stalls": (then_stall(head("Content-Length: 999") + PAGE), TIMEOUT),
    "Content-Length twice": (then_stall(head("Content-Length: 9", "Content-Length: 8") + PAGE), BROKEN),
    "Content-Length not a number": (then_stall(head("Content-Length: nine") + PAGE), BROKEN),
    "Content-Length negative": (then_stall(head("Content-Length: -1") + PAGE), BROKEN),
    "chunk size not hex": (then_stall(CHUNKED + b"zz\r\n" + PAGE), BROKEN),
    "chunk longer than it says": (then_stall(CHUNKED + b"2\r\n" + PAGE), BROKEN),
    "garbage": (then_stall(b"\x00\xff\x16\x03" * 64 + b"\r\n\r\n"), BROKEN),
    "another protocol": (then_stall(b"220 mail.example.org ESMTP\r\n"), BROKEN),
    "one field of 1 MB": (then_stall(head("X-Big: " + "a" * MIB) + PAGE), TOO_LARGE),
    "1 MB of fields": (then_stall(head(*(f"X-{n}: {'a' * 1000}" for n in range(1000))) + PAGE), TOO_LARGE),
    "drips its head": (dripping(PAGE_HEAD + PAGE, pause=0.02), TIMEOUT),
    "drips its body": (dripping(PAGE_HEAD + PAGE, size=16), (200, None)),
    "says 500": (answer(b"{}", status=b"500 Oh"), (500, None)),
}


@pytest.mark.parametrize(("fault", "expected"), FAULTS.values(), ids=FAULTS)
async def test_a_fault_is_answered_hurts_nobody_else_and_passes(
    fault: Fault,
    expected: tuple[int, str | None],
    controller: FaultyController,
    start_gateway: StartGateway,
    connect: Connect,
) -> None:
    gateway = await start_gateway(controller.url, more_upstream=TIMEOUTS)
    controller.fault = fault
    victim, other = await connect(gateway.url), await connect(gateway.url)
    await victim.request(f"GET /v3/processes?names={FAULTY}", AUTHORIZATION)
    for page in range(5):
        fine = await other.ask(f"GET /v3/apps?page={page}", AUTHORIZATION)
        assert (fine.status, fine.body) == (200, PAGE), "another's request"
    got = await victim.answer()
    reason = (got.field("x-gateway-error") or "").partition(";")[0] or None
    assert (got.status, reason, got.complete) == (*expected, True)
    controller.fault = None
    again = await victim.ask(f"GET /v3/processes?names={FAULTY}&again=1", AUTHORIZATION)
    assert (again.status, again.body) == (200, PAGE), "recovered by itself"


@pytest.mark.parametrize(
    "fault",
    [
        then_stall(head("Content-Length: 999", content_type="application/octet-stream") + b"partial"),
        then_close(head("Content-Length: 999", content_type="application/octet-stream") + b"partial"),
        then_reset(head("Content-Length: 999", content_type="application/octet-stream") + b"partial"),
        then_close(head("Transfer-Encoding: chunked", content_type="application/octet-stream") + b"7\r\npartial\r\n"),
    ],
    ids=["stalls", "closes", "resets", "closes between chunks"],
)
async def test_content_that_is_passed_through_breaks_off_with_its_transfer(
    fault: Fault, controller: FaultyController, start_gateway: StartGateway, connect: Connect
) -> None:
    gateway = await start_gateway(controller.url, more_upstream=TIMEOUTS)
    controller.fault = fault
    client = await connect(gateway.url)
    got = await client.ask(f"GET /v3/packages/{FAULTY}/download", AUTHORIZATION)
    assert (got.status, got.complete) == (200, False), "never as if it were complete"
    controller.fault = None
    again = await (await connect(gateway.url)).ask(f"GET /v3/packages/{FAULTY}/download", AUTHORIZATION)
    assert (again.status, again.complete) == (200, True)


async def test_what_follows_a_short_content_length_is_nobodys_answer(
    controller: FaultyController, start_gateway: StartGateway, connect: Connect
) -> None:
    """The rest looks like the next response: it must answer nobody (RFC 9112 §6.3, response splitting)."""
    gateway = await start_gateway(controller.url, more_upstream=f"{TIMEOUTS}\n  connections: 1")
    smuggled = head("Content-Length: 5", content_type="text/plain") + b"wrong"

    async def fault(_: object, __: object, writer: asyncio.StreamWriter) -> None:
        writer.write(PAGE_HEAD + PAGE + smuggled)
        await writer.drain()

    controller.fault = fault
    client = await connect(gateway.url)
    for number in range(10):
        got = await client.ask(f"GET /v3/processes?names={FAULTY}&n={number}", AUTHORIZATION)
        assert (got.status, got.body) == (200, PAGE)
        fine = await client.ask(f"GET /v3/apps?n={number}", AUTHORIZATION)
        assert (fine.status, fine.body) == (200, PAGE)


async def test_refused_connections_fail_at_once_and_pass(
    controller: FaultyController, start_gateway: StartGateway, connect: Connect
) -> None:
    gateway = await start_gateway(controller.url, more_upstream=TIMEOUTS)
    client = await connect(gateway.url)
    await controller.down()
    for number in range(3):
        got = await client.ask(f"GET /v3/apps?n={number}", AUTHORIZATION)
        assert (got.status, got.field("x-gateway-error")) == (502, "upstream-unreachable")
    await controller.up()
    assert (await client.ask("GET /v3/apps?n=0", AUTHORIZATION)).status == 200


async def test_a_connection_that_is_never_accepted_is_given_up(
    unanswered: str, start_gateway: StartGateway, connect: Connect
) -> None:
    gateway = await start_gateway(unanswered, more_upstream=TIMEOUTS)
    got = await (await connect(gateway.url)).ask("GET /v3/apps", AUTHORIZATION)
    assert (got.status, got.field("x-gateway-error")) == (504, "upstream-timeout")


async def test_idle_connections_that_the_controller_closes_cost_no_request(
    controller: FaultyController, start_gateway: StartGateway, connect: Connect
) -> None:
    gateway = await start_gateway(controller.url, more_upstream=TIMEOUTS)
    client = await connect(gateway.url)
    for number in range(5):
        assert (await client.ask(f"GET /v3/apps?n={number}", AUTHORIZATION)).status == 200
        await controller.hang_up()
    assert controller.targets() == [f"GET /v3/apps?n={number}" for number in range(5)]


async def test_an_open_breaker_answers_at_once_or_with_a_stale_page_and_closes_by_itself(
    controller: FaultyController, start_gateway: StartGateway, connect: Connect
) -> None:
    gateway = await start_gateway(
        controller.url,
        "routes: [{match: GET /v3/processes, cache: {mode: policy, ttl: 1ms, stale_if_error: 1h, share: global}}]",
        more_upstream=f"{TIMEOUTS}\n  breaker: {{minimum: 4, rest: 500ms}}",
    )
    client = await connect(gateway.url)
    assert (await client.ask("GET /v3/processes", AUTHORIZATION)).status == 200
    await controller.down()
    for number in range(3):
        assert (await client.ask(f"GET /v3/apps?n={number}", AUTHORIZATION)).status == 502
    refused = await client.ask("GET /v3/apps", AUTHORIZATION)
    assert (refused.status, refused.field("retry-after")) == (503, "1")
    assert (refused.field("x-gateway-error") or "").startswith("breaker-open")
    assert b'"title":"CF-ServiceUnavailable","code":10015' in refused.body
    writer = await connect(gateway.url)
    written = await writer.ask("POST /v3/apps", AUTHORIZATION, "Content-Length: 2", body=b"{}")
    assert written.status == 503
    stale = await client.ask("GET /v3/processes", AUTHORIZATION)
    assert (stale.status, stale.body) == (200, PAGE)
    assert 'detail="stale-if-error: breaker"' in (stale.field("cache-status") or "")
    await controller.up()
    async with asyncio.timeout(10):
        while (await client.ask("GET /v3/apps", AUTHORIZATION)).status != 200:
            await asyncio.sleep(0.05)


async def test_one_of_two_controllers_may_go_down_and_come_back_under_load(
    start_controller: StartController, start_gateway: StartGateway, connect: Connect
) -> None:
    one, other = await start_controller(), await start_controller()
    gateway = await start_gateway(one.url, more_upstream=TIMEOUTS, urls=(one.url, other.url))
    failed: list[int] = []
    over = asyncio.Event()

    async def load(worker: int) -> int:
        client, number = await connect(gateway.url), 0
        while not over.is_set():
            number += 1
            got = await client.ask(f"GET /v3/apps?worker={worker}&n={number}", AUTHORIZATION)
            if got.status != 200 or got.body != PAGE:
                failed.append(got.status)
        return number

    async def asked(controller: FaultyController) -> None:
        before = len(controller.received)
        async with asyncio.timeout(10):
            while len(controller.received) < before + 50:
                await asyncio.sleep(0.01)

    workers = [asyncio.create_task(load(number)) for number in range(8)]
    for down, up in ((one, other), (other, one)):
        await asked(down)
        await down.down()
        await asked(up)
        await down.up()
    over.set()
    assert sum(await asyncio.gather(*workers)) > 200
    assert failed == []
