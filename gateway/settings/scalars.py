"""The kinds of single values a settings file holds: durations, sizes, numbers, words, secrets, files.

Each kind knows how to read a YAML scalar, how to write it back, what to say when it is wrong, and its JSON Schema. Text
that came from `${…}` is always text, so numbers and booleans are also read from text. Knows no key of the file.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, SecretStr, ValidationInfo
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

if TYPE_CHECKING:
    from collections.abc import Callable

KIB: Final = 1 << 10
MIB: Final = 1 << 20

_MICROSECONDS: Final = {"d": 86_400_000_000, "h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000, "ms": 1_000}
_AMOUNT: Final = r"[0-9]{1,9}(?:\.[0-9]{1,3})?"
_DURATION: Final = re.compile("".join(rf"(?:(?P<{unit}>{_AMOUNT}){unit})?" for unit in _MICROSECONDS))
_DURATION_HINT: Final = "a number needs its unit: ms, s, m, h or d"
_BYTES: Final = {
    "TiB": 1 << 40,
    "GiB": 1 << 30,
    "MiB": MIB,
    "KiB": KIB,
    "TB": 10**12,
    "GB": 10**9,
    "MB": 10**6,
    "kB": 10**3,
    "KB": 10**3,
    "B": 1,
}
_SIZE: Final = re.compile(rf"([0-9]{{1,15}})({'|'.join(_BYTES)})")
_SIZE_HINT: Final = "a number needs its unit: B, KiB, MiB, GiB, kB, MB or GB"
_TOKEN: Final = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"  # noqa: S105 - RFC 9110 §5.6.2 "token", a word of the grammar


class ReadError(ValueError):
    """A value that is not of the kind; the text, where there is one, is a hint for the operator."""


@dataclass(frozen=True, slots=True, eq=False)
class Scalar:
    """One kind of single value; put it into `Annotated`.

    Attributes:
        expected: what it looks like, as the object of "expected …".
        read: from a YAML scalar to the value; raises ValueError.
        schema: JSON Schema of the written form.
        write: from the value back to a YAML scalar that `read` understands.
        label: its name in the documentation.
        secret: whether what was found must not be shown.
    """

    expected: str
    read: Callable[[object], Any]
    schema: dict[str, Any]
    write: Callable[[Any], Any] = str
    label: str = "text"
    secret: bool = field(default=False, kw_only=True)

    def check(self, value: object, info: ValidationInfo) -> Any:
        """Read `value` for pydantic, turning a refusal into an error the loader understands."""
        try:
            return self.resolve(self.read(value), info)
        except ValueError as refusal:
            hint = str(refusal) if isinstance(refusal, ReadError) else ""
            context = {"expected": self.expected, "hint": hint, "secret": self.secret}
            raise PydanticCustomError("expected", "expected {expected}", context) from None

    def resolve(self, value: Any, info: ValidationInfo) -> Any:  # noqa: ARG002 - for kinds that look around themselves
        """Finish a value that was read, with what the loader knows of its surroundings."""
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        writing = core_schema.plain_serializer_function_ser_schema(self.write, when_used="json")
        return core_schema.with_info_plain_validator_function(self.check, serialization=writing)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return dict(self.schema) if self.schema == {"type": "string"} else or_reference(self.schema)


def or_reference(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a value that may also be written as `${NAME}`."""
    return {"anyOf": [schema, {"type": "string", "pattern": r"\$\{"}]}


class ExistingFile(Scalar):
    """A path, relative to the folder of the settings file, at which there is a readable file."""

    __slots__ = ()

    def resolve(self, value: Any, info: ValidationInfo) -> Path:
        """The path made independent of the working directory."""
        base = (info.context or {}).get("base", "")
        path = Path(base, value).absolute()
        if not path.is_file():
            raise ReadError("there is no such file")
        if not os.access(path, os.R_OK):
            raise ReadError("it may not be read")
        return path


def parse_duration(value: object) -> float:
    """Seconds from `30s`, `1m30s`, `250ms`, `1.5h`, `7d`; a bare number only when it is 0.

    Raises:
        ReadError: anything else.
    """
    if value == 0 and not isinstance(value, bool):
        return 0.0
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ReadError(_DURATION_HINT)
    text = plain_text(value)
    if text == "0":
        return 0.0
    match = _DURATION.fullmatch(text) if text else None
    if match is None:
        raise ReadError(_DURATION_HINT if text.isdecimal() else "")
    amounts = {unit: Decimal(amount) for unit, amount in match.groupdict().items() if amount}
    return int(sum(amount * _MICROSECONDS[unit] for unit, amount in amounts.items())) / 1_000_000


def format_duration(seconds: float) -> str:
    """The shortest form `parse_duration` reads back, to the microsecond: 90.0 gives `1m30s`."""
    rest = round(seconds * 1_000_000)
    if rest == 0:
        return "0s"
    parts: list[str] = []
    for unit, length in _MICROSECONDS.items():
        amount, rest = divmod(rest, length)
        if unit == "ms" and rest:
            parts.append(f"{amount}.{rest:03d}ms")
        elif amount:
            parts.append(f"{amount}{unit}")
    return "".join(parts)


