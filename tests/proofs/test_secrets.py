"""No secret leaves the process but where it is meant to go: not in a log, metric, operator's page, error or `repr`.

Every kind of secret that comes near the gateway is a canary here: a word that occurs nowhere else. All ways a request
can end are gone through with logging at its most talkative, and then everything that was written is searched.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from gateway.core.claims import ClaimPolicy
from gateway.core.keys import CacheKey
from gateway.core.model import Fields, Principal, RequestHead, ResponseHead, Target
from gateway.identity.keys import KeyLoadError, KeySet, from_jwk, from_pem, from_secret
from gateway.identity.verifier import Verifier
from gateway.pipeline.entry import Entry
from gateway.pipeline.exchange import Exchange, Reply
from gateway.pipeline.transform import Page
from gateway.settings import ConfigError, parse
from gateway.telemetry import log
from tests.conftest import SECRET, Answer, Received, Wire, token

CANARIES = {
    name: f"canary-{name}-never-shown"
    for name in (
        "cookie",
        "query",
        "basic",
        "body",
        "answer",
        "setcookie",
        "location",
        "proxy",
        "field",
        "upload",
        "etag",
    )
}
ADMIN_TOKEN = "canary-admin-never-shown-and-some-more"
TOKEN = token(jti="canary-jti", user_name="canary-user-never-shown")
STRANGE = jwt.encode({"canary": "canary-strange-never-shown"}, "canary-other-secret-never-shown-of-32-bytes", "HS256")
EXPIRED = token(exp=int(time.time()) - 10, jti="canary-old")


def secrets() -> list[str]:
    """Everything that must not be found, tokens also by their parts."""
    parts = [part for one in (TOKEN, STRANGE, EXPIRED) for part in one.split(".")[1:]]
    encoded = [base64.b64encode(f"me:{CANARIES['basic']}".encode()).decode()]
    return [*CANARIES.values(), *parts, *encoded, SECRET, ADMIN_TOKEN, "canary-user-never-shown", "never-shown"]


def leaks(written: str) -> list[str]:
    return [secret for secret in secrets() if secret in written]


HEADERS = (
    f"Cookie: session={CANARIES['cookie']}",
    f"Proxy-Authorization: Basic {CANARIES['proxy']}",
    f"X-Auth-Token: {CANARIES['field']}",
    f"Referer: https://example.org/?token={CANARIES['field']}",
    f'If-None-Match: "{CANARIES["etag"]}"',
)
QUERY = f"access_token={CANARIES['query']}"
CHUNKED = "Transfer-Encoding: chunked"


# -- the ways a request can end: what the client writes, by what it meets


async def upstream(request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A controller that answers with secrets, or fails with them, by a word in the target."""
    fields = [f"Set-Cookie: a={CANARIES['setcookie']}", f"Location: https://x.example.org/?sig={CANARIES['location']}"]
    answer = json.dumps({"password": CANARIES["answer"], "links": {"self": {"href": "/x"}}}).encode()
    head = "\r\n".join(["HTTP/1.1 200 OK", "Content-Type: application/json", *fields, f"Content-Length: {len(answer)}"])
    target = request.line.split()[1]
    if "refuse" in target:
        writer.close()
    elif "garbage" in target:
        writer.write(f"{CANARIES['answer']}\r\n\r\n".encode())
    elif "badfield" in target:
        writer.write(f"HTTP/1.1 200 OK\r\nSet-Cookie: {CANARIES['setcookie']}\x00\r\n\r\n".encode())
    elif "half" in target:
        writer.write(head.encode() + b"\r\n\r\n" + answer[:5])
        writer.close()
    elif "toolong" in target:
        writer.write(head.encode() + b"\r\nX: " + CANARIES["field"].encode() * 20_000 + b"\r\n\r\n")
    elif "badjson" in target:
        body = f'{{"password": "{CANARIES["answer"]}", '.encode()
        writer.write(head.replace(str(len(answer)), str(len(body))).encode() + b"\r\n\r\n" + body)
    elif "error" in target:
        writer.write(head.replace("200 OK", "500 No").encode() + b"\r\n\r\n" + answer)
    else:
        writer.write(head.encode() + b"\r\n\r\n" + (b"" if request.line.startswith("HEAD") else answer))


