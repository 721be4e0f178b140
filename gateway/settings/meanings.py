"""What each key means: the docstring below its field, for the page and the schema alone.

Pydantic can read them too, but does so whenever a model is built; a process that serves would read and split the source
of all models at its start, and keep it.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.settings.section import Section


@cache
def meanings(section: type[Section]) -> dict[str, str]:
    """By the names of its fields, those of the sections it is made from included."""
    found: dict[str, str] = {}
    for one in reversed(section.__mro__):
        if one.__module__.startswith("gateway."):
            found |= _own(one)
    return {name: found[name] for name in section.model_fields if name in found}


def _own(section: type) -> dict[str, str]:
    try:
        (written,) = ast.parse(textwrap.dedent(inspect.getsource(section))).body
    except OSError:  # installed without sources
        return {}
    match written:
        case ast.ClassDef(body=statements):
            return {
                name: text for field, below in pairwise(statements) if (name := _name(field)) and (text := _text(below))
            }
        case _:
            return {}


def _name(statement: ast.stmt) -> str | None:
    match statement:
        case ast.AnnAssign(target=ast.Name(id=name)):
            return name
        case _:
            return None


def _text(statement: ast.stmt) -> str | None:
    match statement:
        case ast.Expr(value=ast.Constant(value=str(text))):
            return inspect.cleandoc(text)
        case _:
            return None
