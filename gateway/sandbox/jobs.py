"""Asynchronous jobs: what a 202 promises, done after a delay or when told.

A job holds the function that does its work. Knows neither HTTP nor the world; times are given.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gateway.sandbox.world import timestamp

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(slots=True)
class Job:
    """A job.

    Attributes:
        operation: `app.delete`, `space.apply_manifest`, …
        links: Links beside `self`, shown as long as `kept_links` or while it runs.
        kept_links: Whether the links stay after completion (the resource is still there).
        due: Epoch seconds at which the work is done.
    """

    guid: str
    operation: str
    created_at: str
    updated_at: str
    due: float
    work: Callable[[float], None]
    links: dict[str, str] = field(default_factory=dict)
    kept_links: bool = False
    state: str = "PROCESSING"

    def resource(self, url: Callable[[str], str]) -> dict[str, Any]:
        """The job as `GET /v3/jobs/:guid` shows it; `url` makes an absolute href of a path."""
        links: dict[str, Any] = {"self": {"href": url(f"/v3/jobs/{self.guid}")}}
        if self.state == "PROCESSING" or self.kept_links:
            links |= {name: {"href": url(path)} for name, path in self.links.items()}
        return {
            "guid": self.guid,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "operation": self.operation,
            "state": self.state,
            "errors": [],
            "warnings": [],
            "links": links,
        }


class JobBoard:
    """Every job, done and undone.

    Args:
        delay: Seconds between a 202 and the completion of its job; None: only when told.
    """

    def __init__(self, delay: float | None) -> None:
        self.delay = delay
        self.jobs: dict[str, Job] = {}
        self._undone: list[Job] = []

    def add(
        self,
        guid: str,
        operation: str,
        work: Callable[[float], None],
        now: float,
        *,
        links: dict[str, str] | None = None,
        kept_links: bool = False,
    ) -> Job:
        """Accept a job."""
        due = now + self.delay if self.delay is not None else float("inf")
        at = timestamp(now)
        job = Job(guid, operation, at, at, due, work, links or {}, kept_links)
        self.jobs[guid] = job
        self._undone.append(job)
        return job

    def run_due(self, now: float) -> None:
        """Complete every job whose time has come, oldest first."""
        if self._undone:
            self._finish([job for job in self._undone if job.due <= now], now)

    def run_all(self, now: float) -> int:
        """Complete every job at once; returns how many."""
        undone = list(self._undone)
        self._finish(undone, now)
        return len(undone)

    def _finish(self, jobs: list[Job], now: float) -> None:
        for job in jobs:
            self._undone.remove(job)
            job.work(now)
            job.state = "COMPLETE"
            job.updated_at = timestamp(now)
