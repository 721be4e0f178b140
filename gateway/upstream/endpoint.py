"""One controller: its connections, what is known of its health, and the count of what came of its requests.

Judges each outcome once. What a client can bring about at will says nothing against the controller: a 500, an error
the controller itself words, an upload that breaks off.
"""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import TYPE_CHECKING, Final

from gateway.core.balance import Health, Standing
from gateway.core.breaker import Breaker, Outcome
from gateway.pipeline.ports import UpstreamError
from gateway.upstream.client import LostRequestError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from gateway.core.balance import EjectionPolicy
    from gateway.core.breaker import BreakerPolicy
    from gateway.core.model import RequestHead, ResponseHead
    from gateway.upstream.client import Client, Response
    from gateway.upstream.whole import Whole

# Answers of whatever stands before the controller when that is not there; its own 502 and 504 speak of service brokers.
_GATEWAY_ERRORS: Final = frozenset({502, 503, 504})
_ABSENT: Final = frozenset({502, 503})  # 504 says that it is there, and slow


class Result(Enum):
    """What came of a request; the closed `result` label of `gateway_upstream_endpoint_requests_total`."""

    ANSWERED = "answered"
    GATEWAY_ERROR = "gateway-error"  # 502, 503 or 504 from something before the controller
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    BROKEN = "broken"
    LOST = "lost"  # its kept connection had been closed
    TOO_LARGE = "too-large"
    GIVEN_UP = "given-up"  # the client went away, or its content was at fault

    __hash__ = object.__hash__  # members are compared by identity; Enum's own hash is Python code


_RESULTS: Final = {
    "unreachable": Result.UNREACHABLE,
    "timeout": Result.TIMEOUT,
    "broken": Result.BROKEN,
    "head-too-large": Result.TOO_LARGE,
    "body-too-large": Result.TOO_LARGE,
}
_FAILURES: Final = frozenset({Result.GATEWAY_ERROR, Result.UNREACHABLE, Result.TIMEOUT, Result.BROKEN})
_NOTHING_SAID: Final = frozenset({Result.LOST, Result.GIVEN_UP})


class Endpoint:
    """A controller.

    Args:
        label: its name in metrics and logs.
        client: its connections.
        connections: how many there may be.
        breaker: when it is left alone; None for never.
        ejection: when others are preferred.
        clock: seconds that do not go back.

    Attributes:
        in_flight: requests whose answers are not over.
        results: how many requests came to what.
        idle: set while none is under way.
    """

    def __init__(
        self,
        label: str,
        client: Client,
        *,
        connections: int,
        breaker: BreakerPolicy | None,
        ejection: EjectionPolicy,
        clock: Callable[[], float],
    ) -> None:
        self.label: Final = label
        self.client: Final = client
        self._connections: Final = connections
        self._clock: Final = clock
        self.breaker: Final = None if breaker is None else Breaker(breaker)
        self.health: Final = Health(ejection)
        self.in_flight = 0
        self.results: Final = dict.fromkeys(Result, 0)
        self.idle: Final = asyncio.Event()
        self.idle.set()

    def standing(self, now: float) -> Standing:
        """What speaks for it."""
        if self.breaker is not None and not self.breaker.admits(now):
            return Standing.SHUT
        return Standing.GOOD if self.health.good(now) else Standing.DOUBTFUL

    async def send(
        self,
        head: RequestHead,
        body: AsyncIterator[bytes] | None,
        *,
        deadline: float,
        may_eject: Callable[[Endpoint], bool],
    ) -> Answer:
        """As `Client.send`; what comes of it is noted.

        Args:
            head: method, target and final fields.
            body: the request content, or None.
            deadline: the loop's time by which there must be a response head, for a request without content.
            may_eject: whether others are to be preferred to it, now that it fails again and again.
        """
        ticket = 0 if self.breaker is None else self.breaker.begin(self._clock())
        self.in_flight += 1
        self.idle.clear()
        result = Result.GIVEN_UP
        try:
            response = await self.client.send(head, body, deadline=deadline)
            result = _result_of(response.head)
        except UpstreamError as error:
            result = self._result(error, uploading=body is not None)
            raise
        finally:
            self._note(ticket, result, may_eject)
            if result not in _ANSWERS:
                self._leave()
        absent = result is Result.GATEWAY_ERROR and response.head.status in _ABSENT
        return Answer(self, response, ticket, absent=absent)

    def _result(self, error: UpstreamError, *, uploading: bool) -> Result:
        if isinstance(error, LostRequestError):
            return Result.LOST
        if uploading and error.kind == "broken":
            return Result.GIVEN_UP  # a client that sends too much is cut off, too
        if error.kind == "timeout" and not error.sent and self.in_flight > self._connections:
            return Result.GIVEN_UP  # all connections were in use: it is busy, which is not its fault
        return _RESULTS[error.kind]

    def _note(self, ticket: int, result: Result, may_eject: Callable[[Endpoint], bool]) -> None:
        self.results[result] += 1
        now = self._clock()
        failed = result in _FAILURES
        if self.breaker is not None:
            outcome = Outcome.FAILURE if failed else Outcome.NEUTRAL if result in _NOTHING_SAID else Outcome.SUCCESS
            self.breaker.end(ticket, outcome, now)
        if failed:
            if self.health.failed(now) and may_eject(self):
                self.health.eject(now)
        elif result not in _NOTHING_SAID:
            self.health.succeeded()

    def over(self, ticket: int, fault: UpstreamError | None) -> None:
        """An answer is over.

        Args:
            ticket: the breaker's, of its request.
            fault: how its content failed, None when it has not.
        """
        if fault is not None:
            self.results[_RESULTS[fault.kind]] += 1
            if self.breaker is not None:
                self.breaker.end(ticket, Outcome.FAILURE, self._clock())
        self._leave()

    def _leave(self) -> None:
        self.in_flight -= 1
        if not self.in_flight:
            self.idle.set()


_ANSWERS: Final = frozenset({Result.ANSWERED, Result.GATEWAY_ERROR})


class Answer:
    """A response whose head has arrived; its endpoint counts it as under way until it is released.

    Args:
        endpoint: who answered.
        response: the answer.
        ticket: the breaker's.
        absent: whether something before the controller says that it is not there.

    Attributes:
        head: status and fields.
        chunks: the body as it arrives, as `UpstreamResponse.chunks`.
        in_hand: the whole body if it is there, as `UpstreamResponse.in_hand`.
    """

    __slots__ = ("_endpoint", "_response", "_ticket", "absent", "chunks", "head", "in_hand")

    def __init__(self, endpoint: Endpoint, response: Response | Whole, ticket: int, *, absent: bool) -> None:
        self.absent: Final = absent
        self._endpoint: Endpoint | None = endpoint
        self._response: Final = response
        self._ticket: Final = ticket
        self.head = response.head
        self.chunks: Final = response.chunks
        self.in_hand: Final = response.in_hand

    async def release(self) -> None:
        """Give the connection back, or close it when a body was not read or sent to its end."""
        endpoint, self._endpoint = self._endpoint, None
        if endpoint is not None:
            endpoint.over(self._ticket, self._response.fault)
        await self._response.release()


def _result_of(head: ResponseHead) -> Result:
    if head.status not in _GATEWAY_ERRORS:
        return Result.ANSWERED
    content_type = (head.fields.get("content-type") or "").partition(";")[0].strip().lower()
    return Result.ANSWERED if content_type.endswith("json") else Result.GATEWAY_ERROR
