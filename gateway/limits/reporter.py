"""Reports of units given away, to the store that all processes share, and what it answers.

Reports leave ten times a second, at once when half of a lease is used up; many buckets of one shard in one, and one
after the other, so that however many there are after an outage none waits long. While the store is away they wait. A
shard that nothing is reported to is looked at, so that a process hears of a new epoch whether it has requests or not,
and can tell what it knows.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from gateway.core.visibility import encode
from gateway.limits.counting import COUNT, EACH, HEAD, SETTLE, SHARDS, Shard, fresh_epoch
from gateway.limits.leases import Answer, Bucket, answered, remembers, report, unanswered
from gateway.shared.options import SharedStoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.limits.leases import Table
    from gateway.shared.link import Link
    from gateway.shared.seal import Sealer

PERIOD: Final = 0.1
# Seconds without a report after which a shard is looked at.
LOOK: Final = 0.25
# Buckets in one report, and reports under way: few, so that none takes long and others' commands get through.
_AT_ONCE: Final = 50
_UNDER_WAY: Final = 2
# Buckets looked through before others have their turn.
_A_STEP: Final = 2000
# Buckets that wait to be reported while the store is away; beyond it the oldest are not.
MOST: Final = 100_000


def _steady() -> float:
    """Seconds of a clock that goes on while the machine sleeps, where there is one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Reporter:
    """Reports.

    Args:
        link: the way to the shared store.
        sealer: names buckets, so that the store does not learn whose they are.
        namespace: this gateway's part of the store.
        clock: epoch seconds.
        processes: among how many limits are split while the store is away.
        steady: seconds of a clock that never goes back.

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
        steady: Callable[[], float] = _steady,
    ) -> None:
        self._link: Final = link
        self._sealer: Final = sealer
        self._namespace: Final = namespace
        self._clock: Final = clock
        self._steady: Final = steady
        self.processes: Final = processes
        self._tables: Final[WeakSet[Table]] = WeakSet()
        self._shards: Final = tuple(Shard() for _ in range(SHARDS))
        self._due: dict[int, Bucket] = {}
        self._wake: Final = asyncio.Event()
        self._urgent: Final = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._turns: Final = asyncio.Semaphore(_UNDER_WAY)
        self._unsettled: Final[dict[int, dict[int, Bucket]]] = {}
        self._sequence = 0
        self.reports: Final = {"answered": 0, "failed": 0}
        self.beyond = 0

    def due(self, bucket: Bucket, *, beyond: bool) -> None:
        """Report a bucket soon.

        Args:
            bucket: has units pending.
            beyond: whether the last ones came from this process's own share.
        """
        if beyond:
            self.beyond += 1
        due, number = self._due, id(bucket)
        if number not in due:
            due[number] = bucket
            if len(due) > MOST:
                del due[next(iter(due))]
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

    def keep(self, table: Table) -> None:
        """Have the store be told of a table's buckets when it has forgotten them."""
        self._tables.add(table)

    async def _run(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await self._wake.wait()
            await self._link.up.wait()
            if self._due:
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
            shards.setdefault(self._shard_of(bucket), []).append(bucket)
        if any(table.buckets for table in self._tables):
            before = self._steady() - LOOK
            for number, shard in enumerate(self._shards):
                if shard.heard < before:
                    shards.setdefault(number, [])
        begun = await asyncio.gather(*(self._report_all(number, buckets) for number, buckets in shards.items()))
        forgetful = {number for number, new in zip(shards, begun, strict=True) if new}
        if forgetful:
            await self._tell_all(forgetful)

    async def _report_all(self, number: int, buckets: list[Bucket]) -> bool:
        """Report buckets of one shard; returns whether it has begun a new epoch."""
        begun = False
        for place in range(0, max(1, len(buckets)), _AT_ONCE):
            async with self._turns:
                begun |= await self._report_to(number, buckets[place : place + _AT_ONCE])
        return begun

    async def _report_to(self, number: int, buckets: list[Bucket]) -> bool:
        self._sequence += 1
        shard, prefix = self._shards[number], f"{{{self._namespace}:counters:{number}}}:"
        nonce, now, sent = str(self._sequence), self._clock(), self._steady()
        keys = [f"{prefix}epoch", *(f"{prefix}{bucket.name}" for bucket in buckets)]
        arguments = [part for bucket in buckets for part in report(bucket, now, shard.offset)]
        try:
            told: list[Any] = await self._link.run(COUNT, keys, nonce, shard.expects(sent), fresh_epoch(), *arguments)
        except SharedStoreError:
            told = []
        except BaseException:
            for bucket in buckets:
                unanswered(bucket)
            raise
        if len(told) != HEAD + EACH * len(buckets) or told[0] != nonce.encode():
            if buckets:
                self.reports["failed"] += 1
            for bucket in buckets:
                unanswered(bucket)
                self._again(bucket)
            return False
        return self._hear(number, buckets, told, sent)

    def _hear(self, number: int, buckets: Sequence[Bucket], told: Sequence[Any], sent: float) -> bool:
        shard = self._shards[number]
        server, same = float(told[2]), bool(told[4])
        begun = shard.learn(told[1].decode(), server, sent, self._steady(), same=same)
        if buckets:
            self.reports["answered"] += 1
        settled = float(told[3]) >= SETTLE
        answer = Answer(self._clock(), server, shard.offset or 0.0, settled=settled)
        waiting = self._unsettled.setdefault(number, {})
        if settled and waiting:
            for bucket in waiting.values():
                self._again(bucket)  # its lease is filled by the answer to that
            waiting.clear()
        for place, bucket in enumerate(buckets):
            # A level that was said in another clock's time has not been taken.
            taken = same or bucket.level is None
            at = HEAD + EACH * place
            answered(bucket, float(told[at]), float(told[at + 1]), answer if taken else answer._replace(settled=False))
            if not taken:
                self._again(bucket)
            elif not settled and bucket.held > bucket.pending:
                waiting[id(bucket)] = bucket
        return begun

    async def _tell_all(self, numbers: set[int]) -> None:
        """Report all that is known of these shards: the store may have forgotten it."""
        steady = self._steady()
        for table in list(self._tables):
            buckets = list(table.buckets.values())
            for place in range(0, len(buckets), _A_STEP):
                for bucket in buckets[place : place + _A_STEP]:
                    if remembers(bucket, steady) and self._shard_of(bucket) in numbers:
                        self._again(bucket)
                await asyncio.sleep(0)

    def _again(self, bucket: Bucket) -> None:
        self._due.setdefault(id(bucket), bucket)
        self._wake.set()

    def _shard_of(self, bucket: Bucket) -> int:
        if not bucket.name:
            bucket.name = self._name(bucket)
        return int(bucket.name[:2], 16) % SHARDS

    def _name(self, bucket: Bucket) -> str:
        name = encode(*bucket.table.identity, *bucket.key).encode("utf-8", "surrogatepass")
        return self._sealer.name(b"counter", name)
