"""From a settings file to `Settings`, or to every fault it has.

The only place where a location in the data meets a line of the file. Nothing escapes from here but `ConfigError`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import TypeAdapter, ValidationError

from gateway.settings.errors import ConfigError, Fault, Loc, Problem, key_path, kind_of, quoted
from gateway.settings.model import Settings, contradictions
from gateway.settings.shape import Shape
from gateway.settings.source import Source, read

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic_core import ErrorDetails

_ROOT: Final = Shape(section=Settings)
_LARGEST_FILE: Final = 4 << 20
_CLOSE_ENOUGH: Final = 0.7


def load(path: str | os.PathLike[str], environ: Mapping[str, str] | None = None) -> Settings:
    """Read a settings file.

    Args:
        path: the file; paths inside it are relative to its folder.
        environ: where `${NAME}` is looked up, by default the environment of the process.

    Raises:
        ConfigError: with every fault found.
    """
    name = os.fspath(path)
    return parse(read_file(name), environ, name=name, base=Path(name).parent)


def read_file(name: str) -> bytes:
    """The content of a settings file.

    Raises:
        ConfigError: it cannot be read, or is too large to be one.
    """
    try:
        with Path(name).open("rb") as file:
            raw = file.read(_LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "no file has such a name"
        raise ConfigError([Fault(name, None, "", "a readable file", f"none ({reason.lower()})")]) from None
    if len(raw) > _LARGEST_FILE:
        raise ConfigError([Fault(name, None, "", "a file of at most 4MiB", "a larger one")])
    return raw


def parse(
    raw: str | bytes, environ: Mapping[str, str] | None = None, *, name: str = "settings", base: Path | None = None
) -> Settings:
    """Read settings from a YAML text.

    Args:
        raw: the text.
        environ: where `${NAME}` is looked up, by default the environment of the process.
        name: what to call the text in faults.
        base: the folder that paths in it are relative to, by default the working directory.

    Raises:
        ConfigError: with every fault found.
    """
    encoded = raw.encode("utf-8", "surrogatepass") if isinstance(raw, str) else raw
    source = read(encoded, os.environ if environ is None else environ)
    settings: Settings | None = None
    found = list(source.problems)
    if isinstance(source.data, dict):
        settings, problems = _validated(source.data, source, base or Path())
        found += [(source.line(problem.loc), problem) for problem in problems]
    elif not found:
        found = [(source.line(()), Problem((), "a mapping with public_url and upstream", kind_of(source.data)))]
    if found or settings is None:
        raise ConfigError(
            Fault(name, line, key_path(problem.loc), problem.expected, problem.found, problem.hint)
            for line, problem in dict.fromkeys(found)
        )
    return settings


def _validated(data: dict[str, Any], source: Source, base: Path) -> tuple[Settings | None, list[Problem]]:
    """The settings or what is wrong with them, apart from places the source has already refused."""
    refused = {problem.loc for _, problem in source.problems}
    context = {"base": base}
    try:
        settings = Settings.model_validate(data, context=context)
    except ValidationError as error:
        problems = [problem for details in error.errors(include_url=False) for problem in _problems(details)]
    else:
        return settings, []
    broken = {loc[0] for loc in (*refused, *(problem.loc for problem in problems)) if loc}
    if broken & Settings.model_fields.keys():  # pydantic stopped before it came to what holds between sections
        problems += contradictions(_sound_sections(data, broken, context))
    return None, [problem for problem in problems if not _within(problem.loc, refused)]


def _within(loc: Loc, places: set[Loc]) -> bool:
    return any(loc[:length] in places for length in range(1, len(loc) + 1))


def _sound_sections(data: dict[str, Any], broken: set[str | int], context: dict[str, Any]) -> dict[str, Any]:
    """The top-level values that are right in themselves, defaults included."""
    sound: dict[str, Any] = {}
    for name, described in Settings.model_fields.items():
        if name in broken:
            continue
        if name in data:
            annotation: Any = Annotated[described.annotation, *described.metadata, name]
            sound[name] = TypeAdapter[Any](annotation).validate_python(data[name], context=context)
        elif not described.is_required():
            sound[name] = described.default
    return sound


def _problems(details: ErrorDetails) -> Iterator[Problem]:
    """One of pydantic's errors in our words."""
    loc, value, context = details["loc"], details["input"], details.get("ctx", {})
    shape = _ROOT.at(loc)
    match details["type"]:
        case "problems":
            yield from (
                Problem((*loc, *problem.loc), problem.expected, problem.found, problem.hint)
                for problem in context["problems"]
            )
        case "expected":
            found = kind_of(value) if context["secret"] else quoted(value)
            yield Problem(loc, context["expected"], found, context["hint"])
        case "missing":
            yield Problem(loc, shape.expected if shape else "a value", "nothing")
        case "extra_forbidden":
            yield _unknown(loc)
        case "too_short":
            if not value:  # pydantic counts only the sound items; the others have their own problems
                yield Problem(loc, "a list with at least one item", "an empty list")
        case "enum" | "literal_error" if shape:
            yield Problem(loc, shape.expected, quoted(value))
        case _:
            yield Problem(loc, shape.expected if shape else "another value", kind_of(value))


def _unknown(loc: Loc) -> Problem:
    """A key that is none. Where secrets stand, it is named only when it looks like a mistyped key."""
    around = _ROOT.at(loc[:-1])
    keys = around.keys() if around else {}
    name = str(loc[-1])
    import difflib  # only for who has made a mistake

    close = difflib.get_close_matches(name, keys, n=1, cutoff=_CLOSE_ENOUGH)
    if any(shape.secret for shape in keys.values()) and not (close and name.isidentifier()):
        return Problem(loc[:-1], f"only the keys {', '.join(keys)}", "another key")
    hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(keys)}"
    return Problem(loc, "a known key", "an unknown one", hint)
