"""Telling the other processes what a write made void, and being told; knowing at every moment whether one is told.

**In touch** is a process that may serve what it stored (`lease.py`): what brings it invalidations answered a moment
ago, and every process it knows of was heard lately. Otherwise a write through another might be unknown to it. Who is
out of touch waits for the next answer, which takes no longer than the store does, or asks the controller.

**A write's answer** leaves when every other process has dropped its pages or may not serve them any more, whichever is
first. All who listen say that they have dropped them; whoever does not in time was not answered in time either, so its
right has ended by itself. What could not be announced is announced before this process calls itself in touch again;
until then the others see it missing, and their right has ended when it has been silent for a lease. That is waited for
as well, once; where the store itself is gone, and with it everybody's pulse, only for as long as a pulse lasts.

The generation counts announcements. One that does not follow on the last means that some were missed, or that the store
has begun anew: then everything is dropped.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from gateway.core.invalidation import EVERYTHING
from gateway.shared.clients import ERRORS, PONG
from gateway.shared.options import Fault, SharedStoreError
from gateway.store.horizon import Horizon
from gateway.store.lease import Lease
from gateway.store.messages import Announcement, Answer, announcement, open_announcement, open_answer, seal
from gateway.store.rounds import Round
from gateway.store.sync import Beat, SharedClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from gateway.pipeline.purges import Purge
    from gateway.shared.clients import Listener
    from gateway.shared.link import Link
    from gateway.shared.seal import Sealer

_BEATS_A_LEASE: Final = 8
_PULSES: Final = 3
# Shorter ones would cost more than they are good for, in seconds.
_SHORTEST_PULSE: Final = 0.02
# Pulses without an answer beyond which no more are sent: the connection is as good as gone.
_UNANSWERED: Final = 256
# Tags that wait to be announced while the store is away; beyond it everything is.
_UNSENT: Final = 10_000
# Between two looks at what a write waits for, in seconds.
_LOOK: Final = 0.02


class Invalidations:
    """Announces and listens.

    Args:
        link: the way to the store.
        sealer: the operator's key at work.
        namespace: this gateway's part of the store.
        drop: drops the pages with these tags from this process.
        lease: how long a process may be silent before the others serve nothing they stored, in seconds.
        grace: for how long they do so, in seconds.
        monotonic: seconds of a clock that never goes back.

    Attributes:
        counts: what became of announcements, own and others', by result; the label of
            `gateway_shared_store_invalidations_total`.
        purge: carries out in this process what an operator purged through another.
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
        self._monotonic: Final = monotonic
        self.purge: Callable[[Purge], Awaitable[object]] | None = None
        self.clock: Final = SharedClock(link, namespace, secrets.token_hex(8), slack=lease / 4)
        pulse = min(max(link.options.max_added_latency, _SHORTEST_PULSE), lease)
        self.lease: Final = Lease(self.clock.process, lease=lease, grace=grace, pulse=pulse, monotonic=monotonic)
        self._grace: Final = grace
        self._own: Final = self.clock.channel_of(self.clock.process)
        self._seen: tuple[str, int] | None = None
        self._beats: Final[dict[str, float]] = {}
        self._asked: Final[deque[float]] = deque()
        self._horizon: Final = Horizon(self.lease, late_by=self.clock.late_by, monotonic=monotonic)
        self._listening = False
        self._touching: Final = asyncio.Event()
        self._changed: Final = asyncio.Event()
        self._hopeless = False
        self._next: Round | None = None
        self._current: Round | None = None
        self._unsent: set[str] = set()
        self._owing = False
        self._sending: asyncio.Task[None] | None = None
        self._running: asyncio.Task[None] | None = None
        self._stopping = False
        self._behind: Final[set[asyncio.Task[None]]] = set()
        results = ("announced", "unacknowledged", "unsent", "purges", "received", "missed", "unreadable")
        self.counts: Final = dict.fromkeys(results, 0)
        self.in_touch: Final = self.lease.serves  # whether all that was announced is known here

    # -- what the store of pages asks

    async def touched(self) -> bool:
        """Whether this process is in touch, now or as soon as the store answers; once it has not, nobody waits."""
        if self.in_touch():
            return True
        if self._hopeless or not (self._listening and self.lease.heard()) or self._link.fault is not None:
            return False
        self._touching.clear()
        try:
            async with asyncio.timeout(self._link.options.max_added_latency):
                await self._touching.wait()
        except TimeoutError:
            self._hopeless = not self.in_touch()
        return self.in_touch()

    def announce(self, tags: Iterable[str]) -> None:
        """Have the others drop the pages with these tags, beginning at once; `announced` waits for it."""
        self._round().tags.update(tags)

    def publish(self, purge: Purge) -> None:
        """Have the others purge what an operator purged here, beginning at once; `announced` waits for it."""
        self.counts["purges"] += 1
        self._round().purges.append(purge)

    async def announced(self) -> None:
        """Wait until the others have dropped what was announced so far, or may not serve it any more."""
        pending = self._next or self._current
        if pending is not None:
            await pending.done.wait()

    # -- life

    async def start(self) -> None:
        """Begin to listen; returns when in touch, or after a short time without."""
        self._running = asyncio.ensure_future(self._run())
        with suppress(TimeoutError):
            async with asyncio.timeout(self._link.options.connect_timeout if self._link.fault is None else 0):
                await self._touching.wait()

    async def stop(self) -> None:
        """Announce what is left, say farewell, stop listening."""
        self._stopping = True
        self._changed.set()
        if self._sending is not None:
            await self._sending
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
        await asyncio.gather(*self._behind, return_exceptions=True)
        farewell = self._sealed(self.clock.channel, Announcement(self.clock.process, "", ()))
        with suppress(SharedStoreError):
            await self.clock.leave()
            await self.clock.send(self.clock.channel, b"- 0 " + farewell)

    # -- announcing

    def _round(self) -> Round:
        """What is announced next, beginning at once."""
        if self._next is None:
            self._next = Round()
        if self._sending is None or self._sending.done():
            self._sending = asyncio.ensure_future(self._send())
        return self._next

    async def _send(self) -> None:
        while self._next is not None:
            self._current, self._next = self._next, None
            try:
                await self._send_one(self._current)
            finally:
                self._current.done.set()
                self._current = None

    async def _send_one(self, round_: Round) -> None:
        me, nonce = self.clock.process, round_.nonce
        message = announcement(me, nonce, round_.tags, round_.purges) or Announcement(me, nonce, (EVERYTHING,))
        void, sealed = message.void, self._sealed(self.clock.channel, message)
        try:
            told = await self.clock.announce(sealed, void, patience=max(self.lease.lasts, self.lease.pulse))
        except SharedStoreError:
            self.counts["unsent"] += 1
            self._keep_unsent(void)
            self.lease.lose()
            await self._unserved()
            return
        self.counts["announced"] += 1
        round_.want(max(told, 1 + self.lease.serving))
        at, horizon = self._monotonic(), self._horizon
        while not (round_.enough.is_set() and horizon.all_here()):
            left = horizon.told(at) - self._monotonic()
            if left <= 0:
                self.counts["unacknowledged"] += not round_.enough.is_set()
                return
            await self._change(left)

    async def _change(self, longest: float) -> None:
        """Wait until there is something new, but not for long."""
        self._changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(min(longest, _LOOK)):
                await self._changed.wait()

    async def _unserved(self) -> None:
        """Wait until the others may not serve any more what this process could not announce."""
        horizon = self._horizon
        while not self._stopping:
            left = horizon.untold(away=self._link.fault is not None, owing=self._owing) - self._monotonic()
            if left <= 0:
                return
            await self._change(left)
            if horizon.gone_at is None and not self._listening and await self._nobody_there(left):
                horizon.gone_at = self._monotonic()

    def _keep_unsent(self, tags: Iterable[str]) -> None:
        if not self._owing:
            self._owing, self._horizon.owed_at = True, self._monotonic()
        self._unsent.update(tags)
        if len(self._unsent) > _UNSENT:
            self._unsent = {EVERYTHING}

    async def _send_unsent(self) -> None:
        while self._unsent:
            tags, self._unsent = tuple(sorted(self._unsent)), set()
            try:
                sealed = self._sealed(self.clock.channel, Announcement(self.clock.process, "", tags))
                await self.clock.announce(sealed, tags)
            except BaseException:
                self._keep_unsent(tags)
                raise
            self.counts["announced"] += 1
        if self._owing:
            self._owing, self._horizon.resent_at = False, self._monotonic()
            self._changed.set()

    # -- listening

    async def _run(self) -> None:
        pause = self._link.options.retry_interval / 10
        while True:
            try:
                await self._link.up.wait()
                await self._listen()
            except (SharedStoreError, *ERRORS):
                pass
            await asyncio.sleep(pause)

    async def _listen(self) -> None:
        await self.clock.read(())  # so that a cluster's client knows where the key lives now
        listener = await self._link.listener(self.clock.key)
        tasks: list[asyncio.Task[None]] = []
        try:
            async with asyncio.timeout(self._link.options.connect_timeout):
                await listener.subscribe(self.clock.channel, self._own)
            self._listening, self._horizon.gone_at = True, None
            self.lease.suspect()
            await self._send_unsent()
            hearing = asyncio.ensure_future(self._hear(listener))
            tasks = [hearing, *map(asyncio.ensure_future, (self._beat(), self._pulse(listener)))]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            self.lease.break_off()
            # Whether the store is gone, or only out of reach, is told by the connection that listens.
            await asyncio.wait([hearing], timeout=self.lease.pulse)
            if hearing.done() and await self._nobody_there(self.lease.lasts):
                self._horizon.gone_at = self._monotonic()
            for task in done:
                task.result()
        except TimeoutError:
            raise SharedStoreError(Fault.TIMEOUT) from None
        finally:
            if self._listening:
                self._listening, self._horizon.left_at = False, self._monotonic()
            self.lease.break_off()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._beats.clear()
            self._asked.clear()
            await listener.close()

    async def _nobody_there(self, patience: float) -> bool:
        """Whether the store cannot be connected to, and says so; who is cut off hears nothing."""
        try:
            async with asyncio.timeout(patience):
                await (await self._link.listener(self.clock.key)).close()
        except (TimeoutError, SharedStoreError) as error:
            return isinstance(error, SharedStoreError) and error.fault is Fault.UNREACHABLE
        return False

    async def _hear(self, listener: Listener) -> None:
        """Take messages, in their order, until there is nothing to hear on this connection any more."""
        while (message := await listener.message()) is not None:
            if self._take(*message):
                self._hopeless = False
                self._touching.set()
            self._changed.set()

    async def _pulse(self, listener: Listener) -> None:
        """Ask, behind everything that was announced, for as long as there are answers."""
        patience = 2 * self.lease.lasts
        while not self._asked or self._monotonic() - self._asked[0] < patience:
            if len(self._asked) < _UNANSWERED:
                self._asked.append(self._monotonic())
                await listener.ping()
            await asyncio.sleep(self.lease.pulse / _PULSES)

    async def _beat(self) -> None:
        """Heartbeats until one fails."""
        while True:
            await self._send_unsent()
            nonce = secrets.token_hex(8)
            self._beats[nonce] = self._horizon.last_beat = now = self._monotonic()
            await self.clock.beat(nonce, forget_after=self._grace, now=now)
            await asyncio.sleep(self.lease.lasts / _BEATS_A_LEASE)

    def _take(self, channel: str, content: bytes) -> bool:
        """Act on a message; whether stored pages may be served because of it."""
        try:
            if channel == PONG:
                return self.lease.answered(self._asked.popleft()) if self._asked else False
            if channel != self.clock.channel:
                return self._answered(content)
            self._told(content)
        except ValueError:
            # What it said is unknown: perhaps that everything is void.
            self.counts["unreadable"] += 1
            self._drop((EVERYTHING,))
        return False

    def _told(self, content: bytes) -> None:
        epoch, generation, sealed = content.split(b" ", 2)
        told = open_announcement(self._sealer, self.clock.channel, sealed)
        if epoch == b"-":
            self.lease.forget(told.origin)
            return
        self.counts["received"] += 1
        self._advance(epoch.decode(), int(generation), 1)
        if told.origin == self.clock.process:
            if self._current is not None and told.nonce == self._current.nonce:
                self._current.answer(told.origin)
            return
        self._drop(told.tags)
        if told.nonce or told.purged:
            task = asyncio.ensure_future(self._carry_out(told))
            self._behind.add(task)
            task.add_done_callback(self._behind.discard)

    async def _carry_out(self, told: Announcement) -> None:
        """Purge what an announcement says, then say that all of it is dropped."""
        for purge in told.purges:
            if self.purge is None:
                self._drop((EVERYTHING,))
            else:
                await self.purge(purge)
        if not told.nonce:
            return
        channel = self.clock.channel_of(told.origin)
        with suppress(SharedStoreError):
            await self.clock.send(channel, self._sealed(channel, Answer(told.nonce, self.clock.process)))

    def _answered(self, content: bytes) -> bool:
        answer = open_answer(self._sealer, self._own, content)
        if answer is not None:
            if self._current is not None and answer.nonce == self._current.nonce:
                self._current.answer(answer.process)
            return False
        beat = Beat.read(content)
        sent = self._beats.pop(beat.nonce, None)
        if sent is None:
            return False
        self.clock.told(beat.at, self._monotonic())
        self._advance(beat.epoch, beat.generation, 0)
        return self.lease.met(sent, beat.ages)

    def _advance(self, epoch: str, generation: int, step: int) -> None:
        """Follow the shared clock; whoever has missed something drops everything."""
        following = None if self._seen is None else (self._seen[0], self._seen[1] + step)
        self._seen = (epoch, generation)
        if following != self._seen:
            if following is not None:
                self.counts["missed"] += 1
            self._drop((EVERYTHING,))

    def _sealed(self, channel: str, message: Announcement | Answer) -> bytes:
        return seal(self._sealer, channel, message)
