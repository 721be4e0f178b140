"""Gateways that share a real Valkey: what a write through one makes void, none of the others serves."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from random import Random

import pytest
from valkey.exceptions import OutOfMemoryError

from gateway.shared.link import Link
from gateway.shared.options import Fault, Options
from gateway.store.sync import SharedClock
from tests.conftest import bearer
from tests.shared.pair import APP, site
from tests.shared.servers import cluster, eventually, relay, server

# What a busy machine adds is not what these tests are about.
PATIENT = "max_added_latency: 5s\n  lease: 10s"


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
    """At the defaults, and on however busy a machine: it is no matter of timing."""
    async with server() as valkey, site(f"url: {valkey.url}") as two:
        await two.in_touch()
        for number in range(1000):
            writer = number % 2
            await two.write(writer, str(number))
            assert (await two.read(1 - writer))[0] == str(number)
            assert (await two.read(writer))[0] == str(number)


async def test_a_thousand_writes_are_visible_also_while_the_store_restarts() -> None:
    """Likewise at the defaults."""
    async with server() as valkey, site(f"url: {valkey.url}") as two:
        await two.in_touch()
        done = asyncio.Event()

        async def disturb() -> None:
            while not done.is_set():
                await asyncio.sleep(0.4)
                valkey.kill()
                await asyncio.sleep(0.4)
                await valkey.start()

        disturbing = asyncio.create_task(disturb())
        for number in range(1000):
            writer = number % 2
            await two.write(writer, str(number))
            assert (await two.read(1 - writer))[0] == str(number), number
        done.set()
        await disturbing
        await two.in_touch()
        assert all(one.sharing.invalidations.lease.lost > 0 for one in two.gateways)


async def test_a_frozen_store_costs_one_request_50_ms_and_none_fails() -> None:
    async with server() as valkey, site(f"url: {valkey.url}\n  lease: 500ms\n  grace: 1s") as two:
        await two.in_touch()
        await two.read(0)
        valkey.freeze()
        started = time.monotonic()
        for number in range(20):
            await two.write(number % 2, str(number))
            await two.read(number % 2)
        assert time.monotonic() - started < 4.0  # 50 ms each, a lease for writes, 40 requests on a busy machine
        for one in two.gateways:
            await eventually(lambda one=one: not one.sharing.invalidations.in_touch())
        for number in range(20, 40):
            await two.write(number % 2, str(number))
            assert (await two.read(1 - number % 2))[0] == str(number)
        assert all(one.sharing.link.opened == 1 for one in two.gateways)
        valkey.thaw()
        await two.in_touch()
        await two.write(0, "again")
        assert (await two.read(1))[0] == "again"
        assert ";hit" in (await two.read(1))[1]


async def test_away_the_store_is_pages_are_fetched_and_stand_in_for_a_failing_controller() -> None:
    async with server() as valkey, site(f"url: {valkey.url}") as two:
        await two.in_touch()
        await two.read(0)
        assert ";hit" in (await two.read(0))[1]
        valkey.kill()
        await eventually(lambda: not two.gateways[0].sharing.invalidations.in_touch())
        before = two.controller.reads
        for _ in range(3):
            assert ";hit" not in (await two.read(0))[1]
        assert two.controller.reads == before + 3
        two.controller.failing = True
        name, status = await two.read(0)
        assert name == "0"
        assert "stale-if-error" in status


async def test_an_operator_may_rather_have_pages_of_a_second_while_the_store_is_away() -> None:
    async with server() as valkey, site(f"url: {valkey.url}\n  max_staleness: 1h") as two:
        await two.in_touch()
        await two.read(0)
        valkey.kill()
        await eventually(lambda: not two.gateways[0].sharing.invalidations.in_touch())
        assert ";hit" in (await two.read(0))[1]


async def test_writes_while_the_store_was_away_are_announced_before_anybody_is_in_touch() -> None:
    async with server() as valkey, site(f"url: {valkey.url}") as two:
        await two.in_touch()
        await two.read(1)
        valkey.kill()
        await two.write(0, "unheard")
        assert two.gateways[0].sharing.invalidations.counts["unsent"] == 1
        await valkey.start()
        await two.in_touch()
        assert (await two.read(1))[0] == "unheard"


async def test_a_store_restored_from_a_snapshot_brings_back_no_page() -> None:
    async with server() as valkey, site(f"url: {valkey.url}") as two:
        await two.in_touch()
        await two.read(0)
        await two.gateways[0].sharing.pages.drain()
        await valkey.ask("SAVE")
        await two.write(0, "newer")  # which the snapshot knows nothing of
        valkey.kill()
        await valkey.start()
        await two.in_touch()
        for one in two.gateways:
            one.store.invalidate(("*",))
        assert (await two.read(1))[0] == "newer"
        assert two.gateways[1].sharing.pages.counts["void"] == 1, "the old page was there"


async def test_a_full_store_still_tells_of_writes() -> None:
    limits = ("maxmemory 3mb", "maxmemory-policy noeviction")
    async with server(*limits) as valkey, site(f"url: {valkey.url}") as two:
        await two.in_touch()
        for size in (100_000, 1000, 10):
            with suppress(OutOfMemoryError):
                for number in range(1000):
                    await valkey.ask("SET", f"filler-{size}-{number}", bytes(size))
        for number in range(20):
            await two.write(number % 2, str(number))
            assert (await two.read(1 - number % 2))[0] == str(number)
        assert sum(one.sharing.pages.counts["not-stored"] for one in two.gateways) > 0
        assert all(one.sharing.invalidations.lease.lost == 0 for one in two.gateways)


async def test_an_evicted_clock_begins_a_new_epoch() -> None:
    async with server() as valkey, site(f"url: {valkey.url}") as two:
        await two.in_touch()
        await two.read(0)
        await two.gateways[0].sharing.pages.drain()
        await valkey.ask("DEL", "{gateway}:sync")
        missed = two.gateways[1].sharing.invalidations.counts["missed"]
        await eventually(lambda: two.gateways[1].sharing.invalidations.counts["missed"] > missed)
        await two.in_touch()
        await two.read(1)
        assert two.gateways[1].sharing.pages.counts["void"] == 1


async def test_a_replica_is_no_store_and_no_request_fails() -> None:
    async with (
        server() as master,
        server(f"replicaof 127.0.0.1 {master.port}") as replica,
        site(f"url: {replica.url}") as two,
    ):
        for number in range(10):
            await two.write(number % 2, str(number))
            assert (await two.read(1 - number % 2))[0] == str(number)
        assert all(one.sharing.link.fault is Fault.READ_ONLY for one in two.gateways)


async def test_records_that_others_have_touched_are_misses_and_counted() -> None:
    async with server() as valkey, site(f"url: {valkey.url}") as two:
        await two.in_touch()
        await two.read(0)
        await two.gateways[0].sharing.pages.drain()
        async with valkey.client() as client:
            (name,) = await client.execute_command("KEYS", "gateway:page:*")
            record = bytearray(await client.execute_command("GET", name))
            record[-1] ^= 1
            await client.execute_command("SET", name, bytes(record))
        assert (await two.read(1))[0] == "0"
        assert two.controller.reads == 2
        assert two.gateways[1].sharing.pages.counts["seal"] == 1


async def test_messages_that_others_have_forged_drop_pages_and_make_none() -> None:
    async with server() as valkey, site(f"url: {valkey.url}") as two:
        await two.in_touch()
        await two.read(1)
        for forged in (b"", b"x", b"a b c", b"e 5 " + bytes(50), b"- 0 x"):
            await valkey.ask("SPUBLISH", "{gateway}:invalidations", forged)
        invalidations = two.gateways[1].sharing.invalidations
        await eventually(lambda: invalidations.counts["unreadable"] == 5)
        await two.in_touch()
        await two.write(0, "after")
        assert (await two.read(1))[0] == "after"


async def test_a_process_that_vanishes_keeps_the_others_from_their_pages_for_as_long_as_it_may_be_writing() -> None:
    async with server() as valkey, site(f"url: {valkey.url}\n  lease: 400ms\n  grace: 2s", count=3) as three:
        await three.in_touch()
        await eventually(lambda: three.gateways[0].sharing.processes == 3)
        gone = three.gateways[2].sharing
        gone.invalidations._running.cancel()  # no farewell, as if killed
        await eventually(lambda: not three.gateways[0].sharing.invalidations.in_touch())
        await three.write(2, "unheard of by none")
        assert (await three.read(0))[0] == "unheard of by none"
        await eventually(three.gateways[0].sharing.invalidations.in_touch)
        assert three.gateways[0].sharing.processes == 2


async def test_a_process_that_stops_says_farewell() -> None:
    async with server() as valkey, site(f"url: {valkey.url}", count=3) as three:
        await three.in_touch()
        await three.gateways.pop().stop()
        for one in three.gateways:
            await eventually(lambda one=one: one.sharing.invalidations.lease.processes == 2)
            assert one.sharing.invalidations.in_touch()
            assert one.sharing.invalidations.lease.lost == 0


async def test_that_there_is_nothing_is_known_to_the_others_too_until_it_is_created() -> None:
    async with server() as valkey, site(f"url: {valkey.url}\n  {PATIENT}") as two:
        await two.in_touch()

        async def status(number: int) -> tuple[int, str]:
            url = f"{two.gateways[number].url}/v3/spaces/{APP}"
            async with two.http.get(url, headers=bearer()) as response:
                return response.status, response.headers["Cache-Status"]

        assert (await status(0))[0] == 404
        await two.gateways[0].sharing.pages.drain()
        code, said = await status(1)
        assert (code, two.controller.reads) == (404, 1)
        assert ";hit" in said
        url = f"{two.gateways[0].url}/v3/spaces"
        async with two.http.post(url, headers=bearer(), json={"name": "new"}) as response:
            assert response.status == 201
        for number in (0, 1):
            assert (await status(number))[0] == 200


async def test_what_no_cache_asks_for_is_the_controllers() -> None:
    async with server() as valkey, site(f"url: {valkey.url}") as two:
        await two.in_touch()
        await two.read(0)
        await two.gateways[0].sharing.pages.drain()
        two.controller.name = "changed behind our back"
        assert (await two.read(1))[0] == "0"
        assert (await two.read(1, **{"Cache-Control": "no-cache"}))[0] == "changed behind our back"


async def test_gateways_of_other_rules_share_no_pages_but_tell_each_other() -> None:
    async with server() as valkey, site(f"url: {valkey.url}") as two:
        await two.in_touch()
        two.gateways[1].sharing.pages.rules = b"other"
        await two.read(0)
        await two.gateways[0].sharing.pages.drain()
        await two.read(1)
        assert two.controller.reads == 2
        await two.write(0, "new")
        assert (await two.read(1))[0] == "new"


async def test_a_purge_by_hand_reaches_every_process() -> None:
    async with server() as valkey, site(f"url: {valkey.url}") as two:
        await two.in_touch()
        await two.read(0)
        await two.read(1)
        two.controller.name = "changed behind our back"
        async with two.http.post(f"{two.gateways[0].admin_url}/cache/purge", json={"type": "apps"}) as response:
            assert response.status == 200, await response.text()
        await two.gateways[0].sharing.invalidations.announced()
        for number in (0, 1):
            assert (await two.read(number))[0] == "changed behind our back"


async def test_a_cluster_fails_over_under_writes_and_each_is_visible() -> None:
    async with cluster(masters=3, replicas=3) as nodes:
        clock = "{gateway}:sync"
        slot = await nodes[0].ask("CLUSTER", "KEYSLOT", clock)
        owner = next(number for number in range(3) if slot <= (16383 if number == 2 else (number + 1) * 5461 - 1))
        others = ", ".join(f"'127.0.0.1:{node.port}'" for node in nodes[1:])
        section = f"url: {nodes[0].url}\n  nodes: [{others}]"
        async with site(section) as two:
            await two.in_touch()
            for number in range(300):
                if number == 100:
                    nodes[owner].kill()
                writer = number % 2
                await two.write(writer, str(number))
                assert (await two.read(1 - writer))[0] == str(number), number
            await two.in_touch()
            for number in range(300, 400):
                await two.write(number % 2, str(number))
                assert (await two.read(1 - number % 2))[0] == str(number), number
            assert all(one.sharing.invalidations.lease.lost > 0 for one in two.gateways)


async def test_a_process_whose_messages_the_network_swallows_serves_no_old_page() -> None:
    async with (
        server() as valkey,
        relay(valkey.port) as way,
        site(f"url: {valkey.url}", f"url: valkey://127.0.0.1:{way.port}") as two,
    ):
        await two.in_touch()
        await two.read(1)
        way.open.clear()
        for number in range(5):
            await two.write(0, str(number))
            assert (await two.read(1))[0] == str(number)
        assert two.gateways[0].sharing.invalidations.counts["unacknowledged"] > 0
        way.open.set()
        await two.in_touch()
        await two.write(1, "both again")
        assert (await two.read(0))[0] == "both again"


async def test_a_process_that_cannot_announce_its_writes_holds_them_back_until_the_others_serve_nothing() -> None:
    """It reaches nobody, the others reach the store and are content: they notice its silence."""
    async with (
        server() as valkey,
        relay(valkey.port) as way,
        site(f"url: {valkey.url}", f"url: valkey://127.0.0.1:{way.port}") as two,
    ):
        await two.in_touch()
        await two.read(0)
        way.open.clear()
        for number in range(10):
            await two.write(1, str(number))
            assert (await two.read(0))[0] == str(number)
        way.open.set()
        await two.in_touch()
        assert (await two.read(0))[0] == "9"


async def test_a_write_waits_no_longer_once_the_store_turns_out_to_be_gone_for_all() -> None:
    """Also where it stood still first, so that it was not seen to go."""
    async with server() as valkey, site(f"url: {valkey.url}\n  lease: 30s\n  grace: 60s") as two:
        await two.in_touch()
        valkey.freeze()
        inval = two.gateways[0].sharing.invalidations
        await two.read(0)
        await eventually(lambda: not inval._listening or inval._link.fault is not None)
        writing = asyncio.create_task(two.write(0, "unheard"))
        await eventually(lambda: inval.counts["unsent"] == 1)
        assert not writing.done()
        valkey.kill()
        async with asyncio.timeout(15):
            await writing
        assert (await two.read(1))[0] == "unheard"


async def test_a_process_that_nobody_has_heard_of_yet_holds_its_writes_back_until_it_has_told_them() -> None:
    async with server() as valkey, relay(valkey.port) as way:
        way.open.clear()
        async with site(f"url: {valkey.url}", f"url: valkey://127.0.0.1:{way.port}") as two:
            await eventually(two.gateways[0].sharing.invalidations.in_touch)
            assert (await two.read(0))[0] == "0"
            writing = asyncio.create_task(two.write(1, "first"))
            await eventually(lambda: two.gateways[1].sharing.invalidations.counts["unsent"] == 1)
            way.open.set()
            await writing
            assert (await two.read(0))[0] == "first"


async def test_what_cannot_be_announced_while_the_same_is_made_up_for_is_made_up_for_once_more() -> None:
    async with server() as valkey, site(f"url: {valkey.url}") as two:
        await two.in_touch()
        inval, gate, told = two.gateways[0].sharing.invalidations, asyncio.Event(), []

        async def announce(_: bytes, tags: tuple[str, ...]) -> int:
            told.append(tags)
            await gate.wait()
            return 1

        inval.clock.announce = announce
        inval._keep_unsent({"apps"})
        sending = asyncio.create_task(inval._send_unsent())
        await eventually(lambda: bool(told))
        inval._keep_unsent({"apps"})
        gate.set()
        await sending
        assert told.count(("apps",)) >= 2


@pytest.mark.parametrize("slow", [(0,), (1,), (0, 1)], ids=["the writer's way", "the reader's way", "both ways"])
async def test_however_slow_the_bus_is_each_write_is_visible_to_the_next_read(slow: tuple[int, ...]) -> None:
    """At the defaults; delays around the 50 ms that the store may add, so that about anything is late at times."""
    async with server() as valkey, relay(valkey.port) as first, relay(valkey.port) as second:
        ways = (first, second)
        async with site(*(f"url: valkey://127.0.0.1:{way.port}" for way in ways)) as two:
            await two.in_touch()
            for number in slow:
                ways[number].delays = Random(number)
            for number in range(60):
                writer = 0 if len(slow) == 1 else number % 2
                await two.write(writer, str(number))
                assert (await two.read(1 - writer))[0] == str(number), number
                assert (await two.read(writer))[0] == str(number), number


async def test_a_hit_that_finds_its_process_a_moment_behind_waits_for_the_bus_and_not_for_the_controller() -> None:
    async with server() as valkey, site(f"url: {valkey.url}\n  max_added_latency: 2s") as two:
        await two.in_touch()
        await two.read(0)
        before, lease = two.controller.reads, two.gateways[0].sharing.invalidations.lease
        lease._pulsed = 0.0  # as if the loop had stood still for longer than a pulse lasts
        lease._judge()
        assert not lease.serves()
        name, status = await two.read(0)
        assert (name, two.controller.reads) == ("0", before)
        assert ";hit" in status


@pytest.mark.parametrize(
    ("purge", "gone"),
    [
        pytest.param({"url": "/v3/apps?a=1"}, {"/v3/apps?a=1"}, id="url"),
        pytest.param({"prefix": "/v3/apps?a"}, {"/v3/apps?a=1", "/v3/apps?a=2"}, id="prefix"),
        pytest.param({"guid": APP}, {"/v3/apps?a=1", "/v3/apps?a=2", "/v3/apps?b=1"}, id="guid"),
        pytest.param({"url": "/v3/apps?b=1", "soft": True}, {"/v3/apps?b=1"}, id="soft"),
        pytest.param({"all": True}, {"/v3/apps?a=1", "/v3/apps?a=2", "/v3/apps?b=1"}, id="all"),
        pytest.param({"url": "/v3/apps?c=1"}, set(), id="none"),
    ],
)
async def test_a_purge_is_carried_out_by_every_process_on_its_own_pages(purge: dict, gone: set[str]) -> None:
    """Also on pages that the one which the operator asked does not have; and on no others."""
    paths = ("/v3/apps?a=1", "/v3/apps?a=2", "/v3/apps?b=1")
    async with server() as valkey, site(f"url: {valkey.url}\n  {PATIENT}") as two:
        await two.in_touch()
        for path in paths:
            await two.read(1, path=path)
        await two.gateways[1].sharing.pages.drain()
        two.controller.name = "changed behind our back"
        async with two.http.post(f"{two.gateways[0].admin_url}/cache/purge", json=purge) as response:
            assert response.status == 200, await response.text()
        for path in paths:
            name, _ = await two.read(1, path=path)
            assert name == ("changed behind our back" if path in gone else "0"), path


async def test_purging_one_page_purges_that_page_elsewhere_and_not_all_with_its_tags() -> None:
    async with server() as valkey, site(f"url: {valkey.url}\n  {PATIENT}") as two:
        await two.in_touch()
        for number in (0, 1):
            for path in ("/v3/apps?a=1", "/v3/apps?a=2"):
                await two.read(number, path=path)
        two.controller.name = "changed behind our back"
        (wanted,) = [node.number for node in two.gateways[0].store.nodes() if node.entry.key.query == "?a=1"]
        async with two.http.delete(f"{two.gateways[0].admin_url}/cache/entries/{wanted}") as response:
            assert response.status == 200, await response.text()
        for number in (1, 0):
            assert (await two.read(number, path="/v3/apps?a=1"))[0] == "changed behind our back"
            assert (await two.read(number, path="/v3/apps?a=2"))[0] == "0"


async def test_what_was_purged_does_not_come_back_from_the_store_or_from_a_fetch_under_way() -> None:
    async with server() as valkey, site(f"url: {valkey.url}\n  {PATIENT}") as two:
        await two.in_touch()
        await two.read(0)
        await two.gateways[0].sharing.pages.drain()
        two.controller.gate.clear()
        old = asyncio.create_task(two.read(1, path="/v3/apps?a=1"))
        await eventually(lambda: two.controller.reads == 2)
        async with two.http.post(f"{two.gateways[0].admin_url}/cache/purge", json={"prefix": "/v3/apps"}) as response:
            assert response.status == 200, await response.text()
        two.controller.gate.set()
        assert (await old)[0] == "0"
        two.controller.name = "changed behind our back"
        for path in ("/v3/apps", "/v3/apps?a=1"):
            assert (await two.read(1, path=path))[0] == "changed behind our back"


async def test_a_purge_while_the_store_is_away_is_made_up_for() -> None:
    async with server() as valkey, site(f"url: {valkey.url}") as two:
        await two.in_touch()
        await two.read(1)
        valkey.kill()
        two.controller.name = "changed behind our back"
        async with two.http.post(f"{two.gateways[0].admin_url}/cache/purge", json={"url": "/v3/apps"}) as response:
            assert response.status == 200, await response.text()
        await valkey.start()
        await two.in_touch()
        assert (await two.read(1))[0] == "changed behind our back"


async def test_because_of_one_that_is_silent_the_others_are_waited_for_no_less() -> None:
    async with server() as valkey, relay(valkey.port) as way:
        patient = "\n  lease: 5s\n  max_added_latency: 500ms"
        near, far = f"url: {valkey.url}{patient}", f"url: valkey://127.0.0.1:{way.port}{patient}"
        async with site(near, near, far) as three:
            await three.in_touch()
            slow = three.gateways[1].sharing.invalidations
            right, loop = slow._take, asyncio.get_running_loop()
            slow._take = lambda *message: loop.call_later(0.1, right, *message)
            way.open.clear()
            await three.write(0, "nobody answers for the third")
            assert three.gateways[0].sharing.invalidations.counts["unacknowledged"] == 1
            for number in range(3):
                await three.read(1)
                await three.write(0, str(number))
                for reader in (1, 2):
                    assert (await three.read(reader))[0] == str(number)
            way.open.set()


async def test_one_process_fetches_and_the_others_wait_for_its_page() -> None:
    async with server() as valkey, site(f"url: {valkey.url}", count=3) as three:
        await three.in_touch()
        three.controller.gate.clear()
        reads = [asyncio.create_task(three.read(number)) for number in (0, 1, 2)]
        await eventually(lambda: three.controller.reads == 1)
        for one in three.gateways:
            await eventually(lambda one=one: one.sharing.pages.counts["miss"] == 1)
        three.controller.gate.set()
        assert [name for name, _ in await asyncio.gather(*reads)] == ["0", "0", "0"]
        assert three.controller.reads == 1
        assert sum(one.sharing.pages.counts["waited"] for one in three.gateways) == 2


async def test_who_fetches_in_vain_lets_the_next_one_try_and_a_lock_runs_out() -> None:
    async with server() as valkey, site(f"url: {valkey.url}\n  collapse_wait: 1500ms") as two:
        await two.in_touch()
        two.controller.gate.clear()
        gone = asyncio.create_task(two.read(0))
        await eventually(lambda: two.controller.reads == 1)
        waiting = asyncio.create_task(two.read(1))
        await eventually(lambda: two.gateways[1].sharing.pages.counts["miss"] == 1)
        gone.cancel()  # the client hangs up, and nobody else waits there
        await eventually(lambda: two.controller.reads == 2)
        two.controller.gate.set()
        assert (await waiting)[0] == "0"
        await two.gateways[1].sharing.pages.drain()
        await two.write(0, "1")
        async with valkey.client() as client:
            (name,) = [name for name in await client.execute_command("KEYS", "gateway:page:*") if b":lock" not in name]
            await client.execute_command("SET", name + b":lock", "one that died", "PX", 200)
        assert (await two.read(0))[0] == "1"


async def test_a_page_fetched_before_a_write_is_not_the_page_after_it_whoever_waits() -> None:
    async with server() as valkey, site(f"url: {valkey.url}") as two:
        await two.in_touch()
        two.controller.gate.clear()
        old = asyncio.create_task(two.read(0))
        await eventually(lambda: two.controller.reads == 1)
        await two.write(1, "new")
        reading = asyncio.create_task(two.read(1))
        await eventually(lambda: two.gateways[1].sharing.pages.counts["miss"] == 1)
        two.controller.gate.set()
        assert (await old)[0] == "0"
        assert (await reading)[0] == "new"


async def test_after_a_long_time_without_the_store_nobody_is_in_touch_before_all_are() -> None:
    async with server() as valkey, relay(valkey.port) as way:
        near, far = f"url: {valkey.url}\n  lease: 400ms", f"url: valkey://127.0.0.1:{way.port}\n  lease: 400ms"
        async with site(near, far) as two:
            await two.in_touch()
            await eventually(lambda: two.gateways[0].sharing.invalidations.lease.processes == 2)
            valkey.kill()
            await eventually(lambda: not any(one.sharing.invalidations.in_touch() for one in two.gateways))
            alive = two.gateways[0].sharing.invalidations.lease._alive
            alive.update({process: seen - 1000 for process, seen in alive.items()})  # it has been long
            way.open.clear()  # one finds the store later than the other
            await valkey.start()
            await eventually(lambda: two.gateways[0].sharing.link.fault is None)
            for number in range(20):
                await two.write(1, str(number))
                assert (await two.read(0))[0] == str(number)
                await asyncio.sleep(0.02)
            assert not two.gateways[0].sharing.invalidations.in_touch()
            way.open.set()
            await two.in_touch()


async def test_away_the_store_is_no_read_joins_a_fetch_from_before_it() -> None:
    async with server() as valkey, site(f"url: {valkey.url}") as two:
        await two.in_touch()
        valkey.kill()
        await eventually(lambda: not any(one.sharing.invalidations.in_touch() for one in two.gateways))
        two.controller.gate.clear()
        old = asyncio.create_task(two.read(1))
        await eventually(lambda: two.controller.reads == 1)
        await two.write(0, "new")
        new = asyncio.create_task(two.read(1))
        two.controller.gate.set()
        assert (await old)[0] == "0"
        assert (await new)[0] == "new"


async def test_a_heartbeat_that_the_store_gets_to_late_does_not_count() -> None:
    """A server that stood still finds old heartbeats in its sockets: they say nothing of who is there now."""
    async with server() as valkey:
        options = Options(nodes=(("127.0.0.1", valkey.port),), max_added_latency=5.0)
        link = Link(options, probe_key="{gateway}:probe")
        await link.start()
        try:
            clock = SharedClock(link, "gateway", "me", slack=0.5)
            seconds, micros = await valkey.ask("TIME")
            clock.told(seconds * 1000 + micros // 1000, 100.0)
            await clock.beat("late", forget_after=10.0, now=100.0 - clock.late_by - 1.0)
            assert await valkey.ask("ZSCORE", "{gateway}:members", "me") is None
            await clock.beat("in time", forget_after=10.0, now=100.0)
            assert await valkey.ask("ZSCORE", "{gateway}:members", "me") is not None
        finally:
            await link.stop()
