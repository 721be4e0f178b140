"""Several controllers as one: a request goes to the least loaded that is well, and again elsewhere where that is safe.

Holds the endpoints and puts `core/balance.py`, `core/breaker.py` and `core/retry.py` to work; connections are
`client.py`'s, what an outcome means is `endpoint.py`'s. Where nothing may be asked it fails at once.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from gateway.core.balance import Standing, choose
from gateway.core.model import OutgoingHead
from gateway.core.retry import IDEMPOTENT, Again, Failure, RetryBudget, again
from gateway.pipeline.ports import UpstreamError
from gateway.upstream.client import LostRequestError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from gateway.core.model import RequestHead
    from gateway.upstream.endpoint import Answer, Endpoint


class Balancer:
    """The controllers.

    Args:
        endpoints: where they are.
        patience: seconds a request without content may take to its response head, retries included.
        budget: how many retries may be made.
        attempts: how often a request is sent at the most.
        clock: seconds that do not go back.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        *,
        patience: float,
        budget: RetryBudget,
        attempts: int,
        clock: Callable[[], float],
    ) -> None:
        self._patience: Final = patience
        self._attempts: Final = attempts
        self._clock: Final = clock
        self._turn = 0
        self._started = False
        self._leaving: Final[set[asyncio.Task[None]]] = set()
        self.budget: Final = budget
        self.endpoints: tuple[Endpoint, ...] = tuple(endpoints)

    async def start(self) -> None:
        """Open the pools."""
        self._started = True
        for endpoint in self.endpoints:
            await endpoint.client.start()

    async def stop(self) -> None:
        """Close the pools and every connection in them."""
        self._started = False
        for task in self._leaving:
            task.cancel()
        await asyncio.gather(*self._leaving, return_exceptions=True)
        for endpoint in self.endpoints:
            await endpoint.client.stop()

    async def replace(self, endpoints: Sequence[Endpoint]) -> None:
        """Use these from now on; one that is gone finishes what is under way there."""
        kept = set(endpoints)
        gone = [endpoint for endpoint in self.endpoints if endpoint not in kept]
        for endpoint in kept.difference(self.endpoints):
            if self._started:
                await endpoint.client.start()
        self.endpoints = tuple(endpoints)
        for endpoint in gone:
            task = asyncio.ensure_future(_retired(endpoint))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def send(self, head: RequestHead, body: AsyncIterator[bytes] | None) -> Answer:
        """Send a request to one of them, stream its body, return when the response head has arrived.

        Args:
            head: method, target and final fields.
            body: the request content, or None.

        Raises:
            UpstreamError: no head arrived.
            ContentError: the client's content was at fault.
        """
        self.budget.earn(self._clock())
        deadline = asyncio.get_running_loop().time() + self._patience
        tried: set[Endpoint] = set()
        endpoint, attempt, renewed = self._pick(tried), 1, False
        while True:
            try:
                answer = await endpoint.send(head, body, deadline=deadline, may_eject=self._may_eject)
                other = self._instead(head, body, answer, tried | {endpoint}) if attempt < self._attempts else None
                if other is None:
                    return answer
                await answer.release()
                tried.add(endpoint)
                endpoint, attempt = other, attempt + 1
            except UpstreamError as error:
                tried.add(endpoint)
                if error.sent and isinstance(head, OutgoingHead):
                    head.repeated = True
                match again(head.method, _failure(error), begun=body is not None and error.sent):
                    case Again.ANEW if not renewed and endpoint.standing(self._clock()) is not Standing.SHUT:
                        renewed = True
                        endpoint.client.distrust()
                    case Again.ELSEWHERE if attempt < self._attempts:
                        endpoint, attempt = self._elsewhere(tried, error), attempt + 1
                    case _:
                        raise

    def _pick(self, tried: set[Endpoint]) -> Endpoint:
        """The endpoint for a request.

        Raises:
            UpstreamError: none may be asked.
        """
        now = self._clock()
        if len(self.endpoints) == 1:
            alone = self.endpoints[0]
            if alone not in tried and alone.standing(now) is not Standing.SHUT:
                return alone
        self._turn += 1
        place = choose(
            [
                (Standing.SHUT if endpoint in tried else endpoint.standing(now), endpoint.in_flight)
                for endpoint in self.endpoints
            ],
            self._turn,
        )
        if place is not None:
            return self.endpoints[place]
        waits = [endpoint.breaker.wait(now) for endpoint in self.endpoints if endpoint.breaker is not None]
        raise UpstreamError(
            "breaker",
            "too many requests failed; none is sent for a while",
            sent=False,
            retry_after=min(waits, default=0),
        )

    def _elsewhere(self, tried: set[Endpoint], error: UpstreamError) -> Endpoint:
        """Another endpoint for a request that failed.

        Raises:
            UpstreamError: there is none, or the budget is spent; the failure itself.
        """
        try:
            endpoint = self._pick(tried)
        except UpstreamError:
            raise error from None
        if not self.budget.spend(self._clock()):
            raise error
        return endpoint

    def _instead(
        self, head: RequestHead, body: AsyncIterator[bytes] | None, answer: Answer, tried: set[Endpoint]
    ) -> Endpoint | None:
        """A good endpoint to ask instead, when something before the controller says that it is not there."""
        if not answer.absent or body is not None or head.method not in IDEMPOTENT:
            return None
        if not any(self._well(other) for other in self.endpoints if other not in tried):
            return None
        endpoint = self._pick(tried)
        return endpoint if self.budget.spend(self._clock()) else None

    def _may_eject(self, endpoint: Endpoint) -> bool:
        """Whether others are to be preferred to an endpoint; those that were ejected before are well again then."""
        others = [other for other in self.endpoints if other is not endpoint]
        if not any(self._well(other) for other in others):
            for other in others:
                other.health.pardon()
        return any(self._well(other) for other in others)

    def _well(self, endpoint: Endpoint) -> bool:
        return endpoint.standing(self._clock()) is Standing.GOOD


def _failure(error: UpstreamError) -> Failure:
    if not error.sent:
        return Failure.UNSENT
    if isinstance(error, LostRequestError):
        return Failure.LOST
    return Failure.TIMEOUT if error.kind == "timeout" else Failure.BROKEN


async def _retired(endpoint: Endpoint) -> None:
    try:
        await endpoint.idle.wait()
    finally:
        await endpoint.client.stop()
