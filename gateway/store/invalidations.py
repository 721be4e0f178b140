"""Telling the other processes what a write made void, and being told; knowing at every moment whether one is told.

**In touch** is a process that holds a lease: it has had back, on the connection that brings it invalidations, the
answer to a heartbeat it sent less than `lease` ago, so that nothing which was announced before has been missed; and
every process it knows of has done the same. A process that is not in touch may serve nothing it stored: a write through
another might be unknown to it. That costs fetches while the store is away, and never shows anyone an old page.

**A write's answer** leaves when all who listen have said that they dropped its pages, or at the end of the time that
the store may add. What could not be announced is announced before this process calls itself in touch again; until then
the others see it missing and are not in touch either, for as long as `grace`.

The generation counts announcements. One that does not follow on the last means that some were missed, or that the store
has begun anew: then everything is dropped.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec

from gateway.core.invalidation import EVERYTHING
from gateway.shared.clients import ERRORS
from gateway.shared.options import Fault, SharedStoreError
from gateway.store.sync import SharedClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gateway.shared.clients import Listener
    from gateway.shared.link import Link
    from gateway.shared.seal import Sealer

_TOLD: Final = b"invalidation"
_ANSWERED: Final = b"acknowledgement"
_BEATS_A_LEASE: Final = 4
# Tags that wait to be announced while the store is away; beyond it everything is.
_UNSENT: Final = 10_000


class _Announcement(msgspec.Struct, frozen=True, array_like=True, gc=False):
    origin: str
    nonce: str
    tags: tuple[str, ...]


class _Answer(msgspec.Struct, frozen=True, array_like=True, gc=False):
    nonce: str
    process: str


_ANNOUNCEMENT: Final = msgspec.msgpack.Decoder(_Announcement)
_ANSWER: Final = msgspec.msgpack.Decoder(_Answer)


class _Round:
    """One announcement: its tags, who waits for it, who has answered it."""

    __slots__ = ("answered", "done", "enough", "nonce", "tags", "wanted")

    def __init__(self) -> None:
        self.nonce: Final = secrets.token_hex(8)
        self.tags: Final[set[str]] = set()
        self.answered: Final[set[str]] = set()
        self.wanted: tuple[int, frozenset[str] | None] | None = None
        self.enough: Final = asyncio.Event()
        self.done: Final = asyncio.Event()

    def answer(self, process: str) -> None:
        self.answered.add(process)
        self._judge()

    def want(self, count: int, awaited: frozenset[str] | None) -> None:
        """So many will do, or these: who was silent just now is not waited for again so soon, the others are."""
        self.wanted = count, awaited
        self._judge()

    def _judge(self) -> None:
        count, awaited = self.wanted or (math.inf, None)
        if len(self.answered) >= count or (awaited is not None and awaited <= self.answered):
            self.enough.set()


class Invalidations:
    """Announces and listens.

    Args:
        link: the way to the store.
        sealer: the operator's key at work.
        namespace: this gateway's part of the store.
        drop: drops the pages with these tags from this process.
        lease: for how long after a heartbeat this process believes to know everything, in seconds.
        grace: for how long others are not in touch because of one that is silent, in seconds.
        monotonic: seconds of a clock that never goes back.

    Attributes:
        counts: what became of announcements, own and others', by result; the label of
            `gateway_shared_store_invalidations_total`.
        lost: how often this process was in touch no more.
    """

    def __init__(
        self,
        link: Link,
        sealer: Sealer,
        namespace: str,
        drop: Callable[[Iterable[str]], object],
        *,
        lease: float = 1.0,
        grace: float = 10.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._link: Final = link
        self._sealer: Final = sealer
        self._drop: Final = drop
        self._lease: Final = lease
        self._grace: Final = grace
        self._monotonic: Final = monotonic
        self.clock: Final = SharedClock(link, namespace, secrets.token_hex(8))
        self._own: Final = self.clock.channel_of(self.clock.process)
        self._seen: tuple[str, int] | None = None
        self._until = 0.0
        self._held = False
        self._alive: Final[dict[str, float]] = {}
        self._beats: Final[dict[str, float]] = {}
        self._next: _Round | None = None
        self._current: _Round | None = None
        self._unsent: set[str] = set()
        self._impatient_until = 0.0
        self._answering: frozenset[str] = frozenset()
        self._sending: asyncio.Task[None] | None = None
        self._running: asyncio.Task[None] | None = None
        self._answers: Final[set[asyncio.Task[None]]] = set()
        self.counts: Final = dict.fromkeys(
            ("announced", "unacknowledged", "unsent", "received", "missed", "unreadable"), 0
        )
        self.lost = 0

    # -- what the store of pages asks

    def in_touch(self) -> bool:
        """Whether everything that was announced is known here. Cheap: asked for every hit."""
        return self._monotonic() < self._until

    @property
    def processes(self) -> int:
        """How many share the store, this one included, as far as is known."""
        return max(1, len(self._alive))

    def announce(self, tags: Iterable[str]) -> None:
        """Have the others drop the pages with these tags, beginning at once; `announced` waits for it."""
        if self._next is None:
            self._next = _Round()
        self._next.tags.update(tags)
        if self._sending is None or self._sending.done():
            self._sending = asyncio.ensure_future(self._send())

    async def announced(self) -> None:
        """Wait until the others have dropped what was announced so far, or until that takes too long."""
        pending = self._next or self._current
        if pending is not None:
            await pending.done.wait()

    # -- life

    async def start(self) -> None:
        """Begin to listen; returns when in touch, or after a short time without."""
        touched = asyncio.Event()
        self._running = asyncio.ensure_future(self._run(touched))
        with suppress(TimeoutError):
            async with asyncio.timeout(self._link.options.connect_timeout if self._link.fault is None else 0):
                await touched.wait()

    async def stop(self) -> None:
        """Announce what is left, say farewell, stop listening."""
        if self._sending is not None:
            await self._sending
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
        await asyncio.gather(*self._answers, return_exceptions=True)
        with suppress(SharedStoreError):
            await self._bye()

    async def _bye(self) -> None:
        await self.clock.leave()
        farewell = _Announcement(self.clock.process, "", ())
        await self.clock.send(self.clock.channel, b"- 0 " + self._sealed(_TOLD, self.clock.channel, farewell))

    # -- announcing

    async def _send(self) -> None:
        while self._next is not None:
            self._current, self._next = self._next, None
            try:
                await self._send_one(self._current)
            finally:
                self._current.done.set()
                self._current = None

    async def _send_one(self, round_: _Round) -> None:
        started, budget = self._monotonic(), self._link.options.max_added_latency
        tags = sorted(round_.tags)
        message = self._sealed(_TOLD, self.clock.channel, _Announcement(self.clock.process, round_.nonce, tuple(tags)))
        try:
            told = await self.clock.announce(message, tags)
        except SharedStoreError as error:
            self.counts["unsent"] += 1
            self._keep_unsent(tags)
            self._out_of_touch()
            if error.fault is Fault.OPEN:
                return
            # Those who listen at the same server notice by the same that it is gone: give them as long as it takes.
            await asyncio.sleep(max(0.0, started + budget - self._monotonic()))
            return
        self.counts["announced"] += 1
        round_.want(told, self._answering if started < self._impatient_until else None)
        try:
            async with asyncio.timeout(max(0.001, started + budget - self._monotonic())):
                await round_.enough.wait()
        except TimeoutError:
            self.counts["unacknowledged"] += 1
            self._impatient_until = self._monotonic() + self._lease
            self._answering = frozenset(round_.answered)

    def _keep_unsent(self, tags: Iterable[str]) -> None:
        self._unsent.update(tags)
        if len(self._unsent) > _UNSENT:
            self._unsent = {EVERYTHING}

    async def _send_unsent(self) -> None:
        while self._unsent:
            tags, self._unsent = self._unsent, set()
            try:
                announcement = _Announcement(self.clock.process, "", tuple(sorted(tags)))
                await self.clock.announce(self._sealed(_TOLD, self.clock.channel, announcement), sorted(tags))
            except SharedStoreError:
                self._keep_unsent(tags)
                raise
            self.counts["announced"] += 1

    # -- listening

    async def _run(self, touched: asyncio.Event) -> None:
        pause = self._link.options.retry_interval / 10
        while True:
            try:
                await self._link.up.wait()
                await self._listen(touched)
            except (SharedStoreError, *ERRORS):
                pass
            finally:
                self._out_of_touch()
            await asyncio.sleep(pause)

    async def _listen(self, touched: asyncio.Event) -> None:
        await self.clock.read(())  # so that a cluster's client knows where the key lives now
        listener = await self._link.listener(self.clock.key)
        beating: asyncio.Task[None] | None = None
        try:
            async with asyncio.timeout(self._link.options.connect_timeout):
                await listener.subscribe(self.clock.channel, self._own)
            # Whom this process has not heard of because it was deaf itself may be there still, and deaf.
            self._alive.update(dict.fromkeys(self._alive, self._monotonic() - self._lease))
            await self._send_unsent()
            beating = asyncio.ensure_future(self._beat())
            await self._hear(listener, touched, beating)
        except TimeoutError:
            raise SharedStoreError(Fault.TIMEOUT) from None
        finally:
            if beating is not None:
                beating.cancel()
                await asyncio.gather(beating, return_exceptions=True)
            self._beats.clear()
            await listener.close()

    async def _hear(self, listener: Listener, touched: asyncio.Event, beating: asyncio.Task[None]) -> None:
        """Take messages until the connection breaks, stays silent for too long, or the heart stops."""
        reading: asyncio.Task[tuple[str, bytes] | None] | None = None
        try:
            while True:
                reading = asyncio.ensure_future(listener.message())
                await asyncio.wait({reading, beating}, return_when=asyncio.FIRST_COMPLETED, timeout=2 * self._lease)
                if not reading.done():
                    return
                message = reading.result()
                if message is None:
                    return
                self._take(*message)
                if self.in_touch():
                    touched.set()
        finally:
            if reading is not None:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    async def _beat(self) -> None:
        """Heartbeats until one fails."""
        while True:
            if self._unsent:
                await self._send_unsent()
            nonce = secrets.token_hex(8)
            self._beats[nonce] = self._monotonic()
            await self.clock.beat(nonce, forget_after=self._grace)
            await asyncio.sleep(self._lease / _BEATS_A_LEASE)

    def _take(self, channel: str, content: bytes) -> None:
        try:
            if channel == self.clock.channel:
                self._told(content)
            else:
                self._answered(content)
        except (ValueError, msgspec.DecodeError):
            self._unreadable()

    def _unreadable(self) -> None:
        """What it said is unknown: perhaps that everything is void."""
        self.counts["unreadable"] += 1
        self._drop((EVERYTHING,))

    def _told(self, content: bytes) -> None:
        epoch, generation, sealed = content.split(b" ", 2)
        plain = self._sealer.open(_TOLD, self.clock.channel.encode(), sealed)
        if plain is None:
            self._unreadable()
            return
        announcement = _ANNOUNCEMENT.decode(plain)
        if epoch == b"-":
            self._alive.pop(announcement.origin, None)
            return
        self.counts["received"] += 1
        self._advance(epoch.decode(), int(generation), 1)
        if announcement.origin == self.clock.process:
            if self._current is not None and announcement.nonce == self._current.nonce:
                self._current.answer(announcement.origin)
            return
        self._drop(announcement.tags)
        if announcement.nonce:
            self._acknowledge(announcement)

    def _acknowledge(self, announcement: _Announcement) -> None:
        channel = self.clock.channel_of(announcement.origin)
        answer = self._sealed(_ANSWERED, channel, _Answer(announcement.nonce, self.clock.process))

        async def send() -> None:
            with suppress(SharedStoreError):
                await self.clock.send(channel, answer)

        task = asyncio.ensure_future(send())
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)

    def _answered(self, content: bytes) -> None:
        plain = self._sealer.open(_ANSWERED, self._own.encode(), content)
        if plain is not None:
            answer = _ANSWER.decode(plain)
            if self._current is not None and answer.nonce == self._current.nonce:
                self._current.answer(answer.process)
            return
        epoch, generation, nonce, *members = content.decode("ascii", "replace").split(" ")
        sent = self._beats.pop(nonce, None)
        if sent is None:
            return
        self._advance(epoch, int(generation), 0)
        now = self._monotonic()
        for process, age in zip(members[::2], members[1::2], strict=True):
            if int(age) / 1000 < self._lease:
                self._alive[process] = max(now - int(age) / 1000, self._alive.get(process, 0.0))
        for process, seen in list(self._alive.items()):
            if now - seen >= self._grace:
                del self._alive[process]
        if all(now - seen < self._lease for seen in self._alive.values()):
            self._until = sent + self._lease
            self._held = True
        else:
            self._out_of_touch()

    def _advance(self, epoch: str, generation: int, step: int) -> None:
        """Follow the shared clock; whoever has missed something drops everything."""
        following = None if self._seen is None else (self._seen[0], self._seen[1] + step)
        self._seen = (epoch, generation)
        if following != self._seen:
            if following is not None:
                self.counts["missed"] += 1
            self._drop((EVERYTHING,))

    def _out_of_touch(self) -> None:
        self.lost += self._held
        self._until, self._held = 0.0, False

    def _sealed(self, purpose: bytes, channel: str, message: msgspec.Struct) -> bytes:
        return self._sealer.seal(purpose, channel.encode(), msgspec.msgpack.encode(message))
