"""The hit lane on a connection: where it may stand in, what it leaves to aiohttp, what of aiohttp it rests on."""

from __future__ import annotations

import asyncio
import random
import re
from itertools import product
from typing import Any

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.web_protocol import RequestHandler

from gateway.core.bearer import extract
from gateway.core.model import Fields
from gateway.edge.boundary import Boundary
from gateway.edge.ids import RequestIds
from gateway.edge.quick_heads import Caller, QuickHeads
from gateway.edge.receive import Limits
from gateway.edge.rendering import Renderer, written
from gateway.pipeline.exchange import Reply
from tests.conftest import Answer, bearer

CACHED = "routes: [{match: GET /v3/processes, cache: {mode: policy, ttl: 1h, share: global}}]"
HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def test_the_private_parts_of_aiohttp_that_are_read_are_there() -> None:
    """`server.Connection` looks at these to know that aiohttp is idle; another name must not pass for an idle one."""
    slots = {*RequestHandler.__slots__, *BaseProtocol.__slots__}
    assert slots >= {
        *("_close", "_force_close", "_messages", "_waiter", "_paused", "_upgraded", "transport", "_current_request"),
    }


async def test_aiohttp_is_idle_when_it_waits_and_only_then(stub, start_gateway, connect) -> None:
    go_on, asked = asyncio.Event(), asyncio.Event()

    async def slowly(_request, _reader, writer) -> None:
        asked.set()
        await go_on.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    stub.script = slowly
    gateway = await start_gateway(stub.url)
    client = await connect(gateway.url)
    await client.request("GET /internal/x")
    assert (await client.answer()).status == 403
    (connection,) = gateway._server.connections
    assert connection._waits()
    asked.clear()
    await client.request("GET /staging/x")
    await asked.wait()
    assert not connection._waits()
    go_on.set()
    assert (await client.answer()).body == b"ok"
    while not connection._waits():
        await asyncio.sleep(0)
    connection.close()
    assert not connection._waits()


# -- where the parser stands


@pytest.mark.parametrize(
    ("segments", "clean"),
    [
        pytest.param([(HEAD, 0)], True, id="one head"),
        pytest.param([(HEAD, 0), (HEAD, 0)], True, id="two heads"),
        pytest.param([(HEAD[:9], None)], False, id="half a head"),
        pytest.param([(HEAD[:9], None), (HEAD[9:], 0)], True, id="both halves"),
        pytest.param([(HEAD[:-2], None), (HEAD[-2:], 0)], True, id="split in the end mark"),
        pytest.param([(HEAD[:-1], None), (HEAD[-1:], 0)], True, id="split in its last byte"),
        pytest.param([(HEAD + HEAD, 0)], False, id="pipelined"),
        pytest.param([(HEAD + b"G", 0)], False, id="a byte too many"),
        pytest.param([(HEAD + b"G", 0), (HEAD[1:], 0)], False, id="and never again"),
        pytest.param([(HEAD + b"12", 2)], True, id="content"),
        pytest.param([(HEAD, 2)], False, id="content to come"),
        pytest.param([(HEAD + b"1", 2), (b"2", None)], True, id="content in two"),
        pytest.param([(HEAD + b"1", 2), (b"23", None)], False, id="more than the content"),
        pytest.param([(HEAD + b"1", 2), (b"23", None), (HEAD, 0)], False, id="and never again after that"),
        pytest.param([(HEAD, None)], False, id="content without a length"),
        pytest.param([(HEAD, None), (b"0\r\n\r\n", None), (HEAD, 0)], False, id="and never again after chunks"),
        pytest.param([(b"\r\n" + HEAD, 0)], False, id="RFC9112-2.2-empty-line"),
        pytest.param([(b"\r\n\r\n", None), (HEAD, 0)], False, id="RFC9112-2.2-empty-lines"),
    ],
)
def test_a_boundary_is_known_or_it_is_not_clean(segments: list[tuple[bytes, int | None]], clean: bool) -> None:
    """Each segment with the length of the content that its head announces."""
    boundary = Boundary()
    for data, length in segments:
        end = boundary.head_ends(data)
        if end is not None:
            assert data[:end].endswith(HEAD[-end:] if end < 4 else b"\r\n\r\n")
            boundary.message(len(data) - end, length)
    assert boundary.clean is clean


