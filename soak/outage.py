"""`python soak/outage.py --seconds N`: gateways under load whose shared store is killed and restarted empty, twice.

Real processes: gateways with workers, a Valkey server, one controller. Readers ask without pause; what a writer writes
is read back through the other gateway; one principal asks for more than its limit through all of them. Then: did a
request fail; did a read show less than what was written before it began; did more pass than docs/scaling.md allows?
Ends with 1 when so.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]

from gateway.limits.leases import lease_of  # noqa: E402
from tests.conftest import SECRET, bearer  # noqa: E402
from tests.shared.pair import APP, KEY, Controller, controller  # noqa: E402
from tests.shared.servers import Server, server  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

WINDOW = 60.0
ANNOUNCED = re.compile(r'_invalidations_total{result="(announced|unacknowledged|unsent)"} (\S+)')
READERS = 4
SETTINGS = """
listen: {{host: 127.0.0.1, port: 0}}
admin: {{port: 0}}
public_url: https://gateway.example.org
workers: {workers}
drain: 2s
upstream: {{url: {upstream}, advertised_urls: ["https://api.internal.example.org"]}}
auth: {{keys: [{{secret: {secret}}}]}}
routes:
- {{match: GET /v3/apps, cache: {{mode: policy, ttl: 1h, stale_if_error: 1h, share: global}}}}
rate_limits:
  policies:
  - {{name: few, who: principal, limit: {limit}, window: 1m, exempt_scopes_any: [cloud_controller.admin]}}
shared_store: {{url: "{store}", hmac_key: {key}, max_added_latency: {patience}, processes: {processes}}}
"""


class Gateway:
    """A running `gateway run` that writes its log to a file."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process, self._log = process, log
        self.url = self.admin = ""

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self._log.read_text().splitlines() if line.startswith("{")]

    async def listening(self) -> None:
        async with asyncio.timeout(60):
            while not (found := [line for line in self.lines() if line["event"] == "listening" and line["admin"]]):
                if self.process.returncode is not None:
                    raise SystemExit(f"a gateway did not start:\n{self._log.read_text()}")
                await asyncio.sleep(0.05)
        self.url, self.admin = str(found[0]["url"]), str(found[0]["admin"])


@contextlib.asynccontextmanager
async def gateway(folder: Path, number: int, text: str) -> AsyncIterator[Gateway]:
    path, log = folder / f"{number}.yaml", folder / f"{number}.log"
    path.write_text(text)
    with log.open("wb") as out:
        command = (sys.executable, "-m", "gateway", "run", "-c", str(path))
        process = await asyncio.create_subprocess_exec(*command, stdout=out, stderr=out, cwd=ROOT)
    one = Gateway(process, log)
    try:
        await one.listening()
        yield one
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


class Outage:
    """One run.

    Args:
        gateways: started.
        store: what they share.
        upstream: what stands behind them.
    """

    def __init__(self, gateways: list[Gateway], store: Server, upstream: Controller) -> None:
        self.gateways, self.store, self.upstream = gateways, store, upstream
        self.admin = bearer(scope=["cloud_controller.admin"])
        self.ends = False
        self.written = 0
        self.kills = 0
        self.counts: Counter[str] = Counter()
        self.announced: Counter[str] = Counter()
        self.seconds: list[float] = []
        self.problems: list[str] = []
        self.admitted_for = 0.0

    async def ask(
        self, http: aiohttp.ClientSession, number: int, fields: dict[str, str], method: str = "GET", **more: object
    ) -> tuple[int, bytes]:
        """One request; 0 when there was no answer."""
        path = "/v3/apps" if method == "GET" else f"/v3/apps/{APP}"
        url, asked = f"{self.gateways[number % len(self.gateways)].url}{path}", time.monotonic()
        try:
            async with http.request(method, url, headers=fields, **more) as response:
                status, body = response.status, await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            status, body = 0, f"{type(error).__name__}: {error}".encode()
        self.seconds.append(time.monotonic() - asked)
        self.counts["requests"] += 1
        return status, body

    def fail(self, what: str, said: object) -> None:
        self.counts[what] += 1
        self.problems.append(f"{what}: {said!r:.200}")

    async def read(self, http: aiohttp.ClientSession, number: int) -> None:
        """What was written before must be seen."""
        floor = self.written
        status, body = await self.ask(http, number, self.admin)
        if status != 200:
            self.fail("failed", (status, body))
        elif int(json.loads(body)["resources"][0]["name"]) < floor:
            self.fail("stale", (floor, body))

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[aiohttp.ClientSession]:
        timeout = aiohttp.ClientTimeout(total=20)
        async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as http:
            yield http

    async def reader(self, number: int) -> None:
        turn = number
        while not self.ends:
            async with self.client() as http:  # a new connection goes to another worker
                for _ in range(200):
                    turn += 1
                    await self.read(http, turn)

    async def writer(self) -> None:
        number = 0
        async with self.client() as http:
            while not self.ends:
                number += 1
                status, body = await self.ask(http, number, self.admin, "PATCH", json={"name": str(number)})
                if status != 200:
                    self.fail("failed", (status, body))
                self.written = number
                self.counts["writes"] += 1
                await self.read(http, number + 1)
                await asyncio.sleep(0.03)

    async def greedy(self, number: int) -> None:
        """Asks for more than its limit."""
        fields = bearer(user_id="greedy", sub="greedy", scope=["cloud_controller.read"])
        began = time.monotonic()
        async with self.client() as http:
            while not self.ends:
                status, body = await self.ask(http, number, fields)
                if status == 200:
                    self.counts["admitted"] += 1
                    self.admitted_for = max(self.admitted_for, time.monotonic() - began)
                elif status == 429:
                    self.counts["over the limit"] += 1
                else:
                    self.fail("failed", (status, body))
                await asyncio.sleep(0.02)

    async def run(self, seconds: float) -> None:
        """Everything at once for so long; the store is away twice, for a tenth of the time each."""
        self.upstream.name = "0"
        tasks = [self.reader(number) for number in range(READERS)]
        tasks += [self.greedy(number) for number in range(4 * len(self.gateways))]
        running = [asyncio.create_task(task) for task in (*tasks, self.writer())]
        for share in (0.25, 0.2, 0.35):
            await asyncio.sleep(seconds * share)
            if share < 0.35:
                self.store.kill()
                self.kills += 1
                await asyncio.sleep(seconds * 0.1)
                await self.store.start()
        self.ends = True
        await asyncio.gather(*running)
        async with self.client() as http:
            for one in self.gateways:
                async with http.get(f"{one.admin}/metrics") as response:
                    for result, count in ANNOUNCED.findall(await response.text()):
                        self.announced[result] += int(float(count))


