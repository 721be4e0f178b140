"""New settings for a running gateway, on real sockets: what changes, what stays, and what a faulty file does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import structlog
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from structlog.testing import capture_logs

from gateway.app import Gateway
from gateway.settings import load, parse
from gateway.settings.changes import changed, in_force, reloadable
from gateway.telemetry.log import configure
from tests.conftest import ADVERTISED, SECRET, Answer, Connect, Stub, bearer

AUTHORIZATION = f"Authorization: {bearer()['Authorization']}"
ADMIN = "X-Gateway-Admin: 1"
OTHER_SECRET = "another-secret-of-more-than-thirty-two-bytes"
PAGE = json.dumps({"pagination": {"next": {"href": f"{ADVERTISED}/v3/processes?page=2"}}, "resources": []}).encode()


def text(upstream: str, extra: str = "", *, public: str = "https://gateway.example.org", secret: str = SECRET) -> str:
    return f"""
listen: {{port: 0}}
admin: {{port: 0}}
public_url: {public}
drain: 1s
upstream: {{url: "{upstream}", advertised_urls: ["{ADVERTISED}"], host_header: api.internal.example.org}}
auth: {{keys: [{{secret: {secret}}}]}}
{extra}
"""


class Running:
    """A gateway from a file, and its admin listener."""

    def __init__(self, gateway: Gateway, path: Path, connect: Connect) -> None:
        self.gateway = gateway
        self.path = path
        self.connect = connect

    async def reload(self, content: str | None = None, *fields: str) -> Answer:
        if content is not None:
            self.path.write_text(content)
        wire = await self.connect(self.gateway.admin_url)
        return await wire.ask("POST /-/reload", "Content-Length: 0", *(fields or (ADMIN,)))

    async def metric(self, name: str) -> float:
        answer = await (await self.connect(self.gateway.admin_url)).ask("GET /metrics")
        lines = [line for line in answer.body.decode().splitlines() if line.startswith(f"{name} ")]
        return float(lines[0].split()[-1])


Start = Callable[..., Awaitable[Running]]


@pytest.fixture
async def start(stub: Stub, connect: Connect, tmp_path: Path) -> AsyncIterator[Start]:
    running: list[Gateway] = []
    stub.answers_json(PAGE)

    async def begin(extra: str = "") -> Running:
        path = tmp_path / "gateway.yaml"
        path.write_text(text(stub.url, extra))
        gateway = Gateway(load(path), source=lambda: load(path))
        await gateway.start()
        running.append(gateway)
        return Running(gateway, path, connect)

    yield begin
    for gateway in running:
        await gateway.stop()


async def test_what_changed_is_in_force_and_what_cannot_be_is_named(stub: Stub, start: Start, connect) -> None:
    running = await start()
    wire = await connect(running.gateway.url)
    assert (await wire.ask("GET /v3/processes", AUTHORIZATION)).status == 200
    answer = await running.reload(
        text(
            stub.url,
            "routes: [{match: GET /v3/processes, access: deny}]\nvia: other\nlimits: {max_body_bytes: 1KiB}",
        )
    )
    assert (answer.status, json.loads(answer.body)) == (
        200,
        {
            "reloaded": True,
            "changed": ["routes", "limits.max_body_bytes"],
            "needs_restart": ["via"],
            "faults": [],
        },
    )
    assert (await wire.ask("GET /v3/processes", AUTHORIZATION)).status == 403, "the same connection, the new rule"
    assert (await wire.ask("GET /v3/apps", AUTHORIZATION)).field("via") == "1.1 gateway"
    assert running.gateway.settings.via == "gateway"


async def test_a_faulty_file_leaves_the_old_settings_says_why_and_sets_the_metric(
    stub: Stub, start: Start, connect
) -> None:
    running = await start()
    assert await running.metric("gateway_config_last_reload_successful") == 1
    at = await running.metric("gateway_config_last_reload_success_timestamp_seconds")
    answer = await running.reload(text(stub.url, "cache: {max_bytes: many}"))
    assert answer.status == 422
    (fault,) = json.loads(answer.body)["faults"]
    line = running.path.read_text().splitlines().index("cache: {max_bytes: many}") + 1
    assert fault.startswith(f"{running.path}:{line}: cache.max_bytes: expected a size")
    assert await running.metric("gateway_config_last_reload_successful") == 0
    assert await running.metric('gateway_config_reloads_total{result="refused"}') == 1
    assert await running.metric("gateway_config_last_reload_success_timestamp_seconds") == at
    assert (await (await connect(running.gateway.url)).ask("GET /v3/processes", AUTHORIZATION)).status == 200
    assert (await running.reload(text(stub.url))).status == 200
    assert await running.metric("gateway_config_last_reload_successful") == 1


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ("auth: {keys: [{pem_file: missing.pem}]}", "missing.pem"),
        ("auth: {keys: [{pem_file: none.pem}]}", "auth.keys"),
        ("auth: {keys: [{url: 'http://127.0.0.1:1/token_keys'}]}", "127.0.0.1:1/token_keys"),
    ],
    ids=["no file", "no key in the file", "a new source of keys that is down"],
)
async def test_keys_that_cannot_be_used_leave_the_old_ones(
    extra: str, named: str, stub: Stub, start: Start, connect
) -> None:
    running = await start()
    (running.path.parent / "none.pem").write_text("nothing")
    content = text(stub.url).replace(f"auth: {{keys: [{{secret: {SECRET}}}]}}", extra)
    answer = await running.reload(content)
    assert answer.status == 422
    assert named in json.loads(answer.body)["faults"][0]
    assert (await (await connect(running.gateway.url)).ask("GET /v3/processes", AUTHORIZATION)).status == 200


async def test_rules_that_leak_are_refused_as_at_the_start(stub: Stub, start: Start) -> None:
    running = await start()
    leak = "routes: [{match: GET /v3/apps/:guid/env, cache: {mode: policy, ttl: 1m, share: public}}]"
    answer = await running.reload(text(stub.url, leak))
    assert answer.status == 422, answer.body


async def test_new_keys_judge_the_next_token_and_the_memo_of_old_ones_is_gone(
    stub: Stub, start: Start, connect
) -> None:
    running = await start()
    wire = await connect(running.gateway.url)
    assert (await wire.ask("GET /v3/processes", AUTHORIZATION)).status == 200
    await running.reload(text(stub.url, secret=OTHER_SECRET))
    assert (await wire.ask("GET /v3/processes", AUTHORIZATION)).status == 401


async def test_the_same_keys_keep_their_memo(stub: Stub, start: Start, connect) -> None:
    running = await start()
    wire = await connect(running.gateway.url)
    await wire.ask("GET /v3/processes", AUTHORIZATION)
    await running.reload(text(stub.url, "drain: 2s".replace("drain", "limits: {max_body_bytes: 9KiB} #")))
    await wire.ask("GET /v3/processes", AUTHORIZATION)
    assert await running.metric("gateway_auth_memo_hits_total") == 1


async def test_pages_survive_and_links_follow_the_public_url(stub: Stub, start: Start, connect) -> None:
    running = await start()
    wire = await connect(running.gateway.url)
    await wire.ask("GET /v3/processes", AUTHORIZATION)
    await running.reload(text(stub.url, "limits: {max_body_bytes: 1MiB}"))
    kept = await wire.ask("GET /v3/processes", AUTHORIZATION)
    assert "hit" in (kept.field("cache-status") or "")
    await running.reload(text(stub.url, public="https://new.example.org/cf"))
    answer = await wire.ask("GET /cf/v3/processes", AUTHORIZATION)
    assert b"https://new.example.org/cf/v3/processes?page=2" in answer.body
    assert b"gateway.example.org" not in answer.body
    assert "fwd=miss" in (answer.field("cache-status") or "")


async def test_buckets_survive_where_the_policy_is_the_same(stub: Stub, start: Start, connect) -> None:
    policy = "rate_limits: {{policies: [{{name: users, who: principal, limit: {}, window: 1h, mode: {}}}]}}"
    running = await start(policy.format(5, "enforce"))
    wire = await connect(running.gateway.url)

    async def remaining() -> int:
        answer = await wire.ask("GET /v3/apps", AUTHORIZATION)
        return int((answer.field("ratelimit") or "").partition("r=")[2].partition(";")[0])

    assert [await remaining(), await remaining()] == [4, 3]
    await running.reload(text(stub.url, policy.format(5, "enforce") + "\nlimits: {max_body_bytes: 1MiB}"))
    assert await remaining() == 2
    await running.reload(text(stub.url, policy.format(50, "enforce")))
    assert await remaining() == 49
    assert (
        await running.metric('gateway_ratelimit_decisions_total{decision="allowed",mode="enforce",policy="users"}') == 4
    )


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (("X-Other: 1",), 403),
        (("Content-Type: text/plain",), 403),
        (("Content-Type: application/json",), 200),
        ((ADMIN,), 200),
        ((ADMIN, "Origin: http://127.0.0.1:9090"), 403),
    ],
    ids=["a plain form", "text", "json", "the field", "a browser"],
)
async def test_no_page_of_another_site_can_ask_for_a_reload(fields: tuple[str, ...], status: int, start: Start) -> None:
    running = await start()
    assert (await running.reload(None, *fields)).status == status


async def test_requests_under_way_finish_with_what_they_began_with(stub: Stub, start: Start, connect) -> None:
    running = await start()
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slow(_: object, __: object, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await go_on.wait()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(PAGE)}\r\n\r\n"
        writer.write(head.encode() + PAGE)

    stub.script = slow
    wire = await connect(running.gateway.url)
    await wire.request("GET /v3/processes", AUTHORIZATION)
    await asked.wait()
    denied = "routes: [{match: GET /v3/processes, access: deny}]"
    assert (await running.reload(text(stub.url, denied, public="https://new.example.org"))).status == 200
    go_on.set()
    answer = await wire.answer()
    assert answer.status == 200
    assert b"https://gateway.example.org/v3/processes" in answer.body
    # ... and what it brought is not kept for those who come after.
    assert (await running.reload(text(stub.url, public="https://new.example.org"))).status == 200
    stub.answers_json(PAGE)
    assert b"https://new.example.org/" in (await wire.ask("GET /v3/processes", AUTHORIZATION)).body


async def test_no_request_fails_across_reloads_under_load(stub: Stub, start: Start, connect) -> None:
    running = await start()
    stop = asyncio.Event()
    statuses: dict[int, int] = {}

    async def client(number: int) -> None:
        wire = await connect(running.gateway.url)
        while not stop.is_set():
            answer = await wire.ask(f"GET /v3/processes?page={number}", AUTHORIZATION)
            statuses[answer.status] = statuses.get(answer.status, 0) + 1
            assert answer.complete

    clients = [asyncio.create_task(client(number)) for number in range(8)]
    for turn in range(20):
        extra = [
            "",
            "routes: [{match: GET /v3/processes, cache: {mode: policy, ttl: 1s}}]",
            f"rate_limits: {{policies: [{{name: users, who: principal, limit: {10**6 + turn}, window: 1h}}]}}",
            "cache: {max_bytes: none}",
        ][turn % 4]
        secret = "" if turn % 2 else f", {{secret: {OTHER_SECRET}, kid: second}}"
        content = text(stub.url, extra).replace(f"{{secret: {SECRET}}}", f"{{secret: {SECRET}}}{secret}")
        answer = await running.reload(content)
        assert answer.status == (422 if turn % 4 == 3 else 200), answer.body
    stop.set()
    await asyncio.gather(*clients)
    assert set(statuses) == {200}
    assert statuses[200] > 20
    assert await running.metric('gateway_config_reloads_total{result="applied"}') == 15


async def test_without_a_file_there_is_nothing_to_reload(stub: Stub, connect) -> None:
    gateway = Gateway(parse(text(stub.url), {}))
    await gateway.start()
    wire = await connect(gateway.admin_url)
    answer = await wire.ask("POST /-/reload", "Content-Length: 0", ADMIN)
    assert (answer.status, json.loads(answer.body)["faults"]) == (422, ["these settings are from no file"])
    await gateway.stop()


def test_what_is_not_on_the_list_waits_for_a_restart() -> None:
    old = parse(text("http://127.0.0.1:1"), {})
    new = parse(text("http://127.0.0.1:2", "log: {level: debug, format: console}\ntrusted_proxies: [10.0.0.0/8]"), {})
    paths = changed(old, new)
    assert paths == ("upstream.url", "trusted_proxies", "log.format", "log.level")
    assert [path for path in paths if reloadable(path)] == ["trusted_proxies", "log.format", "log.level"]
    merged = in_force(old, new)
    assert (merged.upstream.url, merged.log.format, merged.log.level) == ("http://127.0.0.1:1", "console", "debug")
    assert changed(merged, new) == ("upstream.url",)


WAITS = {
    "upstream.breaker.minimum": "breaker: {minimum: 7}",
    "upstream.health.interval": "health: {interval: 7s}",
    "upstream.retries.ratio": "retries: {ratio: 0.07}",
    "upstream.connections": "connections: 7",
}


async def test_what_waits_for_a_restart_is_said_loudly_everywhere(stub: Stub, start: Start, connect: Connect) -> None:
    running = await start()

    def other(upstream: str) -> str:
        more = f"{', '.join(WAITS.values())}, url:"
        return text(upstream, "concurrency: {per_principal: 7}").replace("{url:", f"{{{more}", 1)

    expected = [*sorted(WAITS), "concurrency.per_principal"]
    with capture_logs() as logs:
        assert sorted(json.loads((await running.reload(other(stub.url))).body)["needs_restart"]) == sorted(expected)
    (line,) = (line for line in logs if line["event"] == "restart required")
    assert (line["log_level"], sorted(line["keys"])) == ("warning", sorted(expected))
    for key in expected:
        assert await running.metric(f'gateway_config_restart_required{{key="{key}"}}') == 1
    admin = await connect(running.gateway.admin_url)
    await admin.ask("GET /-/status.json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gateway.live.recent._SHORTEST", 0.0)
        status = json.loads((await admin.ask("GET /-/status.json")).body)
    assert status["summary"]["waiting"] == sorted(expected)
    # What a reload refuses changes nothing; what is set back waits no more.
    assert (await running.reload("nonsense")).status == 422
    assert running.gateway.reloader.reloads.waiting
    assert (await running.reload(text(stub.url))).status == 200
    assert running.gateway.reloader.reloads.waiting == ()


@pytest.mark.usefixtures("_configured")
async def test_logs_take_another_form_and_level_at_once(stub: Stub, start: Start, connect: Connect, capfd) -> None:
    configure(level="info", style="json")
    running = await start("log: {format: json, level: info, access_sample: 1}")
    wire = await connect(running.gateway.url)

    async def lines(extra: str) -> list[str]:
        assert (await running.reload(text(stub.url, extra))).status == 200
        capfd.readouterr()
        assert (await wire.ask("GET /v3/apps", AUTHORIZATION)).status == 200
        await asyncio.sleep(0)
        return capfd.readouterr().err.splitlines()

    (line,) = await lines("log: {format: rfc5424, level: info, access_sample: 1}")
    assert line.startswith("<14>1 ")
    assert await lines("log: {format: rfc5424, level: warning, access_sample: 1}") == []
    (line,) = await lines("log: {format: json, level: info, access_sample: 1}")
    assert json.loads(line)["event"] == "request"


async def test_the_share_of_traces_and_who_decides_on_them_change_at_once(
    stub: Stub, start: Start, connect: Connect
) -> None:
    def traced(sample: int, trusted: str) -> str:
        endpoint = "http://127.0.0.1:9/v1/traces"
        return f"tracing: {{endpoint: '{endpoint}', sample: {sample}}}\ntrusted_proxies: [{trusted}]"

    running = await start(traced(0, "10.0.0.1"))
    memory, traces = InMemorySpanExporter(), running.gateway._traces
    traces._processor.shutdown()
    object.__setattr__(traces, "_processor", SimpleSpanProcessor(memory))
    wire = await connect(running.gateway.url)

    async def spans(*fields: str) -> bool:
        memory.clear()
        assert (await wire.ask("GET /v3/apps", AUTHORIZATION, *fields)).status == 200
        await asyncio.sleep(0)
        return bool(memory.get_finished_spans())

    decided = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert not await spans()
    assert not await spans(decided)
    outcome = json.loads((await running.reload(text(stub.url, traced(1, "10.0.0.1")))).body)
    assert (outcome["changed"], outcome["needs_restart"]) == (["tracing.sample"], [])
    assert await spans()
    assert (await running.reload(text(stub.url, traced(0, "127.0.0.1")))).status == 200
    assert not await spans()
    assert await spans(decided)


@pytest.fixture
def _configured() -> Iterator[None]:
    """Leaves logging as it was."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)
