"""Connections to the controller: a bounded pool that tells what it is safe to send again, and what is too much.

Three things aiohttp does not say. A kept connection that ends before a byte of the answer is `LostError`: the
controller had closed it. A response head beyond its limit is `HeadTooLargeError`. And a fault in content ends what is
being read: aiohttp's C parser forgets the content it was feeding when it meets one (a bad chunk), and its timeout, so
whoever reads would wait for ever. The first segment of an answer is read by `whole.py` where that may be; a parser is
made for those alone where it may not. Knows nothing of requests but their method.
"""

from __future__ import annotations

import select
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from aiohttp.client_proto import ResponseHandler

from gateway.core.retry import IDEMPOTENT
from gateway.upstream.whole import read

if TYPE_CHECKING:
    import asyncio

    from aiohttp.client import ClientTimeout
    from aiohttp.client_reqrep import ClientRequest
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

# The controller closes idle connections after 20 s (controller.md §4): ours are gone before.
_IDLE: Final = 15.0
_NAMES_KEPT: Final = 30


class LostError(aiohttp.ServerDisconnectedError):
    """A connection that had served before ended before a byte of this answer came."""


class HeadTooLargeError(aiohttp.ClientError):
    """The head of a response is larger than allowed."""


class Kept(ResponseHandler):
    """A connection of the pool.

    Args:
        loop: the running event loop.
        max_head: bytes a response head may have.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, max_head: int) -> None:
        super().__init__(loop)
        self._max_head: Final = max_head
        self._heading = True  # the head of the current response is not complete
        self._received = 0  # bytes of it so far
        self._reading: dict[str, Any] | None = None  # how to parse an answer of which nothing has come yet
        self.requests = 0
        self.opened_at: Final = loop.time()

    def set_response_params(self, **given: Any) -> None:
        """A request is about to be sent."""
        self.requests += 1
        self._heading, self._received, self._reading = True, 0, None
        super().set_response_params(**given)

    def expect(self, reading: dict[str, Any]) -> None:
        """A request other than HEAD is about to be sent; `read` gives a `Whole` if its answer comes as one.

        Args:
            reading: how any other answer is to be parsed, as `set_response_params` has it.
        """
        if self.should_close:  # something has come already, which only aiohttp's parser can make sense of
            self.set_response_params(**reading)
            return
        self.requests += 1
        self._heading, self._received, self._reading = True, 0, reading

    def feed_data(self, data: Any, size: int = 0) -> None:
        """The parser has a response head."""
        self._heading = False
        super().feed_data(data, size)

    def data_received(self, data: bytes) -> None:
        """Read or parse; pass a fault on to the content it was found in."""
        reading = self._reading
        if reading is not None:
            self._reading = None
            answer = read(data, self._max_head)
            if answer is not None:
                self._received = len(data)
                self.feed_data(answer)
                return
            super().set_response_params(**reading)
        content = self._payload
        if self._heading:
            self._received += len(data)
        super().data_received(data)
        if self._heading and self._received > self._max_head:
            self.set_exception(HeadTooLargeError(f"more than {self._max_head} bytes"))
        if self.exception() is not None and isinstance(content, aiohttp.StreamReader) and not content.is_eof():
            content.set_exception(aiohttp.ClientPayloadError("malformed content"))
            content.feed_eof()

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        """Something is wrong with the connection."""
        if isinstance(exc, (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)) and self.is_lost:
            exc = LostError()
        super().set_exception(exc, *cause)

    @property
    def is_lost(self) -> bool:
        """Whether its end now would be the controller's doing before it saw the request, as far as can be told."""
        return self.requests > 1 and not self._received

    def readable(self) -> bool:
        """Whether there is something to read, which between two requests can only be the end, or garbage."""
        connection = None if self.transport is None else self.transport.get_extra_info("socket")
        if connection is None:
            return True
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN)
        return bool(poll.poll(0))


class Connector(aiohttp.TCPConnector):
    """A bounded pool of such connections.

    Args:
        limit: the most connections open at once.
        loop: the running event loop.
        max_head: bytes a response head may have.
    """

    def __init__(self, limit: int, loop: asyncio.AbstractEventLoop, max_head: int) -> None:
        super().__init__(limit=limit, keepalive_timeout=_IDLE, ttl_dns_cache=_NAMES_KEPT)
        self._factory = partial(_connection, loop, max_head)
        self._trusted_from = float("-inf")

    def distrust(self) -> None:
        """Use no kept connection again that is open now: one of them was lost, so others may be."""
        self._trusted_from = self._loop.time()

    async def connect(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: ClientTimeout,  # noqa: ASYNC109 - the client library's signature
    ) -> Connection:
        """A connection, kept or new.

        A request that must not be sent twice gets no kept one that the controller has closed already. One by which
        something came that nobody had asked for is used for no request: it would pass for the answer.
        """
        while True:
            connection = await super().connect(req, traces, timeout)
            kept = connection.protocol
            if not isinstance(kept, Kept) or not kept.requests:
                return connection
            trusted = kept.opened_at >= self._trusted_from and not kept.should_close
            if trusted and (req.method in IDEMPOTENT or not kept.readable()):
                return connection
            connection.close()


def _connection(loop: asyncio.AbstractEventLoop, max_head: int) -> ResponseHandler:
    return Kept(loop, max_head)
