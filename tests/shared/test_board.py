"""What processes tell each other that they learnt, over a real store: keys of the UAA, the controller's own origin."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec
import pytest

from gateway.app import Gateway
from gateway.core.model import Fields
from gateway.identity.keys import KeySet
from gateway.identity.sources import KeyRing
from gateway.pipeline.ports import UpstreamError
from gateway.sandbox.people import person
from gateway.sandbox.uaa import Uaa
from gateway.settings import parse
from gateway.shared.board import CLOCK_SKEW, LONGEST, Board, Notice
from gateway.shared.link import Link
from gateway.shared.options import Options
from gateway.shared.seal import Sealer
from gateway.upstream.client import Client, Timeouts
from gateway.upstream.origins import Origins
from tests.conftest import Stub
from tests.shared.pair import KEY
from tests.shared.servers import Server, eventually, server

KINDS = ("keys", "origin")
ISSUER = "https://uaa.example.org/oauth/token"


class Clock:
    """A clock of a machine of its own."""

    def __init__(self, ahead: float = 0.0) -> None:
        self.ahead = ahead

    def __call__(self) -> float:
        return time.time() + self.ahead


class Process:
    """What one of several processes has of the store."""

    def __init__(self, valkey: Server, key: str, clock: Callable[[], float]) -> None:
        options = Options(nodes=(("127.0.0.1", valkey.port),), retry_interval=0.05, max_added_latency=5.0)
        self.link = Link(options, probe_key="{gateway}:probe")
        self.board = Board(self.link, Sealer(key.encode(), "gateway"), "gateway", kinds=KINDS, clock=clock)
        self.rings: list[KeyRing] = []

    async def ring(self, uaa: Uaa, *, issuer: str = ISSUER, interval: float = 3600.0, **more: bool) -> KeyRing:
        ring = KeyRing(KeySet(), board=self.board, issuer=issuer)
        ring.add(f"{uaa.url}/token_keys", interval=interval, **more)
        self.rings.append(ring)
        await ring.start()
        await self.board.drain()
        return ring


@asynccontextmanager
async def processes(valkey: Server, *keys: str, clocks: tuple[Callable[[], float], ...] = ()) -> AsyncIterator[list]:
    """As many processes as keys are given."""
    all_clocks = clocks or (Clock(),) * len(keys)
    found = [Process(valkey, key, clock) for key, clock in zip(keys, all_clocks, strict=True)]
    try:
        for one in found:
            await one.link.start()
        yield found
    finally:
        for one in found:
            for ring in one.rings:
                await ring.stop()
            await one.board.drain()
            await one.link.stop()


@pytest.fixture
async def uaa() -> AsyncIterator[Uaa]:
    uaa = Uaa()
    await uaa.start()
    yield uaa
    await uaa.stop()


def kids(ring: KeyRing) -> set[str | None]:
    return {key.kid for key in ring.current.keys}


async def notice(valkey: Server) -> tuple[bytes, bytes]:
    """The only notice in a store, by name."""
    async with valkey.client() as client:
        names = [name for name in await client.execute_command("KEYS", "gateway:notice:*") if b":turn" not in name]
        (name,) = names
        return name, await client.execute_command("GET", name)


# -- keys


async def test_eight_processes_that_start_at_once_ask_the_uaa_once(uaa: Uaa) -> None:
    async with server() as valkey, processes(valkey, *[KEY] * 8) as all_:
        rings = await asyncio.gather(*(one.ring(uaa) for one in all_))
        assert uaa.token_keys_requests == 1
        assert all(kids(ring) == {"sandbox-key-1"} for ring in rings)
        assert sum(ring.sources[0].fetches["shared"] for ring in rings) == 7


async def test_after_a_rotation_one_asks_for_all_who_meet_the_new_kid(uaa: Uaa) -> None:
    async with server() as valkey, processes(valkey, *[KEY] * 4) as all_:
        rings = [await one.ring(uaa) for one in all_]
        new = uaa.rotate()
        await asyncio.gather(*(ring.fetch_for(new) for ring in rings))
        assert uaa.token_keys_requests == 2
        assert all(new in kids(ring) for ring in rings)


async def test_a_storm_of_bogus_kids_at_every_process_is_one_fetch(uaa: Uaa) -> None:
    async with server() as valkey, processes(valkey, *[KEY] * 4) as all_:
        rings = [await one.ring(uaa) for one in all_]
        for number in range(20):
            await asyncio.gather(*(ring.fetch_for(f"bogus-{number}") for ring in rings))
        assert uaa.token_keys_requests <= 2


async def test_a_retired_key_is_used_no_longer_than_if_this_process_had_fetched_it_then(uaa: Uaa) -> None:
    """The age of a set counts from the fetch and not from when it was taken from the store."""
    clock, other = Clock(), Clock()
    async with server() as valkey, processes(valkey, KEY, KEY, clocks=(clock, other)) as (one, two):
        await one.ring(uaa, interval=100.0)
        other.ahead = 90.0
        ring = await two.ring(uaa, interval=100.0)
        assert ring.sources[0].fetches["shared"] == 1
        assert 90.0 + CLOCK_SKEW <= ring.sources[0].lead < 100.0, "so it is fetched anew within the last seconds"
        other.ahead = 96.0  # older than that by at most 100 s, clocks that differ allowed for
        again = await two.ring(uaa, interval=100.0)
        assert again.sources[0].fetches == {"ok": 1, "failed": 0, "shared": 0}


async def test_an_older_set_is_never_taken_in_place_of_a_newer_one(uaa: Uaa) -> None:
    async with server() as valkey, processes(valkey, KEY, KEY) as (one, two):
        await one.ring(uaa)
        name, old = await notice(valkey)
        uaa.rotate()
        uaa.retire_old()
        ring = await two.ring(uaa)
        await ring.sources[0].fetch(ring._session)
        await two.board.drain()
        assert kids(ring) == {"sandbox-key-2"}
        await valkey.ask("SET", name, old)  # who has the store puts the old one back
        await ring.fetch_for("bogus")
        assert kids(ring) == {"sandbox-key-2"}


def forged(uaa: Uaa, kid: str) -> bytes:
    return json.dumps({"keys": [{**uaa._keys[0].jwk(), "kid": kid}]}).encode()


async def test_a_compromised_store_without_the_hmac_key_cannot_plant_a_signing_key(uaa: Uaa) -> None:
    attacker = Uaa()
    document = forged(attacker, "planted")
    subject = json.dumps([f"{uaa.url}/token_keys", ISSUER]).encode()
    now = time.time()
    theirs, ours = Sealer(b"a-key-that-the-attacker-has-made-up", "gateway"), Sealer(KEY.encode(), "gateway")
    elsewhere = Sealer(KEY.encode(), "another-namespace")
    record = msgspec.msgpack.encode((1, now, document))
    async with server() as valkey, processes(valkey, KEY, KEY) as (one, two):
        await one.ring(uaa)
        name, genuine = await notice(valkey)
        planted = {
            "plain": document,
            "unsealed": record,
            "own key": theirs.seal(b"notice keys", subject, record),
            "seal of another": genuine[:36] + record,
            "key swapped in": genuine.replace(b"sandbox-key-1", b"sandbox-key-9"),
            "cut": genuine[:-1],
            "longer": genuine + b" ",
            "a page": ours.seal(b"page", subject, record),
            "another kind": ours.seal(b"notice origin", subject, record),
            "another namespace": elsewhere.seal(b"notice keys", subject, record),
            "another UAA": ours.seal(
                b"notice keys", json.dumps(["https://evil.example.org/token_keys", ISSUER]).encode(), record
            ),
            "another issuer": ours.seal(
                b"notice keys", json.dumps([f"{uaa.url}/token_keys", "https://evil"]).encode(), record
            ),
            "another version": ours.seal(b"notice keys", subject, msgspec.msgpack.encode((2, now, document))),
            "from the future": ours.seal(b"notice keys", subject, msgspec.msgpack.encode((1, now + 600, document))),
            "of no time": ours.seal(b"notice keys", subject, msgspec.msgpack.encode((1, float("nan"), document))),
            "too old": ours.seal(b"notice keys", subject, msgspec.msgpack.encode((1, now - 3600, document))),
            "too long": ours.seal(b"notice keys", subject, bytes(LONGEST + 1000)),
            "pickled": b"\x80\x04cos\nsystem\n.",
            "empty": b"",
        }
        for case, bytes_ in planted.items():
            async with valkey.client() as client:
                await client.execute_command("SET", name, bytes_)
            before = uaa.token_keys_requests
            ring = await two.ring(uaa)
            assert kids(ring) == {"sandbox-key-1"}, case
            assert uaa.token_keys_requests == before + 1, case
            assert ring.sources[0].fetches["shared"] == 0, case


async def test_what_a_key_set_from_the_store_says_is_judged_like_one_from_the_uaa(uaa: Uaa) -> None:
    """Even with the operator's seal: no shared secret, no weak key, no empty set."""
    subject = json.dumps([f"{uaa.url}/token_keys", ISSUER]).encode()
    secret = {"kty": "oct", "kid": "planted", "k": "c2VjcmV0LXRoYXQtaXMtbG9uZy1lbm91Z2gtZm9yLWhzMjU2"}
    documents = [{"keys": [secret]}, {"keys": []}, {}, {"keys": [{**uaa._keys[0].jwk(), "use": "enc"}]}]
    async with server() as valkey, processes(valkey, KEY, KEY) as (one, two):
        for document in documents:
            content = json.dumps(document).encode()
            one.board.offer("keys", subject, content, learnt_at=time.time(), max_age=3600)
            await one.board.drain()
            assert kids(await two.ring(uaa)) == {"sandbox-key-1"}
        assert uaa.token_keys_requests == len(documents)


