"""Connections to the controller that end what they carry when its framing breaks.

aiohttp's C parser forgets the content it was feeding when it meets a fault in it (a bad chunk), and its timeout:
whoever reads would wait for ever. Knows nothing of requests.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import aiohttp
from aiohttp.client_proto import ResponseHandler

if TYPE_CHECKING:
    import asyncio

# The controller closes idle connections after 20 s (controller.md §4): ours are gone before.
_IDLE: Final = 15.0
_NAMES_KEPT: Final = 30


class _Connection(ResponseHandler):
    """A connection whose broken content is an error to its reader at once."""

    def data_received(self, data: bytes) -> None:
        """Parse; pass a fault on to the content it was found in."""
        content = self._payload
        super().data_received(data)
        if self.exception() is not None and isinstance(content, aiohttp.StreamReader) and not content.is_eof():
            content.set_exception(aiohttp.ClientPayloadError("malformed content"))
            content.feed_eof()


class Connector(aiohttp.TCPConnector):
    """A bounded pool of such connections.

    Args:
        limit: the most connections open at once.
        loop: the running event loop.
    """

    def __init__(self, limit: int, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limit=limit, keepalive_timeout=_IDLE, ttl_dns_cache=_NAMES_KEPT)
        self._factory = partial(_connection, loop=loop)


def _connection(loop: asyncio.AbstractEventLoop) -> ResponseHandler:
    return _Connection(loop)
