"""What state costs: start-up, idle memory, bytes of each stored page and remembered principal, and whether hits stay flat.

The gateway's own parts are used in this process, below the socket: the hit lane with a writer that throws away.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
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
            found[f"hit_us_at_{count}_entries"] = round(_hits(lane, tokens[:1], _in_turn(count)), 2)
            found[f"zipf_hit_us_at_{count}_entries"] = round(_hits(lane, tokens[:1], _zipf(count)), 2)
        for count in (10, 1000):
            found[f"hit_us_with_{count}_principals"] = round(_hits(lane, tokens[:count], _in_turn(100)), 2)
        found["bytes_per_standing_hit"] = await _standing(gateway, principal.global_domain.id, tokens[0], now)
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


def _in_turn(pages: int) -> list[int]:
    """Every page once, or all of them again and again, so that neighbours in the table are not neighbours in time."""
    step = 7919  # a prime
    return [number * step % pages for number in range(max(20_000, pages))]


def _zipf(pages: int) -> list[int]:
    """The first page twice as often as the second, and so on."""
    weights = [1 / rank for rank in range(1, pages + 1)]
    return random.Random(1).choices(range(pages), weights, k=20_000)


def _head(number: int, page: int, token: str) -> bytes:
    return (
        f"GET /v3/processes?page={page}&per_page=2 HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\n"
        f"X-Vcap-Request-Id: {number:08x}-0000\r\nAuthorization: bearer {token}\r\n\r\n"
    ).encode()


def _hits(lane: Any, tokens: list[str], pages: list[int]) -> float:
    """Microseconds of a hit, over pages in this order and tokens in turn: the best of many short stretches.

    Every page was asked for before. The process is warm for the stretch before, not for the one that is measured.
    Answers are given away as often as an event loop with as many connections would.
    """
    send = lane._post.__self__.send
    callers = [Caller("127.0.0.1", "http") for _ in range(32)]
    best = float("inf")
    for last in (False, False, True):
        for start in range(0, len(pages), 1000):
            numbers = range(start, min(start + 1000, len(pages)))
            requests = [_head(number, pages[number], tokens[number % len(tokens)]) for number in numbers]
            begun = time.process_time()
            for number, request in zip(numbers, requests, strict=True):
                if lane.take(request, callers[number % 32], _nowhere) is not True:
                    raise RuntimeError("the lane did not take a hit")
                if number % 32 == 31:
                    send()
            if last or len(pages) <= 20_000:
                best = min(best, (time.process_time() - begun) / len(requests))
    return best * 1e6


async def _standing(gateway: Gateway, domain: str, token: str, now: float) -> int:
    """Bytes that a page takes more when it has been asked for twice by heads that differ in their line alone."""
    lane, caller, count = gateway._server._lane, Caller("127.0.0.1", "http"), 10_000

    async def asked(numbers: range) -> None:
        for number in numbers:
            for _ in range(2):
                lane.take(_head(number, number, token), caller, _nowhere)
            await asyncio.sleep(0)  # or answers lie unsent

    first = range(2_000_000, 2_000_000 + count)
    more = range(first.stop, first.stop + count)
    _fill(gateway, domain, range(first.start, more.stop), now)
    await asked(first)  # so that whatever has a bound of its own is full
    tracemalloc.start()
    try:
        before = _allocated()
        await asked(more)
        return round((_allocated() - before) / count)
    finally:
        tracemalloc.stop()


def _nowhere(_data: bytes) -> None:
    pass


if __name__ == "__main__":
    import uvloop

    assert ISSUER
    print(json.dumps(uvloop.run(_inside(Path(sys.argv[1]), int(sys.argv[2])))))
