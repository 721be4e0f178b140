"""Conditional requests (RFC 9110 §13, RFC 9111 §4.3.2) and minted entity-tags."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.conditional import (
    Precondition,
    evaluate,
    matching,
    mint_etag,
    not_modified_fields,
    range_applies,
)
from gateway.core.model import Fields

NOW = 1_785_585_600.0
EARLY, DAY, LATE = (
    "Sun, 05 Nov 1994 08:49:37 GMT",
    "Mon, 06 Nov 1994 08:49:37 GMT",
    "Tue, 07 Nov 1994 08:49:37 GMT",
)
PROCEED, NOT_MODIFIED, FAILED = Precondition.PROCEED, Precondition.NOT_MODIFIED, Precondition.FAILED

STRONG = {"ETag": '"x"', "Last-Modified": DAY}
WEAK = {"ETag": 'W/"x"', "Last-Modified": DAY}


@pytest.mark.parametrize(
    ("request_fields", "stored", "expected"),
    [
        pytest.param({}, STRONG, PROCEED, id="13.2.1-unconditional"),
        pytest.param({"If-None-Match": '"x"'}, STRONG, NOT_MODIFIED, id="13.1.2-same"),
        pytest.param({"If-None-Match": '"y"'}, STRONG, PROCEED, id="13.1.2-different"),
        pytest.param({"If-None-Match": '"y", W/"x"'}, STRONG, NOT_MODIFIED, id="13.1.2-weak-comparison"),
        pytest.param({"If-None-Match": '"x"'}, WEAK, NOT_MODIFIED, id="13.1.2-weak-stored"),
        pytest.param({"If-None-Match": "*"}, STRONG, NOT_MODIFIED, id="13.1.2-any"),
        pytest.param({"If-None-Match": "*"}, {}, NOT_MODIFIED, id="13.1.2-any-without-a-tag"),
        pytest.param({"If-None-Match": '"x"'}, {}, PROCEED, id="13.1.2-nothing-to-compare"),
        pytest.param({"If-None-Match": "x"}, {"ETag": "x"}, PROCEED, id="13.1.2-unquoted-is-no-tag"),
        pytest.param(
            {"If-None-Match": '"y"', "If-Modified-Since": LATE}, STRONG, PROCEED, id="13.2.2-3-none-match-over-modified"
        ),
        pytest.param(
            {"If-None-Match": '"x"', "If-Modified-Since": EARLY},
            STRONG,
            NOT_MODIFIED,
            id="13.2.2-3-and-when-it-matches",
        ),
        pytest.param({"If-Modified-Since": DAY}, STRONG, NOT_MODIFIED, id="13.1.3-same"),
        pytest.param({"If-Modified-Since": LATE}, STRONG, NOT_MODIFIED, id="13.1.3-later"),
        pytest.param({"If-Modified-Since": EARLY}, STRONG, PROCEED, id="13.1.3-earlier"),
        pytest.param({"If-Modified-Since": "Monday, 06-Nov-94 08:49:37 GMT"}, STRONG, NOT_MODIFIED, id="13.1.3-rfc850"),
        pytest.param({"If-Modified-Since": "tomorrow"}, STRONG, PROCEED, id="13.1.3-no-date"),
        pytest.param({"If-Modified-Since": DAY}, {"Date": EARLY}, NOT_MODIFIED, id="9111-4.3.2-date-stands-in"),
        pytest.param({"If-Modified-Since": EARLY}, {"Date": DAY}, PROCEED, id="9111-4.3.2-date-too-late"),
        pytest.param({"If-Modified-Since": DAY}, {}, PROCEED, id="9111-4.3.2-nothing-to-compare"),
        pytest.param({"If-Match": '"x"'}, STRONG, PROCEED, id="13.1.1-same"),
        pytest.param({"If-Match": '"y"'}, STRONG, FAILED, id="13.1.1-different"),
        pytest.param({"If-Match": "*"}, {}, PROCEED, id="13.1.1-any"),
        pytest.param({"If-Match": 'W/"x"'}, WEAK, FAILED, id="13.1.1-strong-comparison"),
        pytest.param({"If-Match": '"x"'}, {}, FAILED, id="13.1.1-nothing-to-compare"),
        pytest.param({"If-Match": '"y"', "If-None-Match": '"x"'}, STRONG, FAILED, id="13.2.2-1-match-first"),
        pytest.param({"If-Match": '"x"', "If-None-Match": '"x"'}, STRONG, NOT_MODIFIED, id="13.2.2-1-then-none-match"),
        pytest.param({"If-Unmodified-Since": DAY}, STRONG, PROCEED, id="13.1.4-same"),
        pytest.param({"If-Unmodified-Since": EARLY}, STRONG, FAILED, id="13.1.4-modified"),
        pytest.param({"If-Unmodified-Since": "tomorrow"}, STRONG, PROCEED, id="13.1.4-no-date"),
        pytest.param({"If-Unmodified-Since": EARLY}, {}, PROCEED, id="13.1.4-nothing-to-compare"),
        pytest.param(
            {"If-Match": '"x"', "If-Unmodified-Since": EARLY}, STRONG, PROCEED, id="13.2.2-2-match-over-unmodified"
        ),
    ],
)
def test_precedence_9110_13_2_2(request_fields, stored, expected):
    for method in ("GET", "HEAD"):
        assert evaluate(method, Fields(request_fields.items()), Fields(stored.items()), NOW) is expected


def test_other_methods_fail_where_reading_is_not_modified_9110_13_2_2():
    stored = Fields(STRONG.items())
    assert evaluate("PUT", Fields([("If-None-Match", "*")]), stored, NOW) is FAILED
    assert evaluate("PUT", Fields([("If-Modified-Since", LATE)]), stored, NOW) is PROCEED


def test_two_dates_are_no_date_9110_13_1_3():
    twice = Fields([("If-Modified-Since", LATE), ("If-Modified-Since", LATE)])
    assert evaluate("GET", twice, Fields(STRONG.items()), NOW) is PROCEED


@pytest.mark.parametrize(
    ("values", "etag", "expected"),
    [
        pytest.param([], '"x"', False, id="absent"),
        pytest.param(['"x"'], '"x"', True, id="the-one"),
        pytest.param(['W/"x"'], '"x"', True, id="weakened-on-the-way"),
        pytest.param(['"y", "x"'], '"x"', True, id="in-a-list"),
        pytest.param(['"y"', '"x"'], '"x"', True, id="on-another-line"),
        pytest.param(['"y"'], '"x"', False, id="another"),
        pytest.param(["x"], '"x"', False, id="unquoted"),
        pytest.param(["*"], '"x"', False, id="any"),
        pytest.param([""], '"x"', False, id="empty"),
    ],
)
def test_not_modified_of_policy_pages(values, etag, expected):
    assert (matching(values, (etag,)) is not None) is expected


@pytest.mark.parametrize(
    ("values", "etags", "found"),
    [
        pytest.param(['"a-gzip"'], ('"a"', '"a-gzip"'), '"a-gzip"', id="that-of-a-coding"),
        pytest.param(['"a", "a-gzip"'], ('"a-gzip"', '"a"'), '"a-gzip"', id="the-best-of-several"),
        pytest.param(['W/"a-gzip"'], ('"a"', '"a-gzip"'), '"a-gzip"', id="weakened-and-answered-as-it-is"),
        pytest.param(['"a-br"'], ('"a"', '"a-gzip"'), None, id="of-a-coding-that-is-not-taken"),
        pytest.param(["*"], ('"a"', '"a-gzip"'), None, id="any"),
    ],
)
def test_one_of_several_entity_tags(values: list[str], etags: tuple[str, ...], found: str | None) -> None:
    assert matching(values, etags) == found


def test_policy_pages_treat_preconditions_as_the_controller_does():
    recordings = Path(__file__).parents[3] / "shared" / "recordings" / "exchanges.jsonl"
    if not recordings.exists():
        pytest.skip("recordings not beside the checkout")
    seen = 0
    for line in recordings.read_text(encoding="utf-8").splitlines():
        exchange = json.loads(line)
        values = [value for name, value in exchange["request"].get("headers", ()) if name.lower() == "if-none-match"]
        if values:
            seen += 1
            modified = matching(values, (mint_etag(exchange["response"]["body"].encode()),)) is None
            assert exchange["response"]["status"] == 200
            assert modified
    assert seen >= 2


@pytest.mark.parametrize(
    ("if_range", "stored", "expected"),
    [
        pytest.param(None, STRONG, True, id="13.1.5-absent"),
        pytest.param('"x"', STRONG, True, id="13.1.5-same"),
        pytest.param('"y"', STRONG, False, id="13.1.5-different"),
        pytest.param('W/"x"', WEAK, False, id="13.1.5-strong-comparison"),
        pytest.param('"x"', WEAK, False, id="13.1.5-stored-weak"),
        pytest.param('"x"', {}, False, id="13.1.5-nothing-to-compare"),
        pytest.param('"x", "y"', STRONG, False, id="13.1.5-a-list"),
        pytest.param(DAY, {**STRONG, "Date": LATE}, True, id="13.1.5-date"),
        pytest.param(LATE, {**STRONG, "Date": LATE}, False, id="13.1.5-date-exactly"),
        pytest.param(DAY, STRONG, False, id="13.1.5-date-without-date-is-weak"),
        pytest.param(
            DAY, {"Last-Modified": DAY, "Date": "Mon, 06 Nov 1994 08:50:36 GMT"}, False, id="8.8.2.2-59-seconds-is-weak"
        ),
        pytest.param(
            DAY,
            {"Last-Modified": DAY, "Date": "Mon, 06 Nov 1994 08:50:37 GMT"},
            True,
            id="8.8.2.2-60-seconds-is-strong",
        ),
        pytest.param("garbage", STRONG, False, id="13.1.5-garbage"),
    ],
)
def test_range_applies(if_range, stored, expected):
    request = Fields([] if if_range is None else [("If-Range", if_range)])
    assert range_applies(request, Fields(stored.items()), NOW) is expected


def test_two_if_ranges_mean_the_whole_9110_13_1_5():
    assert not range_applies(Fields([("If-Range", '"x"'), ("If-Range", '"x"')]), Fields(STRONG.items()), NOW)


def test_fields_of_a_304_9110_15_4_5():
    stored = [
        ("Content-Type", "text/plain"), ("Date", DAY), ("ETag", '"x"'), ("Vary", "a"), ("Cache-Control", "max-age=1"),
        ("Last-Modified", DAY), ("Content-Location", "/a"), ("Expires", DAY), ("X-Other", "1"),
        ("CDN-Cache-Control", "max-age=2"),
    ]  # fmt: skip
    assert [name for name, _ in not_modified_fields(Fields(stored))] == [
        "Date", "ETag", "Vary", "Cache-Control", "Content-Location", "Expires", "CDN-Cache-Control",
    ]  # fmt: skip
    assert "last-modified" in not_modified_fields(Fields(stored).without("etag"))


@given(st.binary(max_size=64), st.binary(max_size=64))
def test_minted_tags_are_strong_and_tell_contents_apart(one, other):
    assert re.fullmatch(r'"[0-9a-f]{32}"', mint_etag(one))
    assert (mint_etag(one) == mint_etag(other)) == (one == other)
    assert (matching([mint_etag(one)], (mint_etag(other),)) is not None) == (one == other)


@given(st.lists(st.text(max_size=30), max_size=3), st.text(max_size=12))
def test_no_text_raises(values, etag):
    assert matching(values, (etag,)) in {None, etag}
    names = ("If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range")
    request = Fields([(name, value) for value in values for name in names])
    stored = Fields([("ETag", etag), ("Last-Modified", etag), ("Date", etag)])
    assert evaluate("GET", request, stored, NOW) in Precondition
    range_applies(request, stored, NOW)
