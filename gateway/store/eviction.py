"""Who stays when room runs out: S3-FIFO over bytes, and a share for each principal. Knows sizes and hits, no tags.

New pages wait on probation, a tenth of the budget. One that is asked for again there moves up; one that is not goes,
and is remembered for a while: if it is fetched again while the old copy would still have been of use, it was pushed out
too early and moves up at once, unless it is so big that it would cost many others their place. Above, a page that was
asked for since the hand last passed gets another round. So a walk over pages that nobody asks for again stays on
probation, whatever its length. (Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023.) A hit costs
one addition; there is neither a clock nor a timer here.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from gateway.pipeline.entry import Entry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.core.keys import CacheKey
    from gateway.pipeline.ports import Stored
    from gateway.pipeline.standing import Standing

PROBATION_SHARE: Final = 0.1
# So many hits move a page up from probation: one may be a client's own retry.
_HITS_TO_SETTLE: Final = 2
# The most rounds that hits buy, as in the paper: what was hot yesterday has to go some time.
_ROUNDS: Final = 3
# The most pages that are given another round for one that goes: eviction is O(1), not merely on average.
_PATIENCE: Final = 1024
# One page pushed out is remembered for each so many bytes of budget; a memory costs about 150 bytes.
_BYTES_PER_GHOST: Final = 8192
_FOREVER: Final = float("inf")
# What is more than this part of the budget moves up by hits alone.
_BIG: Final = 64
# The domains that one principal alone can fill (visibility.py).
_OF_ONE: Final = "9:principal"


class Place:
    """A `pipeline.ports.Place`: what outlives the page, and does not keep it alive."""

    __slots__ = ("held", "hits", "standing")

    def __init__(self, entry: Stored) -> None:
        self.held: Stored | None = entry
        self.hits = 0
        self.standing: Standing | None = None

    def leave(self) -> None:
        """Hold the page no more, and let no hit stand for it."""
        self.held = None
        standing, self.standing = self.standing, None
        while standing is not None:
            standing.gone()
            standing.beside, standing = None, standing.beside


class Node:
    """A stored page and what is known of its use.

    Attributes:
        entry: the page.
        size: bytes it counts for, taken once.
        number: the order in which pages came; names it to the operator.
        place: where it is found; empty once it is stored no more.
        marked: the hits that count no more.
        settled: whether it is past probation.
    """

    __slots__ = ("entry", "marked", "number", "place", "settled", "size")

    def __init__(self, entry: Stored, number: int) -> None:
        self.entry = entry
        self.size = entry.size
        self.number = number
        self.place: Final = Place(entry)
        self.marked = 0
        self.settled = False

    @property
    def hits(self) -> int:
        """How often it was found."""
        return self.place.hits


class Eviction:
    """The order in which pages give way.

    Args:
        max_bytes: budget for everything.
        max_domain_share: the part of it that pages of one principal may take, from 0 to 1.

    Attributes:
        bytes: what is held.
        counts: pages that gave way, by why: on probation, settled, or for their principal's share.
    """

    def __init__(self, max_bytes: int, max_domain_share: float) -> None:
        self._max_bytes: Final = max_bytes
        self._max_domain_bytes: Final = int(max_bytes * max_domain_share)
        self._max_probation_bytes: Final = int(max_bytes * PROBATION_SHARE)
        self._max_ghosts: Final = max(64, max_bytes // _BYTES_PER_GHOST)
        self._probation: Final[OrderedDict[CacheKey, Node]] = OrderedDict()
        self._settled: Final[OrderedDict[CacheKey, Node]] = OrderedDict()
        self._domains: Final[dict[str, OrderedDict[CacheKey, Node]]] = {}
        self._domain_bytes: Final[dict[str, int]] = {}
        self._ghosts: Final[OrderedDict[int, float]] = OrderedDict()
        self._probation_bytes = 0
        self._latest = 0.0  # when the youngest page came: as much of a clock as is needed
        self.bytes = 0
        self.counts: Final = dict.fromkeys(("probation", "settled", "share"), 0)

    def fits(self, entry: Stored, size: int) -> bool:
        """Whether an entry of this size could be held at all."""
        return size <= (self._max_domain_bytes if _of_one(entry) else self._max_bytes)

    def add(self, node: Node) -> Iterator[Node]:
        """Hold a node whose key is not held; yields those that gave way for it. Must be exhausted."""
        entry, key = node.entry, node.entry.key
        if isinstance(entry, Entry):
            self._latest = max(self._latest, entry.stored_at)
        yield from self._room_in_domain(node)
        while self.bytes + node.size > self._max_bytes:
            yield self._victim()
        ghost = self._ghosts.pop(hash(key), None)
        if ghost is not None and self._latest < ghost and node.size * _BIG <= self._max_bytes:
            node.settled = True
        self._take(node)
        if _of_one(entry):
            self._domains.setdefault(key.domain, OrderedDict())[key] = node
            self._domain_bytes[key.domain] = self._domain_bytes.get(key.domain, 0) + node.size

    def remove(self, node: Node) -> None:
        """Hold a node no more."""
        key = node.entry.key
        (self._settled if node.settled else self._probation).pop(key)
        self._forget(node)

    def domain_bytes(self, domain: str) -> int:
        """What the pages of one principal's domain take."""
        return self._domain_bytes.get(domain, 0)

    def _take(self, node: Node) -> None:
        if node.settled:
            self._settled[node.entry.key] = node
        else:
            self._probation[node.entry.key] = node
            self._probation_bytes += node.size
        self.bytes += node.size

    def _forget(self, node: Node) -> None:
        """Take a node that is in no queue any more off the books."""
        self.bytes -= node.size
        if not node.settled:
            self._probation_bytes -= node.size
        domain = node.entry.key.domain
        pages = self._domains.get(domain)
        if pages is not None:
            del pages[node.entry.key]
            self._domain_bytes[domain] -= node.size
            if not pages:
                del self._domains[domain], self._domain_bytes[domain]

    def _victim(self) -> Node:
        patience = _PATIENCE
        while True:
            if self._probation and (self._probation_bytes > self._max_probation_bytes or not self._settled):
                key, node = self._probation.popitem(last=False)
                if node.hits - node.marked >= _HITS_TO_SETTLE and not self._useless(node):
                    self._probation_bytes -= node.size
                    node.settled, node.marked = True, node.hits
                    self._settled[key] = node
                    continue
                self._remember(node)
                self.counts["probation"] += 1
            else:
                key, node = self._settled.popitem(last=False)
                patience -= 1
                if patience > 0 and self._another_round(node):
                    self._settled[key] = node
                    continue
                self.counts["settled"] += 1
            self._forget(node)
            return node

    def _room_in_domain(self, node: Node) -> Iterator[Node]:
        """What goes so that a principal keeps to its share: its own pages, in the same order."""
        domain = node.entry.key.domain
        pages = self._domains.get(domain)
        patience = _PATIENCE
        while pages and self._domain_bytes.get(domain, 0) + node.size > self._max_domain_bytes:
            key, oldest = next(iter(pages.items()))
            patience -= 1
            if patience > 0 and self._another_round(oldest):
                pages.move_to_end(key)
                continue
            self.remove(oldest)
            self.counts["share"] += 1
            yield oldest

    def _another_round(self, node: Node) -> bool:
        recent = min(node.hits - node.marked, _ROUNDS)
        if recent <= 0 or self._useless(node):
            return False
        node.marked = node.hits - recent + 1
        return True

    def _useless(self, node: Node) -> bool:
        return _useful_until(node.entry) <= self._latest

    def _remember(self, node: Node) -> None:
        self._ghosts[hash(node.entry.key)] = _useful_until(node.entry)
        if len(self._ghosts) > self._max_ghosts:
            self._ghosts.popitem(last=False)


def _useful_until(entry: Stored) -> float:
    """A page of mode `policy` is of no use once nothing may be served from it; others can still be validated."""
    return entry.dead_after if isinstance(entry, Entry) else _FOREVER


def _of_one(entry: Stored) -> bool:
    return entry.key.domain.startswith(_OF_ONE)
