"""The rate counters of one process among several: decided here at once, reported behind.

The arithmetic of leases is in `leases.py`; what the store answers to reports is taken over by `reporter.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.core.ratelimit import Decision
from gateway.limits.leases import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.core.rate_policy import RatePolicy
    from gateway.core.ratelimit import Said
    from gateway.limits.leases import Verdict
    from gateway.limits.reporter import Reporter
    from gateway.pipeline.ports import Charge


class SharedCounters:
    """Counters, for `pipeline.ports.Counters`.

    Args:
        policies: the policies, in the order their numbers in charges name them.
        reporter: tells the store.
        max_buckets: the most buckets kept here for each policy.
        lease: units given away before the others know.
    """

    def __init__(self, policies: Sequence[RatePolicy], reporter: Reporter, *, max_buckets: int, lease: float) -> None:
        self._reporter: Final = reporter
        self._tables: Final = tuple(Table(policy, max_buckets, lease, reporter.processes()) for policy in policies)
        for table in self._tables:
            reporter.keep(table)

    def peek(self, charge: Charge, now: float) -> Decision:
        """What would be decided; nothing is taken."""
        number, key, cost = charge
        table = self._tables[number]
        return Decision._make(table.judge(table.buckets.get(key), now, cost, key[-1])[0])

    def take_one(self, charge: Charge, now: float) -> Said:
        """Take what the only charge of a request asks for; never waits."""
        number, key, cost = charge
        table = self._tables[number]
        bucket = table.buckets.get(key)
        verdict = said, share = table.judge(bucket, now, cost, key[-1])
        if not said[2]:
            bucket = table.charge(key, bucket, verdict, cost, now)
            if bucket is not None:
                self._reporter.due(bucket, beyond=share is not None)
        return said

    def take(self, charges: Sequence[Charge], now: float) -> list[Decision]:
        """Take what all of the charges ask for, or nothing; never waits.

        Args:
            charges: at most one for each policy.
            now: epoch seconds.

        Returns:
            What each bucket said, in order. A shadow policy's refusal stands in nobody's way.
        """
        if len(charges) == 1:
            return [Decision._make(self.take_one(charges[0], now))]
        tables = self._tables
        verdicts: list[Verdict] = []
        granted = True
        for number, key, cost in charges:
            table = tables[number]
            verdict = table.judge(table.buckets.get(key), now, cost, key[-1])
            verdicts.append(verdict)
            if verdict[0][2] and not table.shadow:
                granted = False
        if not granted:
            return [
                Decision._make(verdict[0]) if verdict[0][2] else self.peek((charge[0], charge[1], 0.0), now)
                for charge, verdict in zip(charges, verdicts, strict=True)
            ]
        for (number, key, cost), verdict in zip(charges, verdicts, strict=True):
            if verdict[0][2]:
                continue
            table = tables[number]
            bucket = table.charge(key, table.buckets.get(key), verdict, cost, now)
            if bucket is not None:
                self._reporter.due(bucket, beyond=verdict[1] is not None)
        return [Decision._make(verdict[0]) for verdict in verdicts]

    def succeed(self, other: object) -> None:
        """Go on with the buckets of counters that these replace, where a policy counts whom and what it did.

        Args:
            other: may be in use for requests under way; both then take from the same buckets. Of another kind they
                have nothing to go on with.
        """
        if not isinstance(other, SharedCounters):
            return
        before = {table.policy.name: table for table in other._tables}  # noqa: SLF001 - of its own class
        for table in self._tables:
            old = before.get(table.policy.name)
            if old is None:
                continue
            table.evictions = old.evictions
            if table.identity == old.identity:
                table.buckets = old.buckets

    def buckets(self) -> Mapping[str, int]:
        """Buckets kept here, by policy."""
        return {table.policy.name: len(table.buckets) for table in self._tables}

    def evictions(self) -> Mapping[str, int]:
        """Buckets forgotten here before they were full again, by policy; the store has them still."""
        return {table.policy.name: table.evictions for table in self._tables}
