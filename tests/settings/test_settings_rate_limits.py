"""Rate limits in the file: what becomes of them, and what is refused."""

from __future__ import annotations

import pytest

from gateway.core.cf_routes import RATE_CLASSES
from gateway.core.rate_policy import Cost, Mode, RatePolicy, Who
from gateway.core.ratelimit import FixedWindow, Gcra
from gateway.settings import ConfigError, Settings, parse

GOOD = "public_url: http://p\nupstream: {url: http://u}\nauth: {keys: [{url: http://k}]}\n"
MINUTE = "name: a, who: principal, limit: 5, window: 1m"


def load(text: str) -> Settings:
    return parse(GOOD + text, {}, name="f.yaml")


def policy(text: str) -> RatePolicy:
    return load(f"rate_limits: {{policies: [{{{text}}}]}}").rate_limits.policies[0].policy()


def test_by_default_nothing_is_limited() -> None:
    limits = load("").rate_limits
    assert (limits.policies, limits.failed_authentications, limits.failures()) == ((), None, None)
    assert limits.max_buckets == 100_000


def test_a_policy_in_the_words_of_the_core() -> None:
    full = policy(
        "name: a, who: client_id, classes: [list, write], limit: 60, window: 1m30s, burst: 7, mode: shadow, "
        "exempt_scopes_any: [x.y], cost: {hit: 0, miss: 2, write: 3.5, per_row: 0.02}"
    )
    assert (full.name, full.who, full.mode) == ("a", Who.CLIENT_ID, Mode.SHADOW)
    assert isinstance(full.bucket, Gcra)
    assert (full.bucket.limit, full.bucket.window, full.bucket.quota) == (60, 90.0, 7)
    assert full.classes == {"list", "write"}
    assert full.exempt_scopes_any == {"x.y"}
    assert full.cost == Cost(0, 2, 3.5, 0.02)


def test_what_a_policy_leaves_out() -> None:
    plain = policy(MINUTE)
    assert isinstance(plain.bucket, Gcra)
    assert plain.bucket.quota == 5
    assert plain.classes == set(RATE_CLASSES) - {"exempt"}
    assert (plain.mode, plain.cost, plain.exempt_scopes_any) == (Mode.ENFORCE, Cost(1, 1, 1, 0), frozenset())


def test_the_controllers_algorithm_and_failures() -> None:
    assert isinstance(policy(MINUTE + ", algorithm: fixed_window").bucket, FixedWindow)
    failures = load("rate_limits: {failed_authentications: {limit: 20, window: 1m}}").rate_limits.failures()
    assert failures is not None
    assert (failures.who, failures.bucket.limit, failures.bucket.window) == (Who.IP, 20, 60.0)


CLASSES = "public, read, list, write, upload or default"
FAULTS = [
    (MINUTE + ", classes: [list, dear]", f'classes[1]: expected a rate class: {CLASSES}, found "dear"'),
    (MINUTE + ", classes: [exempt]", f'classes[0]: expected a rate class: {CLASSES}, found "exempt"'),
    (
        MINUTE + ", algorithm: fixed_window, burst: 2",
        "burst: expected no such key with algorithm fixed_window, found one",
    ),
    (MINUTE + ", mode: off", 'mode: expected enforce or shadow, found "off"'),
    (MINUTE + ", cost: {hit: -1}", "cost.hit: expected a number from 0, such as 1 or 0.02, found -1"),
    (MINUTE + ", cost: {hit: .nan}", "cost.hit: expected a number from 0, such as 1 or 0.02"),
    (MINUTE + ", cost: {hit: true}", "cost.hit: expected a number from 0, such as 1 or 0.02"),
    ("name: a, who: principal, limit: 0, window: 1m", "limit: expected a whole number from 1"),
    ("name: a, who: principal, limit: 1, window: 0", "window: expected a duration from 1ms to 31d, found 0s"),
    ("name: a, who: principal, limit: 1, window: 32d", "window: expected a duration from 1ms to 31d"),
    ("name: a, who: user, limit: 1, window: 1m", "who: expected principal, client_id, ip, anonymous or everybody"),
    ("name: failed_authentications, who: ip, limit: 1, window: 1m", "name: expected another name"),
    (
        "name: a, who: anonymous, limit: 1, window: 1m, exempt_scopes_any: [a.b]",
        "exempt_scopes_any: expected no such key with who: anonymous, found one; there is no token",
    ),
    (f"{MINUTE}}}, {{{MINUTE}", 'expected each name once (also in rate_limits.policies[0]), found "a"'),
]


@pytest.mark.parametrize(("text", "expected"), FAULTS, ids=[text for text, _ in FAULTS])
def test_faults(text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        policy(text)
    assert expected in str(caught.value)
    assert "f.yaml:4: rate_limits.policies[" in str(caught.value)


def test_an_unknown_rate_class_of_a_route_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"routes\[0\].rate: expected a rate class: exempt, public"):
        load("routes: [{match: GET /x, rate: dear}]")
    assert load("routes: [{match: GET /x, rate: exempt}]").route_rows()[0].rate == "exempt"


def test_costs_are_written_as_they_are_read() -> None:
    cost = {"hit": 0, "miss": 1, "write": 2.5, "per_row": 0.02}
    settings = load(f"rate_limits: {{policies: [{{{MINUTE}, cost: {cost}}}]}}")
    assert settings.redacted()["rate_limits"]["policies"][0]["cost"] == cost
