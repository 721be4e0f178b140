"""The back half against a controller whose every step the test decides: no clock, no sleeping."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import permutations, product
from typing import Any

import pytest

from gateway.core.cf_routes import CLOUD_FOUNDRY
from gateway.core.errors import Denial, Reason
from gateway.core.forwarding import TrustedProxies
from gateway.core.links import Rewriter
from gateway.core.model import Fields, Principal, PrincipalKind, RequestHead, ResponseHead
from gateway.core.routes import Access, CacheMode, CacheRule, RouteOverride, Share
from gateway.core.target import parse
from gateway.core.visibility import make_principal
from gateway.pipeline.decide import Policy
from gateway.pipeline.exchange import Exchange, Reply, Verdict
from gateway.pipeline.fulfil import Pipeline
from gateway.pipeline.outgoing import Outgoing
from gateway.pipeline.ports import ContentError, KeysUnavailableError, KeyUnknown, Rejected, UpstreamError
from gateway.store.memory import MemoryStore

LIST, ONE = "/v3/processes", "/v3/processes/g"
ORIGIN = "https://api.internal.example.org"
TTL, REFRESH, ERROR = 10.0, 20.0, 60.0
RULE = CacheRule(CacheMode.POLICY, TTL, REFRESH, ERROR, Share.GLOBAL)
TABLE = CLOUD_FOUNDRY.with_overrides(
    [
        RouteOverride(LIST, frozenset({"GET"}), cache=RULE),
        RouteOverride("/open/own", access=Access.PUBLIC, cache=CacheRule(CacheMode.POLICY, TTL)),
        RouteOverride("/v3/sidecars/:guid", cache=CacheRule(CacheMode.ORIGIN, share=Share.PRINCIPAL)),
        RouteOverride("/v3/domains/:guid", cache=CacheRule(CacheMode.ORIGIN, share=Share.PRINCIPAL)),
    ]
)
JSON = ("Content-Type", "application/json; charset=utf-8")


def principal(name: str, *scopes: str) -> Principal:
    return make_principal(
        kind=PrincipalKind.USER,
        principal_id=name,
        issuer="",
        zone="",
        client_id="cf",
        scopes=frozenset(f"cloud_controller.{scope}" for scope in scopes),
        expires=2**40,
    )


class Verifier:
    """Tokens are names; `new-key` needs a key that `fetch_for` brings, or not."""

    def __init__(self) -> None:
        self.people = {
            "dev": principal("dev", "read", "write"),
            "admin": principal("admin", "admin"),
            "auditor": principal("auditor", "global_auditor"),
        }
        self.fetched: list[str | None] = []
        self.fault: Exception | None = None

    def verify(self, token: str, now: float) -> Principal | Rejected | KeyUnknown:
        if token == "new-key" and token not in self.people:
            return KeyUnknown("k2")
        return self.people.get(token) or Rejected("expired")

    async def fetch_for(self, kid: str | None) -> None:
        self.fetched.append(kid)
        if self.fault is not None:
            raise self.fault
        if kid == "k2":
            self.people["new-key"] = principal("late", "read")


class Answer:
    """A response whose head and body the test decides."""

    def __init__(self, status: int, fields: tuple[tuple[str, str], ...], *pieces: bytes, cut: bool = False) -> None:
        self.head = ResponseHead(status, Fields(fields))
        self.pieces = pieces
        self.cut = cut
        self.released = False

    def in_hand(self) -> bytes | None:
        return None

    async def chunks(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece
        if self.cut:
            raise UpstreamError("broken", "the transfer was cut")

    async def release(self) -> None:
        self.released = True


class Call:
    """One request that reached the controller."""

    def __init__(self, head: RequestHead) -> None:
        self.head = head
        self.reply: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    @property
    def token(self) -> str | None:
        return self.head.fields.get("authorization")

    def answers(
        self, body: bytes = b'{"page":1}', *fields: tuple[str, str], status: int = 200, cut: bool = False
    ) -> Answer:
        answer = Answer(status, fields or (JSON,), body, cut=cut)
        self.reply.set_result(answer)
        return answer

    def fails(self, kind: str = "broken", *, sent: bool = True) -> None:
        self.reply.set_exception(UpstreamError(kind, "as the test says", sent=sent))


class Controller:
    """An upstream that answers when the test says so."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    async def send(self, head: RequestHead, body: AsyncIterator[bytes] | None) -> Answer:
        call = Call(head)
        self.calls.append(call)
        if body is not None:
            async for _ in body:
                pass
        return await call.reply


class StaticLinks:
    async def rewriter(self) -> Rewriter:
        return Rewriter([ORIGIN], "https://gateway.example.org")


