"""What is compared: each scenario names its peers, how they are loaded, and what is read off."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from loads import TARGET, Aim, Background, get, herd, open_loop, wrk
from servers import (
    ENVOY_PORT,
    GATEWAY_PORT,
    HAPROXY_PORT,
    MANY_GATEWAY,
    NGINX_PASS,
    NGINX_PORT,
    NOTHING_PORT,
    TLS_GATEWAY,
    UNRECORDED_GATEWAY,
    VALKEY_GATEWAY,
    WORKERS_GATEWAY,
    MissingError,
    Server,
)

BIG: Final = "/v3/processes?page=1&per_page=5000"
PASS: Final = "/v3/stacks"
_FLOOR: Final = "nothing"  # the server that does nothing: nobody on its event loop is quicker
_GOOD: Final = "gateway, no bad ones"
_MOST_OFFERED: Final = 6000.0  # requests a second that the open-loop client can send without falling behind


@dataclass
class Scenario:
    """One comparison.

    Attributes:
        letter: as in the issue and the results.
        title: what is measured.
        unit: of the values.
        values: peer -> one value a round.
        computed: peer -> microseconds of the server's computing for each answer, one a round.
        rounds: how many at most; None for as many as asked for.
        missing: what could not be measured, and why.
        lower: whether less is better.
    """

    letter: str
    title: str
    unit: str = "requests/s"
    values: dict[str, list[float]] = field(default_factory=dict)
    computed: dict[str, list[float]] = field(default_factory=dict)
    rounds: int | None = None
    missing: dict[str, str] = field(default_factory=dict)
    lower: bool = False
    run: Callable[[Bench, Scenario, str], None] = lambda *_: None
    peers: tuple[str, ...] = ()
    warm: bool = True

    def note(self, peer: str, value: float, computed: float | None = None) -> None:
        """Keep what a round brought."""
        self.values.setdefault(peer, []).append(value)
        if computed is not None:
            self.computed.setdefault(peer, []).append(computed)

    def median(self, peer: str) -> float:
        """The median of a peer's rounds; 0 when there is none."""
        return statistics.median(self.values[peer]) if self.values.get(peer) else 0.0


@dataclass
class Bench:
    """What scenarios work with.

    Attributes:
        folder: where the servers run.
        servers: those that run, by name.
        seconds: length of one run.
        scenarios: all of them, by letter.
        herds: how many there were.
        asked: requests so far, of a peer that must have been asked for all of its pages.
        cold: big pages that were asked for.
    """

    folder: Path
    servers: dict[str, Server]
    seconds: float
    scenarios: dict[str, Scenario] = field(default_factory=dict)
    herds: int = 0
    asked: dict[str, int] = field(default_factory=dict)
    cold: int = 0

    def server(self, name: str) -> Server:
        """A server that runs.

        Raises:
            MissingError: it does not.
        """
        if name not in self.servers:
            raise MissingError(f"{name} does not run")
        return self.servers[name]


def _closed(
    aims: dict[str, tuple[str, int, str, str]], *, connections: int = 32, scheme: str = "http", bad: float = 0.0
) -> Callable[[Bench, Scenario, str], None]:
    """A closed loop; aims are peer -> (server, port, target, script).

    Args:
        aims: where each peer is asked.
        connections: how many at once.
        scheme: "http" or "https".
        bad: the share of answers that are refusals; the value is then the rate of the others.
    """

    def run(bench: Bench, scenario: Scenario, peer: str) -> None:
        server, port, target, script = aims[peer]
        load = wrk(bench.folder, Aim(bench.server(server), port, target, script, connections, scheme), bench.seconds)
        refused = load.unexpected / load.answers
        if abs(refused - bad) > 0.02:
            raise MissingError(f"{peer}: {refused:.0%} of the answers were refusals")
        scenario.note(peer, load.rate * (1 - refused), load.computed)

    return run


_PORTS: Final = {
    "nginx": NGINX_PORT,
    "HAProxy": HAPROXY_PORT,
    "Envoy": ENVOY_PORT,
    "FastAPI": 18106,
    "aiohttp": 18107,
    _FLOOR: NOTHING_PORT,
    "gateway": GATEWAY_PORT,
}


