"""Whole answers against aiohttp's parser: what is read without it is what it would have made of the same bytes."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from aiohttp.helpers import TimerNoop

from gateway.upstream.connections import HeadTooLargeError, Kept
from gateway.upstream.whole import Whole, read

LARGEST = 4096
READING: dict[str, Any] = {
    "timer": TimerNoop(),
    "read_until_eof": True,
    "auto_decompress": False,
    "max_line_size": LARGEST,
    "max_field_size": LARGEST,
    "max_headers": LARGEST,
}
OK = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Thu, 26 Nov 2026 12:00:00 GMT\r\nContent-Type: application/json\r\n"
    b'Content-Length: 2\r\nConnection: keep-alive\r\nETag: "a-b"\r\n\r\n{}'
)


class Wire(asyncio.Transport):
    """A transport that goes nowhere."""

    closed = False

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def connection(*, whole: bool) -> Kept:
    """One that waits for an answer, to be read as a whole where that may be, or only by aiohttp's parser."""
    kept = Kept(asyncio.get_running_loop(), LARGEST)
    kept.connection_made(Wire())
    ask(kept, whole=whole)
    return kept


def ask(kept: Kept, *, whole: bool) -> None:
    """Have it wait for an answer."""
    if whole:
        kept.expect(READING)
    else:
        kept.set_response_params(**READING)


async def said(kept: Kept) -> list[object]:
    """All that was read by a connection, and what is to become of it."""
    found: list[object] = []
    while len(kept):
        answer: Any = await kept.read()
        if isinstance(answer, Whole):
            head = answer.head
            pairs = tuple((name.encode(), value.encode()) for name, value in head.fields.pairs)
            found.append((head.status, head.reason, pairs, answer.in_hand(), True))
        else:
            message, content = answer
            body = b"" if content.total_bytes == 0 else content.read_nowait()
            fault = None if content.exception() is None else type(content.exception())
            found.append((message.code, message.reason, message.raw_headers, body, content.is_eof()))
            if fault is not None:
                found.append(fault)
    found.append(None if kept.exception() is None else type(kept.exception()))
    return [*found, kept.should_close, kept.is_lost]


async def both(pieces: Iterable[bytes]) -> tuple[list[object], list[object]]:
    """What comes of an answer with and without reading it as a whole."""
    given = tuple(pieces)
    seen = []
    for whole in (True, False):
        kept = connection(whole=whole)
        for piece in given:
            kept.data_received(piece)
        seen.append(await said(kept))
    return seen[0], seen[1]


