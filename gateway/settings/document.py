"""`python -m gateway.settings.document` prints `docs/settings.md`: every key, as the models describe it."""

from __future__ import annotations

import sys
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import PydanticUndefined

from gateway.settings.meanings import meanings
from gateway.settings.model import Settings
from gateway.settings.shape import Shape

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo

_INTRODUCTION: Final = """\
# Settings

The gateway reads one YAML file: `gateway run -c FILE`. `gateway check -c FILE` tells every fault of it at once, each
with file, line, key and what was expected. Unknown keys are refused. This page is generated from the code
(`python -m gateway.settings.document > docs/settings.md`); examples are in `config/`.

**Values.** A *duration* is written `250ms`, `30s`, `1m30s`, `12h`, `7d`; a *size* `512B`, `64KiB`, `256MiB`, `1GB`;
a bare number is refused, except 0. `off`, `no` and `yes` are words, only `true` and `false` are truth values
(YAML 1.2). Each mapping may name a key once. Anchors, aliases and `<<` work.

**Environment.** `${NAME}` in a value is replaced by that variable, `${NAME:-default}` by the default when the variable
is unset or empty; a variable that is unset and has no default is a fault. The result is always the text of that one
value and never read as YAML. `$${` stands for `${` itself.

**Secrets** are shown neither in faults nor in logs nor in any dump of the settings."""


def document() -> str:
    """The page, in Markdown."""
    return "\n".join([_INTRODUCTION, *_section(Shape(section=Settings), "")]) + "\n"


def _section(shape: Shape, path: str) -> Iterator[str]:
    """A table of the keys of one mapping, then those of the mappings below it."""
    section = shape.section
    if section is None:
        return
    yield f"\n## {f'`{path}`' if path else 'Top level'}\n"
    if path:
        yield f"{' '.join((section.__doc__ or '').split())}\n"
    yield "| key | type | default | meaning |"
    yield "|---|---|---|---|"
    keys = shape.keys()
    for name, kind in keys.items():
        described = section.model_fields[name]
        meaning = meanings(section).get(name, "").replace("|", "\\|")
        yield f"| `{name}` | {_type(kind)} | {_default(described, kind)} | {meaning} |"
    for name, kind in keys.items():
        below, suffix = (kind.items, "[]") if kind.items is not None else (kind, "")
        yield from _section(below, f"{path}.{name}{suffix}".removeprefix("."))


def _type(shape: Shape) -> str:
    if shape.items is not None:
        return f"list of {_type(shape.items)}"
    if shape.scalar is not None:
        return shape.scalar.label
    return "mapping" if shape.section is not None else ", ".join(f"`{choice}`" for choice in shape.choices)


def _default(described: FieldInfo, shape: Shape) -> str:
    value: Any = described.default
    if value is PydanticUndefined:
        return "*required*"
    if shape.section is not None:
        return "none" if value is None else "see below"
    if value is None or value == ():
        return "none"
    if isinstance(value, tuple):
        return ", ".join(f"`{item}`" for item in value)
    written = value if shape.scalar is None else shape.scalar.write(value)
    if isinstance(written, bool):
        return f"`{str(written).lower()}`"
    return f"`{written.value if isinstance(written, Enum) else written}`"


if __name__ == "__main__":
    sys.stdout.write(document())