def _same(*peers: str, target: str = TARGET, script: str = "ids.lua") -> dict[str, tuple[str, int, str, str]]:
    return {peer: (peer, _PORTS[peer], target, script) for peer in peers}


def _not_modified(bench: Bench, scenario: Scenario, peer: str) -> None:
    if peer == "gateway":
        fields, _ = get(bench.folder, f"http://127.0.0.1:{GATEWAY_PORT}{TARGET}")
        (bench.folder / "etag").write_text(fields["etag"])
    script = "conditional.lua" if peer == "gateway" else "ids.lua"
    load = wrk(bench.folder, Aim(bench.server(peer), _PORTS[peer], TARGET, script), bench.seconds)
    scenario.note(peer, load.rate, load.computed)


def _compressed(bench: Bench, scenario: Scenario, peer: str) -> None:
    port = {"nginx": 18281, "gateway": GATEWAY_PORT}[peer]
    for _ in range(50):  # an encoded form may be made behind the first answers
        fields, _ = get(bench.folder, f"http://127.0.0.1:{port}{BIG}", accept_encoding="gzip")
        if fields.get("content-encoding") == "gzip":
            break
    else:
        raise MissingError(f"{peer} sends no gzip")
    load = wrk(bench.folder, Aim(bench.server(peer), port, BIG, "gzip.lua", 4), bench.seconds)
    scenario.note(peer, load.rate, load.computed)


def _beside_cold(bench: Bench, scenario: Scenario, peer: str) -> None:
    """The p99 of small hits, alone and while big pages come in cold."""
    aim = Aim(bench.server("gateway"), GATEWAY_PORT, connections=8)
    if peer == "alone":
        scenario.note(peer, wrk(bench.folder, aim, bench.seconds).p99)
        return
    with Background(bench.folder, f"http://127.0.0.1:{GATEWAY_PORT}") as background:
        scenario.note(peer, wrk(bench.folder, aim, bench.seconds).p99)
    if not background.fetched:
        raise MissingError("no big page came")


def _herd(bench: Bench, scenario: Scenario, peer: str) -> None:
    """Upstream requests for a page that 100 clients ask for at once, never asked for before."""
    bench.herds += 1
    herd(bench.folder, f"http://127.0.0.1:{_PORTS[peer]}/v3/processes?page=1&herd=h{bench.herds}", 100)
    log = (bench.folder / "run/herd.log").read_text().split()
    scenario.note(peer, log.count(f"h{bench.herds}"))


def _beside_bad(bench: Bench, scenario: Scenario, peer: str) -> None:
    """Hits while every fifth token is bad, and in the same rounds hits alone."""
    if peer == _GOOD:
        run = _closed({_GOOD: ("gateway", GATEWAY_PORT, TARGET, "ids.lua")})
    else:
        run = _closed(_same(peer, script="bad.lua"), bad=0.2)
    run(bench, scenario, peer)


def _in_turn(most: int) -> Callable[[Bench, Scenario, str], None]:
    """Hits over 100 pages and over `most`, each of which was asked for three times before."""

    def run(bench: Bench, scenario: Scenario, peer: str) -> None:
        server = bench.server("gateway, many pages")
        count = 100 if peer == "100 pages" else most
        aim = Aim(server, MANY_GATEWAY, script=f"turns{count}.lua")
        asked = bench.asked.get(peer, 0)
        while asked < 3 * count:
            asked += wrk(bench.folder, aim, max(2.0, (count - asked) / 2500)).answers
        bench.asked[peer] = asked
        load = wrk(bench.folder, aim, bench.seconds)
        scenario.note(peer, load.rate, load.computed)

    return run


def _half_load(percentile: str) -> Callable[[Bench, Scenario, str], None]:
    def run(bench: Bench, scenario: Scenario, peer: str) -> None:
        full = 2 * _MOST_OFFERED if peer == _FLOOR else bench.scenarios["a"].median(peer)
        if not full:
            raise MissingError(f"{peer} has no rate in scenario a")
        aim = Aim(bench.server(peer), _PORTS[peer])
        result = open_loop(bench.folder, aim, min(_MOST_OFFERED, full / 2), max(2.0, bench.seconds))
        if result["failures"] or result["lost"]:
            raise MissingError(f"{peer}: {result['failures']:.0f} failures, {result['lost']:.0f} lost")
        for name in ("p50", "p99", "p999"):
            bench.scenarios[f"i {name}"].note(peer, result[name])

    return run if percentile == "p50" else lambda *_: None


