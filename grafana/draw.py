"""`make pictures` draws each dashboard with matplotlib, from what a real Prometheus scraped off a real gateway.

Not Grafana's own rendering: the panels' places, titles, units and queries are the dashboards', the data is
Prometheus's, the drawing is this script's. Needs the extra `tools` and Debian's `prometheus`.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

mpl.use("agg")

from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter, MaxNLocator

from gateway.telemetry.log import configure
from grafana.generate import FOLDER, PAGES
from grafana.scene import Scene, filled, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TARGET = Path(__file__).parents[1] / "docs/img"
SECONDS = 100.0
BACKGROUND, PAPER, INK, FAINT = "#111217", "#181b1f", "#d8d9da", "#8e8e8e"
COLOURS = ("#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c", "#b877d9", "#8ab8ff", "#fade2a", "#96d98d", "#ffb357")


def written(value: float, unit: str) -> str:
    """A value as Grafana writes it in this unit."""
    if not math.isfinite(value):
        return "-"
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "s":
        for size, name in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms")):
            if value >= size:
                return f"{value / size:.3g} {name}"
        return f"{value * 1e6:.3g} µs" if value else "0 s"
    if unit == "bytes":
        power = min(4, int(math.log(value, 1024))) if value >= 1 else 0
        return f"{value / 1024**power:.3g} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"
    return f"{value:.3g}{ {'reqps': ' req/s', 'ops': ' /s'}.get(unit, '') }"


async def drawn(folder: Path) -> None:
    """Play the scene, then draw every dashboard."""
    async with Scene(folder) as scene:
        await scene.play(SECONDS)
        end = time.time()
        span = {"start": end - SECONDS + 12, "end": end, "step": 2.0}
        for name, board in panels(FOLDER).items():
            page = next(page for page in PAGES if page.uid == name)
            data = [
                [(target, await scene.query(filled(target["expr"], "10s"), **span)) for target in panel["targets"]]
                for panel in board
            ]
            rows = {
                row["gridPos"]["y"]: row["title"]
                for row in json.loads((FOLDER / f"{name}.json").read_text())["panels"]
                if row["type"] == "row"
            }
            picture(
                f"Gateway / {page.title}", board, data, TARGET / f"grafana-{name}.png", start=span["start"], rows=rows
            )


def picture(
    title: str, board: list[dict[str, Any]], data: list[Any], path: Path, *, start: float, rows: dict[int, str]
) -> None:
    """One dashboard's picture."""
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board)
    figure = plt.figure(figsize=(16, height * 0.42 + 0.6), facecolor=BACKGROUND)
    figure.text(0.012, 1 - 0.25 / figure.get_figheight(), title, color=INK, fontsize=13, va="center", weight="bold")
    note = "drawn with matplotlib from Prometheus data of a scripted run"
    figure.text(0.988, 1 - 0.25 / figure.get_figheight(), note, color=FAINT, fontsize=8, va="center", ha="right")
    usable = 1 - 0.5 / figure.get_figheight()
    for y, heading in rows.items():
        figure.text(
            0.012, usable * (1 - (y + 0.5) / height), heading, color=INK, fontsize=10, va="center", weight="bold"
        )
    for panel, found in zip(board, data, strict=True):
        place = panel["gridPos"]
        left, width = place["x"] / 24, place["w"] / 24
        bottom, tall = usable * (1 - (place["y"] + place["h"]) / height), usable * place["h"] / height
        frame = figure.add_axes((left + 0.004, bottom + 0.004, width - 0.008, tall - 0.008), facecolor=PAPER)
        frame.set(xticks=[], yticks=[])
        for spine in frame.spines.values():
            spine.set_visible(False)
        frame.text(
            0.02,
            1 - 0.11 / (tall * figure.get_figheight()),
            panel["title"],
            color=INK,
            fontsize=9,
            va="top",
            transform=frame.transAxes,
        )
        if panel["type"] == "stat":
            number(frame, panel, found)
        else:
            inner = figure.add_axes((left + 0.045, bottom + tall * 0.3, width - 0.057, tall * 0.56), facecolor=PAPER)
            graph(inner, panel, found, start)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=75, facecolor=BACKGROUND, pil_kwargs={"optimize": True})
    plt.close(figure)


def number(axes: Axes, panel: dict[str, Any], found: list[Any]) -> None:
    """The last value, in the colour of its threshold."""
    defaults = panel["fieldConfig"]["defaults"]
    values = [float(value) for _, results in found for one in results for _, value in one["values"][-1:]]
    value = values[0] if values else math.nan
    steps = defaults.get("thresholds", {}).get("steps", [])
    colour = next((one["color"] for one in reversed(steps) if one["value"] is None or value >= one["value"]), INK)
    colour = {"green": COLOURS[0], "orange": COLOURS[3], "red": COLOURS[4]}.get(colour, colour)
    text = written(value, defaults["unit"])
    axes.text(0.5, 0.42, text, color=colour, fontsize=19, ha="center", va="center", transform=axes.transAxes)


def graph(axes: Axes, panel: dict[str, Any], found: list[Any], start: float) -> None:
    """Lines, or areas on top of each other."""
    defaults = panel["fieldConfig"]["defaults"]
    lines = []
    for target, results in found:
        for one in results:
            label = re.sub(
                r"\{\{(\w+)\}\}", lambda match, one=one: one["metric"].get(match[1], ""), target["legendFormat"]
            )
            points = {round(at - start): float(value) for at, value in one["values"]}
            lines.append((label, {at: value for at, value in points.items() if math.isfinite(value)}))
    lines = [(label, points) for label, points in lines if points]
    times = sorted({at for _, points in lines for at in points})
    if "stacking" in defaults["custom"] and lines:
        lines = [line for line in lines if any(line[1].values())] or lines[:1]
        rows = [[points.get(at, 0.0) for at in times] for _, points in lines]
        axes.stackplot(times, rows, labels=[label for label, _ in lines], colors=COLOURS, alpha=0.75, linewidth=0)
    else:
        for index, (label, points) in enumerate(lines):
            axes.plot(
                list(points), list(points.values()), label=label, color=COLOURS[index % len(COLOURS)], linewidth=1.2
            )
    top = max((value for _, points in lines for value in points.values()), default=0)
    if "min" in defaults:
        axes.set_ylim(bottom=0)
    if not top and "min" in defaults:
        axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: written(value, defaults["unit"])))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f} s"))
    axes.tick_params(colors=FAINT, labelsize=6.5, length=0)
    axes.grid(color="#2c3235", linewidth=0.6)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if lines:
        axes.legend(
            loc="upper left",
            bbox_to_anchor=(-0.02, -0.13),
            ncols=3,
            fontsize=6.5,
            frameon=False,
            labelcolor=INK,
            handlelength=1.2,
            columnspacing=1.2,
            borderpad=0,
        )


if __name__ == "__main__":
    configure(level="error", style="console")
    with tempfile.TemporaryDirectory() as made:
        asyncio.run(drawn(Path(made)))
    for made_file in sorted(TARGET.glob("grafana-*.png")):
        sys.stdout.write(f"{made_file.relative_to(TARGET.parents[1])} {made_file.stat().st_size // 1024} KiB\n")
