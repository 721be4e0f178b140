"""The sandbox against the recordings: byte for byte where the sandbox claims to be the same as the real controller.

Requests go over a raw socket, so that targets, duplicate headers and bodies are exactly the recorded ones. What is not
claimed stands in `NOT_CLAIMED`, each with its reason.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from pathlib import Path

import jwt
import pytest

from gateway.sandbox.controller import Controller
from gateway.sandbox.limiter import RateLimiter
from gateway.sandbox.tokens import hmac_checker
from gateway.sandbox.world import World

RECORDINGS = Path(__file__).parents[2] / "../shared/recordings"
SECRET = b"the symmetric key of the recorded world, stand-in"
OTHER_SECRET = b"another symmetric key, unknown to the controller"
READ_ONLY = (
    *("root", "list", "filters", "labels", "errors", "duplicates", "protocol", "visibility", "auth", "single", "other"),
    *("malformed", "wire"),
)
NOT_CLAIMED: dict[str, str] = {}
VOLATILE = {"X-Runtime", "X-VCAP-Request-ID"}
WRITES_BEGAN = 1_795_477_500


def load():
    path = RECORDINGS / "exchanges.jsonl"
    if not path.exists():
        pytest.skip("recordings not beside the checkout")
    return [json.loads(line) for line in path.read_text().splitlines()], json.loads(
        (RECORDINGS / "world.json").read_text()
    )


def token_for(principal, world, now):
    claims = world["principals"].get(principal)
    if claims is None:
        return "garbage"
    expiry = -3600 if principal == "expired" else 86400
    secret = OTHER_SECRET if principal == "wrong_signature" else SECRET
    return jwt.encode(claims | {"iat": int(now) - 60, "exp": int(now) + expiry}, secret, "HS256")


VARIANTS = {
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
    "user_id unknown to CC": {"user_id": "b0000000-0000-4000-8000-0000000000ff"},
    "user_id is empty": {"user_id": ""},
    "user_name with unicode": {"user_name": "Zoë 日本"},
    "long valid token (12 KB)": {"padding": "x" * 8900},
}


def variant_token(variant, world, now):
    """A token of space_developer, changed as the recorded exchange names it."""
    changes = VARIANTS.get(variant, {})
    claims = world["principals"]["space_developer"] | {"iat": int(now) - 60, "exp": int(now) + 86400}
    for name, value in changes.items():
        if value is None:
            claims.pop(name, None)
        else:
            claims[name] = int(now) + value if isinstance(value, int) else value
    token = jwt.encode(claims, SECRET, "HS256")
    if variant.startswith("alg "):
        algorithm = "none" if "none" in variant else "HS512"
        head = base64.urlsafe_b64encode(json.dumps({"alg": algorithm, "typ": "JWT"}).encode()).rstrip(b"=").decode()
        return ".".join([head, *token.split(".")[1:]])
    return token


def authorization(value, world, now):
    """The recorded placeholder made a real credential again."""
    if "empty header" in value:
        return ""
    value = value.replace("<basic>", base64.b64encode(b"user:password").decode())
    value = value.replace("<three base64 parts, payload not JSON>", "eyJhbGciOiJIUzI1NiJ9.bm90IGpzb24.c2ln")
    value = re.sub(r"<(\d+) x (\w)>", lambda found: found[2] * int(found[1]), value)
    value = re.sub(r"<space_developer: ([^>]*)>", lambda found: variant_token(found[1], world, now), value)
    return re.sub(r"<(\w+)>", lambda found: token_for(found[1], world, now), value)


def spelled_out(text):
    return re.sub(r"<(\d+) x (.)>", lambda found: found[2] * int(found[1]), text)


class Line:
    """A raw HTTP/1.1 connection."""

    def __init__(self, url):
        self.host, port = url.removeprefix("http://").split(":")
        self.port = int(port)
        self.reader = self.writer = None

    async def exchange(self, method, target, headers, body):
        if self.writer is None or self.writer.is_closing() or self.reader.at_eof():
            self.reader, self.writer = await asyncio.open_connection(self.host, self.port, limit=1 << 24)
        head = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers)
        self.writer.write(head.encode("utf-8", "surrogateescape") + b"\r\n" + (body or b""))
        status, fields = await self._head()
        while status == 100:
            status, fields = await self._head()
        names = {name.lower(): value for name, value in fields}
        if method == "HEAD" or status == 204:
            content = b""
        elif names.get("transfer-encoding") == "chunked":
            content = await self._chunked()
        else:
            content = await self.reader.readexactly(int(names["content-length"]))
        if names.get("connection") == "close":
            await self.close()
        return status, fields, content

    async def _head(self):
        raw = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = raw[:-4].split("\r\n")
        return int(first.split(" ")[1]), [tuple(line.split(": ", 1)) for line in lines]

    async def _chunked(self):
        content = b""
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            content += await self.reader.readexactly(size)
            await self.reader.readexactly(2)
        await self.reader.readexactly(2)
        return content

    async def close(self):
        if self.writer is not None:
            self.writer.close()
            await self.writer.wait_closed()
            self.writer = None


class Replay:
    """A controller of the recorded world and a line to it."""

    def __init__(self, exchanges, world, **options):
        self.exchanges, self.world = exchanges, world
        self.now = time.time()
        issuer = world["principals"]["admin"]["iss"]
        self.controller = Controller(
            world=World.from_recording(world, exchanges),
            verify=hmac_checker(SECRET, issuer, lambda: self.now),
            **({"job_delay": None} | options),
        )
        self.line = None

    async def __aenter__(self):
        self.line = Line(await self.controller.start())
        return self

    async def __aexit__(self, *_):
        await self.line.close()
        await self.controller.stop()

    async def send(self, request, *, translate=lambda text: text):
        headers = []
        for name, value in request["headers"]:
            if name == "X-H0 .. X-H149":
                headers += [(f"X-H{number}", value) for number in range(150)]
            elif name == "Authorization":
                headers.append((name, authorization(value, self.world, self.now)))
            elif name != "Content-Length":
                headers.append((name, spelled_out(value)))
        body = request.get("body")
        if body is not None:
            encoded = request.get("body_encoding") == "base64"
            raw = base64.b64decode(body) if encoded else spelled_out(translate(body)).encode()
            if not any(name == "Transfer-Encoding" for name, _ in headers):
                headers.append(("Content-Length", str(len(raw))))
            body = raw
        target = spelled_out(translate(request["target"]))
        return await self.line.exchange(request["method"], target, headers, body)


def differences(exchange, status, fields, content):
    """What differs from the recording, in words; nothing when it is the same."""
    response = exchange["response"]
    found = []
    if status != response["status"]:
        found.append(f"status {status}, recorded {response['status']}")
    ours = [(name, value) for name, value in fields if name not in VOLATILE]
    theirs = [(name, value) for name, value in response["headers"] if name not in VOLATILE]
    if ours != theirs:
        found.append(f"headers {ours}\n    recorded {theirs}")
    if [name for name, _ in fields] != [name for name, _ in response["headers"]]:
        found.append("order or presence of headers")
    recorded = spelled_out(response["body"] or "").encode()
    if content != recorded:
        found.append(f"body {content[:3000]!r}\n    recorded {recorded[:3000]!r}")
    return found


@pytest.mark.parametrize("group", READ_ONLY)
async def test_read_only_exchanges_are_the_recorded_bytes(group):
    exchanges, world = load()
    chosen = [each for each in exchanges if each["group"] == group and each["name"].split()[0] not in NOT_CLAIMED]
    wrong = {}
    async with Replay(exchanges, world) as replay:
        for exchange in chosen:
            found = differences(exchange, *await asyncio.wait_for(replay.send(exchange["request"]), 10))
            if found:
                wrong[exchange["name"]] = found
    assert not wrong, "\n".join(f"{name}: " + "\n  ".join(found) for name, found in wrong.items())
