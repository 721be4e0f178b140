"""Mode `origin` against an origin whose every step the test decides: who waits for whom, and what becomes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from gateway.core.errors import Denial, Reason
from gateway.core.forwarding import TrustedProxies
from gateway.core.links import Rewriter
from gateway.core.model import Fields, Principal, PrincipalKind, RequestHead, ResponseHead
from gateway.core.routes import Access, CacheMode, CacheRule, RouteOverride, RouteTable, Share
from gateway.core.target import parse
from gateway.core.visibility import make_principal
from gateway.pipeline.decide import Policy
from gateway.pipeline.exchange import Exchange, Reply, Verdict
from gateway.pipeline.fulfil import Pipeline
from gateway.pipeline.outgoing import Outgoing
from gateway.pipeline.ports import ContentError, KeyUnknown, Rejected, UpstreamError
from gateway.store.memory import MemoryStore

TABLE = RouteTable(()).with_overrides(
    [
        RouteOverride("/*", access=Access.PUBLIC, cache=CacheRule(CacheMode.ORIGIN, share=Share.PUBLIC), rewrite=False),
        RouteOverride("/own/*", access=Access.SCOPES, scopes_any=(), cache=CacheRule(CacheMode.ORIGIN), rewrite=False),
        RouteOverride("/linked/*", access=Access.PUBLIC, cache=CacheRule(CacheMode.ORIGIN, share=Share.PUBLIC)),
    ]
)
LIMIT = 4096
FRESH = ("Cache-Control", "max-age=10")


class Verifier:
    """Tokens are names."""

    def verify(self, token: str, now: float) -> Principal | Rejected | KeyUnknown:
        return make_principal(
            kind=PrincipalKind.USER,
            principal_id=token,
            issuer="",
            zone="",
            client_id="cf",
            scopes=frozenset({"cloud_controller.read"}),
            expires=2**40,
        )

    async def fetch_for(self, kid: str | None) -> None:
        raise AssertionError


class Links:
    async def rewriter(self) -> Rewriter:
        return Rewriter(["https://inside.example.org"], "https://outside.example.org")


class Call:
    """One request that reached the origin, and the answer to it, piece by piece."""

    def __init__(self, head: RequestHead) -> None:
        self.sent = head
        self.head = ResponseHead(0, Fields())
        self.released = False
        self.gone = False
        self._reply: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pieces: asyncio.Queue[bytes | UpstreamError | None] = asyncio.Queue()

    def begins(self, *fields: tuple[str, str], status: int = 200) -> None:
        """Send the head of the answer."""
        self.head = ResponseHead(status, Fields(fields or (FRESH,)))
        if not self._reply.done():
            self._reply.set_result(None)

    def piece(self, *pieces: bytes) -> None:
        """Send some of the content."""
        for piece in pieces:
            self._pieces.put_nowait(piece)

    def ends(self) -> None:
        self._pieces.put_nowait(None)

    def breaks(self) -> None:
        self._pieces.put_nowait(UpstreamError("broken", "cut"))

    def answers(self, body: bytes = b"content", *fields: tuple[str, str], status: int = 200) -> None:
        """Send all of an answer."""
        self.begins(*fields, status=status)
        self.piece(body)
        self.ends()

    def fails(self, kind: str = "broken", *, sent: bool = True) -> None:
        self._reply.set_exception(UpstreamError(kind, "as the test says", sent=sent))

    async def arrived(self) -> Call:
        try:
            await self._reply
        except asyncio.CancelledError:
            self.gone = True
            raise
        return self

    def in_hand(self) -> bytes | None:
        return None

    async def chunks(self) -> AsyncIterator[bytes]:
        while (piece := await self._pieces.get()) is not None:
            if isinstance(piece, UpstreamError):
                raise piece
            yield piece

    async def release(self) -> None:
        self.released = True


class Origin:
    def __init__(self) -> None:
        self.calls: list[Call] = []

    async def send(self, head: RequestHead, body: AsyncIterator[bytes] | None) -> Call:
        call = Call(head)
        self.calls.append(call)
        if body is not None:
            async for _ in body:
                pass
        return await call.arrived()


@dataclass
class Got:
    status: int
    body: bytes
    fields: Fields
    exchange: Exchange

    @property
    def cache(self) -> str | None:
        return self.fields.get("cache-status")


class World:
    """A pipeline, its origin, its clock."""

    def __init__(self, *, links: Links | None = None, budget: int = 1 << 20) -> None:
        self.now = 1_700_000_000.0
        self.chance = 1.0
        self.origin = Origin()
        self.store = MemoryStore(max_bytes=1 << 20, max_entry_bytes=LIMIT)
        self.pipeline = Pipeline(
            policy=Policy(TABLE, Verifier(), self.store, chance=lambda: self.chance),
            upstream=self.origin,
            links=links,
            outgoing=Outgoing("gateway", "inside.example.org", TrustedProxies(), "https", "outside.example.org"),
            clock=lambda: self.now,
            max_rewrite_bytes=1 << 20,
            max_entry_bytes=LIMIT,
            max_filling_bytes=budget,
        )

    async def begin(
        self, path: str = "/page", *fields: tuple[str, str], method: str = "GET", body: Any = None
    ) -> Reply:
        """Ask, up to the reply; its content is not read."""
        return (await self._answer(path, fields, method, body))[0]

    async def _answer(self, path: str, fields: Any, method: str, body: Any) -> tuple[Reply, Exchange]:
        target = parse(path, strict_api=False)
        head = RequestHead(
            method, target, Fields([("Host", "outside.example.org"), *fields]), has_body=body is not None
        )
        exchange = Exchange(head, request_id="r", received_at=self.now)
        return await self.pipeline.answer(exchange, body), exchange

    async def ask(self, path: str = "/page", *fields: tuple[str, str], method: str = "GET", body: Any = None) -> Got:
        """Ask, and read the answer to its end."""
        reply, exchange = await self._answer(path, fields, method, body)
        return Got(reply.status, await content(reply), reply.fields, exchange)

    def asking(self, *args: Any, **options: Any) -> asyncio.Task[Got]:
        return asyncio.ensure_future(self.ask(*args, **options))

    async def stored(self, body: bytes = b"content", *fields: tuple[str, str], path: str = "/page") -> None:
        """Have something stored."""
        task = self.asking(path)
        await settle()
        self.origin.calls[-1].answers(body, *fields)
        await task
        await settle()
        assert len(self.store) == 1
        self.origin.calls.clear()


async def content(reply: Reply) -> bytes:
    if reply.body is None or isinstance(reply.body, bytes):
        return reply.body or b""
    try:
        return b"".join([piece async for piece in reply.body])
    finally:
        await reply.body.aclose()


async def settle(turns: int = 30) -> None:
    """Let everything run that can."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def test_ten_thousand_waiters_one_request() -> None:
    world = World()
    waiting = [world.asking() for _ in range(10_000)]
    await settle(5)
    assert len(world.origin.calls) == 1
    world.origin.calls[0].answers(b"content")
    answers = await asyncio.gather(*waiting)
    assert {(got.status, got.body) for got in answers} == {(200, b"content")}
    assert len(world.origin.calls) == 1
    assert sum(got.exchange.collapsed for got in answers) == 9_999
    assert answers[0].cache == "gateway;fwd=uri-miss;fwd-status=200;ttl=10;stored"
    assert answers[1].cache == "gateway;fwd=uri-miss;fwd-status=200;ttl=10;stored;collapsed"
    assert answers[1].exchange.verdict is Verdict.COLLAPSED


