"""UAA, its keys and the clock at fault: what clients get, that nothing else suffers, and that it recovers by itself."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from gateway.app import Gateway
from gateway.identity.sources import pause_before_fetch
from gateway.sandbox.people import person
from gateway.sandbox.uaa import Uaa
from gateway.settings import parse
from tests.conftest import SECRET, bearer

LIST = "/v3/processes"


class Keys:
    """A place for keys that behaves as it is told.

    Attributes:
        answer: what `GET /token_keys` is answered with; None for what the UAA says.
        asked: how often it was asked.
        released: while not set, no answer is given.
    """

    def __init__(self, uaa: Uaa) -> None:
        self.uaa = uaa
        self.url = ""
        self.answer: Callable[[], web.Response] | None = None
        self.asked = 0
        self.released = asyncio.Event()
        self.released.set()

    async def serve(self, _request: web.Request) -> web.Response:
        self.asked += 1
        await self.released.wait()
        if self.answer is not None:
            return self.answer()
        return web.json_response({"keys": [key.jwk() for key in self.uaa._keys]})


@pytest.fixture
async def uaa() -> AsyncIterator[Uaa]:
    """A UAA that signs; its keys are asked for elsewhere."""
    one = Uaa(lifetime=3600)
    await one.start()
    yield one
    await one.stop()


@pytest.fixture
async def keys(uaa: Uaa) -> AsyncIterator[Keys]:
    """Where the gateway asks for the UAA's keys."""
    place = Keys(uaa)
    app = web.Application()
    app.router.add_get("/token_keys", place.serve)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    place.url = "http://{}:{}/token_keys".format(*runner.addresses[0][:2])
    yield place
    place.released.set()
    await runner.cleanup()


Start = Callable[..., Awaitable[Gateway]]


@pytest.fixture
async def start(stub, uaa: Uaa, keys: Keys) -> AsyncIterator[Start]:
    """Starts a gateway that takes its keys from `keys`."""
    running: list[Gateway] = []
    stub.answers_json(b'{"pagination":{"total_results":0},"resources":[]}')

    async def begin(**options: Any) -> Gateway:
        text = f"""
listen: {{port: 0}}
admin: {{port: 0}}
public_url: https://gateway.example.org
drain: 1s
upstream: {{url: "{stub.url}", advertised_urls: ["https://api.internal.example.org"]}}
auth:
  issuer: {uaa.issuer}
  keys: [{{url: "{keys.url}"}}]
"""
        gateway = Gateway(parse(text, {}), **options)
        await gateway.start()
        running.append(gateway)
        return gateway

    yield begin
    keys.released.set()
    for gateway in running:
        await gateway.stop()


def holder(uaa: Uaa, **claims: Any) -> dict[str, str]:
    return {"Authorization": f"bearer {uaa.mint(person('admin'), **claims)}"}


async def get(
    http: aiohttp.ClientSession, gateway: Gateway, target: str, headers: dict[str, str] | None = None
) -> tuple[int, Any]:
    async with http.get(f"{gateway.url}{target}", headers=headers) as response:
        body = await response.read()
        return response.status, (json.loads(body)["errors"][0]["code"] if response.status >= 400 else None)


async def ready(http: aiohttp.ClientSession, gateway: Gateway) -> dict[str, str]:
    async with http.get(f"{gateway.admin_url}/readyz") as response:
        faults: dict[str, str] = (await response.json())["faults"]
        return faults


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await condition():
            await asyncio.sleep(0.02)


def down() -> web.Response:
    return web.Response(status=503, text="The UAA is down.\n")


# -- UAA down


async def test_uaa_down_at_the_start(start: Start, http, uaa: Uaa, keys: Keys) -> None:
    """The gateway starts, is not ready, fails tokens as the controller does (502 20004), and heals by itself."""
    keys.answer = down
    gateway = await start()
    assert "keys" in await ready(http, gateway)
    assert await get(http, gateway, LIST, holder(uaa)) == (502, 20004)
    assert await get(http, gateway, "/v3/info") == (200, None), "what needs no token is served"
    assert await get(http, gateway, LIST) == (401, 10002), "no token is no token, whoever is down"
    assert (await get(http, gateway, LIST, {"Authorization": "bearer x"}))[0] in {401, 502}
    keys.answer = None

    async def served() -> bool:
        return (await get(http, gateway, LIST, holder(uaa)))[0] == 200

    await until(served)
    assert "keys" not in await ready(http, gateway)


