"""RFC 6750: taking the token out of a request, and the challenges that answer a bad one.

Knows the Authorization field and nothing of tokens: what comes out of `extract` has not been looked at. No answer made
here repeats any part of a token.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from gateway.core.errors import Denial, Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_SCHEME: Final = "bearer"
_REALM: Final = 'Bearer realm="cloud_controller"'
_CHALLENGE: Final = "WWW-Authenticate"
# RFC 6749 §3.3 lets a scope be any printable ASCII but space, quote and backslash.
_UNSAFE: Final = re.compile(r"[^!#-\[\]-~]")
_BLANKS: Final = re.compile(r"[ \t]+")
_MOST_SCOPES: Final = 32
_LONGEST_SCOPE: Final = 100


def extract(values: Sequence[str]) -> str | None:
    """The bearer token among the Authorization lines of a request, by the controller's reading (controller.md §2).

    Args:
        values: the field's values in wire order.

    Returns:
        The token, or None when the request has none: no field, or another scheme.

    Raises:
        Denial: INVALID_TOKEN when it says bearer but is not exactly two words, or there are several fields.
    """
    if not values:
        return None
    if len(values) > 1:
        raise invalid_token("several-fields", "one Authorization field is allowed")
    value = values[0]
    if value[: len(_SCHEME)].lower() != _SCHEME:
        return None
    token = value[7:]
    if value[6:7] == " " and token and " " not in token and "\t" not in token:
        return token  # as nearly every client writes it
    # Not str.split: what Python alone takes for a blank would make two readings of the bytes that are forwarded.
    words = _BLANKS.split(value.strip(" \t"))
    if len(words) != 2 or len(words[0]) != len(_SCHEME):
        raise invalid_token("malformed-field", "Authorization must be the word bearer and a token")
    return words[1]


def no_token() -> Denial:
    """401 for a request without a token: a challenge without an error code (RFC 6750 §3.1)."""
    return Denial(Reason.NO_TOKEN, "", ((_CHALLENGE, _REALM),))


def invalid_token(fault: str, detail: str = "") -> Denial:
    """401 for a token that does not count.

    Args:
        fault: closed name of the fault ("expired", "signature", …).
        detail: a sentence for humans, free of any part of the token.
    """
    description = f'{_REALM}, error="invalid_token", error_description="{_quoted(detail or fault)}"'
    return Denial(Reason.INVALID_TOKEN, fault, ((_CHALLENGE, description),))


def insufficient_scope(required: Iterable[str], present: Iterable[str]) -> Denial:
    """403 for a token without a scope that the route asks for.

    Args:
        required: scopes of which one would do.
        present: the token's scopes; only safe characters and a bounded number are repeated.
    """
    needed = " ".join(_UNSAFE.sub("?", scope) for scope in required)
    held = sorted(_UNSAFE.sub("?", scope)[:_LONGEST_SCOPE] for scope in present)
    shown = " ".join(held[:_MOST_SCOPES]) or "none"
    challenge = f'{_REALM}, error="insufficient_scope", scope="{needed}"'
    return Denial(Reason.INSUFFICIENT_SCOPE, f"required one of: {needed}; present: {shown}", ((_CHALLENGE, challenge),))


def _quoted(text: str) -> str:
    return re.sub(r"[^ !#-\[\]-~]", "?", text)