# -- ids and rendering


def test_ids_are_distinct_and_shaped_like_uuids() -> None:
    ids = [RequestIds(), RequestIds()]
    made = [one.fresh() for one in ids for _ in range(1000)]
    assert len(set(made)) == len(made)
    assert all(re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", one) for one in made)
    assert made[0][:23] != made[1000][:23], "another process has other ids"


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, Fields([("A", "b\r\nC: d")]), b""),
        Reply(200, Fields([("A", "b\nC")]), b""),
        Reply(200, Fields().plus(("A", "b\rC")), b""),
        Reply(200, Fields([("A", "\udcff")]), b""),
        Reply(200, Fields([("Transfer-Encoding", "chunked")]), b""),
        Reply(200, Fields([("Connection", "close")]), b""),
        Reply(200, Fields([("Content-Length", "1")]), b"1"),
        Reply(204, Fields(), b"1"),
        Reply(304, Fields([("Content-Length", "1")])),
        Reply(200, Fields()),
        Reply(200, Fields(), b"", "Fine"),
        Reply(299, Fields(), b""),
        Reply(101, Fields()),
    ],
    ids=str,
)
def test_what_only_aiohttp_should_write_is_not_rendered(reply: Reply) -> None:
    assert Renderer().words(reply, "GET", 0.0) is None


def test_the_date_is_that_of_the_second() -> None:
    renderer = Renderer()
    for now, said in [(0.9, b"00:00:00"), (1.0, b"00:00:01"), (0.0, b"00:00:00")]:
        words = renderer.words(Reply(200, Fields(), b""), "GET", now)
        assert words is not None
        assert said in written(words, "", "id", b"")


# -- on connections


async def test_an_idle_connection_is_kept_from_the_last_hit_on(stub, start_gateway, connect) -> None:
    """The wheel (`edge/deadlines.py`) sees what was answered below aiohttp."""
    gateway = await start_gateway(stub.url, CACHED, listen="{port: 0, keepalive: 400ms}")
    client = await connect(gateway.url)
    fields = [f"{name}: {value}" for name, value in bearer().items()]
    await client.ask("GET /v3/processes", *fields)
    (connection,) = gateway._server.connections
    before = connection.below  # the page was fetched below aiohttp, too
    for answered in (before + 1, before + 2, before + 3):
        assert (await client.ask("GET /v3/processes", *fields)).status == 200
        assert connection.below == answered
    connection.look(gateway.wheel.now, 0.0)
    assert connection._since == gateway.wheel.now
    assert await client.ended()


async def test_a_client_that_does_not_read_is_not_written_to_without_end(stub, start_gateway, connect) -> None:
    stub.answers_json(b'"%s"' % (b"x" * 40_000))
    gateway = await start_gateway(stub.url, CACHED)
    client = await connect(gateway.url)
    fields = [f"{name}: {value}" for name, value in bearer().items()]
    await client.ask("GET /v3/processes", *fields)
    (connection,) = gateway._server.connections
    highest = 0
    wanted = 400
    for _ in range(wanted):
        await client.request("GET /v3/processes", *fields)
        await asyncio.sleep(0)
        highest = max(highest, connection.transport.get_write_buffer_size())
    assert highest < 256 * 1024
    for _ in range(wanted):
        answer: Answer = await client.answer()
        assert (answer.status, len(answer.body)) == (200, 40_002)


