"""What several gateway processes have in common, built from the settings: link, pages, the counters' way, notices.

Without `shared_store` in the settings there is nothing of it, a process is alone, and this module is not imported, nor
the client of the store with it (`assembly.sharing`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.limits.reporter import Reporter
from gateway.limits.shared import SharedCounters
from gateway.shared.board import Board
from gateway.shared.link import Link
from gateway.shared.options import Options, Tls
from gateway.shared.seal import Sealer
from gateway.store.invalidations import Invalidations
from gateway.store.shared import SharedPages
from gateway.telemetry.structured import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.core.rate_policy import RatePolicy
    from gateway.settings.shared_store import SharedStore
    from gateway.shared.options import Fault
    from gateway.store.memory import MemoryStore


class Sharing:
    """The shared store as one gateway process sees it.

    Args:
        given: its section of the settings.
        local: the pages of this process.
        rules: what pages are made by; processes with other rules share no pages.
        clock: epoch seconds.
    """

    def __init__(self, given: SharedStore, local: MemoryStore, rules: bytes, clock: Callable[[], float]) -> None:
        self._log: Final = structlog.get_logger("gateway")
        self._url: Final = given.url
        self.given: Final = given
        key = given.hmac_key.get_secret_value().encode()
        self.sealer: Final = Sealer(key, given.namespace)
        self.link: Final = Link(options(given), probe_key=f"{{{given.namespace}}}:probe", changed=self._changed)
        self.invalidations: Final = Invalidations(
            self.link, self.sealer, given.namespace, local.invalidate, lease=given.lease, grace=given.grace
        )
        self.pages: Final = SharedPages(
            local,
            self.link,
            self.sealer,
            given.namespace,
            rules,
            invalidations=self.invalidations,
            clock=clock,
            max_staleness=given.max_staleness,
            max_page_bytes=given.max_page_bytes,
            collapse_wait=given.collapse_wait,
        )
        self.board: Final = Board(
            self.link,
            self.sealer,
            given.namespace,
            kinds=("keys", "origin"),
            wait=given.collapse_wait,
            clock=clock,
        )
        self.reporter: Final = Reporter(
            self.link, self.sealer, given.namespace, clock=clock, processes=lambda: self.processes
        )

    def counters(self, policies: Sequence[RatePolicy], *, max_buckets: int) -> SharedCounters:
        """Counters of these policies that count for all processes."""
        return SharedCounters(policies, self.reporter, max_buckets=max_buckets, lease=float(self.given.counter_lease))

    async def start(self) -> None:
        """Connect; a store that is away is no reason not to start."""
        await self.link.start()
        await self.reporter.start()
        await self.invalidations.start()

    async def stop(self) -> None:
        """Say farewell and close."""
        await self.pages.drain()
        await self.board.drain()
        await self.reporter.stop()
        await self.invalidations.stop()
        await self.link.stop()

    @property
    def processes(self) -> int:
        """Among how many a limit is split."""
        return max(self.given.processes, self.invalidations.lease.processes)

    def _changed(self, fault: Fault | None) -> None:
        if fault is None:
            self._log.info("shared store in use", url=self._url)
        else:
            self._log.warning("shared store away: each process for itself", url=self._url, reason=fault.value)


def options(given: SharedStore) -> Options:
    """How to reach the store of these settings."""
    tls = given.tls
    return Options(
        nodes=given.addresses,
        unix_path=given.unix_path,
        mode=given.stands,
        database=given.database,
        sentinel_master=given.sentinel_master or "",
        sentinel_username=given.sentinel_username,
        sentinel_password=given.sentinel_password.get_secret_value() if given.sentinel_password else None,
        username=given.username,
        password=given.password.get_secret_value() if given.password else None,
        tls=Tls(*(None if path is None else str(path) for path in (tls.ca_file, tls.cert_file, tls.key_file)))
        if given.encrypted
        else None,
        connect_timeout=given.connect_timeout,
        max_added_latency=given.max_added_latency,
    )
