"""Whether the next request begins where the parser believes: what aiohttp's C parser loses, keeps, or leaves hanging.

The law: where the next request begins is certain, or the answer under way is the last of its connection.

- It throws away what comes in one piece with a request to upgrade to a protocol that it does not know (h2c), so what
  comes next would be read from the middle of a message. What comes behind an upgrade that it knows, it keeps and parses
  elsewhere.
- It keeps the last trailer field of chunked content and takes it for a field of the next request: whoever shares a
  connection, behind a load balancer, could give a field to somebody else's request.
- A fault inside of content it only queues as a next message, and whoever reads the content would wait on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from aiohttp.http_exceptions import LineTooLong
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import RequestPayloadError

from gateway.edge.deadlines import Watched
from gateway.edge.receive import TrailerError

if TYPE_CHECKING:
    from aiohttp import web
    from aiohttp.streams import StreamReader

_HEAD_END: Final = b"\r\n\r\n"
_PLAIN_END: Final = b"\r\n0\r\n\r\n"  # of chunked content without a trailer
_KEPT: Final = "websocket"  # behind this upgrade nothing is thrown away
_TOO_MANY: Final = "Too many headers"  # in an exception of no kind of its own


def too_large(fault: BaseException | None) -> bool:
    """Whether what could not be parsed had too many fields, or a line that is too long."""
    return isinstance(fault, LineTooLong) or _TOO_MANY in str(fault)


class Stepped(Watched):
    """A connection that knows when it has to end.

    Attributes:
        out_of_step: whether what the parser reads from here on cannot be relied on.
    """

    __slots__ = ("_chunks", "_chunks_of", "_end", "_ends_after", "_parsed", "out_of_step")

    def __init__(self, manager: web.Server, **options: Any) -> None:
        super().__init__(manager, **options)
        self.out_of_step = False
        self._ends_after = 0
        self._parsed = 0
        self._end = b""
        self._chunks: StreamReader | None = None
        self._chunks_of = 0

    @property
    def at_its_last(self) -> bool:
        """Whether the request that is being answered is the last that can be relied on."""
        return self.out_of_step and self.begun_requests >= self._ends_after

    def data_received(self, data: bytes) -> None:
        """Parse, end content that is faulty, and see whether the parser has kept or lost something."""
        content = self._content
        super().data_received(data)
        if self._end_faulty(content) or self.out_of_step:
            return
        width = len(_PLAIN_END)
        self._end = data[-width:] if len(data) >= width else (self._end + data)[-width:]
        fresh = self._request_count - self._parsed
        self._parsed = self._request_count
        if self._chunks is not None and self._chunks.is_eof():
            self._chunks = None
            if fresh or self._end != _PLAIN_END:
                self._lose_step(self._chunks_of)
        if fresh:
            self._look_at(fresh, data)
        if self._message_tail:
            self._lose_step(self._request_count)

    def _lose_step(self, request: int) -> None:
        """Nothing behind the request with this number is to be relied on."""
        if not self.out_of_step:
            self.out_of_step, self._ends_after = True, request

    def _end_faulty(self, content: StreamReader) -> bool:
        """End the content that was coming in when its framing turned out to be malformed; whether it did."""
        newest = self._messages[-1][0] if self._messages else None
        if newest is None or isinstance(newest, RawRequestMessage):
            return False
        if len(self._messages) > 1:
            content = self._messages[-2][1]
        if not content.is_eof():
            fault = TrailerError() if too_large(newest.exc) else RequestPayloadError("malformed content")
            content.set_exception(fault)
            content.feed_eof()
        return True

    def _look_at(self, fresh: int, data: bytes) -> None:
        for number, (message, content) in enumerate(list(self._messages)[-fresh:], 1):
            if not isinstance(message, RawRequestMessage):
                return
            request = self._request_count - fresh + number
            if message.chunked:
                if number < fresh or (content.is_eof() and self._end != _PLAIN_END):
                    self._lose_step(request)
                elif not content.is_eof():
                    self._chunks, self._chunks_of = content, request
            if message.upgrade and message.headers.get("Upgrade", "").lower() != _KEPT:
                bare = content is EMPTY_PAYLOAD and data.find(_HEAD_END) == len(data) - len(_HEAD_END)
                if not bare:
                    self._lose_step(request)