async def test_content_is_read_while_it_comes_in_each_at_its_own_pace() -> None:
    world = World()
    first, second = asyncio.ensure_future(world.begin()), asyncio.ensure_future(world.begin())
    await settle()
    call = world.origin.calls[0]
    call.begins(FRESH, ("Content-Length", "6"))
    call.piece(b"one")
    quick, slow = (await first).body, (await second).body
    assert not isinstance(quick, bytes | None)
    assert not isinstance(slow, bytes | None)
    assert await anext(aiter(quick)) == b"one"
    late = await world.begin()
    call.piece(b"two")
    assert await anext(aiter(quick)) == b"two"
    call.ends()
    assert [piece async for piece in quick] == []
    assert [piece async for piece in slow] == [b"one", b"two"]
    assert late.fields.get("content-length") == "6"
    assert await content(late) == b"onetwo"
    assert (await world.ask()).cache == "gateway;hit;ttl=10"
    assert len(world.origin.calls) == 1


async def test_waiters_of_what_cannot_be_shared_are_let_go_at_the_head_and_nobody_waits_for_a_while() -> None:
    world = World()
    waiting = [world.asking() for _ in range(3)]
    await settle()
    world.origin.calls[0].begins(("Cache-Control", "private"))
    await settle()
    assert len(world.origin.calls) == 3, "let go before the content has come"
    for number, call in enumerate(world.origin.calls):
        call.answers(b"for %d" % number, ("Cache-Control", "private"))
    assert sorted(got.body for got in await asyncio.gather(*waiting)) == [b"for 0", b"for 1", b"for 2"]
    later = [world.asking() for _ in range(3)]
    await settle()
    assert len(world.origin.calls) == 6, "hit-for-miss"
    for call in world.origin.calls[3:]:
        call.answers(b"", ("Cache-Control", "private"))
    await asyncio.gather(*later)
    world.now += 5
    later = [world.asking() for _ in range(3)]
    await settle()
    assert len(world.origin.calls) == 7
    world.origin.calls[-1].answers(b"shared")
    assert {got.body for got in await asyncio.gather(*later)} == {b"shared"}


