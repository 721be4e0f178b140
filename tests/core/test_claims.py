from __future__ import annotations

from typing import Any

import pytest

from gateway.core.claims import ClaimFault, ClaimPolicy, judge
from gateway.core.model import Principal, PrincipalKind

NOW = 1_700_000_000.0
ISSUER = "https://uaa.example.org/oauth/token"
UAA = ClaimPolicy(ISSUER, frozenset({"cloud_controller", "cloud_controller_service_permissions"}))
SEED = ClaimPolicy(None, UAA.audiences)
GONE = object()


def claims(**changes: Any) -> dict[str, Any]:
    base = {
        "jti": "4b5f",
        "iss": ISSUER,
        "zid": "uaa",
        "user_id": "u-1",
        "client_id": "cf",
        "scope": ["cloud_controller.read"],
        "aud": ["cloud_controller"],
        "exp": int(NOW) + 60,
    }
    return {name: value for name, value in {**base, **changes}.items() if value is not GONE}


def test_a_user() -> None:
    principal = judge(claims(), UAA, NOW)
    assert isinstance(principal, Principal)
    assert (principal.kind, principal.id, principal.issuer, principal.zone, principal.client_id) == (
        PrincipalKind.USER,
        "u-1",
        ISSUER,
        "uaa",
        "cf",
    )
    assert principal.scopes == {"cloud_controller.read"}


def test_a_client() -> None:
    principal = judge(claims(user_id=GONE, client_id="metrics"), UAA, NOW)
    assert isinstance(principal, Principal)
    assert (principal.kind, principal.id) == (PrincipalKind.CLIENT, "metrics")


def test_a_client_named_like_a_user_is_somebody_else() -> None:
    user = judge(claims(user_id="same"), UAA, NOW)
    client = judge(claims(user_id=GONE, client_id="same"), UAA, NOW)
    assert isinstance(user, Principal)
    assert isinstance(client, Principal)
    assert user.domain != client.domain


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        pytest.param({"exp": int(NOW)}, ClaimFault.EXPIRED, id="leeway 0: exp equal to now"),
        pytest.param({"exp": GONE}, ClaimFault.EXP_NOT_INTEGER, id="recording auth-016 no exp"),
        pytest.param({"exp": str(int(NOW) + 60)}, ClaimFault.EXP_NOT_INTEGER, id="recording auth-017 exp is text"),
        pytest.param({"exp": NOW + 60}, ClaimFault.EXP_NOT_INTEGER, id="exp is a float"),
        pytest.param({"exp": True}, ClaimFault.EXP_NOT_INTEGER, id="exp is a boolean"),
        pytest.param({"iss": "https://evil.example.org/oauth/token"}, ClaimFault.WRONG_ISSUER, id="recording auth-023"),
        pytest.param({"iss": GONE}, ClaimFault.WRONG_ISSUER, id="recording auth-024 no issuer"),
        pytest.param({"iss": ISSUER[:-1]}, ClaimFault.WRONG_ISSUER, id="GHSA-75c5-xw7c-p5pm part of the issuer"),
        pytest.param({"iss": f"{ISSUER}/x"}, ClaimFault.WRONG_ISSUER, id="GHSA-75c5-xw7c-p5pm more than the issuer"),
        pytest.param({"iss": [ISSUER]}, ClaimFault.WRONG_ISSUER, id="GHSA-75c5-xw7c-p5pm issuer in a list"),
        pytest.param({"aud": GONE}, ClaimFault.WRONG_AUDIENCE, id="recording auth-027 no aud"),
        pytest.param({"aud": ["cloud"]}, ClaimFault.WRONG_AUDIENCE, id="recording auth-028 part of an audience"),
        pytest.param({"aud": ["some_other_service"]}, ClaimFault.WRONG_AUDIENCE, id="another audience"),
        pytest.param({"aud": {"cloud_controller": 1}}, ClaimFault.WRONG_AUDIENCE, id="aud is an object"),
        pytest.param({"aud": ["cloud_controller", 7]}, ClaimFault.WRONG_AUDIENCE, id="aud with a number"),
        pytest.param({"scope": "cloud_controller.admin"}, ClaimFault.BAD_SCOPE, id="recording auth-029 scope is text"),
        pytest.param({"scope": [["x"]]}, ClaimFault.BAD_SCOPE, id="scope of lists"),
        pytest.param({"scope": None}, ClaimFault.BAD_SCOPE, id="scope is null"),
        pytest.param({"jti": "4b5f-r"}, ClaimFault.REFRESH_TOKEN, id="controller.md §2 a refresh token"),
        pytest.param({"jti": GONE}, ClaimFault.NO_TOKEN_ID, id="recording auth-015 no jti"),
        pytest.param({"jti": 7}, ClaimFault.NO_TOKEN_ID, id="jti is a number"),
        pytest.param({"user_id": GONE, "client_id": GONE}, ClaimFault.NO_PRINCIPAL, id="recording auth-037"),
        pytest.param({"user_id": ""}, ClaimFault.NO_PRINCIPAL, id="recording auth-039 empty user_id"),
        pytest.param({"user_id": 7}, ClaimFault.NO_PRINCIPAL, id="user_id is a number"),
        pytest.param({"user_id": {"u": 1}}, ClaimFault.NO_PRINCIPAL, id="user_id is an object"),
        pytest.param({"zid": 7}, ClaimFault.NOT_TEXT, id="zid is a number"),
        pytest.param({"client_id": ["cf"]}, ClaimFault.NOT_TEXT, id="client_id of a user is a list"),
    ],
)
def test_refused(changes: dict[str, Any], fault: ClaimFault) -> None:
    assert judge(claims(**changes), UAA, NOW) is fault


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"nbf": int(NOW) + 999}, id="recording auth-019 nbf in the future"),
        pytest.param({"iat": int(NOW) + 999}, id="recording auth-020 iat in the future"),
        pytest.param({"aud": "cloud_controller"}, id="recording auth-025 aud is text"),
        pytest.param({"aud": ["cloud_controller_service_permissions"]}, id="recording auth-026"),
        pytest.param({"scope": GONE}, id="recording auth-030 no scope: 403 comes later"),
        pytest.param({"user_name": "日本"}, id="recording auth-040"),
        pytest.param({"zid": None}, id="zid is null"),
        pytest.param({"exp": 10**400}, id="exp beyond any clock"),
    ],
)
def test_accepted(changes: dict[str, Any]) -> None:
    assert isinstance(judge(claims(**changes), UAA, NOW), Principal)


def test_the_seeds_token_has_neither_issuer_nor_jti() -> None:
    seed = claims(iss=GONE, jti=GONE, zid=GONE, client_id=GONE)
    assert isinstance(judge(seed, SEED, NOW), Principal)
    assert judge(claims(iss=GONE, jti="x-r"), SEED, NOW) is ClaimFault.REFRESH_TOKEN


def test_leeway_is_granted_once_and_no_more() -> None:
    policy = ClaimPolicy(ISSUER, UAA.audiences, leeway=5.0)
    assert isinstance(judge(claims(exp=int(NOW) - 4), policy, NOW), Principal)
    assert judge(claims(exp=int(NOW) - 5), policy, NOW) is ClaimFault.EXPIRED


@pytest.mark.parametrize("name", ["iss", "zid", "client_id", "jti"])
def test_what_tells_domains_apart_is_never_read_as_absent(name: str) -> None:
    """Two values of the wrong type must not meet in the domain of those that have none."""
    assert judge(claims(**{name: 7}), SEED, NOW) is ClaimFault.NOT_TEXT
