"""Every alert fires when it should and keeps quiet when it should, by promtool."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

RULES = Path(__file__).parents[2] / "grafana/rules/gateway.yaml"
ALERTS = sorted(
    rule["alert"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"] if "alert" in rule
)
WHO = 'job="gateway",instance="a"'


def requests(failing: str, every: str = "0+1000x500") -> dict[str, str]:
    return {
        f'gateway_requests_total{{{WHO},route="/v3",method="GET",code="200",cache="hit"}}': every,
        f'gateway_requests_total{{{WHO},route="/v3",method="GET",code="502",cache="miss"}}': failing,
    }


def one(name: str, values: str, labels: str = "") -> dict[str, str]:
    return {f"{name}{{{WHO}{labels}}}": values}


def lag(in_time: int) -> dict[str, str]:
    return {
        f'gateway_event_loop_lag_seconds_bucket{{{WHO},le="{bound}"}}': values
        for bound, values in {"0.1": f"0+{in_time}x500", "0.5": "0+100x500", "+Inf": "0+100x500"}.items()
    }


def memory(resident: int) -> dict[str, str]:
    return {
        **one("process_resident_memory_bytes", f"{resident << 20}x500"),
        **one("gateway_cache_max_bytes", f"{256 << 20}x500"),
    }


def settings(*fingerprints: str) -> dict[str, str]:
    return {
        f'gateway_config_info{{job="gateway",instance="{number}",sha256="{sha256}",route_table="none"}}': "1x500"
        for number, sha256 in enumerate(fingerprints)
    }


def drift(differs: str, same: str) -> dict[str, str]:
    name = "gateway_cache_drift_checks_total"
    return {**one(name, differs, ',result="differs"'), **one(name, same, ',result="same"')}


# alert: (what makes it fire, what does not), of one sample a minute
STATES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "GatewayBudgetBurnsFast": (requests("0+20x500"), requests("0+10x500")),
    # What burnt an hour ago but burns no more wakes nobody.
    "GatewayBudgetBurns": (requests("0+7x500"), requests("0+100x200 20000x300")),
    "GatewayBudgetBurnsSlowly": (requests("0+4x500"), requests("0+2x500")),
    "GatewayBudgetShrinks": (requests("0+2x500"), requests("0+0x500")),
    "GatewayDown": (one("up", "0x500"), one("up", "1x500")),
    "GatewayKeysOld": (one("gateway_keys_age_seconds", "0+60x500"), one("gateway_keys_age_seconds", "60x500")),
    "GatewayKeyFetchesFail": (
        one("gateway_key_fetches_total", "0+1x500", ',result="failed"'),
        one("gateway_key_fetches_total", "0+1x500", ',result="ok"'),
    ),
    "GatewayControllerFails": (
        {**requests("0+1x500"), **one("gateway_denials_total", "0+100x500", ',reason="upstream-timeout"')},
        {**requests("0+1x500"), **one("gateway_denials_total", "0+100x500", ',reason="no-token"')},
    ),
    "GatewayServesStale": (
        one("gateway_cache_stale_served_total", "0+1x500", ',reason="timeout"'),
        one("gateway_cache_stale_served_total", "0+1x500", ',reason="revalidating"'),
    ),
    "GatewayBreakerOpen": (
        one("gateway_upstream_breaker_state", "2x500", ',endpoint="a"'),
        one("gateway_upstream_breaker_state", "1x500", ',endpoint="a"'),
    ),
    "GatewayControllerDown": (
        one("gateway_upstream_endpoint_up", "0x500", ',endpoint="a"'),
        one("gateway_upstream_endpoint_up", "1x500", ',endpoint="a"'),
    ),
    "GatewayControllerBudgetLow": (
        one("gateway_upstream_budget_ratio", "0.05x500"),
        one("gateway_upstream_budget_ratio", "0.5x500"),
    ),
    "GatewaySharedStoreLost": (one("gateway_shared_store_up", "0x500"), one("gateway_shared_store_up", "1x500")),
    "GatewayOutOfTouch": (one("gateway_shared_store_in_touch", "0x500"), one("gateway_shared_store_in_touch", "1x500")),
    "GatewayQueueOverflows": (
        one("gateway_concurrency_decisions_total", "0+1x500", ',decision="queue-full",mode="enforce"'),
        one("gateway_concurrency_decisions_total", "0+1x500", ',decision="queue-full",mode="shadow"'),
    ),
    "GatewayCertificateExpires": (
        one("gateway_tls_certificate_expiry_timestamp_seconds", "86400x500", ',listener="listen"'),
        one("gateway_tls_certificate_expiry_timestamp_seconds", "8640000x500", ',listener="listen"'),
    ),
    "GatewayCertificateRefused": (
        one("gateway_tls_certificate_changes_total", "0+1x500", ',result="refused"'),
        one("gateway_tls_certificate_changes_total", "0+1x500", ',result="applied"'),
    ),
    "GatewayWorkersMissing": (
        {**one("gateway_workers", "4x500"), **one("gateway_workers_up", "3x500")},
        {**one("gateway_workers", "4x500"), **one("gateway_workers_up", "4x500")},
    ),
    "GatewayDrift": (drift("0+1x500", "0+1x500"), drift("0+1x500", "0+9x500")),
    "GatewayMemoryNearBudget": (memory(760), memory(400)),
    "GatewayLoopLags": (lag(95), lag(100)),
    "GatewayReloadRefused": (
        one("gateway_config_last_reload_successful", "1x10 0x490"),
        one("gateway_config_last_reload_successful", "1x500"),
    ),
    "GatewayRestartRequired": (
        one("gateway_config_restart_required", "1x500", ',key="upstream.retries.ratio"'),
        one("gateway_config_restart_required", "1x60 _x440", ',key="upstream.retries.ratio"'),
    ),
    "GatewaySettingsDiffer": (settings("aa", "bb"), settings("aa", "aa")),
}


def case(alert: str, series: dict[str, str], *, firing: bool) -> dict[str, Any]:
    expected = [{"labels": f'{{alertname="{alert}"}}', "value": 1}] if firing else []
    expr = f'max by (alertname) (ALERTS{{alertname="{alert}",alertstate="firing"}})'
    return {
        "name": f"{alert} {'fires' if firing else 'keeps quiet'}",
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [{"expr": expr, "eval_time": "8h", "exp_samples": expected}],
    }


def promtool(*words: str | Path) -> str:
    ran = subprocess.run(["promtool", *map(str, words)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_every_alert_has_its_two_states() -> None:
    assert sorted(STATES) == ALERTS


@pytest.mark.debian
def test_the_rules_are_valid() -> None:
    assert "SUCCESS" in promtool("check", "rules", RULES)


@pytest.mark.debian
def test_alerts_fire_and_keep_quiet(tmp_path: Path) -> None:
    cases = [
        case(alert, series, firing=firing)
        for alert, states in STATES.items()
        for series, firing in zip(states, (True, False), strict=True)
    ]
    document = {"rule_files": [str(RULES)], "evaluation_interval": "5m", "tests": cases}
    path = tmp_path / "rules.test.yaml"
    path.write_text(yaml.safe_dump(document))
    assert "SUCCESS" in promtool("test", "rules", path)
