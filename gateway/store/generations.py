"""When each tag was last invalidated, on a clock of its own, so that a fetch that began before is not kept.

The tables are bounded: types are a closed set, and of single rows so many are remembered; beyond that, all rows of the
type are taken to have been invalidated with the latest of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.core.invalidation import EVERYTHING, kind_of

if TYPE_CHECKING:
    from collections.abc import Iterable

_ROWS_REMEMBERED: Final = 10_000


class Generations:
    """The times of invalidations."""

    __slots__ = ("_clock", "_rows", "_types")

    def __init__(self) -> None:
        self._clock = 0
        self._types: Final[dict[str, int]] = {}
        self._rows: Final[dict[str, dict[str, int]]] = {}

    def latest(self, tags: Iterable[str]) -> int:
        """When one of `tags` was last invalidated; 0 for never."""
        latest = self._types.get(EVERYTHING, 0)
        for tag in tags:
            kind = kind_of(tag)
            rows = self._types if kind == tag else self._rows.get(kind, {})
            latest = max(latest, rows.get(tag, 0), rows.get("", 0))
        return latest

    def advance(self, tags: Iterable[str]) -> None:
        """Note that all of `tags` are invalidated now."""
        self._clock += 1
        for tag in tags:
            self._note(tag)

    def _note(self, tag: str) -> None:
        kind = kind_of(tag)
        if kind == tag:
            self._types[tag] = self._clock
            return
        rows = self._rows.setdefault(kind, {})
        if len(rows) >= _ROWS_REMEMBERED and tag not in rows:
            latest = max(rows.values())
            rows.clear()
            rows[""] = latest
        rows[tag] = self._clock
