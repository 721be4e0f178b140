"""A gate before the upstream: how many requests it has at once, in all and of each principal, and who is next.

Only what goes to the upstream passes here; an answer from the store never waits. A request holds its place until the
last byte of its answer. The arithmetic is in `core/concurrency.py` and `core/fair_slots.py`.
"""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import TYPE_CHECKING, Final

from gateway.core.fair_slots import Answer, FairSlots
from gateway.core.model import OutgoingHead
from gateway.core.rate_policy import Mode
from gateway.pipeline.ports import OwnError, UpstreamError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from gateway.core.concurrency import AdaptiveLimit
    from gateway.core.model import RequestHead
    from gateway.core.rate_policy import Key
    from gateway.pipeline.ports import Upstream, UpstreamResponse

# Seconds after which a client that was refused should try again.
_RETRY_AFTER: Final = 1.0
# Failures that speak of strain as slow answers do.
_STRAIN: Final = frozenset({"timeout", "unreachable"})


class Decision(Enum):
    """What became of a request at the gate; the closed `decision` label of `gateway_concurrency_decisions_total`."""

    ADMITTED = "admitted"  # at once
    QUEUED = "queued"  # it waited, or in mode shadow would have had to
    LEFT = "left"  # its client went away while it waited
    PRINCIPAL = "principal-concurrency"  # refused: its principal has as many as it may have
    FULL = "queue-full"  # refused: too many wait
    TIMEOUT = "queue-timeout"  # refused: it waited in vain

    __hash__ = object.__hash__  # members are compared by identity; Enum's own hash is Python code


class _Place:
    """One that waits."""

    __slots__ = ("admitted", "decided")

    def __init__(self) -> None:
        self.admitted = False
        self.decided: Final[asyncio.Future[None]] = asyncio.get_running_loop().create_future()

    def decide(self, *, admitted: bool) -> None:
        """Let it in, or put it out. It may have been cancelled meanwhile, and finds out by `admitted`."""
        self.admitted = admitted
        if not self.decided.done():
            self.decided.set_result(None)


