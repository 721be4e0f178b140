"""Writes through the gateway to the sandbox: everybody's next list shows the new state, though pages live an hour."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import jwt
import pytest

from gateway.sandbox.controller import Controller
from gateway.sandbox.faults import Break, Fault
from gateway.sandbox.people import METRICS_COLLECTOR, OPS_AUTOMATION, PEOPLE, person
from gateway.sandbox.tokens import hmac_checker
from gateway.sandbox.world import App, Process, Space, World

SECRET = "a-secret-that-is-long-enough-for-hs256-and-its-tests"  # the gateway's, as tests/conftest.py starts it
ORIGIN, PUBLIC = b"https://api.internal.example.org", b"https://gateway.example.org"
LISTS = ("/v3/processes", "/v3/apps", "/v3/spaces", "/v3/organizations")
TTL = "\n".join(
    ["routes:"]
    + [f"- {{match: GET {path}, cache: {{mode: policy, ttl: 1h, share: global}}}}" for path in LISTS]
    + ["- {match: GET /v3/apps/:guid/processes, cache: {mode: policy, ttl: 1h, share: principal}}"]
)


def tokens() -> dict[str, str]:
    """A token of everybody who may read lists."""
    claims = {who.username: {"user_id": who.user_guid, "scope": list(who.scopes)} for who in PEOPLE}
    claims |= {who.client_id: {"client_id": who.client_id, "scope": list(who.scopes)} for who in (METRICS_COLLECTOR,)}
    claims |= {OPS_AUTOMATION.client_id: {"client_id": OPS_AUTOMATION.client_id, "scope": list(OPS_AUTOMATION.scopes)}}
    del claims["openid_only"]
    common = {"aud": ["cloud_controller"], "exp": int(time.time()) + 600, "jti": "one"}
    return {who: jwt.encode(common | mine, SECRET, "HS256") for who, mine in claims.items()}


class Site:
    """A gateway before a sandbox, and clients that ask the one or the other."""

    def __init__(self, controller: Controller, direct: str, gateway: str, http: aiohttp.ClientSession) -> None:
        self.controller, self.direct, self.gateway, self.http = controller, direct, gateway, http
        self.world = controller.world
        self.tokens = tokens()
        self.app = next(
            app
            for app in self.world.apps.values()
            if path_of(app.space) == "acme/dev" and app.state == "STARTED" and len(self.world.processes_of(app)) == 1
        )
        self.process = self.world.processes[self.app.guid]
        self.reads = [f"{path}?per_page=5000" for path in LISTS] + [f"/v3/apps/{self.app.guid}/processes"]

    async def ask(
        self, who: str, method: str, path: str, body: Any = None, *, base: str | None = None, kind: str = ""
    ) -> tuple[int, bytes, Any]:
        headers = {"Authorization": f"bearer {self.tokens[who]}"}
        data = None
        if body is not None:
            data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            headers["Content-Type"] = kind or "application/json"
        url = f"{base or self.gateway}{path}"
        async with self.http.request(method, url, headers=headers, data=data) as response:
            return response.status, await response.read(), response.headers

    async def write(self, who: str, method: str, path: str, body: Any = None, *, kind: str = "") -> Any:
        status, answer, headers = await self.ask(who, method, path, body, kind=kind)
        assert 200 <= status < 300, answer
        return headers

    async def write_and_finish(self, who: str, method: str, path: str, body: Any = None, *, kind: str = "") -> None:
        """A write whose work a job does: poll the job as clients do, through the gateway, until it is over."""
        location = (await self.write(who, method, path, body, kind=kind))["Location"]
        assert location.startswith(PUBLIC.decode())
        job = location.removeprefix(PUBLIC.decode())
        assert b'"PROCESSING"' in (await self.ask(who, "GET", job))[1]
        await self.everybody_sees_the_truth()
        self.controller.complete_jobs()
        assert b'"COMPLETE"' in (await self.ask(who, "GET", job))[1]

    async def truth(self) -> dict[tuple[str, str], bytes]:
        """What the controller itself answers to everybody."""
        answers = {}
        for who in self.tokens:
            for path in self.reads:
                status, body, _ = await self.ask(who, "GET", path, base=self.direct)
                answers[who, path] = b"%d " % status + body
        return answers

    async def seen(self, who: str, path: str) -> tuple[bytes, bool]:
        status, body, headers = await self.ask(who, "GET", path)
        return b"%d " % status + body.replace(PUBLIC, ORIGIN), ";hit" in headers["Cache-Status"]

    async def everybody_sees_the_truth(self) -> None:
        for (who, path), expected in (await self.truth()).items():
            assert (await self.seen(who, path))[0] == expected, f"{who} sees another {path}"

    async def warm(self) -> None:
        """Put everybody's pages into the cache."""
        await self.everybody_sees_the_truth()
        for who in self.tokens:
            assert (await self.seen(who, self.reads[0]))[1], f"{who}'s list is not cached"


