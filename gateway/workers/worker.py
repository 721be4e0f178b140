"""One worker: `python -m gateway.workers CONTROL LISTENING...`, started by the supervisor alone.

It does what it is told over the channel and nothing by signal: a terminal or an init system signals all processes of a
group, and the supervisor decides in which order they end. When the supervisor is gone it drains and ends.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import uvloop

from gateway.app import LINGER, Gateway
from gateway.edge.tls import TlsError
from gateway.identity.keys import KeyLoadError
from gateway.settings import ConfigError, parse
from gateway.telemetry.log import configure
from gateway.workers.channel import Channel
from gateway.workers.merge import snapshot
from gateway.workers.relay import Place, Relay
from gateway.workers.share import share
from gateway.workers.steady import steady

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.settings import Settings


class Worker:
    """A gateway at the end of a channel.

    Args:
        listening: file descriptors of the sockets to accept from.
    """

    def __init__(self, listening: Sequence[int]) -> None:
        self._listening: Final = tuple(listening)
        self._gateway: Gateway | None = None
        self._start: dict[str, Any] = {}
        self._latest: bytes = b""
        self._drained = False
        self.stopped: Final = asyncio.Event()
        self.channel: Final = Channel(
            {
                "start": self._started,
                "snapshot": self._snapshot,
                "reload": self._reload,
                "drop": self._drop,
                "cache": self._cache,
                "decisions": self._decisions,
                "not-ready": self._not_ready,
                "drain": self._drain,
                "hurry": self._hurry,
            }
        )

    async def drain(self) -> None:
        """Finish what is under way and stop."""
        gateway = self._gateway
        if gateway is not None and not self._drained:
            self._drained = True
            await gateway.stop(linger=LINGER)

    async def _started(self, start: dict[str, Any]) -> dict[str, Any]:
        """Begin to serve; the answer says why not, if not."""
        self._start, self._latest = start, start["settings"]
        try:
            settings = self._parsed(start["settings"])
            configure(level=settings.log.level, style=settings.log.format, always={"worker": start["number"]})
            sockets = tuple(socket.socket(fileno=number) for number in self._listening)
            for one in sockets:
                one.settimeout(0)
            place = Place(sockets, Relay(lambda tags: self.channel.call("announce", tags)))
            self._gateway = gateway = Gateway(settings, source=lambda: self._parsed(self._latest), place=place)
            self._latest = start["latest"]
            if self._latest != start["settings"]:
                await gateway.reloader.reload()
            await gateway.start()
            steady()
        except ConfigError as error:
            return {"faults": [str(fault) for fault in error.faults]}
        except TlsError as error:
            return {"faults": [f"{start['name']}: {error}"]}
        except KeyLoadError as error:
            return {"faults": [f"{start['name']}: auth.keys: {error}"]}
        return {"faults": []}

    def _parsed(self, raw: bytes) -> Settings:
        start = self._start
        return share(parse(raw, name=start["name"], base=Path(start["base"])), start["workers"])

    async def _snapshot(self, _: object) -> dict[str, Any]:
        gateway = self._gateway
        if gateway is None:
            return {"metrics": [], "faults": {"worker": "not serving"}}
        return {"metrics": snapshot(gateway.metrics.registry, gateway.metrics.merge), "faults": gateway.faults()}

    async def _reload(self, raw: bytes) -> dict[str, Any]:
        gateway, before, self._latest = self._gateway, self._latest, raw
        if gateway is None:
            return {"reloaded": False, "faults": ["not serving"]}
        outcome = await gateway.reloader.reload()
        if not outcome.reloaded:
            self._latest = before
        return asdict(outcome)

    async def _drop(self, tags: list[str]) -> None:
        if self._gateway is not None:
            self._gateway.store.invalidate(tags)

    async def _cache(self, asked: tuple[str, dict[str, Any]]) -> dict[str, Any] | None:
        return None if self._gateway is None else await self._gateway.cache(*asked)

    async def _decisions(self, asked: tuple[int, dict[str, str]]) -> list[dict[str, Any]]:
        return [] if self._gateway is None else await self._gateway.decisions.newest(*asked)

    async def _not_ready(self, _: object) -> None:
        if self._gateway is not None:
            self._gateway.draining = True

    async def _drain(self, _: object) -> dict[str, Any]:
        gateway = self._gateway
        await self.drain()
        self.stopped.set()
        return {"metrics": [] if gateway is None else snapshot(gateway.metrics.registry, gateway.metrics.merge)}

    async def _hurry(self, _: object) -> None:
        if self._gateway is not None:
            self._gateway.hurry()


async def serve(control: int, listening: Sequence[int]) -> None:
    """Be a worker until told to stop, or until nobody is there to tell.

    Args:
        control: file descriptor of this end of the channel.
        listening: those of the sockets to accept from.
    """
    worker = Worker(listening)
    await worker.channel.open(socket.socket(fileno=control))
    ends = [asyncio.create_task(event.wait()) for event in (worker.stopped, worker.channel.closed)]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for end in ends:
        end.cancel()
    await worker.drain()
    await asyncio.sleep(0)  # the last answer is on its way
    await worker.channel.close()


def main() -> None:
    """The process."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    control, *listening = map(int, sys.argv[1:])
    uvloop.run(serve(control, listening))
