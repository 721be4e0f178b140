"""The gateway whose hit lane records nothing, neither metrics nor decisions nor log: what recording costs is the rest.

Usage: unrecorded.py run -c FILE
"""

from __future__ import annotations

from typing import Any

import gateway.edge.server as edge
from gateway.cli import main


class _Nothing:
    """A recorder that is told and forgets."""

    def begin(self) -> None:
        """An exchange has begun."""

    def record(self, exchange: Any, *, complete: bool, seconds: float) -> None:
        """It is over."""

    def again(self, exchange: Any, seconds: float) -> None:
        """Both in one."""

    def malformed(self) -> None:
        """There is no exchange."""


_lane = edge.HitLane


def _unrecorded(pipeline: Any, _recorder: Any, **parts: Any) -> Any:
    return _lane(pipeline, _Nothing(), **parts)


edge.HitLane = _unrecorded  # type: ignore[misc,assignment]
main()
