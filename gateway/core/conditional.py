"""Conditional requests against a representation that is at hand (RFC 9110 §13, RFC 9111 §4.3.2).

Judges preconditions only: how a representation came to be at hand, and whether it is fresh, is not known here.
Fields that only mean something to the origin, or are malformed, are as if absent.
"""

from __future__ import annotations

from enum import Enum
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from gateway.core.dates import http_date
from gateway.core.etags import ANY, entity_tag, entity_tags, strong_match, weak_match
from gateway.core.model import Fields

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

_DIGEST_BYTES: Final = 16
_STEP: Final = 256 * 1024
# A Last-Modified this much older than Date can be a strong validator (RFC 9110 §8.8.2.2).
_STRONG_AFTER: Final = 60
# What a 304 repeats of the 200 (RFC 9110 §15.4.5), and what later caches go by (RFC 9213).
_IN_304: Final = frozenset(
    {"cache-control", "cdn-cache-control", "content-location", "date", "etag", "expires", "vary"}
)


class Precondition(Enum):
    """What the preconditions of a request make of it; the value is the status code."""

    PROCEED = 200
    NOT_MODIFIED = 304
    FAILED = 412


def mint_etag(body: bytes) -> str:
    """A strong entity-tag made of the content alone, so that every replica mints the same one.

    About 1.3 ms for each megabyte: for large bodies do it in steps.
    """
    return f'"{blake2b(body, digest_size=_DIGEST_BYTES).hexdigest()}"'


def etag_steps(body: bytes) -> Generator[None, None, str]:
    """As `mint_etag`, in steps of a third of a millisecond."""
    digest = blake2b(digest_size=_DIGEST_BYTES)
    content = memoryview(body)
    for start in range(0, len(body), _STEP):
        digest.update(content[start : start + _STEP])
        yield
    return f'"{digest.hexdigest()}"'


def matching(if_none_match: Sequence[str], etags: Sequence[str]) -> str | None:
    """Which of a page's entity-tags a client that sent these If-None-Match lines holds; None for none of them.

    For pages of mode `policy`, whose entity-tags the gateway mints. "*" is not a match: it names no page the client
    could hold, and the controller, which knows no preconditions, answers it in full (recordings: protocol-022;
    RFC 9111 §4.3.2 only recommends 304).

    Args:
        if_none_match: the field lines in wire order.
        etags: of all representations that would answer the request, as they are sent, the best first.
    """
    if not if_none_match:
        return None
    if len(if_none_match) == 1 and if_none_match[0] in etags:
        return if_none_match[0]
    tags = entity_tags(if_none_match)
    if tags is ANY:
        return None
    known = {tag.opaque for tag in tags}  # weak comparison: whether either is weak does not count
    return next((etag for etag in etags if (held := entity_tag(etag)) is not None and held.opaque in known), None)


def evaluate(method: str, request: Fields, stored: Fields, now: float) -> Precondition:
    """Judge a request's preconditions in the order of RFC 9110 §13.2.2, If-Range excepted.

    Args:
        method: the request method; for GET and HEAD a match means 304, for the others 412.
        request: the request fields.
        stored: the fields of the representation, a 200 that would be sent without preconditions.
        now: epoch seconds, for two-digit years.
    """
    held = entity_tag(stored.get("etag"))
    reads = method in {"GET", "HEAD"}
    if "if-match" in request:
        tags = entity_tags(request.get_all("if-match"))
        if not (tags is ANY or (held is not None and any(strong_match(tag, held) for tag in tags))):
            return Precondition.FAILED
    elif "if-unmodified-since" in request:
        limit, modified = _sole_date(request, "if-unmodified-since", now), _modified(stored, now)
        if limit is not None and modified is not None and modified > limit:
            return Precondition.FAILED
    if "if-none-match" in request:
        tags = entity_tags(request.get_all("if-none-match"))
        if tags is ANY or (held is not None and any(weak_match(tag, held) for tag in tags)):
            return Precondition.NOT_MODIFIED if reads else Precondition.FAILED
    elif reads and _unmodified_since(request, stored, now):
        return Precondition.NOT_MODIFIED
    return Precondition.PROCEED


def not_modified_fields(stored: Fields) -> Fields:
    """The fields of a 304 in place of a 200 with these (RFC 9110 §15.4.5).

    Last-Modified only where there is no entity-tag; the caller adds Age and the like.
    """
    kept = _IN_304 if "etag" in stored else _IN_304 | {"last-modified"}
    return Fields(pair for pair in stored if pair[0].lower() in kept)


def range_applies(request: Fields, stored: Fields, now: float) -> bool:
    """Whether the Range field of a request may be obeyed: If-Range is absent or holds (RFC 9110 §13.1.5).

    Both kinds of validator are compared strongly: an entity-tag must not be weak, a date must equal a Last-Modified
    that is at least a minute older than the response's Date. Anything else means the whole representation.

    Args:
        request: the request fields.
        stored: the fields of the representation.
        now: epoch seconds, for two-digit years.
    """
    values = request.get_all("if-range")
    if not values:
        return True
    if len(values) > 1:
        return False
    asked = entity_tag(values[0])
    if asked is not None:
        held = entity_tag(stored.get("etag"))
        return held is not None and strong_match(asked, held)
    instant, modified, made = http_date(values[0], now), _modified(stored, now), _sole_date(stored, "date", now)
    if instant is None or modified is None or made is None:
        return False
    return instant == modified and made - modified >= _STRONG_AFTER


def _unmodified_since(request: Fields, stored: Fields, now: float) -> bool:
    """If-Modified-Since against Last-Modified, else Date, else not at all (RFC 9111 §4.3.2)."""
    since = _sole_date(request, "if-modified-since", now)
    modified = _modified(stored, now)
    if modified is None:
        modified = _sole_date(stored, "date", now)
    return since is not None and modified is not None and modified <= since


def _modified(stored: Fields, now: float) -> int | None:
    return _sole_date(stored, "last-modified", now)


def _sole_date(fields: Fields, name: str, now: float) -> int | None:
    """The date of a field that stands there once."""
    values = fields.get_all(name)
    return http_date(values[0], now) if len(values) == 1 else None
