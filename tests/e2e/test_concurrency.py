"""Limits of concurrency in a whole gateway: who waits, who is refused, what a client sees."""

from __future__ import annotations

import asyncio
import re

import aiohttp

from gateway.app import Gateway
from tests.conftest import Connect, StartGateway, StartUpstream, Stub, bearer

ALICE = f"Authorization: {bearer(user_id='alice')['Authorization']}"
BOB = f"Authorization: {bearer(user_id='bob')['Authorization']}"
PAGE = b'{"resources":[]}'


class Slow:
    """An upstream that answers what contains `slow` when told to, and notes what it has at once."""

    def __init__(self, stub: Stub) -> None:
        self.asked: list[str] = []
        self.go_on = asyncio.Event()
        self.stub = stub
        stub.script = self.script

    async def script(self, request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if "/healthz" not in request.line:
            self.asked.append(request.line.split()[1])
        if "slow" in request.line:
            await self.go_on.wait()
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(PAGE) + PAGE
        )

    async def has(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.asked) < count:
                await asyncio.sleep(0.005)


async def metric(http: aiohttp.ClientSession, gateway: Gateway, name: str) -> float:
    async with http.get(f"{gateway.admin_url}/metrics") as response:
        found = re.search(rf"^{re.escape(name)} (\S+)$", await response.text(), re.MULTILINE)
    return float(found[1]) if found else 0.0


async def queued(http: aiohttp.ClientSession, gateway: Gateway, count: int) -> None:
    async with asyncio.timeout(5):
        while await metric(http, gateway, "gateway_concurrency_queued") != count:
            await asyncio.sleep(0.01)


async def test_a_principal_with_all_it_may_have_waits_and_nobody_else_does(
    stub: Stub, start_gateway: StartGateway, connect: Connect, http: aiohttp.ClientSession
) -> None:
    upstream = Slow(stub)
    gateway = await start_gateway(stub.url, "concurrency: {per_principal: 2, queue_timeout: 10s}")
    clients = [await connect(gateway.url) for _ in range(4)]
    for number, client in enumerate(clients):
        await client.request(f"GET /v3/apps?slow={number}", ALICE)
    await upstream.has(2)
    bob = await connect(gateway.url)
    assert (await bob.ask("GET /v3/apps", BOB)).status == 200
    await queued(http, gateway, 2)
    assert len([target for target in upstream.asked if "slow" in target]) == 2
    upstream.go_on.set()
    assert [(await client.answer()).status for client in clients] == [200] * 4
    assert await metric(http, gateway, "gateway_concurrency_in_flight") == 0


async def test_who_waits_in_vain_is_told_when_to_come_back(
    stub: Stub, start_gateway: StartGateway, connect: Connect, http: aiohttp.ClientSession
) -> None:
    upstream = Slow(stub)
    gateway = await start_gateway(
        stub.url,
        "concurrency: {per_principal: 5, upstream: {min: 1, initial: 1, max: 1}, queue: 1, queue_timeout: 1s}",
    )
    first, second, third = [await connect(gateway.url) for _ in range(3)]
    await first.request("GET /v3/apps?slow=1", ALICE)
    await upstream.has(1)
    await second.request("GET /v3/apps?slow=2", ALICE)
    await queued(http, gateway, 1)
    full = await third.ask("GET /v3/apps?slow=3", ALICE)
    assert (full.status, full.field("retry-after")) == (503, "1")
    assert (full.field("x-gateway-error") or "").startswith("queue-full")
    assert b'"title":"CF-ServiceUnavailable","code":10015' in full.body
    late = await second.answer()
    assert (late.status, (late.field("x-gateway-error") or "").partition(";")[0]) == (503, "queue-timeout")
    upstream.go_on.set()
    assert (await first.answer()).status == 200
    assert (await second.ask("GET /v3/apps", ALICE)).status == 200


async def test_hits_never_wait_and_stale_pages_stand_in(
    stub: Stub, start_gateway: StartGateway, connect: Connect
) -> None:
    upstream = Slow(stub)
    gateway = await start_gateway(
        stub.url,
        """
concurrency: {upstream: {min: 1, initial: 1, max: 1}, queue: 0}
routes:
  - {match: GET /v3/processes, cache: {mode: policy, ttl: 1h, share: principal}}
  - {match: GET /v3/apps, cache: {mode: policy, ttl: 1ms, stale_if_error: 1h, share: principal}}
""",
    )
    client, blocking = await connect(gateway.url), await connect(gateway.url)
    for path in ("processes", "apps"):
        assert (await client.ask(f"GET /v3/{path}", ALICE)).status == 200
    await blocking.request("GET /v3/spaces?slow=1", ALICE)
    await upstream.has(3)
    hit = await client.ask("GET /v3/processes", ALICE)
    assert (hit.status, (hit.field("cache-status") or "").startswith("gateway;hit")) == (200, True)
    stale = await client.ask("GET /v3/apps", ALICE)
    assert stale.status == 200
    assert 'detail="stale-if-error: overload"' in (stale.field("cache-status") or "")
    assert (await client.ask("GET /v3/domains", ALICE)).status == 503
    upstream.go_on.set()
    assert (await blocking.answer()).status == 200


