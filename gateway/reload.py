"""New settings for a running gateway: read, judged, built, and only then put in force, in one step of the event loop.

The law: a reload that fails has changed nothing. Everything that can fail is built before the first part is replaced;
what replaces it does not wait. Requests under way keep the row and the links they have; listeners, connections, pages
and buckets stay.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from gateway import assembly, derived
from gateway.core.invalidation import EVERYTHING
from gateway.derived import rules_of
from gateway.edge.tls import TlsError
from gateway.identity.keys import KeyLoadError
from gateway.lifecycle import Reloads
from gateway.lint import refused
from gateway.settings import ConfigError
from gateway.settings.changes import Reloaded, changed, in_force, reloadable

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from gateway.app import Gateway
    from gateway.core.routes import RouteTable
    from gateway.settings import Settings


class ReloadError(Exception):
    """The new settings cannot be put in force; the operator's fault.

    Attributes:
        faults: why, each a line.
    """

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self.faults: Final = faults


class Reloader:
    """Reloads one gateway's settings, one at a time.

    Args:
        gateway: a running gateway.
        source: reads the settings, None when there is no file; may raise ConfigError.
        clock: epoch seconds.

    Attributes:
        reloads: what became of them.
    """

    def __init__(self, gateway: Gateway, source: Callable[[], Settings] | None, clock: Callable[[], float]) -> None:
        self._gateway: Final = gateway
        self._source: Final = source
        self._turn: Final = asyncio.Lock()
        self._tasks: Final[set[asyncio.Task[object]]] = set()
        self.reloads: Final = Reloads(gateway.log, clock)

    def begin(self) -> None:
        """Reload behind; what became of it is in the log and in metrics."""
        self._behind(self.reload())

    async def reload(self) -> Reloaded:
        """Read the file again and put in force what can be."""
        async with self._turn:
            outcome = await self._reload()
        self.reloads.note(outcome)
        return outcome

    async def answer(self) -> tuple[int, object]:
        """For `POST /-/reload`: 200, or 422 when the old settings stay."""
        outcome = await self.reload()
        return (200 if outcome.reloaded else 422), asdict(outcome)

    async def stop(self) -> None:
        """Wait for a reload under way, and for parts that were replaced and are still in use."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _reload(self) -> Reloaded:
        if self._source is None:
            return Reloaded(reloaded=False, faults=("these settings are from no file",))
        try:
            new = self._source()
            _refuse_leaks(new)
            return await self._apply(new)
        except ConfigError as error:
            faults = tuple(str(fault) for fault in error.faults)
        except KeyLoadError as error:
            faults = (f"auth.keys: {error}",)
        except TlsError as error:
            faults = (str(error),)
        except ReloadError as error:
            faults = error.faults
        return Reloaded(reloaded=False, faults=faults)

    async def _apply(self, new: Settings) -> Reloaded:
        gateway, old = self._gateway, self._gateway.settings
        differing = changed(old, new)
        settings = in_force(old, new)
        routes, limits, outgoing = (
            derived.route_table(settings),
            assembly.rate_limits(settings, gateway.sharing),
            assembly.outgoing(settings),
        )
        if (gateway.origins is None) != (assembly.origins(settings, gateway.client) is None):
            raise ReloadError("upstream.advertised_urls: with route_table none, links or none needs a restart")
        gateway.doors.check()
        renew = gateway.client.renewed()
        identity = assembly.identity(settings, gateway.sharing)
        judged_otherwise = old.auth != settings.auth or not identity.alike(gateway.identity)
        if judged_otherwise:
            await gateway.identity.prepare(identity)
        # From here on nothing fails and nothing waits.
        renew()
        if judged_otherwise:
            self._behind(gateway.identity.adopt(identity))
        if limits is not None and gateway.limits is not None:
            limits[0].succeed(gateway.limits[0])
            limits[1].succeed(gateway.limits[1])
        links = (old.public_url, old.upstream.advertised_urls) != (
            settings.public_url,
            settings.upstream.advertised_urls,
        )
        if links and gateway.origins is not None:
            gateway.origins.reconfigure(public_url=settings.public_url, configured=settings.upstream.advertised_urls)
        otherwise_kept = links or _kept(routes) != _kept(gateway.routes)
        gateway.reconfigure(settings, routes, limits, outgoing)
        if otherwise_kept:
            # Pages hold links, times and sharing of the old rules, and so will those under way.
            if gateway.sharing is not None:
                gateway.sharing.pages.rules = rules_of(settings)
            gateway.pages.invalidate((EVERYTHING,))
        return Reloaded(
            reloaded=True,
            changed=tuple(path for path in differing if reloadable(path)),
            needs_restart=tuple(path for path in differing if not reloadable(path)),
        )

    def _behind(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _refuse_leaks(settings: Settings) -> None:
    leaks = tuple(f"{doubt.key}: {doubt.detail}" for doubt in refused(settings))
    if leaks:
        raise ReloadError(*leaks)


def _kept(routes: RouteTable) -> frozenset[object]:
    """How the rows of a table have pages made and kept."""
    return frozenset((row.methods, row.template, row.cache, row.rewrite) for row in routes.rows)
