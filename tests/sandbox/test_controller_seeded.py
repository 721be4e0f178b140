"""The seeded world: deterministic, of the size asked for, visible to its people as their roles say, and quick."""

from __future__ import annotations

import json
import time

import aiohttp
import jwt
import pytest

from gateway.sandbox.controller import Controller
from gateway.sandbox.people import METRICS_COLLECTOR, OPS_AUTOMATION, PEOPLE, person
from gateway.sandbox.present import Presenter
from gateway.sandbox.tokens import hmac_checker
from gateway.sandbox.world import World

SECRET = b"a symmetric key for the seeded world, long enough"


def bearer(claims):
    common = {"aud": ["cloud_controller"], "exp": int(time.time()) + 600, "jti": "one"}
    return {"Authorization": "bearer " + jwt.encode(common | claims, SECRET, "HS256")}


def user(name):
    who = person(name)
    return bearer({"user_id": who.user_guid, "client_id": "cf", "scope": list(who.scopes)})


def client(which):
    return bearer({"client_id": which.client_id, "scope": list(which.scopes)})


@pytest.fixture
async def sandbox():
    controller = Controller(world=World.seeded(200), verify=hmac_checker(SECRET), job_delay=None)
    base = await controller.start()
    async with aiohttp.ClientSession(base) as session:
        yield controller, session
    await controller.stop()


async def listed(session, headers, query="per_page=5000"):
    async with session.get(f"/v3/processes?{query}", headers=headers) as response:
        assert response.status == 200, await response.text()
        return await response.json()


@pytest.mark.parametrize("size", [0, 1, 2, 31, 1000])
def test_the_world_has_exactly_the_processes_asked_for(size):
    world = World.seeded(size)
    assert len(world.processes) == size
    assert {process.app.guid for process in world.processes.values()} == set(world.apps)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others():
    def rows(seed):
        world = World.seeded(300, seed)
        return Presenter("https://api.example.org").process_rows(world.processes.values()), world.new_guid()

    assert rows(2015) == rows(2015)
    assert rows(2015) != rows(2016)


def test_twenty_thousand_processes_are_made_and_rendered_in_time():
    began = time.perf_counter()
    world = World.seeded(20_000)
    made = time.perf_counter() - began
    presenter, processes = Presenter("https://api.example.org"), list(world.processes.values())[:5000]
    presenter.process_rows(processes)
    began = time.perf_counter()
    page = presenter.process_rows(processes)
    again = time.perf_counter() - began
    assert made < 3
    assert again < 0.5
    assert len(json.loads(b"[" + page + b"]")) == 5000


def test_a_changed_process_is_rendered_anew():
    world = World.seeded(3)
    presenter, process = Presenter("https://api.example.org"), next(iter(world.processes.values()))
    before = presenter.process_rows([process])
    process.instances = 77
    world.touch(process, now=1_800_000_000)
    assert presenter.process_rows([process]) != before
    assert b'"instances":77' in presenter.process_rows([process])


SPACES = {
    "space_developer": {"acme/dev"},
    "space_supporter": {"acme/dev"},
    "space_auditor": {"acme/prod", "globex/dev"},
    "org_manager": {"globex/dev", "globex/prod"},
    "space_manager": {"initech/lab"},
    "no_roles": set(),
}


@pytest.mark.parametrize("name", sorted(SPACES))
async def test_people_see_the_processes_of_their_spaces(sandbox, name):
    controller, session = sandbox
    body = await listed(session, user(name))
    seen = {controller.world.processes[each["guid"]].app.space for each in body["resources"]}
    assert {f"{space.organization.name}/{space.name}" for space in seen} == SPACES[name]
    expected = [
        guid
        for guid, process in controller.world.processes.items()
        if f"{process.app.space.organization.name}/{process.app.space.name}" in SPACES[name]
    ]
    assert [each["guid"] for each in body["resources"]] == expected


@pytest.mark.parametrize(
    "headers", [user("admin"), user("admin_read_only"), user("global_auditor"), client(OPS_AUTOMATION)]
)
async def test_global_scopes_see_everything(sandbox, headers):
    _, session = sandbox
    assert (await listed(session, headers))["pagination"]["total_results"] == 200


async def test_a_client_is_a_principal_of_its_own(sandbox):
    controller, session = sandbox
    body = await listed(session, client(METRICS_COLLECTOR))
    names = {controller.world.processes[each["guid"]].app.space.name for each in body["resources"]}
    assert names == {"lab"}


def test_every_person_has_a_guid_and_a_name_of_their_own():
    assert len({each.user_guid for each in PEOPLE}) == len({each.username for each in PEOPLE}) == len(PEOPLE)


