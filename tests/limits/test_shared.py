"""Shared counters over a real Valkey: the script against the arithmetic, several processes, the store away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import pytest
from valkey.asyncio import Valkey

from gateway.core.rate_policy import Mode, RatePolicy, Who
from gateway.core.ratelimit import Algorithm, FixedWindow, Gcra, stagger
from gateway.limits.counting import COUNT, SETTLE, SHARDS, Shard
from gateway.limits.leases import lease_of
from gateway.limits.reporter import Reporter
from gateway.limits.shared import SharedCounters
from gateway.shared.link import Link
from gateway.shared.options import Options
from gateway.shared.seal import Sealer
from tests.limits.script import count
from tests.shared.servers import Server, cluster, eventually, server

ME = ("issuer", "zone", "me")


def policy(name: str, bucket: Algorithm, mode: Mode = Mode.ENFORCE) -> RatePolicy:
    return RatePolicy(name, Who.PRINCIPAL, bucket, frozenset({"list"}), mode)


@asynccontextmanager
async def processes(
    one: Server,
    number: int,
    *policies: RatePolicy,
    most: int = 1000,
    settled: bool = True,
    patience: float = 0.05,
    nodes: list[Server] | None = None,
) -> AsyncIterator[list[tuple[Link, Reporter, SharedCounters]]]:
    found = []
    if settled:
        run = (await one.ask("INFO", "server"))["run_id"]
        for shard in range(SHARDS):
            await one.ask("SET", f"{{t:counters:{shard}}}:epoch", f"{run} long 1.0")
    for _ in range(number):
        where = tuple(("127.0.0.1", node.port) for node in nodes or [one])
        mode: Literal["cluster", "standalone"] = "cluster" if nodes else "standalone"
        given = Options(where, mode=mode, retry_interval=0.05, max_added_latency=patience)
        link = Link(given, probe_key="{t}:probe")
        await link.start()
        reporter = Reporter(link, Sealer(b"k" * 32, "t"), "t", clock=time.time, processes=lambda: number)
        await reporter.start()
        found.append((link, reporter, SharedCounters(policies, reporter, max_buckets=most, lease=10)))
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
        phase = stagger("me", 0.0, rule.window) % rule.window
        for turn in range(60):
            units = (1.0, 2.0, 0.5)[turn % 3]
            if isinstance(rule, Gcra):
                arguments = ("g", units, rule.window / rule.limit, 0.0, 0.0, 0.0, 1e9)
            else:
                arguments = ("w", units, rule.window, phase, 0.0, 0.0, 1e9)
            told = await client.execute_command("EVALSHA", digest, 2, "epoch", "bucket", "nonce", 0, "new", *arguments)
            assert (told[0], told[1], told[4]) == (b"nonce", b"new", 0)
            now, instant, counted = float(told[2]), float(told[5]), float(told[6])
            simulated, expected_instant, expected_counted = count(simulated, now, *arguments)
            assert instant == pytest.approx(expected_instant, abs=1e-5)
            assert counted == pytest.approx(expected_counted, abs=1e-6)
            if isinstance(rule, Gcra) and turn < 3:
                # The core's state, as long as it does not refuse: the script counts what was given away already.
                decision = rule.decide(state, now, units)
                state = decision.state
                assert instant == pytest.approx(state, abs=1e-5)
            elif isinstance(rule, FixedWindow):
                assert instant == pytest.approx(stagger("me", now, rule.window), abs=1e-5)
        assert await client.execute_command("PTTL", "bucket") > 0


async def counted(client: Valkey, key: str, *arguments: object, ahead: float = 0.0) -> tuple[float, float, bool]:
    """What the script says of one bucket, told by somebody who expects the server's clock to be `ahead`."""
    seconds, micro = await client.execute_command("TIME")
    expected = int(seconds) + int(micro) / 1e6 + ahead
    told = await client.execute_command("EVAL", COUNT.source, 2, "epoch", key, "n", expected, "e", *arguments)
    return float(told[5]), float(told[6]), bool(told[4])


