"""Shared counters over a real Valkey: the script against the arithmetic, several processes, the store away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.core.rate_policy import Mode, RatePolicy, Who
from gateway.core.ratelimit import Algorithm, FixedWindow, Gcra, stagger
from gateway.limits.leases import lease_of
from gateway.limits.reporter import COUNT, Reporter
from gateway.limits.shared import SharedCounters
from gateway.shared.link import Link
from gateway.shared.options import Options
from gateway.shared.seal import Sealer
from tests.limits.script import count
from tests.shared.servers import Server, eventually, server

ME = ("issuer", "zone", "me")


def policy(name: str, bucket: Algorithm, mode: Mode = Mode.ENFORCE) -> RatePolicy:
    return RatePolicy(name, Who.PRINCIPAL, bucket, frozenset({"list"}), mode)


@asynccontextmanager
async def processes(
    one: Server, number: int, *policies: RatePolicy
) -> AsyncIterator[list[tuple[Link, Reporter, SharedCounters]]]:
    found = []
    for _ in range(number):
        link = Link(Options((("127.0.0.1", one.port),), retry_interval=0.05), probe_key="{t}:probe")
        await link.start()
        reporter = Reporter(link, Sealer(b"k" * 32, "t"), "t", clock=time.time, processes=lambda: number)
        await reporter.start()
        found.append((link, reporter, SharedCounters(policies, reporter, max_buckets=1000, lease=10)))
    try:
        yield found
    finally:
        for link, reporter, _ in found:
            await reporter.stop()
            await link.stop()


@pytest.mark.parametrize(
    "rule", [Gcra(7, 3.0), Gcra(600, 60.0, 20), FixedWindow(5, 1.0)], ids=["gcra", "burst", "fixed-window"]
)
async def test_the_script_counts_as_the_arithmetic_does(rule: Algorithm) -> None:
    """A server's answers, put beside the core's own states and the simulation's, on the server's clock."""
    async with server() as one, one.client() as client:
        digest = await client.execute_command("SCRIPT", "LOAD", COUNT.source)
        state, simulated = None, None
        seconds, micro = await client.execute_command("TIME")
        for turn in range(60):
            units = (1.0, 2.0, 0.5)[turn % 3]
            if isinstance(rule, Gcra):
                arguments = ("g", units, rule.window / rule.limit, 0.0)
            else:
                arguments = ("w", units, rule.window, stagger("me", 0.0, rule.window) % rule.window)
            told = await client.execute_command("EVALSHA", digest, 1, "bucket", "nonce", *arguments)
            seconds, micro = await client.execute_command("TIME")
            after = int(seconds) + int(micro) / 1e6
            first, second = float(told[1]), float(told[2])
            simulated, expected_first, expected_second = count(simulated, after, *arguments)
            assert told[0] == b"nonce"
            assert second == pytest.approx(expected_second, abs=1e-6)
            if isinstance(rule, Gcra):
                # The core's state, as long as it does not refuse: the script counts what was given away already.
                decision = rule.decide(state, after, units)
                assert first == pytest.approx(expected_first, abs=0.2)
                if decision.allowed and turn < 3:
                    assert first == pytest.approx(decision.state - after, abs=0.2)
                    state = decision.state
            else:
                start = stagger("me", after, rule.window)
                assert first == pytest.approx(after - start, abs=0.2) or first > rule.window - 0.2
        assert await client.execute_command("PTTL", "bucket") > 0


async def test_many_buckets_are_counted_in_one_step() -> None:
    async with server() as one, one.client() as client:
        told = await client.execute_command(
            *("EVAL", COUNT.source, 3, "a", "b", "c", "n", "g", 1.0, 10.0, 0.0, "w", 2.0, 60.0, 5.0, "g", 3.0, 1.0, 0.0)
        )
        assert told[0] == b"n"
        assert float(told[1]) == pytest.approx(10.0)
        assert float(told[4]) == 2.0
        assert float(told[5]) == pytest.approx(3.0)


@pytest.mark.parametrize("rule", [Gcra(400, 3600.0), FixedWindow(400, 86_400.0)], ids=["gcra", "fixed-window"])
async def test_several_processes_give_away_one_limit(rule: Algorithm) -> None:
    async with server() as one, processes(one, 4, policy("one", rule)) as found:
        admitted = 0
        for turn in range(1200):
            counters = found[turn % 4][2]
            admitted += counters.take([(0, ME, 1.0)], time.time())[0].allowed
            if turn % 8 == 0:
                await asyncio.sleep(0.002)
        lease = lease_of(400, 10)
        assert 400 <= admitted <= 400 + 4 * lease + 1
        assert all(reporter.reports["failed"] == 0 for _, reporter, _ in found)


async def test_the_hit_path_never_waits_and_the_store_away_means_local_shares() -> None:
    async with server() as one, processes(one, 2, policy("one", Gcra(400, 3600.0))) as found:
        assert found[0][2].take([(0, ME, 1.0)], time.time())[0].allowed
        await eventually(lambda: found[0][1].reports["answered"] > 0)
        one.kill()
        admitted = [
            sum(counters.take([(0, ME, 1.0)], time.time())[0].allowed for _ in range(600)) for *_, counters in found
        ]
        lease = lease_of(400, 10)
        assert all(200 <= number <= 200 + lease + 1 for number in admitted)
        assert found[0][1].beyond >= 200 - lease - 1
        await one.start()
        await eventually(lambda: all(link.fault is None for link, *_ in found))
        await eventually(lambda: all(reporter.reports["answered"] > 0 for _, reporter, _ in found))
        await eventually(
            lambda: not any(counters.take([(0, ME, 1.0)], time.time())[0].allowed for *_, counters in found)
        )


async def test_a_store_that_restarts_empty_is_told_again() -> None:
    async with server() as one, processes(one, 1, policy("one", Gcra(100, 3600.0))) as found:
        link, reporter, counters = found[0]
        for _ in range(10):
            counters.take([(0, ME, 1.0)], time.time())
        await eventually(lambda: reporter.reports["answered"] > 0)
        one.kill()
        counters.take([(0, ME, 1.0)], time.time())
        await one.start()
        await eventually(lambda: link.fault is None and reporter.reports["answered"] > 1)


async def test_all_or_nothing_and_shadow_as_in_memory() -> None:
    rules = (
        policy("real", Gcra(10, 3600.0)),
        policy("trial", Gcra(4, 3600.0), Mode.SHADOW),
        policy("wide", Gcra(9, 3600.0)),
    )
    async with server() as one, processes(one, 1, *rules) as found:
        counters = found[0][2]
        charges = [(0, ME, 1.0), (1, ME, 1.0), (2, ME, 1.0)]
        seen = []
        for _ in range(12):
            seen.append([decision.allowed for decision in counters.take(charges, time.time())])
            answered = found[0][1].reports["answered"]
            if seen[-1][0] and seen[-1][2]:
                await eventually(lambda answered=answered: found[0][1].reports["answered"] > answered)
        assert [row[1] for row in seen[:6]] == [True, True, True, True, False, False]
        assert sum(row[2] for row in seen) == 9
        assert int(counters.peek((0, ME, 0.0), time.time()).remaining) == 1, "the refused ones took nothing"
        assert counters.buckets() == {"real": 1, "trial": 1, "wide": 1}
        assert counters.evictions() == {"real": 0, "trial": 0, "wide": 0}


async def test_counters_go_on_where_those_before_them_stopped() -> None:
    async with server() as one, processes(one, 1, policy("one", Gcra(2, 3600.0))) as found:
        _, reporter, before = found[0]
        before.take([(0, ME, 1.0)], time.time())
        after = SharedCounters(
            [policy("other", Gcra(5, 60.0)), policy("one", Gcra(2, 3600.0))], reporter, max_buckets=10, lease=10
        )
        after.succeed(before)
        assert int(after.peek((1, ME, 0.0), time.time()).remaining) == 1
        assert int(after.peek((0, ME, 0.0), time.time()).remaining) == 5


async def test_whose_a_bucket_is_cannot_be_read_in_the_store() -> None:
    async with server() as one, processes(one, 1, policy("one", Gcra(100, 3600.0))) as found:
        found[0][2].take([(0, ME, 1.0)], time.time())
        await eventually(lambda: found[0][1].reports["answered"] > 0)
        async with one.client() as client:
            names = await client.execute_command("KEYS", "*counters*")
        assert len(names) == 1
        assert b"me" not in names[0].split(b":")[-1]
