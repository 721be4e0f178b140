"""A YAML text as plain data, with the line of every value and the environment filled in.

The document is composed into nodes, never constructed, so no tag runs anything. Plain scalars follow the YAML 1.2 core
schema: `off`, `no` and `1:30` are text, as an operator means them. `${NAME}` and `${NAME:-default}` are replaced inside
scalar nodes after parsing: what comes from the environment is always text and cannot add keys. Knows no key by name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import yaml

from gateway.settings.errors import Loc, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_MOST_VALUES: Final = 100_000  # aliases of aliases can make a short file expand without end
_PREFIX: Final = "tag:yaml.org,2002:"
_NULL, _BOOL, _INT, _FLOAT, _TEXT, _MERGE = (
    _PREFIX + name for name in ("null", "bool", "int", "float", "str", "merge")
)


def _integer(text: str) -> int:
    return int(text, 0) if text[:2] in ("0x", "0o") else int(text)


_READERS: Final[dict[str, tuple[re.Pattern[str], Callable[[str], object]]]] = {
    _NULL: (re.compile(r"~|null|Null|NULL|"), lambda _: None),
    _BOOL: (re.compile(r"true|True|TRUE|false|False|FALSE"), lambda text: text in ("true", "True", "TRUE")),
    _INT: (re.compile(r"[-+]?[0-9]{1,18}|0x[0-9a-fA-F]{1,15}|0o[0-7]{1,18}"), _integer),
    _FLOAT: (re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]{1,3})?"), float),
    _MERGE: (re.compile(r"<<"), lambda text: text),
    _TEXT: (re.compile(r"(?s:.*)"), lambda text: text),
}
_REFERENCE: Final = re.compile(
    r"\$(?P<escaped>\$)\{|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>(?:(?!\$\{)[^}])*))?\}|(?P<broken>\$\{)"
)
_HOLE: Final = "a value for ${{{}}} in the environment"


class _Loader(yaml.SafeLoader):
    """Composes nodes; resolves plain scalars by the YAML 1.2 core schema."""

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        if kind is yaml.ScalarNode and implicit[0]:
            return next(tag for tag, (pattern, _) in _READERS.items() if pattern.fullmatch(value))
        default: dict[type[yaml.Node], str] = {yaml.SequenceNode: _PREFIX + "seq", yaml.MappingNode: _PREFIX + "map"}
        return default.get(kind, _TEXT)


@dataclass(slots=True)
class Source:
    """What a text says.

    Attributes:
        data: the root value; None for an empty text.
        lines: the line of every value, by location; for the value of a key, the line of the key.
        problems: what is wrong with the text itself, each with its line.
    """

    data: object = None
    lines: dict[Loc, int] = field(default_factory=lambda: {(): 1})
    problems: list[tuple[int, Problem]] = field(default_factory=list)

    def line(self, loc: Loc) -> int:
        """The line of a value, or of the nearest thing around it that is there."""
        while loc not in self.lines:
            loc = loc[:-1]
        return self.lines[loc]

    def refuse(self, line: int, loc: Loc, expected: str, found: str, hint: str = "") -> None:
        """Note a problem."""
        self.problems.append((line, Problem(loc, expected, found, hint)))


def read(raw: bytes, environ: Mapping[str, str]) -> Source:
    """Parse a YAML document.

    Args:
        raw: the file's bytes, UTF-8.
        environ: where `${NAME}` is looked up.
    """
    source = Source()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        source.refuse(raw.count(b"\n", 0, error.start) + 1, (), "UTF-8", "other bytes")
        return source
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        source.refuse(line, (), "printable characters", "a control character")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        source.refuse(mark.line + 1 if mark else 1, (), "valid YAML", *_explained(error))
    except RecursionError:
        source.refuse(1, (), "a plain nesting of keys", "hundreds of levels")
    else:
        if root is not None:
            source.lines[()] = root.start_mark.line + 1
            source.data = _Reading(source, environ).value(root, ())
    return source


def _explained(error: yaml.MarkedYAMLError) -> tuple[str, str]:
    """What the parser found, and a hint; never a part of the text, which may be a secret."""
    problem = error.problem or "something else"
    if "'\\t'" in problem:
        return "a tab", "indent with spaces"
    if "but found another document" in problem:
        return "a second document", "keep one document in the file"
    if "undefined alias" in problem:
        return "an alias without its anchor", "text that begins with * needs quotes"
    if "'@'" in problem or "'`'" in problem or "'%'" in problem:
        return "a value that begins with @, ` or %", "put quotes around it"
    if "but got '{'" in problem or "found '{'" in problem:
        return "a brace inside brackets", 'there "${NAME}" needs quotes'
    hint = "check indentation, colons, quotes and brackets"
    if problem.startswith("mapping values are not allowed"):
        return "a colon where no key can be", hint
    return "something that is not", f"{hint} up to here"


class _Reading:
    """One walk over the nodes, filling a Source."""

    def __init__(self, source: Source, environ: Mapping[str, str]) -> None:
        self._source = source
        self._environ = environ
        self._open: set[int] = set()
        self._left = _MOST_VALUES

    def value(self, node: yaml.Node, loc: Loc) -> Any:
        """The plain value of a node; None where it is refused."""
        line = self._source.lines[loc]
        self._left -= 1
        if id(node) in self._open or self._left < 0:
            if self._left >= -1:
                self._source.refuse(line, loc, "aliases that come to an end", "one that expands without end")
            return None
        self._open.add(id(node))
        try:
            match node:
                case yaml.MappingNode(tag=tag) if tag == _PREFIX + "map":
                    return self._mapping(node, loc)
                case yaml.SequenceNode(tag=tag) if tag == _PREFIX + "seq":
                    return [self._item(item, (*loc, index)) for index, item in enumerate(node.value)]
                case yaml.ScalarNode(tag=tag) if tag in _READERS:
                    return self._scalar(node, loc, line)
                case _:
                    self._source.refuse(line, loc, "a plain value", "a YAML tag")
                    return None
        finally:
            self._open.discard(id(node))

    def _item(self, node: yaml.Node, loc: Loc) -> Any:
        self._source.lines[loc] = node.start_mark.line + 1
        return self.value(node, loc)

    def _mapping(self, node: yaml.MappingNode, loc: Loc) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for part in reversed(self._merged(node, loc)):
            result |= self.value(part, loc) or {}
        first: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.tag == _MERGE:
                continue
            if not isinstance(key, yaml.ScalarNode) or key.tag != _TEXT:
                self._source.refuse(line, loc, "keys that are words", "another kind of key")
            elif key.value in first:
                expected = f"each key once (also on line {first[key.value]})"
                self._source.refuse(line, (*loc, key.value), expected, "it again")
            else:
                first[key.value] = line
                self._source.lines[*loc, key.value] = line
                result[key.value] = self.value(value, (*loc, key.value))
        return result

    def _merged(self, node: yaml.MappingNode, loc: Loc) -> list[yaml.Node]:
        """The mappings that merge keys `<<` take over, the strongest first."""
        parts: list[yaml.Node] = []
        for key, value in node.value:
            if key.tag != _MERGE:
                continue
            for part in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if isinstance(part, yaml.MappingNode):
                    parts.append(part)
                else:
                    self._source.refuse(key.start_mark.line + 1, loc, "mappings to merge with <<", "something else")
        return parts

    def _scalar(self, node: yaml.ScalarNode, loc: Loc, line: int) -> Any:
        if "${" in node.value:
            return "".join(self._substituted(node.value, loc, line))
        pattern, convert = _READERS[node.tag]
        if not pattern.fullmatch(node.value):  # an explicit tag that does not fit
            self._source.refuse(line, loc, "a plain value", "a YAML tag that does not fit it")
            return None
        return convert(node.value)

    def _substituted(self, text: str, loc: Loc, line: int) -> Iterator[str]:
        """The pieces of a text with its references replaced."""
        end = 0
        for match in _REFERENCE.finditer(text):
            yield text[end : match.start()]
            end = match.end()
            if match["escaped"]:
                yield "${"
            elif match["broken"]:
                self._source.refuse(line, loc, "${NAME} or ${NAME:-default}", "another ${", "$${ means ${ itself")
            else:
                yield self._looked_up(match, loc, line)
        yield text[end:]

    def _looked_up(self, match: re.Match[str], loc: Loc, line: int) -> str:
        value = self._environ.get(match["name"])
        if match["default"] is not None:
            return value or match["default"]
        if value is None:
            self._source.refuse(line, loc, _HOLE.format(match["name"]), "none", "give it, or a default with :-")
        return value or ""
