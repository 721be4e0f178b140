"""The buckets of one process: a bounded table for each policy, no timers, no locks, nothing kept for idle buckets.

A bucket that is full again has no entry: two of those nobody used for longest are looked at whenever a new one comes,
and dropped when they are full, so that a table shrinks as fast as it grows.

**At the bound** the bucket that was charged longest ago is forgotten and begins full again: this limiter fails open.
The other way, to refuse whoever is new, would let an attacker with many addresses lock everybody out; this way one with
more addresses than the bound gains what that many addresses have anyway. Each policy has a table of its own, so that
addresses, which an attacker may have plenty of, never push out principals, which UAA hands out. Forgotten buckets are
counted.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from gateway.core.rate_policy import Mode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.core.rate_policy import Key, RatePolicy
    from gateway.core.ratelimit import Decision
    from gateway.pipeline.ports import Charge

_LOOKED_AT: Final = 2


class _Table:
    __slots__ = ("buckets", "capacity", "decide", "evictions", "idle", "name", "shadow")

    def __init__(self, policy: RatePolicy, capacity: int) -> None:
        self.name: Final = policy.name
        self.shadow: Final = policy.mode is Mode.SHADOW
        self.capacity: Final = capacity
        self.decide: Final[Any] = policy.bucket.decide  # states are its own affair
        self.idle: Final[Any] = policy.bucket.idle
        self.buckets: Final[OrderedDict[Key, Any]] = OrderedDict()  # least recently used first
        self.evictions = 0

    def keep(self, key: Key, state: Any, now: float) -> None:
        """Write a bucket down, unless it is full."""
        buckets = self.buckets
        if state is None:
            buckets.pop(key, None)
            return
        known = len(buckets)
        buckets[key] = state
        if len(buckets) == known:
            buckets.move_to_end(key)
        else:
            self._make_room(now)

    def _make_room(self, now: float) -> None:
        buckets = self.buckets
        for _ in range(min(_LOOKED_AT, len(buckets) - 1)):
            oldest = next(iter(buckets))
            if not self.idle(buckets[oldest], now):
                break
            del buckets[oldest]
        while len(buckets) > self.capacity:
            buckets.popitem(last=False)
            self.evictions += 1


class MemoryCounters:
    """Counters of one process, for `pipeline.ports.Counters`.

    Args:
        policies: the policies, in the order their numbers in charges name them.
        max_buckets: the most buckets kept for each of them, each about 300 bytes.
    """

    def __init__(self, policies: Sequence[RatePolicy], *, max_buckets: int) -> None:
        self._tables: Final = tuple(_Table(policy, max_buckets) for policy in policies)

    def peek(self, charge: Charge, now: float) -> Decision:
        """What would be decided; nothing is taken."""
        number, key, cost = charge
        table = self._tables[number]
        decision: Decision = table.decide(table.buckets.get(key), now, cost, key[-1])
        return decision

    def take(self, charges: Sequence[Charge], now: float) -> list[Decision]:
        """Take what all of the charges ask for, or nothing.

        Args:
            charges: at most one for each policy.
            now: epoch seconds.

        Returns:
            What each bucket said, in order. A shadow policy's refusal stands in nobody's way.
        """
        tables = self._tables
        decisions: list[Decision] = []
        granted = True
        for number, key, cost in charges:
            table = tables[number]
            decision = table.decide(table.buckets.get(key), now, cost, key[-1])
            decisions.append(decision)
            if decision[2] and not table.shadow:  # retry_after, by its place because this is the hot path
                granted = False
        if not granted:
            decisions = [
                decision if decision[2] else self.peek((charge[0], charge[1], 0.0), now)
                for charge, decision in zip(charges, decisions, strict=True)
            ]
        for charge, decision in zip(charges, decisions, strict=True):
            tables[charge[0]].keep(charge[1], decision[3], now)
        return decisions

    def buckets(self) -> Mapping[str, int]:
        """Buckets kept, by policy."""
        return {table.name: len(table.buckets) for table in self._tables}

    def evictions(self) -> Mapping[str, int]:
        """Buckets forgotten before they were full again, by policy."""
        return {table.name: table.evictions for table in self._tables}
