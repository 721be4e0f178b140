"""What a write makes obsolete (RFC 9111 §4.4)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.model import Fields
from gateway.core.unsafe_methods import SAFE_METHODS, invalidates

ORIGINS = ["https://api.example.org"]
TARGET = "/a/b?c=d"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "M-SEARCH", "post", "FROBNICATE"])
def test_unsafe_and_unknown_methods_drop_their_target(method):
    for status in (200, 201, 204, 299, 301, 303, 399):
        assert invalidates(method, status, TARGET, Fields(), ORIGINS) == [TARGET]


@pytest.mark.parametrize("method", sorted(SAFE_METHODS))
def test_safe_methods_drop_nothing(method):
    assert invalidates(method, 200, TARGET, Fields([("Location", "/x")]), ORIGINS) == []


@pytest.mark.parametrize("status", [100, 400, 404, 409, 500, 503])
def test_errors_drop_nothing(status):
    assert invalidates("POST", status, TARGET, Fields([("Location", "/x")]), ORIGINS) == []


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        pytest.param("/x", "/x", id="absolute-path"),
        pytest.param("x?y=z", "/a/x?y=z", id="relative-path"),
        pytest.param("?y", "/a/b?y", id="query-alone"),
        pytest.param("../x", "/x", id="dot-segments"),
        pytest.param("/x#fragment", "/x", id="fragment-cut-off"),
        pytest.param("https://api.example.org/x", "/x", id="absolute"),
        pytest.param("HTTPS://API.example.org:443/x", "/x", id="case-and-default-port"),
        pytest.param("https://api.example.org", "/", id="no-path"),
        pytest.param("//api.example.org/x", "/x", id="network-path"),
        pytest.param("https://api.example.org:8443/x", None, id="another-port"),
        pytest.param("http://api.example.org/x", None, id="another-scheme"),
        pytest.param("https://other.example.org/x", None, id="another-host"),
        pytest.param("//other.example.org/x", None, id="network-path-of-another-host"),
        pytest.param("https://api.example.org@evil.example/x", None, id="userinfo"),
        pytest.param("mailto:a@b", None, id="no-host"),
        pytest.param("https://[::1/x", None, id="malformed"),
        pytest.param("https://api.example.org:port/x", None, id="malformed-port"),
        pytest.param("", None, id="empty-is-the-target-itself"),
    ],
)
@pytest.mark.parametrize("field", ["Location", "Content-Location"])
def test_same_origin_only(field, reference, expected):
    found = invalidates("POST", 201, TARGET, Fields([(field, reference)]), ORIGINS)
    assert found == [TARGET] + ([] if expected is None else [expected])


def test_both_fields_and_every_known_origin():
    response = Fields([("Location", "https://cc.internal/x"), ("Content-Location", "/y"), ("Location", TARGET)])
    assert invalidates("POST", 201, TARGET, response, [*ORIGINS, "https://cc.internal"]) == [TARGET, "/x", "/y"]


def test_a_target_of_slashes_is_no_host():
    assert invalidates("POST", 200, "//x/y", Fields([("Location", "?z")]), ORIGINS) == ["//x/y", "//x/y?z"]


def test_an_unusable_origin_matches_nothing():
    assert invalidates("POST", 200, "/a", Fields([("Location", "mailto:x")]), ["https://a", "unix:/x"]) == ["/a"]


@given(st.text(max_size=30))
def test_no_text_raises(reference):
    found = invalidates("POST", 201, TARGET, Fields([("Location", reference)]), ORIGINS)
    assert found[0] == TARGET
    assert all(target.startswith("/") for target in found)
