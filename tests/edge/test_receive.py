"""What the edge refuses, byte for byte on a socket: an answer in the controller's format, a close, and no hang."""

from __future__ import annotations

import asyncio
import logging

import pytest

from gateway.core.errors import Denial, Reason
from gateway.core.model import Fields, RequestHead, Target
from gateway.edge.receive import Limits, canonical

HOST = b"Host: api.example.org\r\n"


@pytest.mark.parametrize(
    "chunk",
    [b"xyz\r\nabc\r\n", b"-1\r\n", b"3\r\nabcd\r\n", b"3\nabc\r\n", b"fffffffffffffffffff\r\n", b"3 \r\nabc\r\n"],
    ids=["not-hex", "negative", "longer-than-said", "bare-LF", "overflow", "space"],
)
async def test_a_bad_chunk_ends_the_request_and_never_completes_upstream(
    start_gateway, start_upstream, connect, caplog, chunk: bytes
) -> None:
    arrived = bytearray()

    async def swallow(_request, reader, _writer) -> None:
        while data := await reader.read(65536):
            arrived.extend(data)

    gateway = await start_gateway(await start_upstream(swallow))
    client = await connect(gateway.url)
    with caplog.at_level(logging.ERROR):
        await client.request("POST /staging/x", "Transfer-Encoding: chunked", body=b"2\r\nok")
        while b"ok" not in arrived:
            await asyncio.sleep(0.001)
        await client.send(b"\r\n" + chunk)
        answer = await client.answer("POST")
        assert (answer.status, answer.field("x-gateway-error") is not None) == (400, True)
        assert await client.ended()
    assert caplog.records == []
    assert b"\r\n0\r\n\r\n" not in arrived


async def test_a_bad_chunk_in_a_request_that_waits_its_turn_ends_that_request(
    start_gateway, start_upstream, connect
) -> None:
    asked, turn = asyncio.Event(), asyncio.Event()

    async def first_slowly(request, reader, writer) -> None:
        if request.line.startswith("GET"):
            asked.set()
            await turn.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst")
        await reader.read()

    gateway = await start_gateway(await start_upstream(first_slowly))
    client = await connect(gateway.url)
    await client.request("GET /staging/1", "TE: trailers")  # none that the hit lane reads
    await asked.wait()
    await client.request("POST /staging/2", "Transfer-Encoding: chunked", body=b"2\r\nok\r\n")
    (connection,) = gateway._server.connections
    while not connection._messages:  # until the second head waits its turn
        await asyncio.sleep(0.001)
    await client.send(b"xyz\r\n")
    while len(connection._messages) < 2:
        await asyncio.sleep(0.001)
    turn.set()
    assert (await client.answer()).body == b"first"
    assert (await client.answer("POST")).status == 400
    assert await client.ended()


async def test_pipelined_requests_are_answered_in_order(stub, start_gateway, connect) -> None:
    async def echo(request, _reader, writer) -> None:
        body = request.line.encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    stub.script = echo
    gateway = await start_gateway(stub.url)
    client = await connect(gateway.url)
    wanted = 30  # more than the server lets wait at once
    await client.send(
        b"".join(b"GET /staging/%d HTTP/1.1\r\n" % number + HOST + b"\r\n" for number in range(wanted))
        + b"POST /staging/last HTTP/1.1\r\n"
        + HOST
        + b"Content-Length: 2\r\n\r\nhi"
    )
    for number in range(wanted):
        assert (await client.answer()).body == b"GET /staging/%d HTTP/1.1" % number
    assert (await client.answer("POST")).body == b"POST /staging/last HTTP/1.1"


async def test_a_request_split_at_every_byte_is_the_same_request(stub, start_gateway, connect) -> None:
    gateway = await start_gateway(stub.url)
    client = await connect(gateway.url)
    whole = b"POST /staging/x?a=1 HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
    for byte in whole:
        await client.send(bytes([byte]))
    assert (await client.answer("POST")).status == 200
    assert stub.received[-1].line == "POST /staging/x?a=1 HTTP/1.1"
    assert stub.received[-1].body == b"hi"


LIMITS = "limits: {max_body_bytes: 1KiB}"


async def test_a_body_announced_too_large_is_413_before_it_is_sent(stub, start_gateway, connect) -> None:
    gateway = await start_gateway(stub.url, LIMITS)
    before = len(stub.received)
    client = await connect(gateway.url)
    await client.request("POST /staging/x", "Content-Length: 1025", "Expect: 100-continue")
    answer = await client.answer("POST")
    assert (answer.status, answer.interim) == (413, [])
    assert (answer.field("x-gateway-error") or "").startswith("body-too-large")
    assert await client.ended()
    assert len(stub.received) == before
    assert (await (await connect(gateway.url)).ask("POST /staging/x", "Content-Length: 1024", body=bytes(1024))).status


