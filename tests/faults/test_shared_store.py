"""Every way in which the shared store can fail, under load: no request fails, it is waited for once, and it comes back.

What writes and pages are worth meanwhile is in `tests/store/test_shared.py`, what limits are in `tests/limits/`.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest
from structlog.testing import capture_logs

from gateway.limits.leases import lease_of
from gateway.shared.link import Link
from gateway.shared.options import Fault
from tests.conftest import bearer
from tests.shared.pair import Site, site
from tests.shared.servers import Relay, Server, eventually, relay, server

LIMIT = 200
POLICY = f"{{name: few, who: principal, limit: {LIMIT}, window: 31d, exempt_scopes_any: [cloud_controller.admin]}}"
EXTRA = f"rate_limits: {{policies: [{POLICY}]}}"
ACCESS = "username: gateway\n  password: secret"
# What a busy machine adds must not look like a fault; `tests/shared/test_link.py` has the 50 ms.
PATIENT = "max_added_latency: 250ms\n  lease: 2s\n  grace: 2s"
GREEDY = bearer(user_id="greedy", sub="greedy", scope=["cloud_controller.read"])


@dataclass
class Place:
    """Two gateways, each with a way of its own to the store, and another server that may take its place."""

    two: Site
    store: Server
    other: Server
    ways: list[Relay]
    admitted: int = 0

    async def slow(self, seconds: float) -> None:
        for way in self.ways:
            way.delay = seconds

    async def turn_to(self, target: Server) -> None:
        for way in self.ways:
            way.target = target.port
            way.cut()

    async def restart(self) -> None:
        self.store.kill()
        await self.store.start()

    async def load(self, rounds: int) -> None:
        """Writes, reads through the other one, and somebody who asks for more than there is; all answered."""
        for number in range(rounds):
            if not number % 10:
                await self.two.write(number % 2, str(number))
                await self.two.read(1 - number % 2)
                await self.two.read(number % 2)
            status = await self.ask(number % 2, GREEDY)
            assert status in {200, 429}
            self.admitted += status == 200

    async def ask(self, number: int, fields: dict[str, str]) -> int:
        async with self.two.http.get(f"{self.two.gateways[number].url}/v3/apps", headers=fields) as response:
            await response.read()
            return response.status


@dataclass(frozen=True)
class Trouble:
    """One way to fail.

    Attributes:
        begin: makes it so.
        end: makes it well.
        fault: what it is counted as; None for nothing.
        away: which gateways find the store away; None for any.
        spare: how much more than the leases may pass, by the table of docs/scaling.md.
    """

    begin: Callable[[Place], Awaitable[object]]
    end: Callable[[Place], Awaitable[object]]
    fault: Fault | None
    away: tuple[int, ...] | None = (0, 1)
    spare: float = 0.0


async def nothing(_: Place) -> None: ...


async def stand_still(place: Place) -> None:
    place.store.freeze()


async def go_on(place: Place) -> None:
    place.store.thaw()


async def die(place: Place) -> None:
    place.store.kill()


async def partition(place: Place) -> None:
    place.ways[1].open.clear()


async def unite(place: Place) -> None:
    place.ways[1].open.set()


TROUBLES = {
    "slow": Trouble(lambda place: place.slow(0.3), lambda place: place.slow(0.0), Fault.TIMEOUT),
    "stands still": Trouble(stand_still, go_on, Fault.TIMEOUT),
    "down": Trouble(die, lambda place: place.store.start(), Fault.UNREACHABLE),
    "restarted empty": Trouble(Place.restart, nothing, None, None),
    "flushed": Trouble(lambda place: place.store.ask("FLUSHALL"), nothing, None, ()),
    "full": Trouble(
        lambda place: place.store.ask("CONFIG", "SET", "maxmemory", "1mb"),
        lambda place: place.store.ask("CONFIG", "SET", "maxmemory", "0"),
        Fault.FULL,
        (),
    ),
    "read-only": Trouble(
        lambda place: place.store.ask("REPLICAOF", "127.0.0.1", place.other.port),
        lambda place: place.store.ask("REPLICAOF", "NO", "ONE"),
        Fault.READ_ONLY,
    ),
    "denied": Trouble(
        lambda place: place.store.ask("ACL", "SETUSER", "gateway", "-@all"),
        lambda place: place.store.ask("ACL", "SETUSER", "gateway", "+@all"),
        Fault.DENIED,
    ),
    "failed over to an empty one": Trouble(lambda place: place.turn_to(place.other), nothing, None, None),
    # Who is in touch takes from the whole, who is not from a share that is as full as the whole was.
    "partitioned from one": Trouble(partition, unite, Fault.TIMEOUT, (1,), spare=LIMIT / 2),
}


def waits(link: Link) -> int:
    """How many commands were sent."""
    return sum(count for result, count in link.calls.items() if result != Fault.OPEN.value)


@asynccontextmanager
async def place() -> AsyncIterator[Place]:
    async with AsyncExitStack() as stack:
        user = "user gateway on >secret ~* &* +@all"
        store = await stack.enter_async_context(server(user, "maxmemory-policy noeviction"))
        other = await stack.enter_async_context(server(user))
        ways = [await stack.enter_async_context(relay(store.port)) for _ in range(2)]
        sections = [f"url: valkey://127.0.0.1:{way.port}\n  {ACCESS}\n  {PATIENT}" for way in ways]
        yield Place(await stack.enter_async_context(site(*sections, extra=EXTRA)), store, other, ways)


@pytest.mark.parametrize("name", TROUBLES)
async def test_no_request_fails_and_the_store_is_waited_for_once(name: str) -> None:
    trouble = TROUBLES[name]
    with capture_logs() as logs:
        async with place() as one:
            links = [gateway.sharing.link for gateway in one.two.gateways]
            reporters = [gateway.sharing.reporter for gateway in one.two.gateways]
            await one.two.in_touch()
            await one.load(50)
            assert [link.opened for link in links] == [0, 0]
            said = len(logs)
            await trouble.begin(one)
            started = time.monotonic()
            await one.load(250)
            assert time.monotonic() - started < 10.0  # 250 ms for each gateway, and what a busy machine adds
            if trouble.away is not None:
                for number, link in enumerate(links):
                    if number in trouble.away:
                        await eventually(lambda link=link: link.opened)
                    assert link.opened == (number in trouble.away), "it is waited for once"
            if trouble.fault is not None:
                for number in trouble.away or (0, 1):
                    assert links[number].calls[trouble.fault.value] > 0
            if trouble.away:
                away = [links[number] for number in trouble.away]
                await eventually(lambda: all(link.fault is not None for link in away))
                await one.load(20)  # and what was under way ends
                waited = [waits(link) for link in away]
                await one.load(40)
                assert [waits(link) for link in away] == waited, "then nobody waits for it any more"
            await trouble.end(one)
            await eventually(lambda: all(link.fault is None for link in links))
            await one.two.in_touch()
            await one.load(50)
            for number, reporter in enumerate(reporters):
                before = reporter.reports["answered"]
                assert (
                    await one.ask(number, bearer(user_id="later", sub="later", scope=["cloud_controller.read"])) == 200
                )
                await eventually(lambda reporter=reporter, before=before: reporter.reports["answered"] > before)
            await one.two.write(0, "well")
            assert (await one.two.read(1))[0] == "well"
            assert LIMIT * 0.9 <= one.admitted <= LIMIT + 4 * lease_of(LIMIT, 10) + trouble.spare
            opened = sum(link.opened for link in links)
            events = [line["event"] for line in logs[said:] if line["event"].startswith("shared store")]
            away = sum(event.startswith("shared store away") for event in events)
            assert (away, len(events) - away) == (opened, opened), "one line for each change"