def plain(line: str, *fields: str, body: bytes = b"") -> Callable[[Wire], Any]:
    async def talk(client: Wire) -> None:
        await client.request(line, *HEADERS, *fields, body=body)
        with contextlib.suppress(asyncio.IncompleteReadError):  # closed without an answer
            await client.answer(line.split(maxsplit=1)[0])

    return talk


def bytes_only(data: bytes) -> Callable[[Wire], Any]:
    async def talk(client: Wire) -> None:
        await client.send(data)
        client.writer.write_eof()
        await client.reader.read()

    return talk


async def leaves(client: Wire) -> None:
    await client.request("POST /v3/apps", *HEADERS, BEARER, "Content-Length: 100", body=CANARIES["upload"].encode())
    client.writer.transport.abort()


BEARER = f"Authorization: bearer {TOKEN}"
BASIC = base64.b64encode(b"me:canary-basic-never-shown").decode()
UNSCOPED = token(scope=["openid"], jti="canary-never-shown")
WAYS: dict[str, Callable[[Wire], Any]] = {
    "forwarded": plain(f"GET /v3/processes?{QUERY}", BEARER),
    "cached": plain("GET /v3/processes?page=1", BEARER),
    "cached again": plain("GET /v3/processes?page=1", BEARER),
    "head": plain("HEAD /v3/processes", BEARER),
    "write": plain(
        f"POST /v3/apps?{QUERY}", BEARER, f"Content-Length: {len(CANARIES['upload'])}", body=CANARIES["upload"].encode()
    ),
    "no token": plain(f"GET /v3/processes?{QUERY}"),
    "Basic": plain("GET /v3/processes", f"Authorization: Basic {BASIC}"),
    "another's token": plain("GET /v3/processes", f"Authorization: bearer {STRANGE}"),
    "expired": plain("GET /v3/processes", f"Authorization: bearer {EXPIRED}"),
    "three words": plain("GET /v3/processes", f"Authorization: bearer {TOKEN} {CANARIES['field']}"),
    "two fields": plain("GET /v3/processes", BEARER, BEARER),
    "no scope": plain("GET /v3/processes", f"Authorization: bearer {UNSCOPED}"),
    "a huge token": plain("GET /v3/processes", f"Authorization: bearer {TOKEN}{'A' * 30_000}"),
    "denied": plain(f"GET /internal/x?{QUERY}", BEARER),
    "unknown": plain(f"GET /v3/nosuch?{QUERY}", BEARER),
    "a public route with a bad token": plain("GET /v3/info", f"Authorization: bearer {STRANGE}"),
    "dot segment": plain(f"GET /v3/../x?{QUERY}", BEARER),
    "userinfo": plain(f"GET http://me:{CANARIES['basic']}@host/v3?{QUERY}", BEARER),
    "authority form": plain(f"CONNECT {CANARIES['query']}:443", BEARER),
    "no target": plain(f"GET {CANARIES['query']}", BEARER),
    "bad host": bytes_only(f"GET /v3 HTTP/1.1\r\nHost: {CANARIES['basic']}@x\r\n{BEARER}\r\n\r\n".encode()),
    "not HTTP": bytes_only(f"{CANARIES['query']}\r\n\r\n".encode()),
    "a bad field": bytes_only(f"GET /v3 HTTP/1.1\r\nHost: x\r\nCookie {CANARIES['cookie']}\r\n\r\n".encode()),
    "NUL in a field": bytes_only(f"GET /v3 HTTP/1.1\r\nHost: x\r\nCookie: {CANARIES['cookie']}\x00\r\n\r\n".encode()),
    "a long field": plain("GET /v3", f"Cookie: {CANARIES['cookie'] * 10_000}"),
    "both lengths": plain("POST /v3/apps", BEARER, "Content-Length: 3", CHUNKED, body=CANARIES["upload"].encode()),
    "a bad chunk": plain("POST /v3/apps", BEARER, CHUNKED, body=CANARIES["upload"].encode()),
    "HTTP/2": bytes_only(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + CANARIES["query"].encode()),
    "leaves": leaves,
    **{
        f"upstream: {fault}": plain(f"GET /v3/apps/{fault}?{QUERY}", BEARER)
        for fault in ("refuse", "garbage", "badfield", "half", "toolong", "badjson", "error")
    },
    "a fault of ours": plain("GET /v3/apps/ours", BEARER),
}