async def test_the_script_takes_the_highest_level_it_is_told_within_reason_and_of_its_own_time() -> None:
    async with server() as one, one.client() as client:
        seconds, _ = await client.execute_command("TIME")
        base, most = float(seconds), 500.0
        told = await counted(client, "g", "g", 0.0, 1.0, 0.0, base + 100, 0.0, most)
        assert told == (base + 100, 0.0, True), "a store that knows nothing takes it"
        assert (await counted(client, "g", "g", 0.0, 1.0, 0.0, base + 50, 0.0, most))[0] == base + 100
        assert (await counted(client, "g", "g", 2.0, 1.0, 0.0, base + 100, 0.0, most))[0] == base + 102
        for ahead in (0.5, -0.5, 1e6):
            told = await counted(client, "g", "g", 0.0, 1.0, 0.0, base + 400, 0.0, most, ahead=ahead)
            assert told == (base + 102, 0.0, False), "of another clock's time"
        assert (await counted(client, "g", "g", 0.0, 1.0, 0.0, 1e300, 0.0, most))[0] < base + most + 60
        for junk in ("nan", "inf", "1e308", "-inf", "", "words"):
            await client.execute_command("SET", "j", junk)
            assert (await counted(client, "j", "g", 1.0, 1.0, 0.0, 0.0, 0.0, most))[0] <= base + most + 60

        start = stagger("me", base, 86_400.0)
        window = ("w", 0.0, 86_400.0, start % 86_400.0)
        assert await counted(client, "w", *window, start, 7.0, most) == (start, 7.0, True)
        assert await counted(client, "w", *window, start + 0.05, 5.0, most) == (start, 7.0, True)
        assert await counted(client, "w", *window, start - 86_400, 9.0, most) == (start, 7.0, True), "of one before"
        assert await counted(client, "w", *window, start, 9.0, most, ahead=5.0) == (start, 7.0, False)
        assert (await counted(client, "w", *window, start, 1e300, most))[1] == most
        for junk in ("nan nan", f"{start} nan", f"{start} -5", "", "words", "1 2 3"):
            await client.execute_command("SET", "j", junk)
            assert (await counted(client, "j", *window, 0.0, 0.0, most))[1] == 0.0


async def test_the_script_begins_a_new_epoch_when_its_data_may_not_be_what_it_was() -> None:
    async def epoch(fresh: str) -> tuple[str, float]:
        told = await one.ask("EVAL", COUNT.source, 1, "epoch", "n", 0, fresh)
        return told[1].decode(), float(told[3])

    async with server() as one:
        assert await epoch("a") == ("a", 0.0)
        assert (await epoch("b"))[0] == "a"
        await one.ask("FLUSHALL")
        assert (await epoch("c"))[0] == "c"
        await one.ask("SAVE")
        one.kill()
        await one.start()
        assert await one.ask("EXISTS", "epoch") == 1
        assert (await epoch("d"))[0] == "d", "another run, even with the data of the one before"
        for junk in ("", "nonsense", "a b c", "a b nan", "a b 1e300"):
            await one.ask("SET", "epoch", junk)
            assert (await epoch("e"))[0] == "e"


def test_a_shard_follows_a_server_whose_clock_differs_and_no_other() -> None:
    shard = Shard()
    assert shard.expects(100.0) == 0.0
    assert shard.learn("a", 5000.0, 100.0, 100.01, same=False)
    kept = shard.offset
    assert kept == pytest.approx(4899.995)
    for late in range(10):  # answers that took their time move nothing
        assert not shard.learn("a", 5001.0 + late, 100.9 + late, 101.04 + late, same=True)
    assert shard.offset == kept
    assert not shard.learn("a", 5100.0, 199.0, 201.0, same=False), "late, but the clocks agree"
    assert shard.offset == kept
    assert shard.learn("b", 5207.0, 300.0, 300.01, same=False), "another server's"
    assert shard.expects(300.0) == pytest.approx(5207.0, abs=0.011)


