"""Logging in, refreshing, rotating keys and losing the UAA, as real clients live through it before a gateway."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import aiohttp
import pytest
from cloudfoundry_client.client import CloudFoundryClient
from cloudfoundry_client.errors import InvalidStatusCode
from oauth2_client.credentials_manager import OAuthError

from gateway.app import Gateway
from gateway.sandbox.controller import Controller
from gateway.sandbox.people import METRICS_COLLECTOR, OPS_AUTOMATION, person
from gateway.sandbox.uaa import Uaa
from gateway.sandbox.world import World
from gateway.settings import parse

SETTINGS = """
listen: {{host: 127.0.0.1, port: {port}}}
admin: {{port: 0}}
public_url: http://127.0.0.1:{port}
drain: 1s
upstream: {{url: {controller}}}
auth:
  issuer: {uaa}/oauth/token
  keys: [{{url: {uaa}/token_keys}}]
"""
PROCESSES = 12


@dataclass
class Site:
    """A gateway before a controller, and the UAA that both trust."""

    uaa: Uaa
    gateway: Gateway

    def client(self, client_id: str = "cf", secret: str = "") -> CloudFoundryClient:
        return CloudFoundryClient(self.gateway.url, client_id, secret)

    def logged_in(self, name: str) -> CloudFoundryClient:
        client = self.client()
        client.init_with_user_credentials(name, name)
        return client


def count(client: CloudFoundryClient) -> int:
    return len(list(client.v3.processes.list(per_page=5)))


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    uaa = Uaa()
    await uaa.start()
    controller = Controller(world=World.seeded(PROCESSES), uaa_url=uaa.url, verify=uaa.verify)
    upstream = await controller.start()
    with socket.create_server(("127.0.0.1", 0)) as probe:  # the public URL names the port, so it must be known before
        port = probe.getsockname()[1]
    gateway = Gateway(parse(SETTINGS.format(port=port, controller=upstream, uaa=uaa.url), {}))
    await gateway.start()
    yield Site(uaa, gateway)
    await gateway.stop()
    await controller.stop()
    await uaa.stop()


async def blocking(work: Callable[..., Any], *arguments: Any) -> Any:
    """The client blocks, and all it talks to lives in this loop."""
    return await asyncio.to_thread(work, *arguments)


async def test_login_by_password(site: Site) -> None:
    assert await blocking(lambda: count(site.logged_in("admin"))) == PROCESSES
    assert await blocking(lambda: count(site.logged_in("no_roles"))) == 0


async def test_a_wrong_password_is_told(site: Site) -> None:
    with pytest.raises(OAuthError) as caught:
        await blocking(lambda: site.client().init_with_user_credentials("admin", "wrong"))
    assert (caught.value.status_code, caught.value.error) == (HTTPStatus.UNAUTHORIZED, "unauthorized")


@pytest.mark.parametrize(("who", "sees_all"), [(METRICS_COLLECTOR, False), (OPS_AUTOMATION, True)])
async def test_client_credentials(site: Site, who: Any, sees_all: bool) -> None:
    def walk() -> int:
        client = site.client(who.client_id, who.secret)
        client.init_with_client_credentials()
        return count(client)

    assert (await blocking(walk) == PROCESSES) is sees_all


async def test_controller_md_5_an_expired_token_makes_the_client_refresh(site: Site) -> None:
    """It refreshes on 401 with code 1000 alone: the gateway's own refusal must be in exactly those words."""
    site.uaa.lifetime = -60
    client = await blocking(site.logged_in, "admin")
    expired = client._access_token
    site.uaa.lifetime = 600
    assert await blocking(count, client) == PROCESSES
    assert client._access_token != expired


async def test_a_token_without_the_scope_makes_no_client_refresh(site: Site) -> None:
    client = await blocking(site.logged_in, "openid_only")
    before = client._access_token
    with pytest.raises(InvalidStatusCode) as caught:
        await blocking(count, client)
    assert caught.value.status_code == HTTPStatus.FORBIDDEN
    assert client._access_token == before


async def statuses(site: Site, http: aiohttp.ClientSession, *tokens: str) -> list[int]:
    async def ask(token: str) -> int:
        url = f"{site.gateway.url}/v3/processes?per_page=2"
        async with http.get(url, headers={"Authorization": f"bearer {token}"}) as response:
            return response.status

    return list(await asyncio.gather(*(ask(token) for token in tokens)))


async def test_tyk_6378_rotation_loses_no_request(site: Site, http: aiohttp.ClientSession) -> None:
    people = ("admin", "space_developer", "org_manager")
    old = [site.uaa.mint(person(name)) for name in people]
    assert await statuses(site, http, *old) == [200] * 3
    site.uaa.rotate()
    new = [site.uaa.mint(person(name)) for name in people]
    fetched = site.uaa.token_keys_requests
    assert await statuses(site, http, *new, *old, *new) == [200] * 9
    assert site.uaa.token_keys_requests == fetched + 1, "one fetch for all who wait"


async def test_envoy_13705_uaa_down_is_nobodys_bad_token(site: Site, http: aiohttp.ClientSession) -> None:
    known = site.uaa.mint(person("space_developer"))
    site.uaa.rotate()
    new = site.uaa.mint(person("space_developer"))
    site.uaa.down = True
    assert await statuses(site, http, known, new, known) == [200, 502, 200]


async def test_go_oidc_482_a_storm_of_bogus_kids_is_one_fetch(site: Site, http: aiohttp.ClientSession) -> None:
    stranger = Uaa()
    stranger.url = site.uaa.url
    forged = []
    for number in range(2, 6):
        stranger.rotate()
        forged += [stranger.mint(person("admin"), jti=f"{number}-{again}") for again in range(10)]
    fetched = site.uaa.token_keys_requests
    assert set(await statuses(site, http, *forged)) == {401}
    assert site.uaa.token_keys_requests == fetched + 1


async def test_a_forged_token_under_a_known_kid_makes_no_fetch(site: Site, http: aiohttp.ClientSession) -> None:
    stranger = Uaa()
    stranger.url = site.uaa.url
    fetched = site.uaa.token_keys_requests
    assert await statuses(site, http, stranger.mint(person("admin"))) == [401]
    assert site.uaa.token_keys_requests == fetched