@pytest.fixture
def _talkative(caplog):
    """Everything is logged, of the libraries too; structlog is left as it was."""
    before, level = structlog.get_config(), logging.getLogger().level
    caplog.set_level(logging.DEBUG)
    yield
    structlog.configure(**before)
    logging.getLogger().setLevel(level)


@pytest.mark.usefixtures("_talkative")
@pytest.mark.parametrize("form", ["json", "console", "rfc5424"])
async def test_nothing_secret_is_written_whatever_happens(
    start_gateway, start_upstream, connect, capfd, caplog, monkeypatch, form: str
) -> None:
    log.configure(level="debug", style=form)
    gateway = await start_gateway(
        await start_upstream(upstream),
        "rate_limits: {policies: [{name: all, who: everybody, limit: 10000, window: 1m}]}\n"
        "tracing: {endpoint: 'http://127.0.0.1:9/v1/traces', sample: 1}",
        admin=f"{{port: 0, token: {ADMIN_TOKEN}}}",
    )
    spans = InMemorySpanExporter()
    gateway._traces._processor.shutdown()
    object.__setattr__(gateway._traces, "_processor", SimpleSpanProcessor(spans))
    match = gateway.routes.match

    def failing(method: str, path: str) -> Any:
        held = (TOKEN, CANARIES["field"])  # in the frame of a traceback, where a talkative formatter finds it
        if path.endswith("/ours"):
            raise RuntimeError(f"a fault of ours, with {len(held)} secrets in hand")
        return match(method, path)

    monkeypatch.setattr(type(gateway.routes), "match", lambda _self, method, path: failing(method, path))
    for name, talk in WAYS.items():
        await talk(await connect(gateway.url))
        await asyncio.sleep(0)
        written = "".join(capfd.readouterr()) + caplog.text
        caplog.clear()
        assert not leaks(written), name
        assert "Traceback" not in written or name == "a fault of ours", name
    paths = (
        "/metrics",
        "/readyz",
        "/",
        "/-/status.json",
        "/-/decisions",
        "/cache",
        "/cache/entries",
        "/cache/entries/x",
    )
    pages = [await page(connect, gateway.admin_url, path) for path in paths]
    assert [each.status for each in pages if each.status not in {200, 503}] == [404]
    assert b"/v3/processes" in pages[4].body
    told = [repr((span.name, dict(span.attributes or {}), span.events)) for span in spans.get_finished_spans()]
    assert len(told) > 30
    assert not leaks("".join(told))
    assert b"gateway_requests_total" in pages[0].body
    assert not leaks("".join(each.body.decode() + repr(each.fields) for each in pages))
    assert not leaks(repr(gateway) + repr(gateway.settings) + json.dumps(gateway.settings.redacted()))


async def page(connect, url: str, path: str) -> Answer:
    return await (await connect(url)).ask(f"GET {path}", f"Authorization: bearer {ADMIN_TOKEN}")


