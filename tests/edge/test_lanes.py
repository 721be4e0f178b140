"""The hit lane against the ordinary lane: every case goes down both, and bytes, counters and buckets must be the same.

Two gateways with the same settings and the same clock, one without the hit lane, each before an upstream of its own.
Only Date, and ids that the gateway made up itself, may differ.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import jwt
import pytest
from prometheus_client import generate_latest

from gateway.app import Gateway
from gateway.settings import parse
from tests.conftest import ADVERTISED, SECRET, Stub, listening, token
from tests.e2e import test_recordings as recordings
from tests.edge.framing_cases import CASES as FRAMING_CASES

SETTINGS = """
listen: {{port: 0, keepalive: 5s}}
admin: {{port: 0}}
public_url: https://gateway.example.org/cf
drain: 1s
upstream: {{url: "{upstream}", advertised_urls: ["{advertised}"], host_header: api.internal.example.org}}
auth: {{keys: [{{secret: {secret}}}]}}
trusted_proxies: [127.0.0.1]
rate_limits:
  policies:
    - {{name: all, limit: 1000, window: 1h, who: everybody}}
    - {{name: per-user, limit: {limit}, window: 1h, who: principal, cost: {{hit: 2}}}}
    - {{name: watched, limit: 5, window: 1h, who: ip, mode: shadow}}
routes:
  - {{match: GET /v3/processes, cache: {{mode: policy, ttl: 10s, stale_while_revalidate: 20s, share: global}}}}
  - {{match: GET /v3/apps, cache: {{mode: policy, ttl: 10s, stale_if_error: 1h, share: principal}}}}
  - {{match: GET /v3/service_offerings, access: public, cache: {{mode: policy, ttl: 10s, share: public}}}}
  - {{match: GET /v3/domains, access: public, cache: {{mode: origin, share: public}}}}
"""
PAGE = (
    b'{"pagination":{"total_results":0,"first":{"href":"%s/v3/processes?page=1"}},"resources":[]}' % ADVERTISED.encode()
)
UUID = re.compile(rb"(?im)^(date|x-vcap-request-id): (?:\w{3}, .*|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\r$")
# What differs between two processes, or is measured by another clock.
MOVING = re.compile(
    rb"(?m)^(?:# .*|[^#\n]*_created.*|gateway_(?:keys_age|config|reload|event_loop|loop|upstream_endpoint).*"
    rb"|process_.*|python_.*)\n"
)


class Clock:
    """Epoch seconds, as the test says."""

    def __init__(self) -> None:
        self.now = float(int(time.time()))

    def __call__(self) -> float:
        return self.now


async def answer(reader: asyncio.StreamReader, *, head_only: bool) -> bytes:
    """One answer as it was on the wire; b"" when the connection ends instead."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    if head.startswith(b"HTTP/1.1 1"):
        return head + await answer(reader, head_only=head_only)
    length = re.search(rb"(?im)^content-length: *(\d+)", head)
    if head_only or head.startswith((b"HTTP/1.1 304", b"HTTP/1.1 204")):
        return head
    if re.search(rb"(?im)^transfer-encoding: *chunked", head):
        body = b""
        while not body.endswith(b"0\r\n\r\n"):
            body += await reader.readuntil(b"\r\n")
        return head + body
    if length is None:
        return head + await reader.read()
    return head + await reader.readexactly(int(length[1]))


def settled(raw: bytes) -> bytes:
    """An answer without what may differ."""
    head, end, body = raw.partition(b"\r\n\r\n")
    return UUID.sub(rb"\1: *\r", head + b"\r") + end + body


class Lane:
    """One of the two gateways, and a connection to it."""

    def __init__(self, gateway: Gateway, upstream: Any) -> None:
        self.gateway, self.upstream = gateway, upstream
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def connect(self) -> None:
        await self.hang_up()
        address = urlsplit(self.gateway.url)
        self.streams = await asyncio.open_connection(address.hostname, address.port, limit=1 << 22)

    async def hang_up(self) -> None:
        if self.streams is not None:
            self.streams[1].close()
            await asyncio.gather(self.streams[1].wait_closed(), return_exceptions=True)
            self.streams = None

    async def ask(self, pieces: Sequence[bytes], answers: int) -> list[bytes]:
        assert self.streams is not None
        reader, writer = self.streams
        head_only = pieces[0].startswith(b"HEAD")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            if len(pieces) > 1:
                await asyncio.sleep(0)
                await asyncio.sleep(0)
        async with asyncio.timeout(10):
            return [settled(await answer(reader, head_only=head_only)) for _ in range(answers)]

    def counted(self) -> list[bytes]:
        text = re.sub(rb'endpoint="[^"]*"', b'endpoint="*"', generate_latest(self.gateway.metrics.registry))
        return MOVING.sub(b"", text).split(b"\n")

    def buckets(self) -> list[dict[Any, Any]]:
        limits = self.gateway.limits
        return [] if limits is None else [dict(table.cells) for table in limits[1]._tables]


