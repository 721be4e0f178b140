"""Answers that say that there is nothing: which of them are the controller's own word on one resource or one list.

A 404 can come from a router before the controller, or mean that the path is unknown; neither says anything about a
resource (controller.md §2). Reads content, knows no cache.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

# An error body is a few hundred bytes, an empty page hardly more.
_LARGEST: Final = 4096
_RESOURCE_NOT_FOUND: Final = 10010
_UNKNOWN_REQUEST: Final = 10000


class _Error(msgspec.Struct, gc=False):
    code: int


class _Errors(msgspec.Struct, gc=False):
    """An error as v3 words it, or as v2 does."""

    errors: list[_Error] = []
    code: int | None = None
    error_code: str = ""


class _Page(msgspec.Struct, gc=False):
    resources: list[Any]


_ERRORS: Final = msgspec.json.Decoder(_Errors)
_PAGE: Final = msgspec.json.Decoder(_Page)


def says_absent(status: int, body: bytes, *, controllers: bool) -> bool:
    """Whether an answer says that the resource it was asked for is not there, or not there any more.

    Args:
        status: its status code.
        body: its content, JSON.
        controllers: whether it must be in the controller's own words; else any 404 or 410 will do that is not in the
            words for something else.
    """
    if status not in (404, 410) or len(body) > _LARGEST:
        return False
    try:
        said = _ERRORS.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return not controllers
    if said.errors:
        return all(error.code == _RESOURCE_NOT_FOUND for error in said.errors)
    if said.code is not None:
        return (
            said.code != _UNKNOWN_REQUEST and said.error_code.startswith("CF-") and said.error_code.endswith("NotFound")
        )
    return not controllers


def is_empty_page(body: bytes) -> bool:
    """Whether this is a page of a list without rows."""
    if len(body) > _LARGEST:
        return False
    try:
        return not _PAGE.decode(body).resources
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
