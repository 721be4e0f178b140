"""`make bench`: the gateway beside nginx and HAProxy at the same job, on one core each, interleaved.

Every peer does what it can: nginx only caches, keyed by the Authorization field; HAProxy checks an RS256 token,
its `exp` and scope, counts requests and serves one cached page for all; the gateway checks the token, the scope and the
visibility domain. Servers run on core 0, origin and load on core 1. Each round visits every peer, so that drift of the
machine hits all alike; the table shows medians over the rounds and the ratio to HAProxy.

Needs nginx, haproxy and wrk (Debian packages). Nothing here asserts on time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

HERE: Final = Path(__file__).parent
ISSUER: Final = "https://uaa.example.org/oauth/token"
ORIGIN, NGINX, NGINX_PASS, HAPROXY, GATEWAY, ADMIN = 18080, 18081, 18181, 18082, 18084, 18085
TARGET: Final = "/v3/processes?page=1&per_page=2"
NEEDED: Final = ("nginx", "haproxy", "wrk", "taskset")


@dataclass
class Scenario:
    """One comparison.

    Attributes:
        name: key in the results.
        title: what is measured.
        peers: name -> (port, target, wrk script).
        rates: name -> requests per second, one a round.
    """

    name: str
    title: str
    peers: dict[str, tuple[int, str, str]]
    rates: dict[str, list[float]] = field(default_factory=dict)


def processes_page(rows: int) -> bytes:
    """A list page of the controller's shape with `rows` processes."""
    origin = "https://api.internal.example.org/v3"
    link = f"{origin}/processes?page=1\\u0026per_page={rows}"
    resource = {
        "guid": "cd25bd73-52be-4198-ad49-5fd85f570d87",
        "created_at": "2024-03-19T06:20:17Z",
        "updated_at": "2025-03-03T03:03:03Z",
        "type": "web",
        "command": "[PRIVATE DATA HIDDEN IN LISTS]",
        "instances": 3,
        "memory_in_mb": 512,
        "disk_in_mb": 2048,
        "health_check": {"type": "port", "data": {"timeout": None, "invocation_timeout": None}},
        "relationships": {"app": {"data": {"guid": "cd25bd73-52be-4198-ad49-5fd85f570d87"}}, "revision": None},
        "metadata": {"labels": {}, "annotations": {}},
        "links": {"self": {"href": f"{origin}/processes/cd25bd73-52be-4198-ad49-5fd85f570d87"}},
    }
    page = {
        "pagination": {"total_results": rows, "total_pages": 1, "first": {"href": "LINK"}, "next": None},
        "resources": [resource] * rows,
    }
    return json.dumps(page, separators=(",", ":")).replace("LINK", link).encode()


def prepare(folder: Path) -> None:
    """Write the page, the key, the token and the peers' configurations."""
    key = generate_private_key(65537, 2048)
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    claims = {
        "iss": ISSUER,
        "jti": "bench",
        "user_id": "a0000000-0000-4000-8000-000000000001",
        "client_id": "cf",
        "scope": ["cloud_controller.read"],
        "aud": ["cloud_controller"],
        "exp": int(time.time()) + 3600,
    }
    (folder / "pub.pem").write_bytes(pem)
    (folder / "rs.tok").write_text(jwt.encode(claims, key, algorithm="RS256", headers={"kid": "bench"}))
    (folder / "page.json").write_bytes(processes_page(1))
    (folder / "run").mkdir()
    for name in ("origin.conf", "nginx.conf", "haproxy.cfg", "gateway.yaml", "ids.lua", "conditional.lua"):
        shutil.copy(HERE / "peers" / name, folder / name)


