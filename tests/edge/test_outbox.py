"""Answers are sent together, and each before anything else on its connection."""

from __future__ import annotations

import asyncio

import pytest

from gateway.edge.outbox import Outbox
from tests.conftest import bearer

CACHED = "routes: [{match: GET /v3/processes, cache: {mode: policy, ttl: 1h, share: global}}]"


async def test_what_is_posted_in_a_round_is_sent_at_its_end_in_order() -> None:
    outbox, sent = Outbox(), list[tuple[str, bytes]]()
    for name in ("one", "other", "one"):
        outbox.post(lambda answer, name=name: sent.append((name, answer)), name.encode())
    assert sent == []
    await asyncio.sleep(0)
    assert sent == [("one", b"one"), ("other", b"other"), ("one", b"one")]
    assert outbox.posted == []


async def test_what_was_sent_before_the_end_of_the_round_is_not_sent_again() -> None:
    outbox, sent = Outbox(), list[bytes]()
    outbox.post(sent.append, b"first")
    outbox.send()
    outbox.post(sent.append, b"second")
    assert sent == [b"first"]
    for _ in range(3):
        await asyncio.sleep(0)
    assert sent == [b"first", b"second"]


async def test_what_cannot_be_written_keeps_nothing_from_the_others() -> None:
    outbox, sent, told = Outbox(), list[bytes](), list[object]()

    def broken(_: bytes) -> None:
        raise RuntimeError("the handler is closed")

    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
    for write in (sent.append, broken, sent.append):
        outbox.post(write, b"x")
    await asyncio.sleep(0)
    assert sent == [b"x", b"x"]
    assert [type(fault) for fault in told] == [RuntimeError]


HEAD = "GET /v3/processes HTTP/1.1\r\nHost: gateway\r\nAuthorization: {}\r\n\r\n"


ENDINGS = pytest.mark.parametrize(
    "ending",
    [
        lambda connection: connection.close(),
        lambda connection: connection.force_close(),
        lambda connection: connection.eof_received(),
        lambda connection: connection.close_idle(),
        lambda connection: connection.look(1e9, 1.0),
        lambda connection: connection.data_received(
            b"GET /v3/info HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n"
        ),
        lambda connection: asyncio.ensure_future(connection.shutdown(0.1)),
    ],
    ids=["close", "force_close", "eof", "close_idle", "look", "another request", "shutdown"],
)


@ENDINGS
async def test_an_answer_goes_before_whatever_ends_its_connection(stub, start_gateway, ending) -> None:
    """Both in one round of the event loop, as when the drain begins just then."""
    gateway = await start_gateway(stub.url, CACHED)
    host, port = gateway.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = HEAD.format(bearer()["Authorization"]).encode()
    for _ in range(2):
        writer.write(head)
        assert b" 200 " in await _answer(reader)
    (connection,) = gateway._server.connections
    connection.data_received(head)
    assert len(connection._outbox.posted) == 1
    ending(connection)
    assert b";hit;" in await asyncio.wait_for(_answer(reader), 5)
    writer.close()


@ENDINGS
async def test_so_does_an_answer_of_the_controllers(stub, start_gateway, ending) -> None:
    """One that a task posts, not the connection's own reading."""
    gateway = await start_gateway(stub.url)
    stub.answers_json(b'{"resources":[]}')
    host, port = gateway.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    outbox, answers = gateway.outbox, list[bytes]()

    class Hasty:
        """Stands where the connection's outbox is; ends the connection as soon as its answer is posted."""

        send = outbox.send

        @property
        def posted(self) -> list:
            return outbox.posted

        def post(self, write, written: bytes) -> None:
            answers.append(written)
            outbox.post(write, written)
            ending(connection)

    while not gateway._server.connections:
        await asyncio.sleep(0)
    (connection,) = gateway._server.connections
    connection._outbox = Hasty()
    writer.write(HEAD.format(bearer()["Authorization"]).encode())
    assert await asyncio.wait_for(_answer(reader), 5) == answers[0]
    writer.close()


async def _answer(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return head + await reader.readexactly(length)
