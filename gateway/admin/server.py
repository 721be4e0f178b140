"""/metrics, /healthz, /readyz, the status page, what an operator may have done: a listener of their own.

Knows no part of the gateway: it is given a registry to expose, checks to ask and actions to take. An action asks for a
field that no page of another site can send without asking first, and for the lack of one that every page sends.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from aiohttp import web
from prometheus_client.exposition import choose_encoder

from gateway.admin.decisions import add_decisions
from gateway.admin.status import add_status

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from prometheus_client import CollectorRegistry

    from gateway.admin.decisions import Newest

Check = "Callable[[], str | None]"


Action: TypeAlias = "Callable[[], Awaitable[tuple[int, object]]]"
"""Does something; gives a status and what to say of it in JSON."""

HEADER: Final = "X-Gateway-Admin"


def application(
    registry: CollectorRegistry,
    checks: Mapping[str, Callable[[], str | None]],
    *,
    status: Callable[[], Mapping[str, Any]] | None = None,
    actions: Mapping[str, Action] | None = None,
    mounted: Mapping[str, web.Application] = MappingProxyType({}),
    decisions: Newest | None = None,
) -> web.Application:
    """The admin application.

    Args:
        registry: the metrics to expose.
        checks: readiness checks by name; each says what is wrong, or None.
        status: makes the numbers of the status page; None for no such page.
        actions: what `POST /-/<name>` does.
        mounted: what else is served, by path.
        decisions: gives recent decisions; None when none are kept.
    """
    handlers: Final = _Handlers(registry, checks)
    app = web.Application()
    app.router.add_get("/metrics", handlers.metrics)
    app.router.add_get("/healthz", handlers.healthz)
    app.router.add_get("/readyz", handlers.readyz)
    if status is not None:
        add_status(app, status)
    for name, action in (actions or {}).items():
        app.router.add_post(f"/-/{name}", _guarded(action))
    for path, other in mounted.items():
        app.add_subapp(path, other)
    if decisions is not None:
        add_decisions(app, decisions)
    return app


def _guarded(action: Action) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handler(request: web.Request) -> web.Response:
        if "Origin" in request.headers or not (HEADER in request.headers or request.content_type == "application/json"):
            fault = f"send {HEADER}: 1 or Content-Type: application/json, and no Origin"
            return web.json_response({"faults": [fault]}, status=403)
        status, content = await action()
        return web.json_response(content, status=status)

    return handler


class _Handlers:
    def __init__(self, registry: CollectorRegistry, checks: Mapping[str, Callable[[], str | None]]) -> None:
        self._registry = registry
        self._checks = checks

    async def metrics(self, request: web.Request) -> web.Response:
        """Prometheus or OpenMetrics text, as the scraper prefers."""
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self._registry), headers={"Content-Type": content_type})

    async def healthz(self, _request: web.Request) -> web.Response:
        """Whether the process answers at all."""
        return web.Response(text="ok\n")

    async def readyz(self, _request: web.Request) -> web.Response:
        """Whether clients should be sent here: 200, or 503 with what is wrong."""
        faults = {name: fault for name, check in self._checks.items() if (fault := check()) is not None}
        return web.json_response({"ready": not faults, "faults": faults}, status=503 if faults else 200)
