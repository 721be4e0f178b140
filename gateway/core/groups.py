"""Cache groups (RFC 9875): an origin names what belongs together, and says with a write what of it is out of date.

Groups become tags, scoped to the origin that named them: nobody can drop another origin's responses (§2.1.1). A field
that is not a List of Strings counts as absent (RFC 9651 §4.2). Knows no routes and no store.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.core.invalidation import EVERYTHING, TYPES
from gateway.core.structured import Item, StructuredFieldError, parse_list
from gateway.core.structured_writer import serialize_list
from gateway.core.unsafe_methods import SAFE_METHODS
from gateway.core.visibility import encode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.core.model import Fields

KIND: Final = "group"
# Dropped with every group. A fetch takes its generation with this tag, since it learns its groups at its end only.
ANY_GROUP: Final = f"{KIND}:*"
# More than the 32 groups of 32 characters that RFC 9875 §2 demands, and a bound on what an origin can make us index.
MAX_GROUPS: Final = 64
MAX_GROUP: Final = 256


def groups_of(response: Fields, origin: str) -> tuple[str, ...]:
    """The tags for the groups that a stored response belongs to (RFC 9875 §2).

    Args:
        response: the response fields as the origin sent them.
        origin: scheme, host and port of the request.
    """
    return _tags(response, "cache-groups", origin)


def invalidated_by(method: str, response: Fields, origin: str) -> frozenset[str]:
    """The tags that an answer tells to drop (RFC 9875 §3); empty for a safe method, from which it must be ignored.

    Args:
        method: the request method.
        response: the response fields as the origin sent them.
        origin: scheme, host and port of the request.
    """
    if method in SAFE_METHODS:
        return frozenset()
    tags = _tags(response, "cache-group-invalidation", origin)
    return frozenset((*tags, ANY_GROUP)) if tags else frozenset()


def emitted(tags: Iterable[str]) -> str:
    """The value of Cache-Groups or Cache-Group-Invalidation for a page's, or a write's, tags; "" when there is none.

    Types of resources alone: which rows, and which of other people's, is nobody else's business. What may change
    everything names every type.
    """
    kinds = {tag.partition(":")[0] for tag in tags}
    named = TYPES if EVERYTHING in kinds else kinds & TYPES
    return serialize_list(Item(kind) for kind in sorted(named))


def _tags(response: Fields, name: str, origin: str) -> tuple[str, ...]:
    values = response.get_all(name)
    if not values:
        return ()
    try:
        members = parse_list(values)
    except StructuredFieldError:
        return ()
    named = [member.value for member in members if isinstance(member, Item) and type(member.value) is str]
    if len(named) != len(members):
        return ()
    kept = [group for group in dict.fromkeys(named) if len(group) <= MAX_GROUP][:MAX_GROUPS]
    return tuple(f"{KIND}:{encode(origin, group)}" for group in kept)
