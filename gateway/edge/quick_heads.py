"""Reads the heads that nearly every request has, and no others: strict, and quick for what was read before.

The law: what is read here is what aiohttp and `receive` would have made of the same bytes, field by field; whatever
either might refuse, repair or be told by (framing, upgrades, expectations, duplicates, unusual bytes) is None, and goes
to the ordinary lane. Lines that were read before are known by their exact bytes, less the two values that differ with
every request or client: its id and its token. All that is remembered is bounded.
"""

from __future__ import annotations

import re
import sys
from itertools import count
from typing import TYPE_CHECKING, Final, Generic, TypeAlias, TypeVar

from gateway.core.errors import Denial
from gateway.core.model import Fields, RequestHead, Target
from gateway.edge.receive import asked_for, canonical
from gateway.pipeline.known import Held, Known

if TYPE_CHECKING:
    from gateway.core.model import Pair
    from gateway.edge.receive import Limits
    from gateway.pipeline.standing import Manner

_END: Final = b"\r\n\r\n"
# Narrower than `core/target.py` takes as it is: nothing that aiohttp's parser could think about either.
_LINE: Final = re.compile(
    rb"(GET|HEAD) (/|(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+)(\?[!$-;=?-\[\]_a-z~]*)? HTTP/1\.1",
)
_FIELD: Final = re.compile(rb"([A-Za-z][A-Za-z0-9-]*): ?((?:[!-~](?:[\t -~]*[!-~])?)?)")
# Of these alone, as the id is forwarded (core/forwarding.py).
_ID: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_LONGEST_ID: Final = 255
_COMPACT: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."
# The fields whose values are left out of what is remembered, by the spellings that clients use.
_TOKENS: Final = (b"\r\nAuthorization: ", b"\r\nauthorization: ")
_IDS: Final = (b"\r\nX-Vcap-Request-Id: ", b"\r\nx-vcap-request-id: ", b"\r\nX-Request-Id: ", b"\r\nx-request-id: ")
_ORDINARY: Final = frozenset(
    {"connection", "content-length", "expect", "http2-settings", "keep-alive", "proxy-connection", "te", "trailer"}
    | {"transfer-encoding", "upgrade"}
)
_MOST_FIELDS: Final = 64
# How many lines, field blocks and tokens are remembered, and how long a remembered one may be; how many heads are,
# `Held` says. Clients choose all of them, so the worst that they can fill is bounded: about 40 MB in all, beside what
# stands for stored pages.
_LINES, _LONGEST_LINE = 4096, 512
_BLOCKS, _LONGEST_BLOCK = 512, 2048
_VALUES, _LONGEST_VALUE, _TAIL = 1024, 2048, 64


T = TypeVar("T")
_Parts: TypeAlias = tuple[bytes, bytes, bytes]


class _Memo(Generic[T]):
    """What was read before, by its exact bytes: two generations, so that a hit keeps no order and the bound holds.

    Attributes:
        young: the younger one, always the same dictionary: to be looked in first, without a call.
    """

    __slots__ = ("_entries", "_longest", "_old", "young")

    def __init__(self, entries: int, longest: int) -> None:
        self._entries: Final = entries
        self._longest: Final = longest
        self.young: Final[dict[bytes, T]] = {}
        self._old: dict[bytes, T] = {}

    def __len__(self) -> int:
        return len(self.young) + len(self._old)

    def get(self, key: bytes) -> T | None:
        found = self.young.get(key)
        if found is None and (found := self._old.pop(key, None)) is not None:
            self.remember(key, found)
        return found

    def remember(self, key: bytes, value: T) -> T:
        if len(key) <= self._longest:
            if len(self.young) >= self._entries:
                self._old = self.young.copy()
                self.young.clear()
            self.young[key] = value
        return value


