"""The dashboards about the service: overview, the controller's side, the process."""

from __future__ import annotations

from grafana.build import Page, Panel, Query

R = "[$__rate_interval]"
SLO = 0.001  # the share of requests that may fail
SERVED = 'cache=~"hit|stale|collapsed"'


def quantiles(metric: str, by: str = "", legend: str = "", *, exemplars: bool = False) -> tuple[Query, ...]:
    """Median, 95th and 99th percentile of a histogram, by labels if wanted."""
    labels = f"le, {by}" if by else "le"
    return tuple(
        Query(
            f"histogram_quantile({share}, sum by ({labels}) (rate({metric}_bucket{R})))",
            f"p{name} {legend}".strip(),
            exemplars and name == "99",
        )
        for share, name in ((0.5, "50"), (0.95, "95"), (0.99, "99"))
    )


def failures(window: str) -> str:
    """The share of requests that were answered with 5xx, also when none was."""
    every = f"sum(rate(gateway_requests_total{window}))"
    return f'(sum(rate(gateway_requests_total{{code=~"5.."}}{window})) or 0 * {every}) / {every}'


OVERVIEW = Page(
    "overview",
    "Overview",
    "Is the front door in order, and what does it do for the controller behind it?",
    {
        "Now": (
            Panel(
                "Requests",
                "Requests answered.",
                "reqps",
                (Query(f"sum(rate(gateway_requests_total{R}))"),),
                single=True,
            ),
            Panel(
                "Errors",
                "The share of requests answered with 5xx, by the controller or by the gateway.",
                "percentunit",
                (Query(failures(R)),),
                good=SLO,
                bad=0.01,
                single=True,
            ),
            Panel(
                "Slowest 1 %",
                "Duration that 99 of 100 requests stay below.",
                "s",
                (Query(f"histogram_quantile(0.99, sum by (le) (rate(gateway_request_duration_seconds_bucket{R})))"),),
                single=True,
            ),
            Panel(
                "Error budget left",
                "What is left of the 0.1 % of requests that may fail in 30 days; below 0 it is overspent.",
                "percentunit",
                (Query("min(gateway:slo_budget_left:ratio30d)"),),
                good=0.5,
                bad=0.1,
                single=True,
            ),
            Panel(
                "Hit ratio",
                "Of the requests that a stored page could answer, the share that one did.",
                "percentunit",
                (
                    Query(
                        f"sum(rate(gateway_requests_total{{{SERVED}}}{R}))"
                        f' / sum(rate(gateway_requests_total{{cache=~"hit|stale|collapsed|miss|revalidated"}}{R}))'
                    ),
                ),
                good=0.5,
                bad=0.1,
                single=True,
            ),
            Panel(
                "Controller load saved",
                "The share of answers for which the controller was not asked.",
                "percentunit",
                (
                    Query(
                        f"sum(rate(gateway_cache_requests_avoided_total{R}))"
                        f" / (sum(rate(gateway_cache_requests_avoided_total{R}))"
                        f" + sum(rate(gateway_upstream_request_duration_seconds_count{R})))"
                    ),
                ),
                single=True,
            ),
        ),
        "Rate, errors, duration": (
            Panel(
                "Requests by status",
                "By status code, whoever made the answer.",
                "reqps",
                (Query(f"sum by (code) (rate(gateway_requests_total{R}))", "{{code}}"),),
                stacked=True,
            ),
            Panel(
                "Answers of the gateway's own",
                "Refusals and failures by the name in X-Gateway-Error.",
                "reqps",
                (Query(f"sum by (reason) (rate(gateway_denials_total{R})) > 0", "{{reason}}"),),
                stacked=True,
            ),
            Panel(
                "Duration",
                "From the request head to the last byte of the answer. Dots are recorded traces.",
                "s",
                quantiles("gateway_request_duration_seconds", exemplars=True),
            ),
        ),
        "Service level": (
            Panel(
                "Burn rate",
                "How many times faster than sustainable the error budget is spent. 14.4 over an hour pages, so does 6 "
                "over six hours; 1 over three days is a ticket.",
                "short",
                tuple(
                    Query(f"max(gateway:slo_errors_per_request:ratio_rate{window}) / {SLO}", window)
                    for window in ("1h", "6h", "3d")
                ),
            ),
            Panel(
                "Error budget",
                "What is left of 30 days' budget.",
                "percentunit",
                (Query("min(gateway:slo_budget_left:ratio30d)", "left"),),
                least=None,
                most=1,
            ),
        ),
        "What the controller is spared": (
            Panel(
                "Requests",
                "Answers for which it was asked, and those for which it was not.",
                "reqps",
                (
                    Query(f"sum(rate(gateway_upstream_request_duration_seconds_count{R}))", "asked"),
                    Query(f"sum(rate(gateway_cache_requests_avoided_total{R}))", "spared"),
                ),
                stacked=True,
            ),
            Panel(
                "Seconds of its time",
                "Seconds of work a second: spent on answers, and saved, as long as each page had taken.",
                "short",
                (
                    Query(f"sum(rate(gateway_upstream_request_duration_seconds_sum{R}))", "spent"),
                    Query(f"sum(rate(gateway_cache_upstream_saved_seconds_total{R}))", "saved"),
                ),
                stacked=True,
            ),
            Panel(
                "What the cache did",
                "By verdict: `bypass` is by rule, `none` was answered before the cache was asked.",
                "reqps",
                (Query(f"sum by (cache) (rate(gateway_requests_total{R}))", "{{cache}}"),),
                stacked=True,
            ),
        ),
    },
)

