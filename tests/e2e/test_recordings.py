"""Every read-only exchange that was recorded of a real controller, replayed through the gateway.

A stub answers with the recorded bytes; what the client gets must be the recorded status and body, links aside, and the
recorded fields, less those named in `GONE` and plus those in `MADE`. Where the gateway answers by itself, its status
and body must be the recorded ones byte for byte.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
import pytest

from gateway.app import Gateway
from gateway.settings import parse

RECORDINGS = Path(__file__).parents[2] / "../shared/recordings"
ORIGIN, PUBLIC = "https://api.internal.example.org", "https://gateway.example.org"
SECRET = "the symmetric key of the recorded world, a stand-in that is long enough for HS512"
OTHER_SECRET = "another symmetric key, which the gateway does not know"
ISSUER = "http://uaa.real.test/oauth/token"
GROUPS = (
    *("root", "list", "filters", "labels", "errors", "duplicates", "protocol", "visibility", "auth", "single"),
    *("other", "wire"),
)

# -- what need not be equal

# Of one connection, or of one principal.
GONE = {"connection", "content-length", "keep-alive", "transfer-encoding", "x-user-guid"}
# Of the one exchange that brought the page, so not of a page that is served again.
GONE_FROM_PAGES = {"x-b3-spanid", "x-b3-traceid", "x-runtime", "x-vcap-request-id"}
CHOICE = ("Vary", "Accept-Encoding")  # of a page that is sent encoded to who asks for that
# The gateway's own: RFC 9110 §7.6.3, §6.6.1; RFC 9211; framing; validators of a page.
MADE = {"age", "cache-status", "connection", "content-length", "date", "etag", "transfer-encoding", "via"}
# The gateway's own beside an error of the gateway's own.
MADE_BESIDE_ERRORS = {"www-authenticate", "x-content-type-options", "x-gateway-error", "x-vcap-request-id"}

PARSER = (
    "the controller's process hangs up or answers without a word; the gateway's parser says 400 in the API's format"
)
METHOD = "no method of HTTP as the gateway's parser knows it; it went to 500 in the controller's"
FRAMING = "the controller's answer breaks its own framing, and must not pass for a whole one"
# What the gateway answers otherwise than the recorded controller: the status, and why.
OTHERWISE: dict[str, tuple[int, str]] = {
    "protocol-009": (502, FRAMING),
    "protocol-011": (502, FRAMING),
    "protocol-064": (400, "a Host that is no host name (RFC 9112 §3.2)"),
    "protocol-094": (400, PARSER),
    "protocol-095": (400, PARSER),
    "protocol-100": (400, PARSER),
    "protocol-103": (400, "CONNECT, which asks for a tunnel, is refused"),
    "protocol-105": (400, METHOD),
    "auth-029": (401, "a scope claim that is no list crashes the controller (500)"),
    "auth-044": (431, PARSER),
    "other-050": (403, "/internal is for nobody at a front door; it was switched off in the recorded controller"),
}

BODY_CHANGES = re.compile(r"<(\d+) x (.)>")


@dataclass
class Recorded:
    """One exchange."""

    row: dict[str, Any]
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = self.row["name"].split(" ")[0]
        self.request, self.response, self.wire = self.row["request"], self.row["response"], self.row["wire"]

    def get(self, name: str) -> str | None:
        return next((value for key, value in self.response["headers"] if key.lower() == name), None)

    @property
    def reloads(self) -> bool:
        """Whether the client did not want a stored page."""
        return any(name == "Cache-Control" for name, _ in self.request["headers"])

    @property
    def body(self) -> bytes:
        return spelled_out(self.response["body"] or "").encode()

    def as_answered(self) -> bytes:
        """The response as it was on the wire."""
        if "raw_received" in self.wire:
            return self.wire["raw_received"].encode("latin-1")
        version = self.wire.get("version", "HTTP/1.1")
        head = [f"{version} {self.response['status']} {self.response['reason']}"]
        head += [f"{name}: {value}" for name, value in self.response["headers"]]
        content = self.body
        if self.wire["framing"] == "chunked" and content:
            content = b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content)
        elif self.wire["framing"] == "chunked":
            content = b"0\r\n\r\n"
        return "\r\n".join([*head, "", ""]).encode() + content

    def as_asked(self, tokens: Tokens) -> bytes:
        """The request as it was on the wire, with a token that counts now."""
        method, target = self.request["method"], spelled_out(self.request["target"])
        lines = [f"{method} {target} {self.request.get('version', 'HTTP/1.1')}"]
        for name, value in self.request["headers"]:
            said = tokens.spelled_out(value) if name == "Authorization" else spelled_out(value)
            lines.append(f"{name}: {said}")
        return "\r\n".join([*lines, "", ""]).encode("utf-8") + spelled_out(self.request["body"] or "").encode()


def spelled_out(text: str) -> str:
    return BODY_CHANGES.sub(lambda found: found[2] * int(found[1]), text)


# What was changed about space_developer's claims in the exchanges of the group auth.
TOKEN_CHANGES: dict[str, dict[str, Any]] = {
    "no jti": {"jti": None},
    "no exp": {"exp": None},
    "exp is text": {"exp": "text"},
    "exp just passed": {"exp": -1},
    "nbf in the future": {"nbf": 3600},
    "iat in the future": {"iat": 3600},
    "other issuer": {"iss": "http://other.test/oauth/token"},
    "no issuer": {"iss": None},
    "aud is a string": {"aud": "cloud_controller"},
    "aud second resource id": {"aud": ["cloud_controller_service_permissions"]},
    "no aud": {"aud": None},
    "aud is a scope prefix": {"aud": ["cloud_controller.read"]},
    "scope is a string": {"scope": "cloud_controller.read"},
    "no scope": {"scope": None},
    "empty scope": {"scope": []},
    "only write scope": {"scope": ["cloud_controller.write"]},
    "admin scope alone": {"scope": ["cloud_controller.admin"]},
    "admin_read_only alone": {"scope": ["cloud_controller.admin_read_only"]},
    "global_auditor alone": {"scope": ["cloud_controller.global_auditor"]},
    "update_build_state scope": {"scope": ["cloud_controller.update_build_state"]},
    "no user_id, no client_id": {"user_id": None, "client_id": None, "cid": None},
    "user_id unknown to CC": {"user_id": "c0000000-0000-4000-8000-00000000cafe"},
    "user_id is empty": {"user_id": ""},
    "user_name with unicode": {"user_name": "Zoë 日本"},
    "long valid token (12 KB)": {"padding": "x" * 8900},
}


class Tokens:
    """Tokens of the recorded principals, made again."""

    def __init__(self, principals: dict[str, dict[str, Any]]) -> None:
        self.principals = principals
        self.now = int(time.time())

    def spelled_out(self, value: str) -> str:
        if "empty header" in value:
            return ""
        value = value.replace("<basic>", base64.b64encode(b"user:password").decode())
        value = value.replace("<three base64 parts, payload not JSON>", "eyJhbGciOiJIUzI1NiJ9.bm90IGpzb24.c2ln")
        value = re.sub(r"<space_developer: ([^>]*)>", lambda found: self.changed(found[1]), spelled_out(value))
        return re.sub(r"<(\w+)>", lambda found: self.of(found[1]), value)

    def of(self, principal: str, **changes: Any) -> str:
        claims = self.principals.get(principal)
        if claims is None:
            return "garbage"
        times = {"iat": self.now - 60, "exp": self.now + (-3600 if principal == "expired" else 86400)}
        kept = {name: value for name, value in (claims | times | changes).items() if value is not None}
        return jwt.encode(kept, OTHER_SECRET if principal == "wrong_signature" else SECRET, "HS256")

    def changed(self, how: str) -> str:
        changes = TOKEN_CHANGES.get(how, {})
        moments = {name: self.now + value for name, value in changes.items() if isinstance(value, int)}
        token = self.of("space_developer", **changes | moments)
        if not how.startswith("alg "):
            return token
        header = {"alg": "none" if "none" in how else "HS512", "typ": "JWT"}
        first = base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()
        return ".".join([first, *token.split(".")[1:]])


def load() -> tuple[list[Recorded], Tokens]:
    path = RECORDINGS / "exchanges.jsonl"
    if not path.exists():
        pytest.skip("recordings not beside the checkout")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    world = json.loads((RECORDINGS / "world.json").read_text())
    return [Recorded(row) for row in rows if row["group"] in GROUPS], Tokens(world["principals"])


# -- the two ends


class Controller:
    """Answers whatever is asked with the exchange at hand."""

    def __init__(self) -> None:
        self.at_hand: Recorded | None = None
        self.asked: list[bytes] = []
        self.server: asyncio.Server | None = None

    async def start(self) -> str:
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0, limit=1 << 20)
        host, port = self.server.sockets[0].getsockname()
        return f"http://{host}:{port}"

    async def stop(self) -> None:
        assert self.server is not None
        self.server.close()
        await self.server.wait_closed()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if b"\r\nVia:" not in head:  # the gateway's own health probe
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                    continue
                recorded = self.at_hand
                assert recorded is not None
                await swallow(head, reader)
                self.asked.append(head)
                writer.write(recorded.as_answered())
                await writer.drain()
                if recorded.wire.get("closed_after") or recorded.wire["framing"] == "close":
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


async def swallow(head: bytes, reader: asyncio.StreamReader) -> None:
    length = re.search(rb"(?im)^content-length: *(\d+)", head)
    if length is not None:
        await reader.readexactly(int(length[1]))
    elif re.search(rb"(?im)^transfer-encoding: *chunked", head):
        await reader.readuntil(b"0\r\n\r\n")


@dataclass
class Result:
    """What a client got."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes

    def get(self, name: str) -> str | None:
        return next((value for key, value in self.fields if key.lower() == name), None)

    @property
    def is_hit(self) -> bool:
        return ";hit" in (self.get("cache-status") or "")

    @property
    def is_page(self) -> bool:
        return self.get("etag") is not None

    @property
    def is_ours(self) -> bool:
        return self.get("x-gateway-error") is not None