PER_ROUTE = """
limits: {max_body_bytes: 1KiB}
routes:
  - {match: POST /staging/large, max_body_bytes: 3KiB}
  - {match: POST /staging/small, max_body_bytes: 10B}
"""


@pytest.mark.parametrize("chunked", [False, True], ids=["announced", "chunked"])
@pytest.mark.parametrize(("path", "limit"), [("large", 3072), ("small", 10), ("other", 1024)])
async def test_a_route_has_a_limit_of_its_own(
    stub, start_gateway, connect, path: str, limit: int, chunked: bool
) -> None:
    gateway = await start_gateway(stub.url, PER_ROUTE)
    stub.received.clear()
    for size, status in ((limit, 200), (limit + 1, 413)):
        framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (size, bytes(size)) if chunked else bytes(size)
        client = await connect(gateway.url)
        assert (await client.ask(f"POST /staging/{path}", framing, body=body)).status == status
    assert [request.body for request in stub.received if request.body] == [bytes(limit)]


async def test_a_chunked_body_that_grows_too_large_is_413_and_never_complete_upstream(
    start_gateway, start_upstream, connect
) -> None:
    arrived = bytearray()

    async def swallow(_request, reader, _writer) -> None:
        while data := await reader.read(65536):
            arrived.extend(data)

    gateway = await start_gateway(await start_upstream(swallow), LIMITS)
    client = await connect(gateway.url)
    await client.request("POST /staging/x", "Transfer-Encoding: chunked", body=b"200\r\n" + bytes(512) + b"\r\n")
    await client.send(b"201\r\n" + bytes(513) + b"\r\n")
    answer = await client.answer("POST")
    assert answer.status == 413
    assert (answer.field("x-gateway-error") or "").startswith("body-too-large")
    assert await client.ended()
    assert b"0\r\n\r\n" not in arrived


@pytest.mark.parametrize(
    ("asked", "forwarded"),
    [
        ("/cf/staging/x?a=1", "/staging/x?a=1"),
        ("/staging/x", "/staging/x"),
        ("/cf/staging", "/staging"),
        ("http://other.example.org/cf/staging/x", "/staging/x"),
    ],
    ids=["under the prefix", "without it", "only the prefix goes", "absolute-form"],
)
async def test_the_prefix_of_the_public_url_is_not_the_controllers(
    stub, start_gateway, connect, asked: str, forwarded: str
) -> None:
    gateway = await start_gateway(stub.url, public_url="https://gateway.example.org/cf")
    client = await connect(gateway.url)
    assert (await client.ask(f"GET {asked}")).status in {200, 404}
    assert stub.received[-1].line == f"GET {forwarded} HTTP/1.1"


async def test_absolute_form_is_the_origin_form_and_cannot_choose_the_host(stub, start_gateway, connect) -> None:
    """RFC 9112 §3.2.2: accepted from any client; where it goes was decided by the connection."""
    gateway = await start_gateway(stub.url)
    client = await connect(gateway.url)
    assert (await client.ask("GET http://evil.example.org/staging/x?a=1")).status == 200
    assert stub.received[-1].line == "GET /staging/x?a=1 HTTP/1.1"
    assert stub.received[-1].field("host") == "api.internal.example.org"


# -- the same rules on literal values


def head(method: str = "GET", target: str = "/v3", *fields: tuple[str, str]) -> RequestHead:
    return RequestHead(method, Target(target), Fields(fields or (("Host", "a"),)))


@pytest.mark.parametrize(
    "host", ["a", "a.b:80", "127.0.0.1:1", "[::1]", "[::1]:8080", "a_b", "xn--caf-dma.example.org"]
)
def test_hosts_that_pass(host: str) -> None:
    assert canonical(head("GET", "/v3", ("Host", host)), Limits(1024, 1024), strict_api=True).target.path == "/v3"


def test_host_is_optional_for_http_1_0_only() -> None:
    without = head("GET", "/v3", ("Accept", "*/*"))
    assert canonical(without, Limits(1024, 1024), strict_api=True, http_1_0=True)
    with pytest.raises(Denial) as caught:
        canonical(without, Limits(1024, 1024), strict_api=True)
    assert caught.value.reason is Reason.BAD_REQUEST


@pytest.mark.parametrize(
    ("prefix", "path", "expected"),
    [
        ("/cf", "/cf/v3", "/v3"),
        ("/cf", "/cf", "/"),
        ("/cf", "/cfx/v3", "/cfx/v3"),
        ("/cf", "/v3/cf", "/v3/cf"),
        ("/a/b", "/a/b/v3", "/v3"),
        ("", "/v3", "/v3"),
    ],
)
def test_prefix_is_whole_segments(prefix: str, path: str, expected: str) -> None:
    assert canonical(head("GET", path), Limits(1024, 1024), strict_api=True, prefix=prefix).target.path == expected
