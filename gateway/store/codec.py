"""Pages as bytes for a shared store, and back: versioned, of a closed form, never pickled, believed only when sealed.

A record holds the key it was stored under, visibility domain included, and is sealed for that key: one that was cut,
changed or put under another key is none, whoever did it. What comes out is either the page that went in or nothing;
encoded forms are not in it, each process makes its own.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import msgspec

from gateway.core.model import Fields
from gateway.pipeline.entry import Entry
from gateway.pipeline.ports import Stamp

if TYPE_CHECKING:
    from gateway.core.keys import CacheKey
    from gateway.shared.seal import Sealer

_PURPOSE: Final = b"page"
VERSION: Final = 2
# Clocks of machines that share pages may differ by so much before their pages are strangers to each other, in seconds.
CLOCK_SKEW: Final = 5.0


class Unusable(Enum):
    """Why a record is no page; the closed `result` label of `gateway_shared_store_pages_total`, beside others."""

    SEAL = "seal"  # not sealed by this key for this page
    FORM = "form"  # sealed, but of another version or form
    KEY = "key"  # of another page
    CLOCK = "clock"  # from the future


class _Record(msgspec.Struct, frozen=True, array_like=True, gc=False, forbid_unknown_fields=True):
    version: int
    key: bytes
    epoch: str
    generation: int
    fields: tuple[tuple[str, str], ...]
    etag: str
    stored_at: float
    fresh_until: float
    refresh_until: float
    error_until: float
    tags: tuple[str, ...]
    fetch_seconds: float
    status: int
    transformable: bool
    body: bytes


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(_Record)


class Keyed(Protocol):
    """A record that says what it is of."""

    @property
    def version(self) -> int:
        """Of its form."""

    @property
    def key(self) -> bytes:
        """Under which it was stored."""


R = TypeVar("R", bound=Keyed)


def opened(
    sealer: Sealer, purpose: bytes, key: CacheKey, sealed: bytes, *, decoder: msgspec.msgpack.Decoder[R], version: int
) -> R | Unusable:
    """The record that was sealed for exactly this key, in this version of its form.

    Args:
        sealer: the operator's key at work.
        purpose: what it was sealed for, and by which rules it was made.
        key: what was asked for.
        sealed: any bytes.
        decoder: of the record's form.
        version: of the form.
    """
    subject = key.encode()
    content = sealer.open(purpose, subject, sealed)
    if content is None:
        return Unusable.SEAL
    try:
        record = decoder.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Unusable.FORM
    if record.version != version:
        return Unusable.FORM
    return record if record.key == subject else Unusable.KEY


class PageCodec:
    """Encodes and decodes.

    Args:
        sealer: the operator's key at work.
    """

    __slots__ = ("_sealer",)

    def __init__(self, sealer: Sealer) -> None:
        self._sealer: Final = sealer

    def name(self, key: CacheKey, rules: bytes) -> str:
        """Under which name a page is stored; says nothing about whose it is.

        Args:
            key: of the page.
            rules: what pages are made by.
        """
        return self._sealer.name(_PURPOSE + rules, key.encode())

    def encode(self, entry: Entry, rules: bytes, stamp: Stamp) -> bytes | None:
        """The record of a page, None when it holds text that has no UTF-8.

        Args:
            entry: the page.
            rules: what it was made by.
            stamp: a moment before its fetch began.
        """
        record = _Record(
            version=VERSION,
            key=entry.key.encode(),
            epoch=stamp.epoch,
            generation=stamp.generation,
            fields=entry.fields.pairs,
            etag=entry.etag,
            stored_at=entry.stored_at,
            fresh_until=entry.fresh_until,
            refresh_until=entry.refresh_until,
            error_until=entry.error_until,
            tags=entry.tags,
            fetch_seconds=entry.fetch_seconds,
            status=entry.status,
            transformable=entry.transformable,
            body=entry.body,
        )
        try:
            content = _ENCODER.encode(record)
        except UnicodeEncodeError:
            return None
        return self._sealer.seal(_PURPOSE + rules, record.key, content)

    def decode(self, key: CacheKey, rules: bytes, sealed: bytes, now: float) -> tuple[Entry, Stamp] | Unusable:
        """The page that was stored under exactly this key.

        Args:
            key: what was asked for.
            rules: what it must have been made by.
            sealed: the record; any bytes.
            now: epoch seconds.
        """
        record = opened(self._sealer, _PURPOSE + rules, key, sealed, decoder=_DECODER, version=VERSION)
        if isinstance(record, Unusable):
            return record
        if record.stored_at > now + CLOCK_SKEW:
            return Unusable.CLOCK
        entry = Entry(
            key=key,
            fields=Fields(record.fields),
            body=record.body,
            etag=record.etag,
            stored_at=min(record.stored_at, now),
            fresh_until=record.fresh_until,
            refresh_until=record.refresh_until,
            error_until=record.error_until,
            tags=record.tags,
            fetch_seconds=record.fetch_seconds,
            status=record.status,
            transformable=record.transformable,
        )
        return entry, Stamp(record.epoch, record.generation)
