from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest
from aiohttp import web

from gateway.core.claims import ClaimPolicy
from gateway.core.model import Principal
from gateway.identity.assemble import Identity
from gateway.identity.keys import KeySet, from_pem, from_secret
from gateway.identity.sources import KeyRing, UrlSource, pause_before_fetch
from gateway.pipeline.ports import KeysUnavailableError, KeyUnknown, Rejected
from gateway.sandbox.people import person
from gateway.sandbox.uaa import Uaa


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def uaa() -> AsyncIterator[Uaa]:
    uaa = Uaa()
    await uaa.start()
    yield uaa
    await uaa.stop()


@pytest.fixture
async def clock() -> Clock:
    return Clock()


@pytest.fixture
async def ring(uaa: Uaa, clock: Clock) -> AsyncIterator[KeyRing]:
    ring = KeyRing(KeySet(), cooldown=10.0, monotonic=clock)
    ring.add(f"{uaa.url}/token_keys", interval=3600)
    await ring.start()
    yield ring
    await ring.stop()


def kids(ring: KeyRing) -> list[str | None]:
    return [key.kid for key in ring.current.keys]


async def test_keys_are_fetched_before_serving(ring: KeyRing, uaa: Uaa) -> None:
    assert kids(ring) == ["sandbox-key-1"]
    assert ring.fault is None
    assert uaa.token_keys_requests == 1


async def test_an_unknown_kid_leads_to_one_fetch(ring: KeyRing, uaa: Uaa) -> None:
    uaa.rotate()
    await ring.fetch_for("sandbox-key-2")
    assert set(kids(ring)) == {"sandbox-key-1", "sandbox-key-2"}


async def test_go_oidc_482_a_storm_of_bogus_kids_is_one_fetch(ring: KeyRing, uaa: Uaa, clock: Clock) -> None:
    await asyncio.gather(*(ring.fetch_for(f"bogus-{number}") for number in range(500)))
    for number in range(500):
        await ring.fetch_for(f"more-{number}")
    assert uaa.token_keys_requests == 2
    clock.now += 10
    await ring.fetch_for("later")
    assert uaa.token_keys_requests == 3


async def test_krakend_ce_687_a_failed_fetch_keeps_the_good_keys(ring: KeyRing, uaa: Uaa) -> None:
    uaa.down = True
    with pytest.raises(KeysUnavailableError):
        await ring.fetch_for("new")
    assert kids(ring) == ["sandbox-key-1"]
    assert ring.fault is None


async def test_envoy_13705_an_unknown_key_is_not_a_bad_token_while_uaa_is_down(
    ring: KeyRing, uaa: Uaa, clock: Clock
) -> None:
    uaa.down = True
    for _ in range(2):  # the second call is within the cool-down and fetches nothing
        with pytest.raises(KeysUnavailableError, match="503"):
            await ring.fetch_for("new")
    assert uaa.token_keys_requests == 1
    uaa.down = False
    clock.now += 10
    await ring.fetch_for("new")


async def test_a_retired_key_goes_with_the_next_fetch(ring: KeyRing, uaa: Uaa) -> None:
    uaa.rotate()
    uaa.retire_old()
    await ring.fetch_for("sandbox-key-2")
    assert kids(ring) == ["sandbox-key-2"]


async def test_an_unchanged_set_leaves_the_memo_alone(ring: KeyRing) -> None:
    before = ring.current
    await ring.fetch_for("bogus")
    assert ring.current is before


async def test_uaa_down_at_start_recovers_by_itself(uaa: Uaa) -> None:
    uaa.down = True
    ring = KeyRing(KeySet())
    ring.add(f"{uaa.url}/token_keys", interval=1)
    await ring.start()
    assert "503" in (ring.fault or "")
    uaa.down = False
    async with asyncio.timeout(10):
        while ring.fault is not None:
            await asyncio.sleep(0.05)
    assert kids(ring) == ["sandbox-key-1"]
    await ring.stop()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b'{"keys":[]}'),
        (200, b"<html>"),
        (200, b"x" * (2 << 20)),
        (302, b""),
        (404, b"{}"),
        (200, b'{"keys":[{"kty":"oct","k":"c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA"}]}'),
    ],
    ids=["an empty set", "not JSON", "huge", "a redirect", "not found", "a shared secret"],
)
async def test_what_is_no_usable_key_set_is_refused(status: int, body: bytes) -> None:
    async def answer(_: web.BaseRequest) -> web.Response:
        return web.Response(status=status, body=body, headers={"Location": "http://127.0.0.1:1/"})

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    ring = KeyRing(KeySet((from_secret(b"s" * 32, kid="static"),)))
    ring.add(f"http://127.0.0.1:{runner.addresses[0][1]}/token_keys", interval=3600)
    await ring.start()
    assert kids(ring) == ["static"]
    assert ring.sources[0].fault is not None
    await ring.stop()
    await runner.cleanup()