class Gate:
    """An upstream with so many requests at once and no more.

    Args:
        upstream: the controller.
        slots: places and queue.
        limit: how many places there are, when that follows latency; None when it is fixed.
        patience: seconds a request may wait for a place.
        mode: whether requests wait, or it is only counted that they would.
        clock: seconds that do not go back.

    Attributes:
        decisions: how many requests met which decision.
        waited: seconds that requests waited, added up.
    """

    def __init__(
        self,
        upstream: Upstream,
        *,
        slots: FairSlots[_Place],
        limit: AdaptiveLimit | None,
        patience: float,
        mode: Mode,
        clock: Callable[[], float],
    ) -> None:
        self._upstream: Final = upstream
        self._slots: Final = slots
        self._limit: Final = limit
        self._patience: Final = patience
        self._mode: Final = mode
        self._clock: Final = clock
        self.decisions: Final = dict.fromkeys(Decision, 0)
        self.waited = 0.0

    async def send(self, head: RequestHead, body: AsyncIterator[bytes] | None) -> UpstreamResponse:
        """As the upstream's own, once there is a place.

        Args:
            head: method, target and final fields; an `OutgoingHead` says whose place it takes.
            body: the request content, or None.

        Raises:
            UpstreamError: no place, or no head arrived.
            ContentError: the client's content was at fault.
        """
        outgoing = head if isinstance(head, OutgoingHead) else OutgoingHead(head.method, head.target, head.fields)
        claim = outgoing.claim
        await self._enter(outgoing)
        began = self._clock()
        try:
            response = await self._upstream.send(head, body)
        except UpstreamError as error:
            if body is None and error.kind in _STRAIN:
                self._sample(claim.kind, began, failed=True)
            self._leave(claim.owner)
            raise
        except BaseException:
            self._leave(claim.owner)
            raise
        if body is None:
            self._sample(claim.kind, began)
        return _Held(self, claim.owner, response)

    @property
    def limit(self) -> float | None:
        """How many places there are; None for any number."""
        return self._slots.limit

    @property
    def in_flight(self) -> int:
        """Places taken."""
        return self._slots.in_flight

    @property
    def queued(self) -> int:
        """How many wait."""
        return len(self._slots)

    def counts(self) -> Mapping[tuple[str, ...], float]:
        """Decisions so far, by (decision, mode)."""
        return {(decision.value, self._mode.value): count for decision, count in self.decisions.items()}

    async def _enter(self, head: OutgoingHead) -> None:
        slots, owner = self._slots, head.claim.owner
        room = slots.free and not slots.capped(owner)
        if room or self._mode is Mode.SHADOW:
            self.decisions[Decision.ADMITTED if room else Decision.QUEUED] += 1
            slots.take(owner)
            return
        place = _Place()
        answer, put_out = slots.ask(owner, place)
        if put_out is not None:
            put_out.decide(admitted=False)
        if answer is Answer.REFUSED:
            raise self._refusal(owner, Decision.FULL)
        self.decisions[Decision.QUEUED] += 1
        began, head.queued = self._clock(), True
        try:
            await self._wait(owner, place)
        finally:
            head.queued = False
            self.waited += self._clock() - began

    async def _wait(self, owner: Key, place: _Place) -> None:
        refused = Decision.FULL  # unless its time is up: another one was let into the queue for it
        try:
            async with asyncio.timeout(self._patience):
                await place.decided
        except TimeoutError:
            refused = Decision.TIMEOUT
            self._slots.withdraw(owner, place)
        except asyncio.CancelledError:
            self.decisions[Decision.LEFT] += 1
            self._slots.withdraw(owner, place)
            if place.admitted:
                self._leave(owner)
            raise
        if not place.admitted:
            raise self._refusal(owner, refused)

    def _refusal(self, owner: Key, decision: Decision) -> UpstreamError:
        own = self._slots.capped(owner)
        decision = Decision.PRINCIPAL if own else decision
        self.decisions[decision] += 1
        if own:
            return OwnError(
                decision.value, "its principal has as many under way as it may", retry_after=_RETRY_AFTER, sent=False
            )
        detail = "too many requests wait" if decision is Decision.FULL else f"no place within {self._patience:g} s"
        return UpstreamError(decision.value, detail, retry_after=_RETRY_AFTER, sent=False)

    def _leave(self, owner: Key) -> None:
        self._admit(self._slots.done(owner))

    def _sample(self, kind: str, began: float, *, failed: bool = False) -> None:
        limit = self._limit
        if limit is None:
            return
        limit.sample(kind, began, self._clock(), failed=failed)
        if int(limit) != self._slots.limit:
            self._admit(self._slots.resize(int(limit)))

    @staticmethod
    def _admit(places: list[_Place]) -> None:
        for place in places:
            place.decide(admitted=True)


class _Held:
    """An answer that holds a place until it is released.

    Attributes:
        head: status and fields.
        chunks: the body as it arrives, as `UpstreamResponse.chunks`.
        in_hand: the whole body if it is there, as `UpstreamResponse.in_hand`.
    """

    __slots__ = ("_gate", "_owner", "_response", "chunks", "head", "in_hand")

    def __init__(self, gate: Gate, owner: Key, response: UpstreamResponse) -> None:
        self._gate: Gate | None = gate
        self._owner: Final = owner
        self._response: Final = response
        self.head = response.head
        self.chunks: Final = response.chunks
        self.in_hand: Final = response.in_hand

    def __del__(self) -> None:
        self._give_back()  # a place that is lost is lost for good: the client library, too, sees to forgotten answers

    async def release(self) -> None:
        """Give the place back, then the connection."""
        self._give_back()
        await self._response.release()

    def _give_back(self) -> None:
        gate, self._gate = self._gate, None
        if gate is not None:
            gate._leave(self._owner)  # noqa: SLF001 - two halves of one thing
