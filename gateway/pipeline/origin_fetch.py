"""Mode `origin`, the asynchronous half: who asks the origin, who waits for whom, and what stands in when it fails.

One fetch for each target at a time: who asks for what is being fetched waits for the head. If that may be stored and
may be reused for the waiter's own request, all read the content as it comes in; if not, the waiters are let go at once
and ask for themselves, and for a short time nobody waits for this target again (hit-for-miss). What is asked, and what
the answer is good for, is in `origin_ask.py`; what is served from the store, in `origin.py`.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from gateway.core.conditional import Precondition, evaluate
from gateway.core.freshness import ERROR_STATUSES
from gateway.core.reuse import Action, Forwarded, Reuse, may_reuse
from gateway.core.unsafe_methods import SAFE_METHODS
from gateway.core.variants import selecting, selects
from gateway.pipeline import origin
from gateway.pipeline.collapse import Collapse
from gateway.pipeline.exchange import Exchange, Reply, Stale, Verdict
from gateway.pipeline.failures import stale_for
from gateway.pipeline.origin_ask import Asker
from gateway.pipeline.origin_store import OriginStore
from gateway.pipeline.outcomes import AbandonedError, Alone, Confirmed, Lead, Shared
from gateway.pipeline.ports import ContentError, OwnError, UpstreamError
from gateway.pipeline.recent import Recent
from gateway.pipeline.relayed import Relayed
from gateway.pipeline.resource import tags_of_uri
from gateway.pipeline.writing import repeated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
    from typing import TypeAlias

    from gateway.core.caching import StoredResponse
    from gateway.core.keys import CacheKey
    from gateway.core.model import Fields, RequestHead
    from gateway.pipeline.filling import Reader
    from gateway.pipeline.outcomes import Outcome
    from gateway.pipeline.outgoing import Outgoing
    from gateway.pipeline.ports import Links, PageStore, SharedStore, Upstream, UpstreamResponse

    Write: TypeAlias = Callable[[Exchange, RequestHead, AsyncIterator[bytes] | None], Awaitable[UpstreamResponse]]

# How long a waiter waits for the head of another's fetch, in seconds. Not shorter than what the origin itself is given,
# or a slow answer would be asked for by everybody.
WAIT: Final = 60.0
# How long after a failed refresh behind the next one is tried, in seconds.
RETRY_REFRESH: Final = 1.0
# What a refresh behind asks is the cache's own affair, whatever the client that caused it wanted.
_CLIENTS_OWN: Final = ("cache-control", "pragma", "range", "if-range", "if-none-match", "if-modified-since")
_NO_CONTENT: Final = frozenset({204, 304})


class OriginFetch:
    """Answers what the store could not.

    Args:
        store: the page store.
        cache_name: name in Cache-Status.
        upstream: the origin.
        links: where links in answers are to point; None to leave answers as they are.
        outgoing: how request fields are made for the origin.
        clock: epoch seconds.
        max_rewrite_bytes: the largest answer that is held to rewrite its links.
        max_entry_bytes: the most that is kept for one target.
        max_filling_bytes: the most that all answers under way may hold.
        wait: seconds a waiter waits for the head of another's fetch.
        write: sends what may change something, where it is the Cloud Foundry API that is behind: drops what such a
            write drops, sees it through when its client has gone, and watches the job it began.
        shared: what this process has in common with others.
    """

    def __init__(
        self,
        *,
        store: PageStore,
        cache_name: str,
        upstream: Upstream,
        links: Links | None,
        outgoing: Outgoing,
        clock: Callable[[], float],
        max_rewrite_bytes: int,
        max_entry_bytes: int,
        max_filling_bytes: int,
        wait: float = WAIT,
        write: Write | None = None,
        shared: SharedStore | None = None,
    ) -> None:
        self._pages: Final = store
        self._stored: Final = OriginStore(store, max_entry_bytes, outgoing.host or "", shared)
        self._cache_name: Final = cache_name
        self._upstream: Final = upstream
        self._write: Final = write
        self._clock: Final = clock
        self._wait: Final = wait
        self._asker: Final = Asker(
            stored=self._stored,
            upstream=upstream,
            links=links,
            outgoing=outgoing,
            clock=clock,
            max_rewrite_bytes=max_rewrite_bytes,
            max_filling_bytes=max_filling_bytes,
        )
        self._heads: Final[Collapse[Outcome]] = Collapse(OwnError)
        self._failed: Final = Recent(RETRY_REFRESH)
        self._refreshing: Final[set[CacheKey]] = set()

    async def answer(self, exchange: Exchange, body: AsyncIterator[bytes] | None) -> Reply:
        """Answer an exchange that needs the origin.

        Args:
            exchange: a decided exchange of a row of mode `origin`.
            body: the request content as it arrives, None when there is none.

        Raises:
            UpstreamError: the origin failed, and nothing stored may stand in.
            ContentError: the request content was at fault.
        """
        if exchange.key is None:
            return await self._pass(exchange, body)
        try:
            if exchange.head.method == "HEAD":
                return await self._ask_alone(exchange)
            return await self._get(exchange, exchange.key)
        except UpstreamError as error:
            stale = self._stale(exchange, stale_for(error))
            if stale is None:
                raise
            return stale

    def refresh_behind(self, exchange: Exchange) -> None:
        """Refresh the stored response that was just served; one refresh for each target at a time."""
        key = exchange.key
        if key is None or key in self._refreshing or self._failed.holds(key, self._clock()):
            return
        self._refreshing.add(key)
        task = self._asker.spawn(self._refresh(exchange, key))
        task.add_done_callback(lambda _: self._refreshing.discard(key))

    def adopt(self, outgoing: Outgoing) -> None:
        """Make request fields in another way from now on."""
        self._asker.outgoing = outgoing

    async def drain(self) -> None:
        """Wait for the refreshes and the answers that are coming in."""
        while self._asker.tasks:
            await asyncio.gather(*self._asker.tasks, return_exceptions=True)

    # -- who waits for whom

    async def _get(self, exchange: Exchange, key: CacheKey) -> Reply:
        lane: Hashable = ()
        for _ in range(3):
            generation = self._stored.generation(exchange.head.target.path)
            for shared in self._asker.under_way(key, generation):
                reply = await self._join(exchange, shared)
                if reply is not None:
                    return reply
            now = self._clock()
            if not origin.collapsible(exchange, now) or self._asker.hit_for_miss.holds(key, now):
                break
            outcome, lead = await self._headed(exchange, (key, generation, lane))
            if lead is not None:
                return await self._lead(exchange, outcome, lead)
            reply = await self._waited(exchange, outcome)
            if reply is not None:
                return reply
            if isinstance(outcome, Alone):
                break
            stored = outcome.stored if isinstance(outcome, Shared) else outcome.variant.response
            if not selects(exchange.head.fields, stored.vary, stored.selecting, stored.fields):
                # Another variant than this request's: wait together with those that want the same one.
                lane = (stored.vary, selecting(exchange.head.fields, stored.vary))
            elif not (isinstance(outcome, Shared) and outcome.filling.ended):
                break  # it is this request's, but may not be reused for it
        return await self._ask_alone(exchange)

    async def _headed(self, exchange: Exchange, lane: Hashable) -> tuple[Outcome, Lead | None]:
        """The head of the one fetch in `lane` and, for the one who began it, what is its alone."""
        lead = Lead()
        try:
            async with asyncio.timeout(self._wait if lane in self._heads else None):
                outcome, joined = await self._heads.run(lane, lambda: self._asker.ask(exchange, lead))
        except TimeoutError:
            raise UpstreamError("timeout", "waited in vain for the answer to another request") from None
        except BaseException:
            await lead.abandon()
            raise
        return outcome, None if joined else lead

    async def _ask_alone(self, exchange: Exchange) -> Reply:
        lead = Lead()
        try:
            outcome = await self._asker.ask(exchange, lead)
        except BaseException:
            await lead.abandon()
            raise
        return await self._lead(exchange, outcome, lead)

    async def _lead(self, exchange: Exchange, outcome: Outcome, lead: Lead) -> Reply:
        """The answer to the request that was sent."""
        match outcome:
            case Confirmed():
                return self._confirmed(exchange, outcome, Verdict.REVALIDATED)
            case Shared() if lead.reader is not None:
                return await self._read(exchange, outcome, lead.reader)
            case Alone() if lead.response is not None:
                stale = self._stale_for(exchange, outcome)
                if stale is not None:
                    await lead.abandon()
                    return stale
                exchange.fwd_status = outcome.status
                exchange.detail = outcome.reason
                return await self._relay(exchange, outcome, lead.response, lead.content)
        raise AbandonedError

    async def _waited(self, exchange: Exchange, outcome: Outcome) -> Reply | None:
        """The answer to a request that waited for another's, None when it has to ask for itself."""
        match outcome:
            case Shared():
                return await self._join(exchange, outcome)
            case Confirmed(variant=variant):
                if not self._reusable(exchange, variant.response):
                    return None
                exchange.collapsed = not outcome.elsewhere
                return self._confirmed(exchange, outcome, Verdict.COLLAPSED)
            case Alone():
                return self._stale_for(exchange, outcome)

    async def _join(self, exchange: Exchange, shared: Shared) -> Reply | None:
        """Read what another asked for, None when it does not answer this request or is not there any more."""
        if "range" in exchange.head.fields or not self._reusable(exchange, shared.stored):
            return None
        try:
            reader = shared.filling.reader()
        except LookupError:
            return None
        exchange.collapsed, verdict = True, exchange.verdict
        exchange.verdict = Verdict.COLLAPSED
        try:
            return await self._read(exchange, shared, reader)
        except AbandonedError:
            exchange.collapsed, exchange.verdict = False, verdict
            return None

    def _reusable(self, exchange: Exchange, stored: StoredResponse) -> bool:
        """Whether a response that another's request brought may answer this one's (RFC 9111 §4)."""
        reuse = may_reuse(exchange.head.method, exchange.head.fields, [stored], self._clock())
        return reuse.action in {Action.SERVE, Action.SERVE_AND_REFRESH}

    # -- answers

    def _confirmed(self, exchange: Exchange, found: Confirmed, verdict: Verdict) -> Reply:
        now = self._clock()
        if not found.elsewhere:
            exchange.verdict, exchange.fwd_status, exchange.stored = verdict, 304, True
            return origin.serve(exchange, found.variant, self._cache_name, now)
        # It is stored here by now: as if it had been when the request came.
        origin.lookup(exchange, self._pages, now, chance=1.0)
        if exchange.verdict not in {Verdict.HIT, Verdict.STALE}:
            exchange.verdict = Verdict.HIT  # a write came between
        if exchange.refresh:
            self.refresh_behind(exchange)
        exchange.saved_seconds = found.variant.seconds
        return origin.serve(exchange, found.variant, self._cache_name, now)

    async def _read(self, exchange: Exchange, shared: Shared, reader: Reader) -> Reply:
        """Answer with content that is coming in."""
        stored, now = shared.stored, self._clock()
        exchange.fwd_status, exchange.stored = stored.status, True
        fields = origin.served_fields(exchange, stored, self._cache_name, now)
        judged = evaluate("GET", exchange.head.fields, stored.fields, now) if stored.status == 200 else None
        if judged is Precondition.NOT_MODIFIED:
            # The content is collected all the same: others will want it.
            self._asker.spawn(_drained(reader))
            return Reply(304, origin.not_modified(fields))
        await reader.begin()
        if stored.status in _NO_CONTENT:
            self._asker.spawn(_drained(reader))
            return Reply(stored.status, fields, None, shared.phrase)
        whole = shared.filling.complete
        if whole is None:
            return Reply(stored.status, fields, reader, shared.phrase)
        await reader.aclose()
        return Reply(stored.status, fields.without("content-length"), whole, shared.phrase)

    async def _relay(
        self, exchange: Exchange, answer: Alone, response: UpstreamResponse, content: AsyncIterator[bytes] | None
    ) -> Reply:
        fields = origin.passed_fields(exchange, answer.fields, self._cache_name, self._clock())
        if exchange.head.method == "HEAD" or answer.status in _NO_CONTENT:
            await response.release()
            return Reply(answer.status, fields, None, answer.phrase)
        return Reply(answer.status, fields, await Relayed.begin(response, content), answer.phrase)

    def _stale_for(self, exchange: Exchange, answer: Alone) -> Reply | None:
        return self._stale(exchange, Stale.STATUS, answer.status) if answer.status in ERROR_STATUSES else None

    def _stale(self, exchange: Exchange, reason: Stale, status: int | None = None) -> Reply | None:
        """What is stored in place of a failure (RFC 5861 §4, RFC 9111 §4.2.4)."""
        variant = self._stored.standing_in(exchange, self._clock())
        if variant is None:
            return None
        exchange.stand_in(reason, status)
        return origin.serve(exchange, variant, self._cache_name, self._clock())

    # -- refresh behind

    async def _refresh(self, exchange: Exchange, key: CacheKey) -> None:
        found = exchange.origin
        if found is None or found.resource is None or self._stored.resource(key) is not found.resource:
            return  # somebody else was quicker
        head = replace(exchange.head, method="GET", fields=exchange.head.fields.without(*_CLIENTS_OWN))
        behind = Exchange(head, request_id=exchange.request_id, received_at=self._clock())
        behind.route, behind.principal, behind.key = exchange.route, exchange.principal, key
        reuse = Reuse(Action.VALIDATE, found.reuse.stored, found.reuse.state, Forwarded.STALE)
        behind.origin = origin.Lookup(found.resource, reuse)
        try:
            outcome, lead = await self._headed(behind, (key, self._stored.generation(head.target.path), ()))
        except UpstreamError:
            self._failed.note(key, self._clock())
            return  # the stale response stands until its window ends
        if isinstance(outcome, Alone):
            self._failed.note(key, self._clock())
        if lead is None:
            return
        if lead.reader is not None:
            await _drained(lead.reader)
        else:
            await lead.abandon()

    # -- what the cache has no part in

    async def _pass(self, exchange: Exchange, body: AsyncIterator[bytes] | None) -> Reply:
        """Send a request as it is, relay what comes back, and drop what a write made obsolete."""
        head, started = exchange.head, self._clock()
        writes = head.method not in SAFE_METHODS
        own = frozenset(tags_of_uri(head.target.path))
        rewriter = await self._asker.rewriter()
        request = self._asker.request(exchange)
        try:
            if writes and self._write is not None:
                response = await self._write(exchange, request, body)
            else:
                response = await self._upstream.send(request, body)
        except UpstreamError as error:
            if writes and (error.sent or repeated(request)):
                self._pages.invalidate(own)
            raise
        except (asyncio.CancelledError, ContentError):
            # The origin may have taken the write before its client went away.
            if writes:
                self._pages.invalidate(own)
            raise
        exchange.upstream_seconds = self._clock() - started
        exchange.fwd_status = response.head.status
        fields = self._asker.fields(exchange, response, rewriter)
        if writes:
            self._written(exchange, response.head.status, fields)
            if repeated(request):
                self._pages.invalidate(own)
        content = self._asker.content(exchange, response, fields, rewriter)
        return await self._relay(
            exchange, Alone(response.head.status, fields, response.head.reason, None), response, content
        )

    def _written(self, exchange: Exchange, status: int, fields: Fields) -> None:
        dropped = self._stored.written(exchange.head, status, fields, self._origins(exchange))
        if dropped:
            self._pages.invalidate(dropped)

    def _origins(self, exchange: Exchange) -> tuple[str, ...]:
        """The origins under which this server is known: as this client calls it, as all should, as the origin does."""
        out, host = self._asker.outgoing, exchange.head.fields.get("host")
        public = f"{out.external_scheme}://{out.external_host}"
        called = (f"{exchange.head.scheme}://{host}",) if host else ()
        inside = () if out.host is None else (f"http://{out.host}", f"https://{out.host}")
        return (*called, public, *inside)


async def _drained(reader: Reader) -> None:
    """Read what nobody waits for, so that it is stored."""
    try:
        async for _ in reader:
            pass
    except UpstreamError:
        pass
    finally:
        await reader.aclose()
