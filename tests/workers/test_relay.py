"""What a worker tells the others, and what waits for it."""

from __future__ import annotations

import asyncio

from gateway.store.memory import MemoryStore
from gateway.workers.channel import GoneError
from gateway.workers.relay import Relay, RelayedPages


class Others:
    """The other workers, who confirm when they are let."""

    def __init__(self) -> None:
        self.told: list[list[str]] = []
        self.confirm = asyncio.Event()

    async def tell(self, tags: list[str]) -> None:
        self.told.append(tags)
        await self.confirm.wait()


async def test_an_answer_waits_until_all_have_confirmed() -> None:
    others = Others()
    relay = Relay(others.tell)
    relay.announce(["b"])
    relay.announce(["a"])
    waiting = asyncio.create_task(relay.announced())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert others.told == [["a", "b"]], "what is announced in one turn is told at once"
    assert not waiting.done()
    relay.announce(["c"])
    others.confirm.set()
    await waiting
    assert others.told == [["a", "b"], ["c"]]


async def test_who_gives_up_waiting_does_not_take_the_message_back() -> None:
    others = Others()
    relay = Relay(others.tell)
    relay.announce(["a"])
    waiting = asyncio.create_task(relay.announced())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    others.confirm.set()
    await relay.announced()
    assert others.told == [["a"]]


async def test_without_a_supervisor_a_write_is_answered() -> None:
    async def gone(_: list[str]) -> None:
        raise GoneError

    relay = Relay(gone)
    relay.announce(["a"])
    await relay.announced()


async def test_what_is_dropped_here_is_announced_and_nothing_else_is() -> None:
    others = Others()
    others.confirm.set()
    relay = Relay(others.tell)
    pages = RelayedPages(MemoryStore(max_bytes=1 << 20, max_entry_bytes=1 << 20), relay)
    assert pages.invalidate([]) == 0
    pages.generation(["a"])
    await relay.announced()
    assert others.told == []
    pages.invalidate({"a"})
    assert pages.generation(["a"]) > 0
    await relay.announced()
    assert others.told == [["a"]]
