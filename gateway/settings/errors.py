"""What is wrong with a settings file, one fault a line, each with file, line, key and what was expected.

Nothing here reads or judges a file. A value is quoted only through `quoted`; values of secret keys never get that far.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Loc = tuple[str | int, ...]
"""Where a value stands: mapping keys and list positions from the root."""

_LONGEST_QUOTE: Final = 80
_PLAIN_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,39}")
_USERINFO: Final = re.compile(r"(?<=://)[^/?#]*@")


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong at a place, before that place is known as a line of a file.

    Attributes:
        loc: where.
        expected: what should be there, as the object of "expected …".
        found: what is there, as the object of "found …"; never a secret.
        hint: what to do about it, or "".
    """

    loc: Loc
    expected: str
    found: str
    hint: str = ""

    def __str__(self) -> str:
        sentence = f"expected {self.expected}, found {self.found}"
        return f"{sentence}; {self.hint}" if self.hint else sentence


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a settings file.

    Attributes:
        file: the file as the operator named it.
        line: counted from 1; None when the fault is the file itself.
        key: path of the key, e.g. `routes[2].cache.ttl`; "" for the whole file.
        expected: what should be there.
        found: what is there; never a secret.
        hint: what to do about it, or "".
    """

    file: str
    line: int | None
    key: str
    expected: str
    found: str
    hint: str = ""

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        problem = Problem((), self.expected, self.found, self.hint)
        return ": ".join(part for part in (place, self.key, str(problem)) if part)


class ConfigError(Exception):
    """A settings file that cannot be used: the operator's fault, complete and without secrets.

    Attributes:
        faults: every fault found, in the order of the file.
    """

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults: Final = tuple(sorted(faults, key=lambda fault: (fault.line or 0, fault.key)))
        super().__init__("\n".join(str(fault) for fault in self.faults))


def key_path(loc: Loc) -> str:
    """A location as operators write it: `routes[2].cache.ttl`. Keys that are no plain words show as `[…]`."""
    parts: list[str] = []
    for step in loc:
        if isinstance(step, int):
            parts.append(f"[{step}]")
        elif _PLAIN_KEY.fullmatch(step):
            parts.append(f".{step}")
        else:
            parts.append("[…]")
    return "".join(parts).removeprefix(".")


def kind_of(value: object) -> str:
    """What sort of YAML value this is, without saying which."""
    match value:
        case None:
            return "nothing"
        case "":
            return "empty text"
        case str():
            return "text"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case dict():
            return "a mapping"
        case []:
            return "an empty list"
        case _:
            return "a list"


def quoted(value: object) -> str:
    """A scalar as it may be shown, shortened and printable; of anything larger only the sort. Hides URL userinfo."""
    if isinstance(value, str) and value:
        text = _USERINFO.sub("***@", value)
        if len(text) > _LONGEST_QUOTE:
            text = text[: _LONGEST_QUOTE - 1] + "…"
        return json.dumps(text, ensure_ascii=not text.isprintable())
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    return kind_of(value)


def either(options: Sequence[str]) -> str:
    """A choice in words: `a, b or c`."""
    return options[0] if len(options) == 1 else f"{', '.join(options[:-1])} or {options[-1]}"
