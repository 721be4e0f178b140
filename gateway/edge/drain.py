"""Ends the connections of a server that accepts nobody any more, without failing what is under way on them.

Not aiohttp's own way: that stops reading what is still to come of an upload, and closes idle connections at once, when
a request may be on its way. Here every answer says that its connection closes, and idle ones get a while to ask.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from gateway.edge.deadlines import Watched

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.edge.server import Server

_LOOK: Final = 0.02  # seconds between two looks at what is still open
_CUT: Final = 0.1  # seconds that a request has to end once it is cut off


async def drain(server: Server, *, grace: float, linger: float, hurried: Callable[[], bool] = lambda: False) -> int:
    """Finish what is under way and end all connections.

    Args:
        server: whose connections.
        grace: seconds until whatever is left is cut off.
        linger: seconds that idle connections have to bring a request, whose answer then says `Connection: close`.
        hurried: whether to cut off at once.

    Returns:
        How many connections were cut off.
    """
    server.last_answers()
    clock = asyncio.get_running_loop().time
    begun = clock()
    while server.connections and not hurried() and (passed := clock() - begun) < grace:
        if passed >= linger:
            for connection in server.connections:
                if isinstance(connection, Watched):
                    connection.close_idle()
        await asyncio.sleep(_LOOK)
    left = len(server.connections)
    server.cut_off()
    await server.shutdown(_CUT)
    return left