class World:
    """A pipeline with a clock, a controller and clients that the test moves."""

    def __init__(self, *, links: bool = True, max_rewrite_bytes: int = 1 << 20, max_entry_bytes: int = 1 << 20) -> None:
        self.now = 1000.0
        self.verifier = Verifier()
        self.controller = Controller()
        self.store = MemoryStore(max_bytes=1 << 22, max_entry_bytes=max_entry_bytes)
        self.pipeline = Pipeline(
            policy=Policy(TABLE, self.verifier, self.store),
            upstream=self.controller,
            links=StaticLinks() if links else None,
            outgoing=Outgoing("g", "api.internal.example.org", TrustedProxies(), "https", "gateway.example.org"),
            clock=lambda: self.now,
            max_rewrite_bytes=max_rewrite_bytes,
        )

    @property
    def calls(self) -> list[Call]:
        return self.controller.calls

    def ask(self, target: str = LIST, who: str | None = "dev", *fields: tuple[str, str], **head: Any) -> Asked:
        token = () if who is None else (("Authorization", f"bearer {who}"),)
        body = head.pop("body", None)
        facts: dict[str, Any] = {"method": "GET", "target": parse(target, strict_api=True)}
        exchange = Exchange(
            RequestHead(fields=Fields((*token, *fields)), **facts | head), request_id="id", received_at=self.now
        )
        return Asked(exchange, asyncio.ensure_future(self.pipeline.answer(exchange, body)))

    async def fetched(self, body: bytes = b'{"page":1}', who: str = "dev", target: str = LIST) -> None:
        """Have the page of `target` in the cache."""
        asked = self.ask(target, who)
        await settle()
        self.calls[-1].answers(body)
        assert (await asked.reply()).status == 200

    async def is_cached(self, who: str = "dev", target: str = LIST) -> bool:
        asked = self.ask(target, who, ("Cache-Control", "only-if-cached"))
        return (await asked.reply()).status == 200


class Asked:
    """One client's request under way."""

    def __init__(self, exchange: Exchange, task: asyncio.Task[Reply]) -> None:
        self.exchange = exchange
        self.task = task

    async def reply(self) -> Reply:
        return await asyncio.wait_for(self.task, 5)

    async def body(self) -> bytes:
        return await content(await self.reply())

    async def status(self) -> str | None:
        return (await self.reply()).fields.get("cache-status")


async def content(reply: Reply) -> bytes:
    if reply.body is None or isinstance(reply.body, bytes):
        return reply.body or b""
    try:
        return b"".join([piece async for piece in reply.body])
    finally:
        await reply.body.aclose()


async def settle() -> None:
    """Let everything that can go on go on."""
    for _ in range(12):
        await asyncio.sleep(0)


# -- a page and its hits


async def test_a_miss_is_stored_and_then_a_hit() -> None:
    world = World()
    first = world.ask()
    await settle()
    world.calls[0].answers(
        b'{"links":{"self":{"href":"https://api.internal.example.org/v3/processes"}}}',
        *(JSON, ("X-USER-GUID", "dev"), ("X-RateLimit-Remaining", "7"), ("X-Cf-Warnings", "w"), ("X-Runtime", "0.1")),
    )
    miss = await first.reply()
    assert miss.body == b'{"links":{"self":{"href":"https://gateway.example.org/v3/processes"}}}'
    assert miss.fields.get("cache-status") == "gateway;fwd=miss;ttl=10;stored"
    assert miss.fields.get("x-cf-warnings") == "w"
    assert miss.fields.get("x-runtime") == "0.1"
    assert "x-user-guid" not in miss.fields
    assert "x-ratelimit-remaining" not in miss.fields
    assert "age" not in miss.fields
    world.now += 3
    hit = await world.ask().reply()
    assert hit.body == miss.body
    assert hit.fields.get("etag") == miss.fields.get("etag")
    assert hit.fields.get("cache-status") == "gateway;hit;ttl=7"
    assert hit.fields.get("age") == "3"
    assert {"x-cf-warnings", "x-runtime", "x-user-guid", "x-ratelimit-remaining"}.isdisjoint(
        name.lower() for name, _ in hit.fields
    )
    assert len(world.calls) == 1


async def test_a_reload_replaces_the_page() -> None:
    world = World()
    await world.fetched(b'{"page":1}')
    reload = world.ask(LIST, "dev", ("Cache-Control", "no-cache"))
    await settle()
    world.calls[1].answers(b'{"page":2}')
    assert await reload.body() == b'{"page":2}'
    assert await reload.status() == "gateway;fwd=request;ttl=10;stored"
    assert await world.ask().body() == b'{"page":2}'