async def test_a_set_that_may_hold_secrets_is_not_put_into_the_store(uaa: Uaa) -> None:
    async with server() as valkey, processes(valkey, KEY) as (one,):
        await one.ring(uaa, allow_symmetric=True)
        assert await valkey.ask("KEYS", "gateway:notice:*") == []


async def test_gateways_with_other_hmac_keys_share_no_keys(uaa: Uaa) -> None:
    async with server() as valkey, processes(valkey, KEY, "the-key-of-somebody-else-altogether-here") as all_:
        for one in all_:
            await one.ring(uaa)
        assert uaa.token_keys_requests == 2


async def test_sets_for_other_issuers_are_others(uaa: Uaa) -> None:
    async with server() as valkey, processes(valkey, KEY, KEY) as (one, two):
        await one.ring(uaa)
        await two.ring(uaa, issuer="https://other.example.org/oauth/token")
        assert uaa.token_keys_requests == 2


async def test_who_fetches_in_vain_lets_the_next_one_try_at_once(uaa: Uaa) -> None:
    async with server() as valkey, processes(valkey, KEY, KEY) as (one, two):
        uaa.down = True
        failed = await one.ring(uaa)
        assert failed.fault
        uaa.down = False
        started = time.monotonic()
        assert (await two.ring(uaa)).fault is None
        assert time.monotonic() - started < 1.5, "nobody's turn is waited for"


