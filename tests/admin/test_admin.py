"""The operator's listener of a running gateway: what it counts, with which labels, and when it says ready."""

from __future__ import annotations

import asyncio
import json

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from gateway.app import Gateway
from gateway.core.errors import Reason
from gateway.pipeline.exchange import Verdict
from gateway.settings import parse
from tests.conftest import Answer, bearer

AUTHORIZATION = f"Authorization: {bearer()['Authorization']}"
RARE = ("PURGE", "REPORT", "LOCK", "MKCOL", "SEARCH", "PROPFIND", "NOTIFY", "TRACE")
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other"}


class Admin:
    """Asks a gateway's admin listener."""

    def __init__(self, connect, gateway: Gateway) -> None:
        self._connect = connect
        self._url = gateway.admin_url

    async def get(self, path: str, *fields: str) -> Answer:
        return await (await self._connect(self._url)).ask(f"GET {path}", "Connection: close", *fields)

    async def samples(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        text = (await self.get("/metrics")).body.decode()
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in prometheus(text)
            for sample in family.samples
        }

    async def value(self, name: str, **labels: str) -> float:
        return (await self.samples()).get((name, tuple(sorted(labels.items()))), 0.0)

    async def labels(self, name: str, label: str) -> set[str]:
        return {dict(labels)[label] for sample, labels in await self.samples() if sample == name}

    async def faults(self) -> dict[str, str]:
        answer = await self.get("/readyz")
        body = json.loads(answer.body)
        assert (answer.status == 200) == body["ready"] == (not body["faults"])
        return body["faults"]


@pytest.mark.parametrize(
    ("accept", "content_type", "read"),
    [
        (None, "text/plain", prometheus),
        ("text/plain;version=0.0.4", "text/plain", prometheus),
        ("application/openmetrics-text;version=1.0.0", "application/openmetrics-text", openmetrics),
    ],
    ids=["by default", "Prometheus", "OpenMetrics"],
)
async def test_metrics_come_in_the_format_that_is_asked_for(
    stub, start_gateway, connect, accept: str | None, content_type: str, read
) -> None:
    gateway = await start_gateway(stub.url)
    await (await connect(gateway.url)).ask("GET /v3/info")
    answer = await Admin(connect, gateway).get("/metrics", *([f"Accept: {accept}"] if accept else []))
    assert answer.status == 200
    assert (answer.field("content-type") or "").startswith(content_type)
    families = {family.name: family for family in read(answer.body.decode())}
    assert families["gateway_requests"].type == "counter"
    assert families["gateway_request_duration_seconds"].type == "histogram"
    assert families["gateway_requests_in_flight"].type == "gauge"
    assert all(family.documentation for family in families.values())


async def test_scripted_traffic_is_counted(stub, start_gateway, connect) -> None:
    gateway = await start_gateway(stub.url)
    admin = Admin(connect, gateway)
    client = await connect(gateway.url)
    stub.answers_json(b'{"resources":[]}')
    for _ in range(3):
        assert (await client.ask("GET /v3/processes", AUTHORIZATION)).status == 200
    assert (await client.ask("GET /v3/processes")).status == 401
    assert await admin.value("gateway_cache_entries") == 1
    assert await admin.value("gateway_cache_bytes") > 16
    assert (await client.ask("PURGE /staging/x")).status == 200
    count = "gateway_requests_total"
    processes = {"route": "/v3/processes", "method": "GET"}
    assert await admin.value(count, **processes, code="200", cache="miss") == 1
    assert await admin.value(count, **processes, code="200", cache="hit") == 2
    assert await admin.value(count, **processes, code="401", cache="none") == 1
    assert await admin.value(count, route="/staging/*", method="other", code="200", cache="bypass") == 1
    assert await admin.value("gateway_denials_total", reason="no-token") == 1
    assert await admin.value("gateway_request_duration_seconds_count", route="/v3/processes", cache="hit") == 2
    assert await admin.value("gateway_upstream_request_duration_seconds_count", route="/v3/processes") == 1
    assert await admin.value("gateway_aborted_total") == 0