def path_of(space: Space) -> str:
    return f"{space.organization.name}/{space.name}"


@pytest.fixture
async def site(start_gateway, http) -> AsyncIterator[Site]:
    controller = Controller(world=World.seeded(60), verify=hmac_checker(SECRET.encode()), job_delay=None)
    direct = await controller.start()
    gateway = await start_gateway(direct, TTL)
    yield Site(controller, direct, gateway.url, http)
    await controller.stop()


def related(**guids: str) -> dict[str, Any]:
    return {"relationships": {name: {"data": {"guid": guid}} for name, guid in guids.items()}}


def space_of(site: Site, path: str) -> Space:
    return next(space for space in site.world.spaces.values() if path_of(space) == path)


def two_types(site: Site, app: App) -> str:
    return site.world.add_droplet(app, {"web": "./web", "worker": "./worker"}, time.time()).guid


def role_of(site: Site, who: str, kind: str) -> str:
    return next(role.guid for role in site.world.roles_of(person(who).user_guid) if role.type == kind)


async def scale(site: Site) -> None:
    await site.write("space_developer", "POST", f"/v3/processes/{site.process.guid}/actions/scale", {"instances": 17})


async def scale_by_type(site: Site) -> None:
    path = f"/v3/apps/{site.app.guid}/processes/web/actions/scale"
    await site.write("space_supporter", "POST", path, {"memory_in_mb": 333})


async def patch(site: Site) -> None:
    change = {"metadata": {"annotations": {"note": "changed"}}}
    await site.write("space_developer", "PATCH", f"/v3/processes/{site.process.guid}", change)


async def patch_by_type(site: Site) -> None:
    path = f"/v3/apps/{site.app.guid}/processes/web"
    await site.write("admin", "PATCH", path, {"metadata": {"labels": {"a": "b"}}})


async def create_app(site: Site) -> None:
    space = related(space=site.app.space.guid)
    await site.write("space_developer", "POST", "/v3/apps", {"name": "brand-new", **space})


async def rename_app(site: Site) -> None:
    await site.write("space_developer", "PATCH", f"/v3/apps/{site.app.guid}", {"name": "renamed"})


async def stop_app(site: Site) -> None:
    await site.write("space_developer", "POST", f"/v3/apps/{site.app.guid}/actions/stop")


async def start_app(site: Site) -> None:
    await site.write("space_developer", "POST", f"/v3/apps/{site.app.guid}/actions/start")


async def restart_app(site: Site) -> None:
    await site.write("ops-automation", "POST", f"/v3/apps/{site.app.guid}/actions/restart")


async def delete_app(site: Site) -> None:
    await site.write_and_finish("space_developer", "DELETE", f"/v3/apps/{site.app.guid}")


async def assign_droplet(site: Site) -> None:
    path = f"/v3/apps/{site.app.guid}/relationships/current_droplet"
    await site.write("space_developer", "PATCH", path, {"data": {"guid": two_types(site, site.app)}})


async def deploy(site: Site) -> None:
    await site.write("space_developer", "POST", "/v3/deployments", related(app=site.app.guid))


async def apply_manifest(site: Site) -> None:
    manifest = f"applications:\n- name: {site.app.name}\n  instances: 19\n"
    path = f"/v3/spaces/{site.app.space.guid}/actions/apply_manifest"
    await site.write_and_finish("space_developer", "POST", path, manifest, kind="application/x-yaml")


async def give_role(site: Site) -> None:
    where = related(user=person("no_roles").user_guid, space=space_of(site, "globex/prod").guid)
    await site.write("org_manager", "POST", "/v3/roles", {"type": "space_auditor", **where})


