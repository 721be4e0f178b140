"""Mode `origin`: what of the origin's answers is stored, updated and dropped (RFC 9111 §3, §4.3.4, §4.3.5, §4.4).

Turns the core's verdicts into changes of the page store; never waits and never talks to anyone. Every change is made
under the generation that was read before the request was sent, so a write that passed meanwhile wins.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from gateway.core.caching import NoStoreReason, StoredResponse, may_store, request_directives, stored_response
from gateway.core.fields import targeted, vary_names
from gateway.core.freshness import freshness
from gateway.core.groups import ANY_GROUP, KIND, groups_of, invalidated_by
from gateway.core.invalidation import kind_of
from gateway.core.model import PUBLIC_DOMAIN
from gateway.core.reuse import may_reuse
from gateway.core.unsafe_methods import invalidates
from gateway.core.validation import HeadEffect, head_effect, selected_by, updated_fields
from gateway.pipeline.origin import Lookup
from gateway.pipeline.resource import Resource, Variant, merged, tags_of_uri, with_variant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.core.keys import CacheKey
    from gateway.core.model import Fields, RequestHead
    from gateway.pipeline.exchange import Exchange
    from gateway.pipeline.ports import PageStore, SharedStore, Stamp

# The gateway states these anew for each client, so what the origin varied on is not what the client sent.
_RESTATED: Final = frozenset({"forwarded", "via", "x-forwarded-for", "x-real-ip", "x-vcap-request-id"})
# Answers to a validation after which the stored response is known to be no longer right, stored anew or not.
_REPLACING: Final = frozenset({*range(200, 300), 301, 302, 303, 307, 308, 404, 410})

# Why an answer is not stored although the same answer to another request might be.
_OF_THE_REQUEST: Final = frozenset({NoStoreReason.AUTHORIZATION, NoStoreReason.REQUEST_NO_STORE})


@dataclass(frozen=True, slots=True)
class Answered:
    """The head of an answer, and when it was asked for and given.

    Attributes:
        status: status code.
        fields: the fields for the client, connection-level ones already off.
        asked_at: when the request was sent, epoch seconds.
        arrived_at: when the head arrived.
        generation: of the target's tags, read before the request was sent.
        stamp: the moment before that on the clock that processes share, None where there is none.
    """

    status: int
    fields: Fields
    asked_at: float
    arrived_at: float
    generation: int
    stamp: Stamp | None = None


class OriginStore:
    """The page store as mode `origin` uses it.

    Args:
        pages: the page store.
        limit: the most bytes that are kept for one target.
        origin: the origin's host and port, to which its cache groups are confined.
        shared: what processes have in common, None for a process that is alone.
    """

    def __init__(self, pages: PageStore, limit: int, origin: str = "", shared: SharedStore | None = None) -> None:
        self._pages: Final = pages
        self.shared: Final = shared
        self.limit: Final = limit
        self._origin: Final = origin

    def generation(self, path: str) -> int:
        """The generation of a path's tags, to be read before a request for it is sent; its groups are not known yet."""
        return self._pages.generation((*tags_of_uri(path), ANY_GROUP))

    def resource(self, key: CacheKey | None) -> Resource | None:
        """What is stored under exactly this key now."""
        found = None if key is None else self._pages.get(key)
        return found if isinstance(found, Resource) and found.key == key else None

    def judge(self, exchange: Exchange, answered: Answered) -> StoredResponse | NoStoreReason:
        """Whether an answer may be stored: the record to keep with its content, or why not.

        Args:
            exchange: the request it answers; has a key.
            answered: its head.
        """
        return self._record(exchange, exchange.head.method, answered.status, answered.fields, answered)

    def _record(
        self, exchange: Exchange, method: str, status: int, fields: Fields, answered: Answered
    ) -> StoredResponse | NoStoreReason:
        request, now = exchange.head.fields, answered.arrived_at
        directives = targeted(fields)
        fresh = freshness(status, fields, directives, request_time=answered.asked_at, response_time=now)
        verdict = may_store(
            method,
            request,
            status,
            fields,
            directives=directives,
            fresh=fresh,
            now=now,
            isolated=exchange.key is not None and exchange.key.domain != PUBLIC_DOMAIN.id,
        )
        if verdict.reason is not None:
            return verdict.reason
        if not _RESTATED.isdisjoint(vary_names(fields.get_all("vary"))):
            return NoStoreReason.VARY_ANY
        return stored_response(request, status, fields, directives=directives, fresh=fresh, now=now)

    def adopt(self, exchange: Exchange, found: Resource, generation: int, now: float) -> Lookup | None:
        """Store here what another process stored, beside what is stored here already.

        Args:
            exchange: a request that is to be sent to the origin; has a key.
            found: what the other process stored.
            generation: of the target's tags, read before it was looked for.
            now: epoch seconds.

        Returns:
            What may be done with all of it; None where that is no more than with what is stored here.
        """
        current = self.resource(exchange.key)
        whole = self._grouped(found if current is None else merged(current, found, self.limit))
        reuse = may_reuse(exchange.head.method, exchange.head.fields, whole.responses, now)
        if self._pages.put(whole, generation=generation) is not None:
            return None
        held = None if exchange.origin is None else exchange.origin.reuse.stored
        if held is not None and (reuse.stored is None or reuse.stored.freshness.born <= held.freshness.born):
            return None
        return Lookup(whole, reuse)

    def keep(self, exchange: Exchange, variant: Variant, generation: int) -> str | None:
        """Store a complete response; returns None, or the store's reason against it."""
        if exchange.key is None:
            return "no-key"
        tags = tags_of_uri(exchange.head.target.path)
        resource = with_variant(
            self.resource(exchange.key), variant, exchange.head.fields, key=exchange.key, tags=tags, limit=self.limit
        )
        return self._put(resource, generation)

    def _put(self, resource: Resource, generation: int) -> str | None:
        """Store a resource, here and where processes share."""
        grouped = self._grouped(resource)
        why_not = self._pages.put(grouped, generation=generation)
        if why_not is None and self.shared is not None:
            self.shared.offer_resource(grouped)
        return why_not

    def _grouped(self, resource: Resource) -> Resource:
        """A resource with the groups of all its variants (RFC 9875 §2)."""
        groups = (group for one in resource.responses for group in groups_of(one.fields, self._origin))
        paths = (tag for tag in resource.tags if kind_of(tag) != KIND)
        return replace(resource, tags=tuple(dict.fromkeys((*paths, *groups))))

    def freshen(self, exchange: Exchange, answered: Answered) -> Variant | None:
        """Let a 304 update what it speaks of (RFC 9111 §4.3.4).

        Args:
            exchange: a request that validated the response which its look-up selected.
            answered: the head of the 304.

        Returns:
            The validated response as it is now, which may be served even where it may no longer be stored; None when
            the 304 speaks of another one.
        """
        found = exchange.origin
        if found is None or found.resource is None or found.reuse.stored is None:
            return None
        validated, current = found.reuse.stored, self.resource(exchange.key)
        known = current is not None and any(response is validated for response in current.responses)
        base = current if known and current is not None else found.resource
        chosen = {id(response) for response in selected_by(answered.fields, base.responses, validated)}
        if id(validated) not in chosen:
            return None
        served = found.resource.variant_of(validated)
        variants: list[Variant] = []
        for variant in base.variants:
            if id(variant.response) not in chosen:
                variants.append(variant)
                continue
            updated, kept = self._updated(exchange, variant, answered, own=variant.response is validated)
            if variant.response is validated:
                served = updated
            if kept is not None:
                variants.append(kept)
        if current is not None and not known:
            # Somebody else has stored anew since the look-up, and what he stored is newer than what we asked about.
            return served
        if variants:
            self._put(replace(base, variants=tuple(variants)), answered.generation)
        else:
            self._pages.discard(base.key)
        return served

    def head_answered(self, exchange: Exchange, answered: Answered) -> None:
        """Let a 200 to a HEAD confirm or outdate the stored response to GET (RFC 9111 §4.3.5)."""
        resource, stored = self._selected(exchange)
        if resource is None or stored is None or answered.status != 200 or stored.status != 200:
            return
        held = resource.variant_of(stored)
        if head_effect(stored, answered.fields, len(held.body)) is HeadEffect.OUTDATES:
            self._drop(resource, held)
            return
        _, kept = self._updated(exchange, held, answered, own=True)
        if kept is None:
            self._drop(resource, held)
            return
        variants = tuple(kept if variant is held else variant for variant in resource.variants)
        self._put(replace(resource, variants=variants), answered.generation)

    def outdate(self, exchange: Exchange, answered: Answered) -> None:
        """Drop the stored response that an answer which is not stored itself has replaced."""
        resource, stored = self._selected(exchange)
        if resource is not None and stored is not None and answered.status in _REPLACING:
            self._drop(resource, resource.variant_of(stored))

    def standing_in(self, exchange: Exchange, now: float) -> Variant | None:
        """The stored response that may be served in place of an error (RFC 5861 §4, RFC 9111 §4.2.4).

        Looked for anew: what the look-up found may have been dropped by a write or replaced since.
        """
        resource, request = self.resource(exchange.key), exchange.head.fields
        if resource is None:
            return None
        stored = may_reuse(exchange.head.method, request, resource.responses, now).stored
        asked = request_directives(request)
        if stored is None or asked.no_store or not stored.freshness.stands_in(asked, now):
            return None
        return resource.variant_of(stored)

    def written(self, head: RequestHead, status: int, response: Fields, origins: Sequence[str]) -> frozenset[str]:
        """The tags that an answered write drops (RFC 9111 §4.4), and the groups that its answer names (RFC 9875 §3)."""
        targets = invalidates(head.method, status, str(head.target), response, origins)
        groups = invalidated_by(head.method, response, self._origin)
        return groups.union(tag for target in targets for tag in tags_of_uri(target.partition("?")[0]))

    def _selected(self, exchange: Exchange) -> tuple[Resource | None, StoredResponse | None]:
        """The response that the look-up selected, if it is stored still."""
        stored = None if exchange.origin is None else exchange.origin.reuse.stored
        resource = self.resource(exchange.key)
        if stored is None or resource is None or all(response is not stored for response in resource.responses):
            return None, None
        return resource, stored

    def _updated(
        self, exchange: Exchange, variant: Variant, answered: Answered, *, own: bool
    ) -> tuple[Variant, Variant | None]:
        """A variant with the fields of an answer that confirmed it, and what is to be stored of it.

        Args:
            exchange: the request that was answered.
            variant: what is stored.
            answered: the head of the 304, or of the 200 to a HEAD.
            own: whether the exchange's request selects this variant; else what it varies on stays as it was.

        Returns:
            What may be served to this request, and what is kept: the same; the old one, where it is only this request
            whose answers are not stored; or nothing, where the origin does not want it stored any more.
        """
        old = variant.response
        fields = updated_fields(old.fields, answered.fields, answered.arrived_at)
        directives = targeted(fields)
        fresh = freshness(
            old.status, fields, directives, request_time=answered.asked_at, response_time=answered.arrived_at
        )
        record = self._record(exchange, "GET", old.status, fields, answered)
        if isinstance(record, StoredResponse):
            if not own or record.vary == old.vary:
                record = replace(record, vary=old.vary, selecting=old.selecting)
            updated = replace(variant, response=record, stamp=answered.stamp or variant.stamp)
            return updated, updated
        served = replace(variant, response=StoredResponse(old.status, fields, old.vary, old.selecting, fresh))
        return served, variant if record in _OF_THE_REQUEST else None

    def _drop(self, resource: Resource, variant: Variant) -> None:
        rest = resource.kept(lambda other: other is not variant)
        self._pages.discard(resource.key)
        if rest is not None:
            self._put(rest, self._pages.generation((*rest.tags, ANY_GROUP)))