async def test_a_walk_by_next_href_meets_every_process_once(sandbox):
    controller, session = sandbox
    met, target = [], "/v3/processes?per_page=7"
    while target:
        async with session.get(target, headers=user("admin")) as response:
            body = await response.json()
        met += [each["guid"] for each in body["resources"]]
        following = body["pagination"]["next"]
        target = following and following["href"].removeprefix("https://api.internal.example.org")
    assert met == list(controller.world.processes)


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("admin", 202),
        ("space_developer", 202),
        ("space_supporter", 202),
        ("space_auditor", 404),
        ("global_auditor", 403),
    ],
)
async def test_who_may_scale_in_acme_dev(sandbox, name, status):
    controller, session = sandbox
    process = next(each for each in controller.world.processes.values() if each.app.space.name == "dev")
    before = process.instances
    path = f"/v3/processes/{process.guid}/actions/scale"
    async with session.post(path, json={"instances": before + 3}, headers=user(name)) as response:
        assert response.status == status
    assert process.instances == (before + 3 if status == 202 else before)


async def test_who_may_update_a_process_is_narrower_than_who_may_scale(sandbox):
    controller, session = sandbox
    process = next(each for each in controller.world.processes.values() if each.app.space.name == "dev")
    for name, status in (("space_supporter", 403), ("space_developer", 200)):
        body = {"command": "./run"}
        async with session.patch(f"/v3/processes/{process.guid}", json=body, headers=user(name)) as response:
            assert response.status == status, name


async def test_hrefs_come_from_the_configured_origin_never_from_the_request():
    world = World.seeded(3)
    controller = Controller(
        world=world, verify=hmac_checker(SECRET), external_url="https://api.cf.test", uaa_url="http://127.0.0.1:1"
    )
    async with aiohttp.ClientSession(await controller.start()) as session:
        spoofed = user("admin") | {"Host": "evil.test", "X-Forwarded-Host": "evil.test", "X-Forwarded-Proto": "http"}
        async with session.get("/v3/processes", headers=spoofed) as response:
            text = await response.text()
        async with session.get("/", headers=spoofed) as response:
            root = await response.json(content_type=None)
    await controller.stop()
    assert "evil" not in text
    assert '"https://api.cf.test/v3/processes?page=1' in text
    assert root["links"]["login"] == root["links"]["uaa"] == {"href": "http://127.0.0.1:1"}
    assert root["links"]["self"] == {"href": "https://api.cf.test"}


async def test_a_role_acts_at_once_and_its_deletion_with_its_job(sandbox):
    controller, session = sandbox
    space = next(space for space in controller.world.spaces.values() if space.name == "lab")
    body = {
        "type": "space_auditor",
        "relationships": {
            "user": {"data": {"guid": person("no_roles").user_guid}},
            "space": {"data": {"guid": space.guid}},
        },
    }
    async with session.post("/v3/roles", json=body, headers=user("admin")) as response:
        role = await response.json()
    assert (await listed(session, user("no_roles")))["pagination"]["total_results"] > 0
    async with session.delete(f"/v3/roles/{role['guid']}", headers=user("admin")) as response:
        assert response.status == 202
        job = response.headers["Location"].removeprefix("https://api.internal.example.org")
    assert (await listed(session, user("no_roles")))["pagination"]["total_results"] > 0
    assert controller.complete_jobs() == 1
    assert (await listed(session, user("no_roles")))["pagination"]["total_results"] == 0
    async with session.get(job, headers=user("no_roles")) as response:
        assert (await response.json())["state"] == "COMPLETE"


TOUCHED = {
    "scale": ("POST", "/v3/processes/{app}/actions/scale", {"instances": 2}, {"web"}, set()),
    "scale memory while started": ("POST", "/v3/processes/{app}/actions/scale", {"memory_in_mb": 33}, {"web"}, {"web"}),
    "empty patch": ("PATCH", "/v3/processes/{app}", {}, {"web"}, set()),
    "patch by type": ("PATCH", "/v3/apps/{app}/processes/worker", {"command": "x"}, {"worker"}, set()),
    "stop": ("POST", "/v3/apps/{app}/actions/stop", None, {"web", "worker"}, set()),
    "start again": ("POST", "/v3/apps/{app}/actions/start", None, set(), set()),
    "restart": ("POST", "/v3/apps/{app}/actions/restart", None, {"web", "worker"}, {"web", "worker"}),
    "rename": ("PATCH", "/v3/apps/{app}", {"name": "another"}, {"web", "worker"}, set()),
    "app labels": ("PATCH", "/v3/apps/{app}", {"metadata": {"labels": {"a": "b"}}}, set(), set()),
    "environment": ("PATCH", "/v3/apps/{app}/environment_variables", {"var": {"A": "b"}}, set(), set()),
    "instance": ("DELETE", "/v3/processes/{app}/instances/0", None, set(), set()),
    "v2": ("PUT", "/v2/apps/{app}", {"instances": 5}, {"web"}, set()),
}


