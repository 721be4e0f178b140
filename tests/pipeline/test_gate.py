"""The gate before the upstream: places, queue, cancellation at every await."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from gateway.core.concurrency import AdaptiveLimit, LimitPolicy
from gateway.core.fair_slots import FairSlots
from gateway.core.model import Claim, Fields, OutgoingHead, RequestHead, ResponseHead, Target
from gateway.core.rate_policy import Mode
from gateway.pipeline.gate import Decision, Gate
from gateway.pipeline.ports import OwnError, UpstreamError


class Response:
    def __init__(self) -> None:
        self.head = ResponseHead(200, Fields())
        self.released = 0

    def in_hand(self) -> bytes | None:
        return None

    async def chunks(self) -> AsyncIterator[bytes]:
        yield b"body"

    async def release(self) -> None:
        self.released += 1


class Upstream:
    """Answers when told to."""

    def __init__(self) -> None:
        self.now = 0.0
        self.asked: list[str] = []
        self.under_way = 0
        self.most = 0
        self.failure: UpstreamError | None = None
        self.open = asyncio.Event()
        self.open.set()

    def __call__(self) -> float:
        return self.now

    async def send(self, head: RequestHead, body: Any) -> Response:
        self.asked.append(head.target.path)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await self.open.wait()
            if self.failure is not None:
                raise self.failure
            return Response()
        finally:
            self.under_way -= 1


def gate_of(upstream: Upstream, limit: int | None = 1, **options: Any) -> Gate:
    adaptive = options.pop("adaptive", None)
    slots: FairSlots[Any] = FairSlots(
        limit=limit, per_owner=options.pop("per_owner", None), queue=options.pop("queue", 10)
    )
    given = {"patience": 5.0, "mode": Mode.ENFORCE, "clock": upstream, **options}
    return Gate(upstream, slots=slots, limit=adaptive, **given)


def head(owner: str, number: int = 0) -> OutgoingHead:
    return OutgoingHead("GET", Target(f"/{owner}{number}"), Fields(), claim=Claim((owner,), "kind"))


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def cancelled(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def books(gate: Gate) -> tuple[int, int]:
    return gate.in_flight, gate.queued


async def test_a_place_is_held_until_the_answer_is_released() -> None:
    upstream = Upstream()
    gate = gate_of(upstream)
    first = await gate.send(head("a", 1), None)
    waiting = asyncio.create_task(gate.send(head("b", 2), None))
    await turns()
    assert (upstream.asked, books(gate)) == (["/a1"], (1, 1))
    assert [chunk async for chunk in first.chunks()] == [b"body"]
    await first.release()
    await first.release()
    second = await waiting
    assert (upstream.asked, books(gate)) == (["/a1", "/b2"], (1, 0))
    await second.release()
    assert books(gate) == (0, 0)


async def test_a_forgotten_answer_gives_its_place_back() -> None:
    gate = gate_of(Upstream())
    await gate.send(head("a"), None)
    gc.collect()
    assert books(gate) == (0, 0)


@pytest.mark.parametrize("failure", [UpstreamError("timeout", ""), UpstreamError("breaker", "", sent=False)])
async def test_a_failure_gives_its_place_back(failure: UpstreamError) -> None:
    upstream = Upstream()
    upstream.failure = failure
    gate = gate_of(upstream)
    for _ in range(3):
        with pytest.raises(UpstreamError):
            await gate.send(head("a"), None)
    assert books(gate) == (0, 0)


async def test_principals_take_turns() -> None:
    upstream = Upstream()
    gate = gate_of(upstream)
    held = await gate.send(head("x"), None)
    tasks = [asyncio.create_task(gate.send(head("a", number), None)) for number in range(3)]
    await turns()
    tasks.append(asyncio.create_task(gate.send(head("b", 9), None)))
    await turns()
    await held.release()
    for _ in range(len(tasks)):
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            await task.result().release()
            tasks.remove(task)
    assert upstream.asked == ["/x0", "/a0", "/b9", "/a1", "/a2"]


async def test_who_waits_in_vain_is_told_so() -> None:
    gate = gate_of(Upstream(), patience=0.01)
    held = await gate.send(head("a"), None)
    with pytest.raises(UpstreamError) as caught:
        await gate.send(head("b"), None)
    assert (caught.value.kind, caught.value.sent, caught.value.retry_after) == ("queue-timeout", False, 1)
    assert books(gate) == (1, 0)
    await held.release()


async def test_a_full_queue_refuses_or_puts_out_who_has_most_waiting() -> None:
    gate = gate_of(Upstream(), queue=2)
    held = await gate.send(head("x"), None)
    a1, a2 = (asyncio.create_task(gate.send(head("a", number), None)) for number in (1, 2))
    await turns()
    with pytest.raises(UpstreamError) as caught:
        await gate.send(head("a", 3), None)
    assert caught.value.kind == "queue-full"
    b = asyncio.create_task(gate.send(head("b"), None))
    with pytest.raises(UpstreamError) as caught:
        await a2
    assert caught.value.kind == "queue-full"
    assert books(gate) == (1, 2)
    await held.release()
    await (await a1).release()
    await (await b).release()
    assert books(gate) == (0, 0)


async def test_one_principals_limit_is_nobody_elses_trouble() -> None:
    upstream = Upstream()
    gate = gate_of(upstream, limit=None, per_owner=2, patience=0.01)
    held = [await gate.send(head("a", number), None) for number in range(2)]
    other = await gate.send(head("b"), None)
    with pytest.raises(OwnError) as caught:
        await gate.send(head("a", 3), None)
    assert caught.value.kind == "principal-concurrency"
    for response in (*held, other):
        await response.release()
    assert books(gate) == (0, 0)


async def test_shadow_counts_and_never_waits() -> None:
    upstream = Upstream()
    gate = gate_of(upstream, mode=Mode.SHADOW)
    held = [await gate.send(head("a", number), None) for number in range(3)]
    assert gate.counts()["admitted", "shadow"] == 1
    assert gate.counts()["queued", "shadow"] == 2
    for response in held:
        await response.release()
    assert books(gate) == (0, 0)


async def test_a_head_without_a_claim_is_nobodys() -> None:
    gate = gate_of(Upstream(), per_owner=1)
    response = await gate.send(RequestHead("GET", Target("/"), Fields()), None)
    assert books(gate) == (1, 0)
    await response.release()


async def test_it_knows_what_waits_and_so_was_not_sent() -> None:
    gate = gate_of(Upstream())
    held = await gate.send(head("a"), None)
    waiting = head("b")
    task = asyncio.create_task(gate.send(waiting, None))
    await turns()
    assert waiting.queued
    await held.release()
    await (await task).release()
    assert not waiting.queued


# -- cancellation


@pytest.mark.parametrize("steps", range(8))
async def test_cancelled_while_it_waits_it_leaves_the_queue_and_nothing_else(steps: int) -> None:
    upstream = Upstream()
    gate = gate_of(upstream)
    held = await gate.send(head("x"), None)
    leaving = asyncio.create_task(gate.send(head("a"), None))
    await turns(steps)
    staying = asyncio.create_task(gate.send(head("b"), None))
    await turns()
    await cancelled(leaving)
    assert books(gate) == (1, 1)
    await held.release()
    await (await staying).release()
    assert (upstream.asked, books(gate)) == (["/x0", "/b0"], (0, 0))


@pytest.mark.parametrize("before", range(4))
@pytest.mark.parametrize("after", range(6))
async def test_cancelled_in_the_moment_it_is_let_in_it_gives_its_place_to_the_next(before: int, after: int) -> None:
    upstream = Upstream()
    gate = gate_of(upstream)
    held = await gate.send(head("x"), None)
    upstream.open.clear()
    leaving = asyncio.create_task(gate.send(head("a"), None))
    await turns()
    staying = asyncio.create_task(gate.send(head("b"), None))
    await turns(before)
    await held.release()
    await turns(after)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    await turns()
    upstream.open.set()
    await (await staying).release()
    assert books(gate) == (0, 0)


async def test_cancelled_and_let_in_within_one_turn_of_the_loop() -> None:
    gate = gate_of(Upstream())
    held = await gate.send(head("x"), None)
    leaving = asyncio.create_task(gate.send(head("a"), None))
    staying = asyncio.create_task(gate.send(head("b"), None))
    await turns()
    leaving.cancel()
    await held.release()  # before the cancelled one has run: the place goes to it, and on
    await (await staying).release()
    assert leaving.cancelled()
    assert books(gate) == (0, 0)


@pytest.mark.parametrize("seed", range(20))
async def test_no_history_loses_or_makes_a_place(seed: int) -> None:
    """Requests that end, fail, time out and are cancelled in any order: the books are right after, and the upstream
    never had more than the limit."""
    chance = random.Random(seed)
    upstream = Upstream()
    gate = gate_of(upstream, limit=3, per_owner=2, queue=5, patience=0.005)
    ends: list[str] = []

    async def one(number: int) -> None:
        try:
            response = await gate.send(head(chance.choice("abc"), number), None)
        except UpstreamError as error:
            ends.append(error.kind)
            return
        await turns(chance.randrange(6))
        if chance.random() < 0.9:
            await response.release()
        ends.append("answered")

    tasks: list[asyncio.Task[None]] = []
    for number in range(120):
        tasks.append(asyncio.create_task(one(number)))
        await turns(chance.randrange(3))
        if chance.random() < 0.3:
            chance.choice(tasks).cancel()
        if chance.random() < 0.1:
            upstream.open.clear() if upstream.open.is_set() else upstream.open.set()
        upstream.failure = UpstreamError("broken", "") if chance.random() < 0.1 else None
        assert gate.in_flight <= 3
        assert gate.queued <= 5
    upstream.open.set()
    upstream.failure = None
    await asyncio.gather(*tasks, return_exceptions=True)
    tasks.clear()  # with them the answers that nobody released
    await asyncio.gather(asyncio.sleep(0))
    gc.collect()
    assert books(gate) == (0, 0)
    assert upstream.most <= 3
    assert "answered" in ends
    response = await gate.send(head("a"), None)
    await response.release()


# -- the adaptive limit


async def ask(gate: Gate, upstream: Upstream, seconds: float, count: int) -> None:
    async def slow(send: Callable[..., Any], *given: Any) -> Any:
        upstream.now += seconds
        return await send(*given)

    plain = Upstream.send
    for number in range(count):
        upstream.send = lambda *given: slow(plain, upstream, *given)  # type: ignore[method-assign]
        await (await gate.send(head("a", number), None)).release()


async def test_the_limit_follows_latency_and_lets_in_who_waits_when_it_grows() -> None:
    upstream = Upstream()
    policy = LimitPolicy(initial=10, least=2, most=12)
    gate = gate_of(upstream, limit=10, adaptive=AdaptiveLimit(policy))
    await ask(gate, upstream, 0.1, 16)
    assert gate.limit == 11
    for _ in range(10):
        upstream.now += 10
        await ask(gate, upstream, 2.0, 16)
    assert gate.limit == 2
    for _ in range(20):
        upstream.now += 10
        await ask(gate, upstream, 0.1, 16)
    assert gate.limit == 12
    assert books(gate) == (0, 0)


async def test_uploads_say_nothing_of_latency() -> None:
    upstream = Upstream()
    gate = gate_of(upstream, limit=10, adaptive=AdaptiveLimit(LimitPolicy(initial=10)))

    async def body() -> AsyncIterator[bytes]:
        yield b""

    for _ in range(64):
        await (await gate.send(head("a"), body())).release()
    assert gate.limit == 10


async def test_what_waited_and_for_how_long_is_counted() -> None:
    upstream = Upstream()
    gate = gate_of(upstream)
    held = await gate.send(head("x"), None)
    task = asyncio.create_task(gate.send(head("a"), None))
    await turns()
    upstream.now += 3
    await held.release()
    await (await task).release()
    assert gate.waited == 3
    assert (gate.decisions[Decision.ADMITTED], gate.decisions[Decision.QUEUED]) == (1, 1)
