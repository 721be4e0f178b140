"""Validating stored responses, and what the answers change (RFC 9111 §3.2, §4.3).

Builds the conditional request, picks which stored responses a 304 speaks of, merges its fields into them, and judges
what a HEAD says about a stored GET. Whether a request needs validation is decided in `caching.py`.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final

from gateway.core.caching import storable_fields
from gateway.core.dates import format_date, http_date
from gateway.core.etags import entity_tag, strong_match, weak_match
from gateway.core.fields import targeted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.core.caching import StoredResponse
    from gateway.core.model import Fields

# They describe the bytes that are kept, which a 304 does not bring anew (RFC 9111 §3.2).
_DESCRIBES_CONTENT: Final = ("content-length", "content-encoding", "content-range")
# Preconditions of the client's own copy and parts of the content: the cache asks about its own copy, and for all of it.
_REPLACED: Final = ("if-none-match", "if-modified-since", "if-range", "range")


class Validated(Enum):
    """What the answer to a validation means (RFC 9111 §4.3.3)."""

    FRESHENS = "freshens"  # 304: update the stored response and serve it
    REPLACES = "replaces"  # the answer itself is served, and stored if it may be
    FAILED = "failed"  # 5xx: served as it is, or the stored response stands in where that is allowed


class HeadEffect(Enum):
    """What a 200 to a HEAD means for a stored response to GET (RFC 9111 §4.3.5)."""

    FRESHENS = "freshens"
    OUTDATES = "outdates"


def validation_request(request: Fields, stored: StoredResponse, now: float) -> Fields | None:
    """The request fields that ask whether a stored response is still right (RFC 9111 §4.3.1).

    Its entity-tag goes into If-None-Match and its Last-Modified into If-Modified-Since, in place of the client's own
    conditions, which are judged afterwards against what comes of it.

    Args:
        request: the client's fields.
        stored: the response to validate.
        now: epoch seconds, for two-digit years.

    Returns:
        The fields, or None when the stored response has no usable validator.
    """
    validators = []
    etag, modified = stored.fields.get("etag"), stored.fields.get("last-modified")
    if etag is not None and entity_tag(etag) is not None:
        validators.append(("If-None-Match", etag))
    if modified is not None and http_date(modified, now) is not None:
        validators.append(("If-Modified-Since", modified))
    return request.without(*_REPLACED).plus(*validators) if validators else None


def judge(status: int) -> Validated:
    """What a status code means as the answer to a validation (RFC 9111 §4.3.3)."""
    if status == 304:
        return Validated.FRESHENS
    return Validated.FAILED if 500 <= status < 600 else Validated.REPLACES


def selected_by(
    response: Fields, candidates: Sequence[StoredResponse], validated: StoredResponse | None
) -> list[StoredResponse]:
    """The stored responses that a 304 freshens (RFC 9111 §4.3.4).

    With a strong entity-tag: all that carry the same one, or, having none, the same Last-Modified. With a weak
    validator: the most recent that carries it. With none: the one whose validators the request sent, since it is all
    the origin can have meant.

    Args:
        response: the fields of the 304.
        candidates: every response stored under the request's key.
        validated: the one whose validators were sent, if it was one.

    Returns:
        Those to freshen; empty when the 304 speaks of a response that is not stored, and nothing may be updated.
    """
    etag, modified = entity_tag(response.get("etag")), response.get("last-modified")
    if etag is None and modified is None:
        return [validated] if validated is not None else []
    if etag is None:
        same = [stored for stored in candidates if stored.fields.get("last-modified") == modified]
    else:
        same = []
        for stored in candidates:
            held = entity_tag(stored.fields.get("etag"))
            if held is None:
                agrees = modified is not None and stored.fields.get("last-modified") == modified
            else:
                agrees = weak_match(held, etag) if etag.weak else strong_match(held, etag)
            if agrees:
                same.append(stored)
        if not etag.weak:
            return same
    return [max(same, key=lambda stored: stored.freshness.born)] if same else []


def updated_fields(stored: Fields, response: Fields, now: float) -> Fields:
    """The fields of a stored response after a 304, or a HEAD's 200, freshened it (RFC 9111 §3.2).

    Every field of the answer replaces all lines of its name, but for those never stored and those that describe the
    content. Date and Age always become the answer's: the old ones say when the old answer was made. Work out directives
    (`fields.targeted`), freshness and `caching.stored_response` anew from the result, for any of it may have changed.

    Args:
        stored: the stored fields.
        response: the fields of the answer.
        now: when the answer arrived, epoch seconds.
    """
    newer = storable_fields(response, targeted(response)).without(*_DESCRIBES_CONTENT)
    if http_date(newer.get("date") or "", now) is None:
        newer = newer.without("date").plus(("Date", format_date(now)))
    replaced = {name.lower() for name, _ in newer}
    return stored.without(*replaced, "age").plus(*newer)


def head_effect(stored: StoredResponse, response: Fields, content_length: int) -> HeadEffect:
    """What a 200 to a HEAD, for a request that selects this response, says about it (RFC 9111 §4.3.5).

    Args:
        stored: the stored response to GET.
        response: the fields of the HEAD's 200.
        content_length: length of the stored content in bytes.
    """
    for name in ("etag", "last-modified"):
        if name in response and response.get(name) != stored.fields.get(name):
            return HeadEffect.OUTDATES
    lengths = response.get_all("content-length")
    if any(length != str(content_length) for length in lengths):
        return HeadEffect.OUTDATES
    return HeadEffect.FRESHENS
