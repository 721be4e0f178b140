"""The PROXY protocol, versions 1 and 2: what a balancer says of the client before the client's first byte.

A reader of bytes that are there, without I/O: it says how many belong to the header, or how many must be there before
more can be said, and takes nothing that might be the client's. Whether the sender is to be believed is decided
elsewhere. The specification is HAProxy's (proxy-protocol.txt, 2020-03-05).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"  # §2.2
LARGEST: Final = 4096  # of a header of version 2; balancers add a few hundred bytes to the addresses

_V1: Final = b"PROXY "
_V1_LONGEST: Final = 107  # §2.1
_V1_LINE: Final = re.compile(
    rb"PROXY (?:(TCP4|TCP6) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) ([0-9]{1,5}) ([0-9]{1,5})|UNKNOWN(?: .*)?)\r\n"
)
_FIXED: Final = 16
_LOCAL, _PROXY = 0x20, 0x21
# Family and transport, to the lengths of both addresses and ports together; datagrams make no connections.
_UNSPECIFIED, _TCP4, _TCP6, _UNIX = 0x00, 0x11, 0x21, 0x31
_LENGTHS: Final = {_UNSPECIFIED: 0, _TCP4: 12, _TCP6: 36, _UNIX: 216}


class ProxyError(Exception):
    """What begins like a header is none; the connection cannot be understood."""


@dataclass(frozen=True, slots=True)
class Header:
    """A whole header.

    Attributes:
        length: how many bytes it takes.
        source: the client's IP address; None when the sender speaks for itself or does not know.
    """

    length: int
    source: str | None


def parse(data: bytes) -> Header | int | None:
    """Read the beginning of a connection.

    Args:
        data: all that has come so far, nothing taken away.

    Returns:
        The header; or how many bytes must be there before more can be said, always more than there are; or None when
        this is no header of either version.

    Raises:
        ProxyError: it is malformed.
    """
    if data[: len(SIGNATURE)] == SIGNATURE[: len(data)]:
        return _version_2(data)
    if data[: len(_V1)] == _V1[: len(data)]:
        return _version_1(data)
    return None


def _version_1(data: bytes) -> Header | int:
    end = data.find(b"\n", 0, _V1_LONGEST)
    if end < 0:
        if len(data) >= _V1_LONGEST:
            raise ProxyError("a header of version 1 without an end")
        return len(data) + 1
    line = data[: end + 1]
    found = _V1_LINE.fullmatch(line)
    if found is None:
        raise ProxyError("a malformed header of version 1")
    if found[1] is None:
        return Header(len(line), None)
    kind = IPv4Address if found[1] == b"TCP4" else IPv6Address
    try:
        source, _ = kind(found[2].decode()), kind(found[3].decode())
    except ValueError:
        raise ProxyError("a header of version 1 with an address that is none") from None
    if any(int(port) > 0xFFFF or (port[:1] == b"0" and port != b"0") for port in (found[4], found[5])):
        raise ProxyError("a header of version 1 with a port that is none")
    return Header(len(line), _plain(source))


def _version_2(data: bytes) -> Header | int:
    if len(data) < _FIXED:
        return _FIXED if len(data) >= len(SIGNATURE) else len(data) + 1
    command, family = data[12], data[13]
    length = int.from_bytes(data[14:16], "big")
    if command not in (_LOCAL, _PROXY):
        raise ProxyError("a header of another version than 1 and 2, or with an unknown command")
    if _FIXED + length > LARGEST:
        raise ProxyError("a header of version 2 that is too large")
    if command == _PROXY and (family not in _LENGTHS or length < _LENGTHS[family]):
        raise ProxyError("a header of version 2 with an unknown family or too few bytes")
    if len(data) < _FIXED + length:
        return _FIXED + length
    source: str | None = None
    if command == _PROXY and family == _TCP4:
        source = str(IPv4Address(data[16:20]))
    elif command == _PROXY and family == _TCP6:
        source = _plain(IPv6Address(data[16:32]))
    return Header(_FIXED + length, source)


def _plain(address: IPv4Address | IPv6Address) -> str:
    """One spelling for one client: an IPv4 address in IPv6's clothes is that IPv4 address."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)