async def test_a_conditional_miss_gets_304_from_the_page_just_stored() -> None:
    world = World()
    await world.fetched(b'{"page":1}')
    tag = (await world.ask().reply()).fields.get("etag")
    assert tag is not None
    world.now += TTL + REFRESH
    again = world.ask(LIST, "dev", ("If-None-Match", tag))
    await settle()
    world.calls[1].answers(b'{"page":1}')
    reply = await again.reply()
    assert (reply.status, reply.body) == (304, None)
    assert reply.fields.get("cache-status") == "gateway;fwd=stale;ttl=10;stored"


async def test_a_page_for_everybody_is_fetched_without_the_token_of_who_asked() -> None:
    world = World()
    asked = world.ask("/", "dev", ("Cookie", "a=b"))
    await settle()
    assert world.calls[0].token is None
    assert "cookie" not in world.calls[0].head.fields
    world.calls[0].answers()
    await asked.reply()
    assert (await world.ask("/", None).reply()).fields.get("cache-status") == "gateway;hit;ttl=60"


# -- one fetch for many waiters


async def test_waiters_share_one_fetch() -> None:
    world = World()
    asked = [world.ask(LIST, who) for who in ("admin", "auditor", "admin", "auditor")]
    await settle()
    assert [call.token for call in world.calls] == ["bearer admin"]
    world.calls[0].answers(b'{"page":1}', JSON, ("X-Cf-Warnings", "of the first"))
    replies = [await one.reply() for one in asked]
    assert {reply.body for reply in replies} == {b'{"page":1}'}
    assert [reply.fields.get("cache-status") for reply in replies] == [
        "gateway;fwd=miss;ttl=10;stored",
        *["gateway;fwd=miss;ttl=10;stored;collapsed"] * 3,
    ]
    assert [one.exchange.verdict for one in asked] == [Verdict.MISS, *[Verdict.COLLAPSED] * 3]
    assert [reply.fields.get("x-cf-warnings") for reply in replies] == ["of the first", None, None, None]
    assert len(world.calls) == 1


async def test_different_domains_never_share_a_fetch() -> None:
    world = World()
    asked = [world.ask(LIST, who) for who in ("dev", "admin")]
    await settle()
    assert [call.token for call in world.calls] == ["bearer dev", "bearer admin"]
    for call in world.calls:
        call.answers(json.dumps(call.token).encode())
    assert [await one.body() for one in asked] == [b'"bearer dev"', b'"bearer admin"']


@pytest.mark.parametrize(
    ("status", "fields"),
    [
        *((status, (JSON,)) for status in (201, 302, 400, 401, 403, 404, 422, 429, 500, 503)),
        (200, (("Content-Type", "text/html"),)),
        (200, (JSON, ("Set-Cookie", "session=admins"))),
        (200, (JSON, ("Cache-Control", "private"))),
        (200, (JSON, ("Vary", "Cookie"))),
    ],
)
async def test_what_cannot_be_stored_goes_to_nobody_else(status: int, fields: tuple[tuple[str, str], ...]) -> None:
    world = World()
    first, second, third = world.ask(LIST, "admin"), world.ask(LIST, "auditor"), world.ask(LIST, "auditor")
    await settle()
    world.calls[0].answers(b'"for the admin"', *fields, status=status)
    reply = await first.reply()
    assert (reply.status, await content(reply)) == (status, b'"for the admin"')
    await settle()
    assert [call.token for call in world.calls] == ["bearer admin", "bearer auditor", "bearer auditor"]
    for call in world.calls[1:]:
        call.answers(b'"for the auditor"', status=203)
    for waiter in (second, third):
        assert (await waiter.reply()).status == 203
        assert await waiter.body() == b'"for the auditor"'
        assert waiter.exchange.collapsed is False
    assert not await world.is_cached("admin")


async def test_nobody_waits_for_a_page_that_turned_out_not_to_be_shareable() -> None:
    """Hit-for-miss: waiting first and asking then would take everybody twice as long, one after the other."""
    world = World()
    first = world.ask()
    await settle()
    world.calls[0].answers(b"not found", status=404)
    assert (await first.reply()).status == 404
    others = [world.ask() for _ in range(3)]
    await settle()
    assert len(world.calls) == 4
    world.calls[1].answers(b'{"page":1}')
    assert (await others[0].reply()).status == 200
    late = world.ask(LIST, "dev", ("Cache-Control", "no-cache"))
    await settle()
    assert len(world.calls) == 5
    for call in world.calls[2:]:
        call.answers(b'{"page":2}')
    for asked in (*others[1:], late):
        assert (await asked.reply()).status == 200
    reload = [world.ask(LIST, "dev", ("Cache-Control", "no-cache")) for _ in range(3)]
    await settle()
    assert len(world.calls) == 6, "something was stored: they wait for one again"
    world.calls[5].answers(b'{"page":3}')
    for asked in reload:
        assert await asked.body() == b'{"page":3}'