@pytest.mark.parametrize("name", TOUCHED)
async def test_which_rows_a_write_changes(name):
    method, path, body, touched, renewed = TOUCHED[name]
    moment = {"now": 1_800_000_000.0}
    world = World.seeded(200)
    controller = Controller(world=world, verify=hmac_checker(SECRET), clock=lambda: moment["now"])
    kinds = {guid: {each.type for each in world.processes_of(app)} for guid, app in world.apps.items()}
    app = next(app for app in world.apps.values() if app.state == "STARTED" and kinds[app.guid] == {"web", "worker"})
    world.processes[app.guid].instances = max(1, world.processes[app.guid].instances)
    before = {guid: (each.updated_at, each.version) for guid, each in world.processes.items()}
    base = await controller.start()
    async with (
        aiohttp.ClientSession(base) as session,
        session.request(method, path.format(app=app.guid), json=body, headers=user("admin")) as response,
    ):
        assert response.status < 300, await response.text()
    await controller.stop()
    after = {guid: (each.updated_at, each.version) for guid, each in world.processes.items()}
    changed = [world.processes[guid] for guid in after if after[guid][0] != before[guid][0]]
    assert {each.type for each in changed} == touched
    assert all(each.app is app for each in changed)
    assert {world.processes[guid].type for guid in after if after[guid][1] != before[guid][1]} == renewed


async def test_jobs_complete_by_themselves_after_their_delay():
    moment = {"now": 1_800_000_000.0}
    controller = Controller(
        world=World.seeded(20), verify=hmac_checker(SECRET), job_delay=2.0, clock=lambda: moment["now"]
    )
    async with aiohttp.ClientSession(await controller.start()) as session:
        app = next(iter(controller.world.apps.values()))
        total = (await listed(session, user("admin")))["pagination"]["total_results"]
        gone = len(controller.world.processes_of(app))
        async with session.delete(f"/v3/apps/{app.guid}", headers=user("admin")) as response:
            assert response.status == 202
        assert (await listed(session, user("admin")))["pagination"]["total_results"] == total
        moment["now"] += 2.0
        assert (await listed(session, user("admin")))["pagination"]["total_results"] == total - gone
    await controller.stop()


@pytest.mark.parametrize("cancel", [False, True], ids=["finished", "canceled"])
async def test_a_rolling_deployment_ends_with_one_web_process(sandbox, cancel):
    controller, session = sandbox
    app = next(each for each in controller.world.apps.values() if each.state == "STARTED")
    old = controller.world.process_of_type(app, "web")
    instances = old.instances
    body = {"relationships": {"app": {"data": {"guid": app.guid}}}}
    async with session.post("/v3/deployments", json=body, headers=user("admin")) as response:
        assert response.status == 201
        deployment = await response.json()
    webs = await listed(session, user("admin"), f"app_guids={app.guid}&types=web")
    assert webs["pagination"]["total_results"] == 2
    if cancel:
        path = f"/v3/deployments/{deployment['guid']}/actions/cancel"
        async with session.post(path, headers=user("admin")) as response:
            assert (response.status, await response.read()) == (200, b"")
    assert controller.complete_deployments() == 1
    webs = await listed(session, user("admin"), f"app_guids={app.guid}&types=web")
    expected = old.guid if cancel else deployment["new_processes"][0]["guid"]
    assert [(each["guid"], each["instances"]) for each in webs["resources"]] == [(expected, instances)]


REFUSED = {
    "org manager suspends": ("org_manager", "PATCH", "/v3/organizations/{globex}", {"suspended": True}, 403),
    "org manager deletes": ("org_manager", "DELETE", "/v3/organizations/{globex}", None, 403),
    "org manager of another": ("org_manager", "PATCH", "/v3/organizations/{acme}", {"metadata": {}}, 404),
    "feature flag": ("space_developer", "PATCH", "/v3/feature_flags/app_scaling", {"enabled": False}, 403),
    "space by its developer": ("space_developer", "DELETE", "/v3/spaces/{dev}", None, 403),
    "space unseen": ("no_roles", "DELETE", "/v3/spaces/{dev}", None, 404),
    "environment by the auditor": ("global_auditor", "GET", "/v3/apps/{app}/env", None, 403),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_roles_do_not_allow(sandbox, name):
    controller, session = sandbox
    who, method, path, body, status = REFUSED[name]
    world = controller.world
    guids = {each.name: each.guid for each in (*world.spaces.values(), *world.organizations.values())}
    guids["dev"] = next(each.guid for each in world.spaces.values() if each.name == "dev")
    guids["app"] = next(iter(world.apps))
    async with session.request(method, path.format(**guids), json=body, headers=user(who)) as response:
        assert response.status == status
    assert not any(each.suspended for each in world.organizations.values())
    assert world.flags["app_scaling"].enabled
    assert controller.complete_jobs() == 0
