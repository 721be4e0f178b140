"""What mode `origin` stores for one target: every variant of it, immutable, replaced as a whole.

Several responses may be stored for one primary key (RFC 9111 §4.1); they live and are evicted together, so that the
store needs to know nothing of Vary. Like a page of mode `policy` it carries the key it was stored under, domain
included, and whoever reads it compares. Nothing here decides whether anything may be stored or reused.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final
from zlib import crc32

from gateway.core.variants import selects
from gateway.pipeline.entry import ENTRY_OVERHEAD

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.core.caching import StoredResponse
    from gateway.core.keys import CacheKey
    from gateway.core.model import Fields
    from gateway.pipeline.ports import Stamp

# The most variants kept of one target: a Vary on what differs with every client must not grow without end.
MAX_VARIANTS: Final = 32
# Tags are remembered by the store for as long as it lives, and paths are chosen by clients: a closed set of tags. Two
# paths share one by chance, and then a write to one drops the other too, which costs a fetch and nothing else.
_URI_TAGS: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Variant:
    """One stored response with its content.

    Attributes:
        response: what reuse judges by.
        body: the complete content.
        seconds: how long the origin took to answer.
        stamp: the moment before its fetch on the clock that processes share, None where that is not known.
    """

    response: StoredResponse
    body: bytes = field(repr=False)
    seconds: float = 0.0
    stamp: Stamp | None = None

    @property
    def size(self) -> int:
        """Bytes it counts for."""
        response = self.response
        fields = sum(len(name) + len(value) for name, value in response.fields.pairs)
        selecting = sum(len(name) for name in response.vary) + sum(len(value or "") for value in response.selecting)
        return len(self.body) + fields + selecting + ENTRY_OVERHEAD

    def outdated(self, now: float) -> Variant:
        """The same as if its freshness ended now."""
        response = replace(self.response, freshness=self.response.freshness.outdated(now))
        return replace(self, response=response)


@dataclass(frozen=True, slots=True)
class Resource:
    """Everything stored for one target in one visibility domain.

    Attributes:
        key: the key it was stored under; holds the visibility domain.
        variants: at least one, the one stored last at the end.
        tags: what must drop it.
    """

    key: CacheKey
    variants: tuple[Variant, ...]
    tags: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes this entry counts for in the store's budget."""
        return sum(variant.size for variant in self.variants) + len(self.key.path) + len(self.key.query)

    @property
    def responses(self) -> tuple[StoredResponse, ...]:
        """The candidates for reuse, in the order of `variants`."""
        return tuple(variant.response for variant in self.variants)

    def variant_of(self, response: StoredResponse) -> Variant:
        """The variant that holds this very response.

        Raises:
            LookupError: it is none of this resource's.
        """
        for variant in self.variants:
            if variant.response is response:
                return variant
        raise LookupError("the response is not one of this resource's")

    def kept(self, keep: Callable[[Variant], bool]) -> Resource | None:
        """The same less the variants that `keep` refuses; None when none is left."""
        variants = tuple(variant for variant in self.variants if keep(variant))
        return replace(self, variants=variants) if variants else None

    def outdated(self, now: float) -> Resource:
        """The same with every variant stale from now on; the next request validates or replaces it."""
        return replace(self, variants=tuple(variant.outdated(now) for variant in self.variants))


def with_variant(
    resource: Resource | None, variant: Variant, request: Fields, *, key: CacheKey, tags: tuple[str, ...], limit: int
) -> Resource:
    """A resource that answers `request` with `variant` from now on.

    What the request would have selected until now goes, also where its Vary was another: otherwise a stored response
    with a later Date would go on being preferred to the origin's last word. The oldest variants go where there are too
    many.

    Args:
        resource: what is stored now, if anything.
        variant: the new one.
        request: the fields of the request it answers.
        key: the key of the resource.
        tags: its tags.
        limit: bytes the resource may measure, should dropping other variants get it there.
    """
    others = () if resource is None else resource.variants
    kept = [other for other in others if not _selected(other, request)]
    kept = [*kept[-(MAX_VARIANTS - 1) :], variant]
    while len(kept) > 1 and sum(one.size for one in kept) > limit:
        del kept[0]
    return Resource(key, tuple(kept), tags)


def merged(current: Resource, found: Resource, limit: int) -> Resource:
    """A resource with the variants of another one for the same target; of two that answer the same the younger.

    Args:
        current: what is stored here.
        found: what another process stored.
        limit: bytes that it may measure; the oldest variants go where it would be more.
    """
    chosen: dict[object, Variant] = {}
    for variant in (*found.variants, *current.variants):
        which = variant.response.vary, variant.response.selecting
        other = chosen.get(which)
        if other is None or other.response.freshness.born <= variant.response.freshness.born:
            chosen[which] = variant
    kept = sorted(chosen.values(), key=lambda one: one.response.freshness.born)[-MAX_VARIANTS:]
    while len(kept) > 1 and sum(one.size for one in kept) > limit:
        del kept[0]
    return Resource(current.key, tuple(kept), current.tags)


def _selected(variant: Variant, request: Fields) -> bool:
    response = variant.response
    return selects(request, response.vary, response.selecting, response.fields)


def tags_of_uri(path: str) -> tuple[str, ...]:
    """The tags of everything stored for a path, whatever its query (RFC 9111 §4.4).

    Args:
        path: the canonical path.
    """
    return (f"uri:{crc32(path.encode('utf-8', 'surrogatepass')) % _URI_TAGS}",)