async def test_while_the_uaa_is_down_a_process_starts_with_what_another_fetched(uaa: Uaa) -> None:
    async with server() as valkey, processes(valkey, KEY, KEY) as (one, two):
        await one.ring(uaa)
        uaa.down = True
        assert (await two.ring(uaa)).fault is None


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_without_the_store_each_fetches_for_itself(uaa: Uaa, how: str) -> None:
    async with server() as valkey, processes(valkey, KEY, KEY) as (one, two):
        for process in (one, two):
            object.__setattr__(process.link.options, "max_added_latency", 0.05)
        valkey.kill() if how == "killed" else valkey.freeze()
        for process in (one, two):
            assert (await process.ring(uaa)).fault is None
        assert uaa.token_keys_requests == 2
        if how == "frozen":
            valkey.thaw()


# -- the notices themselves


async def test_a_notice_comes_back_as_it_was_offered_and_is_gone_after_its_time() -> None:
    async with server() as valkey, processes(valkey, KEY, KEY) as (one, two):
        learnt_at = time.time()
        assert await one.board.find("origin", b"a", after=0, max_age=60) is None
        one.board.offer("origin", b"a", b"content", learnt_at=learnt_at, max_age=60)
        one.board.offer("origin", b"gone", b"content", learnt_at=learnt_at, max_age=0.2)
        one.board.offer("origin", b"large", bytes(LONGEST + 1), learnt_at=learnt_at, max_age=60)
        await one.board.drain()
        found = await two.board.find("origin", b"a", after=0, max_age=60)
        assert isinstance(found, Notice)
        assert (found.content, found.learnt_at) == (b"content", learnt_at)
        assert found.age >= CLOCK_SKEW
        assert await two.board.find("origin", b"a", after=learnt_at, max_age=60) is None
        await eventually(lambda: counted(valkey, 1))
        assert one.board.counts["origin", "not-stored"] == 1


async def counted(valkey: Server, number: int) -> bool:
    return len([name for name in await valkey.ask("KEYS", "gateway:notice:*") if b":turn" not in name]) == number


# -- the controller's own origin


def root(origin: str) -> bytes:
    return json.dumps({"links": {"self": {"href": origin}}}).encode()


@asynccontextmanager
async def learners(stub: Stub, *boards: Board, controllers: tuple[str, ...] = ("c",)) -> AsyncIterator[list[Origins]]:
    async with AsyncExitStack() as stack:
        found = []
        for board in boards:
            client = Client(stub.url, timeouts=Timeouts(1, 30, 30), connections=4)
            await client.start()
            stack.push_async_callback(client.stop)
            found.append(
                Origins(
                    public_url="https://gateway.example.org",
                    configured=(),
                    upstream=client,
                    fields=Fields((("Host", "api.example.org"),)),
                    board=board,
                    controllers=controllers,
                )
            )
            stack.push_async_callback(found[-1].stop)
        yield found


