"""The operator's cache API and commands against a running gateway, in both modes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from gateway.app import Gateway
from gateway.cache_cli import cache
from gateway.commands import app
from tests.conftest import Answer, Connect, Stub, Wire, bearer

GUID = "3f0a5d1e-0c9e-4c53-9a34-1f0f0a7a1c11"
ROUTES = """
routes:
  - match: GET /v3/processes
    cache: {mode: policy, ttl: 60s, stale_while_revalidate: 0, stale_if_error: 1m, share: global}
  - match: GET /v3/spaces
    cache: {mode: policy, ttl: 60s, share: principal}
  - match: "GET /plain/*"
    access: public
    rewrite: false
    cache: {mode: origin, share: public}
"""
ADMIN = {"scope": ["cloud_controller.admin"]}


class Operator:
    """Speaks to the admin listener."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire

    async def ask(self, line: str, content: object = None, *fields: str) -> tuple[int, dict[str, Any]]:
        body = b"" if content is None else json.dumps(content).encode()
        given = ["Content-Type: application/json", f"Content-Length: {len(body)}"] if content is not None else []
        answer = await self.wire.ask(line, *given, *fields, body=body)
        assert answer.field("content-type") == "application/json"
        return answer.status, json.loads(answer.body)

    async def purge(self, **content: object) -> int:
        status, found = await self.ask("POST /cache/purge", content)
        assert status == 200, found
        return int(found["purged"])

    async def urls(self, query: str = "") -> set[str]:
        status, found = await self.ask(f"GET /cache/entries{query}")
        assert status == 200, found
        return {entry["url"] for entry in found["entries"]}


class World:
    """A gateway, its upstream, a client and an operator."""

    def __init__(self, stub: Stub, gateway: Gateway, client: Wire, operator: Operator) -> None:
        self.stub, self.gateway, self.client, self.operator = stub, gateway, client, operator

    async def get(self, target: str, **claims: Any) -> Answer:
        return await self.client.ask(f"GET {target}", f"Authorization: {bearer(**claims)['Authorization']}")

    async def hit(self, target: str, **claims: Any) -> bool:
        return ";hit" in ((await self.get(target, **claims)).field("cache-status") or "")


def content(text: str = "{}") -> bytes:
    return f'{{"resources":[],"text":"{text}"}}'.encode()


@pytest.fixture
async def world(stub: Stub, start_gateway: Any, connect: Connect) -> World:
    stub.answers_json(content(), "Cache-Control: public, max-age=60", 'ETag: "e"')
    gateway = await start_gateway(stub.url, ROUTES)
    made = World(stub, gateway, await connect(gateway.url), Operator(await connect(gateway.admin_url)))
    await made.get("/v3/processes", **ADMIN)
    await made.get("/v3/processes?page=2&per_page=5", **ADMIN)
    await made.get("/v3/spaces", user_id="alice")
    await made.get("/v3/spaces", user_id="bob")
    await made.get("/plain/one")
    await made.get("/plain/two?x=1")
    return made


async def test_entries_are_listed_without_saying_whose_they_are(world: World) -> None:
    await world.get("/v3/spaces", user_id="alice")
    status, found = await world.operator.ask("GET /cache/entries?sort=hits")
    assert status == 200
    assert found["total"] == 6
    assert found["bytes"] == world.gateway.store.bytes
    first = found["entries"][0]
    assert (first["url"], first["hits"], first["mode"]) == ("/v3/spaces", 1, "policy")
    assert first["domain"]["class"] == "principal"
    assert 0 < first["ttl"] <= 60
    assert first["size"] > len(content())
    assert {entry["domain"]["class"] for entry in found["entries"]} == {"global", "principal", "public"}
    assert {entry["mode"] for entry in found["entries"]} == {"policy", "origin"}
    text = json.dumps(found)
    assert "alice" not in text
    assert "bob" not in text
    labels = {entry["domain"]["label"] for entry in found["entries"] if entry["url"] == "/v3/spaces"}
    assert len(labels) == 2, "but domains can be told apart"


