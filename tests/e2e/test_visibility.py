"""The visibility matrix: whatever is asked, written and waited for in whatever order, nobody gets what is not theirs.

The pipeline, with its real store, verifier and client, stands before a sandbox controller; only the clock is the
test's. Beside it the test asks the controller itself, for everybody, after every change, and so knows each answer that
was ever true and from when to when. `tests/truth.py` judges by that whether the gateway had a right to an answer.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway.app import Gateway
from gateway.core.forwarding import TrustedProxies
from gateway.core.model import Fields, RequestHead
from gateway.core.target import parse as parse_target
from gateway.pipeline.decide import Policy
from gateway.pipeline.exchange import Exchange
from gateway.pipeline.fulfil import Pipeline
from gateway.pipeline.outgoing import Outgoing
from gateway.sandbox.controller import Controller
from gateway.sandbox.faults import Break, Fault
from gateway.sandbox.people import CLIENTS, PEOPLE, person
from gateway.sandbox.tokens import hmac_checker
from gateway.sandbox.world import World
from gateway.settings import parse
from tests.truth import Got, Told, Truth

SECRET = "a-secret-that-is-long-enough-for-hs256-and-its-tests"
ORIGIN, PUBLIC = b"https://api.internal.example.org", b"https://gateway.example.org"
BEGAN = 1_800_000_000.0
TTL = 5.0  # of the built-in lists
WHO = (
    *("admin", "global_auditor", "ops-automation", "space_developer", "space_auditor", "org_manager", "no_roles"),
    *("metrics-collector", "openid_only", "garbage", ""),
)
GUID = re.compile(r'"guid":"([^"]+)"')
KINDS = ("processes", "apps", "spaces", "organizations")
GLOBAL = {"cloud_controller.admin", "cloud_controller.admin_read_only", "cloud_controller.global_auditor"}


def token(who: str) -> str | None:
    """A token of one of the sandbox's people or clients; "garbage" is none, and "" has none."""
    if not who:
        return None
    claims: dict[str, Any]
    if any(each.username == who for each in PEOPLE):
        claims = {"user_id": person(who).user_guid, "client_id": "cf", "scope": list(person(who).scopes)}
    elif any(each.client_id == who for each in CLIENTS):
        claims = {"client_id": who, "scope": list(next(each.scopes for each in CLIENTS if each.client_id == who))}
    else:
        return who
    return jwt.encode(claims | {"aud": ["cloud_controller"], "exp": int(BEGAN) + 10**8, "jti": "one"}, SECRET, "HS256")


TOKENS = {who: token(who) for who in WHO}


@dataclass(frozen=True)
class Answer:
    """What came through the gateway.

    Attributes:
        asked: when.
        delivered: the last change through the gateway that had been answered by then.
    """

    who: str
    target: str
    method: str
    asked: float
    delivered: int
    status: int
    fields: Fields
    body: bytes


