"""Pages in this process: bounded by bytes, least recently used goes first, nothing scheduled.

Expiry lives in the entry, so there is no timer; a dead entry is replaced by the next fetch or gives way to others. The
store also remembers when each tag was last invalidated: a page whose fetch began before that is refused, so that a
write and a fetch in flight at the same time never leave the older page behind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cachetools import LRUCache

from gateway.core.invalidation import EVERYTHING, kind_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.core.keys import CacheKey
    from gateway.pipeline.ports import Stored

# So many tags of single rows are remembered as invalidated; beyond it, all rows of the type are taken to be.
_ROWS_REMEMBERED: Final = 10_000


def _size(entry: Stored) -> int:
    return entry.size


class _Pages(LRUCache["CacheKey", "Stored"]):
    """An LRU table that tells its owner what it pushed out."""

    def __init__(self, max_bytes: int, owner: MemoryStore) -> None:
        super().__init__(max_bytes, getsizeof=_size)
        self._owner = owner

    def popitem(self) -> tuple[CacheKey, Stored]:
        key, entry = super().popitem()
        self._owner.evicted(entry)
        return key, entry


class MemoryStore:
    """The page store of one process.

    Args:
        max_bytes: budget for everything stored.
        max_entry_bytes: a larger entry is not stored.
    """

    def __init__(self, *, max_bytes: int, max_entry_bytes: int) -> None:
        self._max_entry_bytes: Final = max_entry_bytes
        self._pages: Final = _Pages(max_bytes, self)
        self._tagged: Final[dict[str, set[CacheKey]]] = {}
        self._invalidated: Final[dict[str, int]] = {}
        self._invalidated_rows: Final[dict[str, dict[str, int]]] = {}
        self._clock = 0
        self.evictions = 0
        self.invalidations: Final[dict[str, int]] = {}

    def __len__(self) -> int:
        return len(self._pages)

    @property
    def bytes(self) -> int:
        """Bytes counted against the budget."""
        return int(self._pages.currsize)

    def get(self, key: CacheKey) -> Stored | None:
        """The entry stored under exactly this key, or None."""
        entry = self._pages.get(key)
        if entry is None or entry.key != key:
            return None
        return entry

    def generation(self, tags: Iterable[str]) -> int:
        """When one of `tags` was last invalidated, on the store's own clock; taken before a fetch, given to `put`."""
        latest = self._invalidated.get(EVERYTHING, 0)
        for tag in tags:
            kind = kind_of(tag)
            rows = self._invalidated if kind == tag else self._invalidated_rows.get(kind, {})
            latest = max(latest, rows.get(tag, 0), rows.get("", 0))
        return latest

    def put(self, entry: Stored, *, generation: int) -> str | None:
        """Store `entry` unless one of its tags was invalidated after `generation`.

        Args:
            entry: the page.
            generation: what `generation` said before the fetch began, of tags of which one is invalidated whenever one
                of the entry's is (`invalidation.tags_of_page`).

        Returns:
            None when stored, else why not: "invalidated-meanwhile" or "too-large".
        """
        if self.generation(entry.tags) > generation:
            return "invalidated-meanwhile"
        if entry.size > self._max_entry_bytes or entry.size > self._pages.maxsize:
            return "too-large"
        self._drop(entry.key)
        self._pages[entry.key] = entry
        for tag in entry.tags:
            self._tagged.setdefault(tag, set()).add(entry.key)
        return None

    def discard(self, key: CacheKey) -> bool:
        """Drop what is stored under exactly this key; whether anything was."""
        return self._drop(key)

    def invalidate(self, tags: Iterable[str]) -> int:
        """Drop every entry that carries one of `tags`; returns how many."""
        self._clock += 1
        dropped = 0
        for tag in tags:
            self._remember(tag)
            keys = list(self._pages) if tag == EVERYTHING else list(self._tagged.get(tag, ()))
            for key in keys:
                dropped += self._drop(key)
            kind = kind_of(tag)
            self.invalidations[kind] = self.invalidations.get(kind, 0) + len(keys)
        return dropped

    def _remember(self, tag: str) -> None:
        """Note when a tag was invalidated; the rows of one type never take more than a bounded table."""
        kind = kind_of(tag)
        if kind == tag:
            self._invalidated[tag] = self._clock
            return
        rows = self._invalidated_rows.setdefault(kind, {})
        if len(rows) >= _ROWS_REMEMBERED and tag not in rows:
            latest = max(rows.values())
            rows.clear()
            rows[""] = latest
        rows[tag] = self._clock

    def evicted(self, entry: Stored) -> None:
        """Called by the table for an entry that gave way to others."""
        self.evictions += 1
        self._untag(entry)

    def _drop(self, key: CacheKey) -> bool:
        entry = self._pages.pop(key, None)
        if entry is None:
            return False
        self._untag(entry)
        return True

    def _untag(self, entry: Stored) -> None:
        for tag in entry.tags:
            keys = self._tagged.get(tag)
            if keys is not None:
                keys.discard(entry.key)
                if not keys:
                    del self._tagged[tag]