class Caller:
    """A connection as its heads are read: who is on the other side, and the head that came last.

    Args:
        address: IP address of the TCP peer.
        scheme: "http" or "https", as the listener saw it.
    """

    __slots__ = ("address", "after", "before", "block", "last", "reader", "scheme", "usual")

    def __init__(self, address: str, scheme: str) -> None:
        self.address: Final = address
        self.scheme: Final = scheme
        self.reader: QuickHeads | None = None  # who read all of these; None before anybody did
        self.block: _Block = _NO_BLOCK  # the fields of the last head
        self.before = self.after = b""  # the usual head's bytes before and behind the value of its id,
        self.usual: Seen = _UNSEEN  # and what it was known as
        self.last: Seen = _UNSEEN  # what the last head was known as

    def read_by(self, reader: QuickHeads) -> None:
        """Somebody else reads heads from now on, who does not go by what another one read."""
        self.reader, self.before, self.block = reader, b"", _NO_BLOCK
        self.usual = self.last = _UNSEEN

    def head(self, identity: str) -> RequestHead:
        """The head that was read last, with its canonical target.

        Args:
            identity: the id that the client gave it, "" for none.
        """
        known, _, (token, _, _) = self.last
        (method, target), block = known.read
        return RequestHead(method, target, block.fields(token, identity), self.address, self.scheme)


class _Block:
    """The fields of heads that differ in the values of the token and the id alone.

    Args:
        pairs: the fields; these two values are empty.
        token_at: which of them is the token's, less than 0 for none,
        id_at: and which is the id's.
        number: no other block has it.
        parts: their bytes before the first of the two values, between them, and behind them; nothing is between where
            there is but one.
    """

    __slots__ = ("id_at", "id_first", "id_name", "index", "manners", "pairs", "parts", "tag", "token_at")

    def __init__(
        self, pairs: list[Pair], token_at: int, id_at: int, number: int = 0, parts: _Parts = (b"", b"", b"")
    ) -> None:
        self.pairs: Final = pairs
        self.index: Final = {name.lower(): [value] for name, value in pairs}
        self.token_at: Final = token_at
        self.id_at: Final = id_at
        self.id_first: Final = 0 <= id_at < token_at
        self.id_name: Final = pairs[id_at][0].lower() if id_at >= 0 else ""
        self.tag: Final = b"\n%x" % number  # behind a request line it names a head; no line has such a byte
        self.manners: Final[dict[object, Manner]] = {}
        self.parts: Final = parts

    def cut(self, data: bytes, line_to: int) -> tuple[int, int, int, int]:
        """Where the values of the token and the id begin and end in a head with these fields.

        Args:
            data: the head.
            line_to: where its request line ends.

        Returns:
            0 for each when the head has other fields, or these have no token; twice 0 for the id when they have none.
        """
        first, second, third = self.parts
        begin, end = line_to + len(first), len(data) - len(third)
        if self.token_at < 0 or data[line_to:begin] != first or data[end:] != third:
            return _UNCUT
        to = data.find(b"\r", begin)
        if not second:
            return (begin, end, 0, 0) if to == end else _UNCUT
        more = to + len(second)
        if data[to:more] != second or data.find(b"\r", more) != end:
            return _UNCUT
        return (more, end, begin, to) if self.id_first else (begin, to, more, end)

    def fields(self, token: str, identity: str) -> Fields:
        """The fields of a head with these two values; "" where the field is none of those that were cut out."""
        index = self.index.copy()
        if token:
            index["authorization"] = [token]
        if identity:
            index[self.id_name] = [identity]
        return Fields.indexed(index, lambda: self._pairs(token, identity))

    def _pairs(self, token: str, identity: str) -> tuple[Pair, ...]:
        pairs = self.pairs.copy()
        if token:
            pairs[self.token_at] = (pairs[self.token_at][0], token)
        if identity:
            pairs[self.id_at] = (pairs[self.id_at][0], identity)
        return tuple(pairs)


_ROOT: Final = Target("/")
_UNCUT: Final = (0, 0, 0, 0)
_NO_BLOCK: Final = _Block([], -1, -1)
_Asked: TypeAlias = tuple[str, Target]
_NOTHING: Final = Known(Held(), read=(("GET", _ROOT), _NO_BLOCK))
# The value of Authorization as text, the token in it, and that value as it came.
_Credentials: TypeAlias = tuple[str, str | None, bytes]
_NO_TOKEN: Final[_Credentials] = ("", None, b"")
# A head less its id: what is known of it, the token in it, and what that was read from.
Seen: TypeAlias = tuple[Known, str | None, _Credentials]
_UNSEEN: Final[Seen] = (_NOTHING, None, _NO_TOKEN)


