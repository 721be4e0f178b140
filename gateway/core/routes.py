"""Routes: which row of the table a request falls under, and what that row says.

A row decides access, required scopes, cache rule and rate class. The rows themselves are data: the Cloud Foundry surface
is in `cf_routes.py`, the operator's come from the settings. This module knows how to match, nothing about tokens or I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final


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
    """How pages of a route are cached. All times in seconds."""

    mode: CacheMode = CacheMode.OFF
    ttl: float = 0.0
    stale_while_revalidate: float = 0.0
    stale_if_error: float = 0.0
    share: Share = Share.PRINCIPAL


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
    lenient: bool = False
    operator: bool = False
