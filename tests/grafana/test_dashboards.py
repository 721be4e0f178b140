"""Dashboards and rules against the code: generated, complete, and of metrics and labels that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.catalogue import catalogue
from grafana.build import selected
from grafana.generate import FOLDER, files

ROOT = Path(__file__).parents[2]
RULES = [
    rule
    for group in yaml.safe_load((ROOT / "grafana/rules/gateway.yaml").read_text())["groups"]
    for rule in group["rules"]
]
METRICS = {one.name: one for one in catalogue()}
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
SCRAPED = frozenset({"job", "instance"})
UNITS = frozenset({"reqps", "percentunit", "s", "short", "bytes", "ops"})


def dashboards() -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(text) for path, text in files().items()}


PANELS = [
    (f"{name}/{panel['title']}", panel)
    for name, board in dashboards().items()
    for panel in board["panels"]
    if panel["type"] != "row"
]
QUERIES = [
    *((f"{title}/{target['refId']}", target["expr"]) for title, panel in PANELS for target in panel["targets"]),
    *((rule.get("record") or rule["alert"], rule["expr"]) for rule in RULES),
]


def faults(expr: str) -> list[str]:
    """Names of metrics and labels in a query that no gateway exposes, and what mistakes are made of."""
    bare = re.sub(r'"[^"]*"', '""', expr)
    found: list[str] = []
    known: set[str] = set(SCRAPED)
    for name, selector in re.findall(r"\b((?:gateway|process|up)[a-z0-9_:]*)\b(?:\{([^}]*)\})?", bare):
        labels = labels_of(name)
        if labels is None:
            found.append(f"no metric {name}")
            continue
        known |= labels
        used = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector))
        found += [f"{name} has no label {label}" for label in used - labels]
    for clause in re.findall(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)", bare):
        found += [f"nothing has a label {label}" for label in re.findall(r"\w+", clause) if label not in known]
    found += [f"a {function} of a counter" for function in re.findall(r"\b(i?delta|deriv)\(\w+_total", bare)]
    found += [f"a {function} of no counter" for function in no_counters(bare)]
    return found


def labels_of(name: str) -> set[str] | None:
    if name == "up":
        return set(SCRAPED)
    if name in RECORDED:
        return {"job"}
    base = re.sub(r"_(bucket|sum|count)$", "", name)
    if name in METRICS and METRICS[name].kind != "histogram":
        return {*METRICS[name].labels, *SCRAPED}
    if base != name and base in METRICS and METRICS[base].kind == "histogram":
        return {*METRICS[base].labels, *SCRAPED, *({"le"} if name.endswith("_bucket") else set())}
    return None


def no_counters(bare: str) -> list[str]:
    calls = re.findall(r"\b(i?rate|increase)\((\w+)", bare)
    return [function for function, name in calls if not name.endswith(("_total", "_bucket", "_sum", "_count"))]


def test_the_committed_dashboards_are_the_generated_ones() -> None:
    committed = {path: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
    assert committed == files(), "run: make docs"


@pytest.mark.parametrize(("name", "expr"), QUERIES, ids=[name for name, _ in QUERIES])
def test_every_query_is_of_what_exists(name: str, expr: str) -> None:
    assert faults(expr) == []


@pytest.mark.parametrize(
    ("expr", "fault"),
    [
        ("sum(rate(gateway_request_total[5m]))", "no metric gateway_request_total"),
        ("gateway_request_duration_seconds", "no metric gateway_request_duration_seconds"),
        ('gateway_requests_total{status="500"}', "gateway_requests_total has no label status"),
        ("sum by (user) (gateway_requests_total)", "nothing has a label user"),
        ('gateway_request_duration_seconds_sum{le="1"}', "gateway_request_duration_seconds_sum has no label le"),
        ("delta(gateway_requests_total[5m])", "a delta of a counter"),
        ("rate(gateway_cache_bytes[5m])", "a rate of no counter"),
        ("gateway:no_such:rule > 1", "no metric gateway:no_such:rule"),
    ],
)
def test_mistakes_are_found(expr: str, fault: str) -> None:
    assert fault in faults(expr)


@pytest.mark.parametrize(("title", "panel"), PANELS, ids=[title for title, _ in PANELS])
def test_panels_are_in_order(title: str, panel: dict[str, Any]) -> None:
    assert panel["datasource"]["uid"] == "${datasource}"
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert len(panel["description"]) > 5
    assert len(panel["targets"]) == len({target["refId"] for target in panel["targets"]})
    for target in panel["targets"]:
        assert target["datasource"]["uid"] == "${datasource}"
        windows = re.findall(r"\[([^\]]*)\]", target["expr"])
        # Drift is a ratio of rare events: a fixed hour is what makes it a number at all.
        assert set(windows) <= ({"1h"} if title.endswith("Drift") else {"$__rate_interval"})
        for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
            assert label in "".join(re.findall(r"by \([^)]*\)", target["expr"])), (
                "a legend of a label that is summed away"
            )
        assert "$job" in target["expr"]


@pytest.mark.parametrize(("name", "board"), dashboards().items())
def test_dashboards_are_in_order(name: str, board: dict[str, Any]) -> None:
    variables = {one["name"]: one for one in board["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert {"job", "instance"} <= variables.keys()
    used = set(re.findall(r"\$(\w+)", " ".join(expr for title, expr in QUERIES if title.startswith(f"{name}/"))))
    assert used - {"__rate_interval"} == variables.keys() - {"datasource"}
    assert all(one["datasource"]["uid"] == "${datasource}" for one in variables.values() if one["type"] == "query")
    assert (board["uid"], board["links"][0]["tags"]) == (f"gateway-{name}", ["gateway"])
    assert board["links"][0]["includeVars"]
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, "two panels in one place"
        taken |= cells


def test_durations_have_exemplars_where_they_lead_somewhere() -> None:
    with_exemplars = [title for title, panel in PANELS if any(target.get("exemplar") for target in panel["targets"])]
    assert with_exemplars == ["overview/Duration"]
    sources = yaml.safe_load((ROOT / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"]
    (destination,) = sources[0]["jsonData"]["exemplarTraceIdDestinations"]
    assert destination == {"name": "trace_id", "datasourceUid": sources[1]["uid"]}


def test_every_alert_has_its_section_in_the_runbook() -> None:
    text = (ROOT / "docs/runbook.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-"): heading for heading in headings}
    linked = set()
    for rule in RULES:
        if "alert" in rule:
            page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
            assert (page, anchor in anchors) == ("docs/runbook.md", True), rule["alert"]
            assert f"`{rule['alert']}`" in text.partition(f"## {anchors[anchor]}\n")[2].partition("\n## ")[0]
            assert rule["labels"]["severity"] in {"page", "ticket"}
            linked.add(anchor)
    assert linked == anchors.keys()
    assert set(re.findall(r"\]\(#([a-z-]+)\)", text)) <= anchors.keys()


def test_a_selection_is_put_into_every_selector() -> None:
    assert selected('sum(gateway_x{a="b"}) / gateway:y:z + process_cpu') == (
        'sum(gateway_x{job=~"$job",instance=~"$instance",a="b"}) / gateway:y:z{job=~"$job"}'
        ' + process_cpu{job=~"$job",instance=~"$instance"}'
    )
