"""The status page: its numbers, what it may do in a browser, and how it looks in one."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from pathlib import Path

import aiohttp
import pytest

from gateway.app import Gateway
from gateway.live.recent import Recent
from tests.conftest import Stub, bearer


@pytest.fixture
async def busy(start_gateway, stub: Stub) -> Gateway:
    stub.answers_json(b'{"pagination":{"next":null},"resources":[]}')
    return await start_gateway(stub.url)


async def traffic(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    for headers in [bearer()] * 4 + [{}] * 2:
        async with http.get(f"{gateway.url}/v3/processes", headers=headers) as response:
            await response.read()


async def status(gateway: Gateway, http: aiohttp.ClientSession) -> dict:
    async with http.get(f"{gateway.admin_url}/-/status.json") as response:
        assert response.status == 200
        return json.loads(await response.read())


async def test_the_page_allows_only_its_own_script(busy: Gateway, http: aiohttp.ClientSession) -> None:
    async with http.get(busy.admin_url) as response:
        page = await response.text()
        policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "://" not in page.replace("http://www.w3.org/2000/svg", ""), "no external assets"
    assert page.count("<script>") == page.count("<style>") == 1
    assert " style=" not in page, "the policy forbids style attributes"


async def test_the_first_look_has_no_interval_and_the_next_has(busy: Gateway, http: aiohttp.ClientSession) -> None:
    assert (await status(busy, http))["summary"] is None
    await traffic(busy, http)
    await asyncio.sleep(1.05)  # the shortest interval
    found = await status(busy, http)
    assert found["summary"]["verdicts"].keys() == {"hit", "miss", "none"}
    assert found["summary"]["hit_ratio"] == pytest.approx(0.75)
    assert len(found["history"]) == 1


def test_many_who_look_do_not_shorten_the_interval() -> None:
    now, made = [0.0], []

    def exposition() -> str:
        made.append(now[0])
        return "gateway_requests_in_flight 1\n"

    recent = Recent(exposition, clock=lambda: now[0])
    for step in range(40):
        now[0] = step / 10
        recent.status()
    assert made == [0.0, 1.0, 2.0, 3.0]
    for step in range(1000):
        now[0] = 10.0 + 2 * step
        recent.status()
    assert len(recent.status()["history"]) == 300


@pytest.mark.debian
async def test_a_browser_shows_it(busy: Gateway, http: aiohttp.ClientSession, tmp_path: Path) -> None:
    """What the script made of the numbers is in the document, under the page's own policy."""
    chromium = shutil.which("chromium")
    assert chromium is not None, "needs Debian's chromium"
    await status(busy, http)
    await traffic(busy, http)
    await asyncio.sleep(1.05)  # the shortest interval: the browser's first look ends it
    document = await asyncio.to_thread(_document, chromium, busy.admin_url, tmp_path)
    assert '<span id="ready" class="good">ready</span>' in document
    assert "<small>hit ratio</small>" in document
    assert "<td>/v3/processes</td>" in document
    assert "<td>no-token</td>" in document
    assert "<th>domains with pages</th><th>now</th>" in document
    assert '<p class="bad" id="waiting" hidden="">' in document
    assert document.count("<polyline") == 3


def _document(chromium: str, url: str, folder: Path) -> str:
    command = [
        chromium,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={folder}",
        "--virtual-time-budget=1000",
        "--window-size=1100,900",
    ]
    done = subprocess.run([*command, "--dump-dom", url], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout
