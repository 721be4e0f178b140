"""Requests that come before aiohttp has come round to wait for them: the lane begins them, and answers stay in order.

A client that sends its next request as soon as it has the last byte of an answer is often read before aiohttp's own
task has run again. Here that is certain: there is no network, and what is written schedules the next segment.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

import pytest

from gateway.app import Gateway
from tests.edge.test_lanes import Both, Wired, bare, both, get, settled, start_both

__all__ = ["both", "start_both"]  # fixtures

HIT = bare("/v3/service_offerings")
REFUSED = bare("/internal/x")
FORWARDED = get("/v3/stacks", "TE: trailers")  # a field that is aiohttp's to read
CARRIED = get("/v3/stacks")
CREATED = get("/v3/stacks", "Content-Length: 2", method="POST") + b"{}"
HEAD = bare("/internal/x", method="HEAD")


def complete(written: bytes, heads: Sequence[bool]) -> int:
    """How many answers are whole; `heads` says which of them are to HEAD."""
    count = 0
    for to_head in heads:
        head, end, rest = written.partition(b"\r\n\r\n")
        length = re.search(rb"(?im)^content-length: *(\d+)", head)
        size = int(length[1]) if length and not to_head else 0
        if not end or len(rest) < size:
            break
        count, written = count + 1, rest[size:]
    return count


class Prompt(Wired):
    """A client that sends each round of segments when it has all answers to what it sent before."""

    def __init__(self, rounds: Sequence[Sequence[bytes]]) -> None:
        super().__init__()
        self.rounds = list(rounds)
        self.heads: list[bool] = []
        self.early = 0

    def serve(self, gateway: Gateway) -> None:
        self.connection = gateway._server()
        self.connection.connection_made(self)

    def write(self, data: bytes) -> None:
        super().write(data)
        if self.rounds and complete(self.written, self.heads) == len(self.heads):
            self.next()

    def writelines(self, pieces: Sequence[bytes]) -> None:
        self.write(b"".join(pieces))

    def next(self) -> None:
        segments = self.rounds.pop(0)
        sent = b"".join(segments)
        self.heads += [method == b"HEAD" for method in re.findall(rb"(?m)^(GET|HEAD|POST) /", sent)]
        for segment in segments:
            asyncio.get_running_loop().call_soon(self.send, segment)

    def send(self, segment: bytes) -> None:
        if self.closed:
            return
        if self.connection._waiter is None and self.connection._rests:
            self.early += 1
        self.connection.data_received(segment)

    async def end(self) -> bytes:
        """Wait for the end of the last round, then hang up; all that was answered."""
        async with asyncio.timeout(10):
            while not self.closed and (self.rounds or complete(self.written, self.heads) < len(self.heads)):
                await asyncio.sleep(0)
            while not self.closed and (self.connection._waiter is None or self.connection._waiter.done()):
                await asyncio.sleep(0)
        self.connection.connection_lost(None)
        return self.written


async def talk(gateway: Gateway, *rounds: Sequence[bytes]) -> tuple[list[bytes], Prompt]:
    client = Prompt(rounds)
    client.serve(gateway)
    while client.connection._waiter is None:
        await asyncio.sleep(0)
    client.next()
    answers = await client.end()
    return [settled(answer) for answer in re.split(rb"(?=HTTP/1\.[01] \d)", answers)[1:]], client


async def alike(both: Both, *rounds: Sequence[bytes]) -> tuple[list[bytes], Prompt]:
    """What both lanes answer, which is the same; and the client of the quick one."""
    ours, client = await talk(both.quick.gateway, *rounds)
    theirs, _ = await talk(both.plain.gateway, *rounds)
    assert ours == theirs
    assert both.quick.counted() == both.plain.counted()
    assert both.quick.buckets() == both.plain.buckets()
    return ours, client


async def test_a_request_that_comes_before_aiohttp_waits_is_for_the_lane(both: Both) -> None:
    await both.ask(HIT)
    both.taken.clear()
    answers, client = await alike(both, [FORWARDED], [HIT], [FORWARDED], [HIT], [HEAD], [REFUSED], [FORWARDED])
    assert client.early == 2
    assert both.taken == [HIT, HIT, HEAD, REFUSED]
    assert [answer[9:12] for answer in answers] == [b"200", b"200", b"200", b"200", b"403", b"403", b"200"]


async def test_what_the_lane_begins_early_the_ordinary_lane_goes_on_with(both: Both) -> None:
    begun = []
    original = both.quick.gateway._server._lane.take

    def noted(data: bytes, *rest: object) -> object:
        outcome = original(data, *rest)
        begun.append(outcome)
        return outcome

    for lane in (both.quick, both.plain):
        lane.upstream.answers(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok")
    both.quick.gateway._server._lane.take = noted
    _, client = await alike(both, *[[FORWARDED], [CARRIED]] * 3)
    assert client.early == 5
    assert [type(outcome).__name__ for outcome in begun] == ["bool", "Begun"] * 3
    assert [one.line for one in both.quick.upstream.received].count("GET /v3/stacks HTTP/1.1") == 6


@pytest.mark.parametrize("at", [1, 10, len(HIT) - 2, len(HIT) - 1])
async def test_an_early_request_in_two_segments_is_for_aiohttp(both: Both, at: int) -> None:
    await both.ask(HIT)
    both.taken.clear()
    await alike(both, [FORWARDED], [HIT[:at], HIT[at:]], [FORWARDED], [HIT])
    assert both.taken == [HIT]


@pytest.mark.parametrize(
    "segments",
    [
        [HIT + FORWARDED],
        [FORWARDED + HIT],
        [HIT + HIT],
        [FORWARDED, HIT],
        [HIT, FORWARDED, HIT],
        [FORWARDED, FORWARDED],
    ],
    ids=lambda segments: "+".join(str(segment.count(b"HTTP/1.1")) for segment in segments),
)
async def test_pipelined_behind_an_answer_that_is_out(both: Both, segments: list[bytes]) -> None:
    await both.ask(HIT)
    answers, _ = await alike(both, [FORWARDED], segments, [HIT])
    assert len(answers) == 2 + b"".join(segments).count(b"HTTP/1.1")


async def test_a_request_behind_one_that_is_under_way_waits_for_its_answer(both: Both) -> None:
    await both.ask(HIT)
    both.taken.clear()
    gateway, stub = both.quick.gateway, both.quick.upstream
    client, answer, asked, go_on = Prompt([[FORWARDED], [FORWARDED]]), stub.script, asyncio.Event(), asyncio.Event()
    client.serve(gateway)
    while client.connection._waiter is None:
        await asyncio.sleep(0)
    client.next()
    while client.rounds:
        await asyncio.sleep(0)

    async def slowly(*given: object) -> None:
        asked.set()
        await go_on.wait()
        await answer(*given)

    stub.script = slowly
    await asked.wait()
    client.rounds.append([HIT])
    client.next()
    await asyncio.sleep(0)
    assert both.taken == []
    assert len(client.connection._messages) == 1
    go_on.set()
    paths = re.findall(rb"fwd=bypass|;hit;", await client.end())
    assert paths == [b"fwd=bypass", b"fwd=bypass", b";hit;"]


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(get("/v3/stacks", "Connection: close"), id="RFC9112-9.6-close"),
        pytest.param(get("/v3/stacks", version="HTTP/1.0"), id="RFC9112-9.3-http-1.0"),
        pytest.param(FORWARDED[:-4], id="malformed"),
    ],
)
async def test_nothing_is_answered_on_a_connection_that_ends(both: Both, first: bytes) -> None:
    await both.ask(HIT)
    both.taken.clear()
    if first == FORWARDED[:-4]:
        first += b"\r\n: x\r\n\r\n"
    answers, client = await alike(both, [first], [HIT])
    assert len(answers) == 1
    assert client.early == 0
    assert both.taken == []


async def test_content_is_swallowed_before_a_next_request_is_begun(both: Both) -> None:
    await both.ask(HIT)
    both.taken.clear()
    _, client = await alike(both, [CREATED], [HIT], [FORWARDED], [HIT])
    assert client.early == 2, "behind the hit, which aiohttp was given, and behind the request that was forwarded"
    assert both.taken == [HIT]


async def test_an_upgrade_that_is_declined_is_followed_by_aiohttp(both: Both) -> None:
    await both.ask(HIT)
    both.taken.clear()
    upgrade = get("/v3/stacks", "Connection: upgrade", "Upgrade: websocket")
    _, client = await alike(both, [upgrade], [HIT])
    assert client.early == 0


async def test_a_drain_that_begins_with_an_answer_ends_the_connection_with_the_next(both: Both) -> None:
    await both.ask(HIT)
    both.taken.clear()
    for lane in (both.quick, both.plain):
        client = Prompt([[FORWARDED], [HIT], [HIT]])
        client.serve(lane.gateway)
        while client.connection._waiter is None:
            await asyncio.sleep(0)
        plain_next = client.next

        def drained(server=lane.gateway._server, go_on=plain_next) -> None:
            server.last_answers()
            go_on()

        client.next()
        client.next = drained
        answers = (await client.end()).split(b"HTTP/1.1 ")[1:]
        assert len(answers) == 2
        assert b"Connection: close" not in answers[0]
        assert b"Connection: close" in answers[1]
    assert both.taken == []


async def test_a_shutdown_answers_nothing_more(both: Both) -> None:
    client = Prompt([[FORWARDED], [HIT]])
    client.serve(both.quick.gateway)
    while client.connection._waiter is None:
        await asyncio.sleep(0)
    go_on = client.next

    def ended() -> None:
        client.connection.force_close()
        go_on()

    client.next()
    client.next = ended
    assert (await client.end()).count(b"HTTP/1.1 ") == 1
    assert both.taken == []
