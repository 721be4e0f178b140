"""Results as a table, as JSON and as a chart: medians over interleaved rounds, their ratios, and how far they spread."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import time
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape

from scenarios import Scenario

# What the issue asks for: scenario -> (a peer's median, the least or most ratio of the gateway's to it).
BARS: Final[dict[str, tuple[tuple[str, float], ...]]] = {
    "a": (("HAProxy", 2.0), ("Envoy", 3.0), ("nginx", 1.0), ("FastAPI", 15.0)),
    "b": (("HAProxy", 2.0), ("Envoy", 3.0), ("nginx", 1.0), ("FastAPI", 15.0)),
    "c": (("HAProxy", 2.0),),
    "d": (("aiohttp (no check)", 0.9),),
    "e plain": (("nginx", 1.0),),
    "e gzip": (("nginx", 1.0),),
    "i p99": (("HAProxy", 2.0),),
}
_COLOURS: Final = {"gateway": "#1f6feb"}
_GREY: Final = "#9aa4b2"


def conditions(rounds: int, seconds: float) -> dict[str, Any]:
    """The circumstances, without names or paths of the machine."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = re.search(r"model name\s*: (.*)", info)
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "processor": model[1] if model else platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load_average_at_start": round(os.getloadavg()[0], 2),
        "rounds": rounds,
        "seconds_a_run": seconds,
        "note": "servers on core 0, origin and load on core 1, rounds interleaved; wrk -t1 -c32 (5 MB pages: -c4, f: -c8)",
    }


def table(scenarios: list[Scenario]) -> str:
    """Everything as Markdown."""
    head = "| | scenario | peer | median | min-max | unit | gateway / peer | server CPU µs per answer |"
    lines = [head, "|---|---|---|---:|---:|---|---:|---:|"]
    for scenario in scenarios:
        for peer, values in scenario.values.items():
            spread = f"{_number(min(values))}-{_number(max(values))}"
            cpu = scenario.computed.get(peer)
            lines.append(
                f"| {scenario.letter} | {scenario.title} | {peer} | {_number(statistics.median(values))} | {spread} "
                f"| {scenario.unit} | {ratio(scenario, peer)} | {f'{statistics.median(cpu):.1f}' if cpu else ''} |"
            )
        for peer, why in scenario.missing.items():
            lines.append(f"| {scenario.letter} | {scenario.title} | {peer} | missing: {why} | | | | |")
    return "\n".join(lines)


def bars(scenarios: list[Scenario]) -> list[str]:
    """How the gateway does against what is asked of it."""
    found = {scenario.letter: scenario for scenario in scenarios}
    lines = []
    for letter, wanted in BARS.items():
        scenario = found.get(letter)
        for peer, bar in wanted:
            own, other = (scenario.median("gateway"), scenario.median(peer)) if scenario else (0.0, 0.0)
            if scenario is None or not own or not other:
                continue
            met = own / other <= bar if scenario.lower else own / other >= bar
            sign = "<=" if scenario.lower else ">="
            lines.append(f"{'ok  ' if met else 'MISS'} {letter}: {own / other:.2f} x {peer} (wanted {sign} {bar:g})")
    lines += _own_bars(found)
    return lines


def _own_bars(found: dict[str, Scenario]) -> list[str]:
    lines = []
    beside = found.get("f")
    if beside is not None and beside.values.get("beside") and beside.values.get("alone"):
        more = beside.median("beside") - beside.median("alone")
        lines.append(f"{'ok  ' if more <= 5 else 'MISS'} f: p99 {more:+.2f} ms beside cold big pages (wanted <= +5)")
    herd = found.get("g")
    if herd is not None and herd.values.get("gateway"):
        most = max(herd.values["gateway"])
        lines.append(f"{'ok  ' if most <= 1 else 'MISS'} g: {most:g} upstream requests for a herd (wanted 1)")
    bad = found.get("h")
    if bad is not None and bad.median("gateway") and bad.median("gateway, no bad ones"):
        share = bad.median("gateway") / bad.median("gateway, no bad ones")
        lines.append(f"{'ok  ' if share >= 0.8 else 'MISS'} h: hits keep {share:.2f} of their rate (wanted >= 0.8)")
    turns = found.get("n")
    if turns is not None and turns.median("100 pages") and turns.median("many pages"):
        share = turns.median("many pages") / turns.median("100 pages")
        lines.append(
            f"{'ok  ' if share >= 0.85 else 'MISS'} n: {share:.2f} of the rate over many pages (wanted >= 0.85)"
        )
    cpu = found["m"].computed if "m" in found else {}
    if cpu.get("gateway") and cpu.get("gateway, unrecorded"):
        cost = 1 - statistics.median(cpu["gateway, unrecorded"]) / statistics.median(cpu["gateway"])
        lines.append(f"{'ok  ' if cost <= 0.08 else 'MISS'} m: recording is {cost:.1%} of a hit (wanted <= 8 %)")
    return lines


