"""The request target: one canonical form, decided once, used for matching, for the cache key and for forwarding.

The law: whatever is authorised here is byte for byte what the origin is asked for; a target that two parties could read
differently is refused, never repaired by guessing. Two readings exist:

- strict, for the Cloud Foundry API: the controller's own habits (controller.md §1, §4) are applied before matching.
  Runs of "/" and one trailing "/" vanish, because it answers `//v3/processes` and `/v3/processes/` alike; what it
  answers 404 to however the path goes on (dot segments, encoded separators, needless encoding) is that 404 here.
- generic, for any other origin: the path stays as it came (`//`, `%2F` and a trailing "/" can be resource names there),
  but dot segments are refused in any spelling, also between encoded separators: no conforming client sends them
  (RFC 3986 §5.2.4) and origins resolve them.

The query stays as it came but for bytes that no query may contain, and a fragment behind it, which the controller
ignores (recordings: duplicates-028) and which is cut off so that it cannot make two targets of one. An empty query is
none, for the same reason and because the HTTP client library does not send it.

Nothing here knows routes or tokens.
"""

from __future__ import annotations

import re
from typing import Final, NoReturn

from gateway.core.errors import Denial, Reason
from gateway.core.model import Target

# A target both readings take as it is: segments of unreserved characters that do not begin with a dot.
_PLAIN: Final = re.compile(r"(/|(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+)(?:\?([!$-;=?-~]*))?")
# Space, controls, DEL, non-ASCII, and what the controller's parser refuses (recordings: malformed-043): " < >
_FORBIDDEN: Final = re.compile(r'[^!-~]|["<>]')
# RFC 9112 §3.2.2: scheme and authority of the absolute form; userinfo has no place in it (RFC 9110 §4.2.4).
_ABSOLUTE: Final = re.compile(
    r"https?://(?:\[[0-9A-Fa-f:.]+\]|(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+)(?::[0-9]*)?(?=[/?]|\Z)",
    re.IGNORECASE,
)
_SLASHES: Final = re.compile(r"//+")
_BROKEN_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ENCODED_CONTROL: Final = re.compile(r"%(?:[01][0-9A-Fa-f]|7[Ff])")
_ENCODED_SEPARATOR: Final = re.compile(r"%(?:2[Ff]|5[Cc])")
_ENCODED_UNRESERVED: Final = re.compile(r"%(?:2[DdEe]|3[0-9]|4[1-9A-Fa-f]|5[0-9AaFf]|6[1-9A-Fa-f]|7[0-9AaEe])")
# "." or ".." as a whole segment; "..;x" too, since some origins drop path parameters before they resolve.
_DOT_SEGMENT: Final = re.compile(r"/\.{1,2}(?=[/;]|\Z)")
_ENCODED_DOT: Final = re.compile(r"%2[Ee]")


def parse(raw: str, *, strict_api: bool) -> Target:
    """Read a request target and make it canonical.

    `parse(str(parse(x))) == parse(x)`: the canonical form is its own canonical form.

    Args:
        raw: the target of the request line, in origin-form or absolute-form.
        strict_api: whether the Cloud Foundry reading applies, else the generic one.

    Raises:
        Denial: `BAD_TARGET` for what is no acceptable target (RFC 9112 §3.2), `UNKNOWN_ROUTE` for a path the
            controller answers 404 to however it goes on. The detail never quotes the target.
    """
    plain = _PLAIN.fullmatch(raw)
    if plain is not None:
        return Target(plain[1], plain[2] or None)
    if _FORBIDDEN.search(raw):
        _bad("forbidden byte")
    path, _, query = _origin_form(raw).partition("?")
    path = path or "/"
    if "\\" in path or "#" in path:
        _bad("backslash or fragment in the path")
    if _BROKEN_ESCAPE.search(path):
        _bad("broken percent-encoding")
    return Target(_strict(path) if strict_api else _generic(path), query.partition("#")[0] or None)


def _origin_form(raw: str) -> str:
    """Strip scheme and authority off an absolute-form target; the connection already decided where it goes."""
    if raw.startswith("/"):
        return raw
    absolute = _ABSOLUTE.match(raw)
    if absolute is None:
        _bad("neither origin-form nor absolute-form")
    return raw[absolute.end() :]


def _strict(path: str) -> str:
    if _ENCODED_CONTROL.search(path) or _ENCODED_SEPARATOR.search(path):
        _unknown("encoded separator or control")
    if _ENCODED_UNRESERVED.search(path):
        _unknown("needless percent-encoding")
    path = _SLASHES.sub("/", path)
    if _DOT_SEGMENT.search(path):
        _unknown("dot segment")
    return path[:-1] if path.endswith("/") and path != "/" else path


def _generic(path: str) -> str:
    if _ENCODED_CONTROL.search(path):
        _bad("encoded control")
    # Only the reading is decoded, to find what an origin might resolve; the path itself stays as it came.
    reading = _ENCODED_DOT.sub(".", _ENCODED_SEPARATOR.sub("/", path))
    if _DOT_SEGMENT.search(reading):
        _bad("dot segment")
    return path


def _bad(detail: str) -> NoReturn:
    raise Denial(Reason.BAD_TARGET, detail)


def _unknown(detail: str) -> NoReturn:
    raise Denial(Reason.UNKNOWN_ROUTE, detail)
