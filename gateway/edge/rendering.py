"""Replies as bytes, exactly as the ordinary lane and aiohttp together would write them (tests/edge/test_lanes.py).

What does not change between two answers, the fields of a stored page, is rendered once and kept beside them. A reply
that this module would have to think about is not rendered: the ordinary lane writes it.
"""

from __future__ import annotations

from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from gateway.pipeline.words import Words

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.core.model import Fields, Pair
    from gateway.pipeline.exchange import Reply

REQUEST_ID: Final = "X-VCAP-Request-ID"
# What aiohttp would look at, remove or be moved by. Date and an id of the origin's own stand as they are.
_FRAMING: Final = frozenset({"content-length", "transfer-encoding", "connection"})
_STATUS_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_BODILESS: Final = frozenset({204, 304})
_NOTHING: Final[frozenset[str]] = frozenset()


class Renderer:
    """Writes the answers of one process; remembers the date of the second."""

    __slots__ = ("_date", "_second")

    def __init__(self) -> None:
        self._second = -1
        self._date = b""

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
        if line is None or reply.status < 200 or reply.reason is not None:
            return None
        body, bodiless = reply.body, reply.status in _BODILESS
        try:
            text, names = _rendered(reply.fields)
        except ValueError:
            return None
        if isinstance(body, bytes):
            if bodiless or names & _FRAMING:
                return None
            length = b"Content-Length: %d\r\n" % len(body)
        elif body is None and (bodiless or method == "HEAD"):
            # The length of what GET would have brought stands among the fields; without one only aiohttp decides.
            if ("content-length" in names) is bodiless or names & _FRAMING - {"content-length"}:
                return None
            length = b""
        else:
            return None
        date = b"" if "date" in names else self._dated(now)
        return Words(line + text, b"%b%b\r\n" % (length, date), names="x-vcap-request-id" not in names)

    def _dated(self, now: float) -> bytes:
        second = int(now)
        if second != self._second:
            self._second, self._date = second, f"Date: {formatdate(second, usegmt=True)}\r\n".encode()
        return self._date


def _rendered(fields: Fields) -> tuple[bytes, frozenset[str]]:
    """Fields as lines, and the special names among them; what they grew from is rendered but once.

    Raises:
        ValueError: a value cannot stand in a line.
    """
    if fields.rendered is not None:
        return fields.rendered
    stem = fields.stem
    if stem is not None:
        text, names = _rendered(stem)
        added = fields.pairs[len(stem.pairs) :]
        special = {name.lower() for name, _ in added} & _SPECIAL
        fields.rendered = (text + _lines(added), names | special if special else names)
        return fields.rendered
    names = frozenset(name.lower() for name, _ in fields.pairs) & _SPECIAL
    fields.rendered = (_lines(fields.pairs), names)
    return fields.rendered


_SPECIAL: Final = _FRAMING | {"date", "x-vcap-request-id"}


def written(words: Words, rate: str, request_id: str, content: bytes) -> bytes:
    """A whole answer.

    Args:
        words: its head.
        rate: its rate-limit fields, as lines.
        request_id: the id to name in it.
        content: its body, empty for none.
    """
    more = f"{rate}{REQUEST_ID}: {request_id}\r\n" if words.names else rate
    return b"".join((words.before, more.encode(), words.after, content))


def _lines(pairs: Iterable[Pair]) -> bytes:
    lines = [f"{name}: {value}\r\n" for name, value in pairs]
    text = "".join(lines)
    if text.count("\n") != len(lines) or text.count("\r") != len(lines):
        raise ValueError("a line break in a field")
    return text.encode()
