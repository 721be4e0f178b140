"""Ids for requests that brought none: shaped like a version-less UUID, distinct, cheap, not to be guessed from outside.

64 random bits of the process and a counter that begins at a random place. Ids are not secrets: whoever sees one may
guess its neighbours, but not those of another process.
"""

from __future__ import annotations

import secrets
from itertools import count
from typing import Final

_COUNTER_BITS: Final = 48


class RequestIds:
    """The ids of one process."""

    def __init__(self) -> None:
        prefix = secrets.token_hex(10)
        self._prefix: Final = f"{prefix[:8]}-{prefix[8:12]}-{prefix[12:16]}-{prefix[16:]}-"
        # Less than half of the space, so that it never overflows into a thirteenth digit.
        self._next: Final = count(secrets.randbits(_COUNTER_BITS - 1)).__next__

    def fresh(self) -> str:
        """An id that this process has not given before."""
        return f"{self._prefix}{self._next():012x}"
