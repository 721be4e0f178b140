"""What state costs: start-up, idle memory, bytes of each stored page and remembered principal, and whether hits stay flat.

The gateway's own parts are used in this process, below the socket: the hit lane with a writer that throws away.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import servers
from world import ISSUER

from gateway.app import Gateway
from gateway.core.keys import CacheKey
from gateway.core.model import Fields
from gateway.edge.quick_heads import Caller
from gateway.pipeline.entry import Entry
from gateway.pipeline.transform import interned
from gateway.settings import load
from gateway.telemetry.log import configure

_FIELDS = (
    ("Content-Type", "application/json; charset=utf-8"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "SAMEORIGIN"),
    ("Referrer-Policy", "strict-origin-when-cross-origin"),
    ("Via", "1.1 gateway"),
)


def measure(folder: Path, *, quick: bool) -> dict[str, Any]:
    """Measure everything; what fails is named in its place."""
    found: dict[str, Any] = {}
    try:
        found |= _started(folder, 2 if quick else 5)
    except servers.MissingError as error:
        found["start"] = f"missing: {error}"
    command = [sys.executable, str(Path(__file__)), str(folder), "10000" if quick else "100000"]
    done = subprocess.run(["taskset", "-c", servers.SERVER_CORE, *command], capture_output=True, text=True, timeout=240)
    found |= (
        json.loads(done.stdout.splitlines()[-1])
        if done.returncode == 0
        else {"entries": f"failed: {done.stderr[-300:]}"}
    )
    return found


def _started(folder: Path, times: int) -> dict[str, Any]:
    """Seconds until a client can connect, and megabytes when nobody has."""
    took, resident = [], []
    for _ in range(times):
        server = servers.gateway("gateway, idle", 18094, "idle.yaml")
        begun = time.perf_counter()
        server.start(folder)
        took.append(time.perf_counter() - begun)
        time.sleep(0.5)
        resident.append(server.memory() / 1e6)
        server.stop()
    return {
        "ready_seconds": round(sorted(took)[times // 2], 2),
        "idle_megabytes": round(sorted(resident)[times // 2], 1),
    }


def _allocated() -> int:
    """Bytes that Python has allocated; the resident size would hide what is allocated again."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


async def _inside(folder: Path, most: int) -> dict[str, Any]:
    os.chdir(folder)
    configure(level="warning", style="json")
    gateway = Gateway(load(folder / "idle.yaml"))
    await gateway.start()
    lane = gateway._server._lane
    tokens = (folder / "tokens.txt").read_text().split()
    found: dict[str, Any] = {}
    try:
        principal = gateway.identity.verify(tokens[0], time.time())
        now = time.time()
        found |= _sizes(gateway, principal.global_domain.id, tokens, now)
        made, counts = 0, [100, 1000, 10_000, 100_000]
        for count in [count for count in counts if count <= most]:
            _fill(gateway, principal.global_domain.id, range(made, count), now)
            made = count
            found[f"hit_us_at_{count}_entries"] = round(_hits(lane, tokens[:1], count), 2)
        for count in (10, 1000):
            found[f"hit_us_with_{count}_principals"] = round(_hits(lane, tokens[:count], 100), 2)
    finally:
        await gateway.stop()
    return found


_BODY = 1000
_PATH = "/v3/processes"


def _fill(gateway: Gateway, domain: str, numbers: range, now: float) -> None:
    """Store pages of their own; the strings of each are its own, as a parser makes them."""
    for number in numbers:
        key = CacheKey(domain, _PATH[:3] + _PATH[3:], f"?page={number}&per_page=2", "json")
        fields = interned(Fields((name, value[:1] + value[1:]) for name, value in _FIELDS))
        times = (now, now + 3600, now + 3600, now + 3600)
        content = number.to_bytes(4, "big") + bytes(_BODY - 4)
        entry = Entry(key, fields, content, f'"{number:032x}"', *times, tags=("processes",))
        gateway.store.put(entry, generation=gateway.store.generation(("processes",)))


def _sizes(gateway: Gateway, domain: str, tokens: list[str], now: float) -> dict[str, Any]:
    """What a stored page takes beside its content, and a remembered token beside nothing."""
    tracemalloc.start()
    try:
        before, count = _allocated(), 2000
        _fill(gateway, domain, range(1_000_000, 1_000_000 + count), now)
        entries = (_allocated() - before) / count - _BODY
        before = _allocated()
        for token in tokens[1:]:
            gateway.identity.verify("".join((token[:9], token[9:])), now)
        principals = (_allocated() - before) / (len(tokens) - 1)
    finally:
        tracemalloc.stop()
    return {"overhead_bytes_per_entry": round(entries), "bytes_per_principal_and_token": round(principals)}


def _hits(lane: Any, tokens: list[str], pages: int) -> float:
    """Microseconds of a hit, over all pages and tokens in turn: the best of many short stretches."""
    calls = 20_000
    step = 7919  # a prime, so that neighbours in the table are not neighbours in time
    requests = [
        (
            f"GET /v3/processes?page={number * step % pages}&per_page=2 HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\n"
            f"X-Vcap-Request-Id: {number:08x}-0000\r\nAuthorization: bearer {tokens[number % len(tokens)]}\r\n\r\n"
        ).encode()
        for number in range(calls)
    ]
    callers = [Caller("127.0.0.1", "http") for _ in range(32)]
    best = float("inf")
    for _ in range(3):
        for start in range(0, calls, 1000):
            begun = time.perf_counter()
            for number in range(start, start + 1000):
                if lane.take(requests[number], callers[number % 32], _nowhere) is not True:
                    raise RuntimeError("the lane did not take a hit")
            best = min(best, (time.perf_counter() - begun) / 1000)
    return best * 1e6


def _nowhere(_data: bytes) -> None:
    pass


if __name__ == "__main__":
    import uvloop

    assert ISSUER
    print(json.dumps(uvloop.run(_inside(Path(sys.argv[1]), int(sys.argv[2])))))