async def test_a_second_process_knows_the_advertised_origin_without_asking(stub: Stub) -> None:
    stub.answers_json(root("https://api.internal.example.org"))
    async with (
        server() as valkey,
        processes(valkey, KEY, KEY) as (one, two),
        learners(stub, one.board, two.board) as (first, second),
    ):
        await first.learn()
        await one.board.drain()
        asked = len(stub.received)
        rewriter = await second.rewriter()
        assert len(stub.received) == asked
        assert second.known == ("https://api.internal.example.org",)
        assert second.fault is None
        assert rewriter.location("https://api.internal.example.org/v3/apps") == "https://gateway.example.org/v3/apps"


async def test_an_advertised_origin_of_other_controllers_or_from_a_stranger_is_not_believed(stub: Stub) -> None:
    stub.answers_json(root("https://api.internal.example.org"))
    async with (
        server() as valkey,
        processes(valkey, KEY, KEY, "the-key-of-somebody-else-altogether-here") as (one, two, stranger),
        learners(stub, stranger.board) as (elsewhere,),
        learners(stub, one.board, controllers=("others",)) as (first,),
        learners(stub, two.board) as (second,),
    ):
        for one_ in (elsewhere, first):
            await one_.learn()
        async with valkey.client() as client:
            for name in await client.execute_command("KEYS", "gateway:notice:*"):
                if b":turn" not in name:
                    sealed = await client.execute_command("GET", name)
                    await client.execute_command("SET", two.board._name("origin", second._subject), sealed)
        await second.learn()
        assert second.known == ("https://api.internal.example.org",)
        assert len(stub.received) == 3


@pytest.mark.parametrize("content", [b"", b"[]", b'["ftp://x"]', b'[""]', b"{}", b"\xff", b"[1]", b'["https://\xff"]'])
async def test_a_notice_without_an_origin_is_none(stub: Stub, content: bytes) -> None:
    stub.answers_json(root("https://api.internal.example.org"))
    async with server() as valkey, processes(valkey, KEY) as (one,), learners(stub, one.board) as (learner,):
        one.board.offer("origin", learner._subject, content, learnt_at=time.time(), max_age=60)
        await one.board.drain()
        await learner.learn()
        assert learner.known == ("https://api.internal.example.org",)
        assert len(stub.received) == 1


async def test_the_controller_failing_is_told_as_before(stub: Stub) -> None:
    stub.answers_json(b"{}")
    async with server() as valkey, processes(valkey, KEY) as (one,), learners(stub, one.board) as (learner,):
        with pytest.raises(UpstreamError):
            await learner.learn()
        assert learner.fault
        assert (
            await valkey.ask("KEYS", "gateway:notice:*") == [] or await eventually(lambda: counted(valkey, 0)) is None
        )


# -- whole gateways


SETTINGS = """
listen: {{port: 0}}
admin: {{port: 0}}
public_url: https://gateway.example.org
drain: 1s
upstream: {{url: {upstream}}}
auth: {{issuer: {issuer}, keys: [{{url: {keys}}}]}}
shared_store: {{url: {store}, hmac_key: {key}, max_added_latency: 5s, {more}}}
"""


@pytest.mark.parametrize(("more", "asked"), [("", 1), ("share_keys: false", 2)], ids=["shared", "not shared"])
async def test_a_second_gateway_verifies_and_rewrites_from_its_first_answer_on(
    uaa: Uaa, stub: Stub, http, more: str, asked: int
) -> None:
    stub.answers_json(root("https://api.internal.example.org"))
    headers = {"Authorization": f"bearer {uaa.mint(person('admin'))}"}
    async with server() as valkey:
        text = SETTINGS.format(
            upstream=stub.url,
            issuer=uaa.issuer,
            keys=f"{uaa.url}/token_keys",
            store=valkey.url,
            key=KEY,
            more=more,
        )
        gateways = [Gateway(parse(text, {})) for _ in range(2)]
        started = []
        try:
            for gateway in gateways:
                await gateway.start()
                started.append(gateway)
                await gateway.sharing.board.drain()
            roots = [received for received in stub.received if received.line.startswith("GET / ")]
            assert len(roots) == 1
            assert uaa.token_keys_requests == asked
            async with http.get(f"{gateways[1].url}/v3/organizations", headers=headers) as response:
                assert response.status == 200
                links = (await response.json())["links"]
            assert links == {"self": {"href": "https://gateway.example.org"}}
        finally:
            for gateway in started:
                await gateway.stop()
