"""Cache keys: what makes two requests ask for the same page (RFC 9111 §2).

A key holds the visibility domain, the path, the query in one canonical order and the negotiated variant; the method is
always GET, whose page answers HEAD too. The rule for every part: two requests may share a key only if the controller
answers them with the same bytes; where that is not certain they get different keys, or none. Nothing here knows tokens.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import unquote_to_bytes

from gateway.core.visibility import encode

if TYPE_CHECKING:
    from collections.abc import Sequence


class CacheKey(NamedTuple):
    """The identity of a page. A tuple, because it is built, hashed and compared on every hit.

    Attributes:
        domain: id of the visibility domain.
        path: the canonical path, still percent-encoded.
        query: the canonical query, see `canonical_query`.
        variant: the negotiated representation, see `accept_class`.
    """

    domain: str
    path: str
    query: str
    variant: str

    def encode(self) -> bytes:
        """The key as bytes for a shared store: injective, each part preceded by its length.

        Characters that no UTF-8 has (lone surrogates from undecodable bytes) stay distinct.
        """
        return encode(*self).encode("utf-8", "surrogatepass")


# Queries that were judged before: clients ask for few, and the judgement costs more than the look-up.
_JUDGED: Final = 8192
_LONGEST: Final = 512  # longer ones are not remembered: clients choose them
_BROKEN_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
# The controller (Rack) reads `[page]`, `page]` and `page[x]` as the parameter `page`.
_PARAMETER: Final = re.compile(rb"[\[\]]*([^\[\]]*)")


def shareable_query(query: str | None) -> bool:
    """Whether the meaning of a query is certain enough to file a page under it.

    It is not with ";", a separator for some servers only; with bytes or escapes that no query has; and with a token in
    the query (RFC 6750 §2.3), which belongs to one principal and into no key.

    Args:
        query: the part behind "?", or None.
    """
    if not query:
        return True
    return _shareable(query) if len(query) <= _LONGEST else _shareable.__wrapped__(query)


@lru_cache(_JUDGED)
def _shareable(query: str) -> bool:
    if ";" in query or " " in query or not (query.isascii() and query.isprintable()) or "access_token" in query:
        return False
    if "%" not in query:
        return True
    names = (pair.partition("=")[0] for pair in query.split("&"))
    disguised = any("%" in name and b"access_token" in unquote_to_bytes(name) for name in names)
    return not disguised and not _BROKEN_ESCAPE.search(query)


def canonical_query(query: str | None) -> str:
    """The query with its parameters in one order: "" when there is none, else "?" and the pairs.

    The order of different parameters means nothing to the controller; among equal names the last one wins, and
    bracketed ones build on each other (controller.md §1), so these keep their order. Every pair keeps its spelling:
    values that differ stay different, and so does a bare "?" from no query at all.

    Args:
        query: the part behind "?", or None.
    """
    if query is None:
        return ""
    return _ordered(query) if len(query) <= _LONGEST else _ordered.__wrapped__(query)


@lru_cache(_JUDGED)
def _ordered(query: str) -> str:
    if "&" not in query:
        return f"?{query}"
    return f"?{'&'.join(sorted(query.split('&'), key=_parameter))}"


def _parameter(pair: str) -> bytes:
    """The name of the parameter that a pair speaks of, as the controller understands it."""
    name = pair.partition("=")[0]
    if name.isidentifier():
        return name.encode()
    decoded = _PARAMETER.match(unquote_to_bytes(name.replace("+", " ")))
    return decoded[1] if decoded else b""


_ACCEPTED_MOST: Final = frozenset({"application/json", "*/*"})
_TOKEN: Final = r"[A-Za-z0-9!#$&^_.+-]+"  # noqa: S105 - RFC 9110 §5.6.2, less what the controller's parser refuses
_MEDIA_RANGE: Final = re.compile(rf"\s*(\*/\*|{_TOKEN}/(?:\*|{_TOKEN}))((?:\s*;\s*{_TOKEN}={_TOKEN})*)\s*")
_ZERO: Final = re.compile(r";\s*[qQ]=0(?:\.0*)?\s*(?:;|\Z)")
_JSON: Final = frozenset({"application/json", "application/*", "*/*"})


def accept_class(values: Sequence[str]) -> str | None:
    """Which stored representation satisfies an Accept field (RFC 9110 §12.5.1).

    The controller answers every Accept it can parse with JSON and garbage with 406 (recordings: protocol-052 to -060).
    So "json" needs a field that is well-formed throughout and names JSON; whatever else goes past the cache.

    Args:
        values: the field's values in wire order, none when it is absent.

    Returns:
        "json", or None when the request must not be answered from the cache.
    """
    if not values or (len(values) == 1 and values[0] in _ACCEPTED_MOST):
        return "json"
    accepted = False
    for member in ",".join(values).split(","):
        media = _MEDIA_RANGE.fullmatch(member)
        if media is None:
            return None
        accepted = accepted or (media[1].lower() in _JSON and not _ZERO.search(media[2]))
    return "json" if accepted else None
