"""Whole answers: those of the ordinary form whose every byte came at once, read without a parser.

The law: what is read here is what aiohttp's parser would have made of the same bytes, and the connection then stands
between two messages. Whatever that parser might refuse, repair or be told by (framing other than one Content-Length, a
connection that ends, interim and bodiless answers, bytes behind the content, unusual ones in the head) is None, and
goes to it as it came (tests/upstream/test_whole.py). Lines that were read before are known by their bytes.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from gateway.core.model import Fields, ResponseHead

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.core.model import Pair
    from gateway.pipeline.ports import UpstreamError

_STATUS: Final = re.compile(rb"HTTP/1\.1 ([2-5][0-9]{2}) ([A-Za-z](?:[ -~]*[!-~])?)")
_FIELD: Final = re.compile(rb"([A-Za-z][A-Za-z0-9-]*): ((?:[!-~](?:[\t -~]*[!-~])?)?)")
_LENGTH: Final = b"\ncontent-length: "
_SIZE: Final = re.compile(rb"0|[1-9][0-9]{0,9}")
_BODILESS: Final = frozenset({204, 304})
# What says where an answer or its connection ends; `Connection: keep-alive` says nothing that HTTP/1.1 does not.
_FRAMING: Final = frozenset({"connection", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"})
_LONG: Final = 256  # bytes of a line that is remembered
_END: Final = b"\r\n\r\n"


class Whole:
    """An answer that has arrived as a whole; an `UpstreamResponse` that holds no connection.

    Args:
        head: status and fields.
        body: its content.

    Attributes:
        fault: that of an answer whose content fails, which this one's cannot.
    """

    __slots__ = ("_body", "head")

    fault: UpstreamError | None = None

    def __init__(self, head: ResponseHead, body: bytes) -> None:
        self.head = head
        self._body = body

    def __len__(self) -> int:
        return len(self._body)

    def in_hand(self) -> bytes:
        """The whole body; `chunks` has nothing then."""
        body, self._body = self._body, b""
        return body

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body in one piece."""
        if body := self.in_hand():
            yield body

    async def release(self) -> None:
        """Nothing is held."""


def read(data: bytes, max_head: int) -> Whole | None:
    """Read a whole answer to a request other than HEAD.

    Args:
        data: a segment that begins where an answer begins.
        max_head: bytes that its head may have.

    Returns:
        None unless the segment is one answer of the ordinary form from its first byte to its last.
    """
    end = data.find(_END, 0, max_head)
    if end < 0:
        return None
    head = data[:end]
    small = head.lower()
    if small.count(_LENGTH) != 1:
        return None
    at = small.find(_LENGTH) + len(_LENGTH)
    size = head[at:].partition(b"\r")[0]
    if _SIZE.fullmatch(size) is None or end + len(_END) + int(size) != len(data):
        return None
    lines = head.split(b"\r\n")
    status = _status(lines[0]) if len(lines[0]) <= _LONG else None
    if status is None:
        return None
    pairs: list[Pair] = []
    for line in lines[1:]:
        pair = _field(line) if len(line) <= _LONG else _field.__wrapped__(line)
        if pair is None:
            return None
        pairs.append(pair)
    return Whole(ResponseHead(status[0], Fields(pairs), status[1]), data[end + len(_END) :])


@lru_cache(maxsize=256)
def _status(line: bytes) -> tuple[int, str] | None:
    found = _STATUS.fullmatch(line)
    if found is None or int(found[1]) in _BODILESS:
        return None
    return int(found[1]), found[2].decode("ascii")


@lru_cache(maxsize=2048)
def _field(line: bytes) -> Pair | None:
    found = _FIELD.fullmatch(line)
    if found is None:
        return None
    name, value = found[1].decode("ascii"), found[2].decode("ascii")
    lower = name.lower()
    if lower.startswith("sec-websocket"):
        return None
    if lower in _FRAMING and not (lower == "connection" and value.lower() == "keep-alive"):
        return None
    return name, value
