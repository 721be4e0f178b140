"""`python -m gateway.catalogue` prints `docs/metrics.md`: every metric a gateway exposes, as the code describes it.

A gateway is built, not started, and its registry is asked; so whatever part registers a metric is in here.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from gateway.app import Gateway
from gateway.settings import parse

if TYPE_CHECKING:
    from gateway.settings import Settings

# Every part that has metrics of its own is in these settings.
_SETTINGS: Final = """
public_url: https://api.example.org
upstream: {url: http://127.0.0.1:1}
auth: {keys: [{secret: a-secret-that-signs-nothing-but-has-its-length}]}
"""
_INTRODUCTION: Final = """\
# Metrics

`GET /metrics` on the admin listener, in Prometheus text or OpenMetrics as the scraper asks; in the latter the duration
histogram has exemplars with the ids of traces that somebody records. Labels are closed sets: route templates (`none`
when there was no route), methods and status codes (`other` for unknown ones) and the names below; never guids, users
or paths. What several workers count becomes one as the column says. This page is generated from the code
(`python -m gateway.catalogue > docs/metrics.md`).

| metric | type | labels | workers | meaning |
|---|---|---|---|---|
"""
_QUESTIONS: Final = """
Useful questions (more are in `grafana/`, and alerts with what to do in [runbook.md](runbook.md)):

- share of requests answered without the controller:
  `sum(rate(gateway_cache_requests_avoided_total[5m])) / sum(rate(gateway_requests_total[5m]))`
- the controller's time that the cache saves, in seconds a second:
  `sum(rate(gateway_cache_upstream_saved_seconds_total[5m]))`
- is the controller failing: `sum by (reason) (rate(gateway_denials_total{reason=~"upstream-.*"}[5m]))`
- do pages outlive their time because the controller fails:
  `sum by (reason) (rate(gateway_cache_stale_served_total{reason!~"revalidating|budget"}[5m]))`
- how often a page that counts as fresh is not:
  `sum(rate(gateway_cache_drift_checks_total{result="differs"}[1h]))
  / sum(rate(gateway_cache_drift_checks_total{result=~"same|differs"}[1h]))`
- are keys getting old: `gateway_keys_age_seconds > 600`
"""


@dataclass(frozen=True, slots=True)
class Described:
    """One metric.

    Attributes:
        name: as it is asked for; a histogram's without `_bucket`, `_sum`, `_count`.
        kind: "counter", "gauge" or "histogram".
        labels: label names, without `le`.
        merge: how the values of several workers become one.
        text: what it says.
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    merge: str
    text: str


def catalogue(settings: Settings | None = None) -> list[Described]:
    """Every metric that a gateway with these settings exposes, by name.

    Args:
        settings: by default such that every part takes part.
    """
    metrics = Gateway(parse(_SETTINGS, {}) if settings is None else settings).metrics
    found: list[Described] = []
    for family in metrics.registry.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        known: Any = getattr(family, "_labelnames", ())
        merge = metrics.merge.get(name, "sum")
        found.append(Described(name, family.type, tuple(known), merge, family.documentation))
    return sorted(found, key=lambda one: one.name)


def document() -> str:
    """The page, in Markdown."""
    rows = [
        f"| `{one.name}` | {one.kind} | {', '.join(f'`{label}`' for label in one.labels)} | {one.merge} | "
        f"{one.text.rstrip('.').replace('|', chr(92) + '|')} |\n"
        for one in catalogue()
    ]
    return "".join([_INTRODUCTION, *rows, _QUESTIONS])


if __name__ == "__main__":
    sys.stdout.write(document())