async def give_organization_role(site: Site) -> None:
    organization = space_of(site, "acme/dev").organization.guid
    where = related(user=person("no_roles").user_guid, organization=organization)
    await site.write("admin", "POST", "/v3/roles", {"type": "organization_manager", **where})


async def take_role(site: Site) -> None:
    await site.write_and_finish("admin", "DELETE", f"/v3/roles/{role_of(site, 'space_developer', 'space_developer')}")


async def rename_space(site: Site) -> None:
    await site.write("admin", "PATCH", f"/v3/spaces/{site.app.space.guid}", {"name": "renamed"})


async def rename_organization(site: Site) -> None:
    await site.write("admin", "PATCH", f"/v3/organizations/{site.app.space.organization.guid}", {"name": "renamed"})


async def delete_space(site: Site) -> None:
    await site.write_and_finish("admin", "DELETE", f"/v3/spaces/{site.app.space.guid}")


async def delete_organization(site: Site) -> None:
    await site.write_and_finish("admin", "DELETE", f"/v3/organizations/{site.app.space.organization.guid}")


async def v2_update(site: Site) -> None:
    await site.write("space_developer", "PUT", f"/v2/apps/{site.app.guid}", {"instances": 23})


WRITES: tuple[Callable[[Site], Awaitable[None]], ...] = (
    *(scale, scale_by_type, patch, patch_by_type, create_app, rename_app, stop_app, start_app, restart_app, delete_app),
    *(assign_droplet, deploy, apply_manifest, give_role, give_organization_role, take_role, rename_space),
    *(rename_organization, delete_space, delete_organization, v2_update),
)


@pytest.mark.parametrize("write", WRITES, ids=lambda write: write.__name__)
async def test_everybodys_next_list_shows_what_was_written(
    site: Site, write: Callable[[Site], Awaitable[None]]
) -> None:
    if write is start_app:
        site.app.state = "STOPPED"
    await site.warm()
    before = await site.truth()
    await write(site)
    assert await site.truth() != before, "this write changes nothing, so nothing was tested"
    await site.everybody_sees_the_truth()


async def test_a_deployments_end_and_cancellation(site: Site) -> None:
    """The updater works behind the gateway's back; what passes the gateway counts at once."""
    await site.warm()
    await deploy(site)
    deployment = next(iter(site.world.deployments))
    await site.everybody_sees_the_truth()
    await site.write("space_developer", "POST", f"/v3/deployments/{deployment}/actions/cancel")
    await site.everybody_sees_the_truth()


async def test_a_deletion_whose_answer_is_lost_and_that_is_refused_when_it_is_sent_again(site: Site) -> None:
    """RFC 9110 §9.2.2 lets DELETE be sent again: the controller has done it already and says 404."""
    site.controller.jobs.delay = 0
    role = role_of(site, "space_developer", "space_developer")
    await site.warm()
    before = await site.truth()
    site.controller.faults.add(Fault(matching="DELETE", broken=Break.CLOSE_BEFORE_HEAD, times=1))
    status, _, _ = await site.ask("admin", "DELETE", f"/v3/roles/{role}")
    assert status == 404
    assert [one.method for one in site.controller.requests].count("DELETE") == 2
    assert await site.truth() != before
    await site.everybody_sees_the_truth()


async def test_a_refused_write_leaves_every_page(site: Site) -> None:
    await site.warm()
    path = f"/v3/processes/{site.process.guid}/actions/scale"
    for who, body in (("space_auditor", {"instances": 3}), ("space_developer", {"instances": -1})):
        status, _, _ = await site.ask(who, "POST", path, body)
        assert 400 <= status < 500
    for who in site.tokens:
        assert (await site.seen(who, site.reads[0]))[1]


async def test_pages_do_live_an_hour_when_nothing_is_written(site: Site) -> None:
    """So that the other tests prove invalidation and not expiry."""
    await site.warm()
    process: Process = site.process
    process.instances += 1
    site.world.touch(process, now=time.time())
    truth = await site.truth()
    seen, hit = await site.seen("admin", site.reads[0])
    assert hit
    assert seen != truth["admin", site.reads[0]]