@pytest.mark.parametrize(
    ("interval", "failures", "seconds"),
    [
        pytest.param(300.0, 0, 300.0, id="all is well"),
        pytest.param(60.0, 1, 1.0, id="soon after the first failure"),
        pytest.param(60.0, 2, 2.0, id="doubling"),
        pytest.param(60.0, 5, 16.0, id="and doubling"),
        pytest.param(60.0, 7, 60.0, id="at most a minute"),
        pytest.param(300.0, 10_000, 60.0, id="after days of failures"),
    ],
)
def test_a_server_that_fails_is_asked_less_and_less(interval: float, failures: int, seconds: float) -> None:
    assert pause_before_fetch(interval, failures) == seconds


async def test_failures_are_counted_until_a_fetch_goes_well(ring: KeyRing, uaa: Uaa, clock: Clock) -> None:
    uaa.down = True
    for expected in (1, 2, 3):
        with pytest.raises(KeysUnavailableError):
            await ring.fetch_for("new")
        assert ring.sources[0].failures == expected
        clock.now += 10
    uaa.down = False
    await ring.fetch_for("new")
    assert ring.sources[0].failures == 0


Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[Handler], Awaitable[str]]]:
    """Starts servers of one handler."""
    runners: list[web.ServerRunner] = []

    async def start(handler: Handler) -> str:
        runner = web.ServerRunner(web.Server(handler), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        runners.append(runner)
        return f"http://127.0.0.1:{runner.addresses[0][1]}/token_keys"

    yield start
    for runner in runners:
        await runner.cleanup()


async def test_a_key_set_may_come_in_pieces(serve: Callable[[Handler], Awaitable[str]], uaa: Uaa) -> None:
    uaa.rotate()
    document = json.dumps({"keys": [key.jwk() for key in uaa._keys]}).encode()

    async def dribble(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for start in range(0, len(document), 500):
            await response.write(document[start : start + 500])
            for _ in range(20):
                await asyncio.sleep(0)  # lets the reader have this piece before the next
        return response

    ring = KeyRing(KeySet())
    ring.add(await serve(dribble), interval=3600)
    await ring.start()
    assert set(kids(ring)) == {"sandbox-key-1", "sandbox-key-2"}
    await ring.stop()


async def test_a_fetch_that_was_overtaken_brings_no_old_keys_back(
    serve: Callable[[Handler], Awaitable[str]], uaa: Uaa, http: aiohttp.ClientSession
) -> None:
    old = {"keys": [key.jwk() for key in uaa._keys]}
    uaa.rotate()
    uaa.retire_old()
    new = {"keys": [key.jwk() for key in uaa._keys]}
    arrived, released = asyncio.Event(), asyncio.Event()

    async def first_is_slow(_: web.BaseRequest) -> web.StreamResponse:
        if arrived.is_set():
            return web.json_response(new)
        arrived.set()
        await released.wait()
        return web.json_response(old)

    source = UrlSource(await serve(first_is_slow), interval=3600, allow_symmetric=False, on_change=lambda: None)
    slow = asyncio.create_task(source.fetch(http))
    await arrived.wait()
    assert await source.fetch(http)
    released.set()
    assert await slow
    assert [key.kid for key in source.keys.keys] == ["sandbox-key-2"]


async def test_stopping_ends_a_fetch_under_way(serve: Callable[[Handler], Awaitable[str]]) -> None:
    requests, arrived = [], asyncio.Event()

    async def second_hangs(_: web.BaseRequest) -> web.StreamResponse:
        requests.append(1)
        if len(requests) > 1:
            arrived.set()
            await asyncio.Event().wait()
        return web.Response(status=404)

    ring = KeyRing(KeySet())
    ring.add(await serve(second_hangs), interval=3600)
    await ring.start()
    waiter = asyncio.create_task(ring.fetch_for("kid"))
    await arrived.wait()
    fetching = ring._fetching
    assert fetching is not None
    await ring.stop()
    assert fetching.cancelled()
    with pytest.raises(asyncio.CancelledError):
        await waiter


async def test_a_redirect_is_not_followed_to_where_it_leads(
    serve: Callable[[Handler], Awaitable[str]], uaa: Uaa
) -> None:
    async def elsewhere(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": f"{uaa.url}/token_keys"})

    ring = KeyRing(KeySet())
    ring.add(await serve(elsewhere), interval=3600)
    await ring.start()
    assert ring.fault is not None
    assert "302" in ring.fault
    assert uaa.token_keys_requests == 0
    await ring.stop()


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://127.0.0.1:99999/", "http://[::1", "ftp://x/", "", "\0"])
async def test_no_failure_to_fetch_is_more_than_a_fault(url: str, http: aiohttp.ClientSession) -> None:
    """Anything that escaped would end the refreshing for good."""
    source = UrlSource(url, interval=3600, allow_symmetric=False, on_change=lambda: None)
    assert not await source.fetch(http)
    assert source.fault is not None
    assert source.failures == 1


async def test_even_the_unforeseen_is_only_a_fault(uaa: Uaa) -> None:
    session = aiohttp.ClientSession()
    await session.close()
    source = UrlSource(f"{uaa.url}/token_keys", interval=3600, allow_symmetric=False, on_change=lambda: None)
    assert not await source.fetch(session)
    assert source.fault == f"{uaa.url}/token_keys: RuntimeError"


async def test_one_key_given_with_and_without_its_algorithm_is_no_contradiction(uaa: Uaa) -> None:
    anyway = from_pem(uaa._keys[0].jwk()["value"].encode(), kid="sandbox-key-1")
    ring = KeyRing(KeySet((anyway,)))
    ring.add(f"{uaa.url}/token_keys", interval=3600)
    await ring.start()
    assert set(kids(ring)) == {"sandbox-key-1"}
    assert ring.current.refused == ()
    await ring.stop()


async def test_the_same_key_from_two_sources_is_one_key(uaa: Uaa) -> None:
    ring = KeyRing(KeySet())
    for _ in range(2):
        ring.add(f"{uaa.url}/token_keys", interval=3600)
    await ring.start()
    assert kids(ring) == ["sandbox-key-1"]
    assert ring.current.refused == ()
    await ring.stop()


async def test_one_id_given_differently_by_two_sources_is_nobodys(uaa: Uaa) -> None:
    ring = KeyRing(KeySet((from_secret(b"s" * 32, kid="sandbox-key-1"),)))
    ring.add(f"{uaa.url}/token_keys", interval=3600)
    await ring.start()
    assert kids(ring) == []
    assert ("sandbox-key-1", "given by two sources") in ring.current.refused
    await ring.stop()


class Described:
    """One entry of `auth.keys`."""

    secret = pem_file = jwks_file = kid = algorithms = None
    allow_short_secret = False
    refresh_interval = 3600.0

    def __init__(self, url: str) -> None:
        self.url = url


async def test_tyk_6378_rotation_loses_no_request(uaa: Uaa) -> None:
    """Before, while and after a rotation every honest token is accepted, each at its first use."""
    policy = ClaimPolicy(uaa.issuer, frozenset({"cloud_controller"}))
    identity = Identity([Described(f"{uaa.url}/token_keys")], policy)
    await identity.start()
    now = time.time()

    async def judged(token: str) -> Principal | Rejected | KeyUnknown:
        verdict = identity.verify(token, now)
        if isinstance(verdict, KeyUnknown):
            await identity.fetch_for(verdict.kid)
            verdict = identity.verify(token, now)
        return verdict

    old = uaa.mint(person("space_developer"))
    assert isinstance(await judged(old), Principal)
    uaa.rotate()
    new = uaa.mint(person("space_developer"))
    for token in (new, old, new, old):
        assert isinstance(await judged(token), Principal)
    await identity.stop()
