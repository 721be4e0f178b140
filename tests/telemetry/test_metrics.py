"""What is counted, and that nobody outside can make the count grow."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics

from gateway.core.cf_routes import CLOUD_FOUNDRY
from gateway.core.errors import Reason
from gateway.core.keys import CacheKey
from gateway.core.model import Fields, PrincipalKind, RequestHead, Target
from gateway.core.visibility import make_principal
from gateway.pipeline.entry import Entry
from gateway.pipeline.exchange import Exchange, Stale, Verdict
from gateway.telemetry.looplag import LoopLag
from gateway.telemetry.metrics import Metrics
from tests.conftest import bearer

AUTHORIZATION = f"Authorization: {bearer()['Authorization']}"
RARE = ("PURGE", "REPORT", "LOCK", "MKCOL", "SEARCH", "PROPFIND", "NOTIFY")
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PRINCIPAL = make_principal(
    kind=PrincipalKind.USER,
    principal_id="u",
    issuer="",
    zone="",
    client_id="cf",
    scopes=frozenset(),
    expires=2**40,
)


def exchange(method: str = "GET", path: str = "/v3/processes", status: int = 200, **known: object) -> Exchange:
    one = Exchange(RequestHead(method, Target(path), Fields()), request_id="r", received_at=100.0)
    one.route, one.status = CLOUD_FOUNDRY.match("GET", path), status
    for name, value in known.items():
        setattr(one, name, value)
    return one


def page(stored_at: float, fetch_seconds: float) -> Entry:
    key = CacheKey("public", "/v3/processes", "", "json")
    return Entry(key, Fields(), b"{}", '"e"', stored_at, 200.0, 200.0, 200.0, (), fetch_seconds)


def record(metrics: Metrics, one: Exchange, seconds: float = 0.25) -> None:
    metrics.begin()
    metrics.record(one, complete=True, seconds=seconds)


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, labels) or 0.0


@pytest.mark.parametrize(
    ("known", "decision"),
    [
        ({"principal": PRINCIPAL}, ("allowed", "token")),
        ({"path": "/v3/info"}, ("allowed", "public")),
        ({"path": "/v3/no/such/thing"}, ("allowed", "unjudged")),
        ({"denied": Reason.NO_TOKEN, "status": 401}, ("denied", "no-token")),
        ({"denied": Reason.INVALID_TOKEN, "status": 401}, ("denied", "invalid-token")),
        (
            {"denied": Reason.INSUFFICIENT_SCOPE, "status": 403, "principal": PRINCIPAL},
            ("denied", "insufficient-scope"),
        ),
        ({"denied": Reason.KEYS_UNAVAILABLE, "status": 502}, ("denied", "keys-unavailable")),
        ({"denied": Reason.RATE_LIMITED, "status": 429, "principal": PRINCIPAL}, ("allowed", "token")),
        ({"denied": Reason.IP_RATE_LIMITED, "status": 429}, None),
        ({"denied": Reason.BAD_TARGET, "status": 400, "route": None}, None),
    ],
    ids=lambda value: value[1] if isinstance(value, tuple) else None,
)
def test_decisions_about_access(known, decision) -> None:
    metrics = Metrics("0")
    record(metrics, exchange(**known))
    counted = {
        (sample.labels["result"], sample.labels["reason"])
        for family in metrics.registry.collect()
        if family.name == "gateway_auth_decisions"
        for sample in family.samples
        if sample.value
    }
    assert counted == ({decision} if decision else set())


@pytest.mark.parametrize(
    ("verdict", "known", "avoided", "saved", "aged"),
    [
        (Verdict.HIT, {"entry": page(90.0, 0.5)}, 1, 0.5, 10.0),
        (Verdict.STALE, {"entry": page(60.0, 0.5), "stale": Stale.REVALIDATING}, 1, 0.5, 40.0),
        (Verdict.STALE, {"entry": page(60.0, 0.5), "stale": Stale.BUDGET}, 1, 0.5, 40.0),
        (Verdict.STALE, {"entry": page(60.0, 0.5), "stale": Stale.TIMEOUT}, 0, 0.0, 40.0),
        (Verdict.COLLAPSED, {"saved_seconds": 0.75}, 1, 0.75, None),
        (Verdict.MISS, {"entry": page(0.0, 0.5), "upstream_seconds": 0.1}, 0, 0.0, None),
        (Verdict.BYPASS, {"upstream_seconds": 0.1}, 0, 0.0, None),
        (Verdict.HIT, {"entry": page(90.0, 0.5), "denied": Reason.RATE_LIMITED, "status": 429}, 0, 0.0, None),
    ],
    ids=["hit", "stale", "spared", "stands in for a failure", "waited", "miss", "bypass", "refused after look-up"],
)
def test_what_the_controller_did_not_have_to_do(verdict, known, avoided, saved, aged) -> None:
    metrics = Metrics("0")
    record(metrics, exchange(verdict=verdict, **known))
    route = {"route": "/v3/processes"}
    assert value(metrics, "gateway_cache_requests_avoided_total", **route) == avoided
    assert value(metrics, "gateway_cache_upstream_saved_seconds_total", **route) == saved
    ages = (verdict.value for verdict in (Verdict.HIT, Verdict.STALE))
    assert sum(value(metrics, "gateway_cache_served_age_seconds_sum", cache=cache) for cache in ages) == (aged or 0.0)


def test_own_time_is_what_was_not_the_controllers() -> None:
    metrics = Metrics("0")
    record(metrics, exchange(verdict=Verdict.MISS, upstream_seconds=0.75), seconds=1.0)
    record(metrics, exchange(verdict=Verdict.MISS, upstream_seconds=2.0), seconds=1.0)
    record(metrics, exchange(verdict=Verdict.HIT), seconds=0.5)
    assert value(metrics, "gateway_overhead_seconds_sum", cache="miss") == 0.25
    assert value(metrics, "gateway_overhead_seconds_sum", cache="hit") == 0.5
    assert value(metrics, "gateway_upstream_request_duration_seconds_sum", route="/v3/processes") == 2.75


def test_a_clock_set_back_takes_nothing_away() -> None:
    metrics = Metrics("0")
    record(metrics, exchange(verdict=Verdict.HIT, entry=page(500.0, 0.0)), seconds=-3.0)
    labels = {"route": "/v3/processes", "cache": "hit"}
    assert value(metrics, "gateway_request_duration_seconds_sum", **labels) == 0
    assert value(metrics, "gateway_request_duration_seconds_count", **labels) == 1
    assert value(metrics, "gateway_cache_served_age_seconds_sum", cache="hit") == 0


@given(st.lists(st.tuples(st.text(min_size=1), st.integers(0, 10**6)), min_size=20, max_size=200))
def test_methods_and_statuses_of_strangers_are_one_label(strange: list[tuple[str, int]]) -> None:
    metrics = Metrics("0")
    for method, status in strange:
        record(metrics, exchange(method=f"x{method}", status=1000 + status))
    assert len(metrics.series) == 1
    labels = {"route": "/v3/processes", "method": "other", "code": "other", "cache": "none"}
    assert value(metrics, "gateway_requests_total", **labels) == len(strange)


def samples(metrics: Metrics) -> int:
    return sum(len(family.samples) for family in metrics.registry.collect())


async def test_hostile_input_adds_no_series(stub, start_gateway, connect) -> None:
    gateway = await start_gateway(stub.url)

    async def attack(number: int) -> None:
        mine = f"{number:04d}"
        for line, *fields in (
            (f"GET /v3/apps/{mine}", AUTHORIZATION),
            (f"GET /v3/{mine}/{mine}?{mine}={mine}", AUTHORIZATION),
            (f"GET /{mine}", AUTHORIZATION),
            (f"GET /v3/processes?page={mine}", f"X-Forwarded-For: 10.0.0.{number}", AUTHORIZATION),
            ("GET /v3/processes", f"Authorization: bearer {mine}.{mine}.{mine}"),
            ("GET /v3/processes", AUTHORIZATION, f"If-None-Match: {mine}", f"X-Vcap-Request-Id: {mine}"),
            (f"{RARE[number % len(RARE)]} /v3/processes", AUTHORIZATION),
        ):
            assert (await client.ask(line, *fields)).status

    client = await connect(gateway.url)
    for number in range(10):
        await attack(number)
    before = samples(gateway.metrics)
    for number in range(10, 60):
        await attack(number)
    assert samples(gateway.metrics) == before
    assert not {label for f in gateway.metrics.registry.collect() for s in f.samples for label in s.labels.values()} & {
        f"{number:04d}" for number in range(60)
    }


# -- exemplars


async def test_exemplars_name_recorded_traces_in_openmetrics_alone(stub, start_gateway, connect) -> None:
    gateway = await start_gateway(stub.url)
    client = await connect(gateway.url)
    await client.ask("GET /v3/processes", AUTHORIZATION, f"traceparent: 00-{TRACE}-{SPAN}-01")
    admin = await connect(gateway.admin_url)
    text = (await admin.ask("GET /metrics", "Accept: application/openmetrics-text;version=1.0.0")).body.decode()
    (found,) = [
        sample
        for family in openmetrics(text)
        for sample in family.samples
        if sample.exemplar is not None and family.name == "gateway_request_duration_seconds"
    ]
    assert (found.exemplar.labels, found.labels["cache"]) == ({"trace_id": TRACE}, "miss")
    assert found.exemplar.value <= float(found.labels["le"])
    assert TRACE not in (await admin.ask("GET /metrics")).body.decode()


@pytest.mark.parametrize("fields", [[], [("traceparent", f"00-{TRACE}-{SPAN}-00")], [("traceparent", "00-\n-x-01")]])
def test_traces_that_nobody_records_are_no_exemplars(fields) -> None:
    metrics = Metrics("0")
    one = exchange()
    one.head = RequestHead("GET", Target("/"), Fields(fields))
    record(metrics, one)
    assert not [s for f in metrics.registry.collect() for s in f.samples if s.exemplar is not None]


# -- the loop


async def test_a_held_loop_is_late() -> None:
    seen: list[float] = []
    told = asyncio.Event()

    def observe(lag: float) -> None:
        seen.append(lag)
        told.set()

    lag = LoopLag(observe)
    lag.start()
    loop = asyncio.get_running_loop()
    until = loop.time() + 0.4
    while loop.time() < until:  # what a handler that computes does to everybody else
        pass
    async with asyncio.timeout(10):
        await told.wait()
    lag.stop()
    lag.stop()
    assert seen[0] > 0.1