async def test_hit_for_miss_ends_when_something_is_stored() -> None:
    world = World()
    task = world.asking()
    await settle()
    world.origin.calls[0].answers(b"", ("Cache-Control", "no-store"))
    await task
    task = world.asking()
    await settle()
    world.origin.calls[1].answers(b"new")
    await task
    world.now += 1
    assert (await world.ask()).body == b"new"


@pytest.mark.parametrize("answer", [("no-cache", "public"), ("max-age=0",)], ids=["no-cache", "stale-on-arrival"])
async def test_what_each_has_to_validate_is_not_shared(answer: tuple[str, ...]) -> None:
    world = World()
    waiting = [world.asking() for _ in range(3)]
    await settle()
    fields = (("Cache-Control", ", ".join(answer)), ("ETag", '"a"'))
    world.origin.calls[0].answers(b"content", *fields)
    await settle()
    assert len(world.origin.calls) == 3
    for call in world.origin.calls[1:]:
        call.answers(b"content", *fields)
    await asyncio.gather(*waiting)


async def test_those_that_want_another_variant_wait_together_for_it() -> None:
    world = World()
    asked = [world.asking("/page", ("Accept-Language", language)) for language in ("en", "de") * 20]
    await settle()
    for language in (b"en", b"de"):
        world.origin.calls[-1].answers(language, FRESH, ("Vary", "Accept-Language"))
        await settle()
    answers = await asyncio.gather(*asked)
    assert [got.body for got in answers] == [b"en", b"de"] * 20
    assert len(world.origin.calls) == 2
    assert len(world.store) == 1


async def test_a_reload_neither_joins_nor_waits() -> None:
    world = World()
    first = world.asking()
    await settle()
    reload = world.asking("/page", ("Cache-Control", "no-cache"))
    await settle()
    assert len(world.origin.calls) == 2
    for call in world.origin.calls:
        call.answers()
    await asyncio.gather(first, reload)


