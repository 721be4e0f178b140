"""The settings as values: every section of the file, its defaults, and what must hold between sections.

Reading files is `load.py`; this module does no I/O but to see that named files exist. Times are seconds, sizes bytes.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal

from gateway.core.routes import Access, RouteOverride
from gateway.settings.addresses import Host, TrustedPeer, Url
from gateway.settings.auth import Auth
from gateway.settings.cache import Cache
from gateway.settings.concurrency import Concurrency
from gateway.settings.edge import Limits
from gateway.settings.errors import Problem
from gateway.settings.listen import Mode, SocketPath, Tls
from gateway.settings.rate_limits import RateLimits
from gateway.settings.routing import RouteRow, repeated
from gateway.settings.scalars import (
    KIB,
    MIB,
    Count,
    Duration,
    Port,
    Pseudonym,
    Scope,
    Secret,
    Size,
    Workers,
    format_size,
    integer,
)
from gateway.settings.section import Section
from gateway.settings.shared_store import SharedStore
from gateway.settings.upstream import Upstream
from gateway.settings.watching import Log, Tracing

_LEAST_BUFFER: Final = 16 * KIB
_MOST_BUFFER: Final = 64 * MIB
_SHORTEST_TOKEN: Final = 16
_TOKEN: Final = re.compile(rf"[A-Za-z0-9._~+/=-]{{{_SHORTEST_TOKEN},}}")  # RFC 6750 §2.1


class Listen(Section):
    """The listener clients connect to."""

    host: Host = "127.0.0.1"
    """Address to bind; `0.0.0.0` or `::` for all."""
    port: Port = 8080
    """Port to bind; 0 lets the system choose."""
    backlog: Count = 1024
    """How many connections may wait to be accepted."""
    send_buffer: Size = 512 * KIB
    """How much of an answer the kernel takes in ahead of a client over TCP (`SO_SNDBUF`). Linux makes twice as much \
of it, and at most twice `net.core.wmem_max`. A far client gets no more than that in one round trip: with 100 ms, \
10 MB a second. 0 leaves it to the kernel, which takes in up to the last number of `net.ipv4.tcp_wmem`."""
    keepalive: Duration = 75.0
    """How long a connection without requests is kept."""
    max_connections: Count = 10_000
    """The most connections at once, as far as the process may open as many files; further ones get a 503. From seven \
eighths of it on, idle connections are closed after a second."""
    max_connections_per_address: Count | None = None
    """The most from one IPv4 address or IPv6 /64, `trusted_proxies` excepted; further ones get a 503."""
    tls: Tls | None = None
    """Speak TLS; without it plain HTTP."""
    proxy_protocol: Literal["off", "optional", "required"] = "off"
    """Whether connections begin with a PROXY header (version 1 or 2) that names the client. `optional` reads it when \
one of `trusted_proxies` sends it; `required` lets nobody else in."""
    unix_socket: SocketPath | None = None
    """Listen there as well, in plain HTTP; its peers are `unix` in `trusted_proxies`."""
    unix_socket_mode: Mode = 0o660
    """Who may connect there."""

    def problems(self) -> Iterator[Problem]:
        """A buffer with which every answer would be sent in crumbs, or that no kernel grants."""
        if self.send_buffer and not _LEAST_BUFFER <= self.send_buffer <= _MOST_BUFFER:
            expected = f"a size from {format_size(_LEAST_BUFFER)} to {format_size(_MOST_BUFFER)}, or 0"
            yield Problem(("send_buffer",), expected, format_size(self.send_buffer))


class Admin(Section):
    """The operator's listener: metrics and health."""

    host: Host = "127.0.0.1"
    """Address to bind. Without a `token` its pages are open to whoever reaches it."""
    port: Port = 9090
    """Port to bind; 0 lets the system choose. Must differ from `listen.port`."""
    token: Secret | None = None
    """What its pages ask for: as a bearer token, or as the password of a browser that only reads. `/healthz` asks for \
nothing. At least 16 characters, best given as `${NAME}`."""
    tls: Tls | None = None
    """Speak TLS; with a `client_ca_file` only operators with a certificate get in."""

    def problems(self) -> Iterator[Problem]:
        """A token that no client could send, or that could be guessed."""
        if self.token is None:
            return
        text = self.token.get_secret_value()
        if not _TOKEN.fullmatch(text):
            expected = f"at least {_SHORTEST_TOKEN} characters of A-Z, a-z, 0-9 and -._~+/="
            yield Problem(("token",), expected, "a shorter one" if len(text) < _SHORTEST_TOKEN else "others")