class QuickHeads:
    """Reads request heads.

    Args:
        limits: what a request may measure.
        strict_api: whether targets are read as the Cloud Controller reads them.
        prefix: the path of the public URL, "" for none.
    """

    def __init__(self, limits: Limits, *, strict_api: bool, prefix: str) -> None:
        self._limits: Final = limits
        # Of the line, its target, all fields and each of them, none can then be too large.
        self._longest: Final = min(limits.max_line_bytes, limits.max_header_bytes)
        self._strict_api: Final = strict_api
        self._prefix: Final = prefix
        self._lines: Final[_Memo[_Asked]] = _Memo(_LINES, _LONGEST_LINE)
        self._blocks: Final[_Memo[_Block]] = _Memo(_BLOCKS, _LONGEST_BLOCK)
        self._tokens: Final[_Memo[_Credentials]] = _Memo(_VALUES, _TAIL)
        self._young_tokens: Final = self._tokens.young
        self._numbers: Final = count(1)
        self._held: Final = Held()
        self._known: Final = self._held.heads

    def forget(self) -> None:
        """Let nothing stand that others will not know of."""
        self._held.clear()

    def read(self, data: bytes, caller: Caller) -> bytes | None:
        """Read the head of a bodiless GET or HEAD.

        Args:
            data: a segment that begins where a request may begin.
            caller: whose it is; remembers what was read.

        Returns:
            The client's own id for it, empty for none; None unless the segment is one whole head, and an ordinary one.
        """
        if len(data) > self._longest:
            return None
        if caller.reader is not self:
            caller.read_by(self)
        before, after = caller.before, caller.after
        if before and data.startswith(before) and data.endswith(after):
            # Nearly always the usual head of this connection, but for its id.
            identity = data[len(before) : -len(after)]
            if 0 < len(identity) <= _LONGEST_ID and not identity.translate(None, _ID):
                caller.last = caller.usual
                return identity
        return self._read(data, caller)

    def _read(self, data: bytes, caller: Caller) -> bytes | None:
        # Mostly another line or token, with the fields of the head before.
        block, last = caller.block, caller.last
        line_to = data.find(b"\r")
        token_at, token_to, id_at, id_to = block.cut(data, line_to)
        known = self._known.get(data[:line_to] + block.tag) if token_at else None
        if known is None:
            found = self._find(data)
            if found is None:
                return None
            known, token_at, token_to, id_at, id_to = found
            caller.block = known.read[1]
        credentials = _NO_TOKEN
        if token_at:
            value, credentials = data[token_at:token_to], last[2]
            if value != credentials[2] and (credentials := self._credentials(value)) is _NO_TOKEN:
                return None
        identity = data[id_at:id_to]
        if id_at and (not 0 < len(identity) <= _LONGEST_ID or identity.translate(None, _ID)):
            return None
        if known is not last[0] or credentials is not last[2]:
            caller.last = (known, credentials[1], credentials)
        elif id_at and last is not caller.usual:  # the second time in a row, so probably not the last
            caller.before, caller.after, caller.usual = data[:id_at], data[id_to:], last
        return identity

    def _find(self, data: bytes) -> tuple[Known, int, int, int, int] | None:
        """What is known of a head, and where the values of its token and its id begin and end; twice 0 for none."""
        line_to = data.find(b"\r\n")
        if line_to < 0:
            return None
        token = _value(data, _TOKENS, line_to, len(data))
        # Looking through a token for something else costs more than all of the rest.
        identity = _value(data, _IDS, token[1] or line_to, len(data))
        if not identity[1] and token[1]:
            identity = _value(data, _IDS, line_to, token[0])
        # The values that are cut out hold no line end, so the rest is a whole head when the segment is one.
        parts = _without(data, line_to, identity, token)
        rest = b"".join(parts)
        block = self._blocks.get(rest) or self._block(rest, parts)
        line = data[:line_to]
        known = None if block is None else self._known.get(line + block.tag) or self._learn(line, rest, block)
        return None if known is None else (known, *token, *identity)

    def _credentials(self, value: bytes) -> _Credentials:
        """The value of an Authorization field as text, and the token in it as `bearer.extract` takes it.

        It is looked up by its end, because making a hash of all of it takes longer than all other steps, and then by
        all of it. The text is the same each time: its hash, too, is worked out but once.

        Returns:
            `_NO_TOKEN` for what is not of the usual form.
        """
        tail = value[-_TAIL:]
        known = self._young_tokens.get(tail) or self._tokens.get(tail)
        if known is not None and known[2] == value:
            return known
        if not _is_token(value):
            return _NO_TOKEN
        text = value.decode("ascii")
        credentials = text, text[7:], value
        return self._tokens.remember(tail, credentials) if len(value) <= _LONGEST_VALUE else credentials

    def _learn(self, line: bytes, rest: bytes, block: _Block) -> Known | None:
        """Know of another head from now on."""
        asked = self._lines.get(line) or self._line(line)
        if asked is None:
            return None
        known = Known(self._held, block.manners, (asked, block))
        if len(line) <= _LONGEST_LINE and len(rest) <= _LONGEST_BLOCK:
            self._held.enter(line + block.tag, known)
        return known

    def _line(self, line: bytes) -> _Asked | None:
        found = _LINE.fullmatch(line)
        if found is None:
            return None
        raw = (found[2] + (found[3] or b"")).decode("ascii")
        try:
            target = asked_for(raw, strict_api=self._strict_api, prefix=self._prefix)
        except Denial:
            return None
        target = Target(sys.intern(target.path), target.query)  # many targets have one path
        return self._lines.remember(line, (found[1].decode("ascii"), target))

    def _block(self, rest: bytes, parts: _Parts) -> _Block | None:
        """Read field lines, in which the values of token and id are empty: what is left between them."""
        pairs: list[Pair] = []
        token_at = id_at = -1
        for at, line in enumerate(rest[2:-4].split(b"\r\n")):
            found = _FIELD.fullmatch(line)
            if found is None:
                return None
            name, value = found[1].decode("ascii"), found[2].decode("ascii")
            lower = name.lower()
            if lower.startswith("sec-websocket"):
                return None
            if lower in _ORDINARY and not (lower == "connection" and value.lower() == "keep-alive"):
                return None
            if lower == "authorization":
                token_at = at
            elif lower in {"x-vcap-request-id", "x-request-id"}:
                if id_at >= 0 or value:
                    return None  # two ids, or one that would have to be cleaned
                id_at = at
            pairs.append((name, value))
        block = _Block(pairs, token_at, id_at, next(self._numbers), parts)
        if len(block.index) != len(pairs) or len(pairs) > _MOST_FIELDS or not rest.endswith(_END):
            return None
        try:
            canonical(RequestHead("GET", Target("/"), Fields(pairs)), self._limits, strict_api=self._strict_api)
        except Denial:
            return None
        return self._blocks.remember(rest, block)


def _value(data: bytes, spellings: tuple[bytes, ...], start: int, stop: int) -> tuple[int, int]:
    """Where the value of a field begins and ends; twice 0 when there is none of these spellings in this part."""
    for spelling in spellings:
        found = data.find(spelling, start, stop)
        if found >= 0:
            begin = found + len(spelling)
            end = data.find(b"\r", begin)  # a bare one, which is no end, is in none of the values that are taken
            return (begin, end) if end >= 0 else (0, 0)
    return 0, 0


def _without(data: bytes, start: int, one: tuple[int, int], other: tuple[int, int]) -> _Parts:
    """What stands from here on before, between and behind two values; a value from 0 to 0 is none."""
    if one > other:
        one, other = other, one
    if not one[1]:
        if not other[1]:
            return b"", b"", data[start:]
        return data[start : other[0]], b"", data[other[1] :]
    return data[start : one[0]], data[one[1] : other[0]], data[other[1] :]


def _is_token(value: bytes) -> bool:
    """Whether an Authorization field is the usual one: a bearer token of the compact form's characters."""
    return value[:7] in (b"bearer ", b"Bearer ") and len(value) > 7 and not value[7:].translate(None, _COMPACT)
