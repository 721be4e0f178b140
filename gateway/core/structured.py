"""Structured Fields (RFC 9651): the types, and Items, Lists and Dictionaries read strictly.

Knows nothing of any particular field. Reading fails as a whole or not at all, as RFC 9651 §4.2 demands. Writing is in
`structured_writer.py`.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_NUMBER: Final = re.compile(r"-?(?:([0-9]{1,12})\.([0-9]{1,3})(?![0-9.])|([0-9]{1,15})(?![0-9.]))")
STRING: Final = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*+)"')
TOKEN: Final = re.compile(r"[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*+")
_BYTES: Final = re.compile(r":([A-Za-z0-9+/=]*+):")
_BOOLEAN: Final = re.compile(r"\?([01])")
_DATE: Final = re.compile(r"@(-?[0-9]{1,15})(?![0-9.])")
_DISPLAY: Final = re.compile(r'%"((?:[ !#$&-~]|%[0-9a-f]{2})*+)"')
_PERCENT: Final = re.compile(rb"%([0-9a-f]{2})")
_ESCAPED: Final = re.compile(r"\\(.)")
KEY: Final = re.compile(r"[a-z*][a-z0-9_.*-]*+")
_SPACES: Final = re.compile(r" *+")
_COMMA: Final = re.compile(r"[ \t]*+(,[ \t]*+)?")


class StructuredFieldError(ValueError):
    """The text is no structured field of the expected type, or a value cannot be written as one."""


@dataclass(frozen=True, slots=True)
class Token:
    """A Token (RFC 9651 §3.3.4), told apart from a String."""

    value: str


@dataclass(frozen=True, slots=True)
class Date:
    """A Date (RFC 9651 §3.3.7) in epoch seconds."""

    seconds: int


@dataclass(frozen=True, slots=True)
class DisplayString:
    """A Display String (RFC 9651 §3.3.8): any Unicode text."""

    text: str


BareItem = int | Decimal | str | Token | bytes | bool | Date | DisplayString


@dataclass(frozen=True, slots=True)
class Item:
    """A bare item with parameters, in order."""

    value: BareItem
    parameters: Mapping[str, BareItem] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class InnerList:
    """A parenthesised list of items, with parameters of its own."""

    items: tuple[Item, ...]
    parameters: Mapping[str, BareItem] = field(default_factory=dict)


Member = Item | InnerList


def _number(found: re.Match[str]) -> BareItem:
    return Decimal(found[0]) if found[2] else int(found[0])


def _binary(found: re.Match[str]) -> BareItem:
    unpadded = found[1].rstrip("=")
    try:
        # Padding may be missing (RFC 9651 §4.2.7), never misplaced.
        return base64.b64decode(unpadded + "=" * (-len(unpadded) % 4), validate=True)
    except binascii.Error as error:
        raise StructuredFieldError("not base64") from error


def _display_string(found: re.Match[str]) -> BareItem:
    raw = _PERCENT.sub(lambda escape: bytes((int(escape[1], 16),)), found[1].encode("ascii"))
    try:
        return DisplayString(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise StructuredFieldError("not UTF-8") from error


# The first character settles the type (RFC 9651 §4.2.3.1), so at most one of these matches.
_BARE_ITEMS: Final[tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], BareItem]], ...]] = (
    (_NUMBER, _number),
    (STRING, lambda found: _ESCAPED.sub(r"\1", found[1])),
    (TOKEN, lambda found: Token(found[0])),
    (_BOOLEAN, lambda found: found[1] == "1"),
    (_BYTES, _binary),
    (_DATE, lambda found: Date(int(found[1]))),
    (_DISPLAY, _display_string),
)


class _Reader:
    """A cursor over one field."""

    __slots__ = ("at", "text")

    def __init__(self, text: str) -> None:
        self.text = text.strip(" ")
        self.at = 0

    def fail(self, expected: str) -> NoReturn:
        raise StructuredFieldError(f"expected {expected} at {self.at}")

    def take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self.text, self.at)
        if found is not None:
            self.at = found.end()
        return found

    def starts(self, character: str) -> bool:
        """Whether `character` is next; if so it is consumed."""
        if self.text.startswith(character, self.at):
            self.at += 1
            return True
        return False

    @property
    def done(self) -> bool:
        return self.at == len(self.text)

    def next_member(self) -> bool:
        """Step over a comma; False at the end of the field."""
        comma = self.take(_COMMA)
        if comma is not None and comma[1]:
            if self.done:
                self.fail("a member behind the comma")
            return True
        if not self.done:
            self.fail("a comma")
        return False

    def key(self) -> str:
        found = self.take(KEY)
        return found[0] if found is not None else self.fail("a key")

    def bare_item(self) -> BareItem:
        for pattern, convert in _BARE_ITEMS:
            found = self.take(pattern)
            if found is not None:
                return convert(found)
        return self.fail("an item")

    def parameters(self) -> dict[str, BareItem]:
        found: dict[str, BareItem] = {}
        while self.starts(";"):
            self.take(_SPACES)
            key = self.key()
            found.pop(key, None)
            found[key] = self.bare_item() if self.starts("=") else True
        return found

    def item(self) -> Item:
        return Item(self.bare_item(), self.parameters())

    def member(self) -> Member:
        if not self.starts("("):
            return self.item()
        items: list[Item] = []
        while True:
            self.take(_SPACES)
            if self.starts(")"):
                return InnerList(tuple(items), self.parameters())
            items.append(self.item())
            if self.text[self.at : self.at + 1] not in (" ", ")") or self.done:
                self.fail("a space or a closing parenthesis")


def parse_item(text: str) -> Item:
    """Read one Item.

    Raises:
        StructuredFieldError: the text is no Item.
    """
    reader = _Reader(text)
    item = reader.item()
    if not reader.done:
        reader.fail("the end")
    return item


def parse_list(values: Iterable[str]) -> list[Member]:
    """Read all lines of a List field.

    Raises:
        StructuredFieldError: the text is no List.
    """
    reader = _Reader(", ".join(values))
    members: list[Member] = []
    more = not reader.done
    while more:
        members.append(reader.member())
        more = reader.next_member()
    return members


def parse_dictionary(values: Iterable[str]) -> dict[str, Member]:
    """Read all lines of a Dictionary field; of a key given twice the last value stays, at its last place.

    Raises:
        StructuredFieldError: the text is no Dictionary.
    """
    reader = _Reader(", ".join(values))
    members: dict[str, Member] = {}
    more = not reader.done
    while more:
        key = reader.key()
        members.pop(key, None)
        members[key] = reader.member() if reader.starts("=") else Item(value=True, parameters=reader.parameters())
        more = reader.next_member()
    return members
