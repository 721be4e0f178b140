"""The ordinary lane: aiohttp's low-level server, one handler, no router; and where the hit lane sits below it.

Turns what aiohttp parsed into a `RequestHead`, hands it to the pipeline, writes the reply, and records the exchange
exactly once on every path, cancellation included. Decides nothing about access or caching.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING, Final

from aiohttp import HttpVersion10, HttpVersion11, web
from multidict import CIMultiDict

from gateway.core.errors import Denial, Reason
from gateway.core.forwarding import request_id
from gateway.core.rate_fields import pairs
from gateway.edge.carry import CLOSING, TOO_LONG, Carrier
from gateway.edge.connection import Connection
from gateway.edge.deadlines import Watched
from gateway.edge.hitlane import LARGEST_BODY, HitLane
from gateway.edge.ids import RequestIds
from gateway.edge.quick_heads import QuickHeads
from gateway.edge.receive import Limits, Upload, canonical, head_of
from gateway.edge.refusal import unanswered
from gateway.edge.rendering import REQUEST_ID
from gateway.pipeline.decide import refuse
from gateway.pipeline.exchange import Exchange, Reply
from gateway.pipeline.ports import UpstreamError

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.http_parser import RawRequestMessage
    from aiohttp.streams import StreamReader
    from aiohttp.web_protocol import RequestHandler

    from gateway.edge.deadlines import Wheel
    from gateway.edge.hitlane import Begun
    from gateway.edge.outbox import Outbox
    from gateway.pipeline.decide import Outcome
    from gateway.pipeline.fulfil import Pipeline
    from gateway.pipeline.ports import Recorder

# How long the rest of an unread body is swallowed, so that the answer is not lost in a reset.
_LINGER: Final = 2.0
# Beside line and fields there are colons, spaces and line ends.
_HEAD_SLACK: Final = 4096
ADDED: Final = web.ResponseKey("added", list[str])  # fields that aiohttp adds to a response that did not have them


class Request(web.BaseRequest):
    """A request whose responses carry just the fields they were given, plus Date.

    Attributes:
        unsupported: it came in another version of HTTP than the two spoken here; it is answered in HTTP/1.1.
    """

    unsupported = False

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        for added in response.get(ADDED, ()):
            response.headers.popall(added, None)


class Server(web.Server):
    """Accepts connections and answers each request through the pipeline.

    Args:
        pipeline: answers exchanges.
        recorder: told about each exchange once, when it is over.
        clock: epoch seconds.
        strict_api: whether targets are canonicalised as the Cloud Controller reads them.
        prefix: the path of the public URL, "" for none.
        limits: what a request may measure.
        wheel: watches the connections.
        outbox: where answers are until a round of the event loop is over.
        hit_lane: whether what needs no waiting is answered below aiohttp; without it the answers are the same.

    Attributes:
        draining: whether every answer from now on is the last one of its connection.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        recorder: Recorder,
        *,
        clock: Callable[[], float],
        strict_api: bool,
        prefix: str,
        limits: Limits,
        wheel: Wheel,
        outbox: Outbox,
        hit_lane: bool = True,
    ) -> None:
        super().__init__(
            self._handle,
            request_factory=self._request,
            handler_cancellation=True,
            max_line_size=limits.max_line_bytes,
            max_field_size=limits.max_header_bytes,
            max_headers=limits.max_header_count,
            auto_decompress=False,
            access_log=None,
            lingering_time=0.0,  # `_handle` does it, together with whoever reads the content
        )
        self._pipeline: Final = pipeline
        self._recorder: Final = recorder
        self._clock: Final = clock
        self._strict_api: Final = strict_api
        self._wheel: Final = wheel
        self._ids: Final = RequestIds()
        self._outbox: Final = outbox
        lane = HitLane(pipeline, recorder, clock=clock, ids=self._ids, post=outbox.post)
        self._lane: Final = lane if hit_lane else None
        self._carrier: Final = Carrier(pipeline, recorder, clock=clock)
        self.draining = False
        self.reconfigure(prefix=prefix, limits=limits)

    def reconfigure(self, *, prefix: str, limits: Limits) -> None:
        """Serve by other settings from now on; what a head may measure, new connections.

        Args:
            prefix: the path of the public URL, "" for none.
            limits: what a request may measure.
        """
        self._prefix, self._limits = prefix, limits
        self._max_head_bytes = limits.max_line_bytes + limits.max_header_bytes + _HEAD_SLACK
        self._kwargs |= {"max_line_size": limits.max_line_bytes, "max_field_size": limits.max_header_bytes}
        self._kwargs["max_headers"] = limits.max_header_count
        if self._lane is not None:
            self._lane.adopt(QuickHeads(limits, strict_api=self._strict_api, prefix=prefix))

    def last_answers(self) -> None:
        """Let every answer from now on say that its connection closes."""
        self.draining = self._carrier.ending = True
        if self._lane is not None:
            self._lane.adopt(None)

    def cut_off(self) -> None:
        """Let what ends without an answer from now on be the gateway's doing."""
        self._carrier.cutting = True

    def __call__(self, client: str | None = None) -> RequestHandler:
        """A protocol for a new connection.

        Args:
            client: IP address of the client that a trusted peer speaks for; None for the peer itself.
        """
        connection = Connection(
            self,
            self._lane,
            self._carrier,
            self._outbox,
            wheel=self._wheel,
            max_head_bytes=self._max_head_bytes,
            loop=self._loop,
            **self._kwargs,
        )
        connection.client = client
        return connection

    def _request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        unsupported = message.version not in {HttpVersion10, HttpVersion11}
        if unsupported:
            message = message._replace(version=HttpVersion11, should_close=True)
        request = Request(message, payload, protocol, writer, task, self._loop)
        request.unsupported = unsupported
        return request

    def malformed(self) -> None:
        """Count a request that could not be parsed."""
        self._recorder.malformed()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        begun = request.protocol.begun(request) if isinstance(request.protocol, Connection) else None
        exchange = begun.exchange if begun is not None else self._exchange(request)
        received = exchange.received_at
        complete = False
        if begun is None or not begun.counted:
            self._recorder.begin()
        try:
            exchange.max_body_bytes = self._limits.max_body_bytes
            upload = Upload(request, exchange) if exchange.head.has_body else None
            if isinstance(request.protocol, Watched):
                request.protocol.begin(upload)
            reply = await self._reply(request, exchange, upload, begun)
            exchange.status = reply.status
            response = await self._deliver(request, exchange, reply, upload)
            complete = True
        finally:
            if not exchange.status:
                unanswered(exchange, cut=self._carrier.cutting)
            self._recorder.record(exchange, complete=complete, seconds=self._clock() - received)
        if upload is None:
            if isinstance(request.protocol, Connection):
                request.protocol.rest(response)
        elif not upload.finished:
            await upload.discard(_LINGER)
        return response

    def _exchange(self, request: web.BaseRequest) -> Exchange:
        head = head_of(request)
        return Exchange(head, request_id=request_id(head.fields, "") or self._ids.fresh(), received_at=self._clock())

    async def _reply(
        self, request: web.BaseRequest, exchange: Exchange, upload: Upload | None, begun: Begun | None
    ) -> Reply:
        if begun is not None:
            if isinstance(begun.outcome, Exception):
                raise begun.outcome
            return await self._answer(request, exchange, None, begun.outcome)
        if isinstance(request, Request) and request.unsupported:
            return refuse(exchange, Denial(Reason.BAD_REQUEST, "HTTP version not supported"))
        try:
            exchange.head = canonical(
                exchange.head,
                self._limits,
                strict_api=self._strict_api,
                prefix=self._prefix,
                http_1_0=request.version < HttpVersion11,
            )
        except Denial as denial:
            return refuse(exchange, denial)
        return await self._answer(request, exchange, upload)

    async def _answer(
        self, request: web.BaseRequest, exchange: Exchange, upload: Upload | None, judged: Outcome | None = None
    ) -> Reply:
        """Ask the pipeline, until the whole request has taken too long."""
        connection = request.protocol
        try:
            async with asyncio.timeout(None) as answering:  # no timer: the wheel ends it
                if isinstance(connection, Watched):
                    connection.answering = answering
                return await self._pipeline.answer(exchange, upload, judged)
        except TimeoutError:
            if not answering.expired():
                raise
            late = upload is not None and not upload.finished
            reason = Reason.REQUEST_TIMEOUT if late else Reason.UPSTREAM_TIMEOUT
            return refuse(exchange, Denial(reason, TOO_LONG))
        finally:
            if isinstance(connection, Watched):
                connection.answering = None

    async def _deliver(
        self, request: web.BaseRequest, exchange: Exchange, reply: Reply, upload: Upload | None
    ) -> web.StreamResponse:
        headers = CIMultiDict((*reply.fields.pairs, *pairs(exchange.rate_lines)))
        if REQUEST_ID not in headers:
            headers[REQUEST_ID] = exchange.request_id
        stream = None if reply.body is None or isinstance(reply.body, bytes) else reply.body
        response: web.StreamResponse
        if isinstance(reply.body, bytes):
            response = web.Response(status=reply.status, reason=reply.reason, headers=headers, body=reply.body)
        else:
            response = web.StreamResponse(status=reply.status, reason=reply.reason, headers=headers)
        response[ADDED] = [name for name in ("Server", "Content-Type") if name not in headers]
        unread = upload is not None and not upload.finished
        endless = request.version < HttpVersion11 and "Content-Length" not in response.headers
        lost = isinstance(request.protocol, Connection) and request.protocol.at_its_last
        if unread or endless or lost or self.draining or exchange.denied in CLOSING:
            # An unread body, or one without a length for HTTP/1.0, cannot share the connection with a next message,
            # and a client that writes malformed requests gets no next one.
            response.force_close()
        try:
            writer = await response.prepare(request)
            if writer is not None and isinstance(reply.body, bytes) and len(reply.body) > LARGEST_BODY:
                writer.send_headers()  # or aiohttp would make one string of head and body
            if stream is not None:
                async for chunk in stream:
                    await response.write(chunk)
            await response.write_eof()
        except UpstreamError as error:
            # The head is out: the only honest end is a broken transfer.
            exchange.detail = error.detail
            _break_off(request.transport, reset=endless)
            raise ConnectionResetError(error.detail) from error
        finally:
            if stream is not None:
                await stream.aclose()
        return response


def _break_off(transport: asyncio.Transport | None, *, reset: bool) -> None:
    """End a connection in the middle of a response.

    Args:
        transport: the client's, None when it has gone.
        reset: whether the framing is the end of the connection, so that an orderly one would look complete.
    """
    if transport is None:
        return
    connection = transport.get_extra_info("socket")
    if reset and connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