async def test_a_stale_response_is_validated_once_for_all_even_where_clients_have_conditions() -> None:
    world = World()
    await world.stored(b"content", FRESH, ("ETag", '"a"'))
    world.now += 20
    asked = [world.asking("/page", ("If-None-Match", '"a"')) for _ in range(5)] + [world.asking() for _ in range(5)]
    await settle()
    (call,) = world.origin.calls
    assert call.sent.fields.get_all("if-none-match") == ['"a"']
    call.answers(b"", FRESH, ("ETag", '"a"'), status=304)
    answers = await asyncio.gather(*asked)
    assert [got.status for got in answers] == [304] * 5 + [200] * 5
    assert answers[0].exchange.verdict is Verdict.REVALIDATED
    assert answers[-1].cache == "gateway;fwd=stale;fwd-status=304;ttl=10;stored;collapsed"
    assert len(world.origin.calls) == 1
    assert call.released


async def test_a_304_that_has_to_be_validated_again_releases_the_waiters() -> None:
    world = World()
    await world.stored(b"content", ("Cache-Control", "max-age=10"), ("ETag", '"a"'))
    world.now += 20
    waiting = [world.asking() for _ in range(3)]
    await settle()
    for _ in range(3):
        for call in world.origin.calls:
            call.begins(("Cache-Control", "no-cache"), ("ETag", '"a"'), status=304)
        await settle()
    assert [got.body for got in await asyncio.gather(*waiting)] == [b"content"] * 3
    assert len(world.origin.calls) == 3


# -- cancellation


async def test_the_leader_goes_before_the_head() -> None:
    world = World()
    leader, waiter = world.asking(), world.asking()
    await settle()
    leader.cancel()
    await settle()
    world.origin.calls[0].answers(b"content")
    assert (await waiter).body == b"content"
    assert len(world.origin.calls) == 1


async def test_all_go_before_the_head() -> None:
    world = World()
    tasks = [world.asking() for _ in range(3)]
    await settle()
    for task in tasks:
        task.cancel()
    await settle()
    assert world.origin.calls[0].gone
    again = world.asking()
    await settle()
    world.origin.calls[1].answers(b"again")
    assert (await again).body == b"again"


@pytest.mark.parametrize("head", [(FRESH,), (("Cache-Control", "private"),)], ids=["shared", "alone"])
@pytest.mark.parametrize("turns", range(8))
async def test_the_leader_goes_at_any_moment_around_the_head(turns: int, head: tuple[tuple[str, str], ...]) -> None:
    world = World()
    leader, waiter = world.asking(), world.asking()
    await settle()
    world.origin.calls[0].begins(*head)
    await settle(turns)
    leader.cancel()
    await settle()
    for call in world.origin.calls:
        call.answers(b"content", *head)
    await settle()
    for call in world.origin.calls:
        call.answers(b"content", *head)
    assert (await waiter).body == b"content"
    await settle()
    assert all(call.released for call in world.origin.calls)
    assert len(world.origin.calls) <= 2


@pytest.mark.parametrize("turns", range(1, 12))
async def test_everybody_goes_at_any_moment_and_nothing_is_left_behind(turns: int) -> None:
    world = World()
    tasks = [world.asking() for _ in range(3)]
    await settle()
    world.origin.calls[0].begins()
    world.origin.calls[0].piece(b"some")
    await settle(turns)
    for task in tasks:
        task.cancel()
    await settle()
    assert all(call.released or call.gone for call in world.origin.calls)
    assert len(world.store) == 0
    again = world.asking()
    await settle()
    world.origin.calls[-1].answers(b"again")
    assert (await again).body == b"again"


async def test_the_leader_goes_in_the_middle_of_the_content() -> None:
    world = World()
    leader, waiter = world.asking(), world.asking()
    await settle()
    world.origin.calls[0].begins()
    world.origin.calls[0].piece(b"one")
    await settle()
    leader.cancel()
    await settle()
    world.origin.calls[0].piece(b"two")
    world.origin.calls[0].ends()
    assert (await waiter).body == b"onetwo"
    assert (await world.ask()).body == b"onetwo"


