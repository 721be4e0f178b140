"""Sending answers over aiohttp: exact fields, the framing of each part of the real server, and broken on demand.

Knows sockets, not the API. What aiohttp would add on its own (Date, Server) is taken out again.
"""

from __future__ import annotations

import asyncio
import hashlib
import socket
import struct
from typing import TYPE_CHECKING, Final

from aiohttp import hdrs, web

from gateway.sandbox.call import Reply, Stack
from gateway.sandbox.faults import Break, Fault, Faults

if TYPE_CHECKING:
    from gateway.sandbox.heads import Fields

BLOCK: Final = 65_536
BARE_400: Final = b"HTTP/1.1 400 Bad Request\r\n\r\n"
"""What the real server's parser says, before it closes."""
_LENGTH_FRAMED: Final = frozenset({Stack.SINATRA, Stack.PUMA, Stack.LIMITER})
_REASONS: Final = {422: "Unprocessable Entity"}
_FRAMING: Final = (hdrs.CONNECTION, hdrs.TRANSFER_ENCODING, hdrs.CONTENT_LENGTH)
_FIELDS: Final = web.ResponseKey("fields", list)
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


async def only_our_fields(_request: web.Request, response: web.StreamResponse) -> None:
    """`on_response_prepare` signal: replace what aiohttp prepared by our fields, then the framing."""
    fields: Fields | None = response.get(_FIELDS)
    if fields is not None:
        framing = [(name, response.headers[name]) for name in _FRAMING if name in response.headers]
        response.headers.clear()
        response.headers.extend([*fields, *framing])


def _response(status: int, fields: Fields) -> web.StreamResponse:
    response = web.StreamResponse(status=status, reason=_REASONS.get(status))
    response[_FIELDS] = fields
    return response


async def send(request: web.Request, reply: Reply, fields: Fields, *, length: int | None = None) -> web.StreamResponse:
    """Send a whole answer: chunked in one chunk, or with a Content-Length, as its stack does.

    Args:
        request: Its request.
        reply: The answer; its body is not sent to HEAD.
        fields: Header fields without framing.
        length: Content-Length to claim instead of the truth; what it leaves out of the body follows all the same,
            as if it were another answer.
    """
    response = _response(reply.status, fields)
    body, stack = reply.body, reply.stack
    bodiless = request.method == hdrs.METH_HEAD or reply.status == 204
    if length is not None:
        response.content_length = length
        if length > len(body):
            response.force_close()
    elif stack in _LENGTH_FRAMED or (stack is Stack.CRASH and not body):
        response.content_length = len(body)
    elif request.version >= (1, 1) and not bodiless:
        response.enable_chunked_encoding()
    await response.prepare(request)
    if not bodiless:
        await response.write(body)
        if length is not None and length < len(body) and request.transport is not None:
            request.transport.write(body[length:])
    await response.write_eof()
    return response


async def send_broken(
    request: web.Request, reply: Reply, fields: Fields, fault: Fault, *, faults: Faults
) -> web.StreamResponse:
    """Send an answer as a fault wants it broken; `faults` releases what stalls."""
    body = reply.body
    match fault.broken:
        case None:
            return await send(request, reply, fields)
        case Break.CLOSE_BEFORE_HEAD:
            return hang_up(request)
        case Break.STALL_BEFORE_HEAD:
            await faults.stalled()
            return await send(request, reply, fields)
        case Break.WRONG_LENGTH:
            return await send(request, reply, fields, length=max(0, len(body) + fault.length_error))
        case Break.STALL_MID_BODY | Break.CLOSE_MID_BODY | Break.RESET_MID_BODY:
            response = _response(reply.status, fields)
            if reply.stack in _LENGTH_FRAMED:
                response.content_length = len(body)
            else:
                response.enable_chunked_encoding()
            await response.prepare(request)
            await response.write(body[: fault.after])
            if fault.broken is Break.STALL_MID_BODY:
                await faults.stalled()
                await response.write(body[fault.after :])
                await response.write_eof()
                return response
            await _flushed(request)
            return hang_up(request, reset=fault.broken is Break.RESET_MID_BODY, response=response)


async def _flushed(request: web.Request) -> None:
    """Wait until the kernel has taken what was written."""
    while request.transport is not None and request.transport.get_write_buffer_size():  # noqa: ASYNC110 - no event tells
        await asyncio.sleep(0)


def hang_up(
    request: web.Request, *, reset: bool = False, response: web.StreamResponse | None = None
) -> web.StreamResponse:
    """Close (or reset) the connection; aiohttp then finds it gone when it wants to finish the answer."""
    transport = request.transport
    if transport is not None:
        if reset:
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            transport.abort()
        else:
            transport.close()
    return response if response is not None else web.StreamResponse()


def send_raw(request: web.Request, raw: bytes) -> web.StreamResponse:
    """Send bytes as they are, in place of an answer, and close."""
    if request.transport is not None:
        request.transport.write(raw)
    return hang_up(request)


async def send_zeros(request: web.Request, fields: Fields, size: int) -> web.StreamResponse:
    """Stream a body of that many zero bytes with a Content-Length, in blocks, never held whole."""
    response = _response(200, fields)
    response.content_length = size
    await response.prepare(request)
    block = bytes(BLOCK)
    if request.method != hdrs.METH_HEAD:
        for start in range(0, size, BLOCK):
            await response.write(block[: min(BLOCK, size - start)])
    await response.write_eof()
    return response


async def swallow(request: web.Request) -> tuple[int, str]:
    """Read a request body to its end without keeping it: its size in bytes and its SHA-256."""
    size, digest = 0, hashlib.sha256()
    async for block in request.content.iter_chunked(BLOCK):
        size += len(block)
        digest.update(block)
    return size, digest.hexdigest()
