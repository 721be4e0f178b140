from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import jwt
import pytest

from gateway.sandbox.people import CF_CLIENT, METRICS_COLLECTOR, PEOPLE, person
from gateway.sandbox.uaa import Uaa

NOW = 1_700_000_000.0
LIFETIME = 600
SIGNATURE_ONLY: Any = {"verify_aud": False, "verify_exp": False, "verify_iat": False}


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def uaa(clock: Clock) -> AsyncIterator[Uaa]:
    uaa = Uaa(lifetime=LIFETIME, clock=clock)
    await uaa.start()
    yield uaa
    await uaa.stop()


class Answer:
    def __init__(self, status: int, body: dict[str, Any], headers: Any) -> None:
        self.status = status
        self.body = body
        self.headers = headers


def basic(name: str, secret: str = "") -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(f'{name}:{secret}'.encode()).decode()}"}


CF = basic("cf")
LOGIN = {"grant_type": "password", "username": "space_developer", "password": "space_developer"}


@pytest.fixture
def grant(uaa: Uaa, http: aiohttp.ClientSession) -> Any:
    async def ask(form: dict[str, str], headers: dict[str, str] | None = CF) -> Answer:
        async with http.post(f"{uaa.url}/oauth/token", data=form, headers=headers) as response:
            return Answer(response.status, await response.json(), response.headers)

    return ask


async def get(http: aiohttp.ClientSession, url: str) -> Any:
    async with http.get(url) as response:
        assert response.status == 200
        return await response.json()


async def claims_of(token: str, uaa: Uaa, http: aiohttp.ClientSession) -> dict[str, Any]:
    """What anybody reads who knows nothing of this UAA but its address."""
    keys = jwt.PyJWKSet.from_dict(await get(http, f"{uaa.url}/token_keys"))
    kid = jwt.get_unverified_header(token)["kid"]
    return jwt.decode(token, keys[kid].key, algorithms=["RS256"], options=SIGNATURE_ONLY)


async def test_discovery_names_the_issuer_that_tokens_carry(uaa: Uaa, http: aiohttp.ClientSession) -> None:
    found = await get(http, f"{uaa.url}/.well-known/openid-configuration")
    assert found["issuer"].endswith("/oauth/token")
    assert found["jwks_uri"] == f"{uaa.url}/token_keys"
    token = uaa.mint(person("admin"))
    assert (await claims_of(token, uaa, http))["iss"] == found["issuer"]


@pytest.mark.parametrize("path", ["/info", "/login"])
async def test_the_cf_cli_is_told_what_to_ask_for(path: str, uaa: Uaa, http: aiohttp.ClientSession) -> None:
    info = await get(http, f"{uaa.url}{path}")
    assert info["links"]["uaa"] == info["links"]["login"] == uaa.url
    assert {name: kind for name, (kind, _) in info["prompts"].items()} == {"username": "text", "password": "password"}


async def test_controller_md_7_shape_of_token_keys(uaa: Uaa, http: aiohttp.ClientSession) -> None:
    listed = (await get(http, f"{uaa.url}/token_keys"))["keys"]
    assert [key.keys() >= {"kty", "alg", "use", "kid", "n", "e", "value"} for key in listed] == [True]
    assert listed[0]["value"].startswith("-----BEGIN PUBLIC KEY-----")
    assert "d" not in listed[0]
    assert await get(http, f"{uaa.url}/token_key") == listed[0]
    assert uaa.token_keys_requests == 1


async def test_controller_md_7_a_users_token(uaa: Uaa, http: aiohttp.ClientSession, grant: Any) -> None:
    answer = await grant(LOGIN)
    assert answer.status == 200
    assert answer.headers["Cache-Control"] == "no-store"  # RFC 6749 §5.1
    assert (answer.body["token_type"], answer.body["expires_in"]) == ("bearer", LIFETIME - 1)
    token = answer.body["access_token"]
    header = jwt.get_unverified_header(token)
    assert header == {"alg": "RS256", "typ": "JWT", "kid": "sandbox-key-1", "jku": f"{uaa.url}/token_keys"}
    claims = await claims_of(token, uaa, http)
    who = person("space_developer")
    assert claims["sub"] == claims["user_id"] == who.user_guid
    assert claims["client_id"] == claims["cid"] == claims["azp"] == "cf"
    assert (claims["iat"], claims["exp"]) == (int(NOW), int(NOW) + LIFETIME)
    assert claims["jti"] == answer.body["jti"]
    assert "cloud_controller" in claims["aud"]
    assert claims["scope"] == list(who.scopes) == answer.body["scope"].split()
    assert claims.keys() >= {"auth_time", "rev_sig", "zid", "origin", "user_name", "email", "grant_type"}


async def test_controller_md_7_a_clients_token(uaa: Uaa, http: aiohttp.ClientSession, grant: Any) -> None:
    client = METRICS_COLLECTOR
    answer = await grant({"grant_type": "client_credentials"}, basic(client.client_id, client.secret))
    assert "refresh_token" not in answer.body
    claims = await claims_of(answer.body["access_token"], uaa, http)
    assert claims["sub"] == claims["client_id"] == client.client_id
    assert claims["authorities"] == claims["scope"] == list(client.scopes)
    assert claims.keys().isdisjoint({"user_id", "user_name", "email", "origin"})


@pytest.mark.parametrize("who", PEOPLE, ids=lambda who: who.username)
async def test_everybody_can_log_in(who: Any, uaa: Uaa, grant: Any) -> None:
    answer = await grant({"grant_type": "password", "username": who.username, "password": who.password})
    claims = uaa.verify(answer.body["access_token"])
    assert claims is not None
    assert claims["user_id"] == who.user_guid


