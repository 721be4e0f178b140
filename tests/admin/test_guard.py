"""The operator's listener behind a token."""

from __future__ import annotations

import base64

import pytest
from aiohttp import web

from gateway.settings import ConfigError, parse

TOKEN = "an-operators-token-of-some-length"
AUTH_KEYS = "auth: {keys: [{secret: a-secret-that-is-long-enough-for-hs256-and-its-tests}]}"


def basic(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


async def guarded_gateway(start_gateway, stub, token: str = TOKEN):
    return await start_gateway(stub.url, admin=f"{{port: 0, token: {token}}}")


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        pytest.param([], 401, id="nothing"),
        pytest.param([f"Authorization: bearer {TOKEN}"], 200, id="the token"),
        pytest.param([f"Authorization: Bearer {TOKEN}"], 200, id="RFC 9110 §11.1 the scheme in any case"),
        pytest.param([f"Authorization: Bearer  {TOKEN}"], 200, id="two spaces"),
        pytest.param([f"Authorization: bearer {TOKEN[:-1]}"], 401, id="cut off"),
        pytest.param([f"Authorization: bearer {TOKEN}x"], 401, id="and more"),
        pytest.param([f"Authorization: bearer {TOKEN.upper()}"], 401, id="in capitals"),
        pytest.param([f"Authorization: bearer {TOKEN} {TOKEN}"], 401, id="twice"),
        pytest.param([f"Authorization: bearer {TOKEN}"] * 2, 401, id="two fields"),
        pytest.param(["Authorization: bearer \u00e9\u00ff"], 401, id="no text"),
        pytest.param(["Authorization: bearer"], 401, id="the scheme alone"),
        pytest.param([f"Authorization: {TOKEN}"], 401, id="no scheme"),
        pytest.param([f"Authorization: Digest {TOKEN}"], 401, id="another scheme"),
        pytest.param([f"Authorization: Basic {basic('me', TOKEN)}"], 200, id="RFC 7617 as a browser's password"),
        pytest.param([f"Authorization: Basic {basic(TOKEN, '')}"], 401, id="RFC 7617 as a user"),
        pytest.param([f"Authorization: Basic {TOKEN}"], 401, id="RFC 7617 not encoded"),
        pytest.param(["Authorization: Basic ===="], 401, id="RFC 7617 nothing"),
        pytest.param([f"X-Authorization: bearer {TOKEN}"], 401, id="another field"),
        pytest.param([f"Authorization_: bearer {TOKEN}"], 401, id="CVE-2025-64484 an underscore twin"),
    ],
)
@pytest.mark.parametrize("path", ["/metrics", "/readyz"])
async def test_all_pages_ask_for_the_token(
    stub, start_gateway, connect, path: str, fields: list[str], status: int
) -> None:
    gateway = await guarded_gateway(start_gateway, stub)
    answer = await (await connect(gateway.admin_url)).ask(f"GET {path}", *fields)
    assert answer.status == (503 if (path, status) == ("/readyz", 200) and b'"ready": false' in answer.body else status)
    if status == 401:
        assert answer.field("WWW-Authenticate") == 'Bearer realm="gateway admin", Basic realm="gateway admin"'
        assert TOKEN.encode() not in answer.body


@pytest.mark.parametrize(
    "path",
    ["/", "/nosuch", "/healthz/", "//healthz", "/healthz/../metrics", "/metrics/", "/cache", "/-/reload", "/status"],
)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
async def test_whatever_is_not_exactly_healthz_asks_for_it(
    stub, start_gateway, connect, method: str, path: str
) -> None:
    """Pages that are added later, and paths there are none for: nothing is to be found out without the token."""
    gateway = await guarded_gateway(start_gateway, stub)
    answer = await (await connect(gateway.admin_url)).ask(f"{method} {path}", "Content-Length: 0")
    assert answer.status == 401


async def test_no_other_site_can_make_a_browser_write(stub, start_gateway, connect) -> None:
    gateway = await guarded_gateway(start_gateway, stub)
    client = await connect(gateway.admin_url)
    for fields, status in (
        ((f"Authorization: Basic {basic('me', TOKEN)}",), 401),
        ((f"Authorization: bearer {TOKEN}",), 405),
    ):
        assert (await client.ask("POST /metrics", "Content-Length: 0", *fields)).status == status


async def test_every_route_of_the_application_is_guarded(stub, start_gateway, connect) -> None:
    gateway = await guarded_gateway(start_gateway, stub)
    assert gateway._admin is not None
    application = gateway._admin.app
    assert isinstance(application, web.Application)
    paths = {route.resource.canonical for route in application.router.routes() if route.resource is not None}
    assert {"/metrics", "/readyz", "/healthz"} <= paths
    for path in paths - {"/healthz"}:
        answer = await (await connect(gateway.admin_url)).ask(f"GET {path}")
        assert answer.status == 401, path


async def test_health_is_open(stub, start_gateway, connect) -> None:
    gateway = await guarded_gateway(start_gateway, stub)
    answer = await (await connect(gateway.admin_url)).ask("GET /healthz")
    assert (answer.status, answer.body) == (200, b"ok\n")


async def test_without_a_token_all_is_open_to_who_reaches_it(stub, start_gateway, connect) -> None:
    gateway = await start_gateway(stub.url)
    assert gateway.settings.admin.host == "127.0.0.1", "nobody from elsewhere, by default"
    assert (await (await connect(gateway.admin_url)).ask("GET /metrics")).status == 200


def settings_text(token: str) -> str:
    return (
        f"public_url: https://api.example.org\nupstream: {{url: https://cc.example.org}}\n{AUTH_KEYS}\nadmin: {token}\n"
    )


def test_the_token_may_come_from_the_environment_and_is_never_shown() -> None:
    settings = parse(settings_text("{token: '${ADMIN_TOKEN}'}"), {"ADMIN_TOKEN": TOKEN})
    assert settings.admin.token is not None
    assert settings.admin.token.get_secret_value() == TOKEN
    assert TOKEN not in repr(settings) + str(settings) + repr(settings.redacted())


@pytest.mark.parametrize("token", ["sh0rt", "a token with spaces in it", "''", "'${NOT_SET}'", "ümlaute-in-the-token"])
def test_a_token_that_cannot_be_one_stops_the_start(token: str) -> None:
    with pytest.raises(ConfigError) as fault:
        parse(settings_text(f"{{token: {token}}}"), {})
    assert "admin.token" in str(fault.value)
    assert token.strip("'") not in str(fault.value) or token in {"''", "'${NOT_SET}'"}
