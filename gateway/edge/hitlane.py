"""The hit lane: answers at once what needs no waiting, below aiohttp's request handler (design.md, "Speed").

It reads a head, asks the pipeline the same question as the ordinary lane, and writes the reply if there is one; the
policy is `decide`, and there is no other here. What it does not answer goes to aiohttp with the same bytes, and with
the exchange as far as it got, so that nothing is decided, counted or taken twice. It knows nothing of aiohttp.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gateway.edge.rendering import Renderer, written
from gateway.pipeline.exchange import Exchange, Reply
from gateway.pipeline.refusing import refused_again, stand_refused
from gateway.pipeline.standing import again, stand

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.edge.ids import RequestIds
    from gateway.edge.quick_heads import Caller, QuickHeads
    from gateway.pipeline.decide import Outcome
    from gateway.pipeline.fulfil import Pipeline
    from gateway.pipeline.known import Known
    from gateway.pipeline.ports import Recorder

# A larger body waits for its client to read it, and waiting is the ordinary lane's. With what may lie unread before a
# connection is paused (64 KiB), this bounds what one connection can hold here.
LARGEST_BODY: Final = 48 * 1024


@dataclass(frozen=True, slots=True)
class Begun:
    """An exchange that the ordinary lane goes on with.

    Attributes:
        exchange: as far as it got.
        outcome: what `judge` said of it, or the fault that it ended in.
        counted: whether the recorder has been told that it began.
    """

    exchange: Exchange
    outcome: Outcome | Exception
    counted: bool = False

    @property
    def waits(self) -> bool:
        """Whether it needs something that has to be waited for."""
        return not isinstance(self.outcome, (Reply, Exception))


class HitLane:
    """The hit lane of one process.

    Args:
        pipeline: judges exchanges.
        recorder: told about each exchange that is answered here.
        clock: epoch seconds.
        ids: for requests that brought no id.
        post: gives an answer away to be sent, by its transport's method, before this round of the event loop is over.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        recorder: Recorder,
        *,
        clock: Callable[[], float],
        ids: RequestIds,
        post: Callable[[Callable[[bytes], object], bytes], None],
    ) -> None:
        self._pipeline: Final = pipeline
        self._recorder: Final = recorder
        self._record_again: Final = recorder.again
        self._clock: Final = clock
        self._heads: QuickHeads | None = None
        self._word: Final = Renderer().words
        self._ids: Final = ids
        self._post: Final = post

    def adopt(self, heads: QuickHeads | None) -> None:
        """Read heads by other settings from now on; with None, and before this was called, nothing is taken."""
        if self._heads is not None and self._heads is not heads:
            self._heads.forget()
        self._heads = heads

    def take(self, data: bytes, caller: Caller, write: Callable[[bytes], object]) -> Begun | bool:
        """Answer the request that is a whole segment, if it can be.

        Args:
            data: the segment, which begins where a request may begin.
            caller: whose it is.
            write: takes the whole answer.

        Returns:
            True when it is answered and recorded; False when nothing was done with it; else the exchange that the
            ordinary lane must go on with.
        """
        heads = self._heads
        if heads is None:
            return False
        identity = heads.read(data, caller)
        if identity is None:
            return False
        clock, post = self._clock, self._post  # named first, for what an instance holds is slow to call
        now = clock()
        request_id = identity.decode("ascii") if identity else self._ids.fresh()
        known, token, _ = seen = caller.last
        if known.refused and seen is not caller.usual:
            refusal = refused_again(known, self._pipeline.policy, caller.address, token, now)
            if refusal is not None:
                exchange = refusal.exchange
                exchange.request_id = request_id
                post(write, written(refusal.words, exchange.rate_lines, request_id, refusal.body))
                record = self._record_again
                record(exchange, clock() - now)
                return True
        standing = again(known, self._pipeline.policy, caller.address, token, now)
        if standing is not None:
            exchange = standing.exchange
            exchange.request_id = request_id
            post(write, written(standing.words, exchange.rate_lines, request_id, standing.content()))
            record = self._record_again
            record(exchange, clock() - now)
            exchange.entry = None
            return True
        head = caller.head(request_id if identity else "")
        return self._judge(
            Exchange(head, request_id=request_id, received_at=now, known=known, token=token), known, write
        )

    def _judge(self, exchange: Exchange, known: Known, write: Callable[[bytes], object]) -> Begun | bool:
        """Answer a request by what the pipeline says of it; as `take`."""
        policy, recorder, head, now = self._pipeline.policy, self._recorder, exchange.head, exchange.received_at
        exchange.chosen = known.take_chosen()
        try:
            outcome = self._pipeline.judge(exchange)
        except Exception as fault:  # noqa: BLE001 - ours; the ordinary lane answers and logs it as any other
            return Begun(exchange, fault)
        if not isinstance(outcome, Reply) or (isinstance(outcome.body, bytes) and len(outcome.body) > LARGEST_BODY):
            return Begun(exchange, outcome)
        words = self._word(outcome, head.method, now)
        if words is None:
            return Begun(exchange, outcome)
        exchange.status = outcome.status
        content = outcome.body if isinstance(outcome.body, bytes) and head.method != "HEAD" else b""
        recorder.begin()
        self._post(write, written(words, exchange.rate_lines, exchange.request_id, content))
        recorder.record(exchange, complete=True, seconds=self._clock() - now)
        if exchange.denied is None:
            stand(exchange, policy, self._word)
        else:
            stand_refused(exchange, outcome, policy, self._word, now)
        return True