class Matrix:
    """A pipeline before a controller, the truth beside it, and a clock."""

    def __init__(self, controller: Controller, direct: str, gateway: Gateway, http: aiohttp.ClientSession) -> None:
        self.controller, self.direct, self.http = controller, direct, http
        self.world = controller.world
        self.now = BEGAN
        self.pipeline = Pipeline(
            policy=Policy(gateway.routes, gateway.identity, gateway.store),
            upstream=gateway.client,
            links=gateway.origins,
            outgoing=Outgoing("gateway", "api.internal.example.org", TrustedProxies(), "https", "gateway.example.org"),
            clock=lambda: self.now,
            max_rewrite_bytes=1 << 24,
        )
        self.changes = 0
        self.moments = 0
        self.truth = Truth()
        self.visible: dict[str, list[tuple[float, frozenset[str]]]] = {}
        self.tags: dict[str, bytes] = {}
        self.jobs: list[str] = []
        self.untold: list[int] = []  # changes that were the end of such jobs
        self.got: list[Answer] = []
        self.app = next(
            app for app in self.world.apps.values() if f"{app.space.organization.name}/{app.space.name}" == "acme/dev"
        )
        self.single = f"/v3/processes/{self.app.guid}"
        self.targets = [
            *("/v3/processes", "/v3/processes?per_page=2&page=2", "/v3/processes?types=web", "/v3/apps?per_page=100"),
            *(f"/v3/processes?space_guids={self.app.space.guid}", f"/v3/apps/{self.app.guid}/processes", self.single),
            *("/v3/processes?order_by=-updated_at&per_page=3", "/v3/processes?label_selector=odd%3Dyes"),
            *("/v3/apps?include=space.organization", "/v3/spaces"),
        ]

    # -- the truth

    def moment(self) -> float:
        """Now, after all that was before: the test's clock stands still while things happen one after another."""
        self.moments += 1
        return self.now + self.moments * 1e-7

    async def observe(self, *, through: bool) -> None:
        """Ask the controller for everybody what is true right now.

        Args:
            through: whether the change went through the gateway and is known to be complete there.
        """
        self.changes += 1
        began = self.moment()
        if through:
            self.truth.delivered = self.changes
        pairs = [(who, target) for who in WHO for target in self.targets]
        answers = dict(zip(pairs, await asyncio.gather(*(self.ask_directly(*pair) for pair in pairs)), strict=True))
        whole = [(await self.ask_directly("admin", f"/v3/{kind}?per_page=5000"))[1] for kind in KINDS]
        self.truth.changed(self.changes, answers, whole, began=began, done=began, through=through)
        for who in WHO:
            self.visible.setdefault(who, []).append((began, frozenset(self.visible_to(who))))

    async def ask_directly(self, who: str, target: str) -> Told:
        headers = {"Authorization": f"bearer {TOKENS[who]}"} if TOKENS[who] else {}
        async with self.http.get(f"{self.direct}{target}", headers=headers) as response:
            return response.status, await response.read()

    def visible_to(self, who: str) -> Iterator[str]:
        """The processes whose space or organization this principal has a role in: by the rule, not by an answer."""
        claims = (
            jwt.decode(TOKENS[who] or "", options={"verify_signature": False}) if who not in {"", "garbage"} else {}
        )
        holder = claims.get("user_id", claims.get("client_id", ""))
        roles = list(self.world.roles_of(holder))
        for process in self.world.processes.values():
            space = process.app.space
            if GLOBAL & set(claims.get("scope", ())) or any(
                role.space is space or (role.type == "organization_manager" and role.organization is space.organization)
                for role in roles
            ):
                yield process.guid

    # -- through the gateway

    async def ask(
        self, who: str, method: str, target: str, *fields: tuple[str, str], body: Any = None
    ) -> tuple[int, Fields, bytes]:
        given = [("Host", "gateway.example.org"), *fields]
        given += [("Authorization", f"bearer {TOKENS[who]}")] if TOKENS[who] else []
        content = None if body is None else json.dumps(body).encode()
        if content is not None:
            given += [("Content-Type", "application/json"), ("Content-Length", str(len(content)))]
        head = RequestHead(
            method, parse_target(target, strict_api=True), Fields(given), peer="127.0.0.1", has_body=content is not None
        )
        exchange = Exchange(head, request_id="id", received_at=self.now)
        reply = await self.pipeline.answer(exchange, None if content is None else pieces(content))
        if reply.body is None or isinstance(reply.body, bytes):
            return reply.status, reply.fields, reply.body or b""
        try:
            return reply.status, reply.fields, b"".join([piece async for piece in reply.body])
        finally:
            await reply.body.aclose()

    async def read(self, who: str, target: str, accept: str, tag: int, method: str) -> None:
        """Read; `check` judges the answer."""
        fields = [("Accept", accept)] if accept else []
        known = list(self.tags)
        fields += [("If-None-Match", known[tag % len(known)])] if known and tag else []
        asked, delivered = self.moment(), self.truth.delivered
        self.got.append(Answer(who, target, method, asked, delivered, *await self.ask(who, method, target, *fields)))

    def check(self) -> None:
        """Judge the answers got since the last check."""
        for got in self.got:
            self.judge(got)
        self.got.clear()

    def judge(self, got: Answer) -> None:
        """Whether the gateway had a right to an answer."""
        allowed = 0.0 if got.target == self.single else TTL
        where = f"{got.who!r} asked {got.method} {got.target} and got {got.status} {got.fields.get('cache-status')}"
        tag = got.fields.get("etag")
        if got.status == 304 or (got.method == "HEAD" and tag in self.tags):
            told = 200, self.tags[tag or ""]
        else:
            told = got.status, got.body
        if got.method == "HEAD" and not told[1]:
            versions = self.truth.versions[got.who, got.target]
            assert got.status in {one.told[0] for one in versions if (one.until or got.asked) >= got.asked - allowed}
            return
        if tag is not None:
            self.tags[tag] = told[1]
        told = told[0], told[1].replace(PUBLIC, ORIGIN)
        answer = Got((got.who, got.target), told, got.asked, self.moment(), allowed, got.delivered)
        assert not list(self.truth.faults(answer)), where
        if told[0] == 200 and "/processes" in got.target:
            seen = {row["guid"] for row in json.loads(told[1]).get("resources", ())}
            assert seen <= self.mine(got.who, got.asked - allowed), where

    def mine(self, who: str, since: float) -> frozenset[str]:
        """The processes that this principal could see at a time after `since`."""
        versions = self.visible[who]
        ends = [began for began, _ in versions[1:]] + [float("inf")]
        return frozenset[str]().union(*(guids for (_, guids), end in zip(versions, ends, strict=True) if end >= since))

    async def hold(self, read: tuple[str, str], number: int, *, through: bool) -> None:
        """A read that the controller has looked at already, and answers after a write was made and read again."""
        seen = len(self.controller.requests)
        self.controller.faults.add(Fault(matching="GET", broken=Break.STALL_BEFORE_HEAD, times=1))
        early = asyncio.ensure_future(self.read(*read, "", 0, "GET"))
        while len(self.controller.requests) == seen and not early.done():
            await asyncio.sleep(0)
        if early.done():
            self.controller.faults.clear()  # it was answered from the store
        complete = number != JOBS and await self.write(number, through=through)
        if complete:
            self.truth.delivered = self.changes + 1
        late = asyncio.ensure_future(self.read(*read, "", 0, "GET"))
        if complete:
            await asyncio.wait({late}, timeout=5)  # or it waits for the early one, which is wrong
        self.controller.faults.clear()
        await asyncio.gather(early, late)
        await self.observe(through=complete)
        self.check()

    # -- what happens

    async def write(self, number: int, *, through: bool) -> bool:
        """Change something, through the gateway or past it; whether it went through and is known to be complete."""
        who, method, path, body = self.change(number)
        if path == "jobs":
            self.controller.complete_jobs()
            self.untold.append(self.changes + 1)
            if not through:
                return False
            jobs, self.jobs = self.jobs, []
            for job in jobs:
                status, _, answer = await self.ask("admin", "GET", job)
                assert (status, json.loads(answer)["state"]) == (200, "COMPLETE")
            self.truth.told(self.untold, self.changes + 1)
            self.untold.clear()
            return True
        if through:
            status, fields, _ = await self.ask(who, method, path, body=body)
            location = fields.get("location")
        else:
            headers = {"Authorization": f"bearer {TOKENS[who]}"}
            async with self.http.request(method, f"{self.direct}{path}", headers=headers, json=body) as response:
                status, location = response.status, response.headers.get("Location")
        assert status < 500
        if status == 202 and location:
            self.jobs.append(location[location.index("/v3/jobs/") :])
        return through and status < 300

    def change(self, number: int) -> tuple[str, str, str, Any]:
        app, count = self.app, self.changes
        space = {"data": {"guid": app.space.guid}}
        held = self.world.roles_of(person("space_developer").user_guid)
        taken = next((role.guid for role in held if role.space is not None), "none")
        given = {"type": "space_auditor", "relationships": {"space": space, "user": {"data": {"guid": None}}}}
        given["relationships"]["user"]["data"]["guid"] = person("no_roles").user_guid  # type: ignore[index]
        labels = {"metadata": {"labels": {"n": str(count), "odd": "yes" if count % 2 else "no"}}}
        action = "stop" if app.state == "STARTED" else "start"
        changes: tuple[tuple[str, str, str, Any], ...] = (
            ("admin", "POST", f"/v3/processes/{app.guid}/actions/scale", {"instances": count}),
            ("space_developer", "POST", f"/v3/processes/{app.guid}/actions/scale", {"instances": count + 1000}),
            ("admin", "PATCH", f"/v3/processes/{app.guid}", labels),
            ("admin", "POST", "/v3/roles", given),
            ("admin", "DELETE", f"/v3/roles/{taken}", None),
            ("admin", "POST", f"/v3/apps/{app.guid}/actions/{action}", None),
            ("admin", "POST", "/v3/apps", {"name": f"new-{count}", "relationships": {"space": space}}),
            ("admin", "DELETE", f"/v3/apps/{app.guid}", None),
            ("admin", "", "jobs", None),
            ("admin", "PATCH", f"/v3/apps/{app.guid}", {"name": f"renamed-{count}", **labels}),
            ("admin", "PATCH", f"/v3/spaces/{app.space.guid}", {"name": f"renamed-{count}"}),
            ("admin", "PATCH", f"/v3/organizations/{app.space.organization.guid}", {"name": f"renamed-{count}"}),
            ("space_developer", "PATCH", f"/v3/apps/{app.guid}/processes/web", labels),
            ("space_developer", "PUT", f"/v2/apps/{app.guid}", {"instances": count}),
        )
        return changes[number % len(changes)]


