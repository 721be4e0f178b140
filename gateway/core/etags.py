"""Entity-tags (RFC 9110 §8.8.3): reading and comparing. Knows nothing of conditional requests."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

# etagc: any visible octet but the quote; there is no escaping, a backslash is itself.
_ETAG: Final = re.compile(r'(W/)?"([!#-~\x80-\U0010ffff]*)"')
_MEMBER: Final = re.compile(r'[ \t,]*+(?:((?:W/)?"[!#-~\x80-\U0010ffff]*")[ \t]*+(?=,|\Z)|[^,]++)')


class AnyETag(Enum):
    """The "*" of If-Match and If-None-Match: whatever representation there is."""

    ANY = "*"


ANY: Final = AnyETag.ANY


@dataclass(frozen=True, slots=True)
class ETag:
    """An entity-tag.

    Attributes:
        opaque: what stands between the quotes.
        weak: whether it was marked `W/`.
    """

    opaque: str
    weak: bool = False

    def __str__(self) -> str:
        return f'W/"{self.opaque}"' if self.weak else f'"{self.opaque}"'


ETags = tuple[ETag, ...] | AnyETag


def entity_tag(value: str | None) -> ETag | None:
    """Read one entity-tag; None when there is none or it is malformed (unquoted, `w/`, inner quotes)."""
    found = _ETAG.fullmatch(value) if value is not None else None
    return None if found is None else ETag(found[2], weak=found[1] is not None)


def entity_tags(values: Sequence[str]) -> ETags:
    """Read If-Match or If-None-Match: `ANY` for a lone "*", else the well-formed members; the others are ignored.

    Args:
        values: the field lines in wire order.
    """
    if len(values) == 1 and values[0] == "*":
        return ANY
    tags = (entity_tag(member[1]) for value in values for member in _MEMBER.finditer(value) if member[1])
    return tuple(tag for tag in tags if tag is not None)


def strong_match(one: ETag, other: ETag) -> bool:
    """Strong comparison (RFC 9110 §8.8.3.2): the same and neither weak."""
    return not one.weak and not other.weak and one.opaque == other.opaque


def weak_match(one: ETag, other: ETag) -> bool:
    """Weak comparison (RFC 9110 §8.8.3.2): the same, weak or not."""
    return one.opaque == other.opaque
