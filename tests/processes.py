"""Gateways as processes: started from a file, waited for by what they log, signalled, never left behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any


class Process:
    """A running `gateway run`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []
        self.url = ""
        self.admin_url = ""
        self._reading = asyncio.create_task(self._read())
        self._more = asyncio.Event()

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            try:
                self.lines.append(json.loads(line))
            except ValueError:
                self.lines.append({"event": line.decode(errors="replace")})
            self._more.set()

    async def logged(self, event: str, count: int = 1) -> dict[str, Any]:
        """The line of an event, once it is there; the last of so many."""
        async with asyncio.timeout(30):
            while len(found := [line for line in self.lines if line.get("event") == event]) < count:
                assert self.process.returncode is None, self.lines
                self._more.clear()
                await self._more.wait()
        return found[count - 1]

    async def listening(self) -> dict[str, Any]:
        """What the process says that has the admin listener."""
        return await self.line(lambda line: line.get("event") == "listening" and bool(line["admin"]))

    async def line(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first line of a kind, once it is there."""
        async with asyncio.timeout(60):
            while not (found := [line for line in self.lines if wanted(line)]):
                assert self.process.returncode is None, self.lines
                self._more.clear()
                await self._more.wait()
        return found[0]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self, within: float = 30.0) -> int:
        """The exit code."""
        async with asyncio.timeout(within):
            code = await self.process.wait()
            await self._reading
        return code


def children(pid: int) -> list[int]:
    """The processes that a process has started and that are there."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@asynccontextmanager
async def running(path: Path, **environment: str) -> AsyncIterator[Process]:
    """A gateway that serves a settings file; its log must be JSON at level info."""
    process = Process(
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "gateway",
            "run",
            "-c",
            str(path),
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, **environment},
        )
    )
    try:
        line = await process.listening()
        process.url, process.admin_url = line["url"], line["admin"]
        yield process
    finally:
        if process.process.returncode is None:
            for pid in (process.process.pid, *children(process.process.pid)):
                os.kill(pid, signal.SIGKILL)
            await process.process.wait()
        await process._reading
