"""Proof, by counting, that every `"href` in a JSON text is a link: quick, and never wrong.

The law: a number is returned only when it is certain. msgspec decodes the places where links may be (`links.py` has the
map), validating all the rest; it never sees more links than there are, and each link it sees is one `"href` of its own
in the text. So when there are as many as the text has `"href`, there are no others. Whoever asks makes sure that no
letter of a key is escaped, and that the text is UTF-8: what msgspec passes over it does not decode.
"""

from __future__ import annotations

from typing import Final

import msgspec


class _Link(msgspec.Struct, gc=False):
    href: msgspec.Raw


class _Resource(msgspec.Struct, gc=False):
    links: dict[str, _Link] = {}


class _Page(msgspec.Struct):
    resources: list[msgspec.Raw] = []
    included: dict[str, list[msgspec.Raw]] = {}


class _Pagination(msgspec.Struct, gc=False):
    first: _Link | None = None
    last: _Link | None = None
    next: _Link | None = None
    previous: _Link | None = None


class _Document(msgspec.Struct):
    pagination: _Pagination | None = None
    links: dict[str, _Link] = {}
    resources: list[_Resource] = []
    included: dict[str, list[_Resource]] = {}


_WHOLE: Final = msgspec.json.Decoder(_Document)
_ONE_RESOURCE: Final = msgspec.json.Decoder(_Resource)
_PAGE: Final = msgspec.json.Decoder(_Page)
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def arrays(body: bytes) -> list[list[msgspec.Raw]]:
    """The resources of a page, array by array, each as its text; nothing when the body is not shaped like a page."""
    try:
        page = _PAGE.decode(body)
    except _UNREADABLE:
        return []
    return [array for array in (page.resources, *page.included.values()) if array]


def links_alone(body: bytes) -> int | None:
    """The number of links in a document if every `"href` in its text is one of them; None when that is not proven."""
    try:
        document = _WHOLE.decode(body)
    except _UNREADABLE:
        return None
    links = len(document.links) + sum(len(resource.links) for resource in document.resources)
    for array in document.included.values():
        links += sum(len(resource.links) for resource in array)
    pages = document.pagination
    if pages is not None:
        links += sum(page is not None for page in (pages.first, pages.last, pages.next, pages.previous))
    return links if body.count(b'"href') == links else None


def links_only(resource: bytes) -> int | None:
    """As `links_alone`, of a resource.

    The decoder never sees more links than there are (a repeated key it counts once, what it does not expect it
    refuses), and each link is one `"href` in the text, provided that no letter is escaped.
    """
    try:
        links = len(_ONE_RESOURCE.decode(resource).links)
    except _UNREADABLE:
        return None
    return links if resource.count(b'"href') == links else None