def ratio(scenario: Scenario, peer: str) -> str:
    """The gateway's median over a peer's, and the spread of the ratio over the rounds."""
    own, others = scenario.values.get("gateway"), scenario.values[peer]
    if not own or peer == "gateway" or not statistics.median(others):
        return ""
    rounds = [mine / other for mine, other in zip(own, others, strict=False) if other]
    middle = statistics.median(own) / statistics.median(others)
    return f"{middle:.2f} ({min(rounds):.2f}-{max(rounds):.2f})" if rounds else f"{middle:.2f}"


def document(scenarios: list[Scenario], circumstances: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """Everything as JSON."""
    return {
        "conditions": circumstances,
        "scenarios": {
            scenario.letter: {
                "title": scenario.title,
                "unit": scenario.unit,
                "values": {peer: [round(value, 3) for value in values] for peer, values in scenario.values.items()},
                "cpu_us": {peer: [round(value, 1) for value in values] for peer, values in scenario.computed.items()},
                "missing": scenario.missing,
            }
            for scenario in scenarios
        },
        "state": state,
    }


def chart(scenarios: list[Scenario], circumstances: dict[str, Any]) -> str:
    """Bars of the medians, one group for each scenario, scaled within it; an SVG of its own."""
    rows: list[str] = []
    y = 56
    for scenario in scenarios:
        peers = [peer for peer in scenario.values if scenario.median(peer)]
        if not peers:
            continue
        most = max(scenario.median(peer) for peer in peers)
        better = "less is better" if scenario.lower else "more is better"
        rows.append(_text(16, y, f"{scenario.letter}: {scenario.title} ({scenario.unit}, {better})", "bold"))
        y += 8
        for peer in peers:
            value = scenario.median(peer)
            width = 420 * value / most
            own = peer.startswith("gateway") or peer in {"beside", "2 workers"}
            colour = _COLOURS["gateway"] if own else _GREY
            rows.append(_text(16, y + 14, peer))
            rows.append(f'<rect x="160" y="{y + 3}" width="{width:.1f}" height="14" rx="2" fill="{colour}"/>')
            rows.append(_text(168 + width, y + 14, _number(value)))
            y += 20
        y += 22
    said = f"{circumstances['processor']}, {circumstances['cores']} cores, {circumstances['date']}; medians of interleaved rounds"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="700" height="{y}" viewBox="0 0 700 {y}" font-family="sans-serif" '
        f'font-size="12"><rect width="700" height="{y}" fill="white"/>\n'
        + "\n".join([_text(16, 22, "gateway beside its peers", "bold"), _text(16, 38, said), *rows])
        + "\n</svg>\n"
    )


def _text(x: float, y: float, text: str, weight: str = "normal") -> str:
    return f'<text x="{x:.0f}" y="{y}" font-weight="{weight}" fill="#1b1f24">{escape(text)}</text>'


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def write(folder: Path, scenarios: list[Scenario], circumstances: dict[str, Any], state: dict[str, Any]) -> None:
    """Write the JSON, the table and the chart."""
    folder.mkdir(exist_ok=True)
    result = document(scenarios, circumstances, state)
    (folder / "latest.json").write_text(json.dumps(result, indent=1) + "\n")
    (folder / "latest.svg").write_text(chart(scenarios, circumstances))
    lines = [table(scenarios), "", *bars(scenarios), "", *(f"{name}: {value}" for name, value in state.items())]
    (folder / "latest.md").write_text("\n".join(lines) + "\n")
