"""The base of every mapping in the settings file: frozen, closed to unknown keys, and consistent within itself."""

import os
from collections.abc import Iterator
from typing import Self

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from gateway.settings.errors import Problem

# Pydantic looks through all that is installed for plugins that would see every value of the file, secrets included.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


class Section(BaseModel):
    """A mapping of the settings file."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,  # pydantic's own message may end in a log; input may be a secret
    )

    def sets(self, name: str) -> bool:
        """Whether the field says anything but its default."""
        return bool(getattr(self, name) != type(self).model_fields[name].default)

    def problems(self) -> Iterator[Problem]:
        """What contradicts itself although each value alone is right; locations are relative to this section."""
        yield from ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = tuple(self.problems())
        if problems:
            text = "; ".join(str(problem) for problem in problems)
            raise PydanticCustomError("problems", "{text}", {"text": text, "problems": problems})
        return self
