"""`gateway check`: everything about the settings that can be tested before serving.

What can be judged without the network is in `lint.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gateway.app import Gateway
from gateway.derived import route_table
from gateway.lint import doubts

if TYPE_CHECKING:
    from gateway.settings import Settings


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what: a part of the gateway, or the rule that found it.
        level: "ok", "note", "warning", "error" (`gateway run` refuses it) or "fail" (it does not work now).
        detail: what was found.
        key: where in the settings; None for what was found outside of them.
    """

    name: str
    level: str
    detail: str
    key: str | None = None

    @property
    def passed(self) -> bool:
        """Whether it can stay as it is."""
        return self.level in {"ok", "note"}

    def __str__(self) -> str:
        return f"{_MARKS[self.level]:<5} {self.name}: {self.detail}"


_MARKS: Final = {"ok": "ok", "note": "note", "warning": "WARN", "error": "ERROR", "fail": "FAIL"}


def check_settings(settings: Settings) -> list[Finding]:
    """What can be judged without the network.

    Args:
        settings: valid settings.
    """
    found = f"{len(route_table(settings).rows)} routes, {len(settings.routes)} rows of the file"
    return [
        Finding("settings", "ok", found),
        *(Finding(doubt.rule, doubt.level.value, doubt.detail, doubt.key) for doubt in doubts(settings)),
    ]


async def check_reach(settings: Settings) -> list[Finding]:
    """Look at the keys, the controller and its advertised origin.

    Args:
        settings: valid settings; nothing is listened on.

    Raises:
        KeyLoadError: a key file or secret cannot be used.
    """
    findings: list[Finding] = []
    gateway = Gateway(settings)
    await gateway.client.start()
    try:
        await gateway.identity.start()
        findings.append(_reached("keys", gateway.identity.fault, gateway.identity.summary()))
        await gateway.probe.ask()
        findings.append(_reached("upstream", gateway.probe.fault, f"{', '.join(settings.upstream.origins)} answers"))
        if gateway.origins is not None:
            await gateway.origins.start()
            learnt = "configured" if settings.upstream.advertised_urls else "learnt from GET /"
            found = f"{', '.join(gateway.origins.known)} ({learnt}) -> {settings.public_url}"
            findings.append(_reached("advertised origin", gateway.origins.fault, found))
            await gateway.origins.stop()
    finally:
        await gateway.identity.stop()
        await gateway.client.stop()
    return findings


def _reached(name: str, fault: str | None, found: str) -> Finding:
    return Finding(name, "ok" if fault is None else "fail", fault or found)
