"""Cache keys: gateway/core/keys.py."""

import json
from pathlib import Path
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.keys import CacheKey, accept_class, canonical_query, shareable_query

RECORDINGS = Path(__file__).parents[2] / "../shared/recordings"


def exchanges(*groups):
    if not RECORDINGS.is_dir():
        pytest.skip("recordings not beside the checkout")
    lines = (RECORDINGS / "exchanges.jsonl").read_text(encoding="utf-8").splitlines()
    return [one for one in map(json.loads, lines) if one["group"] in groups]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("page=2&per_page=50", "per_page=50&page=2", id="order of parameters"),
        pytest.param("a=1&b=2&a=3", "b=2&a=1&a=3", id="around duplicates"),
        pytest.param("per%5Fpage=1&page=2", "page=2&per%5Fpage=1", id="escaped names sort as what they are"),
        pytest.param("b=1&created_ats[gt]=x", "created_ats[gt]=x&b=1", id="brackets"),
        pytest.param("b=1&created_ats%5Bgt%5D=x", "created_ats%5Bgt%5D=x&b=1", id="escaped brackets"),
        pytest.param("page&per_page=1", "per_page=1&page", id="a name alone (duplicates-022)"),
    ],
)
def test_one_page_one_key(one, other):
    assert canonical_query(one) == canonical_query(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("page=1", "page=2", id="values"),
        pytest.param("page=1&page=2", "page=2&page=1", id="controller.md §1 the last duplicate wins"),
        pytest.param("page=1&p%61ge=2", "p%61ge=2&page=1", id="duplicates-026 in another spelling"),
        pytest.param("page=1&pag%65=2", "pag%65=2&page=1", id="spelled with an escape at the end"),
        pytest.param("a[]=1&a[]=2", "a[]=2&a[]=1", id="lists"),
        pytest.param("a[x]=1&a[y]=2", "a[y]=2&a[x]=1", id="nested, order kept"),
        pytest.param("page=1&[page]=2", "[page]=2&page=1", id="Rack drops leading brackets"),
        pytest.param("page=1&page]=2", "page]=2&page=1", id="Rack drops a trailing bracket"),
        pytest.param("page=1&%5Bpage=2", "%5Bpage=2&page=1", id="also an escaped one"),
        pytest.param("a+b=1&a%20b=2", "a%20b=2&a+b=1", id="plus is a space in a name"),
        pytest.param("types=a%2Cb", "types=a,b", id="spelling of values is kept"),
        pytest.param(None, "", id="a bare question mark is its own"),
        pytest.param("a=1&b=2", "a=1%26b=2", id="an escaped separator is none"),
        pytest.param("a=b=c", "a%3Db=c", id="the first = ends the name"),
    ],
)
def test_two_pages_two_keys(one, other):
    assert canonical_query(one) != canonical_query(other)


NAME = st.sampled_from(["page", "per_page", "a", "p%61ge", "a[]", "a[x]", "created_ats%5Bgt%5D", "[a]", "b c", ""])
PAIRS = st.lists(st.tuples(NAME, st.sampled_from(["", "1", "2", "a,b", "%2C"])), max_size=6)


def spelled(pairs):
    return "&".join(f"{name}={value}" for name, value in pairs)


@given(PAIRS)
def test_the_canonical_query_holds_the_same_pairs_and_is_its_own_canon(pairs):
    canon = canonical_query(spelled(pairs))
    assert sorted(canon[1:].split("&")) == sorted(spelled(pairs).split("&"))
    assert canonical_query(canon[1:]) == canon


@given(st.data(), PAIRS)
def test_shuffling_keeps_the_key_only_if_the_last_of_each_name_stays_last(data, pairs):
    shuffled = data.draw(st.permutations(pairs))
    if canonical_query(spelled(pairs)) == canonical_query(spelled(shuffled)):
        plain = [dict(parse_qsl(spelled(one), keep_blank_values=True)) for one in (pairs, shuffled)]
        assert plain[0] == plain[1]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        pytest.param(None, True, id="none"),
        pytest.param("", True, id="empty"),
        pytest.param("page=2&per_page=50", True, id="plain"),
        pytest.param("types=web%2Cworker&created_ats%5Bgt%5D=2020-01-01T00:00:00Z", True, id="escapes"),
        pytest.param("types=a%00b", True, id="an escaped control is a value like others"),
        pytest.param("types=a%3Bb", True, id="an escaped semicolon separates nothing"),
        pytest.param("per_page=1;page=2", False, id="duplicates-016 semicolon separates"),
        pytest.param("types=é", False, id="malformed-044 raw byte"),
        pytest.param("types=a b", False, id="space"),
        pytest.param("types=a\tb", False, id="tab"),
        pytest.param("types=a\x7f", False, id="DEL"),
        pytest.param("a=%", False, id="malformed-027 lone percent"),
        pytest.param("a=%4", False, id="half an escape"),
        pytest.param("page=%zz", False, id="malformed-028"),
        pytest.param("access_token=x", False, id="RFC 6750 §2.3"),
        pytest.param("page=1&access_token", False, id="RFC 6750 §2.3 without a value"),
        pytest.param("page=1&acce%73s%5ftoken=x", False, id="RFC 6750 §2.3 escaped"),
        pytest.param("names=acce%73s_token", True, id="as a value it is nobody's token"),
    ],
)
def test_shareable_query(query, expected):
    assert shareable_query(query) is expected


