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
SECRET = b"the symmetric key of the recorded world, a stand-in that is long enough for HS512 as well"
OTHER_SECRET = b"another symmetric key, unknown to the controller"
READ_ONLY = (
    *("root", "list", "filters", "labels", "errors", "duplicates", "protocol", "visibility", "auth", "single", "other"),
    *("malformed", "wire"),
)
PARSER = "refused by the parser of the real server's process, worded otherwise by aiohttp's"
DATA = "the recordings name only the first of these resources"
STREAM = "not one well-formed request: the connection itself is the subject"
NOT_CLAIMED: dict[str, str] = {
    "protocol-009": "broken preflight: compared as a raw stream below",
    "protocol-011": "broken preflight: compared as a raw stream below",
    "protocol-094": PARSER,
    "protocol-095": PARSER,
    "protocol-100": PARSER,
    "protocol-103": "aiohttp takes the target of CONNECT for an authority",
    "protocol-105": PARSER,
    "other-018": DATA,
    "other-019": "the list counts nine roles where world.json names ten",
    "other-020": "no audit events are kept",
    "other-023": DATA,
    "malformed-044": PARSER,
    "malformed-050": PARSER,
    **{f"malformed-{number:03}": STREAM for number in range(53, 69)},
    "wire-014": "HTTP/1.0",
    "wire-015": "HTTP/1.0",
    "wire-016": "HTTP/1.0",
    "wire-017": "HTTP/1.0",
    "wire-018": "HTTP/1.0",
}
NOT_CLAIMED_WRITES = {
    "malformed-001": "the real JSON parser takes an unfinished object for a value of its own",
    "writes-093": "the recorded instances are those of a stand-in for Diego",
    "writes-098": "the recorded instances are those of a stand-in for Diego",
}
VOLATILE = {"X-Runtime", "X-VCAP-Request-ID"}
WRITES_BEGAN = 1_795_477_610.0
"""Epoch seconds of the first recorded write; the sandbox's clock ticks once a second from here."""


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
    "user_id unknown to CC": {"user_id": "c0000000-0000-4000-8000-00000000cafe"},
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
            await self.close()
            self.reader, self.writer = await asyncio.open_connection(self.host, self.port, limit=1 << 24)
        head = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers)
        self.writer.write(head.encode("utf-8", "surrogateescape") + b"\r\n" + (body or b""))
        status, fields = await self._head()
        while status == 100:
            status, fields = await self._head()
        names = {name.lower(): value for name, value in fields}
        if method == "HEAD" or status == 204:
            content = b""
        elif not fields:
            content = await self.reader.read()
        elif names.get("transfer-encoding") == "chunked":
            content = await self._chunked()
        else:
            content = await self.reader.readexactly(int(names["content-length"]))
        if names.get("connection") == "close":
            await self.close()
        return status, fields, content

    async def _head(self):
        raw = (await self.reader.readuntil(b"\r\n\r\n")).decode("utf-8")
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


def number(exchange):
    return exchange["name"].split()[0]


def changes_something(exchange):
    return exchange["group"] in ("malformed", "writes") and exchange["request"].get("method") in ("POST", "PATCH")


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
    chosen = [
        each
        for each in exchanges
        if each["group"] == group and number(each) not in NOT_CLAIMED and not changes_something(each)
    ]
    wrong = {}
    async with Replay(exchanges, world) as replay:
        for exchange in chosen:
            found = differences(exchange, *await asyncio.wait_for(replay.send(exchange["request"]), 10))
            if found:
                wrong[exchange["name"]] = found
    assert not wrong, "\n".join(f"{name}: " + "\n  ".join(found) for name, found in wrong.items())


GUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
MOMENT = re.compile(r"2026-11-23T23:4\d:\d\d(Z|\+00:00)")


class Guids:
    """Recorded guids and ours for what was made while the writes were replayed: what is new there must be new here."""

    def __init__(self):
        self.ours, self.seen_there, self.seen_here = {}, set(), set()

    def learn(self, recorded, ours):
        """Pair the guids that stand in the same places of two texts that are the same but for them."""
        there, here = GUID.findall(recorded), GUID.findall(ours)
        if GUID.sub("", recorded) == GUID.sub("", ours):
            for theirs, mine in zip(there, here, strict=True):
                if theirs != mine and theirs not in self.seen_there and mine not in self.seen_here:
                    self.ours[theirs] = mine
        self.seen_there.update(there)
        self.seen_here.update(here)

    def translate(self, text):
        return GUID.sub(lambda found: self.ours.get(found[0], found[0]), text)


