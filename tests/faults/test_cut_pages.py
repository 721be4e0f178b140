"""A controller whose Content-Length is too small: a page it cuts looks complete, and must be neither kept nor shown."""

from __future__ import annotations

import json

import aiohttp
import pytest

from tests.conftest import bearer

PAGE = b'{"pagination":{"total_results":1},"resources":[{"guid":"1","links":{}}]}'


async def get(http: aiohttp.ClientSession, url: str) -> tuple[int, bytes, str]:
    async with http.get(url, headers=bearer()) as response:
        return response.status, await response.read(), response.headers.get("Cache-Status", "")


@pytest.mark.parametrize("cut", [1, 20, len(PAGE) - 1], ids=["a byte", "twenty", "all but one"])
async def test_a_cut_page_is_an_error_and_is_not_kept(stub, start_gateway, http, cut: int) -> None:
    gateway = await start_gateway(stub.url)
    url = f"{gateway.url}/v3/processes"
    stub.answers_json(PAGE[:-cut])
    status, body, _ = await get(http, url)
    assert status == 502
    assert json.loads(body)["errors"]
    stub.answers_json(PAGE)
    assert (await get(http, url))[:2] == (200, PAGE)
    assert ";hit" in (await get(http, url))[2]


async def test_the_stored_page_stands_in_for_a_cut_one(stub, start_gateway, http) -> None:
    gateway = await start_gateway(
        stub.url,
        "routes: [{match: GET /v3/processes, cache: {mode: policy, ttl: 1ms, stale_if_error: 60s, share: principal}}]",
    )
    url = f"{gateway.url}/v3/processes"
    stub.answers_json(PAGE)
    assert (await get(http, url))[:2] == (200, PAGE)
    stub.answers_json(PAGE[:-5])
    said = ";hit"
    while ";hit" in said:  # for a millisecond
        status, body, said = await get(http, url)
        assert (status, body) == (200, PAGE)
    assert "stale-if-error: broken" in said