WRITES, JOBS = 14, 8


async def pieces(content: bytes) -> AsyncIterator[bytes]:
    yield content


@asynccontextmanager
async def matrix() -> AsyncIterator[Matrix]:
    """A new world, its controller, and the parts of a gateway before it."""
    clock: list[Matrix] = []
    controller = Controller(
        world=World.seeded(24),
        verify=hmac_checker(SECRET.encode(), clock=lambda: BEGAN),
        job_delay=None,
        clock=lambda: clock[0].now if clock else BEGAN,
    )
    direct = await controller.start()
    gateway = Gateway(
        parse(
            f"""
public_url: {PUBLIC.decode()}
upstream: {{url: "{direct}", advertised_urls: ["{ORIGIN.decode()}"], host_header: api.internal.example.org}}
auth: {{keys: [{{secret: {SECRET}}}]}}
""",
            {},
        )
    )
    await gateway.client.start()
    await gateway.identity.start()
    try:
        async with aiohttp.ClientSession(skip_auto_headers=("Accept", "User-Agent")) as http:
            site = Matrix(controller, direct, gateway, http)
            clock.append(site)
            await site.observe(through=False)
            yield site
    finally:
        await gateway.identity.stop()
        await gateway.client.stop()
        await controller.stop()


# -- random stories