async def test_many_buckets_are_counted_in_one_step() -> None:
    async with server() as one, one.client() as client:
        buckets = [
            *("g", 1.0, 10.0, 0.0, 0.0, 0.0, 1e9),
            *("w", 2.0, 60.0, 5.0, 0.0, 0.0, 1e9),
            *("g", 3.0, 1.0, 0.0, 0.0, 0.0, 1e9),
        ]
        told = await client.execute_command("EVAL", COUNT.source, 4, "epoch", "a", "b", "c", "n", 0, "e", *buckets)
        now = float(told[2])
        assert float(told[5]) - now == pytest.approx(10.0, abs=1e-5)
        assert float(told[8]) == 2.0
        assert float(told[9]) - now == pytest.approx(3.0, abs=1e-5)


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


@pytest.mark.parametrize("how", ["flushed", "restarted", "restored"])
@pytest.mark.parametrize("rule", [Gcra(600, 60.0), FixedWindow(600, 86_400.0)], ids=["gcra", "fixed-window"])
async def test_a_store_that_loses_its_data_again_and_again_under_load_admits_no_burst_more(
    rule: Algorithm, how: str
) -> None:
    """Four processes ask for more than there is, all the time; measured against the bound."""
    async with server() as one, processes(one, 4, policy("one", rule)) as found:
        asked, admitted, ends = 0, 0, asyncio.Event()

        async def load(counters: SharedCounters) -> None:
            nonlocal asked, admitted
            while not ends.is_set():
                admitted += counters.take([(0, ME, 1.0)], time.time())[0].allowed
                asked += 1
                await asyncio.sleep(0.001)

        began = time.monotonic()
        loads = [asyncio.create_task(load(counters)) for *_, counters in found]
        for when in (150, 300, 450, 600):
            await eventually(lambda when=when: admitted >= when)
            if how == "flushed":
                await one.ask("FLUSHALL")
                continue
            if how == "restored" and when == 150:
                await one.ask("SAVE")
            one.kill()
            await one.start()
        before = asked
        await eventually(lambda: asked >= before + 4000)
        ends.set()
        await asyncio.gather(*loads)
        rate = rule.limit / rule.window if isinstance(rule, Gcra) else 0.0
        leases = 4 * lease_of(600, 10) * (1 if how == "flushed" else 2)
        bound = 600 + (time.monotonic() - began) * rate + leases
        assert 600 <= admitted <= bound, f"{admitted} of {bound}"


async def test_a_cluster_that_fails_over_under_load_admits_no_burst_more() -> None:
    """The master that has the bucket is killed; what its replica had not got yet is told to it."""
    async with (
        cluster(3, 3) as nodes,
        processes(nodes[0], 4, policy("one", Gcra(600, 3600.0)), settled=False, patience=0.3, nodes=nodes) as found,
    ):
        admitted, asked, ends = 0, 0, asyncio.Event()

        async def load(counters: SharedCounters) -> None:
            nonlocal admitted, asked
            while not ends.is_set():
                admitted += counters.take([(0, ME, 1.0)], time.time())[0].allowed
                asked += 1
                await asyncio.sleep(0.001)

        began = time.monotonic()
        loads = [asyncio.create_task(load(counters)) for *_, counters in found]
        name = found[0][2]._tables[0].buckets
        await eventually(lambda: admitted >= 300 and all(ME in each[2]._tables[0].buckets for each in found))
        reporter = found[0][1]
        shard = reporter._shard_of(name[ME])
        slot = await nodes[0].ask("CLUSTER", "KEYSLOT", f"{{t:counters:{shard}}}:epoch")
        owner = next(number for number in range(3) if slot <= (16383 if number == 2 else (number + 1) * 5461 - 1))
        epochs = [each._shards[shard].epoch for _, each, _ in found]
        nodes[owner].kill()

        def told() -> bool:
            return all(
                each._shards[shard].epoch not in {"", before}
                for (_, each, _), before in zip(found, epochs, strict=True)
            )

        await eventually(told)
        before = asked
        await eventually(lambda: asked >= before + 4000)
        ends.set()
        await asyncio.gather(*loads)
        bound = 600 + (time.monotonic() - began) / 6 + 2 * 4 * lease_of(600, 10)
        assert 560 <= admitted <= bound, f"{admitted} of {bound}"