# -- failures


@pytest.mark.parametrize(("kind", "status"), [("unreachable", 502), ("timeout", 504), ("broken", 502)])
async def test_a_failure_before_the_head_is_everybodys(kind: str, status: int) -> None:
    world = World()
    waiting = [world.asking() for _ in range(5)]
    await settle()
    world.origin.calls[0].fails(kind)
    assert [got.status for got in await asyncio.gather(*waiting)] == [status] * 5
    assert len(world.origin.calls) == 1


@pytest.mark.parametrize("kind", ["unreachable", "timeout", "broken"])
async def test_a_failure_before_the_head_is_answered_with_what_is_stale(kind: str) -> None:
    world = World()
    await world.stored(b"old", ("Cache-Control", "max-age=10, stale-if-error=100"))
    world.now += 20
    waiting = [world.asking() for _ in range(5)]
    await settle()
    world.origin.calls[0].fails(kind)
    answers = await asyncio.gather(*waiting)
    assert {got.body for got in answers} == {b"old"}
    assert {got.cache for got in answers} == {f'gateway;fwd=stale;ttl=-10;detail="stale-if-error: {kind}"'}
    assert {got.exchange.verdict for got in answers} == {Verdict.STALE}


async def test_a_503_is_answered_with_what_is_stale_for_waiters_too() -> None:
    world = World()
    await world.stored(b"old", ("Cache-Control", "max-age=10, stale-if-error=100"))
    world.now += 20
    waiting = [world.asking() for _ in range(5)]
    await settle()
    world.origin.calls[0].answers(b"busy", FRESH, status=503)
    assert {got.body for got in await asyncio.gather(*waiting)} == {b"old"}
    assert len(world.origin.calls) == 1
    assert world.origin.calls[0].released


async def test_a_waiter_does_not_wait_for_ever() -> None:
    world = World()
    leader = world.asking()
    await settle()
    world.pipeline._origin._wait = 0.0  # type: ignore[misc]
    got = await world.ask()
    assert (
        got.status,
        got.fields.get(
            "x-gateway-error",
        ),
    ) == (
        504,
        "upstream-timeout",
    )
    world.origin.calls[0].answers(b"late")
    assert (await leader).body == b"late"


async def test_a_break_in_the_content_reaches_every_reader_and_nothing_is_stored() -> None:
    world = World()
    tasks = [world.asking() for _ in range(3)]
    await settle()
    world.origin.calls[0].begins()
    world.origin.calls[0].piece(b"some")
    world.origin.calls[0].breaks()
    with pytest.raises(UpstreamError):
        await tasks[0]
    await settle()
    # Who had not had a byte of it asked again, all together.
    (_, again) = world.origin.calls
    again.answers(b"whole", ("Cache-Control", "max-age=0"))
    await settle()
    for call in world.origin.calls[2:]:
        call.answers(b"whole", ("Cache-Control", "max-age=0"))
    assert [(await task).body for task in tasks[1:]] == [b"whole"] * 2
    await settle()
    assert len(world.store) == 0
    assert world.origin.calls[0].released


# -- writes meanwhile


async def test_what_was_asked_for_before_a_write_is_neither_stored_nor_joined_after_it() -> None:
    world = World()
    before = world.asking()
    await settle()
    write = world.asking("/page?form", method="PUT")
    await settle()
    world.origin.calls[1].answers(b"", status=204)
    await write
    after = world.asking()
    await settle()
    assert len(world.origin.calls) == 3
    world.origin.calls[0].answers(b"old")
    assert (await before).body == b"old"
    await settle()
    assert len(world.store) == 0
    world.origin.calls[2].answers(b"new")
    assert (await after).body == b"new"
    await settle()
    assert (await world.ask()).body == b"new"


