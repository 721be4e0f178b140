"""The drift probe: how often a page that counts as fresh is not what the controller would say now.

A sampled hit has its page fetched anew behind the answer, as any refresh is, and the two are compared. What differs has
changed past this gateway, or by a write whose reach `core/invalidation.py` does not know. One probe at a time; a page
whose tags were dropped meanwhile proves nothing. Costs nothing when the sample is 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.pipeline.entry import Entry

RESULTS: Final = ("same", "differs", "overtaken", "not-stored", "failed")


class Drift:
    """Decides which hits are probed and counts what was found.

    Args:
        sample: the share of hits to probe, 0 to 1.
        chance: a number from 0 to 1, evenly distributed.

    Attributes:
        checks: probes by result; the closed `result` label of `gateway_cache_drift_checks_total`.
        age: the ages of the pages that differed, in seconds, added up.
    """

    def __init__(self, sample: float, chance: Callable[[], float]) -> None:
        self._sample: Final = sample
        self._chance: Final = chance
        self._busy = False
        self.checks: Final = dict.fromkeys(RESULTS, 0)
        self.age = 0.0

    def due(self) -> bool:
        """Whether this hit is to be probed."""
        return not self._busy and self._sample > 0 and self._chance() < self._sample

    def begin(self) -> bool:
        """Take the one place; False when another probe has it."""
        if self._busy:
            return False
        self._busy = True
        return True

    def end(self, result: str) -> None:
        """A probe is over without a comparison: "overtaken", "not-stored" or "failed"."""
        self._busy = False
        self.checks[result] += 1

    def abandon(self) -> None:
        """A probe was cancelled and says nothing."""
        self._busy = False

    def compare(self, old: Entry, new: Entry) -> None:
        """A probe is over: the page that was served, and what the controller says now."""
        self._busy = False
        same = old.etag == new.etag  # minted from the content
        self.checks["same" if same else "differs"] += 1
        if not same:
            self.age += max(0.0, new.stored_at - old.stored_at)
