"""From settings to parts: what each section of the file becomes. Starts nothing; `app` connects and runs them."""

from __future__ import annotations

import resource
import sys
import time
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from gateway.core.claims import ClaimPolicy
from gateway.core.model import Fields
from gateway.derived import rules_of, trusted_proxies, upstream_host
from gateway.edge.crowd import Capacity
from gateway.edge.deadlines import Deadlines
from gateway.edge.receive import Limits
from gateway.identity.assemble import Identity
from gateway.limits.memory import MemoryCounters
from gateway.pipeline.admission import Admission
from gateway.pipeline.outgoing import Outgoing
from gateway.store.compression import Compressor
from gateway.store.memory import MemoryStore
from gateway.upstream.origins import Origins

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from gateway.limits.shared import SharedCounters
    from gateway.pipeline.ports import Upstream
    from gateway.settings import Settings
    from gateway.sharing import Sharing

    KeptCounters: TypeAlias = MemoryCounters | SharedCounters

# Descriptors that are not for clients, beside connections to the controller: listeners, keys, the operator, the loop.
_SPARE: Final = 128
_FEWEST: Final = 16


def identity(settings: Settings, sharing: Sharing | None = None) -> Identity:
    """Keys and claim rules of these settings; without `auth` no token counts.

    Args:
        settings: valid settings.
        sharing: what this process has in common with others.

    Raises:
        KeyLoadError: a key file or secret cannot be used.
    """
    auth = settings.auth
    if auth is None:
        return Identity((), ClaimPolicy(None, frozenset()))
    policy = ClaimPolicy(auth.issuer, frozenset(auth.audiences), auth.leeway)
    return Identity(
        auth.keys,
        policy,
        max_token_bytes=auth.max_token_bytes,
        memo_entries=auth.memo_entries,
        board=sharing.board if sharing is not None and sharing.given.share_keys else None,
    )


def limits(settings: Settings) -> Limits:
    """What a request may measure."""
    given = settings.limits
    return Limits(given.max_line_bytes, given.max_header_bytes, given.max_body_bytes, given.max_header_count)


def deadlines(settings: Settings) -> Deadlines:
    """How long a client may take."""
    given = settings.limits
    return Deadlines(
        head=given.head_timeout,
        keepalive=settings.listen.keepalive,
        body_idle=given.body_idle_timeout,
        request=given.request_timeout,
        min_rate=given.min_transfer_rate,
    )


def capacity(settings: Settings) -> Capacity:
    """How many clients may be connected: as many as is set, and as the process has descriptors for."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    descriptors = max(soft - settings.upstream.connections - _SPARE, _FEWEST) if soft >= 0 else sys.maxsize
    listen = settings.listen
    return Capacity(
        min(listen.max_connections, descriptors), listen.max_connections_per_address, trusted_proxies(settings)
    )


def rate_limits(settings: Settings, sharing: Sharing | None = None) -> tuple[Admission, KeptCounters] | None:
    """The rate limits of these settings and their counters; None when there are none.

    Args:
        settings: valid settings.
        sharing: what this process has in common with others, None when it counts alone.
    """
    given = settings.rate_limits
    policies = [policy.policy() for policy in given.policies]
    failures = given.failures()
    counted = policies if failures is None else [*policies, failures]
    if not counted:
        return None
    counters: KeptCounters
    if sharing is None:
        counters = MemoryCounters(counted, max_buckets=given.max_buckets)
    else:
        counters = sharing.counters(counted, max_buckets=given.max_buckets)
    return Admission(policies, counters, trusted=trusted_proxies(settings), failures=failures), counters


def store(settings: Settings) -> MemoryStore:
    """Where pages are kept."""
    cache = settings.cache
    return MemoryStore(
        max_bytes=cache.max_bytes, max_entry_bytes=cache.max_entry_bytes, max_domain_share=cache.max_domain_share
    )


def sharing(settings: Settings, local: MemoryStore, clock: Callable[[], float]) -> Sharing | None:
    """What this process shares with others; None when it is alone, and then nothing of it is imported.

    Args:
        settings: valid settings.
        local: the pages of this process.
        clock: epoch seconds.
    """
    given = settings.shared_store
    if given is None:
        return None
    from gateway.sharing import Sharing

    return Sharing(given, local, rules_of(settings), clock)


def compressor(settings: Settings, pages: MemoryStore) -> Compressor:
    """What makes encoded forms of pages; none where there are no codings."""
    given = settings.cache.compression
    return Compressor(pages, codings=given.encodings, min_bytes=given.min_bytes, seconds=time.perf_counter)


def origins(settings: Settings, upstream: Upstream, sharing: Sharing | None = None) -> Origins | None:
    """Where links lead; a plain HTTP origin without advertised URLs has none to rewrite."""
    configured = settings.upstream.advertised_urls
    if settings.route_table == "none" and not configured:
        return None
    asking = (("Host", upstream_host(settings)), ("Accept", "application/json"), ("Accept-Encoding", "identity"))
    return Origins(
        public_url=settings.public_url,
        configured=configured,
        upstream=upstream,
        fields=Fields(asking),
        board=None if sharing is None else sharing.board,
        controllers=tuple(sorted(settings.upstream.origins)),
    )


def outgoing(settings: Settings) -> Outgoing:
    """What requests to the controller say of the gateway and of the client."""
    public = urlsplit(settings.public_url)
    return Outgoing(
        via=settings.via,
        host=upstream_host(settings),
        trusted=trusted_proxies(settings),
        external_scheme=public.scheme,
        external_host=public.netloc,
        claims=settings.concurrency.limits,
    )
