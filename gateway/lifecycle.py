"""Reloads and workers, as logs and metrics tell them: of one process, or by the supervisor of several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway.settings.changes import Reloaded
    from gateway.telemetry.structured import structlog


class Reloads(Protocol):
    """What became of reloads."""

    successful: bool
    succeeded_at: float
    waiting: tuple[str, ...]

    @property
    def results(self) -> Mapping[str, int]:
        """How many ended in each way."""


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


def tell(log: structlog.typing.FilteringBoundLogger, outcome: Reloaded) -> None:
    """Log what became of a reload; what of it is not in force, apart and louder."""
    if not outcome.reloaded:
        log.error("reload refused", faults=outcome.faults)
        return
    log.info("reloaded", changed=outcome.changed, needs_restart=outcome.needs_restart)
    if outcome.needs_restart:
        log.warning("restart required", keys=outcome.needs_restart)


def observe_lifecycle(observe: Callable[..., None], *, reloads: Reloads, workers: Workers) -> tuple[str, ...]:
    """Expose what became of reloads and of workers: by a gateway that is one process, or by the supervisor of several.

    Args:
        observe: takes name, help, a function that reads the value, a label name for several values, and `merge`.
        reloads: their state.
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
