"""`gateway check` without the network: each doubt from settings that have it, and none from those that do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.core.rate_policy import EXEMPT
from gateway.lint import KNOWN_SCOPES, LEAKS, Level, doubts, refused
from gateway.settings import load, parse
from tests.conftest import SECRET

BASE = f"""
public_url: https://gateway.example.org
upstream: {{url: https://cc.example.org}}
auth: {{keys: [{{secret: {SECRET}}}]}}
"""
ALL = "[cloud_controller.read, cloud_controller.admin]"
PROXIES = "trusted_proxies: [10.0.0.0/8]\n"
POLICY = "{name: a, who: principal, limit: 10, window: 1m"


def rules(extra: str, base: str = BASE) -> set[str]:
    return {doubt.rule for doubt in doubts(parse(base + extra))}


def route(row: str) -> str:
    return f"routes: [{{{row}}}]"


def cached(match: str, rule: str) -> str:
    return route(f"match: {match}, cache: {{mode: policy, {rule}}}")


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        pytest.param("", set(), id="nothing"),
        pytest.param(
            cached("GET /v3/apps/:guid/env", "ttl: 5s, share: global"), {"share-global"}, id="secrets shared by role"
        ),
        pytest.param(cached("GET /v3/processes", "ttl: 5s, share: global"), set(), id="a list that is alike for all"),
        pytest.param(cached("GET /v9/new", "ttl: 5s, share: global"), {"share-global"}, id="not known to be alike"),
        pytest.param(
            cached("GET /v3/processes", "ttl: 10m, share: global"), {"ttl-token"}, id="longer than a token lives"
        ),
        pytest.param(cached("GET /v3/processes", "ttl: 2m, share: global"), {"ttl-revocation"}, id="a role taken away"),
        pytest.param(
            route("match: GET /v3/apps, scopes_any: [cloud_controller.raed]"), {"unknown-scope"}, id="a scope misspelt"
        ),
        pytest.param(
            route("match: GET /v3/apps, scopes_any: [cloud_controller.admin]"), set(), id="a scope that is known"
        ),
        pytest.param(
            "routes: [{match: GET /v3/a/:x/c, rate: read}, {match: GET /v3/a/b/:y, rate: list}]",
            {"route-conflict"},
            id="crossing rows",
        ),
        pytest.param(route("match: GET /internal/v4/x, access: public"), {"route-opened"}, id="a closed path opened"),
        pytest.param(
            "routes: [{match: GET /v3/a, rate: read}, {match: '* /v3/a', rate: list}]", set(), id="a row for the rest"
        ),
        pytest.param("admin: {host: 0.0.0.0}", {"admin-open"}, id="the operator's listener for everybody"),
        pytest.param(f"admin: {{host: 0.0.0.0, token: {SECRET}}}", set(), id="the same behind a token"),
        pytest.param(f"rate_limits: {{policies: [{POLICY}}}]}}", set(), id="a limit"),
        pytest.param(
            f"rate_limits: {{policies: [{POLICY}, cost: {{hit: 0, miss: 0, write: 0}}}}]}}",
            {"limit-free"},
            id="a limit that asks nothing",
        ),
        pytest.param(
            f"rate_limits: {{policies: [{POLICY}, exempt_scopes_any: {ALL}}}]}}",
            {"limit-exempts-all"},
            id="a limit for nobody",
        ),
        pytest.param(
            f"rate_limits: {{policies: [{POLICY}}}, {{name: b, who: principal, limit: 5, window: 1m}}]}}",
            {"limit-weaker"},
            id="a limit behind a stricter one",
        ),
        pytest.param(
            f"{PROXIES}rate_limits: {{policies: [{POLICY}}}, {{name: b, who: ip, limit: 5, window: 1m}}]}}",
            set(),
            id="limits of different people",
        ),
        pytest.param(
            "rate_limits: {failed_authentications: {limit: 5, window: 1m}}",
            {"limit-one-address"},
            id="addresses behind a proxy that is not named",
        ),
        pytest.param(
            f"rate_limits: {{policies: [{POLICY}}}, {{name: b, who: principal, limit: 5, window: 1m, mode: shadow}}]}}",
            set(),
            id="a stricter one that only watches",
        ),
    ],
)
def test_doubts(extra: str, expected: set[str]) -> None:
    assert rules(extra) == expected


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        pytest.param(BASE.replace("https://gateway", "http://gateway"), {"public-url-clear"}, id="clients in clear"),
        pytest.param(BASE.replace("https://cc", "http://cc"), {"upstream-clear"}, id="controller in clear"),
        pytest.param(BASE.replace("https://cc", "https://gateway"), {"loop"}, id="asks itself"),
        pytest.param(
            BASE.replace("upstream: {", "upstream: {tls: {verify: false}, "), {"upstream-unverified"}, id="unverified"
        ),
        pytest.param(BASE.replace("https://cc.example.org", "http://127.0.0.1:9024"), set(), id="on loopback"),
        pytest.param(
            BASE.replace(f"secret: {SECRET}", "url: http://uaa.example.org/token_keys"), {"keys-clear"}, id="keys"
        ),
    ],
)
def test_doubtful_addresses(base: str, expected: set[str]) -> None:
    assert rules("", base) == expected


def test_only_what_would_leak_stops_the_start() -> None:
    leaking = parse(BASE + cached("GET /v3/apps/:guid/env", "ttl: 5s, share: global"))
    assert {doubt.rule for doubt in refused(leaking)} == LEAKS
    opened = route("match: GET /internal/x, access: public")
    assert refused(parse(f"{BASE}\nadmin: {{host: 0.0.0.0}}\n{opened}")) == ()


def test_the_examples_have_no_doubts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VALKEY_PASSWORD", "SHARED_STORE_KEY"):
        monkeypatch.setenv(name, SECRET)
    for path in (Path(__file__).parents[1] / "config").glob("*.yaml"):
        assert [doubt for doubt in doubts(load(path)) if doubt.level is not Level.NOTE] == [], path


def test_words_of_the_rules() -> None:
    assert EXEMPT not in KNOWN_SCOPES
    assert all(scope.islower() and " " not in scope for scope in KNOWN_SCOPES)