def parse_size(value: object) -> int:
    """Bytes from `64KiB`, `256MiB`, `1GB`, `512B`; a bare number only when it is 0.

    Raises:
        ReadError: anything else.
    """
    if value == 0 and not isinstance(value, bool):
        return 0
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ReadError(_SIZE_HINT)
    text = plain_text(value)
    match = _SIZE.fullmatch(text)
    if match is None and text != "0":
        raise ReadError(_SIZE_HINT if text.isdecimal() else "")
    return int(match[1]) * _BYTES[match[2]] if match else 0


def format_size(count: int) -> str:
    """The shortest exact form `parse_size` reads back: 268435456 gives `256MiB`."""
    return min((f"{count // size}{unit}" for unit, size in _BYTES.items() if count % size == 0), key=len)


def plain_text(value: object) -> str:
    """Text, which numbers and truth values are only in quotes.

    Raises:
        ReadError: anything else.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, int | float):
        raise ReadError("put quotes around it")
    raise ReadError


def _matching(pattern: str) -> Callable[[object], str]:
    compiled = re.compile(pattern)

    def read(value: object) -> str:
        text = plain_text(value)
        if not compiled.fullmatch(text):
            raise ReadError
        return text

    return read


def _boolean(value: object) -> bool:
    if value is True or value == "true":
        return True
    if value is False or value == "false":
        return False
    raise ReadError


def _integer(low: int, high: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ReadError
        return value

    return read


def _ratio(value: object) -> float:
    text = repr(value) if isinstance(value, int | float) and not isinstance(value, bool) else plain_text(value)
    if not re.fullmatch(r"0(\.[0-9]{1,9})?|1(\.0{1,9})?", text):
        raise ReadError
    return float(text)


def _write_ratio(value: float) -> float:
    return int(value) if value.is_integer() else value


def _secret(value: object) -> SecretStr:
    text = plain_text(value)
    if not text:
        raise ReadError
    return SecretStr(text)


def _path(value: object) -> str:
    text = plain_text(value)
    if not text or "\0" in text:
        raise ReadError
    return text


def _workers(value: object) -> int:
    return 0 if value == "auto" else _integer(1, 256)(value)


_STRING: Final[dict[str, Any]] = {"type": "string"}


def integer(low: int, high: int, what: str = "a whole number") -> Scalar:
    """A whole number from `low` to `high`."""
    schema = {"type": "integer", "minimum": low, "maximum": high}
    return Scalar(f"{what} from {low} to {high}", _integer(low, high), schema, int, "number")


def text(pattern: str, expected: str, label: str = "text") -> Scalar:
    """Text that matches `pattern` as a whole."""
    return Scalar(expected, _matching(pattern), {"type": "string", "pattern": f"^(?:{pattern})$"}, str, label)


DURATION: Final = Scalar(
    "a duration such as 30s",
    parse_duration,
    {"anyOf": [{"const": 0}, {"type": "string", "pattern": rf"^0$|^({_AMOUNT}(d|h|ms|m|s))+$"}]},
    format_duration,
    "duration",
)
SIZE: Final = Scalar(
    "a size such as 64KiB or 1GB",
    parse_size,
    {"anyOf": [{"const": 0}, {"type": "string", "pattern": rf"^0$|^[0-9]{{1,15}}({'|'.join(_BYTES)})$"}]},
    format_size,
    "size",
)

Duration = Annotated[float, DURATION]
Size = Annotated[int, SIZE]
Boolean = Annotated[bool, Scalar("true or false", _boolean, {"type": "boolean"}, bool, "true or false")]
Ratio = Annotated[
    float,
    Scalar(
        "a share from 0 to 1 such as 0.01",
        _ratio,
        {"type": "number", "minimum": 0, "maximum": 1},
        _write_ratio,
        "share",
    ),
]
Port = Annotated[int, integer(0, 65_535, "a port number")]
Count = Annotated[int, integer(1, 1_000_000_000)]
Workers = Annotated[
    int,
    Scalar(
        "a whole number from 1 to 256, or auto",
        _workers,
        {"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1, "maximum": 256}]},
        lambda value: value or "auto",
        "number or `auto`",
    ),
]
"""0 stands for auto."""
Text = Annotated[str, Scalar("text that is not empty", _matching(r"(?s:.+)"), _STRING)]
Word = Annotated[str, text(r"[a-z][a-z0-9_-]{0,62}", "a lower-case word such as default", "word")]
Pseudonym = Annotated[str, text(_TOKEN, "a name without spaces such as gateway", "name")]
Scope = Annotated[str, text(r"[\x21\x23-\x5b\x5d-\x7e]+", "a scope such as cloud_controller.read", "scope")]
Secret = Annotated[SecretStr, Scalar("text that is not empty", _secret, _STRING, str, "secret", secret=True)]
File = Annotated[Path, ExistingFile("a readable file", _path, _STRING, str, "file")]