TARGETS = 11
reads = st.tuples(
    st.sampled_from(WHO),
    st.integers(0, TARGETS - 1),
    st.sampled_from(["", "application/json", "*/*"]),
    st.integers(0, 20),
    st.sampled_from(["GET", "GET", "GET", "HEAD"]),
)
writes = st.tuples(st.integers(0, WRITES - 1), st.booleans())
events = st.one_of(
    st.tuples(st.just("reads"), st.lists(reads, min_size=1, max_size=12)),
    st.tuples(st.just("write"), writes),
    st.tuples(st.just("wait"), st.sampled_from([0.5, 2.0, 4.9, 5.0, 30.0])),
    st.tuples(st.just("hold"), st.tuples(st.sampled_from(WHO), st.integers(0, TARGETS - 1), writes)),
    st.tuples(st.just("together"), st.tuples(st.lists(reads, min_size=1, max_size=8), writes)),
)
EVERYBODY = [(who, target, "", 0, "GET") for who in WHO for target in range(TARGETS)]
BACKWARDS = EVERYBODY[::-1]


async def play(story: list[tuple[str, Any]]) -> None:
    async with matrix() as site:

        async def read(who: str, target: int, accept: str, tag: int, method: str) -> None:
            await site.read(who, site.targets[target], accept, tag, method)

        for kind, what in story:
            match kind:
                case "reads":
                    for each in what:
                        await read(*each)
                        site.check()
                case "wait":
                    site.now += what
                case "write":
                    number, through = what
                    await site.observe(through=await site.write(number, through=through))
                case "hold":
                    who, target, (number, through) = what
                    await site.hold((who, site.targets[target]), number, through=through)
                case "together":
                    some, (number, through) = what
                    *_, complete = await asyncio.gather(
                        *(read(*each) for each in some), site.write(number, through=through)
                    )
                    await site.observe(through=complete)
                    site.check()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@example(story=[("reads", EVERYBODY), ("reads", BACKWARDS)])
