"""What a write makes obsolete by HTTP's own rules (RFC 9111 §4.4).

For any origin. What a write means in the Cloud Foundry API is told in `invalidation.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urljoin, urlsplit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.core.model import Fields

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "REPORT", "SEARCH", "QUERY"})
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def invalidates(method: str, status: int, target: str, response: Fields, origins: Sequence[str]) -> list[str]:
    """The targets whose stored responses a request makes obsolete (RFC 9111 §4.4).

    A method that is not known to be safe, answered without an error, drops its own target and those that Location and
    Content-Location name on the same origin; another origin's are left alone, so that nobody can purge his neighbour.

    Args:
        method: the request method.
        status: the response's status code.
        target: the request target, path and query.
        response: the response fields.
        origins: scheme, host and port under which this server is known, e.g. "https://api.example.org"; the first is
            that of the request.

    Returns:
        Targets (path and query), the request's own first, each once; empty when nothing is dropped.
    """
    if method in SAFE_METHODS or not 200 <= status < 400:
        return []
    known = {_origin(origin) for origin in origins} - {None}
    dropped = [target]
    for reference in (*response.get_all("location"), *response.get_all("content-location")):
        try:
            # The target may begin with "//", which urljoin would take for a host: the origin goes before it.
            absolute = urljoin(f"{origins[0]}{target}", reference)
            parts = urlsplit(absolute)
        except ValueError:
            continue
        found = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if _origin(absolute) in known and found not in dropped:
            dropped.append(found)
    return dropped


def _origin(uri: str) -> tuple[str, str, int] | None:
    """Scheme, host and port in comparable form, None when `uri` has none."""
    try:
        parts = urlsplit(uri)
        port = parts.port or _DEFAULT_PORTS[parts.scheme]
    except (ValueError, KeyError):
        return None
    return (parts.scheme, parts.hostname, port) if parts.hostname else None