async def test_a_body_that_is_waited_for_goes_down_the_ordinary_lane_and_is_counted_once(
    stub, start_gateway, connect
) -> None:
    stub.answers_json(b'"%s"' % (b"x" * 3_000_000))
    gateway = await start_gateway(stub.url, CACHED)
    client = await connect(gateway.url)
    fields = [f"{name}: {value}" for name, value in bearer().items()]
    for _ in range(3):
        answer = await client.ask("GET /v3/processes", *fields)
        assert len(answer.body) == 3_000_002
    registry = gateway.metrics.registry
    labels = {"route": "/v3/processes", "method": "GET", "code": "200"}
    assert registry.get_sample_value("gateway_requests_total", {**labels, "cache": "hit"}) == 2
    assert registry.get_sample_value("gateway_requests_in_flight") == 0


async def test_a_fault_of_ours_in_the_lane_is_500_and_logged_as_any_other(
    stub, start_gateway, connect, caplog, monkeypatch
) -> None:
    gateway = await start_gateway(stub.url)
    calls = 0

    def fault(_exchange: object) -> None:
        nonlocal calls
        calls += 1
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(gateway._server._lane._pipeline, "judge", fault)
    client = await connect(gateway.url)
    answer = await client.ask("GET /v3/info")
    assert (answer.status, answer.field("x-gateway-error"), calls) == (500, "internal", 1)
    assert "unhandled fault" in caplog.text
    assert await client.ended()


async def test_connections_of_the_lane_end_with_the_gateway(stub, start_gateway, connect) -> None:
    gateway = await start_gateway(stub.url)
    clients = [await connect(gateway.url) for _ in range(3)]
    for client in clients:
        assert (await client.ask("GET /internal/x")).status == 403
    stopping = asyncio.create_task(gateway.stop())
    assert [await client.ended() for client in clients] == [True] * 3
    await asyncio.wait_for(stopping, 5)


# -- what is remembered of heads


def _heads() -> QuickHeads:
    return QuickHeads(Limits(65536, 65536), strict_api=True, prefix="")


def _remembered(heads: QuickHeads) -> tuple[int, int, int]:
    blocks = len(heads._blocks)
    lines = len(heads._lines)
    return lines, blocks, len(heads._known)


@pytest.mark.parametrize(
    "head",
    [
        "GET /v3/processes?page={} HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /v3/processes HTTP/1.1\r\nHost: a\r\nUser-Agent: {}\r\n\r\n",
        "GET /v3/processes?page={} HTTP/1.1\r\nHost: a\r\nUser-Agent: {}\r\n\r\n",
        "GET /v3/processes?page={} HTTP/1.1\r\nHost: a\r\nX-Request-Id: {}\r\nAuthorization: bearer a.{}.c\r\n\r\n",
    ],
    ids=["lines", "blocks", "both", "tokens and ids"],
)
def test_heads_without_end_take_a_bounded_place(head: str) -> None:
    heads, caller = _heads(), Caller("127.0.0.1", "http")
    for number in range(20_000):
        assert heads.read(head.replace("{}", str(number)).encode(), caller) is not None
    lines, blocks, known = _remembered(heads)
    assert lines <= 2 * 4096
    assert blocks <= 2 * 512
    assert known <= 8192
    assert len(heads._tokens) <= 2 * 1024


def test_lines_times_blocks_take_a_bounded_place() -> None:
    heads, caller = _heads(), Caller("127.0.0.1", "http")
    for number in range(40_000):
        line, agent = number % 200, number // 200
        heads.read(f"GET /v3/x?a={line} HTTP/1.1\r\nHost: a\r\nUser-Agent: {agent}\r\n\r\n".encode(), caller)
    assert _remembered(heads)[2] <= 8192


def test_long_heads_are_read_and_not_remembered() -> None:
    heads, caller = _heads(), Caller("127.0.0.1", "http")
    long = "x" * 3000
    assert heads.read(f"GET /v3/x?a={long} HTTP/1.1\r\nHost: a\r\nX-A: {long}\r\n\r\n".encode(), caller) is not None
    assert _remembered(heads) == (0, 0, 0)


