"""Cache-Status (RFC 9211): what this cache did with a request, for whoever debugs it. Decides nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from gateway.core.structured import BareItem, Item, StructuredFieldError, Token, parse_list
from gateway.core.structured_writer import serialize_bare_item, serialize_member

if TYPE_CHECKING:
    from collections.abc import Sequence

FIELD: Final = "Cache-Status"
Forward = Literal["bypass", "method", "uri-miss", "vary-miss", "miss", "request", "stale", "partial"]
_MAX_TTL: Final = 10**15 - 1


def render(
    cache: str = "gateway",
    *,
    hit: bool = False,
    fwd: Forward | None = None,
    fwd_status: int | None = None,
    ttl: int | None = None,
    stored: bool | None = None,
    collapsed: bool | None = None,
    key: str | None = None,
    detail: str | None = None,
) -> str:
    """One member of Cache-Status, parameters in the order of RFC 9211 §2; whatever a field cannot carry is left out.

    Args:
        cache: the name of this cache.
        hit: whether the answer came from the cache without the origin; `fwd` is left out then (§2.2).
        fwd: why the request went to the origin (§2.2).
        fwd_status: the origin's status code (§2.3).
        ttl: remaining freshness in seconds, negative when stale (§2.4).
        stored: whether the answer was stored (§2.5); written when True.
        collapsed: whether the request waited for another's answer (§2.6); written when True.
        key: the cache key (§2.7).
        detail: anything else, of this cache's own vocabulary (§2.8).
    """
    parameters: dict[str, BareItem] = {}
    if hit:
        parameters["hit"] = True
    elif fwd is not None:
        parameters["fwd"] = Token(fwd)
        if fwd_status is not None:
            parameters["fwd-status"] = fwd_status
    if ttl is not None:
        parameters["ttl"] = max(-_MAX_TTL, min(ttl, _MAX_TTL))
    if not hit and fwd is not None:
        if stored:
            parameters["stored"] = True
        if collapsed:
            parameters["collapsed"] = True
    if key is not None:
        parameters["key"] = _printable(key)
    if detail is not None:
        parameters["detail"] = _token_or_string(detail)
    return serialize_member(Item(_token_or_string(cache), parameters))


def append(existing: Sequence[str], own: str) -> str:
    """Put this cache's member last, nearest the client (RFC 9211 §2).

    An upstream list that does not parse is dropped: a List is read as a whole, and it would take ours down with it.

    Args:
        existing: the upstream's Cache-Status lines.
        own: this cache's member, from `render`.
    """
    try:
        upstream = parse_list(existing)
    except StructuredFieldError:
        return own
    return ", ".join([*(serialize_member(member) for member in upstream), own])


def _token_or_string(text: str) -> BareItem:
    token = Token(text)
    try:
        serialize_bare_item(token)
    except StructuredFieldError:
        return _printable(text)
    return token


def _printable(text: str) -> str:
    """A String holds printable ASCII alone: every other character becomes "?"."""
    return "".join(character if " " <= character <= "~" else "?" for character in text)
