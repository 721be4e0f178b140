"""The plain exchange against the session: every request and every answer goes by both, and must come to the same.

An answer is judged by what the caller sees of it, and by what becomes of the connection: whether a next request is
answered, with what, and over which connection.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

import aiohttp
import pytest
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest

from gateway.core.model import Fields, RequestHead, Target
from gateway.edge.outbox import Outbox
from gateway.pipeline.ports import UpstreamError
from gateway.upstream.bare import plain
from gateway.upstream.client import Client, LostRequestError, Response, Sizes, Timeouts
from tests.conftest import Stub, listening

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def get(target: str = "/v3/processes", *fields: tuple[str, str], method: str = "GET") -> RequestHead:
    path, mark, query = target.partition("?")
    given = fields if any(name.lower() == "host" for name, _ in fields) else (("Host", "api.example.org"), *fields)
    return RequestHead(method, Target(path, query if mark else None), Fields(given))


@dataclass
class Pair:
    """Two clients of a controller each, one of which sends all by the session."""

    clients: tuple[Client, Client]
    stubs: tuple[Stub, Stub]


@pytest.fixture(params=[False, True], ids=["at once", "posted"])
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    stubs = Stub(), Stub()
    async with listening(stubs[0].serve) as one, listening(stubs[1].serve) as other:
        clients = []
        for url in (one, other):
            post = Outbox().post if request.param else None
            client = Client(url, timeouts=Timeouts(5, 5, 5), connections=4, sizes=Sizes(head=4096, body=64), post=post)
            await client.start()
            clients.append(client)
        clients[1]._wire = None
        yield Pair((clients[0], clients[1]), stubs)
        for client in clients:
            await client.stop()
        for stub in stubs:
            await stub.hang_up()


# -- requests

REQUESTS = {
    "GET": get(),
    "HEAD": get(method="HEAD"),
    "OPTIONS": get(method="OPTIONS"),
    "query": get("/v3/processes?page=1&names=a%2Cb&x=%zz&y='()*;:@/?"),
    "odd characters": get('/v3/x[0]{a}|\\^`~"<>'),
    "escapes": get("/v3/%2e%2E/%2F?%3F=%23"),
    "dots and slashes": get("//v3/./x/../y//"),
    "field twice": get("/x", ("X-Twice", "1"), ("X-Twice", "2")),
    "empty value": get("/x", ("X-Empty", "")),
    "utf-8": get("/x", ("X-Name", "caf\u00e9")),
    "token": get("/x", ("Authorization", "bearer a.b.c"), ("Accept", "*/*"), ("Accept-Encoding", "identity")),
    "cookie": get("/x", ("Cookie", "a=b; c=d")),
    "agent": get("/x", ("User-Agent", "cf/8")),
    "conditional": get("/x", ("If-None-Match", '"a", W/"b"'), ("Range", "bytes=0-3")),
}
BY_THE_SESSION = {
    "POST": get(method="POST"),
    "DELETE": get(method="DELETE"),
    "TRACE": get(method="TRACE"),
    "method in small letters": get(method="get"),
    "no host": RequestHead("GET", Target("/x"), Fields((("Accept", "*/*"),))),
    "two hosts": get("/x", ("Host", "a"), ("host", "b")),
    "length": get("/x", ("Content-Length", "0")),
    "chunked": get("/x", ("Transfer-Encoding", "chunked")),
    "connection": get("/x", ("Connection", "close")),
    "expectation": get("/x", ("Expect", "100-continue")),
    "upgrade": get("/x", ("Upgrade", "h2c")),
    "target of two lines": get("/x HTTP/1.1\r\nX-A: b"),
    "target with a blank": get("/x y"),
    "target with a fragment": get("/x#y"),
    "target beyond ASCII": get("/caf\u00e9"),
    "empty query": get("/x?"),
    "not a path": get("*"),
    "line break in a value": get("/x", ("X-A", "b\r\nX-C: d")),
    "bare CR in a value": get("/x", ("X-A", "b\rc")),
    "bare LF in a value": get("/x", ("X-A", "b\nc")),
    "NUL in a value": get("/x", ("X-A", "b\0c")),
    "line break in a name": get("/x", ("X-A\r\nX-B", "c")),
    "what is not UTF-8": get("/x", ("X-A", "\udcff")),
}


@pytest.mark.parametrize("head", REQUESTS.values(), ids=REQUESTS)
async def test_both_send_the_same(pair: Pair, head: RequestHead) -> None:
    assert plain(head) is not None
    for client, stub in zip(pair.clients, pair.stubs, strict=True):
        stub.answers(OK[:-2] if head.method == "HEAD" else OK)
        await (await client.send(head, None)).release()
    ours, theirs = (stub.received[0] for stub in pair.stubs)
    assert ours.line == theirs.line
    assert sorted(ours.fields) == sorted(theirs.fields)
    assert ours.fields[0] == ("Host", "api.example.org")


@pytest.mark.parametrize("head", BY_THE_SESSION.values(), ids=BY_THE_SESSION)
def test_what_the_session_may_read_otherwise_it_sends(head: RequestHead) -> None:
    assert plain(head) is None


# -- answers

ANSWERS = {
    "length": (OK,),
    "no content": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",),
    "RFC9112-6.3 until close": (b"HTTP/1.1 200 OK\r\n\r\nuntil", b" the end", None),
    "RFC9112-6.3 204": (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",),
    "RFC9112-6.3 304": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",),
    "RFC9112-7.1 chunked": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",),
    "RFC9112-7.1.1 extensions": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nok\r\n0;c\r\n\r\n",),
    "RFC9112-7.1.2 trailers": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-T: 1\r\n\r\n",),
    "chunks in pieces": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"2\r",
        b"\no",
        b"k\r\n0",
        b"\r\n\r\n",
    ),
    "bad chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokXX0\r\n\r\n",),
    "negative chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\nok\r\n0\r\n\r\n",),
    "RFC9112-6.3 length and chunked": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ),
    "RFC9112-6.3 two lengths": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",),
    "RFC9112-6.3 the same length twice": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",),
    "length with a sign": (b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",),
    "length below zero": (b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",),
    "length of words": (b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok",),
    "unknown coding": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok", None),
    "RFC9110-15.2 100": (b"HTTP/1.1 100 Continue\r\n\r\n" + OK,),
    "RFC8297 103": (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\n\r\n", OK),
    "RFC9110-15.2.2 101": (b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nabc", None),
    "RFC9112-9.3 close": (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",),
    "http/1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",),
    "http/1.0 keep-alive": (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",),
    "http/2.0": (b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",),
    "no reason": (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok",),
    "empty reason": (b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok",),
    "status of four digits": (b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok",),
    "status 99": (b"HTTP/1.1 099 Low\r\nContent-Length: 2\r\n\r\nok",),
    "status 799": (b"HTTP/1.1 799 High\r\nContent-Length: 2\r\n\r\nok",),
    "RFC9112-5.2 folded": (b"HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\nContent-Length: 2\r\n\r\nok",),
    "RFC9112-5.1 blank before the colon": (b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok", None),
    "bare LF": (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", None),
    "NUL in a value": (b"HTTP/1.1 200 OK\r\nX-A: b\0c\r\nContent-Length: 2\r\n\r\nok", None),
    "cookies": (b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nset-cookie: c=d\r\nContent-Length: 2\r\n\r\nok",),
    "not UTF-8": (b"HTTP/1.1 200 \xff\r\nX-A: \xe9\r\nContent-Length: 2\r\n\r\nok",),
    "coded": (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nok",),
    "redirect": (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",),
    "asks for credentials": (b"HTTP/1.1 401 No\r\nWWW-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n",),
    "byte by byte": tuple(OK[at : at + 1] for at in range(len(OK))),
    "ends at once": (None,),
    "ends in its head": (b"HTTP/1.1 200 OK\r\nContent-", None),
    "ends in its content": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok", None),
    "ends in a chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nok", None),
    "ends before the last chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", None),
    "another protocol": (b"SSH-2.0-OpenSSH_9.2\r\n", None),
    "empty lines before": (b"\r\n\r\n" + OK,),
    "a byte too many": (OK + b"x",),
    "two answers": (OK + b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad",),
    "larger than allowed": (b"HTTP/1.1 200 OK\r\nContent-Length: 65\r\n\r\n" + b"x" * 65,),
    "larger than allowed, in chunks": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n41\r\n" + b"x" * 65 + b"\r\n0\r\n\r\n",
    ),
    "a head that is too large": (b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 5000 + b"\r\nContent-Length: 2\r\n\r\nok",),
    "many fields": (b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 300 + b"Content-Length: 2\r\n\r\nok",),
    "too many fields": (b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 600 + b"Content-Length: 2\r\n\r\nok",),
}


def scripted(stub: Stub, pieces: Sequence[bytes | None]) -> None:
    """Answer the first request with these pieces, None ends the connection; then with OK."""

    async def script(_: object, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces if len(stub.received) == 1 else (OK,):
            if piece is None:
                writer.close()
                return
            writer.write(piece)
            await writer.drain()
            if len(pieces) > 1:
                for _ in range(3):
                    await asyncio.sleep(0)

    stub.script = script


async def outcome(client: Client, head: RequestHead) -> object:
    try:
        async with asyncio.timeout(5):
            response = await client.send(head, None)
    except UpstreamError as error:
        return type(error).__name__, error.kind, error.sent
    said = response.head.status, response.head.reason, response.head.fields.pairs
    try:
        async with asyncio.timeout(5):
            body = b"".join([chunk async for chunk in response.chunks()])
    except UpstreamError as error:
        return *said, error.kind
    finally:
        await response.release()
    return *said, body


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("pieces", ANSWERS.values(), ids=ANSWERS)
async def test_both_read_the_same(pair: Pair, pieces: tuple[bytes | None, ...], method: str) -> None:
    seen = []
    for client, stub in zip(pair.clients, pair.stubs, strict=True):
        scripted(stub, pieces)
        first = await outcome(client, get(method=method))
        await asyncio.sleep(0.01)  # what comes behind an answer is read between two requests, by both
        second = await outcome(client, get("/next"))
        refused = "Error" in str(first[0])  # then it closes, while the session may have had all of it
        seen.append((first, second, refused or stub.connections))
    assert seen[0] == seen[1]
    assert seen[0][1][:2] == (200, "OK")
    assert b"bad" not in seen[0][1]


# -- what goes wrong


async def test_an_answer_that_nobody_asked_for_is_nobodys(pair: Pair) -> None:
    """It lies in a kept connection, whole, and must not become the answer to the next request (RFC 9112 §9.2)."""
    for client, stub in zip(pair.clients, pair.stubs, strict=True):
        stub.answers(OK)
        assert (await outcome(client, get()))[0] == 200
        (writer,) = stub.serving.values()
        writer.write(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        while not any(kept.should_close for kept, _ in next(iter(client._connector._conns.values()))):
            await asyncio.sleep(0)
        assert (await outcome(client, get()))[0] == 200
        assert stub.connections == 2


async def test_places_in_the_pool_come_back_however_an_exchange_ends(pair: Pair) -> None:
    client, stub = pair.clients[0], pair.stubs[0]
    silent = asyncio.Event()

    async def silence(_: object, reader: asyncio.StreamReader, __: object) -> None:
        silent.set()
        await reader.read()

    for _ in range(3 * 4):
        stub.script = silence
        silent.clear()
        task = asyncio.create_task(client.send(get(), None))
        await silent.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        stub.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nok")
        response = await client.send(get(), None)
        await response.release()
        del response
        await client.send(get(), None)  # forgotten
        stub.answers(OK)
        kept = await client.send(get(), None)
        async for _ in kept.chunks():
            pass
        await kept.release()
        await kept.release()
        assert not client._connector._acquired
    assert sum(len(kept) for kept in client._connector._conns.values()) <= 1


@pytest.mark.parametrize(
    ("timeouts", "until", "kind", "sent"),
    [
        pytest.param(Timeouts(5, 0.05, 0.05), 60, "timeout", True, id="head"),
        pytest.param(Timeouts(5, 5, 5), 0.05, "timeout", True, id="deadline"),
        pytest.param(Timeouts(5, 5, 5), -1, "timeout", True, id="deadline that has passed"),
    ],
)
async def test_both_give_up_alike(stub: Stub, timeouts: Timeouts, until: float, kind: str, sent: bool) -> None:
    async def silence(_: object, reader: asyncio.StreamReader, __: object) -> None:
        await reader.read()

    stub.script = silence
    for by_session in (False, True):
        client = Client(stub.url, timeouts=timeouts, connections=1)
        await client.start()
        if by_session:
            client._wire = None
        with pytest.raises(UpstreamError) as caught:
            await client.send(get(), None, deadline=asyncio.get_running_loop().time() + until)
        assert (caught.value.kind, caught.value.sent) == (kind, sent)
        assert not client._connector._acquired
        await client.stop()


async def test_both_wait_for_a_place_no_longer_than_they_may(stub: Stub) -> None:
    async def silence(_: object, reader: asyncio.StreamReader, __: object) -> None:
        await reader.read()

    stub.script = silence
    for by_session in (False, True):
        client = Client(stub.url, timeouts=Timeouts(0.05, 5, 5), connections=1)
        await client.start()
        if by_session:
            client._wire = None
        first = asyncio.create_task(client.send(get(), None))
        while not client._connector._acquired:
            await asyncio.sleep(0)
        with pytest.raises(UpstreamError) as caught:
            await client.send(get(), None)
        assert (caught.value.kind, caught.value.sent) == ("timeout", False)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await client.stop()


async def test_content_that_stalls_is_given_up_by_both(stub: Stub) -> None:
    stub.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nok")
    for by_session in (False, True):
        client = Client(stub.url, timeouts=Timeouts(5, 0.1, 0.1), connections=1)
        await client.start()
        if by_session:
            client._wire = None
        assert (await outcome(client, get()))[-1] == "timeout"
        assert not client._connector._acquired
        await client.stop()


async def test_a_client_that_was_stopped_sends_nothing_by_either(pair: Pair) -> None:
    for client, stub in zip(pair.clients, pair.stubs, strict=True):
        await client.stop()
        with pytest.raises(RuntimeError, match="closed"):
            await client.send(get(), None)
        assert stub.connections == 0


# -- what has arrived already


async def arrived(response: Response) -> bytes | None:
    """What is in hand once all that was written has been read."""
    for _ in range(50):
        await asyncio.sleep(0)
    return response.in_hand()


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(OK, id="length"),
        pytest.param(ANSWERS["RFC9112-7.1 chunked"][0], id="chunked"),
        pytest.param(ANSWERS["RFC9112-7.1.1 extensions"][0], id="extensions"),
    ],
)
async def test_a_whole_answer_is_in_hand_by_both(pair: Pair, answer: bytes) -> None:
    for client, stub in zip(pair.clients, pair.stubs, strict=True):
        stub.answers(answer)
        for _ in range(3):
            response = await client.send(get(), None)
            assert await arrived(response) == b"ok"
            assert [chunk async for chunk in response.chunks()] == []
            await response.release()
        assert stub.connections == 1, "and the connection is kept"


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param((b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok",), id="more to come"),
        pytest.param((b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok", None), id="ends in its content"),
        pytest.param(ANSWERS["ends before the last chunk"], id="ends before the last chunk"),
    ],
)
async def test_what_is_not_whole_is_never_in_hand(pair: Pair, pieces: tuple[bytes | None, ...]) -> None:
    for client, stub in zip(pair.clients, pair.stubs, strict=True):
        scripted(stub, pieces)
        response = await client.send(get(), None)
        await asyncio.sleep(0.01)
        assert await arrived(response) is None
        await response.release()


async def test_what_is_larger_than_allowed_is_not_in_hand(pair: Pair) -> None:
    for client, stub in zip(pair.clients, pair.stubs, strict=True):
        stub.answers(ANSWERS["larger than allowed, in chunks"][0])
        response = await client.send(get(), None)
        with pytest.raises(UpstreamError) as caught:
            await arrived(response)
        assert caught.value.kind == "body-too-large"
        await response.release()


# -- what of aiohttp it rests on


def test_the_parts_of_aiohttp_that_the_plain_exchange_uses_are_there() -> None:
    """Inner ones of its client; another name or meaning must not go unnoticed."""
    params = inspect.signature(ResponseHandler.set_response_params).parameters
    wanted = {"timer", "skip_payload", "read_until_eof", "auto_decompress", "read_timeout", "read_bufsize"}
    assert wanted | {"max_line_size", "max_field_size", "max_headers"} <= set(params)
    assert isinstance(ResponseHandler.read_timeout, property)
    assert isinstance(ResponseHandler.should_close, property)
    assert callable(ResponseHandler.start_timeout)
    assert list(inspect.signature(aiohttp.TCPConnector.connect).parameters) == ["self", "req", "traces", "timeout"]
    assert {"ssl", "server_hostname", "loop"} <= set(inspect.signature(ClientRequest.__init__).parameters)


# -- requests that are posted, and what may come between that and their writing


class Posted:
    """A client whose plain requests are posted, and what happens as soon as one is."""

    def __init__(self) -> None:
        self.outbox, self.then = Outbox(), list[Callable[[], object]]()
        self.count = 0

    def post(self, write: Callable[[bytes], object], written: bytes) -> None:
        self.count += 1
        self.outbox.post(write, written)
        if self.then:
            self.then.pop()()


@pytest.fixture
async def posted(stub: Stub) -> AsyncIterator[tuple[Client, Posted]]:
    post = Posted()
    client = Client(stub.url, timeouts=Timeouts(5, 5, 5), connections=4, post=post.post)
    await client.start()
    stub.answers(OK)
    await finish(await client.send(get("/warm"), None))
    yield client, post
    await client.stop()


async def finish(response: Response) -> None:
    assert b"".join([chunk async for chunk in response.chunks()]) == b"ok"
    await response.release()


async def test_requests_of_one_round_are_written_together(stub: Stub, posted: tuple[Client, Posted]) -> None:
    client, post = posted
    for response in await asyncio.gather(client.send(get("/1"), None), client.send(get("/2"), None)):
        await finish(response)  # two connections are open and kept now
    together = list[int]()
    post.then += [lambda: together.append(len(post.outbox.posted)) for _ in range(2)]
    for response in await asyncio.gather(client.send(get("/3"), None), client.send(get("/4"), None)):
        await finish(response)
    assert together == [1, 2]
    assert stub.connections == 2
    assert {request.line.split()[1] for request in stub.received} == {"/warm", "/1", "/2", "/3", "/4"}


async def test_who_leaves_once_it_is_posted_takes_the_connection_along(
    stub: Stub, posted: tuple[Client, Posted]
) -> None:
    client, post = posted
    asking = asyncio.ensure_future(client.send(get("/left"), None))
    post.then.append(asking.cancel)
    with pytest.raises(asyncio.CancelledError):
        await asking
    await finish(await client.send(get("/next"), None))
    assert stub.connections == 2
    assert stub.received[-1].line.split()[1] == "/next"


async def test_a_connection_that_ends_before_it_is_written_was_lost(stub: Stub, posted: tuple[Client, Posted]) -> None:
    """As when it ends just behind: the balancer may ask again."""
    client, post = posted

    def end() -> None:
        write = post.outbox.posted[-1][0]
        write.__self__.abort()

    post.then.append(end)
    with pytest.raises(LostRequestError):
        await client.send(get("/lost"), None)
    await finish(await client.send(get("/next"), None))
    assert [request.line.split()[1] for request in stub.received] == ["/warm", "/next"]


async def test_a_closed_pool_writes_nothing(stub: Stub, posted: tuple[Client, Posted]) -> None:
    client, post = posted
    stopping = list[asyncio.Task[None]]()
    post.then.append(lambda: stopping.append(asyncio.ensure_future(client.stop())))
    with pytest.raises(UpstreamError):
        await client.send(get("/late"), None)
    await asyncio.gather(*stopping)
    assert post.outbox.posted == []
