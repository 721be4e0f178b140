"""How long a client may take: one slow timer looks at all connections, none has a timer of its own.

The law: nobody is hurried by what is not his fault. Time counts against a client only while the gateway waits for that
client and for nothing else: for the rest of a head, for content that a reader wants, for room to write. Time in which
the process itself could not run counts for nobody, so deadlines run on the wheel's own clock. They are never early and
late by one turn of the wheel at most.

Nothing is stamped when bytes arrive: the wheel compares what it sees with what it saw. So a request that is answered
below aiohttp costs one addition (`Watched.below`), and a connection that waits costs a look at it once a turn.
"""

from __future__ import annotations

import asyncio
import fcntl
import math
import struct
import sys
import termios
from dataclasses import dataclass
from fcntl import ioctl
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import RequestHandler

from gateway.core.errors import Reason
from gateway.edge.receive import StalledError, peer_of
from gateway.edge.refusal import Ending, plain

if TYPE_CHECKING:
    from aiohttp import web
    from aiohttp.streams import StreamReader

    from gateway.edge.crowd import Crowd
    from gateway.edge.receive import Upload

_SLOTS: Final = 64  # parts of a turn: few connections are looked at, or ended, in one go
_TICK: Final = 0.01  # at least between two looks
_TURN: Final = 1.0
_PRECISION: Final = 4  # a turn is at most this part of the shortest deadline


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long a client may take, in seconds; 0 sets no limit.

    Attributes:
        head: for a request head, from its first byte; and to begin the first one, from the connection.
        keepalive: until the next request begins.
        body_idle: without a byte of content that is waited for, in either direction.
        request: for the whole exchange.
        min_rate: bytes a second that a transfer must reach once it has taken `body_idle`.
    """

    head: float
    keepalive: float
    body_idle: float
    request: float = 0.0
    min_rate: int = 0


class Pace:
    """How a transfer gets on, counted only while the client is waited for."""

    __slots__ = ("_mark", "_moved", "_still", "_waited")

    def __init__(self, mark: int = 0) -> None:
        self._mark = mark
        self._moved = 0
        self._waited = 0.0
        self._still = 0.0

    def step(self, mark: int, seconds: float, *, waiting: bool) -> None:
        """Note how far it has come.

        Args:
            mark: bytes so far; a smaller number than before begins a new count and tells nothing.
            seconds: since the last step.
            waiting: whether the client alone holds it up.
        """
        moved, self._mark = mark - self._mark, mark
        if moved > 0:
            self._moved += moved
        self._still = 0.0 if moved > 0 or not waiting else self._still + seconds
        if waiting:
            self._waited += seconds

    def too_slow(self, deadlines: Deadlines) -> bool:
        """Whether it stands still for too long, or is slower on the whole than is allowed."""
        patience = deadlines.body_idle
        if not patience:
            return False
        if self._still >= patience:
            return True
        rate = deadlines.min_rate
        return rate > 0 and self._waited >= patience + self._moved / rate


class Wheel:
    """Looks at every connection once a turn, one slot of them at each tick.

    It turns while there is something to look at.

    Args:
        deadlines: how long clients may take.
        crowd: who is connected.

    Attributes:
        endings: how many connections were ended for each reason.
        now: seconds of its own clock.
    """

    def __init__(self, deadlines: Deadlines, crowd: Crowd) -> None:
        self.adopt(deadlines)
        self.crowd: Final = crowd
        self._slots: Final[tuple[set[Watched], ...]] = tuple(set() for _ in range(_SLOTS))
        self._swept: Final = [0.0] * _SLOTS
        self._next = 0
        self._filled = 0
        self._timer: asyncio.TimerHandle | None = None
        self._ticked = 0.0
        self.endings: Final = dict.fromkeys((ending.value for ending in Ending), 0)
        self.now = 0.0

    def __len__(self) -> int:
        return sum(map(len, self._slots))

    def adopt(self, deadlines: Deadlines) -> None:
        """Hold clients to other deadlines from the next tick on."""
        self.deadlines = deadlines
        given = (deadlines.head, deadlines.keepalive, deadlines.body_idle, deadlines.request)
        self._turn = min([_TURN, *(limit / _PRECISION for limit in given if limit > 0)])
        self._at_once = min(_SLOTS, math.ceil(_TICK * _SLOTS / self._turn))  # slots in a tick
        self._pause = self._turn * self._at_once / _SLOTS

    def add(self, connection: Watched) -> None:
        """Watch a connection from now on."""
        self._filled = (self._filled + 1) % _SLOTS
        slot = connection.slot = self._slots[self._filled]
        slot.add(connection)
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._ticked = loop.time()
            self._swept[:] = [self.now] * _SLOTS
            self._timer = loop.call_later(self._pause, self._tick, loop)

    def discard(self, connection: Watched) -> None:
        """Watch it no more."""
        connection.slot.discard(connection)

    def ended(self, ending: Ending) -> None:
        """Count a connection that was ended."""
        self.endings[ending.value] += 1

    def idle_limit(self, *, fresh: bool) -> float:
        """How long a connection may wait for a request to begin; 0 for ever, and one turn when room is wanted."""
        deadlines = self.deadlines
        limits = (deadlines.keepalive, deadlines.head if fresh else 0.0, self._turn if self.crowd.crowded else 0.0)
        return min((limit for limit in limits if limit > 0), default=0.0)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        time = loop.time()
        # A loop that was blocked has not read what clients sent meanwhile.
        self.now += min(time - self._ticked, 2 * self._pause)
        self._ticked = time
        for _ in range(self._at_once):
            slot = self._next
            self._next = (slot + 1) % _SLOTS
            seconds, self._swept[slot] = self.now - self._swept[slot], self.now
            for connection in tuple(self._slots[slot]):
                connection.look(self.now, seconds)
        self._timer = loop.call_later(self._pause, self._tick, loop) if any(self._slots) else None


class Ends(Protocol):
    """What ends a wait, as `asyncio.Timeout` does."""

    def reschedule(self, when: float | None) -> None:
        """End it at this time of the loop."""


class _NoTimer:
    """Stands where aiohttp would put a timer for idle connections of its own."""

    def cancel(self) -> None:
        pass


_SOON: Final = ("Retry-After", "1")
_NO_TIMER: Final = cast("asyncio.Handle", _NoTimer())


class Watched(RequestHandler):
    """A connection under the wheel.

    Whoever answers a request without aiohttp's parser adds one to `below`: that is what keeps the connection alive.

    Args:
        manager: the server.
        wheel: what watches it.
        max_head_bytes: the most that an unfinished head may have sent.
        options: as aiohttp has them.

    Attributes:
        below: how many requests were answered without aiohttp.
        begun_requests: how many others.
        slot: the wheel's, where it is kept.
        answering: ends the wait for an answer, while there is one.
        carried: whether a request is being answered without aiohttp.
    """

    __slots__ = (
        "_address",
        "_begun",
        "_content",
        "_counted",
        "_head_bytes",
        "_max_head_bytes",
        "_received",
        "_seen",
        "_sent",
        "_since",
        "_upload",
        "_wheel",
        "_wire",
        "answering",
        "begun_requests",
        "below",
        "carried",
        "slot",
    )

    def __init__(self, manager: web.Server, *, wheel: Wheel, max_head_bytes: int, **options: Any) -> None:
        super().__init__(manager, keepalive_timeout=0.0, **options)
        self._keepalive_handle = _NO_TIMER
        self._wheel: Final = wheel
        self._max_head_bytes: Final = max_head_bytes
        self._address: str | None = None
        self._wire: asyncio.Transport | None = None  # aiohttp forgets a transport that has yet to flush
        self._content: StreamReader = EMPTY_PAYLOAD
        self._counted = 0
        self._head_bytes = 0
        self.begun_requests = 0
        self.slot: set[Watched] = set()
        self._seen = (0, 0, False)
        self._since = wheel.now
        self._begun = wheel.now
        self._received = Pace()
        self._sent = Pace()
        self._upload: Upload | None = None
        self.below = 0
        self.answering: Ends | None = None
        self.carried = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to serve and to watch it, or turn it away."""
        wire = cast("asyncio.Transport", transport)  # uvloop's are no instances of it
        address = peer_of(wire)[0]
        turned_away = self._wheel.crowd.enter(address)
        if turned_away is not None:
            self._wheel.ended(turned_away)
            self._close, self._manager = True, None  # to aiohttp it has been lost already
            wire.write(plain(Reason.TOO_MANY_CONNECTIONS, _SOON))
            wire.close()
            return
        self._address, self._wire = address, wire
        super().connection_made(transport)
        self._wheel.add(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """It is over."""
        if self._address is not None:
            self._wheel.crowd.leave(self._address)
        self._wire = self._address = None
        self._wheel.discard(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, and note how much of an unfinished head has come."""
        content_open = not self._content.is_eof()
        super().data_received(data)
        if self._request_count != self._counted:
            self._counted = self._request_count
            request = self._current_request
            self._content = self._messages[-1][1] if self._messages else request.content if request else EMPTY_PAYLOAD
            self._head_bytes = 0
        elif content_open or self._upgraded:
            self._head_bytes = 0
        else:
            self._head_bytes += len(data)
            if self._head_bytes > self._max_head_bytes:
                self._refuse(Ending.HEAD_TOO_LARGE, Reason.FIELDS_TOO_LARGE)

    def begin(self, upload: Upload | None) -> None:
        """A request is being answered from now on; its content is None when it has none."""
        self.begun_requests += 1
        self._upload = upload

    def close_idle(self) -> None:
        """End the connection if nothing is under way on it and nothing has come that is not read yet."""
        wire = self._wire
        if wire is None or self.carried or self._waiter is None or self._waiter.done() or self._head_bytes:
            return
        if not self._messages and not wire.get_write_buffer_size() and not _unread(wire):
            self.force_close()

    def look(self, now: float, seconds: float) -> None:
        """See how far it has come, and end it when it took too long.

        Args:
            now: of the wheel's clock.
            seconds: since the last look.
        """
        wire = self._wire
        if wire is None:
            return
        deadlines, request = self._wheel.deadlines, self._current_request
        unsent = wire.get_write_buffer_size()
        seen = (self.begun_requests + self.below, self._request_count, self._head_bytes > 0)
        if seen != self._seen:
            if seen[0] != self._seen[0]:
                self._begun, self._received, self._sent = now, Pace(), Pace(-unsent)
            self._seen, self._since = seen, now
        written = request.writer.output_size if request is not None else 0
        self._sent.step(written - unsent - (_in_kernel(wire) if unsent else 0), seconds, waiting=unsent > 0)
        if unsent and self._sent.too_slow(deadlines):
            self._wheel.ended(Ending.ANSWER_STALLED)
            wire.abort()
        elif request is not None or self.carried:
            self._look_at_request(now, seconds)
        elif unsent or self._waiter is None or self._waiter.done():
            self._since = now  # an answer is on its way
        elif self._head_bytes:
            if 0 < deadlines.head <= now - self._since:
                self._refuse(Ending.HEAD_TIMEOUT, Reason.REQUEST_TIMEOUT)
        elif 0 < self._wheel.idle_limit(fresh=not self._request_count + self.below) <= now - self._since:
            self._wheel.ended(Ending.IDLE)
            self.force_close()

    def _look_at_request(self, now: float, seconds: float) -> None:
        deadlines, upload = self._wheel.deadlines, None if self.carried else self._upload
        self._since = now
        if upload is not None:
            self._received.step(upload.size, seconds, waiting=upload.waiting)
            if upload.waiting and self._received.too_slow(deadlines):
                self._wheel.ended(Ending.CONTENT_STALLED)
                upload.fail(StalledError("the request content stood still or came too slowly"))
        if 0 < deadlines.request <= now - self._begun:
            self._wheel.ended(Ending.REQUEST_TIMEOUT)
            if self.answering is not None:
                self.answering.reschedule(self._loop.time())
                self._begun = now  # so long the answer that says so may take
            elif self._wire is not None:
                self._wire.abort()

    def _refuse(self, ending: Ending, reason: Reason) -> None:
        """Answer a head that is not waited for any longer, or end the connection when another answer is under way."""
        wire = self._wire
        if wire is None or wire.is_closing():
            return
        self._wheel.ended(ending)
        if self._waiter is None or self._waiter.done():
            wire.abort()
            return
        wire.write(plain(reason))
        self.force_close()


def _in_kernel(wire: asyncio.Transport) -> int:
    """How many bytes the kernel holds that the client has not acknowledged (tcp(7), SIOCOUTQ).

    It takes megabytes at a time, so a transport's own buffer stands still for minutes while a slow client reads.
    """
    connection = wire.get_extra_info("socket")
    try:
        held = ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))
    except (AttributeError, OSError, ValueError):  # no socket, or one that has just been closed
        return 0
    return int(struct.unpack("i", held)[0])


def _unread(wire: asyncio.Transport) -> int:
    """Bytes that wait in the kernel."""
    connection = wire.get_extra_info("socket")
    try:
        return int.from_bytes(fcntl.ioctl(connection.fileno(), termios.FIONREAD, bytes(4)), sys.byteorder)
    except (OSError, AttributeError, ValueError):
        return 0
