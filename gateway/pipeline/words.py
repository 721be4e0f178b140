"""An answer as it is written down, for those who keep answers and do not know how to write (`edge/rendering.py`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.pipeline.exchange import Reply


class Words:
    """An answer written down, less what is another for each: the rate-limit fields and the id stand between the halves.

    Args:
        before: status line and fields.
        after: the fields behind them, and the end of the head.
        names: whether the id is to be written; if not, the page has one of its own.
    """

    __slots__ = ("after", "before", "names")

    def __init__(self, before: bytes, after: bytes, *, names: bool) -> None:
        self.before: Final = before
        self.after: Final = after
        self.names: Final = names


NO_WORDS: Final = Words(b"", b"", names=False)

# Writes a reply down, for a method and an instant in epoch seconds; None when it cannot.
Word: TypeAlias = "Callable[[Reply, str, float], Words | None]"
