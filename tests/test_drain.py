"""Stopping a gateway under load: what is under way is finished, nobody is cut off, nobody new is let in."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import pytest

from tests.conftest import ADVERTISED, SECRET, Connect, Stub, Wire, bearer
from tests.processes import running

AUTHORIZATION = f"Authorization: {bearer()['Authorization']}"
UPLOAD_SECONDS = float(os.environ.get("UPLOAD_SECONDS", "4"))


def settings(folder: Path, upstream: str, extra: str = "drain: 90s") -> Path:
    path = folder / "gateway.yaml"
    path.write_text(
        f"""
listen: {{host: 127.0.0.1, port: 0}}
admin: {{port: 0}}
public_url: https://gateway.example.org
upstream: {{url: "{upstream}", advertised_urls: ["{ADVERTISED}"], host_header: api.internal.example.org}}
auth: {{keys: [{{secret: {SECRET}}}]}}
{extra}
"""
    )
    return path


class Load:
    """Clients that ask without pause, and come back on a new connection when told that the old one closes."""

    def __init__(self, connect: Connect, url: str) -> None:
        self._connect = connect
        self._url = url
        self.answered = 0
        self.failed: list[str] = []
        self.refused = 0
        self.first = asyncio.Event()
        self.retry = False  # come back after a failure

    async def reached(self, answers: int) -> None:
        """Wait for so many answers."""
        while self.answered < answers:
            await asyncio.sleep(0.01)

    async def client(self, target: str) -> None:
        while True:
            try:
                wire = await self._connect(self._url)
            except ConnectionRefusedError:
                self.refused += 1
                return
            if not await self._until_closed(wire, target):
                return

    async def _until_closed(self, wire: Wire, target: str) -> bool:
        while True:
            try:
                answer = await wire.ask(f"GET {target}", AUTHORIZATION)
            except (OSError, asyncio.IncompleteReadError) as error:
                self.failed.append(repr(error))
                wire.writer.close()
                return self.retry
            if answer.status != 200 or not answer.complete:
                self.failed.append(str(answer))
            self.answered += 1
            self.first.set()
            if answer.field("connection") == "close":
                wire.writer.close()
                return True


async def upload(wire: Wire, seconds: float, started: asyncio.Event) -> bytes:
    """A chunked upload that takes so long; what it was answered."""
    await wire.request("POST /v3/packages/p/upload", AUTHORIZATION, "Transfer-Encoding: chunked")
    steps = int(seconds / 0.1)
    for _ in range(steps):
        await wire.send(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
        started.set()
        await asyncio.sleep(0.1)
    await wire.send(b"0\r\n\r\n")
    answer = await wire.answer("POST")
    assert (answer.status, answer.field("connection")) == (200, "close")
    assert answer.body == b"{}"
    return answer.body


async def test_term_under_load_with_an_upload_under_way_fails_no_request(
    stub: Stub, connect: Connect, tmp_path: Path
) -> None:
    async with running(settings(tmp_path, stub.url)) as gateway:
        load = Load(connect, gateway.url)
        clients = [asyncio.create_task(load.client(f"/v3/processes?page={n}")) for n in range(1, 5)]
        clients += [asyncio.create_task(load.client(f"/v3/apps/{n}/env")) for n in range(4)]
        started = asyncio.Event()
        sending = asyncio.create_task(upload(await connect(gateway.url), UPLOAD_SECONDS, started))
        await asyncio.gather(load.reached(200), started.wait())
        gateway.signal(signal.SIGTERM)
        await gateway.logged("draining")
        await asyncio.gather(*clients)
        answer = await (await connect(gateway.admin_url)).ask("GET /readyz")
        assert answer.status == 503
        assert b"shutting down" in answer.body
        assert not sending.done(), "the upload outlives the listener"
        await sending
        assert await gateway.ended() == 0
    assert load.failed == []
    assert load.answered >= 200
    assert load.refused == len(clients)
    uploaded = [request for request in stub.received if request.line.startswith("POST ")]
    assert [len(request.body) for request in uploaded] == [int(UPLOAD_SECONDS / 0.1) * 1000]


async def test_a_second_signal_ends_at_once(stub: Stub, connect: Connect, tmp_path: Path) -> None:
    async with running(settings(tmp_path, stub.url)) as gateway:
        wire = await connect(gateway.url)
        await wire.request("POST /v3/packages/p/upload", AUTHORIZATION, "Content-Length: 10", body=b"x")
        gateway.signal(signal.SIGTERM)
        await gateway.logged("draining")
        assert gateway.process.returncode is None
        gateway.signal(signal.SIGTERM)
        assert await gateway.ended(within=5) == 1


async def test_what_outlives_the_grace_is_cut_off_and_counted(stub: Stub, connect: Connect, tmp_path: Path) -> None:
    async with running(settings(tmp_path, stub.url, "drain: 300ms")) as gateway:
        wire = await connect(gateway.url)
        await wire.request("POST /v3/packages/p/upload", AUTHORIZATION, "Content-Length: 10", body=b"x")
        gateway.signal(signal.SIGTERM)
        assert await gateway.ended(within=10) == 0
        assert (await gateway_line(gateway.lines, "cut off"))["connections"] == 1


async def gateway_line(lines: list[dict[str, object]], event: str) -> dict[str, object]:
    return next(line for line in lines if line["event"] == event)


async def test_during_the_delay_the_gateway_is_not_ready_and_serves(
    stub: Stub, connect: Connect, tmp_path: Path
) -> None:
    async with running(settings(tmp_path, stub.url, "drain_delay: 1m")) as gateway:
        gateway.signal(signal.SIGTERM)
        await gateway.logged("draining")
        assert (await (await connect(gateway.admin_url)).ask("GET /readyz")).status == 503
        answer = await (await connect(gateway.url)).ask("GET /v3/processes", AUTHORIZATION)
        assert (answer.status, answer.field("connection")) == (200, None)
        gateway.signal(signal.SIGTERM)
        assert await gateway.ended(within=5) == 1


async def test_idle_connections_may_bring_one_more_request(start_gateway, stub: Stub, connect: Connect) -> None:
    gateway = await start_gateway(stub.url)
    wire, silent = await connect(gateway.url), await connect(gateway.url)
    await wire.ask("GET /v3/processes", AUTHORIZATION)
    stopping = asyncio.create_task(gateway.stop(linger=0.5))
    with contextlib.suppress(ConnectionRefusedError):
        while True:  # until nobody is let in any more
            (await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2])))[1].close()
    answer = await wire.ask("GET /v3/processes", AUTHORIZATION)
    assert (answer.status, answer.field("connection")) == (200, "close")
    assert await wire.ended()
    assert await silent.ended()
    await stopping


async def test_who_waits_in_the_queue_when_the_listener_closes_is_served(
    start_gateway, stub: Stub, connect: Connect
) -> None:
    gateway = await start_gateway(stub.url, drain="5s")
    for listener in gateway.doors._listeners:
        listener._loop.remove_reader(listener._socket.fileno())  # as a busy process would not have come to it
    wires = [await connect(gateway.url) for _ in range(40)]
    for wire in wires:
        await wire.request("GET /v3/processes", AUTHORIZATION)
    stopping = asyncio.create_task(gateway.stop(linger=1.0))
    answers = [await wire.answer() for wire in wires]
    assert {answer.status for answer in answers} == {200}
    await stopping


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
async def test_an_idle_gateway_ends_at_once_with_0(number: signal.Signals, stub: Stub, tmp_path: Path) -> None:
    async with running(settings(tmp_path, stub.url)) as gateway:
        gateway.signal(number)
        assert await gateway.ended(within=10) == 0


async def test_hup_reloads_the_file(stub: Stub, connect: Connect, tmp_path: Path) -> None:
    path = settings(tmp_path, stub.url)
    async with running(path) as gateway:
        path.write_text(path.read_text() + "\nroutes: [{match: GET /v3/apps, access: deny}]\n")
        gateway.signal(signal.SIGHUP)
        assert (await gateway.logged("reloaded"))["changed"] == ["routes"]
        assert (await (await connect(gateway.url)).ask("GET /v3/apps", AUTHORIZATION)).status == 403
        path.write_text("nonsense")
        gateway.signal(signal.SIGHUP)
        assert (await gateway.logged("reload refused"))["faults"]
        assert (await (await connect(gateway.url)).ask("GET /v3/apps", AUTHORIZATION)).status == 403
