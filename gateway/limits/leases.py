"""Buckets that several processes share: what each may give away before the others know, and how they are told.

A process keeps a *view* of each bucket: what the shared store said last, less what it gave away since. It decides by
that view and reports behind. Units given away since the last settled answer, `held`, may reach the **lease**; whatever
goes beyond it must also come from the process's own **share**, a bucket with its part of limit and burst. So nobody
waits for the store, and without it each process goes on with its share.

**A store that has lost its data is told it again**: each report carries the *level* that the store itself named last,
and the store keeps the highest. An answer of an epoch so young that not all may have told theirs is not settled: it
fills no lease.

**The bound.** With n processes, in any time t: burst + rate x t, plus n x lease, plus what the shares hold of what the
whole does not, at most one burst, when reports stay unanswered or the data is lost, however often. What was given away
too much is owed: the shared bucket stays empty until it has flowed back. A single request that costs more than the
lease is its own lease. `docs/scaling.md` says it more exactly.

No I/O and no clock here: `reporter.py` carries the reports.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from gateway.core.rate_policy import Mode
from gateway.core.ratelimit import FixedWindow, Gcra, stagger

if TYPE_CHECKING:
    from gateway.core.rate_policy import Key, RatePolicy
    from gateway.core.ratelimit import Said

_LOOKED_AT: Final = 2
_RATIO: Final = 0.01
_MOST: Final = 0.25


class Bucket:
    """One bucket as this process sees it.

    Attributes:
        view: its state in the algorithm's own form, on this process's clock; None for full.
        known: the same as the store said it last.
        level: the same on a clock that never goes back, to be told to a store that has forgotten it; None for full.
        share: the state of this process's own part.
        held: units given away since the last settled answer.
        pending: units given away that the store has not confirmed.
        sent: of them, those in a report under way.
        name: under which the store knows it, once that was worked out.
    """

    __slots__ = ("held", "key", "known", "level", "name", "pending", "sent", "share", "table", "view")

    def __init__(self, table: Table, key: Key) -> None:
        self.table: Final = table
        self.key: Final = key
        self.view: Any = None
        self.known: Any = None
        self.level: Any = None
        self.share: Any = None
        self.held = 0.0
        self.pending = 0.0
        self.sent = 0.0
        self.name = ""


# What is decided of one charge, and the state of the process's own share afterwards, None when it was not asked. A
# plain tuple, because one is made for every policy and request.
Verdict: TypeAlias = "tuple[Said, Any]"


class Table:
    """The buckets of one policy.

    Args:
        policy: the policy.
        capacity: the most buckets kept.
        lease: units asked for in the settings.
        processes: among how many the limit is split.

    Attributes:
        most: beyond which no level counts, in seconds or units: all that can be given away too much.
    """

    __slots__ = (
        *("__weakref__", "_idle", "_judge", "_own", "_quota", "_share", "buckets", "capacity", "evictions"),
        *("lease", "most", "policy", "processes", "shadow"),
    )

    def __init__(self, policy: RatePolicy, capacity: int, lease: float, processes: int) -> None:
        self.policy: Final = policy
        self.capacity: Final = capacity
        self.shadow: Final = policy.mode is Mode.SHADOW
        self.lease: Final = lease_of(policy.bucket.quota, lease)
        self._judge: Final[Any] = policy.bucket.judge  # states are its own affair
        self._quota: Final = policy.bucket.quota
        self._idle: Final[Any] = policy.bucket.idle
        self.buckets: OrderedDict[Key, Bucket] = OrderedDict()
        self.evictions = 0
        self.processes = 0
        self.most = 0.0
        self._own: Any = None
        self._share: Any = None
        self.split(processes)

    @property
    def identity(self) -> tuple[str, ...]:
        """Whom and what it counts; tables that agree in it may go on with each other's buckets."""
        policy, rule = self.policy, self.policy.bucket
        return policy.name, policy.who.value, type(rule).__name__, f"{rule.limit!r} {rule.window!r} {rule.quota!r}"

    def split(self, processes: int) -> None:
        """Have this process's share be one of so many."""
        if processes != self.processes:
            self.processes = processes
            rule = self.policy.bucket
            self._own = share_of(rule, processes)
            self._share = self._own.judge
            units = 2 * rule.quota + processes * max(1.0, self.lease)
            self.most = units * rule.window / rule.limit if isinstance(rule, Gcra) else units

    def judge(self, bucket: Bucket | None, now: float, cost: float, subject: str) -> Verdict:
        """What becomes of a request; nothing is written down.

        Args:
            bucket: its bucket, None when there is none yet.
            now: epoch seconds.
            cost: units.
            subject: who is counted.
        """
        judge = self._judge  # named first: what an instance holds is slow to call
        if bucket is None:
            return judge(None, now, cost, subject), None
        said: Said = judge(bucket.view, now, cost, subject)
        held = bucket.held
        # Its fields by their place, because this is the path of every hit.
        if said[2] or not held or cost <= 0 or held + cost <= self.lease or held + self._quota <= self.lease:
            return said, None
        own: Said = self._share(self._left(bucket), now, cost, subject)
        if own[2]:
            return (0.0, said[1], own[2], bucket.view), None
        return said, own[3]

    def _left(self, bucket: Bucket) -> Any:
        """The state of this process's share: never fuller than the whole was when the store was last heard of."""
        known, share = bucket.known, bucket.share
        if known is None or isinstance(self.policy.bucket, Gcra):
            return share if known is None or (share is not None and share >= known) else known
        counted = known[1] / self.processes
        return known[0], max(counted, share[1]) if share is not None and share[0] == known[0] else counted

    def charge(self, key: Key, bucket: Bucket | None, verdict: Verdict, cost: float, now: float) -> Bucket | None:
        """Write down what was granted.

        Returns:
            The bucket when the store is to be told of it.
        """
        if cost <= 0:
            return None
        if bucket is None:
            bucket = self.buckets[key] = Bucket(self, key)
            self._make_room(now)
        said, share = verdict
        bucket.view = said[3]
        if share is not None:
            bucket.share = share
        units = self._quota if cost > self._quota else cost  # noqa: FURB136 - the built-in function costs as much as the rest
        bucket.pending += units
        bucket.held += units
        return bucket

    def _make_room(self, now: float) -> None:
        """Drop what is full; beyond the capacity what was entered first. What is not reported is reported still."""
        buckets = self.buckets
        for _ in range(min(_LOOKED_AT, len(buckets) - 1)):
            oldest = next(iter(buckets))
            if self._full(buckets[oldest], now):
                del buckets[oldest]
            else:
                buckets.move_to_end(oldest)
        while len(buckets) > self.capacity:
            buckets.popitem(last=False)
            self.evictions += 1

    def _full(self, bucket: Bucket, now: float) -> bool:
        """Whether the whole and this process's share of it are, and nothing is left to report."""
        if bucket.pending or not (bucket.view is None or self._idle(bucket.view, now)):
            return False
        return bucket.share is None or bool(self._own.idle(bucket.share, now))


