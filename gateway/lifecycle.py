"""Reloads and workers, as logs and metrics tell them: of one process, or by the supervisor of several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.settings.changes import Reloaded
    from gateway.telemetry.structured import structlog


class Reloads:
    """What became of reloads.

    Args:
        log: is told of each.
        clock: epoch seconds.

    Attributes:
        successful: whether the last one went well, or there was none.
        succeeded_at: when settings were last put in force, epoch seconds.
        waiting: the keys that wait for a restart.
        results: how many ended in each way.
    """

    def __init__(self, log: structlog.typing.FilteringBoundLogger, clock: Callable[[], float]) -> None:
        self._log: Final = log
        self._clock: Final = clock
        self.successful = True
        self.succeeded_at = clock()
        self.waiting: tuple[str, ...] = ()
        self.results: Final = {"applied": 0, "refused": 0}

    def note(self, outcome: Reloaded) -> None:
        """Count and log one; what of it is not in force, apart and louder."""
        self.successful = outcome.reloaded
        self.results["applied" if outcome.reloaded else "refused"] += 1
        if not outcome.reloaded:
            self._log.error("reload refused", faults=outcome.faults)
            return
        self.succeeded_at, self.waiting = self._clock(), outcome.needs_restart
        self._log.info("reloaded", changed=outcome.changed, needs_restart=outcome.needs_restart)
        if outcome.needs_restart:
            self._log.warning("restart required", keys=outcome.needs_restart)


class Workers(Protocol):
    """The processes of a gateway."""

    @property
    def configured(self) -> int:
        """How many there are to be."""

    @property
    def up(self) -> int:
        """How many serve."""

    @property
    def restarts(self) -> int:
        """How many have ended unasked."""


def observe_lifecycle(observe: Callable[..., None], *, reloads: Reloads, workers: Workers) -> tuple[str, ...]:
    """Expose what became of reloads and of workers: by a gateway that is one process, or by the supervisor of several.

    Args:
        observe: takes name, help, a function that reads the value, a label name for several values, and `merge`.
        reloads: what became of them.
        workers: their number.

    Returns:
        The names.
    """
    described: tuple[tuple[str, str, Callable[[], object], str, str], ...] = (
        (
            "gateway_config_last_reload_successful",
            "1 when the last reload went well, or there was none; 0 when it was refused and the settings stay.",
            lambda: float(reloads.successful),
            "",
            "min",
        ),
        (
            "gateway_config_last_reload_success_timestamp_seconds",
            "When settings were last put in force.",
            lambda: reloads.succeeded_at,
            "",
            "min",
        ),
        (
            "gateway_config_restart_required",
            "1 for each key of the settings that was changed in the file, reloaded, and waits for a restart.",
            lambda: dict.fromkeys(reloads.waiting, 1.0),
            "key",
            "max",
        ),
        (
            "gateway_config_reloads_total",
            "Reloads, by how they ended: applied, refused.",
            lambda: reloads.results,
            "result",
            "sum",
        ),
        ("gateway_workers", "Processes that are to serve.", lambda: workers.configured, "", "sum"),
        ("gateway_workers_up", "Processes that serve.", lambda: workers.up, "", "sum"),
        (
            "gateway_worker_restarts_total",
            "Processes that ended unasked and were replaced.",
            lambda: workers.restarts,
            "",
            "sum",
        ),
    )
    for name, text, read, label, merge in described:
        observe(name, text, read, label, merge=merge)
    return tuple(name for name, *_ in described)
