"""The asynchronous back half: satisfy what `decide` needs, ask the controller, store, answer.

The only place where a request waits. Failures of the controller become answers here; cancellation passes through and
releases whatever was held.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from gateway.core.errors import Denial, Reason
from gateway.core.groups import ANY_GROUP, groups_of
from gateway.core.invalidation import tags_of_page
from gateway.core.model import Fields
from gateway.core.routes import CacheMode
from gateway.core.rows import tags_of_content
from gateway.pipeline.decide import Fetch, FetchKeys, decide, forgiving, refuse
from gateway.pipeline.decision import DEBUG_FIELD, asks_why, debug_field
from gateway.pipeline.entry import Entry
from gateway.pipeline.exchange import Exchange, Reply, Stale, Verdict
from gateway.pipeline.failures import denial_for, stale_for
from gateway.pipeline.fills import Fills
from gateway.pipeline.jobs import is_job
from gateway.pipeline.origin_fetch import OriginFetch
from gateway.pipeline.ports import ContentError, KeysUnavailableError, UpstreamError
from gateway.pipeline.relayed import Relayed
from gateway.pipeline.representation import describe, from_entry
from gateway.pipeline.resource import tags_of_uri
from gateway.pipeline.second_level import Fill, announced, find_or_fetch
from gateway.pipeline.transform import (
    Page,
    collect,
    insist_on_json,
    is_json,
    mint,
    own_fields,
    remembers_absence,
    response_fields,
    rewrite,
    says_gone,
    unstorable,
    without_byte_exact,
)
from gateway.pipeline.writing import Writes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from gateway.core.keys import CacheKey
    from gateway.core.links import Rewriter
    from gateway.core.model import RequestHead
    from gateway.pipeline.decide import Outcome, Policy
    from gateway.pipeline.drift import Drift
    from gateway.pipeline.outgoing import Outgoing
    from gateway.pipeline.ports import Links, SharedStore, Upstream, UpstreamResponse

_FAILURES: Final = frozenset({500, 502, 503, 504})  # RFC 5861 §4


class Pipeline:
    """Answers requests.

    Args:
        policy: what `decide` judges by.
        upstream: the controller.
        links: where links in answers are to point; None to leave answers as they are.
        outgoing: how request fields are made for the controller.
        clock: epoch seconds.
        max_rewrite_bytes: the largest answer that is held to rewrite its links.
        max_entry_bytes: the most that mode `origin` keeps for one target.
        max_filling_bytes: the most that answers under way in mode `origin` may hold before they are stored.
        shared: what this process has in common with others, None when it is alone.

    Attributes:
        writes: what changes something, and the jobs it begins.
        refreshes: how many refreshes behind answers ended in each way.
    """

    def __init__(
        self,
        *,
        policy: Policy,
        upstream: Upstream,
        links: Links | None,
        outgoing: Outgoing,
        clock: Callable[[], float],
        max_rewrite_bytes: int,
        max_entry_bytes: int = 32 << 20,
        max_filling_bytes: int = 256 << 20,
        shared: SharedStore | None = None,
    ) -> None:
        self.policy = policy
        self._shared: Final = shared
        self._upstream: Final = upstream
        self._links: Final = links
        self._outgoing = outgoing
        self._clock: Final = clock
        self._max_rewrite_bytes: Final = max_rewrite_bytes
        self._fills: Final = Fills(clock)
        self.writes: Final = Writes(
            upstream=upstream, store=policy.store, outgoing=outgoing, clock=clock, groups=policy.emit_groups
        )
        self._behind: Final[dict[CacheKey, asyncio.Task[None]]] = {}
        self.refreshes: Final = dict.fromkeys(("stored", "not-stored", "failed"), 0)
        self._origin: Final = OriginFetch(
            store=policy.store,
            cache_name=policy.cache_name,
            upstream=upstream,
            links=links,
            outgoing=outgoing,
            clock=clock,
            max_rewrite_bytes=max_rewrite_bytes,
            max_entry_bytes=max_entry_bytes,
            max_filling_bytes=max_filling_bytes,
            write=None if links is None else self.writes.send,
            shared=shared,
        )

    def reconfigure(self, policy: Policy, outgoing: Outgoing) -> None:
        """Judge and ask by other settings from now on. Who is on the way already keeps the row and links it has.

        Args:
            policy: over the same store.
            outgoing: how request fields are made for the controller.
        """
        self.policy, self._outgoing = policy, outgoing
        self.writes.outgoing = outgoing
        self._origin.adopt(outgoing)

    def judge(self, exchange: Exchange) -> Outcome:
        """Carry an exchange as far as it goes without waiting.

        Args:
            exchange: a new exchange, or one whose need was satisfied.

        Returns:
            Its reply, or what it needs, to be given to `answer`.
        """
        outcome = decide(exchange, self.policy, self._clock())
        if not isinstance(outcome, Reply):
            return outcome
        if exchange.refresh:
            self._refresh_behind(exchange)
        return self._told(exchange, outcome) if self.policy.debug_scopes else outcome

    def _told(self, exchange: Exchange, reply: Reply) -> Reply:
        """The reply, with the decision in a field for who asks why and may."""
        if not asks_why(exchange, self.policy.debug_scopes):
            return reply
        told = debug_field(exchange, status=reply.status, seconds=self._clock() - exchange.received_at)
        return replace(reply, fields=reply.fields.plus((DEBUG_FIELD, told)))

    async def answer(
        self, exchange: Exchange, body: AsyncIterator[bytes] | None, judged: Outcome | None = None
    ) -> Reply:
        """Carry an exchange to its reply.

        Args:
            exchange: a new exchange.
            body: the request content as it arrives, None when there is none.
            judged: what `judge` said of it already; it is not judged twice, since it was counted.

        Returns:
            The reply; when its body is an iterator the caller must exhaust or close it.
        """
        outcome = self.judge(exchange) if judged is None else judged
        while True:
            match outcome:
                case Reply():
                    return outcome
                case FetchKeys(kid):
                    try:
                        await self.policy.verifier.fetch_for(kid)
                    except KeysUnavailableError as error:
                        if not forgiving(exchange.row):
                            return refuse(exchange, Denial(Reason.KEYS_UNAVAILABLE, str(error)))
                    exchange.keys_fetched = True
                case Fetch(fill=fill):
                    return await announced(self._shared, exchange, await self._fetched(exchange, body, fill=fill))
            outcome = self.judge(exchange)

    async def _fetched(self, exchange: Exchange, body: AsyncIterator[bytes] | None, *, fill: bool) -> Reply:
        try:
            return self._told(exchange, await self._fetch(exchange, body, fill=fill))
        except UpstreamError as error:
            stale = self._stale_if_error(exchange, stale_for(error))
            return self._told(exchange, stale or refuse(exchange, denial_for(error)))
        except ContentError as error:
            return refuse(exchange, error.denial)

    async def _fetch(self, exchange: Exchange, body: AsyncIterator[bytes] | None, *, fill: bool) -> Reply:
        if exchange.row.cache.mode is CacheMode.ORIGIN:
            return await self._origin.answer(exchange, body)
        return await (self._fill(exchange) if fill else self._forward(exchange, body))

    async def drain(self) -> None:
        """Wait for what is under way behind answers, stop watching jobs."""
        try:
            await self.writes.drain()
            await self._origin.drain()
            while self._behind:
                await asyncio.gather(*self._behind.values(), return_exceptions=True)
        finally:
            for task in self._behind.values():
                task.cancel()

    # -- answers that may be stored

    async def _fill(self, exchange: Exchange) -> Reply:
        fill, joined = await self._fetch_page(exchange)
        if joined or fill.shared:
            exchange.saved_seconds = fill.seconds
        else:
            exchange.upstream_seconds = fill.seconds
        if fill.entry is not None:
            exchange.stored, exchange.collapsed = True, joined
            if joined and exchange.verdict is Verdict.MISS:
                exchange.verdict = Verdict.COLLAPSED
            if fill.shared:
                exchange.stored = False
                exchange.verdict = exchange.verdict if joined else Verdict.HIT
            own = None if joined or fill.shared else own_fields(fill.page, fill.entry)
            return from_entry(exchange, fill.entry, self.policy, self._clock(), fields=own)
        if fill.page.status in _FAILURES:
            stale = self._stale_if_error(exchange, Stale.STATUS, fill.page.status)
            if stale is not None:
                return stale
        if joined:
            # What cannot be stored is the other one's own answer: ask for this one's.
            return await self._forward(exchange, None)
        exchange.fwd_status = fill.page.status
        exchange.detail = fill.why_not
        return Reply(fill.page.status, self._described(exchange, fill.page.fields), fill.page.body, fill.page.reason)

    async def _fetch_page(self, exchange: Exchange) -> tuple[Fill, bool]:
        """Fetch the page of the exchange's key, or join who is fetching it already.

        The generation is part of the collapse key: who asks after a write does not join a fetch from before it.
        """
        path = exchange.head.target.path
        tags = (*tags_of_page(exchange.row, path), ANY_GROUP, *tags_of_uri(path))
        generation = self.policy.store.generation(tags)
        alone = exchange.verdict is Verdict.REVALIDATED  # joins nobody who may be content with another process's page
        lane = (exchange.key, generation, alone and self._shared is not None)
        anew = self._shared is not None and not self._shared.in_touch()
        return await self._fills.run(
            exchange.key, lane, lambda: self._find_or_fetch(exchange, generation, tags), anew=anew
        )

    async def _find_or_fetch(self, exchange: Exchange, generation: int, tags: tuple[str, ...]) -> Fill:
        """Another process's page, else the controller's, which the others may then have."""
        if self._shared is None or exchange.key is None:
            return await self._fetch_and_store(exchange, generation)
        fetch = partial(self._fetch_and_store, exchange, generation)
        return await find_or_fetch(
            self._shared, self.policy.store, exchange, tags=tags, generation=generation, fetch=fetch
        )

    async def _fetch_and_store(self, exchange: Exchange, generation: int) -> Fill:
        route, key = exchange.row, exchange.key
        rewriter = await self._rewriter()
        started = self._clock()
        # A page is always that of GET: a HEAD may be what found it stale.
        request = replace(self._request(exchange), method="GET")
        response = await self._upstream.send(request, None)
        fields = response_fields(response.head, route, rewriter, self._outgoing.via)
        body = await collect(response, self._max_rewrite_bytes)
        arrived = self._clock()
        self.writes.passed(exchange.head.target.path, response.head.status, body)
        if is_json(fields):
            if response.head.status == 200:
                await insist_on_json(body)
            body = await rewrite(body, rewriter if route.rewrite else None)
            fields = without_byte_exact(fields)
        page = Page(response.head.status, response.head.reason, fields, body)
        gone = says_gone(page, route)
        why_not = unstorable(page, absent=gone and key is not None and remembers_absence(route, key))
        entry = None
        if why_not is None and key is not None:
            path = exchange.head.target.path
            tags = tags_of_content(route, exchange.head.target, body)
            if gone:
                tags = (*tags_of_page(route, path), *tags_of_uri(path))  # whatever is created there or of its type
            tags += groups_of(response.head.fields, request.fields.get("host") or "")
            took, groups = arrived - started, self.policy.emit_groups
            entry = await mint(page, key, route.cache, tags, arrived, fetch_seconds=took, groups=groups)
            entry = entry.like(self.policy.store.peek(key))
            why_not = self.policy.store.put(entry, generation=generation)
        elif gone and key is not None:
            self.policy.store.discard(key)  # what is stored was there once
        return Fill(page, entry if why_not is None else None, why_not, arrived - started)

    def _stale_if_error(self, exchange: Exchange, reason: Stale, status: int | None = None) -> Reply | None:
        """The stored page in place of a failure (RFC 5861 §4), unless the client asked for another one.

        Only a page that is still stored: a write may have dropped the one that the request found at first.
        """
        if exchange.entry is None or exchange.key is None or exchange.verdict is Verdict.REVALIDATED:
            return None
        entry, now = self.policy.store.get(exchange.key), self._clock()
        if not isinstance(entry, Entry) or entry.key != exchange.key or now >= entry.error_until:
            return None
        exchange.stand_in(reason, status)
        return from_entry(exchange, entry, self.policy, now)

    def _refresh_behind(self, exchange: Exchange) -> None:
        """Fetch the page of a hit anew, unless that is under way."""
        if exchange.origin is not None:
            self._origin.refresh_behind(exchange)
            return
        key = exchange.key
        if key is None or key in self._behind:
            return
        question = Exchange(
            # The client has its answer: what it knows already must not make this one a 304.
            replace(exchange.head, fields=exchange.head.fields.without("if-none-match", "if-modified-since")),
            request_id=exchange.request_id,
            received_at=exchange.received_at,
        )
        question.route, question.key, question.principal = exchange.route, key, exchange.principal
        drift = self.policy.drift if exchange.drift else None
        if drift is not None and exchange.entry is not None and drift.begin():
            task = asyncio.ensure_future(self._probe(question, exchange.entry, drift))
        else:
            task = asyncio.ensure_future(self._refresh(question))
        self._behind[key] = task
        task.add_done_callback(lambda _: self._behind.pop(key))

    async def _refresh(self, exchange: Exchange) -> None:
        try:
            fill, _ = await self._fetch_page(exchange)
        except UpstreamError:
            self.refreshes["failed"] += 1  # the stale page stands until its window ends
            return
        failed = fill.page.status in _FAILURES
        self.refreshes["failed" if failed else "not-stored" if fill.entry is None else "stored"] += 1

    async def _probe(self, exchange: Exchange, served: Entry, drift: Drift) -> None:
        """Refresh a page that counts as fresh, and tell whether it was what the controller says now."""
        tags = (*tags_of_page(exchange.row, exchange.head.target.path), ANY_GROUP)
        generation = self.policy.store.generation(tags)
        exchange.verdict = Verdict.REVALIDATED  # by the controller, not by another process
        try:
            fill, _ = await self._fetch_page(exchange)
        except UpstreamError:
            drift.end("failed")
        except BaseException:
            drift.abandon()
            raise
        else:
            if self.policy.store.generation(tags) != generation:
                drift.end("overtaken")  # a write through this gateway, which drops what it makes wrong
            elif fill.entry is None:
                drift.end("failed" if fill.page.status in _FAILURES else "not-stored")
            else:
                drift.compare(served, fill.entry)

    # -- answers that are not stored

    async def _forward(self, exchange: Exchange, body: AsyncIterator[bytes] | None) -> Reply:
        """Send the request as it is and relay what comes back."""
        rewriter = await self._rewriter()
        started = self._clock()
        response = await self.writes.send(exchange, self._request(exchange), body)
        exchange.upstream_seconds = self._clock() - started
        exchange.fwd_status = response.head.status
        return await self._relay(exchange, response, rewriter)

    async def _relay(self, exchange: Exchange, response: UpstreamResponse, rewriter: Rewriter | None) -> Reply:
        route, head = exchange.row, response.head
        fields = response_fields(head, route, rewriter, self._outgoing.via)
        rewriting = rewriter is not None and route.rewrite and is_json(head.fields)
        fields = self._described(exchange, without_byte_exact(fields) if rewriting else fields)
        if exchange.head.method == "HEAD" or head.status in {204, 304}:
            await response.release()
            return Reply(head.status, fields, None, head.reason)
        if self.writes.names_job(exchange, head.status):
            content = await collect(response, self._max_rewrite_bytes)
            self.writes.accepted(exchange, content)
            return Reply(head.status, fields.without("content-length"), content, head.reason)
        if not rewriting and not is_job(exchange.head.target.path):
            return Reply(head.status, fields, await Relayed.begin(response), head.reason)
        body = await collect(response, self._max_rewrite_bytes)
        self.writes.passed(exchange.head.target.path, head.status, body)
        return Reply(head.status, fields, await rewrite(body, rewriter) if rewriting else body, head.reason)

    # -- shared by both

    def _described(self, exchange: Exchange, fields: Fields) -> Fields:
        return Fields((*fields.pairs, ("Cache-Status", describe(exchange, self.policy.cache_name))))

    async def _rewriter(self) -> Rewriter | None:
        return None if self._links is None else await self._links.rewriter()

    def _request(self, exchange: Exchange) -> RequestHead:
        rewriting = self._links is not None and exchange.row.rewrite
        return self._outgoing.request(exchange, plain=rewriting or self.writes.reads(exchange.head))
