"""HTTP field grammar: lists, numbers, dates, entity-tags, Cache-Control, targeted fields, Vary, Age."""

import time
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.dates import format_date, http_date
from gateway.core.etags import ANY, ETag, entity_tag, entity_tags, strong_match, weak_match
from gateway.core.fields import (
    DELTA_MAX,
    NO_DIRECTIVES,
    VARY_ANY,
    Directives,
    age,
    cache_control,
    delta_seconds,
    split_list,
    targeted,
    unquote,
    vary_names,
)
from gateway.core.model import Fields

NOW = datetime(2026, 8, 1, 12, tzinfo=UTC).timestamp()
TEXT = st.text(alphabet=st.characters(max_codepoint=0x2FF), max_size=60)
HEADERISH = st.text(alphabet='max-ge=no,"\\*/W;: \t0123456789xyz@?%()', max_size=60)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param(["a, b"], ["a", "b"], id="9110-5.6.1-two"),
        pytest.param(["a", "b ,c"], ["a", "b", "c"], id="9110-5.3-lines-combine"),
        pytest.param([", a,, ,b,"], ["a", "b"], id="9110-5.6.1.2-empty-members-ignored"),
        pytest.param(["\t a\t,b "], ["a", "b"], id="9110-5.6.3-ows"),
        pytest.param(['x="a, b", c'], ['x="a, b"', "c"], id="9110-5.6.4-comma-in-quotes"),
        pytest.param([r'x="a\", b", c'], [r'x="a\", b"', "c"], id="9110-5.6.4-escaped-quote"),
        pytest.param(['x="a, no-store'], ['x="a', "no-store"], id="9110-5.6.4-unclosed-quote-hides-nothing"),
        pytest.param(['a, x="b\\"'], ["a", 'x="b\\"'], id="9110-5.6.4-quote-closed-by-an-escape-is-open"),
        pytest.param(['x="', 'a, b"'], ['x="', "a", 'b"'], id="9110-5.6.4-quotes-do-not-span-lines"),
        pytest.param([], [], id="9110-5.6.1-none"),
    ],
)
def test_split_list(values, expected):
    assert split_list(values) == expected


def test_split_list_keeps_empty_members_on_request():
    assert split_list(["a,, b"], keep_empty=True) == ["a", "", "b"]


@given(st.lists(st.sampled_from(["a", "b=1", 'c="x, y"', r'd="\""', "W/x"]), max_size=8))
def test_split_list_undoes_joining(members):
    assert split_list([" ,\t".join(members)]) == members


