"""The last minutes of one gateway, summary by summary, for its status page. Looked at only while somebody looks."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from gateway.live.samples import Change, Snapshot
from gateway.live.summary import summarize

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.live.summary import Summary

_SHORTEST: Final = 1.0
_KEPT: Final = 300


class Recent:
    """Summaries of the intervals between looks.

    However many look, a new interval begins at most once a second. Nothing is sampled while nobody looks.

    Args:
        exposition: the metrics in Prometheus' text format.
        clock: seconds of a steady clock.
    """

    def __init__(self, exposition: Callable[[], str], clock: Callable[[], float] = time.monotonic) -> None:
        self._exposition: Final = exposition
        self._clock: Final = clock
        self._last: Snapshot | None = None
        self._summary: Summary | None = None
        self._history: Final[deque[tuple[float, float, float, float]]] = deque(maxlen=_KEPT)

    def status(self) -> dict[str, Any]:
        """The newest summary, None at the first look, and what to plot: (seconds ago, requests, asked, p99) each."""
        now = self._clock()
        if self._last is None or now - self._last.at >= _SHORTEST:
            seen = Snapshot.parse(self._exposition(), now)
            if self._last is not None:
                self._summary = made = summarize(Change(self._last, seen))
                self._history.append((now, made.requests, made.upstream, made.p99 or 0.0))
            self._last = seen
        return {
            "summary": None if self._summary is None else self._summary.plain(),
            "history": [(round(now - at, 1), *values) for at, *values in self._history],
        }
