"""Ways to load a server: wrk in a closed loop, a fixed rate in an open one, herds and single requests."""

from __future__ import annotations

import json
import re
import ssl
import subprocess
import sys
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from servers import LOAD_CORE, MissingError, Server, program

HERE: Final = Path(__file__).parent
TARGET: Final = "/v3/processes?page=1&per_page=2"
_UNITS: Final = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}


@dataclass
class Load:
    """One run of wrk.

    Attributes:
        rate: answers a second.
        p99: milliseconds.
        unexpected: answers that were neither 2xx nor 3xx.
        answers: all of them.
        computed: microseconds that the server computed for each answer.
    """

    rate: float
    p99: float
    unexpected: int
    answers: int
    computed: float


@dataclass
class Aim:
    """Where requests go.

    Attributes:
        server: whose time is looked at.
        port: of the listener.
        target: path and query.
        script: one of the load scripts.
        connections: how many at once.
        scheme: "http" or "https".
    """

    server: Server
    port: int
    target: str = TARGET
    script: str = "ids.lua"
    connections: int = 32
    scheme: str = "http"

    @property
    def url(self) -> str:
        """Where wrk goes."""
        return f"{self.scheme}://127.0.0.1:{self.port}{self.target}"


def wrk(folder: Path, aim: Aim, seconds: float) -> Load:
    """Ask in a closed loop.

    Raises:
        MissingError: there is no wrk, or no answer came.
    """
    if program("wrk") is None:
        raise MissingError("wrk is not installed")
    before = aim.server.computed()
    done = subprocess.run(
        ["taskset", "-c", LOAD_CORE, "wrk", "-t1", f"-c{aim.connections}", f"-d{max(1, round(seconds))}s", "--latency"]
        + ["-s", aim.script, aim.url],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=seconds + 60,
    )
    computed = aim.server.computed() - before
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    answers = re.search(r"(\d+) requests in", done.stdout)
    if rate is None or answers is None or not int(answers[1]):
        raise MissingError(f"{aim.server.name} gave no answers: {(done.stderr or done.stdout).strip()[-200:]}")
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s|m)\b", done.stdout)
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", done.stdout)
    return Load(
        float(rate[1]),
        float(p99[1]) * _UNITS[p99[2]] if p99 else 0.0,
        int(bad[1]) if bad else 0,
        int(answers[1]),
        computed / int(answers[1]) * 1e6,
    )


def open_loop(folder: Path, aim: Aim, rate: float, seconds: float) -> dict[str, float]:
    """Ask at a fixed rate; percentiles in milliseconds."""
    done = subprocess.run(
        ["taskset", "-c", LOAD_CORE, sys.executable, str(HERE / "openloop.py"), str(aim.port), str(rate)]
        + [str(seconds), aim.target],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=seconds + 60,
    )
    if done.returncode:
        raise MissingError(f"{aim.server.name}: {done.stderr.strip()[-200:]}")
    return json.loads(done.stdout)


def get(folder: Path, url: str, *, accept_encoding: str | None = None) -> tuple[dict[str, str], int]:
    """One request; its response fields in small letters, and how long its body is."""
    token = (folder / "tokens.txt").read_text().split("\n", 1)[0]
    fields = {"Authorization": f"bearer {token}", "Accept": "application/json"}
    if accept_encoding is not None:
        fields["Accept-Encoding"] = accept_encoding
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with urllib.request.urlopen(urllib.request.Request(url, headers=fields), context=context, timeout=30) as response:
        size = len(response.read())
        return {name.lower(): value for name, value in response.headers.items()}, size


def herd(folder: Path, url: str, size: int) -> None:
    """So many requests for one page at once."""
    gate = threading.Barrier(size)

    def one() -> None:
        gate.wait(30)
        get(folder, url)

    with ThreadPoolExecutor(size) as pool:
        for done in [pool.submit(one) for _ in range(size)]:
            done.result()


class Background:
    """Big pages fetched cold, one after the other, for as long as the block lasts."""

    def __init__(self, folder: Path, base: str) -> None:
        self._folder, self._base = folder, base
        self._over = threading.Event()
        self.fetched = 0
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._over.is_set():
            self.fetched += 1
            get(self._folder, f"{self._base}/v3/processes?page={1000 + self.fetched}&per_page=5000")

    def __enter__(self) -> Background:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(60)
