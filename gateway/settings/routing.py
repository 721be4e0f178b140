"""The operator's routes: what a row of `routes:` may say, and how it becomes a row of the core's vocabulary.

Whatever a row leaves out is inherited from the built-in row that covers the same paths; that is decided in
`core/routes.py`. Here is only what can be judged by the row itself, or by the rows beside it.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from gateway.core.routes import NO_CACHE, Access, CacheMode, CacheRule, RouteOverride, Share
from gateway.core.templates import shape, template_segments
from gateway.settings.errors import Problem
from gateway.settings.rate_limits import RateClass
from gateway.settings.scalars import Boolean, Duration, ReadError, Scalar, Scope, Size, format_duration
from gateway.settings.section import Section

_METHODS: Final = re.compile(r"[A-Z][A-Z-]{0,29}(?:,[A-Z][A-Z-]{0,29})*")
_MATCH_SCHEMA: Final = {"type": "string", "pattern": rf"^(\*|{_METHODS.pattern}) /[!-~]*$"}


@dataclass(frozen=True, slots=True)
class Match:
    """Which requests a row speaks of.

    Attributes:
        methods: in the order given; empty for any.
        template: the path, as in `core.routes.Route`.
    """

    methods: tuple[str, ...]
    template: str

    def __str__(self) -> str:
        return f"{','.join(self.methods) or '*'} {self.template}"


def parse_match(value: object) -> Match:
    """Read `GET /v3/processes`, `GET,HEAD /x/*` or `* /path/:name`.

    Raises:
        ReadError: anything else.
    """
    if not isinstance(value, str):
        raise ReadError
    named, space, template = value.partition(" ")
    if not space or (named != "*" and not _METHODS.fullmatch(named)):
        raise ReadError("methods are upper-case and separated by commas, * is any" if space else "")
    try:
        segments = template_segments(template)
    except ValueError as refusal:
        raise ReadError(str(refusal).partition(repr(template))[2].lstrip(": ")) from None
    if {".", ".."} & set(segments):
        raise ReadError("dot segments never match")
    return Match(() if named == "*" else tuple(dict.fromkeys(named.split(","))), template)


MatchText = Annotated[
    Match,
    Scalar("methods and a path such as GET /v3/processes", parse_match, _MATCH_SCHEMA, str, "methods and path"),
]


class RouteCache(Section):
    """How pages of a route are cached."""

    mode: CacheMode
    """`policy` follows `ttl`, `origin` follows the origin's own fields (RFC 9111), `off` caches nothing."""
    ttl: Duration = 0.0
    """How long a page is fresh; required by mode `policy`, refused by the others."""
    stale_while_revalidate: Duration = 0.0
    """How long after its `ttl` a page may be served while it is fetched anew (RFC 5861 §3). Mode `policy` only."""
    stale_if_error: Duration = 0.0
    """How long after its `ttl` a page may be served when the upstream fails (RFC 5861 §4). Mode `policy` only."""
    early_refresh: Boolean = True
    """Whether a page in demand is fetched anew shortly before its `ttl` ends, so that nobody waits for it; the longer \
a page takes to fetch the earlier, at most half its `ttl`. Mode `policy` only."""
    negative_ttl: Duration = 0.0
    """How long it is remembered that there is nothing: 404 and 410 about one resource, and lists without rows, which \
are otherwise kept like any page. At most `ttl`; never shared beyond one principal or everybody. Mode `policy` only."""
    share: Share = Share.PRINCIPAL
    """Who may be shown the same page: `principal` each token's owner alone, `global` also all who see everything \
together, `public` everyone (the request goes to the upstream without its token)."""

    def problems(self) -> Iterator[Problem]:
        """Settings that contradict the mode."""
        mode = self.mode.value
        if self.mode is CacheMode.POLICY and self.ttl <= 0:
            found = "0" if "ttl" in self.model_fields_set else "nothing"
            yield Problem(("ttl",), "a duration above 0, which mode policy needs", found)
        if self.mode is CacheMode.POLICY and self.negative_ttl > self.ttl > 0:
            yield Problem(("negative_ttl",), "at most the ttl", format_duration(self.negative_ttl))
        policy_only = ("ttl", "stale_while_revalidate", "stale_if_error", "early_refresh", "negative_ttl")
        refused = {CacheMode.POLICY: (), CacheMode.ORIGIN: policy_only, CacheMode.OFF: (*policy_only, "share")}[
            self.mode
        ]
        for name in (*refused, "share") if self.mode is CacheMode.OFF else refused:
            if self.sets(name):
                yield Problem((name,), f"no such key with mode {mode}", "one")

    def rule(self) -> CacheRule:
        """The same in the core's words."""
        if self.mode is CacheMode.OFF:
            return NO_CACHE
        times = (self.ttl, self.stale_while_revalidate, self.stale_if_error)
        return CacheRule(
            self.mode, *times, self.share, early_refresh=self.early_refresh, negative_ttl=self.negative_ttl
        )