class Answer(NamedTuple):
    """What holds for all buckets of one answer.

    Attributes:
        now: epoch seconds, when it came.
        server: what the server's clock said.
        offset: what that clock is ahead of the steady one, in seconds.
        settled: whether all processes have told this epoch what they knew.
    """

    now: float
    server: float
    offset: float
    settled: bool


def lease_of(quota: float, asked: float) -> float:
    """How many units may be pending: as many as asked for or a hundredth of the burst, at most a quarter of it."""
    return min(max(asked, quota * _RATIO), max(1.0, quota * _MOST))


def share_of(bucket: Gcra | FixedWindow, processes: int) -> Gcra | FixedWindow:
    """The part of one of so many processes; at least one request may pass now and then."""
    if isinstance(bucket, Gcra):
        return Gcra(bucket.limit / processes, bucket.window, max(1.0, bucket.quota / processes))
    return FixedWindow(max(1.0, bucket.limit / processes), bucket.window)


def report(bucket: Bucket, now: float, offset: float | None) -> tuple[str, float, float, float, float, float, float]:
    """What the store is told: algorithm, units, its two parameters, the level in two parts, and the most it counts.

    The units are under way from now on. Those that have flowed back already, because the store was away for long, are
    not owed any more.

    Args:
        bucket: of which.
        now: epoch seconds.
        offset: what the server's clock is ahead of the steady one; None when that is not known.
    """
    table, rule, view = bucket.table, bucket.table.policy.bucket, bucket.view
    level = None if offset is None else bucket.level
    if isinstance(rule, Gcra):
        interval = rule.window / rule.limit
        owed = 0.0 if view is None else (view - now) / interval
        if bucket.share is not None:  # the others' shares are as empty, for all this process knows
            owed = max(owed, (bucket.share - max(now, bucket.known or 0.0)) / (interval * table.processes))
        bucket.pending = min(bucket.pending, max(0.0, owed))
        bucket.sent = bucket.pending
        return "g", bucket.sent, interval, 0.0, 0.0 if level is None else level + offset, 0.0, table.most
    if view is None or not now - view[0] < rule.window:
        bucket.pending = 0.0
    bucket.sent = bucket.pending
    start, counted = (0.0, 0.0) if level is None else (level[0] + offset, level[1])
    phase = stagger(bucket.key[-1], 0.0, rule.window) % rule.window
    return "w", bucket.sent, rule.window, phase, start, counted, table.most


