"""One decision, told in order: what the steps of an exchange found, for who asks why an answer was as it was.

Keeps references to small immutable parts only: no token, no cookie, no page. Words are made when somebody reads.
"""

from __future__ import annotations

from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gateway.core.structured_writer import serialize_bare_item
from gateway.core.visibility import kind_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.core.errors import Reason
    from gateway.core.keys import CacheKey
    from gateway.core.model import Principal, Target
    from gateway.core.routes import Route
    from gateway.pipeline.exchange import Bypass, Exchange, Stale, Verdict


class Decision(NamedTuple):
    """What is remembered of an exchange.

    Attributes:
        at: when it was received, epoch seconds.
        request_id: as sent to the controller and answered.
        method: as sent.
        target: the canonical target; only its path and the names in its query are ever shown.
        status: the answer's status code, 0 when there was none.
        route: the row of the table.
        principal: whom the token speaks for.
        token_fault: why the token did not count.
        key: the cache key.
        verdict: what the cache did.
        bypass: why it had no part.
        stale: why a stale page was served.
        collapsed: whether it waited for another's request.
        stored: whether the answer was stored.
        fwd_status: what the controller answered.
        denied: why the gateway refused.
        detail: what a human needs beyond that.
        limited: the rate policies that refused, or would have.
        upstream_seconds: what the controller took.
        seconds: what it took in all.
        complete: whether the answer was delivered in full.
    """

    at: float
    request_id: str
    method: str
    target: Target
    status: int
    route: Route | None
    principal: Principal | None
    token_fault: str | None
    key: CacheKey | None
    verdict: Verdict
    bypass: Bypass | None
    stale: Stale | None
    collapsed: bool
    stored: bool
    fwd_status: int | None
    denied: Reason | None
    detail: str | None
    limited: tuple[str, ...]
    upstream_seconds: float
    seconds: float
    complete: bool

    def plain(self) -> dict[str, Any]:
        """The decision as JSON's own types, in the order in which it was made; what does not apply is left out."""
        route, principal = self.route, self.principal
        told: dict[str, Any] = {
            "at": round(self.at, 6),
            "request_id": self.request_id,
            "method": self.method,
            "path": self.target.shown,
            "query": _names(self.target.query),
            "route": None if route is None else route.template,
            "rule": None if route is None else "settings" if route.operator else "built-in",
            "access": None if route is None else route.access.value,
            "token": self.token_fault or (None if principal is None else f"{principal.kind.value} token"),
            "scopes_required": None if route is None else list(route.scopes_any),
            "scopes_present": None if principal is None else sorted(principal.scopes),
            "domain": None if self.key is None else kind_of(self.key.domain),
            "cache": self.verdict.value,
            "bypass": None if self.bypass is None else self.bypass.value,
            "stale": None if self.stale is None else self.stale.value,
            "limited": list(self.limited),
            "collapsed": self.collapsed,
            "controller_status": self.fwd_status,
            "stored": self.stored,
            "denied": None if self.denied is None else self.denied.value,
            "detail": self.detail,
            "status": self.status,
            "upstream_ms": round(self.upstream_seconds * 1000, 2),
            "own_ms": round((self.seconds - self.upstream_seconds) * 1000, 2),
            "incomplete": not self.complete,
        }
        return {name: value for name, value in told.items() if value not in (None, False, [], 0.0)}


def decision(exchange: Exchange, *, complete: bool, seconds: float) -> Decision:
    """What is to be remembered of an exchange.

    Args:
        exchange: it, over or about to be answered.
        complete: whether the answer was delivered in full.
        seconds: from the request head until now.
    """
    return _made((*_OF_EXCHANGE(exchange), seconds, complete))


# One is made for every request: fetched in one call, and without the Python-level constructor of named tuples.
_made: Final[Callable[[tuple[Any, ...]], Decision]] = partial(tuple.__new__, Decision)
_OF_EXCHANGE: Final = attrgetter(
    *("received_at", "request_id", "head.method", "head.target", "status", "route", "principal", "token_fault", "key"),
    *("verdict", "bypass", "stale", "collapsed", "stored", "fwd_status", "denied", "detail", "limited"),
    "upstream_seconds",
)


DEBUG_FIELD: Final = "Gateway-Debug"
# In the field, what the client sent itself is not repeated.
_NOT_IN_FIELD: Final = frozenset({"at", "request_id", "method", "path", "query", "incomplete", "detail"})


def asks_why(exchange: Exchange, scopes: frozenset[str]) -> bool:
    """Whether the client asks for the decision, and its token has one of the scopes that may."""
    if exchange.head.fields.get("gateway-debug") != "1" or exchange.principal is None:
        return False
    return not scopes.isdisjoint(exchange.principal.scopes)


def debug_field(exchange: Exchange, *, status: int, seconds: float) -> str:
    """The decision as the value of the `Gateway-Debug` response field, a Dictionary (RFC 9651 §3.2).

    Args:
        exchange: about to be answered.
        status: the answer's.
        seconds: from the request head until now.
    """
    told = decision(exchange, complete=True, seconds=seconds)._replace(status=status).plain()
    return ", ".join(_member(name, value) for name, value in told.items() if name not in _NOT_IN_FIELD)


def _member(name: str, value: Any) -> str:
    if value is True:
        return name
    if isinstance(value, list):
        return f"{name}=({' '.join(_text(item) for item in value)})"
    if isinstance(value, int):
        return f"{name}={value}"
    return f"{name}={f'{value:.2f}' if isinstance(value, float) else _text(value)}"


def _text(value: object) -> str:
    """A String; what it cannot hold becomes "?"."""
    return serialize_bare_item("".join(one if " " <= one <= "~" else "?" for one in str(value)))


def _names(query: str | None) -> list[str]:
    """The names in a query, each once: values may be anybody's data."""
    return list(dict.fromkeys(pair.partition("=")[0] for pair in (query or "").split("&") if pair))
