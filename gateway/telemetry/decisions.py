"""The decisions of the last requests, kept in a ring for the operator's questions."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from gateway.pipeline.decision import Decision, decision

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.core.model import Principal
    from gateway.pipeline.exchange import Exchange
    from gateway.pipeline.ports import Recorder


_Like: TypeAlias = "tuple[Decision | None, tuple[float, str, Principal | None, tuple[str, ...], float]]"


class Decisions:
    """A recorder that remembers the last decisions and passes on to the next recorder.

    Args:
        following: told everything too.
        kept: how many are remembered, 0 for none.
    """

    def __init__(self, following: Recorder, kept: int) -> None:
        self._following: Final = following
        self.begin: Final = following.begin  # nothing of its own
        self._following_again: Final = following.again
        self._kept: Final = kept > 0
        self._ring: Final[deque[Decision | _Like]] = deque(maxlen=kept)

    def malformed(self) -> None:
        """A request could not be parsed."""
        self._following.malformed()

    def record(self, exchange: Exchange, *, complete: bool, seconds: float) -> None:
        """An exchange is over; remember its decision."""
        self._following.record(exchange, complete=complete, seconds=seconds)
        if self._kept:
            self._ring.append(decision(exchange, complete=complete, seconds=seconds))

    def again(self, exchange: Exchange, seconds: float) -> None:
        """An exchange like one before; of its decision only what is its own is kept."""
        self._following_again(exchange, seconds)
        if self._kept:
            own = (exchange.received_at, exchange.request_id, exchange.principal, exchange.limited, seconds)
            self._ring.append((exchange.like, own))

    async def newest(self, most: int, wanted: Mapping[str, str]) -> list[dict[str, Any]]:
        """The newest decisions first.

        Args:
            most: how many at most.
            wanted: which ones: what `Decision.plain` must say, as text.
        """
        told = (whole.plain() for whole in map(_whole, reversed(self._ring)) if whole is not None)
        return list(islice((one for one in told if all(str(one.get(name)) == wanted[name] for name in wanted)), most))


def _whole(one: Decision | _Like) -> Decision | None:
    if isinstance(one, Decision):
        return one
    like, (at, request_id, principal, limited, seconds) = one
    if like is None:
        return None
    return like._replace(at=at, request_id=request_id, principal=principal, limited=limited, seconds=seconds)
