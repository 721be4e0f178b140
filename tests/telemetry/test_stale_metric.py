"""Why stale answers were served, counted."""

from __future__ import annotations

import pytest

from gateway.core.freshness import State
from gateway.core.model import Fields, RequestHead, Target
from gateway.core.reuse import Action, Reuse
from gateway.pipeline.exchange import Exchange, Verdict
from gateway.pipeline.origin import Lookup
from gateway.telemetry.metrics import Metrics


@pytest.mark.parametrize(
    ("verdict", "detail", "state", "expected"),
    [
        (Verdict.STALE, None, State.STALE_SERVE_AND_REFRESH, "while-revalidate"),
        (Verdict.STALE, None, None, "while-revalidate"),
        (Verdict.STALE, None, State.STALE_ACCEPTED, "max-stale"),
        (Verdict.STALE, "stale-if-error", State.STALE_NEEDS_VALIDATION, "error-status"),
        (Verdict.STALE, "stale-if-error: timeout", None, "timeout"),
        (Verdict.HIT, None, State.FRESH, None),
    ],
)
def test_stale_answers_are_counted_by_reason(
    verdict: Verdict, detail: str | None, state: State | None, expected: str | None
) -> None:
    metrics = Metrics("0")
    exchange = Exchange(RequestHead("GET", Target("/"), Fields()), request_id="r", received_at=0.0)
    exchange.verdict, exchange.detail = verdict, detail
    if state is not None:
        exchange.origin = Lookup(None, Reuse(Action.SERVE, state=state))
    metrics.begin()
    metrics.record(exchange, complete=True, seconds=0.1)
    counted = {
        sample.labels["reason"]: sample.value
        for family in metrics.registry.collect()
        if family.name == "gateway_cache_stale_served"
        for sample in family.samples
        if sample.name.endswith("_total")
    }
    assert counted == ({expected: 1.0} if expected else {})
