"""The dashboards about what is decided: cache, identity and access, limits."""

from __future__ import annotations

from grafana.build import Page, Panel, Query
from grafana.pages_service import SERVED, R, quantiles

CACHE = Page(
    "cache",
    "Cache",
    "What is answered from stored pages, how old they are, and whether they are still right.",
    {
        "Answers": (
            Panel(
                "Hit ratio by route",
                "The ten routes asked for most that pages are stored of.",
                "percentunit",
                (
                    Query(
                        f'sum by (route) (rate(gateway_requests_total{{route=~"$route",{SERVED}}}{R}))'
                        " / sum by (route) (rate(gateway_requests_total"
                        f'{{route=~"$route",cache=~"hit|stale|collapsed|miss|revalidated"}}{R}))',
                        "{{route}}",
                    ),
                ),
                most=1,
            ),
            Panel(
                "Verdicts",
                "What the cache did.",
                "reqps",
                (Query(f'sum by (cache) (rate(gateway_requests_total{{route=~"$route"}}{R}))', "{{cache}}"),),
                stacked=True,
            ),
            Panel(
                "The controller's time saved",
                "Seconds a second, the ten routes that save most.",
                "short",
                (
                    Query(
                        "topk(10, sum by (route) "
                        f'(rate(gateway_cache_upstream_saved_seconds_total{{route=~"$route"}}{R})))',
                        "{{route}}",
                    ),
                ),
                stacked=True,
            ),
        ),
        "How old, how right": (
            Panel("Age of what was served", "Of stored pages.", "s", quantiles("gateway_cache_served_age_seconds")),
            Panel(
                "Drift",
                "Of the fresh pages that were compared with the controller's answer of that moment "
                "(`cache.drift_sample`), the share that differed: what changed past this gateway.",
                "percentunit",
                (
                    Query(
                        'sum(rate(gateway_cache_drift_checks_total{result="differs"}[1h]))'
                        ' / sum(rate(gateway_cache_drift_checks_total{result=~"same|differs"}[1h]))',
                        "differs",
                    ),
                ),
            ),
            Panel(
                "Stale pages served",
                "Past their time, by why.",
                "reqps",
                (Query(f"sum by (reason) (rate(gateway_cache_stale_served_total{R}))", "{{reason}}"),),
                stacked=True,
            ),
            Panel(
                "Drift checks",
                "Comparisons by result; `overtaken` by a write through this gateway proves nothing.",
                "ops",
                (Query(f"sum by (result) (rate(gateway_cache_drift_checks_total{R}))", "{{result}}"),),
            ),
            Panel(
                "Refreshes behind answers",
                "By how they ended.",
                "ops",
                (Query(f"sum by (result) (rate(gateway_cache_refreshes_total{R}))", "{{result}}"),),
            ),
            Panel(
                "Invalidations",
                "Pages dropped by writes, by resource type, and purged by operators.",
                "ops",
                (
                    Query(f"sum by (resource) (rate(gateway_cache_invalidations_total{R}))", "{{resource}}"),
                    Query(f"sum by (mode) (rate(gateway_cache_purged_total{R}))", "{{mode}} purge"),
                ),
                stacked=True,
            ),
        ),
        "Encoded forms": (
            Panel(
                "Made",
                "Encoded forms of pages that clients would have liked, by what came of it.",
                "ops",
                (
                    Query(
                        f"sum by (coding, result) (rate(gateway_cache_compressions_total{R}))", "{{coding}} {{result}}"
                    ),
                ),
            ),
            Panel(
                "Size",
                "Of encoded forms, as a share of the pages.",
                "percentunit",
                (
                    Query(
                        'sum by (coding) (gateway_cache_compression_bytes_total{side="out"})'
                        ' / sum by (coding) (gateway_cache_compression_bytes_total{side="in"})',
                        "{{coding}}",
                    ),
                ),
                most=1,
            ),
            Panel(
                "Time",
                "Spent making them, beside the event loop: cores in use.",
                "short",
                (Query(f"sum by (coding) (rate(gateway_cache_compression_seconds_total{R}))", "{{coding}}"),),
                stacked=True,
            ),
        ),
        "Memory": (
            Panel(
                "Bytes",
                "Of pages, and their budget.",
                "bytes",
                (
                    Query("sum(gateway_cache_bytes)", "stored"),
                    Query("sum(gateway_cache_max_bytes)", "budget"),
                ),
            ),
            Panel("Pages", "Stored.", "short", (Query("sum(gateway_cache_entries)", "pages"),)),
            Panel(
                "Evictions",
                "Pages that gave way: on probation (nobody asked again), settled, or for their principal's share.",
                "ops",
                (Query(f"sum by (reason) (rate(gateway_cache_evictions_total{R}))", "{{reason}}"),),
                stacked=True,
            ),
            Panel(
                "Visibility domains",
                "Sets of principals who share pages, that have some stored. Many of kind `principal` are many copies.",
                "short",
                (Query("sum by (kind) (gateway_cache_domains)", "{{kind}}"),),
            ),
        ),
    },
    by_route=True,
)