async def test_uaa_down_later_takes_no_good_key_away(start: Start, http, uaa: Uaa, keys: Keys) -> None:
    gateway = await start()
    assert await get(http, gateway, LIST, holder(uaa)) == (200, None)
    keys.answer = down
    await gateway.identity.ring._fetch_all(max_age=0.0)
    for _ in range(3):
        assert await get(http, gateway, LIST, holder(uaa)) == (200, None), "also for tokens not seen before"
    assert "keys" not in await ready(http, gateway)
    uaa.rotate()
    assert await get(http, gateway, LIST, holder(uaa)) == (502, 20004), "a key that cannot be asked for is no bad token"
    keys.answer = None
    gateway.identity.ring._asked_at = None  # the cool-down is over

    async def served() -> bool:
        return (await get(http, gateway, LIST, holder(uaa)))[0] == 200

    await until(served)


@pytest.mark.parametrize("failures", range(40))
def test_a_uaa_that_is_down_is_asked_again_within_a_minute_and_not_in_a_storm(failures: int) -> None:
    assert 1.0 <= pause_before_fetch(60.0, failures) <= 60.0


# -- UAA slow


async def test_a_slow_uaa_holds_up_only_those_who_wait_for_its_keys(start: Start, http, uaa: Uaa, keys: Keys) -> None:
    gateway = await start()
    known = holder(uaa)
    uaa.rotate()
    keys.released.clear()
    before = keys.asked
    waiting = [asyncio.create_task(get(http, gateway, LIST, holder(uaa))) for _ in range(20)]

    async def asked() -> bool:
        return keys.asked > before

    await until(asked)
    for _ in range(20):
        assert await get(http, gateway, LIST, known) == (200, None)
        assert await get(http, gateway, LIST, holder(uaa, aud=["x"]) | {"Authorization": "bearer x.y.z"}) == (401, 1000)
    assert not any(task.done() for task in waiting)
    keys.released.set()
    assert await asyncio.gather(*waiting) == [(200, None)] * 20
    assert keys.asked == before + 1, "one fetch for all who waited"


async def test_who_waits_for_keys_may_leave(start: Start, http, uaa: Uaa, keys: Keys) -> None:
    gateway = await start()
    uaa.rotate()
    keys.released.clear()
    waiting = [asyncio.create_task(get(http, gateway, LIST, holder(uaa))) for _ in range(5)]

    async def all_wait() -> bool:
        return gateway.metrics.registry.get_sample_value("gateway_requests_in_flight") == 5

    await until(all_wait)
    for task in waiting[:4]:
        task.cancel()
    await asyncio.gather(*waiting[:4], return_exceptions=True)
    keys.released.set()
    assert await waiting[4] == (200, None)


# -- rotation under load


async def test_keys_rotate_under_load_and_no_request_is_lost(start: Start, http, uaa: Uaa, keys: Keys) -> None:
    """The UAA lists a key and signs with it in the same moment; clients go on with old tokens for a while."""
    gateway = await start()
    ring = gateway.identity.ring
    now = 0.0
    ring._monotonic = lambda: now  # type: ignore[misc]  # each rotation comes when the cool-down of the last is over
    stopping = asyncio.Event()
    answers: list[tuple[int, Any]] = []

    async def client() -> None:
        held = holder(uaa)
        asked = 0
        while not stopping.is_set():
            asked += 1
            if asked % 3 == 0:
                held = holder(uaa)
            answers.append(await get(http, gateway, f"{LIST}?page={asked}", held))

    async def count(more: int) -> None:
        goal = len(answers) + more

        async def reached() -> bool:
            return len(answers) >= goal

        await until(reached)

    clients = [asyncio.create_task(client()) for _ in range(8)]
    for _ in range(5):
        await count(50)
        uaa.rotate()
        now += 11
        await count(100)
    stopping.set()
    await asyncio.gather(*clients)
    assert set(answers) == {(200, None)}
    assert len(answers) > 750
    assert keys.asked <= 7, "one fetch a rotation"


async def test_a_retired_key_stops_counting_with_the_next_fetch(start: Start, http, uaa: Uaa, keys: Keys) -> None:
    gateway = await start()
    old = holder(uaa)
    assert await get(http, gateway, LIST, old) == (200, None)
    uaa.rotate()
    uaa.retire_old()
    assert await get(http, gateway, LIST, holder(uaa)) == (200, None), "an unknown key: fetched at once"
    gateway.identity.ring._asked_at = None
    assert await get(http, gateway, LIST, old) == (401, 1000), "remembered, and refused all the same"


