"""Two gateways before one controller, sharing a real store."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

from gateway.app import Gateway
from gateway.settings import parse
from tests.conftest import SECRET, bearer
from tests.shared.servers import eventually

KEY = "the-key-of-all-gateways-of-these-tests"
APP = "1cb006ee-fb05-47e1-b541-c34179ddc446"


@dataclass
class Controller:
    """Has one app with a name, and counts who asks."""

    url: str = ""
    name: str = "0"
    reads: int = 0
    failing: bool = False
    space: bool = False
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    async def read(self, _: web.Request) -> web.Response:
        self.reads += 1
        if self.failing:
            return web.json_response({"errors": []}, status=503)
        name = self.name
        await self.gate.wait()
        return web.json_response({"resources": [{"guid": APP, "name": name}]})

    async def read_space(self, _: web.Request) -> web.Response:
        self.reads += 1
        if self.space:
            return web.json_response({"guid": APP})
        absent = {"detail": "Space not found", "title": "CF-ResourceNotFound", "code": 10010}
        return web.json_response({"errors": [absent]}, status=404)

    async def create_space(self, _: web.Request) -> web.Response:
        self.space = True
        return web.json_response({"guid": APP}, status=201)

    async def healthy(self, _: web.Request) -> web.Response:
        return web.Response()

    async def write(self, request: web.Request) -> web.Response:
        self.name = (await request.json())["name"]
        return web.json_response({"guid": APP, "name": self.name})


@asynccontextmanager
async def controller() -> AsyncIterator[Controller]:
    one = Controller()
    application = web.Application()
    application.router.add_get("/v3/apps", one.read)
    application.router.add_patch(f"/v3/apps/{APP}", one.write)
    application.router.add_get("/v3/spaces/{guid}", one.read_space)
    application.router.add_post("/v3/spaces", one.create_space)
    application.router.add_get("/healthz", one.healthy)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    one.url = f"http://{host}:{port}"
    try:
        yield one
    finally:
        await runner.cleanup()


class Site:
    """Gateways that share a store, and a client."""

    def __init__(self, controller: Controller, gateways: list[Gateway], http: aiohttp.ClientSession) -> None:
        self.controller, self.gateways, self.http = controller, gateways, http
        self.headers = bearer(scope=["cloud_controller.admin"])

    async def read(self, number: int, *, path: str = "/v3/apps", **fields: str) -> tuple[str, str]:
        """The app's name as a gateway tells it, and what it says of its cache."""
        url = f"{self.gateways[number].url}{path}"
        async with self.http.get(url, headers={**self.headers, **fields}) as response:
            body = await response.read()
            assert response.status == 200, body
            return json.loads(body)["resources"][0]["name"], response.headers["Cache-Status"]

    async def write(self, number: int, name: str) -> None:
        url = f"{self.gateways[number].url}/v3/apps/{APP}"
        async with self.http.patch(url, headers=self.headers, json={"name": name}) as response:
            assert response.status == 200, await response.read()

    async def in_touch(self) -> None:
        await eventually(lambda: all(one.sharing.invalidations.in_touch() for one in self.gateways))


def settings(upstream: str, store: str, extra: str = "") -> str:
    return f"""
listen: {{port: 0}}
admin: {{port: 0}}
public_url: https://gateway.example.org
drain: 1s
upstream: {{url: {upstream}, advertised_urls: ["https://api.internal.example.org"]}}
auth: {{keys: [{{secret: {SECRET}}}]}}
routes:
- {{match: GET /v3/apps, cache: {{mode: policy, ttl: 1h, stale_if_error: 1h, share: global}}}}
- {{match: "GET /v3/spaces/:guid", cache: {{mode: policy, ttl: 1h, negative_ttl: 1h, share: principal}}}}
shared_store:
  {store}
  hmac_key: {KEY}
{extra}
"""


@asynccontextmanager
async def site(store: str, *others: str, count: int = 2, extra: str = "") -> AsyncIterator[Site]:
    """Gateways that share a store.

    Args:
        store: lines of the section `shared_store`, less the key.
        others: those of further gateways, where they are not the same.
        count: how many gateways, if so.
        extra: further sections.
    """
    async with controller() as one, aiohttp.ClientSession(auto_decompress=False) as http:
        sections = [store, *others] if others else [store] * count
        gateways = [Gateway(parse(settings(one.url, section, extra), {})) for section in sections]
        started: list[Gateway] = []
        try:
            for gateway in gateways:
                await gateway.start()
                started.append(gateway)
            yield Site(one, gateways, http)
        finally:
            for gateway in started:
                await gateway.stop()
