"""Log lines in syslog's form (RFC 5424), with structured data under Cloud Foundry's enterprise number.

Whatever a value holds, a line stays one line: control characters are written as escapes.
"""

from __future__ import annotations

import os
import re
import socket
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import MutableMapping

_FACILITY: Final = 1  # user-level messages (§6.2.1), as Cloud Foundry's components have it
_SEVERITY: Final = {"critical": 2, "error": 3, "exception": 3, "warning": 4, "info": 6, "debug": 7}
_DATA_ID: Final = "gateway@47450"  # §7.2.2; 47450 is Cloud Foundry's
_NOT_IN_NAME: Final = re.compile(r"[^!#-<>-\\^-~]")  # PRINTUSASCII less '"', '=', ']' (§6.3.3)
_ESCAPED: Final = re.compile(r'["\\\]]')  # §6.3.3
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


class SyslogRenderer:
    """A structlog processor that makes the line. Expects `timestamp` and `level` in the event."""

    def __init__(self) -> None:
        host = re.sub(r"[^!-~]", "", socket.gethostname())[:255] or "-"
        self._origin: Final = f"{host} gateway {os.getpid()}"

    def __call__(self, _logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
        """The line for an event."""
        level, time = str(event.pop("level", "info")), str(event.pop("timestamp", "-"))
        text, cause = str(event.pop("event", "")), event.pop("exception", None)
        identity = "access" if "request_id" in event and "route" in event else "-"
        data = "".join(
            f' {_NOT_IN_NAME.sub("_", name)[:32]}="{_value(value)}"'
            for name, value in event.items()
            if value is not None
        )
        message = _CONTROL.sub(_escape, text if cause is None else f"{text}\n{cause}")
        structured = f"[{_DATA_ID}{data}]" if data else "-"
        return f"<{_FACILITY * 8 + _SEVERITY.get(level, 6)}>1 {time} {self._origin} {identity} {structured} {message}"


def _value(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return _CONTROL.sub(_escape, _ESCAPED.sub(r"\\\g<0>", text))


def _escape(match: re.Match[str]) -> str:
    """A control character by its octal number, as syslog daemons write it."""
    return f"#{ord(match[0]):03o}"