UPSTREAM = Page(
    "upstream",
    "Upstream",
    "How the controller does, as seen from the gateway.",
    {
        "Requests to the controller": (
            Panel(
                "Rate by route",
                "The ten routes it is asked for most.",
                "reqps",
                (
                    Query(
                        "topk(10, sum by (route) "
                        f'(rate(gateway_upstream_request_duration_seconds_count{{route=~"$route"}}{R})))',
                        "{{route}}",
                    ),
                ),
                stacked=True,
            ),
            Panel(
                "Duration",
                "From sending a request to its answer.",
                "s",
                quantiles("gateway_upstream_request_duration_seconds"),
            ),
            Panel(
                "Mean duration by route",
                "The ten slowest routes.",
                "s",
                (
                    Query(
                        "topk(10, sum by (route) "
                        f'(rate(gateway_upstream_request_duration_seconds_sum{{route=~"$route"}}{R}))'
                        " / sum by (route) "
                        f'(rate(gateway_upstream_request_duration_seconds_count{{route=~"$route"}}{R})))',
                        "{{route}}",
                    ),
                ),
            ),
        ),
        "When it fails": (
            Panel(
                "Failures",
                "Requests that came to nothing, by how: unreachable, timeout, broken.",
                "reqps",
                (Query(f'sum by (reason) (rate(gateway_denials_total{{reason=~"upstream-.*"}}{R}))', "{{reason}}"),),
                stacked=True,
            ),
            Panel(
                "Stale pages in its place",
                "Answers from pages past their time, because it failed or to spare its rate limit.",
                "reqps",
                (
                    Query(
                        "sum by (reason) "
                        f'(rate(gateway_cache_stale_served_total{{reason!~"revalidating|accepted"}}{R}))',
                        "{{reason}}",
                    ),
                ),
                stacked=True,
            ),
        ),
        "Each controller": (
            Panel(
                "Up",
                "1 unless it is ejected or its probes fail, so that others are preferred.",
                "short",
                (Query("min by (endpoint) (gateway_upstream_endpoint_up)", "{{endpoint}}"),),
                most=1,
            ),
            Panel(
                "Circuit breaker",
                "0 closed, 1 half-open, 2 open: then nothing is sent there.",
                "short",
                (Query("max by (endpoint) (gateway_upstream_breaker_state)", "{{endpoint}}"),),
                most=2,
            ),
            Panel(
                "Under way",
                "Requests, until the last byte of their answers.",
                "short",
                (Query("sum by (endpoint) (gateway_upstream_endpoint_in_flight)", "{{endpoint}}"),),
                stacked=True,
            ),
            Panel(
                "What came of requests",
                "Retries included.",
                "reqps",
                (
                    Query(
                        f"sum by (endpoint, result) (rate(gateway_upstream_endpoint_requests_total{R}))",
                        "{{endpoint}} {{result}}",
                    ),
                ),
                stacked=True,
            ),
            Panel(
                "Put aside",
                "Breakers that opened, ejections, and look-ups of addresses that failed.",
                "ops",
                (
                    Query(f"sum(rate(gateway_upstream_breaker_opened_total{R}))", "breaker opened"),
                    Query(f"sum(rate(gateway_upstream_endpoint_ejections_total{R}))", "ejected"),
                    Query(f"sum(rate(gateway_upstream_resolve_failures_total{R}))", "no address"),
                ),
            ),
            Panel(
                "Retries",
                "Requests sent again: made, or refused because too many are.",
                "reqps",
                (Query(f"sum by (result) (rate(gateway_upstream_retries_total{R}))", "{{result}}"),),
            ),
        ),
        "Its rate limit and its jobs": (
            Panel(
                "Budget left",
                "The least share of its own rate limit that any principal has left there; below a tenth it is spared.",
                "percentunit",
                (Query("min by (instance) (gateway_upstream_budget_ratio)", "{{instance}}"),),
                most=1,
            ),
            Panel(
                "Requests spared",
                "Answered from a stale page because little was left.",
                "reqps",
                (Query(f"sum(rate(gateway_upstream_budget_spared_total{R}))", "spared"),),
            ),
            Panel(
                "Jobs watched",
                "Jobs of accepted writes that the gateway asks for, and how watches ended.",
                "short",
                (
                    Query("sum(gateway_jobs_watched)", "under way"),
                    Query("sum by (result) (increase(gateway_job_watches_total[$__rate_interval]))", "{{result}}"),
                ),
            ),
        ),
    },
    by_route=True,
)