SHARED = Page(
    "shared",
    "Shared store",
    "What several gateways have in common: pages, invalidations, counts. Without `shared_store` all is quiet.",
    {
        "Now": (
            Panel(
                "Store up",
                "1 while every process asks the shared store.",
                "short",
                (Query("min(gateway_shared_store_up)"),),
                good=1,
                bad=0.5,
                single=True,
            ),
            Panel(
                "In touch",
                "1 while every process knows of all writes through others; one that does not serves nothing it stored.",
                "short",
                (Query("min(gateway_shared_store_in_touch)"),),
                good=1,
                bad=0.5,
                single=True,
            ),
            Panel(
                "Processes",
                "That share the store.",
                "short",
                (Query("max(gateway_shared_store_processes)"),),
                single=True,
            ),
        ),
        "Commands": (
            Panel(
                "Commands",
                "By how they ended; `open` was not sent, because the store is away.",
                "ops",
                (Query(f"sum by (result) (rate(gateway_shared_store_commands_total{R}))", "{{result}}"),),
                stacked=True,
            ),
            Panel(
                "Mean duration",
                "Of commands that were answered.",
                "s",
                (
                    Query(
                        f"sum(rate(gateway_shared_store_command_seconds_total{R}))"
                        f' / sum(rate(gateway_shared_store_commands_total{{result="ok"}}{R}))',
                        "mean",
                    ),
                ),
            ),
            Panel(
                "Lost",
                "How often the store was away, processes out of touch, requests counted by one process alone.",
                "ops",
                (
                    Query(f"sum(rate(gateway_shared_store_away_total{R}))", "away"),
                    Query(f"sum(rate(gateway_shared_store_out_of_touch_total{R}))", "out of touch"),
                    Query(f"sum(rate(gateway_shared_store_own_share_total{R}))", "limited alone"),
                ),
            ),
        ),
        "Pages and invalidations": (
            Panel(
                "Pages",
                "Asked for and offered, by result.",
                "ops",
                (Query(f"sum by (result) (rate(gateway_shared_store_pages_total{R}))", "{{result}}"),),
            ),
            Panel(
                "Invalidations",
                "Announced and received, by result.",
                "ops",
                (Query(f"sum by (result) (rate(gateway_shared_store_invalidations_total{R}))", "{{result}}"),),
            ),
            Panel(
                "Counts",
                "Reports of units that rate limits gave away, by how they ended.",
                "ops",
                (Query(f"sum by (result) (rate(gateway_shared_store_counter_reports_total{R}))", "{{result}}"),),
            ),
        ),
    },
)

