"""The gateway's own refusals, in the Cloud Controller's words and formats (controller.md §2).

Every refusal is a member of `Reason`; the same name appears in the `X-Gateway-Error` field, logs, metrics and docs. A
v3 path gets the v3 body, everything else the v2 one, byte for byte as the controller writes them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Final

from gateway.core.model import Fields, Pair

ERROR_FIELD: Final = "X-Gateway-Error"
CLIENT_CLOSED: Final = 499
"""The status of an exchange whose client left before the answer, as nginx has it; nobody is sent it."""


class Reason(Enum):
    """Why the gateway answered by itself; the value is the name used everywhere."""

    NO_TOKEN = "no-token"  # noqa: S105 - a reason, not a secret
    INVALID_TOKEN = "invalid-token"  # noqa: S105 - likewise
    INSUFFICIENT_SCOPE = "insufficient-scope"
    DENIED_ROUTE = "denied-route"
    UNKNOWN_ROUTE = "unknown-route"
    BAD_TARGET = "bad-target"
    BAD_REQUEST = "bad-request"
    REQUEST_TIMEOUT = "request-timeout"
    FIELDS_TOO_LARGE = "fields-too-large"
    BODY_TOO_LARGE = "body-too-large"
    ONLY_IF_CACHED = "only-if-cached"
    RATE_LIMITED = "rate-limited"
    IP_RATE_LIMITED = "ip-rate-limited"
    KEYS_UNAVAILABLE = "keys-unavailable"
    UPSTREAM_UNREACHABLE = "upstream-unreachable"
    UPSTREAM_TIMEOUT = "upstream-timeout"
    UPSTREAM_BROKEN = "upstream-broken"
    UPSTREAM_HEAD_TOO_LARGE = "upstream-head-too-large"
    UPSTREAM_BODY_TOO_LARGE = "upstream-body-too-large"
    BREAKER_OPEN = "breaker-open"
    PRINCIPAL_CONCURRENCY = "principal-concurrency"
    QUEUE_FULL = "queue-full"
    QUEUE_TIMEOUT = "queue-timeout"
    DRAINING = "draining"
    TOO_MANY_CONNECTIONS = "too-many-connections"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class CFError:
    """One row of the controller's error table."""

    status: int
    code: int
    title: str
    detail: str


ERRORS: Final[dict[Reason, CFError]] = {
    Reason.NO_TOKEN: CFError(401, 10002, "CF-NotAuthenticated", "Authentication error"),
    Reason.INVALID_TOKEN: CFError(401, 1000, "CF-InvalidAuthToken", "Invalid Auth Token"),
    Reason.INSUFFICIENT_SCOPE: CFError(
        403, 10003, "CF-NotAuthorized", "You are not authorized to perform the requested action"
    ),
    Reason.DENIED_ROUTE: CFError(
        403, 10003, "CF-NotAuthorized", "You are not authorized to perform the requested action"
    ),
    Reason.UNKNOWN_ROUTE: CFError(404, 10000, "CF-NotFound", "Unknown request"),
    Reason.BAD_TARGET: CFError(400, 1004, "CF-BadRequest", "The request target is not acceptable"),
    Reason.BAD_REQUEST: CFError(400, 1004, "CF-BadRequest", "The request is malformed"),
    Reason.REQUEST_TIMEOUT: CFError(408, 10001, "CF-RequestTimeout", "The request took too long to arrive"),
    Reason.FIELDS_TOO_LARGE: CFError(431, 1004, "CF-BadRequest", "The request fields are too large"),
    Reason.BODY_TOO_LARGE: CFError(413, 1004, "CF-RequestEntityTooLarge", "The request content is too large"),
    Reason.ONLY_IF_CACHED: CFError(504, 10001, "CF-GatewayTimeout", "Not in the cache, and only-if-cached was asked"),
    Reason.RATE_LIMITED: CFError(429, 10013, "CF-RateLimitExceeded", "Rate Limit Exceeded"),
    Reason.IP_RATE_LIMITED: CFError(
        429,
        10014,
        "CF-IPBasedRateLimitExceeded",
        "Rate Limit Exceeded: Unauthenticated requests from this IP address have exceeded the limit. Please log in.",
    ),
    Reason.KEYS_UNAVAILABLE: CFError(502, 20004, "CF-UaaUnavailable", "The UAA service is currently unavailable"),
    Reason.UPSTREAM_UNREACHABLE: CFError(502, 10001, "CF-BadGateway", "The Cloud Controller could not be reached"),
    Reason.UPSTREAM_TIMEOUT: CFError(504, 10001, "CF-GatewayTimeout", "The Cloud Controller did not answer in time"),
    Reason.UPSTREAM_BROKEN: CFError(502, 10001, "CF-BadGateway", "The Cloud Controller sent a broken response"),
    Reason.UPSTREAM_HEAD_TOO_LARGE: CFError(
        502, 10001, "CF-BadGateway", "The Cloud Controller sent a response that is too large"
    ),
    Reason.UPSTREAM_BODY_TOO_LARGE: CFError(
        502, 10001, "CF-BadGateway", "The Cloud Controller sent a response that is too large"
    ),
    Reason.BREAKER_OPEN: CFError(
        503, 10015, "CF-ServiceUnavailable", "The Cloud Controller is failing; try again later"
    ),
    Reason.PRINCIPAL_CONCURRENCY: CFError(
        503, 10015, "CF-ServiceUnavailable", "Too many of your requests are under way; try again later"
    ),
    Reason.QUEUE_FULL: CFError(503, 10015, "CF-ServiceUnavailable", "The Cloud Controller is busy; try again later"),
    Reason.QUEUE_TIMEOUT: CFError(503, 10015, "CF-ServiceUnavailable", "The Cloud Controller is busy; try again later"),
    Reason.DRAINING: CFError(503, 10015, "CF-ServiceUnavailable", "The gateway is shutting down"),
    Reason.TOO_MANY_CONNECTIONS: CFError(503, 10015, "CF-ServiceUnavailable", "There are too many connections"),
    Reason.INTERNAL: CFError(500, 10001, "UnknownError", "An unknown error occurred."),
}


