"""Routes: which row of the table a request falls under, and what that row says.

A row decides access, required scopes, cache rule and rate class. The rows themselves are data: those of Cloud Foundry
are in `cf_routes.py`, the operator's come from the settings. Which template wins is told in `templates.py`. This
module knows nothing about tokens or I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from itertools import combinations
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from gateway.core.templates import ANY_METHOD, PARAMETER, REST, STANDARD_METHODS, Matcher, covers, shape, specificity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Access(Enum):
    """Who may pass."""

    PUBLIC = "public"  # no token needed; a bad one does not fail
    SCOPES = "scopes"  # a valid token with one of `scopes_any` (none listed: any valid token)
    DENY = "deny"  # nobody


class CacheMode(Enum):
    """Whose freshness rules a cached page follows."""

    OFF = "off"
    POLICY = "policy"  # the operator's ttl
    ORIGIN = "origin"  # the origin's fields, RFC 9111


class Share(Enum):
    """How far a cached page may be shared (design.md, "Visibility domains")."""

    PUBLIC = "public"  # one entry for all; no token is forwarded on the fetch
    GLOBAL = "global"  # one entry for all principals that see everything, one per principal for the rest
    PRINCIPAL = "principal"  # one entry per principal


@dataclass(frozen=True, slots=True)
class CacheRule:
    """How pages of a route are cached.

    Attributes:
        mode: whose freshness rules count.
        ttl: how long a page is fresh, seconds.
        stale_while_revalidate: how long after that it is served while it is fetched anew (RFC 5861 §3), seconds.
        stale_if_error: how long after its ttl it stands in for a failing upstream (RFC 5861 §4), seconds.
        share: who may be shown the same page.
        early_refresh: whether a page in demand is fetched anew before it expires (`early.py`).
        negative_ttl: how long 404, 410 and empty lists are fresh, seconds; 0 keeps no 404 and no 410.
    """

    mode: CacheMode = CacheMode.OFF
    ttl: float = 0.0
    stale_while_revalidate: float = 0.0
    stale_if_error: float = 0.0
    share: Share = Share.PRINCIPAL
    early_refresh: bool = True
    negative_ttl: float = 0.0


NO_CACHE: Final = CacheRule()


@dataclass(frozen=True, slots=True)
class Route:
    """One row of the table.

    Attributes:
        template: the path with `:name` for one segment and a final `*` for any rest (none or more segments), e.g.
            `/v3/processes/:guid`. It is also the label of the route in logs and metrics.
        methods: the methods it answers, empty for any. GET covers HEAD.
        access: who may pass.
        scopes_any: one of these is enough; empty with SCOPES means any valid token.
        cache: how its pages are cached.
        rate: rate class.
        resource: the resource type its answers show ("processes"), for tags and invalidation; None when none.
        rewrite: whether links in its JSON answers are rewritten; off where the body is the user's own JSON.
        max_body_bytes: the most that request content may have; None for what is set for all routes.
        lenient: a missing or bad token is left for the controller to judge (paths this table does not know: the
            controller answers 404 before it looks at the token).
        operator: whether the row comes from the settings file.
    """

    template: str
    methods: frozenset[str] = frozenset()
    access: Access = Access.SCOPES
    scopes_any: tuple[str, ...] = ()
    cache: CacheRule = NO_CACHE
    rate: str = "default"
    resource: str | None = None
    rewrite: bool = True
    max_body_bytes: int | None = None
    lenient: bool = False
    operator: bool = False


@dataclass(frozen=True, slots=True)
class RouteOverride:
    """What the operator's file says about a route; None means "as it is built in".

    Attributes:
        template: as in `Route`.
        methods: the methods it speaks of, empty for all.
        access: who may pass.
        scopes_any: one of these is enough.
        cache: the whole cache rule.
        rate: rate class.
        rewrite: whether links are rewritten.
        max_body_bytes: the most that request content may have.
    """

    template: str
    methods: frozenset[str] = frozenset()
    access: Access | None = None
    scopes_any: tuple[str, ...] | None = None
    cache: CacheRule | None = None
    rate: str | None = None
    rewrite: bool | None = None
    max_body_bytes: int | None = None


def _plain(path: str) -> str:
    """What a server that decodes and resolves dot segments would take `path` for (RFC 3986 §6.2.2)."""
    kept: list[str] = []
    for segment in unquote(path).replace("\\", "/").split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in ("", "."):
            kept.append(segment)
    return "/" + "/".join(kept)


class RouteTable:
    """The rows of a table, compiled for matching. Immutable.

    Args:
        rows: in any order; of two with one method and one shape the later wins.

    Raises:
        ValueError: a template is malformed.
    """

    __slots__ = ("_builtin", "_denies", "_matcher", "_overrides", "rows")

    def __init__(self, rows: Iterable[Route]) -> None:
        self.rows: Final = tuple(rows)
        self._matcher: Final = Matcher((row.template, row.methods, row) for row in self.rows)
        self._denies: Final = any(row.access is Access.DENY for row in self.rows)
        self._builtin: RouteTable = self
        self._overrides: tuple[RouteOverride, ...] = ()

    def match(self, method: str, path: str) -> Route | None:
        """The row a request falls under, or None.

        A denied path stays denied in disguise: where decoding or resolving dots turns `path` into one under a DENY
        row, that row is the answer, since a server behind us might read it so.

        Args:
            method: as sent.
            path: the canonical path, still percent-encoded.
        """
        if self._denies and ("%" in path or "/." in path or "\\" in path):
            disguised = self._matcher.match(method, _plain(path))
            if disguised is not None and disguised.access is Access.DENY:
                return disguised
        return self._matcher.match(method, path)

    def with_overrides(self, overrides: Iterable[RouteOverride]) -> RouteTable:
        """This table with the operator's rows laid over it.

        What an override leaves out comes from the row of *this* table that its requests would fall under, method by
        method, so an override without methods may become several rows. Where two overrides have one template, the one
        that names the method wins over the one that names none. `access` or `scopes_any` makes a lenient row strict;
        `scopes_any` on a public row asks for a token.

        Raises:
            ValueError: a template is malformed.
        """
        given = tuple(overrides)
        merged = {(shape(row.template), method): row for row in self.rows for method in row.methods or (ANY_METHOD,)}
        for override in sorted(given, key=lambda one: bool(one.methods)):
            for methods, base in self._bases(override):
                row = _overridden(override, methods, base)
                merged.update({(shape(row.template), method): row for method in methods or (ANY_METHOD,)})
        table = RouteTable(_regrouped(merged))
        table._builtin, table._overrides = self, given
        return table

    def _bases(self, override: RouteOverride) -> Iterator[tuple[frozenset[str], Route | None]]:
        """The rows an override builds upon, each with the methods it takes from there."""
        named = {method for row in self.rows for method in row.methods}
        groups: dict[Route | None, set[str]] = {}
        for method in sorted(override.methods or {*STANDARD_METHODS, *named, ANY_METHOD}):
            groups.setdefault(self._covering(method, shape(override.template)), set()).add(method)
        for base, methods in groups.items():
            if "GET" in methods:
                methods.discard("HEAD")
            # Whatever has a row of its own is more specific, so the rest needs no list.
            yield frozenset() if ANY_METHOD in methods else frozenset(methods), base

    def _covering(self, method: str, wanted: tuple[str, ...]) -> Route | None:
        """The most specific row that covers every path of the shape `wanted`; slow, for building tables."""

        def rank(row: Route) -> tuple[tuple[int, ...], int]:
            own = 0 if method in row.methods else 2 if not row.methods else 1
            return specificity(shape(row.template)), own

        serving = (row for row in reversed(self.rows) if _serves(row, method) and covers(shape(row.template), wanted))
        return min(serving, key=rank, default=None)

    def conflicts(self) -> list[str]:
        """What is doubtful about the operator's rows, in sentences; empty when nothing is."""
        rows = [row for row in self.rows if row.operator]
        return [*_duplicates(self._overrides), *_ambiguities(rows, self.rows)]

    def opened(self) -> list[str]:
        """The operator's rows that let somebody pass where this table denies, in sentences."""
        return [
            f"{_name(row)} opens what {base.template} denies"
            for row in self.rows
            if row.operator and row.access is not Access.DENY and (base := self._base(row)) is not None
            if base.access is Access.DENY
        ]

    def _base(self, row: Route) -> Route | None:
        return self._builtin._covering(next(iter(row.methods), ANY_METHOD), shape(row.template))  # noqa: SLF001 - own class


