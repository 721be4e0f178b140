"""What is doubtful about valid settings: rules that never apply, scopes nobody has, pages shared too far.

Pure judgements over settings and the tables made of them; what needs the network is in `check.py`. Each finding names
its rule, so that an operator's CI can tell them apart. Those of `LEAKS` also stop `gateway run`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from gateway.core.cf_routes import CLOUD_FOUNDRY, READ_SCOPES, WRITE_SCOPES
from gateway.core.rate_policy import EXEMPT, Mode, Who
from gateway.core.routes import Access, CacheMode, Share
from gateway.core.templates import STANDARD_METHODS, shape
from gateway.derived import route_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.core.rate_policy import RatePolicy
    from gateway.core.routes import Route, RouteTable
    from gateway.settings import Settings

# The scopes that tokens of a Cloud Foundry carry (controller.md §2, and the defaults of UAA's clients and groups).
KNOWN_SCOPES: Final = frozenset(
    {
        *READ_SCOPES,
        *WRITE_SCOPES,
        "clients.admin",
        "clients.read",
        "clients.secret",
        "clients.write",
        "cloud_controller.update_build_state",
        "cloud_controller_service_permissions.read",
        "credhub.read",
        "credhub.write",
        "doppler.firehose",
        "groups.update",
        "logs.admin",
        "network.admin",
        "network.write",
        "openid",
        "password.write",
        "profile",
        "roles",
        "routing.router_groups.read",
        "routing.router_groups.write",
        "routing.routes.read",
        "routing.routes.write",
        "scim.create",
        "scim.invite",
        "scim.read",
        "scim.userids",
        "scim.write",
        "uaa.admin",
        "uaa.none",
        "uaa.offline_token",
        "uaa.resource",
        "uaa.user",
        "user_attributes",
        "zones.read",
        "zones.write",
    }
)
# Rules whose errors would show somebody what is not theirs.
LEAKS: Final = frozenset({"share-global"})  # public ones are refused when the file is read
# The shortest life of a token that was seen (controller.md §7): no page outlives the token that asks.
_SHORTEST_TOKEN: Final = 599.0
# How long a revoked role may go on seeing a page before somebody should have said so on purpose.
_LONG_TTL: Final = 60.0
_ADDRESSES: Final = frozenset({Who.IP, Who.ANONYMOUS})
_SAMPLE: Final = "00000000-0000-4000-8000-000000000000"


class Level(Enum):
    """How bad it is."""

    ERROR = "error"  # it opens what should be closed
    WARNING = "warning"  # it does not do what it seems to say
    NOTE = "note"  # worth knowing


@dataclass(frozen=True, slots=True)
class Doubt:
    """One thing that is doubtful.

    Attributes:
        rule: its name, for CI.
        level: how bad it is.
        key: where in the settings, e.g. `routes`.
        detail: what, in a sentence.
    """

    rule: str
    level: Level
    key: str
    detail: str


def doubts(settings: Settings) -> tuple[Doubt, ...]:
    """Everything that is doubtful about these settings.

    Args:
        settings: valid settings.
    """
    table = route_table(settings)
    return (
        *_routes(table),
        *_sharing(table),
        *_lifetimes(table),
        *_scopes(settings, table),
        *_addresses(settings),
        *_limits(settings, table),
    )


def refused(settings: Settings) -> tuple[Doubt, ...]:
    """Those that stop the start."""
    return tuple(doubt for doubt in doubts(settings) if doubt.level is Level.ERROR and doubt.rule in LEAKS)


def _own(table: RouteTable) -> Iterator[Route]:
    return (row for row in table.rows if row.operator)


def _named(row: Route) -> str:
    return f"{','.join(sorted(row.methods)) or '*'} {row.template}"


def _routes(table: RouteTable) -> Iterator[Doubt]:
    for conflict in table.conflicts():
        yield Doubt("route-conflict", Level.WARNING, "routes", conflict)
    for opened in table.opened():
        yield Doubt("route-opened", Level.ERROR, "routes", opened)
    for row in _own(table):
        path = re.sub(r":[^/]+", _SAMPLE, row.template).replace("*", "anything")
        methods = row.methods or frozenset(STANDARD_METHODS)
        matched = [table.match(method, path) for method in sorted(methods)]
        if row not in matched:
            winner = next((one.template for one in matched if one is not None), "nothing")
            yield Doubt("shadowed", Level.WARNING, "routes", f"{_named(row)} never applies: {winner} wins over it")


def _sharing(table: RouteTable) -> Iterator[Doubt]:
    for row in _own(table):
        if row.cache.mode is CacheMode.OFF:
            continue
        base = CLOUD_FOUNDRY.match(next(iter(row.methods), "GET"), re.sub(r":[^/]+", _SAMPLE, row.template))
        known = base is not None and shape(base.template) == shape(row.template)
        if row.cache.share is Share.GLOBAL and known and base is not None and base.cache.share is Share.PRINCIPAL:
            yield Doubt(
                "share-global",
                Level.ERROR,
                "routes",
                f"{_named(row)} may hide secrets from some who see everything: share: global would show them",
            )
        elif row.cache.share is Share.GLOBAL and not known and row.access is Access.SCOPES:
            yield Doubt(
                "share-global",
                Level.NOTE,
                "routes",
                f"{_named(row)} is not known to answer all who see everything alike; make sure that it does",
            )


def _lifetimes(table: RouteTable) -> Iterator[Doubt]:
    for row in _own(table):
        rule = row.cache
        if rule.mode is not CacheMode.POLICY or row.access is Access.PUBLIC:
            continue
        if rule.ttl + rule.stale_while_revalidate >= _SHORTEST_TOKEN:
            detail = f"{_named(row)} keeps pages as long as the shortest token lives ({_SHORTEST_TOKEN:g}s)"
            yield Doubt("ttl-token", Level.WARNING, "routes", detail)
        elif rule.ttl > _LONG_TTL:
            detail = f"{_named(row)}: who loses a role goes on seeing a page for up to {rule.ttl:g}s"
            yield Doubt("ttl-revocation", Level.NOTE, "routes", detail)


def _scopes(settings: Settings, table: RouteTable) -> Iterator[Doubt]:
    asked = [("routes", _named(row), row.scopes_any) for row in _own(table)]
    asked += [("rate_limits.policies", one.name, one.exempt_scopes_any) for one in settings.rate_limits.policies]
    for key, who, scopes in asked:
        for scope in scopes:
            if scope in KNOWN_SCOPES:
                continue
            import difflib  # only for who has made a mistake

            near = difflib.get_close_matches(scope, KNOWN_SCOPES, 1, 0.8)
            hint = f"; did you mean {near[0]}?" if near else ""
            level = Level.WARNING if near or scope.startswith("cloud_controller") else Level.NOTE
            yield Doubt("unknown-scope", level, key, f"{who}: no token of a Cloud Foundry has {scope}{hint}")


def _addresses(settings: Settings) -> Iterator[Doubt]:
    public = urlsplit(settings.public_url)
    if public.scheme == "http" and not _local(public.hostname):
        detail = "clients send their tokens in clear; say https and put TLS in front"
        yield Doubt("public-url-clear", Level.WARNING, "public_url", detail)
    elif public.scheme == "http" and settings.listen.tls is not None:
        yield Doubt("public-url-tls", Level.WARNING, "public_url", "it says http, and the listener speaks TLS alone")
    tls = settings.upstream.tls
    if tls is not None and not tls.verify:
        detail = "anybody can take the controller's place and gets every token"
        yield Doubt("upstream-unverified", Level.WARNING, "upstream.tls.verify", detail)
    place = "upstream.url" if settings.upstream.url else "upstream.urls"
    for upstream in map(urlsplit, settings.upstream.origins):
        if upstream.scheme == "http" and not _local(upstream.hostname):
            yield Doubt("upstream-clear", Level.WARNING, place, "tokens go to the controller in clear")
        if upstream.netloc == public.netloc and upstream.scheme == public.scheme:
            yield Doubt("loop", Level.WARNING, place, "it is public_url, where clients find the gateway itself")
    for key in settings.auth.keys if settings.auth is not None else ():
        url = urlsplit(str(getattr(key, "url", None) or ""))
        if url.scheme == "http" and not _local(url.hostname):
            detail = f"whoever can change an answer of {url.netloc} can make tokens; use https"
            yield Doubt("keys-clear", Level.WARNING, "auth.keys", detail)
    if not _local(settings.admin.host) and settings.admin.token is None:
        yield Doubt(
            "admin-open",
            Level.WARNING,
            "admin.host",
            "the operator's listener is not on loopback, and asks for no token",
        )


def _local(host: str | None) -> bool:
    if host is None or host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _limits(settings: Settings, table: RouteTable) -> Iterator[Doubt]:
    used = {row.rate for row in table.rows}
    given = settings.rate_limits
    by_address = given.failed_authentications is not None or any(one.who in _ADDRESSES for one in given.policies)
    behind = settings.public_url.startswith("https://") and settings.listen.tls is None
    if by_address and behind and not settings.trusted_proxies:
        detail = "limits count by address, and who terminates TLS in front is not named: all clients are one address"
        yield Doubt("limit-one-address", Level.WARNING, "trusted_proxies", detail)
    policies = [given.policy() for given in settings.rate_limits.policies]
    for policy in policies:
        idle = sorted(policy.classes - used - {EXEMPT})
        if policy.classes and not policy.classes & used:
            detail = f"{policy.name} counts only {', '.join(idle)}, and no route has such a class"
            yield Doubt("limit-idle", Level.WARNING, "rate_limits.policies", detail)
        if policy.exempt_scopes_any >= {"cloud_controller.read", "cloud_controller.admin"}:
            detail = f"{policy.name} exempts nearly every token of a Cloud Foundry"
            yield Doubt("limit-exempts-all", Level.WARNING, "rate_limits.policies", detail)
        if max(policy.cost.hit, policy.cost.miss, policy.cost.write, policy.cost.per_row) == 0:
            detail = f"{policy.name} asks nothing for anything, so it never limits"
            yield Doubt("limit-free", Level.WARNING, "rate_limits.policies", detail)
        for other in policies:
            if other is not policy and _weaker(policy, other):
                detail = f"{policy.name} never limits first: {other.name} counts the same and allows less"
                yield Doubt("limit-weaker", Level.WARNING, "rate_limits.policies", detail)


def _weaker(policy: RatePolicy, other: RatePolicy) -> bool:
    """Whether `other` refuses whatever `policy` would."""
    alike = policy.who is other.who and policy.cost == other.cost and policy.classes <= other.classes
    counted = other.exempt_scopes_any <= policy.exempt_scopes_any and other.mode is Mode.ENFORCE
    mine, theirs = policy.bucket, other.bucket
    if not alike or not counted or type(mine) is not type(theirs) or mine == theirs:
        return False
    return theirs.limit / theirs.window <= mine.limit / mine.window and theirs.quota <= mine.quota
