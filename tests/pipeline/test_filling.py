"""Content read by many while it comes in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.pipeline import filling as module
from gateway.pipeline.filling import Budget, Filling, Reader
from gateway.pipeline.ports import UpstreamError


class Source:
    """Pieces, when the test gives them."""

    def __init__(self, filling: Filling) -> None:
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.taken = 0
        self.task = asyncio.ensure_future(filling.pump(self._chunks()))

    async def _chunks(self) -> AsyncIterator[bytes]:
        while (piece := await self._pieces.get()) is not None:
            self.taken += 1
            yield piece

    async def give(self, *pieces: bytes | None) -> None:
        for piece in pieces:
            self._pieces.put_nowait(piece)
        await settle()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def rest(reader: Reader) -> bytes:
    return b"".join([piece async for piece in reader])


@pytest.fixture(autouse=True)
def small_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WINDOW", 4)


async def test_what_fits_is_collected_without_waiting_for_anybody() -> None:
    budget = Budget(100)
    filling = Filling(limit=10, budget=budget)
    reader, source = filling.reader(), Source(filling)
    await source.give(b"12345", b"", b"67890", None)
    assert await source.task == b"1234567890"
    assert (filling.size, filling.keeping, budget.held) == (10, True, 10)
    assert not filling.ended
    filling.end(content=b"1234567890")
    await filling.finished()
    assert await rest(reader) == b"1234567890"
    await reader.aclose()
    assert budget.held == 0
    assert await rest(filling.reader()) == b"1234567890", "who comes after the end gets all of it"


async def test_the_first_end_counts() -> None:
    filling = Filling(limit=10, budget=Budget(100))
    filling.end(content=b"all")
    filling.end(fault=UpstreamError("broken", "too late"))
    assert filling.complete == b"all"


async def test_the_slowest_reader_sets_the_pace_of_what_is_not_kept() -> None:
    budget = Budget(100)
    filling = Filling(limit=4, budget=budget)
    quick, slow, source = filling.reader(), filling.reader(), Source(filling)
    await source.give(b"1234", b"5678", b"9", None)
    assert source.taken == 2, "no more than the window is fetched ahead"
    assert not filling.keeping
    assert await anext(quick) == b"1234"
    await settle()
    assert source.taken == 2
    assert await anext(slow) == b"1234"
    await settle()
    assert (source.taken, budget.held) == (3, 5)
    with pytest.raises(LookupError):
        filling.reader()
    assert [await anext(quick), await anext(slow)] == [b"5678", b"5678"]
    assert await source.task is None
    filling.end()
    assert [await rest(quick), await rest(slow)] == [b"9", b"9"]
    await quick.aclose()
    await slow.aclose()
    assert budget.held == 0


async def test_a_reader_that_leaves_holds_nobody_up() -> None:
    filling = Filling(limit=4, budget=Budget(100))
    quick, slow, source = filling.reader(), filling.reader(), Source(filling)
    await source.give(b"1234", b"5678", b"9", None)
    assert [await anext(quick), await anext(quick)] == [b"1234", b"5678"]
    await slow.aclose()
    await settle()
    assert source.taken == 3


async def test_a_reader_that_stands_still_is_cut_off_when_others_wait() -> None:
    filling = Filling(limit=4, budget=Budget(100), patience=0.0)
    quick, still, source = filling.reader(), filling.reader(), Source(filling)
    reading = asyncio.ensure_future(rest(quick))
    await source.give(b"1234", b"5678", b"9", None)
    assert await source.task is None
    filling.end()
    assert await reading == b"123456789"
    with pytest.raises(UpstreamError, match="stood still"):
        await rest(still)


async def test_a_lone_reader_may_stand_still() -> None:
    filling = Filling(limit=4, budget=Budget(100), patience=0.0)
    reader, source = filling.reader(), Source(filling)
    await source.give(b"1234", b"5678", b"9", None)
    assert source.taken == 2
    reading = asyncio.ensure_future(rest(reader))
    assert await source.task is None
    filling.end()
    assert await reading == b"123456789"


async def test_what_nobody_reads_is_kept_or_given_up() -> None:
    filling = Filling(limit=4, budget=Budget(100))
    source = Source(filling)
    await source.give(b"1234", None)
    assert await source.task == b"1234"
    filling = Filling(limit=4, budget=Budget(100))
    source = Source(filling)
    await source.give(b"12345")
    with pytest.raises(UpstreamError, match="nobody reads"):
        await source.task


async def test_the_budget_of_all_makes_what_comes_pass_through() -> None:
    budget = Budget(6)
    one, other = Filling(limit=10, budget=budget), Filling(limit=10, budget=budget)
    reader, source, second = one.reader(), Source(one), Source(other)
    await second.give(b"1234")
    await source.give(b"1234")
    assert (one.keeping, other.keeping) == (False, True)
    await reader.aclose()
    await second.give(None)
    assert await second.task == b"1234"
    await source.give(b"5")
    with pytest.raises(UpstreamError):
        await source.task


async def test_a_fault_comes_behind_the_last_piece() -> None:
    filling = Filling(limit=10, budget=Budget(100))
    reader, source = filling.reader(), Source(filling)
    await source.give(b"some")
    filling.end(fault=UpstreamError("broken", "cut"))
    assert await anext(reader) == b"some"
    with pytest.raises(UpstreamError, match="cut"):
        await anext(reader)
    with pytest.raises(LookupError):
        filling.reader()
    source.task.cancel()


async def test_begin_waits_for_the_first_piece_and_leaves_on_a_fault() -> None:
    filling = Filling(limit=10, budget=Budget(100))
    left: list[bool] = []
    filling.abandoned = lambda: left.append(True)
    reader = filling.reader()
    beginning = asyncio.ensure_future(reader.begin())
    await settle()
    beginning.cancel()
    with pytest.raises(asyncio.CancelledError):
        await beginning
    assert left == [True]
    await reader.aclose()
    assert left == [True], "closing twice is closing once"
    source, reader = Source(filling), filling.reader()
    beginning = asyncio.ensure_future(reader.begin())
    await source.give(b"one", b"two", None)
    await beginning
    filling.end(content=await source.task)
    assert await rest(reader) == b"onetwo"


async def test_finished_waits() -> None:
    filling = Filling(limit=10, budget=Budget(100))
    waiting = asyncio.ensure_future(filling.finished())
    await settle()
    assert not waiting.done()
    filling.end()
    await waiting
