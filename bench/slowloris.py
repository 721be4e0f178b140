"""`python bench/slowloris.py`: what thousands of slow clients cost one that is not.

A gateway in a process of its own answers from its cache and from an origin, both to one ordinary client at a steady
rate. The same is measured alternately: alone, and beside so many slow clients, each of which sends a head at a byte a
second and comes back as soon as it is shown out. They come within one `head_timeout`, so that they are shown out at a
steady rate, too. Printed are p50 and p99 of the ordinary client, and how many of its requests failed. Nothing asserts
on time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import resource
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Final, cast

import uvloop

SETTINGS: Final = """
listen: {{port: 0}}
admin: {{port: 0}}
public_url: http://127.0.0.1
upstream: {{url: "http://127.0.0.1:{origin}", host_header: origin.example.org}}
route_table: none
routes:
  - {{match: GET /hit, access: public, cache: {{mode: policy, ttl: 1h, share: public}}}}
  - {{match: GET /miss, access: public}}
log: {{level: warning}}
"""
_HEAD_TIMEOUT: Final = 10.0  # the gateway's default
BODY: Final = b'{"resources":[' + b'{"guid":"a1b2c3d4"},' * 60 + b"{}]}"
ANSWER: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)


async def origin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer whatever is asked."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(ANSWER)
            await writer.drain()
    writer.close()


async def ordinary(port: int, path: str, seconds: float, rate: float) -> tuple[list[float], int]:
    """Ask at a steady rate; the latency of every request, counted from when it was due, and how many failed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request = b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % path.encode()
    taken, failed = [], 0
    clock = time.perf_counter
    start = clock()
    for number in range(int(seconds * rate)):
        due = start + number / rate
        if (wait := due - clock()) > 0:
            await asyncio.sleep(wait)
        begun = clock()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        await reader.readexactly(length)
        taken.append(clock() - begun)
        failed += not head.startswith(b"HTTP/1.1 200")
    writer.close()
    return taken, failed


class Slow(asyncio.Protocol):
    """A client that never comes to the point."""

    def __init__(self, seen: Counter[str], port: int) -> None:
        self._seen, self._port = seen, port
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = wire = cast("asyncio.Transport", transport)
        self._seen["connected"] += 1
        wire.write(b"GET /hit HTTP/1.1\r\nHost: a\r\nX: ")
        self._timer = asyncio.get_running_loop().call_later(random.random(), self._drip)

    def _drip(self) -> None:
        if self._transport is not None:
            self._transport.write(b"a")
            self._timer = asyncio.get_running_loop().call_later(1.0, self._drip)

    def data_received(self, data: bytes) -> None:
        self._seen[data[9:12].decode()] += 1

    def connection_lost(self, _: Exception | None) -> None:
        self._transport = None
        self._seen["ended"] += 1
        if self._timer is not None:
            self._timer.cancel()
        asyncio.get_running_loop().create_task(connect(self._seen, self._port))


async def connect(seen: Counter[str], port: int) -> None:
    """One more slow client."""
    with contextlib.suppress(OSError):
        await asyncio.get_running_loop().create_connection(lambda: Slow(seen, port), "127.0.0.1", port)


async def attack(port: int, clients: int) -> None:
    """Be so many slow clients until killed, with no claim on time that the ordinary client could use; says on standard output when all are connected, and then what they see."""
    os.nice(19)
    seen: Counter[str] = Counter()
    for _ in range(clients):
        await connect(seen, port)
        await asyncio.sleep(_HEAD_TIMEOUT / clients)
    while True:
        print(json.dumps({**seen, "open": seen["connected"] - seen["ended"]}), flush=True)
        await asyncio.sleep(1)


def quantiles(taken: list[float]) -> tuple[float, float]:
    """p50 and p99 in milliseconds."""
    cuts = statistics.quantiles(taken, n=100)
    return cuts[49] * 1000, cuts[98] * 1000


async def main(clients: int, seconds: float, rounds: int, rate: float) -> None:
    """Measure and print."""
    server = await asyncio.start_server(origin, "127.0.0.1", 0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gateway.yaml"
        path.write_text(SETTINGS.format(origin=server.sockets[0].getsockname()[1]))
        gateway = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway", "run", "-c", str(path)), stderr=asyncio.subprocess.PIPE
        )
        attacker: asyncio.subprocess.Process | None = None
        try:
            port = await listening(gateway)
            results: dict[tuple[str, str], list[float]] = {}
            failures: Counter[str] = Counter()
            seen: dict[str, int] = {}
            for _ in range(rounds):
                for crowd in ("alone", "beside"):
                    if crowd == "beside":
                        attacker = await asyncio.create_subprocess_exec(
                            *(sys.executable, __file__, "--attack", str(port), "--clients", str(clients)),
                            stdout=asyncio.subprocess.PIPE,
                        )
                        assert attacker.stdout is not None
                        await attacker.stdout.readline()
                    for what in ("/hit", "/miss"):
                        taken, failed = await ordinary(port, what, seconds, rate)
                        results.setdefault((what, crowd), []).extend(taken)
                        failures[crowd] += failed
                    if attacker is not None:
                        attacker.terminate()
                        assert attacker.stdout is not None
                        lines = (await attacker.stdout.read()).splitlines()
                        await attacker.wait()
                        attacker = None
                        seen = json.loads(lines[-1])
                        await asyncio.sleep(1)
            show(results, failures, seen, clients)
        finally:
            for process in (attacker, gateway):
                if process is not None and process.returncode is None:
                    process.terminate()
                    await process.communicate()
            server.close()


async def listening(gateway: asyncio.subprocess.Process) -> int:
    """The port that the kernel chose, found where the process listens."""
    assert gateway.stderr is not None
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for port in ports_of(gateway.pid):
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, ValueError):
                if not (await ordinary(port, "/hit", 0.1, 10))[1]:
                    return port
        await asyncio.sleep(0.1)
    raise SystemExit("the gateway does not listen")


def ports_of(pid: int) -> list[int]:
    """Ports on which a process listens (Linux)."""
    inodes = set()
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                inodes.add(str(entry.readlink()).removeprefix("socket:[").removesuffix("]"))
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [int(row[1].split(":")[1], 16) for row in rows if row[3] == "0A" and row[9] in inodes]


def show(
    results: dict[tuple[str, str], list[float]], failures: Counter[str], seen: dict[str, int], clients: int
) -> None:
    """Print the table."""
    print(f"{clients} slow clients; they saw {seen}")
    print(f"{'':8}{'p50 alone':>12}{'beside':>9}{'p99 alone':>12}{'beside':>9}{'ratio of p99':>15}")
    for what in ("/hit", "/miss"):
        alone, beside = (quantiles(results[what, crowd]) for crowd in ("alone", "beside"))
        print(
            f"{what:8}{alone[0]:10.2f}ms{beside[0]:7.2f}ms{alone[1]:10.2f}ms{beside[1]:7.2f}ms{beside[1] / alone[1]:15.2f}"
        )
    print(f"failed requests: alone {failures['alone']}, beside {failures['beside']}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second of the ordinary client")
    parser.add_argument("--attack", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if given.attack:
        uvloop.run(attack(given.attack, given.clients))
    else:
        uvloop.run(main(given.clients, given.seconds, given.rounds, given.rate))
