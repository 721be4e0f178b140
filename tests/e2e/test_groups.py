"""Cache groups (RFC 9875) over real sockets: honoured in both modes, emitted where the operator says so."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import Answer, Connect, Stub, Wire, bearer

AUTHORIZATION = f"Authorization: {bearer()['Authorization']}"
ROUTES = """
routes:
  - match: "* /plain/*"
    access: public
    rewrite: false
    cache: {mode: origin, share: public}
"""


class World:
    """A gateway, its upstream and a client."""

    def __init__(self, stub: Stub, wire: Wire) -> None:
        self.stub, self.wire = stub, wire

    async def ask(self, line: str, *answered: str, status: str = "200 OK") -> Answer:
        self.stub.answers_json(b'{"resources":[]}', *answered, status=status)
        length = [] if line.startswith("GET") else ["Content-Length: 0"]
        return await self.wire.ask(line, AUTHORIZATION, *length)

    async def is_hit(self, line: str) -> bool:
        before = len(self.stub.received)
        await self.ask(line, "Cache-Control: no-store")
        return len(self.stub.received) == before


@pytest.fixture
async def world(stub: Stub, start_gateway: Any, connect: Connect) -> World:
    gateway = await start_gateway(stub.url, ROUTES)
    return World(stub, await connect(gateway.url))


KEPT = "Cache-Control: public, max-age=60"


@pytest.mark.parametrize(
    ("write", "said", "left"),
    [
        pytest.param("POST /plain/else", 'Cache-Group-Invalidation: "a"', {"/plain/b"}, id="§3-of one group"),
        pytest.param("POST /plain/else", 'Cache-Group-Invalidation: "a", "b"', set(), id="§3-of several"),
        pytest.param("POST /plain/else", 'Cache-Group-Invalidation: "A"', {"/plain/a", "/plain/b", "/v3/apps"},
                     id="§2-names are compared as they are"),
        pytest.param("GET /plain/else", 'Cache-Group-Invalidation: "a"', {"/plain/a", "/plain/b", "/v3/apps"},
                     id="§3-ignored from a safe method"),
        pytest.param("POST /plain/else", "Cache-Group-Invalidation: a", {"/plain/a", "/plain/b", "/v3/apps"},
                     id="RFC 9651 §4.2-not a list of strings: absent"),
        pytest.param("POST /plain/else", 'Cache-Group-Invalidation: "a", 1', {"/plain/a", "/plain/b", "/v3/apps"},
                     id="RFC 9651 §4.2-not strings alone: absent"),
        pytest.param("POST /plain/a", "X-Nothing: said", {"/plain/b", "/v3/apps"}, id="RFC 9111 §4.4-its own target"),
        pytest.param("POST /v3/packages", 'Cache-Group-Invalidation: "a"', {"/plain/b"}, id="from the other mode"),
    ],
)  # fmt: skip
async def test_a_group_goes_as_a_whole_in_both_modes(world: World, write: str, said: str, left: set[str]) -> None:
    await world.ask("GET /plain/a", KEPT, 'Cache-Groups: "a"')
    await world.ask("GET /plain/b", KEPT, 'Cache-Groups: "b", "c"')
    await world.ask("GET /v3/apps", 'Cache-Groups: "a"')
    await world.ask(write, said)
    targets = ("/plain/a", "/plain/b", "/v3/apps")
    assert {target for target in targets if await world.is_hit(f"GET {target}")} == left


async def test_all_variants_of_a_target_belong_to_the_groups_of_any(world: World) -> None:
    for language, group in (("de", "a"), ("en", "b")):
        world.stub.answers_json(b"{}", KEPT, "Vary: Accept-Language", f'Cache-Groups: "{group}"')
        await world.wire.ask("GET /plain/x", f"Accept-Language: {language}")
    await world.ask("POST /plain/else", 'Cache-Group-Invalidation: "a"')
    before = len(world.stub.received)
    await world.wire.ask("GET /plain/x", "Accept-Language: en")
    assert len(world.stub.received) == before + 1


async def test_the_origins_groups_are_passed_on(world: World) -> None:
    assert (await world.ask("GET /plain/a", KEPT, 'Cache-Groups: "a"')).field("cache-groups") == '"a"'
    answer = await world.ask("POST /plain/else", 'Cache-Group-Invalidation: "a"')
    assert answer.field("cache-group-invalidation") == '"a"'


async def test_nothing_is_said_of_groups_unless_the_operator_wants_it(world: World) -> None:
    for line in ("GET /v3/processes", "GET /v3/processes", "POST /v3/apps"):
        answer = await world.ask(line)
        assert not [name for name, _ in answer.fields if name.lower().startswith("cache-group")]


async def test_what_pages_show_and_writes_change_is_said(stub: Stub, start_gateway: Any, connect: Connect) -> None:
    gateway = await start_gateway(stub.url, "cache: {emit_groups: true}")
    world = World(stub, await connect(gateway.url))
    for _ in range(2):
        assert (await world.ask("GET /v3/apps")).field("cache-groups") == '"apps", "organizations", "spaces"'
    assert (await world.ask("GET /v3/processes")).field("cache-groups") == '"processes"'
    changed = (await world.ask("PATCH /v3/processes/0123abcd", status="200 OK")).field("cache-group-invalidation")
    assert changed == '"audit_events", "other", "processes", "revisions", "usage"'
    assert "0123abcd" not in changed
    everything = (await world.ask("POST /v3/roles", status="201 Created")).field("cache-group-invalidation") or ""
    assert {'"apps"', '"spaces"', '"processes"', '"service_bindings"'} <= set(everything.split(", "))
    refused = await world.ask("POST /v3/apps", status="422 Unprocessable Entity")
    assert refused.field("cache-group-invalidation") is None
