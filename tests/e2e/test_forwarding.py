"""Forwarding on real sockets: what crosses the gateway, and how a transfer ends when one side breaks."""

from __future__ import annotations

import asyncio
import json
import logging
import re

import pytest

from tests.conftest import ADVERTISED, bearer

pytestmark = pytest.mark.usefixtures("exchange")
# A row that lets any method and body through without a token, and whose bodies are not looked into.
OPEN = "/staging/x"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
AUTHORIZATION = f"Authorization: {bearer()['Authorization']}"


# -- requests


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PURGE", "REPORT"]
)
async def test_any_method_passes(stub, start_gateway, connect, method: str) -> None:
    stub.answers(OK[:-2] if method == "HEAD" else OK)
    gateway = await start_gateway(stub.url)
    client = await connect(gateway.url)
    assert (await client.ask(f"{method} {OPEN}")).status == 200
    assert stub.received[-1].line == f"{method} {OPEN} HTTP/1.1"


@pytest.mark.parametrize(
    "target",
    [
        f"{OPEN}?a=1&a=2&&b",
        f"{OPEN}?names=a%2Cb,c%252Cd&x=%zz&y=+%20&z=a/b?c",
        f"{OPEN}?created_ats[gt]=2020-01-01T00:00:00Z",
        f"{OPEN}?guids=" + ",".join(["a1b2c3d4-0000-4000-8000-00000000beef"] * 220),
        f"{OPEN}/%C3%A9",
    ],
    ids=["repeated", "escapes", "brackets", "controller.md-4-8KB", "escaped path"],
)
async def test_target_byte_for_byte(stub, start_gateway, connect, target: str) -> None:
    gateway = await start_gateway(stub.url)
    client = await connect(gateway.url)
    assert (await client.ask(f"GET {target}")).status == 200
    assert stub.received[-1].line == f"GET {target} HTTP/1.1"


async def test_64_kb_of_fields_pass(stub, start_gateway, connect) -> None:
    gateway = await start_gateway(stub.url)
    client = await connect(gateway.url)
    values = [f"X-{number}: " + "v" * 7900 for number in range(8)]
    assert (await client.ask(f"GET {OPEN}", *values)).status == 200
    assert [stub.received[-1].field(f"x-{number}") for number in range(8)] == ["v" * 7900] * 8


BODY = bytes(range(256)) * 300


@pytest.mark.parametrize("chunked", [False, True], ids=["Content-Length", "chunked"])
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "GET"])
async def test_body_byte_for_byte(stub, start_gateway, connect, method: str, *, chunked: bool) -> None:
    gateway = await start_gateway(stub.url)
    client = await connect(gateway.url)
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(BODY)}"
    sent = b"%x;ext=1\r\n%s\r\n0\r\nX-Trailer: 1\r\n\r\n" % (len(BODY), BODY) if chunked else BODY
    assert (await client.ask(f"{method} {OPEN}", framing, body=sent)).status == 200
    request = stub.received[-1]
    assert request.body == BODY
    assert (request.field("content-length") is None) == chunked
    assert request.field("x-trailer") is None, "RFC 9110 §6.5.1: a trailer may be dropped, and is"
    if chunked:
        assert await client.ended(), "aiohttp's parser would give the trailer to the next request (edge/step.py)"
    else:
        assert (await client.ask(f"GET {OPEN}")).status == 200, "and the connection goes on"


async def test_hop_by_hop_fields_end_here(stub, start_gateway, connect) -> None:
    gateway = await start_gateway(stub.url)
    client = await connect(gateway.url)
    await client.ask(
        f"GET {OPEN}",
        "Connection: keep-alive, X-Mine",
        "X-Mine: 1",
        "Keep-Alive: timeout=5",
        "TE: trailers",
        "Trailer: X",
        "Proxy-Authorization: Basic x",
        "Proxy-Connection: keep-alive",
        "X-Kept: 1",
        "X-Kept: 2",
        "User-Agent: cf/9",
    )
    names = [name.lower() for name, _ in stub.received[-1].fields]
    gone = {"connection", "x-mine", "keep-alive", "te", "trailer", "proxy-authorization", "proxy-connection"}
    assert gone.isdisjoint(names)
    assert stub.received[-1].field("x-kept") == "1, 2"
    assert stub.received[-1].field("user-agent") == "cf/9"
    assert "accept" not in names, "the client library adds nothing of its own"


