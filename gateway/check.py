"""`gateway check`: everything about the settings that can be tested before serving."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.app import Gateway
from gateway.assembly import route_table

if TYPE_CHECKING:
    from gateway.settings import Settings


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what.
        passed: whether it is as it should be.
        detail: what was found.
    """

    name: str
    passed: bool
    detail: str

    def __str__(self) -> str:
        return f"{'ok  ' if self.passed else 'FAIL'}  {self.name}: {self.detail}"


async def check_all(settings: Settings) -> list[Finding]:
    """Look at the route table, the keys, the controller and its advertised origin.

    Args:
        settings: valid settings; nothing is listened on.
    """
    table = route_table(settings)
    findings = [
        Finding("settings", passed=True, detail=f"{len(table.rows)} routes, {len(settings.routes)} of them in the file")
    ]
    findings += [Finding("route table", passed=False, detail=conflict) for conflict in table.conflicts()]
    gateway = Gateway(settings)
    await gateway.client.start()
    try:
        await gateway.identity.start()
        findings.append(_reached("keys", gateway.identity.fault, gateway.identity.summary()))
        await gateway.probe.ask()
        findings.append(_reached("upstream", gateway.probe.fault, f"{settings.upstream.url} answers"))
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
    return Finding(name, fault is None, fault or found)
