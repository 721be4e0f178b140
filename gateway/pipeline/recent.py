"""What happened a moment ago, for a set of keys that outsiders choose: bounded, and forgotten by itself."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Hashable


class Recent:
    """Keys that were noted less than `seconds` ago.

    Args:
        seconds: how long a key is remembered.
        capacity: the most keys remembered; the oldest is forgotten first.
    """

    __slots__ = ("_capacity", "_noted", "_seconds")

    def __init__(self, seconds: float, capacity: int = 10_000) -> None:
        self._seconds: Final = seconds
        self._capacity: Final = capacity
        self._noted: Final[OrderedDict[Hashable, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._noted)

    def note(self, key: Hashable, now: float) -> None:
        """Remember `key` from `now` (epoch seconds) on."""
        self._noted[key] = now
        self._noted.move_to_end(key)
        while len(self._noted) > self._capacity:
            self._noted.popitem(last=False)

    def forget(self, key: Hashable) -> None:
        """Forget `key`, whether or not it was remembered."""
        self._noted.pop(key, None)

    def holds(self, key: Hashable, now: float) -> bool:
        """Whether `key` was noted less than `seconds` before `now`; a clock that was set back counts as long ago."""
        noted = self._noted.get(key)
        if noted is None:
            return False
        if 0 <= now - noted < self._seconds:
            return True
        del self._noted[key]
        return False