@pytest.mark.parametrize(
    "advisory", ["CVE-2024-45410", "CVE-2025-48865"], ids=["CVE-2024-45410-Traefik", "CVE-2025-48865-Fabio"]
)
async def test_connection_cannot_take_away_what_was_decided_by(stub, start_gateway, connect, advisory: str) -> None:
    gateway = await start_gateway(stub.url)
    client = await connect(gateway.url)
    named = {
        "CVE-2024-45410": "X-Forwarded-For, X-Forwarded-Host, X-Forwarded-Proto, X-Real-IP",
        "CVE-2025-48865": "Authorization, Cookie, Host, X-Forwarded-For, X-Vcap-Request-Id, Content-Length",
    }[advisory]
    await client.ask("GET /v3/apps/x", f"Connection: close, {named}", AUTHORIZATION, "Cookie: a=b", "X-Request-Id: i")
    request = stub.received[-1]
    assert request.field("authorization") == bearer_of(AUTHORIZATION)
    assert request.field("cookie") == "a=b"
    assert request.field("x-forwarded-for") == "127.0.0.1"
    assert request.field("x-forwarded-host") == "api.example.org"
    assert request.field("x-forwarded-proto") == "http"
    assert request.field("x-real-ip") == "127.0.0.1"
    assert request.field("x-vcap-request-id") == "i"
    assert request.field("host") == "api.internal.example.org"


def bearer_of(line: str) -> str:
    return line.partition(": ")[2]


async def test_cve_2025_64484_underscore_twins_do_not_pass(stub, start_gateway, connect) -> None:
    gateway = await start_gateway(stub.url)
    client = await connect(gateway.url)
    await client.ask(
        f"GET {OPEN}", "X_Forwarded_For: 6.6.6.6", "X_Forwarded-Proto: https", "Content_Length: 3", "A_b: 1"
    )
    assert all("_" not in name for name, _ in stub.received[-1].fields)


async def test_envoy_16399_a_spoofed_client_address_is_replaced(stub, start_gateway, connect) -> None:
    gateway = await start_gateway(stub.url)
    client = await connect(gateway.url)
    spoofed = (
        "X-Forwarded-For: 6.6.6.6",
        "X-Forwarded-For: 7.7.7.7",
        "X-Real-IP: 6.6.6.6",
        "Forwarded: for=6.6.6.6;host=evil",
        "X-Forwarded-Host: evil",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Port: 1",
        "X-Forwarded-Client-Cert: evil",
    )
    await client.ask(f"GET {OPEN}", *spoofed)
    fields = [pair for pair in stub.received[-1].fields if re.match("x-forw|x-real|forw", pair[0].lower())]
    assert dict(fields) == {
        "X-Forwarded-For": "127.0.0.1",
        "X-Real-IP": "127.0.0.1",
        "X-Forwarded-Proto": "http",
        "X-Forwarded-Host": "api.example.org",
        "X-Forwarded-Port": "80",
    }
    assert len(fields) == 5, "each once"


async def test_envoy_16399_only_what_a_trusted_proxy_vouches_for(stub, start_gateway, connect) -> None:
    gateway = await start_gateway(stub.url, "trusted_proxies: [127.0.0.0/8]")
    client = await connect(gateway.url)
    await client.ask(f"GET {OPEN}", "X-Forwarded-For: 6.6.6.6, 198.51.100.7", "X-Forwarded-Proto: https")
    assert stub.received[-1].field("x-forwarded-for") == "198.51.100.7, 127.0.0.1"
    assert stub.received[-1].field("x-forwarded-proto") == "https"


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ([], r"[0-9a-f-]{36}"),
        (["X-Vcap-Request-Id: mine-1"], "mine-1"),
        (["X-Request-Id: mine-2"], "mine-2"),
        (["X-Vcap-Request-Id: <script>"], "script"),
        (["X-Request-Id: " + "a" * 300], "a{255}"),
    ],
    ids=["made", "passed", "the other name", "cleaned", "255 characters"],
)
async def test_request_id(stub, start_gateway, connect, sent: list[str], expected: str) -> None:
    gateway = await start_gateway(stub.url)
    client = await connect(gateway.url)
    answer = await client.ask(f"GET {OPEN}", *sent)
    identity = stub.received[-1].field("x-vcap-request-id") or ""
    assert re.fullmatch(expected, identity)
    assert answer.field("x-vcap-request-id") == identity, "answered when the controller does not"
    refused = await client.ask("GET /v3/processes", *sent)
    assert re.fullmatch(expected, refused.field("x-vcap-request-id") or "")
    stub.answers_json(b"{}", "X-VCAP-Request-ID: given::uuid")
    assert (await client.ask(f"GET {OPEN}", *sent)).all("x-vcap-request-id") == ["given::uuid"]


