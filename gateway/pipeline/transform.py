"""What happens to a controller's answer on its way back: fields cleaned, links pointed at the gateway, pages minted.

Knows responses and links, nothing of who asked or of connections.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from gateway.core import forwarding
from gateway.core.absence import is_empty_page, says_absent
from gateway.core.by_name import ByName
from gateway.core.conditional import etag_steps, mint_etag
from gateway.core.errors import is_v3
from gateway.core.fields import cache_control
from gateway.core.groups import emitted
from gateway.core.model import Fields
from gateway.core.visibility import kind_of
from gateway.pipeline.entry import Entry
from gateway.pipeline.ports import UpstreamError
from gateway.pipeline.turns import in_turn

if TYPE_CHECKING:
    from gateway.core.keys import CacheKey
    from gateway.core.links import Rewriter
    from gateway.core.model import ResponseHead
    from gateway.core.routes import CacheRule, Route
    from gateway.pipeline.ports import UpstreamResponse

# Above this, rewriting and hashing are done in steps: at 200 MB/s this many bytes hold the event loop for about 1 ms.
BIG: Final = 256 * 1024
_SHARED_UP_TO: Final = 128  # characters of a field value; longer ones are hardly ever alike

# As the gateway itself writes it.
CACHE_GROUPS: Final = "Cache-Groups"

# Fields that speak of the exact bytes of a body, and lie once links in it have been rewritten.
_BYTE_EXACT: Final = frozenset({"content-length", "etag", "content-md5", "digest", "content-digest", "repr-digest"})
_IS_BYTE_EXACT: Final = ByName(_BYTE_EXACT.__contains__)


def is_json(fields: Fields) -> bool:
    """Whether the content is JSON and not encoded, i.e. whether there can be links to rewrite."""
    content_type = (fields.get("content-type") or "").partition(";")[0].strip().lower()
    encoding = (fields.get("content-encoding") or "identity").strip().lower()
    return (content_type == "application/json" or content_type.endswith("+json")) and encoding == "identity"


def response_fields(head: ResponseHead, route: Route, rewriter: Rewriter | None, via: str) -> Fields:
    """The fields for the client: hop-by-hop and private ones off, Via on, Location and Link rewritten.

    A redirect of a raw row leads to a signed URL of the blob store and stays as it is (controller.md §4).
    """
    fields = forwarding.response_fields(head, via=via, strip_principal=True)
    redirect = 300 <= head.status < 400
    said = head.fields  # whose names are looked up more than once
    if rewriter is None or not ("location" in said or "link" in said) or (redirect and not route.rewrite):
        return fields
    rewritten = {"location": rewriter.location, "link": rewriter.link_field}
    return Fields(
        (name, rewritten[name.lower()](value) if name.lower() in rewritten else value) for name, value in fields
    )


def without_byte_exact(fields: Fields) -> Fields:
    """The fields less those that describe the exact bytes of a body that may have been rewritten."""
    return Fields([pair for pair in fields.pairs if not _IS_BYTE_EXACT[pair[0]]])


async def collect(response: UpstreamResponse, limit: int) -> bytes:
    """The whole body of a response.

    Args:
        response: the controller's answer; released here.
        limit: the most bytes to hold.

    Raises:
        UpstreamError: it broke off, or is larger than `limit`.
    """
    pieces: list[bytes] = []
    size = 0
    try:
        body = response.in_hand()
        if body is not None:
            if len(body) > limit:
                raise _beyond(limit)
            return body
        async for piece in response.chunks():
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                raise _beyond(limit)
    finally:
        await response.release()
    if len(pieces) == 1:
        return pieces[0]
    body = b"".join(pieces)
    if size > BIG:
        await asyncio.sleep(0)  # what comes next takes its time, too
    return body


def _beyond(limit: int) -> UpstreamError:
    return UpstreamError("body-too-large", f"a response of more than {limit} bytes cannot be rewritten")


async def rewrite(body: bytes, rewriter: Rewriter | None) -> bytes:
    """The body with its links pointing at the gateway; big ones are done in steps, others in between."""
    if rewriter is None or not body:
        return body
    return await in_turn(rewriter.steps(body)) if len(body) > BIG else rewriter.rewrite(body)


async def insist_on_json(body: bytes) -> None:
    """See that a page is a whole JSON document: one that was cut by a Content-Length too small looks complete.

    Raises:
        UpstreamError: it is not.
    """
    whole = _is_whole(body)
    if len(body) > BIG:
        await asyncio.sleep(0)
    if not whole:
        raise UpstreamError("broken", "the page is no whole JSON document")


def _is_whole(body: bytes) -> bool:
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


@dataclass(frozen=True, slots=True)
class Page:
    """A complete answer that was fetched for a key.

    Attributes:
        status: status code.
        reason: reason phrase, None for the usual one.
        fields: the fields for the client that asked.
        body: the content, links rewritten.
    """

    status: int
    reason: str | None
    fields: Fields
    body: bytes = field(repr=False)


def says_gone(page: Page, route: Route) -> bool:
    """Whether a page is the controller's word, and not a router's, that what was asked for is not there."""
    if page.status == 200 or "x-cf-routererror" in page.fields or not is_json(page.fields):
        return False
    return says_absent(page.status, page.body, controllers=route.resource is not None)


def remembers_absence(route: Route, key: CacheKey) -> bool:
    """Whether it is kept under this key that there is nothing (negative caching).

    Not where several who see everything share pages: that their lists are the same bytes was observed, not that they
    miss the same resources.
    """
    return route.cache.negative_ttl > 0 and kind_of(key.domain) != "global"


def unstorable(page: Page, *, absent: bool = False) -> str | None:
    """Why this page is not kept in `policy` mode, or None: only plain, complete 200 JSON pages are, and what is absent.

    Args:
        page: the page.
        absent: whether it says, for certain, that there is nothing.
    """
    if page.status != 200 and not absent:
        return "status"
    if not is_json(page.fields):
        return "not-json"
    if "set-cookie" in page.fields:
        return "set-cookie"
    if (page.fields.combined("vary") or "accept").strip().lower() != "accept":
        return "vary"
    said = cache_control(page.fields.get_all("cache-control"))
    return "no-store" if said.no_store or said.private else None


def own_fields(page: Page, entry: Entry) -> Fields:
    """The fields of a stored page for the one whose request brought it: warnings, ids and timings are that one's.

    Not the controller's rate budget, which the cache makes meaningless; but what the gateway says of the page itself.
    """
    said = [pair for pair in entry.fields if pair[0] == CACHE_GROUPS]
    own = (pair for pair in page.fields if not pair[0].lower().startswith(("ratelimit", "x-ratelimit-")))
    return Fields([*own, *said])


def interned(fields: Fields) -> Fields:
    """The same fields, short names and values shared with all others: a hundred thousand pages say `nosniff` once."""
    return Fields(
        (sys.intern(name), sys.intern(value) if len(value) <= _SHARED_UP_TO else value) for name, value in fields
    )


async def mint(
    page: Page,
    key: CacheKey,
    rule: CacheRule,
    tags: tuple[str, ...],
    now: float,
    *,
    fetch_seconds: float = 0.0,
    groups: bool = False,
) -> Entry:
    """The entry for a page: validator minted, per-request fields off, expiry written down.

    Args:
        page: a page that is not `unstorable`.
        key: the key it was fetched for.
        rule: the route's cache rule.
        tags: what must drop it.
        now: when it had arrived, epoch seconds.
        fetch_seconds: how long the controller took for it.
        groups: whether caches behind the gateway are told what the page shows (RFC 9875 §2).
    """
    negative = page.status != 200 or (rule.negative_ttl > 0 and is_empty_page(page.body))
    windows = (0.0, 0.0) if page.status != 200 else (rule.stale_while_revalidate, rule.stale_if_error)
    big = len(page.body) > BIG
    etag = await in_turn(etag_steps(page.body)) if big else mint_etag(page.body)
    fresh_until = now + (rule.negative_ttl if negative else rule.ttl)
    fields = interned(without_byte_exact(forwarding.cacheable_fields(page.fields)))
    if not is_v3(key.path):
        # On v3 it depends on who asks (representation.from_entry).
        fields = fields.plus(*(("Vary", value) for value in page.fields.get_all("vary")))
    if groups and (named := emitted(tags)):
        fields = fields.plus((CACHE_GROUPS, named))
    return Entry(
        key=key,
        fields=fields,
        body=page.body,
        etag=etag,
        stored_at=now,
        fresh_until=fresh_until,
        refresh_until=fresh_until + windows[0],
        error_until=fresh_until + windows[1],
        tags=tags,
        fetch_seconds=fetch_seconds,
        status=page.status,
        transformable=not cache_control(page.fields.get_all("cache-control")).no_transform,
    )
