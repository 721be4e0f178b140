"""Query strings as Rack reads them into nested parameters.

`a=1&a=2` keeps the last, `a[]=1` makes a list, `a[gt]=1` a dictionary, `;` separates like `&`. Knows nothing of what
the parameters mean.
"""

from __future__ import annotations

import re
from typing import Final, TypeAlias
from urllib.parse import unquote_to_bytes

from gateway.sandbox.errors import MalformedQueryError

Param: TypeAlias = "str | list[Param] | dict[str, Param] | None"
Params: TypeAlias = dict[str, Param]

_SEPARATORS: Final = re.compile(r"[&;]")
_NAME: Final = re.compile(r"[\[\]]*([^\[\]]+)\]*")
_LIST_OF_DICTS: Final = re.compile(r"\[\]\[?([^\[\]]+)\]?")
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


def parse(query: str) -> Params:
    """The nested parameters of a raw query string.

    Raises:
        MalformedQueryError: For an escape that is none, text that is not UTF-8 and parameters of conflicting shapes.
    """
    params: Params = {}
    for part in _SEPARATORS.split(query):
        if not part:
            continue
        name, equals, value = part.partition("=")
        _put(params, _decode(name), _decode(value) if equals else None)
    return params


def _decode(text: str) -> str:
    if _BAD_ESCAPE.search(text):
        raise MalformedQueryError
    try:
        return unquote_to_bytes(text.replace("+", " ").encode("utf-8", "surrogateescape")).decode("utf-8")
    except UnicodeError:
        raise MalformedQueryError from None


def _put(params: Params, name: str, value: Param) -> None:
    found = _NAME.match(name)
    if found is None:
        return
    key, rest = found[1], name[found.end() :]
    if rest == "":
        params[key] = value
    elif rest == "[":
        params[name] = value
    elif rest == "[]":
        _list(params, key).append(value)
    elif inner := _LIST_OF_DICTS.fullmatch(rest):
        items = _list(params, key)
        if not items or not isinstance(items[-1], dict) or inner[1] in items[-1]:
            items.append({})
        last = items[-1]
        if isinstance(last, dict):
            _put(last, inner[1], value)
    else:
        child = params.setdefault(key, {})
        if not isinstance(child, dict):
            raise MalformedQueryError
        _put(child, rest, value)


def _list(params: Params, key: str) -> list[Param]:
    items = params.setdefault(key, [])
    if not isinstance(items, list):
        raise MalformedQueryError
    return items
