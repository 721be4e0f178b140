"""A server that does nothing: the floor of rates and latencies. It answers whatever comes, each time the same.

What it measures is the load generator, the event loop and the machine; nobody on uvloop can be quicker. Argument: port.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop

_BODY = b"x" * 1200
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%b" % (len(_BODY), _BODY)


class Nothing(asyncio.Protocol):
    """A connection; a segment is taken for a request."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(_ANSWER)


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Nothing, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
