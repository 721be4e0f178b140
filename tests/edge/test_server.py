"""The server on real sockets: keep-alive, waiting clients, and what becomes of content nobody reads."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest


@pytest.mark.parametrize(
    ("line", "fields", "kept"),
    [
        ("GET /staging/x HTTP/1.1", [], True),
        ("GET /staging/x HTTP/1.1", ["Connection: close"], False),
        ("GET /staging/x HTTP/1.0", [], False),
        ("GET /staging/x HTTP/1.0", ["Connection: keep-alive"], True),
        ("HEAD /staging/x HTTP/1.0", ["Connection: keep-alive"], True),
    ],
    ids=["1.1", "1.1 close", "1.0", "1.0 keep-alive", "1.0 keep-alive HEAD"],
)
async def test_rfc9112_9_3_persistence(stub, start_gateway, connect, line: str, fields: list[str], kept: bool) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
    stub.answers(head if line.startswith("HEAD") else head + b"[]")
    gateway = await start_gateway(stub.url)
    client = await connect(gateway.url)
    first = await client.ask(line, *fields)
    assert (first.status, first.complete) == (200, True)
    if not kept:
        assert await client.ended()
        return
    if "1.0" in line:
        assert (first.field("connection") or "").lower() == "keep-alive"
    assert (await client.ask(line, *fields)).status == 200


async def test_a_response_without_length_ends_with_the_connection_for_http_1_0(stub, start_gateway, connect) -> None:
    """controller.md §4: chunked answers must be relayed to HTTP/1.0 without chunks, and end by closing."""
    stub.answers(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n")
    gateway = await start_gateway(stub.url)
    client = await connect(gateway.url)
    answer = await client.ask("GET /staging/x HTTP/1.0", "Connection: keep-alive")
    assert answer.field("transfer-encoding") is None
    assert answer.body == b"abcdefg"
    assert (answer.field("connection") or "").lower() != "keep-alive"


async def test_a_refused_upload_is_answered_without_100_and_the_connection_ends(stub, start_gateway, connect) -> None:
    """RFC 9110 §10.1.1: a final answer instead of 100; what the client then sends is not taken for a request."""
    gateway = await start_gateway(stub.url)
    before = len(stub.received)
    client = await connect(gateway.url)
    await client.request("POST /v3/packages/x/upload", "Content-Length: 2000000000", "Expect: 100-continue")
    answer = await client.answer("POST")
    assert (answer.status, answer.interim) == (401, [])
    assert json.loads(answer.body)["errors"][0]["code"] == 10002
    assert answer.field("connection") == "close"
    assert await client.ended()
    assert len(stub.received) == before


async def test_a_refused_upload_that_is_sent_anyway_still_gets_its_answer(stub, start_gateway, connect, caplog) -> None:
    """RFC 9112 §9.6: closing at once would reset the connection and lose the answer."""
    gateway = await start_gateway(stub.url)
    client = await connect(gateway.url)
    size = 8_000_000
    with caplog.at_level(logging.ERROR):
        await client.request("POST /v3/packages/x/upload", f"Content-Length: {size}")
        for _ in range(80):
            await client.send(bytes(size // 80))
        assert (await client.answer("POST")).status == 401
        assert await client.ended()
    assert caplog.records == []


async def test_the_next_request_does_not_begin_in_unread_content(stub, start_gateway, connect) -> None:
    """Pingora CVE-2025-4366: content that a cached or refused answer left unread is not parsed as a request."""
    gateway = await start_gateway(stub.url)
    inside = b"GET /staging/smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    client = await connect(gateway.url)
    await client.request("GET /v3/processes", f"Content-Length: {len(inside)}", body=inside)
    assert (await client.answer()).status == 401
    assert await client.ended()
    assert all("smuggled" not in request.line for request in stub.received)


async def test_rfc9110_7_8_an_upgrade_is_ignored_and_the_connection_goes_on(stub, start_gateway, connect) -> None:
    gateway = await start_gateway(stub.url)
    client = await connect(gateway.url)
    for line, protocol, fields, body in (
        ("POST /staging/x", "websocket", ["Content-Length: 5"], b"hello"),
        ("GET /staging/x", "websocket", [], b""),
        ("GET /staging/x", "h2c", [], b""),
    ):
        answer = await client.ask(line, f"Upgrade: {protocol}", "Connection: upgrade", *fields, body=body)
        assert answer.status == 200
        request = stub.received[-1]
        assert (request.body, request.field("upgrade"), request.field("connection")) == (body, None, None)
    assert (await client.ask("GET /staging/y")).status == 200


async def test_what_the_parser_lost_behind_an_upgrade_is_not_read_on_from_the_middle(
    stub, start_gateway, connect
) -> None:
    """aiohttp drops what comes together with an h2c upgrade; what comes after that would begin half-way."""
    gateway = await start_gateway(stub.url)
    stub.received.clear()
    client = await connect(gateway.url)
    inside = b"GET /staging/smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    await client.request(
        "GET /staging/x",
        "Upgrade: h2c",
        "Connection: upgrade",
        body=b"POST /staging/y HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(inside),
    )
    await client.send(inside)
    answer = await client.answer()
    assert (answer.status, answer.field("connection")) == (200, "close")
    assert await client.ended()
    assert [request.line for request in stub.received] == ["GET /staging/x HTTP/1.1"]


async def test_a_fault_of_ours_is_500_in_the_controllers_format_and_logged(
    stub, start_gateway, connect, caplog, monkeypatch
) -> None:
    gateway = await start_gateway(stub.url)

    async def fault(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(type(gateway.pipeline), "answer", fault)
    client = await connect(gateway.url)
    with caplog.at_level(logging.ERROR):
        answer = await client.ask("GET /v3/info")
    assert (answer.status, answer.field("x-gateway-error")) == (500, "internal")
    assert json.loads(answer.body)["errors"][0]["title"] == "UnknownError"
    assert b"a fault of ours" not in answer.body
    assert "unhandled fault" in caplog.text
    assert await client.ended()


async def test_requests_under_way_are_finished_when_it_stops_and_idle_connections_are_not_waited_for(
    start_gateway, start_upstream, connect
) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(_request, _reader, writer) -> None:
        asked.set()
        await go_on.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")

    gateway = await start_gateway(await start_upstream(slowly), drain="5s")
    url = gateway.url
    idle, busy = await connect(url), await connect(url)
    await busy.request("GET /staging/x")
    await asked.wait()
    stopping = asyncio.create_task(gateway.stop())
    assert await idle.ended()
    with pytest.raises(OSError):
        await connect(url)
    go_on.set()
    assert (await busy.answer()).body == b"done"
    assert await busy.ended()
    await asyncio.wait_for(stopping, 2)