class Client:
    """A client that sends exact bytes, each request on a connection of its own."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").rpartition(":")
        self.address = (host, int(port))

    async def ask(self, recorded: Recorded, tokens: Tokens) -> Result:
        reader, writer = await asyncio.open_connection(*self.address, limit=1 << 20)
        try:
            writer.write(recorded.as_asked(tokens))
            return await self._read(reader, head_only=recorded.request["method"] == "HEAD")
        finally:
            writer.close()
            await writer.wait_closed()

    async def _read(self, reader: asyncio.StreamReader, *, head_only: bool) -> Result:
        first, *lines = (await reader.readuntil(b"\r\n\r\n"))[:-4].decode().split("\r\n")
        status = int(first.split(" ")[1])
        if status == 100:
            return await self._read(reader, head_only=head_only)
        result = Result(status, [tuple(line.split(": ", 1)) for line in lines], b"")  # type: ignore[misc]
        if head_only or status in {204, 304}:
            return result
        if result.get("transfer-encoding") == "chunked":
            while size := int(await reader.readuntil(b"\r\n"), 16):
                result.body += (await reader.readexactly(size + 2))[:-2]
        elif (length := result.get("content-length")) is not None:
            result.body = await reader.readexactly(int(length))
        else:
            result.body = await reader.read()
        return result


class Replay:
    """A gateway before the stub, and a client before the gateway."""

    def __init__(self, gateway: Gateway, controller: Controller, tokens: Tokens) -> None:
        self.gateway, self.controller, self.tokens = gateway, controller, tokens
        self.client = Client(gateway.url)

    async def ask(self, recorded: Recorded) -> Result:
        self.controller.at_hand = recorded
        return await asyncio.wait_for(self.client.ask(recorded, self.tokens), 10)


SETTINGS = """
listen: {{port: 0}}
admin: {{port: 0}}
public_url: {public}
drain: 1s
upstream: {{url: "{upstream}", advertised_urls: ["{origin}"], host_header: api.internal.example.org}}
auth: {{issuer: "{issuer}", keys: [{{secret: "{secret}"}}]}}
routes:
- {{match: GET /v3/processes, cache: {{mode: policy, ttl: 1h, share: global}}}}
- {{match: GET /v3/apps, cache: {{mode: policy, ttl: 1h, share: global}}}}
- {{match: GET /v3/apps/:guid/processes, cache: {{mode: policy, ttl: 1h, share: principal}}}}
- {{match: GET /v3/spaces, cache: {{mode: policy, ttl: 1h, share: global}}}}
- {{match: GET /v3/organizations, cache: {{mode: policy, ttl: 1h, share: global}}}}
"""


@pytest.fixture
async def replay() -> AsyncIterator[Replay]:
    tokens = load()[1]
    controller = Controller()
    upstream = await controller.start()
    text = SETTINGS.format(public=PUBLIC, upstream=upstream, origin=ORIGIN, issuer=ISSUER, secret=SECRET)
    gateway = Gateway(parse(text, {}))
    await gateway.start()
    yield Replay(gateway, controller, tokens)
    await gateway.stop()
    await controller.stop()


# -- the comparison


def links(document: Any) -> Iterator[dict[str, Any]]:
    """Every object whose `href` is the API's, by place."""
    if not isinstance(document, dict):
        return
    pagination = document.get("pagination")
    for name in ("first", "last", "next", "previous"):
        if isinstance(pagination, dict) and isinstance(pagination.get(name), dict):
            yield pagination[name]
    rows = [row for kind in (document.get("included") or {}).values() for row in kind]
    for resource in (document, *(document.get("resources") or ()), *rows):
        for link in (resource.get("links") or {}).values():
            if isinstance(link, dict):
                yield link


