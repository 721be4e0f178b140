"""What mode `origin` stores, in the shared store: the variants of a target, each with the moment before its fetch.

A variant is judged by its own moment, for one process may hold variants of several fetches: what was invalidated since
is not in what comes out. Variants that a credential selects, or that set a cookie, stay where they are: who reads the
store may read pages, but is not to find tokens there.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import msgspec

from gateway.core.caching import StoredResponse
from gateway.core.freshness import Freshness, Source
from gateway.core.model import Fields
from gateway.pipeline.ports import Stamp
from gateway.pipeline.resource import MAX_VARIANTS, Resource, Variant
from gateway.shared.options import SharedStoreError
from gateway.store.codec import CLOCK_SKEW, Unusable, opened

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.core.keys import CacheKey
    from gateway.shared.link import Link
    from gateway.shared.seal import Sealer
    from gateway.store.sync import SharedClock

_PURPOSE: Final = b"resource"
VERSION: Final = 1
_LONGEST: Final = 3600.0
# For how long a variant is of use behind all its windows: it can be validated, and clients may accept it, in seconds.
_LINGERS: Final = 300.0
_CREDENTIALS: Final = frozenset({"authorization", "proxy-authorization", "cookie", "x-api-key"})


class _Variant(msgspec.Struct, frozen=True, array_like=True, gc=False, forbid_unknown_fields=True):
    epoch: str
    generation: int
    status: int
    fields: tuple[tuple[str, str], ...]
    vary: tuple[str, ...]
    selecting: tuple[str | None, ...]
    born: float
    fresh_until: float
    refresh_until: float
    error_until: float
    source: Source
    stale_forbidden: bool
    validate_always: bool
    seconds: float
    body: bytes


class _Record(msgspec.Struct, frozen=True, array_like=True, gc=False, forbid_unknown_fields=True):
    version: int
    key: bytes
    tags: tuple[str, ...]
    variants: tuple[_Variant, ...]


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(_Record)


def encode(sealer: Sealer, resource: Resource, rules: bytes) -> bytes | None:
    """The record of a resource, all of whose variants have a moment; None when it holds text that has no UTF-8."""
    key = resource.key.encode()
    try:
        variants = tuple(_written(variant) for variant in resource.variants)
        content = _ENCODER.encode(_Record(VERSION, key, resource.tags, variants))
    except UnicodeEncodeError:
        return None
    return sealer.seal(_PURPOSE + rules, key, content)


def decode(sealer: Sealer, key: CacheKey, rules: bytes, sealed: bytes, now: float) -> Resource | Unusable:
    """The resource that was stored under exactly this key.

    Args:
        sealer: the operator's key at work.
        key: what was asked for.
        rules: what it must have been made by.
        sealed: the record; any bytes.
        now: epoch seconds.
    """
    record = opened(sealer, _PURPOSE + rules, key, sealed, decoder=_DECODER, version=VERSION)
    if isinstance(record, Unusable):
        return record
    if not 0 < len(record.variants) <= MAX_VARIANTS:
        return Unusable.FORM
    if any(len(one.vary) != len(one.selecting) for one in record.variants):
        return Unusable.FORM
    if any(one.born > now + CLOCK_SKEW for one in record.variants):
        return Unusable.CLOCK
    return Resource(key, tuple(_read(one, now) for one in record.variants), record.tags)


def _written(variant: Variant) -> _Variant:
    response, stamp = variant.response, variant.stamp
    fresh = response.freshness
    return _Variant(
        epoch="" if stamp is None else stamp.epoch,
        generation=0 if stamp is None else stamp.generation,
        status=response.status,
        fields=response.fields.pairs,
        vary=response.vary,
        selecting=response.selecting,
        born=fresh.born,
        fresh_until=fresh.fresh_until,
        refresh_until=fresh.refresh_until,
        error_until=fresh.error_until,
        source=fresh.source,
        stale_forbidden=fresh.stale_forbidden,
        validate_always=fresh.validate_always,
        seconds=variant.seconds,
        body=variant.body,
    )


def _read(one: _Variant, now: float) -> Variant:
    fresh = Freshness(
        born=min(one.born, now),
        fresh_until=one.fresh_until,
        refresh_until=one.refresh_until,
        error_until=one.error_until,
        source=one.source,
        stale_forbidden=one.stale_forbidden,
        validate_always=one.validate_always,
    )
    response = StoredResponse(one.status, Fields(one.fields), one.vary, one.selecting, fresh)
    return Variant(response, one.body, one.seconds, Stamp(one.epoch, one.generation))


class SharedResources:
    """Puts resources into the shared store, and finds them there.

    Args:
        link: the way to it.
        sealer: the operator's key at work.
        clock: the one that all processes share.
        counts: what became of pages, by result.
        now: epoch seconds.
        rules: what pages are made by.
        max_bytes: the most that is shared of one target.
    """

    def __init__(
        self,
        link: Link,
        sealer: Sealer,
        clock: SharedClock,
        counts: dict[str, int],
        *,
        now: Callable[[], float],
        rules: Callable[[], bytes],
        max_bytes: int,
    ) -> None:
        self._link: Final = link
        self._sealer: Final = sealer
        self._clock: Final = clock
        self._counts: Final = counts
        self._now: Final = now
        self._rules: Final = rules
        self._max_bytes: Final = max_bytes

    async def find(self, name: str, key: CacheKey, tags: Sequence[str]) -> tuple[Resource | None, Stamp | None]:
        """What there is for a target that no write has made void, and the moment before a fetch.

        Args:
            name: of the record.
            key: of the target.
            tags: those of it that are known beforehand.
        """
        counts = self._counts
        try:
            sealed, (now, latest) = await asyncio.gather(self._link.call("GET", name), self._clock.read(tags))
            if sealed is None:
                counts["miss"] += 1
                return None, now
            found = decode(self._sealer, key, self._rules(), sealed, self._now())
            if isinstance(found, Unusable):
                counts[found.value] += 1
                return None, now
            if any(one.stamp is None or one.stamp.generation < latest for one in found.variants):
                # Something with such tags was dropped: was it this one?
                now, latest = await self._clock.read(found.tags)
        except SharedStoreError:
            counts["failed"] += 1
            return None, None
        valid = found.kept(
            lambda one: one.stamp is not None and one.stamp.epoch == now.epoch and one.stamp.generation >= latest
        )
        if valid is None:
            counts["void"] += 1
            return None, now
        alive = valid.kept(lambda one: self._lasts(one) > 0)
        counts["stale" if alive is None else "hit"] += 1
        return alive, now

    def shareable(self, resource: Resource) -> Resource | None:
        """What of a resource goes into the store: what has a moment, no secret, time left, and room; newest first."""
        room, kept = self._max_bytes, list[Variant]()
        for variant in reversed(resource.variants):
            room -= variant.size
            if room >= 0 and variant.stamp is not None and self._lasts(variant) > 0 and not _secret(variant):
                kept.append(variant)
        return replace(resource, variants=tuple(reversed(kept))) if kept else None

    async def put(self, name: str, resource: Resource) -> None:
        """Store a resource whose variants are `shareable`.

        Raises:
            SharedStoreError: it is not stored.
        """
        rules = self._rules()
        sealed = await asyncio.to_thread(encode, self._sealer, resource, rules)
        lasts = min(_LONGEST, max(self._lasts(variant) for variant in resource.variants))
        if sealed is None or lasts <= 0:
            self._counts["not-stored"] += 1
            return
        patience = self._link.options.connect_timeout
        await self._link.call("SET", name, sealed, "PX", max(1, int(1000 * lasts)), patience=patience)
        self._counts["stored"] += 1

    def _lasts(self, variant: Variant) -> float:
        """For how many more seconds it may be of use."""
        fresh = variant.response.freshness
        return max(fresh.fresh_until, fresh.refresh_until, fresh.error_until) + _LINGERS - self._now()


def _secret(variant: Variant) -> bool:
    response = variant.response
    return "set-cookie" in response.fields or not _CREDENTIALS.isdisjoint(response.vary)
