"""Cache-Status (RFC 9211): what this cache did with a request, for whoever debugs it. Decides nothing."""

from __future__ import annotations

from functools import lru_cache
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
    if hit and ttl is not None and key is None and detail is None:
        return f"{_name(cache)};hit;ttl={_clamped(ttl)}"  # nearly every answer
    write = _remembered if ttl is None and key is None else _written
    return write(cache, None if hit else fwd, fwd_status, ttl, bool(stored), bool(collapsed), key, detail, hit=hit)


def _written(  # noqa: PLR0917 - its arguments are what is remembered
    cache: str,
    went: Forward | None,
    fwd_status: int | None,
    ttl: int | None,
    stored: bool,  # noqa: FBT001 - as `render` has them
    collapsed: bool,  # noqa: FBT001
    key: str | None,
    detail: str | None,
    *,
    hit: bool,
) -> str:
    found: dict[str, BareItem | None] = {
        "hit": True if hit else None,
        "fwd": None if went is None else Token(went),
        "fwd-status": None if went is None else fwd_status,
        "ttl": None if ttl is None else _clamped(ttl),
        "stored": True if went is not None and stored else None,
        "collapsed": True if went is not None and collapsed else None,
        "key": None if key is None else _printable(key),
        "detail": None if detail is None else _token_or_string(detail),
    }
    parameters = {name: value for name, value in found.items() if value is not None}
    return serialize_member(Item(_token_or_string(cache), parameters))


_remembered: Final = lru_cache(maxsize=256)(_written)  # what no target and no clock has a part in: few different ones


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


@lru_cache(maxsize=16)
def _name(cache: str) -> str:
    return serialize_bare_item(_token_or_string(cache))


def _clamped(seconds: int) -> int:
    return max(-_MAX_TTL, min(seconds, _MAX_TTL))


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
