"""Negative caching: what is not there is remembered for a short time, where that is certain, until it is created."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.conftest import Answer, Connect, Stub, bearer

ABSENT = b'{"errors":[{"detail":"App not found","title":"CF-ResourceNotFound","code":10010}]}'
UNKNOWN = b'{"errors":[{"detail":"Unknown request","title":"CF-NotFound","code":10000}]}'
EMPTY = b'{"pagination":{"total_results":0},"resources":[]}'
ROUTES = """
routes:
  - match: GET /v3/apps/:guid
    cache: {mode: policy, ttl: 60s, stale_while_revalidate: 60s, stale_if_error: 60s, negative_ttl: 2s}
  - match: GET /v3/apps
    cache: {mode: policy, ttl: 60s, stale_if_error: 60s, negative_ttl: 2s, share: global}
  - match: GET /v3/spaces/:guid
    cache: {mode: policy, ttl: 60s, share: principal}
  - match: GET /other/:name
    access: public
    cache: {mode: policy, ttl: 60s, negative_ttl: 2s, share: public}
  - match: PUT /other/:name
    access: public
"""
ADMIN = {"scope": ["cloud_controller.admin"]}


class World:
    """A gateway whose clock the test moves, and its upstream."""

    def __init__(self, stub: Stub, gateway: Any, client: Any) -> None:
        self.stub, self.gateway, self.client = stub, gateway, client

    async def ask(self, line: str, *fields: str, **claims: Any) -> Answer:
        return await self.client.ask(line, f"Authorization: {bearer(**claims)['Authorization']}", *fields)

    async def twice(self, line: str, **claims: Any) -> tuple[Answer, bool]:
        """The second of two answers, and whether the upstream was asked but once."""
        before = len(self.stub.received)
        await self.ask(line, **claims)
        answer = await self.ask(line, **claims)
        return answer, len(self.stub.received) == before + 1

    def later(self, seconds: float) -> None:
        """As if what is stored had come so much earlier."""
        for node in self.gateway.store.nodes():
            entry = node.entry
            times = ("stored_at", "fresh_until", "refresh_until", "error_until")
            earlier = {name: getattr(entry, name) - seconds for name in times}
            assert self.gateway.store.replace(entry, replace(entry, **earlier))


@pytest.fixture
async def world(stub: Stub, start_gateway: Any, connect: Connect) -> World:
    gateway = await start_gateway(stub.url, ROUTES)
    return World(stub, gateway, await connect(gateway.url))


@pytest.mark.parametrize(
    ("line", "status", "body", "kept"),
    [
        pytest.param("GET /v3/apps/x", "404 Not Found", ABSENT, True, id="the controller says: not there"),
        pytest.param("GET /v3/apps/x", "410 Gone", ABSENT, True, id="not any more"),
        pytest.param("GET /v3/apps/x", "404 Not Found", UNKNOWN, False, id="the path is unknown"),
        pytest.param("GET /v3/apps/x", "404 Not Found", b'{"nothing":1}', False, id="somebody else says so"),
        pytest.param("GET /v3/apps/x", "403 Forbidden", ABSENT, False, id="403"),
        pytest.param("GET /v3/spaces/x", "404 Not Found", ABSENT, False, id="a row without negative_ttl"),
        pytest.param("GET /other/x", "404 Not Found", b'{"nothing":1}', True, id="another origin's own words"),
    ],
)
async def test_what_is_not_there_is_remembered_where_that_is_certain(
    world: World, line: str, status: str, body: bytes, kept: bool
) -> None:
    world.stub.answers_json(body, status=status)
    answer, once = await world.twice(line)
    assert (answer.status, answer.reason, answer.body) == (int(status[:3]), status[4:], body)
    assert once is kept
    assert (";hit" in (answer.field("cache-status") or "")) is kept
    if kept:
        world.later(2)
        before = len(world.stub.received)
        await world.ask(line)
        assert len(world.stub.received) == before + 1, "for a short time only, and never stale"


async def test_a_routers_404_is_not_the_controllers(world: World) -> None:
    world.stub.answers_json(ABSENT, "X-Cf-RouterError: unknown_route", status="404 Not Found")
    assert not (await world.twice("GET /v3/apps/x"))[1]


async def test_it_is_known_to_the_one_who_asked_and_no_other(world: World) -> None:
    world.stub.answers_json(ABSENT, status="404 Not Found")
    assert (await world.twice("GET /v3/apps/x", user_id="alice"))[1]
    world.stub.answers_json(b'{"guid":"x"}')
    assert (await world.ask("GET /v3/apps/x", user_id="bob")).status == 200
    assert (await world.ask("GET /v3/apps/x", user_id="alice")).status == 404


async def test_a_404_is_not_shared_by_those_who_see_everything(world: World) -> None:
    world.stub.answers_json(ABSENT, status="404 Not Found")
    assert not (await world.twice("GET /v3/apps", **ADMIN))[1]
    assert (await world.twice("GET /v3/apps"))[1], "a narrow token's is its own"


async def test_an_empty_list_lives_no_longer_and_a_full_one_as_long_as_ever(world: World) -> None:
    world.stub.answers_json(EMPTY)
    assert (await world.twice("GET /v3/apps"))[1]
    world.later(2)
    world.stub.answers_json(b'{"resources":[{"guid":"x"}]}')
    assert b"guid" in (await world.ask("GET /v3/apps")).body
    world.later(30)
    assert ";hit" in ((await world.ask("GET /v3/apps")).field("cache-status") or "")


@pytest.mark.parametrize(
    ("line", "write", "asks_again"),
    [
        ("GET /v3/apps/x", "POST /v3/apps", True),
        ("GET /v3/apps/x", "POST /v3/packages", False),
        ("GET /v3/apps/x", "POST /v3/roles", True),
        ("GET /other/x", "PUT /other/x", True),
    ],
)
async def test_what_is_created_is_seen_at_once(world: World, line: str, write: str, asks_again: bool) -> None:
    world.stub.answers_json(ABSENT, status="404 Not Found")
    await world.twice(line)
    world.stub.answers_json(b'{"guid":"x"}', status="201 Created")
    assert (await world.ask(write, "Content-Length: 0")).status == 201
    world.stub.answers_json(b'{"guid":"x"}')
    assert (await world.ask(line)).status == (200 if asks_again else 404)


async def test_rfc_9110_13_2_1_a_404_is_never_answered_304(world: World) -> None:
    world.stub.answers_json(ABSENT, status="404 Not Found")
    first = await world.ask("GET /v3/apps/x")
    again = await world.ask("GET /v3/apps/x", f"If-None-Match: {first.field('etag')}")
    assert (again.status, again.body) == (404, ABSENT)


async def test_a_page_whose_resource_is_gone_is_not_served_stale(world: World) -> None:
    """It may be served while it is fetched anew; once the controller has said that it is gone, it may not."""
    world.stub.answers_json(b'{"guid":"x"}')
    for line in ("GET /v3/apps/x", "GET /v3/spaces/x"):
        await world.ask(line)
    world.later(61)
    world.stub.answers_json(ABSENT, status="404 Not Found")
    assert (await world.ask("GET /v3/apps/x")).status == 200
    await world.gateway.pipeline.drain()
    assert (await world.ask("GET /v3/apps/x")).status == 404
    assert (await world.ask("GET /v3/spaces/x")).status == 404
    assert not [node for node in world.gateway.store.nodes() if "/spaces/" in node.entry.key.path]
