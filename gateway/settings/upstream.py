"""The controllers as the operator writes them: where, how long, and what becomes of one that fails.

What the words mean is decided in `core/balance.py`, `core/breaker.py` and `core/retry.py`.
"""

from collections.abc import Iterator

from gateway.core.balance import EjectionPolicy
from gateway.core.breaker import BreakerPolicy
from gateway.settings.addresses import Host, HostField, Origin
from gateway.settings.errors import Problem
from gateway.settings.rate_limits import Units
from gateway.settings.scalars import (
    KIB,
    MIB,
    Boolean,
    Count,
    Duration,
    File,
    Ratio,
    Size,
    Text,
    format_duration,
    format_size,
)
from gateway.settings.section import Section


def _nothing(section: Section, *names: str) -> Iterator[Problem]:
    for name in names:
        if getattr(section, name) <= 0:
            yield Problem((name,), "a duration above 0", "0")


def _ordered(rest: float, longest: float) -> Iterator[Problem]:
    if longest < rest:
        yield Problem(("longest",), "at least as long as rest", format_duration(longest))


class Timeouts(Section):
    """How long the upstream may take."""

    connect: Duration = 5.0
    """To accept a connection, TLS included."""
    head: Duration = 60.0
    """To begin its response, counted from the last piece of the request that it took; uploads may take minutes."""
    idle: Duration = 60.0
    """To go on with a response that stands still."""
    total: Duration = 0.0
    """For the whole exchange; 0 sets no limit, since uploads take minutes."""

    def problems(self) -> Iterator[Problem]:
        """Limits of nothing, which every request would exceed."""
        yield from _nothing(self, "connect", "head", "idle")


class HealthCheck(Section):
    """How each controller is asked for its health. It decides readiness, and which controllers are preferred."""

    path: Text = "/healthz"
    """What is asked; any answer below 500 counts."""
    interval: Duration = 5.0
    """How often."""
    timeout: Duration = 5.0
    """How long an answer may take."""
    failures: Count = 3
    """So many in a row, and other controllers are preferred until one is answered."""

    def problems(self) -> Iterator[Problem]:
        """Intervals of nothing, and what is no path."""
        yield from _nothing(self, "interval", "timeout")
        if not self.path.startswith("/") or not self.path.isascii() or not self.path.isprintable() or " " in self.path:
            yield Problem(("path",), "a path such as /healthz", "something else")


class Ejection(Section):
    """When other controllers are preferred to one that fails. The last one is never ejected."""

    failures: Count = 5
    """So many requests in a row that could not be connected, timed out or broke off."""
    rest: Duration = 5.0
    """For how long; doubled each time it happens again soon."""
    longest: Duration = 300.0
    """The longest it becomes."""

    def problems(self) -> Iterator[Problem]:
        """Rests that are none, or longer than the longest."""
        yield from _nothing(self, "rest")
        yield from _ordered(self.rest, self.longest)


class CircuitBreaker(Section):
    """When a controller is not asked at all: requests fail at once with 503, or are served stale."""

    enabled: Boolean = True
    """Whether there is one."""
    window: Duration = 10.0
    """Over which time outcomes are counted."""
    minimum: Count = 20
    """How many outcomes there must be."""
    ratio: Ratio = 0.5
    """The share of failures that opens it."""
    rest: Duration = 2.0
    """For how long nothing is sent; doubled each time it opens again soon."""
    longest: Duration = 60.0
    """The longest it becomes."""
    trials: Count = 3
    """How many requests may be under way after that; the first that succeeds closes it."""

    def problems(self) -> Iterator[Problem]:
        """Windows and rests that are none, and a share that everything exceeds."""
        yield from _nothing(self, "window", "rest")
        yield from _ordered(self.rest, self.longest)
        if self.ratio <= 0:
            yield Problem(("ratio",), "a share above 0", "0")

    def policy(self) -> BreakerPolicy | None:
        """The same in the core's words."""
        if not self.enabled:
            return None
        return BreakerPolicy(self.window, self.minimum, self.ratio, self.rest, self.longest, self.trials)


class Retries(Section):
    """How often requests are sent again. Only what is idempotent or certainly did not arrive ever is."""

    attempts: Count = 3
    """How often one request is sent at the most, each time to another controller."""
    ratio: Ratio = 0.2
    """The retries that each request pays for."""
    per_second: Units = 2.0
    """The retries that each second pays for."""