@dataclass
class Both:
    """The two lanes. `quick` has the hit lane, `plain` has not."""

    quick: Lane
    plain: Lane
    clock: Clock
    taken: list[bytes]

    async def ask(self, *pieces: bytes, answers: int = 1, same_connection: bool = False) -> bytes:
        """Send the same bytes down both; what came back, which is the same."""
        if not same_connection:
            await self.quick.connect()
            await self.plain.connect()
        ours = await self.quick.ask(pieces, answers)
        theirs = await self.plain.ask(pieces, answers)
        assert ours == theirs
        for lane in (self.quick, self.plain):
            while lane.gateway.pipeline._behind:
                await asyncio.gather(*lane.gateway.pipeline._behind.values())
        assert self.quick.counted() == self.plain.counted()
        assert self.quick.buckets() == self.plain.buckets()
        return ours[-1]

    async def hang_up(self) -> None:
        await self.quick.hang_up()
        await self.plain.hang_up()


def watched(gateway: Gateway) -> list[bytes]:
    """The segments that the hit lane of a gateway answers from now on."""
    lane, taken = gateway._server._lane, []
    take = lane.take

    def noted(data: bytes, *rest: Any) -> Any:
        outcome = take(data, *rest)
        if outcome is True:
            taken.append(data)
        return outcome

    lane.take = noted
    return taken


StartBoth = Callable[..., Awaitable[Both]]


@pytest.fixture
async def start_both() -> AsyncIterator[StartBoth]:
    async with AsyncExitStack() as stack:

        async def start(settings: str, upstreams: Sequence[tuple[str, Any]]) -> Both:
            clock, lanes = Clock(), []
            for url, upstream in upstreams:
                gateway = Gateway(parse(settings.replace("UPSTREAM", url), {}), clock=clock)
                await gateway.start()
                stack.push_async_callback(gateway.stop)
                lanes.append(Lane(gateway, upstream))
            lanes[1].gateway._server._lane = None
            both = Both(lanes[0], lanes[1], clock, watched(lanes[0].gateway))
            stack.push_async_callback(both.hang_up)
            return both

        yield start


@pytest.fixture
async def both(start_both) -> AsyncIterator[Both]:
    async with AsyncExitStack() as stack:
        upstreams = []
        for _ in range(2):
            stub = Stub()
            stub.answers_json(PAGE, "X-VCAP-Request-ID: upstream", "Vary: Accept", "Cache-Control: max-age=10")
            upstreams.append((await stack.enter_async_context(listening(stub.serve)), stub))
        text = SETTINGS.format(upstream="UPSTREAM", advertised=ADVERTISED, secret=SECRET, limit=40)
        yield await start_both(text, upstreams)


