"""Mode `origin` through the shared store: RFC 9111 holds as if nothing were in between, and no secret goes there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import fields as fields_of
from dataclasses import replace
from itertools import count

import aiohttp
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.app import Gateway
from gateway.core.caching import StoredResponse
from gateway.core.freshness import Freshness, Source
from gateway.core.keys import CacheKey
from gateway.core.model import Fields
from gateway.pipeline.ports import Stamp
from gateway.pipeline.resource import Resource, Variant, merged
from gateway.settings import parse
from gateway.shared.seal import OVERHEAD, Sealer
from gateway.store import resources
from gateway.store.codec import CLOCK_SKEW, Unusable
from gateway.store.resources import decode, encode
from tests.e2e import test_http_cache as rfc
from tests.shared.pair import KEY
from tests.shared.servers import Server, eventually, server

SEALER = Sealer(KEY.encode(), "tests")
RULES = b"rules"
NOW = 1_700_000_000.0
TARGET = CacheKey("public", "/page", "?a=1", "origin")


def variant(body: bytes = b"content", **changes: object) -> Variant:
    life = Freshness(NOW - 3, NOW + 7, NOW + 20, NOW + 300, Source.MAX_AGE, stale_forbidden=True, validate_always=True)
    fields = Fields([("ETag", '"1"'), ("X", "é")])
    response = StoredResponse(203, fields, ("accept-encoding", "x"), ("gzip", None), life)
    return replace(Variant(response, body, 0.25, Stamp("epoch", 7)), **changes)


def resource(*variants: Variant) -> Resource:
    return Resource(TARGET, variants or (variant(), variant(b"other")), ("uri:5", "group:a"))


# -- records


instants = st.floats(NOW - 1000, NOW + 1000)
lives = st.builds(Freshness, st.floats(NOW - 1000, NOW), instants, instants, instants, st.sampled_from(Source))
text = st.text(max_size=20)
names = st.lists(st.tuples(text, st.none() | text), max_size=3)


@given(lives, names, st.binary(max_size=100), st.integers(0, 2**53), st.integers(200, 599))
def test_a_variant_comes_out_as_it_went_in(
    life: Freshness, named: list[tuple[str, str | None]], body: bytes, generation: int, status: int
) -> None:
    vary, selecting = tuple(name for name, _ in named), tuple(value for _, value in named)
    response = StoredResponse(status, Fields([("A", "b")]), vary, selecting, life)
    whole = resource(Variant(response, body, 1.5, Stamp("e", generation)), variant())
    record = encode(SEALER, whole, RULES)
    assert record is not None
    assert decode(SEALER, TARGET, RULES, record, NOW) == whole


def test_every_field_of_a_variant_is_in_its_record() -> None:
    recorded = set(resources._Variant.__struct_fields__)
    for one in (Variant, StoredResponse, Freshness, Stamp):
        assert {field.name for field in fields_of(one)} - {"response", "freshness", "stamp"} <= recorded


def test_every_single_bit_and_every_length_counts() -> None:
    record = encode(SEALER, resource(), RULES)
    assert record is not None
    for place in range(len(record) * 8):
        changed = bytearray(record)
        changed[place // 8] ^= 1 << place % 8
        assert decode(SEALER, TARGET, RULES, bytes(changed), NOW) is Unusable.SEAL
    for cut in range(len(record)):
        assert decode(SEALER, TARGET, RULES, record[:cut], NOW) is Unusable.SEAL


@pytest.mark.parametrize(
    ("sealer", "key", "rules"),
    [
        pytest.param(Sealer(b"x" * 32, "tests"), TARGET, RULES, id="another-operator"),
        pytest.param(Sealer(KEY.encode(), "others"), TARGET, RULES, id="another-namespace"),
        pytest.param(SEALER, TARGET._replace(domain="somebody"), RULES, id="another-domain"),
        pytest.param(SEALER, TARGET._replace(query="?a=2"), RULES, id="another-query"),
        pytest.param(SEALER, TARGET, b"other", id="other-rules"),
    ],
)
def test_a_record_is_none_elsewhere(sealer: Sealer, key: CacheKey, rules: bytes) -> None:
    record = encode(SEALER, resource(), RULES)
    assert record is not None
    assert decode(sealer, key, rules, record, NOW) is Unusable.SEAL


def sealed_with(**changes: object) -> bytes:
    """A record that we sealed ourselves, with other contents."""
    record = encode(SEALER, resource(), RULES)
    assert record is not None
    version, key, tags, variants = msgspec.msgpack.decode(record[OVERHEAD:])
    first = dict(zip(resources._Variant.__struct_fields__, variants[0], strict=True))
    values = [
        changes.get("version", version),
        changes.get("key", key),
        tags,
        changes.get("variants", [[changes.get(name, value) for name, value in first.items()]]),
    ]
    return SEALER.seal(b"resource" + RULES, TARGET.encode(), msgspec.msgpack.encode(values))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"version": 9}, Unusable.FORM, id="version"),
        pytest.param({"variants": []}, Unusable.FORM, id="none"),
        pytest.param({"source": "hearsay"}, Unusable.FORM, id="source"),
        pytest.param({"selecting": ["gzip"]}, Unusable.FORM, id="vary-and-selecting-differ"),
        pytest.param({"key": b"other"}, Unusable.KEY, id="key"),
        pytest.param({"born": NOW + CLOCK_SKEW + 1}, Unusable.CLOCK, id="future"),
    ],
)
def test_what_we_sealed_ourselves_is_judged_too(changes: dict[str, object], expected: Unusable) -> None:
    assert decode(SEALER, TARGET, RULES, sealed_with(**changes), NOW) is expected


@given(st.binary(max_size=300))
def test_sealed_garbage_is_nothing_and_no_error(content: bytes) -> None:
    sealed = SEALER.seal(b"resource" + RULES, TARGET.encode(), content)
    assert decode(SEALER, TARGET, RULES, sealed, NOW) is Unusable.FORM


# -- the RFC, with a process that forgets everything between any two requests


NAMESPACES = count()


@asynccontextmanager
async def talking(valkey: Server, gateways: int = 1, more: str = "") -> AsyncIterator[list[rfc.Conversation]]:
    """Gateways that share a store before one origin, each with a client."""
    time = [rfc.START]
    origin = rfc.Origin(lambda: time[0])
    listener = await asyncio.start_server(origin.serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    environ = {"ORIGIN_URL": f"http://127.0.0.1:{port}", "PORT": "0", "ADMIN_PORT": "0", "PUBLIC_URL": rfc.PUBLIC}
    section = f"""
