"""Sends requests to the controller and maps every failure once, here, to `UpstreamError`.

Forwards what it is given: fields, target and body are decided elsewhere. Redirects are not followed, cookies not kept,
nothing is decompressed, no proxy is taken from the environment.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from gateway.core.model import Fields, RequestHead, ResponseHead
from gateway.pipeline.ports import ContentError, UpstreamError
from gateway.upstream.connections import Connector

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp.client_middlewares import ClientHandlerType

_AUTOMATIC: Final = ("Accept", "Accept-Encoding", "User-Agent", "Content-Type")
_CHUNK: Final = 256 * 1024
_FIELD_LIMIT: Final = 128 * 1024


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


class Response:
    """A response whose head has arrived."""

    __slots__ = ("_response", "head")

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        fields = Fields(
            (name.decode("utf-8", "surrogateescape"), value.decode("utf-8", "surrogateescape"))
            for name, value in response.raw_headers
        )
        self.head = ResponseHead(response.status, fields, response.reason)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives.

        Raises:
            UpstreamError: the transfer broke or stalled before its end.
        """
        content = self._response.content
        try:
            while chunk := await content.readany():
                yield chunk
            # A reader that a chunk's end had woken already is not told of a fault behind it.
            if (fault := content.exception()) is not None:
                raise fault
        except TimeoutError as error:
            raise UpstreamError("timeout", "the response body stalled") from error
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            raise UpstreamError("broken", f"the response body broke off: {type(error).__name__}") from error

    async def release(self) -> None:
        """Give the connection back, or close it when a body was not read or sent to its end."""
        content = self._response.content
        if content.at_eof() and content.exception() is None:
            await self._response.release()
        else:
            self._response.close()
        await self._response.wait_for_close()  # until nobody reads the client's content any more


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
        self._started = False
        self.answered = False
        self.fault: ContentError | None = None

    async def pieces(self) -> AsyncIterator[bytes]:
        """The content; the clock stands still while the client is the one to wait for."""
        self._started = True
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

    async def once(self, request: aiohttp.ClientRequest, handler: ClientHandlerType) -> aiohttp.ClientResponse:
        """A client middleware: aiohttp's own retry must not send what is left of a body it began to send."""
        if self._started:
            raise UpstreamError("broken", "the connection was lost while the request body was being sent")
        return await handler(request)


class Client:
    """The controller behind one base URL.

    Args:
        url: base URL of the controller, without a path.
        timeouts: deadlines.
        connections: the most connections open at once.
    """

    def __init__(self, url: str, *, timeouts: Timeouts, connections: int) -> None:
        self._base: Final = url.rstrip("/")
        self._timeouts: Final = timeouts
        self._connections: Final = connections
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Open the pool."""
        self._session = aiohttp.ClientSession(
            connector=Connector(self._connections, asyncio.get_running_loop()),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(
                total=self._timeouts.total or None,
                connect=self._timeouts.connect,
                sock_read=max(self._timeouts.idle, self._timeouts.head),
            ),
            auto_decompress=False,
            trust_env=False,
            skip_auto_headers=_AUTOMATIC,
            read_bufsize=_CHUNK,
            max_line_size=_FIELD_LIMIT,
            max_field_size=_FIELD_LIMIT,
        )

    async def stop(self) -> None:
        """Close the pool and every connection in it."""
        if self._session is not None:
            await self._session.close()

    async def send(self, head: RequestHead, body: AsyncIterator[bytes] | None) -> Response:
        """Send a request as it is, stream its body, return when the response head has arrived.

        Args:
            head: method, target and final fields.
            body: the request content, or None.

        Raises:
            UpstreamError: no head arrived.
            ContentError: the client's content was at fault.
        """
        if self._session is None:
            raise UpstreamError("unreachable", "the client is not started", sent=False)
        upload: _Upload | None = None
        try:
            async with _mapped(), asyncio.timeout(self._timeouts.connect + self._timeouts.head) as deadline:
                upload = None if body is None else _Upload(body, deadline, self._timeouts.head)
                response = await self._session.request(
                    head.method,
                    URL(f"{self._base}{head.target}", encoded=True),
                    headers=CIMultiDict(head.fields.pairs),
                    data=None if upload is None else upload.pieces(),
                    allow_redirects=False,
                    middlewares=() if upload is None else (upload.once,),
                )
        except UpstreamError:
            if upload is not None and upload.fault is not None:
                raise upload.fault from None
            raise
        if upload is not None:
            upload.answered = True
        return Response(response)


@asynccontextmanager
async def _mapped() -> AsyncIterator[None]:
    """Turn the client library's failures into UpstreamError."""
    try:
        yield
    except aiohttp.ConnectionTimeoutError as error:
        raise UpstreamError("timeout", "no connection in time", sent=False) from error
    except aiohttp.ClientConnectorError as error:
        raise UpstreamError("unreachable", f"connection failed: {error.os_error}", sent=False) from error
    except TimeoutError as error:
        raise UpstreamError("timeout", "no response head in time") from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise UpstreamError("broken", f"no usable response head: {type(error).__name__}") from error
