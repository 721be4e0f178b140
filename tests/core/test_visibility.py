from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.model import Principal, PrincipalKind
from gateway.core.visibility import GLOBAL_SCOPES, encode, make_principal

READ, WRITE, ADMIN = "cloud_controller.read", "cloud_controller.write", "cloud_controller.admin"
texts = st.text(st.sampled_from("a1:2,/ é"), max_size=6)


def principal(**changes: Any) -> Principal:
    facts: dict[str, Any] = {
        "kind": PrincipalKind.USER,
        "principal_id": "u1",
        "issuer": "https://uaa.example.org/oauth/token",
        "zone": "uaa",
        "client_id": "cf",
        "scopes": frozenset({READ, WRITE, "openid"}),
        "expires": 100,
    }
    return make_principal(**facts | changes)


@given(one=st.lists(texts, max_size=4), other=st.lists(texts, max_size=4))
def test_encoding_is_injective(one: list[str], other: list[str]) -> None:
    assert (encode(*one) == encode(*other)) == (one == other)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": PrincipalKind.CLIENT},
        {"principal_id": "u2"},
        {"issuer": "https://other.example.org/oauth/token"},
        {"zone": "another"},
        {"scopes": frozenset({READ})},
        {"scopes": frozenset({READ, WRITE, "cloud_controller_service_permissions.read"})},
    ],
    ids=["user-or-client", "id", "issuer", "zone", "fewer-scopes", "more-scopes"],
)
def test_whatever_makes_a_token_see_less_or_more_is_in_the_domain(change: dict[str, Any]) -> None:
    assert principal(**change).domain != principal().domain


@pytest.mark.parametrize(
    "change",
    [
        {"expires": 200},
        {"client_id": "another-client"},
        {"scopes": frozenset({READ, WRITE, "uaa.user", "profile"})},
    ],
    ids=["refreshed-token", "other-client-of-the-user", "scopes-of-others"],
)
def test_a_refreshed_token_keeps_its_pages(change: dict[str, Any]) -> None:
    assert principal(**change).domain == principal().domain


@pytest.mark.parametrize("scope", sorted(GLOBAL_SCOPES))
@pytest.mark.parametrize("kind", PrincipalKind)
def test_all_who_see_everything_share_one_domain(scope: str, kind: PrincipalKind) -> None:
    one = principal(kind=kind, principal_id="someone", scopes=frozenset({scope, READ}))
    admin = principal(principal_id="admin", scopes=frozenset({ADMIN}))
    assert one.global_domain == admin.global_domain is not None
    assert one.domain != admin.domain


@pytest.mark.parametrize("change", [{"issuer": "https://other.example.org/oauth/token"}, {"zone": "another"}])
def test_another_issuer_or_zone_has_another_everything(change: dict[str, Any]) -> None:
    scopes = frozenset({ADMIN})
    assert principal(scopes=scopes, **change).global_domain != principal(scopes=scopes).global_domain


@pytest.mark.parametrize(
    "scopes",
    [{READ, WRITE}, set(), {"cloud_controller.admin_read_onl"}, {"admin"}, {"Cloud_Controller.Admin"}, {f"{ADMIN} "}],
    ids=lambda scopes: "+".join(sorted(scopes)) or "none",
)
def test_nobody_else_gets_there(scopes: set[str]) -> None:
    assert principal(scopes=frozenset(scopes)).global_domain is None


def test_the_class_comes_from_the_token_and_not_from_the_user() -> None:
    """controller.md §2: one user may hold an admin token and a narrow one."""
    wide, narrow = principal(scopes=frozenset({ADMIN})), principal(scopes=frozenset({READ}))
    assert wide.id == narrow.id
    assert narrow.global_domain is None
    assert narrow.domain not in (wide.domain, wide.global_domain)


@given(
    issuer=texts,
    zone=texts,
    name=texts,
    scopes=st.frozensets(st.sampled_from([READ, WRITE, "cloud_controller.x:1", "cloud_controller"])),
)
def test_no_choice_of_names_reaches_the_global_domain(
    issuer: str, zone: str, name: str, scopes: frozenset[str]
) -> None:
    narrow = principal(issuer=issuer, zone=zone, principal_id=name, scopes=scopes)
    wide = principal(issuer=issuer, zone=zone, principal_id=name, scopes=frozenset({ADMIN}))
    assert wide.global_domain is not None
    assert narrow.domain.id != wide.global_domain.id


def test_what_many_tokens_have_in_common_is_one_object() -> None:
    """Thousands of principals are remembered; each would bring scopes and a domain of its own."""
    scopes = [frozenset({READ, *GLOBAL_SCOPES}) for _ in range(2)]
    one, other = (principal(principal_id=str(number), scopes=scopes[number]) for number in range(2))
    assert scopes[0] is not scopes[1]
    assert one.scopes is other.scopes
    assert one.global_domain is other.global_domain
    assert one.domain != other.domain