async def test_a_failing_controller_is_not_asked_by_everybody_at_once_because_it_fails() -> None:
    world = World()
    for number in range(3):
        asked = [world.ask() for _ in range(3)]
        await settle()
        assert len(world.calls) - 1 == number * 3, "one asks, the others wait for it"
        world.calls[-1].answers(b"{}", status=503)
        await settle()
        for call in world.calls[-2:]:
            call.answers(b"{}", status=503)  # those who waited ask for themselves, once
        assert [(await one.reply()).status for one in asked] == [503] * 3


async def test_a_page_too_large_to_keep_is_everyones_own() -> None:
    world = World(max_entry_bytes=100)
    asked = [world.ask(), world.ask()]
    await settle()
    world.calls[0].answers()
    assert await asked[0].status() == "gateway;fwd=miss;fwd-status=200;detail=too-large"
    await settle()
    world.calls[1].answers(b'{"page":2}')
    assert await asked[1].body() == b'{"page":2}'


async def test_who_started_the_fetch_may_leave() -> None:
    world = World()
    leader, waiter = world.ask(), world.ask()
    await settle()
    leader.task.cancel()
    await settle()
    world.calls[0].answers()
    assert await waiter.body() == b'{"page":1}'
    assert len(world.calls) == 1
    assert await world.is_cached()


async def test_the_last_to_leave_takes_the_fetch_along() -> None:
    world = World()
    asked = [world.ask(), world.ask()]
    await settle()
    for one in asked:
        one.task.cancel()
    await settle()
    assert world.calls[0].reply.cancelled()
    assert not await world.is_cached()


# -- a failing controller

FAILURES = [
    *(pytest.param(kind, None, id=kind) for kind in ("unreachable", "timeout", "broken")),
    pytest.param("cut", None, id="cut-in-the-body"),
    *(pytest.param("status", status, id=str(status)) for status in (500, 502, 503, 504)),
]


def go_wrong(call: Call, kind: str, status: int | None) -> None:
    if status is not None:
        call.answers(b'{"errors":[]}', status=status)
    elif kind == "cut":
        call.answers(b'{"pa', cut=True)
    else:
        call.fails(kind)


@pytest.mark.parametrize(("kind", "status"), FAILURES)
async def test_a_stale_page_stands_in_for_a_failure_for_all_who_wait(kind: str, status: int | None) -> None:
    """RFC 5861 §4."""
    world = World()
    await world.fetched()
    world.now += TTL + REFRESH
    asked = [world.ask() for _ in range(3)]
    await settle()
    go_wrong(world.calls[1], kind, status)
    for one in asked:
        reply = await one.reply()
        assert (reply.status, reply.body) == (200, b'{"page":1}')
        assert reply.fields.get("age") == "30"
        said = reply.fields.get("cache-status") or ""
        assert said.startswith("gateway;fwd=stale")
        assert "stale-if-error" in said
        assert one.exchange.verdict is Verdict.STALE
    assert len(world.calls) == 2


@pytest.mark.parametrize("kind", ["unreachable", "timeout", "broken"])
async def test_a_stale_page_stands_in_for_head_too(kind: str) -> None:
    world = World()
    await world.fetched()
    world.now += TTL + REFRESH
    asked = world.ask(method="HEAD")
    await settle()
    world.calls[1].fails(kind)
    reply = await asked.reply()
    assert (reply.status, reply.body, reply.fields.get("content-length")) == (200, None, "10")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 501])
async def test_an_answer_is_no_failure(status: int) -> None:
    world = World()
    await world.fetched()
    world.now += TTL + REFRESH
    asked = world.ask()
    await settle()
    world.calls[1].answers(b"{}", status=status)
    assert (await asked.reply()).status == status


@pytest.mark.parametrize(("kind", "status"), FAILURES)
@pytest.mark.parametrize("why", ["none", "too-old", "no-cache", "max-age", "no-store", "other-domain"])
async def test_where_no_stale_page_may_be_served(kind: str, status: int | None, why: str) -> None:
    world = World()
    if why != "none":
        await world.fetched(who="admin" if why == "other-domain" else "dev")
    world.now += {"too-old": TTL + ERROR, "max-age": 5}.get(why, 0)
    directives = {"no-cache": "no-cache", "max-age": "max-age=1", "no-store": "no-store"}.get(why, "")
    asked = world.ask(LIST, "dev", ("Cache-Control", directives))
    await settle()
    go_wrong(world.calls[-1], kind, status)
    expected = status or {"timeout": 504}.get(kind, 502)
    assert (await asked.reply()).status == expected
    if status is None:
        reasons = {"unreachable": Reason.UPSTREAM_UNREACHABLE, "timeout": Reason.UPSTREAM_TIMEOUT}
        assert asked.exchange.denied is reasons.get(kind, Reason.UPSTREAM_BROKEN)