def rewritten(body: bytes) -> Any:
    document = json.loads(body)
    for link in links(document):
        href = link.get("href")
        if isinstance(href, str) and (href == ORIGIN or href.startswith(f"{ORIGIN}/")):
            link["href"] = PUBLIC + href.removeprefix(ORIGIN)
    return document


def differences(recorded: Recorded, result: Result) -> Iterator[str]:
    """In what the result is not the recorded answer."""
    if result.status != recorded.response["status"]:
        yield f"status {result.status}, recorded {recorded.response['status']}"
    head_only = recorded.request["method"] == "HEAD"
    if result.is_ours:
        if not head_only and result.body != recorded.body:
            yield f"our own body {result.body!r}, recorded {recorded.body!r}"
    elif not head_only:
        yield from body_differences(recorded, result)
    gone = GONE | (GONE_FROM_PAGES if result.is_hit else set())
    made = MADE | (MADE_BESIDE_ERRORS if result.is_ours else set())
    if result.is_hit or recorded.get("x-vcap-request-id") is None:
        made |= {"x-vcap-request-id"}
    wanted = [(name, value) for name, value in recorded.response["headers"] if name.lower() not in gone]
    if result.is_ours:
        # The security fields of the controller's web framework mean nothing to API clients.
        wanted = [pair for pair in wanted if pair[0].lower() == "content-type"]
    got = [(name, value) for name, value in result.fields if name.lower() not in made or (name, value) in wanted]
    if result.is_page and CHOICE in got:
        got.remove(CHOICE)
    if sorted(wanted) != sorted(got):
        yield f"fields {sorted(set(got) - set(wanted))}, recorded {sorted(set(wanted) - set(got))}"


