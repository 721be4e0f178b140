"""The small parts of mode `origin`: what is kept together, remembered and bypassed, and how hits are written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.caching import StoredResponse
from gateway.core.freshness import Freshness, Source, State
from gateway.core.keys import CacheKey
from gateway.core.model import PUBLIC_DOMAIN, Fields, RequestHead, Target
from gateway.core.reuse import Action, Forwarded, Reuse
from gateway.core.variants import selecting
from gateway.pipeline import origin
from gateway.pipeline.exchange import Bypass, Exchange, Verdict
from gateway.pipeline.recent import Recent
from gateway.pipeline.resource import MAX_VARIANTS, Resource, Variant, tags_of_uri, with_variant
from gateway.store.memory import MemoryStore

T = 1_700_000_000.0
KEY = CacheKey("public", "/page", "", origin.KEY_VARIANT)
TAGS = tags_of_uri("/page")
NONE = Fields()


def variant(
    body: bytes = b"body", *, born: float = T, vary: str = "", request: Fields = NONE, **freshness: float
) -> Variant:
    names = (vary,) if vary else ()
    life = Freshness(born, born + 10, born + 10, born + 10, Source.MAX_AGE, **freshness)  # type: ignore[arg-type]
    return Variant(StoredResponse(200, Fields([("A", "b")]), names, selecting(request, names), life), body)


def foo(value: str) -> Fields:
    return Fields([("Foo", value)])


def add(resource: Resource | None, new: Variant, request: Fields, limit: int = 1 << 20) -> Resource:
    return with_variant(resource, new, request, key=KEY, tags=TAGS, limit=limit)


def test_variants_are_kept_side_by_side_and_replaced_one_by_one() -> None:
    one, two = variant(b"1", vary="foo", request=foo("1")), variant(b"2", vary="foo", request=foo("2"))
    again = variant(b"3", vary="foo", request=foo("1"))
    resource = add(add(None, one, foo("1")), two, foo("2"))
    assert resource.variants == (one, two)
    assert add(resource, again, foo("1")).variants == (two, again)
    everything = variant(b"4")
    assert add(resource, everything, foo("1")).variants == (two, everything)


def test_variants_are_bounded_in_number_and_bytes() -> None:
    resource = None
    for number in range(MAX_VARIANTS + 5):
        resource = add(resource, variant(vary="foo", request=foo(str(number))), foo(str(number)))
    assert resource is not None
    assert len(resource.variants) == MAX_VARIANTS
    assert resource.variants[0].response.selecting == ("5",)
    large = variant(b"x" * 3000, vary="foo", request=foo("large"))
    small = add(resource, large, foo("large"), limit=3 * 1100 + 3000)
    assert small.variants[-1] is large
    assert sum(one.size for one in small.variants) <= 3 * 1100 + 3000
    assert add(resource, large, foo("large"), limit=10).variants == (large,)


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=5))
def test_sizes_count_every_byte_of_content(bodies: list[bytes]) -> None:
    resource = Resource(KEY, tuple(variant(body) for body in bodies), TAGS)
    empty = Resource(KEY, tuple(variant(b"") for _ in bodies), TAGS)
    assert resource.size - empty.size == sum(map(len, bodies))
    assert empty.size > 1024 * len(bodies)


def test_a_variant_is_found_by_identity() -> None:
    one, two = variant(b"1"), variant(b"2")
    resource = Resource(KEY, (one, two), TAGS)
    assert resource.variant_of(two.response) is two
    with pytest.raises(LookupError):
        resource.variant_of(variant(b"1").response)
    assert resource.kept(lambda other: other is one) == Resource(KEY, (one,), TAGS)
    assert resource.kept(lambda _: False) is None


def test_tags_of_paths_are_a_closed_set() -> None:
    assert tags_of_uri("/page") == tags_of_uri("/page")
    assert tags_of_uri("/page") != tags_of_uri("/other")
    tags = {tag for number in range(100_000) for tag in tags_of_uri(f"/{number}")}
    assert len(tags) <= 1 << 16


def test_the_store_drops_a_resource_by_key_and_by_path() -> None:
    store = MemoryStore(max_bytes=1 << 20, max_entry_bytes=1 << 19)
    assert store.put(Resource(KEY, (variant(),), TAGS), generation=store.generation(TAGS)) is None
    assert store.discard(KEY)
    assert not store.discard(KEY)
    store.put(Resource(KEY, (variant(),), TAGS), generation=store.generation(TAGS))
    assert store.invalidate(tags_of_uri("/page")) == 1
    assert store.invalidations == {"uri": 1}, "a label of metrics names the kind, never the path"


def test_recent_forgets_by_time_by_number_and_when_told() -> None:
    recent = Recent(5.0, capacity=2)
    recent.note("a", T)
    assert recent.holds("a", T)
    assert recent.holds("a", T + 4.9)
    assert not recent.holds("a", T + 5)
    assert not recent.holds("a", T), "forgotten when found out of date"
    for key in "abc":
        recent.note(key, T)
    assert [recent.holds(key, T) for key in "abc"] == [False, True, True]
    assert len(recent) == 2
    assert not recent.holds("b", T - 1), "a clock that was set back"
    recent.forget("c")
    recent.forget("never noted")
    assert not recent.holds("c", T)


@pytest.mark.parametrize(
    ("method", "fields", "has_body", "expected"),
    [
        pytest.param("POST", {}, True, Bypass.METHOD, id="9111-3-method"),
        pytest.param("GET", {}, True, Bypass.CONTENT, id="9110-9.3.1-content"),
        pytest.param("GET", {"If-Match": '"a"'}, False, Bypass.PRECONDITION, id="9111-4.3.2-if-match"),
        pytest.param(
            "HEAD", {"If-Unmodified-Since": "x"}, False, Bypass.PRECONDITION, id="9111-4.3.2-if-unmodified-since"
        ),
        pytest.param("GET", {"Range": "bytes=0-", "Origin": "x", "Accept": "x", "Cookie": "x"}, False, None, id="none"),
    ],
)
def test_bypass(method: str, fields: dict[str, str], has_body: bool, expected: Bypass | None) -> None:
    assert origin.bypass(RequestHead(method, Target("/"), Fields(fields.items()), has_body=has_body)) is expected


@pytest.mark.parametrize(("one", "other"), [("a=1&b=2", "b=2&a=1"), (None, ""), ("a", "a="), ("a=%41", "a=A")])
def test_queries_that_differ_have_keys_that_differ(one: str | None, other: str | None) -> None:
    keys = {origin.key(RequestHead("GET", Target("/", query), Fields()), PUBLIC_DOMAIN) for query in (one, other)}
    assert len(keys) == 2


def looked_up(*variants: Variant, store_key: CacheKey = KEY, **fields: str) -> Exchange:
    exchange = Exchange(RequestHead("GET", Target("/page"), Fields(fields.items())), request_id="r", received_at=T)
    exchange.key = KEY

    class Store(MemoryStore):
        def get(self, key: CacheKey) -> Resource | None:
            return Resource(store_key, variants, TAGS) if variants else None

    origin.lookup(exchange, Store(max_bytes=1, max_entry_bytes=1), T + 1, chance=1.0)
    return exchange


def test_what_the_store_hands_out_under_another_key_is_a_miss() -> None:
    assert looked_up(variant()).verdict is Verdict.HIT
    wrong = looked_up(variant(), store_key=KEY._replace(domain="principal"))
    assert wrong.verdict is Verdict.MISS
    assert wrong.origin is not None
    assert wrong.origin.variant is None


def test_a_miss_has_no_variant() -> None:
    found = looked_up().origin
    assert found == origin.Lookup(None, Reuse(Action.FETCH, forwarded=Forwarded.URI_MISS))
    assert found.variant is None


def test_a_hit_that_validated_nothing_and_has_no_lookup_is_described_all_the_same() -> None:
    exchange = Exchange(RequestHead("GET", Target("/page"), Fields()), request_id="r", received_at=T)
    exchange.verdict = Verdict.MISS
    assert origin.describe(exchange, "gateway", None, T) == "gateway;fwd=miss"


@pytest.mark.parametrize(
    ("fields", "state", "expected"),
    [
        pytest.param({}, None, True, id="plain"),
        pytest.param({"Cache-Control": "no-cache"}, None, False, id="no-cache"),
        pytest.param({"Cache-Control": "no-store"}, None, False, id="no-store"),
        pytest.param({"Cache-Control": "max-age=0"}, None, False, id="max-age-0"),
        pytest.param({"Cache-Control": "max-age=5"}, None, True, id="max-age"),
        pytest.param({"Pragma": "no-cache"}, None, False, id="pragma"),
        pytest.param({"Range": "bytes=0-1"}, None, False, id="range"),
        pytest.param({"If-None-Match": '"a"'}, None, False, id="condition"),
        pytest.param({"If-None-Match": '"a"'}, State.STALE_NEEDS_VALIDATION, False, id="no-validator-stored"),
    ],
)
def test_collapsible(fields: dict[str, str], state: State | None, expected: bool) -> None:
    exchange = Exchange(RequestHead("GET", Target("/page"), Fields(fields.items())), request_id="r", received_at=T)
    if state is not None:
        stored = variant()
        reuse = Reuse(Action.VALIDATE, stored.response, state, Forwarded.STALE)
        exchange.origin = origin.Lookup(Resource(KEY, (stored,), TAGS), reuse)
    assert origin.collapsible(exchange, T) is expected