def start(folder: Path, *command: str, core: int, port: int) -> subprocess.Popen[bytes]:
    """Start a server on a core and wait until it accepts connections."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            sys.exit(f"port {port} is taken")
    log = (folder / f"{port}.log").open("wb")
    process = subprocess.Popen(
        ["taskset", "-c", str(core), *command], cwd=folder, stdout=log, stderr=log, start_new_session=True
    )
    for _ in range(200):
        if process.poll() is not None:
            break
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process
        time.sleep(0.05)
    sys.exit(f"{command[0]} did not start:\n{(folder / f'{port}.log').read_text()}")


def servers() -> list[tuple[int, int, tuple[str, ...]]]:
    """Core, port and command of every server."""
    gateway = (sys.executable, "-m", "gateway", "run", "-c", "gateway.yaml")
    return [
        (1, ORIGIN, ("nginx", "-p", ".", "-c", "origin.conf")),
        (0, NGINX, ("nginx", "-p", ".", "-c", "nginx.conf")),
        (0, HAPROXY, ("haproxy", "-f", "haproxy.cfg")),
        (0, GATEWAY, gateway),
    ]


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server and what it started."""
    os.killpg(process.pid, signal.SIGTERM)
    process.wait(10)


def entity_tag(folder: Path) -> str:
    """The gateway's entity-tag of the page."""
    headers = {"Authorization": f"bearer {(folder / 'rs.tok').read_text()}"}
    request = urllib.request.Request(f"http://127.0.0.1:{GATEWAY}{TARGET}", headers=headers)
    with urllib.request.urlopen(request) as response:
        return str(response.headers["ETag"])


def load(folder: Path, port: int, target: str, script: str, seconds: float) -> float:
    """Requests per second of good answers; a run with errors counts as zero."""
    command = ["taskset", "-c", "1", "wrk", "-t1", "-c32", f"-d{seconds:g}s", "-s", script]
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{port}{target}"], cwd=folder, capture_output=True, text=True, check=True
    )
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    if rate is None or "Non-2xx" in done.stdout:
        print(f"port {port}:\n{done.stdout}", file=sys.stderr)
        return 0.0
    return float(rate[1])


def scenarios() -> list[Scenario]:
    """What is compared."""
    hits = {name: (port, TARGET, "ids.lua") for name, port in (("nginx", NGINX), ("HAProxy", HAPROXY))}
    return [
        Scenario("hits", "hits, one token, a 1.2 KB page", {**hits, "gateway": (GATEWAY, TARGET, "ids.lua")}),
        Scenario(
            "not_modified",
            "304 with the page's entity-tag (HAProxy: its hits)",
            {"HAProxy": hits["HAProxy"], "gateway": (GATEWAY, TARGET, "conditional.lua")},
        ),
        Scenario(
            "pass",
            "pass-through with the token checked (nginx: no check)",
            {"nginx": (NGINX_PASS, TARGET, "ids.lua"), "gateway": (GATEWAY, "/v3/stacks", "ids.lua")},
        ),
    ]


def table(results: list[Scenario]) -> str:
    """The results as Markdown."""
    lines = ["| scenario | peer | requests/s (median) | min-max | ratio to the gateway |", "|---|---|---:|---:|---:|"]
    for scenario in results:
        own = statistics.median(scenario.rates["gateway"])
        for peer, rates in scenario.rates.items():
            middle = statistics.median(rates)
            spread = f"{min(rates):,.0f}-{max(rates):,.0f}"
            ratio = f"{middle / own:.2f}" if own else "-"
            lines.append(f"| {scenario.title} | {peer} | {middle:,.0f} | {spread} | {ratio} |")
    return "\n".join(lines)


def main() -> None:
    """Run the benchmark and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="length of one run")
    options = parser.parse_args()
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        sys.exit(f"missing: {', '.join(missing)} (Debian packages nginx-light, haproxy, wrk, util-linux)")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # nginx started by root reads the page as another user
        prepare(folder)
        with ExitStack() as running:
            for core, port, command in servers():
                running.callback(stop, start(folder, *command, core=core, port=port))
            (folder / "etag").write_text(entity_tag(folder))
            results = scenarios()
            for scenario in results:
                for peer, (port, target, script) in scenario.peers.items():
                    load(folder, port, target, script, 1)  # warm
                    scenario.rates[peer] = []
                for _ in range(options.rounds):
                    for peer, (port, target, script) in scenario.peers.items():
                        scenario.rates[peer].append(load(folder, port, target, script, options.seconds))
    report = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "rounds": options.rounds,
        "seconds": options.seconds,
        "connections": 32,
        "scenarios": {scenario.name: scenario.rates for scenario in results},
    }
    output = HERE / "results"
    output.mkdir(exist_ok=True)
    (output / "latest.json").write_text(json.dumps(report, indent=1) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
