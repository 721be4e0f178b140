"""How a stored page answers a request: as it is, or encoded (RFC 9110 §12.5.3), or 304, and what is said beside it.

A page that is worth encoding is served with `Vary: Accept-Encoding` always, and with an entity-tag for each coding. A
coding that a client would like and that is not made yet is asked for and not waited for: the page goes as it is. There
is no 406: who refuses every coding there is, identity too, gets identity.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from gateway.core.cache_status import render as cache_status
from gateway.core.conditional import matching
from gateway.core.encodings import Accepted, accepted
from gateway.core.errors import is_v3
from gateway.core.model import Fields
from gateway.pipeline.exchange import Bypass, Exchange, Reply, Verdict

if TYPE_CHECKING:
    from gateway.core.model import RequestHead
    from gateway.pipeline.decide import Policy
    from gateway.pipeline.entry import Encoded, Entry

# The controller's framework ignores such an Accept, since browsers mean nothing by it.
_LIKE_A_BROWSER: Final = re.compile(r",\s*\*/\*|\*/\*\s*,")
_SERVED: Final = frozenset({Verdict.HIT, Verdict.STALE})


class Encoder(Protocol):
    """Makes encoded variants of stored pages, some time.

    Attributes:
        codings: those it makes, the preferred first.
        min_bytes: it makes none of smaller pages.
    """

    codings: tuple[str, ...]
    min_bytes: int

    def want(self, entry: Entry, coding: str) -> None:
        """Make this variant when there is time. Never waits; asking again for what is being made costs nothing."""


class Representation(NamedTuple):
    """What is sent of a page. A tuple, because it is built on every hit.

    Attributes:
        body: the content.
        etag: its entity-tag.
        coding: its content coding, None for identity.
        varies: whether Accept-Encoding has a say.
        matched: the entity-tag that the client has already, so that a 304 suffices; None when it has none.
    """

    body: bytes
    etag: str
    coding: str | None = None
    varies: bool = False
    matched: str | None = None


def represent(head: RequestHead, entry: Entry, encoder: Encoder | None) -> Representation:
    """Choose what of a page answers a request.

    Args:
        head: the request.
        entry: the page.
        encoder: makes variants, None when there are none.
    """
    fields = head.fields
    asked = fields.get_all("if-none-match") if entry.status == 200 else []
    if encoder is None or not entry.transformable or len(entry.body) < encoder.min_bytes:
        matched = matching(asked, (entry.etag,)) if asked else None
        return Representation(entry.body, entry.etag, None, False, matched)  # noqa: FBT003 - a tuple's place
    says = accepted(tuple(fields.get_all("accept-encoding")), encoder.codings)
    body, etag, coding = entry.body, entry.etag, None
    if says.preferred and not (
        "cache-control" in fields and "no-transform" in (fields.combined("cache-control") or "").lower()
    ):
        made = _best(entry, says.preferred, encoder)
        if made is not None and made.body is not None:
            body, etag, coding = made.body, made.etag, made.coding
    matched = matching(asked, (etag, *_acceptable_tags(entry, says))) if asked else None
    return Representation(body, etag, coding, True, matched)  # noqa: FBT003


def _best(entry: Entry, preferred: tuple[str, ...], encoder: Encoder) -> Encoded | None:
    """The best form that is there. Where a better one is not made yet, it is asked for; what is worse is not."""
    for coding in preferred:
        made = entry.variant(coding)
        if made is None:
            encoder.want(entry, coding)
            there = (one for one in map(entry.variant, preferred) if one is not None and one.body is not None)
            return next(there, None)
        if made.body is not None:
            return made
    return None


def _acceptable_tags(entry: Entry, says: Accepted) -> tuple[str, ...]:
    """The tags of every representation of this page that the client could be sent.

    Not of the others: a cache in between may hold one of those, and may ask with it on behalf of this client.
    """
    tags = [coded_etag(entry.etag, coding) for coding in says.taken]
    return (entry.etag, *tags) if says.identity or not says.taken else tuple(tags)


def coded_etag(etag: str, coding: str) -> str:
    """The strong entity-tag of a page's encoded form (RFC 9110 §8.8.3.3): it is another sequence of bytes."""
    return f'{etag[:-1]}-{coding}"'


def from_entry(exchange: Exchange, entry: Entry, policy: Policy, now: float, *, fields: Fields | None = None) -> Reply:
    """Render a stored page as the answer to this request: Age, Cache-Status, its coding, and 304 where it suffices.

    Args:
        exchange: the request; its verdict says how the page came to be served.
        entry: the page, of the exchange's own domain.
        policy: the name in Cache-Status, and who makes encoded forms.
        now: epoch seconds.
        fields: those of the controller's answer to this very request, None to repeat the stored ones.
    """
    own = entry.fields if fields is None else fields
    chosen = represent(exchange.head, entry, policy.encoder)
    etag = chosen.etag if chosen.matched is None else chosen.matched
    extra = [("ETag", etag), ("Cache-Status", describe(exchange, policy.cache_name, ttl=entry.fresh_until - now))]
    if exchange.verdict in _SERVED:
        extra.append(("Age", str(max(0, int(now - entry.stored_at)))))
    if fields is None and _echoes_accept(exchange.head):
        extra.append(("Vary", "Accept"))
    if chosen.varies:
        extra.append(("Vary", "Accept-Encoding"))
    if chosen.matched is not None:
        return Reply(304, Fields([*extra, *(("Vary", value) for value in own.get_all("vary"))]))
    if chosen.coding is not None:
        extra.append(("Content-Encoding", chosen.coding))
    answer = own.plus(*extra)
    if exchange.head.method == "HEAD":
        return Reply(entry.status, answer.plus(("Content-Length", str(len(chosen.body)))))
    return Reply(entry.status, answer, chosen.body)


def _echoes_accept(head: RequestHead) -> bool:
    """Whether the controller would say `Vary: Accept` (controller.md §4; recordings: protocol-058, protocol-060)."""
    accept = head.fields.combined("accept")
    return bool(accept) and is_v3(head.target.path) and not _LIKE_A_BROWSER.search(accept or "")


def describe(exchange: Exchange, cache_name: str, *, ttl: float | None = None) -> str:
    """The Cache-Status member of this exchange (RFC 9211)."""
    seconds = None if ttl is None else int(ttl)
    detail = exchange.bypass.value if exchange.bypass else exchange.detail
    match exchange.verdict:
        case Verdict.HIT | Verdict.STALE if exchange.fwd_status is None and exchange.detail is None:
            return cache_status(cache_name, hit=True, ttl=seconds)
        case Verdict.HIT | Verdict.STALE:
            return cache_status(cache_name, fwd="stale", fwd_status=exchange.fwd_status, ttl=seconds, detail=detail)
        case Verdict.REVALIDATED:
            return cache_status(
                cache_name, fwd="request", fwd_status=exchange.fwd_status, stored=exchange.stored, ttl=seconds
            )
        case Verdict.MISS | Verdict.COLLAPSED:
            return cache_status(
                cache_name,
                fwd="miss" if exchange.entry is None else "stale",
                fwd_status=exchange.fwd_status,
                stored=exchange.stored,
                collapsed=exchange.collapsed,
                ttl=seconds,
                detail=detail,
            )
        case Verdict.BYPASS | Verdict.NONE:
            method = exchange.bypass is Bypass.METHOD
            return cache_status(cache_name, fwd="method" if method else "bypass", detail=None if method else detail)
