"""The visibility matrix: whatever is asked, written and waited for in whatever order, nobody gets what is not theirs.

The pipeline, with its real store, verifier and client, stands before a sandbox controller; only the clock is the
test's. Beside it the test asks the controller itself, for everybody, after every change, and so knows each answer that
was ever right and from when to when. An answer through the gateway must be one that was right for that principal, not
longer ago than the ttl, and not before a write that passed the gateway.
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
from gateway.sandbox.people import CLIENTS, PEOPLE, person
from gateway.sandbox.tokens import hmac_checker
from gateway.sandbox.world import World
from gateway.settings import parse

SECRET = "a-secret-that-is-long-enough-for-hs256-and-its-tests"
ORIGIN, PUBLIC = b"https://api.internal.example.org", b"https://gateway.example.org"
BEGAN = 1_800_000_000.0
TTL = 5.0  # of the built-in lists
WHO = (
    *("admin", "global_auditor", "ops-automation", "space_developer", "space_auditor", "org_manager", "no_roles"),
    *("metrics-collector", "openid_only", "garbage", ""),
)
GUID = re.compile(r'"guid":"([^"]+)"')
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
class Version:
    """An answer that was right from one change on until the next that made it another.

    Attributes:
        change: number of the change.
        since: the test's time of the change.
    """

    change: int
    since: float
    answer: Any


class Record(dict[Any, list[Version]]):
    """Every answer that was ever right."""

    def note(self, key: Any, change: int, now: float, answer: Any) -> bool:
        """Whether it is another than before."""
        versions = self.setdefault(key, [])
        if versions and versions[-1].answer == answer:
            return False
        versions.append(Version(change, now, answer))
        return True

    def allowed(self, key: Any, *, since: float, started: int, floor: int = 0) -> list[Any]:
        """The answers that were right at a time after `since` or when the change `started` was the last one.

        Args:
            key: what was asked.
            since: the earliest time at which an answer may have been right.
            started: how many changes there were when it was asked.
            floor: the number of a change whose outcome must show.
        """
        versions = self[key]
        ends = [(each.since, each.change) for each in versions[1:]] + [(float("inf"), 1 << 60)]
        return [
            version.answer
            for version, (until, change) in zip(versions, ends, strict=True)
            if (until > since or change > started) and change > floor
        ]


@dataclass(frozen=True)
class Got:
    """An answer got through the gateway.

    Attributes:
        started: how many changes there were when it was asked.
        floor: the last change through the gateway that made the answer another.
    """

    who: str
    target: str
    method: str
    started: int
    floor: int
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
        self.truth, self.guids = Record(), Record()
        self.floors: dict[tuple[str, str], int] = {}
        self.tags: dict[str, bytes] = {}
        self.jobs: list[str] = []
        self.got: list[Got] = []
        self.app = next(
            app for app in self.world.apps.values() if f"{app.space.organization.name}/{app.space.name}" == "acme/dev"
        )
        lists = ["/v3/processes", "/v3/processes?per_page=2&page=2", "/v3/processes?types=web", "/v3/apps?per_page=100"]
        self.targets = [
            *lists,
            f"/v3/processes?space_guids={self.app.space.guid}",
            f"/v3/apps/{self.app.guid}/processes",
            f"/v3/processes/{self.app.guid}",
        ]

    # -- the truth

    async def observe(self, *, written: bool) -> None:
        """Ask the controller for everybody what is right now; a change that passed the gateway must be seen at once."""
        self.changes += 1
        pairs = [(who, target) for who in WHO for target in self.targets]
        for pair, answer in zip(
            pairs, await asyncio.gather(*(self.ask_directly(*pair) for pair in pairs)), strict=True
        ):
            if self.truth.note(pair, self.changes, self.now, answer) and written:
                self.floors[pair] = self.changes
        for who in WHO:
            self.guids.note(who, self.changes, self.now, frozenset(self.visible(who)))

    async def ask_directly(self, who: str, target: str) -> tuple[int, bytes]:
        headers = {"Authorization": f"bearer {TOKENS[who]}"} if TOKENS[who] else {}
        async with self.http.get(f"{self.direct}{target}", headers=headers) as response:
            return response.status, await response.read()

    def visible(self, who: str) -> Iterator[str]:
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
        """Read, and check that the answer was right for this principal within the ttl."""
        fields = [("Accept", accept)] if accept else []
        known = list(self.tags)
        fields += [("If-None-Match", known[tag % len(known)])] if known and tag else []
        started, floor = self.changes, self.floors.get((who, target), 0)
        self.got.append(Got(who, target, method, started, floor, *await self.ask(who, method, target, *fields)))

    def check(self) -> None:
        """Judge the answers got since the last check."""
        for got in self.got:
            self.judge(got)
        self.got.clear()

    def judge(self, got: Got) -> None:
        """Whether an answer was right for who asked, within the ttl."""
        since = self.now - (0.0 if got.target == self.targets[-1] else TTL)
        allowed = self.truth.allowed((got.who, got.target), since=since, started=got.started, floor=got.floor)
        where = f"{got.who!r} asked {got.method} {got.target} and got {got.status} {got.fields.get('cache-status')}"
        tag = got.fields.get("etag")
        if got.status == 304 or (got.method == "HEAD" and tag in self.tags):
            answer = 200, self.tags[tag or ""]
        else:
            answer = got.status, got.body
        if got.method == "HEAD" and not answer[1]:
            assert got.status in {right for right, _ in allowed}, where
            return
        if tag is not None:
            self.tags[tag] = answer[1]
        assert (answer[0], answer[1].replace(PUBLIC, ORIGIN)) in allowed, where
        if answer[0] == 200 and "/processes" in got.target:
            seen = {row["guid"] for row in json.loads(answer[1]).get("resources", ())}
            mine = self.guids.allowed(got.who, since=since, started=got.started)
            assert seen <= frozenset[str]().union(*mine), where

    # -- what happens

    async def write(self, number: int, *, through: bool) -> None:
        """Change something, through the gateway or past it."""
        who, method, path, body = self.change(number)
        if path == "jobs":
            self.controller.complete_jobs()
            jobs, self.jobs = self.jobs, []
            if through:
                for job in jobs:
                    await self.ask("admin", "GET", job)
            elif jobs:
                self.jobs = jobs
        elif through:
            status, fields, _ = await self.ask(who, method, path, body=body)
            assert status < 500
            if status == 202 and (location := fields.get("location")):
                self.jobs.append(location.removeprefix(PUBLIC.decode()))
        else:
            headers = {"Authorization": f"bearer {TOKENS[who]}"}
            async with self.http.request(method, f"{self.direct}{path}", headers=headers, json=body) as response:
                assert response.status < 500

    def change(self, number: int) -> tuple[str, str, str, Any]:
        app, count = self.app, self.changes
        space = {"data": {"guid": app.space.guid}}
        taken = next((role.guid for role in self.world.roles_of(person("space_developer").user_guid)), "none")
        given = {"type": "space_auditor", "relationships": {"space": space, "user": {"data": {"guid": None}}}}
        given["relationships"]["user"]["data"]["guid"] = person("no_roles").user_guid  # type: ignore[index]
        action = "stop" if app.state == "STARTED" else "start"
        changes: tuple[tuple[str, str, str, Any], ...] = (
            ("admin", "POST", f"/v3/processes/{app.guid}/actions/scale", {"instances": count % 7}),
            ("space_developer", "POST", f"/v3/processes/{app.guid}/actions/scale", {"instances": count % 5}),
            ("admin", "PATCH", f"/v3/processes/{app.guid}", {"metadata": {"labels": {"n": str(count)}}}),
            ("admin", "POST", "/v3/roles", given),
            ("admin", "DELETE", f"/v3/roles/{taken}", None),
            ("admin", "POST", f"/v3/apps/{app.guid}/actions/{action}", None),
            ("admin", "POST", "/v3/apps", {"name": f"new-{count}", "relationships": {"space": space}}),
            ("admin", "DELETE", f"/v3/apps/{app.guid}", None),
            ("admin", "", "jobs", None),
        )
        return changes[number % len(changes)]


WRITES = 9


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
            await site.observe(written=False)
            yield site
    finally:
        await gateway.identity.stop()
        await gateway.client.stop()
        await controller.stop()


# -- random stories

reads = st.tuples(
    st.sampled_from(WHO),
    st.integers(0, 6),
    st.sampled_from(["", "application/json", "*/*"]),
    st.integers(0, 20),
    st.sampled_from(["GET", "GET", "GET", "HEAD"]),
)
writes = st.tuples(st.integers(0, WRITES - 1), st.booleans())
events = st.one_of(
    st.tuples(st.just("reads"), st.lists(reads, min_size=1, max_size=12)),
    st.tuples(st.just("write"), writes),
    st.tuples(st.just("wait"), st.sampled_from([0.5, 2.0, 4.9, 5.0, 30.0])),
    st.tuples(st.just("together"), st.tuples(st.lists(reads, min_size=1, max_size=8), writes)),
)
EVERYBODY = [(who, target, "", 0, "GET") for who in WHO for target in range(7)]
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
                    await site.write(number, through=through)
                    await site.observe(written=through)
                case "together":
                    some, (number, through) = what
                    await asyncio.gather(*(read(*each) for each in some), site.write(number, through=through))
                    await site.observe(written=through)
                    site.check()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@example(story=[("reads", EVERYBODY), ("reads", BACKWARDS)])
@example(story=[("reads", BACKWARDS), ("write", (0, True)), ("reads", EVERYBODY), ("write", (4, True))])
@example(story=[("reads", EVERYBODY), ("write", (4, True)), ("write", (8, True)), ("reads", EVERYBODY)])
@example(
    story=[("reads", EVERYBODY), ("write", (4, False)), ("write", (8, False)), ("wait", 5.0), ("reads", EVERYBODY)]
)
@example(story=[("reads", EVERYBODY), ("write", (7, True)), ("write", (8, True)), ("reads", EVERYBODY)])
@example(story=[("together", (EVERYBODY, (3, True))), ("reads", BACKWARDS)])
@given(story=st.lists(events, max_size=10))
def test_every_answer_is_one_the_controller_gave_that_principal(story: list[tuple[str, Any]]) -> None:
    asyncio.run(play(story))


async def test_the_matrix_can_tell_a_leak() -> None:
    """The judge of the test above, given another's page."""
    async with matrix() as site:
        target = site.targets[0]
        answer = await site.ask("admin", "GET", target)
        site.judge(Got("global_auditor", target, "GET", 1, 0, *answer))
        with pytest.raises(AssertionError):
            site.judge(Got("space_developer", target, "GET", 1, 0, *answer))


async def test_the_matrix_can_tell_a_page_from_before_a_write() -> None:
    async with matrix() as site:
        target = site.targets[0]
        old = await site.ask("admin", "GET", target)
        await site.write(2, through=True)
        await site.observe(written=True)
        site.judge(Got("admin", target, "GET", 2, 0, *old))
        with pytest.raises(AssertionError):
            site.judge(Got("admin", target, "GET", 2, site.floors["admin", target], *old))


async def test_the_matrix_can_tell_a_page_that_is_too_old() -> None:
    async with matrix() as site:
        target = site.targets[0]
        old = await site.ask("admin", "GET", target)
        await site.write(2, through=False)
        await site.observe(written=False)
        site.now += TTL - 0.1
        site.judge(Got("admin", target, "GET", 2, 0, *old))
        site.now += 0.1
        with pytest.raises(AssertionError):
            site.judge(Got("admin", target, "GET", 2, 0, *old))


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
