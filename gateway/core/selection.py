"""Which stored pages an operator means: by URL, prefix, resource type, guid, principal. All that is given must hold.

Judges one page at a time by its key, tags and content; knows no store and no HTTP.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from gateway.core.invalidation import TYPES
from gateway.core.keys import canonical_query
from gateway.core.visibility import principal_of_domain

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.core.keys import CacheKey

# What a guid may look like; shorter ones would be found inside of anything.
_GUID: Final = re.compile(r"[0-9A-Za-z_-]{8,200}")


class SelectionError(ValueError):
    """What was asked for makes no sense; the text says why, for the operator."""


@dataclass(frozen=True, slots=True)
class Selection:
    """A choice of pages; without any criterion it is all of them.

    Attributes:
        path: exactly this path, None for any.
        queries: one of these queries, each "" or with its "?".
        prefix: path and query begin so.
        type: pages that show this type of resource.
        guid: pages whose URL, tags or content name this guid.
        principal: pages of this user or client alone.
    """

    path: str | None = None
    queries: frozenset[str] = frozenset()
    prefix: str | None = None
    type: str | None = None
    guid: str | None = None
    principal: str | None = None

    @property
    def everything(self) -> bool:
        """Whether it selects all pages."""
        return self == Selection()

    def matches(self, key: CacheKey, tags: tuple[str, ...], bodies: Iterable[bytes]) -> bool:
        """Whether a page is meant.

        Args:
            key: its key.
            tags: its tags.
            bodies: its content, of every variant, not encoded.
        """
        if self.path is not None and (key.path != self.path or key.query not in self.queries):
            return False
        if self.prefix is not None and not f"{key.path}{key.query}".startswith(self.prefix):
            return False
        if self.type is not None and self.type not in tags:
            return False
        if self.principal is not None and principal_of_domain(key.domain) != self.principal:
            return False
        return self.guid is None or self._names(self.guid, key, tags, bodies)

    @staticmethod
    def _names(guid: str, key: CacheKey, tags: tuple[str, ...], bodies: Iterable[bytes]) -> bool:
        low = guid.lower()
        if low in key.path.lower() or low in key.query.lower() or any(tag.endswith(f":{low}") for tag in tags):
            return True
        spelt = {guid.encode(), low.encode()}
        return any(one in body for body in bodies for one in spelt)


def selection(
    *,
    url: str | None = None,
    prefix: str | None = None,
    type_: str | None = None,
    guid: str | None = None,
    principal: str | None = None,
    public_path: str = "",
) -> Selection:
    """What an operator's words select.

    Args:
        url: path and query, or the whole URL as clients use it.
        prefix: the beginning of one.
        type_: a resource type as in the API's paths ("processes").
        guid: of an app, a space, an organization, …
        principal: a user_id or client_id.
        public_path: the path of the public URL, "" when it has none; what clients put before the API's paths.

    Raises:
        SelectionError: a value that can select nothing.
    """
    path, queries = None, frozenset[str]()
    if url is not None:
        target = _target(url, public_path)
        path, _, query = target.partition("?")
        raw = target[len(path) :]
        queries = frozenset({raw, canonical_query(query) if raw else ""})
    if type_ is not None and type_ not in TYPES:
        raise SelectionError(f"no type of resource: {type_!r}; there are {', '.join(sorted(TYPES))}")
    if guid is not None and not _GUID.fullmatch(guid):
        raise SelectionError("a guid has 8 to 200 letters, digits, - or _")
    if principal == "":
        raise SelectionError("the id of a principal is not empty")
    begins = None if prefix is None else _target(prefix, public_path)
    return Selection(path, queries, begins, type_, guid, principal)


def _target(url: str, public_path: str) -> str:
    """Path and query of a URL, as keys have them."""
    if url.startswith("/") and not url.startswith("//"):
        return url.partition("#")[0]
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise SelectionError("a URL begins with / or with http:// or https://")
    path = parts.path or "/"
    if public_path and (path == public_path or path.startswith(f"{public_path}/")):
        path = path[len(public_path) :] or "/"
    return path + (f"?{parts.query}" if parts.query or "?" in url.partition("#")[0] else "")
