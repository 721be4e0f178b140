"""Range requests for a complete representation that is at hand (RFC 9110 §14, §15.3.7, §15.5.17).

Byte ranges only. Whether the Range field applies at all (method, If-Range, a 200 to be cut) is the caller's question.
Choices the RFC leaves open: overlapping and touching ranges are merged, several become multipart/byteranges, more than
`MAX_RANGES` are answered in full.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from gateway.core.model import Fields

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_RANGES: Final = 16
_UNIT: Final = "bytes="
_SPEC: Final = re.compile(r"([0-9]*+)-([0-9]*+)")
_OWS: Final = " \t"
# Positions with more digits lie behind the end of anything; int() refuses very long ones.
_MAX_DIGITS: Final = 18


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Positions of the first and the last byte, both included."""

    first: int
    last: int

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self.last - self.first + 1


class NoRange(Enum):
    """Why no part is selected."""

    WHOLE = 200  # absent, malformed, another unit, or too many: the field is ignored (§14.2)
    UNSATISFIABLE = 416


def select(values: Sequence[str], size: int) -> tuple[ByteRange, ...] | NoRange:
    """The parts of a representation that a Range field asks for.

    Args:
        values: the field lines in wire order.
        size: length of the representation in bytes.
    """
    if len(values) != 1 or values[0][: len(_UNIT)].lower() != _UNIT:
        return NoRange.WHOLE
    specs = [spec for part in values[0][len(_UNIT) :].split(",") if (spec := part.strip(_OWS))]
    if not 0 < len(specs) <= MAX_RANGES:
        return NoRange.WHOLE
    found: list[ByteRange] = []
    for spec in specs:
        parts = _SPEC.fullmatch(spec)
        if parts is None or spec == "-":
            return NoRange.WHOLE
        first, last = _position(parts[1]), _position(parts[2])
        if first is None:
            first, last = size - min(last or 0, size), size - 1
        elif last is not None and last < first:
            return NoRange.WHOLE
        else:
            last = size - 1 if last is None else min(last, size - 1)
        if first < size:
            found.append(ByteRange(first, last))
    return _merge(found) if found else NoRange.UNSATISFIABLE


def _position(digits: str) -> int | None:
    if not digits:
        return None
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) <= _MAX_DIGITS else 10**_MAX_DIGITS


def _merge(ranges: list[ByteRange]) -> tuple[ByteRange, ...]:
    """Join ranges that overlap or touch; those that do not stay in the order asked for."""
    merged: list[ByteRange] = []
    for part in sorted(ranges, key=lambda part: part.first):
        if merged and part.first <= merged[-1].last + 1:
            merged[-1] = ByteRange(merged[-1].first, max(merged[-1].last, part.last))
        else:
            merged.append(part)
    return tuple(ranges if len(merged) == len(ranges) else merged)


def partial(fields: Fields, body: bytes, ranges: Sequence[ByteRange], boundary: str) -> tuple[int, Fields, bytes]:
    """A 206 with the parts: one as it is, several as multipart/byteranges (RFC 9110 §15.3.7).

    Args:
        fields: the fields of the 200.
        body: the complete content.
        ranges: from `select`, not empty.
        boundary: a token that does not occur in the content, at most 70 characters.

    Returns:
        Status, fields (without Content-Length) and content.
    """
    size = len(body)
    kept = fields.without("content-length", "content-range")
    if len(ranges) == 1:
        only = ranges[0]
        return 206, kept.plus(("Content-Range", _content_range(only, size))), body[only.first : only.last + 1]
    content_type = fields.get("content-type")
    described = f"Content-Type: {content_type}\r\n" if content_type else ""
    content = b"".join(
        b"--%b\r\n%bContent-Range: %b\r\n\r\n%b\r\n"
        % (
            boundary.encode("ascii"),
            described.encode("latin-1", "replace"),
            _content_range(part, size).encode("ascii"),
            body[part.first : part.last + 1],
        )
        for part in ranges
    )
    multipart = ("Content-Type", f"multipart/byteranges; boundary={boundary}")
    return 206, kept.without("content-type").plus(multipart), content + f"--{boundary}--\r\n".encode("ascii")


def unsatisfiable(fields: Fields, size: int) -> tuple[int, Fields, bytes]:
    """A 416 that tells the representation's length (RFC 9110 §15.5.17).

    Args:
        fields: the fields of the 200; of them only Date is kept.
        size: length of the representation in bytes.
    """
    date = [("Date", value) for value in fields.get_all("date")]
    return 416, Fields([*date, ("Content-Range", f"bytes */{size}")]), b""


def _content_range(part: ByteRange, size: int) -> str:
    return f"bytes {part.first}-{part.last}/{size}"
