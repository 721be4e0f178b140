"""A connection of a client: the hit lane and what it begins below aiohttp's parser, aiohttp above.

The law: answers leave in the order of their requests, and every byte is read by one reader alone; nothing goes before
an answer that is posted (`outbox.py`). What a lane answers
aiohttp never sees; what comes while a lane is still answering is held, and read by whoever would have read it then.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from aiohttp import web
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD
from multidict import CIMultiDict

from gateway.core.errors import Denial, Reason, render
from gateway.edge.boundary import Boundary
from gateway.edge.hitlane import Begun, HitLane
from gateway.edge.quick_heads import Caller
from gateway.edge.receive import peer_of
from gateway.edge.step import Stepped, too_large

if TYPE_CHECKING:
    from gateway.edge.carry import Carrier
    from gateway.edge.outbox import Outbox

# Bytes behind a request that is being answered, beyond which no more is read.
_MOST_HELD: Final = 64 * 1024


class Server(Protocol):
    """What a connection asks of its server."""

    def malformed(self) -> None:
        """Count a request that could not be parsed."""


class Connection(Stepped):
    """A connection whose parse errors are answered in the controller's error format, with a hit lane below the parser.

    Args:
        manager: the server.
        lane: answers what it can before the parser sees it; None for no lane.
        carrier: answers what the lane begins.
        outbox: where the lane's answers are until this round of the event loop is over.
        options: aiohttp's.

    Attributes:
        carrying: the task that answers what is carried.
    """

    def __init__(
        self, manager: web.Server, lane: HitLane | None, carrier: Carrier, outbox: Outbox, **options: Any
    ) -> None:
        super().__init__(manager, **options)
        self._lane: Final = lane
        self._carrier: Final = carrier
        self._outbox: Final = outbox
        self.carrying: asyncio.Task[None] | None = None
        self._held: Final[deque[bytes]] = deque()  # what came behind the request that is carried
        self._held_bytes = 0
        self._stopped = False  # no more is read, for so much is held
        self._boundary: Final = Boundary()
        self._caller: Caller | None = None
        self._handed_over: Begun | None = None
        self._rests = False  # the last answer is out and kept alive, and nothing has come since
        self.client: str | None = None

    def data_received(self, data: bytes) -> None:
        """Let the hit lane answer or begin to, else parse."""
        if self._lane is None or not data:
            super().data_received(data)
            return
        if self.carried:
            self._hold(data)
            return
        begun: Begun | bool = False
        if self._boundary.clean and self._waits():
            begun = self._take(self._lane, data)
            if begun is True:
                return
            if isinstance(begun, Begun) and begun.waits:
                self.carried = True
                self.below += 1
                self.carrying = self._loop.create_task(self._carry(begun, data))
                return
        self._parse(data, begun if isinstance(begun, Begun) else None)

    def _parse(self, data: bytes, begun: Begun | None) -> None:
        """Give a segment to aiohttp, and with it what was begun of the request that it is."""
        self._rests = False
        self._send_first()
        end = self._boundary.head_ends(data)
        before = len(self._messages)
        super().data_received(data)
        if not before and len(self._messages) == 1:
            message, content = self._messages[0]
            if isinstance(message, RawRequestMessage):
                # Not before aiohttp took it for a request, too: it has the last word.
                self._handed_over, begun = begun, None
                if end is not None and not self._upgraded:
                    self._boundary.message(len(data) - end, 0 if content is EMPTY_PAYLOAD else _length(message))
        self._carrier.lost(begun)

    async def _carry(self, begun: Begun, segment: bytes) -> None:
        """Answer a request that the lane has begun; give it to aiohttp when it turns out to be none of ours."""
        try:
            answer = await self._carrier.answer(begun, self)
        finally:
            self.carried, self.carrying = False, None
        wire = self.transport
        if isinstance(answer, Begun):
            self.below -= 1
            self._parse(segment, answer)
        else:
            goes = wire is not None and not wire.is_closing()
            if wire is not None and goes:
                self._outbox.post(wire.write, answer)
            self._carrier.answered(begun, complete=goes)
        while self._held and not self.carried:
            self._send_first()  # or nobody would see that the client does not read
            data = self._held.popleft()
            self._held_bytes -= len(data)
            self.data_received(data)
        if self._stopped and not self.carried and not (self._reading_paused or self._buffer_paused):
            self._stopped = False
            if self.transport is not None:
                self.transport.resume_reading()

    def _hold(self, data: bytes) -> None:
        """Keep what came behind a request that is carried; aiohttp, too, parses ahead and answers in order."""
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > _MOST_HELD and not self._stopped and self.transport is not None:
            self._stopped = True
            self.transport.pause_reading()

    def connection_lost(self, exc: BaseException | None) -> None:
        """It is over, and with it whatever is under way."""
        if self.carrying is not None:
            self.carrying.cancel()
        self._held.clear()
        begun, self._handed_over = self._handed_over, None
        super().connection_lost(exc)
        self._carrier.lost(begun)

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109 - aiohttp's signature
        """Wait so long for what is under way, then end it."""
        self._send_first()
        carrying = self.carrying
        if carrying is not None:
            await asyncio.wait([carrying], timeout=timeout)
            carrying.cancel()
            await asyncio.gather(carrying, return_exceptions=True)
        await super().shutdown(timeout)

    def _send_first(self) -> None:
        if self._outbox.posted:
            self._outbox.send()

    def look(self, now: float, seconds: float) -> None:
        """See how far it has come, as `Watched`."""
        self._send_first()
        super().look(now, seconds)

    def close_idle(self) -> None:
        """End it if nothing is under way on it, as `Watched`."""
        self._send_first()
        super().close_idle()

    def eof_received(self) -> None:
        """The client sends nothing more; the transport is closed behind this."""
        self._send_first()
        super().eof_received()

    def close(self) -> None:
        """End it behind the answer under way."""
        self._send_first()
        super().close()

    def force_close(self) -> None:
        """End it now."""
        self._send_first()
        super().force_close()

    def _waits(self) -> bool:
        """Whether aiohttp waits for a request, and for nothing else: the connection is idle and goes on."""
        waiter, transport = self._waiter, self.transport
        if not self._rests if waiter is None else waiter.done():
            return False
        if self.carried or self._messages or self._close or self._force_close or self._paused:
            return False
        if self.out_of_step:
            return False
        return transport is not None and not transport.is_closing()

    def rest(self, response: web.StreamResponse) -> None:
        """A request without content has its whole answer: aiohttp will wait for the next one, if not just yet."""
        self._rests = response.keep_alive is True and not self._messages and not self._upgraded

    def _take(self, lane: HitLane, data: bytes) -> Begun | bool:
        """Let the lane answer a segment; as after any answer, the wait for the next request begins anew."""
        transport = self.transport
        if transport is None:
            return False
        caller = self._caller
        if caller is None:
            caller = self._caller = Caller(*peer_of(transport))
        taken = lane.take(data, caller, transport.write)
        if taken is True:
            self.below += 1
        return taken

    def begun(self, request: web.BaseRequest) -> Begun | None:
        """What the hit lane has begun of this request, once."""
        begun, self._handed_over = self._handed_over, None
        if begun is not None and begun.exchange.head.method != request.method:
            raise RuntimeError("the exchange that the hit lane began is another request's")
        return begun

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - aiohttp's signature; the text is aiohttp's, not the controller's
    ) -> web.StreamResponse:
        """Answer what could not be parsed, or a fault of ours; the connection closes after it."""
        if request.writer.output_size > 0:
            raise ConnectionError("the response had begun")
        if status >= 500:
            self.logger.error("unhandled fault", exc_info=exc)
        elif self._manager is not None:
            cast("Server", self._manager).malformed()
        unread = Reason.FIELDS_TOO_LARGE if too_large(exc) else Reason.BAD_REQUEST
        reason = Reason.INTERNAL if status >= 500 else unread
        code, fields, body = render(Denial(reason), "/v3")
        response = web.Response(status=code, headers=CIMultiDict(fields.pairs), body=body)
        response.force_close()
        return response


def _length(message: RawRequestMessage) -> int | None:
    """Bytes of a request's content as its head announces them; None when only its parser will know."""
    return None if message.chunked else int(message.headers.get("Content-Length", "0"))