async def test_rfc6749_2_3_1_a_client_may_name_itself_in_the_form(grant: Any) -> None:
    named = {"client_id": METRICS_COLLECTOR.client_id, "client_secret": METRICS_COLLECTOR.secret}
    assert (await grant({"grant_type": "client_credentials", **named}, None)).status == 200
    assert (await grant({**LOGIN, "client_id": CF_CLIENT.client_id}, None)).status == 200


GOOD_FORM_CLIENT = {"client_id": METRICS_COLLECTOR.client_id, "client_secret": METRICS_COLLECTOR.secret}


@pytest.mark.parametrize(
    ("form", "headers", "status", "error"),
    [
        pytest.param(LOGIN, None, 401, "invalid_client", id="no client"),
        pytest.param(LOGIN, basic("cf", "guess"), 401, "invalid_client", id="a secret where none is"),
        pytest.param(LOGIN, basic("nobody"), 401, "invalid_client", id="unknown client"),
        pytest.param(LOGIN, {"Authorization": "Basic !!"}, 401, "invalid_client", id="RFC 7617 not base64"),
        pytest.param(
            {"grant_type": "client_credentials", **GOOD_FORM_CLIENT},
            {"Authorization": "Basic !!"},
            401,
            "invalid_client",
            id="a bad field is not made good by the form",
        ),
        pytest.param({**LOGIN, "password": "wrong"}, CF, 401, "unauthorized", id="wrong password"),
        pytest.param({**LOGIN, "password": "pässwörd"}, CF, 401, "unauthorized", id="password not in ASCII"),
        pytest.param({**LOGIN, "username": "nobody"}, CF, 401, "unauthorized", id="unknown user"),
        pytest.param({"grant_type": "password"}, CF, 401, "unauthorized", id="no user"),
        pytest.param({}, CF, 400, "invalid_request", id="no grant type"),
        pytest.param({"grant_type": "implicit"}, CF, 400, "unsupported_grant_type", id="unknown grant type"),
        pytest.param({"grant_type": "client_credentials"}, CF, 401, "unauthorized_client", id="cf is for users"),
        pytest.param({"grant_type": "refresh_token"}, CF, 401, "invalid_token", id="no refresh token"),
    ],
)
async def test_rfc6749_5_2_refusals(
    form: dict[str, str], headers: dict[str, str] | None, status: int, error: str, grant: Any
) -> None:
    answer = await grant(form, headers)
    assert (answer.status, answer.body["error"]) == (status, error)
    assert answer.body["error_description"]
    assert ("WWW-Authenticate" in answer.headers) == (error == "invalid_client")


async def test_rfc6749_6_refresh(uaa: Uaa, grant: Any, clock: Clock) -> None:
    first = (await grant(LOGIN)).body
    clock.now += LIFETIME + 1
    assert uaa.verify(first["access_token"]) is None
    second = (await grant({"grant_type": "refresh_token", "refresh_token": first["refresh_token"]})).body
    claims = uaa.verify(second["access_token"])
    assert claims is not None
    assert claims["user_id"] == person("space_developer").user_guid


async def test_a_refresh_token_is_no_access_token_and_the_other_way_round(
    uaa: Uaa, http: aiohttp.ClientSession, grant: Any
) -> None:
    tokens = (await grant(LOGIN)).body
    assert (await claims_of(tokens["refresh_token"], uaa, http))["jti"].endswith("-r")
    assert uaa.verify(tokens["refresh_token"]) is None
    assert (await grant({"grant_type": "refresh_token", "refresh_token": tokens["access_token"]})).status == 401


async def test_a_refresh_token_expires(grant: Any, clock: Clock) -> None:
    tokens = (await grant(LOGIN)).body
    clock.now += 31 * 24 * 3600
    refused = await grant({"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]})
    assert refused.body["error"] == "invalid_token"


async def test_rfc6749_6_a_refresh_token_is_its_clients_own(uaa: Uaa, grant: Any) -> None:
    stranger = uaa.mint(person("admin"), client="another-client", jti="0123-r")
    refused = await grant({"grant_type": "refresh_token", "refresh_token": stranger})
    assert (refused.status, refused.body["error"]) == (401, "invalid_token")


async def test_rotation_keeps_the_old_key_listed_until_it_is_retired(uaa: Uaa, http: aiohttp.ClientSession) -> None:
    old = uaa.mint(person("admin"))
    kid = uaa.rotate()
    new = uaa.mint(person("admin"))
    assert jwt.get_unverified_header(new)["kid"] == kid != jwt.get_unverified_header(old)["kid"]
    listed = [key["kid"] for key in (await get(http, f"{uaa.url}/token_keys"))["keys"]]
    assert listed == [kid, "sandbox-key-1"]
    assert uaa.verify(old)
    assert uaa.verify(new)
    uaa.retire_old()
    assert [key["kid"] for key in (await get(http, f"{uaa.url}/token_keys"))["keys"]] == [kid]
    assert uaa.verify(old) is None
    assert uaa.verify(new)


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param({"aud": ["some_other_service"]}, id="another audience"),
        pytest.param({"iss": "https://elsewhere.example.org/oauth/token"}, id="another issuer"),
        pytest.param({"exp": int(NOW)}, id="expired"),
        pytest.param({"jti": None}, id="no jti"),
    ],
)
async def test_a_token_can_be_minted_bad_on_purpose(overrides: dict[str, Any], uaa: Uaa) -> None:
    assert uaa.verify(uaa.mint(person("admin"), **overrides)) is None


async def test_down(uaa: Uaa, http: aiohttp.ClientSession) -> None:
    uaa.down = True
    async with http.get(f"{uaa.url}/token_keys") as response:
        assert response.status == 503
    uaa.down = False
    assert await get(http, f"{uaa.url}/token_keys")