def answered(bucket: Bucket, instant: float, counted: float, answer: Answer) -> None:
    """Take over what the store said, unless this process knows of more: the store may have lost its data.

    Args:
        bucket: was reported.
        instant: on the server's clock; GCRA: when it is full; window: when it began.
        counted: window: units counted in it.
        answer: what holds for all of them. Nothing in it is believed beyond what honest processes could bring about.
    """
    rule, most, now = bucket.table.policy.bucket, bucket.table.most, answer.now
    bucket.pending = max(0.0, bucket.pending - bucket.sent)
    bucket.sent = 0.0
    if answer.settled:
        bucket.held = bucket.pending
    if isinstance(rule, Gcra):
        lasts = _within(instant - answer.server, most)
        bucket.level = max(bucket.level or 0.0, answer.server + lasts - answer.offset)
        known = min(bucket.view or 0.0, now + rule.span)  # unless the clock was set back
        bucket.view = max(known, now + lasts + bucket.pending * rule.window / rule.limit)
        bucket.known = max(known, now + lasts)
        return
    since = _within(answer.server - instant, rule.window)
    told, began = _within(counted, most), answer.server - since - answer.offset
    if bucket.level is not None and abs(bucket.level[0] - began) < rule.window / 2:
        told = max(told, bucket.level[1])
    bucket.level = (began, told)
    start, counted = now - since, told + bucket.pending
    if bucket.view is not None and abs(bucket.view[0] - start) < rule.window / 2:
        start, counted = bucket.view[0], max(counted, bucket.view[1])
    bucket.known = (start, min(counted, rule.limit))
    bucket.view = (start, min(counted, rule.limit))


def _within(value: float, most: float) -> float:
    """A number between 0 and `most`, whatever was said."""
    return value if 0.0 <= value <= most else most if value > most else 0.0


def remembers(bucket: Bucket, steady: float) -> bool:
    """Whether this process has something to tell a store that has forgotten it; `steady` is the clock of levels."""
    rule, level = bucket.table.policy.bucket, bucket.level
    if level is None:
        return bucket.pending > 0
    if isinstance(rule, Gcra):
        return bucket.pending > 0 or level > steady
    return bucket.pending > 0 or steady - level[0] < rule.window


def unanswered(bucket: Bucket) -> None:
    """A report got lost, perhaps on its way back. It is sent again: rather are units counted twice than not at all."""
    bucket.sent = 0.0