def test_splitting_hostile_quotes_is_linear():
    hostile = '"\\' * 200_000
    began = time.perf_counter()
    split_list([hostile])
    entity_tags([hostile])
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param('"a"', "a", id="9110-5.6.4-plain"),
        pytest.param(r'"a\"\\b"', r"a\b".replace("\\", '"\\'), id="9110-5.6.4-escapes"),
        pytest.param('""', "", id="9110-5.6.4-empty"),
        pytest.param("'a'", None, id="9110-5.6.4-single-quotes"),
        pytest.param('"a', None, id="9110-5.6.4-unclosed"),
        pytest.param('"a"b"', None, id="9110-5.6.4-inner-quote"),
    ],
)
def test_unquote(text, expected):
    assert unquote(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("0", 0, id="9111-1.2.2-zero"),
        pytest.param("003600", 3600, id="9111-1.2.2-leading-zeros"),
        pytest.param("2147483647", 2**31 - 1, id="9111-1.2.2-largest"),
        pytest.param("2147483648", DELTA_MAX, id="9111-1.2.2-2^31"),
        pytest.param("99999999999", DELTA_MAX, id="9111-1.2.2-overflow"),
        pytest.param("9" * 6000, DELTA_MAX, id="9111-1.2.2-more-digits-than-int-takes"),
        pytest.param("0" * 6000 + "7", 7, id="9111-1.2.2-many-zeros"),
        pytest.param("", None, id="9111-1.2.2-empty"),
        pytest.param("-1", None, id="9111-1.2.2-negative"),
        pytest.param("+1", None, id="9111-1.2.2-sign"),
        pytest.param("1.0", None, id="9111-1.2.2-decimal"),
        pytest.param("1_0", None, id="9111-1.2.2-underscore"),
        pytest.param(" 1", None, id="9111-1.2.2-space"),
        pytest.param("\u0661", None, id="9111-1.2.2-arabic-digit"),
        pytest.param("\u00b2", None, id="9111-1.2.2-superscript"),
    ],
)
def test_delta_seconds(text, expected):
    assert delta_seconds(text) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param([], {}, id="5.2-absent"),
        pytest.param([""], {}, id="5.2-empty"),
        pytest.param(["max-age=60"], {"max_age": 60}, id="5.2.2.1-max-age"),
        pytest.param(["MaX-AgE=60, NO-STORE"], {"max_age": 60, "no_store": True}, id="5.2-names-any-case"),
        pytest.param(['max-age="60"'], {"max_age": 60}, id="5.2-quoted-number"),
        pytest.param(["max-age='60'"], {"max_age": 0}, id="5.2-single-quoted-number"),
        pytest.param(["max-age=99999999999"], {"max_age": DELTA_MAX}, id="1.2.2-overflow"),
        pytest.param(["max-age=-1"], {"max_age": 0}, id="4.2.1-negative"),
        pytest.param(["max-age=60.5"], {"max_age": 0}, id="4.2.1-decimal"),
        pytest.param(["max-age=a60"], {"max_age": 0}, id="4.2.1-leading-letter"),
        pytest.param(["max-age=60a"], {"max_age": 0}, id="4.2.1-trailing-letter"),
        pytest.param(["max-age=60;x"], {"max_age": 0}, id="4.2.1-parameter"),
        pytest.param(["max-age"], {"max_age": 0}, id="4.2.1-without-argument"),
        pytest.param(["max-age="], {"max_age": 0}, id="4.2.1-empty-argument"),
        pytest.param(["max-age =60"], {"max_age": 0}, id="5.2-space-before-equals"),
        pytest.param(["max-age= 60"], {"max_age": 0}, id="5.2-space-after-equals"),
        pytest.param(["max-age=60, max-age=60"], {"max_age": 60}, id="4.2.1-same-number-twice"),
        pytest.param(["max-age=60, max-age=1"], {"max_age": 0}, id="4.2.1-two-numbers"),
        pytest.param(["max-age=1", "max-age=60"], {"max_age": 0}, id="4.2.1-two-numbers-two-lines"),
        pytest.param(["max-age=1, max-age=60, max-age=1"], {"max_age": 0}, id="4.2.1-three-numbers"),
        pytest.param(["max-age=60, max-age=x"], {"max_age": 0}, id="4.2.1-number-and-nonsense"),
        pytest.param(['x="max-age=60", max-age=1'], {"max_age": 1}, id="5.2-inside-quotes-before"),
        pytest.param(['max-age=1, x="max-age=60"'], {"max_age": 1}, id="5.2-inside-quotes-after"),
        pytest.param(['x="a, no-store'], {"no_store": True}, id="5.2-unclosed-quote-hides-no-directive"),
        pytest.param(["foobar, max-age=60, x=y"], {"max_age": 60}, id="5.2.3-extensions-ignored"),
        pytest.param(["s-maxage=5"], {"s_maxage": 5}, id="5.2.2.10-s-maxage"),
        pytest.param(["s-maxage=x"], {"s_maxage": 0}, id="5.2.2.10-s-maxage-malformed"),
        pytest.param(["no-cache"], {"no_cache": True}, id="5.2.2.4-no-cache"),
        pytest.param(['no-cache="A, b"'], {"no_cache_fields": ("a", "b")}, id="5.2.2.4-qualified"),
        pytest.param(["no-cache=a"], {"no_cache_fields": ("a",)}, id="5.2.2.4-qualified-by-token"),
        pytest.param(['no-cache=""'], {"no_cache": True}, id="5.2.2.4-qualified-by-nothing"),
        pytest.param(["no-cache="], {"no_cache": True}, id="5.2.2.4-empty-argument"),
        pytest.param(['no-cache="a b"'], {"no_cache": True}, id="5.2.2.4-no-field-name"),
        pytest.param(['no-cache ="a"'], {"no_cache": True}, id="5.2.2.4-space-before-equals"),
        pytest.param(
            ['no-cache="a"', "no-cache=b"], {"no_cache_fields": ("a", "b")}, id="5.2.2.4-qualified-twice-adds-up"
        ),
        pytest.param(
            ['no-cache, no-cache="a"'], {"no_cache": True, "no_cache_fields": ("a",)}, id="5.2.2.4-both-forms"
        ),
        pytest.param(["private"], {"private": True}, id="5.2.2.7-private"),
        pytest.param(['private="Set-Cookie"'], {"private_fields": ("set-cookie",)}, id="5.2.2.7-qualified"),
        pytest.param(["no-store=x"], {"no_store": True}, id="5.2.2.5-needless-argument"),
        pytest.param(
            ["public, must-revalidate, proxy-revalidate, must-understand, no-transform, immutable, only-if-cached"],
            {
                "public": True,
                "must_revalidate": True,
                "proxy_revalidate": True,
                "must_understand": True,
                "no_transform": True,
                "immutable": True,
                "only_if_cached": True,
            },
            id="5.2.2-flags",
        ),
        pytest.param(["max-stale"], {"max_stale": DELTA_MAX}, id="5.2.1.2-any-staleness"),
        pytest.param(["max-stale=5"], {"max_stale": 5}, id="5.2.1.2-max-stale"),
        pytest.param(["max-stale=x"], {}, id="5.2.1.2-malformed-permits-nothing"),
        pytest.param(["min-fresh=x"], {"min_fresh": DELTA_MAX}, id="5.2.1.3-malformed-accepts-nothing"),
        pytest.param(["min-fresh=5"], {"min_fresh": 5}, id="5.2.1.3-min-fresh"),
        pytest.param(
            ["stale-while-revalidate=3, stale-if-error=4"],
            {"stale_while_revalidate": 3, "stale_if_error": 4},
            id="5861-3-4",
        ),
        pytest.param(["stale-while-revalidate=x, stale-if-error"], {}, id="5861-malformed-permits-nothing"),
        pytest.param(
            ["stale-while-revalidate=3, stale-while-revalidate=4"], {}, id="5861-contradiction-permits-nothing"
        ),
    ],
)
def test_cache_control(values, expected):
    assert cache_control(values) == Directives(**expected)


