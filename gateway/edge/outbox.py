"""Answers of one round of the event loop, sent together at its end.

The kernel wakes whoever waits for an answer, and that costs as much as answering. Written one behind the other, answers
find him awake. The law: on its connection an answer goes before anything else: whoever gives bytes to the parser, looks
at a connection or ends one, sends first what is posted.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    _Posted: TypeAlias = "tuple[Callable[[bytes], object], bytes]"


class Outbox:
    """The answers of one process that have yet to be sent.

    Attributes:
        posted: how each is written, and it.
    """

    __slots__ = ("posted",)

    def __init__(self) -> None:
        self.posted: list[_Posted] = []

    def post(self, write: Callable[[bytes], object], answer: bytes) -> None:
        """Send an answer before this round of the event loop is over.

        Args:
            write: of its connection's transport; does not raise.
            answer: the whole of it.
        """
        if not self.posted:
            asyncio.get_running_loop().call_soon(self.send)
        self.posted.append((write, answer))

    def send(self) -> None:
        """Send everything that is posted."""
        posted, self.posted = self.posted, []
        for write, answer in posted:
            write(answer)
