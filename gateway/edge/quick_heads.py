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
# How many lines, field blocks, tokens and refused heads are remembered, and how long a remembered one may be; how many
# heads are, `Held` says. Clients choose all of them, so the worst that they can fill is bounded: about 40 MB in all,
# beside what stands for stored pages.
_LINES, _LONGEST_LINE = 4096, 512
_BLOCKS, _LONGEST_BLOCK = 512, 2048
_VALUES, _LONGEST_VALUE, _TAIL = 1024, 2048, 64
_REFUSED: Final = 512


T = TypeVar("T")


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

    __slots__ = ("address", "after", "before", "heads", "last", "reader", "scheme", "usual")

    def __init__(self, address: str, scheme: str) -> None:
        self.address: Final = address
        self.scheme: Final = scheme
        self.heads: QuickHeads | None = None  # who compares the next head with the usual one; None for nobody
        self.reader: QuickHeads | None = None  # who read the usual head,
        self.before = self.after = b""  # its bytes before and behind the value of its id,
        self.usual: Seen = _UNSEEN  # and what it was known as
        self.last: Seen = _UNSEEN  # what the last head was known as

    def head(self, identity: str) -> RequestHead:
        """The head that was read last, with its canonical target.

        Args:
            identity: the id that the client gave it, "" for none.
        """
        _, _, ((method, target), block, _), (token, _) = self.last
        return RequestHead(method, target, block.fields(token, identity), self.address, self.scheme)


