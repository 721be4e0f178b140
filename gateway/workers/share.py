"""What one of several workers gets of settings that speak of the whole gateway."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.settings import Settings


def count(settings: Settings) -> int:
    """How many processes these settings ask for: `auto` is one for each processor that this one may use."""
    if settings.workers:
        return settings.workers
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share(settings: Settings, workers: int) -> Settings:
    """The settings of one worker: its part of memory, connections and, as nobody adds up the counts, of limits.

    Args:
        settings: of the whole gateway.
        workers: among how many.
    """
    cache, upstream, limits = settings.cache, settings.upstream, settings.rate_limits
    pages = cache.max_bytes // workers
    updates = {
        "cache": cache.model_copy(update={"max_bytes": pages, "max_entry_bytes": min(cache.max_entry_bytes, pages)}),
        "concurrency": settings.concurrency.part(workers),
        "upstream": upstream.model_copy(update={"connections": _part(upstream.connections, workers)}),
    }
    if getattr(settings, "shared_store", None) is None:
        failures = limits.failed_authentications
        updates["rate_limits"] = limits.model_copy(
            update={
                "policies": tuple(
                    policy.model_copy(
                        update={
                            "limit": _part(policy.limit, workers),
                            "burst": None if policy.burst is None else _part(policy.burst, workers),
                        }
                    )
                    for policy in limits.policies
                ),
                "failed_authentications": None
                if failures is None
                else failures.model_copy(update={"limit": _part(failures.limit, workers)}),
            }
        )
    return settings.model_copy(update=updates)


def _part(whole: int, workers: int) -> int:
    return max(1, whole // workers)
