"""Validation of list requests, with the Cloud Controller's own messages in its own order (controller.md §1).

Takes nested parameters, gives a `ListQuery`; knows no resource: each list brings its `ListSpec`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import quote_plus, unquote

from gateway.sandbox.errors import UnknownError, bad_query
from gateway.sandbox.labels import Requirement, SelectorError, parse_selector

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.sandbox.params import Param, Params

MAX_RESULT: Final = 9223372036854775807
MAX_PER_PAGE: Final = 5000
DEFAULT_PER_PAGE: Final = 50

_INTEGER_PREFIX: Final = re.compile(r"\s*([+-]?[0-9]+(?:_[0-9]+)*)")
_LIST_COMMA: Final = re.compile(r",\s*")
_TIMESTAMP: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_TIMESTAMP_FORMAT: Final = "%Y-%m-%dT%H:%M:%SZ"
_COMPARISONS: Final[dict[str, Callable[[str, str], bool]]] = {
    "lt": lambda left, right: left < right,
    "lte": lambda left, right: left <= right,
    "gt": lambda left, right: left > right,
    "gte": lambda left, right: left >= right,
}
_NESTED_ONLY: Final = ("space_guids", "organization_guids", "app_guids")


@dataclass(frozen=True, slots=True)
class ListSpec:
    """What one list accepts.

    Attributes:
        keys: Valid parameters, in the order the error message names them.
        lists: Parameters that are comma separated lists.
        order_columns: Columns of `order_by`.
        default_order: `order_by` shown in hrefs although not asked for (roles), else None.
    """

    keys: tuple[str, ...]
    lists: tuple[str, ...]
    order_columns: tuple[str, ...] = ("created_at", "updated_at")
    default_order: str | None = None


@dataclass(frozen=True, slots=True)
class TimeRange:
    """One condition on a timestamp column: an operator with a value, or membership in several values."""

    operator: str | None
    values: tuple[str, ...]

    def accepts(self, timestamp: str) -> bool:
        """Whether the timestamp (ISO text, so text order is time order) satisfies the condition."""
        if self.operator is None:
            return timestamp in self.values
        return _COMPARISONS[self.operator](timestamp, self.values[0])


@dataclass(slots=True)
class ListQuery:
    """A validated list request."""

    page: int = 1
    per_page: int = DEFAULT_PER_PAGE
    order_by: str | None = None
    descending: bool = False
    filters: dict[str, frozenset[str]] = field(default_factory=dict)
    created: list[TimeRange] = field(default_factory=list)
    updated: list[TimeRange] = field(default_factory=list)
    selector: tuple[Requirement, ...] = ()
    app_guid: str | None = None
    include: str | None = None
    href_parameters: list[tuple[str, str]] = field(default_factory=list)

    def href_query(self, page: int) -> str:
        """The query of a pagination href: filters, `order_by`, `page`, `per_page`, sorted by key."""
        pairs = [*self.href_parameters, ("page", str(page)), ("per_page", str(self.per_page))]
        return "&".join(f"{quote_plus(key)}={quote_plus(value)}" for key, value in sorted(pairs))


def parse_list(params: Params, spec: ListSpec, *, app_guid: str | None = None) -> ListQuery:
    """Validate the parameters of a list request.

    Args:
        params: Nested parameters of the query string.
        spec: What this list accepts.
        app_guid: Guid of the app in the path of an app-nested list.

    Raises:
        CloudControllerError: 400 with every message at once; 500 where the Cloud Controller crashes.
    """
    query = ListQuery(app_guid=app_guid)
    faults: list[str] = []
    _pagination(params, spec, query, faults)
    for key, ranges in (("created_ats", query.created), ("updated_ats", query.updated)):
        if key in params and key in spec.keys:
            _timestamps(key, params[key], ranges, query, faults)
    _selector(params, spec, query, faults)
    unknown = [key for key in params if key not in spec.keys]
    if unknown:
        named = ", ".join(f"'{key}'" for key in unknown)
        valid = ", ".join(f"'{key}'" for key in spec.keys)
        faults.append(f"Unknown query parameter(s): {named}. Valid parameters are: {valid}")
    if "app_guid" in spec.keys and isinstance(given := params.get("app_guid"), str):
        query.app_guid = given
    if query.app_guid is not None and (nested := [key for key in _NESTED_ONLY if key in params]):
        faults.append(f"Unknown query parameter(s): {', '.join(repr(key) for key in nested)}")
    _lists(params, spec, query, faults)
    if "include" in spec.keys and isinstance(include := params.get("include"), str):
        query.include = include
        query.href_parameters.append(("include", include))
    if faults:
        raise bad_query(faults)
    return query


def _number(value: str) -> int:
    found = _INTEGER_PREFIX.match(value)
    return int(found[1].replace("_", "")) if found else 0


def _pagination(params: Params, spec: ListSpec, query: ListQuery, faults: list[str]) -> None:
    for name, label in (("page", "Page"), ("per_page", "Per page")):
        value = params.get(name)
        if value is None:
            continue
        if not isinstance(value, str):
            raise UnknownError
        number = _number(value)
        if number < 1:
            faults.append(f"{label} must be a positive integer")
        elif name == "per_page" and number > MAX_PER_PAGE:
            faults.append(f"Per page must be between 1 and {MAX_PER_PAGE}")
        setattr(query, name, number)
    if query.page * query.per_page >= MAX_RESULT:
        faults.append(f"Maximum result (page * per_page) must be less than {MAX_RESULT}")
    order = params.get("order_by")
    if order is not None and not isinstance(order, str):
        raise UnknownError
    order = order or spec.default_order
    if order:
        column = order[1:] if order[0] in "+-" else order
        if column not in spec.order_columns:
            faults.append(f"Order by can only be: {', '.join(repr(name) for name in spec.order_columns)}")
        query.order_by, query.descending = column, order[0] == "-"
        query.href_parameters.append(("order_by", ("-" if query.descending else "+") + column))


def _timestamps(key: str, value: Param, ranges: list[TimeRange], query: ListQuery, faults: list[str]) -> None:
    label = key.capitalize().replace("_", " ")
    bad_format = f"{label} has an invalid timestamp format. Timestamps should be formatted as 'YYYY-MM-DDThh:mm:ssZ'"
    if isinstance(value, dict):
        for operator, operand in value.items():
            if not isinstance(operand, str):
                faults.append(bad_format)
            elif operator not in _COMPARISONS:
                faults.append(f"{label} Invalid relational operator: '{operator}'")
            elif "," in operand:
                faults.append(f"{label} only accepts one value when using a relational operator")
            elif not _TIMESTAMP.fullmatch(operand):
                faults.append(bad_format)
            else:
                ranges.append(TimeRange(operator, (_real_time(operand),)))
                query.href_parameters.append((f"{key}[{operator}]", operand))
        return
    values = _LIST_COMMA.split(value) if isinstance(value, str) else []
    if not values or not all(_TIMESTAMP.fullmatch(each) for each in values):
        faults.append(bad_format)
        return
    ranges.append(TimeRange(None, tuple(_real_time(each) for each in values)))
    query.href_parameters.append((key, ",".join(values)))


def _real_time(text: str) -> str:
    try:
        datetime.strptime(text, _TIMESTAMP_FORMAT)  # noqa: DTZ007 - only its validity matters, Z is part of the format
    except ValueError:
        raise UnknownError from None
    return text


def _selector(params: Params, spec: ListSpec, query: ListQuery, faults: list[str]) -> None:
    if "label_selector" not in params or "label_selector" not in spec.keys:
        return
    value = params["label_selector"]
    if not isinstance(value, str):
        raise UnknownError
    try:
        query.selector = parse_selector(value)
    except SelectorError as error:
        faults.append(str(error))
    query.href_parameters.append(("label_selector", value))


def _lists(params: Params, spec: ListSpec, query: ListQuery, faults: list[str]) -> None:
    for key in spec.lists:
        value = params.get(key)
        if value is None:
            continue
        if isinstance(value, dict):
            faults.append(f"{key.capitalize().replace('_', ' ')} must be an array")
            continue
        text = _inspect(value) if isinstance(value, list) else value
        if "\0" in text:
            raise UnknownError
        raw = _LIST_COMMA.split(text)
        query.filters[key] = frozenset(unquote(each) for each in raw)
        query.href_parameters.append((key, ",".join(raw)))


def _inspect(values: list[Param]) -> str:
    """A list as Ruby prints it: what the Cloud Controller makes of `guids[]=…`."""
    return "[" + ", ".join(f'"{value}"' for value in values) + "]"
