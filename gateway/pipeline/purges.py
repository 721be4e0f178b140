"""What an operator purges, as what it is: the pages that a selection means, or one page; so other processes hear it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.core.keys import CacheKey
    from gateway.core.selection import Selection


@dataclass(frozen=True, slots=True)
class Purge:
    """One purge; exactly one of `selection` and `key` is given.

    Attributes:
        soft: make the pages stale instead of dropping them.
        selection: which pages.
        key: the one page.
    """

    soft: bool
    selection: Selection | None = None
    key: CacheKey | None = None
