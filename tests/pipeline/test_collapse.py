from __future__ import annotations

import asyncio

import pytest

from gateway.pipeline.collapse import Collapse


class Fetch:
    """A fetch that ends when it is told to."""

    def __init__(self) -> None:
        self.started = 0
        self.cancelled = 0
        self.result: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def __call__(self) -> str:
        self.started += 1
        try:
            return await asyncio.shield(self.result)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_ten_thousand_waiters_share_one_fetch() -> None:
    collapse: Collapse[str] = Collapse()
    fetch = Fetch()
    waiters = [asyncio.create_task(collapse.run("key", fetch)) for _ in range(10_000)]
    await settle()
    fetch.result.set_result("page")
    answers = await asyncio.gather(*waiters)
    assert fetch.started == 1
    assert {page for page, _ in answers} == {"page"}
    assert sum(joined for _, joined in answers) == 9_999
    assert len(collapse) == 0


async def test_different_keys_are_fetched_apart() -> None:
    collapse: Collapse[str] = Collapse()
    one, other = Fetch(), Fetch()
    tasks = [
        asyncio.create_task(collapse.run(("domain-a", "/x"), one)),
        asyncio.create_task(collapse.run(("domain-b", "/x"), other)),
    ]
    await settle()
    assert (one.started, other.started) == (1, 1)
    one.result.set_result("a")
    other.result.set_result("b")
    assert [page for page, _ in await asyncio.gather(*tasks)] == ["a", "b"]


async def test_the_fetch_outlives_the_one_who_started_it() -> None:
    collapse: Collapse[str] = Collapse()
    fetch = Fetch()
    first = asyncio.create_task(collapse.run("key", fetch))
    await settle()
    second = asyncio.create_task(collapse.run("key", fetch))
    await settle()
    first.cancel()
    await settle()
    assert fetch.cancelled == 0
    fetch.result.set_result("page")
    assert await second == ("page", True)


async def test_the_last_waiter_takes_the_fetch_with_it() -> None:
    collapse: Collapse[str] = Collapse()
    fetch = Fetch()
    tasks = [asyncio.create_task(collapse.run("key", fetch)) for _ in range(3)]
    await settle()
    for task in tasks:
        task.cancel()
    await settle()
    assert fetch.cancelled == 1
    assert len(collapse) == 0


async def test_a_newcomer_does_not_join_a_dying_fetch() -> None:
    collapse: Collapse[str] = Collapse()
    dying, fresh = Fetch(), Fetch()
    leaver = asyncio.create_task(collapse.run("key", dying))
    await settle()
    leaver.cancel()
    await asyncio.sleep(0)  # the waiter is gone, the fetch task has not run its cancellation yet
    newcomer = asyncio.create_task(collapse.run("key", fresh))
    await settle()
    assert fresh.started == 1
    fresh.result.set_result("page")
    assert await newcomer == ("page", False)


async def test_a_failure_reaches_every_waiter_and_is_forgotten() -> None:
    collapse: Collapse[str] = Collapse()
    fetch = Fetch()
    tasks = [asyncio.create_task(collapse.run("key", fetch)) for _ in range(3)]
    await settle()
    fetch.result.set_exception(ConnectionError("gone"))
    for answer in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(answer, ConnectionError)
    again = Fetch()
    again.result.set_result("page")
    assert await collapse.run("key", again) == ("page", False)


@pytest.mark.parametrize("victim", range(4))
async def test_cancelling_any_waiter_at_any_step_harms_no_other(victim: int) -> None:
    for steps in range(6):
        collapse: Collapse[str] = Collapse()
        fetch = Fetch()
        tasks = [asyncio.create_task(collapse.run("key", fetch)) for _ in range(4)]
        for _ in range(steps):
            await asyncio.sleep(0)
        tasks[victim].cancel()
        await settle()
        fetch.result.set_result("page")
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        others = [answer for index, answer in enumerate(answers) if index != victim]
        assert all(isinstance(answer, tuple) and answer[0] == "page" for answer in others)
        assert len(collapse) == 0


async def test_the_next_fetch_is_joined_by_those_who_came_before_it_began_and_by_nobody_else() -> None:
    collapse: Collapse[int] = Collapse()
    gates = [asyncio.Event() for _ in range(3)]
    begun: list[int] = []

    async def fetch() -> int:
        number = len(begun)
        begun.append(number)
        await gates[number].wait()
        return number

    first = asyncio.create_task(collapse.run_next("key", fetch))
    await asyncio.sleep(0)
    second = [asyncio.create_task(collapse.run_next("key", fetch)) for _ in range(5)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert begun == [0]
    gates[0].set()
    assert await first == (0, False)
    while len(begun) < 2:
        await asyncio.sleep(0)
    third = asyncio.create_task(collapse.run_next("key", fetch))
    gates[1].set()
    assert sorted(await asyncio.gather(*second)) == [(1, False), *[(1, True)] * 4]
    gates[2].set()
    assert (await third)[0] == 2
    assert begun == [0, 1, 2]
    assert len(collapse) == 0
