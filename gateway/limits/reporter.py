"""Reports of units given away, to the store that all processes share, and what it answers.

A script counts on the server's clock, many buckets at once; those of one shard are on one node of a cluster. Reports
leave every few milliseconds, at once when half of a lease is used up. While the store is away they wait.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from gateway.core.visibility import encode
from gateway.limits.leases import Bucket, answered, report, unanswered
from gateway.shared.link import Script
from gateway.shared.options import SharedStoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.shared.link import Link
    from gateway.shared.seal import Sealer

SHARDS: Final = 8
PERIOD: Final = 0.02
_AT_ONCE: Final = 100
# Buckets that wait to be reported while the store is away; beyond it the oldest are not.
MOST: Final = 100_000

COUNT: Final = Script("""#!lua flags=allow-oom
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local answers = {ARGV[1]}
for place, key in ipairs(KEYS) do
  local at = 4 * place - 2
  local units, first, second = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local state = redis.call('GET', key)
  local lasts
  if ARGV[at] == 'g' then
    local full_at = state and tonumber(state) or now
    if full_at < now then full_at = now end
    full_at = full_at + units * first
    lasts = full_at - now
    if units > 0 then
      redis.call('SET', key, string.format('%.7f', full_at), 'PX', math.ceil(lasts * 1000) + 1)
    end
    answers[#answers + 1] = string.format('%.9f', lasts)
    answers[#answers + 1] = '0'
  else
    local start = math.floor((now - second) / first) * first + second
    local count = 0
    if state then
      local began, counted = string.match(state, '^(%S+) (%S+)$')
      if tonumber(began) == start then count = tonumber(counted) end
    end
    count = count + units
    if units > 0 then
      lasts = math.ceil((start + first - now) * 1000) + 1
      redis.call('SET', key, string.format('%.6f %.9f', start, count), 'PX', lasts)
    end
    answers[#answers + 1] = string.format('%.9f', now - start)
    answers[#answers + 1] = string.format('%.9f', count)
  end
end
return answers
""")


class Reporter:
    """Reports.

    Args:
        link: the way to the shared store.
        sealer: names buckets, so that the store does not learn whose they are.
        namespace: this gateway's part of the store.
        clock: epoch seconds.
        processes: among how many limits are split while the store is away.

    Attributes:
        reports: reports to the store, by how they ended: "answered", "failed".
        beyond: requests beyond the lease, which came from this process's own share.
    """

    def __init__(
        self,
        link: Link,
        sealer: Sealer,
        namespace: str,
        *,
        clock: Callable[[], float],
        processes: Callable[[], int],
    ) -> None:
        self._link: Final = link
        self._sealer: Final = sealer
        self._namespace: Final = namespace
        self._clock: Final = clock
        self.processes: Final = processes
        self._due: dict[int, Bucket] = {}
        self._wake: Final = asyncio.Event()
        self._urgent: Final = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._sequence = 0
        self.reports: Final = {"answered": 0, "failed": 0}
        self.beyond = 0

    def due(self, bucket: Bucket, *, beyond: bool) -> None:
        """Report a bucket soon.

        Args:
            bucket: has units pending.
            beyond: whether the last ones came from this process's own share.
        """
        self.beyond += beyond
        self._due[id(bucket)] = bucket
        if len(self._due) > MOST:
            del self._due[next(iter(self._due))]
        self._wake.set()
        if bucket.pending * 2 >= bucket.table.lease:
            self._urgent.set()

    async def start(self) -> None:
        """Begin to report."""
        self._running = asyncio.ensure_future(self._run())

    async def stop(self) -> None:
        """Report what is left, once, and stop."""
        running, self._running = self._running, None
        if running is None:
            return
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await self._report()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            await self._link.up.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(PERIOD):
                    await self._urgent.wait()
            self._wake.clear()
            self._urgent.clear()
            await self._report()

    async def _report(self) -> None:
        due, self._due = self._due, {}
        processes = self.processes()
        shards: dict[int, list[Bucket]] = {}
        for bucket in due.values():
            bucket.table.split(processes)
            if not bucket.name:
                bucket.name = self._name(bucket)
            shards.setdefault(int(bucket.name[:2], 16) % SHARDS, []).append(bucket)
        batches = [
            (shard, buckets[place : place + _AT_ONCE])
            for shard, buckets in shards.items()
            for place in range(0, len(buckets), _AT_ONCE)
        ]
        await asyncio.gather(*(self._report_to(shard, buckets) for shard, buckets in batches))

    async def _report_to(self, shard: int, buckets: list[Bucket]) -> None:
        self._sequence += 1
        nonce, now = str(self._sequence), self._clock()
        keys = [f"{{{self._namespace}:counters:{shard}}}:{bucket.name}" for bucket in buckets]
        arguments = [part for bucket in buckets for part in report(bucket, now)]
        try:
            told: list[Any] = await self._link.run(COUNT, keys, nonce, *arguments)
        except SharedStoreError:
            told = []
        except BaseException:
            for bucket in buckets:
                unanswered(bucket)
            raise
        if len(told) != 2 * len(buckets) + 1 or told[0] != nonce.encode():
            self.reports["failed"] += 1
            for bucket in buckets:
                unanswered(bucket)
                self._due.setdefault(id(bucket), bucket)
            self._wake.set()
            return
        self.reports["answered"] += 1
        now = self._clock()
        for place, bucket in enumerate(buckets):
            answered(bucket, float(told[2 * place + 1]), float(told[2 * place + 2]), now)

    def _name(self, bucket: Bucket) -> str:
        name = encode(*bucket.table.identity, *bucket.key).encode("utf-8", "surrogatepass")
        return self._sealer.name(b"counter", name)
