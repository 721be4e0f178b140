"""Requests that may change something: what they drop from the store, when, and the jobs they begin.

A write drops its pages when its answer arrives, however it ends but for a refusal (4xx); once more when its job ends.
A refusal is none where it may be the answer to the second of two: the first may have done what the second cannot.
A client that goes away does not take its write with it: the controller has it already, so its answer is awaited and
drops the pages again. Only one that still waits for its turn goes with its client. Knows nothing of how pages are made.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from gateway.core.groups import emitted, invalidated_by
from gateway.core.invalidation import SAFE_METHODS, dropped_by
from gateway.core.model import Fields, OutgoingHead, Target
from gateway.pipeline.exchange import Exchange
from gateway.pipeline.jobs import PendingJobs, is_job, job_path, job_path_v2
from gateway.pipeline.ports import ContentError, UpstreamError
from gateway.pipeline.resource import tags_of_uri
from gateway.pipeline.transform import collect
from gateway.pipeline.watch import JobWatch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from gateway.core.model import RequestHead
    from gateway.pipeline.outgoing import Outgoing
    from gateway.pipeline.ports import PageStore, Upstream, UpstreamResponse

# A job is a few hundred bytes; what is larger is none.
_LARGEST_JOB: Final = 1024 * 1024
# Of the fields of a write, those that say who asks, from where.
_WHO: Final = frozenset(
    ("authorization", "host", "forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto")
)


class Writes:
    """Sends what is not answered from the store and keeps the store true to it.

    Args:
        upstream: the controller.
        store: the pages.
        outgoing: how request fields are made for the controller.
        clock: epoch seconds.

    Attributes:
        outgoing: as given, until there are other settings.
        jobs: the jobs that the gateway watches.
    """

    def __init__(
        self,
        *,
        upstream: Upstream,
        store: PageStore,
        outgoing: Outgoing,
        clock: Callable[[], float],
        groups: bool = False,
    ) -> None:
        self._upstream: Final = upstream
        self._store: Final = store
        self._groups: Final = groups
        self.outgoing = outgoing
        self._pending: Final = PendingJobs()
        self._settling: Final[set[asyncio.Task[None]]] = set()
        self.jobs: Final = JobWatch(ask=self._ask, drop=store.invalidate, clock=clock)

    async def send(
        self, exchange: Exchange, request: RequestHead, body: AsyncIterator[bytes] | None
    ) -> UpstreamResponse:
        """The controller's answer to a request; what a write made obsolete is dropped before this returns.

        Args:
            exchange: what is sent.
            request: its head for the controller.
            body: its content.

        Raises:
            UpstreamError: no answer.
            ContentError: the content is at fault.
        """
        if request.method in SAFE_METHODS:
            return await self._upstream.send(request, body)
        drops = _drops(request)
        sending = asyncio.ensure_future(self._upstream.send(request, body))
        try:
            response = await asyncio.shield(sending)
        except UpstreamError as error:
            if error.sent or repeated(request):
                self._store.invalidate(drops)
            raise
        except ContentError:
            self._store.invalidate(drops)
            raise
        except asyncio.CancelledError:
            if isinstance(request, OutgoingHead) and request.queued:
                sending.cancel()  # it waits for its turn: the controller has not seen it
                raise
            self._store.invalidate(drops)
            task = asyncio.ensure_future(self._settle(exchange, request, drops, sending))
            self._settling.add(task)
            task.add_done_callback(self._settling.discard)
            raise
        self._answered(exchange, request, drops, response)
        return response

    def passed(self, path: str, status: int, body: bytes) -> None:
        """An answer on its way to a client: if it says that a job is over, drop what the job changed.

        Args:
            path: path of the request that was answered.
            status: status of the answer.
            body: its content.
        """
        drops = self._pending.ended(path, status, body)
        if drops:
            self._store.invalidate(drops)
            self.jobs.seen(path)

    @staticmethod
    def reads(head: RequestHead) -> bool:
        """Whether the answer to a request may have to be read here: it tells of a job, or, in v2, may name one."""
        return is_job(head.target.path) or (head.target.path[:4] == "/v2/" and head.method not in SAFE_METHODS)

    @staticmethod
    def names_job(exchange: Exchange, status: int) -> bool:
        """Whether the content of an answer is to be shown to `accepted`: v2 names its jobs there, uploads with 201."""
        path, method = exchange.head.target.path, exchange.head.method
        return status in {201, 202} and method not in SAFE_METHODS and path[:4] == "/v2/"

    def accepted(self, exchange: Exchange, body: bytes) -> None:
        """Watch the job that the content of a v2 answer describes, if it does."""
        path = job_path_v2(body)
        if path is not None:
            self._pending.remember(path, _drops(exchange.head))
            self._watch(exchange, path, _drops(exchange.head))

    async def drain(self) -> None:
        """Stop watching jobs, wait for writes whose clients have gone."""
        await self.jobs.stop()
        try:
            while self._settling:
                await asyncio.gather(*self._settling, return_exceptions=True)
        finally:
            for task in self._settling:
                task.cancel()

    def _answered(
        self, exchange: Exchange, request: RequestHead, drops: frozenset[str], response: UpstreamResponse
    ) -> None:
        head = response.head
        drops |= invalidated_by(request.method, head.fields, request.fields.get("host") or "")
        if not 400 <= head.status < 500 or repeated(request):
            self._store.invalidate(drops)
            if self._groups and (named := emitted(drops)):
                response.head = replace(head, fields=head.fields.plus(("Cache-Group-Invalidation", named)))
        if head.status == 202:
            location = head.fields.get("location")
            self._pending.remember(location, drops)
            path = job_path(location)
            if path is not None:
                self._watch(exchange, path, drops)

    async def _settle(
        self,
        exchange: Exchange,
        request: RequestHead,
        drops: frozenset[str],
        sending: asyncio.Future[UpstreamResponse],
    ) -> None:
        """See a write through whose client has gone."""
        try:
            response = await sending
        except (UpstreamError, ContentError):
            self._store.invalidate(drops)
            return
        self._answered(exchange, request, drops, response)
        await response.release()

    def _watch(self, exchange: Exchange, path: str, drops: frozenset[str]) -> None:
        who = Fields(pair for pair in exchange.head.fields if pair[0].lower() in _WHO)
        if "authorization" not in who:
            return
        head = replace(
            exchange.head,
            method="GET",
            target=Target(path),
            fields=who.plus(("Accept", "application/json")),
            has_body=False,
        )
        question = Exchange(head, request_id=exchange.request_id, received_at=exchange.received_at)
        question.principal = exchange.principal
        expires = None if exchange.principal is None else float(exchange.principal.expires)
        self.jobs.begin(self.outgoing.request(question, plain=True), drops, expires=expires)

    async def _ask(self, request: RequestHead) -> tuple[int, bytes]:
        response = await self._upstream.send(request, None)
        return response.head.status, await collect(response, _LARGEST_JOB)


def repeated(request: RequestHead) -> bool:
    """Whether a request that was answered, or failed, may have arrived at an earlier attempt."""
    return isinstance(request, OutgoingHead) and request.repeated


def _drops(request: RequestHead) -> frozenset[str]:
    """By the controller's relations, and by the target itself (RFC 9111 §4.4)."""
    path = request.target.path
    return dropped_by(request.method, path).union(tags_of_uri(path))
