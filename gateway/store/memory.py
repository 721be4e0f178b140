"""Pages in this process: bounded by bytes, nothing scheduled.

Expiry lives in the entry, so there is no timer; a dead entry is replaced by the next fetch or gives way to others
(`eviction.py`). The store also remembers when each tag was last invalidated (`generations.py`): a page whose fetch
began before that is refused, so that a write and a fetch in flight at the same time never leave the older page behind.
An operator's purge refuses every fetch under way, whatever it is for.
"""

from __future__ import annotations

from collections import Counter
from itertools import count
from typing import TYPE_CHECKING, Final

from gateway.core.invalidation import EVERYTHING, kind_of
from gateway.core.visibility import kind_of as kind_of_domain
from gateway.store.eviction import Eviction, Node, Place
from gateway.store.generations import Generations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from gateway.core.keys import CacheKey
    from gateway.pipeline.ports import Stored
# One hit may stand for each so many bytes of budget. It takes about 1 KB, not counted there, so there is a limit.
_BYTES_PER_STANDING: Final = 2048
_LEAST_STANDING, _MOST_STANDING = 1024, 131_072
_NO_DOMAINS: Final = dict.fromkeys(("public", "anonymous", "global", "principal"), 0)


class MemoryStore:
    """The page store of one process.

    Args:
        max_bytes: budget for everything stored.
        max_entry_bytes: a larger entry is not stored.
        max_domain_share: the part of the budget that the pages of one principal may take, from 0 to 1.
    """

    in_touch: Callable[[], bool] | None = None  # nobody else writes to it

    def __init__(self, *, max_bytes: int, max_entry_bytes: int, max_domain_share: float = 1.0) -> None:
        self.max_bytes: Final = max_bytes
        self.most_standing: Final = min(max(_LEAST_STANDING, max_bytes // _BYTES_PER_STANDING), _MOST_STANDING)
        self._max_entry_bytes: Final = min(max_entry_bytes, max_bytes)
        self._nodes: Final[dict[CacheKey, Node]] = {}
        self._eviction: Final = Eviction(max_bytes, max_domain_share)
        self._tagged: Final[dict[str, set[CacheKey]]] = {}
        self._generations: Final = Generations()
        self._numbers: Final = count(1)
        self.invalidations: Final[dict[str, int]] = {}
        self._domains: Final[Counter[str]] = Counter()

    def __len__(self) -> int:
        return len(self._nodes)

    @property
    def bytes(self) -> int:
        """Bytes counted against the budget."""
        return self._eviction.bytes

    @property
    def evictions(self) -> Mapping[str, int]:
        """Pages that gave way to others, by why."""
        return self._eviction.counts

    @property
    def domains(self) -> dict[str, int]:
        """How many visibility domains have pages stored, by their kind."""
        return {**_NO_DOMAINS, **Counter(kind_of_domain(domain) for domain in self._domains)}

    def get(self, key: CacheKey) -> Stored | None:
        """The entry stored under exactly this key, or None."""
        node = self._nodes.get(key)
        if node is None:
            return None
        entry = node.entry
        if entry.key != key:
            return None
        node.place.hits += 1
        return entry

    def peek(self, key: CacheKey) -> Stored | None:
        """What is stored under exactly this key, without counting as a hit."""
        node = self._nodes.get(key)
        return None if node is None or node.entry.key != key else node.entry

    def place(self, key: CacheKey) -> Place | None:
        """Where that is; empty as soon as it is stored no more, or another page in its stead."""
        node = self._nodes.get(key)
        return None if node is None or node.entry.key != key else node.place

    def generation(self, tags: Iterable[str]) -> int:
        """When one of `tags` was last invalidated, on the store's own clock; taken before a fetch, given to `put`."""
        return self._generations.latest(tags)

    def put(self, entry: Stored, *, generation: int) -> str | None:
        """Store `entry` unless one of its tags was invalidated after `generation`.

        Args:
            entry: the page.
            generation: what `generation` said before the fetch began, of tags of which one is invalidated whenever one
                of the entry's is (`invalidation.tags_of_page`).

        Returns:
            None when stored, else why not: "invalidated-meanwhile" or "too-large".
        """
        if self._generations.latest(entry.tags) > generation:
            return "invalidated-meanwhile"
        return None if self._store(entry) else "too-large"

    def replace(self, old: Stored, new: Stored) -> bool:
        """Put `new` in the place of `old`, if that very entry is stored still; whether it was and `new` fits."""
        node = self._nodes.get(old.key)
        return node is not None and node.entry is old and new.key == old.key and self._store(new)

    def discard(self, key: CacheKey) -> bool:
        """Drop what is stored under exactly this key; whether anything was."""
        node = self._nodes.get(key)
        if node is None:
            return False
        self._eviction.remove(node)
        self._gone(node)
        return True

    def invalidate(self, tags: Iterable[str]) -> int:
        """Drop every entry that carries one of `tags`; returns how many."""
        tags = tuple(tags)
        self._generations.advance(tags)
        dropped = 0
        for tag in tags:
            keys = list(self._nodes) if tag == EVERYTHING else list(self._tagged.get(tag, ()))
            dropped += sum(map(self.discard, keys))
            kind = kind_of(tag)
            self.invalidations[kind] = self.invalidations.get(kind, 0) + len(keys)
        return dropped

    def refuse_under_way(self) -> None:
        """Let no fetch that is under way be stored; what is stored stays."""
        self._generations.advance((EVERYTHING,))

    def nodes(self) -> list[Node]:
        """Everything stored at this moment, in no order, for the operator."""
        return list(self._nodes.values())

    def _store(self, entry: Stored) -> bool:
        """Hold an entry in the place of what its key held; whether it fits. What does not fit changes nothing."""
        node = Node(entry, next(self._numbers))
        if node.size > self._max_entry_bytes or not self._eviction.fits(entry, node.size):
            return False
        held = self._nodes.get(entry.key)
        if held is not None:
            # The same page in a newer version: what is known of its use goes on.
            node.number, node.place.hits, node.marked, node.settled = held.number, held.hits, held.marked, held.settled
            self._eviction.remove(held)
            self._gone(held)
        for victim in self._eviction.add(node):
            self._gone(victim)
        self._nodes[entry.key] = node
        self._domains[entry.key.domain] += 1
        for tag in entry.tags:
            self._tagged.setdefault(tag, set()).add(entry.key)
        return True

    def _gone(self, node: Node) -> None:
        """Take a node that the eviction order has let go of out of the table and the index."""
        entry = node.entry
        node.place.leave()
        del self._nodes[entry.key]
        domain = entry.key.domain
        self._domains[domain] -= 1
        if not self._domains[domain]:
            del self._domains[domain]
        for tag in entry.tags:
            keys = self._tagged.get(tag)
            if keys is not None:
                keys.discard(entry.key)
                if not keys:
                    del self._tagged[tag]
