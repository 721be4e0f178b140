"""From a short description of dashboards to Grafana's JSON, by Grafana's own builders.

The description holds titles, units and queries. What every panel must have is added here, once: the data source
variable, the selection by job and instance in each query, links between the dashboards, the grid.
"""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import dataclass, field

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as values
from grafana_foundation_sdk.models import dashboard as model

TAG = "gateway"
_METRIC = re.compile(r"\b((?:gateway|process)_[a-z0-9_]+|gateway:[a-z0-9_:]+)(\{)?")
_GREEN, _ORANGE, _RED = "green", "orange", "red"
_WIDTH = 24


@dataclass(frozen=True)
class Query:
    """One query.

    Attributes:
        expr: PromQL without the selection of jobs and instances.
        legend: how a series is called; `{{label}}` stands for a label's value.
        exemplars: whether traces are asked for too.
    """

    expr: str
    legend: str = ""
    exemplars: bool = False


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        title: what it shows.
        text: how to read it.
        unit: Grafana's name of the unit.
        queries: at least one.
        stacked: whether the series add up to something.
        least: the beginning of the scale.
        most: the end of the scale.
        good: for a number: from where (or, with `low_is_good`, below where) it is green; None for no judgement.
        bad: where it is red.
        single: a number instead of a graph.
    """

    title: str
    text: str
    unit: str
    queries: tuple[Query, ...]
    stacked: bool = False
    least: float | None = 0
    most: float | None = None
    good: float | None = None
    bad: float | None = None
    single: bool = False


@dataclass(frozen=True)
class Page:
    """One dashboard.

    Attributes:
        uid: also the name of its file.
        title: after "Gateway / ".
        text: what it is for.
        rows: panels by the title of their row.
        by_route: whether it can be narrowed to some routes.
    """

    uid: str
    title: str
    text: str
    rows: dict[str, tuple[Panel, ...]] = field(default_factory=dict)
    by_route: bool = False


def selected(expr: str) -> str:
    """The query with the dashboard's selection in every selector; recorded series have a job and no instance."""

    def narrowed(match: re.Match[str]) -> str:
        name, brace = match.groups()
        mine = 'job=~"$job"' if name.startswith("gateway:") else 'job=~"$job",instance=~"$instance"'
        return f"{name}{{{mine},"[: None if brace else -1] + ("" if brace else "}")

    return _METRIC.sub(narrowed, expr)


def render(page: Page) -> str:
    """A dashboard's JSON."""
    built = (
        dashboard.Dashboard(f"Gateway / {page.title}")
        .uid(f"gateway-{page.uid}")
        .description(page.text)
        .tags([TAG])
        .readonly()
        .timezone("browser")
        .time("now-1h", "now")
        .refresh("30s")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("Gateway")
            .type(model.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .tooltip("The other dashboards, with the same selection and time")
            .as_dropdown(as_dropdown=False)
            .include_vars(include_vars=True)
            .keep_time(keep_time=True)
        )
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(_variable("job", "Job", "label_values(gateway_info, job)"))
        .with_variable(_variable("instance", "Instance", 'label_values(gateway_info{job=~"$job"}, instance)'))
    )
    if page.by_route:
        query = 'label_values(gateway_requests_total{job=~"$job"}, route)'
        built = built.with_variable(_variable("route", "Route", query))
    y = 0
    ids = itertools.count(1)
    for title, panels in page.rows.items():
        row = dashboard.Row(title).id(next(ids)).grid_pos(model.GridPos(h=1, w=_WIDTH, x=0, y=y))
        built = built.with_row(row)
        y += 1
        each = _WIDTH // len(panels) if panels[0].single else _WIDTH // min(3, max(2, len(panels)))
        height, x = (4 if panels[0].single else 8), 0
        for panel in panels:
            if x + each > _WIDTH:
                x, y = 0, y + height
            place = model.GridPos(h=height, w=each, x=x, y=y)
            built = built.with_panel(_panel(panel).id(next(ids)).grid_pos(place))
            x += each
        y += height
    return json.dumps(built.build(), cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


def _variable(name: str, label: str, query: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(_source())
        .query(query)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .multi(multi=True)
        .include_all(include_all=True)
        .all_value(".*")
        .current(model.VariableOption(selected=True, text="All", value="$__all"))
    )


def _source() -> model.DataSourceRef:
    return model.DataSourceRef(type_val="prometheus", uid="${datasource}")


def _panel(panel: Panel) -> stat.Panel | timeseries.Panel:
    made = _number(panel) if panel.single else _graph(panel)
    made = made.title(panel.title).description(panel.text).unit(panel.unit).datasource(_source())
    if panel.least is not None:
        made = made.min(panel.least)
    if panel.most is not None:
        made = made.max(panel.most)
    for ref, query in zip("ABCDEFGH", panel.queries, strict=False):
        target = (
            prometheus.Dataquery()
            .expr(selected(query.expr))
            .datasource(_source())
            .ref_id(ref)
            .legend_format(query.legend or panel.title)
            .range()
        )
        made = made.with_target(target.exemplar(exemplar=True) if query.exemplars else target)
    return made


def _number(panel: Panel) -> stat.Panel:
    made = (
        stat.Panel()
        .graph_mode(values.BigValueGraphMode.AREA)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )
    if panel.good is None or panel.bad is None:
        return made.color_mode(values.BigValueColorMode.NONE)
    rising = panel.good < panel.bad
    low, high = sorted((panel.good, panel.bad))
    colours = (_GREEN, _ORANGE, _RED) if rising else (_RED, _ORANGE, _GREEN)
    steps = [
        model.Threshold(value=value, color=colour) for value, colour in zip((None, low, high), colours, strict=True)
    ]
    thresholds = dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps)
    return made.color_mode(values.BigValueColorMode.VALUE).thresholds(thresholds)


def _graph(panel: Panel) -> timeseries.Panel:
    made = (
        timeseries.Panel()
        .line_width(1)
        .fill_opacity(30 if panel.stacked else 8)
        .show_points(values.VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .show_legend(show_legend=True)
            .display_mode(values.LegendDisplayMode.TABLE)
            .placement(values.LegendPlacement.BOTTOM)
            .calcs(["mean", "lastNotNull"])
        )
        .tooltip(common.VizTooltipOptions().mode(values.TooltipDisplayMode.MULTI).sort(values.SortOrder.DESCENDING))
    )
    return made.stacking(common.StackingConfig().mode(values.StackingMode.NORMAL)) if panel.stacked else made
