"""The buckets of one process: a bounded table for each policy, no timers, no locks, nothing kept for idle buckets.

A bucket that is full again need have no entry: beyond a few thousand, whenever a new one comes, two old ones are looked
at and dropped when they are full, so that a table shrinks as fast as it grows.

**At the bound** a bucket that nobody used since it was last looked at is forgotten and begins full again: this limiter
fails open. The other way, to refuse whoever is new, would let an attacker with many addresses lock everybody out; this
way one with more addresses than the bound gains what that many addresses have anyway. Each policy has a table of its
own, so that addresses, which an attacker may have plenty of, never push out principals, which UAA hands out. Forgotten
buckets are counted.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from gateway.core.rate_policy import Mode
from gateway.core.ratelimit import Decision

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.core.rate_policy import Key, RatePolicy
    from gateway.core.ratelimit import Said
    from gateway.pipeline.ports import Charge

_LOOKED_AT: Final = 2
_UNSWEPT: Final = 4096  # so few are not worth looking at: about 1 MB, and who comes back soon finds his
_SPARED: Final = 8

# A bucket in a table: its state, and whether it was used since it was last looked at. A list, because it is written to
# for every request and written over in place costs no second look-up.
_Cell = list[Any]


class _Table:
    __slots__ = ("capacity", "cells", "decide", "evictions", "find", "idle", "judge", "name", "policy", "shadow")

    def __init__(self, policy: RatePolicy, capacity: int) -> None:
        self.policy: Final = policy
        self.name: Final = policy.name
        self.shadow: Final = policy.mode is Mode.SHADOW
        self.capacity: Final = capacity
        self.decide: Final[Any] = policy.bucket.decide  # states are its own affair
        self.judge: Final[Any] = policy.bucket.judge
        self.idle: Final[Any] = policy.bucket.idle
        self.adopt(OrderedDict())
        self.evictions = 0

    def adopt(self, cells: OrderedDict[Key, _Cell]) -> None:
        """Keep the buckets there."""
        self.cells = cells
        self.find = cells.get

    def enter(self, key: Key, cell: _Cell | None, state: Any, now: float) -> None:
        """Give a bucket an entry, or take it away when it is full.

        Args:
            key: whose it is.
            cell: its entry, None when it has none yet.
            state: what became of it, None for full.
            now: epoch seconds.
        """
        if state is None:
            if cell is not None:
                del self.cells[key]
            return
        self.cells[key] = [state, False]
        self._make_room(now)

    def _make_room(self, now: float) -> None:
        """Drop what is full, and beyond the capacity what was not used for long; a bounded number of steps."""
        cells = self.cells
        if len(cells) <= _UNSWEPT and len(cells) <= self.capacity:
            return
        for _ in range(min(_LOOKED_AT, len(cells) - 1)):
            oldest = next(iter(cells))
            if self.idle(cells[oldest][0], now):
                del cells[oldest]
            else:
                cells.move_to_end(oldest)
        spared = 0
        while len(cells) > self.capacity:
            oldest = next(iter(cells))
            if cells[oldest][1] and spared < _SPARED:
                spared += 1
                cells[oldest][1] = False
                cells.move_to_end(oldest)
            else:
                del cells[oldest]
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
        cell = table.cells.get(key)
        decision: Decision = table.decide(None if cell is None else cell[0], now, cost, key[-1])
        return decision

    def take_one(self, charge: Charge, now: float) -> Said:
        """Take what the only charge of a request asks for: nobody else's refusal matters, so what was said is done."""
        number, key, cost = charge
        table = self._tables[number]
        find, judge = table.find, table.judge  # named first, as in `Admission.again`
        cell = find(key)
        said: Said
        if cell is None:
            said = judge(None, now, cost, key[-1])
            table.enter(key, None, said[3], now)
            return said
        said = judge(cell[0], now, cost)  # a bucket that is there says where its window is
        state = said[3]
        if state is None:
            table.enter(key, cell, None, now)
        else:
            cell[0] = state
            cell[1] = True
        return said

    def take(self, charges: Sequence[Charge], now: float) -> list[Decision]:
        """Take what all of the charges ask for, or nothing.

        Args:
            charges: at most one for each policy.
            now: epoch seconds.

        Returns:
            What each bucket said, in order. A shadow policy's refusal stands in nobody's way.
        """
        if len(charges) == 1:
            return [Decision._make(self.take_one(charges[0], now))]
        tables = self._tables
        decisions: list[Decision] = []
        found: list[_Cell | None] = []
        granted = True
        for number, key, cost in charges:
            table = tables[number]
            cell = table.cells.get(key)
            decision = table.decide(None if cell is None else cell[0], now, cost, key[-1])
            found.append(cell)
            decisions.append(decision)
            if decision[2] and not table.shadow:  # retry_after, by its place because this is the hot path
                granted = False
        if not granted:
            decisions = [
                decision if decision[2] else self.peek((charge[0], charge[1], 0.0), now)
                for charge, decision in zip(charges, decisions, strict=True)
            ]
        for place, (number, key, _) in enumerate(charges):
            state, cell = decisions[place][3], found[place]
            if cell is not None and state is not None:
                cell[0] = state
                cell[1] = True
            else:
                tables[number].enter(key, cell, state, now)
        return decisions

    def succeed(self, other: object) -> None:
        """Go on with the buckets of counters that these replace, where a policy counts whom and what it did.

        Args:
            other: may be in use for requests under way; both then take from the same buckets. Of another kind they
                have nothing to go on with.
        """
        if not isinstance(other, MemoryCounters):
            return
        before = {table.name: table for table in other._tables}  # noqa: SLF001 - of its own class
        for table in self._tables:
            old = before.get(table.name)
            if old is None:
                continue
            table.evictions = old.evictions
            if old.policy.who is table.policy.who and _arithmetic(old.policy) == _arithmetic(table.policy):
                table.adopt(old.cells)

    def buckets(self) -> Mapping[str, int]:
        """Buckets kept, by policy."""
        return {table.name: len(table.cells) for table in self._tables}

    def evictions(self) -> Mapping[str, int]:
        """Buckets forgotten before they were full again, by policy."""
        return {table.name: table.evictions for table in self._tables}


def _arithmetic(policy: RatePolicy) -> tuple[type, float, float, float]:
    bucket = policy.bucket
    return type(bucket), bucket.limit, bucket.window, bucket.quota
