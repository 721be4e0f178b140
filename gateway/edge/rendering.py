"""Replies as bytes, exactly as the ordinary lane and aiohttp together would write them (tests/edge/test_lanes.py).

What does not change between two answers, the fields of a stored page, is rendered once and kept beside them. A reply
that this module would have to think about is not rendered: the ordinary lane writes it.
"""

from __future__ import annotations

from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

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

    def render(self, reply: Reply, method: str, rate: tuple[Pair, ...], request_id: str, now: float) -> bytes | None:
        """The whole answer to a request over HTTP/1.1 on a connection that goes on.

        Args:
            reply: what to answer; its body must be bytes or None.
            method: GET or HEAD.
            rate: the rate-limit fields, which stand behind the reply's own.
            request_id: for an answer that has none.
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
            more = _rate_lines(rate) if rate else ""
        except ValueError:
            return None
        if isinstance(body, bytes):
            if bodiless or names & _FRAMING:
                return None
            length = f"Content-Length: {len(body)}\r\n"
        elif body is None and (bodiless or method == "HEAD"):
            # The length of what GET would have brought stands among the fields; without one only aiohttp decides.
            if ("content-length" in names) is bodiless or names & _FRAMING - {"content-length"}:
                return None
            length = ""
        else:
            return None
        identity = "" if "x-vcap-request-id" in names else f"{REQUEST_ID}: {request_id}\r\n"
        date = b"" if "date" in names else self._dated(now)
        content = body if isinstance(body, bytes) and method != "HEAD" else b""
        return b"".join((line, text, f"{more}{identity}{length}".encode(), date, b"\r\n", content))

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


def _rate_lines(pairs: tuple[Pair, ...]) -> str:
    """The rate-limit fields of nearly every answer in one go: they are other ones each time.

    Raises:
        ValueError: a value cannot stand in a line.
    """
    if len(pairs) != _RATE_FIELDS:
        return _text(pairs)
    (a, av), (b, bv), (c, cv), (d, dv), (e, ev) = pairs
    text = f"{a}: {av}\r\n{b}: {bv}\r\n{c}: {cv}\r\n{d}: {dv}\r\n{e}: {ev}\r\n"
    if text.count("\n") != _RATE_FIELDS or text.count("\r") != _RATE_FIELDS:
        raise ValueError("a line break in a field")
    return text


_RATE_FIELDS: Final = 5


def _lines(pairs: Iterable[Pair]) -> bytes:
    return _text(pairs).encode()


def _text(pairs: Iterable[Pair]) -> str:
    lines = [f"{name}: {value}\r\n" for name, value in pairs]
    text = "".join(lines)
    if text.count("\n") != len(lines) or text.count("\r") != len(lines):
        raise ValueError("a line break in a field")
    return text
