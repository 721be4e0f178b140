"""Request bodies: parsing as Rails does, and validation with the Cloud Controller's messages (422, code 10008).

Turns bodies into checked values; changes nothing. Every message of a body is reported at once.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from gateway.sandbox.errors import UnknownError, unparsable_body, unprocessable
from gateway.sandbox.labels import annotation_fault, key_fault, value_fault
from gateway.sandbox.params import parse as parse_form

if TYPE_CHECKING:
    from gateway.sandbox.world import App, HealthCheck, Organization, Process, Space

COMMAND_LIMIT: Final = 4096
DISK_LIMIT_MB: Final = 8192
INT_MAX: Final = 2_147_483_647

_NUMERIC: Final = re.compile(r"\s*[+-]?\d+(\.\d+)?\s*")
_CHECK_TYPES: Final = ("port", "process", "http")


def parse_body(raw: bytes, content_type: str) -> dict[str, Any]:
    """The parameters of a body: a form's, or an object's members, another JSON value under `_json`, else nothing.

    Raises:
        CloudControllerError: 400 when it says JSON and is none.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/x-www-form-urlencoded":
        return dict(parse_form(raw.decode("utf-8", "replace")))
    if kind != "application/json" or not raw.strip():
        return {}
    try:
        value = json.loads(raw.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise unparsable_body() from None
    return value if isinstance(value, dict) else {"_json": value}


def _no_constant(name: str) -> None:
    raise ValueError(name)


def require_known(body: dict[str, Any], *known: str) -> list[str]:
    """The message about members that are not known, if any."""
    unknown = [f"'{key}'" for key in body if key not in known]
    return [f"Unknown field(s): {', '.join(unknown)}"] if unknown else []


def refuse(faults: list[str]) -> None:
    """Raise 422 when there are faults."""
    if faults:
        raise unprocessable(*faults)


@dataclass(frozen=True, slots=True)
class Metadata:
    """Checked changes of labels and annotations; None deletes a key."""

    labels: dict[str, str | None] = field(default_factory=dict)
    annotations: dict[str, str | None] = field(default_factory=dict)

    def apply(self, owner: Process | App | Space | Organization) -> None:
        """Merge the changes into a resource."""
        for changes, kept in ((self.labels, owner.labels), (self.annotations, owner.annotations)):
            for key, value in changes.items():
                if value is None:
                    kept.pop(key, None)
                else:
                    kept[key] = value


def metadata(body: dict[str, Any], faults: list[str]) -> Metadata:
    """The `metadata` member of a body."""
    given = body.get("metadata", {})
    if not isinstance(given, dict):
        faults.append("Metadata must be an object")
        return Metadata()
    labels, annotations = given.get("labels") or {}, given.get("annotations") or {}
    for kind, pairs, check in (("label", labels, value_fault), ("annotation", annotations, annotation_fault)):
        if not isinstance(pairs, dict):
            faults.append(f"Metadata '{kind}s' is not an object")
            continue
        for key, value in pairs.items():
            if fault := key_fault(key):
                faults.append(f"Metadata {kind} key error: {fault}")
            if value is not None and (fault := check(str(value))):
                faults.append(f"Metadata {kind} value error: {fault}")
    return Metadata(labels, annotations)


@dataclass(frozen=True, slots=True)
class Scale:
    """A checked scale request; None leaves a value as it is."""

    instances: int | None = None
    memory_in_mb: int | None = None
    disk_in_mb: int | None = None
    log_rate_limit: int | None = None


_SCALE: Final = (
    ("instances", "Instances", 0),
    ("memory_in_mb", "Memory in mb", 1),
    ("disk_in_mb", "Disk in mb", 1),
    ("log_rate_limit_in_bytes_per_second", "Log rate limit in bytes per second", -1),
)


def scale(body: dict[str, Any]) -> Scale:
    """The body of `actions/scale`."""
    faults = require_known(body, *(name for name, _, _ in _SCALE))
    values = [_integer(body[name], label, least, faults) if name in body else None for name, label, least in _SCALE]
    refuse(faults)
    disk = values[2]
    if disk is not None and disk > DISK_LIMIT_MB:
        raise unprocessable(
            f"disk_quota too much disk requested (requested {disk} MB - must be less than {DISK_LIMIT_MB} MB)"
        )
    return Scale(*values)


def _integer(value: Any, label: str, least: int, faults: list[str]) -> int | None:
    if value is None:
        raise UnknownError
    if isinstance(value, str) and _NUMERIC.fullmatch(value):
        value = float(value) if "." in value else int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        faults.append(f"{label} is not a number")
    elif isinstance(value, float) and not value.is_integer():
        faults.append(f"{label} must be an integer")
    elif value < least:
        bound = "greater than 0" if least == 1 else f"greater than or equal to {least}"
        faults.append(f"{label} must be {bound}")
    elif value > INT_MAX:
        faults.append(f"{label} must be less than or equal to {INT_MAX}")
    else:
        return int(value)
    return None


@dataclass(frozen=True, slots=True)
class ProcessUpdate:
    """A checked change of a process; `has_command` tells a null command from none."""

    has_command: bool
    command: str | None
    health_check: HealthCheck
    readiness_check: HealthCheck
    metadata: Metadata


def process_update(body: dict[str, Any], process: Process) -> ProcessUpdate:
    """The body of PATCH on a process."""
    faults = require_known(body, "command", "health_check", "readiness_health_check", "metadata")
    command = body.get("command")
    if command is not None and not isinstance(command, str):
        faults.append("Command must be a string")
    elif command is not None and not 1 <= len(command) <= COMMAND_LIMIT:
        faults.append(f"Command must be between 1 and {COMMAND_LIMIT} characters")
    health = _check(body.get("health_check"), process.health_check, "Health check", faults)
    readiness = _check(body.get("readiness_health_check"), process.readiness_check, "Readiness health check", faults)
    changes = metadata(body, faults)
    refuse(faults)
    return ProcessUpdate("command" in body, command, health, readiness, changes)


def _check(given: Any, current: HealthCheck, label: str, faults: list[str]) -> HealthCheck:
    if given is None:
        return current
    if not isinstance(given, dict):
        faults.append(f"{label} must be an object")
        return current
    kind, data = given.get("type", current.type), given.get("data") or {}
    if kind not in _CHECK_TYPES:
        faults.append(f'{label} type must be "port", "process", or "http"')
    known = {key: value for key, value in data.items() if key in ("timeout", "invocation_timeout", "interval")}
    for key, value in known.items():
        name = key.replace("_", " ")
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            faults.append(f"{label} {name} is not a number")
        elif value is not None and value < 1:
            faults.append(f"{label} {name} must be greater than or equal to 1")
    endpoint = data.get("endpoint", current.endpoint)
    if "endpoint" in data and (not isinstance(endpoint, str) or not endpoint.startswith("/") or " " in endpoint):
        faults.append(f"{label} endpoint must be a valid URI path")
    return replace(current, type=kind, endpoint=endpoint if kind == "http" else None, **known)


def related_guid(body: dict[str, Any], name: str) -> str | None:
    """`relationships.<name>.data.guid` of a body, or None."""
    value: Any = body
    for key in ("relationships", name, "data", "guid"):
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, str) else None
