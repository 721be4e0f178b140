"""Gateways that share a real Valkey: what a write through one makes void, none of the others serves."""

from __future__ import annotations

import asyncio

from tests.shared.pair import site
from tests.shared.servers import server


async def test_a_page_one_has_fetched_is_the_others_too() -> None:
    async with server() as valkey, site(f"url: {valkey.url}") as two:
        await two.in_touch()
        assert "fwd=miss" in (await two.read(0))[1]
        await two.gateways[0].sharing.pages.drain()
        name, status = await two.read(1)
        assert (name, two.controller.reads) == ("0", 1)
        assert ";hit" in status
        assert ";hit" in (await two.read(1))[1]
        assert two.gateways[1].sharing.pages.counts["hit"] == 1


async def test_a_thousand_writes_through_one_are_each_visible_to_the_next_read_through_the_other() -> None:
    async with server() as valkey, site(f"url: {valkey.url}") as two:
        await two.in_touch()
        for number in range(1000):
            writer = number % 2
            await two.write(writer, str(number))
            assert (await two.read(1 - writer))[0] == str(number)
            assert (await two.read(writer))[0] == str(number)
        assert all(one.sharing.invalidations.counts["unacknowledged"] == 0 for one in two.gateways)
        assert all(one.sharing.invalidations.lost == 0 for one in two.gateways)


async def test_a_thousand_writes_are_visible_also_while_the_store_restarts() -> None:
    async with server() as valkey, site(f"url: {valkey.url}") as two:
        await two.in_touch()
        done = asyncio.Event()

        async def disturb() -> None:
            while not done.is_set():
                await asyncio.sleep(0.15)
                valkey.kill()
                await asyncio.sleep(0.15)
                await valkey.start()

        disturbing = asyncio.create_task(disturb())
        for number in range(1000):
            writer = number % 2
            await two.write(writer, str(number))
            assert (await two.read(1 - writer))[0] == str(number), number
        done.set()
        await disturbing
        await two.in_touch()
        assert all(one.sharing.invalidations.lost > 0 for one in two.gateways)