async def test_a_write_whose_client_leaves_while_it_waits_is_never_sent(
    stub: Stub, start_gateway: StartGateway, connect: Connect, http: aiohttp.ClientSession
) -> None:
    upstream = Slow(stub)
    gateway = await start_gateway(stub.url, "concurrency: {upstream: {min: 1, initial: 1, max: 1}, queue_timeout: 10s}")
    first, leaving = await connect(gateway.url), await connect(gateway.url)
    await first.request("GET /v3/apps?slow=1", ALICE)
    await upstream.has(1)
    await leaving.request("POST /v3/apps", BOB, "Content-Length: 2", body=b"{}")
    await queued(http, gateway, 1)
    leaving.writer.close()
    await queued(http, gateway, 0)
    upstream.go_on.set()
    assert (await first.answer()).status == 200
    assert (await first.ask("GET /v3/apps?n=2", ALICE)).status == 200
    assert [target for target in upstream.asked if target == "/v3/apps"] == []
    assert await metric(http, gateway, "gateway_concurrency_in_flight") == 0


async def test_a_download_holds_its_place_until_its_last_byte(
    start_upstream: StartUpstream, start_gateway: StartGateway, connect: Connect, http: aiohttp.ClientSession
) -> None:
    go_on = asyncio.Event()

    async def serving(_, __, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/zip\r\nContent-Length: 8\r\n\r\nhalf")
        await go_on.wait()
        writer.write(b"half")

    gateway = await start_gateway(await start_upstream(serving), "concurrency: {per_principal: 4}")
    client = await connect(gateway.url)
    await client.request("GET /v3/packages/guid/download", ALICE)
    assert b"200 OK" in await client.reader.readuntil(b"half")
    assert await metric(http, gateway, "gateway_concurrency_in_flight") == 1
    go_on.set()
    assert await client.reader.readexactly(4) == b"half"
    async with asyncio.timeout(5):
        while await metric(http, gateway, "gateway_concurrency_in_flight"):
            await asyncio.sleep(0.01)


async def test_what_is_shared_is_not_refused_because_of_who_asked_first(
    stub: Stub, start_gateway: StartGateway, connect: Connect, http: aiohttp.ClientSession
) -> None:
    """One admin has used up its places and waits in vain; the other one, who waits for the same page, gets it."""
    upstream = Slow(stub)
    admin = {"scope": ["cloud_controller.admin", "cloud_controller.read"]}
    one, other = (f"Authorization: {bearer(user_id=name, **admin)['Authorization']}" for name in ("one", "other"))
    gateway = await start_gateway(
        stub.url,
        """
concurrency: {per_principal: 1, queue_timeout: 1s}
routes: [{match: GET /v3/processes, cache: {mode: policy, ttl: 1h, share: global}}]
""",
    )
    blocking, first, second = [await connect(gateway.url) for _ in range(3)]
    await blocking.request("GET /v3/apps?slow=1", one)
    await upstream.has(1)
    await first.request("GET /v3/processes", one)
    await queued(http, gateway, 1)
    await second.request("GET /v3/processes", other)
    refused = await first.answer()
    assert (refused.status, (refused.field("x-gateway-error") or "").partition(";")[0]) == (
        503,
        "principal-concurrency",
    )
    assert (await second.answer()).status == 200
    upstream.go_on.set()


async def test_shadow_refuses_nobody(stub: Stub, start_gateway: StartGateway, connect: Connect, http) -> None:
    upstream = Slow(stub)
    gateway = await start_gateway(stub.url, "concurrency: {mode: shadow, per_principal: 1, queue: 0}")
    clients = [await connect(gateway.url) for _ in range(3)]
    for number, client in enumerate(clients):
        await client.request(f"GET /v3/apps?slow={number}", ALICE)
    await upstream.has(3)
    upstream.go_on.set()
    assert [(await client.answer()).status for client in clients] == [200] * 3
    name = 'gateway_concurrency_decisions_total{decision="queued",mode="shadow"}'
    assert await metric(http, gateway, name) == 2
