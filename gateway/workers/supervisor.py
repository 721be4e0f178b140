"""Keeps several workers on one port: starts and replaces them, adds up what they count, reloads and drains them all.

The listening sockets are opened here and inherited, so that they outlive every worker: whoever waits in the queue of
one that dies is accepted by another. Nothing of a client's ever passes through this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest

from gateway.admin.cache import cache_api
from gateway.admin.guard import guard
from gateway.admin.server import application
from gateway.core.invalidation import EVERYTHING
from gateway.derived import prefix
from gateway.doors import Doors, forget_sockets, open_sockets
from gateway.lifecycle import Reloads, observe_lifecycle
from gateway.lint import refused
from gateway.live.recent import Recent
from gateway.pipeline.operations import merged
from gateway.settings import ConfigError, parse
from gateway.settings.changes import Reloaded, in_force
from gateway.settings.load import read_file
from gateway.telemetry.families import Read
from gateway.telemetry.log import configure
from gateway.telemetry.structured import structlog
from gateway.workers.merge import Merged
from gateway.workers.share import count
from gateway.workers.slot import Slot, StartError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from gateway.settings import Settings

_SCRAPE: Final = 2.0  # seconds to answer a question for metrics
_CONFIRM: Final = 5.0  # to drop pages, before a worker is ended
_RELOAD: Final = 60.0
_CACHE: Final = 30.0  # to look through all pages
_LATE: Final = 5.0  # after the grace, before a worker is ended


class Supervisor:
    """Workers and what is common to them.

    Args:
        path: the settings file.
        raw: its content.
        settings: what it says.
    """

    def __init__(self, path: Path, raw: bytes, settings: Settings) -> None:
        self._path: Final = path
        self._raw: Final = raw
        self._latest = raw
        self.settings = settings
        self._log: Final = structlog.get_logger("gateway")
        self._doors: Final = Doors(settings, self._log)
        self._sockets: Final[list[socket.socket]] = []
        self._slots: Final[list[Slot]] = []
        self._turn: Final = asyncio.Lock()
        self._tasks: Final[set[asyncio.Task[Any]]] = set()
        self._admin: web.AppRunner | None = None
        self._hurry: Final = asyncio.Event()
        self.draining = False
        self._reloads: Final = Reloads(self._log, time.time)
        self.registry: Final = CollectorRegistry()
        own = observe_lifecycle(self._expose, reloads=self._reloads, workers=self)
        self._merged: Final = Merged(without=own)
        self.registry.register(self._merged)
        self._checks: Final[dict[str, Callable[[], str | None]]] = {}

    @property
    def configured(self) -> int:
        """How many workers there are to be."""
        return len(self._slots)

    @property
    def up(self) -> int:
        """How many serve."""
        return sum(slot.serving for slot in self._slots)

    @property
    def restarts(self) -> int:
        """How many have ended unasked."""
        return sum(slot.restarts for slot in self._slots)

    @property
    def url(self) -> str:
        """Where clients connect, once started."""
        return self._doors.url_of(self._sockets[0]) if self._sockets else ""

    @property
    def admin_url(self) -> str:
        """Where the operator connects, once started."""
        return self._doors.admin_url

    async def run(self, ready: Callable[[], None] = lambda: None) -> bool:
        """Serve until SIGINT or SIGTERM, then drain; a second signal ends that at once. SIGHUP reloads.

        Args:
            ready: called once clients can connect.

        Returns:
            Whether there was no second signal.

        Raises:
            OSError: an address cannot be bound.
            StartError: a worker does not start.
        """
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()

        def signalled() -> None:
            if stopping.is_set():
                self._hurry.set()
            stopping.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, signalled)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._behind(self.reload()))
        try:
            await self._start()
            ready()
            await stopping.wait()
            settings = self.settings
            self._log.info("draining", grace_seconds=settings.drain, delay_seconds=settings.drain_delay)
            self.draining = True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(settings.drain_delay):
                    await self._hurry.wait()
        finally:
            await self._stop()
            self._log.info("stopped", at_once=self._hurry.is_set())
        return not self._hurry.is_set()

    async def reload(self) -> Reloaded:
        """Read the file again and have every worker put it in force, or none."""
        async with self._turn:
            outcome = await self._reload()
        self._reloads.note(outcome)
        return outcome

    # -- life

    async def _start(self) -> None:
        settings = self.settings
        self._sockets.extend(open_sockets(settings))
        workers = count(settings)
        for number in range(1, workers + 1):
            self._slots.append(Slot(number, self._sockets, self._told, self._announce, self._ended))
        await asyncio.gather(*(slot.begin() for slot in self._slots))
        await self._start_admin()
        self._log.info(
            "listening",
            url=self.url,
            admin=self.admin_url,
            public_url=settings.public_url,
            workers=workers,
        )

    def _told(self) -> dict[str, Any]:
        return {
            "settings": self._raw,
            "latest": self._latest,
            "name": str(self._path),
            "base": str(self._path.parent),
            "workers": len(self._slots),
        }

    async def _start_admin(self) -> None:
        app = application(
            self.registry,
            self._checks,
            status=Recent(lambda: generate_latest(self.registry).decode()).status,
            actions={"reload": self._reload_answer},
            mounted={"/cache": cache_api(self._cache, public_path=prefix(self.settings))},
            decisions=self._decisions,
        )
        guard(app, self.settings.admin.token)
        app.middlewares.append(self._asked)
        self._admin = web.AppRunner(app, access_log=None)
        await self._doors.open_admin(self._admin)
        self._doors.watch()

    async def _cache(self, name: str, asked: Mapping[str, Any]) -> dict[str, Any] | None:
        """An operation of the operator's cache API: by the worker that an entry's id names, else by all."""
        if "id" in asked:
            number, _, own = asked["id"].partition("-")
            slots = [slot for slot in self._slots if str(slot.number) == number]
            answer = await slots[0].ask("cache", (name, {**asked, "id": own}), within=_CACHE) if slots else None
            return None if answer is None else {**answer, **({"id": asked["id"]} if "id" in answer else {})}
        answers = await asyncio.gather(*(slot.ask("cache", (name, asked), within=_CACHE) for slot in self._slots))
        found = {slot.number: one for slot, one in zip(self._slots, answers, strict=True) if one is not None}
        return merged(name, asked, found) if found else None

    async def _decisions(self, most: int, wanted: Mapping[str, str]) -> list[dict[str, Any]]:
        """The newest decisions of all workers."""
        asked = (most, dict(wanted))
        answers = await asyncio.gather(*(slot.ask("decisions", asked, within=_SCRAPE) for slot in self._slots))
        found = [one for answer in answers for one in answer or ()]
        return sorted(found, key=lambda one: -float(one["at"]))[:most]

    async def _stop(self) -> None:
        self.draining = True
        for slot in self._slots:
            slot.stopping()
        for opened in self._sockets:
            opened.close()  # the workers have them too, and empty their queue
        ends = [asyncio.create_task(self._drain(slot)) for slot in self._slots]
        hurried = asyncio.create_task(self._hurried())
        await asyncio.gather(*ends)
        hurried.cancel()
        await asyncio.gather(hurried, *self._tasks, return_exceptions=True)
        forget_sockets(self.settings)
        await self._doors.close_admin()
        if self._admin is not None:
            await self._admin.cleanup()

    async def _drain(self, slot: Slot) -> None:
        await slot.ask("drain", within=self.settings.drain + _LATE)
        ended = asyncio.create_task(slot.stopped())
        await asyncio.wait({ended}, timeout=_LATE)
        slot.kill()
        await ended

    async def _hurried(self) -> None:
        await self._hurry.wait()
        await asyncio.gather(*(slot.ask("hurry", within=1.0) for slot in self._slots))

    def _behind(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- what workers tell

    async def _announce(self, origin: Slot, tags: list[str]) -> None:
        others = [slot for slot in self._slots if slot is not origin]
        await asyncio.gather(*(slot.insist("drop", tags, within=_CONFIRM) for slot in others))

    def _ended(self, slot: Slot) -> None:
        self._merged.bury(slot.number)
        if not self.draining:
            # It may have had a write under way that nobody will answer.
            self._behind(self._announce(slot, [EVERYTHING]))

    @web.middleware
    async def _asked(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """Ask the workers before anybody is told about them."""
        if request.path != "/healthz":
            await self._ask_all()
        response: web.StreamResponse = await handler(request)
        return response

    async def _ask_all(self) -> None:
        answers = await asyncio.gather(*(slot.ask("snapshot", within=_SCRAPE) for slot in self._slots))
        faults: dict[str, str] = {}
        for slot, answer in zip(self._slots, answers, strict=True):
            if answer is not None and slot.serving:
                self._merged.update(slot.number, answer["metrics"])
                faults |= answer["faults"]
        if self.draining:
            faults["draining"] = "shutting down"
        if not self.up:
            faults["workers"] = "none serves"
        self._checks.clear()
        self._checks.update({name: partial(str, fault) for name, fault in faults.items()})

    def _expose(self, name: str, text: str, read: Callable[[], Any], label: str = "", **_merge: str) -> None:
        self.registry.register(Read(name, text, read, (label,) if label else ()))

    # -- reload

    async def _reload_answer(self) -> tuple[int, object]:
        outcome = await self.reload()
        return (200 if outcome.reloaded else 422), asdict(outcome)

    async def _reload(self) -> Reloaded:
        try:
            raw = read_file(str(self._path))
            new = parse(raw, name=str(self._path), base=self._path.parent)
        except ConfigError as error:
            return Reloaded(reloaded=False, faults=tuple(str(fault) for fault in error.faults))
        leaks = tuple(f"{doubt.key}: {doubt.detail}" for doubt in refused(new))
        if leaks:
            return Reloaded(reloaded=False, faults=leaks)
        serving = [slot for slot in self._slots if slot.serving]
        # One first: what it refuses nobody has put in force.
        first = await serving[0].ask("reload", raw, within=_RELOAD) if serving else None
        if first is None or not first["reloaded"]:
            faults = ("no worker answered",) if first is None else tuple(first["faults"])
            return Reloaded(reloaded=False, faults=faults)
        self._latest = raw
        self._doors.adopt(new)
        answers = await asyncio.gather(*(slot.ask("reload", raw, within=_RELOAD) for slot in serving[1:]))
        for slot, answer in zip(serving[1:], answers, strict=True):
            if answer is None or not answer["reloaded"]:
                self._log.error("worker replaced: it did not reload", number=slot.number, answer=answer)
                slot.kill()
        old, self.settings = self.settings, in_force(self.settings, new)
        if (old.log.level, old.log.format) != (self.settings.log.level, self.settings.log.format):
            configure(level=self.settings.log.level, style=self.settings.log.format)
        return Reloaded(reloaded=True, changed=tuple(first["changed"]), needs_restart=tuple(first["needs_restart"]))


__all__ = ["StartError", "Supervisor"]
