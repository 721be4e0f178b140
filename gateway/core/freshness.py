"""How old a stored response is and how long it may be used (RFC 9111 §4.2, RFC 5861).

All of it is settled once, when the response is stored, as instants that a look-up compares with `now`. Both cache modes
end in the same `Freshness`: `origin` by the response's fields, `policy` by the operator's rule. Knows nothing of keys,
variants or storage.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Final

from gateway.core.dates import http_date
from gateway.core.fields import age as age_field

if TYPE_CHECKING:
    from gateway.core.fields import Directives
    from gateway.core.model import Fields
    from gateway.core.routes import CacheRule

# Status codes cacheable without explicit freshness (RFC 9110 §15.1); not 206, since partial content is not kept.
HEURISTIC_STATUSES: Final = frozenset({200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501})
# What counts as an error for stale-if-error (RFC 5861 §4).
ERROR_STATUSES: Final = frozenset({500, 502, 503, 504})
_HEURISTIC_FRACTION: Final = 0.1
_HEURISTIC_LIMIT: Final = 86400.0


class Source(Enum):
    """What a freshness lifetime was taken from."""

    S_MAXAGE = "s-maxage"
    MAX_AGE = "max-age"
    EXPIRES = "expires"
    HEURISTIC = "heuristic"
    NONE = "none"
    POLICY = "policy"


class State(Enum):
    """What freshness allows a look-up to do with a stored response."""

    FRESH = "fresh"
    STALE_SERVE_AND_REFRESH = "stale-serve-and-refresh"  # stale-while-revalidate
    STALE_ACCEPTED = "stale-accepted"  # the client's max-stale
    STALE_NEEDS_VALIDATION = "stale-needs-validation"
    FRESH_NEEDS_VALIDATION = "fresh-needs-validation"  # the response's own no-cache
    CLIENT_WANTS_VALIDATION = "client-wants-validation"  # the request's no-cache, max-age or min-fresh


@dataclass(frozen=True, slots=True)
class Lifetime:
    """A freshness lifetime.

    Attributes:
        seconds: never negative.
        source: what it was taken from.
    """

    seconds: float
    source: Source


@dataclass(frozen=True, slots=True)
class Freshness:
    """How long a stored response may be used; instants in epoch seconds.

    Attributes:
        born: when its age was 0; the age at any time is the distance to it.
        fresh_until: it is fresh before this instant.
        refresh_until: until then it is served while one request refreshes it (RFC 5861 §3).
        error_until: until then it stands in for an error (RFC 5861 §4).
        source: what the lifetime was taken from.
        stale_forbidden: whether it must never be served stale, whoever permits it (RFC 9111 §4.2.4).
        validate_always: whether even fresh it must not be served without validation (RFC 9111 §5.2.2.4).
    """

    born: float
    fresh_until: float
    refresh_until: float
    error_until: float
    source: Source
    stale_forbidden: bool = False
    validate_always: bool = False

    def age(self, now: float) -> float:
        """current_age in seconds (RFC 9111 §4.2.3), never negative."""
        return max(0.0, now - self.born)

    def ttl(self, now: float) -> float:
        """Freshness left, in seconds; negative when stale."""
        return self.fresh_until - now

    def outdated(self, now: float) -> Freshness:
        """The same as if it ended now; the stale windows begin now, and none ends later than it did."""
        if now >= self.fresh_until:
            return self
        earlier = self.fresh_until - now
        return replace(
            self,
            fresh_until=now,
            refresh_until=max(now, self.refresh_until - earlier),
            error_until=max(now, self.error_until - earlier),
        )

    def state(self, asked: Directives, now: float) -> State:
        """What this request may do with the response (RFC 9111 §4.2.4, §5.2.1).

        Args:
            asked: the request's directives.
            now: epoch seconds.
        """
        if self.validate_always:
            return State.FRESH_NEEDS_VALIDATION if now < self.fresh_until else State.STALE_NEEDS_VALIDATION
        if asked.no_cache or asked.max_age == 0 or (asked.max_age is not None and self.age(now) > asked.max_age):
            return State.CLIENT_WANTS_VALIDATION
        ttl = self.ttl(now)
        if asked.min_fresh is not None and ttl < asked.min_fresh:
            return State.CLIENT_WANTS_VALIDATION
        if ttl > 0:
            return State.FRESH
        if not self.stale_forbidden:
            # A request with max-age takes nothing stale unless it says max-stale too (RFC 9111 §5.2.1.1).
            if now < self.refresh_until and asked.max_age is None:
                return State.STALE_SERVE_AND_REFRESH
            if asked.max_stale is not None and -ttl <= asked.max_stale:
                return State.STALE_ACCEPTED
        return State.STALE_NEEDS_VALIDATION

    def stands_in(self, asked: Directives, now: float) -> bool:
        """Whether it may be served in place of an error: unreachable, too late, or one of `ERROR_STATUSES`.

        A client that says no-cache wants no answer that the origin did not confirm, and gets the error.

        Args:
            asked: the request's directives; its own stale-if-error counts as well (RFC 5861 §4).
            now: epoch seconds.
        """
        if self.validate_always or asked.no_cache:
            return False
        if now < self.fresh_until:
            return True
        return not self.stale_forbidden and now < max(self.error_until, self.fresh_until + (asked.stale_if_error or 0))


def lifetime(status: int, fields: Fields, directives: Directives, response_time: float) -> Lifetime:
    """The freshness lifetime of a response in a shared cache (RFC 9111 §4.2.1, §4.2.2).

    s-maxage before max-age before Expires less Date, else a tenth of the time since Last-Modified, at most a day, and
    that only for `HEURISTIC_STATUSES` or what is marked public. An Expires that is no date, or stands there twice with
    different dates, lies in the past (§5.3); under targeted directives it does not count (RFC 9213 §2.2).

    Args:
        status: status code.
        fields: the response fields.
        directives: those this cache obeys (`fields.targeted`).
        response_time: when the response arrived, epoch seconds; stands in for a missing Date.
    """
    if directives.s_maxage is not None:
        return Lifetime(float(directives.s_maxage), Source.S_MAXAGE)
    if directives.max_age is not None:
        return Lifetime(float(directives.max_age), Source.MAX_AGE)
    date = date_value(fields, response_time)
    if "expires" in fields and not directives.targeted:
        instants = {http_date(value, response_time) for value in fields.get_all("expires")}
        expires = instants.pop()
        if instants or expires is None:
            return Lifetime(0.0, Source.EXPIRES)
        return Lifetime(max(0.0, expires - date), Source.EXPIRES)
    if status in HEURISTIC_STATUSES or directives.public:
        modified = http_date(fields.get("last-modified") or "", response_time)
        if modified is not None and modified < date:
            return Lifetime(min((date - modified) * _HEURISTIC_FRACTION, _HEURISTIC_LIMIT), Source.HEURISTIC)
    return Lifetime(0.0, Source.NONE)


def date_value(fields: Fields, response_time: float) -> float:
    """When the response was made: its Date, or its arrival when that is missing or no date (RFC 9110 §6.6.1)."""
    date = http_date(fields.get("date") or "", response_time)
    return response_time if date is None else float(date)


def initial_age(fields: Fields, request_time: float, response_time: float) -> float:
    """corrected_initial_age in seconds (RFC 9111 §4.2.3): how old a response was when it arrived.

    The larger of what Date and what Age say; a Date ahead of our clock says 0, an unreadable Age as well.

    Args:
        fields: the response fields.
        request_time: when the request was sent, epoch seconds.
        response_time: when the response arrived.
    """
    apparent_age = max(0.0, response_time - date_value(fields, response_time))
    response_delay = max(0.0, response_time - request_time)
    corrected_age = (age_field(fields.get_all("age")) or 0) + response_delay
    return max(apparent_age, corrected_age)


def freshness(
    status: int,
    fields: Fields,
    directives: Directives,
    *,
    request_time: float,
    response_time: float,
    stale_if_error: float = 0.0,
) -> Freshness:
    """Mode `origin`: what the response's own fields allow.

    Staleness is forbidden by must-revalidate, proxy-revalidate and s-maxage (RFC 9111 §5.2.2.2, §5.2.2.8, §5.2.2.10),
    which therefore outweigh stale-while-revalidate and stale-if-error.

    Args:
        status: status code.
        fields: the response fields.
        directives: those this cache obeys (`fields.targeted`).
        request_time: when the request was sent, epoch seconds.
        response_time: when the response arrived.
        stale_if_error: seconds the operator grants where the origin says nothing.
    """
    life = lifetime(status, fields, directives, response_time)
    born = response_time - initial_age(fields, request_time, response_time)
    fresh_until = born + life.seconds
    forbidden = directives.must_revalidate or directives.proxy_revalidate or directives.s_maxage is not None
    if directives.stale_if_error is not None:
        stale_if_error = directives.stale_if_error
    return Freshness(
        born=born,
        fresh_until=fresh_until,
        refresh_until=fresh_until + (0 if forbidden else directives.stale_while_revalidate or 0),
        error_until=fresh_until + (0 if forbidden else stale_if_error),
        source=life.source,
        stale_forbidden=forbidden,
        validate_always=directives.no_cache,
    )


def policy_freshness(rule: CacheRule, stored_at: float) -> Freshness:
    """Mode `policy`: what the operator's rule allows.

    Args:
        rule: the route's cache rule.
        stored_at: when the page arrived, epoch seconds.
    """
    fresh_until = stored_at + rule.ttl
    return Freshness(
        born=stored_at,
        fresh_until=fresh_until,
        refresh_until=fresh_until + rule.stale_while_revalidate,
        error_until=fresh_until + rule.stale_if_error,
        source=Source.POLICY,
    )
