from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator

import pytest

from gateway.core.errors import Denial, Reason
from gateway.core.model import Fields, RequestHead, Target
from gateway.pipeline.ports import ContentError, UpstreamError
from gateway.upstream.client import Client, LostRequestError, Sizes, Timeouts
from tests.conftest import listening

pytestmark = pytest.mark.usefixtures("exchange")


@pytest.fixture
async def make_client() -> AsyncIterator:
    clients = []

    async def make(
        url: str,
        *,
        connect: float = 2.0,
        head: float = 2.0,
        idle: float = 2.0,
        total: float = 0.0,
        sizes: Sizes | None = None,
    ) -> Client:
        client = Client(url, timeouts=Timeouts(connect, head, idle, total), connections=10, sizes=sizes)
        await client.start()
        clients.append(client)
        return client

    yield make
    for client in clients:
        await client.stop()


def get(target: str = "/v3/processes", *fields: tuple[str, str], method: str = "GET") -> RequestHead:
    path, _, query = target.partition("?")
    return RequestHead(method, Target(path, query or None), Fields((("Host", "api.example.org"), *fields)))


async def read(response) -> bytes:
    try:
        return b"".join([chunk async for chunk in response.chunks()])
    finally:
        await response.release()


async def test_what_is_given_is_sent_and_nothing_else(stub, make_client) -> None:
    client = await make_client(stub.url)
    response = await client.send(
        get("/v3/processes?page=1&names=a%2Cb&x=%zz", ("X-Twice", "1"), ("X-Twice", "2")), None
    )
    await read(response)
    request = stub.received[0]
    assert request.line == "GET /v3/processes?page=1&names=a%2Cb&x=%zz HTTP/1.1"
    assert request.fields == [("Host", "api.example.org"), ("X-Twice", "1"), ("X-Twice", "2")]


async def test_duplicates_order_and_case_of_response_fields_are_kept(stub, make_client) -> None:
    stub.answers(
        b"HTTP/1.1 200 Fine\r\nX-a: 1\r\nSet-Cookie: a\r\nx-B: 2\r\nSet-Cookie: b\r\nContent-Length: 2\r\n\r\nhi"
    )
    client = await make_client(stub.url)
    response = await client.send(get(), None)
    assert response.head.fields.pairs[:4] == (("X-a", "1"), ("Set-Cookie", "a"), ("x-B", "2"), ("Set-Cookie", "b"))
    assert response.head.reason == "Fine"
    assert await read(response) == b"hi"


async def test_redirects_and_encodings_are_passed_untouched(stub, make_client) -> None:
    stub.answers(
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/blob\r\n"
        b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nraw"
    )
    client = await make_client(stub.url)
    response = await client.send(get(), None)
    assert response.head.status == 302
    assert await read(response) == b"raw"


async def test_a_refused_connection_is_unreachable_and_unsent(make_client) -> None:
    client = await make_client("http://127.0.0.1:1")
    with pytest.raises(UpstreamError) as caught:
        await client.send(get(), None)
    assert (caught.value.kind, caught.value.sent) == ("unreachable", False)


async def test_an_upstream_that_never_answers_times_out(stub, make_client) -> None:
    async def silence(_, reader: asyncio.StreamReader, __) -> None:
        await reader.read()

    stub.script = silence
    client = await make_client(stub.url, connect=0.05, head=0.05, idle=0.05)
    with pytest.raises(UpstreamError) as caught:
        await client.send(get(), None)
    assert (caught.value.kind, caught.value.sent) == ("timeout", True)


