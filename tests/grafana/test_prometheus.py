"""Every query of every panel and rule, asked of a real Prometheus that scrapes a real gateway."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from grafana.generate import FOLDER
from grafana.scene import RULES, Scene, filled, panels

pytestmark = pytest.mark.debian

# What rightly has nothing to say in this scene.
NOTHING: dict[str, str] = {}


def operands(expr: str) -> list[str]:
    """The sides of the comparisons and `and`s at the top of an alert's expression: each must have data to compare."""
    expr = " ".join(expr.split())
    parts, depth, start, position = [], 0, 0, 0
    while position < len(expr):
        depth += {"(": 1, "{": 1, "[": 1, ")": -1, "}": -1, "]": -1}.get(expr[position], 0)
        found = re.compile(r"\s(?:and|>|<|==|>=|<=)\s").match(expr, position) if depth == 0 else None
        if found:
            parts.append(expr[start:position])
            start = position = found.end()
        else:
            position += 1
    parts.append(expr[start:])
    return [part for part in map(str.strip, parts) if re.search("[a-z]", part)]


def questions() -> list[tuple[str, str, set[str]]]:
    """(who asks, query, the labels that each series must have)."""
    asked = []
    for board, each in panels(FOLDER).items():
        for panel in each:
            for target in panel["targets"]:
                labels = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
                asked.append((f"{board}: {panel['title']} {target['refId']}", filled(target["expr"]), labels))
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            if "record" in rule:
                asked.append((rule["record"], rule["record"], {"job"}))
            else:
                named = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
                first, *others = operands(rule["expr"])
                asked.append((rule["alert"], first, named))
                asked += [(rule["alert"], other, set()) for other in others]
    return asked


def fault(results: list[dict[str, Any]], labels: set[str]) -> str | None:
    numbers = [float(one["value"][1]) for one in results]
    if not any(math.isfinite(number) for number in numbers):
        return f"no data: {numbers[:3]}"
    without = {label for label in labels for one in results if not one["metric"].get(label)}
    return f"series without {without}" if without else None


async def test_every_query_of_every_panel_and_rule_has_data(tmp_path: Path) -> None:
    async with Scene(tmp_path) as scene:
        await scene.play(9)
        asked = questions()
        faults = {}
        for who, expr, labels in asked:
            found = fault(await scene.query(expr), labels)
            if found is not None and who not in NOTHING:
                faults[f"{who}: {expr}"] = found
        rules = await scene.api("rules")
        health = {
            rule["name"]: rule["lastError"]
            for group in rules["groups"]
            for rule in group["rules"]
            if rule["health"] != "ok"
        }
        targets = await scene.api("targets")
        (target,) = targets["activeTargets"]
        exemplars = await scene.api(
            "query_exemplars?query=gateway_request_duration_seconds_bucket&start=0&end=4102444800"
        )
    boards = panels(FOLDER)
    shown = sum(map(len, boards.values()))
    print(f"\n{len(boards)} dashboards, {shown} panels, {len(asked)} queries, {len(faults)} without data")  # noqa: T201 - the summary
    assert faults == {}
    assert health == {}
    assert (target["health"], target["lastError"]) == ("up", "")
    traces = {one["labels"]["trace_id"] for series in exemplars for one in series["exemplars"]}
    assert traces
    assert all(trace.startswith("4bf92f3577b34da6a3ce929d0e") for trace in traces)
