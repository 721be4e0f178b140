"""Which pages an operator means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.keys import CacheKey
from gateway.core.model import ANONYMOUS_DOMAIN, PUBLIC_DOMAIN, PrincipalKind
from gateway.core.selection import Selection, SelectionError, selection
from gateway.core.visibility import (
    decode,
    encode,
    global_domain,
    kind_of,
    principal_domain,
    principal_of_domain,
)

GUID = "3f0a5d1e-0c9e-4c53-9a34-1f0f0a7a1c11"
OWN = principal_domain(
    kind=PrincipalKind.USER, principal_id="u-1", issuer="i", zone="z", scopes=frozenset({"cloud_controller.read"})
)
EVERYBODYS = global_domain(issuer="i", zone="z", scopes=frozenset({"cloud_controller.admin"}))
assert EVERYBODYS is not None


def key(target: str, domain: str = OWN.id) -> CacheKey:
    path, mark, query = target.partition("?")
    return CacheKey(domain, path, mark + query, "json")


@pytest.mark.parametrize(
    ("wanted", "target", "meant"),
    [
        ({}, "/v3/apps", True),
        ({"url": "/v3/apps"}, "/v3/apps", True),
        ({"url": "/v3/apps"}, "/v3/apps?page=1", False),
        ({"url": "/v3/apps?"}, "/v3/apps", False),
        ({"url": "/v3/apps?"}, "/v3/apps?", True),
        ({"url": "/v3/apps?page=1&a=2"}, "/v3/apps?a=2&page=1", True),
        ({"url": "/v3/apps?page=1&a=2"}, "/v3/apps?page=1&a=2", True),
        ({"url": "/v3/apps?page=1"}, "/v3/apps?page=2", False),
        ({"url": "/v3/apps#top"}, "/v3/apps", True),
        ({"url": "https://api.example.org/v3/apps?page=1"}, "/v3/apps?page=1", True),
        ({"url": "https://api.example.org/cf/v3/apps"}, "/v3/apps", True),
        ({"url": "https://api.example.org/cf"}, "/", True),
        ({"url": "https://api.example.org"}, "/", True),
        ({"url": "https://api.example.org/cfx/v3"}, "/cfx/v3", True),
        ({"url": "/v3/apps/"}, "/v3/apps", False),
        ({"prefix": "/v3/app"}, "/v3/apps?page=1", True),
        ({"prefix": "/v3/apps?"}, "/v3/apps/x", False),
        ({"prefix": "/v3/apps?page"}, "/v3/apps?page=1", True),
        ({"type_": "processes"}, "/v3/x", True),
        ({"type_": "spaces"}, "/v3/x", False),
        ({"guid": GUID}, f"/v3/apps/{GUID}/processes", True),
        ({"guid": GUID}, f"/v3/apps?guids={GUID.upper()}", True),
        ({"guid": GUID}, "/v3/apps", False),
        ({"guid": "in-the-tags"}, "/v3/apps", True),
        ({"guid": "in-the-content"}, "/v3/apps", True),
        ({"principal": "u-1"}, "/v3/apps", True),
        ({"principal": "u-2"}, "/v3/apps", False),
        ({"principal": "u-1", "prefix": "/v3/apps"}, "/v3/spaces", False),
    ],
    ids=str,
)
def test_what_is_meant(wanted: dict[str, str], target: str, meant: bool) -> None:
    chosen = selection(**wanted, public_path="/cf")
    tags = ("processes", "processes:in-the-tags")
    assert chosen.matches(key(target), tags, (b'{"guid":"in-the-content"}',)) is meant


@pytest.mark.parametrize("domain", [PUBLIC_DOMAIN.id, ANONYMOUS_DOMAIN.id, EVERYBODYS.id])
def test_shared_pages_are_nobodys(domain: str) -> None:
    assert not selection(principal="u-1").matches(key("/v3/apps", domain), (), ())
    assert principal_of_domain(domain) is None


@pytest.mark.parametrize(
    "wanted",
    [
        {"url": ""},
        {"url": "v3/apps"},
        {"url": "//evil/v3"},
        {"url": "ftp://h/v3"},
        {"url": "http://[bad/v3"},
        {"prefix": "v3"},
        {"type_": "proceses"},
        {"type_": "*"},
        {"guid": "a"},
        {"guid": "x" * 201},
        {"guid": "has spaces in it"},
        {"principal": ""},
    ],
    ids=str,
)
def test_what_can_mean_nothing_is_refused(wanted: dict[str, str]) -> None:
    with pytest.raises(SelectionError):
        selection(**wanted)


def test_no_criterion_is_everything() -> None:
    assert selection() == Selection()
    assert selection().everything
    assert not selection(principal="x").everything


@given(st.lists(st.text(max_size=8), max_size=6))
def test_decoding_undoes_encoding(parts: list[str]) -> None:
    assert decode(encode(*parts)) == tuple(parts)


@given(st.text(alphabet="0123456789:ab", max_size=12))
def test_decoding_never_invents(text: str) -> None:
    parts = decode(text)
    assert parts is None or encode(*parts) == text or "0" in text


@pytest.mark.parametrize(
    ("domain", "kind"),
    [
        (PUBLIC_DOMAIN.id, "public"),
        (ANONYMOUS_DOMAIN.id, "anonymous"),
        (EVERYBODYS.id, "global"),
        (OWN.id, "principal"),
    ],
)
def test_the_class_of_a_domain(domain: str, kind: str) -> None:
    assert kind_of(domain) == kind