def test_no_directives_is_what_an_absent_field_means():
    assert cache_control([]) is NO_DIRECTIVES


@given(st.lists(st.one_of(TEXT, HEADERISH), max_size=4))
@settings(max_examples=300)
def test_no_text_raises(values):
    directives = cache_control(values)
    assert 0 <= (directives.max_age or 0) <= DELTA_MAX
    fields = Fields([("CDN-Cache-Control", value) for value in values])
    assert 0 <= (targeted(fields).max_age or 0) <= DELTA_MAX
    vary_names(values)
    entity_tags(values)
    age(values)
    for value in values:
        http_date(value, NOW)
        entity_tag(value)


@given(TEXT)
def test_nothing_added_makes_no_store_vanish(text):
    assert cache_control([text, "no-store"]).no_store
    assert cache_control([f"no-store,{text}"]).no_store


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        pytest.param([("Cache-Control", "max-age=1")], Directives(max_age=1), id="9213-2.2-none"),
        pytest.param(
            [("Cache-Control", "no-store"), ("CDN-Cache-Control", "max-age=5")],
            Directives(max_age=5, targeted=True),
            id="9213-2.2-instead-of-cache-control",
        ),
        pytest.param(
            [("CDN-Cache-Control", "max-age=5"), ("Gateway-Cache-Control", "max-age=6")],
            Directives(max_age=6, targeted=True),
            id="9213-2.2-most-specific-first",
        ),
        pytest.param(
            [("CDN-Cache-Control", "max-age=5"), ("CDN-Cache-Control", "no-store")],
            Directives(max_age=5, no_store=True, targeted=True),
            id="9213-2.1-two-lines",
        ),
        pytest.param(
            [("CDN-Cache-Control", "max-age=5, &&&"), ("Cache-Control", "no-store")],
            Directives(no_store=True),
            id="9213-2.1-parse-failure-falls-back",
        ),
        pytest.param(
            [("Gateway-Cache-Control", "MAX-AGE=6"), ("CDN-Cache-Control", "max-age=5")],
            Directives(max_age=5, targeted=True),
            id="9213-2.1-parse-failure-falls-to-the-next",
        ),
        pytest.param(
            [("CDN-Cache-Control", ""), ("Cache-Control", "no-store")], Directives(no_store=True), id="9213-2.1-empty"
        ),
        pytest.param(
            [("CDN-Cache-Control", "none"), ("Cache-Control", "no-store")],
            Directives(targeted=True),
            id="9213-3.1-unknown-directive-counts-as-present",
        ),
        pytest.param(
            [("CDN-Cache-Control", 'max-age="5"')], Directives(max_age=0, targeted=True), id="9213-2.1-string-number"
        ),
        pytest.param(
            [("CDN-Cache-Control", "max-age=5.5")], Directives(max_age=0, targeted=True), id="9213-2.1-decimal-number"
        ),
        pytest.param(
            [("CDN-Cache-Control", "max-age=-5")], Directives(max_age=0, targeted=True), id="9213-2.1-negative-number"
        ),
        pytest.param(
            [("CDN-Cache-Control", "max-age")], Directives(max_age=0, targeted=True), id="9213-2.1-boolean-number"
        ),
        pytest.param(
            [("CDN-Cache-Control", "max-age=(5)")], Directives(max_age=0, targeted=True), id="9213-2.1-inner-list"
        ),
        pytest.param(
            [("CDN-Cache-Control", "max-age=99999999999")],
            Directives(max_age=DELTA_MAX, targeted=True),
            id="9213-2.1-overflow",
        ),
        pytest.param(
            [("CDN-Cache-Control", "max-age=1, max-age=5;x=y")],
            Directives(max_age=5, targeted=True),
            id="9651-3.2-last-member-wins-and-parameters-are-ignored",
        ),
        pytest.param(
            [("CDN-Cache-Control", "no-store=?0, private=?1, no-cache")],
            Directives(private=True, no_cache=True, targeted=True),
            id="9213-2.1-booleans",
        ),
        pytest.param(
            [("CDN-Cache-Control", 'private="Set-Cookie, a", no-cache=7')],
            Directives(private_fields=("set-cookie", "a"), no_cache=True, targeted=True),
            id="9213-2.1-field-names",
        ),
    ],
)
def test_targeted(pairs, expected):
    assert targeted(Fields(pairs)) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param([], (), id="12.5.5-absent"),
        pytest.param(["Foo, bar"], ("bar", "foo"), id="12.5.5-names-any-case"),
        pytest.param(["Foo", "foo, Bar,"], ("bar", "foo"), id="12.5.5-each-once"),
        pytest.param(["*"], VARY_ANY, id="12.5.5-any"),
        pytest.param(["Foo, *"], VARY_ANY, id="12.5.5-any-among-names"),
        pytest.param(["", "*"], VARY_ANY, id="12.5.5-any-on-a-second-line"),
        pytest.param([", *"], VARY_ANY, id="12.5.5-any-behind-an-empty-member"),
        pytest.param(["foo bar"], VARY_ANY, id="12.5.5-no-field-name"),
        pytest.param(['"foo"'], VARY_ANY, id="12.5.5-quoted"),
    ],
)
def test_vary_names(values, expected):
    assert vary_names(values) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param([], None, id="5.1-absent"),
        pytest.param(["30"], 30, id="5.1-number"),
        pytest.param(["7200, 0"], 7200, id="5.1-first-member"),
        pytest.param(["0, 7200"], 0, id="5.1-first-member-zero"),
        pytest.param(["0", "7200"], 0, id="5.1-first-line"),
        pytest.param(["abc"], None, id="5.1-not-a-number"),
        pytest.param(["abc, 5"], None, id="5.1-first-member-not-a-number"),
        pytest.param(["-5"], None, id="5.1-negative"),
        pytest.param(["7200.0"], None, id="5.1-decimal"),
        pytest.param(["7200;a=b"], None, id="5.1-parameter"),
        pytest.param(["2147483649"], DELTA_MAX, id="5.1-overflow"),
    ],
)
def test_age(values, expected):
    assert age(values) == expected


