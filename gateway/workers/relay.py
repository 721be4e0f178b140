"""Invalidations between the workers of one gateway, who share nothing else.

The law: no answer of a write leaves before every worker has dropped what it made void. A worker tells the supervisor,
the supervisor the others; one that does not confirm in time is ended, and with it its pages. A worker that dies might
have had a write under way, so then the others drop everything.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from gateway.core.invalidation import SAFE_METHODS
from gateway.pipeline.fulfil import Pipeline
from gateway.workers.channel import GoneError

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from gateway.core.keys import CacheKey
    from gateway.pipeline.decide import Outcome
    from gateway.pipeline.exchange import Exchange, Reply
    from gateway.pipeline.ports import Stored
    from gateway.store.memory import MemoryStore


class Relay:
    """Tells the other workers what is void.

    Args:
        tell: has them drop the pages with these tags; returns when all have.
    """

    def __init__(self, tell: Callable[[list[str]], Awaitable[object]]) -> None:
        self._tell: Final = tell
        self._tags: set[str] = set()
        self._telling: asyncio.Task[None] | None = None

    def announce(self, tags: Iterable[str]) -> None:
        """Begin to tell them, together with whatever else is announced in this turn of the loop."""
        self._tags.update(tags)
        if self._telling is None or self._telling.done():
            self._telling = asyncio.create_task(self._send())

    async def announced(self) -> None:
        """Wait until they know all that was announced so far."""
        while self._telling is not None and not self._telling.done():
            await asyncio.shield(self._telling)

    async def _send(self) -> None:
        while self._tags:
            tags, self._tags = sorted(self._tags), set()
            with suppress(GoneError):  # without a supervisor this worker drains, as all others do
                await self._tell(tags)


class RelayedPages:
    """The pages of this worker; what is invalidated here is announced to the others."""

    def __init__(self, store: MemoryStore, relay: Relay) -> None:
        self._store: Final = store
        self._relay: Final = relay
        # The store's own methods, without a step between: hits take this way.
        self.get: Final[Callable[[CacheKey], Stored | None]] = store.get
        self.peek: Final = store.peek
        self.place: Final = store.place
        self.in_touch: Final = store.in_touch
        self.most_standing: Final = store.most_standing
        self.put: Final = store.put
        self.discard: Final = store.discard
        self.generation: Final = store.generation

    def invalidate(self, tags: Iterable[str]) -> int:
        """Drop every entry that carries one of `tags`, in all workers; returns how many were dropped here."""
        named = tuple(tags)
        if named:
            self._relay.announce(named)
        return self._store.invalidate(named)


class RelayedPipeline(Pipeline):
    """A pipeline whose writes are answered when all workers know of them.

    Args:
        relay: tells the others.
        parts: as the pipeline has them.
    """

    def __init__(self, relay: Relay, **parts: Any) -> None:
        super().__init__(**parts)
        self._others: Final = relay

    async def answer(
        self, exchange: Exchange, body: AsyncIterator[bytes] | None, judged: Outcome | None = None
    ) -> Reply:
        """As the pipeline's own, for a write or the end of a job not before the others know."""
        reply = await super().answer(exchange, body, judged)
        head = exchange.head
        if head.method in SAFE_METHODS and "/jobs/" not in head.target.path:
            return reply
        try:
            await self._others.announced()
        except BaseException:
            if reply.body is not None and not isinstance(reply.body, bytes):
                await reply.body.aclose()
            raise
        return reply


@dataclass(frozen=True, slots=True)
class Place:
    """What a worker has of its supervisor.

    Attributes:
        sockets: listening sockets, shared with the other workers.
        relay: tells the other workers.
    """

    sockets: tuple[socket.socket, ...]
    relay: Relay