class RouteRow(Section):
    """One row; what it leaves out stays as built in."""

    match: MatchText
    """Methods and path: `GET /v3/processes`, `GET,HEAD /x/*`, `* /v3/apps/:guid`. GET covers HEAD, `:name` is one \
segment, a final `*` any rest."""
    access: Access | None = None
    """`public` needs no token, `scopes` needs a valid one, `deny` refuses everybody."""
    scopes_any: tuple[Scope, ...] | None = None
    """With access `scopes`: one of these is enough; an empty list accepts any valid token."""
    cache: RouteCache | None = None
    """The whole cache rule of the row."""
    rate: RateClass | None = None
    """The rate class that its requests count for: `public`, `read`, `list`, `write`, `upload`, `default`, or `exempt` \
for none (docs/rate-limits.md)."""
    rewrite: Boolean | None = None
    """Whether links in its JSON answers are made to point at `public_url`."""
    max_body_bytes: Size | None = None
    """The most that the content of its requests may have, in place of `limits.max_body_bytes`."""

    def problems(self) -> Iterator[Problem]:
        """Settings that contradict each other within the row; first of all those that would leak pages."""
        if self.scopes_any is not None and self.access in (Access.PUBLIC, Access.DENY):
            yield Problem(("scopes_any",), f"no scopes with access {self.access.value}", "a list")
        if self.cache is None or self.cache.mode is CacheMode.OFF:
            return
        methods = set(self.match.methods)
        if methods and methods.isdisjoint({"GET", "HEAD"}):
            yield Problem(("cache", "mode"), "off, since only GET and HEAD are cached", self.cache.mode.value)
        if self.cache.share is Share.PUBLIC and self.access is not Access.PUBLIC:
            yield Problem(
                ("cache", "share"),
                "global or principal, unless the row says access: public",
                "public",
                "one user's page would be shown to everyone",
            )
        if self.cache.share is Share.GLOBAL:
            if not (methods and methods <= {"GET", "HEAD"}):
                yield Problem(("cache", "share"), "public or principal, unless the row matches GET alone", "global")
            if self.match.template[self.match.template.rindex("/") + 1 :].startswith((":", "*")):
                yield Problem(
                    ("cache", "share"),
                    "public or principal, unless the path names a list",
                    "global",
                    "auditors are shown less of a single resource than administrators",
                )

    def override(self) -> RouteOverride:
        """The same in the core's words."""
        return RouteOverride(
            template=self.match.template,
            methods=frozenset(self.match.methods),
            access=self.access,
            scopes_any=self.scopes_any,
            cache=None if self.cache is None else self.cache.rule(),
            rate=self.rate,
            rewrite=self.rewrite,
            max_body_bytes=self.max_body_bytes,
        )


def repeated(rows: Sequence[RouteRow]) -> Iterator[Problem]:
    """Rows that speak of requests an earlier row already speaks of, by the same template and method."""
    earlier: dict[tuple[tuple[str, ...], str], int] = {}
    for index, row in enumerate(rows):
        for method in row.match.methods or ("*",):
            first = earlier.setdefault((shape(row.match.template), method), index)
            if first != index:
                expected = f"each method and path once (also in routes[{first}])"
                yield Problem(("routes", index, "match"), expected, f'"{row.match}"')
                break
