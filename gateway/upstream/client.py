"""Sends requests to the controller and maps every failure once, here, to `UpstreamError`.

Forwards what it is given: fields, target and body are decided elsewhere. Redirects are not followed, cookies not kept,
nothing is decompressed, no proxy is taken from the environment. Nothing is sent twice: whether a request may be sent
again is decided in `balancer.py`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from multidict import CIMultiDict
from yarl import URL

from gateway.core.model import Fields, RequestHead, ResponseHead
from gateway.pipeline.ports import ContentError, UpstreamError
from gateway.upstream.bare import Answer, Post, Wire, plain
from gateway.upstream.connections import Connector, HeadTooLargeError, LostError
from gateway.upstream.whole import Whole

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from gateway.upstream.tls import ClientTls

_AUTOMATIC: Final = ("Accept", "Accept-Encoding", "User-Agent", "Content-Type")
_CHUNK: Final = 256 * 1024
_BODILESS: Final = frozenset({204, 304})
_LENGTH: Final = b"content-length"
_LONG_NAME: Final = 64


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Deadlines in seconds.

    Attributes:
        connect: to get a connection, queueing included.
        head: from the last byte of the request that moved to the response head.
        idle: between two reads of a response body.
        total: for the whole exchange, body included; 0 for no limit.
    """

    connect: float
    head: float
    idle: float
    total: float = 0.0


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a response may measure, in bytes.

    Attributes:
        head: its status line and fields together.
        body: its content; None for any size.
    """

    head: int = 128 * 1024
    body: int | None = None


class LostRequestError(UpstreamError):
    """A kept connection ended before a byte of the answer came: the controller had closed it."""

    def __init__(self) -> None:
        super().__init__("broken", "the connection had been closed by the controller")


class Response:
    """A response whose head has arrived.

    Args:
        response: of the plain exchange, or the client library's.
        limit: bytes its content may have, None for any number.

    Attributes:
        head: status and fields.
        fault: how its content failed, None when it has not.
    """

    __slots__ = ("_limit", "_response", "fault", "head")

    def __init__(self, response: Answer | aiohttp.ClientResponse, limit: int | None = None) -> None:
        self._response = response
        self._limit = limit
        self.fault: UpstreamError | None = None
        fields = Fields(
            [(_name(name), value.decode("utf-8", "surrogateescape")) for name, value in response.raw_headers]
        )
        self.head = ResponseHead(response.status, fields, response.reason)

    def in_hand(self) -> bytes | None:
        """The whole body, when it has arrived already and nothing of it was taken; `chunks` has nothing then.

        Raises:
            UpstreamError: it is larger than allowed.
        """
        content = self._response.content
        if not content.is_eof() or content.exception() is not None:
            return None
        body = content.read_nowait()
        if self._limit is not None and len(body) > self._limit:
            raise self._too_large()
        return body

    def _too_large(self) -> UpstreamError:
        return UpstreamError("body-too-large", f"the response body has more than {self._limit} bytes")

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives.

        Raises:
            UpstreamError: the transfer broke or stalled before its end.
        """
        content = self._response.content
        left = self._limit
        try:
            while chunk := await content.readany():
                if left is not None:
                    left -= len(chunk)
                    if left < 0:
                        raise self._too_large()
                yield chunk
            # A reader that a chunk's end had woken already is not told of a fault behind it.
            if (fault := content.exception()) is not None:
                raise fault
        except TimeoutError as error:
            self.fault = UpstreamError("timeout", "the response body stalled")
            raise self.fault from error
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            self.fault = UpstreamError("broken", f"the response body broke off: {type(error).__name__}")
            raise self.fault from error

    async def release(self) -> None:
        """Give the connection back, or close it when a body was not read or sent to its end."""
        response = self._response
        if response.content.at_eof() and response.content.exception() is None:
            response.release()
        else:
            response.close()
        if isinstance(response, aiohttp.ClientResponse):
            await response.wait_for_close()  # until nobody reads the client's content any more


def _at_once(write: Callable[[bytes], object], written: bytes) -> None:
    write(written)


class _Upload:
    """A request body that is sent once, with the head deadline moving along with its progress.

    Args:
        source: the client's content.
        deadline: ends the wait for the response head.
        patience: seconds the controller may take to accept a piece, and to answer after the last one.
    """

    def __init__(self, source: AsyncIterator[bytes], deadline: asyncio.Timeout, patience: float) -> None:
        self._source = source
        self._deadline = deadline
        self._patience = patience
        self.answered = False
        self.fault: ContentError | None = None

    async def pieces(self) -> AsyncIterator[bytes]:
        """The content; the clock stands still while the client is the one to wait for."""
        clock = asyncio.get_running_loop().time
        while True:
            self._move(None)
            try:
                chunk = await anext(self._source, None)
            except ContentError as error:
                self.fault = error
                raise
            self._move(clock() + self._patience)
            if chunk is None:
                return
            yield chunk

    def _move(self, when: float | None) -> None:
        if not self.answered:
            self._deadline.reschedule(when)


