"""Breaks a gateway that runs as processes, on purpose: Python imports this first when its folder is in PYTHONPATH.

`SOAK_MUTANT` names what is broken, in the supervisor and in every worker; without it nothing is. A judge that lets one
of these pass judges nothing.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def no_rule() -> None:
    """The table says that scaling changes nothing."""
    from gateway.pipeline import writing

    right = writing.dropped_by
    writing.dropped_by = lambda method, path: frozenset() if path.endswith("/scale") else right(method, path)


def no_guard() -> None:
    """A page whose fetch began before a write is stored after it."""
    from gateway.store.memory import MemoryStore

    right = MemoryStore.put
    MemoryStore.put = lambda self, entry, **_: right(self, entry, generation=2**62)


def told_nobody() -> None:
    """Other processes are not told of a write."""
    from gateway.store.invalidations import Invalidations

    Invalidations.announce = lambda *_: None


def told_late() -> None:
    """Other processes say at once that they have dropped what they drop half a second later."""
    from gateway.store.invalidations import Invalidations

    right: Callable[..., None] = Invalidations.__init__

    def late(self: Any, *given: Any, **more: Any) -> None:
        right(self, *given, **more)
        drop = self._drop

        def later(tags: Iterable[str]) -> None:
            asyncio.get_running_loop().call_later(0.5, drop, tuple(tags))

        self._drop = later

    Invalidations.__init__ = late


MUTANTS = {
    "none": lambda: None,
    "no rule": no_rule,
    "no guard": no_guard,
    "told nobody": told_nobody,
    "told late": told_late,
}

if (chosen := os.environ.get("SOAK_MUTANT")) is not None:
    MUTANTS[chosen]()