async def test_invented_kids_do_not_become_fetches(start: Start, http, uaa: Uaa, keys: Keys) -> None:
    """lua-resty-openidc#468, go-oidc#482."""
    gateway = await start()
    before = keys.asked
    for number in range(50):
        uaa._keys[0] = type(uaa._keys[0])(f"invented-{number}", uaa._keys[0].private)
        await get(http, gateway, LIST, holder(uaa))
    assert keys.asked <= before + 1


# -- garbage where keys should be

GARBAGE: dict[str, Callable[[], web.Response]] = {
    "HTML": lambda: web.Response(text="<html>Sign in</html>", content_type="text/html"),
    "nothing": lambda: web.Response(body=b""),
    "no JSON": lambda: web.Response(body=b"{"),
    "a list": lambda: web.json_response([]),
    "no keys": lambda: web.json_response({"keys": []}),
    "null": lambda: web.json_response({"keys": None}),
    "keys of nothing": lambda: web.json_response({"keys": [None, 1, "x", [], {}]}),
    "weak keys alone": lambda: web.json_response(
        {"keys": [{"kty": "oct", "k": "YQ"}, {"kty": "RSA", "n": "AQ", "e": "AQ"}]}
    ),
    "deep": lambda: web.Response(body=b'{"keys":' + b"[" * 100_000),
    "2 MB": lambda: web.Response(body=b" " * 2_000_000),
    "not UTF-8": lambda: web.Response(body=b'{"keys":["\xff\xfe"]}'),
    "elsewhere": lambda: web.Response(status=302, headers={"Location": "http://127.0.0.1:1/token_keys"}),
    "404": lambda: web.Response(status=404),
    "500": lambda: web.Response(status=500, text="no"),
    "compressed nonsense": lambda: web.Response(body=b"xx", headers={"Content-Encoding": "gzip"}),
}


@pytest.mark.parametrize("name", GARBAGE)
async def test_garbage_in_place_of_keys_changes_nothing(start: Start, http, uaa: Uaa, keys: Keys, name: str) -> None:
    gateway = await start()
    assert await get(http, gateway, LIST, holder(uaa)) == (200, None)
    keys.answer = GARBAGE[name]
    assert await gateway.identity.ring._fetch_all(max_age=0.0) is False
    assert await get(http, gateway, f"{LIST}?page=2", holder(uaa)) == (200, None)
    assert await get(http, gateway, LIST, {"Authorization": "bearer x"}) == (401, 1000)
    keys.answer = None
    assert await gateway.identity.ring._fetch_all(max_age=0.0) is True


@pytest.mark.parametrize("name", ["HTML", "no keys", "deep", "500"])
async def test_garbage_at_the_start_is_told_and_healed(start: Start, http, uaa: Uaa, keys: Keys, name: str) -> None:
    keys.answer = GARBAGE[name]
    gateway = await start()
    faults = await ready(http, gateway)
    assert keys.url in faults["keys"]
    keys.answer = None
    gateway.identity.ring._asked_at = None
    assert await get(http, gateway, LIST, holder(uaa)) == (200, None), "a token without any key asks for them"
    assert "keys" not in await ready(http, gateway)


# -- the clock


class Clock:
    """Epoch seconds that a test moves."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


async def clocked(stub, clock: Clock, extra: str = "") -> Gateway:
    gateway = Gateway(
        parse(
            f"""
