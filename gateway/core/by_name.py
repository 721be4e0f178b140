"""What is known of the names of fields, worked out once for each: messages repeat them, and they are few.

Both sides choose the names, so what is remembered is bounded, and a long one is worked out each time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
MOST: Final = 1024
LONGEST: Final = 64


class ByName(dict[str, T]):
    """Something of each field name, to be looked up by any spelling of it.

    Args:
        of: works it out, given the name in lower case.
    """

    __slots__ = ("_of",)

    def __init__(self, of: Callable[[str], T]) -> None:
        super().__init__()
        self._of: Final = of

    def __missing__(self, name: str) -> T:
        found = self._of(name.lower())
        if len(name) <= LONGEST:
            if len(self) >= MOST:
                self.clear()
            self[name] = found
        return found
