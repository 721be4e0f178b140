"""Work that is done in steps, so that whoever must not be held up can do other things in between."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Generator

T = TypeVar("T")


def finished(steps: Generator[None, None, T]) -> T:
    """What comes of work when nobody waits between its steps."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast("T", end.value)
