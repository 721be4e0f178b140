"""May a response be stored, and what of it (RFC 9111 §3)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.caching import NoStoreReason, may_store, request_directives, storable_fields, stored_response
from gateway.core.dates import format_date
from gateway.core.fields import cache_control, targeted
from gateway.core.freshness import freshness
from gateway.core.model import Fields

T = 1_785_585_600
YESTERDAY, TOMORROW = format_date(T - 86400), format_date(T + 86400)
AUTHORIZED = {"Authorization": "bearer x"}
R = NoStoreReason


def judge(response, *, method="GET", request=(), status=200, complete=True, isolated=False):
    fields = Fields(dict(response).items())
    directives = targeted(fields)
    fresh = freshness(status, fields, directives, request_time=T, response_time=T)
    verdict = may_store(
        method,
        Fields(dict(request).items()),
        status,
        fields,
        directives=directives,
        fresh=fresh,
        now=T,
        complete=complete,
        isolated=isolated,
    )
    assert verdict.store is (verdict.reason is None)
    return verdict.reason


def cc(text, **more):
    return {"Cache-Control": text, **{name.replace("_", "-"): value for name, value in more.items()}}


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        pytest.param(cc("max-age=60"), None, id="3-max-age"),
        pytest.param(cc("s-maxage=60"), None, id="3-s-maxage"),
        pytest.param({"Expires": TOMORROW}, None, id="3-expires"),
        pytest.param({"Last-Modified": YESTERDAY}, None, id="3-heuristic"),
        pytest.param(cc("public", Last_Modified=YESTERDAY), None, id="3-public"),
        pytest.param({"ETag": '"x"'}, None, id="3-validator-alone"),
        pytest.param(cc("no-cache", ETag='"x"'), None, id="5.2.2.4-no-cache-is-stored"),
        pytest.param(cc("no-cache"), R.NEVER_REUSABLE, id="5.2.2.4-no-cache-without-a-validator"),
        pytest.param({}, R.NEVER_REUSABLE, id="3-nothing-known"),
        pytest.param(cc("max-age=0"), R.NEVER_REUSABLE, id="3-stale-on-arrival"),
        pytest.param({"Expires": "0"}, R.NEVER_REUSABLE, id="5.3-expired-on-arrival"),
        pytest.param(cc("max-age=60", Age="60"), R.NEVER_REUSABLE, id="3-too-old-on-arrival"),
        pytest.param(cc("max-age=0, stale-if-error=60"), None, id="5861-4-stale-but-useful"),
        pytest.param(cc("max-age=0, stale-while-revalidate=60"), None, id="5861-3-stale-but-useful"),
        pytest.param(cc("max-age=0, stale-if-error=60, must-revalidate"), R.NEVER_REUSABLE, id="5.2.2.2-forbids-that"),
        pytest.param(cc("max-age=0", Last_Modified=YESTERDAY), None, id="4.3.1-stale-but-to-be-validated"),
        pytest.param(cc("no-store, max-age=60"), R.NO_STORE, id="5.2.2.5-no-store"),
        pytest.param(cc("No-StOrE"), R.NO_STORE, id="5.2.2.5-any-case"),
        pytest.param(cc("private, max-age=60"), R.PRIVATE, id="5.2.2.7-private"),
        pytest.param(cc('private="set-cookie", max-age=60'), None, id="5.2.2.7-qualified"),
        pytest.param(cc('private="", max-age=60'), R.PRIVATE, id="5.2.2.7-qualified-by-nothing"),
        pytest.param(cc("max-age=60, no-store, must-understand"), None, id="5.2.2.3-understood"),
        pytest.param(cc("max-age=60", Vary="*"), R.VARY_ANY, id="4.1-vary-any"),
        pytest.param(cc("max-age=60", Vary="a b"), R.VARY_ANY, id="4.1-vary-on-nonsense"),
        pytest.param(cc("max-age=60", Vary="a, b"), None, id="4.1-vary"),
        pytest.param(cc("max-age=60", Set_Cookie="a=b"), None, id="7.3-set-cookie-does-not-hinder"),
        pytest.param({"Set-Cookie": "a=b", "Last-Modified": YESTERDAY}, R.SET_COOKIE, id="7.3-set-cookie-heuristic"),
        pytest.param(cc("no-cache", Set_Cookie="a=b", ETag='"x"'), R.SET_COOKIE, id="7.3-set-cookie-no-cache"),
        pytest.param(cc("max-age=0", Set_Cookie="a=b", ETag='"x"'), R.SET_COOKIE, id="7.3-set-cookie-stale"),
        pytest.param(cc('no-cache="set-cookie"', Set_Cookie="a=b", ETag='"x"'), None, id="7.3-set-cookie-left-out"),
        pytest.param(cc("max-age=60", CDN_Cache_Control="no-store"), R.NO_STORE, id="9213-2.2-no-store"),
        pytest.param(cc("no-store", CDN_Cache_Control="max-age=60"), None, id="9213-2.2-outranks-no-store"),
        pytest.param(cc("max-age=60", CDN_Cache_Control="private"), R.PRIVATE, id="9213-2.2-private"),
        pytest.param({"CDN-Cache-Control": "x", "Expires": TOMORROW}, R.NEVER_REUSABLE, id="9213-2.2-expires-shut-out"),
    ],
)
def test_what_the_response_says(response, expected):
    assert judge(response) is expected


@pytest.mark.parametrize(
    ("request_fields", "response", "expected"),
    [
        pytest.param({}, cc("max-age=60"), None, id="3.5-no-authorization"),
        pytest.param(AUTHORIZED, cc("max-age=60"), R.AUTHORIZATION, id="3.5-authorization"),
        pytest.param(AUTHORIZED, {"Expires": TOMORROW}, R.AUTHORIZATION, id="3.5-explicit-freshness-is-not-enough"),
        pytest.param(AUTHORIZED, cc("max-age=60, public"), None, id="3.5-public"),
        pytest.param(AUTHORIZED, cc("max-age=60, must-revalidate"), None, id="3.5-must-revalidate"),
        pytest.param(AUTHORIZED, cc("s-maxage=60"), None, id="3.5-s-maxage"),
        pytest.param(
            AUTHORIZED, cc("max-age=60, proxy-revalidate"), R.AUTHORIZATION, id="3.5-proxy-revalidate-does-not"
        ),
        pytest.param(
            {"Cache-Control": "no-store"}, cc("max-age=60"), R.REQUEST_NO_STORE, id="5.2.1.5-request-no-store"
        ),
        pytest.param({"Cache-Control": "no-cache"}, cc("max-age=60"), None, id="5.2.1.4-request-no-cache"),
        pytest.param({"Cookie": "a=b"}, cc("max-age=60"), None, id="3-cookie-does-not-hinder"),
    ],
)
def test_what_the_request_says(request_fields, response, expected):
    assert judge(response, request=request_fields) is expected


def test_a_key_that_keeps_principals_apart_needs_no_permission_to_store_3_5():
    assert judge(cc("max-age=60"), request=AUTHORIZED, isolated=True) is None
    assert judge(cc("max-age=60, private"), request=AUTHORIZED, isolated=True) is R.PRIVATE


@pytest.mark.parametrize(
    ("status", "plain", "fresh"),
    [
        *[
            pytest.param(status, None, None, id=f"9110-15.1-{status}")
            for status in (200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501)
        ],
        *[
            pytest.param(status, R.NOT_CACHEABLE, None, id=f"9110-15.1-{status}")
            for status in (201, 202, 299, 302, 303, 307, 400, 403, 499, 500, 502, 503, 504, 599)
        ],
        pytest.param(206, R.PARTIAL, R.PARTIAL, id="3.3-206"),
        pytest.param(304, R.NOT_MODIFIED, R.NOT_MODIFIED, id="3-304"),
        pytest.param(103, R.NOT_FINAL, R.NOT_FINAL, id="3-interim"),
    ],
)
def test_status_codes(status, plain, fresh):
    assert judge({"Last-Modified": YESTERDAY}, status=status) is plain
    assert judge(cc("max-age=60"), status=status) is fresh


def test_unknown_status_codes():
    assert judge(cc("public", Last_Modified=YESTERDAY), status=599) is None
    assert judge(cc("max-age=60, no-store, must-understand"), status=599) is R.NOT_UNDERSTOOD
    assert judge(cc("max-age=60, must-understand"), status=599) is R.NOT_UNDERSTOOD
    assert judge(cc("max-age=60, must-understand"), status=503) is None


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "OPTIONS", "get", "M-SEARCH"])
def test_only_get_is_stored_9110_9_2_3(method):
    assert judge(cc("max-age=60"), method=method) is R.METHOD


def test_incomplete_responses_are_not_stored_9111_3_3():
    assert judge(cc("max-age=60"), complete=False) is R.INCOMPLETE


@pytest.mark.parametrize(
    ("fields", "no_cache"),
    [
        pytest.param([("Pragma", "no-cache")], True, id="5.4-pragma"),
        pytest.param([("Pragma", "x, No-Cache")], True, id="5.4-pragma-in-a-list"),
        pytest.param([("Pragma", "no-cache"), ("Cache-Control", "max-age=5")], False, id="5.4-cache-control-outranks"),
        pytest.param([("Pragma", "max-age=0")], False, id="5.4-nothing-else-in-pragma"),
        pytest.param([("Cache-Control", "no-cache")], True, id="5.2.1.4"),
        pytest.param([], False, id="5.2.1-none"),
    ],
)
def test_request_directives(fields, no_cache):
    assert request_directives(Fields(fields)).no_cache is no_cache


def test_pragma_in_a_response_means_nothing_9111_5_4():
    assert judge(cc("max-age=60", Pragma="no-cache")) is None


def test_fields_that_are_not_kept_9111_3_1():
    response = Fields(
        [
            ("Connection", "a, B"),
            ("A", "1"),
            ("b", "2"),
            ("C", "3"),
            *[
                (name, "x")
                for name in (
                    "Keep-Alive", "Proxy-Authenticate", "Proxy-Authentication-Info", "Proxy-Authorization",
                    "Proxy-Connection", "TE", "Trailer", "Transfer-Encoding", "Upgrade",
                )
            ],
            ("Cache-Control", 'max-age=5, private="p", no-cache="Q, r"'),
            ("P", "4"),
            ("q", "5"),
            ("R", "6"),
            ("Set-Cookie", "a=b"),
            ("Set-Cookie", "c=d"),
        ]
    )  # fmt: skip
    kept = storable_fields(response, targeted(response))
    assert [name for name, _ in kept] == ["C", "Cache-Control", "Set-Cookie", "Set-Cookie"]


def record(response, request=(), now=T):
    fields = Fields(response)
    directives = targeted(fields)
    fresh = freshness(200, fields, directives, request_time=now, response_time=now)
    return stored_response(Fields(request), 200, fields, directives=directives, fresh=fresh, now=now)


def test_a_missing_or_unreadable_date_is_the_arrival_9110_6_6_1():
    assert record([("Cache-Control", "max-age=5")]).fields.get_all("date") == [format_date(T)]
    assert record([("Date", "x"), ("ETag", '"x"')], now=T + 0.9).fields.get_all("date") == [format_date(T)]
    assert record([("Date", YESTERDAY)]).fields.get_all("date") == [YESTERDAY]


def test_the_record_remembers_what_it_varies_on_9111_4_1():
    stored = record([("Vary", "Foo, Bar"), ("Cache-Control", "max-age=5")], [("Foo", "1"), ("Baz", "2")])
    assert (stored.vary, stored.selecting) == (("bar", "foo"), (None, "1"))


@given(
    st.sampled_from(["GET", "HEAD", "POST"]),
    st.sampled_from([100, 200, 206, 304, 404, 500, 599]),
    st.lists(
        st.sampled_from(
            [
                "no-store",
                "private",
                "public",
                "must-understand",
                "s-maxage=5",
                "max-age=5",
                "must-revalidate",
                "max-age=x",
            ]
        ),
        max_size=4,
    ),
    st.booleans(),
    st.sampled_from([None, "*", "a"]),
    st.booleans(),
)
@settings(max_examples=300)
def test_what_is_stored_meets_every_condition_of_9111_3(method, status, words, authorized, vary, expires):
    """The eight conditions of the section, in the order they stand there, as the only yardstick."""
    response = {"Cache-Control": ", ".join(words), "ETag": '"x"'}
    if vary:
        response["Vary"] = vary
    if expires:
        response["Expires"] = TOMORROW
    understood = status in (200, 404, 500)
    conditions = (
        method == "GET",
        status >= 200,
        understood or not (status in (206, 304) or "must-understand" in words),
        "no-store" not in words or ("must-understand" in words and understood),
        "private" not in words,
        not authorized or bool({"public", "must-revalidate", "s-maxage=5"} & set(words)),
        bool({"public", "s-maxage=5", "max-age=5", "max-age=x"} & set(words)) or expires or status in (200, 404),
        vary != "*",
    )
    stored = judge(response, method=method, status=status, request=AUTHORIZED if authorized else {}) is None
    assert stored is all(conditions)


@given(st.dictionaries(st.sampled_from(["Cache-Control", "Vary", "Connection", "CDN-Cache-Control"]), st.text()))
def test_no_text_raises(response):
    judge(response)
    record(list(response.items()))


def test_directives_of_a_request_are_not_those_of_a_response():
    assert cache_control(["no-store"]).no_store
    assert judge(cc("max-stale=5, min-fresh=x, only-if-cached, max-age=5")) is None
