"""Reads a PROXY header off a socket before anything else does, and not a byte more.

Bytes are looked at where they are, in the kernel, and taken once they are known to be the header's: whoever serves the
connection then, TLS or HTTP, finds it as if it had just begun.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final

from gateway.core.proxy_protocol import LARGEST, Header, ProxyError, parse

PATIENCE: Final = 5.0  # seconds for a header to come
_MEANWHILE: Final = 0.01  # where the kernel cannot tell when there is enough (unix sockets)


class NoHeaderError(Exception):
    """The connection does not begin with a header."""


async def read_header(
    loop: asyncio.AbstractEventLoop, accepted: socket.socket, patience: float = PATIENCE
) -> str | None:
    """Take a header off a connection.

    Args:
        loop: the event loop.
        accepted: the connection, not blocking; nothing else reads it.
        patience: seconds.

    Returns:
        The client's address, None when the header names none.

    Raises:
        NoHeaderError: there is none; nothing was taken.
        ProxyError: it is malformed.
        OSError: the connection broke or ended.
        TimeoutError: it did not come in time.
    """
    enough, seen = 1, 0
    async with asyncio.timeout(patience):
        while True:
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, enough)
            await _readable(loop, accepted)
            data = accepted.recv(LARGEST, socket.MSG_PEEK)
            if not data:
                raise ConnectionResetError("it ended before it began")
            found = parse(data)
            if found is None or isinstance(found, Header):
                break
            if len(data) == seen:
                await asyncio.sleep(_MEANWHILE)
            enough, seen = found, len(data)
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
    if found is None:
        raise NoHeaderError
    if len(accepted.recv(found.length)) != found.length:
        raise ProxyError("the header went away")
    return found.source


async def _readable(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> None:
    ready: asyncio.Future[None] = loop.create_future()
    number = connection.fileno()
    loop.add_reader(number, _wake, ready)
    try:
        await ready
    finally:
        loop.remove_reader(number)


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
