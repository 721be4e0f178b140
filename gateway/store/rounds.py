"""One announcement: what it says, who waits for it, who has answered it."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gateway.pipeline.purges import Purge


class Round:
    """An announcement under way.

    Attributes:
        nonce: of which answers speak.
        tags: what is void.
        purges: what an operator purged.
        enough: set when as many have answered as are wanted.
        done: set when nobody has to wait for it any more.
    """

    __slots__ = ("_answered", "_wanted", "done", "enough", "nonce", "purges", "tags")

    def __init__(self) -> None:
        self.nonce: Final = secrets.token_hex(8)
        self.tags: Final[set[str]] = set()
        self.purges: Final[list[Purge]] = []
        self._answered: Final[set[str]] = set()
        self._wanted: int | None = None
        self.enough: Final = asyncio.Event()
        self.done: Final = asyncio.Event()

    def answer(self, process: str) -> None:
        """A process has dropped it all."""
        self._answered.add(process)
        self._judge()

    def want(self, count: int) -> None:
        """So many are to answer."""
        self._wanted = count
        self._judge()

    def _judge(self) -> None:
        if self._wanted is not None and len(self._answered) >= self._wanted:
            self.enough.set()
