"""How many clients may be connected: the counts, then newcomers at a full gateway on real sockets."""

from __future__ import annotations

import asyncio
import json

import pytest

from gateway.core.forwarding import TrustedProxies
from gateway.edge.crowd import Capacity, Crowd
from gateway.edge.refusal import Ending


def crowd(total: int = 100, per_address: int | None = 2, *trusted: str) -> Crowd:
    return Crowd(Capacity(total, per_address, TrustedProxies(trusted)))


def test_so_many_from_an_address_and_no_more() -> None:
    here = crowd()
    assert [here.enter("192.0.2.1") for _ in range(3)] == [None, None, Ending.ADDRESS_FULL]
    assert here.enter("192.0.2.2") is None
    here.leave("192.0.2.1")
    assert here.enter("192.0.2.1") is None
    assert here.enter("192.0.2.1") is Ending.ADDRESS_FULL


def test_an_ipv6_network_is_one_address() -> None:
    here = crowd()
    addresses = ["2001:db8::1", "2001:db8::ffff:1", "2001:db8::3", "2001:db8:0:1::1"]
    assert [here.enter(address) for address in addresses] == [None, None, Ending.ADDRESS_FULL, None]


@pytest.mark.parametrize("peer", ["10.0.0.1", ""], ids=["trusted proxy", "unix socket"])
def test_who_speaks_for_many_is_counted_in_all_only(peer: str) -> None:
    here = crowd(4, 2, "10.0.0.0/8")
    assert [here.enter(peer) for _ in range(5)] == [None, None, None, None, Ending.FULL]


def test_nothing_is_left_of_who_left() -> None:
    here = crowd(1000, None)
    for number in range(1000):
        assert here.enter(f"192.0.2.{number % 256}") is None
    assert here.crowded
    for number in range(1000):
        here.leave(f"192.0.2.{number % 256}")
    assert (here._by_address, here._total, here.crowded) == ({}, 0, False)


def test_another_capacity_throws_nobody_out() -> None:
    here = crowd(10)
    assert here.enter("192.0.2.1") is None
    here.adopt(Capacity(1, None, TrustedProxies()))
    assert here.enter("192.0.2.2") is Ending.FULL
    here.leave("192.0.2.1")
    assert here.enter("192.0.2.2") is None


def ended(gateway) -> dict[str, int]:
    return {reason: count for reason, count in gateway.wheel.endings.items() if count}


@pytest.mark.parametrize(
    ("limit", "reason"), [("max_connections: 2", "full"), ("max_connections_per_address: 2", "address-full")]
)
async def test_who_is_too_many_is_told_so_and_nobody_else_notices(
    stub, start_gateway, connect, limit: str, reason: str
) -> None:
    gateway = await start_gateway(stub.url, listen=f"{{port: 0, {limit}}}")
    first, second = await connect(gateway.url), await connect(gateway.url)
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(_request, _reader, writer) -> None:
        asked.set()
        await go_on.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    stub.script = slowly
    for client in (first, second):
        await client.request("GET /staging/x")
    await asked.wait()
    for _ in range(5):
        third = await connect(gateway.url)
        answer = await third.answer()
        assert (answer.status, answer.field("x-gateway-error")) == (503, "too-many-connections")
        assert (answer.field("retry-after"), answer.field("connection")) == ("1", "close")
        assert json.loads(answer.body)["errors"][0]["title"] == "CF-ServiceUnavailable"
        assert await third.ended()
    assert ended(gateway) == {reason: 5}
    go_on.set()
    assert [(await client.answer()).status for client in (first, second)] == [200, 200]
    first.writer.close()
    while len(gateway.wheel) > 1:
        await asyncio.sleep(0.01)
    assert (await (await connect(gateway.url)).ask("GET /staging/x")).status == 200, "there is room again"


async def test_idle_connections_make_room_when_it_is_nearly_full(stub, start_gateway, connect) -> None:
    gateway = await start_gateway(
        stub.url, "limits: {head_timeout: 400ms}", listen="{port: 0, max_connections: 8, keepalive: 1h}"
    )
    idle = [await connect(gateway.url) for _ in range(6)]
    for client in idle:
        assert (await client.ask("GET /staging/x")).status == 200
    assert ended(gateway) == {}
    busy = await connect(gateway.url)
    assert (await busy.ask("GET /staging/x")).status == 200
    waits = [asyncio.create_task(client.ended()) for client in idle]
    gone, _ = await asyncio.wait(waits, timeout=5, return_when=asyncio.FIRST_COMPLETED)
    assert gone, "seven of eight are there: one of those who are idle goes"
    assert [wait.result() for wait in gone] == [True] * len(gone)
    for wait in waits:
        wait.cancel()
    assert set(ended(gateway)) == {"idle"}


async def test_who_is_turned_away_may_talk_on(stub, start_gateway, connect) -> None:
    gateway = await start_gateway(stub.url, listen="{port: 0, max_connections: 1}")
    first = await connect(gateway.url)
    assert (await first.ask("GET /staging/x")).status == 200
    second = await connect(gateway.url)
    second.writer.write(b"GET /staging/x HTTP/1.1\r\nHost: a\r\n\r\n" * 10)
    assert (await second.answer()).status == 503
    assert await second.ended()
    assert (await first.ask("GET /staging/x")).status == 200