ACCESS = Page(
    "access",
    "Identity and access",
    "Who is let in, who is not, and whether tokens can be judged.",
    {
        "Decisions": (
            Panel(
                "Access",
                "allowed: by token, public, or left to the controller; denied: why.",
                "reqps",
                (Query(f"sum by (result, reason) (rate(gateway_auth_decisions_total{R}))", "{{result}}: {{reason}}"),),
                stacked=True,
            ),
            Panel(
                "Denied share",
                "Of all decisions about access.",
                "percentunit",
                (
                    Query(
                        f'sum(rate(gateway_auth_decisions_total{{result="denied"}}{R}))'
                        f" / sum(rate(gateway_auth_decisions_total{R}))",
                        "denied",
                    ),
                ),
            ),
        ),
        "Tokens": (
            Panel(
                "Verifications",
                "Tokens not known from before, by result.",
                "ops",
                (Query(f"sum by (result) (rate(gateway_auth_verifications_total{R}))", "{{result}}"),),
                stacked=True,
            ),
            Panel(
                "Known from before",
                "The share of tokens that were verified already; a low one costs CPU.",
                "percentunit",
                (
                    Query(
                        f"sum(rate(gateway_auth_memo_hits_total{R})) / (sum(rate(gateway_auth_memo_hits_total{R}))"
                        f" + sum(rate(gateway_auth_verifications_total{R})))",
                        "known",
                    ),
                ),
                most=1,
            ),
            Panel(
                "Tokens remembered",
                "And how many of them expire within so many seconds.",
                "short",
                (
                    Query("sum by (within) (gateway_auth_memo_tokens_expiring)", "within {{within}} s"),
                    Query("sum(gateway_auth_memo_entries)", "all"),
                ),
            ),
        ),
        "Keys": (
            Panel(
                "Age of keys",
                "Since the oldest key set was fetched.",
                "s",
                (Query("max by (instance) (gateway_keys_age_seconds)", "{{instance}}"),),
            ),
            Panel(
                "Keys at hand",
                "Verification keys.",
                "short",
                (Query("min by (instance) (gateway_keys)", "{{instance}}"),),
            ),
            Panel(
                "Fetches and unknown ids",
                "Fetches of key sets by result, and tokens that named a key nobody knows.",
                "ops",
                (
                    Query(f"sum by (result) (rate(gateway_key_fetches_total{R}))", "fetch {{result}}"),
                    Query(f"sum(rate(gateway_keys_unknown_total{R}))", "unknown key"),
                ),
            ),
        ),
    },
)

LIMITS = Page(
    "limits",
    "Limits",
    "Who is slowed down, by which policy, and what policies in shadow mode would do.",
    {
        "Decisions": (
            Panel(
                "Limited",
                "Requests refused, by enforced policy.",
                "reqps",
                (
                    Query(
                        "sum by (policy) "
                        f'(rate(gateway_ratelimit_decisions_total{{decision="limited",mode="enforce"}}{R}))',
                        "{{policy}}",
                    ),
                ),
                stacked=True,
            ),
            Panel(
                "Would be limited",
                "By policies in shadow mode; nobody was refused.",
                "reqps",
                (
                    Query(
                        "sum by (policy) "
                        f'(rate(gateway_ratelimit_decisions_total{{decision="limited",mode="shadow"}}{R}))',
                        "{{policy}}",
                    ),
                ),
                stacked=True,
            ),
            Panel(
                "Share limited",
                "Of what each policy counted, in either mode.",
                "percentunit",
                (
                    Query(
                        f'sum by (policy, mode) (rate(gateway_ratelimit_decisions_total{{decision="limited"}}{R}))'
                        f" / sum by (policy, mode) (rate(gateway_ratelimit_decisions_total{R}))",
                        "{{policy}} ({{mode}})",
                    ),
                ),
                most=1,
            ),
        ),
        "Concurrency": (
            Panel(
                "Decisions",
                "What became of requests for the controller: admitted at once, queued, left, or refused and why.",
                "reqps",
                (
                    Query(
                        f"sum by (decision, mode) (rate(gateway_concurrency_decisions_total{R}))",
                        "{{decision}} ({{mode}})",
                    ),
                ),
            ),
            Panel(
                "At the controller",
                "Under way, waiting for their turn, and how many there may be; the limit follows the latency.",
                "short",
                (
                    Query("sum(gateway_concurrency_in_flight)", "under way"),
                    Query("sum(gateway_concurrency_queued)", "waiting"),
                    Query("sum by (scope) (gateway_concurrency_limit)", "limit of {{scope}}"),
                ),
            ),
            Panel(
                "Waiting",
                "Seconds a second that requests wait for their turn: how many wait on the average.",
                "short",
                (Query(f"sum(rate(gateway_concurrency_wait_seconds_total{R}))", "waiting"),),
            ),
        ),
        "Buckets": (
            Panel(
                "Kept",
                "Buckets whose owner asked lately, by policy.",
                "short",
                (Query("sum by (policy) (gateway_ratelimit_buckets)", "{{policy}}"),),
            ),
            Panel(
                "Forgotten too early",
                "Buckets that gave way before they were full: `rate_limits.max_buckets` is too small, or somebody has "
                "many addresses.",
                "ops",
                (Query(f"sum by (policy) (rate(gateway_ratelimit_evictions_total{R}))", "{{policy}}"),),
            ),
            Panel(
                "Answers 429",
                "By the gateway, or by the controller through it.",
                "reqps",
                (Query(f'sum by (route) (rate(gateway_requests_total{{code="429"}}{R}))', "{{route}}"),),
                stacked=True,
            ),
        ),
    },
)
