"""Labels and annotations: the rules for keys and values, and the label selector grammar.

Pure text in, verdicts out; knows no resource. The same key and value rules serve `label_selector` (400) and metadata in
request bodies (422).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME_LIMIT: Final = 63
PREFIX_LIMIT: Final = 253
ANNOTATION_LIMIT: Final = 5000

_NAME_CHARACTERS: Final = re.compile(r"[A-Za-z0-9._-]*")
_NAME_ENDS: Final = re.compile(r"[A-Za-z0-9](?:.*[A-Za-z0-9])?", re.DOTALL)
_DNS_PREFIX: Final = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z0-9](?:[a-z0-9-]*[a-z0-9])?", re.IGNORECASE)


class Operator(Enum):
    """What a requirement asks of one label."""

    IN = "in"
    NOT_IN = "notin"
    EXISTS = "exists"
    NOT_EXISTS = "not exists"


@dataclass(frozen=True, slots=True)
class Requirement:
    """One term of a selector; the terms of a selector are joined by "and"."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def accepts(self, labels: Mapping[str, str]) -> bool:
        """Whether a resource with these labels satisfies the term."""
        match self.operator:
            case Operator.IN:
                return labels.get(self.key) in self.values if self.key in labels else False
            case Operator.NOT_IN:
                return labels.get(self.key) not in self.values
            case Operator.EXISTS:
                return self.key in labels
            case Operator.NOT_EXISTS:
                return self.key not in labels


class SelectorError(ValueError):
    """The selector is refused; the message is the Cloud Controller's."""


_TERMS: Final = re.compile(r"(?:[^,(]|\([^)]*\)?)+")
_SET: Final = re.compile(r"(?P<key>\S*) (?P<operator>in|notin) \((?P<values>.*)\)", re.DOTALL)
_EQUALITY: Final = re.compile(r"(?P<key>[^=!]+)(?P<operator>==?|!=)(?P<value>[^=!]*)", re.DOTALL)
_PRESENCE: Final = re.compile(r"(?P<negated>!?)(?P<key>[^=!(),\s]+)")


def parse_selector(text: str) -> tuple[Requirement, ...]:
    """Parse a `label_selector`.

    Raises:
        SelectorError: With the Cloud Controller's message.
    """
    if not text:
        raise SelectorError("Missing label_selector value")
    requirements = tuple(_requirement(term) for term in _TERMS.findall(text))
    for requirement in requirements:
        if (fault := key_fault(requirement.key)) is not None:
            raise SelectorError(fault)
        for value in requirement.values:
            if (fault := value_fault(value)) is not None:
                raise SelectorError(fault)
    return requirements


def _requirement(term: str) -> Requirement:
    if found := _SET.fullmatch(term):
        operator = Operator.IN if found["operator"] == "in" else Operator.NOT_IN
        return Requirement(found["key"], operator, _values(found["values"]))
    if found := _EQUALITY.fullmatch(term):
        operator = Operator.NOT_IN if found["operator"] == "!=" else Operator.IN
        return Requirement(found["key"], operator, _values(found["value"]))
    if found := _PRESENCE.fullmatch(term):
        return Requirement(found["key"], Operator.NOT_EXISTS if found["negated"] else Operator.EXISTS)
    raise SelectorError("Invalid label_selector value")


def _values(text: str) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()


def key_fault(key: str) -> str | None:
    """Why a label or annotation key is refused, or None."""
    prefix, slash, name = key.rpartition("/")
    if key.count("/") > 1:
        return "key has more than one '/'"
    if slash:
        if not _DNS_PREFIX.fullmatch(prefix):
            return f"prefix '{prefix}' must be in valid dns format"
        if len(prefix) > PREFIX_LIMIT:
            return f"prefix '{prefix[:8]}...' is greater than {PREFIX_LIMIT} characters"
        if prefix.lower() == "cloudfoundry.org":
            return f"prefix '{prefix}' is reserved"
    if not name:
        return "key cannot be empty string"
    return _name_fault(name)


def value_fault(value: str) -> str | None:
    """Why a label value is refused, or None; the empty value is allowed."""
    return _name_fault(value) if value else None


def annotation_fault(value: str) -> str | None:
    """Why an annotation value is refused, or None."""
    if len(value) > ANNOTATION_LIMIT:
        return f"'{value[:8]}...' is greater than {ANNOTATION_LIMIT} characters"
    return None


def _name_fault(name: str) -> str | None:
    if not _NAME_CHARACTERS.fullmatch(name):
        return f"'{name}' contains invalid characters"
    if len(name) > NAME_LIMIT:
        return f"'{name[:8]}...' is greater than {NAME_LIMIT} characters"
    if not _NAME_ENDS.fullmatch(name):
        return f"'{name}' starts or ends with invalid characters"
    return None