def at_some_moment(text):
    return MOMENT.sub("<moment>", text)


async def test_writes_have_the_recorded_effects_in_order():
    exchanges, world = load()
    chosen = [each for each in exchanges if changes_something(each) or each["group"] == "writes"]
    chosen = [each for each in chosen if each["request"]["method"] and "target" in each["request"]]
    ticks = iter(range(100_000))
    guids, wrong = Guids(), {}
    async with Replay(exchanges, world, clock=lambda: WRITES_BEGAN + next(ticks) / 4) as replay:
        controller = replay.controller
        for exchange in chosen:
            name = exchange["name"]
            if name.startswith("writes-117"):
                brand_new = controller.world.apps[guids.translate("75facb67-c2e3-425b-96c6-3fc71fd3ead9")]
                kinds = {kind: f"default {kind}" for kind in ("web", "cron", "worker")}
                controller.world.add_droplet(brand_new, kinds, WRITES_BEGAN, "30918b44-a57c-48b2-952c-62baa703166c")
            if name.startswith("writes-138"):
                lost = next(
                    role
                    for role in controller.world.roles.values()
                    if role.type == "space_auditor" and role.space.guid.startswith("813b")
                )
                guids.ours["faca45f5-fcc8-4dee-9b33-ededd5fcb425"] = lost.guid
            if name.endswith("job done"):
                controller.complete_jobs()
            status, fields, content = await replay.send(exchange["request"], translate=guids.translate)
            response = exchange["response"]
            recorded = at_some_moment(spelled_out(response["body"] or ""))
            ours = at_some_moment(content.decode())
            names = [each for each, _ in response["headers"]]
            locations = [dict(each).get("Location", "") for each in (response["headers"], fields)]
            guids.learn(recorded + locations[0], ours + locations[1])
            found = []
            if status != response["status"]:
                found.append(f"status {status}, recorded {response['status']}")
            if [each for each, _ in fields] != names:
                found.append(f"headers {[each for each, _ in fields]}, recorded {names}")
            if guids.translate(recorded) != ours and number(exchange) not in NOT_CLAIMED_WRITES:
                found.append(f"body {ours[:2500]}\n    recorded {guids.translate(recorded)[:2500]}")
            if found and number(exchange) not in NOT_CLAIMED_WRITES:
                wrong[name] = found
    assert not wrong, "\n".join(f"{name}: " + "\n  ".join(found) for name, found in wrong.items())


async def test_the_controllers_own_limiter_counts_as_recorded():
    exchanges, world = load()
    recorded = [json.loads(line) for line in (RECORDINGS / "ratelimit.jsonl").read_text().splitlines()]
    moment = {"now": WRITES_BEGAN}
    limiter = RateLimiter(general=5, unauthenticated=3, window=60)
    wrong = {}
    async with Replay(exchanges, world, limiter=limiter, clock=lambda: moment["now"]) as replay:
        for exchange in recorded:
            if exchange["name"].startswith("after-reset-01"):
                moment["now"] += 60
            status, fields, content = await replay.send(exchange["request"])
            response, found = exchange["response"], []
            ours, theirs = dict(fields), dict(response["headers"])
            if status != response["status"]:
                found.append(f"status {status}, recorded {response['status']}")
            if list(ours) != list(theirs):
                found.append(f"headers {list(ours)}, recorded {list(theirs)}")
            compared = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "Content-Type")
            found += [f"{name} {ours.get(name)}" for name in compared if ours.get(name) != theirs.get(name)]
            if status >= 400 and content.decode() != response["body"]:
                found.append(f"body {content!r}, recorded {response['body']!r}")
            if found:
                wrong[exchange["name"]] = found
    assert not wrong, "\n".join(f"{name}: " + "\n  ".join(found) for name, found in wrong.items())


async def test_a_cors_preflight_is_answered_by_the_recorded_broken_stream():
    exchanges, world = load()
    preflights = [each for each in exchanges if number(each) in ("protocol-009", "protocol-011")]
    async with Replay(exchanges, world) as replay:
        for exchange in preflights:
            reader, writer = await asyncio.open_connection(replay.line.host, replay.line.port)
            head = "".join(f"{name}: {value}\r\n" for name, value in exchange["request"]["headers"])
            writer.write(f"OPTIONS /v3/processes HTTP/1.1\r\n{head}\r\n".encode())
            assert (await reader.read()).decode() == exchange["wire"]["raw_received"]
            writer.close()
            await writer.wait_closed()