def test_queries_with_one_key_had_one_answer():
    """No two recorded pages of one principal that differ share a key."""
    pages = {}
    for one in exchanges("list", "filters", "labels", "duplicates", "errors"):
        path, mark, query = one["request"]["target"].partition("#")[0].partition("?")
        if one["request"]["method"] == "GET" and one["response"]["status"] == 200 and shareable_query(query):
            key = CacheKey(one["principal"], path, canonical_query(query if mark else None), "json")
            pages.setdefault(key, set()).add(one["response"]["body"])
    assert len(pages) > 100
    assert all(len(bodies) == 1 for bodies in pages.values())


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param([], "json", id="absent (protocol-061)"),
        pytest.param(["application/json"], "json", id="JSON"),
        pytest.param(["*/*"], "json", id="anything (protocol-052)"),
        pytest.param(["application/*"], "json", id="any application type"),
        pytest.param(["Application/JSON"], "json", id="RFC 9110 §8.3.1 case does not matter"),
        pytest.param(["application/json;q=0.5, text/html"], "json", id="protocol-055"),
        pytest.param(["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"], "json", id="protocol-060"),
        pytest.param(["text/html", "application/json"], "json", id="RFC 9110 §5.3 two fields are one list"),
        pytest.param(["application/json; charset=utf-8; q=1.0"], "json", id="parameters"),
        pytest.param(["text/html"], None, id="protocol-053 JSON is not asked for"),
        pytest.param(["application/vnd.api+json"], None, id="protocol-056"),
        pytest.param(["garbage"], None, id="protocol-057 is 406"),
        pytest.param(["garbage, application/json"], None, id="garbage beside JSON"),
        pytest.param([""], None, id="protocol-058 empty"),
        pytest.param(["application/json,"], None, id="empty member"),
        pytest.param(["application/json;q=0"], None, id="RFC 9110 §12.4.2 not acceptable"),
        pytest.param(["application/json;q=0.000"], None, id="not acceptable, in full"),
        pytest.param(["application/json; Q=0.0 ,text/html"], None, id="not acceptable, in capitals"),
        pytest.param(["application/json;q=0.001"], "json", id="barely acceptable"),
        pytest.param(["image/*;q=0"], None, id="protocol-059"),
        pytest.param(['text/html;x="a,application/json"'], None, id="quoted strings go past the cache"),
        pytest.param(["*/json"], None, id="no such range"),
    ],
)
def test_accept_class(values, expected):
    assert accept_class(values) == expected


def test_what_is_answered_from_the_cache_was_200_when_recorded():
    seen = 0
    for one in exchanges("protocol"):
        values = [value for name, value in one["request"].get("headers") or () if name == "Accept"]
        if one["name"].endswith(" Accept") and accept_class(values) == "json":
            assert one["response"]["status"] == 200
            seen += 1
    assert seen >= 3


TEXT = st.text(max_size=12)
KEY = st.builds(CacheKey, TEXT, TEXT, TEXT, TEXT)


@given(KEY, KEY)
def test_encoding_is_injective(one, other):
    assert (one.encode() == other.encode()) == (one == other)


@given(TEXT, TEXT, st.integers(0, 12))
def test_no_part_of_an_encoded_key_can_imitate_a_border(domain, path, cut):
    joined = domain + path
    moved = CacheKey(joined[:cut], joined[cut:], "", "")
    key = CacheKey(domain, path, "", "")
    assert (key.encode() == moved.encode()) == (key == moved)


def test_undecodable_characters_stay_distinct():
    assert CacheKey("d", "/\udce9", "", "").encode() != CacheKey("d", "/\udcea", "", "").encode()


@pytest.mark.parametrize("part", ["domain", "path", "query", "variant"])
def test_every_part_makes_another_key(part):
    key = CacheKey("d", "/p", "?q", "json")
    assert key._replace(**{part: "x"}) != key
    assert len({key, key._replace(**{part: "x"}), CacheKey("d", "/p", "?q", "json")}) == 2
