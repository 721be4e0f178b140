"""What an operator sees of the page store, and how it is purged by hand. In slices, so that requests go on meanwhile.

A purge first lets no fetch that is under way be stored: what began before it may be older than it. A soft one makes
pages stale instead of dropping them: the next request asks the controller, and until it has answered no more is served
than the page's own windows allow. Whose a page is is never told: an operator who asks by an id is told that id alone.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from hashlib import blake2b
from secrets import token_bytes
from typing import TYPE_CHECKING, Any, Final, Protocol

from gateway.core.invalidation import EVERYTHING
from gateway.core.selection import Selection
from gateway.core.visibility import kind_of as kind_of_domain
from gateway.pipeline.entry import Entry
from gateway.pipeline.purges import Purge

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

    from gateway.core.keys import CacheKey
    from gateway.pipeline.ports import Stored

# How much is looked at before others get their turn: about a millisecond's worth.
_SLICE: Final = 1 << 20
_GLANCE: Final = 4096  # what judging a page costs beside its content, in the same measure


class Held(Protocol):
    """A stored page and what the store knows of its use."""

    entry: Stored
    size: int
    number: int
    settled: bool

    @property
    def hits(self) -> int:
        """How often it was found."""


class Inspectable(Protocol):
    """The page store as the operator needs it."""

    @property
    def max_bytes(self) -> int:
        """The budget."""

    def nodes(self) -> Sequence[Held]:
        """Everything stored at this moment."""

    @property
    def bytes(self) -> int:
        """Bytes counted against the budget."""

    @property
    def evictions(self) -> Mapping[str, int]:
        """Pages that gave way, by why."""

    def peek(self, key: CacheKey) -> Stored | None:
        """What is stored under a key; does not count as a hit."""

    def invalidate(self, tags: Iterable[str]) -> int:
        """Drop every entry that carries one of the tags; returns how many."""

    def refuse_under_way(self) -> None:
        """Let no fetch that is under way be stored."""

    def discard(self, key: CacheKey) -> bool:
        """Drop what is stored under exactly this key; whether anything was."""

    def replace(self, old: Stored, new: Stored) -> bool:
        """Put `new` in the place of `old`, if that very entry is stored still."""


@dataclass(slots=True)
class Statistics:
    """What is stored, in sum.

    Attributes:
        entries: pages, by class of visibility domain.
        sizes: their bytes, by class.
        modes: pages by cache mode.
        stale: pages past their freshness.
        settled: pages past probation.
        domains: how many visibility domains have pages.
        largest: bytes of the largest of those that are one principal's.
    """

    entries: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)
    stale: int = 0
    settled: int = 0
    domains: int = 0
    largest: int = 0


class Inspector:
    """Lists, inspects and purges what a store holds.

    Args:
        store: the page store.
        clock: epoch seconds.
        announce: has other processes drop pages by their tags, more than were purged here if need be; None when this
            one is alone.
        publish: tells other processes what is purged here, as what it is, so that each purges its own pages; where
            there is none, they are told by tags.

    Attributes:
        purged: pages purged by hand, "hard" and "soft".
    """

    def __init__(
        self,
        store: Inspectable,
        clock: Callable[[], float],
        announce: Callable[[Iterable[str]], None] | None = None,
        publish: Callable[[Purge], None] | None = None,
    ) -> None:
        self.store: Final = store
        self._announce: Final = announce
        self._publish: Final = publish
        self._clock: Final = clock
        self._secret: Final = token_bytes(16)
        self.purged: Final = {"hard": 0, "soft": 0}

    async def select(self, wanted: Selection) -> AsyncIterator[Held]:
        """The stored pages that a selection means."""
        looked = 0
        for node in self.store.nodes():
            bodies = _bodies(node.entry)
            looked += _GLANCE + (sum(map(len, bodies)) if wanted.guid is not None else 0)
            if wanted.matches(node.entry.key, node.entry.tags, bodies):
                yield node
            if looked > _SLICE:
                looked = 0
                await asyncio.sleep(0)

    async def purge(self, wanted: Selection, *, soft: bool) -> int:
        """Drop what a selection means, or make it stale; returns how many pages that were.

        Args:
            wanted: which pages.
            soft: make them stale and leave the rest to the next request.
        """
        if not soft and wanted in (Selection(), Selection(type=wanted.type)):
            tags = (EVERYTHING if wanted.type is None else wanted.type,)
            if self._announce is not None:
                self._announce(tags)
            count = self.store.invalidate(tags)
            self.purged["hard"] += count
            return count
        if self._publish is not None:
            self._publish(Purge(soft, selection=wanted))
        return await self._purge(wanted, soft=soft, told=self._publish is not None)

    def purge_one(self, key: CacheKey, *, soft: bool) -> bool:
        """Drop one page or make it stale; whether it was there."""
        self.store.refuse_under_way()
        if self._publish is not None:
            self._publish(Purge(soft, key=key))
        return self._purge_one(key, soft=soft, told=self._publish is not None)

    async def carry_out(self, purge: Purge) -> None:
        """Purge here what an operator purged through another process."""
        if purge.selection is not None:
            await self._purge(purge.selection, soft=purge.soft, told=True)
        elif purge.key is not None:
            self.store.refuse_under_way()
            self._purge_one(purge.key, soft=purge.soft, told=True)

    async def _purge(self, wanted: Selection, *, soft: bool, told: bool) -> int:
        self.store.refuse_under_way()
        # Whatever has taken the place of a page meanwhile goes too: too much is a miss, too little a lie.
        return sum([self._purge_one(node.entry.key, soft=soft, told=told) async for node in self.select(wanted)])

    def _purge_one(self, key: CacheKey, *, soft: bool, told: bool) -> bool:
        entry = self.store.peek(key)
        if entry is None:
            return False
        if self._announce is not None and not told:
            self._announce(entry.tags)
        if soft:
            self.store.replace(entry, entry.outdated(self._clock()))
        else:
            self.store.discard(key)
        self.purged["soft" if soft else "hard"] += 1
        return True

    def find(self, number: int) -> Held | None:
        """The stored page of that number."""
        return next((node for node in self.store.nodes() if node.number == number), None)

    async def statistics(self) -> Statistics:
        """What is stored, in sum."""
        found, domains, now, looked = Statistics(), dict[str, int](), self._clock(), 0
        for node in self.store.nodes():
            domain = node.entry.key.domain
            kind, mode = kind_of_domain(domain), _mode(node.entry)
            found.entries[kind] = found.entries.get(kind, 0) + 1
            found.sizes[kind] = found.sizes.get(kind, 0) + node.size
            found.modes[mode] = found.modes.get(mode, 0) + 1
            found.stale += _times(node.entry)[0] <= now
            found.settled += node.settled
            domains[domain] = domains.get(domain, 0) + node.size
            looked += _GLANCE
            if looked > _SLICE:
                looked = 0
                await asyncio.sleep(0)
        found.domains = len(domains)
        found.largest = max((size for key, size in domains.items() if kind_of_domain(key) == "principal"), default=0)
        return found

    def summary(self, node: Held, *, principal: str | None = None) -> dict[str, Any]:
        """A page as a line of a list.

        Args:
            node: the page.
            principal: the id that was asked for, told again; never any other.
        """
        entry, now = node.entry, self._clock()
        fresh_until, refresh_until, error_until, born = _times(entry)
        domain = {"class": kind_of_domain(entry.key.domain), "label": self._label(entry.key.domain)}
        if principal is not None:
            domain["principal"] = principal
        return {
            "id": node.number,
            "url": f"{entry.key.path}{entry.key.query}",
            "domain": domain,
            "mode": _mode(entry),
            "size": node.size,
            "age": round(max(0.0, now - born), 3),
            "ttl": round(fresh_until - now, 3),
            "stale_while_revalidate": round(max(0.0, refresh_until - max(now, fresh_until)), 3),
            "stale_if_error": round(max(0.0, error_until - max(now, fresh_until)), 3),
            "hits": node.hits,
            "settled": node.settled,
            "tags": len(entry.tags),
        }

    def detail(self, node: Held) -> dict[str, Any]:
        """All of a page but its content and whose it is."""
        entry, now = node.entry, self._clock()
        found = self.summary(node) | {"tags": list(entry.tags), "accept": entry.key.variant}
        if isinstance(entry, Entry):
            return found | {
                "etag": entry.etag,
                "fields": [list(pair) for pair in entry.fields],
                "status": entry.status,
                "bytes": len(entry.body),
                "encoded": {one.coding: None if one.body is None else len(one.body) for one in entry.encoded},
                "fetch_seconds": round(entry.fetch_seconds, 3),
            }
        variants = [
            {
                "status": variant.response.status,
                "bytes": len(variant.body),
                "age": round(variant.response.freshness.age(now), 3),
                "ttl": round(variant.response.freshness.ttl(now), 3),
                "vary": list(variant.response.vary),
                "fields": [[name, _shown(name, value)] for name, value in variant.response.fields],
                "fetch_seconds": round(variant.seconds, 3),
            }
            for variant in entry.variants
        ]
        return found | {"variants": variants}

    def _label(self, domain: str) -> str:
        """Tells domains apart and says nothing of whose they are; another one after each start."""
        return blake2b(domain.encode("utf-8", "surrogatepass"), key=self._secret, digest_size=6).hexdigest()


def _mode(entry: Stored) -> str:
    return "policy" if isinstance(entry, Entry) else "origin"


def _bodies(entry: Stored) -> tuple[bytes, ...]:
    return (entry.body,) if isinstance(entry, Entry) else tuple(variant.body for variant in entry.variants)


def _times(entry: Stored) -> tuple[float, float, float, float]:
    """Until when a page is fresh, refreshed behind and standing in, and since when: of its youngest variant."""
    if isinstance(entry, Entry):
        return entry.fresh_until, entry.refresh_until, entry.error_until, entry.stored_at
    fresh = entry.variants[-1].response.freshness
    return fresh.fresh_until, fresh.refresh_until, fresh.error_until, fresh.born


def _shown(name: str, value: str) -> str:
    """A response field as the operator may see it: a cookie may be a credential."""
    return "…" if name.lower() == "set-cookie" else value