async def test_waiters_without_a_stale_page_all_hear_of_the_failure() -> None:
    world = World()
    asked = [world.ask() for _ in range(3)]
    await settle()
    world.calls[0].fails("timeout")
    assert {(await one.reply()).status for one in asked} == {504}
    assert len(world.calls) == 1


async def test_a_page_too_large_to_rewrite_is_a_broken_answer() -> None:
    world = World(max_rewrite_bytes=5)
    asked = world.ask()
    await settle()
    answer = world.calls[0].answers()
    assert (await asked.reply()).status == 502
    assert answer.released


# -- stale pages and their refresh


async def test_a_stale_page_is_served_while_exactly_one_refresh_runs() -> None:
    """RFC 5861 §3."""
    world = World()
    await world.fetched()
    world.now += TTL + 1
    asked = [world.ask() for _ in range(5)]
    replies = [await one.reply() for one in asked]
    assert {(reply.body, reply.fields.get("cache-status")) for reply in replies} == {
        (b'{"page":1}', "gateway;hit;ttl=-1")
    }
    await settle()
    assert len(world.calls) == 2
    late = world.ask()
    assert await late.body() == b'{"page":1}'
    await settle()
    assert len(world.calls) == 2
    world.calls[1].answers(b'{"page":2}')
    await world.pipeline.drain()
    assert await world.ask().status() == "gateway;hit;ttl=10"
    assert await world.ask().body() == b'{"page":2}'
    assert len(world.calls) == 2


@pytest.mark.parametrize(("kind", "status"), FAILURES)
async def test_a_refresh_that_fails_leaves_the_stale_page(kind: str, status: int | None) -> None:
    world = World()
    await world.fetched()
    world.now += TTL + 1
    await world.ask().reply()
    await settle()
    go_wrong(world.calls[1], kind, status)
    await world.pipeline.drain()
    again = world.ask()
    assert await again.body() == b'{"page":1}'
    await settle()
    assert len(world.calls) == 3
    world.calls[2].answers()
    await world.pipeline.drain()


async def test_a_stale_page_found_by_head_is_refreshed_by_get() -> None:
    """The page of a HEAD would be an empty one."""
    world = World()
    await world.fetched()
    world.now += TTL + 1
    assert (await world.ask(method="HEAD").reply()).body is None
    await settle()
    assert world.calls[1].head.method == "GET"
    world.calls[1].answers(b'{"page":2}')
    await world.pipeline.drain()
    assert await world.ask().body() == b'{"page":2}'


async def test_a_write_during_a_refresh_keeps_it_out() -> None:
    world = World()
    await world.fetched()
    world.now += TTL + 1
    await world.ask().reply()
    await settle()
    write = world.ask(ONE, method="PATCH")
    await settle()
    world.calls[2].answers()
    await write.reply()
    world.calls[1].answers(b'{"page":1}')
    await world.pipeline.drain()
    assert not await world.is_cached()


# -- writes


async def body_that_breaks() -> AsyncIterator[bytes]:
    yield b"{"
    raise ContentError(Denial(Reason.BAD_REQUEST, "broke off"))


@pytest.mark.parametrize(
    ("status", "dropped"),
    [(200, True), (201, True), (202, True), (204, True), (303, True), (500, True), (502, True), (503, True)]
    + [(status, False) for status in (400, 401, 403, 404, 409, 422, 429)],
)
async def test_what_an_answer_to_a_write_drops(status: int, dropped: bool) -> None:
    world = World()
    await world.fetched(who="dev")
    await world.fetched(who="admin")
    write = world.ask(f"{ONE}/actions/scale", method="POST")
    await settle()
    world.calls[-1].answers(b"{}", status=status)
    assert (await write.reply()).status == status
    assert await world.is_cached("dev") is not dropped
    assert await world.is_cached("admin") is not dropped


@pytest.mark.parametrize("kind", ["unreachable", "timeout", "broken"])
@pytest.mark.parametrize("sent", [True, False])
async def test_a_write_whose_outcome_is_unknown_drops(kind: str, sent: bool) -> None:
    world = World()
    await world.fetched()
    write = world.ask(ONE, method="PATCH")
    await settle()
    world.calls[-1].fails(kind, sent=sent)
    assert (await write.reply()).status in {502, 504}
    assert await world.is_cached() is not sent