@pytest.mark.usefixtures("_talkative")
@pytest.mark.parametrize("form", ["json", "console", "rfc5424"])
def test_a_traceback_shows_no_values(capfd, form: str) -> None:
    log.configure(level="debug", style=form)

    def fail(held: str) -> None:
        raise RuntimeError(f"with {len(held)} characters in hand")

    try:
        fail(TOKEN)
    except RuntimeError:
        structlog.get_logger().exception("fault")
    written = "".join(capfd.readouterr())
    assert "RuntimeError" in written
    assert not leaks(written)


@pytest.mark.usefixtures("_talkative")
@pytest.mark.parametrize("form", ["json", "console", "rfc5424"])
@pytest.mark.parametrize("path", ["/v3/\x1b[2Jx", "/v3/a\rforged", "/v3/\x9b2J", "/v3/\u202ex", "/\x7f"], ids=ascii)
async def test_what_a_client_sends_cannot_steer_the_reader_of_the_log(
    stub, start_gateway, connect, capfd, form: str, path: str
) -> None:
    """Log injection (CWE-117): control characters of a terminal are written down, not written."""
    log.configure(level="debug", style=form)
    gateway = await start_gateway(stub.url)
    client = await connect(gateway.url)
    await client.send(f"GET {path} HTTP/1.1\r\nHost: x\r\nX-Vcap-Request-Id: a\x1b[1m\r\n\r\n".encode())
    client.writer.write_eof()
    await client.reader.read()
    written = "".join(capfd.readouterr())
    assert not set(written) & set("\x1b\r\x9b\u202e\x7f\x00")


# -- repr: what ends in a traceback of somebody's debugger, or in a message that formats too much


_KEYS = KeySet((from_secret(SECRET.encode()),))
_POLICY = ClaimPolicy(None, frozenset({"cloud_controller"}))


def principal() -> Principal:
    verdict = Verifier(lambda: _KEYS, _POLICY, refetchable=False, max_token_bytes=1 << 14, memo_entries=10).verify(
        TOKEN, time.time()
    )
    assert isinstance(verdict, Principal)
    return verdict