def body_differences(recorded: Recorded, result: Result) -> Iterator[str]:
    # No recorded byte speaks of the public URL, so undoing the rewriting as text is exact.
    if result.body.replace(PUBLIC.encode(), ORIGIN.encode()) != recorded.body:
        yield f"bytes {result.body[:200]!r}, recorded {recorded.body[:200]!r}"
    if recorded.body.startswith(b"{") and json.loads(result.body) != rewritten(recorded.body):
        yield "links"


def compared(recorded: Recorded, result: Result, label: str) -> Iterator[str]:
    for difference in differences(recorded, result):
        yield f"{label} {recorded.row['name']} ({recorded.row['principal']}): {difference}"


def group(name: str) -> list[Recorded]:
    return [recorded for recorded in load()[0] if recorded.row["group"] == name and recorded.name not in OTHERWISE]


@pytest.mark.parametrize("name", GROUPS)
async def test_a_group_cold_and_warm(replay: Replay, name: str) -> None:
    """Each exchange asked of an empty cache, and then again."""
    faults: list[str] = []
    for recorded in group(name):
        replay.gateway.store.invalidate({"*"})
        cold = await replay.ask(recorded)
        faults += compared(recorded, cold, "cold")
        asked = len(replay.controller.asked)
        warm = await replay.ask(recorded)
        faults += compared(recorded, warm, "warm")
        if cold.is_page and not recorded.reloads and not (warm.is_hit and len(replay.controller.asked) == asked):
            faults.append(f"{recorded.name}: a stored page was not served again")
        if (cold.status, cold.body) != (warm.status, warm.body):
            faults.append(f"{recorded.name}: the second answer differs from the first")
    assert not faults, "\n".join(faults)


async def test_all_in_one_go(replay: Replay) -> None:
    """Every exchange, principals mixed as they were recorded, twice over one cache: what is shared is right."""
    faults: list[str] = []
    hits = 0
    for name in 2 * GROUPS:
        if name in {"root", "wire"}:
            replay.gateway.store.invalidate({"processes"})  # one was scaled before the group wire was recorded
        for recorded in group(name):
            result = await replay.ask(recorded)
            faults += compared(recorded, result, "in one go")
            hits += result.is_hit
    assert not faults, "\n".join(faults)
    assert hits > 100


@pytest.mark.parametrize("name", OTHERWISE)
async def test_what_is_answered_otherwise(replay: Replay, name: str) -> None:
    (recorded,) = (each for each in load()[0] if each.name == name)
    result = await replay.ask(recorded)
    assert result.status == OTHERWISE[name][0]
    assert result.is_ours
    assert len(replay.controller.asked) == (1 if result.status == 502 else 0)


def test_hardly_anything_is_answered_otherwise() -> None:
    recorded = load()[0]
    names = [each.name for each in recorded]
    assert len(recorded) > 650
    assert set(OTHERWISE) <= set(names)
    assert len(set(names)) == len(names)
