"""A stored page: immutable, complete, and carrying the key and domain it was stored under.

The key and the domain are compared again on every read (design.md, "Visibility domains"), so a store that hands out the
wrong entry is a miss and never a leak.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gateway.core.keys import CacheKey
    from gateway.core.model import Fields

# What Python itself spends on an entry beside the bytes that are counted: the objects and their slots in two tables.
ENTRY_OVERHEAD: Final = 1024
# Likewise for each tag: the string, and its places in the entry and in the store's index.
TAG_OVERHEAD: Final = 300
# And for each encoded form: its object, its body's, its entity-tag.
ENCODED_OVERHEAD: Final = 300


@dataclass(frozen=True, slots=True)
class Encoded:
    """An encoded form of a page.

    Attributes:
        coding: the content coding.
        body: the encoded content; None when it was tried and is not worth its memory.
        etag: its own entity-tag.
    """

    coding: str
    body: bytes | None
    etag: str


# What was stored later than now, by more than the clocks of replicas differ, was stored before the clock was set back.
# How old it is nobody can tell; served until its time has come, it would be served for as long as the clock jumped.
CLOCK_SKEW: Final = 1.0


@dataclass(frozen=True, slots=True)
class Entry:
    """One page as it will be served.

    Attributes:
        key: the key it was stored under; holds the visibility domain.
        fields: the response fields a hit repeats, links rewritten, per-request ones removed.
        body: the content, links rewritten.
        etag: the minted strong entity-tag.
        stored_at: when the response arrived, epoch seconds.
        fresh_until: end of its freshness, epoch seconds.
        refresh_until: until then a stale copy is served while one request refreshes it (RFC 5861 §3).
        error_until: until then a stale copy stands in for a failing controller (RFC 5861 §4).
        tags: what must drop it (core/invalidation.py).
        fetch_seconds: how long the controller took for it.
        encoded: its encoded forms that were made so far.
        status: its status code; what is not 200 is kept for a short time only (negative caching).
        transformable: whether it may be encoded at all (RFC 9110 §7.7).
    """

    key: CacheKey
    fields: Fields
    body: bytes = field(repr=False)
    etag: str
    stored_at: float
    fresh_until: float
    refresh_until: float
    error_until: float
    tags: tuple[str, ...]
    fetch_seconds: float = 0.0
    encoded: tuple[Encoded, ...] = ()
    status: int = 200
    transformable: bool = True

    @property
    def size(self) -> int:
        """Bytes this entry counts for in the store's budget."""
        fields = sum(len(name) + len(value) for name, value in self.fields.pairs)
        tags = sum(map(len, self.tags)) + TAG_OVERHEAD * len(self.tags)
        encoded = sum(len(one.body or b"") + ENCODED_OVERHEAD for one in self.encoded)
        return len(self.body) + encoded + fields + tags + len(self.key.path) + len(self.key.query) + ENTRY_OVERHEAD

    @property
    def dead_after(self) -> float:
        """When nothing may be served from it any more, epoch seconds."""
        return max(self.fresh_until, self.refresh_until, self.error_until)

    def variant(self, coding: str) -> Encoded | None:
        """What was made of it in this coding; None when nothing yet."""
        for one in self.encoded:
            if one.coding == coding:
                return one
        return None

    def like(self, earlier: object) -> Entry:
        """The same page with the encoded forms of an earlier one, where that had the same content."""
        if not isinstance(earlier, Entry) or earlier.etag != self.etag:
            return self
        return replace(self, body=earlier.body, encoded=earlier.encoded)

    def outdated(self, now: float) -> Entry:
        """The same page as if its freshness ended now; its stale windows begin now, and none ends later than it did."""
        if now >= self.fresh_until:
            return self
        return replace(
            self,
            fresh_until=now,
            refresh_until=now + self.refresh_until - self.fresh_until,
            error_until=now + self.error_until - self.fresh_until,
        )
