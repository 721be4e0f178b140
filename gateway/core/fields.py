"""The grammar of HTTP fields a cache reads: lists, numbers, Cache-Control and its targeted forms, Vary, Age.

The law: reading never raises and never guesses in the permissive direction. What is malformed is either ignored or read
as the most restrictive thing it could mean, and each function says which. Nothing here knows freshness or storage.
Dates are in `dates.py`, entity-tags in `etags.py`, structured fields in `structured.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from gateway.core.structured import Item, StructuredFieldError, parse_dictionary

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.core.model import Fields

# RFC 9111 §1.2.2: larger numbers are read as this one, "infinity" for every practical purpose.
DELTA_MAX: Final = 2**31
# Targeted fields this cache obeys, the most specific first (RFC 9213 §2.2, §3.1).
TARGETED: Final = ("gateway-cache-control", "cdn-cache-control")
VARY_ANY: Final = ("*",)
# What speaks of one connection or one hop: never forwarded (RFC 9110 §7.6.1, §11.7), nor stored (RFC 9111 §3.1).
HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authentication-info",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*+)"', re.DOTALL)
_COMMA_OR_QUOTE: Final = re.compile('[",]')
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_OWS: Final = " \t"


def is_token(text: str) -> bool:
    """Whether `text` is a token (RFC 9110 §5.6.2)."""
    return _TOKEN.fullmatch(text) is not None


def unquote(text: str) -> str | None:
    """The content of a quoted-string with its escapes undone (RFC 9110 §5.6.4), None when it is none."""
    quoted = _QUOTED.fullmatch(text)
    return None if quoted is None else _ESCAPED.sub(r"\1", quoted[1])


def split_list(values: Iterable[str], *, keep_empty: bool = False) -> list[str]:
    """The members of a comma-separated list over all lines of a field, trimmed (RFC 9110 §5.6.1).

    A comma inside a quoted-string does not separate. A quote that is never closed is an ordinary character, so that it
    cannot hide the members behind it.

    Args:
        values: the field lines in wire order.
        keep_empty: whether empty members, which mean nothing in a list, are kept.
    """
    return [member for value in values for part in _split(value) if (member := part.strip(_OWS)) or keep_empty]


def _split(value: str) -> list[str]:
    if '"' not in value:
        return value.split(",")
    parts: list[str] = []
    start = at = 0
    while (found := _COMMA_OR_QUOTE.search(value, at)) is not None:
        if found[0] == ",":
            parts.append(value[start : found.start()])
            start = at = found.end()
            continue
        quoted = _QUOTED.match(value, found.start())
        if quoted is None:
            return parts + value[start:].split(",")
        at = quoted.end()
    parts.append(value[start:])
    return parts


def delta_seconds(text: str) -> int | None:
    """A non-negative number of seconds, at most `DELTA_MAX`; None when it is none (RFC 9111 §1.2.2)."""
    if not (text.isascii() and text.isdigit()):
        return None
    digits = text.lstrip("0")
    return DELTA_MAX if len(digits) > 10 else min(int(digits or "0"), DELTA_MAX)


@dataclass(frozen=True, slots=True)
class Directives:
    """Cache directives of a request or a response (RFC 9111 §5.2, RFC 5861, RFC 8246). All times in seconds.

    Attributes:
        no_cache: unqualified `no-cache`.
        no_cache_fields: the fields a qualified `no-cache` names, lower case.
        private: unqualified `private`.
        private_fields: the fields a qualified `private` names, lower case.
        max_age: freshness lifetime, or the greatest age a client takes; 0 when malformed or contradictory.
        s_maxage: the same for shared caches only.
        max_stale: staleness a client takes, `DELTA_MAX` when it sets no bound.
        min_fresh: freshness a client wants left.
        stale_while_revalidate: staleness served while a refresh is under way.
        stale_if_error: staleness served in place of an error.
        targeted: whether they come from a targeted field, which shuts out Cache-Control and Expires (RFC 9213 §2.2).
    """

    no_store: bool = False
    no_cache: bool = False
    no_cache_fields: tuple[str, ...] = ()
    private: bool = False
    private_fields: tuple[str, ...] = ()
    public: bool = False
    must_revalidate: bool = False
    proxy_revalidate: bool = False
    must_understand: bool = False
    no_transform: bool = False
    only_if_cached: bool = False
    immutable: bool = False
    max_age: int | None = None
    s_maxage: int | None = None
    max_stale: int | None = None
    min_fresh: int | None = None
    stale_while_revalidate: int | None = None
    stale_if_error: int | None = None
    targeted: bool = False


NO_DIRECTIVES: Final = Directives()
_FLAGS: Final = frozenset(
    {"no-store", "public", "must-revalidate", "proxy-revalidate", "must-understand", "no-transform"}
    | {"only-if-cached", "immutable"}
)
_QUALIFIED: Final = frozenset({"no-cache", "private"})
# The value of a numeric directive that is malformed or given twice with different numbers: never the permissive one.
_WHEN_UNCLEAR: Final[dict[str, int | None]] = {
    "max-age": 0,
    "s-maxage": 0,
    "max-stale": None,
    "min-fresh": DELTA_MAX,
    "stale-while-revalidate": None,
    "stale-if-error": None,
}


class _Collector:
    """Gathers directives one by one under the rules of `cache_control`."""

    __slots__ = ("found",)

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}

    def flag(self, name: str) -> None:
        self.found[name.replace("-", "_")] = True

    def seconds(self, name: str, value: int | None) -> None:
        """Note a number; None is one that could not be read."""
        key = name.replace("-", "_")
        if value is None or self.found.get(key, value) != value:
            value = _WHEN_UNCLEAR[name]
        self.found[key] = value

    def fields(self, name: str, argument: str | None) -> None:
        """Note `no-cache` or `private`; what names no readable list of fields counts as unqualified."""
        names = split_list([argument.lower()]) if argument else []
        if names and all(map(is_token, names)):
            key = name.replace("-", "_") + "_fields"
            self.found[key] = (*self.found.get(key, ()), *names)
        else:
            self.flag(name)

    def directives(self, *, targeted: bool = False) -> Directives:
        return Directives(**self.found, targeted=targeted)


def cache_control(values: Sequence[str]) -> Directives:
    """Read all lines of a Cache-Control field.

    Names match without regard to case; arguments are tokens or quoted-strings, whichever form is specified (RFC 9111
    §5.2). A directive given twice with different numbers, or with one that is no number, makes the response stale:
    RFC 9111 §4.2.1 leaves the choice between that and the first occurrence, and a short life is the safer error. Space
    around "=" makes the argument unreadable. Unknown directives are ignored (§5.2.3).

    Args:
        values: the field lines in wire order.
    """
    if not values:
        return NO_DIRECTIVES
    collector = _Collector()
    for member in split_list(values):
        name, equals, argument = member.partition("=")
        readable = argument if is_token(argument) else unquote(argument)
        if name.endswith((" ", "\t")):
            readable = None
        name = name.rstrip(_OWS).lower()
        if name in _FLAGS:
            collector.flag(name)
        elif name in _QUALIFIED:
            collector.fields(name, readable)
        elif name == "max-stale" and not equals:
            collector.seconds(name, DELTA_MAX)
        elif name in _WHEN_UNCLEAR:
            collector.seconds(name, None if readable is None else delta_seconds(readable))
    return collector.directives()


def targeted(fields: Fields, names: Sequence[str] = TARGETED) -> Directives:
    """The directives this cache obeys in a response: the first usable targeted field, else Cache-Control.

    A targeted field is a Structured Fields Dictionary; when it is empty or does not parse it is as if it were absent
    (RFC 9213 §2.1, §2.2). A known directive with a value of the wrong type counts as malformed.

    Args:
        fields: the response fields.
        names: targeted fields in order of preference, lower case.
    """
    for name in names:
        lines = fields.get_all(name)
        if not lines:
            continue
        try:
            members = parse_dictionary(lines)
        except StructuredFieldError:
            continue
        if members:
            return _from_dictionary(members)
    return cache_control(fields.get_all("cache-control"))


def _from_dictionary(members: dict[str, Any]) -> Directives:
    collector = _Collector()
    for name, member in members.items():
        value = member.value if isinstance(member, Item) else None
        if value is False:
            continue
        if name in _FLAGS:
            collector.flag(name)
        elif name in _QUALIFIED:
            collector.fields(name, value if isinstance(value, str) else None)
        elif name in _WHEN_UNCLEAR:
            # A bool is an int to Python, not to RFC 9651.
            number = value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
            collector.seconds(name, None if number is None else min(number, DELTA_MAX))
    return collector.directives(targeted=True)


def vary_names(values: Iterable[str]) -> tuple[str, ...]:
    """The request fields a response varies on, lower case, sorted, each once (RFC 9110 §12.5.5).

    Returns:
        `VARY_ANY` when "*" is a member or a member is no field name: what it varies on cannot be known.
    """
    names = {member.lower() for member in split_list(values)}
    if not all(map(is_token, names)) or "*" in names:
        return VARY_ANY
    return tuple(sorted(names))


def age(values: Sequence[str]) -> int | None:
    """The Age of a response in seconds, its first member alone; None when that is no number (RFC 9111 §5.1)."""
    return delta_seconds(values[0].partition(",")[0].strip(_OWS)) if values else None
