"""Spans of a running gateway: in memory, and as a collector gets them over OTLP."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from gateway.app import Gateway
from gateway.settings import ConfigError, parse, watching
from tests.conftest import bearer

AUTHORIZATION = f"Authorization: {bearer()['Authorization']}"
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRUSTED = "trusted_proxies: [127.0.0.1]"


def tracing(sample: float = 1, endpoint: str = "http://127.0.0.1:9/v1/traces") -> str:
    return f"tracing: {{endpoint: {endpoint}, sample: {sample}}}\n"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
def start_traced(start_gateway) -> Callable[..., Any]:
    """Starts a gateway whose spans stay in memory."""

    async def start(upstream: str, *more: str, sample: float = 1) -> tuple[Gateway, InMemorySpanExporter]:
        gateway = await start_gateway(upstream, tracing(sample) + "\n".join(more))
        memory = InMemorySpanExporter()
        gateway._traces._processor.shutdown()
        object.__setattr__(gateway._traces, "_processor", SimpleSpanProcessor(memory))
        return gateway, memory

    return start


def by_name(memory: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in memory.get_finished_spans()}


def ids(span: ReadableSpan) -> tuple[str, str]:
    assert span.context is not None
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"


async def test_a_span_for_each_phase_of_a_miss(stub, start_traced, connect) -> None:
    gateway, memory = await start_traced(stub.url, TRUSTED)
    client = await connect(gateway.url)
    await client.ask("GET /v3/processes?names=secret", AUTHORIZATION, f"traceparent: 00-{TRACE}-{SPAN}-01")
    await until(lambda: len(memory.get_finished_spans()) == 4)
    spans = by_name(memory)
    server = spans["GET /v3/processes"]
    assert server.kind is SpanKind.SERVER
    assert (ids(server)[0], f"{server.parent.span_id:016x}", server.parent.is_remote) == (TRACE, SPAN, True)
    assert {name: server.attributes[name] for name in ("http.route", "gateway.cache", "gateway.domain")} == {
        "http.route": "/v3/processes",
        "gateway.cache": "miss",
        "gateway.domain": "principal",
    }
    assert server.attributes["http.response.status_code"] == 200
    assert (server.resource.attributes["service.name"], server.status.status_code) == ("gateway", StatusCode.UNSET)
    phases = [spans[name] for name in ("decide", "fetch", "deliver")]
    assert all(ids(span)[0] == TRACE and span.parent == server.context for span in phases)
    times = [
        server.start_time,
        *(time for span in phases for time in (span.start_time, span.end_time)),
        server.end_time,
    ]
    assert times == sorted(times)
    assert "secret" not in repr([span.to_json() for span in memory.get_finished_spans()])
    # What the controller was told is the span of asking it, in both forms.
    received = next(one for one in stub.received if "/v3/processes" in one.line)
    fetch = ids(spans["fetch"])[1]
    assert received.field("traceparent") == f"00-{TRACE}-{fetch}-01"
    assert received.field("b3") == f"{TRACE}-{fetch}-1"
    assert (received.field("x-b3-traceid"), received.field("x-b3-spanid")) == (TRACE, fetch)


async def test_what_else_becomes_of_requests(stub, start_traced, connect) -> None:
    gateway, memory = await start_traced(stub.url)
    client = await connect(gateway.url)

    async def spans_of(line: str, *fields: str, count: int) -> dict[str, ReadableSpan]:
        memory.clear()
        await client.ask(line, *fields)
        await until(lambda: len(memory.get_finished_spans()) == count)
        return by_name(memory)

    await spans_of("GET /v3/processes", AUTHORIZATION, count=4)
    hit = await spans_of("GET /v3/processes", AUTHORIZATION, count=2)
    assert hit.keys() == {"GET /v3/processes", "decide"}
    assert hit["GET /v3/processes"].attributes["gateway.cache"] == "hit"
    assert hit["GET /v3/processes"].parent is None
    refused = await spans_of("GET /v3/processes", count=2)
    assert refused["GET /v3/processes"].attributes["gateway.denied"] == "no-token"
    assert refused["GET /v3/processes"].status.status_code is StatusCode.UNSET
    await stub.hang_up()

    async def nothing(_request, _reader, writer) -> None:
        writer.close()

    stub.script = nothing
    failed = await spans_of("POST /v3/apps", AUTHORIZATION, "Content-Length: 0", count=4)
    assert failed["POST /v3/apps"].status.status_code is StatusCode.ERROR
    assert failed["POST /v3/apps"].attributes["error.type"].startswith("upstream-")
    assert failed["fetch"].status.status_code is StatusCode.ERROR


@pytest.mark.parametrize(
    ("fields", "trusted", "sample", "traced"),
    [
        ((f"traceparent: 00-{TRACE}-{SPAN}-01",), True, 0, True),
        ((f"traceparent: 00-{TRACE}-{SPAN}-00",), True, 1, False),
        ((f"b3: {TRACE}-{SPAN}-1",), True, 0, True),
        ((f"X-B3-TraceId: {TRACE}", f"X-B3-SpanId: {SPAN}", "X-B3-Sampled: 0"), True, 1, False),
        ((f"b3: {TRACE}-{SPAN}",), True, 1, True),
        ((f"traceparent: 00-{TRACE}-{SPAN}-01",), False, 0, False),
        ((f"traceparent: 00-{TRACE}-{SPAN}-00",), False, 1, True),
    ],
    ids=["W3C yes", "W3C no", "b3 yes", "several, no", "b3 deferred", "a stranger says yes", "a stranger says no"],
)
async def test_who_decides_what_is_traced(stub, start_traced, connect, fields, trusted, sample, traced) -> None:
    gateway, memory = await start_traced(stub.url, TRUSTED if trusted else "", sample=sample)
    client = await connect(gateway.url)
    await client.ask("GET /v3/processes", AUTHORIZATION, *fields)
    await client.ask("GET /v3/processes", AUTHORIZATION, *fields)
    await until(lambda: sum(one.count for one in gateway.metrics.series.values()) == 2)
    assert {ids(span)[0] for span in memory.get_finished_spans()} == ({TRACE} if traced else set())
    received = next(one for one in stub.received if "/v3/processes" in one.line)
    told = received.field("traceparent") or ""
    assert told.startswith(f"00-{TRACE}-")
    assert told.endswith("-01" if traced else "-00")
    assert SPAN not in told


async def test_without_an_endpoint_fields_pass_through_and_nothing_is_imported(stub, start_gateway, connect) -> None:
    gateway = await start_gateway(stub.url)
    assert gateway._traces is None
    client = await connect(gateway.url)
    await client.ask("GET /v3/processes", AUTHORIZATION, f"traceparent: 00-{TRACE}-{SPAN}-01", "b3: 0")
    received = next(one for one in stub.received if "/v3/processes" in one.line)
    assert (received.field("traceparent"), received.field("b3")) == (f"00-{TRACE}-{SPAN}-01", "0")
    process = await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-c",
            "import gateway.app, sys; sys.exit(any('opentelemetry' in name for name in sys.modules))",
        )
    )
    assert await process.wait() == 0


async def test_a_collector_gets_them(stub, start_gateway, connect) -> None:
    got: list[ExportTraceServiceRequest] = []

    async def collect(request: web.Request) -> web.Response:
        assert request.headers["Content-Type"] == "application/x-protobuf"
        got.append(ExportTraceServiceRequest.FromString(await request.read()))
        return web.Response()

    app = web.Application()
    app.router.add_post("/v1/traces", collect)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        gateway = await start_gateway(stub.url, tracing(endpoint=f"http://{host}:{port}/v1/traces"))
        client = await connect(gateway.url)
        await client.ask("GET /v3/processes", AUTHORIZATION)
        await gateway.stop()
        spans = [span for one in got for rs in one.resource_spans for ss in rs.scope_spans for span in ss.spans]
        assert {span.name for span in spans} == {"GET /v3/processes", "decide", "fetch", "deliver"}
        assert len({span.trace_id for span in spans}) == 1
    finally:
        await runner.cleanup()


async def test_a_collector_that_is_not_there_harms_nothing(stub, start_gateway, connect) -> None:
    gateway = await start_gateway(stub.url, tracing())
    client = await connect(gateway.url)
    for _ in range(3):
        assert (await client.ask("GET /v3/processes", AUTHORIZATION)).status == 200


def test_a_missing_extra_stops_the_start(monkeypatch) -> None:
    monkeypatch.setattr(watching, "find_spec", lambda _name: None)
    text = "public_url: https://x\nupstream: {url: http://x}\nauth: {keys: [{secret: " + "x" * 32 + "}]}\n" + tracing()
    with pytest.raises(ConfigError) as error:
        parse(text, {}, name="f.yaml")
    (fault,) = error.value.faults
    assert str(fault) == (
        "f.yaml:4: tracing.endpoint: expected the extra otel to be installed, found it missing; "
        "pip install 'gateway[otel]'"
    )


def test_a_sample_of_nothing_is_a_fault() -> None:
    text = "public_url: https://x\nupstream: {url: http://x}\nauth: {keys: [{secret: " + "x" * 32 + "}]}\n"
    with pytest.raises(ConfigError, match="nothing is traced without one"):
        parse(text + "tracing: {sample: 0.5}", {}, name="f.yaml")