@pytest.mark.parametrize("target", ["/v3/apps/g", "/v3/domains/g"], ids=["passed on", "of mode origin"])
@pytest.mark.parametrize("end", [404, 422, "unreachable"])
async def test_a_refusal_of_what_was_sent_twice_drops(target: str, end: int | str) -> None:
    """The first may have arrived: it deleted what the second does not find any more."""
    world = World()
    await world.fetched()
    write = world.ask(target, method="DELETE")
    await settle()
    call = world.calls[-1]
    call.head.repeated = True
    if isinstance(end, int):
        call.answers(b"{}", status=end)
    else:
        call.fails(end, sent=False)
    assert (await write.reply()).status == (end if isinstance(end, int) else 502)
    assert not await world.is_cached()


async def test_a_write_whose_client_left_drops() -> None:
    world = World()
    await world.fetched()
    write = world.ask(ONE, method="PATCH")
    await settle()
    write.task.cancel()
    await settle()
    assert not await world.is_cached()


async def test_a_write_whose_content_broke_off_drops() -> None:
    world = World()
    await world.fetched()
    write = world.ask(ONE, method="PATCH", has_body=True, body=body_that_breaks())
    assert (await write.reply()).status == 400
    assert write.exchange.denied is Reason.BAD_REQUEST
    assert not await world.is_cached()


async def test_reads_past_the_cache_drop_nothing() -> None:
    world = World()
    await world.fetched()
    read = world.ask(ONE)
    await settle()
    world.calls[-1].answers()
    await read.reply()
    assert await world.is_cached()


async def test_a_write_drops_what_it_may_change_and_nothing_else() -> None:
    world = World()
    await world.fetched(target=LIST)
    await world.fetched(target="/v3/organizations")
    write = world.ask(ONE, method="PATCH")
    await settle()
    world.calls[-1].answers()
    await write.reply()
    assert not await world.is_cached(target=LIST)
    assert await world.is_cached(target="/v3/organizations")


async def test_who_asks_after_a_write_does_not_wait_for_a_fetch_from_before_it() -> None:
    world = World()
    before = world.ask()
    await settle()
    write = world.ask(ONE, method="PATCH")
    await settle()
    world.calls[1].answers()
    await write.reply()
    after = world.ask()
    await settle()
    world.calls[2].answers(b'{"page":"new"}')
    assert await after.status() == "gateway;fwd=miss;ttl=10;stored"
    world.calls[0].answers(b'{"page":"old"}')
    assert await before.status() == "gateway;fwd=miss;fwd-status=200;detail=invalidated-meanwhile"
    assert await world.ask().body() == b'{"page":"new"}'


@pytest.mark.parametrize("location", [f"{ORIGIN}/v3/jobs/j-1", "/v3/jobs/j-1"])
@pytest.mark.parametrize("state", ["COMPLETE", "FAILED"])
async def test_the_end_of_a_job_drops_again(location: str, state: str) -> None:
    world = World()
    deletion = world.ask("/v3/apps/g", method="DELETE")
    await settle()
    world.calls[-1].answers(b"", ("Location", location), status=202)
    reply = await deletion.reply()
    assert reply.fields.get("location") == (location if location.startswith("/") else None) or (
        reply.fields.get("location") == "https://gateway.example.org/v3/jobs/j-1"
    )
    await content(reply)
    await world.fetched(b'{"page":"before the job"}')
    for now, cached in (("PROCESSING", True), (state, False)):
        poll = world.ask("/v3/jobs/j-1")
        await settle()
        world.calls[-1].answers(f'{{"state":"{now}"}}'.encode())
        await poll.reply()
        assert await world.is_cached() is cached


@pytest.mark.parametrize("links", [True, False], ids=["rewriting", "links as they are"])
@pytest.mark.parametrize("where", ["asked for", "stored as a page"])
async def test_the_end_of_a_job_that_was_begun_elsewhere_drops(links: bool, where: str) -> None:
    world = World(links=links)
    if where == "stored as a page":
        policy = world.pipeline.policy
        table = policy.routes.with_overrides([RouteOverride("/v3/jobs/:guid", frozenset({"GET"}), cache=RULE)])
        world.pipeline.reconfigure(replace(policy, routes=table), world.pipeline._outgoing)
    await world.fetched()
    poll = world.ask("/v3/jobs/of-another-process")
    await settle()
    world.calls[-1].answers(b'{"operation":"app.delete","state":"COMPLETE"}')
    assert await poll.body() == b'{"operation":"app.delete","state":"COMPLETE"}'
    assert not await world.is_cached()


@pytest.mark.parametrize("status", [201, 202], ids=["an upload", "a deletion"])
async def test_the_end_of_a_v2_job_drops_again(status: int) -> None:
    world = World()
    write = world.ask("/v2/apps/g/bits", method="PUT")
    await settle()
    job = b'{"metadata":{"guid":"j","url":"/v2/jobs/j"},"entity":{"guid":"j","status":"%s"}}'
    world.calls[-1].answers(job % b"queued", status=status)
    assert await write.body() == job % b"queued"
    await world.fetched(b'{"page":"before the job"}')
    for now, cached in ((b"running", True), (b"finished", False)):
        poll = world.ask("/v2/jobs/j")
        await settle()
        world.calls[-1].answers(job % now)
        assert await poll.body() == job % now
        assert await world.is_cached() is cached
    await world.pipeline.drain()


