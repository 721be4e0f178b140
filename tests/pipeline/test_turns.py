"""Long work in steps: everybody else in between, others' work in turn, and nothing left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from itertools import pairwise

import pytest

from gateway.pipeline.turns import in_turn


class Log(list[str]):
    """What happened, round by round of the event loop."""

    def work(self, name: str, steps: int, *, fault: bool = False) -> Generator[None, None, str]:
        try:
            for _ in range(steps):
                self.append(name)
                yield
            if fault:
                raise LookupError(name)
            return name
        finally:
            self.append(f"{name} over")

    def rounds(self) -> None:
        self.append("round")
        self.timer = asyncio.get_running_loop().call_soon(self.rounds)


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.mark.parametrize("steps", [0, 1, 7])
async def test_what_comes_of_it(log: Log, steps: int) -> None:
    assert await in_turn(log.work("a", steps)) == "a"
    assert log == ["a"] * steps + ["a over"]


async def test_between_two_steps_the_loop_goes_round_whoevers_they_are(log: Log) -> None:
    log.rounds()
    assert await asyncio.gather(*(in_turn(log.work(name, 5)) for name in "abc")) == ["a", "b", "c"]
    log.timer.cancel()
    told = [entry for entry in log if "over" not in entry]
    assert sorted(entry for entry in told if entry != "round") == sorted("abc" * 5)
    assert all("round" in pair for pair in pairwise(told))


async def test_work_takes_turns(log: Log) -> None:
    await asyncio.gather(*(in_turn(log.work(name, 20)) for name in "ab"))
    first = log.index("a over")
    assert log[:first].count("b") >= 19, "a short piece of work does not wait for a long one to end"


async def test_a_fault_is_the_callers_and_holds_nobody_up(log: Log) -> None:
    results = await asyncio.gather(
        in_turn(log.work("a", 2, fault=True)), in_turn(log.work("b", 5)), return_exceptions=True
    )
    assert isinstance(results[0], LookupError)
    assert results[1] == "b"


async def test_work_that_is_not_wanted_any_more_ends_and_holds_nobody_up(log: Log) -> None:
    tasks = [asyncio.ensure_future(in_turn(log.work(name, 1_000_000))) for name in "ab"]
    while log.count("b") < 3:
        await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert {"a over", "b over"} <= set(log)
    assert await asyncio.wait_for(in_turn(log.work("c", 3)), 10) == "c"


def test_each_event_loop_has_turns_of_its_own(log: Log) -> None:
    async def both() -> list[str]:
        return await asyncio.gather(in_turn(log.work("a", 3)), in_turn(log.work("b", 3)))

    for _ in range(3):
        assert asyncio.run(both()) == ["a", "b"]