async def test_a_principal_is_named_to_who_asks_for_it_and_no_other(world: World) -> None:
    _, found = await world.operator.ask("GET /cache/entries?principal=alice")
    assert [entry["domain"]["principal"] for entry in found["entries"]] == ["alice"]
    assert "bob" not in json.dumps(found)
    assert (await world.operator.ask("GET /cache/entries?principal=nobody"))[1]["total"] == 0


@pytest.mark.parametrize(
    ("query", "urls"),
    [
        ("?prefix=/v3/", {"/v3/processes", "/v3/processes?page=2&per_page=5", "/v3/spaces"}),
        ("?type=processes", {"/v3/processes", "/v3/processes?page=2&per_page=5"}),
        ("?url=/v3/processes%3Fper_page=5%26page=2", {"/v3/processes?page=2&per_page=5"}),
        ("?url=https://gateway.example.org/plain/two%3Fx=1", {"/plain/two?x=1"}),
        ("?domain=public", {"/plain/one", "/plain/two?x=1"}),
        ("?domain=anonymous", set()),
        ("?limit=1&sort=oldest", {"/v3/processes"}),
        ("?limit=1", {"/plain/two?x=1"}),
    ],
)
async def test_entries_are_selected(world: World, query: str, urls: set[str]) -> None:
    assert await world.operator.urls(query) == urls


async def test_one_entry_is_shown_in_full_less_its_content(world: World) -> None:
    _, found = await world.operator.ask("GET /cache/entries?url=/v3/processes")
    status, entry = await world.operator.ask(f"GET /cache/entries/{found['entries'][0]['id']}")
    assert status == 200
    assert entry["etag"].startswith('"')
    assert "processes" in entry["tags"]
    assert ["Content-Type", "application/json; charset=utf-8"] in entry["fields"]
    assert "resources" not in json.dumps(entry)
    _, found = await world.operator.ask("GET /cache/entries?url=/plain/one")
    _, entry = await world.operator.ask(f"GET /cache/entries/{found['entries'][0]['id']}")
    assert [(variant["status"], variant["vary"]) for variant in entry["variants"]] == [(200, [])]


@pytest.mark.parametrize(
    ("asked", "purged"),
    [
        ({"url": "/v3/processes"}, {"/v3/processes"}),
        ({"url": "/plain/one"}, {"/plain/one"}),
        ({"prefix": "/v3/proc"}, {"/v3/processes", "/v3/processes?page=2&per_page=5"}),
        ({"type": "spaces"}, {"/v3/spaces"}),
        (
            {"all": True},
            {"/v3/processes", "/v3/processes?page=2&per_page=5", "/v3/spaces", "/plain/one", "/plain/two?x=1"},
        ),
        ({"principal": "nobody"}, set()),
    ],
    ids=lambda value: str(sorted(value)) if isinstance(value, set) else str(value),
)
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
async def test_purges_reach_what_they_select_and_no_more(
    world: World, asked: dict[str, object], purged: set[str], soft: bool
) -> None:
    everything = await world.operator.urls()
    count = await world.operator.purge(**asked, soft=soft)
    assert count == len(purged) + ("/v3/spaces" in purged)
    left = await world.operator.urls()
    assert left == (everything if soft else everything - purged)
    _, found = await world.operator.ask("GET /cache/entries")
    assert {entry["url"] for entry in found["entries"] if entry["ttl"] <= 0} == (purged if soft else set())


async def test_a_principals_pages_are_purged_and_nobody_elses(world: World) -> None:
    assert await world.operator.purge(principal="alice") == 1
    assert not await world.hit("/v3/spaces", user_id="alice")
    assert await world.hit("/v3/spaces", user_id="bob")


@pytest.mark.parametrize("name", ["guid", "space"])
async def test_pages_that_name_a_guid_are_purged(world: World, name: str) -> None:
    world.stub.answers_json(content(GUID), "Cache-Control: public, max-age=60")
    await world.get("/v3/spaces", user_id="carol")
    await world.get("/plain/three")
    await world.get(f"/plain/{GUID}")
    assert await world.operator.purge(**{name: GUID}) == 3
    assert await world.hit("/v3/spaces", user_id="bob")