@pytest.mark.parametrize(
    ("method", "target", "links", "encoded"),
    [
        ("GET", "/v3/jobs/j", True, False),
        ("GET", "/v3/jobs/j", False, False),
        ("GET", "/v2/jobs/j", True, False),
        ("DELETE", "/v2/apps/g", True, False),
        ("GET", "/v2/apps/g", True, True),
        ("GET", "/v3/packages/g/download", True, True),
    ],
)
async def test_what_is_to_be_read_must_not_come_encoded(method: str, target: str, links: bool, encoded: bool) -> None:
    """A job whose end comes as gzip would end unseen."""
    world = World(links=links)
    asked = world.ask(target, "dev", ("Accept-Encoding", "gzip"), method=method)
    await settle()
    assert (world.calls[-1].head.fields.get("accept-encoding") == "gzip") is encoded
    world.calls[-1].answers(b"{}")
    await content(await asked.reply())


async def test_a_write_of_a_row_of_mode_origin_has_its_job_watched_too() -> None:
    world = World()
    deletion = world.ask("/v3/domains/g", method="DELETE")
    await settle()
    world.calls[-1].answers(b"", ("Location", f"{ORIGIN}/v3/jobs/j-1"), status=202)
    await content(await deletion.reply())
    assert len(world.pipeline.writes.jobs) == 1
    await world.fetched(b'{"page":"before the job"}')
    poll = world.ask("/v3/jobs/j-1")
    await settle()
    world.calls[-1].answers(b'{"state":"COMPLETE"}')
    await poll.reply()
    assert not await world.is_cached()
    await world.pipeline.drain()


async def test_a_write_of_a_row_of_mode_origin_is_seen_through_when_its_client_leaves() -> None:
    """What is fetched between its leaving and the write's end is dropped at the end."""
    world = World()
    write = world.ask("/v3/sidecars/g", method="PATCH")
    await settle()
    call = world.calls[-1]
    write.task.cancel()
    await settle()
    await world.fetched(b'{"page":"before the write"}')
    call.answers(b"{}")
    await world.pipeline.drain()
    assert not await world.is_cached()


# -- every interleaving


class Origin:
    """What the controller holds, and the steps in which it answers: it looks, or changes, and answers later."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.version = 1
        self.seen: dict[Call, int] = {}

    def look(self, call: Call) -> None:
        self.seen.setdefault(call, self.version)

    def answer(self, call: Call) -> None:
        if not call.reply.done():
            self.look(call)
            call.answers(b'{"version":%d}' % self.seen[call])

    def finish(self) -> None:
        for call in list(self.world.calls):
            self.answer(call)


class Reader:
    """A client that reads, and the controller's steps on its behalf; without a fetch of its own these are void."""

    def __init__(self, world: World, origin: Origin) -> None:
        self.world, self.origin = world, origin
        self.asked: Asked | None = None
        self.own: Call | None = None
        self.floor = 0

    async def start(self, floor: int) -> None:
        self.floor = floor
        before = len(self.world.calls)
        self.asked = self.world.ask()
        await settle()
        self.own = self.world.calls[before] if len(self.world.calls) > before else None

    def look(self) -> None:
        if self.own is not None:
            self.origin.look(self.own)

    def answer(self) -> None:
        if self.own is not None:
            self.origin.answer(self.own)


def end_well(call: Call) -> None:
    call.answers(b"{}")


def end_accepted(call: Call) -> None:
    call.answers(b"", status=202)


def end_badly(call: Call) -> None:
    call.answers(b"", status=500)


def end_unknown(call: Call) -> None:
    call.fails("timeout")


def schedules(actors: str, first: str = "") -> list[str]:
    """Every order of the actors' three steps each that begins with `first`, as texts like "rwwrrw"."""
    rest = "".join(actor * (3 - first.count(actor)) for actor in actors)
    return [first + order for order in sorted({"".join(order) for order in permutations(rest)})]


