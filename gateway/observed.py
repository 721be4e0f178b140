"""Which state of which part is a metric: read when Prometheus asks, so that the parts need not know of metrics."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from gateway.lifecycle import observe_lifecycle
from gateway.telemetry import log
from gateway.upstreams import observe_gate

if TYPE_CHECKING:
    from gateway.app import Gateway
    from gateway.settings import Settings


def observe_parts(gateway: Gateway) -> None:
    """Expose the state of every part of a gateway through its metrics."""
    observe = gateway.metrics.observe
    _cache(gateway)
    _compression(gateway)
    pipeline = gateway.pipeline
    jobs = pipeline.writes.jobs
    observe("gateway_jobs_watched", "Jobs that the gateway asks for until they are over.", lambda: len(jobs))
    observe(
        "gateway_job_watches_total",
        "Jobs watched no more, by how that ended: ended, seen (a client's poll told first), missing; given up: "
        "timeout, token-expired, unauthorized; never watched: crowded; cut short: stopped.",
        lambda: jobs.ends,
        "result",
    )
    gateway.identity.observe(observe)
    gateway.client.observe(gateway.metrics)
    observe_gate(gateway.gate, gateway.metrics)
    _limits(gateway)
    _edge(gateway)
    observe_lifecycle(observe, reloads=gateway.reloader.reloads, workers=_Alone())
    _sharing(gateway)
    _doors(gateway)
    observe(
        "gateway_log_lines_lost_total",
        "Lines that could not be written to standard error: a full disk, a reader that has gone.",
        log.lost,
    )
    observe(
        "gateway_config_info",
        "Always 1; the labels say which settings are in force: the first digits of the SHA-256 of their redacted form.",
        lambda: _in_force(gateway.settings),
        ("sha256", "route_table"),
        merge="max",
    )


def _in_force(settings: Settings) -> dict[tuple[str, ...], float]:
    return {(fingerprint(settings), settings.route_table): 1.0}


def fingerprint(settings: Settings) -> str:
    """Which settings these are, in 12 hexadecimal digits; secrets have no part in it."""
    text = json.dumps(settings.redacted(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _cache(gateway: Gateway) -> None:
    observe, store, pipeline, drift = gateway.metrics.observe, gateway.store, gateway.pipeline, gateway.drift
    observe("gateway_cache_entries", "Pages stored.", lambda: len(store))
    observe("gateway_cache_bytes", "Bytes counted against cache.max_bytes.", lambda: store.bytes)
    observe("gateway_cache_max_bytes", "The setting cache.max_bytes.", lambda: gateway.settings.cache.max_bytes)
    observe(
        "gateway_cache_domains",
        "Visibility domains that have pages stored, by kind: public, anonymous, global (all who see everything) or "
        "principal.",
        lambda: store.domains,
        "kind",
    )
    observe(
        "gateway_cache_evictions_total",
        "Pages that gave way to others, by why: probation (nobody asked for it again), settled (asked for, but not "
        "lately), share (its principal had more than cache.max_domain_share).",
        lambda: store.evictions,
        "reason",
    )
    observe(
        "gateway_cache_invalidations_total",
        "Pages dropped by writes, by resource type (* for all, uri for a target in mode origin).",
        lambda: store.invalidations,
        "resource",
    )
    observe(
        "gateway_cache_purged_total",
        "Pages purged by an operator: hard (dropped) or soft (made stale).",
        lambda: gateway.inspector.purged,
        "mode",
    )
    observe(
        "gateway_cache_refreshes_total",
        "Fetches of pages behind answers, by how they ended: stored, not-stored (answered, but not with a page to "
        "keep), failed.",
        lambda: pipeline.refreshes,
        "result",
    )
    observe(
        "gateway_cache_drift_checks_total",
        "Hits whose page was fetched anew and compared (cache.drift_sample), by result: same, differs, overtaken (by "
        "a write through this gateway), not-stored, failed.",
        lambda: drift.checks,
        "result",
    )
    observe(
        "gateway_cache_drift_age_seconds_total", "The ages of the pages that differed, added up.", lambda: drift.age
    )


def _compression(gateway: Gateway) -> None:
    observe, compressor = gateway.metrics.observe, gateway.compressor
    observe(
        "gateway_cache_compressions_total",
        "Encoded forms of pages that clients would have liked, by what came of it: made, not-worth-it (hardly "
        "smaller), no-room (in the cache), overtaken (the page went first), crowded (too many wait).",
        lambda: compressor.results,
        ("coding", "result"),
    )
    observe(
        "gateway_cache_compression_seconds_total",
        "Time spent making encoded forms, beside the event loop.",
        lambda: compressor.seconds,
        "coding",
    )
    observe(
        "gateway_cache_compression_bytes_total",
        "Bytes of pages that were encoded (in) and of their encoded forms (out).",
        lambda: compressor.sizes,
        ("coding", "side"),
    )


def _limits(gateway: Gateway) -> None:
    observe = gateway.metrics.observe
    observe(
        "gateway_upstream_budget_ratio",
        "The least share of the controller's own rate limit that any principal has left; 1 when it says nothing.",
        gateway.budget.least,
        merge="min",
    )
    observe(
        "gateway_upstream_budget_spared_total",
        "Requests answered from a stale page because less than a tenth was left.",
        lambda: gateway.budget.spared,
    )
    observe(
        "gateway_ratelimit_decisions_total",
        "What rate policies decided: allowed or limited; in mode shadow what they would have. Of "
        "failed_authentications: failures, and tokens refused unverified.",
        lambda: {} if gateway.limits is None else gateway.limits[0].decisions(),
        ("policy", "decision", "mode"),
    )
    observe(
        "gateway_ratelimit_buckets",
        "Buckets kept, i.e. whose owner asked lately, by policy.",
        lambda: {} if gateway.limits is None else gateway.limits[1].buckets(),
        "policy",
    )
    observe(
        "gateway_ratelimit_evictions_total",
        "Buckets forgotten before they were full again: rate_limits.max_buckets is too small, or somebody has many "
        "addresses.",
        lambda: {} if gateway.limits is None else gateway.limits[1].evictions(),
        "policy",
    )


def _edge(gateway: Gateway) -> None:
    observe, wheel = gateway.metrics.observe, gateway.wheel
    observe("gateway_connections", "Connections of clients that are open.", lambda: len(wheel))
    observe(
        "gateway_connections_ended_total",
        "Connections of clients that the gateway ended, by why: idle, head-timeout, head-too-large, content-stalled, "
        "answer-stalled, request-timeout; or turned away: full, address-full (docs/edge.md).",
        lambda: wheel.endings,
        "reason",
    )


class _Alone:
    configured, up, restarts = 1, 1, 0


def _doors(gateway: Gateway) -> None:
    observe, doors = gateway.metrics.observe, gateway.doors
    observe(
        "gateway_connections_refused_total",
        "Connections that came to no HTTP, by why: tls (no handshake), proxy-protocol (its header is malformed, "
        "missing, late or not from a trusted peer), crowded (too many at once before HTTP), exhausted (no descriptors "
        "or memory; accepted later).",
        doors.refused,
        "reason",
    )
    observe(
        "gateway_tls_certificate_expiry_timestamp_seconds",
        "When the certificate of a listener expires, by listener: listen, admin.",
        doors.expiries,
        "listener",
        merge="min",
    )
    observe(
        "gateway_tls_certificate_changes_total",
        "Certificates whose files had changed: applied, or refused because they cannot be used.",
        doors.exchanges,
        "result",
    )


def _sharing(gateway: Gateway) -> None:
    observe, shared = gateway.metrics.observe, gateway.sharing
    observe(
        "gateway_shared_store_up",
        "1 while the shared store is asked, 0 while it is away; 1 without shared_store.",
        lambda: float(shared is None or shared.link.fault is None),
        merge="min",
    )
    observe(
        "gateway_shared_store_in_touch",
        "1 while this process knows of all writes through others, 0 while it must not serve what it stored; 1 without "
        "shared_store.",
        lambda: float(shared is None or shared.invalidations.lease.heard()),
        merge="min",
    )
    observe(
        "gateway_shared_store_processes",
        "Processes that share the store, as far as this one knows.",
        lambda: 1 if shared is None else shared.invalidations.lease.processes,
        merge="max",
    )
    observe(
        "gateway_shared_store_commands_total",
        "Commands to the shared store, by how they ended: ok; timeout, unreachable, read-only, denied (it counts as "
        "away from then on); full, refused; open (not sent, for it is away).",
        lambda: {} if shared is None else shared.link.calls,
        "result",
    )
    observe(
        "gateway_shared_store_command_seconds_total",
        "How long commands that were answered took, added up.",
        lambda: 0 if shared is None else shared.link.seconds,
    )
    observe(
        "gateway_shared_store_away_total",
        "How often the shared store was found to be away.",
        lambda: 0 if shared is None else shared.link.opened,
    )
    observe(
        "gateway_shared_store_out_of_touch_total",
        "How often this process could not know of the others' writes any more.",
        lambda: 0 if shared is None else shared.invalidations.lease.lost,
    )
    observe(
        "gateway_shared_store_invalidations_total",
        "Invalidations: announced, unacknowledged (of these, somebody did not say that it has dropped its pages, and "
        "may serve none), unsent (kept until the store is back), purges (told as such); received, missed (everything "
        "was dropped), unreadable (likewise).",
        lambda: {} if shared is None else shared.invalidations.counts,
        "result",
    )
    observe(
        "gateway_shared_store_pages_total",
        "Pages in the shared store. Asked for: hit, waited (for another process to fetch it), miss, void (a write came "
        "after), stale, failed; seal, form, key, clock (no page of ours). Offered: stored, not-stored.",
        lambda: {} if shared is None else shared.pages.counts,
        "result",
    )
    observe(
        "gateway_shared_store_notices_total",
        "What processes tell each other that they have learnt (keys, origin). Looked for: hit, waited (for another "
        "process to learn it), miss, failed; old, and seal, form, clock (no notice of ours). Offered: stored, "
        "not-stored.",
        lambda: {} if shared is None else shared.board.counts,
        ("kind", "result"),
    )
    observe(
        "gateway_shared_store_counter_reports_total",
        "Reports of units given away, by how they ended: answered, failed (sent again).",
        lambda: {} if shared is None else shared.reporter.reports,
        "result",
    )
    observe(
        "gateway_shared_store_own_share_total",
        "Requests that passed a rate limit by this process's own share, since the store had not answered for a lease.",
        lambda: 0 if shared is None else shared.reporter.beyond,
    )
