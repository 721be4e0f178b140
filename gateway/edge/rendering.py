"""Replies as bytes, exactly as the ordinary lane and aiohttp together would write them (tests/edge/test_lanes.py).

What does not change between two answers, the fields of a stored page, is rendered once and kept beside them. A reply
that this module would have to think about is not rendered: the ordinary lane writes it.
"""

from __future__ import annotations

from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from gateway.core.by_name import ByName
from gateway.pipeline.words import Words

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.core.model import Fields, Pair
    from gateway.pipeline.exchange import Reply

REQUEST_ID: Final = "X-VCAP-Request-ID"
# What aiohttp would look at, remove or be moved by. Date and an id of the origin's own stand as they are.
_FRAMING: Final = frozenset({"content-length", "transfer-encoding", "connection"})
_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}
_STATUS_LINES: Final = {status: f"HTTP/1.1 {status} {phrase}\r\n".encode() for status, phrase in _PHRASES.items()}
_BODILESS: Final = frozenset({204, 304})


class Renderer:
    """Writes the answers of one process; remembers the date of the second, and what many answers begin with."""

    __slots__ = ("_begun", "_date", "_ends", "_second")

    def __init__(self) -> None:
        self._second = -1
        self._date = b""
        self._ends: Final[dict[tuple[int, bool], bytes]] = {}
        self._begun: Final[dict[tuple[int, bytes], bytes]] = {}

    def words(self, reply: Reply, method: str, now: float) -> Words | None:
        """The head of the answer to a request over HTTP/1.1 on a connection that goes on.

        Args:
            reply: what to answer; its body must be bytes or None.
            method: GET or HEAD.
            now: epoch seconds.

        Returns:
            None when only the ordinary lane can write it.
        """
        line = _STATUS_LINES.get(reply.status)
        if line is None or reply.status < 200 or reply.reason not in (None, _PHRASES[reply.status]):
            return None
        body, bodiless = reply.body, reply.status in _BODILESS
        try:
            text, own, names = _rendered(reply.fields)
        except ValueError:
            return None
        if isinstance(body, bytes):
            if bodiless or names & _FRAMING:
                return None
            length = len(body)
        elif body is None and (bodiless or method == "HEAD"):
            # The length of what GET would have brought stands among the fields; without one only aiohttp decides.
            if ("content-length" in names) is bodiless or names & _FRAMING - {"content-length"}:
                return None
            length = -1
        else:
            return None
        dated = "date" not in names
        before = self._begun.get((reply.status, text)) or self._begin(reply.status, line, text)
        after = self.end(length, now, dated=dated)
        return Words(before, own, after, names="x-vcap-request-id" not in names, length=length, dated=dated, pen=self)

    def end(self, length: int, now: float, *, dated: bool) -> bytes:
        """The end of a head, as `pipeline.words.Pen`; the same bytes for all that have it in this second."""
        second = int(now)
        if second != self._second:
            self._second, self._date = second, f"Date: {formatdate(second, usegmt=True)}\r\n".encode()
            self._ends.clear()
        ends = self._ends
        end = ends.get((length, dated))
        if end is None:
            if len(ends) >= _REMEMBERED:
                ends.clear()
            said = b"" if length < 0 else b"Content-Length: %d\r\n" % length
            end = ends[length, dated] = b"%b%b\r\n" % (said, self._date if dated else b"")
        return end

    def _begin(self, status: int, line: bytes, text: bytes) -> bytes:
        if len(self._begun) >= _REMEMBERED:
            self._begun.clear()
        before = line + text
        if len(text) <= _LONGEST:
            self._begun[status, text] = before
        return before


def _rendered(fields: Fields) -> tuple[bytes, bytes, frozenset[str]]:
    """Fields as lines, those first that they grew from, and the special names among them.

    Raises:
        ValueError: a value cannot stand in a line.
    """
    stem = fields.stem
    if stem is None:
        return b"", _lines(fields.pairs), _special(fields.pairs)
    while stem.stem is not None:
        stem = stem.stem
    if stem.rendered is None:
        stem.rendered = _shared((_lines(stem.pairs), _special(stem.pairs)))
    text, names = stem.rendered
    added = fields.pairs[len(stem.pairs) :]
    special = _special(added)
    return text, _lines(added), names | special if special else names


def _special(pairs: Iterable[Pair]) -> frozenset[str]:
    return frozenset(filter(None, [_SPECIAL_NAME[name] for name, _ in pairs]))


def _shared(rendered: tuple[bytes, frozenset[str]]) -> tuple[bytes, frozenset[str]]:
    """The same for all pages that have the same fields, of which there are few sorts."""
    if len(rendered[0]) > _LONGEST:
        return rendered
    if len(_SORTS) >= _REMEMBERED:
        _SORTS.clear()
    return _SORTS.setdefault(rendered, rendered)


_REMEMBERED, _LONGEST = 1024, 2048  # beginnings of answers, and bytes of one: 4 MB at most
_SORTS: Final[dict[tuple[bytes, frozenset[str]], tuple[bytes, frozenset[str]]]] = {}
_SPECIAL: Final = _FRAMING | {"date", "x-vcap-request-id"}
_SPECIAL_NAME: Final = ByName(lambda lower: lower if lower in _SPECIAL else "")


def written(words: Words, rate: str, request_id: str, content: bytes) -> bytes:
    """A whole answer.

    Args:
        words: its head.
        rate: its rate-limit fields, as lines.
        request_id: the id to name in it.
        content: its body, empty for none.
    """
    more = f"{rate}{REQUEST_ID}: {request_id}\r\n" if words.names else rate
    return b"".join((words.before, words.own, words.middle, words.rest, more.encode(), words.after, content))


def _lines(pairs: Iterable[Pair]) -> bytes:
    lines = [f"{name}: {value}\r\n" for name, value in pairs]
    text = "".join(lines)
    if text.count("\n") != len(lines) or text.count("\r") != len(lines):
        raise ValueError("a line break in a field")
    return text.encode()