def test_tokens_with_one_end_are_told_apart() -> None:
    """They are looked up by their ends, and known by all of their bytes."""
    heads, caller = _heads(), Caller("127.0.0.1", "http")
    for token in ("a" * 900, "b" + "a" * 899, "a" * 899, "a" * 60, "a" * 900, "a" * 899 + "b", "b" + "a" * 899, "a"):
        for end in ("X-Request-Id: one\r\n\r\n", "\r\n"):
            head = f"GET /v3/x HTTP/1.1\r\nHost: a\r\nAuthorization: bearer {token}\r\n{end}"
            assert heads.read(head.encode(), caller) is not None
            assert caller.last[1] == token
    assert len(heads._tokens) < 10


def test_a_line_that_ends_like_the_name_of_a_head_is_no_other_head() -> None:
    heads, caller = _heads(), Caller("127.0.0.1", "http")
    assert heads.read(b"GET /v3/x HTTP/1.1\r\nHost: a\r\n\r\n", caller) is not None
    (key,) = heads._known
    assert heads.read(key + b"\r\nHost: a\r\n\r\n", caller) is None
    assert heads.read(key + b"\r\nHost\r\n\r\n", caller) is None
    assert heads.read(key + b"\r\n\r\n", caller) is None


@pytest.mark.parametrize("spelt", ["bearer ", "Bearer "])
def test_the_token_of_a_head_is_the_one_that_would_be_taken_from_its_fields(spelt: str) -> None:
    heads, caller = _heads(), Caller("127.0.0.1", "http")
    for token in ("a.b.c", "a.b.c", "a.b.d", None, "a", "e" * 3000, None, "a.b.c"):
        line = "" if token is None else f"Authorization: {spelt}{token}\r\n"
        found = heads.read(f"GET /v3/x HTTP/1.1\r\nHost: a\r\n{line}\r\n".encode(), caller)
        assert found is not None
        assert caller.last[1] == token == extract(caller.head("").fields.get_all("authorization"))


def test_the_head_of_before_is_known_by_all_of_its_bytes() -> None:
    """The id alone may differ; anything else is read anew."""
    heads, caller = _heads(), Caller("127.0.0.1", "http")
    head = b"GET /v3/x HTTP/1.1\r\nHost: a\r\nX-Request-Id: one\r\nAuthorization: bearer a.b.c\r\n\r\n"
    for sent, path, identity, token in [
        (head, "/v3/x", "one", "bearer a.b.c"),
        (head.replace(b"one", b"two"), "/v3/x", "two", "bearer a.b.c"),
        (head.replace(b"/x", b"/y"), "/v3/y", "one", "bearer a.b.c"),
        (head.replace(b"a.b.c", b"a.b.d"), "/v3/x", "one", "bearer a.b.d"),
        (head, "/v3/x", "one", "bearer a.b.c"),
    ]:
        found = heads.read(sent, caller)
        assert found is not None
        known = found.decode()
        read = caller.head(known)
        assert (read.target.path, known, read.fields.get("authorization")) == (path, identity, token)
        assert read.fields.pairs[1:] == (("X-Request-Id", identity), ("Authorization", token))
        assert caller.last[1] == extract(read.fields.get_all("authorization"))
    for odd in (b"o e", b"", b"one\r\nX-A: b", b"\xff", b"x" * 256, b"one\r\n\r\nGET / HTTP/1.1\r\nX: "):
        found = heads.read(head.replace(b"one", odd), caller)
        assert found is None or found == b"one", "what is no plain id is for the ordinary lane, or read anew"


# -- heads that differ from those before on their connection