async def test_who_alone_knew_and_has_no_requests_tells_a_store_that_has_forgotten_it() -> None:
    async with server() as one, processes(one, 2, policy("one", Gcra(400, 3600.0))) as found:
        (_, reporter, knows), (_, _, other) = found
        while knows.take([(0, ME, 1.0)], time.time())[0].allowed:
            answered = reporter.reports["answered"]
            if knows.peek((0, ME, 0.0), time.time()).remaining % 5 < 1:
                await eventually(lambda answered=answered: reporter.reports["answered"] > answered)
        await one.ask("FLUSHALL")

        async def told() -> bool:
            return len(await one.ask("KEYS", "*counters*")) > SHARDS

        await eventually(told)
        assert other.take([(0, ME, 1.0)], time.time())[0].allowed, "it has not heard of it"
        await eventually(lambda: not other.take([(0, ME, 1.0)], time.time())[0].allowed)


async def test_an_answer_of_a_store_that_may_not_have_been_told_all_fills_no_lease() -> None:
    """Until then each process has its share."""
    async with server() as one, processes(one, 2, policy("one", Gcra(400, 3600.0)), settled=False) as found:
        counters = found[0][2]
        began = time.monotonic()
        admitted = 0
        while time.monotonic() - began < SETTLE / 2:
            admitted += counters.take([(0, ME, 1.0)], time.time())[0].allowed
            await asyncio.sleep(0.001)
        assert 200 <= admitted <= 200 + lease_of(400, 10) + 1
        assert not counters.take([(0, ME, 1.0)], time.time())[0].allowed, "so that nothing is left to be reported"

        async def rest() -> bool:
            nonlocal admitted
            while counters.take([(0, ME, 1.0)], time.time())[0].allowed:
                admitted += 1
            return admitted >= 400

        await eventually(rest)
        assert admitted <= 400 + lease_of(400, 10) + 1


async def test_a_level_said_in_another_clocks_time_is_moved_and_told_again() -> None:
    async with server() as one, processes(one, 1, policy("one", Gcra(100, 3600.0))) as found:
        _, reporter, counters = found[0]
        for _ in range(20):
            counters.take([(0, ME, 1.0)], time.time())
        await eventually(lambda: reporter.reports["answered"] > 0)
        for shard in reporter._shards:
            if shard.offset is not None:
                shard.offset += 7.0  # as if the server before had been so far ahead
        await one.ask("FLUSHALL")

        async def level() -> float:
            names = [name for name in await one.ask("KEYS", "*counters*") if not name.endswith(b":epoch")]
            return float(await one.ask("GET", names[0])) - time.time()

        await eventually(level)
        await eventually(lambda: all(abs(shard.offset or 0.0) < 1e9 + time.time() for shard in reporter._shards))
        assert await level() == pytest.approx(20 * 36, abs=15)


async def test_very_many_buckets_are_told_to_an_empty_store_without_opening_the_breaker() -> None:
    """All at once they would take several times as long as one command may."""
    async with server() as one, processes(one, 1, policy("one", Gcra(100, 3600.0)), most=20_000, patience=0.5) as found:
        link, _, counters = found[0]
        for number in range(20_000):
            counters.take([(0, ("", "", str(number)), 1.0)], time.time())
            if number % 100 == 0:
                await asyncio.sleep(0)

        async def whole() -> bool:
            return int(await one.ask("DBSIZE")) >= 20_000

        await eventually(whole)
        one.kill()
        await eventually(lambda: link.fault is not None)
        await one.start()
        opened = link.opened
        await eventually(whole)
        assert link.opened == opened


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
        names = [name for name in names if not name.endswith(b":epoch")]
        assert len(names) == 1
        assert b"me" not in names[0].split(b":")[-1]
