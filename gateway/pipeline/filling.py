"""Content on its way in, read by many at their own pace while it is collected to be stored.

Knows nothing of HTTP or caches: pieces go in at one end, every reader gets all of them in order. While the content may
still be kept, all of it is held and nobody waits for anybody. Once it has outgrown its limit it will not be kept, and
only what some reader has not had yet is held: the slowest reader sets the pace then, and one that stands still is cut
off.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from gateway.pipeline.ports import UpstreamError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

# Once content is not kept any more, this much of it may wait for the slowest reader.
_WINDOW: Final = 1024 * 1024
# How long a reader may take nothing at all before the others stop waiting for it, in seconds.
PATIENCE: Final = 30.0


class Budget:
    """Bytes that all content under way may hold together, beyond what is stored already.

    Args:
        limit: bytes; content that would exceed it is passed on and not kept.
    """

    __slots__ = ("_limit", "held")

    def __init__(self, limit: int) -> None:
        self._limit: Final = limit
        self.held = 0

    def take(self, size: int) -> bool:
        """Count `size` bytes as held; whether that is still within the limit."""
        self.held += size
        return self.held <= self._limit


def _nothing() -> None:
    pass


class Filling:
    """One content.

    Args:
        limit: bytes up to which it is collected.
        budget: shared by everything under way.
        patience: how long a reader may stand still once others wait for it, in seconds.

    Attributes:
        size: bytes that have come.
        keeping: whether it may still be kept whole.
        ended: whether nothing follows.
        complete: the whole content, once it has ended and was kept.
        abandoned: called when the last reader leaves before the end.
    """

    __slots__ = (
        *("_budget", "_changed", "_dropped", "_fault", "_held", "_limit", "_patience", "_pieces", "_readers"),
        *("abandoned", "complete", "ended", "keeping", "size"),
    )

    def __init__(self, *, limit: int, budget: Budget, patience: float = PATIENCE) -> None:
        self._limit: Final = limit
        self._budget: Final = budget
        self._patience: Final = patience
        self._pieces: list[bytes] = []
        self._held = 0  # bytes of them, as counted in the budget
        self._dropped = 0  # pieces at the beginning that every reader has had
        self._readers: set[Reader] = set()
        self._changed = asyncio.Event()
        self._fault: UpstreamError | None = None
        self.size = 0
        self.keeping = True
        self.ended = False
        self.complete: bytes | None = None
        self.abandoned: Callable[[], object] = _nothing

    async def pump(self, source: AsyncIterator[bytes]) -> bytes | None:
        """Read a source to its end. The readers are told of the end by `end`, so that it can be stored before.

        Returns:
            The content, or None when it was too large to keep.

        Raises:
            UpstreamError: the source broke off, or nobody reads any more what cannot be kept.
        """
        async for piece in source:
            if not piece:
                continue
            self._pieces.append(piece)
            self.size += len(piece)
            self._held += len(piece)
            within = self._budget.take(len(piece))
            if self.keeping and (self.size > self._limit or not within):
                self.keeping = False
            self._wake()
            if not self.keeping:
                await self._paced()
        return b"".join(self._pieces) if self.keeping else None

    def end(self, *, content: bytes | None = None, fault: UpstreamError | None = None) -> None:
        """Tell the readers that nothing follows.

        Args:
            content: the whole of it, if it was kept.
            fault: why it broke off, if it did; readers raise it behind the last piece.
        """
        if self.ended:
            return
        self.ended = True
        self.complete = content
        self._fault = fault
        self._wake()
        if not self._readers:
            self._let_go()

    def reader(self) -> Reader:
        """A new reader, at the beginning.

        Raises:
            LookupError: the beginning is not held any more, or it has broken off.
        """
        if self._dropped or (self.ended and self.complete is None):
            raise LookupError("the beginning is gone")
        if self.complete is not None and not self._readers:
            self._pieces = [self.complete]
        reader = Reader(self)
        self._readers.add(reader)
        return reader

    async def finished(self) -> None:
        """Wait for the end, whatever it is."""
        while not self.ended:
            await self._changed.wait()

    async def _paced(self) -> None:
        """Drop what all have had; wait until the slowest reader is near, or is given up."""
        while True:
            if not self._readers:
                raise UpstreamError("broken", "too large to be kept, and nobody reads it any more")
            self._trim()
            if self._held <= _WINDOW:
                return
            progress = self._changed
            try:
                async with asyncio.timeout(self._patience if len(self._readers) > 1 else None):
                    await progress.wait()
            except TimeoutError:
                for reader in [reader for reader in self._readers if reader.position == self._dropped]:
                    reader.cut = True
                    self._readers.discard(reader)
                self._wake()

    def _trim(self) -> None:
        slowest = min(reader.position for reader in self._readers)
        gone = self._pieces[: slowest - self._dropped]
        del self._pieces[: len(gone)]
        self._dropped += len(gone)
        size = sum(map(len, gone))
        self._held -= size
        self._budget.held -= size

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _let_go(self) -> None:
        self._budget.held -= self._held
        self._held = 0
        self._pieces = []

    async def _next(self, reader: Reader) -> bytes:
        while True:
            if reader.cut:
                raise UpstreamError("broken", "the client stood still while others waited for it")
            index = reader.position - self._dropped
            if index < len(self._pieces):
                reader.position += 1
                if not self.keeping:
                    self._wake()
                return self._pieces[index]
            if self._fault is not None:
                raise self._fault
            if self.ended:
                raise StopAsyncIteration
            await self._changed.wait()

    def _leave(self, reader: Reader) -> None:
        if reader not in self._readers:
            return
        self._readers.discard(reader)
        if self._readers:
            self._wake()
        elif self.ended:
            self._let_go()
        else:
            self.abandoned()


class Reader:
    """One reader of a `Filling`; must be exhausted or closed.

    Attributes:
        position: pieces it has had.
        cut: whether it was given up.
    """

    __slots__ = ("_filling", "_first", "cut", "position")

    def __init__(self, filling: Filling) -> None:
        self._filling: Final = filling
        self._first: bytes | None = None
        self.position = 0
        self.cut = False

    async def begin(self) -> None:
        """Wait for the first piece or the end, so that a break before it can still become an error answer.

        Raises:
            UpstreamError: it broke off before the first piece.
        """
        try:
            self._first = await anext(self, None)
        except BaseException:
            await self.aclose()
            raise

    def __aiter__(self) -> Reader:
        return self

    async def __anext__(self) -> bytes:
        first, self._first = self._first, None
        return await self._filling._next(self) if first is None else first  # noqa: SLF001 - two halves of one thing

    async def aclose(self) -> None:
        """Stop reading."""
        self._filling._leave(self)  # noqa: SLF001 - likewise
