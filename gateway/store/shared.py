"""The pages of several processes: this process's own store first, the shared one behind it, one truth about both.

A hit is answered from this process alone and never waits. The shared store is asked on a miss, before the controller
is, and given a page behind the answer that brought it. Everything an invalidation drops here is dropped everywhere
(`invalidations.py`); what a page in the shared store is worth is judged by the clock that all share (`sync.py`), so a
page that was late, or put by a process that should not have, is worth nothing.

While this process is out of touch a page it holds is as old as it is: older than `max_staleness` it is not fresh.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from gateway.pipeline.entry import Entry
from gateway.shared.link import Script
from gateway.shared.options import SharedStoreError
from gateway.store.codec import PageCodec, Unusable
from gateway.store.resources import SharedResources

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Sequence

    from gateway.core.keys import CacheKey
    from gateway.pipeline.ports import PageStore, Place, Stamp, Stored
    from gateway.pipeline.resource import Resource
    from gateway.shared.link import Link
    from gateway.shared.seal import Sealer
    from gateway.store.invalidations import Invalidations

# No page is kept for longer in the shared store, so that what nobody asks for goes, in seconds.
LONGEST: Final = 3600.0
# Bytes of pages on their way there; a page beyond it stays where it is.
_UNDER_WAY: Final = 64 << 20
# A larger body is encoded and sealed off the loop.
_LARGE: Final = 256 << 10
# Between two looks for a page that another process is fetching, in seconds.
_FIRST_PAUSE: Final = 0.01
_LONGEST_PAUSE: Final = 0.1

_UNLOCK: Final = Script("""#!lua flags=allow-oom
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
""")


class SharedPages:
    """The page store of one process among several, for `pipeline.ports.PageStore` and `SharedStore`.

    Args:
        local: this process's own.
        link: the way to the shared store.
        sealer: the operator's key at work.
        namespace: this gateway's part of it.
        rules: what pages are made by; pages of other rules are not found.
        invalidations: how processes tell each other.
        clock: epoch seconds.
        max_staleness: how old a page may be that is served while this process is out of touch, in seconds.
        max_page_bytes: larger bodies are not shared.
        collapse_wait: how long a miss waits for a page that another process is fetching, in seconds.

    Attributes:
        counts: pages asked for and given, by result; the label of `gateway_shared_store_pages_total`.
    """

    def __init__(
        self,
        local: PageStore,
        link: Link,
        sealer: Sealer,
        namespace: str,
        rules: bytes,
        *,
        invalidations: Invalidations,
        clock: Callable[[], float] = time.time,
        max_staleness: float = 0.0,
        max_page_bytes: int = 8 << 20,
        collapse_wait: float = 2.0,
    ) -> None:
        self.local: Final = local
        self._link: Final = link
        self._codec: Final = PageCodec(sealer)
        self._namespace: Final = namespace
        self.rules = rules
        self.invalidations: Final = invalidations
        self.in_touch: Final = invalidations.in_touch
        self.most_standing: Final = local.most_standing
        self._clock: Final = clock
        self._max_staleness: Final = max_staleness
        self._max_page_bytes: Final = max_page_bytes
        self._collapse_wait: Final = collapse_wait
        self._locked: Final[set[str]] = set()
        self._putting: Final[set[asyncio.Task[None]]] = set()
        self._withdrawing: Final[dict[str, asyncio.Task[None]]] = {}
        self._under_way = 0
        results = (
            "hit",
            "waited",
            "miss",
            "void",
            "stale",
            "failed",
            "stored",
            "not-stored",
            *(one.value for one in Unusable),
        )
        self.counts: Final = dict.fromkeys(results, 0)
        self._resources: Final = SharedResources(
            link,
            sealer,
            invalidations.clock,
            self.counts,
            now=clock,
            rules=lambda: self.rules,
            max_bytes=max_page_bytes,
        )

    # -- PageStore

    def get(self, key: CacheKey) -> Stored | None:
        """The entry stored here under exactly this key; never one that a write through another may have outdated."""
        found = self.local.get(key)
        if found is None or self.in_touch():
            return found
        return self._aged(found)

    def peek(self, key: CacheKey) -> Stored | None:
        """What is stored here under exactly this key, without counting as a hit."""
        return self.local.peek(key)

    def place(self, key: CacheKey) -> Place | None:
        """Where that is; to be served from while `in_touch` says so."""
        return self.local.place(key)

    def generation(self, tags: Iterable[str]) -> int:
        """When one of `tags` was last invalidated, on the clock of this process."""
        return self.local.generation(tags)

    def put(self, entry: Stored, *, generation: int) -> str | None:
        """Store an entry here."""
        return self.local.put(entry, generation=generation)

    def discard(self, key: CacheKey) -> bool:
        """Drop what is stored under exactly this key, here and in the shared store; others keep their own."""
        name = self._name(key)
        if self._link.fault is None and name not in self._withdrawing:
            self._withdrawing[name] = self._behind(self._withdraw(name))
        return self.local.discard(key)

    async def _withdraw(self, name: str) -> None:
        try:
            with suppress(SharedStoreError):
                await self._link.call("DEL", name)
        finally:
            del self._withdrawing[name]

    async def _withdrawn(self, name: str) -> None:
        """Wait until what was discarded here is not in the store any more."""
        withdrawing = self._withdrawing.get(name)
        if withdrawing is not None:
            await asyncio.wait([withdrawing])

    def invalidate(self, tags: Iterable[str]) -> int:
        """Drop every entry that carries one of `tags`: here at once, elsewhere before `announced` returns."""
        dropped = tuple(tags)
        if dropped:
            self.invalidations.announce(dropped)
        return self.local.invalidate(dropped)

    def _aged(self, found: Stored) -> Stored | None:
        if not isinstance(found, Entry):
            return None
        limit = found.stored_at + self._max_staleness
        return replace(found, fresh_until=min(found.fresh_until, limit), refresh_until=min(found.refresh_until, limit))

    # -- SharedStore

    async def announced(self) -> None:
        """Wait until every other process has dropped what was invalidated here so far, or cannot be told."""
        await self.invalidations.announced()

    async def find(self, key: CacheKey, tags: Sequence[str], *, wait: bool) -> tuple[Entry | None, Stamp | None]:
        """A fresh page that another process stored, and the time before a fetch in case there is none.

        One process fetches at a time, as long as it has the lock; the others wait for its page. The lock is only there
        to spare the controller: it runs out, and a page that comes late is judged by its stamp like any other.

        Args:
            key: of the page.
            tags: those of the page that are known beforehand; of which one is invalidated whenever one of the page's.
            wait: whether to wait for another process that is fetching it.

        Returns:
            The page, None when there is none that may be served; the stamp for `offer`, None when nothing may be
            stored either.
        """
        if not self.in_touch():
            if not await self.invalidations.touched():
                return None, None
            if wait and (held := self._held(key)) is not None:
                return held, None
        name = self._name(key)
        await self._withdrawn(name)
        entry, now = await self._look(name, key, tags, first=True)
        if entry is not None or now is None or not wait or not self._collapse_wait or await self._lock(name):
            return entry, now
        pause, until = _FIRST_PAUSE, time.monotonic() + self._collapse_wait
        while time.monotonic() < until and self.invalidations.lease.heard():
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            entry, now = await self._look(name, key, tags, first=False)
            if entry is not None or now is None or await self._lock(name):
                break
        return entry, now

    def _held(self, key: CacheKey) -> Entry | None:
        """The page stored here, if it is fresh: it may be served, now that this process is in touch again."""
        held = self.local.get(key)
        return held if isinstance(held, Entry) and held.key == key and self._clock() < held.fresh_until else None

    def release(self, key: CacheKey) -> None:
        """Let others fetch, for there is nothing to offer."""
        name = self._name(key)
        if name in self._locked:
            self._behind(self._unlock(name))

    async def _lock(self, name: str) -> bool:
        """Whether this process is to fetch the page; it is when nobody can tell."""
        process, lasts = self.invalidations.clock.process, max(1, int(1000 * self._collapse_wait))
        try:
            taken = await self._link.call("SET", f"{name}:lock", process, "NX", "PX", lasts)
        except SharedStoreError:
            return True
        if taken:
            self._locked.add(name)
        return bool(taken)

    async def _unlock(self, name: str) -> None:
        self._locked.discard(name)
        with suppress(SharedStoreError):
            await self._link.run(_UNLOCK, [f"{name}:lock"], self.invalidations.clock.process)

    def _behind(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._putting.add(task)
        task.add_done_callback(self._putting.discard)
        return task

    async def _look(
        self, name: str, key: CacheKey, tags: Sequence[str], *, first: bool
    ) -> tuple[Entry | None, Stamp | None]:
        """What is there now, under a name; only the first look is counted when there is nothing."""
        try:
            sealed, (now, latest) = await asyncio.gather(
                self._link.call("GET", name), self.invalidations.clock.read(tags)
            )
            if sealed is None:
                self.counts["miss"] += first
                return None, now
            decoded = self._codec.decode(key, self.rules, sealed, self._clock())
            if isinstance(decoded, Unusable):
                self.counts[decoded.value] += first
                return None, now
            entry, stamp = decoded
            if stamp.epoch == now.epoch and latest > stamp.generation:
                # Some page with such tags was dropped: was it this one?
                now, latest = await self.invalidations.clock.read(entry.tags)
            if stamp.epoch != now.epoch or latest > stamp.generation:
                self.counts["void"] += first
                return None, now
        except SharedStoreError:
            self.counts["failed"] += 1
            return None, None
        if self._clock() >= entry.fresh_until:
            self.counts["stale"] += first
            return None, now
        self.counts["hit" if first else "waited"] += 1
        return entry, now

    def offer(self, entry: Entry, stamp: Stamp) -> None:
        """Give a page to the others, behind the answer.

        Args:
            entry: the page.
            stamp: what `find` said before it was fetched.
        """
        size = len(entry.body)
        if size > self._max_page_bytes or self._under_way + size > _UNDER_WAY or self._link.fault is not None:
            self.counts["not-stored"] += 1
            self.release(entry.key)
            return
        self._under_way += size
        self._behind(self._put(entry, stamp))

    async def find_resource(self, key: CacheKey, tags: Sequence[str]) -> tuple[Resource | None, Stamp | None]:
        """What other processes stored for a target in mode `origin`, and the moment before a fetch.

        Args:
            key: of the target.
            tags: those of it that are known beforehand.

        Returns:
            As `find`; whether a variant may be served is the caller's to judge.
        """
        if not await self.invalidations.touched():
            return None, None
        name = self._name(key)
        await self._withdrawn(name)
        return await self._resources.find(name, key, tags)

    def offer_resource(self, resource: Resource) -> None:
        """Give a target's variants to the others, behind the answer."""
        shared = None if self._link.fault is not None else self._resources.shareable(resource)
        size = 0 if shared is None else shared.size
        if shared is None or self._under_way + size > _UNDER_WAY:
            self.counts["not-stored"] += 1
            return
        self._under_way += size
        self._behind(self._put_resource(shared, size))

    async def _put_resource(self, resource: Resource, size: int) -> None:
        name = self._name(resource.key)
        try:
            await self._withdrawn(name)
            await self._resources.put(name, resource)
        except SharedStoreError:
            self.counts["not-stored"] += 1
        finally:
            self._under_way -= size

    async def drain(self) -> None:
        """Wait for pages on their way."""
        await asyncio.gather(*self._putting, return_exceptions=True)

    async def _put(self, entry: Entry, stamp: Stamp) -> None:
        rules, name = self.rules, self._name(entry.key)
        try:
            await self._withdrawn(name)
            seconds = min(entry.fresh_until - self._clock(), LONGEST)
            if len(entry.body) > _LARGE:
                sealed = await asyncio.to_thread(self._codec.encode, entry, rules, stamp)
            else:
                sealed = self._codec.encode(entry, rules, stamp)
            if sealed is None or seconds <= 0:
                self.counts["not-stored"] += 1
                return
            await self._link.call(
                *("SET", name, sealed, "PX", max(1, int(seconds * 1000))),
                patience=self._link.options.connect_timeout,
            )
            self.counts["stored"] += 1
        except SharedStoreError:
            self.counts["not-stored"] += 1
        finally:
            self._under_way -= len(entry.body)
            if name in self._locked:
                await self._unlock(name)

    def _name(self, key: CacheKey) -> str:
        return f"{self._namespace}:page:{self._codec.name(key, self.rules)}"