def all_scenarios(many: int) -> list[Scenario]:
    """Everything, in the order of the issue; `many` is how many pages there are in the one over many."""
    everybody = ("nginx", "HAProxy", "Envoy", "FastAPI", "aiohttp", "gateway")
    passing = {
        "nginx (no check)": ("nginx", NGINX_PASS, PASS, "ids.lua"),
        "HAProxy": ("HAProxy", 18182, PASS, "ids.lua"),
        "Envoy": ("Envoy", 18183, PASS, "ids.lua"),
        "aiohttp (no check)": ("aiohttp", 18107, PASS, "ids.lua"),
        "gateway": ("gateway", GATEWAY_PORT, PASS, "ids.lua"),
    }
    big = {
        **_same("nginx", "HAProxy", "gateway", target=BIG),
        "nginx, sendfile": ("nginx", 18381, BIG, "ids.lua"),
    }
    valkey = {
        "gateway": ("gateway", GATEWAY_PORT, TARGET, "zipf.lua"),
        "gateway+Valkey": ("gateway+Valkey", VALKEY_GATEWAY, TARGET, "zipf.lua"),
    }
    workers = {
        "1 worker": ("gateway, both cores", 18092, TARGET, "ids.lua"),
        "2 workers": ("gateway, 2 workers", WORKERS_GATEWAY, TARGET, "ids.lua"),
    }
    recording = {
        "gateway": ("gateway, new", 18092, TARGET, "ids.lua"),
        "gateway, unrecorded": ("gateway, unrecorded", UNRECORDED_GATEWAY, TARGET, "ids.lua"),
    }
    tls = {"gateway": ("gateway, TLS", TLS_GATEWAY, TARGET, "ids.lua")}
    return [
        Scenario(
            "a",
            "hits, 1 token, a 1.2 KB page",
            run=_closed(_same(*everybody, _FLOOR)),
            peers=(*everybody, _FLOOR),
        ),
        Scenario(
            "b",
            "hits, 1,000 RS256 tokens x 50 pages, Zipf",
            run=_closed(_same(*everybody, script="zipf.lua")),
            peers=everybody,
        ),
        Scenario("c", "304 (HAProxy: its hits)", run=_not_modified, peers=("HAProxy", "gateway")),
        Scenario("d", "pass-through, token checked", run=_closed(passing), peers=tuple(passing)),
        Scenario(
            "e plain",
            "5 MB page hits",
            "pages/s",
            run=_closed(big, connections=4),
            peers=tuple(big),
        ),
        Scenario("e gzip", "5 MB page hits, gzip", "pages/s", run=_compressed, peers=("nginx", "gateway")),
        Scenario(
            "f", "p99 of small hits, cold 5 MB pages beside", "ms", run=_beside_cold, peers=("alone", "beside"), lower=True
        ),
        Scenario(
            "g", "upstream requests for a herd of 100", "requests", run=_herd, peers=("nginx", "gateway"), rounds=2,
            lower=True, warm=False,
        ),
        Scenario(
            "h",
            "hits while 20 % of the tokens are bad",
            run=_beside_bad,
            peers=("HAProxy", "Envoy", _GOOD, "gateway"),
        ),
        *(
            Scenario(
                f"i {name}", f"open loop at half load, {name}", "ms", run=_half_load(name),
                peers=("nginx", "HAProxy", "Envoy", _FLOOR, "gateway"), rounds=3, lower=True, warm=False,
            )
            for name in ("p50", "p99", "p999")
        ),
        Scenario("j", "as b, pages and counters shared through Valkey", run=_closed(valkey), peers=tuple(valkey)),
        Scenario("k", "as a, 2 workers, server and load on both cores", run=_closed(workers), peers=tuple(workers)),
        Scenario("l", "as a, TLS", run=_closed(tls, scheme="https"), peers=("gateway",)),
        Scenario("n", f"hits over 100 and {many:,} pages in turn", run=_in_turn(many), peers=("100 pages", "many pages")),
        Scenario("m", "as a, with metrics, decisions and log or without", run=_closed(recording), peers=tuple(recording)),
    ]  # fmt: skip