# Their details name addresses behind the gateway, which are the operator's business: they go to the log alone.
_OURS_TO_KNOW: Final = frozenset(
    {
        Reason.KEYS_UNAVAILABLE,
        Reason.UPSTREAM_UNREACHABLE,
        Reason.UPSTREAM_TIMEOUT,
        Reason.UPSTREAM_BROKEN,
        Reason.UPSTREAM_HEAD_TOO_LARGE,
        Reason.UPSTREAM_BODY_TOO_LARGE,
        Reason.INTERNAL,
    }
)


class Denial(Exception):  # noqa: N818 - it is a verdict; the edge renders it
    """A refusal by the gateway itself.

    Args:
        reason: the named reason.
        detail: what a human needs beyond the standard text, e.g. the scopes required and present; goes into the
            log and, unless it tells of what lies behind the gateway, into the `X-Gateway-Error` field; never into the
            body, which clients match exactly.
        fields: further response fields (challenges, Retry-After).
    """

    def __init__(self, reason: Reason, detail: str = "", fields: tuple[Pair, ...] = ()) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
        self.fields = fields


def is_v3(path: str) -> bool:
    """Whether the controller answers errors on this path in its v3 format."""
    return path == "/v3" or path.startswith("/v3/")


def error_body(error: CFError, path: str) -> bytes:
    """The error as the controller writes it for `path` (v3 compact on one line; v2 pretty-printed)."""
    return _written(error, v3=is_v3(path))


@lru_cache(64)
def _written(error: CFError, *, v3: bool) -> bytes:
    if v3:
        body = {"errors": [{"detail": error.detail, "title": error.title, "code": error.code}]}
        return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
    v2 = {"description": error.detail, "error_code": error.title, "code": error.code}
    if error.status == 429:  # its limiter stands before its frameworks and writes compactly (recordings: user-17)
        return json.dumps(v2, separators=(",", ":"), ensure_ascii=False).encode()
    # Only its 404 for no route ends without a line feed (recordings: other-038, other-045).
    end = "" if error is ERRORS[Reason.UNKNOWN_ROUTE] else "\n"
    return (json.dumps(v2, indent=2, ensure_ascii=False) + end).encode()


def render(denial: Denial, path: str) -> tuple[int, Fields, bytes]:
    """A denial as (status, fields, body).

    Args:
        denial: the refusal.
        path: the request's path; it decides between the v3 and the v2 format.
    """
    error = ERRORS[denial.reason]
    v3 = is_v3(path)
    content_type = "application/json; charset=utf-8" if v3 else "application/json;charset=utf-8"
    if error.status == 429:
        content_type = "text/plain; charset=utf-8"  # as the controller's limiter says (recordings: user-06)
    told = denial.detail if denial.reason not in _OURS_TO_KNOW else ""
    explained = f"{denial.reason.value}; {told}" if told else denial.reason.value
    fields = Fields(
        (
            ("Content-Type", content_type),
            ("X-Content-Type-Options", "nosniff"),
            (ERROR_FIELD, explained),
            *denial.fields,
        )
    )
    return error.status, fields, error_body(error, path)