_FIELDS = {
    "token, id": "Authorization: bearer {token}\r\nX-A: {other}\r\nX-Request-Id: {id}\r\nX-B: b\r\n",
    "id, token": "X-Request-Id: {id}\r\nX-A: {other}\r\nAuthorization: bearer {token}\r\nX-B: b\r\n",
    "id last": "Authorization: bearer {token}\r\nX-Vcap-Request-Id: {id}\r\n",
    "no id": "Authorization: bearer {token}\r\nX-A: {other}\r\n",
    "no token": "X-A: {other}\r\nX-Request-Id: {id}\r\nX-B: b\r\n",
    "a field like an id": "X-Request-Id: {other}\r\nAuthorization: bearer {token}\r\nX-Not-Id: {id}\r\nX-B: b\r\n",
}


class _Counting(QuickHeads):
    """Counts the heads that were not known by the fields of the head before."""

    found = 0

    def _find(self, data: bytes) -> Any:
        self.found += 1
        return super()._find(data)


def _walk(seed: int, heads: _Counting) -> int:
    """Read heads by random; how many were known by the fields of the head before, with another line or token."""
    chance, known = random.Random(seed), 0
    callers = [Caller("127.0.0.1", "http") for _ in range(2)]
    usual = chance.choice([*_FIELDS][:4])
    for _ in range(300):
        fields = _FIELDS[usual if chance.random() < 0.8 else chance.choice([*_FIELDS])]
        token = chance.choice(["good.a.b"] * 6 + ["bad.a.b", "bad.c.d", "bad.e", "b d", ""])
        identity = chance.choice(["one", "two", "three-3", "x" * 255, "o e", "", "x" * 256, "\xe9"])
        other = chance.choice(["one", "other"])
        path = "/v3/x" if chance.random() < 0.9 else "/v3/y"
        sent = f"GET {path} HTTP/1.1\r\nHost: a\r\n{fields.format(token=token, id=identity, other=other)}\r\n"
        data, caller = sent.encode("latin-1"), chance.choice(callers)
        alone, fresh = _heads(), Caller("127.0.0.1", "http")
        sought = heads.found
        found, plain = heads.read(data, caller), alone.read(data, fresh)
        assert found == plain
        if found is None:
            continue
        read, told = caller.head(found.decode()), fresh.head(found.decode())
        assert (read.method, read.target, read.fields.pairs) == (told.method, told.target, told.fields.pairs)
        assert caller.last[1] == fresh.last[1] == extract(read.fields.get_all("authorization"))
        assert all(read.fields.get_all(name) == told.fields.get_all(name) for name, _ in told.fields.pairs)
        known += heads.found == sought and caller.last is not caller.usual
    return known


def test_heads_among_others_are_read_as_they_would_be_alone() -> None:
    assert sum(_walk(seed, _Counting(Limits(8190, 65536), strict_api=True, prefix="")) for seed in range(12)) > 300


@pytest.mark.parametrize("fields", [name for name in _FIELDS if name not in {"no token", "a field like an id"}])
def test_other_lines_tokens_and_ids_are_known_by_the_fields_of_the_head_before(fields: str) -> None:
    heads, caller = _Counting(Limits(8190, 65536), strict_api=True, prefix=""), Caller("127.0.0.1", "http")
    for twice in (False, True):
        for path, token, identity in product(("/v3/x", "/v3/y"), ("a.b.c", "d.e"), ("one", "number-two")):
            sought = heads.found
            own = _FIELDS[fields].format(token=token, id=identity, other="other")
            assert heads.read(f"GET {path} HTTP/1.1\r\nHost: a\r\n{own}\r\n".encode(), caller) is not None
            assert (caller.last[0].read[0][1].path, caller.last[1]) == (path, token)
            assert not twice or heads.found == sought


