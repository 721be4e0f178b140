"""May a response be stored, and what of it (RFC 9111 §3).

A shared cache's decision, with its named reason, and the record that comes of it. Content, stores and waiting are not
known here. Reuse is in `reuse.py`, validation in `validation.py`, time in `freshness.py`, Vary in `variants.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from gateway.core.dates import format_date, http_date
from gateway.core.fields import HOP_BY_HOP, VARY_ANY, Directives, cache_control, split_list, vary_names
from gateway.core.freshness import HEURISTIC_STATUSES, Source
from gateway.core.variants import Selecting, selecting

if TYPE_CHECKING:
    from gateway.core.freshness import Freshness
    from gateway.core.model import Fields

# Final status codes whose caching this cache understands (RFC 9110 §15); 206 and 304 are not among them.
UNDERSTOOD: Final = HEURISTIC_STATUSES | {
    201, 202, 205, 302, 303, 307, 400, 401, 402, 403, 406, 407, 408, 409, 411, 412, 413, 415, 416, 417,
    421, 422, 425, 426, 428, 429, 431, 451, 500, 502, 503, 504, 505, 511,
}  # fmt: skip
_EXPLICIT: Final = frozenset({Source.S_MAXAGE, Source.MAX_AGE, Source.EXPIRES, Source.POLICY})


class NoStoreReason(Enum):
    """Why a response is not stored; the `detail` of Cache-Status."""

    METHOD = "method"
    NOT_FINAL = "not-final"
    PARTIAL = "partial-content"
    NOT_MODIFIED = "not-modified"
    INCOMPLETE = "incomplete"
    NOT_UNDERSTOOD = "not-understood"
    REQUEST_NO_STORE = "request-no-store"
    NO_STORE = "no-store"
    PRIVATE = "private"
    AUTHORIZATION = "authorization"
    VARY_ANY = "vary-any"
    SET_COOKIE = "set-cookie"
    NOT_CACHEABLE = "not-cacheable"
    NEVER_REUSABLE = "never-reusable"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a response is stored.

    Attributes:
        reason: why not, None when it is.
    """

    reason: NoStoreReason | None = None

    @property
    def store(self) -> bool:
        """Whether it is stored."""
        return self.reason is None


STORE: Final = Verdict()


def request_directives(request: Fields) -> Directives:
    """The directives of a request; `Pragma: no-cache` counts where there is no Cache-Control (RFC 9111 §5.4)."""
    if "cache-control" not in request and "pragma" in request:
        return cache_control([value for value in split_list(request.get_all("pragma")) if value.lower() == "no-cache"])
    return cache_control(request.get_all("cache-control"))


def may_store(
    method: str,
    request: Fields,
    status: int,
    response: Fields,
    *,
    directives: Directives,
    fresh: Freshness,
    now: float,
    complete: bool = True,
    isolated: bool = False,
) -> Verdict:
    """Whether a shared cache stores this response (RFC 9111 §3).

    Beyond the RFC's prohibitions it declines what would never be reused: `Vary: *`, and a response without a validator
    that is stale on arrival, or needs validation, and that no window of staleness covers. It also declines a cookie
    that would be handed to others without the origin having given the response an explicit lifetime to be shared for:
    §7.3 leaves that to the origin, and origins that say nothing of caching have not thought of it.

    Args:
        method: the request method.
        request: the request fields.
        status: the response's status code.
        response: the response fields.
        directives: the response's (`fields.targeted`).
        fresh: its freshness.
        now: when it arrived, epoch seconds.
        complete: whether all of the content arrived (§3.3).
        isolated: whether the key itself keeps principals apart, so that a response to a request with Authorization
            can reach nobody else (§3.5 speaks of shared caches because theirs does not).
    """
    reason = (
        _unstorable(method, status, complete=complete)
        or _forbidden(request, status, directives, isolated=isolated)
        or _pointless(status, response, directives, fresh, now)
    )
    return STORE if reason is None else Verdict(reason)


