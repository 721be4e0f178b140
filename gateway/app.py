"""The composition root: builds every part from the settings, starts, serves, drains. The only module that knows all."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import structlog
from aiohttp import web

from gateway import __version__
from gateway.admin.server import application
from gateway.core.cf_routes import CLOUD_FOUNDRY
from gateway.core.claims import ClaimPolicy
from gateway.core.forwarding import TrustedProxies
from gateway.core.model import Fields
from gateway.core.routes import RouteTable
from gateway.edge.receive import Limits
from gateway.edge.server import Server
from gateway.identity.assemble import Identity
from gateway.limits.memory import MemoryCounters
from gateway.pipeline.admission import Admission
from gateway.pipeline.budget import Budget
from gateway.pipeline.decide import Policy
from gateway.pipeline.fulfil import Pipeline
from gateway.pipeline.outgoing import Outgoing
from gateway.store.memory import MemoryStore
from gateway.telemetry.log import AccessLog
from gateway.telemetry.metrics import Metrics
from gateway.upstream.client import Client, Timeouts
from gateway.upstream.origins import Origins
from gateway.upstream.probe import Probe

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.settings import Settings


def route_table(settings: Settings) -> RouteTable:
    """The table these settings ask for: the built-in rows, and the operator's laid over them."""
    builtin = CLOUD_FOUNDRY if settings.route_table == "cloud_foundry" else RouteTable(())
    return builtin.with_overrides(settings.route_rows())


def identity(settings: Settings) -> Identity:
    """Keys and claim rules of these settings; without `auth` no token counts.

    Raises:
        KeyLoadError: a key file or secret cannot be used.
    """
    auth = settings.auth
    if auth is None:
        return Identity((), ClaimPolicy(None, frozenset()))
    policy = ClaimPolicy(auth.issuer, frozenset(auth.audiences), auth.leeway)
    return Identity(auth.keys, policy, max_token_bytes=auth.max_token_bytes, memo_entries=auth.memo_entries)


def trusted_proxies(settings: Settings) -> TrustedProxies:
    """The peers whose forwarding fields are believed."""
    return TrustedProxies(str(network) for network in settings.trusted_proxies)


def rate_limits(settings: Settings) -> tuple[Admission, MemoryCounters] | None:
    """The rate limits of these settings and their counters; None when there are none."""
    given = settings.rate_limits
    policies = [policy.policy() for policy in given.policies]
    failures = given.failures()
    counted = policies if failures is None else [*policies, failures]
    if not counted:
        return None
    counters = MemoryCounters(counted, max_buckets=given.max_buckets)
    return Admission(policies, counters, trusted=trusted_proxies(settings), failures=failures), counters