async def test_host_and_via(stub, start_gateway, connect) -> None:
    gateway = await start_gateway(stub.url, "via: front")
    client = await connect(gateway.url)
    await client.ask(f"GET {OPEN}", "Via: 1.0 cdn")
    assert stub.received[-1].field("host") == "api.internal.example.org"
    assert stub.received[-1].field("via") == "1.0 cdn, 1.1 front"


# -- responses


async def test_status_reason_order_case_and_duplicates_of_a_response(stub, start_gateway, connect) -> None:
    stub.answers(
        b"HTTP/1.1 299 Quite Fine\r\nZ-last: 1\r\nset-cookie: a=1; Path=/\r\nX-CF-Warnings: one\r\nSet-Cookie: b=2\r\n"
        b"X-Cf-Warnings: two%2C\r\nContent-Length: 2\r\nA-first: \xc3\xa9\r\n\r\nhi"
    )
    gateway = await start_gateway(stub.url)
    answer = await (await connect(gateway.url)).ask(f"GET {OPEN}")
    assert (answer.status, answer.reason, answer.body) == (299, "Quite Fine", b"hi")
    own = {"via", "cache-status", "date", "content-length"}
    assert [pair for pair in answer.fields if pair[0].lower() not in own] == [
        ("Z-last", "1"),
        ("set-cookie", "a=1; Path=/"),
        ("X-CF-Warnings", "one"),
        ("Set-Cookie", "b=2"),
        ("X-Cf-Warnings", "two%2C"),
        ("A-first", "\xc3\xa9"),
        ("X-VCAP-Request-ID", answer.field("x-vcap-request-id")),
    ]
    assert len(answer.all("content-length")) == len(answer.all("date")) == 1
    assert answer.field("server") is None


