"""Explaining one answer: by its request id on the admin listener, or in a field for who may ask."""

from __future__ import annotations

import json

import aiohttp
import pytest

from gateway.core.structured import parse_dictionary
from gateway.pipeline.decision import Decision
from tests.conftest import Stub, bearer

ADMIN = {"scope": ["cloud_controller.admin"]}
DEBUG = "debug: {scopes_any: [cloud_controller.admin], recent: 3}"


async def asked(http: aiohttp.ClientSession, gateway, path: str, headers: dict[str, str]) -> aiohttp.ClientResponse:
    async with http.get(f"{gateway.url}{path}", headers=headers) as response:
        await response.read()
        return response


async def decisions(http: aiohttp.ClientSession, gateway, query: str = "") -> list[dict]:
    async with http.get(f"{gateway.admin_url}/-/decisions{query}") as response:
        assert response.status == 200
        return json.loads(await response.read())["decisions"]


async def test_a_refusal_is_found_by_its_request_id(stub: Stub, start_gateway, http: aiohttp.ClientSession) -> None:
    gateway = await start_gateway(stub.url)
    response = await asked(http, gateway, "/v3/processes?page=2&per_page=7", bearer(scope=["openid"]))
    (told,) = await decisions(http, gateway, f"?request_id={response.headers['X-VCAP-Request-ID']}")
    assert told["denied"] == "insufficient-scope"
    assert told["route"] == "/v3/processes"
    assert told["scopes_present"] == ["openid"]
    assert "cloud_controller.read" in told["scopes_required"]
    assert told["query"] == ["page", "per_page"]
    assert told["status"] == 403


async def test_a_hit_and_a_miss_are_told_apart(stub: Stub, start_gateway, http: aiohttp.ClientSession) -> None:
    stub.answers_json(b'{"pagination":{"next":null},"resources":[]}')
    gateway = await start_gateway(stub.url)
    for _ in range(2):
        await asked(http, gateway, "/v3/processes", {**bearer(), "X-Vcap-Request-Id": "mine"})
    hit, miss = await decisions(http, gateway, "?request_id=mine::of-the-controller")
    assert (hit["cache"], miss["cache"]) == ("hit", "miss")
    assert (hit["domain"], miss["stored"]) == ("principal", True)
    assert "upstream_ms" in miss
    assert "upstream_ms" not in hit


async def test_nothing_secret_is_kept(stub: Stub, start_gateway, http: aiohttp.ClientSession) -> None:
    gateway = await start_gateway(stub.url)
    headers = {**bearer(), "Cookie": "canary-cookie"}
    await asked(http, gateway, "/v3/apps?names=canary-value", headers)
    text = json.dumps(await decisions(http, gateway))
    assert "canary" not in text
    assert headers["Authorization"].split(".")[-1] not in text
    assert "uaa-id-432" not in text, "who it was is not the operator's first question"


async def test_only_the_last_are_kept_and_filters_choose(
    stub: Stub, start_gateway, http: aiohttp.ClientSession
) -> None:
    gateway = await start_gateway(stub.url, DEBUG)
    for path in ("/v3/apps", "/v3/spaces", "/v3/processes", "/v3/roles"):
        await asked(http, gateway, path, {})
    assert [one["path"] for one in await decisions(http, gateway)] == ["/v3/roles", "/v3/processes", "/v3/spaces"]
    assert [one["path"] for one in await decisions(http, gateway, "?route=/v3/spaces&denied=no-token")] == [
        "/v3/spaces"
    ]
    assert len(await decisions(http, gateway, "?status=401&limit=2")) == 2
    assert await decisions(http, gateway, "?cache=hit") == []


@pytest.mark.parametrize("query", ["?limit=0", "?limit=x", "?limit=1001", "?limit=²", "?user=me"])
async def test_other_questions_are_refused(stub: Stub, start_gateway, http: aiohttp.ClientSession, query: str) -> None:
    gateway = await start_gateway(stub.url)
    async with http.get(f"{gateway.admin_url}/-/decisions{query}") as response:
        assert response.status == 400
        assert "expected request_id" in (await response.json())["error"]


@pytest.mark.parametrize(
    ("settings", "claims", "header", "told"),
    [
        pytest.param(DEBUG, ADMIN, "1", True, id="who may"),
        pytest.param(DEBUG, {}, "1", False, id="another scope"),
        pytest.param("", ADMIN, "1", False, id="nobody may"),
        pytest.param(DEBUG, ADMIN, "0", False, id="not asked"),
    ],
)
async def test_the_field_is_for_who_may_ask(
    stub: Stub, start_gateway, http: aiohttp.ClientSession, settings: str, claims: dict, header: str, told: bool
) -> None:
    stub.answers_json(b'{"pagination":{"next":null},"resources":[]}')
    gateway = await start_gateway(stub.url, settings)
    headers = {**bearer(**claims), "Gateway-Debug": header}
    for verdict in ("miss", "hit"):
        response = await asked(http, gateway, "/v3/processes", headers)
        assert ("Gateway-Debug" in response.headers) is told
        if told:
            field = parse_dictionary([response.headers["Gateway-Debug"]])
            assert field["cache"].value == verdict
            assert field["domain"].value == "global"
            assert field["status"].value == 200
    plain = await asked(http, gateway, "/v3/processes", bearer(**claims))
    assert "Gateway-Debug" not in plain.headers, "it is no part of the stored page"


async def test_a_refusal_tells_it_too(stub: Stub, start_gateway, http: aiohttp.ClientSession) -> None:
    gateway = await start_gateway(stub.url, DEBUG)
    response = await asked(http, gateway, "/internal/v4/x", {**bearer(**ADMIN), "Gateway-Debug": "1"})
    assert response.status == 403
    assert "Gateway-Debug" not in response.headers, "denied before anybody was known"
    response = await asked(http, gateway, "/v3/apps/x/env", {**bearer(**ADMIN), "Gateway-Debug": "1"})
    assert parse_dictionary([response.headers["Gateway-Debug"]])["bypass"].value == "route"


def test_every_part_of_a_decision_is_explained() -> None:
    assert Decision.__doc__ is not None
    assert all(f"        {name}: " in Decision.__doc__ for name in Decision._fields)
