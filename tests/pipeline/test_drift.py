"""The drift probe against a real gateway and a controller whose data changes behind its back."""

from __future__ import annotations

import asyncio

import pytest

from gateway.app import Gateway
from gateway.pipeline.drift import RESULTS, Drift
from tests.conftest import bearer

AUTHORIZATION = f"Authorization: {bearer()['Authorization']}"
LISTS = """
cache: {{drift_sample: {sample}}}
routes:
  - match: GET /v3/processes
    cache: {{mode: policy, ttl: 1h}}
"""


async def found(gateway: Gateway, result: str) -> None:
    async with asyncio.timeout(10):
        while not gateway.drift.checks[result]:
            await asyncio.sleep(0.005)
    assert {name: count for name, count in gateway.drift.checks.items() if count} == {result: 1}


async def test_a_change_past_the_gateway_is_found_and_mended(stub, start_gateway, connect) -> None:
    gateway = await start_gateway(stub.url, LISTS.format(sample=1))
    client = await connect(gateway.url)
    stub.answers_json(b'{"n":1}')
    await client.ask("GET /v3/processes", AUTHORIZATION)
    stub.answers_json(b'{"n":2}')
    assert (await client.ask("GET /v3/processes", AUTHORIZATION)).body == b'{"n":1}'
    await found(gateway, "differs")
    assert gateway.drift.age > 0
    gateway.drift.checks.update(dict.fromkeys(RESULTS, 0))
    assert (await client.ask("GET /v3/processes", AUTHORIZATION)).body == b'{"n":2}'
    await found(gateway, "same")


@pytest.mark.parametrize(("status", "result"), [("503 Service Unavailable", "failed"), ("404 Not Found", "not-stored")])
async def test_what_proves_nothing(stub, start_gateway, connect, status: str, result: str) -> None:
    gateway = await start_gateway(stub.url, LISTS.format(sample=1))
    client = await connect(gateway.url)
    await client.ask("GET /v3/processes", AUTHORIZATION)
    stub.answers_json(b"{}", status=status)
    await client.ask("GET /v3/processes", AUTHORIZATION)
    await found(gateway, result)


async def test_a_write_through_the_gateway_is_no_drift(stub, start_gateway, connect) -> None:
    gateway = await start_gateway(stub.url, LISTS.format(sample=1))
    client, writer = await connect(gateway.url), await connect(gateway.url)
    await client.ask("GET /v3/processes", AUTHORIZATION)
    probing, written = asyncio.Event(), asyncio.Event()
    body = b'{"n":2}'

    async def answer(request, _reader, answering) -> None:
        if request.line.startswith("GET"):
            probing.set()
            await written.wait()
        answering.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )

    stub.script = answer
    await client.ask("GET /v3/processes", AUTHORIZATION)
    await probing.wait()
    await writer.ask("PATCH /v3/processes/x", AUTHORIZATION, "Content-Length: 2", body=b"{}")
    written.set()
    await found(gateway, "overtaken")


async def test_one_at_a_time_and_none_when_off(stub, start_gateway, connect) -> None:
    gateway = await start_gateway(stub.url, LISTS.format(sample=0))
    client = await connect(gateway.url)
    for _ in range(3):
        await client.ask("GET /v3/processes", AUTHORIZATION)
    assert len([one for one in stub.received if "/v3/processes" in one.line]) == 1
    busy = Drift(1.0, lambda: 0.0)
    assert busy.due()
    assert busy.begin()
    assert not busy.due()
    assert not busy.begin()
    busy.abandon()
    assert busy.due()
    assert sum(busy.checks.values()) == 0


def test_the_sample_is_a_share_of_the_hits() -> None:
    chances = iter((0.0009, 0.001, 0.5))
    drift = Drift(0.001, lambda: next(chances))
    assert [drift.due() for _ in range(3)] == [True, False, False]
