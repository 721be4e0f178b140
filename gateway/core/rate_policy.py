"""Rate policies as values: who is counted together, what a request costs, how many rows it asks for.

Knows principals, addresses and queries. Not the arithmetic (`ratelimit.py`), not where buckets are kept, and of HTTP
only how a query is written.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import unquote_plus

if TYPE_CHECKING:
    from gateway.core.ratelimit import Algorithm

# Whose bucket: everything that tells one from another; the last part is what the Cloud Controller would hash.
Key: TypeAlias = tuple[str, ...]

# The rate class that no policy counts.
EXEMPT: Final = "exempt"

_ROWS: Final = frozenset({"per_page", "results-per-page"})  # v3, v2
_DEFAULT_ROWS: Final = 50
_MOST_ROWS: Final = 5000


class Who(Enum):
    """Whose requests are counted together."""

    PRINCIPAL = "principal"  # a user, or a client that acts for itself, whatever tokens it has
    CLIENT_ID = "client_id"  # all tokens that one OAuth client obtained
    IP = "ip"  # a client address; of IPv6 the /64
    ANONYMOUS = "anonymous"  # the same, but only requests without a valid token
    EVERYBODY = "everybody"  # all requests in one


class Mode(Enum):
    """What becomes of a request over the limit."""

    ENFORCE = "enforce"
    SHADOW = "shadow"  # it is counted as limited, and passes


@dataclass(frozen=True, slots=True)
class Cost:
    """Units by what a request asks of whom.

    Attributes:
        hit: answered by the gateway itself: a stored page, fresh or stale, or a refusal.
        miss: a read that goes to the controller.
        write: any other method.
        per_row: for each row a list read that goes to the controller asks for, on top.
    """

    hit: float = 1.0
    miss: float = 1.0
    write: float = 1.0
    per_row: float = 0.0


@dataclass(frozen=True, slots=True)
class RatePolicy:
    """One named limit.

    Attributes:
        name: label in metrics, logs and the RateLimit fields.
        who: whose requests are counted together.
        bucket: the arithmetic.
        classes: the rate classes it counts.
        mode: whether it is enforced.
        exempt_scopes_any: a token with one of these is not counted.
        cost: what requests cost.
    """

    name: str
    who: Who
    bucket: Algorithm
    classes: frozenset[str]
    mode: Mode = Mode.ENFORCE
    exempt_scopes_any: frozenset[str] = frozenset()
    cost: Cost = Cost()


def rows_asked(query: str | None) -> int:
    """How many rows a list request asks the controller for (controller.md §1).

    Of several values the largest counts, so that no spelling is cheaper than what the controller may make of it; what
    it would refuse counts as its default.

    Args:
        query: as in `Target`.
    """
    found: list[int] = []
    for pair in (query or "").replace(";", "&").split("&"):
        name, _, value = pair.partition("=")
        if unquote_plus(name) in _ROWS:
            digits = unquote_plus(value).strip()[:9]
            leading = digits[: len(digits) - len(digits.lstrip("0123456789"))]
            if leading and 0 < (rows := int(leading)) <= _MOST_ROWS:
                found.append(rows)
    return max(found, default=_DEFAULT_ROWS)


def network_of(address: str) -> str:
    """Whom an address belongs to: itself for IPv4, its /64 for IPv6, of which every host has all of.

    Args:
        address: an IP address, or "" for a unix socket whose peer names nobody.
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"
