"""Whether the controller can be reached, on real sockets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest

from gateway.core.balance import EjectionPolicy
from gateway.upstream.client import Client, Timeouts
from gateway.upstream.endpoint import Endpoint
from gateway.upstream.probe import Probe
from tests.conftest import listening


@pytest.fixture
async def make_probe() -> AsyncIterator[Callable]:
    started: list[Client | Probe] = []

    async def make(url: str, **options: float) -> Probe:
        client = Client(url, timeouts=Timeouts(1, 30, 30), connections=4)
        await client.start()
        endpoint = Endpoint(url, client, connections=4, breaker=None, ejection=EjectionPolicy(), clock=time.monotonic)
        probe = Probe(lambda: [endpoint], host="api.example.org", path="/healthz", **options)
        started.extend((client, probe))
        return probe

    yield make
    for one in reversed(started):
        await one.stop()


@pytest.mark.parametrize(
    ("status", "fault"),
    [(200, None), (302, None), (401, None), (404, None), (500, "answered 500"), (503, "answered 503")],
)
async def test_any_answer_below_500_counts(stub, make_probe, status: int, fault: str | None) -> None:
    stub.answers_json(b"{}", status=f"{status} X")
    probe = await make_probe(stub.url)
    assert probe.fault == "not asked yet"
    await probe.ask()
    assert probe.fault == fault
    assert stub.received[0].line == "GET /healthz HTTP/1.1"
    assert stub.received[0].field("host") == "api.example.org"
    assert stub.received[0].field("authorization") is None


async def test_nobody_there(make_probe) -> None:
    probe = await make_probe("http://127.0.0.1:1")
    await probe.ask()
    assert "connection failed" in (probe.fault or "")


async def test_a_silent_controller_is_not_waited_for(make_probe) -> None:
    async def silence(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with listening(silence) as url:
        probe = await make_probe(url, patience=0.05)
        await asyncio.wait_for(probe.start(), 5)
        assert probe.fault == "no answer within 0.05 s"


async def test_it_keeps_asking(stub, make_probe) -> None:
    stub.answers_json(b"{}", status="503 Down")
    probe = await make_probe(stub.url, interval=0.01)
    await probe.start()
    assert probe.fault == "answered 503"
    stub.answers_json(b"{}")
    async with asyncio.timeout(5):
        while probe.fault is not None:
            await asyncio.sleep(0.005)
    stub.answers_json(b"{}", status="500 Down")
    async with asyncio.timeout(5):
        while probe.fault is None:
            await asyncio.sleep(0.005)