PROCESS = Page(
    "process",
    "Process",
    "The gateway's own time, memory and settings.",
    {
        "Now": (
            Panel(
                "Up since",
                "The youngest process.",
                "s",
                (Query("min(time() - process_start_time_seconds)"),),
                single=True,
            ),
            Panel(
                "Under way", "Exchanges under way.", "short", (Query("sum(gateway_requests_in_flight)"),), single=True
            ),
            Panel(
                "Workers missing",
                "Processes that are to serve and do not; those that ended unasked are replaced.",
                "short",
                (Query("sum(gateway_workers) - sum(gateway_workers_up)"),),
                good=0.5,
                bad=1,
                single=True,
            ),
            Panel(
                "Settings in force",
                "How many different ones the instances have; more than one is a roll-out, or one that was left behind.",
                "short",
                (Query("count(count by (sha256) (gateway_config_info))"),),
                good=1.5,
                bad=2,
                single=True,
            ),
            Panel(
                "Versions",
                "How many different ones the instances have.",
                "short",
                (Query("count(count by (version) (gateway_info))"),),
                good=1.5,
                bad=2,
                single=True,
            ),
        ),
        "Own time": (
            Panel(
                "Overhead by what the cache did",
                "99 of 100 requests took less than this of the gateway's time, and the client's to take the answer.",
                "s",
                (
                    Query(
                        f"histogram_quantile(0.99, sum by (le, cache) (rate(gateway_overhead_seconds_bucket{R})))",
                        "{{cache}}",
                    ),
                ),
            ),
            Panel(
                "Event-loop lag",
                "By how much a timer misses its time. Whatever holds the loop delays every request under way.",
                "s",
                quantiles("gateway_event_loop_lag_seconds"),
            ),
        ),
        "Resources": (
            Panel(
                "CPU",
                "Cores in use, by instance.",
                "short",
                (Query(f"sum by (instance) (rate(process_cpu_seconds_total{R}))", "{{instance}}"),),
            ),
            Panel(
                "Memory",
                "Resident memory, and how much of it pages may take.",
                "bytes",
                (
                    Query("sum by (instance) (process_resident_memory_bytes)", "{{instance}}"),
                    Query("sum by (instance) (gateway_cache_max_bytes)", "{{instance}} page budget"),
                ),
            ),
            Panel(
                "File descriptors",
                "The share of those allowed that is open: connections, mostly.",
                "percentunit",
                (Query("max by (instance) (process_open_fds / process_max_fds)", "{{instance}}"),),
                most=1,
            ),
        ),
        "Settings": (
            Panel(
                "Last reload",
                "1 when it went well, 0 when it was refused and the settings before it stay.",
                "short",
                (Query("min by (instance) (gateway_config_last_reload_successful)", "{{instance}}"),),
                most=1,
            ),
            Panel(
                "Settings in force for",
                "Since they were last put in force.",
                "s",
                (
                    Query(
                        "time() - max by (instance) (gateway_config_last_reload_success_timestamp_seconds)",
                        "{{instance}}",
                    ),
                ),
            ),
            Panel(
                "Reloads",
                "By how they ended.",
                "ops",
                (Query(f"sum by (result) (rate(gateway_config_reloads_total{R}))", "{{result}}"),),
            ),
        ),
        "Connections": (
            Panel(
                "Certificate valid for",
                "Until the first certificate of a listener expires. Files that change are taken without a restart.",
                "s",
                (
                    Query(
                        "min by (instance, listener) (gateway_tls_certificate_expiry_timestamp_seconds) - time()",
                        "{{instance}} {{listener}}",
                    ),
                ),
            ),
            Panel(
                "Certificates exchanged",
                "Whose files had changed: applied, or refused because they cannot be used.",
                "ops",
                (Query(f"sum by (result) (rate(gateway_tls_certificate_changes_total{R}))", "{{result}}"),),
            ),
            Panel(
                "Refused before HTTP",
                "Connections by why they came to nothing.",
                "ops",
                (Query(f"sum by (reason) (rate(gateway_connections_refused_total{R}))", "{{reason}}"),),
                stacked=True,
            ),
            Panel("Open", "Of clients.", "short", (Query("sum by (instance) (gateway_connections)", "{{instance}}"),)),
            Panel(
                "Ended by the gateway",
                "By which deadline or limit (docs/edge.md).",
                "ops",
                (Query(f"sum by (reason) (rate(gateway_connections_ended_total{R}))", "{{reason}}"),),
                stacked=True,
            ),
            Panel(
                "Broken off",
                "Answers not in full, requests that were none, log lines nobody took, workers that ended unasked.",
                "reqps",
                (
                    Query(f"sum(rate(gateway_aborted_total{R}))", "not in full"),
                    Query(f"sum(rate(gateway_malformed_requests_total{R}))", "not HTTP"),
                    Query(f"sum(rate(gateway_log_lines_lost_total{R}))", "log lines lost"),
                    Query(f"sum(rate(gateway_worker_restarts_total{R}))", "workers replaced"),
                ),
            ),
        ),
    },
)