class _Block:
    """The fields of heads that differ in the values of the token and the id alone."""

    __slots__ = ("id_at", "id_name", "index", "manners", "pairs", "tag", "token_at")

    def __init__(self, pairs: list[Pair], token_at: int, id_at: int, number: int = 0) -> None:
        self.pairs: Final = pairs
        self.index: Final = {name.lower(): [value] for name, value in pairs}
        self.token_at: Final = token_at
        self.id_at: Final = id_at
        self.id_name: Final = pairs[id_at][0].lower() if id_at >= 0 else ""
        self.tag: Final = b"\n%x" % number  # behind a request line it names a head; no line has such a byte
        self.manners: Final[dict[object, Manner]] = {}

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
_NO_BLOCK: Final = _Block([], -1, -1)
_NOTHING: Final = Known(Held())
_Asked: TypeAlias = tuple[str, Target]
_Read: TypeAlias = tuple[_Asked, _Block, Known]
_Credentials: TypeAlias = tuple[str, str | None]  # the value of Authorization, and the token in it
_NO_TOKEN: Final[_Credentials] = ("", None)
_NO_VALUE: Final[tuple[bytes, _Credentials]] = (b"", _NO_TOKEN)
# A head less its id: what is known of it, the token in it, and what both were read from.
Seen: TypeAlias = tuple[Known, str | None, _Read, _Credentials]
_UNSEEN: Final[Seen] = (_NOTHING, None, (("GET", _ROOT), _NO_BLOCK, _NOTHING), _NO_TOKEN)


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
        self._young_blocks: Final = self._blocks.young
        self._tokens: Final[_Memo[tuple[bytes, _Credentials]]] = _Memo(_VALUES, _TAIL)
        self._young_tokens: Final = self._tokens.young
        # What a refused head has on the side of its id where the usual one differs; and on the other side, the same.
        self._refused: Final[dict[bytes, tuple[bytes, Seen]]] = {}
        self._numbers: Final = count(1)
        self._held: Final = Held()
        self._known: Final[dict[bytes, _Read]] = self._held.heads

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
        before, after = caller.before, caller.after
        if caller.heads is not self:
            return self._read(data, caller)
        if not data.startswith(before) or not data.endswith(after):
            return self._refused_before(data, caller) or self._read(data, caller)
        # Nearly always the usual head of this connection, but for its id.
        identity = data[len(before) : -len(after)]
        if 0 < len(identity) <= _LONGEST_ID and not identity.translate(None, _ID) and len(data) <= self._longest:
            caller.last = caller.usual
            return identity
        return self._read(data, caller)

    def refused(self, data: bytes, identity: bytes, caller: Caller) -> None:
        """Expect a head again whose token was refused, and the usual one of its connection behind it.

        Args:
            data: the segment that was read last,
            identity: the id in it,
            caller: and whose it is.
        """
        if caller.reader is not self:
            return
        caller.heads = self
        before, after = caller.before, caller.after
        if data.endswith(after):
            start = data[: len(data) - len(after) - len(identity)]
            if identity and start.endswith(_IDS):  # so the id that was read is the value that ends here
                self._expect(start, after, caller.last)
        elif data.startswith(before) and identity:
            self._expect(data[len(before) + len(identity) :], before, caller.last)

    def _expect(self, side: bytes, other: bytes, seen: Seen) -> None:
        if len(self._refused) >= _REFUSED:
            self._refused.clear()
        if len(side) <= _LONGEST_LINE + _LONGEST_BLOCK:
            self._refused[side] = (other, seen)

    def _refused_before(self, data: bytes, caller: Caller) -> bytes | None:
        """Know a head by what `refused` was told, on a connection whose usual one has the same bytes on one side."""
        side = caller.after
        if data.endswith(side):
            stop = len(data) - len(side)
            begin = data.rfind(b" ", 0, stop) + 1
            known = self._refused.get(data[:begin])
        else:
            side = caller.before
            begin = len(side)
            stop = data.find(b"\r", begin)
            known = self._refused.get(data[stop:]) if data.startswith(side) else None
        if known is None or known[0] != side or len(data) > self._longest:
            return None
        identity = data[begin:stop]
        if not 0 < len(identity) <= _LONGEST_ID or identity.translate(None, _ID):
            return None
        caller.last = known[1]
        return identity

    def _read(self, data: bytes, caller: Caller) -> bytes | None:
        line_to = data.find(b"\r\n")
        if line_to < 0 or len(data) > self._longest:
            return None
        token_at, token_to = _value(data, _TOKENS, line_to, len(data))
        # Looking through a token for something else costs more than all of the rest.
        id_at, id_to = _value(data, _IDS, token_to or line_to, len(data))
        if not id_at and token_at:
            id_at, id_to = _value(data, _IDS, line_to, token_at)
        # The values that are cut out hold no line end, so the rest is a whole head when the segment is one.
        if 0 < token_at < id_at:
            rest = data[line_to:token_at] + data[token_to:id_at] + data[id_to:]
        else:
            rest = _without(data, line_to, (id_at, id_to), (token_at, token_to))
        block = self._young_blocks.get(rest) or self._blocks.get(rest) or self._block(rest)
        line = data[:line_to]
        read = None if block is None else self._known.get(line + block.tag) or self._learn(line, rest, block)
        if read is None:
            return None
        identity = data[id_at:id_to]
        credentials: _Credentials | None = _NO_TOKEN
        if token_at:
            # By its end, because making a hash of all of it takes longer than all other steps; then by all of it.
            tail = data[token_to - _TAIL : token_to]
            known = self._young_tokens.get(tail) or self._tokens.get(tail) or _NO_VALUE
            same = len(known[0]) == token_to - token_at and data.startswith(known[0], token_at)
            credentials = known[1] if same else self._token(data[token_at:token_to], tail)
        if credentials is None or (id_at and not _is_id(identity)):
            return None
        caller.heads = None
        last = caller.last
        if read is not last[2] or credentials is not last[3]:
            caller.last = (read[2], credentials[1], read, credentials)
        elif id_at:  # the second time in a row, so probably not the last
            caller.before, caller.after, caller.usual = data[:id_at], data[id_to:], last
            caller.heads = caller.reader = self
        return identity

    def _token(self, value: bytes, tail: bytes) -> _Credentials | None:
        """Read the value of an Authorization field: as text, and the token in it as `bearer.extract` takes it.

        The same text each time: its hash is worked out but once.
        """
        if not _is_token(value):
            return None
        text = value.decode("ascii")
        credentials = text, text[7:]
        if len(value) <= _LONGEST_VALUE:
            self._tokens.remember(tail, (value, credentials))
        return credentials

    def _learn(self, line: bytes, rest: bytes, block: _Block) -> _Read | None:
        """Know of another head from now on."""
        asked = self._lines.get(line) or self._line(line)
        if asked is None:
            return None
        known = Known(self._held, block.manners)
        read = asked, block, known
        if len(line) <= _LONGEST_LINE and len(rest) <= _LONGEST_BLOCK:
            self._held.enter(line + block.tag, known, read)
        return read

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

    def _block(self, rest: bytes) -> _Block | None:
        """Read field lines, in which the values of token and id are empty."""
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
        block = _Block(pairs, token_at, id_at, next(self._numbers))
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


def _without(data: bytes, start: int, *values: tuple[int, int]) -> bytes:
    """What stands from here on, less these values; those from 0 to 0 are none."""
    parts: list[bytes] = []
    for begin, end in sorted(values):
        if end:
            parts.append(data[start:begin])
            start = end
    return b"".join((*parts, data[start:]))


def _is_id(value: bytes) -> bool:
    """Whether this is an id that is forwarded as it came."""
    return 0 < len(value) <= _LONGEST_ID and not value.translate(None, _ID)


def _is_token(value: bytes) -> bool:
    """Whether an Authorization field is the usual one: a bearer token of the compact form's characters."""
    return value[:7] in (b"bearer ", b"Bearer ") and len(value) > 7 and not value[7:].translate(None, _COMPACT)
