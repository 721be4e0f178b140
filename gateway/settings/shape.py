"""What the models say of a place in the file: which keys it has, what value it takes, how to describe that.

The loader uses it to phrase faults, the documentation to list keys; neither repeats what the models already say.
"""

from __future__ import annotations

import types
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from gateway.settings.errors import either
from gateway.settings.scalars import Scalar
from gateway.settings.section import Section

if TYPE_CHECKING:
    from gateway.settings.errors import Loc


@dataclass(frozen=True, slots=True)
class Shape:
    """What a place takes: exactly one of the four.

    Attributes:
        section: a mapping with these keys.
        items: a list of this.
        scalar: a single value of this kind.
        choices: one of these words.
    """

    section: type[Section] | None = None
    items: Shape | None = None
    scalar: Scalar | None = None
    choices: tuple[str, ...] = ()

    @property
    def expected(self) -> str:
        """As the object of "expected …"."""
        if self.section is not None:
            return "a mapping"
        if self.items is not None:
            return "a list"
        return self.scalar.expected if self.scalar is not None else either(self.choices)

    @property
    def secret(self) -> bool:
        """Whether a value that stands here must not be shown."""
        return self.scalar is not None and self.scalar.secret

    def keys(self) -> dict[str, Shape]:
        """The keys of a section with what each takes; none for anything else."""
        if self.section is None:
            return {}
        fields = self.section.model_fields
        return {name: shape_of(found.annotation, tuple(found.metadata)) for name, found in fields.items()}

    def at(self, loc: Loc) -> Shape | None:
        """What the place at `loc` below this one takes; None where there is no such place."""
        found: Shape | None = self
        for step in loc:
            if found is None:
                return None
            found = found.items if isinstance(step, int) else found.keys().get(step)
        return found


def shape_of(annotation: Any, metadata: tuple[object, ...] = ()) -> Shape:
    """The shape of a type as the models write it.

    Raises:
        TypeError: a type the settings do not use.
    """
    for entry in metadata:
        if isinstance(entry, Scalar):
            return Shape(scalar=entry)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if hasattr(annotation, "__metadata__"):  # Annotated
        return shape_of(annotation.__origin__, annotation.__metadata__)
    if origin in (Union, types.UnionType):
        (present,) = (argument for argument in arguments if argument is not type(None))
        return shape_of(present)
    if origin is tuple:
        return Shape(items=shape_of(arguments[0]))
    if origin is Literal:
        return Shape(choices=arguments)
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return Shape(section=annotation)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return Shape(choices=tuple(member.value for member in annotation))
    raise TypeError(f"{annotation!r} is no kind of setting")
