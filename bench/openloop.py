"""Open-loop load: requests become due at a fixed rate, whether or not earlier ones were answered.

Latency counts from when a request was due, so a server that stalls is not excused by a client that waits for it
("coordinated omission"). Arguments: port, requests a second, seconds, target. Prints one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import deque
from pathlib import Path
from typing import Final, cast

import uvloop

_CONNECTIONS: Final = 32
_TICK: Final = 0.001
_END: Final = b"\r\n\r\n"


class Client(asyncio.Protocol):
    """One connection; requests that are due while it waits for an answer stand in its queue."""

    def __init__(self, took: list[float]) -> None:
        self._took = took
        self._queue: deque[tuple[float, bytes]] = deque()
        self._due: float | None = None
        self._left = 0
        self._head = b""
        self.failures = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are of a kind of their own

    def connection_lost(self, exc: Exception | None) -> None:
        self.failures += len(self._queue) + (self._due is not None)

    def ask(self, due: float, request: bytes) -> None:
        if self._due is None:
            self._due = due
            self._transport.write(request)
        else:
            self._queue.append((due, request))

    def data_received(self, data: bytes) -> None:
        if not self._left:
            self._head += data
            end = self._head.find(_END)
            if end < 0:
                return
            head, data, self._head = self._head[:end], self._head[end + 4 :], b""
            if not head.startswith(b"HTTP/1.1 200"):
                self.failures += 1
            lower = head.lower()
            at = lower.find(b"content-length:")
            stop = lower.find(b"\r", at)
            self._left = int(lower[at + 15 : stop if stop > 0 else None]) if at >= 0 else 0
        self._left -= len(data)
        if self._left <= 0 and self._due is not None:
            self._took.append(time.perf_counter() - self._due)
            self._left, self._due = 0, None
            if self._queue:
                self.ask(*self._queue.popleft())


async def main(port: int, rate: float, seconds: float, target: str) -> None:
    took: list[float] = []
    loop = asyncio.get_running_loop()
    clients = [(await loop.create_connection(lambda: Client(took), "127.0.0.1", port))[1] for _ in range(_CONNECTIONS)]
    token = Path("tokens.txt").read_text().split("\n", 1)[0]
    before = f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/json\r\nX-Vcap-Request-Id: ".encode()
    after = f"\r\nAuthorization: bearer {token}\r\n\r\n".encode()
    start = time.perf_counter() + 0.1
    total = int(rate * seconds)
    for number in range(total):
        due = start + number / rate
        while (now := time.perf_counter()) < due:
            await asyncio.sleep(min(_TICK, due - now))
        clients[number % _CONNECTIONS].ask(due, b"%b%08x-0000-4000-8000-000000000000%b" % (before, number, after))
        if number % 64 == 0:
            await asyncio.sleep(0)
    until = time.perf_counter() + 2
    while len(took) < total and time.perf_counter() < until:
        await asyncio.sleep(0.01)
    took.sort()
    at = {name: took[min(len(took) - 1, int(len(took) * share))] * 1000 for name, share in _SHARES} if took else {}
    lost = total - len(took)
    print(json.dumps({"rate": rate, "failures": sum(client.failures for client in clients), "lost": lost, **at}))


_SHARES: Final = (("p50", 0.5), ("p99", 0.99), ("p999", 0.999))

if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), sys.argv[4]))