class Debug(Section):
    """How a single answer can be explained."""

    recent: Annotated[int, integer(0, 100_000)] = 1000
    """How many decisions are kept for `/-/decisions` on the admin listener, about 1 KiB each."""
    scopes_any: tuple[Scope, ...] = ()
    """Who has one of these and sends `Gateway-Debug: 1` is told the decision in a field of the answer; empty for \
nobody."""


class Settings(Section):
    """The whole file."""

    listen: Listen = Listen()
    """The listener clients connect to."""
    admin: Admin = Admin()
    """The operator's listener: metrics and health."""
    public_url: Url
    """The URL clients use for the gateway, with a path prefix if there is one; links are made to point at it."""
    upstream: Upstream
    """The Cloud Controller, or any other HTTP origin."""
    auth: Auth | None = None
    """How tokens are judged; may be left out when no route asks for one."""
    route_table: Literal["cloud_foundry", "none"] = "cloud_foundry"
    """The built-in routes: those of the Cloud Foundry API, or none."""
    routes: tuple[RouteRow, ...] = ()
    """Routes that extend and override the built-in ones."""
    cache: Cache = Cache()
    """The page cache of the process."""
    shared_store: SharedStore | None = None
    """A Valkey or Redis that several gateway processes share; without it each is alone."""
    trusted_proxies: tuple[TrustedPeer, ...] = ()
    """Peers whose `X-Forwarded-*` and `Forwarded` fields are believed; those of all others are replaced."""
    limits: Limits = Limits()
    """What a request may measure, and how long a client may take."""
    rate_limits: RateLimits = RateLimits()
    """How much of the API anybody may use; by default as much as they like."""
    concurrency: Concurrency = Concurrency()
    """How many requests the upstream has at once; by default any number."""
    workers: Workers = 1
    """How many processes serve, on one port and behind one admin listener; `auto` for one a processor. Each gets its \
part of `cache.max_bytes`, of `upstream.connections`, of `concurrency` and of each rate limit."""
    drain: Duration = 30.0
    """How long requests under way may go on after a signal to stop."""
    drain_delay: Duration = 0.0
    """How long new connections are still accepted after a signal to stop, while `/readyz` says 503 already: the time \
that load balancers need to notice."""
    debug: Debug = Debug()
    """How a single answer can be explained."""
    log: Log = Log()
    """What is logged to standard error."""
    tracing: Tracing = Tracing()
    """Traces by OpenTelemetry."""
    via: Pseudonym = "gateway"
    """The name of this gateway in `Via` (RFC 9110 §7.6.3) and `Cache-Status`."""

    def problems(self) -> Iterator[Problem]:
        """Sections that contradict each other."""
        return contradictions(dict(self))

    def route_rows(self) -> tuple[RouteOverride, ...]:
        """The operator's routes in the core's words, for `RouteTable.with_overrides`."""
        return tuple(row.override() for row in self.routes)

    def redacted(self) -> dict[str, Any]:
        """All settings as plain data in the form of the file, secrets hidden."""
        return self.model_dump(mode="json", exclude_none=True)


def contradictions(sections: Mapping[str, Any]) -> Iterator[Problem]:
    """What is wrong between sections.

    Args:
        sections: the top-level values by key. Those that are broken in themselves are left out, and with them the
            rules that need them, so that one broken section does not hide what is wrong with the others.
    """
    match sections:
        case {"listen": Listen() as listen, "admin": Admin() as admin} if listen.port == admin.port != 0:
            yield Problem(("admin", "port"), "another port than listen.port", str(admin.port))
    match sections:
        case {"listen": Listen(proxy_protocol="optional" | "required" as mode), "trusted_proxies": ()}:
            yield Problem(("listen", "proxy_protocol"), "off, since there are no trusted_proxies", mode)
    match sections:
        case {"routes": tuple() as rows, "route_table": str() as table}:
            if not rows and table == "none":
                yield Problem(("routes",), "at least one route, since route_table is none", "none", "all would be 404")
            if "auth" in sections and sections["auth"] is None:
                yield from _unjudged(table, rows)
    yield from repeated(sections.get("routes", ()))


def _unjudged(table: str, rows: tuple[RouteRow, ...]) -> Iterator[Problem]:
    """Routes that ask for tokens which nothing could judge."""
    if table == "cloud_foundry":
        yield Problem(("auth",), "a mapping with keys, since the cloud_foundry routes ask for tokens", "nothing")
        return
    for index, row in enumerate(rows):
        if row.access not in (Access.PUBLIC, Access.DENY):
            expected = f"a mapping with keys, since routes[{index}] does not say access: public"
            yield Problem(("auth",), expected, "nothing")
            return
