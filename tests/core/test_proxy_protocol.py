"""PROXY headers: the specification's grammar, each byte of it, and that nothing of the client's is ever taken."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.proxy_protocol import LARGEST, SIGNATURE, Header, ProxyError, parse

V4 = bytes([192, 0, 2, 7, 198, 51, 100, 1]) + (4711).to_bytes(2, "big") + (443).to_bytes(2, "big")
V6 = ipaddress.ip_address("2001:db8::7").packed + ipaddress.ip_address("2001:db8::1").packed + bytes(4)
MAPPED = ipaddress.ip_address("::ffff:192.0.2.7").packed + bytes(20)


def v2(command: int, family: int, payload: bytes, length: int | None = None) -> bytes:
    size = len(payload) if length is None else length
    return SIGNATURE + bytes([command, family]) + size.to_bytes(2, "big") + payload


WHOLE = [
    pytest.param(b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n", "192.0.2.7", id="v1 TCP4"),
    pytest.param(b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n", "2001:db8::7", id="v1 TCP6"),
    pytest.param(b"PROXY TCP6 ::ffff:192.0.2.7 ::1 1 2\r\n", "192.0.2.7", id="v1 mapped"),
    pytest.param(b"PROXY UNKNOWN\r\n", None, id="v1 UNKNOWN"),
    pytest.param(b"PROXY UNKNOWN ffff:f::1 ffff::2 65535 65535\r\n", None, id="v1 UNKNOWN with more"),
    pytest.param(v2(0x21, 0x11, V4), "192.0.2.7", id="v2 TCP4"),
    pytest.param(v2(0x21, 0x21, V6), "2001:db8::7", id="v2 TCP6"),
    pytest.param(v2(0x21, 0x21, MAPPED), "192.0.2.7", id="v2 mapped"),
    pytest.param(v2(0x21, 0x11, V4 + b"\x04\x00\x01x"), "192.0.2.7", id="v2 with more"),
    pytest.param(v2(0x20, 0x00, b""), None, id="v2 LOCAL"),
    pytest.param(v2(0x20, 0x11, V4), None, id="v2 LOCAL with addresses"),
    pytest.param(v2(0x21, 0x00, b""), None, id="v2 unspecified"),
    pytest.param(v2(0x21, 0x31, bytes(216)), None, id="v2 unix"),
]


@pytest.mark.parametrize(("header", "source"), WHOLE)
def test_a_whole_header_says_where_it_ends(header: bytes, source: str | None) -> None:
    for rest in (b"", b"GET / HTTP/1.1\r\n", header):
        assert parse(header + rest) == Header(len(header), source)


@pytest.mark.parametrize(("header", "source"), WHOLE)
def test_cut_at_every_byte_it_asks_for_more_and_never_for_too_much(header: bytes, source: str | None) -> None:
    for length in range(len(header)):
        wanted = parse(header[:length])
        assert isinstance(wanted, int)
        assert length < wanted <= len(header)


@pytest.mark.parametrize(
    "data",
    [
        b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1  4711 443\r\n",
        b"PROXY TCP4 192.0.2.007 198.51.100.1 4711 443\r\n",
        b"PROXY TCP4 2001:db8::7 2001:db8::1 4711 443\r\n",
        b"PROXY TCP6 192.0.2.7 198.51.100.1 4711 443\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 65536 443\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 04711 443\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 -1 443\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 4711\r\n",
        b"PROXY TCP5 192.0.2.7 198.51.100.1 4711 443\r\n",
        b"PROXY \r\n",
        b"PROXY " + b"x" * 200,
        v2(0x11, 0x11, V4),
        v2(0x22, 0x11, V4),
        v2(0x21, 0x12, V4),
        v2(0x21, 0x41, V4),
        v2(0x21, 0x11, V4[:-1]),
        v2(0x21, 0x21, V4),
        v2(0x21, 0x11, b"", length=LARGEST),
    ],
    ids=[
        "v1 bare LF",
        "v1 two spaces",
        "v1 leading zero",
        "v1 other family",
        "v1 other family 6",
        "v1 port too large",
        "v1 port with zero",
        "v1 negative port",
        "v1 port missing",
        "v1 protocol",
        "v1 empty",
        "v1 endless",
        "v2 version",
        "v2 command",
        "v2 datagram",
        "v2 family",
        "v2 too short",
        "v2 too short for its family",
        "v2 too large",
    ],
)
def test_what_begins_like_a_header_and_is_none_is_an_error(data: bytes) -> None:
    with pytest.raises(ProxyError):
        parse(data)


@pytest.mark.parametrize(
    "data",
    [b"GET / HTTP/1.1\r\n", b"PUT /", b"POST", b"PATCH /v3", b"\x16\x03\x01", b"\r\nGET", b"PROXZ", b"proxy TCP4"],
)
def test_what_a_client_sends_is_no_header(data: bytes) -> None:
    assert parse(data) is None


@given(st.binary(max_size=600) | st.binary(max_size=40).map(SIGNATURE.__add__) | st.binary().map(b"PROXY ".__add__))
def test_whatever_comes_it_takes_no_more_than_there_is_and_asks_for_more_than_there_is(data: bytes) -> None:
    try:
        found = parse(data)
    except ProxyError:
        return
    if isinstance(found, Header):
        assert 0 < found.length <= len(data)
        assert found.source is None or ipaddress.ip_address(found.source)
        assert parse(data[: found.length]) == found
    elif found is not None:
        assert len(data) < found <= LARGEST


@given(st.binary(min_size=1, max_size=200), st.integers(1, 200))
def test_more_bytes_never_turn_a_no_into_a_yes(data: bytes, length: int) -> None:
    try:
        first = parse(data[:length])
    except ProxyError:
        return
    if first is None:
        assert parse(data) is None