shared_store: {{url: {valkey.url}, hmac_key: {KEY}, namespace: n{next(NAMESPACES)}, max_added_latency: 5s, lease: 10s}}
"""
    text = rfc.CONFIG.read_text(encoding="utf-8") + section + more
    made = [Gateway(parse(text, environ), clock=lambda: time[0]) for _ in range(gateways)]
    async with aiohttp.ClientSession(
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
    ) as client:
        for gateway in made:
            await gateway.start()
        try:
            for gateway in made:
                await eventually(gateway.sharing.invalidations.in_touch)
            yield [rfc.Conversation(gateway, origin, client, time) for gateway in made]
        finally:
            for gateway in made:
                await gateway.stop()
            listener.close()


async def settle(one: rfc.Conversation) -> None:
    await one.gateway.sharing.pages.drain()
    await one.gateway.sharing.invalidations.announced()


def forget(one: rfc.Conversation) -> None:
    """As if the process had been started anew."""
    for node in one.gateway.store.nodes():
        one.gateway.store.discard(node.entry.key)


@pytest.fixture(scope="module")
def valkey():
    """One server for all scenarios; its own loop starts it."""
    with asyncio.Runner() as runner:
        context = server()
        yield runner.run(context.__aenter__())
        runner.run(context.__aexit__(None, None, None))


ALL = [
    *rfc.FRESHNESS,
    *rfc.STATUS,
    *rfc.DIRECTIVES,
    *rfc.TARGETED,
    *rfc.CONDITIONAL,
    *rfc.UPDATE_304,
    *rfc.HEAD,
    *rfc.VARY,
    *rfc.INVALIDATION,
    *rfc.RANGES,
    *rfc.STALE,
    *rfc.OTHER,
]


# Where it makes a difference, and why.
DIFFERENT = {
    "9111-5.2.1.7-only-if-cached": "it asks what this process has",
    "9111-7.3-set-cookie-with-an-explicit-lifetime": "cookies stay where they are",
    "9111-3.2-304-Set-Cookie": "cookies stay where they are",
    "9111-5.2.2.4-no-cache-is-validated": "what each has to ask for is not looked for elsewhere for five seconds",
    "9111-4.3.1-nothing-stored-conditions-pass": "likewise behind an answer that is not stored",
    "9111-3.4-a-part-is-not-stored-but-passes": "likewise behind an answer that is not stored",
}


def test_the_differences_are_scenarios() -> None:
    assert {one.id for one in ALL} >= DIFFERENT.keys()


@pytest.mark.parametrize("steps", [one for one in ALL if one.id not in DIFFERENT])
async def test_the_rfc_holds_for_a_process_that_forgets_after_each_request(
    valkey: Server, steps: Sequence[rfc.Step]
) -> None:
    async with talking(valkey) as (one,):
        for number, step in enumerate(steps, 1):
            await one.step(step, f"step {number}")
            await settle(one)
            forget(one)


# -- two processes


async def test_what_one_has_stored_is_the_others_with_its_age_validator_and_variants(valkey: Server) -> None:
    async with talking(valkey, 2) as (one, two):
        plain = rfc.fresh(b"0123456789", ETag='"a"', Vary="Accept-Encoding", Age="2")
        packed = rfc.fresh(b"packed", ETag='"b"', Vary="Accept-Encoding", Content_Encoding="gzip")
        await one.step(rfc.Step(plain))
        await one.step(rfc.Step(packed, fields={"Accept-Encoding": "gzip"}))
        await settle(one)
        await two.step(rfc.hit(after=2.0, body=b"0123456789", got={"Age": "4"}, cache="gateway;hit;ttl=6"))
        await two.step(rfc.hit(body=b"packed", fields={"Accept-Encoding": "gzip"}, got={"Age": "2"}))
        forget(two)
        await two.step(rfc.hit(status=304, fields={"If-None-Match": '"a"'}))
        forget(two)
        await two.step(rfc.hit(status=206, body=b"234", fields={"Range": "bytes=2-4"}))
        forget(two)
        await two.step(rfc.hit(method="HEAD", got={"ETag": '"a"', "Content-Length": "10"}))


async def test_a_stale_one_is_validated_with_the_others_validator_and_the_confirmation_is_for_all(
    valkey: Server,
) -> None:
    async with talking(valkey, 2) as (one, two):
        await one.step(rfc.Step(rfc.fresh(b"first", ETag='"a"')))
        await settle(one)
        confirmed = rfc.says(status=304, ETag='"a"', Cache_Control="max-age=10")
        await two.step(rfc.Step(confirmed, after=15.0, body=b"first", sent={"If-None-Match": '"a"'}))
        await settle(two)
        forget(one)
        await one.step(rfc.hit(after=5.0, body=b"first"))


@pytest.mark.parametrize("directives", ["max-age=1, stale-if-error=100", "max-age=1"], ids=["5861-4", "no leave"])
async def test_the_others_stand_in_for_an_origin_that_fails_where_it_may(valkey: Server, directives: str) -> None:
    async with talking(valkey, 2) as (one, two):
        await one.step(rfc.Step(rfc.says(Cache_Control=directives, ETag='"a"')))
        await settle(one)
        status = 200 if "error" in directives else 503
        await two.step(rfc.Step(rfc.says(b"down", status=503), after=50.0, status=status))


async def test_a_write_through_one_voids_what_the_other_and_the_store_have(valkey: Server) -> None:
    async with talking(valkey, 2) as (one, two):
        await one.step(rfc.Step(rfc.fresh(b"first")))
        await settle(one)
        await two.step(rfc.hit(body=b"first"))
        await two.step(rfc.Step(rfc.says(status=204), method="PUT", status=204))
        await one.step(rfc.Step(rfc.fresh(b"second"), body=b"second"))
        await settle(one)
        await two.step(rfc.hit(body=b"second"))


async def test_what_a_write_made_void_does_not_come_back_beside_what_was_fetched_since(valkey: Server) -> None:
    """A process that has not heard of a write yet offers a new variant: its old one must not count as newer."""
    async with talking(valkey, 2) as (one, two):
        vary = {"Vary": "Accept-Language"}
        await one.step(rfc.Step(rfc.fresh(b"old-de", **vary), fields={"Accept-Language": "de"}))
        await settle(one)
        store = one.gateway.store
        (held,) = [node.entry for node in store.nodes()]
        await two.step(rfc.Step(rfc.says(status=204), method="PUT", status=204))
        await eventually(lambda: not store.nodes())
        store.put(held, generation=store.generation(held.tags))  # as if it had not heard
        await one.step(rfc.Step(rfc.fresh(b"new-en", **vary), fields={"Accept-Language": "en"}, body=b"new-en"))
        await settle(one)
        await two.step(rfc.hit(body=b"new-en", fields={"Accept-Language": "en"}))
        await two.step(rfc.Step(rfc.fresh(b"new-de", **vary), fields={"Accept-Language": "de"}, body=b"new-de"))


async def test_what_the_origins_answer_replaced_without_being_stored_is_not_found_in_the_store(valkey: Server) -> None:
    async with talking(valkey, 2) as (one, two):
        await one.step(rfc.Step(rfc.fresh(b"first", ETag='"a"')))
        await settle(one)
        gone = rfc.says(b"gone", status=404, Cache_Control="no-store")
        await one.step(rfc.Step(gone, status=404, fields={"Cache-Control": "no-cache"}))
        await one.step(rfc.Step(gone, status=404))
        await settle(one)
        await two.step(rfc.Step(gone, status=404))


@pytest.mark.parametrize(
    ("origin", "request_"),
    [
        pytest.param(rfc.says(b"sesame", Cache_Control="no-store"), {}, id="9111-5.2.2.5-no-store"),
        pytest.param(rfc.says(b"sesame", Cache_Control="private, max-age=10"), {}, id="9111-5.2.2.7-private"),
        pytest.param(rfc.fresh(b"sesame"), {"Authorization": "bearer sesame"}, id="9111-3.5-authorization"),
        pytest.param(
            rfc.fresh(b"x", Cache_Control="public, max-age=10", Vary="Authorization"),
            {"Authorization": "bearer sesame"},
            id="vary-authorization",
        ),
        pytest.param(rfc.fresh(b"x", Vary="Cookie"), {"Cookie": "id=sesame"}, id="vary-cookie"),
        pytest.param(
            rfc.fresh(b"x", Cache_Control="public, s-maxage=10", Set_Cookie="id=sesame"), {}, id="9111-7.3-set-cookie"
        ),
    ],
)
async def test_no_secret_goes_into_the_store(valkey: Server, origin: rfc.Says, request_: dict[str, str]) -> None:
    async with talking(valkey) as (one,):
        await one.step(rfc.Step(origin, fields=request_))
        await settle(one)
        async with valkey.client() as client:
            space = one.gateway.settings.shared_store.namespace
            names = await client.execute_command("KEYS", f"{space}:page:*")
            assert not [name for name in names if b"sesame" in await client.execute_command("GET", name)]
            assert names == []


async def test_requests_of_one_domain_never_find_those_of_another(valkey: Server) -> None:
    """The key that is sealed holds the visibility domain."""
    async with talking(valkey, 2) as (one, two):
        await one.step(rfc.Step(rfc.fresh(b"first")))
        await settle(one)
        pages = two.gateway.sharing.pages
        (node,) = one.gateway.store.nodes()
        mine, other = node.entry.key, node.entry.key._replace(domain="somebody")
        assert (await pages.find_resource(mine, ()))[0] is not None
        assert (await pages.find_resource(other, ()))[0] is None
        async with valkey.client() as client:  # even if the store hands it out
            record = await client.execute_command("GET", pages._name(mine))
            await client.execute_command("SET", pages._name(other), record)
        assert (await pages.find_resource(other, ()))[0] is None
        assert pages.counts["seal"] == 1


async def test_without_the_store_mode_origin_is_what_it_was() -> None:
    async with server() as own, talking(own) as (one,):
        own.kill()
        await eventually(lambda: not one.gateway.sharing.invalidations.in_touch())
        await one.step(rfc.Step(rfc.fresh(b"first"), body=b"first"))
        await one.step(rfc.Step(rfc.fresh(b"second"), body=b"second"))  # out of touch: nothing stored is served
        await one.step(rfc.Step(rfc.says(status=204), method="PUT", status=204))


def test_merged_takes_of_two_that_answer_the_same_the_younger() -> None:
    def aged(body: bytes, born: float, language: str) -> Variant:
        one = variant(body)
        life = replace(one.response.freshness, born=born)
        return replace(one, response=replace(one.response, freshness=life, selecting=(language, None)))

    here = resource(aged(b"de-2", 2, "de"), aged(b"en-1", 1, "en"))
    there = resource(aged(b"de-1", 1, "de"), aged(b"en-2", 2, "en"), aged(b"fr-3", 3, "fr"))
    assert {one.body for one in merged(here, there, 1 << 20).variants} == {b"en-2", b"de-2", b"fr-3"}
    assert [one.body for one in merged(here, there, 1).variants] == [b"fr-3"]