async def test_hop_by_hop_fields_of_a_response_end_here(stub, start_gateway, connect) -> None:
    stub.answers(
        b"HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: timeout=20\r\n"
        b"Via: 1.1 inner\r\nProxy-Authenticate: Basic\r\nUpgrade: h2c\r\nX-User-Guid: uaa-id-432\r\nTrailer: X-T\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-T: 1\r\n\r\n"
    )
    gateway = await start_gateway(stub.url)
    client = await connect(gateway.url)
    answer = await client.ask(f"GET {OPEN}")
    assert (answer.body, answer.complete) == (b"hi", True)
    names = {name.lower() for name, _ in answer.fields}
    gone = {"connection", "x-mine", "keep-alive", "proxy-authenticate", "upgrade", "x-user-guid", "trailer", "x-t"}
    assert gone.isdisjoint(names)
    assert answer.all("via") == ["1.1 inner, 1.1 gateway"]
    assert (await client.ask(f"GET {OPEN}")).body == b"hi", "the trailer was swallowed"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_neither_followed_nor_changed(stub, start_gateway, connect, status: int) -> None:
    location = f"{ADVERTISED}/blobstore/x?signature=a%2Bb"
    stub.answers(f"HTTP/1.1 {status} Elsewhere\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode())
    gateway = await start_gateway(stub.url)
    before = len(stub.received)
    answer = await (await connect(gateway.url)).ask("GET /v3/packages/x/download", AUTHORIZATION)
    assert (answer.status, answer.field("location"), answer.body) == (status, location, b"")
    assert len(stub.received) == before + 1


@pytest.mark.parametrize(
    ("method", "head", "length"),
    [
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", None),
        ("DELETE", b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", None),
        ("GET", b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\n\r\n', None),
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n", "1234"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", None),
        ("HEAD", b"HTTP/1.1 200 OK\r\n\r\n", None),
        ("HEAD", b"HTTP/1.1 404 Not Found\r\nContent-Length: 99\r\n\r\n", "99"),
    ],
)
async def test_answers_without_content_end_with_their_head(
    stub, start_gateway, connect, method: str, head: bytes, length: str | None
) -> None:
    stub.answers(head)
    gateway = await start_gateway(stub.url)
    client = await connect(gateway.url)
    for _ in range(2):
        answer = await asyncio.wait_for(client.ask(f"{method} {OPEN}"), 5)
        assert answer.status == int(head.split()[1])
        assert answer.field("content-length") == length
        assert answer.field("transfer-encoding") is None


async def test_a_response_until_close_is_relayed_chunked(stub, start_gateway, connect) -> None:
    async def until_close(_request, _reader, writer) -> None:
        writer.write(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nall of it")
        writer.close()

    stub.script = until_close
    gateway = await start_gateway(stub.url)
    client = await connect(gateway.url)
    answer = await client.ask(f"GET {OPEN}")
    assert (answer.field("transfer-encoding"), answer.body, answer.complete) == ("chunked", b"all of it", True)
    ended = await client.ask(f"GET {OPEN} HTTP/1.0")
    assert (ended.field("transfer-encoding"), ended.body) == (None, b"all of it")


async def test_interim_responses_do_not_disturb(stub, start_gateway, connect) -> None:
    """RFC 8297, RFC 9110 §15.2: 103 and 102 may precede the answer; dropping them is allowed."""
    stub.answers(b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n", b"HTTP/1.1 102 Processing\r\n\r\n", OK)
    gateway = await start_gateway(stub.url)
    client = await connect(gateway.url)
    for _ in range(2):
        answer = await client.ask(f"GET {OPEN}")
        assert (answer.status, answer.body) == (200, b"ok")


async def test_compressed_content_stays_compressed(stub, start_gateway, connect) -> None:
    stub.answers(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\n\x1f\x8b\x08??")
    gateway = await start_gateway(stub.url)
    answer = await (await connect(gateway.url)).ask(f"GET {OPEN}", "Accept-Encoding: gzip")
    assert (answer.field("content-encoding"), answer.body) == ("gzip", b"\x1f\x8b\x08??")
    assert stub.received[-1].field("accept-encoding") == "gzip"


# -- uploads


async def test_100_continue_comes_from_here_when_the_upload_is_accepted(stub, start_gateway, connect) -> None:
    gateway = await start_gateway(stub.url)
    client = await connect(gateway.url)
    await client.request(f"POST {OPEN}", "Content-Length: 5", "Expect: 100-continue")
    assert (await asyncio.wait_for(client.reader.readuntil(b"\r\n\r\n"), 5)) == b"HTTP/1.1 100 Continue\r\n\r\n"
    await client.send(b"hello")
    assert (await client.answer("POST")).status == 200
    assert stub.received[-1].body == b"hello"
    assert stub.received[-1].field("expect") is None


async def test_an_early_answer_while_uploading_reaches_the_client(
    start_gateway, start_upstream, connect, caplog
) -> None:
    """RFC 9112 §9.5: an answer before the end of the content; neither connection goes on after it."""
    connections: list[int] = []
    hung_up = asyncio.Event()

    async def refuse_early(request, reader, writer) -> None:
        connections.append(1)
        if request.line.startswith("GET"):
            writer.write(OK)
            return
        await reader.read(100)
        writer.write(b"HTTP/1.1 413 Too Much\r\nContent-Length: 3\r\n\r\nno!")
        while await reader.read(65536):
            pass
        hung_up.set()

    gateway = await start_gateway(await start_upstream(refuse_early))
    client = await connect(gateway.url)
    with caplog.at_level(logging.WARNING):
        await client.request(f"POST {OPEN}", "Content-Length: 100000000", body=bytes(100_000))
        answer = await client.answer("POST")
        assert (answer.status, answer.body, answer.field("connection")) == (413, b"no!", "close")
        await asyncio.wait_for(hung_up.wait(), 5)
        client.writer.close()
    assert caplog.records == []
    assert (await (await connect(gateway.url)).ask(f"GET {OPEN}")).body == b"ok"
    assert len(connections) == 2, "a connection with half an upload on it is not used again"


@pytest.mark.parametrize("framing", ["Content-Length: 1000", "Transfer-Encoding: chunked"], ids=["length", "chunked"])
async def test_an_interrupted_upload_never_arrives_complete(
    start_gateway, start_upstream, connect, framing: str
) -> None:
    arrived, begun, over = bytearray(), asyncio.Event(), asyncio.Event()

    async def take(_request, reader, _writer) -> None:
        while data := await reader.read(65536):
            arrived.extend(data)
            begun.set()
        over.set()

    gateway = await start_gateway(await start_upstream(take))
    client = await connect(gateway.url)
    await client.request(f"POST {OPEN}", framing, body=b"8\r\nhalf of \r\n" if "chunked" in framing else b"half of ")
    await asyncio.wait_for(begun.wait(), 5)
    client.writer.close()
    await asyncio.wait_for(over.wait(), 5)
    assert b"half of" in arrived
    assert len(arrived) < 1000
    assert not arrived.endswith(b"0\r\n\r\n")


# -- broken and slow ones


@pytest.mark.parametrize(
    ("head", "framing"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npartial", "content-length"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\npartial\r\n", "transfer-encoding"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\npartial\r\nzz\r\n", "transfer-encoding"),
    ],
    ids=["length", "chunked", "bad chunk"],
)
@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
async def test_an_upstream_that_breaks_off_is_never_complete(
    start_gateway, start_upstream, connect, caplog, head: bytes, framing: str, version: str
) -> None:
    passed = asyncio.Event()

    async def break_off(_request, _reader, writer) -> None:
        writer.write(head.partition(b"partial")[0] + b"partial")
        await writer.drain()
        await passed.wait()
        writer.write(head.partition(b"partial")[2])
        writer.close()

    gateway = await start_gateway(await start_upstream(break_off))
    client = await connect(gateway.url)
    with caplog.at_level(logging.WARNING):
        await client.request(f"GET {OPEN} {version}")
        answer = await client._head()
        assert answer.status == 200
        passed.set()
        if version == "HTTP/1.0" and framing == "transfer-encoding":
            with pytest.raises(ConnectionResetError):  # the end of the connection is the framing: only a reset tells
                await asyncio.wait_for(client.reader.read(), 5)
            return
        assert answer.field(framing) is not None
        await client._content(answer)
        assert not answer.complete
    assert caplog.records == [], "a broken controller is no fault of ours"


@pytest.mark.parametrize(
    ("path", "fields", "read"),
    [
        ("/v3/apps/x", [AUTHORIZATION], lambda body: body["errors"][0]["title"]),
        (OPEN, [], lambda body: body["error_code"]),
    ],
    ids=["v3", "v2"],
)
@pytest.mark.parametrize(
    ("script", "status", "title", "reason"),
    [
        ("close", 502, "CF-BadGateway", "upstream-broken"),
        ("garbage", 502, "CF-BadGateway", "upstream-broken"),
        ("head only", 502, "CF-BadGateway", "upstream-broken"),
        ("silence", 504, "CF-GatewayTimeout", "upstream-timeout"),
        ("gone", 502, "CF-BadGateway", "upstream-unreachable"),
    ],
)
async def test_failures_before_the_first_byte_are_the_controllers_errors(
    start_gateway, start_upstream, connect, script: str, status: int, title: str, reason: str, path, fields, read
) -> None:
    async def fail(_request, reader, writer) -> None:
        match script:
            case "garbage":
                writer.write(b"garbage\r\n\r\n")
            case "head only":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
            case "silence":
                await reader.read()

    url = "http://127.0.0.1:1" if script == "gone" else await start_upstream(fail)
    gateway = await start_gateway(url, more_upstream="timeouts: {connect: 100ms, head: 100ms, idle: 100ms}")
    client = await connect(gateway.url)
    answer = await client.ask(f"GET {path}", *fields)
    assert (answer.status, answer.complete) == (status, True)
    assert (answer.field("x-gateway-error") or "").partition(";")[0] == reason
    assert read(json.loads(answer.body)) == title
    assert (await client.ask("GET /v3/nothing/at?all")).status, "and the connection goes on"


async def test_controller_md_4_broken_cors_preflight(stub, start_gateway, connect) -> None:
    """A second status line where a chunk belongs: never complete to the client, and the connection not used again."""

    async def preflight(request, _reader, writer) -> None:
        if request.line.startswith("OPTIONS"):
            writer.write(
                b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nTransfer-Encoding: chunked\r\n\r\n"
                b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
            )
        else:
            writer.write(OK)

    stub.script = preflight
    gateway = await start_gateway(stub.url)
    client = await connect(gateway.url)
    for _ in range(3):
        broken = await client.ask("OPTIONS /v3/processes", "Origin: http://a", "Access-Control-Request-Method: GET")
        assert broken.status == 502
        assert (broken.field("x-gateway-error") or "").startswith("upstream-broken")
        assert (await client.ask(f"GET {OPEN}")).body == b"ok", "the pool is not poisoned"


async def test_more_bytes_than_announced_do_not_answer_the_next_request(stub, start_gateway, connect) -> None:
    stub.answers(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npoisoned")
    gateway = await start_gateway(stub.url)
    client = await connect(gateway.url)
    for _ in range(3):
        assert (await client.ask(f"GET {OPEN}")).body == b"ok"


@pytest.mark.parametrize("when", ["before the head", "before the first byte", "mid-body"])
async def test_a_client_that_leaves_takes_its_upstream_request_with_it(
    start_gateway, start_upstream, connect, when: str
) -> None:
    asked, hung_up = asyncio.Event(), asyncio.Event()

    async def slowly(_request, reader, writer) -> None:
        asked.set()
        if when != "before the head":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        if when == "mid-body":
            writer.write(b"some")
        assert await reader.read() == b""
        hung_up.set()

    gateway = await start_gateway(await start_upstream(slowly))
    client = await connect(gateway.url)
    await client.request(f"GET {OPEN}")
    await asyncio.wait_for(asked.wait(), 5)
    if when == "mid-body":
        await client._head()
    client.writer.close()
    await asyncio.wait_for(hung_up.wait(), 5)


# What may be on its way inside of the gateway and in four socket buffers, well below what is offered.
OFFERED, BOUND = 256 << 20, 32 << 20


async def test_a_client_that_does_not_read_stops_the_upstream_from_being_read(
    start_gateway, start_upstream, connect
) -> None:
    written = 0
    stalled = asyncio.Event()

    async def pour(_request, _reader, writer) -> None:
        nonlocal written
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % OFFERED)
        while written < OFFERED:
            writer.write(bytes(1 << 20))
            try:
                await asyncio.wait_for(writer.drain(), 1)
            except TimeoutError:
                stalled.set()
                await writer.drain()
            written += 1 << 20

    gateway = await start_gateway(await start_upstream(pour))
    client = await connect(gateway.url)
    client.writer.transport.pause_reading()
    await client.request(f"GET {OPEN}")
    await asyncio.wait_for(stalled.wait(), 20)
    assert written < BOUND
    client.writer.transport.resume_reading()
    answer = await client._head()
    left = int(answer.field("content-length") or 0)
    while left and (data := await asyncio.wait_for(client.reader.read(1 << 20), 10)):
        left -= len(data)
    assert left == 0, "and it goes on when the client does"


async def test_an_upstream_that_does_not_read_stops_the_client_from_being_read(
    start_gateway, start_upstream, connect
) -> None:
    go_on = asyncio.Event()

    async def reluctantly(_request, reader, writer) -> None:
        writer.transport.pause_reading()
        await go_on.wait()
        writer.transport.resume_reading()
        left = OFFERED
        while left and (data := await reader.read(1 << 20)):
            left -= len(data)
        writer.write(OK)

    gateway = await start_gateway(await start_upstream(reluctantly))
    client = await connect(gateway.url)
    await client.request(f"POST {OPEN}", f"Content-Length: {OFFERED}")
    written = 0
    while written < OFFERED:
        client.writer.write(bytes(1 << 20))
        try:
            await asyncio.wait_for(client.writer.drain(), 1)
        except TimeoutError:
            if not go_on.is_set():
                assert written < BOUND
            go_on.set()
            await client.writer.drain()
        written += 1 << 20
    assert go_on.is_set(), "it did stall"
    assert (await client.answer("POST")).body == b"ok"
