"""What processes say to each other about invalidations: closed forms, sealed for their channel, bounded.

A message that does not open, or is of no known form, says nothing that can be acted on: whoever gets it does not know
what is void, and drops everything (`invalidations.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from gateway.core.invalidation import EVERYTHING, TYPES
from gateway.core.keys import CacheKey
from gateway.core.selection import Selection
from gateway.pipeline.purges import Purge

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.shared.seal import Sealer

_TOLD: Final = b"invalidation"
_ANSWERED: Final = b"acknowledgement"
# The most purges in one announcement, the most bytes of all their texts, and the longest announcement.
MOST_PURGES: Final = 16
_LONGEST_PURGES: Final = 64 << 10
_LONGEST: Final = 8 << 20
_MOST_QUERIES: Final = 8


class _Purge(msgspec.Struct, frozen=True, array_like=True, gc=False, forbid_unknown_fields=True):
    soft: bool
    key: tuple[str, str, str, str] | None
    path: str | None
    queries: tuple[str, ...]
    prefix: str | None
    type: str | None
    guid: str | None
    principal: str | None

    @property
    def texts(self) -> list[str]:
        """All that it says."""
        said = (self.path, self.prefix, self.type, self.guid, self.principal)
        return [*(self.key or ()), *self.queries, *(one for one in said if one is not None)]


class Announcement(msgspec.Struct, frozen=True, array_like=True, gc=False, forbid_unknown_fields=True):
    """What is void from now on.

    Attributes:
        origin: the process that says so.
        nonce: of which answers speak; "" where none are wanted.
        tags: pages with these are.
        purged: pages that an operator purged are.
    """

    origin: str
    nonce: str
    tags: tuple[str, ...]
    purged: tuple[_Purge, ...] = ()

    @property
    def void(self) -> tuple[str, ...]:
        """The tags the store is to remember. Of a purge it cannot tell which of its pages are meant: none counts."""
        return (EVERYTHING,) if self.purged else self.tags

    @property
    def purges(self) -> list[Purge]:
        """What an operator purged."""
        return [_purge(one) for one in self.purged]


class Answer(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """That a process has dropped what an announcement said.

    Attributes:
        nonce: of the announcement.
        process: which process.
    """

    nonce: str
    process: str


_ANNOUNCEMENT: Final = msgspec.msgpack.Decoder(Announcement)
_ANSWER: Final = msgspec.msgpack.Decoder(Answer)


class UnreadableError(ValueError):
    """A message that nobody here has sent, or of no known form."""


def announcement(origin: str, nonce: str, tags: Iterable[str], purges: Iterable[Purge] = ()) -> Announcement | None:
    """An announcement; None where its purges are too many or too long to be told as what they are."""
    told = tuple(_told(one) for one in purges)
    size = sum(len(text) for one in told for text in one.texts)
    if len(told) > MOST_PURGES or size > _LONGEST_PURGES or any(len(one.queries) > _MOST_QUERIES for one in told):
        return None
    try:
        "".join(text for one in told for text in one.texts).encode()
    except UnicodeEncodeError:
        return None
    return Announcement(origin, nonce, tuple(sorted(tags)), told)


def seal(sealer: Sealer, channel: str, message: Announcement | Answer) -> bytes:
    """A message as it goes over a channel."""
    purpose = _TOLD if isinstance(message, Announcement) else _ANSWERED
    return sealer.seal(purpose, channel.encode(), msgspec.msgpack.encode(message))


def open_announcement(sealer: Sealer, channel: str, sealed: bytes) -> Announcement:
    """What another process announced on a channel.

    Raises:
        UnreadableError: nobody of ours did, or not so.
    """
    plain = sealer.open(_TOLD, channel.encode(), sealed) if len(sealed) <= _LONGEST else None
    if plain is None:
        raise UnreadableError
    try:
        found = _ANNOUNCEMENT.decode(plain)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise UnreadableError from None
    size = sum(len(text) for one in found.purged for text in one.texts)
    known = all(one.type is None or one.type in TYPES for one in found.purged)
    if len(found.purged) > MOST_PURGES or size > _LONGEST_PURGES or not known:
        raise UnreadableError
    return found


def open_answer(sealer: Sealer, channel: str, sealed: bytes) -> Answer | None:
    """What another process answered; None where it is no answer of ours.

    Raises:
        UnreadableError: it is of no known form.
    """
    plain = sealer.open(_ANSWERED, channel.encode(), sealed)
    if plain is None:
        return None
    try:
        return _ANSWER.decode(plain)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise UnreadableError from None


def _told(purge: Purge) -> _Purge:
    wanted = purge.selection or Selection()
    return _Purge(
        soft=purge.soft,
        key=purge.key,
        path=wanted.path,
        queries=tuple(sorted(wanted.queries)),
        prefix=wanted.prefix,
        type=wanted.type,
        guid=wanted.guid,
        principal=wanted.principal,
    )


def _purge(told: _Purge) -> Purge:
    if told.key is not None:
        return Purge(told.soft, key=CacheKey(*told.key))
    chosen = Selection(told.path, frozenset(told.queries), told.prefix, told.type, told.guid, told.principal)
    return Purge(told.soft, selection=chosen)