EXAMPLE = 784111777  # Sun, 06 Nov 1994 08:49:37 GMT


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("Sun, 06 Nov 1994 08:49:37 GMT", EXAMPLE, id="imf-fixdate"),
        pytest.param("Sunday, 06-Nov-94 08:49:37 GMT", EXAMPLE, id="rfc850"),
        pytest.param("Sun Nov  6 08:49:37 1994", EXAMPLE, id="asctime"),
        pytest.param("Sun Nov 06 08:49:37 1994", EXAMPLE, id="asctime-two-digit-day"),
        pytest.param("SUN, 06 nov 1994 08:49:37 gMt", EXAMPLE, id="letter-case"),
        pytest.param("Mon, 06 Nov 1994 08:49:37 GMT", EXAMPLE, id="wrong-day-name"),
        pytest.param("Tue, 19 Jan 2038 14:14:08 GMT", 2147523248, id="over-31-bits"),
        pytest.param("Sun, 21 Nov 2286 04:46:39 GMT", 10000039599, id="far-future"),
        pytest.param("Sat, 31 Dec 2016 23:59:60 GMT", 1483228800, id="leap-second"),
        pytest.param("Thursday, 18-Aug-50 02:01:18 GMT", 2544400878, id="rfc850-within-50-years"),
        pytest.param("Saturday, 01-Aug-76 11:00:00 GMT", 3363505200, id="rfc850-just-within-50-years"),
        pytest.param("Monday, 02-Aug-76 12:00:00 GMT", 207835200, id="rfc850-beyond-50-years-is-past"),
        pytest.param("Thu, 18 Aug 2050 02:01:18 UTC", None, id="utc"),
        pytest.param("Thu, 18 Aug 2050 02:01:18 AEST", None, id="other-zone"),
        pytest.param("Thu, 18 Aug 2050 02:01:18", None, id="no-zone"),
        pytest.param("Thu, 18 Aug 50 02:01:18 GMT", None, id="two-digit-year"),
        pytest.param("Thu 18 Aug 2050 02:01:18 GMT", None, id="no-comma"),
        pytest.param("Thu, 18  Aug  2050 02:01:18 GMT", None, id="spaces"),
        pytest.param("Thu, 18-Aug-2050 02:01:18 GMT", None, id="dashes"),
        pytest.param("Thu, 18 Aug 2050 02.01.18 GMT", None, id="periods"),
        pytest.param("Thu, 18 Aug 2050 2:01:18 GMT", None, id="one-digit-hour"),
        pytest.param("Thu, 8 Aug 2050 02:01:18 GMT", None, id="one-digit-day"),
        pytest.param("Thu, 30 Feb 2050 02:01:18 GMT", None, id="no-such-day"),
        pytest.param("Thu, 18 Aug 2050 24:00:00 GMT", None, id="no-such-hour"),
        pytest.param("Thu, 18 Aug 0000 02:01:18 GMT", None, id="year-zero"),
        pytest.param("Thu, 18 Aug 2050 02:01:18 GMT and more", None, id="too-long"),
        pytest.param("Thu, 18 Aug 2050 02:01:18 GMT ", None, id="trailing-space"),
        pytest.param("Thu, 18 Aug 2050 02:01:18 GMT\n", None, id="trailing-newline"),
        pytest.param("Thu, 1\u0668 Aug 2050 02:01:18 GMT", None, id="arabic-digit"),
        pytest.param("0", None, id="5.3-zero"),
        pytest.param("-1", None, id="5.3-minus-one"),
        pytest.param("", None, id="empty"),
    ],
)
def test_http_date_9110_5_6_7(text, expected):
    assert http_date(text, NOW) == expected