class Gateway:
    """One gateway process.

    Args:
        settings: valid settings.
        clock: epoch seconds.

    Raises:
        KeyLoadError: a key file or secret cannot be used.
    """

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.time) -> None:
        self.settings: Final = settings
        self.log: Final = structlog.get_logger("gateway")
        self._clock: Final = clock
        host = settings.upstream.host_header or urlsplit(settings.upstream.url).netloc
        public = urlsplit(settings.public_url)
        timeouts = settings.upstream.timeouts
        self.client: Final = Client(
            settings.upstream.url,
            timeouts=Timeouts(timeouts.connect, timeouts.head, timeouts.idle, timeouts.total),
            connections=settings.upstream.connections,
        )
        self.identity: Final = identity(settings)
        self.store: Final = MemoryStore(
            max_bytes=settings.cache.max_bytes, max_entry_bytes=settings.cache.max_entry_bytes
        )
        self.origins: Final = self._origins(host)
        self.probe: Final = Probe(self.client, host=host, path="/healthz")
        self.routes: Final = route_table(settings)
        self.limits: Final = rate_limits(settings)
        self.budget: Final = Budget(self.client, clock)
        self.pipeline: Final = Pipeline(
            policy=Policy(
                self.routes,
                self.identity,
                self.store,
                settings.via,
                random.random,
                admission=None if self.limits is None else self.limits[0],
                budget=self.budget,
            ),
            upstream=self.budget,
            links=self.origins,
            outgoing=Outgoing(
                via=settings.via,
                host=host,
                trusted=trusted_proxies(settings),
                external_scheme=public.scheme,
                external_host=public.netloc,
            ),
            clock=clock,
            max_rewrite_bytes=settings.upstream.max_rewrite_bytes,
            max_entry_bytes=min(settings.cache.max_entry_bytes, settings.cache.max_bytes),
            max_filling_bytes=settings.cache.max_bytes,
        )
        self.metrics: Final = Metrics(__version__)
        self._observe()
        self._draining = False
        self._server: Server | None = None
        self._listener: asyncio.Server | None = None
        self._admin: web.AppRunner | None = None

    def _origins(self, host: str) -> Origins | None:
        """Where links lead; a plain HTTP origin without advertised URLs has none to rewrite."""
        upstream = self.settings.upstream
        if self.settings.route_table == "none" and not upstream.advertised_urls:
            return None
        return Origins(
            public_url=self.settings.public_url,
            configured=upstream.advertised_urls,
            upstream=self.client,
            fields=Fields((("Host", host), ("Accept", "application/json"), ("Accept-Encoding", "identity"))),
        )

    @property
    def url(self) -> str:
        """Where clients connect, once started."""
        return _url(self._listener)

    @property
    def admin_url(self) -> str:
        """Where the operator connects, once started."""
        return _address(self._admin)

    async def start(self) -> None:
        """Open the pool, load keys and origins, then listen.

        Raises:
            OSError: a listener's address cannot be bound.
        """
        settings = self.settings
        await self.client.start()
        await asyncio.gather(
            self.identity.start(), self.probe.start(), *([self.origins.start()] if self.origins else [])
        )
        self._server = Server(
            self.pipeline,
            AccessLog(self.metrics),
            clock=self._clock,
            strict_api=settings.route_table == "cloud_foundry",
            prefix=urlsplit(settings.public_url).path.rstrip("/"),
            limits=Limits(
                settings.limits.max_line_bytes, settings.limits.max_header_bytes, settings.limits.max_body_bytes
            ),
            keepalive=settings.listen.keepalive,
        )
        loop = asyncio.get_running_loop()
        self._admin = web.AppRunner(application(self.metrics.registry, self._checks()), access_log=None)
        await self._admin.setup()
        await web.TCPSite(self._admin, settings.admin.host, settings.admin.port).start()
        self._listener = await loop.create_server(
            self._server, settings.listen.host, settings.listen.port, backlog=settings.listen.backlog
        )
        self.log.info("listening", url=self.url, admin=self.admin_url, public_url=settings.public_url)

    async def stop(self) -> None:
        """Not ready, stop accepting, finish what is under way within `drain`, then close everything."""
        self._draining = True
        if self._listener is not None:
            self._listener.close()
        if self._server is not None:
            self._server.pre_shutdown()
            await self._server.shutdown(self.settings.drain)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.settings.drain):
                await self.pipeline.drain()
        if self.origins is not None:
            await self.origins.stop()
        await self.probe.stop()
        await self.identity.stop()
        await self.client.stop()
        if self._admin is not None:
            await self._admin.cleanup()

    async def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Serve until SIGINT or SIGTERM.

        Args:
            ready: called once clients can connect.

        Raises:
            OSError: a listener's address cannot be bound.
        """
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stopping.set)
        try:
            await self.start()
            ready()
            await stopping.wait()
            self.log.info("draining", grace_seconds=self.settings.drain)
        finally:
            await self.stop()
            self.log.info("stopped")

    def _checks(self) -> dict[str, Callable[[], str | None]]:
        checks: dict[str, Callable[[], str | None]] = {
            "draining": lambda: "shutting down" if self._draining else None,
            "keys": lambda: self.identity.fault if self.settings.auth else None,
            "upstream": lambda: self.probe.fault,
        }
        origins = self.origins
        if origins is not None:
            checks["origins"] = lambda: origins.fault if not origins.known else None
        return checks

    def _observe(self) -> None:
        observe, store = self.metrics.observe, self.store
        observe("gateway_cache_entries", "Pages stored.", lambda: len(store))
        observe("gateway_cache_bytes", "Bytes counted against the cache's budget.", lambda: store.bytes)
        observe("gateway_cache_evictions_total", "Pages that gave way to others.", lambda: store.evictions)
        observe(
            "gateway_cache_invalidations_total",
            "Pages dropped by writes, by resource type.",
            lambda: store.invalidations,
            "resource",
        )
        pipeline = self.pipeline
        observe(
            "gateway_cache_refreshes_total",
            "Refreshes of pages behind answers, by how they ended.",
            lambda: pipeline.refreshes,
            "result",
        )
        jobs = pipeline.writes.jobs
        observe("gateway_jobs_watched", "Jobs that the gateway asks for until they are over.", lambda: len(jobs))
        observe("gateway_job_watches_total", "Jobs watched no more, by how that ended.", lambda: jobs.ends, "result")
        self.identity.observe(observe)
        limits = self.limits
        observe(
            "gateway_upstream_budget_ratio",
            "The least share of the controller's own rate limit that any principal has left.",
            self.budget.least,
        )
        observe(
            "gateway_upstream_budget_spared_total",
            "Requests answered from a stale page to spare it.",
            lambda: self.budget.spared,
        )
        observe(
            "gateway_ratelimit_decisions_total",
            "What rate policies decided; in mode shadow what they would have.",
            lambda: {} if limits is None else limits[0].decisions(),
            ("policy", "decision", "mode"),
        )
        observe(
            "gateway_ratelimit_buckets",
            "Buckets kept, by policy.",
            lambda: {} if limits is None else limits[1].buckets(),
            "policy",
        )
        observe(
            "gateway_ratelimit_evictions_total",
            "Buckets forgotten before they were full again.",
            lambda: {} if limits is None else limits[1].evictions(),
            "policy",
        )


def _url(listener: asyncio.Server | None) -> str:
    return "" if listener is None else _authority(listener.sockets[0].getsockname())


def _address(runner: web.AppRunner | None) -> str:
    return "" if runner is None or not runner.addresses else _authority(runner.addresses[0])


def _authority(address: tuple[str, int]) -> str:
    host, port = address[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
