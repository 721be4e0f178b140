"""Header fields of answers, in the order and case of the recordings, for each part of the real server.

Pure: takes the facts of a request and a reply, gives a list of fields. Framing (`Connection`, `Transfer-Encoding`,
`Content-Length`) is left to `wire`.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from gateway.sandbox.call import Reply, Stack

if TYPE_CHECKING:
    from collections.abc import Callable

Fields = list[tuple[str, str]]

_SECURITY: Final[Fields] = [
    ("X-Frame-Options", "SAMEORIGIN"),
    ("X-XSS-Protection", "1; mode=block"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Download-Options", "noopen"),
    ("X-Permitted-Cross-Domain-Policies", "none"),
    ("Referrer-Policy", "strict-origin-when-cross-origin"),
]
_EXPOSED: Final = "x-cf-warnings,x-app-staging-log,x-vcap-request-id,location,range"
_PREFLIGHT_METHODS: Final = ("GET", "PUT", "POST", "DELETE")
_PREFLIGHT_HEADERS: Final = ("origin", "content-type", "authorization")
_BROWSER_ACCEPT: Final = re.compile(r",\s*\*/\*|\*/\*\s*,")
_NOT_IDENTIFIER: Final = re.compile(r"[^\w-]", re.ASCII)
_ID_LIMIT: Final = 255
DEFAULT_CORS_ORIGINS: Final = ("https://*.ui.internal.example.org", "https://ui.example.org")


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """What of a request shows in the head of its answer.

    Attributes:
        method: Its method.
        header: Gives the values of a request header, joined by `, `, or None.
        has_format: Whether the path asked for a format (`.json`).
        user_guid: User or client of a good token, else None.
        rate_fields: Fields of the rate limiter.
        cors_origins: Patterns of the origins allowed.
    """

    method: str
    header: Callable[[str], str | None]
    has_format: bool = False
    user_guid: str | None = None
    rate_fields: tuple[tuple[str, str], ...] = ()
    cors_origins: tuple[str, ...] = DEFAULT_CORS_ORIGINS

    @property
    def is_preflight(self) -> bool:
        """Whether the real server's CORS layer takes the request for a preflight."""
        return self.method == "OPTIONS" and self.header("Access-Control-Request-Method") in _PREFLIGHT_METHODS

    @property
    def allowed_origin(self) -> str | None:
        """The request's Origin when it is allowed; an OPTIONS that is no preflight gets no CORS fields."""
        if self.method == "OPTIONS" and not self.is_preflight:
            return None
        origin = self.header("Origin")
        return origin if origin and any(fnmatchcase(origin, each) for each in self.cors_origins) else None


def fields_of(reply: Reply, facts: RequestFacts, runtime: float) -> Fields:
    """The fields of an answer.

    Args:
        reply: The answer.
        facts: Of its request.
        runtime: Seconds it took.
    """
    if reply.stack is Stack.PUMA:
        return []
    identity = [("X-USER-GUID", facts.user_guid)] if facts.user_guid is not None else []
    tail: Fields = [*identity, ("X-VCAP-Request-ID", request_id(facts))]
    kind: Fields = [("Content-Type", reply.content_type)] if reply.content_type else []
    extra = list(reply.fields)
    match reply.stack:
        case Stack.RAILS:
            head = [*_SECURITY, *extra, *kind, *_vary(reply, facts), ("X-Runtime", f"{runtime:.6f}")]
            fields = [*head, *_b3(facts), *facts.rate_fields, *tail]
        case Stack.SINATRA:
            cascade, warnings = _split(extra, "X-Cascade")
            nosniff = ("X-Content-Type-Options", "nosniff")
            fields = [*cascade, *kind, *warnings, nosniff, *_b3(facts), *facts.rate_fields, *tail]
        case Stack.CRASH:
            fields = [*kind, ("X-Runtime", f"{runtime:.6f}"), *_b3(facts), *facts.rate_fields, *tail]
        case Stack.HEALTH:
            fields = [*kind, *_b3(facts), *tail]
        case Stack.LIMITER:
            fields = [*facts.rate_fields, *kind, *tail]
    return fields + _cors(facts, fields)


def _split(fields: Fields, name: str) -> tuple[Fields, Fields]:
    return [each for each in fields if each[0] == name], [each for each in fields if each[0] != name]


def _vary(reply: Reply, facts: RequestFacts) -> Fields:
    accept = facts.header("Accept")
    if not reply.varies or not accept or facts.has_format or _BROWSER_ACCEPT.search(accept):
        return []
    return [("Vary", "Accept,Origin" if facts.allowed_origin else "Accept")]


def _cors(facts: RequestFacts, fields: Fields) -> Fields:
    origin = facts.allowed_origin
    if origin is None:
        return []
    vary = [] if any(name == "Vary" for name, _ in fields) else [("Vary", "Origin")]
    return [*_allow(origin), *vary]


def _allow(origin: str) -> Fields:
    return [
        ("Access-Control-Allow-Origin", origin),
        ("Access-Control-Allow-Credentials", "true"),
        ("Access-Control-Expose-Headers", _EXPOSED),
    ]


def _b3(facts: RequestFacts) -> Fields:
    trace, span = facts.header("X-B3-TraceId"), facts.header("X-B3-SpanId")
    return [("X-B3-TraceId", trace), ("X-B3-SpanId", span)] if trace and span else []


def request_id(facts: RequestFacts) -> str:
    """The request id answered: `<given, cleaned>::<uuid>`, or a uuid alone."""
    given = facts.header("X-Vcap-Request-Id") or facts.header("X-Request-Id")
    fresh = str(uuid.uuid4())
    return f"{_NOT_IDENTIFIER.sub('', given)[:_ID_LIMIT]}::{fresh}" if given else fresh


def preflight(facts: RequestFacts) -> bytes | None:
    """The real server's broken answer to a CORS preflight, raw, or None when the request is none.

    A chunked head with a second status line where the first chunk belongs: framing that lies.
    """
    origin = facts.allowed_origin
    if not facts.is_preflight or origin is None:
        return None
    asked = (facts.header("Access-Control-Request-Headers") or "").lower().split(",")
    headers = dict.fromkeys((*_PREFLIGHT_HEADERS, *(each.strip() for each in asked if each.strip())))
    fields = [
        *_allow(origin),
        ("Vary", "Origin"),
        ("Content-Type", "text/plain"),
        ("Access-Control-Allow-Methods", ",".join(_PREFLIGHT_METHODS)),
        ("Access-Control-Max-Age", "900"),
        ("Access-Control-Allow-Headers", ",".join(headers)),
        ("Transfer-Encoding", "chunked"),
    ]
    head = "".join(f"{name}: {value}\r\n" for name, value in fields)
    return f"HTTP/1.1 200 OK\r\n{head}\r\nHTTP/1.1 500 Internal Server Error\r\n\r\n".encode("latin-1")