def report(outage: Outage, seconds: float, processes: int, burst: int) -> bool:
    """Print what happened; whether all was well."""
    lease = lease_of(burst, 10)
    limit = burst + outage.admitted_for * burst / WINDOW
    bound = limit + 2 * processes * lease
    counts, times = outage.counts, sorted(outage.seconds)
    lines = [line for one in outage.gateways for line in one.lines()]
    states = Counter(str(line["event"]) for line in lines if str(line["event"]).startswith("shared store"))
    print(f"outage: {seconds:.0f} s, {len(outage.gateways)} gateways, {processes} workers")
    print(f"  store killed and restarted empty {outage.kills} times, each away for {seconds / 10:.1f} s")
    print(f"  requests {counts['requests']}, failed {counts['failed']}")
    print(f"  writes {counts['writes']}, each read back through the other gateway; stale answers {counts['stale']}")
    print(f"  invalidations: {dict(outage.announced)}")
    middle, late = times[len(times) // 2], times[len(times) * 99 // 100]
    print(f"  took {middle * 1000:.1f} ms (median), {late * 1000:.1f} ms (99 %), {times[-1] * 1000:.1f} ms (slowest)")
    print(f"  limit {burst} a minute: admitted {counts['admitted']}, refused {counts['over the limit']}")
    print(f"  burst and rate {limit:.0f}, bound {bound:.0f} (twice {processes} leases of {lease:.0f})")
    print(f"  changes of state in the logs: {dict(states)}")
    checks = {
        "no request failed": not counts["failed"],
        "no answer was stale": not counts["stale"],
        "the limit held": burst <= counts["admitted"] <= bound,
        "the limit was asked for": counts["over the limit"] > 0,
        "there was something to see": counts["writes"] > seconds and outage.kills == 2,
    }
    for line in outage.problems[:10]:
        print(f"    {line}")
    for name, passed in checks.items():
        print(f"  {'ok  ' if passed else 'FAIL'} {name}")
    return all(checks.values())


async def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--gateways", type=int, default=2)
    parser.add_argument("--workers", type=int, default=4, help="of all gateways together")
    parser.add_argument("--limit", type=int, default=1500, help="requests of one principal in a minute")
    parser.add_argument("--patience", default="50ms", help="max_added_latency")
    given = parser.parse_args()
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        store = await stack.enter_async_context(server())
        upstream = await stack.enter_async_context(controller())
        text = SETTINGS.format(
            workers=given.workers // given.gateways,
            upstream=upstream.url,
            secret=SECRET,
            limit=given.limit,
            store=store.url,
            key=KEY,
            patience=given.patience,
            processes=given.workers,
        )
        starting = (stack.enter_async_context(gateway(folder, number, text)) for number in range(given.gateways))
        gateways = [await one for one in starting]
        outage = Outage(gateways, store, upstream)
        await outage.run(given.seconds)
        return 0 if report(outage, given.seconds, given.workers, given.limit) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
