"""An answer as it is written down, for those who keep answers and do not know how to write (`edge/rendering.py`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.pipeline.exchange import Reply


class Pen(Protocol):
    """Who wrote an answer down, and can write the end of its head again."""

    def end(self, length: int, now: float, *, dated: bool) -> bytes:
        """What stands behind the rate-limit fields and the id.

        Args:
            length: of the content, in bytes; less than 0 when it is not said there.
            now: epoch seconds.
            dated: whether the date is written.
        """


class Words:
    """An answer written down, less what is another for each: the rate-limit fields and the id stand between the halves.

    The bytes that many answers have in common are one object for all of them.

    Args:
        before: status line and the first fields.
        own: the fields behind them, up to `middle`.
        after: the fields behind the id, and the end of the head.
        names: whether the id is to be written; if not, the page has one of its own.
        length: of the content, as `Pen.end` takes it.
        dated: whether the date stands in `after`.
        pen: who wrote it; None for nobody.

    Attributes:
        middle: fields that change from second to second, where they were told apart,
        rest: and those behind them.
    """

    __slots__ = ("after", "before", "dated", "length", "middle", "names", "own", "pen", "rest")

    def __init__(
        self,
        before: bytes,
        own: bytes,
        after: bytes,
        *,
        names: bool,
        length: int = -1,
        dated: bool = False,
        pen: Pen | None = None,
    ) -> None:
        self.before: Final = before
        self.own = own
        self.middle = self.rest = b""
        self.after = after
        self.names: Final = names
        self.length: Final = length
        self.dated: Final = dated
        self.pen: Final = pen


NO_WORDS: Final = Words(b"", b"", b"", names=False)

# Writes a reply down, for a method and an instant in epoch seconds; None when it cannot.
Word: TypeAlias = "Callable[[Reply, str, float], Words | None]"
