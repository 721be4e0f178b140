"""The gateway as a process of its own before a sandbox, and what that process takes: memory and descriptors."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.sandbox.controller import Controller
from gateway.sandbox.uaa import Uaa
from gateway.sandbox.world import World

if TYPE_CHECKING:
    import psutil

ROOT = Path(__file__).parents[1]
ADVERTISED = "https://api.sandbox.example.org"
SETTINGS = """
listen: {{port: {port}}}
admin: {{port: {admin}}}
public_url: http://127.0.0.1:{port}
drain: 5s
upstream:
  url: "{controller}"
  advertised_urls: ["{advertised}"]
  host_header: api.sandbox.example.org
  timeouts: {{connect: 2s, head: 3s, idle: 3s}}
auth:
  issuer: "{issuer}"
  keys: [{{url: "{uaa}/token_keys", refresh_interval: 5s}}]
cache: {{max_bytes: 16MiB, max_entry_bytes: 1MiB}}
rate_limits: {{policies: [{{name: generous, who: principal, limit: 1000000, window: 1m}}]}}
log: {{level: {level}}}
{more}
"""


def free_port() -> int:
    """A port nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


class Site:
    """A sandbox and a gateway process before it.

    Args:
        folder: where settings and log go.
        more: further lines of settings.
        mutant: how the gateway is broken, by its name in `mutants`.
    """

    def __init__(self, folder: Path, more: str = "", mutant: str | None = None) -> None:
        broken = {"PYTHONPATH": str(Path(__file__).parent / "mutants"), "SOAK_MUTANT": mutant or ""}
        self._environment = os.environ | (broken if mutant else {})
        self._file = folder / "gateway.yaml"
        self._log = folder / "gateway.log"
        self._more = more
        self.port, self.admin = free_port(), free_port()
        self.url, self.admin_url = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{self.admin}"
        self.uaa = Uaa(lifetime=120)
        self.samples: dict[int, list[tuple[float, float, int]]] = {}

    async def start(self) -> None:
        """Start everything; returns once the gateway takes connections."""
        uaa = await self.uaa.start()
        self.controller = Controller(
            world=World.seeded(24), verify=self.uaa.verify, external_url=ADVERTISED, uaa_url=uaa, job_delay=None
        )
        self.direct = await self.controller.start()
        self.write_settings()
        with self._log.open("wb") as log:
            command = (sys.executable, "-m", "gateway", "run", "-c", str(self._file))
            self.process = await asyncio.create_subprocess_exec(
                *command, stdout=log, stderr=log, cwd=ROOT, env=self._environment
            )
        for _ in range(600):
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except ConnectionError:
                if self.process.returncode is not None:
                    break
                await asyncio.sleep(0.05)
                continue
            writer.close()
            await writer.wait_closed()
            return
        raise SystemExit(f"the gateway did not start:\n{self._log.read_text()}")

    def write_settings(self, *, level: str = "warning", faulty: bool = False) -> None:
        """Write the settings file; takes effect with `reload`."""
        text = SETTINGS.format(
            port=self.port,
            admin=self.admin,
            controller=self.direct,
            advertised=ADVERTISED,
            issuer=self.uaa.issuer,
            uaa=self.uaa.url,
            level=level,
            more=self._more,
        )
        self._file.write_text(text + ("drain: [5s\n" if faulty else ""))

    def reload(self) -> None:
        """Tell the gateway to read its settings again."""
        self.process.send_signal(signal.SIGHUP)

    def workers(self) -> list[psutil.Process]:
        """The processes that the gateway started, if any."""
        import psutil

        return psutil.Process(self.process.pid).children(recursive=True)

    def sample(self) -> None:
        """Note how much memory and how many descriptors each of the gateway's processes has."""
        import psutil

        now = time.monotonic()
        for process in (psutil.Process(self.process.pid), *self.workers()):
            try:
                memory = process.memory_full_info().pss  # what processes share counts once
                self.samples.setdefault(process.pid, []).append((now, memory / 2**20, process.num_fds()))
            except psutil.NoSuchProcess:
                continue

    async def stop(self) -> int:
        """End the gateway in order, then the sandbox; returns the gateway's exit code."""
        if self.process.returncode is None:
            self.process.terminate()
        async with asyncio.timeout(30):
            code = await self.process.wait()
        await self.controller.stop()
        await self.uaa.stop()
        return code

    def log(self) -> str:
        """What the gateway wrote."""
        return self._log.read_text(errors="replace")


def slope(series: list[list[tuple[float, float]]]) -> float:
    """Least squares: how much the second value grows in a minute, each series from a level of its own.

    A worker that takes the place of one that was killed begins small: its coming is no growth.
    """
    together = spread = 0.0
    for samples in series:
        if samples:
            middle = sum(x for x, _ in samples) / len(samples)
            mean = sum(y for _, y in samples) / len(samples)
            together += sum((x - middle) * (y - mean) for x, y in samples)
            spread += sum((x - middle) ** 2 for x, _ in samples)
    return 60.0 * together / spread if spread else 0.0