def _unstorable(method: str, status: int, *, complete: bool) -> NoStoreReason | None:
    """What this cache does not keep, whatever the fields say."""
    if method != "GET":
        return NoStoreReason.METHOD
    if status < 200:
        return NoStoreReason.NOT_FINAL
    if status == 206:
        return NoStoreReason.PARTIAL
    if status == 304:
        return NoStoreReason.NOT_MODIFIED
    return None if complete else NoStoreReason.INCOMPLETE


def _forbidden(request: Fields, status: int, directives: Directives, *, isolated: bool) -> NoStoreReason | None:
    """What a field of the request or the response forbids."""
    understood = status in UNDERSTOOD
    if directives.must_understand and not understood:
        return NoStoreReason.NOT_UNDERSTOOD
    # must-understand makes no-store count only where the status code is not understood (RFC 9111 §5.2.2.3).
    if directives.no_store and not directives.must_understand:
        return NoStoreReason.NO_STORE
    if request_directives(request).no_store:
        return NoStoreReason.REQUEST_NO_STORE
    if directives.private:
        return NoStoreReason.PRIVATE
    shareable = isolated or directives.public or directives.must_revalidate or directives.s_maxage is not None
    if "authorization" in request and not shareable:
        return NoStoreReason.AUTHORIZATION
    return None


def _pointless(
    status: int, response: Fields, directives: Directives, fresh: Freshness, now: float
) -> NoStoreReason | None:
    """What says nothing of its cacheability, or cannot be used again."""
    explicit = directives.max_age is not None or directives.s_maxage is not None
    explicit = explicit or ("expires" in response and not directives.targeted)
    if not (explicit or directives.public or status in HEURISTIC_STATUSES):
        return NoStoreReason.NOT_CACHEABLE
    if vary_names(response.get_all("vary")) == VARY_ANY:
        return NoStoreReason.VARY_ANY
    granted = fresh.source in _EXPLICIT and now < fresh.fresh_until and not fresh.validate_always
    if "set-cookie" in storable_fields(response, directives) and not granted:
        return NoStoreReason.SET_COOKIE
    if "etag" in response or "last-modified" in response:
        return None
    usable_until = max(fresh.fresh_until, fresh.refresh_until, fresh.error_until)
    return NoStoreReason.NEVER_REUSABLE if fresh.validate_always or usable_until <= now else None


def storable_fields(response: Fields, directives: Directives) -> Fields:
    """The fields kept with a stored response (RFC 9111 §3.1).

    Left out are connection-level fields, those Connection names, and those a qualified `private` or `no-cache` names:
    the latter may not be repeated without validation, and a 304 brings them anew (§5.2.2.4, §5.2.2.7).

    Args:
        response: the response fields as they came.
        directives: the response's (`fields.targeted`).
    """
    named = {name.lower() for name in split_list(response.get_all("connection"))}
    return response.without(*HOP_BY_HOP, *named, *directives.private_fields, *directives.no_cache_fields)


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """What reuse must know of a stored response; the content is kept elsewhere.

    Attributes:
        status: status code.
        fields: `storable_fields`, with a Date.
        vary: the request fields it varies on (`fields.vary_names`).
        selecting: their values in the request it answered (`variants.selecting`).
        freshness: how long it may be used.
    """

    status: int
    fields: Fields
    vary: tuple[str, ...]
    selecting: Selecting
    freshness: Freshness


def stored_response(
    request: Fields, status: int, response: Fields, *, directives: Directives, fresh: Freshness, now: float
) -> StoredResponse:
    """Make the record of a response that `may_store` lets pass.

    A missing or unreadable Date is set to the time of arrival (RFC 9110 §6.6.1).

    Args:
        request: the fields of the request it answers, as the origin saw them.
        status: status code.
        response: the response fields.
        directives: the response's (`fields.targeted`).
        fresh: its freshness.
        now: when it arrived, epoch seconds.
    """
    fields = storable_fields(response, directives)
    if http_date(fields.get("date") or "", now) is None:
        fields = fields.without("date").plus(("Date", format_date(now)))
    names = vary_names(response.get_all("vary"))
    return StoredResponse(status, fields, names, selecting(request, names), fresh)
