"""How a summary looks in a terminal: pure layout, no clock, no terminal of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.columns import Columns
from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from gateway.live.summary import Summary

_BARS: Final = " ▁▂▃▄▅▆▇█"
_LONG_LAG: Final = 0.1
_MILLISECOND: Final = 1e-3
_BREAKER: Final = {0.0: ("closed", "green"), 1.0: ("half-open", "yellow"), 2.0: ("open", "bold red")}
HELP: Final = """q      leave
p      pause and go on
h, ?   this help

ratio    share answered from the cache, of the requests that could be
avoided  requests a second that the controller was spared
refused  answers 401, 403 and 429
An empty value was not observed in the interval."""


def number(value: float | None, *, digits: int = 1) -> str:
    """A rate or count, short."""
    if value is None:
        return ""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if unit == 'k' else size):.{digits}f}{unit}"
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.{digits}f}"


def seconds(value: float | None) -> str:
    """A time in the unit that suits it."""
    if value is None:
        return ""
    if value < _MILLISECOND:
        return f"{value * 1e6:.0f}µs"
    return f"{value * 1e3:.1f}ms" if value < 1 else f"{value:.2f}s"


def share(value: float | None) -> str:
    """A share in percent."""
    return "" if value is None else f"{value:.1%}"


def size(value: float | None) -> str:
    """Bytes in binary units."""
    if value is None:
        return ""
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.2f} GiB"


def spark(values: Sequence[float]) -> str:
    """A line of bars, the highest value a full one."""
    top = max(values, default=0.0)
    return "".join(_BARS[round(value / top * 8) if top else 0] for value in values)


def screen(summary: Summary, history: Sequence[float], *, source: str, note: str = "") -> RenderableType:
    """The whole view.

    Args:
        summary: what to show.
        history: request rates of the last intervals, the newest last.
        source: where it comes from.
        note: what else there is to say, e.g. that the source does not answer.
    """
    title = Text.assemble(("gateway top", "bold"), f"  {source}  every {summary.seconds:.1f}s  ", (note, "bold red"))
    return Group(
        title,
        *([_waiting(summary)] if summary.waiting else []),
        Columns([_traffic(summary, history), _cache(summary), _controller(summary), _process(summary)], expand=True),
        _routes(summary),
        Columns(
            [
                _rates("answered by the gateway itself", summary.denials, "bold yellow"),
                _rates("access, by token or why not", summary.access, "cyan"),
                _rates("domains with pages", summary.domains, "green"),
                _rates("limited", summary.limits, "yellow"),
                _rates("stale, why", summary.stale, "yellow"),
                _rates("codes", summary.codes, "cyan"),
            ],
            expand=True,
        ),
        Text("q leave   p pause   h help", style="dim"),
    )


def _waiting(summary: Summary) -> Text:
    return Text(f"settings wait for a restart: {', '.join(summary.waiting)}", style="bold yellow")


def _pairs(title: str, rows: Sequence[tuple[str, str, str]]) -> Panel:
    table = Table.grid(padding=(0, 1))
    table.add_column(style="dim")
    table.add_column(justify="right")
    for label, value, style in rows:
        table.add_row(label, Text(value, style=style))
    return Panel(table, title=title, title_align="left")


def _traffic(summary: Summary, history: Sequence[float]) -> Panel:
    return _pairs(
        "traffic",
        [
            ("requests/s", number(summary.requests), "bold"),
            ("errors/s", number(summary.errors), "bold red" if summary.errors else ""),
            ("refused/s", number(summary.refused), "yellow" if summary.refused else ""),
            ("p50 / p99", f"{seconds(summary.p50)} / {seconds(summary.p99)}", ""),
            ("", spark(history[-18:]), "green"),
        ],
    )


def _cache(summary: Summary) -> Panel:
    return _pairs(
        "cache",
        [
            ("ratio", share(summary.hit_ratio), "bold green"),
            ("hits p99", seconds(summary.hit_p99), ""),
            ("pages", number(summary.entries), ""),
            ("bytes", size(summary.cache_bytes), ""),
            ("stale/s", number(sum(summary.stale.values())), ""),
        ],
    )


def _controller(summary: Summary) -> Panel:
    state, style = _BREAKER.get(summary.breaker if summary.breaker is not None else -1.0, ("", ""))
    return _pairs(
        "controller",
        [
            ("asked/s", number(summary.upstream), "bold"),
            ("avoided/s", number(summary.avoided), "green"),
            ("mean", seconds(summary.upstream_mean), ""),
            ("breaker", state, style),
            ("budget left", share(summary.budget), ""),
        ],
    )


def _process(summary: Summary) -> Panel:
    return _pairs(
        "process",
        [
            ("in flight", number(summary.in_flight), ""),
            ("cpu", share(summary.cpu), ""),
            ("memory", size(summary.resident_bytes), ""),
            ("loop lag", seconds(summary.loop_lag), "bold red" if (summary.loop_lag or 0) > _LONG_LAG else ""),
            ("", "", ""),
        ],
    )


def _routes(summary: Summary) -> Table:
    table = Table(expand=True, pad_edge=False, header_style="dim")
    table.add_column("route", ratio=1, no_wrap=True, overflow="ellipsis")
    for heading in ("req/s", "ratio", "p99"):
        table.add_column(heading, justify="right", min_width=8)
    for line in summary.routes:
        table.add_row(Text(line.route), number(line.rate), share(line.hit_ratio), seconds(line.p99))
    return table


def _rates(title: str, rates: dict[str, float], style: str) -> Panel:
    return _pairs(title, [(name, number(rate), style) for name, rate in list(rates.items())[:6]] or [("none", "", "")])