class Client:
    """The controller behind one base URL.

    Args:
        url: base URL of the controller, without a path.
        timeouts: deadlines.
        connections: the most connections open at once.
        sizes: what responses may measure.
        server_name: the name that its certificate must have, None for the one in `url`.
        tls: gives new connections their context; None for the system's trust and no certificate of ours.
        post: writes plain requests (`Wire.post`); None for at once.
    """

    def __init__(
        self,
        url: str,
        *,
        timeouts: Timeouts,
        connections: int,
        sizes: Sizes | None = None,
        server_name: str | None = None,
        tls: ClientTls | None = None,
        post: Post | None = None,
    ) -> None:
        self._base: Final = url.rstrip("/")
        self._timeouts: Final = timeouts
        self._connections: Final = connections
        self._sizes: Final = sizes or Sizes()
        self._server_name: Final = server_name
        self._tls: Final = tls
        self._post: Final = post or _at_once
        self._connector: Connector | None = None
        self._session: aiohttp.ClientSession | None = None
        self._wire: Wire | None = None

    async def start(self) -> None:
        """Open the pool."""
        largest = self._sizes.head
        sizes = ("max_line_size", "max_field_size", "max_headers")
        reading: dict[str, Any] = {"read_bufsize": _CHUNK, **dict.fromkeys(sizes, largest)}
        timeouts = aiohttp.ClientTimeout(
            total=self._timeouts.total or None,
            connect=self._timeouts.connect,
            sock_read=max(self._timeouts.idle, self._timeouts.head),
        )
        self._connector = connector = Connector(self._connections, asyncio.get_running_loop(), largest)
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=timeouts,
            auto_decompress=False,
            trust_env=False,
            skip_auto_headers=_AUTOMATIC,
            **reading,
        )
        self._session._retry_connection = False  # noqa: SLF001 - aiohttp would send PUT and DELETE twice by itself
        if not self._timeouts.total:
            self._wire = Wire(connector, URL(self._base), self._server_name, timeouts, reading, self._post)

    async def stop(self) -> None:
        """Close the pool and every connection in it."""
        if self._session is not None:
            await self._session.close()

    def distrust(self) -> None:
        """Open a new connection for each request until the ones that are open now are gone."""
        if self._connector is not None:
            self._connector.distrust()

    async def send(
        self, head: RequestHead, body: AsyncIterator[bytes] | None, *, deadline: float | None = None
    ) -> Response | Whole:
        """Send a request as it is, stream its body, return when the response head has arrived.

        Args:
            head: method, target and final fields.
            body: the request content, or None.
            deadline: the loop's time by which a request without content must have its response head; by default
                `connect` and `head` from now.

        Raises:
            UpstreamError: no head arrived.
            ContentError: the client's content was at fault.
        """
        if self._session is None:
            raise UpstreamError("unreachable", "the client is not started", sent=False)
        until = asyncio.get_running_loop().time() + self._timeouts.connect + self._timeouts.head
        if body is None and deadline is not None:
            until = min(until, deadline)
        written = None if body is not None or self._wire is None else plain(head)
        try:
            if written is None or self._wire is None:
                return self._measured(head.method, await self._request(self._session, head, body, until))
            ssl = None if self._tls is None else self._tls.context
            return self._measured(head.method, await self._wire.send(head.method, written, ssl=ssl, until=until))
        except (aiohttp.ClientError, HttpProcessingError, OSError, ValueError) as error:
            raise _mapped(error) from error

    async def _request(
        self, session: aiohttp.ClientSession, head: RequestHead, body: AsyncIterator[bytes] | None, until: float
    ) -> aiohttp.ClientResponse:
        """Send any request by the session."""
        upload: _Upload | None = None
        try:
            async with asyncio.timeout_at(until) as timeout:
                upload = None if body is None else _Upload(body, timeout, self._timeouts.head)
                response = await session.request(
                    head.method,
                    URL(f"{self._base}{head.target}", encoded=True),
                    headers=CIMultiDict(head.fields.pairs),
                    data=None if upload is None else upload.pieces(),
                    allow_redirects=False,
                    server_hostname=self._server_name,
                    ssl=True if self._tls is None else self._tls.context,
                )
        except (aiohttp.ClientError, OSError, ValueError):
            if upload is not None and upload.fault is not None:
                raise upload.fault from None
            raise
        if upload is not None:
            upload.answered = True
        return response

    def _measured(self, method: str, response: Answer | Whole | aiohttp.ClientResponse) -> Response | Whole:
        """The response, unless it says itself that it is too large."""
        limit, largest = self._sizes.body, self._sizes.head
        if isinstance(response, Whole):
            if limit is not None and (length := len(response)) > limit:
                raise UpstreamError("body-too-large", f"the response body has {length} bytes, more than {limit}")
            return response
        if sum([len(name) + len(value) + 4 for name, value in response.raw_headers]) > largest:
            response.close()
            raise UpstreamError("head-too-large", f"the response head has more than {largest} bytes")
        if limit is not None and method != "HEAD" and response.status not in _BODILESS:
            length = max((int(value) for name, value in response.raw_headers if name.lower() == _LENGTH), default=0)
            if length > limit:
                response.close()
                raise UpstreamError("body-too-large", f"the response body has {length} bytes, more than {limit}")
        return Response(response, limit)


def _name(raw: bytes) -> str:
    """A field name as text; the usual ones are decoded once."""
    return _decoded(raw) if len(raw) <= _LONG_NAME else raw.decode("utf-8", "surrogateescape")


@lru_cache(maxsize=512)
def _decoded(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _mapped(error: Exception) -> UpstreamError:
    """The client library's failure as ours."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return UpstreamError("timeout", "no connection in time", sent=False)
    if isinstance(error, aiohttp.ClientConnectorError):
        return UpstreamError("unreachable", f"connection failed: {error.os_error}", sent=False)
    if isinstance(error, TimeoutError):
        return UpstreamError("timeout", "no response head in time")
    if isinstance(error, LostError):
        return LostRequestError()
    if _is_too_large(error):
        return UpstreamError("head-too-large", "the response head is too large")
    return UpstreamError("broken", f"no usable response head: {type(error).__name__}")


def _is_too_large(error: BaseException | None) -> bool:
    """Whether a failure comes of a response head that is too large, however deep the client library hides it."""
    while error is not None:
        if isinstance(error, (HeadTooLargeError, LineTooLong)):
            return True
        error = error.__cause__
    return False