listen: {{port: 0}}
admin: {{port: 0}}
public_url: https://gateway.example.org
drain: 1s
upstream: {{url: "{stub.url}", advertised_urls: ["https://api.internal.example.org"]}}
auth: {{keys: [{{secret: {SECRET}}}]}}
{extra}
""",
            {},
        ),
        clock=clock,
    )
    await gateway.start()
    return gateway


def page(number: int) -> bytes:
    return b'{"pagination":{"total_results":%d},"resources":[]}' % number


async def body(http: aiohttp.ClientSession, gateway: Gateway, headers: dict[str, str], target: str = LIST) -> bytes:
    async with http.get(f"{gateway.url}{target}", headers=headers) as response:
        assert response.status == 200
        return await response.read()


@pytest.mark.parametrize("jump", [-1.5, -60.0, -3600.0, -86_400.0 * 365, 6.0, 3600.0, 86_400.0])
async def test_a_page_is_not_served_for_longer_because_the_clock_jumped(stub, http, jump: float) -> None:
    """Set back by an hour, a page stored before would else be fresh for an hour and its ttl."""
    clock = Clock()
    gateway = await clocked(stub, clock)
    try:
        mine = bearer(exp=int(clock.now + 86_400 * 30))
        stub.answers_json(page(1))
        assert await body(http, gateway, mine) == await body(http, gateway, mine) == page(1)
        stub.answers_json(page(2))
        clock.now += jump
        assert await body(http, gateway, mine) == page(2)
        assert await body(http, gateway, mine) == page(2)
        stub.answers_json(page(3))
        assert await body(http, gateway, mine) == page(2), "cached as ever"
        clock.now += 5.1
        assert await body(http, gateway, mine) == page(3), "and no longer than ever"
    finally:
        await gateway.stop()


@pytest.mark.parametrize("jump", [-60.0, -3600.0, 301.0, 86_400.0])
async def test_origin_mode_keeps_its_word_when_the_clock_jumps(stub, http, jump: float) -> None:
    clock = Clock()
    gateway = await clocked(stub, clock, "routes: [{match: GET /files/*, access: public, cache: {mode: origin}}]")
    try:
        stub.answers_json(b'"one"', "Cache-Control: max-age=300")
        assert await body(http, gateway, {}, "/files/a") == await body(http, gateway, {}, "/files/a") == b'"one"'
        stub.answers_json(b'"two"', "Cache-Control: max-age=300")
        clock.now += jump
        assert await body(http, gateway, {}, "/files/a") == b'"two"'
        assert len([one for one in stub.received if "/files/a" in one.line]) == 2
        assert await body(http, gateway, {}, "/files/a") == b'"two"'
    finally:
        await gateway.stop()


async def test_a_jump_forward_ends_tokens_that_are_remembered(stub, http) -> None:
    clock = Clock()
    gateway = await clocked(stub, clock)
    try:
        mine = bearer(exp=int(clock.now + 600))
        assert await get(http, gateway, LIST, mine) == (200, None)
        clock.now += 601
        assert await get(http, gateway, LIST, mine) == (401, 1000)
        clock.now -= 601
        assert await get(http, gateway, LIST, mine) == (200, None)
    finally:
        await gateway.stop()


@pytest.mark.parametrize("jump", [-3600.0, 3600.0, -86_400.0 * 365])
async def test_rate_limits_lock_nobody_out_when_the_clock_jumps(stub, http, jump: float) -> None:
    clock = Clock()
    limits = "rate_limits: {policies: [{name: each, who: principal, limit: 5, window: 10s}]}"
    gateway = await clocked(stub, clock, limits)
    try:
        mine = bearer(exp=int(clock.now + 86_400 * 30))
        for _ in range(7):
            await get(http, gateway, "/v3/apps/x", mine)
        assert (await get(http, gateway, "/v3/apps/x", mine))[0] == 429
        clock.now += jump
        await get(http, gateway, "/v3/apps/x", mine)
        clock.now += 10.0
        assert await get(http, gateway, "/v3/apps/x", mine) == (200, None), "an emptied bucket's time at most"
    finally:
        await gateway.stop()


# -- the event loop


async def test_a_blocked_event_loop_is_seen_and_passes(stub, start_gateway, http) -> None:
    """Half a second in which nothing runs: who waits is answered afterwards, deadlines and lag come back to normal."""
    gateway = await start_gateway(stub.url, more_upstream="timeouts: {connect: 1s, head: 2s}")
    mine = bearer()
    assert await get(http, gateway, LIST, mine) == (200, None)
    waiting = [asyncio.create_task(get(http, gateway, f"/v3/apps/{number}", mine)) for number in range(20)]
    await asyncio.sleep(0)
    time.sleep(0.6)  # noqa: ASYNC251 - this is the fault
    assert await asyncio.gather(*waiting) == [(200, None)] * 20
    lag = [
        sample
        for family in gateway.metrics.registry.collect()
        for sample in family.samples
        if "loop" in sample.name and sample.name.endswith("_sum")
    ]
    assert await get(http, gateway, LIST, mine) == (200, None)
    assert lag