def test_feb_29_of_a_two_digit_year_lies_in_a_leap_year():
    assert http_date("Thursday, 29-Feb-24 00:00:00 GMT", NOW) == datetime(2024, 2, 29, tzinfo=UTC).timestamp()
    assert http_date("Thursday, 29-Feb-23 00:00:00 GMT", NOW) is None


@given(st.integers(0, 4_000_000_000))
def test_dates_read_back_in_every_form(instant):
    moment = datetime.fromtimestamp(instant, UTC)
    assert http_date(format_date(instant), NOW) == instant
    assert format_date(instant) == moment.strftime("%a, %d %b %Y %H:%M:%S GMT")
    assert http_date(moment.strftime("%a %b ") + f"{moment.day:2}" + moment.strftime(" %H:%M:%S %Y"), NOW) == instant


@given(st.integers(0, 4_000_000_000))
def test_a_two_digit_year_is_never_more_than_50_years_ahead(instant):
    text = datetime.fromtimestamp(instant, UTC).strftime("%A, %d-%b-%y %H:%M:%S GMT")
    found = http_date(text, NOW)
    assert found is None or (found - instant) % 1 == 0
    assert found is None or NOW - 100.1 * 365.25 * 86400 < found <= NOW + 50.01 * 365.25 * 86400


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param('"a"', ETag("a"), id="strong"),
        pytest.param('W/"a"', ETag("a", weak=True), id="weak"),
        pytest.param('""', ETag(""), id="empty"),
        pytest.param('"a,b\\"', ETag("a,b\\"), id="comma-and-backslash-are-plain"),
        pytest.param('"\u00fc"', ETag("\u00fc"), id="obs-text"),
        pytest.param("a", None, id="unquoted"),
        pytest.param('w/"a"', None, id="lower-case-w"),
        pytest.param('W"a"', None, id="no-slash"),
        pytest.param('"a"b"', None, id="inner-quote"),
        pytest.param('"a b"', None, id="space"),
        pytest.param('"a"\n', None, id="newline"),
        pytest.param(None, None, id="absent"),
    ],
)
def test_entity_tag_9110_8_8_3(text, expected):
    assert entity_tag(text) == expected
    if expected is not None:
        assert str(expected) == text


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param(["*"], ANY, id="13.1.2-any"),
        pytest.param(['"a", W/"b"'], (ETag("a"), ETag("b", weak=True)), id="13.1.2-list"),
        pytest.param(['"a"', '"b"'], (ETag("a"), ETag("b")), id="13.1.2-lines"),
        pytest.param([' ,"a",,"b",'], (ETag("a"), ETag("b")), id="13.1.2-empty-members"),
        pytest.param(['"a,b","c"'], (ETag("a,b"), ETag("c")), id="13.1.2-comma-inside"),
        pytest.param(['a, "b"'], (ETag("b"),), id="13.1.2-garbage-before"),
        pytest.param(['"b", w/"c", d"e"'], (ETag("b"),), id="13.1.2-garbage-behind"),
        pytest.param(['"b" "c"'], (), id="13.1.2-no-comma"),
        pytest.param(['"b'], (), id="13.1.2-unclosed"),
        pytest.param(['*, "a"'], (ETag("a"),), id="13.1.2-any-in-a-list-is-garbage"),
        pytest.param([], (), id="13.1.2-absent"),
    ],
)
def test_entity_tags(values, expected):
    assert entity_tags(values) == expected


@pytest.mark.parametrize(
    ("one", "other", "strong", "weak"),
    [
        pytest.param('W/"1"', 'W/"1"', False, True, id="8.8.3.2-both-weak"),
        pytest.param('W/"1"', 'W/"2"', False, False, id="8.8.3.2-both-weak-different"),
        pytest.param('W/"1"', '"1"', False, True, id="8.8.3.2-one-weak"),
        pytest.param('"1"', '"1"', True, True, id="8.8.3.2-both-strong"),
    ],
)
def test_comparison(one, other, strong, weak):
    left, right = entity_tag(one), entity_tag(other)
    assert strong_match(left, right) is strong_match(right, left) is strong
    assert weak_match(left, right) is weak_match(right, left) is weak
