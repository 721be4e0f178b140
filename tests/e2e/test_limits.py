"""Rate limits over real sockets: the recorded controller's limiter against the gateway's, request by request."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.core.structured import parse_list
from tests.conftest import StartGateway, Stub, bearer

RECORDED = Path(__file__).parents[2] / "../shared/recordings/ratelimit.jsonl"
PAGE = b'{"pagination":{},"resources":[]}'

# The recorded limiter, but for the length of its window: a test must not cross into the next one.
CONTROLLER = """
trusted_proxies: [127.0.0.0/8]
rate_limits:
  policies:
    - name: users
      who: principal
      limit: 5
      window: 31d
      algorithm: fixed_window
      exempt_scopes_any: [cloud_controller.admin, cloud_controller.admin_read_only]
    - name: anonymous
      who: anonymous
      limit: 3
      window: 31d
      algorithm: fixed_window
"""

# Where the gateway is meant to differ, and why.
DIFFERENT = {
    "user-14": "/v3/ is the same page as /v3 here",
    "basic": "an exemption that any client can claim is none",
    "anonymous-15": "likewise",
    "forwarded-07": "envoy#16399: the left of X-Forwarded-For is hearsay",
    "forwarded-08": "likewise",
    "forwarded-09": "likewise: the peer is counted",
    "after-reset": "needs the next window",
}


def rows() -> list[dict[str, Any]]:
    if not RECORDED.exists():
        pytest.skip("recordings not beside the checkout")
    found = [json.loads(line) for line in RECORDED.read_text().splitlines()]
    return [row for row in found if not row["name"].startswith(tuple(DIFFERENT))]


def authorization(principal: str) -> dict[str, str]:
    world = json.loads((RECORDED.parent / "world.json").read_text())["principals"]
    if principal == "anonymous":
        return {}
    if principal == "garbage":
        return {"Authorization": "bearer garbage"}
    if principal in {"expired", "wrong_signature"}:
        return bearer(exp=1)
    claims = world[principal].get("claims", world[principal])
    wanted = {name: claims[name] for name in ("user_id", "client_id", "scope", "aud") if name in claims}
    given = bearer(**wanted) if "user_id" in claims else bearer(**wanted, user_id=None)
    assert given
    return given


def limits(headers: Any) -> dict[str, str]:
    return {name: headers[name] for name in ("X-RateLimit-Limit", "X-RateLimit-Remaining") if name in headers}


async def test_every_recorded_exchange_has_its_status_body_and_fields(
    stub: Stub, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    stub.answers_json(PAGE)
    gateway = await start_gateway(stub.url, CONTROLLER)
    seen = 0
    for row in rows():
        request, expected = row["request"], row["response"]
        recorded = dict(expected["headers"])
        sent = {name: value for name, value in request["headers"] if name in {"X-Forwarded-For", "X-Real-IP", "Origin"}}
        sent |= authorization(row["principal"])
        body = request["body"]
        async with http.request(request["method"], gateway.url + request["target"], headers=sent, data=body) as answer:
            content = await answer.read()
        told = f"{row['name']}: {answer.status} {dict(answer.headers)}"
        assert (answer.status == 429) is (expected["status"] == 429), told
        if expected["status"] in {401, 403}:
            assert answer.status == expected["status"], told
        assert limits(answer.headers) == limits(recorded), told
        names = {"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "Retry-After"}
        assert {name for name in answer.headers if name in names} == names & set(recorded), told
        if expected["status"] == 429:
            assert answer.headers["Content-Type"] == recorded["Content-Type"]
            wait = int(answer.headers["X-RateLimit-Reset"]) - int(answer.headers["Retry-After"])
            assert 1_500_000_000 < wait < 4_000_000_000
            if request["target"].startswith(("/v2/", "/v3/")):
                assert content.decode() == expected["body"], told
        if expected["status"] == 401:
            assert json.loads(content) == json.loads(expected["body"])
        seen += 1
    assert seen > 80


async def test_what_the_limit_refuses_never_reaches_the_controller(
    stub: Stub, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    limit = "rate_limits: {policies: [{name: users, who: principal, limit: 2, window: 1h}]}"
    gateway = await start_gateway(stub.url, limit)
    statuses = []
    for number in range(4):
        async with http.get(f"{gateway.url}/v3/apps/{number}", headers=bearer()) as answer:
            statuses.append(answer.status)
    assert statuses == [200, 200, 429, 429]
    assert len([one for one in stub.received if "/v3/apps/" in one.line]) == 2


async def test_miss_hit_304_forwarded_and_failed_answers_all_carry_the_fields(
    stub: Stub, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    stub.answers_json(PAGE)
    gateway = await start_gateway(
        stub.url, "rate_limits: {policies: [{name: users, who: principal, limit: 100, window: 1h}]}"
    )
    url = f"{gateway.url}/v3/processes"
    remaining = []

    async def ask(method: str, target: str, **fields: str) -> aiohttp.ClientResponse:
        async with http.request(method, target, headers={**bearer(), **fields}) as answer:
            await answer.read()
        (state,) = parse_list(answer.headers.getall("RateLimit"))
        (policy,) = parse_list(answer.headers.getall("RateLimit-Policy"))
        assert policy.parameters == {"q": 100, "w": 3600}
        assert state.parameters["r"] == int(answer.headers["X-RateLimit-Remaining"])
        remaining.append(int(answer.headers["X-RateLimit-Remaining"]))
        return answer

    miss = await ask("GET", url)
    hit = await ask("GET", url)
    assert "hit" in hit.headers["Cache-Status"]
    assert (await ask("GET", url, **{"If-None-Match": miss.headers["ETag"]})).status == 304
    assert (await ask("GET", f"{gateway.url}/v3/apps/x")).status == 200
    assert (await ask("POST", f"{gateway.url}/v3/apps")).status == 200
    stub.answers(b"nonsense\r\n\r\n")
    assert (await ask("GET", f"{gateway.url}/v3/apps/y")).status == 502
    assert remaining == [99, 98, 97, 96, 95, 94]


async def test_shadow_lets_everything_pass_and_counts(
    stub: Stub, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    trial = "rate_limits: {policies: [{name: trial, who: principal, limit: 2, window: 1h, mode: shadow}]}"
    gateway = await start_gateway(stub.url, trial)
    for _ in range(5):
        async with http.get(f"{gateway.url}/v3/apps/x", headers=bearer()) as answer:
            assert answer.status == 200
            assert not [name for name in answer.headers if "ratelimit" in name.lower()]
    async with http.get(f"{gateway.admin_url}/metrics") as answer:
        text = await answer.text()
    counted = dict(
        re.findall(
            r'^gateway_ratelimit_decisions_total\{decision="(\w+)",.*policy="trial"\} (\S+)$', text, re.MULTILINE
        )
    )
    assert counted == {"allowed": "2.0", "limited": "3.0"}


async def test_a_guessing_address_is_refused_and_its_known_user_is_not(
    stub: Stub, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    gateway = await start_gateway(stub.url, "rate_limits: {failed_authentications: {limit: 3, window: 1h}}")
    good = bearer()

    async def ask(headers: dict[str, str], target: str = "/v3/apps/x") -> tuple[int, Any]:
        async with http.get(gateway.url + target, headers=headers) as answer:
            return answer.status, await answer.json(content_type=None)

    assert (await ask(good))[0] == 200
    assert [(await ask(bearer(aud=[str(number)])))[0] for number in range(3)] == [401, 401, 401]
    verified = dict(gateway.identity.verify.__self__.results)
    status, body = await ask(bearer(aud=["another"]))
    assert (status, body["errors"][0]["code"]) == (429, 10014)
    assert gateway.identity.verify.__self__.results == verified, "no signature was looked at"
    assert (await ask(good))[0] == 200
    assert (await ask(bearer(aud=["another"]), "/"))[0] == 200


async def test_the_controllers_own_budget_is_kept_from_clients_and_pages(
    stub: Stub, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    own = ("X-RateLimit-Limit: 2000", "X-RateLimit-Remaining: 1999", "X-RateLimit-Reset: 1", 'RateLimit: "cc";r=1;t=1')
    stub.answers_json(PAGE, *own)
    gateway = await start_gateway(stub.url)
    for target in ("/v3/processes", "/v3/processes", "/v3/apps/x", "/v3/apps/x/env"):
        async with http.get(gateway.url + target, headers=bearer()) as answer:
            await answer.read()
            assert not [name for name in answer.headers if "ratelimit" in name.lower()], target


async def test_a_429_of_the_controller_passes_with_its_retry_after(
    stub: Stub, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    body = b'{"errors":[{"detail":"Rate Limit Exceeded","title":"CF-RateLimitExceeded","code":10013}]}'
    stub.answers_json(body, "Retry-After: 17", "X-RateLimit-Limit: 5", status="429 Too Many Requests")
    gateway = await start_gateway(
        stub.url, "rate_limits: {policies: [{name: users, who: principal, limit: 100, window: 1h}]}"
    )
    for target in ("/v3/processes", "/v3/apps/x"):
        async with http.get(gateway.url + target, headers=bearer()) as answer:
            assert (answer.status, await answer.read()) == (429, body)
            assert answer.headers.getall("Retry-After") == ["17"]
            assert answer.headers.getall("X-RateLimit-Limit") == ["100"], "ours alone"
