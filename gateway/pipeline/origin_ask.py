"""Mode `origin`: one request to the origin and what its answer is good for; before it, what other processes stored.

Builds the request, conditional where something stored can be validated, judges the head that comes back, and collects
content that is to be stored while others read it. Who asks, and who waits for it, is in `origin_fetch.py`.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from gateway.core.caching import NoStoreReason, request_directives
from gateway.core.freshness import ERROR_STATUSES
from gateway.core.groups import ANY_GROUP
from gateway.core.reuse import Action
from gateway.core.validation import Validated, judge, validation_request
from gateway.pipeline.filling import Budget, Filling
from gateway.pipeline.origin_store import Answered
from gateway.pipeline.outcomes import AbandonedError, Alone, Confirmed, Lead, Shared
from gateway.pipeline.ports import UpstreamError
from gateway.pipeline.recent import Recent
from gateway.pipeline.resource import Variant, tags_of_uri
from gateway.pipeline.transform import collect, is_json, response_fields, rewrite, without_byte_exact

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence

    from gateway.core.caching import StoredResponse
    from gateway.core.keys import CacheKey
    from gateway.core.links import Rewriter
    from gateway.core.model import Fields, RequestHead
    from gateway.pipeline.exchange import Exchange
    from gateway.pipeline.origin import Lookup
    from gateway.pipeline.origin_store import OriginStore
    from gateway.pipeline.outcomes import Outcome
    from gateway.pipeline.outgoing import Outgoing
    from gateway.pipeline.ports import Links, Stamp, Upstream, UpstreamResponse

# How long nobody waits for a target whose answer turned out not to be shareable, in seconds.
HIT_FOR_MISS: Final = 5.0


class Asker:
    """Asks the origin.

    Args:
        stored: what is stored.
        upstream: the origin.
        links: where links in answers are to point; None to leave answers as they are.
        outgoing: how request fields are made for the origin.
        clock: epoch seconds.
        max_rewrite_bytes: the largest answer that is held to rewrite its links.
        max_filling_bytes: the most that all answers under way may hold.
    """

    def __init__(
        self,
        *,
        stored: OriginStore,
        upstream: Upstream,
        links: Links | None,
        outgoing: Outgoing,
        clock: Callable[[], float],
        max_rewrite_bytes: int,
        max_filling_bytes: int,
    ) -> None:
        self._stored: Final = stored
        self._upstream: Final = upstream
        self._links: Final = links
        self.outgoing = outgoing
        self._clock: Final = clock
        self._max_rewrite_bytes: Final = max_rewrite_bytes
        self._budget: Final = Budget(max_filling_bytes)
        self._under_way: Final[dict[tuple[CacheKey | None, int], list[Shared]]] = {}
        self.hit_for_miss: Final = Recent(HIT_FOR_MISS)
        self.tasks: Final[set[asyncio.Task[None]]] = set()

    def spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """Do something beside the exchanges; `tasks` holds it until it is over."""
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def under_way(self, key: CacheKey, generation: int) -> Sequence[Shared]:
        """Answers for this key that are coming in."""
        return self._under_way.get((key, generation), ())

    async def rewriter(self) -> Rewriter | None:
        """What rewrites links, None when they stay as they are.

        Raises:
            UpstreamError: where links lead is not known yet.
        """
        return None if self._links is None else await self._links.rewriter()

    def request(self, exchange: Exchange) -> RequestHead:
        """The request as the origin gets it."""
        return self.outgoing.request(exchange, plain=self._links is not None and exchange.row.rewrite)

    def fields(self, exchange: Exchange, response: UpstreamResponse, rewriter: Rewriter | None) -> Fields:
        """The fields of an answer for the client; without what its rewritten content will not match."""
        fields = response_fields(response.head, exchange.row, rewriter, self.outgoing.via)
        rewriting = rewriter is not None and exchange.row.rewrite
        return without_byte_exact(fields) if rewriting and (is_json(fields) or response.head.status == 304) else fields

    async def content(
        self, exchange: Exchange, response: UpstreamResponse, fields: Fields, rewriter: Rewriter | None
    ) -> AsyncIterator[bytes]:
        """The content of an answer for the client, piece by piece; in one where links in it are rewritten."""
        if rewriter is not None and exchange.row.rewrite and is_json(fields):
            yield await rewrite(await collect(response, self._max_rewrite_bytes), rewriter)
            return
        async for piece in response.chunks():
            yield piece

    async def ask(self, exchange: Exchange, lead: Lead) -> Outcome:
        """What another process stored for an exchange with a key, else what the origin answers.

        Args:
            exchange: the exchange.
            lead: gets what is this exchange's alone.

        Raises:
            UpstreamError: no head arrived.
        """
        generation = self._stored.generation(exchange.head.target.path)
        found, stamp = await self._elsewhere(exchange, generation)
        if found is not None:
            exchange.origin = found
            if found.reuse.action in {Action.SERVE, Action.SERVE_AND_REFRESH} and found.variant is not None:
                return Confirmed(found.variant, elsewhere=True)
        return await self._ask(exchange, lead, stamp)

    async def _elsewhere(self, exchange: Exchange, generation: int) -> tuple[Lookup | None, Stamp | None]:
        """What another process stored that is of more use than what is stored here; and the moment before a fetch."""
        shared, key, now = self._stored.shared, exchange.key, self._clock()
        if shared is None or key is None or self.hit_for_miss.holds(key, now):
            return None, None
        path = exchange.head.target.path
        found, stamp = await shared.find_resource(key, (*tags_of_uri(path), ANY_GROUP))
        if found is None or request_directives(exchange.head.fields).no_store:
            return None, stamp
        return self._stored.adopt(exchange, found, generation, self._clock()), stamp

    async def _ask(self, exchange: Exchange, lead: Lead, stamp: Stamp | None, *, validate: bool = True) -> Outcome:
        """Send the request of an exchange with a key, and judge the head of the answer.

        Args:
            exchange: the exchange.
            lead: gets what is this exchange's alone.
            stamp: the moment before, on the clock that processes share.
            validate: whether a stored response may be validated.

        Raises:
            UpstreamError: no head arrived.
        """
        rewriter = await self.rewriter()
        generation = self._stored.generation(exchange.head.target.path)
        sent, asked_at = self.request(exchange), self._clock()
        condition = self._condition(exchange, sent.fields, asked_at) if validate else None
        response = await self._upstream.send(sent if condition is None else replace(sent, fields=condition), None)
        try:
            arrived_at = self._clock()
            exchange.upstream_seconds = arrived_at - asked_at
            fields = self.fields(exchange, response, rewriter)
            answered = Answered(response.head.status, fields, asked_at, arrived_at, generation, stamp)
            if condition is not None and answered.status == 304:
                await response.release()
                variant = self._stored.freshen(exchange, answered)
                # Where the 304 speaks of another response than the one asked about, only a whole answer helps.
                return Confirmed(variant) if variant else await self._ask(exchange, lead, stamp, validate=False)
            content = self.content(exchange, response, fields, rewriter)
            return await self._judged(exchange, lead, answered, response, content)
        except BaseException:
            await response.release()
            raise

    def _condition(self, exchange: Exchange, fields: Fields, now: float) -> Fields | None:
        """The request fields that validate the stored response, None when there is nothing to validate."""
        found = exchange.origin
        if found is None or found.reuse.action is not Action.VALIDATE or found.reuse.stored is None:
            return None
        return validation_request(fields, found.reuse.stored, now)

    async def _judged(
        self,
        exchange: Exchange,
        lead: Lead,
        answered: Answered,
        response: UpstreamResponse,
        content: AsyncIterator[bytes],
    ) -> Outcome:
        """Share the answer where it may be stored, else leave it to the one who asked."""
        key, stored = exchange.key, self._storable(exchange, answered)
        if key is None or isinstance(stored, str):
            self._not_shared(exchange, answered)
            await lead.give(response, content)
            return Alone(answered.status, answered.fields, response.head.reason, None if key is None else str(stored))
        fresh = stored.freshness
        if fresh.validate_always or max(fresh.fresh_until, fresh.refresh_until) <= answered.arrived_at:
            self.hit_for_miss.note(key, answered.arrived_at)  # each has to ask for itself whether it still holds
        else:
            self.hit_for_miss.forget(key)
        shared = Shared(stored, response.head.reason, Filling(limit=self._stored.limit, budget=self._budget))
        self._under_way.setdefault((exchange.key, answered.generation), []).append(shared)
        lead.read(shared)
        task = self.spawn(self._fill(exchange, shared, answered, response=response, content=content))
        # Not at once: a task cancelled before its first step would never run what it has to clean up.
        shared.filling.abandoned = partial(asyncio.get_running_loop().call_soon, task.cancel)
        return shared

    def _storable(self, exchange: Exchange, answered: Answered) -> StoredResponse | str:
        """What will be stored of an answer, or the named reason why nothing."""
        if exchange.head.method != "GET":
            return NoStoreReason.METHOD.value
        if answered.status in ERROR_STATUSES and self._stored.standing_in(exchange, answered.arrived_at) is not None:
            return "stale-if-error"
        lengths = answered.fields.get_all("content-length")
        if (
            len(lengths) == 1
            and lengths[0].isascii()
            and lengths[0].isdigit()
            and int(lengths[0][:18]) > self._stored.limit
        ):
            return "too-large"
        stored = self._stored.judge(exchange, answered)
        return stored.value if isinstance(stored, NoStoreReason) else stored

    def _not_shared(self, exchange: Exchange, answered: Answered) -> None:
        if exchange.head.method == "HEAD":
            self._stored.head_answered(exchange, answered)
        elif judge(answered.status) is not Validated.FAILED:
            self._stored.outdate(exchange, answered)
            self.hit_for_miss.note(exchange.key, answered.arrived_at)

    async def _fill(
        self,
        exchange: Exchange,
        shared: Shared,
        answered: Answered,
        *,
        response: UpstreamResponse,
        content: AsyncIterator[bytes],
    ) -> None:
        """Collect the content of a shared answer, and store it when it is complete."""
        filling = shared.filling
        try:
            body = await filling.pump(content)
            if body is not None:
                variant = Variant(shared.stored, body, answered.arrived_at - answered.asked_at, answered.stamp)
                self._stored.keep(exchange, variant, answered.generation)
            filling.end(content=body)
        except UpstreamError as error:
            filling.end(fault=error)
        finally:
            filling.end(fault=AbandonedError())  # says nothing unless this was cancelled
            place = exchange.key, answered.generation
            self._under_way[place].remove(shared)
            if not self._under_way[place]:
                del self._under_way[place]
            await response.release()