@pytest.mark.parametrize(
    ("pieces", "kind"),
    [
        ((b"garbage\r\n\r\n",), "broken"),
        ((b"",), "broken"),
        ((b"HTTP/1.1 200 OK\r\nContent-",), "broken"),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",), "broken"),
        ((b"HTTP/1.1 200 OK\r\nX: " + b"a" * 300_000 + b"\r\n\r\n",), "head-too-large"),
    ],
    ids=["not HTTP", "closed at once", "closed mid-head", "two lengths", "huge field"],
)
async def test_an_unusable_head_is_broken(stub, make_client, pieces: tuple[bytes, ...], kind: str) -> None:
    async def script(_, __, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
        writer.close()

    stub.script = script
    client = await make_client(stub.url)
    with pytest.raises(UpstreamError) as caught:
        await client.send(get(method="POST"), None)
    assert caught.value.kind == kind


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npartial",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\npartial\r\n",
    ],
    ids=["Content-Length", "chunked"],
)
async def test_a_body_that_breaks_off_is_never_complete(stub, make_client, head: bytes) -> None:
    async def script(_, __, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        writer.close()

    stub.script = script
    client = await make_client(stub.url)
    response = await client.send(get(), None)
    with pytest.raises(UpstreamError) as caught:
        await read(response)
    assert caught.value.kind == "broken"
    await response.release()


async def test_controller_md_4_second_status_line_in_a_chunked_body_is_broken(stub, make_client) -> None:
    stub.answers(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"HTTP/1.1 500 Internal Server Error\r\n\r\n"
    )
    client = await make_client(stub.url)
    with pytest.raises(UpstreamError):
        await read(await client.send(get(), None))
    stub.answers_json(b'{"fine":1}')
    assert await read(await client.send(get(), None)) == b'{"fine":1}', "the pool is not poisoned"


@pytest.mark.parametrize(
    "rest",
    [b"zz\r\n", b"\r\nzz\r\n", b"\r\nHTTP/1.1 500 Internal Server Error\r\n\r\n"],
    ids=["no chunk end", "not hex", "controller.md-4"],
)
async def test_a_bad_chunk_in_the_middle_is_broken_at_once(stub, make_client, rest: bytes) -> None:
    go_on = asyncio.Event()

    async def script(_, __, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\npartial")
        await go_on.wait()
        writer.write(rest)

    stub.script = script
    client = await make_client(stub.url, idle=30.0)
    response = await client.send(get(), None)
    chunks = response.chunks()
    assert await anext(chunks) == b"partial"
    go_on.set()
    with pytest.raises(UpstreamError) as caught:
        await asyncio.wait_for(anext(chunks), 5)
    assert caught.value.kind == "broken"
    await response.release()


async def test_an_upload_streams_and_its_slow_client_is_not_the_controllers_fault(stub, make_client) -> None:
    client = await make_client(stub.url, connect=0.2, head=0.2)
    release = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield b"first "
        await asyncio.wait_for(release.wait(), 5)
        yield b"second"

    asyncio.get_running_loop().call_later(0.7, release.set)  # longer than every deadline of the controller's
    response = await client.send(get("/upload", method="POST"), slowly())
    await read(response)
    assert stub.received[0].body == b"first second"


async def test_an_upstream_that_never_reads_an_upload_times_out(make_client) -> None:
    async def never_read(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()
        await asyncio.Event().wait()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1 << 16)

    async with listening(never_read) as url:
        client = await make_client(url, connect=0.3, head=0.3)
        started = time.monotonic()
        with pytest.raises(UpstreamError) as caught:
            await client.send(get("/upload", method="POST"), endless())
        assert caught.value.kind == "timeout"
        assert time.monotonic() - started < 5


async def test_a_lost_put_is_not_resent_with_half_its_body(stub, make_client) -> None:
    """A body already begun must not be sent from its middle."""
    client = await make_client(stub.url)
    await read(await client.send(get(), None))

    async def hang_up(_, __, writer: asyncio.StreamWriter) -> None:
        writer.close()

    stub.script = hang_up

    async def body() -> AsyncIterator[bytes]:
        yield b"once"

    with pytest.raises(UpstreamError) as caught:
        await client.send(get("/x", ("Content-Length", "4"), method="PUT"), body())
    assert caught.value.kind == "broken"
    assert [request.line.split()[0] for request in stub.received] == ["GET", "PUT"]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "POST", "PATCH"])
async def test_the_client_itself_sends_nothing_twice(stub, make_client, method: str) -> None:
    """aiohttp would: RFC 9110 §9.2.2 leaves it to us what to repeat, and `balancer.py` does that."""
    client = await make_client(stub.url)
    await read(await client.send(get(), None))

    async def hang_up(_, __, writer: asyncio.StreamWriter) -> None:
        writer.close()

    stub.script = hang_up
    with pytest.raises(LostRequestError):
        await client.send(get(method=method), None)
    assert [request.line.split()[0] for request in stub.received] == ["GET", method]


async def test_a_new_connection_that_ends_is_not_taken_for_a_kept_one(stub, make_client) -> None:
    async def hang_up(_, __, writer: asyncio.StreamWriter) -> None:
        writer.close()

    stub.script = hang_up
    client = await make_client(stub.url)
    with pytest.raises(UpstreamError) as caught:
        await client.send(get(), None)
    assert not isinstance(caught.value, LostRequestError)


