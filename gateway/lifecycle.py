"""Reloads and workers as metrics: told by a gateway that is one process, or by the supervisor of several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Reloads(Protocol):
    """What became of reloads."""

    successful: bool
    succeeded_at: float

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
