"""Calls between two processes, here the two ends of a socket pair."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from gateway.workers.channel import Channel, GoneError

Pair = Callable[..., Awaitable[tuple[Channel, Channel]]]


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    opened: list[Channel] = []

    async def make(**handlers) -> tuple[Channel, Channel]:
        one, other = Channel(handlers), Channel(handlers)
        for channel, end in zip((one, other), socket.socketpair(), strict=True):
            await channel.open(end)
            opened.append(channel)
        return one, other

    yield make
    for channel in opened:
        await channel.close()


async def test_both_sides_ask_and_answers_find_their_question(pair: Pair) -> None:
    async def double(number: int) -> int:
        await asyncio.sleep(0.001 * (5 - number))
        return 2 * number

    one, other = await pair(double=double)
    assert await asyncio.gather(*(one.call("double", n) for n in range(5)), other.call("double", 9)) == [
        0,
        2,
        4,
        6,
        8,
        18,
    ]


async def test_large_content_passes(pair: Pair) -> None:
    async def echo(content: bytes) -> bytes:
        return content

    one, _ = await pair(echo=echo)
    assert await one.call("echo", b"x" * 3_000_000) == b"x" * 3_000_000


async def test_who_waits_is_told_when_the_other_side_goes(pair: Pair) -> None:
    async def never(_: object) -> None:
        await asyncio.Event().wait()

    one, other = await pair(never=never)
    waiting = asyncio.create_task(one.call("never"))
    await asyncio.sleep(0)
    await other.close()
    with pytest.raises(GoneError):
        await waiting
    assert one.closed.is_set()
    with pytest.raises(GoneError):
        await one.call("never")