class UpstreamTls(Section):
    """TLS to `https` controllers. The files are read at the start and at each reload."""

    ca_file: File | None = None
    """Certificates in PEM that a controller's must lead to; by default those of the system."""
    certificate_file: File | None = None
    """Certificate chain in PEM that the gateway shows."""
    key_file: File | None = None
    """Its private key in PEM, not encrypted."""
    server_name: Host | None = None
    """The name that the controllers' certificates must have, also asked for in the handshake; by default the host of \
the URL."""
    verify: Boolean = True
    """`false` takes anybody for a controller, who then gets every token. For experiments."""

    def problems(self) -> Iterator[Problem]:
        """Half of a pair, and trust that is not asked for."""
        if (self.certificate_file is None) != (self.key_file is None):
            missing = "certificate_file" if self.certificate_file is None else "key_file"
            yield Problem((missing,), "a file, since certificate_file and key_file belong together", "nothing")
        if not self.verify and self.ca_file is not None:
            yield Problem(("ca_file",), "no such key with verify: false", "one")


class Upstream(Section):
    """The Cloud Controller, or any other HTTP origin."""

    url: Origin | None = None
    """Where requests are sent. Either this or `urls`."""
    urls: tuple[Origin, ...] = ()
    """Several controllers of one foundation: each request goes to the one with the fewest under way."""
    resolve_interval: Duration = 0.0
    """How often the addresses of `url`'s host are looked up, each of which is a controller of its own then; 0 leaves \
the choice of an address to each new connection."""
    advertised_urls: tuple[Origin, ...] = ()
    """The origins its links carry, made to point at `public_url`. Empty learns them from the controller's `GET /`; \
with `route_table: none` it leaves all links as they are."""
    host_header: HostField | None = None
    """`Host` to send; by default that of `url`, or of the first of `urls`."""
    timeouts: Timeouts = Timeouts()
    """How long it may take."""
    tls: UpstreamTls | None = None
    """How `https` controllers are verified, and what is shown to them; by default the system's trust and nothing."""
    connections: Count = 100
    """The most connections kept to each controller at once."""
    max_header_bytes: Size = 128 * KIB
    """The head of a response; a larger one is a 502."""
    max_body_bytes: Size | None = None
    """The content of a response; a larger one is a 502, or breaks off where its length was not announced. Without it \
any size passes."""
    max_rewrite_bytes: Size = 256 * MIB
    """The largest JSON answer held in memory to rewrite its links; a larger one is a 502."""
    health: HealthCheck = HealthCheck()
    """How each controller is asked for its health."""
    ejection: Ejection = Ejection()
    """When other controllers are preferred."""
    breaker: CircuitBreaker = CircuitBreaker()
    """When a controller is not asked at all."""
    retries: Retries = Retries()
    """How often requests are sent again."""

    @property
    def origins(self) -> tuple[str, ...]:
        """Where requests are sent, whichever way it is written."""
        return self.urls if self.url is None else (self.url,)

    def ejection_policy(self) -> EjectionPolicy:
        """What speaks against a controller, in the core's words."""
        return EjectionPolicy(self.ejection.failures, self.ejection.rest, self.ejection.longest, self.health.failures)

    def problems(self) -> Iterator[Problem]:
        """No controller, or two ways to name it; limits below what every response has."""
        if self.tls is not None and not any(origin.startswith("https://") for origin in self.origins):
            yield Problem(("tls",), "no such key without an https controller", "one")
        if self.url is None and not self.urls:
            yield Problem(("url",), "an origin such as https://api.example.org, or a list of them in urls", "neither")
        if self.url is not None and self.urls:
            yield Problem(("urls",), "no such key beside url", "both")
        if self.resolve_interval and self.urls:
            yield Problem(("resolve_interval",), "no such key beside urls", "both", "it belongs to url")
        for index, url in enumerate(self.urls):
            if url in self.urls[:index]:
                yield Problem(("urls", index), "each controller once", f'"{url}"')
        if self.max_header_bytes < KIB:
            yield Problem(("max_header_bytes",), "a size of at least 1KiB", format_size(self.max_header_bytes))
