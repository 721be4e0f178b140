"""Structured Fields (RFC 9651 §4.1) written in their one canonical form. Knows nothing of any particular field."""

from __future__ import annotations

import base64
from decimal import ROUND_HALF_EVEN, Decimal
from typing import TYPE_CHECKING, Final

from gateway.core.structured import (
    KEY,
    STRING,
    TOKEN,
    BareItem,
    Date,
    DisplayString,
    InnerList,
    Member,
    StructuredFieldError,
    Token,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_MAX_INTEGER: Final = 10**15
_MAX_DECIMAL: Final = 10**12


def serialize_bare_item(value: BareItem) -> str:
    """Write a bare item.

    Raises:
        StructuredFieldError: the value is outside what its type may hold.
    """
    match value:
        case bool():
            return "?1" if value else "?0"
        case int() if abs(value) < _MAX_INTEGER:
            return str(value)
        case Decimal():
            return _decimal(value)
        case str() if STRING.fullmatch(quoted := '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'):
            return quoted
        case Token() if TOKEN.fullmatch(value.value):
            return value.value
        case bytes():
            return f":{base64.b64encode(value).decode('ascii')}:"
        case Date() if abs(value.seconds) < _MAX_INTEGER:
            return f"@{value.seconds}"
        case DisplayString():
            return f'%"{_display(value.text)}"'
        case _:
            raise StructuredFieldError(f"a {type(value).__name__} that no structured field can hold")


def _decimal(value: Decimal) -> str:
    if not value.is_finite() or abs(rounded := value.quantize(Decimal("0.001"), ROUND_HALF_EVEN)) >= _MAX_DECIMAL:
        raise StructuredFieldError("a decimal out of range")
    whole, _, fraction = f"{rounded:f}".partition(".")
    return f"{whole}.{fraction.rstrip('0') or '0'}"


def _display(text: str) -> str:
    try:
        raw = text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise StructuredFieldError("a lone surrogate") from error
    return "".join(chr(byte) if 0x20 <= byte < 0x7F and byte not in b'%"' else f"%{byte:02x}" for byte in raw)


def _suffix(parameters: Mapping[str, BareItem]) -> str:
    for key in parameters:
        if KEY.fullmatch(key) is None:
            raise StructuredFieldError("a parameter whose name is no key")
    return "".join(
        f";{key}" if value is True else f";{key}={serialize_bare_item(value)}" for key, value in parameters.items()
    )


def serialize_member(member: Member) -> str:
    """Write an Item or an Inner List with its parameters.

    Raises:
        StructuredFieldError: a value is outside what its type may hold.
    """
    if isinstance(member, InnerList):
        return f"({' '.join(map(serialize_member, member.items))}){_suffix(member.parameters)}"
    return serialize_bare_item(member.value) + _suffix(member.parameters)


def serialize_list(members: Iterable[Member]) -> str:
    """Write a List; an empty one is "" and its field must be left out.

    Raises:
        StructuredFieldError: a value is outside what its type may hold.
    """
    return ", ".join(map(serialize_member, members))
