"""`make bench`: the gateway beside nginx, HAProxy, Envoy, FastAPI and bare aiohttp at the same jobs, on one core each.

Every peer does what it can: nginx only caches, keyed by the Authorization field; HAProxy and Envoy check an RS256 token,
count requests and serve one cached page for all; the gateway checks token, scope and visibility domain, limits, and
keeps pages apart. Servers run on core 0, origin and load on core 1. Each round visits every peer of a scenario, so that
drift of the machine hits all alike. What cannot be measured here is named and left out. Nothing asserts on time.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import urllib.error
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import report
import servers
import state
import world
from scenarios import Bench, Scenario, all_scenarios

HERE: Final = Path(__file__).parent
_FAULTS: Final = (
    servers.MissingError,
    OSError,
    subprocess.SubprocessError,
    urllib.error.URLError,
    ValueError,
    KeyError,
)
# The gateways that only one scenario needs: they run while it does, so that the others have the memory and the core.
_EXTRA: Final = {
    "a": lambda: [servers.nothing()],
    "i p50": lambda: [servers.nothing()],
    "j": lambda: [servers.valkey(), servers.gateway("gateway+Valkey", servers.VALKEY_GATEWAY, "valkey.yaml")],
    "k": lambda: [
        servers.gateway("gateway, both cores", 18092, "single.yaml", servers.BOTH_CORES),
        servers.gateway("gateway, 2 workers", servers.WORKERS_GATEWAY, "workers.yaml", servers.BOTH_CORES),
    ],
    # Both new, since one that has served everything before has more in its memory.
    "m": lambda: [servers.gateway("gateway, new", 18092, "single.yaml"), servers.unrecorded()],
    "n": lambda: [servers.gateway("gateway, many pages", servers.MANY_GATEWAY, "many.yaml")],
    "l": lambda: [servers.gateway("gateway, TLS", servers.TLS_GATEWAY, "tls.yaml")],
}


def begin(bench: Bench, running: ExitStack, wanted: list[servers.Server], notes: dict[str, str]) -> None:
    """Start servers; those that cannot are noted."""
    for server in wanted:
        try:
            server.start(bench.folder)
        except servers.MissingError as error:
            notes[server.name] = str(error)
            print(f"missing: {error}", file=sys.stderr)
            continue
        bench.servers[server.name] = server
        running.callback(bench.servers.pop, server.name, None)
        running.callback(server.stop)


def measure(bench: Bench, scenario: Scenario, rounds: int) -> None:
    """All rounds of a scenario; a peer that fails is left out of the rest of it."""
    fit = list(scenario.peers)
    for number in range(-1 if scenario.warm else 0, min(rounds, scenario.rounds or rounds)):
        for peer in tuple(fit):
            trial = Scenario(scenario.letter, scenario.title) if number < 0 else scenario
            full, bench.seconds = bench.seconds, min(1.0, bench.seconds) if number < 0 else bench.seconds
            try:
                scenario.run(bench, trial, peer)
            except _FAULTS as error:
                fit.remove(peer)
                scenario.missing[peer] = " ".join(str(error).replace(str(bench.folder), ".").split())[:200]
            finally:
                bench.seconds = full


def main() -> None:
    """Run the benchmark and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short runs, few rounds: at most three minutes")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=int, help="length of one run, whole seconds")
    parser.add_argument("--only", help="letters of scenarios, e.g. abh")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    options = parser.parse_args()
    rounds = options.rounds or (2 if options.quick else 5)
    seconds = options.seconds or (1.0 if options.quick else 2.0)
    missing = [name for name in ("wrk", "taskset") if servers.program(name) is None]
    if missing:
        sys.exit(f"missing: {', '.join(missing)} (Debian packages wrk, util-linux)")
    circumstances = report.conditions(rounds, seconds)
    chosen = [
        one
        for one in all_scenarios(10_000 if options.quick else 100_000)
        if options.only is None or one.letter[0] in options.only
    ]
    measured: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as name, ExitStack() as running:
        folder = Path(name)
        folder.chmod(0o755)  # nginx started by root reads the pages as another user
        world.prepare(folder)
        bench = Bench(folder, {}, seconds, {scenario.letter: scenario for scenario in chosen})
        notes: dict[str, str] = {}
        begin(bench, running, [servers.origin(), *servers.peers().values()], notes)
        for scenario in chosen:
            print(f"{scenario.letter}: {scenario.title}", file=sys.stderr)
            with ExitStack() as beside:
                begin(bench, beside, _EXTRA[scenario.letter]() if scenario.letter in _EXTRA else [], notes)
                measure(bench, scenario, rounds)
            scenario.missing = {
                peer: next((why for name, why in notes.items() if why.split(":")[0] in text or name in text), text)
                for peer, text in scenario.missing.items()
            }
        if options.only is None or "s" in options.only:
            print("s: state", file=sys.stderr)
            measured = state.measure(folder, quick=options.quick)
    report.write(options.results, chosen, circumstances, measured)
    print((options.results / "latest.md").read_text())


if __name__ == "__main__":
    main()