async def run_schedule(order: str, end: Any) -> None:
    """Play one schedule: whoever begins to read after the write was answered must see what was written."""
    world = World()
    origin = Origin(world)
    readers = {name: Reader(world, origin) for name in "rs" if name in order}
    steps = dict.fromkeys(order, 0)
    write: Asked | None = None
    write_call: Call | None = None
    floor = 1
    for actor in order:
        step, steps[actor] = steps[actor], steps[actor] + 1
        if actor in readers:
            if step == 0:
                await readers[actor].start(floor)
            else:
                (readers[actor].look, readers[actor].answer)[step - 1]()
        elif step == 0:
            write = world.ask(ONE, method="PATCH")
            await settle()
            write_call = world.calls[-1]
            origin.seen[write_call] = 0
        elif step == 1:
            origin.version = 2
        else:
            assert write is not None
            assert write_call is not None
            end(write_call)
            await write.reply()
            floor = 2
        await settle()
    for _ in range(3):
        origin.finish()
        await settle()
    for name, reader in readers.items():
        assert reader.asked is not None
        version = json.loads(await reader.asked.body())["version"]
        assert version >= reader.floor, f"{order}: {name} began after the write and got the older page"
    last = Reader(world, origin)
    await last.start(2)
    origin.finish()
    assert last.asked is not None
    assert await last.asked.body() == b'{"version":2}', f"{order}: the older page was left behind"


@pytest.mark.parametrize("order", schedules("rw"))
@pytest.mark.parametrize("end", [end_well, end_accepted, end_badly, end_unknown])
async def test_a_write_during_a_fetch_never_leaves_the_older_page(order: str, end: Any) -> None:
    await run_schedule(order, end)


# The readers are alike, so r begins before s; split to give each test a fair share.
BEGINNINGS = [
    "".join(steps) for steps in product("rsw", repeat=3) if "s" not in steps or "r" in steps[: steps.index("s")]
]


@pytest.mark.parametrize("first", BEGINNINGS)
async def test_nor_do_two_readers_and_a_write(first: str) -> None:
    for order in schedules("rsw", first):
        await run_schedule(order, end_well)


# -- keys


async def test_a_key_that_is_not_held_is_fetched_once() -> None:
    world = World()
    asked = world.ask(who="new-key")
    await settle()
    assert world.verifier.fetched == ["k2"]
    world.calls[0].answers()
    assert (await asked.reply()).status == 200


async def test_keys_that_cannot_be_had_are_no_verdict_on_the_token() -> None:
    world = World()
    world.verifier.fault = KeysUnavailableError("the UAA is away")
    asked = world.ask(who="new-key")
    reply = await asked.reply()
    assert (reply.status, asked.exchange.denied) == (502, Reason.KEYS_UNAVAILABLE)
    assert json.loads(reply.body or b"")["errors"][0]["code"] == 20004  # type: ignore[arg-type]


@pytest.mark.parametrize("target", ["/open/own", "/v3/nosuch"])
async def test_keys_that_cannot_be_had_do_not_close_a_row_that_needs_none(target: str) -> None:
    world = World()
    world.verifier.fault = KeysUnavailableError("the UAA is away")
    asked = world.ask(target, "new-key")
    await settle()
    assert world.calls[0].token == "bearer new-key"
    world.calls[0].answers()
    assert (await asked.reply()).status == 200
    assert not await world.is_cached("new-key", target)


# -- relayed answers


async def test_content_that_is_no_json_streams_through() -> None:
    world = World()
    asked = world.ask("/v3/packages/g/download")
    await settle()
    answer = Answer(200, (("Content-Type", "application/zip"),), b"one", b"two")
    world.calls[0].reply.set_result(answer)
    assert await asked.body() == b"onetwo"
    assert answer.released


async def test_without_links_json_streams_through_too() -> None:
    world = World(links=False)
    asked = world.ask(ONE)
    await settle()
    world.calls[0].answers(b'{"links":{"self":{"href":"https://api.internal.example.org/v3"}}}')
    reply = await asked.reply()
    assert not isinstance(reply.body, bytes)
    assert b"api.internal" in await content(reply)


async def test_a_transfer_that_breaks_before_its_first_byte_is_an_error_answer() -> None:
    world = World()
    asked = world.ask("/v3/packages/g/download")
    await settle()
    answer = Answer(200, (("Content-Type", "application/zip"),), cut=True)
    world.calls[0].reply.set_result(answer)
    assert (await asked.reply()).status == 502
    assert answer.released


async def test_a_transfer_that_breaks_later_breaks_for_the_client() -> None:
    world = World()
    asked = world.ask("/v3/packages/g/download")
    await settle()
    answer = Answer(200, (("Content-Type", "application/zip"),), b"one", cut=True)
    world.calls[0].reply.set_result(answer)
    reply = await asked.reply()
    with pytest.raises(UpstreamError):
        await content(reply)
    assert answer.released


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 304), ("DELETE", 204)])
async def test_answers_without_content_are_released_at_once(method: str, status: int) -> None:
    world = World()
    asked = world.ask(ONE, method=method)
    await settle()
    answer = world.calls[0].answers(b"never read", status=status)
    reply = await asked.reply()
    assert (reply.status, reply.body) == (status, None)
    assert answer.released
