r"""Link rewriting: what the controller says about itself is made to point at the gateway, and nothing else is touched.

The law: a link is known by its place in the document, never by its looks (controller.md §5). `_DOCUMENT` below is the
complete map of these places. Every byte outside a rewritten URL prefix stays: escapes, whitespace, key order, number
spelling, duplicate keys. Keys are compared as a JSON parser reads them, so `"l\u0069nks"` is `links`.

One way defines the answer: a scan, token by token, which validates the whole of RFC 8259 with a stack of its own, so
that neither invalid nor deeply nested input can raise. It is too slow for the resources of a big page, so those are
delimited by msgspec and proven by counting (`link_proof.py`): if the links it decodes from a resource are as many as
the text has `"href`, then every `"href` in that text is a link, and text replacement over all such resources at once is
exact. A small document is proven so as a whole, before anything of it is scanned.

v2 bodies are left alone: their `next_url`, `prev_url` and `*_url` are relative to the target, and v2 clients append
them to it as text, so a path prefix in the public URL is theirs already.

Whoever must not be held up takes the work in steps (`Rewriter.steps`).

Nothing here knows HTTP; whether a body is to be rewritten at all is the route's business.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from itertools import chain, count, islice, repeat
from typing import TYPE_CHECKING, Final, TypeAlias

from gateway.core.link_proof import arrays, links_alone, links_only
from gateway.core.steps import finished

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    Steps: TypeAlias = Generator[None, None, bytes]
    _Piece: TypeAlias = tuple[bytes, bytes]  # of a text: as it stands there, and as it is to be


@dataclass(frozen=True, slots=True)
class _Node:
    """What a value at some place of the document may hold.

    Attributes:
        members: by key, for an object.
        any_member: for every other key of an object.
        elements: for an array.
        is_href: whether a string here is a link.
    """

    members: dict[str, _Node] = field(default_factory=dict)
    any_member: _Node | None = None
    elements: _Node | None = None
    is_href: bool = False


_USER_DATA: Final = _Node()
_HREF: Final = _Node(is_href=True)
_ONE_LINK: Final = _Node(members={"href": _HREF})
_LINK: Final = _Node(members={"href": _HREF}, elements=_ONE_LINK)
_LINKS: Final = _Node(any_member=_LINK)
_RESOURCE: Final = _Node(members={"links": _LINKS})
_RESOURCES: Final = _Node(elements=_RESOURCE)
_PAGINATION: Final = _Node(members=dict.fromkeys(("first", "last", "next", "previous"), _ONE_LINK))
_DOCUMENT: Final = _Node(
    members={
        "pagination": _PAGINATION,
        "links": _LINKS,
        "resources": _RESOURCES,
        "included": _Node(any_member=_RESOURCES),
    }
)


# Up to here it pays to look at the document as a whole before its resources are looked at one by one.
_SMALL: Final = 16 * 1024
# What is done in one step, in about half a millisecond: bytes searched, bytes of proven resources, values scanned, and
# such pieces of proven resources given back.
_SOUGHT: Final = 1024 * 1024
_RUN: Final = 96 * 1024
_DEARER: Final = 32  # a byte that is scanned
_TOKENS: Final = 256
_GIVEN_BACK: Final = 16
# The letters of "href" are U+0065 to U+0072: only with such an escape can a link's key be spelled otherwise.
_ESCAPED_LETTER: Final = re.compile(rb"\\u00[67]")
_LONGEST_ESCAPE: Final = 5

_SPACE: Final = rb"[ \t\n\r]*+"
_STRING: Final = rb'"((?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4}))*+)"'
_SCALAR: Final = rb"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?|true|false|null"
_VALUE: Final = re.compile(_SPACE + rb"(?:([{\[])|" + _STRING + rb"|" + _SCALAR + rb")")
_KEY: Final = re.compile(_SPACE + _STRING + _SPACE + rb":")
_NEXT: Final = re.compile(_SPACE + rb"([,}\]])")
_EMPTY: Final = {b"{": re.compile(_SPACE + rb"}"), b"[": re.compile(_SPACE + rb"\]")}
_CLOSER: Final = {b"{": b"}", b"[": b"]"}
_END: Final = re.compile(_SPACE + rb"\Z")

_HREF_MEMBER: Final = re.compile(rb'("href"' + _SPACE + rb":" + _SPACE + rb'")([^"\\]*+(?:\\.[^"\\]*+)*+)')
_UNIT: Final = re.compile(r"\\u[0-9A-Fa-f]{4}|\\.|[^\\]", re.DOTALL)
_LINK_VALUE: Final = re.compile(r'"(?:[^"\\]|\\.)*"|<([^<>]*)>')
_URL: Final = re.compile(r"https?://[^/?#\"\\\s]+(?:/[!#-\[\]-~]*)?")


class Rewriter:
    """Rewrites the controller's links to the gateway's public URL.

    A URL is the controller's if it is one of the origins, or goes on behind it with "/", "?" or "#"; bytes are compared
    exactly, since the controller prints them from its configuration.

    Args:
        origins: what the controller calls itself, e.g. "https://api.internal.example.org".
        public_url: what the gateway is called, possibly with a path prefix, e.g. "https://cf.example.org/api".

    Raises:
        ValueError: one of them is no http(s) URL.
    """

    __slots__ = ("_escaped", "_origins", "_plain", "_prefix", "_public", "_reach", "_replacement")

    def __init__(self, origins: Iterable[str], public_url: str) -> None:
        self._public: Final = _clean(public_url)
        self._origins: Final = tuple(sorted({_clean(origin) for origin in origins}, key=len, reverse=True))
        self._escaped: Final = self._public.replace("/", "\\/")
        self._prefix: Final = "".join(self._public.split("/", 3)[3:])
        self._reach: Final = max(map(len, self._origins), default=1) + 1
        # Text replacement cannot tell an origin from a longer one that begins with it.
        self._plain: Final = tuple(
            f'"href":"{origin}/'.encode()
            for origin in self._origins
            if not any(longer.startswith(f"{origin}/") for longer in self._origins)
        )
        self._replacement: Final = f'"href":"{self._public}/'.encode()

    def rewrite(self, body: bytes) -> bytes:
        """A JSON document with its links rewritten; relative hrefs become absolute under the public URL.

        Args:
            body: the document. Never raises: what is no JSON object in UTF-8 comes back as it is.

        Returns:
            The very same object when there was nothing to rewrite.
        """
        return finished(self.steps(body))

    def steps(self, body: bytes) -> Steps:
        """As `rewrite`, in steps; the longest, `arrays`, takes half a millisecond for each megabyte."""
        escapes = False
        for start in range(0, len(body), _SOUGHT):
            if start:
                yield
            escapes = escapes or _ESCAPED_LETTER.search(body, start, start + _SOUGHT + _LONGEST_ESCAPE) is not None
        if b'"href' not in body and not escapes:
            return body
        try:
            if not body.isascii():
                body.decode()
        except UnicodeDecodeError:
            return body
        links = None if escapes or len(body) > _SMALL else links_alone(body)
        if links is not None:
            changed = self._replace(body, links)
            return body if changed == body else changed
        known: list[list[_Piece]] = []
        yield
        found = arrays(body)
        while found:
            yield
            known.append((yield from self._resources(map(bytes, found.pop(0)), escapes=escapes)))
        changed = yield from _Scan(body, _DOCUMENT, self._href, known).steps()
        for pieces in known:  # giving back so much memory takes as long as getting it
            while pieces:
                yield
                del pieces[-_GIVEN_BACK:]
        return body if changed == body else changed

    def location(self, value: str) -> str:
        """A `Location` (or any single URL) rewritten; a relative one stays so and only gains the public path prefix."""
        cut = self._cut(value)
        if cut:
            return value if cut < 0 else self._public + value[cut:]
        return f"/{self._prefix}{value}" if self._prefix else value

    def link_field(self, value: str) -> str:
        """A `Link` field value (RFC 8288 §3) with each target rewritten as `location` does; parameters stay."""
        return _LINK_VALUE.sub(lambda found: found[0] if found[1] is None else f"<{self.location(found[1])}>", value)

    def _cut(self, url: str) -> int:
        """How many leading characters of `url` the public URL replaces: 0 for a relative one, -1 for not ours."""
        for origin in self._origins:
            if url.startswith(origin) and url[len(origin) : len(origin) + 1] in ("", "/", "?", "#"):
                return len(origin)
        return 0 if url.startswith("/") and not url.startswith("//") else -1

    def _href(self, content: bytes) -> bytes:
        """The content of a JSON string that is a link, rewritten in the spelling of slashes it came in."""
        text = content.decode()
        if "\\" not in text:
            cut = self._cut(text)
            return content if cut < 0 else (self._public + text[cut:]).encode()
        # A prefix is recognised by the character behind it.
        units = [unit[0] for unit in islice(_UNIT.finditer(text), self._reach)]
        cut = self._cut("".join(map(_character, units)))
        if cut < 0:
            return content
        length = sum(map(len, units[:cut]))
        public = self._escaped if "\\/" in text[: length or 2] else self._public
        return (public + text[length:]).encode()

    def _resources(self, texts: Iterable[bytes], *, escapes: bool) -> Generator[None, None, list[_Piece]]:
        """Resources with their links rewritten: in runs of proven ones at once, in the rest by scanning."""
        done: list[_Piece] = []
        run: list[bytes] = []
        links = size = 0
        for text in texts:
            found = None if escapes and _ESCAPED_LETTER.search(text) else links_only(text)
            if run and (found is None or size > _RUN):
                done.append(self._piece(run, links))
                run, links = [], 0
            if size > _RUN:
                size = 0
                yield
            if found is None:
                done.append((text, (yield from _Scan(text, _RESOURCE, self._href).steps())))
                size += _DEARER * len(text)
            else:
                run.append(text)
                links += found
                size += len(text) + 1
        if run:
            done.append(self._piece(run, links))
        return done

    def _piece(self, run: list[bytes], links: int) -> _Piece:
        text = b",".join(run)
        return text, self._replace(text, links)

    def _replace(self, text: bytes, links: int) -> bytes:
        """A text in which every `"href` is one of `links` links, rewritten."""
        for plain in self._plain:
            parts = text.split(plain)
            if len(parts) == links + 1:
                return self._replacement.join(parts)
        return _HREF_MEMBER.sub(lambda found: found[1] + self._href(found[2]), text)


class _NotJsonError(Exception):
    """The text is not what RFC 8259 calls JSON."""


class _Scan:
    """A walk over a JSON text along the map of link places, without recursion.

    Args:
        text: the JSON text, valid UTF-8.
        place: what the text as a whole is.
        href: rewrites the content of a link's string.
        arrays: the arrays of resources in document order, as far as known, each in pieces. One whose pieces, joined by
            commas, stand between brackets where resources are expected is that array: JSON reads one way.
    """

    __slots__ = (
        "_arrays",
        "_done",
        "_href",
        "_known",
        "_open",
        "_place",
        "_position",
        "_text",
        "_written",
    )

    def __init__(
        self,
        text: bytes,
        place: _Node,
        href: Callable[[bytes], bytes],
        arrays: Iterable[list[_Piece]] = (),
    ) -> None:
        self._text: Final = text
        self._place: Final = place
        self._href: Final = href
        self._arrays: Final = iter(arrays)
        self._known = next(self._arrays, None)
        self._position = 0
        self._open: Final[list[tuple[_Node, bytes]]] = []
        self._written = 0
        self._done: Final[list[bytes]] = []

    def run(self) -> bytes:
        """The text with its links rewritten; as it is when it is not JSON."""
        return finished(self.steps())

    def steps(self) -> Steps:
        """As `run`, in steps."""
        node = self._place
        try:
            for number in count(1):
                following = self._value(node) or self._following()
                if following is None:
                    break
                node = following
                if not number % _TOKENS:
                    yield
        except _NotJsonError:
            return self._text
        if len(self._text) > _RUN:
            yield
        return b"".join((*self._done, self._text[self._written :]))

    def _write(self, start: int, end: int, replacement: bytes) -> None:
        self._done.extend((self._text[self._written : start], replacement))
        self._written = end

    def _take(self, pattern: re.Pattern[bytes]) -> re.Match[bytes]:
        found = pattern.match(self._text, self._position)
        if found is None:
            raise _NotJsonError
        self._position = found.end()
        return found

    def _value(self, node: _Node) -> _Node | None:
        """Take a value, or only the opening of a container; then the place of its first member is returned."""
        found = self._take(_VALUE)
        opener = found[1]
        if opener is None:
            if node.is_href and found[2] is not None:
                self._write(*found.span(2), self._href(found[2]))
            return None
        if node is _RESOURCES:
            self._known_elements()
        empty = _EMPTY[opener].match(self._text, self._position)
        if empty is not None:
            self._position = empty.end()
            return None
        self._open.append((node, opener))
        return self._member()

    def _known_elements(self) -> None:
        """Behind the bracket of an array of resources: take all of them, if they are the known ones."""
        if self._known is None:
            return
        end = self._position
        marks = chain(repeat(b",", len(self._known) - 1), (b"]",))
        for (text, _), mark in zip(self._known, marks, strict=True):
            behind = end + len(text)
            if not self._text.startswith(text, end) or not self._text.startswith(mark, behind):
                return
            end = behind + 1
        self._done.append(self._text[self._written : self._position])
        for _, changed in self._known:
            self._done.extend((changed, b","))
        self._done.pop()
        self._written = self._position = end - 1
        self._known = next(self._arrays, None)

    def _member(self) -> _Node:
        """The place of the next value in the innermost open container; takes its key, if it has one."""
        node, opener = self._open[-1]
        if opener == b"[":
            return node.elements or _USER_DATA
        key = self._take(_KEY)[1]
        if node is _USER_DATA:
            return node
        name = json.loads(b'"%b"' % key) if b"\\" in key else key.decode()
        return node.members.get(name) or node.any_member or _USER_DATA

    def _following(self) -> _Node | None:
        """Behind a value: the place of the next one, closing what ends here; None behind the document."""
        while self._open:
            mark = self._take(_NEXT)[1]
            if mark == b",":
                return self._member()
            if mark != _CLOSER[self._open.pop()[1]]:
                raise _NotJsonError
        self._take(_END)
        return None


def _character(unit: str) -> str:
    """The character that one unit of a JSON string stands for; U+0000 for those that no URL prefix contains."""
    if len(unit) == 1:
        return unit
    if unit[1] == "u":
        return chr(int(unit.removeprefix("\\u"), base=16))
    return "/" if unit[1] == "/" else "\0"


def _clean(url: str) -> str:
    if _URL.fullmatch(url) is None:
        raise ValueError(f"not an http(s) URL without query: {url!r}")
    return url.rstrip("/")