@example(story=[("reads", BACKWARDS), ("write", (0, True)), ("reads", EVERYBODY), ("write", (4, True))])
@example(story=[("reads", EVERYBODY), ("write", (4, True)), ("write", (8, True)), ("reads", EVERYBODY)])
@example(
    story=[("reads", EVERYBODY), ("write", (4, False)), ("write", (8, False)), ("wait", 5.0), ("reads", EVERYBODY)]
)
@example(story=[("reads", EVERYBODY), ("write", (7, True)), ("write", (8, True)), ("reads", EVERYBODY)])
@example(story=[("together", (EVERYBODY, (3, True))), ("reads", BACKWARDS)])
@example(story=[("hold", ("admin", 0, (0, True))), ("reads", EVERYBODY)])
# A job begun past the gateway, whose end the gateway is asked for.
@example(story=[("reads", EVERYBODY), ("write", (7, False)), ("write", (8, True)), ("reads", EVERYBODY)])
# A job whose end is told only after pages of before it were read again.
@example(
    story=[
        ("reads", EVERYBODY),
        ("write", (7, True)),
        ("write", (8, False)),
        ("write", (8, True)),
        ("reads", BACKWARDS),
    ]
)
@example(
    story=[
        ("reads", EVERYBODY),
        ("write", (7, False)),
        ("write", (8, False)),
        ("write", (8, True)),
        ("reads", BACKWARDS),
    ]
)
# Out of date by a change past the gateway, when a write through it changes the same row again.
@example(story=[("reads", EVERYBODY), ("write", (0, False)), ("write", (0, True)), ("reads", BACKWARDS)])
@given(story=st.lists(events, max_size=10))
def test_every_answer_is_one_the_controller_gave_that_principal(story: list[tuple[str, Any]]) -> None:
    asyncio.run(play(story))


def old(site: Matrix, who: str, target: str, answer: tuple[int, Fields, bytes], delivered: int = 0) -> Answer:
    return Answer(who, target, "GET", site.moment(), delivered, *answer)


async def test_the_matrix_can_tell_a_leak() -> None:
    """The judge of the test above, given another's page."""
    async with matrix() as site:
        target = site.targets[0]
        answer = await site.ask("admin", "GET", target)
        site.judge(old(site, "global_auditor", target, answer))
        with pytest.raises(AssertionError):
            site.judge(old(site, "space_developer", target, answer))


async def test_the_matrix_can_tell_a_page_from_before_a_write() -> None:
    async with matrix() as site:
        target = site.targets[0]
        answer = await site.ask("admin", "GET", target)
        await site.observe(through=await site.write(2, through=True))
        site.judge(old(site, "admin", target, answer))
        with pytest.raises(AssertionError):
            site.judge(old(site, "admin", target, answer, site.truth.delivered))


async def test_the_matrix_can_tell_a_page_that_is_too_old() -> None:
    async with matrix() as site:
        target = site.targets[0]
        answer = await site.ask("admin", "GET", target)
        await site.observe(through=await site.write(2, through=False))
        site.now += TTL - 0.1
        site.judge(old(site, "admin", target, answer))
        site.now += 0.1
        with pytest.raises(AssertionError):
            site.judge(old(site, "admin", target, answer))


async def test_pages_are_served_from_the_cache_at_all() -> None:
    async with matrix() as site:
        await site.ask("admin", "GET", site.targets[0])
        for who in ("global_auditor", "ops-automation"):
            _, fields, _ = await site.ask(who, "GET", site.targets[0])
            assert fields.get("cache-status") == "gateway;hit;ttl=5"


# -- the recorded world

RECORDINGS = Path(__file__).parents[2] / "../shared/recordings/world.json"


@settings(max_examples=10, deadline=None)
@given(
    order=st.permutations(["admin", "global_auditor", "space_developer", "space_auditor", "org_manager", "no_roles"])
)
def test_the_recorded_principals_see_what_was_recorded(order: list[str]) -> None:
    """`visible` of world.json, in any order of asking, cold and warm."""
    if not RECORDINGS.exists():
        pytest.skip("recordings not beside the checkout")
    recorded = json.loads(RECORDINGS.read_text())["visible"]
    asyncio.run(ask_in_order(order, recorded))


async def ask_in_order(order: list[str], recorded: dict[str, Any]) -> None:
    rows = [json.loads(line) for line in RECORDINGS.with_name("exchanges.jsonl").read_text().splitlines()]
    world = World.from_recording(json.loads(RECORDINGS.read_text()), rows)
    everything = list(world.processes)
    async with matrix() as site:
        site.controller.world.__dict__.update(world.__dict__)
        for who in [*order, *order]:
            status, _, body = await site.ask(who, "GET", "/v3/processes")
            assert status == recorded[who]["status"]
            expected = recorded[who]["process_guids"]
            assert [row["guid"] for row in json.loads(body)["resources"]] == (
                everything if expected == "all" else expected
            )