def answer(*lines: bytes, body: bytes = b"ok", status: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"\r\n".join((status, *lines, b"", body))


LENGTH = b"Content-Length: 2"
READ = {
    "ok": OK,
    "no content": answer(b"Content-Length: 0", body=b""),
    "small letters": answer(b"content-length: 2", b"x-a: b"),
    "capitals": answer(b"CONTENT-LENGTH: 2"),
    "empty value": answer(b"X-Empty: ", LENGTH),
    "tab and blanks in a value": answer(b"X-A: b\tc  d", LENGTH),
    "colons in a value": answer(b"Location: https://a:1/b?c=d", LENGTH),
    "the same field twice": answer(b"Set-Cookie: a=b", b"Set-Cookie: c=d", LENGTH),
    "a length named in a value": answer(b"Access-Control-Expose-Headers: Content-Length: 5", LENGTH),
    "coded content": answer(b"Content-Encoding: gzip", LENGTH),
    "keep-alive": answer(b"connection: Keep-Alive", b"Keep-Alive: timeout=5", LENGTH),
    "line ends in the content": answer(b"Content-Length: 8", body=b"\r\n\r\n\r\n\r\n"),
    "an answer in the content": answer(b"Content-Length: %d" % len(OK), body=OK),
    "a long line": answer(b"X-A: " + b"a" * 2000, LENGTH),
    "reason of several words": answer(LENGTH, status=b"HTTP/1.1 404 Not Found (yet)"),
    "599": answer(LENGTH, status=b"HTTP/1.1 599 Odd"),
}
NOT_READ = {
    "nothing": b"",
    "RFC9112-6.3 no length": answer(b"X-A: b"),
    "RFC9112-6.3 two lengths": answer(LENGTH, b"Content-Length: 3"),
    "RFC9112-6.3 the same length twice": answer(LENGTH, LENGTH),
    "RFC9112-6.3 two lengths, two spellings": answer(LENGTH, b"content-length: 2"),
    "RFC9112-6.3 a list of lengths": answer(b"Content-Length: 2, 2"),
    "RFC9112-6.3 length and chunked": answer(LENGTH, b"Transfer-Encoding: chunked"),
    "RFC9112-6.3 chunked": answer(b"Transfer-Encoding: chunked", body=b"2\r\nok\r\n0\r\n\r\n"),
    "RFC9112-6.3 204": answer(LENGTH, status=b"HTTP/1.1 204 No Content"),
    "RFC9112-6.3 304": answer(LENGTH, status=b"HTTP/1.1 304 Not Modified"),
    "RFC9110-15.2 interim": answer(LENGTH, status=b"HTTP/1.1 100 Continue"),
    "RFC9110-15.2.2 switching": answer(LENGTH, status=b"HTTP/1.1 101 Switching Protocols"),
    "RFC9110-7.8 upgrade": answer(LENGTH, b"Upgrade: h2c"),
    "RFC9110-6.6.2 trailer": answer(LENGTH, b"Trailer: X-A"),
    "RFC9112-9.6 close": answer(LENGTH, b"Connection: close"),
    "RFC9112-9.6 close among others": answer(LENGTH, b"Connection: keep-alive, close"),
    "proxy-connection": answer(LENGTH, b"Proxy-Connection: close"),
    "old websocket": answer(LENGTH, b"Sec-WebSocket-Key1: a"),
    "too short": answer(b"Content-Length: 3"),
    "RFC9112-9.2 a byte too many": answer(b"Content-Length: 1"),
    "RFC9112-9.2 two answers": answer(LENGTH) + answer(LENGTH),
    "length with a sign": answer(b"Content-Length: +2"),
    "length with a zero before": answer(b"Content-Length: 02"),
    "length with a blank behind": answer(b"Content-Length: 2 "),
    "length without a blank": answer(b"Content-Length:2"),
    "length of eleven digits": answer(b"Content-Length: 20000000000"),
    "length in hexadecimal": answer(b"Content-Length: 0x2"),
    "empty length": answer(b"Content-Length: ", body=b""),
    "RFC9112-5.2 folded": answer(b"X-A: b", b" c", LENGTH),
    "RFC9112-5.2 folded length": answer(b"Content-Length: 2", b" 3"),
    "RFC9112-5.1 blank before the colon": answer(b"X-A : b", LENGTH),
    "RFC9112-2.2 bare CR": answer(b"X-A: b\rc", LENGTH),
    "RFC9112-2.2 bare LF": answer(b"X-A: b\nContent-Length: 2"),
    "RFC9112-2.2 empty line before": b"\r\n" + OK,
    "no colon": answer(b"X-A", LENGTH),
    "no name": answer(b": b", LENGTH),
    "underscore": answer(b"X_A: b", LENGTH),
    "NUL": answer(b"X-A: b\0c", LENGTH),
    "beyond ASCII": answer(b"X-A: caf\xc3\xa9", LENGTH),
    "http/1.0": answer(LENGTH, status=b"HTTP/1.0 200 OK"),
    "http/1.2": answer(LENGTH, status=b"HTTP/1.2 200 OK"),
    "no reason": answer(LENGTH, status=b"HTTP/1.1 200"),
    "empty reason": answer(LENGTH, status=b"HTTP/1.1 200 "),
    "blanks before the reason": answer(LENGTH, status=b"HTTP/1.1 200  OK"),
    "a status line too long": answer(LENGTH, status=b"HTTP/1.1 200 " + b"a" * 300),
    "status 600": answer(LENGTH, status=b"HTTP/1.1 600 Odd"),
    "status of four digits": answer(LENGTH, status=b"HTTP/1.1 2000 OK"),
    "head larger than allowed": answer(b"X-A: " + b"a" * LARGEST, LENGTH),
    "no end of the head": OK[: OK.index(b"\r\n\r\n") + 2],
}


@pytest.mark.parametrize("data", READ.values(), ids=READ)
async def test_what_is_read_is_what_the_parser_makes_of_it(data: bytes) -> None:
    assert read(data, LARGEST) is not None
    ours, theirs = await both([data])
    assert ours == theirs
    assert ours[-3:] == [None, False, False]


@pytest.mark.parametrize("data", NOT_READ.values(), ids=NOT_READ)
async def test_whatever_says_more_goes_to_the_parser(data: bytes) -> None:
    assert read(data, LARGEST) is None
    ours, theirs = await both([data])
    assert ours == theirs


def spoiled() -> Iterator[bytes]:
    """An answer with each byte another one, doubled, or left out."""
    for at in range(len(OK)):
        yield OK[:at] + OK[at + 1 :]
        yield OK[: at + 1] + OK[at:]
        for byte in range(256):
            yield b"%b%c%b" % (OK[:at], byte, OK[at + 1 :])


async def test_no_byte_at_any_place_makes_it_more_lenient_than_the_parser() -> None:
    await hold_to_the_parser(spoiled(), at_least=5000)


def composed() -> Iterator[bytes]:
    """Lines of all sorts beside each other: what one says may change what another means."""
    lines = [b"", b"X-A: b", b"X-A: ", b"X-A:b", b" x", b"\tx", b"X-A: b\r", b"X-A: b\0", LENGTH, b"content-length: 3"]
    lines += [
        b"Content-Length : 2",
        b"Content-Length: 2;",
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: identity",
    ]
    lines += [b"Connection: close", b"Connection: keep-alive", b"Connection: upgrade", b"Upgrade: x", b"X-A\r\n: b"]
    statuses = (b"HTTP/1.1 200 OK", b"HTTP/1.1 304 No", b"HTTP/1.1 103 Early", b"HTTP/1.0 200 OK", b"HTTP/1.1 200")
    for status, body in itertools.product(statuses, (b"ok", b"", b"2\r\nok\r\n0\r\n\r\n", b"okHTTP/1.1 200 OK\r\n")):
        for some in itertools.product(lines, repeat=2):
            yield answer(*some, LENGTH, body=body, status=status)
            yield answer(*some, body=body, status=status)


async def test_no_two_lines_together_make_it_more_lenient_than_the_parser() -> None:
    await hold_to_the_parser(composed(), at_least=16)


async def hold_to_the_parser(answers: Iterable[bytes], *, at_least: int) -> None:
    count = 0
    for data in answers:
        if read(data, LARGEST) is None:
            continue  # it goes to the parser, as it came
        count += 1
        ours, theirs = await both([data])
        assert ours == theirs, data
        assert ours[-3:] == [None, False, False], data
    assert count >= at_least


@pytest.mark.parametrize("data", {**READ, **NOT_READ}.values(), ids={**READ, **NOT_READ})
async def test_an_answer_in_two_segments_is_the_parsers(data: bytes) -> None:
    places = range(1, len(data)) if len(data) < 400 else range(1, len(data), 97)
    for at in places:
        ours, theirs = await both([data[:at], data[at:]])
        if read(data[:at], LARGEST) is None:
            assert ours == theirs, at
        else:  # what comes behind it is nobody's
            assert (ours[0], ours[-2]) == (theirs[0], True)


# -- the connection


async def test_what_comes_behind_a_whole_answer_ends_the_connection() -> None:
    """It would pass for the answer to the next request (RFC 9112 §9.2)."""
    for stray in (b"\r\n", b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n", b"H"):
        kept = connection(whole=True)
        kept.data_received(OK)
        await kept.read()
        assert not kept.should_close
        kept.data_received(stray)
        assert kept.should_close


async def test_what_comes_before_the_request_goes_to_the_parser() -> None:
    seen = []
    for whole in (True, False):
        kept = Kept(asyncio.get_running_loop(), LARGEST)
        kept.connection_made(Wire())
        kept.data_received(OK[:20])
        ask(kept, whole=whole)
        kept.data_received(OK[20:])
        kept.data_received(OK)
        seen.append(await said(kept))
    assert seen[0] == seen[1]


@pytest.mark.parametrize("before", [OK, OK[:40], b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"])
async def test_one_that_ends_before_the_next_answer_was_lost(before: bytes) -> None:
    """Whoever read the answer before it, or had begun to."""
    seen = []
    for whole in (True, False):
        kept = connection(whole=whole)
        kept.data_received(before)
        found = await said(kept)
        if len(found) > 3:
            ask(kept, whole=whole)
            assert kept.is_lost
        kept.connection_lost(None)
        seen.append([*found, *(await said(kept))])
    assert seen[0] == seen[1]
    assert seen[0][-3] is not None


async def test_a_head_too_large_is_told_however_it_comes() -> None:
    for pieces in ((b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * LARGEST,), (b"HTTP/1.1 200 OK\r\nX-A: ", b"a" * LARGEST)):
        ours, theirs = await both(pieces)
        assert ours == theirs
        assert HeadTooLargeError in ours or ours[-3] is not None


async def test_any_ways_of_reading_take_turns_on_one_connection() -> None:
    """Each leaves it as the next one needs it."""
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    for order in itertools.product((OK, chunked, b"HTTP/1.1 304 No\r\nContent-Length: 9\r\n\r\n"), repeat=4):
        kept = connection(whole=True)
        for number, data in enumerate(order):
            if number:
                kept.expect(READING)
            kept.data_received(data)
            (found, *rest) = await said(kept)
            assert isinstance(found, tuple)
            assert found[3] == {OK: b"{}", chunked: b"ok"}.get(data, b"")
            assert rest == [None, False, False]
