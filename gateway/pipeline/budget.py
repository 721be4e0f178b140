"""The controller's own rate limit: what it said is left for whom, kept from clients, and spared before it is spent.

The controller counts per principal and says so in each answer (controller.md §3). The gateway stands before it, so what
is left there is its own affair: the fields come off every answer as it arrives, before anything else sees it. Knows
only principals the controller itself named; the state is bounded and forgotten with the window it speaks of.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from gateway.core.by_name import ByName
from gateway.core.dates import http_date
from gateway.core.model import Fields
from gateway.pipeline.exchange import Stale, Verdict

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from gateway.core.model import RequestHead
    from gateway.pipeline.exchange import Exchange
    from gateway.pipeline.ports import Upstream, UpstreamResponse

# Below this share of its limit a principal's budget is spared.
RESERVE: Final = 0.1

_CAPACITY: Final = 1024
_PREFIXES: Final = ("ratelimit", "x-ratelimit-")
_IS_OURS: Final = ByName(lambda lower: lower.startswith(_PREFIXES))
_EPOCH: Final = 1_000_000_000  # a Reset above this is an instant, one below it seconds to go
_LONGEST: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Left:
    """What is left of a principal's budget.

    Attributes:
        share: of the limit, from 0 to 1.
        until: when the controller begins a new count, epoch seconds.
    """

    share: float
    until: float


def read(fields: Fields, status: int, now: float) -> Left | None:
    """What an answer says of the budget of whoever asked; None when nothing.

    Args:
        fields: as they came.
        status: 429 says that nothing is left, for as long as its Retry-After.
        now: epoch seconds.
    """
    until: float | None = None
    if status == 429:
        wait = _seconds(fields.get("retry-after"), now)
        return Left(0.0, now + wait) if wait else None
    for prefix in ("x-ratelimit-", "ratelimit-"):
        limit, remaining, reset = (_number(fields.get(prefix + name)) for name in ("limit", "remaining", "reset"))
        if limit and remaining is not None and reset is not None:
            until = float(reset) if reset > _EPOCH else now + reset
            return Left(min(1.0, remaining / limit), min(until, now + _LONGEST)) if until > now else None
    return None


def _number(value: str | None) -> int | None:
    digits = (value or "").partition(",")[0].strip()
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 12 else None


def _seconds(value: str | None, now: float) -> float:
    """A Retry-After as seconds (RFC 9110 §10.2.3); older controllers wrote an instant (controller.md §3)."""
    number = _number(value)
    if number is None:
        number = http_date(value or "", now)
    if number is None:
        return 0.0
    return min(_LONGEST, max(0.0, number - now if number > _EPOCH else float(number)))


class Budget:
    """The upstream, watched: an `Upstream` that reads its limits and hands on answers without them.

    Args:
        upstream: the controller.
        clock: epoch seconds.
    """

    def __init__(self, upstream: Upstream, clock: Callable[[], float]) -> None:
        self._upstream: Final = upstream
        self._clock: Final = clock
        self._left: Final[OrderedDict[str, Left]] = OrderedDict()
        self.spared = 0

    async def send(self, head: RequestHead, body: AsyncIterator[bytes] | None) -> UpstreamResponse:
        """As the upstream's own; its limits are taken note of and off.

        Raises:
            UpstreamError: no head arrived.
        """
        response = await self._upstream.send(head, body)
        fields = response.head.fields
        who = fields.get("x-user-guid")
        if who:
            self._note(who, read(fields, response.head.status, self._clock()))
        kept = [pair for pair in fields.pairs if not _IS_OURS[pair[0]]]
        if len(kept) < len(fields):
            response.head = replace(response.head, fields=Fields(kept))
        return response

    def _note(self, who: str, left: Left | None) -> None:
        if left is None:
            return
        self._left[who] = left
        self._left.move_to_end(who)
        if len(self._left) > _CAPACITY:
            self._left.popitem(last=False)

    def low(self, who: str, now: float) -> bool:
        """Whether less than a tenth is left for a principal.

        Args:
            who: its id, as the controller names it in X-USER-GUID.
            now: epoch seconds.
        """
        left = self._left.get(who)
        return left is not None and left.share < RESERVE and now < left.until

    def spare(self, exchange: Exchange, now: float) -> None:
        """Ask the controller less for a principal who has little left there.

        A page that would be refreshed behind its answer is not; one that may stand in for a failing
        controller stands in for an exhausted one. What the client wants fresh is asked for.
        """
        principal, entry = exchange.principal, exchange.entry
        if principal is None or entry is None or not self.low(principal.id, now):
            return
        if exchange.refresh:
            exchange.refresh = False
        elif exchange.verdict is Verdict.MISS and now < entry.error_until:
            exchange.verdict = Verdict.STALE
        else:
            return
        exchange.stale = Stale.BUDGET if exchange.verdict is Verdict.STALE else None
        self.spared += 1

    def least(self) -> float:
        """The least share of its budget that any principal has left now; 1 when the controller says nothing."""
        now = self._clock()
        return min((left.share for left in self._left.values() if now < left.until), default=1.0)
