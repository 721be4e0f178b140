"""The composition root: builds every part from the settings, starts, serves, drains. The only module that knows all."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web
from prometheus_client import generate_latest

from gateway import __version__, assembly, derived
from gateway.admin.cache import cache_api
from gateway.admin.guard import guard
from gateway.admin.server import application
from gateway.doors import Doors
from gateway.edge.crowd import Crowd
from gateway.edge.deadlines import Wheel
from gateway.edge.drain import drain
from gateway.edge.outbox import Outbox
from gateway.edge.server import Server
from gateway.live.recent import Recent
from gateway.observed import observe_parts
from gateway.pipeline.budget import Budget
from gateway.pipeline.decide import Policy
from gateway.pipeline.drift import Drift
from gateway.pipeline.fulfil import Pipeline
from gateway.pipeline.inspection import Inspector
from gateway.pipeline.operations import perform
from gateway.reload import Reloader
from gateway.telemetry.decisions import Decisions
from gateway.telemetry.log import AccessLog, configure
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.structured import structlog
from gateway.tracing import traces
from gateway.upstreams import Controllers, gate
from gateway.workers.relay import RelayedPages, RelayedPipeline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from gateway.assembly import KeptCounters
    from gateway.core.routes import RouteTable
    from gateway.pipeline.admission import Admission
    from gateway.pipeline.outgoing import Outgoing
    from gateway.pipeline.ports import PageStore
    from gateway.settings import Settings
    from gateway.workers.relay import Place


# How long idle connections may still bring a request after a signal to stop; it is answered with `Connection: close`.
LINGER: Final = 1.0


class Gateway:
    """One gateway process.

    Args:
        settings: valid settings.
        clock: epoch seconds.
        source: reads the settings again for a reload; None when they are from no file.
        place: this process's place among workers, whose supervisor has the admin listener; None when it is alone.

    Raises:
        KeyLoadError: a key file or secret cannot be used.
        TlsError: a certificate or its key cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.time,
        source: Callable[[], Settings] | None = None,
        place: Place | None = None,
    ) -> None:
        self._place: Final = place
        self.settings = settings
        self.log: Final = structlog.get_logger("gateway")
        self._clock: Final = clock
        self.doors: Final = Doors(settings, self.log)
        self.outbox: Final = Outbox()
        self.client: Final = Controllers(settings, post=self.outbox.post)
        self.store: Final = assembly.store(settings)
        self.sharing: Final = assembly.sharing(settings, self.store, clock)
        self.identity: Final = assembly.identity(settings, self.sharing)
        self.pages, announce = self._pages()
        publish = None if self.sharing is None else self.sharing.invalidations.publish
        self.inspector: Final = Inspector(self.store, clock, announce, publish)
        if self.sharing is not None:
            self.sharing.invalidations.purge = self.inspector.carry_out
        self.compressor: Final = assembly.compressor(settings, self.store)
        self.origins: Final = assembly.origins(settings, self.client, self.sharing)
        self.probe: Final = self.client.probe
        self.routes = derived.route_table(settings)
        self.limits = assembly.rate_limits(settings, self.sharing)
        self.gate: Final = gate(settings, self.client)
        self.budget: Final = Budget(self.gate or self.client, clock)
        self.metrics: Final = Metrics(__version__)
        self._traces: Final = traces(settings, self.metrics, clock)
        self.drift: Final = Drift(settings.cache.drift_sample, random.random)
        alone = place is None or self.sharing is not None  # or told by way of the shared store
        pipeline = Pipeline if place is None or alone else partial(RelayedPipeline, place.relay)
        self.pipeline: Final = pipeline(
            policy=self._policy(),
            upstream=self.budget,
            links=self.origins,
            outgoing=self._traced(assembly.outgoing(settings)),
            clock=clock,
            max_rewrite_bytes=settings.upstream.max_rewrite_bytes,
            max_entry_bytes=min(settings.cache.max_entry_bytes, settings.cache.max_bytes),
            max_filling_bytes=settings.cache.max_bytes,
            shared=None if self.sharing is None else self.sharing.pages,
        )
        self.wheel: Final = Wheel(assembly.deadlines(settings), Crowd(assembly.capacity(settings)))
        self.reloader: Final = Reloader(self, source, clock)
        self._access: Final = AccessLog(self._traces or self.metrics, sample=settings.log.access_sample)
        # Traces must be told of every exchange.
        self.decisions: Final = Decisions(self._access, settings.debug.recent, quick=self._traces is None)
        observe_parts(self)
        self.draining = False
        self._server: Server | None = None
        self._hurry: Final = asyncio.Event()
        self._admin: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Where clients connect, once started."""
        return self.doors.url

    @property
    def admin_url(self) -> str:
        """Where the operator connects, once started."""
        return self.doors.admin_url

    async def start(self) -> None:
        """Open the pool, load keys and origins, then listen.

        Raises:
            OSError: a listener's address cannot be bound.
        """
        settings = self.settings
        await self.client.start()
        if self.sharing is not None:
            await self.sharing.start()  # where keys and origins may be known already
        await asyncio.gather(
            self.identity.start(), self.probe.start(), *([self.origins.start()] if self.origins else [])
        )
        self._server = Server(
            self.pipeline,
            self.decisions,
            clock=self._clock,
            strict_api=settings.route_table == "cloud_foundry",
            prefix=derived.prefix(settings),
            limits=assembly.limits(settings),
            wheel=self.wheel,
            outbox=self.outbox,
        )
        self.metrics.loop_lag.start()
        if self._place is None:
            await self._start_admin()
        self.doors.open(self._server, None if self._place is None else self._place.sockets)
        self.log.info("listening", url=self.url, admin=self.admin_url, public_url=settings.public_url)

    async def _start_admin(self) -> None:
        settings, registry = self.settings, self.metrics.registry
        self._admin = web.AppRunner(
            application(
                registry,
                self._checks(),
                mounted={"/cache": cache_api(self.cache, public_path=derived.prefix(settings))},
                status=Recent(lambda: generate_latest(registry).decode()).status,
                actions={"reload": self.reloader.answer},
                decisions=self.decisions.newest,
            ),
            access_log=None,
        )
        guard(self._admin.app, settings.admin.token)
        await self.doors.open_admin(self._admin)

    def reconfigure(
        self,
        settings: Settings,
        routes: RouteTable,
        limits: tuple[Admission, KeptCounters] | None,
        outgoing: Outgoing,
    ) -> None:
        """Put other settings in force, whose parts were built from them; does not wait and does not fail."""
        old, self.settings = self.settings, settings
        self.routes, self.limits = routes, limits
        self.pipeline.reconfigure(self._policy(), self._traced(outgoing))
        if self._server is not None:
            self._server.reconfigure(
                prefix=derived.prefix(settings),
                limits=assembly.limits(settings),
            )
        self.doors.adopt(settings)
        self.wheel.adopt(assembly.deadlines(settings))
        self.wheel.crowd.adopt(assembly.capacity(settings))
        self._access.resample(settings.log.access_sample)
        if self._traces is not None:
            self._traces.reconfigure(sample=settings.tracing.sample, trusted=derived.trusted_proxies(settings))
        if (old.log.level, old.log.format) != (settings.log.level, settings.log.format):
            configure(level=settings.log.level, style=settings.log.format)
            self._access.renew()

    def _pages(self) -> tuple[PageStore, Callable[[Iterable[str]], None] | None]:
        """The pages that requests are answered from, and what tells other processes what is void."""
        if self.sharing is not None:
            return self.sharing.pages, self.sharing.invalidations.announce
        if self._place is not None:
            return RelayedPages(self.store, self._place.relay), self._place.relay.announce
        return self.store, None

    def _traced(self, outgoing: Outgoing) -> Outgoing:
        return outgoing if self._traces is None else replace(outgoing, trace=self._traces.asking)

    async def cache(self, name: str, asked: Mapping[str, Any]) -> dict[str, Any] | None:
        """Carry out an operation of the operator's cache API in this process."""
        answer = await perform(self.inspector, derived.prefix(self.settings), name, asked)
        if self.sharing is not None:
            await self.sharing.invalidations.announced()
        return answer

    def _policy(self) -> Policy:
        return Policy(
            self.routes,
            self.identity,
            self.pages,
            self.settings.via,
            random.random,
            admission=None if self.limits is None else self.limits[0],
            budget=self.budget,
            drift=self.drift if self.settings.cache.drift_sample else None,
            debug_scopes=frozenset(self.settings.debug.scopes_any),
            encoder=self.compressor if self.compressor.codings else None,
            emit_groups=self.settings.cache.emit_groups,
        )

    async def stop(self, *, linger: float = 0.0) -> None:
        """Not ready, stop accepting, finish what is under way within `drain`, then close everything.

        Args:
            linger: seconds that idle connections have to bring a last request.
        """
        self.draining = True
        loop = asyncio.get_running_loop()
        until = loop.time() + self.settings.drain
        await self.doors.close()
        if self._server is not None:
            cut = await drain(self._server, grace=self.settings.drain, linger=linger, hurried=self._hurry.is_set)
            if cut:
                self.log.warning("cut off", connections=cut)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(loop.time() if self._hurry.is_set() else until):
                await self.pipeline.drain()
        self.metrics.loop_lag.stop()
        await self.compressor.stop()
        if self.origins is not None:
            await self.origins.stop()
        await self.probe.stop()
        await self.identity.stop()
        await self.reloader.stop()
        if self.sharing is not None:
            await self.sharing.stop()
        await self.client.stop()
        await self.doors.close_admin()
        if self._traces is not None:
            await asyncio.to_thread(self._traces.close)
        if self._admin is not None:
            await self._admin.cleanup()

    async def run(self, ready: Callable[[], None] = lambda: None) -> bool:
        """Serve until SIGINT or SIGTERM, then drain; a second signal ends that at once. SIGHUP reloads.

        Args:
            ready: called once clients can connect.

        Returns:
            Whether there was no second signal.

        Raises:
            OSError: a listener's address cannot be bound.
        """
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()

        def signalled() -> None:
            if stopping.is_set():
                self.hurry()
            stopping.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, signalled)
        loop.add_signal_handler(signal.SIGHUP, self.reloader.begin)
        try:
            await self.start()
            ready()
            await stopping.wait()
            self.draining = True
            self.log.info("draining", grace_seconds=self.settings.drain, delay_seconds=self.settings.drain_delay)
            await self._go_on(self.settings.drain_delay)
        finally:
            await self.stop(linger=LINGER)
            self.log.info("stopped", at_once=self._hurry.is_set())
        return not self._hurry.is_set()

    def hurry(self) -> None:
        """Cut off what is under way; for a gateway that drains."""
        self._hurry.set()

    def faults(self) -> dict[str, str]:
        """What speaks against sending clients here, by name."""
        return {name: fault for name, check in self._checks().items() if (fault := check()) is not None}

    async def _go_on(self, seconds: float) -> None:
        """Serve as before, until load balancers have noticed that this gateway is not ready."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurry.wait()

    def _checks(self) -> dict[str, Callable[[], str | None]]:
        checks: dict[str, Callable[[], str | None]] = {
            "draining": lambda: "shutting down" if self.draining else None,
            "keys": lambda: self.identity.fault if self.settings.auth else None,
            "upstream": lambda: self.probe.fault,
        }
        origins = self.origins
        if origins is not None:
            checks["origins"] = lambda: origins.fault if not origins.known else None
        return checks
