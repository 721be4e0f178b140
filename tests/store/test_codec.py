"""Records of pages: what comes out is the page that went in, or nothing."""

from __future__ import annotations

import hmac

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.core.keys import CacheKey
from gateway.core.model import Fields
from gateway.pipeline.entry import Entry
from gateway.pipeline.ports import Stamp
from gateway.shared.seal import OVERHEAD, Sealer
from gateway.store.codec import CLOCK_SKEW, VERSION, PageCodec, Unusable, _Record

KEY = b"k" * 32
RULES = b"rules"
NOW = 1_700_000_000.0
CODEC = PageCodec(Sealer(KEY, "tests"))
STAMP = Stamp("epoch", 7)


def page(key: CacheKey | None = None, body: bytes = b'{"resources": []}', status: int = 200) -> Entry:
    return Entry(
        key=key or CacheKey("domain", "/v3/apps", "?page=1", "json"),
        fields=Fields([("Content-Type", "application/json"), ("X", "é")]),
        body=body,
        etag='"abc"',
        stored_at=NOW,
        fresh_until=NOW + 10,
        refresh_until=NOW + 20,
        error_until=NOW + 300,
        tags=("apps", "app:1cb006ee"),
        fetch_seconds=0.25,
        status=status,
        transformable=status == 200,
    )


text = st.text(max_size=20)
keys = st.builds(CacheKey, text, text, text, text)


@given(keys, st.binary(max_size=200), st.integers(0, 2**53), st.sampled_from([200, 404]))
def test_a_page_comes_out_as_it_went_in(key: CacheKey, body: bytes, generation: int, status: int) -> None:
    entry, stamp = page(key, body, status), Stamp("e", generation)
    record = CODEC.encode(entry, RULES, stamp)
    assert record is not None
    assert CODEC.decode(key, RULES, record, NOW) == (entry, stamp)


def test_a_page_whose_text_has_no_utf_8_is_not_encoded() -> None:
    entry = page()
    odd = Entry(**{name: getattr(entry, name) for name in entry.__slots__} | {"fields": Fields([("X", "\udcff")])})
    assert CODEC.encode(odd, RULES, STAMP) is None
    surrogate = CacheKey("d", "/\udcff", "", "json")
    record = CODEC.encode(page(surrogate), RULES, STAMP)
    assert record is not None  # keys are bytes already
    assert CODEC.decode(surrogate, RULES, record, NOW) == (page(surrogate), STAMP)


def test_every_field_of_a_page_is_in_its_record_but_for_encoded_forms() -> None:
    assert set(Entry.__slots__) - {"encoded"} <= {*_Record.__struct_fields__}


def test_every_single_bit_counts() -> None:
    record = CODEC.encode(page(), RULES, STAMP)
    assert record is not None
    for place in range(len(record) * 8):
        changed = bytearray(record)
        changed[place // 8] ^= 1 << place % 8
        assert CODEC.decode(page().key, RULES, bytes(changed), NOW) is Unusable.SEAL


def test_every_truncation_and_every_addition_is_noticed() -> None:
    record = CODEC.encode(page(), RULES, STAMP)
    assert record is not None
    for length in range(len(record)):
        assert CODEC.decode(page().key, RULES, record[:length], NOW) is Unusable.SEAL
    assert CODEC.decode(page().key, RULES, record + b"\0", NOW) is Unusable.SEAL


@given(keys, keys)
@example(CacheKey("ab", "c", "", ""), CacheKey("a", "bc", "", ""))
def test_a_record_is_none_under_another_key(one: CacheKey, other: CacheKey) -> None:
    record = CODEC.encode(page(one), RULES, STAMP)
    assert record is not None
    expected = (page(one), STAMP) if one == other else Unusable.SEAL
    assert CODEC.decode(other, RULES, record, NOW) == expected


@pytest.mark.parametrize(
    ("codec", "rules"),
    [
        pytest.param(PageCodec(Sealer(b"x" * 32, "tests")), RULES, id="another-operator"),
        pytest.param(PageCodec(Sealer(KEY, "others")), RULES, id="another-namespace"),
        pytest.param(CODEC, b"other", id="other-rules"),
    ],
)
def test_a_record_is_none_elsewhere(codec: PageCodec, rules: bytes) -> None:
    record = CODEC.encode(page(), RULES, STAMP)
    assert record is not None
    assert codec.decode(page().key, rules, record, NOW) is Unusable.SEAL
    assert codec.name(page().key, rules) != CODEC.name(page().key, RULES)


@given(st.binary(max_size=300))
@settings(max_examples=300)
def test_sealed_garbage_is_no_page_and_no_error(content: bytes) -> None:
    sealed = Sealer(KEY, "tests").seal(b"page" + RULES, page().key.encode(), content)
    assert CODEC.decode(page().key, RULES, sealed, NOW) is Unusable.FORM


def sealed_with(**changes: object) -> bytes:
    """A record that we sealed ourselves, with other contents."""
    record = CODEC.encode(page(), RULES, STAMP)
    assert record is not None
    values = msgspec.msgpack.decode(record[OVERHEAD:])
    names = ("version", "key", "epoch", "generation", "fields", "etag", "stored_at")
    for name, value in changes.items():
        values[names.index(name)] = value
    return Sealer(KEY, "tests").seal(b"page" + RULES, page().key.encode(), msgspec.msgpack.encode(values))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"version": VERSION + 1}, Unusable.FORM, id="version"),
        pytest.param({"version": "1"}, Unusable.FORM, id="type"),
        pytest.param({"key": b"other"}, Unusable.KEY, id="key"),
        pytest.param({"stored_at": NOW + CLOCK_SKEW + 1}, Unusable.CLOCK, id="future"),
    ],
)
def test_what_we_sealed_ourselves_is_judged_too(changes: dict[str, object], expected: Unusable) -> None:
    assert CODEC.decode(page().key, RULES, sealed_with(**changes), NOW) is expected


def test_a_clock_a_little_ahead_makes_no_page_from_the_future() -> None:
    decoded = CODEC.decode(page().key, RULES, sealed_with(stored_at=NOW + 1), NOW)
    assert not isinstance(decoded, Unusable)
    assert decoded[0].stored_at == NOW


def test_the_seal_is_hmac_sha256_and_needs_a_long_key() -> None:
    assert len(Sealer(KEY, "n").seal(b"p", b"s", b"")) == OVERHEAD == 4 + hmac.new(KEY, b"", "sha256").digest_size
    with pytest.raises(ValueError, match="32 bytes"):
        Sealer(b"short", "n")


def test_large_and_small_contents_are_sealed_alike() -> None:
    sealer = Sealer(KEY, "n")
    for size in (0, 1, (1 << 16) - 1, 1 << 16, 1 << 20):
        content = bytes(size)
        assert sealer.open(b"p", b"s", sealer.seal(b"p", b"s", content)) == content
        assert sealer.open(b"p", b"t", sealer.seal(b"p", b"s", content)) is None
