"""The plain exchange: a request without content, written at once to a connection of the pool, its answer read there.

The law: what goes out and what comes back is what aiohttp's session would make of the same request; whatever it could
make something else of goes by the session (`plain` says which). The session looks for cookies, credentials, proxies,
redirects and defaults of its own, all of which are switched off here, and looking takes longer than sending. Pool, TLS,
names and the parser of answers are aiohttp's; of its private parts nothing is touched, but `ResponseHandler` and a
`ClientRequest` that is never sent are used as its session uses them (tests/upstream/test_exchanges.py).
"""

from __future__ import annotations

import asyncio
import math
import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

import aiohttp
from aiohttp.client_reqrep import ClientRequest
from aiohttp.helpers import TimerNoop

from gateway.core.by_name import ByName
from gateway.upstream.whole import Whole

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from ssl import SSLContext

    from aiohttp.client_proto import ResponseHandler
    from aiohttp.client_reqrep import ConnectionKey
    from aiohttp.connector import Connection
    from aiohttp.http_parser import RawResponseMessage
    from aiohttp.streams import StreamReader
    from yarl import URL

    from gateway.core.model import RequestHead
    from gateway.upstream.connections import Connector, Kept

_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})  # of which the session says nothing about content
_TARGET: Final = re.compile(r'/[!"$-~]*')
# What the session, or the connection, would read something into.
_FRAMING: Final = frozenset(
    {"connection", "content-length", "expect", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)
# One that says where, and nothing else that the session would read, make this sum.
_HOST: Final = 1
_SAYS: Final = ByName(lambda lower: _HOST if lower == "host" else 2 if lower in _FRAMING else 0)
# How answers are parsed: the deadline of a head is kept here, and nothing is decoded.
_READING: Final = {"timer": TimerNoop(), "read_until_eof": True, "auto_decompress": False}
_SWITCHING: Final = 101
Post: TypeAlias = "Callable[[Callable[[bytes], object], bytes], object]"
_AT_ONCE: Final = 1e-6  # seconds; none would be for ever


def plain(head: RequestHead) -> bytes | None:
    """A request as bytes; None when the session is to send it.

    Args:
        head: method, target and final fields of a request without content.
    """
    target = str(head.target)
    if head.method not in _METHODS or _TARGET.fullmatch(target) is None or head.target.query == "":
        return None
    pairs = head.fields.pairs
    if sum([_SAYS[name] for name, _ in pairs]) != _HOST:
        return None
    text = "".join([f"{name}: {value}\r\n" for name, value in pairs])
    if text.count("\n") != len(pairs) or text.count("\r") != len(pairs) or "\0" in text:
        return None
    try:
        return f"{head.method} {target} HTTP/1.1\r\n{text}\r\n".encode()
    except UnicodeEncodeError:
        return None


class _Asking(ClientRequest):
    """What the pool is asked with; where to is worked out but once."""

    @cached_property
    def connection_key(self) -> ConnectionKey:
        return super().connection_key


class Answer:
    """An answer whose head has arrived, and the connection that it comes by.

    Attributes:
        status: status code.
        reason: reason phrase.
        raw_headers: the fields as they came.
        content: the content as it arrives.
    """

    __slots__ = ("_connection", "content", "raw_headers", "reason", "status")

    def __init__(self, message: RawResponseMessage, content: StreamReader, connection: Connection) -> None:
        self.status: int = message.code
        self.reason: str = message.reason
        self.raw_headers: tuple[tuple[bytes, bytes], ...] = message.raw_headers
        self.content = content
        self._connection: Connection | None = connection

    def release(self) -> None:
        """Give the connection back, whose content has been read to its end."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.release()

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    __del__ = close  # one that was forgotten must not hold its place in the pool


@dataclass(frozen=True, slots=True)
class Wire:
    """Where plain requests go, and how.

    Attributes:
        connector: the pool.
        origin: scheme, host and port.
        server_name: the name that the certificate must have, None for the one in `origin`.
        timeouts: the session's, without a total.
        sizes: what answers may measure, as `ResponseHandler.set_response_params` has it.
        post: writes a request, given what writes it; before this round of the event loop is over.
    """

    connector: Connector
    origin: URL
    server_name: str | None
    timeouts: aiohttp.ClientTimeout
    sizes: Mapping[str, int]
    post: Post
    _asking: dict[tuple[str, SSLContext | None], ClientRequest] = field(default_factory=dict)
    _reading: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        """Put together how answers are parsed."""
        object.__setattr__(self, "_reading", {**_READING, **self.sizes})

    async def send(self, method: str, written: bytes, *, ssl: SSLContext | None, until: float) -> Answer | Whole:
        """Send a request, return when the head of its answer has arrived.

        Args:
            method: its method.
            written: what `plain` made of it.
            ssl: the context for new connections, or None for the system's trust.
            until: the loop's time by which the head must have arrived.

        Raises:
            aiohttp.ClientError: no head arrived; of the same kind as the session would raise.
            aiohttp.http_exceptions.HttpProcessingError: something else than a head arrived.
            TimeoutError: it took too long.
        """
        if self.connector.closed:
            raise RuntimeError("the pool is closed")
        connection = await self._connection(method, ssl, until)
        try:
            answer = await self._answer(connection, method, written, until)
        except BaseException:
            connection.close()
            raise
        if isinstance(answer, Whole):
            connection.release()
        return answer

    async def _answer(self, connection: Connection, method: str, written: bytes, until: float) -> Answer | Whole:
        protocol, transport = cast("Kept | None", connection.protocol), connection.transport
        if protocol is None or transport is None or transport.is_closing():
            raise aiohttp.ClientConnectionResetError("the connection has just been closed")
        if method == "HEAD":
            protocol.set_response_params(**self._reading, skip_payload=True)
        else:
            protocol.expect(self._reading)
        loop, patience = asyncio.get_running_loop(), self.timeouts.sock_read
        self.post(transport.write, written)
        if patience is not None:
            until = min(until, loop.time() + patience)
        timer = loop.call_at(until, _expire, protocol)
        try:
            while True:
                answer: Any = await protocol.read()
                if isinstance(answer, Whole):
                    return answer
                message, content = answer
                if not 100 <= message.code < 200 or message.code == _SWITCHING:
                    break
        finally:
            timer.cancel()
        if not content.is_eof():
            protocol.read_timeout = patience
            protocol.start_timeout()
        return Answer(message, content, connection)

    async def _connection(self, method: str, ssl: SSLContext | None, until: float) -> Connection:
        """A connection, kept or new.

        Raises:
            aiohttp.ClientError: there is none.
            TimeoutError: `until` came first.
        """
        loop, timeouts = asyncio.get_running_loop(), self.timeouts
        left = until - loop.time()
        if timeouts.connect is None or timeouts.connect > left:
            timeouts = aiohttp.ClientTimeout(connect=max(left, _AT_ONCE), ceil_threshold=math.inf)
        try:
            return await self.connector.connect(self._request(method, ssl), [], timeouts)
        except TimeoutError as error:
            if loop.time() >= until:
                raise
            raise aiohttp.ConnectionTimeoutError(f"Connection timeout to host {self.origin}") from error
        except aiohttp.ClientError:
            raise
        except OSError as error:
            raise aiohttp.ClientOSError(*error.args) from error

    def _request(self, method: str, ssl: SSLContext | None) -> ClientRequest:
        """What the pool is asked with: where to, and by which TLS."""
        asking = self._asking
        request = asking.get((method, ssl))
        if request is None:
            if len(asking) >= len(_METHODS):
                asking.clear()  # another context: certificates were read again
            request = asking[method, ssl] = _Asking(
                method,
                self.origin,
                loop=asyncio.get_running_loop(),
                ssl=True if ssl is None else ssl,
                server_hostname=self.server_name,
            )
        return request


def _expire(protocol: ResponseHandler) -> None:
    protocol.set_exception(aiohttp.SocketTimeoutError("no response head in time"))
