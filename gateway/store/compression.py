"""Makes the encoded forms of stored pages: beside the event loop, one at a time, the biggest page first.

A form is made when a client would have liked it, and once for each page; what waits is bounded, and what was replaced
or dropped before its turn came is not made. The result goes into the store as any page does, within its budget.
"""

from __future__ import annotations

import asyncio
import zlib
from dataclasses import replace
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Final, Protocol

import brotli

from gateway.pipeline.entry import Encoded, Entry
from gateway.pipeline.representation import coded_etag

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gateway.core.keys import CacheKey
    from gateway.pipeline.ports import Stored

# Levels at which a megabyte of JSON takes 5 to 15 ms and comes out at a tenth; higher ones cost more than they save
# for pages that live for seconds.
_GZIP_LEVEL: Final = 5
_BROTLI_QUALITY: Final = 4
_ZSTD_LEVEL: Final = 3
# So many pages may wait for their turn.
CAPACITY: Final = 64
# A form is kept when it is smaller than this part of the page.
_WORTH: Final = 0.9


class Pages(Protocol):
    """The page store as far as it is needed here."""

    def peek(self, key: CacheKey) -> Stored | None:
        """What is stored under a key; does not count as a hit."""

    def replace(self, old: Stored, new: Stored) -> bool:
        """Put `new` in the place of `old`, if that very entry is stored still and the new one fits."""


def _gzip(body: bytes) -> bytes:
    packer = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)  # no time, no name: the same bytes again
    return packer.compress(body) + packer.flush()


def _brotli(body: bytes) -> bytes:
    return bytes(brotli.compress(body, mode=brotli.MODE_TEXT, quality=_BROTLI_QUALITY))


def _zstd(body: bytes) -> bytes:
    from backports import zstd  # for the first page that is stored so

    return zstd.compress(body, level=_ZSTD_LEVEL)


CODERS: Final[Mapping[str, Callable[[bytes], bytes]]] = {"zstd": _zstd, "br": _brotli, "gzip": _gzip}
RESULTS: Final = ("made", "not-worth-it", "no-room", "overtaken", "crowded")


class Compressor:
    """The encoder of one page store.

    Args:
        pages: where the pages are, and their forms go.
        codings: which forms are made, the preferred first; of `CODERS`.
        min_bytes: smaller pages are sent as they are.
        seconds: a clock that never goes back.

    Attributes:
        results: how often what was wanted came to what, by coding and `RESULTS`.
        seconds: time spent making forms, by coding.
        sizes: bytes of the pages and of their forms, by coding and "in" or "out".
    """

    def __init__(
        self,
        pages: Pages,
        *,
        codings: Sequence[str],
        min_bytes: int,
        seconds: Callable[[], float],
    ) -> None:
        self.codings = tuple(codings)
        self.min_bytes = min_bytes
        self._pages: Final = pages
        self._clock: Final = seconds
        self._waiting: Final[list[tuple[int, int, Entry, str]]] = []
        self._order: Final = count()
        self._wanted: Final[set[tuple[CacheKey, str]]] = set()
        self._worker: asyncio.Task[None] | None = None
        self.results: Final[dict[tuple[str, ...], float]] = {
            (coding, result): 0 for coding in self.codings for result in RESULTS
        }
        self.seconds: Final = dict.fromkeys(self.codings, 0.0)
        self.sizes: Final[dict[tuple[str, ...], float]] = {
            (coding, side): 0 for coding in self.codings for side in ("in", "out")
        }

    def want(self, entry: Entry, coding: str) -> None:
        """Make this form of a page when its turn comes; nothing when it is waiting already or too many are."""
        wanted = (entry.key, coding)
        if wanted in self._wanted:
            return
        if len(self._wanted) >= CAPACITY:
            self.results[coding, "crowded"] += 1
            return
        self._wanted.add(wanted)
        heappush(self._waiting, (-len(entry.body), next(self._order), entry, coding))
        if self._worker is None:
            self._worker = asyncio.ensure_future(self._work())

    async def stop(self) -> None:
        """Make no more."""
        self._waiting.clear()
        worker = self._worker
        if worker is not None:
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)

    async def _work(self) -> None:
        try:
            while self._waiting:
                _, _, entry, coding = heappop(self._waiting)
                try:
                    self.results[coding, await self._make(entry, coding)] += 1
                finally:
                    self._wanted.discard((entry.key, coding))
        finally:
            self._worker = None
            self._wanted.clear()

    async def _make(self, entry: Entry, coding: str) -> str:
        if self._current(entry) is None:
            return "overtaken"
        began = self._clock()
        body = await asyncio.to_thread(CODERS[coding], entry.body)
        self.seconds[coding] += self._clock() - began
        self.sizes[coding, "in"] += len(entry.body)
        self.sizes[coding, "out"] += len(body)
        now = self._current(entry)
        if now is None:
            return "overtaken"
        if len(body) < _WORTH * len(entry.body):
            if self._pages.replace(now, _with(now, coding, body)):
                return "made"
            # Remembered, or it would be made again and again.
            self._pages.replace(now, _with(now, coding, None))
            return "no-room"
        self._pages.replace(now, _with(now, coding, None))
        return "not-worth-it"

    def _current(self, entry: Entry) -> Entry | None:
        """The page as it is stored now, if its content is still the same."""
        stored = self._pages.peek(entry.key)
        return stored if isinstance(stored, Entry) and stored.body is entry.body else None


def _with(entry: Entry, coding: str, body: bytes | None) -> Entry:
    others = tuple(one for one in entry.encoded if one.coding != coding)
    return replace(entry, encoded=(*others, Encoded(coding, body, coded_etag(entry.etag, coding))))
