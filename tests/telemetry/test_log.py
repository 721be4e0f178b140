"""The access log of a running gateway: one line an exchange, on every path, and nothing secret in it."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from gateway.app import Gateway
from gateway.core.errors import Reason
from gateway.core.model import Fields, RequestHead, Target
from gateway.pipeline.exchange import Exchange, Verdict
from gateway.telemetry import log
from gateway.telemetry.metrics import Metrics
from tests.conftest import bearer

AUTHORIZATION = f"Authorization: {bearer()['Authorization']}"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def in_flight(gateway: Gateway) -> float:
    return gateway.metrics.registry.get_sample_value("gateway_requests_in_flight") or 0.0


def counted(gateway: Gateway, name: str) -> float:
    families = gateway.metrics.registry.collect()
    return sum(sample.value for family in families for sample in family.samples if sample.name == name)


def counted_by(gateway: Gateway, name: str, **labels: str) -> float:
    wanted = labels.items()
    families = gateway.metrics.registry.collect()
    return sum(
        one.value for family in families for one in family.samples if one.name == name and wanted <= one.labels.items()
    )


SECRET = "s3cr3t"  # in every place where a client may put one


@pytest.mark.parametrize(
    "line",
    [
        f"GET /v3/processes?access_token={SECRET}",
        f"GET /staging/x?names={SECRET}",
        f"GET http://user:{SECRET}@host/v3",
        f"GET http://{SECRET}.example.org/v3/processes?{SECRET}",
        f"GET /v3/processes#{SECRET}",
        f"GET /v3/processes?a#{SECRET}",
        f"GET {SECRET}/v3",
        f"{SECRET} /v3",
        f"CONNECT {SECRET}:443",
    ],
)
async def test_no_token_query_or_field_value_is_logged(stub, start_gateway, connect, capfd, line: str) -> None:
    stub.answers_json(b'{"body":"%s"}' % SECRET.encode(), f"X-Answer: {SECRET}", f"Set-Cookie: {SECRET}")
    gateway = await start_gateway(stub.url)
    capfd.readouterr()
    with capture_logs() as logs:
        client = await connect(gateway.url)
        await client.request(
            line,
            f"Authorization: bearer {SECRET}",
            f"Cookie: {SECRET}",
            f"X-Forwarded-For: {SECRET}",
            f"Referer: {SECRET}",
            f"If-None-Match: {SECRET}",
            f"Cache-Control: {SECRET}",
            f"Origin: {SECRET}",
        )
        assert (await client.answer()).status
        await until(lambda: bool(logs))
    assert SECRET not in repr(logs)
    assert SECRET not in "".join(capfd.readouterr())


async def test_a_line_says_what_was_decided(stub, start_gateway, connect) -> None:
    gateway = await start_gateway(stub.url, "log: {access_sample: 1}")
    client = await connect(gateway.url)
    with capture_logs() as logs:
        await client.ask("GET /v3/processes?page=1", AUTHORIZATION, "X-Vcap-Request-Id: mine")
        await client.ask("GET /v3/processes?page=1", AUTHORIZATION)
        await client.ask("DELETE /v3/apps/x")
        await until(lambda: len(logs) == 3)
    keys = ("method", "path", "status", "route", "cache", "denied", "principal", "complete")
    assert [tuple(line[key] for key in keys) for line in logs] == [
        ("GET", "/v3/processes", 200, "/v3/processes", "miss", None, "user", True),
        ("GET", "/v3/processes", 200, "/v3/processes", "hit", None, "user", True),
        ("DELETE", "/v3/apps/x", 401, "/v3/apps/:guid", "none", "no-token", None, True),
    ]
    assert logs[0]["request_id"] == "mine"
    assert logs[0]["ms"] >= logs[0]["upstream_ms"] > 0


# -- exactly once


async def _answered(client, line: str, *fields: str, body: bytes = b"") -> None:
    await client.ask(line, *fields, body=body)


async def hit(client) -> None:
    await _answered(client, "GET /v3/info")


async def refused(client) -> None:
    await _answered(client, "GET /v3/processes")


async def bad_target(client) -> None:
    await _answered(client, "GET /v3/\\x")


async def bad_host(client) -> None:
    await client.send(b"GET /v3 HTTP/1.1\r\nHost: a/b\r\n\r\n")
    await client.answer()


async def forwarded(client) -> None:
    await _answered(client, "POST /staging/ok", "Content-Length: 2", body=b"hi")


async def head(client) -> None:
    await _answered(client, "HEAD /staging/ok")


async def upstream_closes(client) -> None:
    await _answered(client, "POST /staging/close")


async def upstream_breaks_off(client) -> None:
    await client.request("GET /staging/half")
    assert not (await client.answer()).complete


async def leaves_before_the_head(client) -> None:
    await client.request("GET /staging/silence")
    await client.arrived()
    client.writer.close()


async def leaves_mid_body(client) -> None:
    await client.request("GET /staging/stall")
    await client._head()
    client.writer.close()


async def resets_mid_body(client) -> None:
    await client.request("GET /staging/stall")
    await client._head()
    client.writer.transport.abort()


async def leaves_mid_upload(client) -> None:
    await client.request("POST /staging/ok", "Content-Length: 100", body=b"half")
    await client.arrived()
    client.writer.close()


async def bad_chunk(client) -> None:
    await client.request("POST /staging/ok", "Transfer-Encoding: chunked", body=b"2\r\nok\r\n")
    await client.arrived()
    await client.send(b"zz\r\n")
    assert (await client.answer("POST")).status == 400


PATHS = {
    function.__name__.replace("_", " "): (function, complete)
    for function, complete in (
        (hit, True),
        (refused, True),
        (bad_target, True),
        (bad_host, True),
        (forwarded, True),
        (head, True),
        (upstream_closes, True),
        (bad_chunk, True),
        (upstream_breaks_off, False),
        (leaves_before_the_head, False),
        (leaves_mid_body, False),
        (resets_mid_body, False),
        (leaves_mid_upload, False),
    )
}


@pytest.mark.parametrize(("talk", "complete"), PATHS.values(), ids=PATHS)
async def test_every_exchange_is_recorded_exactly_once(
    start_gateway, start_upstream, connect, talk, *, complete: bool
) -> None:
    async def by_path(request, reader, writer) -> None:
        while True:
            match request.line.split()[1].rpartition("/")[2]:
                case "close":
                    return
                case "half":
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
                    return
                case "silence":
                    await reader.read()
                case "stall":
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
                    await reader.read()
            if request.field("transfer-encoding"):
                await reader.readuntil(b"0\r\n\r\n")
            await reader.readexactly(int(request.field("content-length") or 0))
            body = b"" if request.line.startswith("HEAD") else b"ok"
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + body)
            request.head = (await reader.readuntil(b"\r\n\r\n"))[:-4]

    gateway = await start_gateway(await start_upstream(by_path))
    with capture_logs() as logs:
        client = await connect(gateway.url)

        async def arrived() -> None:
            await until(lambda: in_flight(gateway) == 1)

        client.arrived = arrived
        await talk(client)
        await until(lambda: bool(logs) and in_flight(gateway) == 0)
        second = await connect(gateway.url)
        assert (await second.ask("GET /staging/ok")).status == 200
        await until(lambda: len(logs) >= 2 and in_flight(gateway) == 0)
    first, last = logs
    assert [first["event"], last["event"]] == ["request", "request"]
    assert (first["complete"], last["complete"]) == (complete, True)
    left = talk in {leaves_before_the_head, leaves_mid_upload}
    assert (first["status"] == 499) is left, first
    code = counted_by(gateway, "gateway_requests_total", code="499")
    assert (code, counted_by(gateway, "gateway_requests_total", code="other")) == (1 if left else 0, 0)
    assert counted(gateway, "gateway_requests_total") == 2
    assert counted(gateway, "gateway_aborted_total") == (0 if complete else 1)


async def test_what_the_end_of_the_drain_cuts_off_is_no_fault_of_the_client(
    start_gateway, start_upstream, connect
) -> None:
    async def silent(_request, reader, _writer) -> None:
        await reader.read()

    gateway = await start_gateway(await start_upstream(silent), drain="100ms")
    with capture_logs() as logs:
        client = await connect(gateway.url)
        await client.request("GET /staging/silence")
        await until(lambda: in_flight(gateway) == 1)
        await gateway.stop()
    (line,) = (line for line in logs if line["event"] == "request")
    assert (line["status"], line["complete"], line["detail"]) == (503, False, "cut off before the answer")
    assert counted_by(gateway, "gateway_requests_total", code="499") == 0


async def test_what_cannot_be_parsed_is_counted_and_is_no_exchange(stub, start_gateway, connect) -> None:
    gateway = await start_gateway(stub.url)
    with capture_logs() as logs:
        client = await connect(gateway.url)
        await client.send(b"garbage\r\n\r\n")
        assert (await client.answer()).status == 400
        assert await client.ended()
    assert [line["event"] for line in logs] == ["malformed request"]
    assert counted(gateway, "gateway_malformed_requests_total") == 1
    assert counted(gateway, "gateway_requests_total") == 0
    assert in_flight(gateway) == 0


# -- the format


@pytest.fixture
def _restored():
    """Leaves structlog as it was."""
    import structlog

    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.mark.usefixtures("_restored")
def test_json_lines(capsys) -> None:
    import structlog

    log.configure(level="info", style="json")
    logger = structlog.get_logger("x")
    logger.debug("unseen")
    logger.info("seen", path="/a\nb", detail=None)
    (line,) = capsys.readouterr().err.splitlines()
    record = json.loads(line)
    assert (record["event"], record["level"], record["path"]) == ("seen", "info", "/a\nb")
    assert record["timestamp"].endswith("Z")


@pytest.mark.usefixtures("_restored")
def test_lines_for_people(capsys) -> None:
    import structlog

    log.configure(level="warning", style="console")
    logger = structlog.get_logger("x")
    logger.info("unseen")
    logger.warning("seen", reason="because")
    written = capsys.readouterr().err
    assert "unseen" not in written
    assert "because" in written


# RFC 5424 §6: PRI VERSION TIMESTAMP HOSTNAME APP-NAME PROCID MSGID STRUCTURED-DATA MSG
_PARAM = r'[!#-<>-\\^-~]{1,32}="(?:[^"\\\]]|\\["\\\]])*"'
SYSLOG = re.compile(
    r"<(?P<pri>\d{1,3})>1 (?P<time>\S+) (?P<host>[!-~]{1,255}) (?P<app>[!-~]{1,48}) (?P<proc>[!-~]{1,128}) "
    rf"(?P<id>[!-~]{{1,32}}) (?P<data>-|\[gateway@47450(?: {_PARAM})*\]) (?P<text>.*)"
)


@pytest.mark.usefixtures("_restored")
def test_lines_for_syslog(capsys) -> None:
    import structlog

    log.configure(level="info", style="rfc5424")
    logger = structlog.get_logger("x")
    logger.info("request", request_id="r", route="/v3", quoted='a"b]c\\d', lines="one\ntwo", nothing=None, done=True)
    logger.warning("two\nlines", **{"odd name=": "x"})
    try:
        raise ValueError("the cause")  # noqa: TRY301
    except ValueError:
        logger.exception("fault")
    found = [SYSLOG.fullmatch(line) for line in capsys.readouterr().err.splitlines()]
    assert all(found)
    assert [(one["pri"], one["app"], one["id"]) for one in found] == [
        ("14", "gateway", "access"),
        ("12", "gateway", "-"),
        ("11", "gateway", "-"),
    ]
    assert found[0]["data"] == (
        r'[gateway@47450 request_id="r" route="/v3" quoted="a\"b\]c\\d" lines="one#012two" done="true"]'
    )
    assert (found[1]["data"], found[1]["text"]) == ('[gateway@47450 odd_name_="x"]', "two#012lines")
    assert found[2]["text"].startswith("fault#012Traceback")
    assert found[2]["text"].endswith("ValueError: the cause")


@pytest.mark.usefixtures("_restored")
@pytest.mark.parametrize("style", ["json", "rfc5424"])
def test_what_libraries_log_has_the_same_form_once(capsys, style: str) -> None:
    log.configure(level="info", style=style)
    log.configure(level="info", style=style)  # a reload
    try:
        raise ValueError("the cause")  # noqa: TRY301
    except ValueError:
        logging.getLogger("aiohttp.server").exception("unhandled fault")
    (line,) = capsys.readouterr().err.splitlines()
    assert "ValueError: the cause" in line
    if style == "json":
        record = json.loads(line)
        assert (record["event"], record["level"], record["logger"]) == ("unhandled fault", "error", "aiohttp.server")
    else:
        assert SYSLOG.fullmatch(line)


@pytest.mark.usefixtures("_restored")
async def test_a_fault_of_ours_is_logged_once_with_its_cause(stub, start_gateway, connect, monkeypatch, capfd) -> None:
    gateway = await start_gateway(stub.url)
    log.configure(level="error", style="json")
    monkeypatch.setattr(type(gateway.routes), "match", lambda *_: 1 / 0)
    client = await connect(gateway.url)
    assert (await client.ask("GET /v3/processes", AUTHORIZATION)).status == 500
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "ZeroDivisionError" in line]
    assert json.loads(line)["level"] == "error"


# -- what a line says


TRACE = "0af7651916cd43dd8448eb211c80319c"


async def test_a_line_names_domain_trace_and_whose_time_it_was(stub, start_gateway, connect) -> None:
    gateway = await start_gateway(stub.url, "log: {access_sample: 1}")
    client = await connect(gateway.url)
    with capture_logs() as logs:
        await client.ask("GET /v3/processes", AUTHORIZATION, f"traceparent: 00-{TRACE}-b7ad6b7169203331-00")
        await client.ask("GET /v3/processes", AUTHORIZATION, f"b3: {TRACE}-b7ad6b7169203331")
        await client.ask("GET /v3/info")
        await client.ask("POST /v3/apps")
        await until(lambda: len(logs) == 4)
    keys = ("decision", "cache", "domain", "trace_id", "sampled")
    assert [tuple(line[key] for key in keys) for line in logs] == [
        ("answered", "miss", "principal", TRACE, None),
        ("answered", "hit", "principal", TRACE, None),
        ("answered", "miss", "public", None, None),
        ("refused", "none", None, None, None),
    ]
    assert all(abs(line["ms"] - line["own_ms"] - line["upstream_ms"]) <= 0.11 for line in logs)


@pytest.mark.parametrize(
    ("chance", "known", "lines"),
    [
        (0.5, {}, 0),
        (0.005, {}, 1),
        (0.5, {"verdict": Verdict.MISS}, 1),
        (0.5, {"verdict": Verdict.STALE}, 1),
        (0.5, {"denied": Reason.RATE_LIMITED}, 1),
        (0.5, {"limited": ("users",)}, 1),
    ],
    ids=["hit", "hit in the sample", "miss", "stale", "refused", "limited in shadow mode"],
)
def test_plain_hits_are_sampled_and_nothing_else(chance: float, known: dict[str, object], lines: int) -> None:
    exchange = Exchange(RequestHead("GET", Target("/"), Fields()), request_id="r", received_at=0.0)
    exchange.verdict = Verdict.HIT
    for name, value in known.items():
        setattr(exchange, name, value)
    metrics = Metrics("0")
    with capture_logs() as logs:
        access = log.AccessLog(metrics, sample=0.01, chance=lambda: chance)
        access.begin()
        access.record(exchange, complete=True, seconds=0.1)
    assert len(logs) == lines
    assert sum(one.count for one in metrics.series.values()) == 1
    if lines:
        assert logs[0]["sampled"] == (0.01 if not known else None)


def test_a_hit_that_broke_off_has_its_line() -> None:
    exchange = Exchange(RequestHead("GET", Target("/"), Fields()), request_id="r", received_at=0.0)
    exchange.verdict = Verdict.HIT
    with capture_logs() as logs:
        log.AccessLog(Metrics("0"), sample=0.0).record(exchange, complete=False, seconds=0.1)
    assert len(logs) == 1
