"""JSON as the Cloud Controller writes it: v3 compact and HTML-safe, v2 and `/` indented and plain.

Knows nothing of resources. See controller.md §1, Pagination.
"""

from __future__ import annotations

import json
from typing import Any, Final

_HTML_SAFE: Final = {
    ord("&"): "\\u0026",
    ord("<"): "\\u003c",
    ord(">"): "\\u003e",
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}


def compact(value: Any) -> bytes:
    """A v3 body: no white space, `&`, `<`, `>`, U+2028 and U+2029 escaped, all else as UTF-8."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.translate(_HTML_SAFE).encode("utf-8", "replace")


def plain(value: Any) -> bytes:
    """A compact body without the HTML escapes: `/v2/info` and rate limit answers."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def pretty(value: Any) -> bytes:
    """A v2 body: indented by two, no HTML escapes, no final newline."""
    return json.dumps(value, ensure_ascii=False, indent=2).encode("utf-8", "replace")


def pretty_safe(value: Any) -> bytes:
    """The body of `/v3`: indented by two and HTML-safe."""
    return json.dumps(value, ensure_ascii=False, indent=2).translate(_HTML_SAFE).encode("utf-8", "replace")