async def test_label_sets_are_closed_against_hostile_clients(stub, start_gateway, connect) -> None:
    """Kong#7684: neither path nor method nor query nor token of a client may become a label value."""
    gateway = await start_gateway(stub.url)
    admin = Admin(connect, gateway)
    known = {route.template for route in gateway.routes.rows} | {"none"}
    client = await connect(gateway.url)
    for number in range(20):
        for line in (
            f"GET /v3/apps/guid-{number}",
            f"GET /v3/unknown-{number}/x",
            f"GET /unknown-{number}",
            f"{RARE[number % len(RARE)]} /staging/{number}",
            f"GET /v3/processes?page={number}",
            f"GET /v3/../{number}",
        ):
            await client.ask(line, f"Authorization: bearer {number}", f"X-Vcap-Request-Id: id-{number}")
        await (await connect(gateway.url)).ask(f"GET /a\\b{number}")
    count = "gateway_requests_total"
    assert await admin.labels(count, "route") <= known
    assert await admin.labels(count, "method") <= METHODS
    assert await admin.labels(count, "cache") <= {verdict.value for verdict in Verdict}
    assert await admin.labels("gateway_denials_total", "reason") <= {reason.value for reason in Reason}
    assert "guid-" not in (text := (await admin.get("/metrics")).body.decode())
    assert "unknown-" not in text.replace("unknown-route", "")
    before = len(await admin.samples())
    for number in range(20, 60):
        await client.ask(f"GET /v3/apps/guid-{number}", f"Authorization: bearer {number}")
        await client.ask(f"{RARE[number % len(RARE)]} /v3/unknown-{number}/x")
    new = set(await admin.samples())
    assert len(new) - before <= 40, "another method of one route may show, another path may not"


async def test_healthz_answers_whatever_else_fails(start_gateway, connect) -> None:
    admin = Admin(connect, await start_gateway("http://127.0.0.1:1"))
    answer = await admin.get("/healthz")
    assert (answer.status, answer.body) == (200, b"ok\n")


async def test_ready_when_all_is_well(stub, start_gateway, connect) -> None:
    assert await Admin(connect, await start_gateway(stub.url)).faults() == {}


async def test_not_ready_while_the_controller_is_down(start_gateway, connect) -> None:
    faults = await Admin(connect, await start_gateway("http://127.0.0.1:1")).faults()
    assert set(faults) == {"upstream"}
    assert "connection failed" in faults["upstream"]


async def test_not_ready_before_keys_and_origins_are_known(stub, connect) -> None:
    stub.answers_json(b'{"nothing":"of use"}')
    gateway = Gateway(
        parse(
            "listen: {port: 0}\nadmin: {port: 0}\npublic_url: https://gateway.example.org\ndrain: 1s\n"
            f"upstream: {{url: {stub.url}}}\nauth: {{keys: [{{url: 'http://127.0.0.1:1/token_keys'}}]}}",
            {},
        )
    )
    await gateway.start()
    try:
        assert set(await Admin(connect, gateway).faults()) == {"keys", "origins"}
    finally:
        await gateway.stop()


async def test_not_ready_and_still_answering_while_draining(start_gateway, start_upstream, connect) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(_request, _reader, writer) -> None:
        asked.set()
        await go_on.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")

    gateway = await start_gateway(await start_upstream(slowly), drain="5s")
    admin = Admin(connect, gateway)
    client = await connect(gateway.url)
    await client.request("GET /staging/x")
    await asyncio.wait_for(asked.wait(), 5)
    stopping = asyncio.create_task(gateway.stop())
    await asyncio.sleep(0)
    assert await admin.faults() == {"draining": "shutting down"}
    assert (await admin.get("/healthz")).status == 200
    assert await admin.value("gateway_requests_in_flight") == 1
    go_on.set()
    assert (await client.answer()).body == b"done"
    await asyncio.wait_for(stopping, 5)


@pytest.mark.parametrize("path", ["/-/", "/metrics/", "/v3/info", "/admin"])
async def test_nothing_else_is_served_to_the_operator(stub, start_gateway, connect, path: str) -> None:
    assert (await Admin(connect, await start_gateway(stub.url)).get(path)).status == 404


@pytest.mark.parametrize("path", ["/metrics", "/readyz"])
async def test_the_operators_pages_are_not_on_the_clients_listener(stub, start_gateway, connect, path: str) -> None:
    gateway = await start_gateway(stub.url)
    before = len(stub.received)
    answer = await (await connect(gateway.url)).ask(f"GET {path}")
    assert b"gateway_requests" not in answer.body
    assert answer.status in {401, 404} or len(stub.received) == before + 1