def _private_pem() -> bytes:
    key = rsa.generate_private_key(65537, 2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def reprs() -> dict[str, object]:
    fields = Fields([("Authorization", f"bearer {TOKEN}"), ("Cookie", CANARIES["cookie"])])
    head = RequestHead("GET", Target("/v3", QUERY), fields)
    key = CacheKey("domain", "/v3", "", "json")
    exchange = Exchange(head, request_id="id", received_at=0.0)
    exchange.principal = principal()
    body = CANARIES["body"].encode()
    return {
        "Fields": fields,
        "Target": Target("/v3", QUERY),
        "RequestHead": head,
        "ResponseHead": ResponseHead(200, fields),
        "Exchange": exchange,
        "Principal": principal(),
        "Reply": Reply(200, fields, body),
        "Entry": Entry(key, fields, body, '"e"', 0.0, 0.0, 0.0, 0.0, ()),
        "Page": Page(200, None, fields, body),
        "Key": from_secret(SECRET.encode()),
        "KeySet": _KEYS,
        "Verifier": Verifier(lambda: _KEYS, _POLICY, refetchable=False, max_token_bytes=1 << 14, memo_entries=10),
        "settings": parse(f"{OPEN}auth: {{keys: [{{secret: {SECRET}}}]}}\nadmin: {{token: {ADMIN_TOKEN}}}\n", {}),
    }


def test_no_repr_shows_a_secret() -> None:
    for name, value in reprs().items():
        for written in (repr(value), str([value]), f"{value!r}"):
            assert not leaks(written), name


def test_keys_say_why_they_are_refused_and_not_what_they_are() -> None:
    pem = _private_pem()
    middle = pem.decode().splitlines()[5]
    for load in (
        lambda: from_pem(pem),
        lambda: from_pem(b"-----BEGIN PUBLIC KEY-----\n" + middle.encode() + b"\n-----END PUBLIC KEY-----"),
        lambda: from_secret(b"canary-never-shown"),
        lambda: from_jwk({"kty": "oct", "k": "Y2FuYXJ5LTVlN2M", "kid": 5}, allow_symmetric=True),
        lambda: from_jwk({"kty": "MAC", "value": "canary-never-shown"}, allow_symmetric=True),
        lambda: from_jwk({"kty": "RSA", "n": middle, "e": "AQAB", "d": middle}, allow_symmetric=True),
    ):
        with pytest.raises(KeyLoadError) as refused:
            load()
        assert middle not in str(refused.value)
        assert not leaks(str(refused.value))


# -- settings: a secret at the wrong place, a mistake beside it

OPEN = "public_url: https://api.example.org\nupstream: {url: https://cc.example.org}\n"
C = "canary-never-shown"
FAULTY = [
    f"auth: {{keys: [{{secret: [{C}]}}]}}",
    f"auth: {{keys: [{{secret: {{{C}: {C}}}}}]}}",
    f"auth: {{keys: [{{secret: {C}}}]}}",
    f"auth: {{keys: [{{secrte: {C}}}]}}",
    f"auth: {{keys: [{{{C}: 1}}]}}",
    f"auth: {{keys: [{C}]}}",
    f"auth: {{keys: {C}}}",
    f"auth: {{keys: [{{secret: {C * 4}, algorithms: [RS256]}}]}}",
    f"auth: {{keys: [{{secret: {C * 4}, secret: {C}}}]}}",
    f"auth: {{keys: [{{url: 'https://me:{C}@uaa.example.org/token_keys'}}]}}",
    f"admin: {{token: {C}}}",
    f"admin: {{token: [{C}]}}",
    f"admin: {{token: {C * 4} x}}",
    f"admin: {{tokne: {C}}}",
    f"admin: {{token: {C}, port: x",
    f"admin: {{token: '{C}",
    f"admin: {{token: !!binary {C}}}",
    f"admin: {{token: &{C} x, port: *{C}}}",
    f"admin: {{token: '${{NOT_SET:?{C}}}'}}",
    f"public_url: https://me:{C}@api.example.org",
    "admin: {token: '${CANARY}'}",
    "admin: {port: '${CANARY}'}",
]


@pytest.mark.parametrize("line", FAULTY)
def test_no_fault_of_settings_shows_a_secret(line: str) -> None:
    key = line.partition(":")[0]
    base = "".join(each + "\n" for each in OPEN.splitlines() if not each.startswith(f"{key}:"))
    environ = {"CANARY": C}
    with pytest.raises(ConfigError) as fault:
        parse(f"{base}{line}\n", environ)
    written = str(fault.value) + repr(fault.value) + repr(fault.value.__cause__) + repr(fault.value.__context__)
    # What comes from the environment by a name is known to be secret only where a secret belongs.
    assert not leaks(written) or line == "admin: {port: '${CANARY}'}"


def command(tmp_path: Path, text: str, *arguments: str) -> str:
    """What the command line writes."""
    file = tmp_path / "gateway.yaml"
    file.write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "gateway", *arguments, "-c", str(file)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "CANARY": C},
        cwd=Path(__file__).parents[2],
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [("check", "--offline"), ("explain", "GET", f"/v3/processes?{QUERY}")])
def test_commands_show_no_secret(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    text = f"{OPEN}auth: {{keys: [{{secret: {SECRET}}}]}}\nadmin: {{token: {ADMIN_TOKEN}}}\n"
    more = ("--token", TOKEN) if arguments[0] == "explain" else ()
    written = command(tmp_path, text, *arguments, *more)
    assert written
    assert not leaks(written.replace(CANARIES["query"], ""))  # explain repeats the target it was given
    assert not leaks(command(tmp_path, f"{OPEN}auth: {{keys: [{{secret: {C}}}]}}\n", *arguments, *more))
