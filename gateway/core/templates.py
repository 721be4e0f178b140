"""Path templates: which of many templates a method and a path fall under.

Segment by segment, a literal beats `:name` beats `*`, whatever the order of the entries. A template that has no entry
for the method counts as no match, so the next less specific one is tried. Empty segments do not count, as in the
controller, where `//v3/processes` and `/v3/processes/` are `/v3/processes` (controller.md §1). Nothing is decoded here,
and nothing is known about what the entries mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

REST: Final = "*"
PARAMETER: Final = ":"
ANY_METHOD: Final = ""  # where a method is a key
STANDARD_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

T = TypeVar("T")


def template_segments(template: str) -> tuple[str, ...]:
    """The segments of a template; "/" has none.

    Raises:
        ValueError: it does not start with "/", has an empty segment, a nameless parameter, a "*" that is not the whole
            last segment, or characters that no path has.
    """
    if not template.startswith("/"):
        raise ValueError(f"template {template!r} must start with '/'")
    segments = tuple(template[1:].split("/")) if template != "/" else ()
    for position, segment in enumerate(segments):
        if not segment:
            raise ValueError(f"template {template!r} has an empty segment")
        if segment == PARAMETER:
            raise ValueError(f"template {template!r} has a parameter without a name")
        if REST in segment and (segment != REST or position != len(segments) - 1):
            raise ValueError(f"template {template!r}: '*' must be the whole last segment")
        if any(character in "?#" or not "!" <= character <= "~" for character in segment):
            raise ValueError(f"template {template!r}: {segment!r} is not a path segment")
    return segments


def shape(template: str) -> tuple[str, ...]:
    """The segments less the names of parameters: templates of one shape match the same paths.

    Raises:
        ValueError: the template is malformed.
    """
    return tuple(PARAMETER if segment[0] == PARAMETER else segment for segment in template_segments(template))


def covers(wide: Sequence[str], narrow: Sequence[str]) -> bool:
    """Whether every path of the shape `narrow` is a path of the shape `wide`."""
    if wide[-1:] == (REST,):
        wide, narrow = wide[:-1], narrow[: len(wide) - 1]
    elif narrow[-1:] == (REST,):
        return False
    return len(wide) == len(narrow) and all(
        mine == theirs or (mine == PARAMETER and theirs != REST) for mine, theirs in zip(wide, narrow, strict=True)
    )


def specificity(of: Sequence[str]) -> tuple[int, ...]:
    """Sorts shapes that match one path, the most specific first."""
    return tuple({PARAMETER: 1, REST: 2}.get(segment, 0) for segment in of)


def by_method(values: dict[str, T], method: str) -> T | None:
    """The value for a method: its own, else GET's for HEAD (RFC 9110 §9.3.2), else that of any method."""
    if not values:
        return None
    found = values.get(method)
    if found is None and method == "HEAD":
        found = values.get("GET")
    return values.get(ANY_METHOD) if found is None else found


class _Node(Generic[T]):
    """One segment of the trie; values are kept by method."""

    __slots__ = ("here", "literals", "parameter", "rest")

    def __init__(self) -> None:
        self.literals: dict[str, _Node[T]] = {}
        self.parameter: _Node[T] | None = None
        self.here: dict[str, T] = {}  # for a path that ends at this node
        self.rest: dict[str, T] = {}  # for a path that ends here or goes on in any way

    def find(self, segments: Sequence[str], at: int, method: str) -> T | None:
        """The value of the most specific template for `segments[at:]`."""
        if at == len(segments):
            found = by_method(self.here, method)
        else:
            found = None
            literal = self.literals.get(segments[at])
            if literal is not None:
                found = literal.find(segments, at + 1, method)
            if found is None and self.parameter is not None:
                found = self.parameter.find(segments, at + 1, method)
        return by_method(self.rest, method) if found is None else found


class Matcher(Generic[T]):
    """Finds the value of the most specific template; built once, never changed.

    Args:
        entries: (template, methods, value); no methods means any. Of two with one method and one shape the later wins.

    Raises:
        ValueError: a template is malformed.
    """

    __slots__ = ("_exact", "_root")

    def __init__(self, entries: Iterable[tuple[str, frozenset[str], T]]) -> None:
        self._root: Final[_Node[T]] = _Node()
        literal: set[tuple[str, ...]] = set()
        named = set(STANDARD_METHODS)
        for template, methods, value in entries:
            segments = shape(template)
            self._insert(segments, methods, value)
            named |= methods
            if PARAMETER not in segments and REST not in segments:
                literal.add(segments)
        # A literal path takes two dictionary look-ups: what each method finds there is settled now.
        self._exact: Final[dict[str, dict[str, T | None]]] = {
            "/" + "/".join(path): {method: self._root.find(path, 0, method) for method in (*named, ANY_METHOD)}
            for path in literal
        }

    def _insert(self, segments: tuple[str, ...], methods: frozenset[str], value: T) -> None:
        node = self._root
        rest = segments[-1:] == (REST,)
        for segment in segments[:-1] if rest else segments:
            if segment == PARAMETER:
                node.parameter = node.parameter or _Node()
                node = node.parameter
            else:
                node = node.literals.setdefault(segment, _Node())
        (node.rest if rest else node.here).update(dict.fromkeys(methods or (ANY_METHOD,), value))

    def match(self, method: str, path: str) -> T | None:
        """The value for a request, or None. `path` is compared as it is, still percent-encoded."""
        exact = self._exact.get(path)
        if exact is not None:
            return exact[method] if method in exact else exact[ANY_METHOD]
        return self._root.find([segment for segment in path.split("/") if segment], 0, method)