def _serves(row: Route, method: str) -> bool:
    return not row.methods or method in row.methods or (method == "HEAD" and "GET" in row.methods)


def _name(row: Route | RouteOverride) -> str:
    return f"{','.join(sorted(row.methods)) or 'any method'} {row.template}"


def _overridden(override: RouteOverride, methods: frozenset[str], base: Route | None) -> Route:
    """One operator row: the override, with what it leaves out taken from `base`."""
    base = base or Route(override.template)
    access = override.access
    if access is None:
        asks = override.scopes_any is not None and base.access is Access.PUBLIC
        access = Access.SCOPES if asks else base.access
    return replace(
        base,
        template=override.template,
        methods=methods,
        access=access,
        scopes_any=base.scopes_any if override.scopes_any is None else override.scopes_any,
        cache=base.cache if override.cache is None else override.cache,
        rate=base.rate if override.rate is None else override.rate,
        rewrite=base.rewrite if override.rewrite is None else override.rewrite,
        max_body_bytes=base.max_body_bytes if override.max_body_bytes is None else override.max_body_bytes,
        lenient=base.lenient and override.access is None and override.scopes_any is None,
        operator=True,
    )


def _regrouped(merged: dict[tuple[tuple[str, ...], str], Route]) -> Iterator[Route]:
    """The rows that are left, each with the methods that are left to it."""
    left: dict[Route, set[str]] = {}
    for (_, method), row in merged.items():
        left.setdefault(row, set()).add(method)
    for row, methods in left.items():
        kept = frozenset(methods - {ANY_METHOD})
        yield row if kept == row.methods else replace(row, methods=kept)


