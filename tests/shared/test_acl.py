"""The users that docs/scaling.md has operators create: enough for everything the gateway does, and for nothing else."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import pytest
from valkey.exceptions import ResponseError

from gateway.core.rate_policy import Mode, RatePolicy, Who
from gateway.core.ratelimit import FixedWindow, Gcra
from tests.shared.pair import Site, site
from tests.shared.servers import Server, cluster, eventually, server

DOCUMENT = Path(__file__).parents[2] / "docs" / "scaling.md"
SINGLE, CLUSTER = (
    line.replace("PASSWORD", "secret") for line in re.findall(r"(?m)^user gateway .*$", DOCUMENT.read_text())
)
ACCESS = "username: gateway\n  password: secret"
ME = ("issuer", "zone", "me")
COMMAND = re.compile(r"\+(\S+)")


async def everything(two: Site) -> None:
    """Whatever the gateway asks of a store."""
    await two.in_touch()
    await two.read(0)
    await two.gateways[0].sharing.pages.drain()
    await two.read(1)
    await asyncio.gather(two.read(0, path="/v3/apps?page=1"), two.read(1, path="/v3/apps?page=1"))
    for number in range(4):
        await two.write(number % 2, str(number))
        assert (await two.read(1 - number % 2))[0] == str(number)
    rules = (Gcra(100, 60.0), FixedWindow(100, 60.0))
    policies = [
        RatePolicy(str(number), Who.PRINCIPAL, rule, frozenset(), Mode.ENFORCE) for number, rule in enumerate(rules)
    ]
    for gateway in two.gateways:
        sharing = gateway.sharing
        counters = sharing.counters(policies, max_buckets=100)
        before = sharing.reporter.reports["answered"]
        for number in range(20):
            counters.take([(0, (*ME, str(number)), 1.0), (1, (*ME, str(number)), 1.0)], time.time())
        await eventually(lambda before=before, sharing=sharing: sharing.reporter.reports["answered"] > before)
        kind = next(iter(sharing.board.counts))[0]
        subject = str(id(gateway)).encode()
        assert await sharing.board.find(kind, subject, after=0.0, max_age=60.0) is None
        sharing.board.offer(kind, subject, b"content", learnt_at=time.time(), max_age=60.0)
        await sharing.board.drain()
        assert await sharing.board.find(kind, subject, after=0.0, max_age=60.0) is not None
        assert await sharing.board.find(kind, b"other", after=0.0, max_age=60.0) is None
        sharing.board.release(kind, b"other")
        await sharing.board.drain()
    for gateway in two.gateways:
        calls = gateway.sharing.link.calls
        assert {name for name, count in calls.items() if count} == {"ok"}
        assert gateway.sharing.link.opened == 0
        assert gateway.sharing.reporter.reports["failed"] == 0


async def refused(one: Server) -> list[str]:
    """What the server has refused its users, by its own log; the client introduces itself and does not need to."""
    entries = await one.ask("ACL", "LOG")
    found = [dict(zip(entry[::2], entry[1::2], strict=True)) for entry in entries]
    named = [f"{entry[b'context'].decode()} {entry[b'object'].decode()}" for entry in found]
    return [name for name in named if not name.startswith("toplevel client|")]


async def used(*servers: Server) -> set[str]:
    """The commands that were called."""
    found: set[str] = set()
    for one in servers:
        stats = await one.ask("INFO", "commandstats")
        found |= {name.removeprefix("cmdstat_") for name, of in stats.items() if of["calls"] > of["rejected_calls"]}
    return found


async def test_one_server() -> None:
    async with server(SINGLE) as one:
        async with site(f"url: {one.url}/3\n  {ACCESS}\n  max_added_latency: 5s\n  lease: 10s") as two:
            await everything(two)
        assert await refused(one) == []
        assert set(COMMAND.findall(SINGLE)) - await used(one) == set(), "rights that nothing uses"


async def test_a_cluster() -> None:
    async with cluster(3, 0, CLUSTER) as nodes:
        others = ", ".join(f"'127.0.0.1:{node.port}'" for node in nodes[1:])
        store = f"url: {nodes[0].url}\n  nodes: [{others}]\n  {ACCESS}\n  max_added_latency: 5s\n  lease: 10s"
        async with site(store) as two:
            await everything(two)
        for node in nodes:
            assert await refused(node) == []
        assert set(COMMAND.findall(CLUSTER)) - await used(*nodes) == set(), "rights that nothing uses"


@pytest.mark.parametrize(
    "command",
    [
        *(
            ("FLUSHALL",),
            ("CONFIG", "GET", "*"),
            ("KEYS", "*"),
            ("ACL", "LIST"),
            ("SHUTDOWN",),
            ("SAVE",),
        ),
        *(("GET", "other"), ("SET", "gatewayed", "1"), ("SET", "{gatewayed}:a", "1"), ("SPUBLISH", "other", "1")),
        ("EVAL", "return redis.call('GET', 'other')", "0"),
        ("EVAL", "return redis.call('FLUSHALL')", "0"),
    ],
    ids=" ".join,
)
async def test_nothing_else(command: tuple[str, ...]) -> None:
    async with server(SINGLE) as one, one.client(username="gateway", password="secret") as client:
        with pytest.raises(ResponseError, match=r"ermission|ACL failure"):
            await client.execute_command(*command)