async def test_softly_purged_pages_of_mode_policy_stand_in_for_a_failing_controller_as_long_as_they_may(
    world: World,
) -> None:
    await world.operator.purge(prefix="/v3/processes", soft=True)
    world.stub.answers_json(content("new"))
    answer = await world.get("/v3/processes", **ADMIN)
    assert b"new" in answer.body
    assert "fwd=stale" in (answer.field("cache-status") or "")
    await world.operator.purge(prefix="/v3/processes", soft=True)
    world.stub.answers_json(b"{}", status="503 Service Unavailable")
    answer = await world.get("/v3/processes", **ADMIN)
    assert (answer.status, answer.field("cache-status")) == (
        200,
        "gateway;fwd=stale;fwd-status=503;ttl=0;detail=stale-if-error",
    )
    assert b"new" in answer.body
    await world.get("/v3/spaces", user_id="alice")
    await world.operator.purge(prefix="/v3/spaces", soft=True)
    assert (await world.get("/v3/spaces", user_id="alice")).status == 503, "this row has no stale window"


async def test_softly_purged_responses_of_mode_origin_are_validated(world: World) -> None:
    await world.operator.purge(url="/plain/one", soft=True)
    world.stub.answers(b'HTTP/1.1 304 Not Modified\r\nETag: "e"\r\nCache-Control: public, max-age=60\r\n\r\n')
    answer = await world.get("/plain/one")
    assert (answer.status, answer.body) == (200, content())
    assert world.stub.received[-1].field("if-none-match") == '"e"'
    assert await world.hit("/plain/one")


async def test_one_entry_is_purged_by_its_id(world: World) -> None:
    _, found = await world.operator.ask("GET /cache/entries?url=/plain/one")
    number = found["entries"][0]["id"]
    assert await world.operator.ask(f"DELETE /cache/entries/{number}?soft=true") == (200, {"purged": 1, "soft": True})
    assert await world.operator.ask(f"DELETE /cache/entries/{number}") == (200, {"purged": 1, "soft": False})
    status, refused = await world.operator.ask(f"DELETE /cache/entries/{number}")
    assert (status, refused["error"]["status"]) == (404, 404)


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize(
    "asked", [{"all": True}, {"prefix": "/"}, {"principal": "nobody"}, {"url": "/v3/else"}], ids=str
)
async def test_what_is_fetched_while_a_purge_comes_is_not_kept(
    world: World, asked: dict[str, object], soft: bool
) -> None:
    """The answer may be older than the purge, whatever was purged."""
    asked_for, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(_request: Any, _reader: Any, writer: asyncio.StreamWriter) -> None:
        asked_for.set()
        await go_on.wait()
        body = content("old")
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        writer.write(f"{head}Cache-Control: public, max-age=60\r\n\r\n".encode() + body)

    world.stub.script = slowly
    for target in ("/v3/processes?page=9", "/plain/nine"):
        asked_for.clear()
        go_on.clear()
        waiting = asyncio.create_task(world.get(target, **ADMIN))
        await asyncio.wait_for(asked_for.wait(), 5)
        await world.operator.purge(**asked, soft=soft)
        go_on.set()
        assert b"old" in (await waiting).body
        assert target not in await world.operator.urls()


async def test_statistics(world: World) -> None:
    await world.operator.purge(url="/plain/one", soft=True)
    await world.operator.purge(url="/plain/two?x=1")
    status, found = await world.operator.ask("GET /cache")
    assert status == 200
    assert (found["entries"], found["stale"], found["domains"]) == (5, 1, 4)
    assert found["bytes"] == sum(kind["bytes"] for kind in found["by_class"].values()) == world.gateway.store.bytes
    assert found["by_class"]["principal"]["entries"] == 2
    assert found["by_mode"] == {"policy": 4, "origin": 1}
    assert found["purged"] == {"hard": 1, "soft": 1}
    assert found["evicted"] == {"probation": 0, "settled": 0, "share": 0}
    assert 0 < found["largest_principal_bytes"] < found["bytes"] < found["max_bytes"]


