"""Breaks a gateway that runs as processes, on purpose: Python imports this first when its folder is in PYTHONPATH.

`SOAK_MUTANT` names what is broken, in the supervisor and in every worker; without it nothing is. A judge that lets one
of these pass judges nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
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


def spared() -> None:
    """A write leaves those pages that were out of date before it, by a change of a process made past the gateway.

    It drops all others, and all in other processes. So it asks the controller, before each write, what is true.
    """
    from gateway.core.model import Fields, Target
    from gateway.pipeline.transform import collect
    from gateway.pipeline.writing import Writes
    from gateway.store.memory import MemoryStore

    before: dict[str, Any] = {}
    send, invalidate = Writes.send, MemoryStore.invalidate

    def told(body: bytes) -> dict[str, Any]:
        content = json.loads(body)
        return {row["guid"]: {**row, "links": None} for row in content.get("resources", [content]) if "guid" in row}

    async def asks(self: Any, exchange: Any, request: Any, body: Any) -> Any:
        if request.method == "GET":
            return await send(self, exchange, request, body)
        fields = Fields(pair for pair in request.fields if pair[0].lower() in {"authorization", "host"})
        everything = Target("/v3/processes", "per_page=5000")
        question = replace(request, method="GET", target=everything, fields=fields, has_body=False)
        before.update(told(await collect(await self._upstream.send(question, None), 1 << 24)))
        try:
            return await send(self, exchange, request, body)
        finally:
            before.clear()

    def spares(self: Any, tags: Iterable[str]) -> int:
        pages = [node.entry for node in self.nodes() if before and "/processes" in node.entry.key.path]
        outdated = [
            page
            for page in pages
            if any(guid in before and row != before[guid] for guid, row in told(page.body).items())
        ]
        dropped = invalidate(self, tags)
        for page in outdated:
            self._store(page)
        return dropped

    Writes.send = asks
    MemoryStore.invalidate = spares


MUTANTS = {
    "none": lambda: None,
    "no rule": no_rule,
    "no guard": no_guard,
    "told nobody": told_nobody,
    "told late": told_late,
    "spared": spared,
}

if (chosen := os.environ.get("SOAK_MUTANT")) is not None:
    MUTANTS[chosen]()
