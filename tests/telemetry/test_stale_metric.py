"""Why stale answers were served, counted."""

from __future__ import annotations

import pytest

from gateway.core.model import Fields, RequestHead, Target
from gateway.pipeline.exchange import Exchange, Stale, Verdict
from gateway.telemetry.metrics import Metrics


@pytest.mark.parametrize("reason", [None, *Stale])
def test_stale_answers_are_counted_by_reason(reason: Stale | None) -> None:
    metrics = Metrics("0")
    exchange = Exchange(RequestHead("GET", Target("/"), Fields()), request_id="r", received_at=0.0)
    exchange.stale, exchange.verdict = reason, Verdict.STALE if reason else Verdict.HIT
    metrics.begin()
    metrics.record(exchange, complete=True, seconds=0.1)
    counted = {
        sample.labels["reason"]: sample.value
        for family in metrics.registry.collect()
        if family.name == "gateway_cache_stale_served"
        for sample in family.samples
        if sample.name.endswith("_total")
    }
    assert counted == {one.value: float(one is reason) for one in Stale}