async def test_a_304_does_not_bring_back_what_a_write_dropped() -> None:
    world = World()
    await world.stored(b"old", FRESH, ("ETag", '"a"'))
    world.now += 20
    reading = world.asking()
    await settle()
    write = world.asking(method="POST")
    await settle()
    world.origin.calls[1].answers(b"")
    await write
    world.origin.calls[0].begins(FRESH, ("ETag", '"a"'), status=304)
    assert (await reading).body == b"old"
    assert len(world.store) == 0


async def test_a_write_whose_client_goes_away_drops() -> None:
    world = World()
    await world.stored()
    write = world.asking(method="POST")
    await settle()
    write.cancel()
    await settle()
    assert len(world.store) == 0


async def test_a_write_that_never_left_drops_nothing() -> None:
    world = World()
    await world.stored()
    write = world.asking(method="POST")
    await settle()
    world.origin.calls[0].fails("unreachable", sent=False)
    assert (await write).status == 502
    assert len(world.store) == 1


async def test_a_write_with_broken_content_drops() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise ContentError(Denial(Reason.BAD_REQUEST, "broke off"))

    world = World()
    await world.stored()
    assert (await world.ask(method="POST", body=broken())).status == 400
    assert len(world.store) == 0


# -- sizes


async def test_what_announces_to_be_too_large_is_passed_on() -> None:
    world = World()
    waiting = [world.asking(), world.asking()]
    await settle()
    large = ("Content-Length", str(LIMIT + 1))
    world.origin.calls[0].answers(b"x" * (LIMIT + 1), FRESH, large)
    await settle()
    world.origin.calls[1].answers(b"y" * (LIMIT + 1), FRESH, large)
    first, second = await asyncio.gather(*waiting)
    assert first.cache == "gateway;fwd=uri-miss;fwd-status=200;detail=too-large"
    assert (len(first.body), second.body[:1]) == (LIMIT + 1, b"y")
    assert len(world.store) == 0


@pytest.mark.parametrize("budget", [1 << 20, 3], ids=["entry-limit", "budget-of-all"])
async def test_what_turns_out_too_large_is_streamed_to_the_end_and_not_stored(budget: int) -> None:
    world = World(budget=budget)
    tasks = [world.asking(), world.asking()]
    await settle()
    world.origin.calls[0].begins()
    for _ in range(10):
        world.origin.calls[0].piece(b"x" * 1000)
        await settle(3)
    world.origin.calls[0].ends()
    assert [got.body for got in await asyncio.gather(*tasks)] == [b"x" * 10_000] * 2
    await settle()
    assert len(world.store) == 0
    assert world.pipeline._origin._asker._budget.held == 0


# -- refresh behind


async def test_a_thousand_stale_hits_one_refresh_behind() -> None:
    world = World()
    await world.stored(b"old", ("Cache-Control", "max-age=10, stale-while-revalidate=100"))
    world.now += 20
    answers = [await world.ask() for _ in range(500)]
    await settle()
    answers += [await world.ask() for _ in range(500)]
    assert {got.body for got in answers} == {b"old"}
    assert len(world.origin.calls) == 1
    assert "cache-control" not in world.origin.calls[0].sent.fields
    world.origin.calls[0].answers(b"new")
    await world.pipeline.drain()
    assert (await world.ask()).body == b"new"
    assert len(world.origin.calls) == 1


async def test_a_refresh_begun_late_finds_the_work_done() -> None:
    world = World()
    await world.stored(b"old", ("Cache-Control", "max-age=10, stale-while-revalidate=100"))
    world.now += 20
    reload = world.asking("/page", ("Cache-Control", "no-cache"))
    await settle()
    world.origin.calls[0].answers(b"new")
    found = world.asking()
    await asyncio.gather(reload, found)
    await world.pipeline.drain()
    assert (await world.ask()).body == b"new"
    assert len(world.origin.calls) <= 2


