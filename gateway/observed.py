"""Which state of which part is a metric: read when Prometheus asks, so that the parts need not know of metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.app import Gateway


def observe_parts(gateway: Gateway) -> None:
    """Expose the state of every part of a gateway through its metrics."""
    observe, store = gateway.metrics.observe, gateway.store
    observe("gateway_cache_entries", "Pages stored.", lambda: len(store))
    observe("gateway_cache_bytes", "Bytes counted against the cache's budget.", lambda: store.bytes)
    observe(
        "gateway_cache_evictions_total", "Pages that gave way to others, by why.", lambda: store.evictions, "reason"
    )
    observe(
        "gateway_cache_invalidations_total",
        "Pages dropped by writes, by resource type.",
        lambda: store.invalidations,
        "resource",
    )
    pipeline = gateway.pipeline
    observe(
        "gateway_cache_refreshes_total",
        "Refreshes of pages behind answers, by how they ended.",
        lambda: pipeline.refreshes,
        "result",
    )
    jobs = pipeline.writes.jobs
    observe("gateway_jobs_watched", "Jobs that the gateway asks for until they are over.", lambda: len(jobs))
    observe("gateway_job_watches_total", "Jobs watched no more, by how that ended.", lambda: jobs.ends, "result")
    gateway.identity.observe(observe)
    limits = gateway.limits
    observe(
        "gateway_upstream_budget_ratio",
        "The least share of the controller's own rate limit that any principal has left.",
        gateway.budget.least,
    )
    observe(
        "gateway_upstream_budget_spared_total",
        "Requests answered from a stale page to spare it.",
        lambda: gateway.budget.spared,
    )
    observe(
        "gateway_ratelimit_decisions_total",
        "What rate policies decided; in mode shadow what they would have.",
        lambda: {} if limits is None else limits[0].decisions(),
        ("policy", "decision", "mode"),
    )
    observe(
        "gateway_ratelimit_buckets",
        "Buckets kept, by policy.",
        lambda: {} if limits is None else limits[1].buckets(),
        "policy",
    )
    observe(
        "gateway_ratelimit_evictions_total",
        "Buckets forgotten before they were full again.",
        lambda: {} if limits is None else limits[1].evictions(),
        "policy",
    )