async def test_a_kept_connection_that_ends_mid_head_is_not_lost_but_broken(stub, make_client) -> None:
    client = await make_client(stub.url)
    await read(await client.send(get(), None))

    async def half(_, __, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200")
        writer.close()

    stub.script = half
    with pytest.raises(UpstreamError) as caught:
        await client.send(get(), None)
    assert not isinstance(caught.value, LostRequestError)


async def test_no_kept_connection_is_used_after_one_was_lost(stub, make_client) -> None:
    client = await make_client(stub.url)
    both = await asyncio.gather(client.send(get(), None), client.send(get(), None))
    for response in both:
        await read(response)
    assert stub.connections == 2
    client.distrust()
    await read(await client.send(get(), None))
    assert stub.connections == 3
    await read(await client.send(get(), None))
    assert stub.connections == 3, "the new one is trusted"


async def test_a_post_is_not_sent_on_a_connection_with_something_unread(stub, make_client) -> None:
    """What can be read between two requests is the end of the connection: a request that must not be repeated waits
    for no such race."""

    async def script(request, __, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    stub.script = script
    client = await make_client(stub.url)
    await read(await client.send(get(), None))
    for transport in stub.serving.values():
        connection = transport.get_extra_info("socket")
        # Past the server's transport, and without a round of the loop, in which the client would see it.
        with socket.socket(fileno=os.dup(connection.fileno())) as peer:
            peer.shutdown(socket.SHUT_WR)
    assert await read(await client.send(get(method="POST"), None)) == b"ok"
    assert stub.connections == 2
    assert [request.line.split()[0] for request in stub.received] == ["GET", "POST"]


@pytest.mark.parametrize(
    ("limit", "response", "kind"),
    [
        (Sizes(head=1024), b"HTTP/1.1 200 OK\r\nX: " + b"a" * 2000 + b"\r\n\r\n", "head-too-large"),
        (Sizes(head=1024), b"HTTP/1.1 200 " + b"a" * 2000 + b"\r\n\r\n", "head-too-large"),
        (Sizes(head=1024), b"HTTP/1.1 200 OK\r\n" + b"X: aaaa\r\n" * 200 + b"\r\n", "head-too-large"),
        (Sizes(head=1024), b"HTTP/1.1 200 OK\r\n" + b"X: aaaa\r\n" * 200, "head-too-large"),
        (Sizes(body=4), b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "body-too-large"),
        (Sizes(body=4), b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "body-too-large"),
    ],
    ids=["one field", "reason phrase", "many fields", "many fields without end", "announced", "in chunks"],
)
async def test_sizes(stub, make_client, limit: Sizes, response: bytes, kind: str) -> None:
    stub.answers(response)
    client = await make_client(stub.url, sizes=limit)
    with pytest.raises(UpstreamError) as caught:
        await read(await client.send(get(), None))
    assert caught.value.kind == kind


async def test_what_is_just_within_the_sizes_passes(stub, make_client) -> None:
    stub.answers(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 900 + b"\r\nContent-Length: 5\r\n\r\nhello")
    client = await make_client(stub.url, sizes=Sizes(head=1024, body=5))
    assert await read(await client.send(get(), None)) == b"hello"


async def test_a_head_response_has_no_body_to_be_too_large(stub, make_client) -> None:
    stub.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")
    client = await make_client(stub.url, sizes=Sizes(body=5))
    assert (await client.send(get(method="HEAD"), None)).head.status == 200


async def test_the_clients_faulty_content_is_the_clients_fault(stub, make_client) -> None:
    client = await make_client(stub.url)

    async def broken() -> AsyncIterator[bytes]:
        yield b"a"
        raise ContentError(Denial(Reason.BAD_REQUEST, "broke off"))

    with pytest.raises(ContentError):
        await client.send(get("/x", method="POST"), broken())
    await asyncio.wait_for(stub.closed.wait(), 2)
    assert all(b"0\r\n\r\n" not in request.body for request in stub.received), "never completed"


async def test_cancelling_closes_the_connection(stub, make_client) -> None:
    async def silence(_, reader: asyncio.StreamReader, __) -> None:
        assert await reader.read() == b""

    stub.script = silence
    client = await make_client(stub.url)
    task = asyncio.create_task(client.send(get(), None))
    while not stub.received:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(stub.closed.wait(), 2)