async def test_a_failed_refresh_is_tried_again_after_a_moment() -> None:
    world = World()
    await world.stored(b"old", ("Cache-Control", "max-age=10, stale-while-revalidate=100"))
    world.now += 20
    await world.ask()
    await settle()
    world.origin.calls[0].fails()
    await settle()
    await world.ask()
    await settle()
    assert len(world.origin.calls) == 1
    world.now += 1
    await world.ask()
    await settle()
    assert len(world.origin.calls) == 2
    world.origin.calls[1].answers()
    await world.pipeline.drain()


@pytest.mark.parametrize(("chance", "refreshed"), [(1e-9, True), (1.0, False)], ids=["drawn", "not-drawn"])
async def test_a_hot_response_is_refreshed_before_it_is_stale(chance: float, refreshed: bool) -> None:
    world = World()
    task = world.asking()
    await settle()
    world.now += 2  # the origin took two seconds
    world.origin.calls[0].answers(b"old")
    await task
    await settle()
    world.now += 7
    world.chance = chance
    got = await world.ask()
    assert (got.body, got.exchange.verdict) == (b"old", Verdict.HIT)
    await settle()
    assert (len(world.origin.calls) == 2) is refreshed
    for call in world.origin.calls[1:]:
        call.answers(b"new")
    await world.pipeline.drain()


# -- visibility and credentials


async def test_a_response_to_a_token_is_shared_only_where_the_origin_says_so() -> None:
    world = World()
    first = world.asking("/page", ("Authorization", "Bearer alice"))
    second = world.asking("/page", ("Authorization", "Bearer bob"))
    await settle()
    world.origin.calls[0].answers(b"alice's")
    await settle()
    assert world.origin.calls[1].sent.fields.get("authorization") == "Bearer bob"
    world.origin.calls[1].answers(b"bob's")
    assert [(await first).body, (await second).body] == [b"alice's", b"bob's"]
    assert (await first).cache == "gateway;fwd=uri-miss;fwd-status=200;detail=authorization"
    assert len(world.store) == 0


async def test_domains_neither_share_nor_wait_for_each_other() -> None:
    world = World()
    alice, bob = (("Authorization", f"Bearer {name}") for name in ("alice", "bob"))
    asked = [world.asking("/own/x", who) for who in (alice, bob, alice)]
    await settle()
    assert len(world.origin.calls) == 2
    for call in world.origin.calls:
        call.answers((call.sent.fields.get("authorization") or "").encode())
    assert [got.body for got in await asyncio.gather(*asked)] == [b"Bearer alice", b"Bearer bob", b"Bearer alice"]
    await settle()
    assert len(world.store) == 2
    assert (await world.ask("/own/x", bob)).body == b"Bearer bob"
    assert len(world.origin.calls) == 2
    write = world.asking("/own/x", alice, method="DELETE")
    await settle()
    world.origin.calls[-1].answers(b"", status=204)
    await write
    assert len(world.store) == 0, "a write drops in every domain"


# -- links


async def test_links_are_rewritten_before_anything_is_stored() -> None:
    world = World(links=Links())
    json = ("Content-Type", "application/json")
    body = b'{"links":{"self":{"href":"https://inside.example.org/x"}}}'
    asked = [world.asking("/linked/x") for _ in range(2)]
    await settle()
    assert world.origin.calls[0].sent.fields.get("accept-encoding") == "identity"
    world.origin.calls[0].answers(
        body, FRESH, json, ("ETag", '"a"'), ("Last-Modified", "Wed, 01 Jan 2020 00:00:00 GMT")
    )
    expected = body.replace(b"inside", b"outside")
    assert [got.body for got in await asyncio.gather(*asked)] == [expected] * 2
    assert "etag" not in (await asked[0]).fields
    await settle()
    world.now += 20
    again = world.asking("/linked/x")
    await settle()
    assert "if-modified-since" in world.origin.calls[1].sent.fields
    world.origin.calls[1].begins(FRESH, ("ETag", '"a"'), status=304)
    assert (await again).body == expected
    post = world.asking("/linked/x", method="POST")
    await settle()
    world.origin.calls[2].answers(body, json)
    assert (await post).body == expected
    assert len(world.store) == 0