@pytest.mark.parametrize(
    ("line", "content_", "status", "detail"),
    [
        ("GET /cache/entries?colour=red", None, 400, "unknown parameter"),
        ("GET /cache/entries?prefix=/a&prefix=/b", None, 400, "twice"),
        ("GET /cache/entries?sort=up", None, 400, "sort is one of"),
        ("GET /cache/entries?limit=0", None, 400, "limit is a number"),
        ("GET /cache/entries?limit=x", None, 400, "limit is a number"),
        ("GET /cache/entries?domain=all", None, 400, "domain is one of"),
        ("GET /cache/entries?type=proceses", None, 400, "no type of resource"),
        ("GET /cache/entries?guid=1", None, 400, "a guid has"),
        ("GET /cache/entries?guid=aaaaaaaa&space=bbbbbbbb", None, 400, "not both"),
        ("GET /cache/entries/99999", None, 404, "no such entry"),
        ("GET /cache/entries/-1", None, 404, "no such entry"),
        ("GET /cache/entries/" + "9" * 30, None, 404, "no such entry"),
        ("GET /cache/nothing", None, 404, "not found"),
        ("GET /cache/purge", None, 405, "method not allowed"),
        ("PUT /cache/purge", {}, 405, "method not allowed"),
        ("DELETE /cache/entries", None, 405, "method not allowed"),
        ("DELETE /cache/entries/1?soft=maybe", None, 400, "soft is true or false"),
        ("POST /cache/purge", {}, 400, "either all"),
        ("POST /cache/purge", {"soft": True}, 400, "either all"),
        ("POST /cache/purge", {"all": True, "url": "/"}, 400, "either all"),
        ("POST /cache/purge", {"url": "v3"}, 400, "a URL begins with"),
        ("POST /cache/purge", {"url": 7}, 400, "not a purge"),
        ("POST /cache/purge", {"urls": "/"}, 400, "not a purge"),
        ("POST /cache/purge", [], 400, "not a purge"),
        ("POST /cache/purge?url=/", {"all": True}, 400, "not in the query"),
        ("POST /cache/purge", {"url": "/" + "x" * 70_000}, 413, "more than 65536 bytes"),
    ],
    ids=lambda value: value[:50] if isinstance(value, str) else None,
)
async def test_bad_requests_are_refused_in_json(
    world: World, line: str, content_: object, status: int, detail: str
) -> None:
    before = len(world.gateway.store)
    found, refused = await world.operator.ask(line, content_)
    assert (found, refused["error"]["status"]) == (status, status)
    assert detail in refused["error"]["detail"]
    assert len(world.gateway.store) == before


@pytest.mark.parametrize(
    "fields",
    [
        ("Content-Type: text/plain",),
        ("Content-Type: application/x-www-form-urlencoded",),
        ("Content-Type: multipart/form-data; boundary=x",),
        (),
        ("Content-Type: application/json", "Origin: https://evil.example"),
        ("Content-Type: application/json", "Origin: null"),
        ("Content-Type: application/json", "Sec-Fetch-Site: cross-site"),
        ("Content-Type: application/json", "Sec-Fetch-Site: same-origin"),
    ],
    ids=str,
)
async def test_a_page_in_a_browser_cannot_purge(world: World, fields: tuple[str, ...]) -> None:
    """What a form or a script of another site can send without a preflight, or would send with one."""
    before = len(world.gateway.store)
    body = b'{"all":true}'
    answer = await world.operator.wire.ask("POST /cache/purge", f"Content-Length: {len(body)}", *fields, body=body)
    assert answer.status in {403, 415}
    assert len(world.gateway.store) == before


async def test_no_preflight_is_granted(world: World) -> None:
    answer = await world.operator.wire.ask(
        "OPTIONS /cache/purge", "Origin: https://evil.example", "Access-Control-Request-Method: POST"
    )
    assert answer.status == 403
    assert not [name for name, _ in answer.fields if name.lower().startswith("access-control")]


async def test_a_browser_may_show_what_its_user_typed(world: World) -> None:
    status, _ = await world.operator.ask("GET /cache", None, "Sec-Fetch-Site: none")
    assert status == 200


