"""What differs between two settings, and what of it a running gateway can take over.

A list of what can: whatever is not on it needs a restart, so that a key added later is never said to be in force while
it is not. Knows nothing of how parts are replaced.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from gateway.settings.section import Section

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.settings.model import Settings

RELOADED: Final = frozenset(
    {
        "auth",
        "drain",
        "drain_delay",
        "limits.body_idle_timeout",
        "limits.head_timeout",
        "limits.max_body_bytes",
        "limits.max_header_bytes",
        "limits.max_header_count",
        "limits.max_line_bytes",
        "limits.min_transfer_rate",
        "limits.request_timeout",
        "listen.keepalive",
        "listen.max_connections",
        "listen.max_connections_per_address",
        "log.access_sample",
        "log.format",
        "log.level",
        "public_url",
        "rate_limits",
        "routes",
        "tracing.sample",
        "trusted_proxies",
        "upstream.advertised_urls",
    }
)
"""Keys, with all below them, that a reload puts in force."""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What became of a reload.

    Attributes:
        reloaded: whether the new settings are in force, apart from what needs a restart.
        changed: keys that differ and are in force now.
        needs_restart: keys that differ and are not.
        faults: why the old settings stay.
    """

    reloaded: bool
    changed: tuple[str, ...] = ()
    needs_restart: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()


_Section = TypeVar("_Section", bound=Section)


def changed(old: Settings, new: Settings) -> tuple[str, ...]:
    """The paths of the keys that differ, in the order of the file's model."""
    return tuple(_differences(old, new, ""))


def reloadable(path: str) -> bool:
    """Whether a running gateway can take a change of this key over."""
    return any(path == key or path.startswith(f"{key}.") for key in RELOADED)


def in_force(old: Settings, new: Settings) -> Settings:
    """The settings after a reload: new where that can be, old where a change waits for a restart."""
    return _merged(old, new, "")


def _differences(old: Section, new: Section, prefix: str) -> Iterator[str]:
    for path, before, after in _pairs(old, new, prefix):
        if isinstance(before, Section) and type(before) is type(after):
            yield from _differences(before, after, f"{path}.")
        elif before != after:
            yield path


def _merged(old: _Section, new: _Section, prefix: str) -> _Section:
    kept: dict[str, Any] = {}
    for path, before, after in _pairs(old, new, prefix):
        name = path.removeprefix(prefix)
        if reloadable(path):
            continue
        if isinstance(before, Section) and type(before) is type(after):
            kept[name] = _merged(before, after, f"{path}.")
        elif before != after:
            kept[name] = before
    return new.model_copy(update=kept)


def _pairs(old: Section, new: Section, prefix: str) -> Iterator[tuple[str, Any, Any]]:
    for name in type(old).model_fields:
        yield prefix + name, getattr(old, name), getattr(new, name)