def _duplicates(overrides: Iterable[RouteOverride]) -> Iterator[str]:
    for one, other in combinations(overrides, 2):
        same = one.methods & other.methods if one.methods and other.methods else not (one.methods or other.methods)
        if same and shape(one.template) == shape(other.template):
            yield f"{_name(one)} is given twice: the later one ({_name(other)}) wins"


def _ambiguities(rows: Iterable[Route], among: Iterable[Route]) -> Iterator[str]:
    """Pairs that share paths though neither contains the other, so that only the order of precedence decides."""
    rows, among = tuple(rows), tuple(among)
    for position, one in enumerate(rows):
        for other in (*rows[position + 1 :], *(row for row in among if not row.operator)):
            mine, theirs = shape(one.template), shape(other.template)
            both = _intersection(mine, theirs)
            if both is None or both in (mine, theirs) or not _share_method(one, other):
                continue
            wins = one if specificity(mine) < specificity(theirs) else other
            yield f"{_name(one)} and {_name(other)} both match /{'/'.join(both)}: {wins.template} wins"


def _share_method(one: Route, other: Route) -> bool:
    return not one.methods or not other.methods or not one.methods.isdisjoint(other.methods)


def _intersection(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...] | None:
    """The shape of the paths that both shapes match, or None."""
    if one[:1] == (REST,):
        return other
    if other[:1] == (REST,):
        return one
    if not one or not other:
        return () if one == other else None
    first, second = one[0], other[0]
    if PARAMETER not in (first, second) and first != second:
        return None
    rest = _intersection(one[1:], other[1:])
    return None if rest is None else (second if first == PARAMETER else first, *rest)
