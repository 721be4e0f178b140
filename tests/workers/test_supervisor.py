"""Several workers on one port, as processes: crashes, reloads, drains, and pages that are never stale among them."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.conftest import Answer, Connect, Stub, Wire, bearer
from tests.processes import Process, children, running
from tests.test_drain import Load, settings, upload

AUTHORIZATION = f"Authorization: {bearer()['Authorization']}"
NUMBERS = itertools.count()
ROW = '{{"pagination": {{}}, "resources": [{{"guid": "p"}}], "turn": {}}}'


async def ask(connect: Connect, url: str, line: str, *fields: str, body: bytes = b"") -> Answer:
    wire = await connect(url)
    answer = await wire.ask(line, "Connection: close", *fields, body=body)
    wire.writer.close()
    return answer


async def metrics(connect: Connect, gateway: Process) -> dict[str, float]:
    text = (await ask(connect, gateway.admin_url, "GET /metrics")).body.decode()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


async def requests(connect: Connect, gateway: Process) -> float:
    found = await metrics(connect, gateway)
    return sum(value for name, value in found.items() if name.startswith("gateway_requests_total{"))


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def each_worker(connect: Connect, gateway: Process, workers: int) -> list[Wire]:
    """A connection to each worker, told apart by what they log."""
    found: dict[int, Wire] = {}
    async with asyncio.timeout(20):
        while len(found) < workers:
            wire, path = await connect(gateway.url), f"/v3/organizations/{next(NUMBERS)}"
            await wire.ask(f"GET {path}", AUTHORIZATION)
            line = await gateway.line(lambda line, path=path: line.get("path") == path)
            found.setdefault(line["worker"], wire)
    return [found[number] for number in sorted(found)]


async def test_all_serve_and_one_admin_listener_speaks_for_them(stub: Stub, connect: Connect, tmp_path: Path) -> None:
    async with running(settings(tmp_path, stub.url, "workers: 2\ndrain: 2s")) as gateway:
        for wire in await each_worker(connect, gateway, 2):
            await wire.ask("GET /v3/apps", AUTHORIZATION)
        found = await metrics(connect, gateway)
        assert (found["gateway_workers"], found["gateway_workers_up"]) == (2, 2)
        assert found["gateway_worker_restarts_total"] == 0
        assert found['gateway_info{version="0.1.0"}'] == 1
        served = [line for line in gateway.lines if line.get("event") == "request"]
        assert {line["worker"] for line in served} == {1, 2}
        assert await requests(connect, gateway) == len(served)
        ready = await ask(connect, gateway.admin_url, "GET /readyz")
        assert (ready.status, json.loads(ready.body)) == (200, {"ready": True, "faults": {}})
        assert (await ask(connect, gateway.admin_url, "GET /healthz")).status == 200


async def test_exemplars_of_all_are_in_openmetrics_alone(stub: Stub, connect: Connect, tmp_path: Path) -> None:
    traces = {f"{number:032x}" for number in (1, 2)}
    # Somebody else records these traces: no endpoint is needed.
    async with running(settings(tmp_path, stub.url, "workers: 2\ndrain: 2s")) as gateway:
        first, second = await each_worker(connect, gateway, 2)
        stub.answers_json(b"{}")
        # Two series, so that each worker has the newest exemplar of one.
        for wire, trace, path in zip((first, second), sorted(traces), ("/v3/apps", "/v3/spaces"), strict=True):
            fields = (AUTHORIZATION, f"traceparent: 00-{trace}-b7ad6b7169203331-01")
            assert (await wire.ask(f"GET {path}", *fields)).status == 200
        openmetrics = "Accept: application/openmetrics-text;version=1.0.0"
        answer = await ask(connect, gateway.admin_url, "GET /metrics", openmetrics)
        text = answer.body.decode()
        found = {
            (sample.labels["route"], sample.exemplar.labels["trace_id"])
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.exemplar is not None and family.name == "gateway_request_duration_seconds"
        }
        assert found == {("/v3/apps", f"{1:032x}"), ("/v3/spaces", f"{2:032x}")}
        plain = (await ask(connect, gateway.admin_url, "GET /metrics")).body.decode()
        assert "trace_id" not in plain


async def test_a_write_through_one_is_visible_to_the_next_read_through_the_other(
    stub: Stub, connect: Connect, tmp_path: Path
) -> None:
    turn = 0

    async def script(request, _, writer: asyncio.StreamWriter) -> None:
        nonlocal turn
        if not request.line.startswith("GET "):
            turn += 1
        body = ROW.format(turn).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)

    stub.script = script
    async with running(settings(tmp_path, stub.url, "workers: 2\ndrain: 2s")) as gateway:
        one, other = await each_worker(connect, gateway, 2)
        for number in range(1, 201):
            writer, reader = (one, other) if number % 2 else (other, one)
            for wire in (writer, reader):
                await wire.ask("GET /v3/processes", AUTHORIZATION)
            hit = await reader.ask("GET /v3/processes", AUTHORIZATION)
            assert "hit" in (hit.field("cache-status") or "")
            await writer.ask("PATCH /v3/processes/p", AUTHORIZATION, "Content-Length: 2", body=b"{}")
            read = await reader.ask("GET /v3/processes", AUTHORIZATION)
            assert json.loads(read.body)["turn"] == turn == number, f"write {number} was not seen"


async def test_the_cache_of_all_is_looked_into_and_purged(stub: Stub, connect: Connect, tmp_path: Path) -> None:
    stub.answers_json(b'{"resources":[]}')
    async with running(settings(tmp_path, stub.url, "workers: 2\ndrain: 2s")) as gateway:
        wires = await each_worker(connect, gateway, 2)
        for wire in wires:
            for target in ("/v3/processes", "/v3/apps"):
                await wire.ask(f"GET {target}", AUTHORIZATION)

        async def operator(line: str, **content: object) -> dict[str, Any]:
            body = json.dumps(content).encode() if content else b""
            fields = ("Content-Type: application/json", f"Content-Length: {len(body)}") if content else ()
            answer = await ask(connect, gateway.admin_url, line, *fields, body=body)
            return {"status": answer.status, **json.loads(answer.body)}

        found = await operator("GET /cache")
        assert (found["entries"], found["stores"]) == (4, 2)
        listed = await operator("GET /cache/entries?prefix=/v3/apps&limit=1")
        assert (listed["total"], len(listed["entries"])) == (2, 1)
        name = listed["entries"][0]["id"]
        shown = await operator(f"GET /cache/entries/{name}")
        assert (shown["id"], shown["url"]) == (name, "/v3/apps")
        assert (await operator(f"DELETE /cache/entries/{name}"))["purged"] == 1
        assert (await operator(f"DELETE /cache/entries/{name}"))["status"] == 404
        assert (await operator("GET /cache/entries/9-1"))["status"] == 404
        assert (await operator("POST /cache/purge", url="/v3/processes"))["purged"] == 2
        assert (await operator("POST /cache/purge", url="nowhere"))["status"] == 400
        for wire in wires:
            answer = await wire.ask("GET /v3/processes", AUTHORIZATION)
            assert "fwd=miss" in (answer.field("cache-status") or "")


async def test_the_decisions_of_all_are_told_the_newest_first(stub: Stub, connect: Connect, tmp_path: Path) -> None:
    async with running(settings(tmp_path, stub.url, "workers: 2\ndrain: 2s")) as gateway:
        for number, wire in enumerate(await each_worker(connect, gateway, 2)):
            await wire.ask("GET /v3/spaces", f"X-Vcap-Request-Id: mine-{number}")
        answer = await ask(connect, gateway.admin_url, "GET /-/decisions?route=/v3/spaces&denied=no-token")
        told = json.loads(answer.body)["decisions"]
        assert [one["request_id"] for one in told] == ["mine-1", "mine-0"]
        answer = await ask(connect, gateway.admin_url, "GET /-/decisions?request_id=mine-0&limit=1")
        assert [one["status"] for one in json.loads(answer.body)["decisions"]] == [401]


async def test_a_worker_that_is_killed_loses_only_its_own_requests(
    stub: Stub, connect: Connect, tmp_path: Path
) -> None:
    async with running(settings(tmp_path, stub.url, "workers: 3\ndrain: 2s")) as gateway:
        load = Load(connect, gateway.url)
        load.retry = True
        clients = [asyncio.create_task(load.client(f"/v3/processes?page={n}")) for n in range(1, 10)]
        await load.first.wait()
        counted = await requests(connect, gateway)
        failed = 0
        for turn in range(3):
            victim = children(gateway.process.pid)[turn % 3]
            os.kill(victim, signal.SIGKILL)
            await gateway.logged("worker ended", turn + 1)
            await gateway.logged("listening", 5 + turn)
            now = await requests(connect, gateway)
            assert now >= counted, "what the dead one counted stays counted"
            counted = now
            assert len(load.failed) - failed <= len(clients), "no more than one request of each connection"
            failed = len(load.failed)
        assert load.refused == 0, "the port never closes"
        answered = load.answered
        while load.answered < answered + 50:
            await asyncio.sleep(0.01)
        assert all("IncompleteReadError" in fault or "ConnectionReset" in fault for fault in load.failed), load.failed
        found = await metrics(connect, gateway)
        assert (found["gateway_workers_up"], found["gateway_worker_restarts_total"]) == (3, 3)
        assert (await ask(connect, gateway.admin_url, "GET /readyz")).status == 200
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)


async def test_one_reload_for_all_or_for_none(stub: Stub, connect: Connect, tmp_path: Path) -> None:
    path = settings(tmp_path, stub.url, "workers: 2\ndrain: 2s")
    good = path.read_text()
    async with running(path) as gateway:
        path.write_text(good + "\nroutes: [{match: GET /v3/apps, access: deny}]\nvia: other\n")
        answer = await ask(connect, gateway.admin_url, "POST /-/reload", "Content-Length: 0", "X-Gateway-Admin: 1")
        assert (answer.status, json.loads(answer.body)) == (
            200,
            {"reloaded": True, "changed": ["routes"], "needs_restart": ["via"], "faults": []},
        )
        one, other = await each_worker(connect, gateway, 2)
        for wire in (one, other):
            assert (await wire.ask("GET /v3/apps", AUTHORIZATION)).status == 403
        path.write_text(good.replace("keys:", "keyz:"))
        gateway.signal(signal.SIGHUP)
        assert "did you mean keys" in str((await gateway.logged("reload refused"))["faults"])
        found = await metrics(connect, gateway)
        assert found["gateway_config_last_reload_successful"] == 0
        assert found['gateway_config_reloads_total{result="refused"}'] == 1
        assert found['gateway_config_reloads_total{result="applied"}'] == 1
        # Who comes after the faulty file has what the others have: not the file, and not the one from the start.
        os.kill(children(gateway.process.pid)[0], signal.SIGKILL)
        await gateway.logged("worker ended")
        await gateway.logged("listening", 4)
        for wire in await each_worker(connect, gateway, 2):
            answer = await wire.ask("GET /v3/apps", AUTHORIZATION)
            assert answer.status == 403
        for wire in await each_worker(connect, gateway, 2):
            assert (await wire.ask("GET /v3/spaces", AUTHORIZATION)).field("via") == "1.1 gateway"


async def test_term_under_load_drains_all_workers(stub: Stub, connect: Connect, tmp_path: Path) -> None:
    async with running(settings(tmp_path, stub.url, "workers: 2\ndrain: 30s")) as gateway:
        load = Load(connect, gateway.url)
        clients = [asyncio.create_task(load.client(f"/v3/processes?page={n}")) for n in range(1, 9)]
        started = asyncio.Event()
        sending = asyncio.create_task(upload(await connect(gateway.url), 2.0, started))
        await asyncio.gather(load.reached(200), started.wait())
        gateway.signal(signal.SIGTERM)
        await gateway.logged("draining")
        await asyncio.gather(*clients)
        assert (await ask(connect, gateway.admin_url, "GET /readyz")).status == 503
        await sending
        assert await gateway.ended() == 0
    assert load.failed == []
    assert load.refused == len(clients)


async def test_a_second_signal_ends_all_at_once(stub: Stub, connect: Connect, tmp_path: Path) -> None:
    async with running(settings(tmp_path, stub.url, "workers: 2\ndrain: 1m")) as gateway:
        wire = await connect(gateway.url)
        await wire.request("POST /v3/packages/p/upload", AUTHORIZATION, "Content-Length: 10", body=b"x")
        gateway.signal(signal.SIGTERM)
        await gateway.logged("draining")
        workers = children(gateway.process.pid)
        gateway.signal(signal.SIGTERM)
        assert await gateway.ended(within=10) == 1
    assert not [pid for pid in workers if alive(pid)]


async def test_workers_end_when_their_supervisor_is_gone(stub: Stub, tmp_path: Path) -> None:
    async with running(settings(tmp_path, stub.url, "workers: 2\ndrain: 5s")) as gateway:
        workers = children(gateway.process.pid)
        gateway.signal(signal.SIGKILL)
        async with asyncio.timeout(10):
            while [pid for pid in workers if alive(pid)]:
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_worker_that_cannot_start_ends_the_start_with_2(workers: int, tmp_path: Path) -> None:
    path = settings(tmp_path, "http://127.0.0.1:1", f"workers: {workers}")
    (tmp_path / "none.pem").write_text("nothing")
    path.write_text(path.read_text().replace("auth: {keys: [{secret", "auth: {keys: [{pem_file: none.pem}]} #"))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "run", "-c", str(path)),
        stderr=asyncio.subprocess.PIPE,
    )
    _, stderr = await process.communicate()
    assert process.returncode == 2
    assert b"auth.keys" in stderr
    assert b"Traceback" not in stderr