@pytest.mark.parametrize(
    "odd",
    [
        b"GET /v3/x HTTP/1.1\r\nHost: a\r\nAuthorization: bearer a\r\nX-A: a\r\nX-Request-Id: a\r\n\r\nGET /v3/x",
        b"GET /v3/x HTTP/1.1\r\nHost: a\r\nAuthorization: bearer a\r\nX-Request-Id: a\r\nX-Request-Id: a\r\n\r\n",
        b"GET /v3/x HTTP/1.1\r\nHost: a\r\nAuthorization: bearer a\r\nX-Request-Id: a\nX-A: a\r\n\r\n",
        b"GET /v3/x HTTP/1.1\r\nHost: a\r\nAuthorization: bearer a\nX-A: a\r\nX-Request-Id: a\r\n\r\n",
        b"GET /v3/x HTTP/1.1\nHost: a\r\nAuthorization: bearer a\r\nX-Request-Id: a\r\n\r\n",
        b"GET /v3/x HTTP/1.1\r\nHost: a\r\nAuthorization: bearer a\r\nX-Request-Id: \r\n\r\n",
        b"GET /v3/x HTTP/1.1\r\nHost: a\r\nAuthorization: bearer \r\nX-Request-Id: a\r\n\r\n",
        b"GET /v3/x HTTP/1.1\r\nHost: a\r\nAuthorization: bearer a\r\nX-Request-Id: a\r\n",
        b"GET /v3/x HTTP/1.1\r\nHost: a\r\nAuthorization: bearer a\r\n",
        b"GET /v3/x HTTP/1.1\r\nHost: a\r\nAuthorization: bearer ",
        b"GET /v3/x HTTP/1.1",
        b"\r\nHost: a\r\nAuthorization: bearer a\r\nX-Request-Id: a\r\n\r\n",
        b"\r",
        b"x",
    ],
)
def test_what_is_nearly_the_head_before_is_read_as_it_would_be_alone(odd: bytes) -> None:
    heads, caller = _heads(), Caller("127.0.0.1", "http")
    before = b"GET /v3/x HTTP/1.1\r\nHost: a\r\nAuthorization: bearer %b\r\nX-Request-Id: %b\r\n\r\n"
    for token, identity in ((b"a", b"a"), (b"a", b"b"), (b"b", b"b")):
        heads.read(before % (token, identity), caller)
        alone = Caller("127.0.0.1", "http")
        assert heads.read(odd, caller) == _heads().read(odd, alone)
        assert alone.reader is None or caller.last[1] in {alone.last[1], token.decode()}


def test_a_usual_head_is_usual_still_behind_one_that_was_refused() -> None:
    heads, caller = _heads(), Caller("127.0.0.1", "http")
    head = "GET /v3/x HTTP/1.1\r\nHost: a\r\nAuthorization: bearer {}\r\nX-Request-Id: {}\r\n\r\n"

    def read(token: str, identity: str) -> str | None:
        assert heads.read(head.format(token, identity).encode(), caller) == identity.encode()
        return caller.last[1]

    for number in range(3):
        assert read("good", f"a{number}") == "good"
    usual = caller.usual
    assert caller.last is usual
    for number in range(3):
        assert read("bad", f"b{number}") == "bad"
        assert caller.usual is usual or number > 0
        assert read("good", f"c{number}") == "good"
    usual = caller.usual
    assert read("bad", "b-22") == "bad"
    assert read("good", "a5") == "good"
    assert caller.last is caller.usual is usual


def test_other_settings_know_nothing_of_the_usual_head_of_before() -> None:
    heads, others, caller = _heads(), _heads(), Caller("127.0.0.1", "http")
    head = b"GET /v3/x HTTP/1.1\r\nHost: a\r\nAuthorization: bearer a\r\nX-Request-Id: one\r\n\r\n"
    for _ in range(2):
        heads.read(head, caller)
    assert caller.usual is caller.last
    usual, others._longest = caller.usual, len(head)
    assert others.read(head + b"X", caller) is None, "longer than these allow"
    assert others.read(head, caller) == b"one"
    assert caller.last[0] is not usual[0]