def get(target: str = "/v3/processes", *fields: str, method: str = "GET", version: str = "HTTP/1.1", **claims) -> bytes:
    """A request with a token, unless it has one."""
    lines = [f"{method} {target} {version}", "Host: api.example.org", *fields]
    if not any(field.lower().startswith("authorization") for field in fields):
        lines.append(f"Authorization: bearer {token(exp=2**31, **claims)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def bare(target: str, *fields: str, method: str = "GET") -> bytes:
    """A request without a token."""
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: a", *fields, "", ""]).encode("latin-1")


OTHER = jwt.encode({"user_id": "u", "aud": ["cloud_controller"], "exp": 2**31}, "x" * 40, algorithm="HS256")
CASES = {
    "hit": [get(), get()],
    "hit of another spelling of the query": [
        get("/v3/processes?page=1&per_page=2"),
        get("/v3/processes?per_page=2&page=1"),
    ],
    "hit by another principal": [get(), get(user_id="another")],
    "hit with the id of the client": [
        get("/v3/processes", "X-Vcap-Request-Id: abc-1_2"),
        get("/v3/processes", "X-Request-Id: q"),
    ],
    "id that must be cleaned": [
        get("/v3/processes", "X-Vcap-Request-Id: a b;c"),
        get("/v3/processes", "X-Vcap-Request-Id:"),
    ],
    "two ids": [get("/v3/processes", "X-Vcap-Request-Id: a", "X-Request-Id: b")] * 2,
    "id of 300 characters": [get("/v3/processes", "X-Request-Id: " + "a" * 300)] * 2,
    "under the prefix of the public URL": [get("/cf/v3/processes"), get()],
    "HEAD": [get(), get(method="HEAD")],
    "HEAD first": [get(method="HEAD"), get()],
    "304": [get(), get("/v3/processes", 'If-None-Match: "ETAG"')],
    "304 of a list": [get(), get("/v3/processes", 'If-None-Match: "a", W/"ETAG"')],
    "304 to HEAD": [get(), get("/v3/processes", 'If-None-Match: "ETAG"', method="HEAD")],
    "no match": [get(), get("/v3/processes", 'If-None-Match: "other"')],
    "accept": [get("/v3/processes", "Accept: application/json")] * 2,
    "accept a browser's": [get("/v3/processes", "Accept: text/html, */*;q=0.8")] * 2,
    "accept nothing we have": [get("/v3/processes", "Accept: image/png")] * 2,
    "no-cache": [get(), get("/v3/processes", "Cache-Control: no-cache")],
    "no-store": [get(), get("/v3/processes", "Cache-Control: no-store")],
    "only-if-cached": [get("/v3/processes", "Cache-Control: only-if-cached"), get()],
    "range": [get(), get("/v3/processes", "Range: bytes=0-3")],
    "origin": [get(), get("/v3/processes", "Origin: https://a.example")],
    "cookie": [get(), get("/v3/processes", "Cookie: a=b")],
    "no token": [get(), b"GET /v3/processes HTTP/1.1\r\nHost: a\r\n\r\n"],
    "no token, HEAD": [b"HEAD /v3/processes HTTP/1.1\r\nHost: a\r\n\r\n"] * 2,
    "not a token": [get("/v3/processes", "Authorization: bearer x")] * 2,
    "wrong signature": [get("/v3/processes", f"Authorization: bearer {OTHER}")] * 2,
    "expired": [get("/v3/processes", f"Authorization: bearer {token(exp=1)}")] * 2,
    "basic": [get("/v3/processes", "Authorization: Basic abc")] * 2,
    "bearer in capitals, two blanks": [get(), get("/v3/processes", f"Authorization: BEARER  {token(exp=2**31)}")],
    "authorization in capitals": [get(), get("/v3/processes", f"AUTHORIZATION: Bearer {token(exp=2**31)}")],
    "authorization in small letters": [get(), get("/v3/processes", f"authorization: Bearer {token(exp=2**31)}")],
    "authorization without a blank": [get(), get("/v3/processes", f"Authorization:bearer {token(exp=2**31)}")],
    "two authorizations": [get(), get("/v3/processes", "Authorization: bearer x", f"Authorization: bearer {token()}")],
    "scopes that do not suffice": [get(), get(scope=["openid"])],
    "unknown route": [get("/nowhere")] * 2,
    "denied route": [get("/internal/x")] * 2,
    "public row": [get("/v3/service_offerings"), b"GET /v3/service_offerings HTTP/1.1\r\nHost: a\r\n\r\n"],
    "public row, bad token": [get("/v3/service_offerings", "Authorization: bearer x")] * 2,
    "uncached row": [get("/v3/stacks")] * 2,
    "mode origin": [get("/v3/domains")] * 2,
    "mode origin, range": [get("/v3/domains"), get("/v3/domains", "Range: bytes=0-3")],
    "mode origin, id in the request": [
        get("/v3/domains", "X-Request-Id: one"),
        get("/v3/domains", "X-Request-Id: two"),
    ],
    "slashes": [get(), get("//v3/processes"), get("/v3/processes/")],
    "dots": [get(), get("/v3/./processes"), get("/v3/x/../processes")],
    "escapes": [get(), get("/v3/%70rocesses"), get("/v3/processes?a=%2")],
    "odd query": [
        get("/v3/processes?a;b"),
        get("/v3/processes?"),
        get("/v3/processes?a=[]&b[c]=d"),
        get("/v3/processes?{}|^`"),
    ],
    "absolute form": [get(), get("http://api.example.org/v3/processes")],
    "http/1.0": [get(), get(version="HTTP/1.0")],
    "close": [get(), get("/v3/processes", "Connection: close")],
    "keep-alive": [get(), get("/v3/processes", "Connection: keep-alive")],
    "connection names fields": [get(), get("/v3/processes", "Connection: authorization")],
    "length of nothing": [get(), get("/v3/processes", "Content-Length: 0")],
    "content": [get(), get("/v3/processes", "Content-Length: 2") + b"{}"],
    "chunks": [get(), get("/v3/processes", "Transfer-Encoding: chunked") + b"2\r\n{}\r\n0\r\n\r\n"],
    "expectation": [get(), get("/v3/processes", "Expect: 100-continue")],
    "upgrade": [get(), get("/v3/processes", "Connection: upgrade", "Upgrade: websocket")],
    "websocket key": [get(), get("/v3/processes", "Sec-WebSocket-Key1: a")],
    "underscores": [get(), get("/v3/processes", "X_Forwarded_For: 9.9.9.9")],
    "blanks around a value": [get(), get("/v3/processes", "X-A:  b \t")],
    "no blank": [get(), get("/v3/processes", "X-A:b", "X-B:")],
    "a tab in a value": [get(), get("/v3/processes", "X-A: b\tc")],
    "utf-8": [get(), get("/v3/processes", "X-A: \xc3\xa9")],
    "not utf-8": [get(), get("/v3/processes", "X-A: \xe9")],
    "twice the same field": [get(), get("/v3/processes", "X-A: 1", "x-a: 2")],
    "forwarded for": [get(), get("/v3/processes", "X-Forwarded-For: 10.0.0.1")],
    "forwarded for twice": [get(), get("/v3/processes", "X-Forwarded-For: 10.0.0.1", "X-Forwarded-For: 10.0.0.2")],
    "host of another": [get(), b"GET /v3/processes HTTP/1.1\r\nHost: [::1]:8080\r\nAuthorization: bearer x\r\n\r\n"],
    "empty lines before": [get(), b"\r\n" + get(), get()],
    "post": [get(), get("/v3/processes", "Content-Length: 2", method="POST") + b"{}", get()],
    "a fragment": [get(), get("/v3/processes?a#b")],
    "over the limit": [get()] * 22,
    "over the limit in shadow": [get("/v3/service_offerings")] * 8,
}


@pytest.mark.parametrize("requests", CASES.values(), ids=CASES)
async def test_both_lanes_answer_alike(both: Both, requests: list[bytes]) -> None:
    etag = b""
    for kept in (False, True):
        await both.ask(get("/v3/info"))  # opens a connection for those that stay on it
        for request in requests:
            closes = any(word in request for word in (b"close", b"HTTP/1.0", b"Content-Length: 2"))
            got = await both.ask(
                request.replace(b"ETAG", etag), same_connection=kept and both.quick.streams is not None
            )
            found = re.search(rb'ETag: "(\w+)"', got)
            etag = found[1] if found else etag
            if closes or b"Connection: close" in got or not got:
                await both.ask(get("/v3/info"))
    assert [request.head for request in both.quick.upstream.received] != []
    assert len(both.quick.upstream.received) == len(both.plain.upstream.received)


async def test_the_lane_takes_what_it_is_there_for(both: Both) -> None:
    """So that the comparison above compares something."""
    await both.ask(get())
    for request in (
        get(),
        get(method="HEAD"),
        get("/v3/processes", "Authorization: bearer x"),
        get(
            "/v3/processes", "Accept: application/json", "X-Request-Id: a", "User-Agent: cf/8", "Connection: keep-alive"
        ),
        get("/internal/x"),
    ):
        await both.ask(request)
        assert both.taken[-1] == request
    before = len(both.taken)
    await both.ask(get("/v3/stacks"))
    await both.ask(get("/v3/processes", "Connection: close"))
    assert len(both.taken) == before


async def test_stale_pages_are_served_and_refreshed_behind_alike(both: Both) -> None:
    await both.ask(get())
    for seconds in (9, 3, 5, 30):
        both.clock.now += seconds
        await both.ask(get())
        assert len(both.quick.upstream.received) == len(both.plain.upstream.received)
    assert b'reason="revalidating"} 1.0' in b"\n".join(both.quick.counted())


async def test_a_token_is_not_served_past_its_end(both: Both) -> None:
    short = get("/v3/processes", f"Authorization: bearer {token(exp=int(both.clock.now) + 5)}")
    assert b" 200 " in await both.ask(short)
    assert b";hit" in await both.ask(short)
    both.clock.now += 5
    assert b" 401 " in await both.ask(short)


@pytest.fixture(params=["", "  failed_authentications: {{limit: 30, window: 1m}}\n"], ids=["uncounted", "counted"])
async def refusing(start_both, request) -> AsyncIterator[Both]:
    """Two lanes whose limits do not come into the way of refusals; with a limit for failures, or without."""
    async with AsyncExitStack() as stack:
        upstreams = []
        for _ in range(2):
            stub = Stub()
            stub.answers_json(PAGE, "Cache-Control: max-age=10")
            upstreams.append((await stack.enter_async_context(listening(stub.serve)), stub))
        text = SETTINGS.replace("routes:\n", f"{request.param}routes:\n").replace("limit: 5,", "limit: 500,")
        yield await start_both(
            text.format(upstream="UPSTREAM", advertised=ADVERTISED, secret=SECRET, limit=400), upstreams
        )


@pytest.mark.parametrize("place", ["id before", "id behind"])
async def test_bad_tokens_between_good_ones_are_refused_alike(refusing: Both, place: str) -> None:
    """By their bytes, while they are refused; until there were too many, and beyond."""
    both, chance, seen = refusing, random.Random(place), []
    ends = int(both.clock.now) + 3
    good, bad = [token(exp=2**31)] * 8, [OTHER, token(exp=1), token(exp=ends), token(exp=ends, user_id="another")]
    for number in range(160):
        fields = [f"Authorization: bearer {chance.choice(good + bad)}", f"X-Request-Id: {number}"]
        fields = [*fields[:: 1 if place == "id behind" else -1], "X-A: a"]
        answered = await both.ask(get("/v3/processes", *fields), same_connection=number > 0)
        seen.append(answered[9:12])
        both.clock.now += chance.choice([0.0, 0.01, 0.1])
    counted = both.quick.gateway.settings.rate_limits.failed_authentications is not None
    assert set(seen) == {b"200", b"401"} | ({b"429"} if counted else set())
    assert len(both.taken) > 100


async def test_a_page_that_a_write_dropped_is_not_served(both: Both) -> None:
    await both.ask(get())
    assert b";hit" in await both.ask(get())
    await both.ask(get("/v3/apps", "Content-Length: 2", method="POST") + b"{}")
    assert b";hit" not in await both.ask(get())


@pytest.mark.parametrize(
    "behind", [b"", b"GET", get("/v3/apps"), b"\r\n"], ids=["one", "and a part", "and another", "and a line"]
)
async def test_split_at_every_byte(both: Both, behind: bytes) -> None:
    """Two segments in place of one, and what may stand behind."""
    request = bare("/v3/service_offerings")
    await both.ask(request)
    for at in range(1, len(request)):
        await both.ask(request[:at], request[at:] + behind, answers=1 + (behind[-4:] == b"\r\n\r\n"))
        if at % 20 == 0 and not behind:
            assert both.taken[-1:] != [request[at:]]
            await both.ask(request, same_connection=True)
            assert both.taken[-1] == request, "a whole head after a split one is for the lane again"


async def test_content_split_at_every_byte_leaves_the_lane_where_it_ends(both: Both) -> None:
    write = get("/v3/processes/x", "Content-Length: 5", method="PATCH") + b"12345"
    hit = bare("/v3/service_offerings")
    await both.ask(hit)
    for at in range(len(write) - 6, len(write)):
        await both.ask(write[:at], write[at:])
        await both.ask(hit, same_connection=True)
        assert both.taken.pop() == hit


async def test_what_looks_like_a_request_inside_of_content_is_content(both: Both) -> None:
    """Pingora CVE-2025-4366, request smuggling: the lane never takes bytes that belong to a message before."""
    inside = bare("/v3/service_offerings")
    await both.ask(inside)
    head = get("/v3/processes/x", f"Content-Length: {len(inside)}", method="PATCH")
    await both.ask(head, inside)
    chunked = get("/v3/processes/x", "Transfer-Encoding: chunked", method="PATCH")
    await both.ask(chunked + b"%x\r\n" % len(inside), inside, b"\r\n0\r\n\r\n")
    await both.ask(b"GET /v3/service_offerings HTTP/1.1\r\nHost: a\r\nX-A: ", inside)
    assert inside not in both.taken


@pytest.mark.parametrize("count", [2, 5, 30])
async def test_pipelined_requests(both: Both, count: int) -> None:
    await both.ask(get("/v3/service_offerings"))
    mixed = [get("/v3/service_offerings"), get("/v3/stacks"), get("/v3/processes", "Authorization: bearer x")]
    requests = [mixed[number % 3] for number in range(count)]
    await both.ask(b"".join(requests), answers=count)
    await both.ask(*requests, answers=count)
    await both.ask(get("/v3/service_offerings"), same_connection=True)


MALFORMED = [
    pytest.param(case.sent, case.statuses[0], id=case.id)
    for case in FRAMING_CASES
    if case.statuses in {(400,), (431,)} and not case.generic
]


@pytest.mark.parametrize(("sent", "status"), MALFORMED)
async def test_malformed_requests(both: Both, sent: bytes, status: int) -> None:
    await both.ask(get("/v3/info"))
    got = await both.ask(sent, same_connection=True)
    assert got.split(b" ")[1] == b"%d" % status
    assert both.taken == []
    await both.ask(sent)
    if sent.startswith((b"GET", b"HEAD")):  # the same in what the lane has read before
        await both.ask(sent[: len(sent) // 2], sent[len(sent) // 2 :])


class Wired(asyncio.Transport):
    """A connection without a network: what is written is kept."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.written, self.closed = b"", False

    def write(self, data: bytes) -> None:
        self.written += data

    def writelines(self, pieces: Sequence[bytes]) -> None:
        self.written += b"".join(pieces)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close

    def get_write_buffer_size(self) -> int:
        return 0

    def get_protocol(self) -> asyncio.BaseProtocol:
        return asyncio.BaseProtocol()

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


async def said(gateway: Gateway, sent: bytes) -> tuple[bytes, bool]:
    """What a new connection answers to a segment until it waits again, and whether it has closed."""
    transport, connection = Wired(), gateway._server()
    connection.connection_made(transport)
    while connection._waiter is None:
        await asyncio.sleep(0)
    connection.data_received(sent)
    while not transport.closed and not connection._waits():
        await asyncio.sleep(0)
    closed = transport.closed
    connection.connection_lost(None)
    return settled(transport.written), closed


async def test_mutated_requests(both: Both) -> None:
    """A byte more, less or other than in a request that the lane takes: whatever aiohttp makes of it."""
    chance = random.Random(7)
    request = bare("/v3/service_offerings?a=b", "Accept: application/json", "X-Request-Id: abc", "Via: x", "X-A: b")
    await both.ask(request)
    odd = b'\0\t\n\r :/?#%"\\{}()<>@,;[]_\x7f\x80\xffGhH1'
    for _ in range(1500):
        at = chance.randrange(len(request))
        byte = bytes([chance.choice(odd)])
        behind = chance.choice([request[at:], request[at + 1 :]])
        mutated = request[:at] + chance.choice([byte, b""]) + behind
        assert await said(both.quick.gateway, mutated) == await said(both.plain.gateway, mutated), mutated
    assert both.quick.counted() == both.plain.counted()
    assert len(both.taken) > 100


async def test_every_recorded_exchange(start_both) -> None:
    """Asked twice, so that what may be a hit is one."""
    recorded, tokens = recordings.load()
    controllers = [recordings.Controller(), recordings.Controller()]
    settings = recordings.SETTINGS.format(
        public=recordings.PUBLIC,
        upstream="UPSTREAM",
        origin=recordings.ORIGIN,
        issuer=recordings.ISSUER,
        secret=recordings.SECRET,
    )
    try:
        both = await start_both(settings, [(await controller.start(), controller) for controller in controllers])
        for one in recorded:
            if one.name in recordings.OTHERWISE and recordings.OTHERWISE[one.name][1] == recordings.FRAMING:
                continue  # ends in the middle, wherever that is
            for controller in controllers:
                controller.at_hand = one
            request = one.as_asked(tokens)
            for _ in range(2):
                await both.ask(request)
        assert len(both.taken) > 100
        assert len(controllers[0].asked) == len(controllers[1].asked)
        await both.hang_up()
    finally:
        for controller in controllers:
            await controller.stop()
