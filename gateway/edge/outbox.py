"""What is written in one round of the event loop, to clients and to controllers, sent together at its end.

The kernel wakes whoever waits for what is written, and that costs as much as writing it. Written one behind the other,
answers and requests find him awake. The law: on its connection an answer goes before anything else: whoever gives bytes
to the parser, looks at a connection or ends one, sends first what is posted. A transport that was closed meanwhile
writes nothing, and one that cannot write keeps nothing from the others.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    _Posted: TypeAlias = "tuple[Callable[[bytes], object], bytes]"


class Outbox:
    """The answers and requests of one process that have yet to be sent.

    Attributes:
        posted: how each is written, and it.
    """

    __slots__ = ("posted",)

    def __init__(self) -> None:
        self.posted: list[_Posted] = []

    def post(self, write: Callable[[bytes], object], written: bytes) -> None:
        """Send something before this round of the event loop is over.

        Args:
            write: of its connection's transport.
            written: the whole of it.
        """
        if not self.posted:
            asyncio.get_running_loop().call_soon(self.send)
        self.posted.append((write, written))

    def send(self) -> None:
        """Send everything that is posted."""
        posted, self.posted = self.posted, []
        for write, written in posted:
            try:
                write(written)
            except Exception as fault:  # noqa: BLE001 - its transport's own; whoever waits there hears of the connection's end
                asyncio.get_running_loop().call_exception_handler({"message": "could not write", "exception": fault})