# -- the commands


async def command(world: World, *arguments: str) -> Result:
    given = ["cache", arguments[0], "--admin", world.gateway.admin_url, *arguments[1:]]
    return await asyncio.to_thread(CliRunner().invoke, app, given)


async def test_commands_list_show_and_count(world: World) -> None:
    listed = (await command(world, "list", "--sort", "oldest")).output.splitlines()
    assert listed[0].split() == ["id", "domain", "mode", "size", "age", "ttl", "hits", "url"]
    assert listed[1].split()[-1] == "/v3/processes"
    assert listed[-1].startswith("6 of 6 entries")
    assert "alice" in (await command(world, "list", "--principal", "alice")).output
    raw = json.loads((await command(world, "list", "--json", "--domain", "public", "--limit", "1")).output)
    assert (raw["total"], len(raw["entries"])) == (2, 1)
    shown = json.loads((await command(world, "show", str(raw["entries"][0]["id"]))).output)
    assert shown["url"] == raw["entries"][0]["url"]
    stats = (await command(world, "stats")).output
    assert "entries   6: 0 stale, 0 settled" in stats
    assert json.loads((await command(world, "stats", "--json")).output)["entries"] == 6


@pytest.mark.parametrize(
    ("arguments", "said", "left"),
    [
        (("--url", "/v3/processes"), "1 entries dropped", 5),
        (("--type", "processes", "--soft"), "2 entries made stale", 6),
        (("--principal", "bob"), "1 entries dropped", 5),
        (("--all",), "6 entries dropped", 0),
        (("1",), "1 entries dropped", 5),
        (("--space", GUID), "0 entries dropped", 6),
    ],
    ids=str,
)
async def test_the_purge_command(world: World, arguments: tuple[str, ...], said: str, left: int) -> None:
    done = await command(world, "purge", *arguments)
    assert (done.exit_code, done.output.strip()) == (0, said)
    assert len(world.gateway.store) == left


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("purge",), 2, "say what to purge"),
        (("purge", "1", "--all"), 2, "say what to purge"),
        (("purge", "--type", "proceses"), 1, "no type of resource"),
        (("show", "99"), 1, "no such entry"),
        (("stats", "--admin", "http://127.0.0.1:1"), 1, "Connection refused"),
        (("stats", "--admin", "gateway:9090"), 2, "not a URL"),
        (("stats", "--admin", "http://[x"), 2, "not a URL"),
    ],
    ids=str,
)
async def test_commands_that_fail_say_why(world: World, arguments: tuple[str, ...], code: int, said: str) -> None:
    done = await command(world, *arguments)
    assert done.exit_code == code
    assert said in done.stderr


async def test_a_listener_with_a_token(stub: Stub, start_gateway: Any, tmp_path: Path) -> None:
    secret = "an-operators-token-that-is-long-enough-to-be-one"
    gateway = await start_gateway(stub.url, admin=f"{{port: 0, token: {secret}}}")
    held = tmp_path / "token"
    held.write_text(f"{secret}\n")
    for given, code in ((), 1), (("--token", "wrong"), 1), (("--token", secret), 0), (("--token", f"@{held}"), 0):
        arguments = ["cache", "stats", "--admin", gateway.admin_url, *given]
        done = await asyncio.to_thread(CliRunner().invoke, app, arguments)
        assert (done.exit_code, "asks for its token" in done.stderr) == (code, code == 1)
        assert secret not in done.output + done.stderr
    done = await asyncio.to_thread(CliRunner().invoke, app, ["cache", "stats", "--token", "@/no/such/file"])
    assert (done.exit_code, "No such file" in done.stderr) == (2, True)


async def test_a_listener_that_is_no_admin_listener(world: World) -> None:
    world.stub.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnope")
    done = await command(world, "stats", "--admin", world.stub.url)
    assert (done.exit_code, "no gateway's admin listener" in done.stderr) == (1, True)


def test_the_commands_are_one_group() -> None:
    assert {command.name or command.callback.__name__ for command in cache.registered_commands if command.callback} == {
        "list",
        "show",
        "purge",
        "stats",
    }
