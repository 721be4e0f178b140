"""Carries on what the hit lane has begun and what needs the controller: no parser, request or response of aiohttp.

The law: what is answered here the ordinary lane would have answered with the same bytes (tests/edge/test_carry.py).
Whatever is more than a whole small answer on a connection that goes on is given to the ordinary lane together with the
exchange and its reply, so that nothing is asked, counted or taken twice. Every exchange is recorded exactly once.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from gateway.core.errors import Denial, Reason
from gateway.edge.hitlane import LARGEST_BODY, Begun
from gateway.edge.refusal import unanswered
from gateway.edge.rendering import Renderer, written
from gateway.pipeline.decide import refuse
from gateway.pipeline.exchange import Reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.edge.connection import Connection
    from gateway.pipeline.exchange import Stream
    from gateway.pipeline.fulfil import Pipeline
    from gateway.pipeline.ports import Recorder

# Whoever is refused so gets no next answer on the connection.
CLOSING: Final = frozenset(
    {Reason.BAD_REQUEST, Reason.BAD_TARGET, Reason.REQUEST_TIMEOUT, Reason.FIELDS_TOO_LARGE, Reason.BODY_TOO_LARGE}
)
TOO_LONG: Final = "the whole request took too long"


class _Patience:
    """Ends the wait for an answer when the wheel says so; stands where the ordinary lane has an `asyncio.Timeout`."""

    __slots__ = ("_over", "_task")

    def __init__(self, task: asyncio.Task[None] | None) -> None:
        self._task: Final = task
        self._over = False

    def reschedule(self, when: float | None) -> None:  # noqa: ARG002 - it is always now
        """End it."""
        if self._task is not None:
            self._over = True
            self._task.cancel()

    def ended(self) -> bool:
        """Whether a cancellation was this one's doing, and nobody else's."""
        return self._over and self._task is not None and not self._task.uncancel()


class Carrier:
    """Carries exchanges of one process.

    Args:
        pipeline: answers exchanges.
        recorder: told about each exchange that is answered here.
        clock: epoch seconds.

    Attributes:
        ending: whether every answer is the last of its connection, so that the ordinary lane writes it.
        cutting: whether what is under way is being cut off.
    """

    def __init__(self, pipeline: Pipeline, recorder: Recorder, *, clock: Callable[[], float]) -> None:
        self._pipeline: Final = pipeline
        self._recorder: Final = recorder
        self._clock: Final = clock
        self._word: Final = Renderer().words
        self._closing: Final[set[asyncio.Task[None]]] = set()
        self.ending = self.cutting = False

    async def answer(self, begun: Begun, connection: Connection) -> bytes | Begun:
        """Ask the pipeline; must run in the connection's task.

        Args:
            begun: an exchange without content.
            connection: whose it is; its wheel may end the wait.

        Returns:
            The whole answer, still to be recorded (`answered`); or what the ordinary lane must go on with.
        """
        exchange, outcome = begun.exchange, begun.outcome
        if isinstance(outcome, Exception):
            return begun
        self._recorder.begin()
        patience = _Patience(connection.carrying)
        connection.answering = patience
        try:
            reply = await self._pipeline.answer(exchange, None, outcome)
            return self._written(begun, reply) or Begun(exchange, reply, counted=True)
        except asyncio.CancelledError:
            if patience.ended():
                late = refuse(exchange, Denial(Reason.UPSTREAM_TIMEOUT, TOO_LONG))
                return self._written(begun, late) or Begun(exchange, late, counted=True)
            self._record(begun, complete=False)
            raise
        except Exception as fault:  # noqa: BLE001 - ours; the ordinary lane answers and logs it as any other
            return Begun(exchange, fault, counted=True)
        finally:
            connection.answering = None

    def _written(self, begun: Begun, reply: Reply) -> bytes | None:
        """A reply as it goes out, None when the ordinary lane must write it."""
        exchange, body = begun.exchange, reply.body
        if self.ending or exchange.denied in CLOSING or (isinstance(body, bytes) and len(body) > LARGEST_BODY):
            return None
        method = exchange.head.method
        words = self._word(reply, method, self._clock())
        if words is None:
            return None
        exchange.status = reply.status
        content = body if isinstance(body, bytes) and method != "HEAD" else b""
        return written(words, exchange.rate_lines, exchange.request_id, content)

    def answered(self, begun: Begun, *, complete: bool) -> None:
        """Record an exchange whose answer has been written, or could not be."""
        self._record(begun, complete=complete)

    def lost(self, begun: Begun | None) -> None:
        """Record an exchange that neither lane will answer any more, and let go of what it holds.

        Args:
            begun: the exchange; nothing happens when there is none, or it was not counted here.
        """
        if begun is None or not begun.counted:
            return
        self._record(begun, complete=False)
        body = begun.outcome.body if isinstance(begun.outcome, Reply) else None
        if body is not None and not isinstance(body, bytes):
            task = asyncio.ensure_future(_closed(body))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def _record(self, begun: Begun, *, complete: bool) -> None:
        exchange = begun.exchange
        if not exchange.status:
            unanswered(exchange, cut=self.cutting)
        self._recorder.record(exchange, complete=complete, seconds=self._clock() - exchange.received_at)


async def _closed(stream: Stream) -> None:
    await stream.aclose()
