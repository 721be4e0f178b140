"""The way to the controllers, put together from the settings: gate, balancer, endpoints, resolver, probes, metrics."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from gateway.core.breaker import State
from gateway.core.concurrency import AdaptiveLimit
from gateway.core.fair_slots import FairSlots
from gateway.core.retry import RetryBudget
from gateway.derived import upstream_host
from gateway.edge.tls import TlsError
from gateway.pipeline.gate import Gate
from gateway.upstream.balancer import Balancer
from gateway.upstream.client import Client, Sizes, Timeouts
from gateway.upstream.endpoint import Endpoint
from gateway.upstream.probe import Probe
from gateway.upstream.resolve import Resolver
from gateway.upstream.tls import ClientTls

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from gateway.core.model import RequestHead
    from gateway.pipeline.ports import Upstream
    from gateway.settings import Settings
    from gateway.settings.upstream import UpstreamTls
    from gateway.telemetry.metrics import Metrics
    from gateway.upstream.bare import Post
    from gateway.upstream.endpoint import Answer

_STATES: Final = {state: float(place) for place, state in enumerate(State)}


def gate(settings: Settings, upstream: Upstream, *, clock: Callable[[], float] = time.monotonic) -> Gate | None:
    """The gate before the controllers; None when these settings limit nothing."""
    given = settings.concurrency
    if not given.limits:
        return None
    limit = None if given.upstream is None else AdaptiveLimit(given.upstream.policy())
    places = None if limit is None else int(limit)
    return Gate(
        upstream,
        slots=FairSlots(limit=places, per_owner=given.per_principal, queue=given.queue),
        limit=limit,
        patience=given.queue_timeout,
        mode=given.mode,
        clock=clock,
    )


def observe_gate(gate: Gate | None, metrics: Metrics) -> None:
    """Expose the state of a gate."""
    observe = metrics.observe
    observe(
        "gateway_concurrency_limit",
        "How many requests the controllers may have at once (concurrency.upstream); follows their latency.",
        lambda: {} if gate is None or gate.limit is None else {"upstream": gate.limit},
        "scope",
    )
    observe(
        "gateway_concurrency_in_flight",
        "Requests that the limits of concurrency count as under way.",
        lambda: 0 if gate is None else gate.in_flight,
    )
    observe(
        "gateway_concurrency_queued",
        "Requests that wait for their turn at the controllers.",
        lambda: 0 if gate is None else gate.queued,
    )
    observe(
        "gateway_concurrency_wait_seconds_total",
        "Seconds that requests waited for their turn, added up.",
        lambda: 0.0 if gate is None else gate.waited,
    )
    observe(
        "gateway_concurrency_decisions_total",
        "What became of requests at the limits of concurrency: admitted at once, queued (in mode shadow: would have "
        "been), left (the client, while it waited); refused: principal-concurrency, queue-full, queue-timeout.",
        lambda: {} if gate is None else gate.counts(),
        ("decision", "mode"),
    )


class Controllers:
    """The controllers behind one `Upstream`.

    Args:
        settings: valid settings.
        clock: seconds that do not go back.
        post: sends what is written in one round of the event loop together; None sends each at once.

    Raises:
        TlsError: a file of `upstream.tls` cannot be used.

    Attributes:
        balancer: chooses among them.
        probe: asks each for its health.
        resolver: keeps them those that a name leads to; None when they are listed.
    """

    def __init__(
        self, settings: Settings, *, clock: Callable[[], float] = time.monotonic, post: Post | None = None
    ) -> None:
        given = settings.upstream
        self._settings: Final = settings
        self._clock: Final = clock
        self._post: Final = post
        secure = any(url.startswith("https://") for url in given.origins)
        self._tls: Final = _client_tls(given.tls) if secure else None
        self.balancer: Final = Balancer(
            [self._endpoint(url, urlsplit(url).netloc) for url in given.origins],
            patience=given.timeouts.connect + given.timeouts.head,
            budget=RetryBudget(given.retries.ratio, given.retries.per_second),
            attempts=given.retries.attempts,
            clock=clock,
        )
        self.resolver: Final = (
            Resolver(given.url, self.balancer, self._endpoint, interval=given.resolve_interval)
            if given.url is not None and given.resolve_interval
            else None
        )
        self.probe: Final = Probe(
            lambda: self.balancer.endpoints,
            host=upstream_host(settings),
            path=given.health.path,
            interval=given.health.interval,
            patience=given.health.timeout,
        )

    def _endpoint(self, url: str, label: str, server_name: str | None = None) -> Endpoint:
        given = self._settings.upstream
        timeouts = given.timeouts
        client = Client(
            url,
            timeouts=Timeouts(timeouts.connect, timeouts.head, timeouts.idle, timeouts.total),
            connections=given.connections,
            sizes=Sizes(given.max_header_bytes, given.max_body_bytes),
            server_name=(given.tls.server_name if given.tls else None) or server_name,
            tls=self._tls,
            post=self._post,
        )
        return Endpoint(
            label,
            client,
            connections=given.connections,
            breaker=given.breaker.policy(),
            ejection=given.ejection_policy(),
            clock=self._clock,
        )

    def renewed(self) -> Callable[[], None]:
        """Read the files of `upstream.tls` again; what is returned puts them in force for new connections.

        Raises:
            TlsError: they cannot be used.
        """
        tls = self._tls
        if tls is None:
            return lambda: None
        context = _client_tls(self._settings.upstream.tls).context

        def adopt() -> None:
            tls.context = context

        return adopt

    async def start(self) -> None:
        """Open the pools, look the addresses up."""
        await self.balancer.start()
        if self.resolver is not None:
            await self.resolver.start()

    async def stop(self) -> None:
        """Close the pools and every connection in them."""
        if self.resolver is not None:
            await self.resolver.stop()
        await self.balancer.stop()

    async def send(self, head: RequestHead, body: AsyncIterator[bytes] | None) -> Answer:
        """As `Balancer.send`."""
        return await self.balancer.send(head, body)

    def _results(self) -> dict[tuple[str, ...], float]:
        return {
            (endpoint.label, result.value): count
            for endpoint in self.balancer.endpoints
            for result, count in endpoint.results.items()
        }

    def observe(self, metrics: Metrics) -> None:
        """Expose their state."""
        observe, balancer, clock = metrics.observe, self.balancer, self._clock
        observe(
            "gateway_upstream_breaker_state",
            "The circuit breaker of each controller: 0 closed, 1 half-open, 2 open.",
            lambda: {
                endpoint.label: _STATES[endpoint.breaker.state(clock())]
                for endpoint in balancer.endpoints
                if endpoint.breaker is not None
            },
            "endpoint",
            merge="max",
        )
        observe(
            "gateway_upstream_breaker_opened_total",
            "How often the circuit breaker of each controller opened.",
            lambda: {
                endpoint.label: endpoint.breaker.opened
                for endpoint in balancer.endpoints
                if endpoint.breaker is not None
            },
            "endpoint",
        )
        observe(
            "gateway_upstream_endpoint_up",
            "1 unless the controller is ejected or its probes fail, so that others are preferred.",
            lambda: {endpoint.label: float(endpoint.health.good(clock())) for endpoint in balancer.endpoints},
            "endpoint",
            merge="min",
        )
        observe(
            "gateway_upstream_endpoint_ejections_total",
            "How often each controller was ejected.",
            lambda: {endpoint.label: endpoint.health.ejections for endpoint in balancer.endpoints},
            "endpoint",
        )
        observe(
            "gateway_upstream_endpoint_in_flight",
            "Requests under way at each controller, until the last byte of their answers.",
            lambda: {endpoint.label: endpoint.in_flight for endpoint in balancer.endpoints},
            "endpoint",
        )
        observe(
            "gateway_upstream_endpoint_requests_total",
            "What came of the requests to each controller, retries included: answered, gateway-error (a 502, 503 or "
            "504 that is not its own), unreachable, timeout, broken, lost (its kept connection had been closed), "
            "too-large, given-up (the client left, or its content was at fault).",
            self._results,
            ("endpoint", "result"),
        )
        observe(
            "gateway_upstream_retries_total",
            "Requests sent again to another controller: made, or refused for want of budget.",
            lambda: {"made": balancer.budget.spent, "refused": balancer.budget.refused},
            "result",
        )
        observe(
            "gateway_upstream_resolve_failures_total",
            "Look-ups of the controllers' addresses that failed; the addresses known before stand.",
            lambda: 0 if self.resolver is None else self.resolver.failures,
        )


def _client_tls(given: UpstreamTls | None) -> ClientTls:
    if given is None:
        return ClientTls()
    try:
        return ClientTls(ca=given.ca_file, certificate=given.certificate_file, key=given.key_file, verify=given.verify)
    except (OSError, ValueError) as error:
        raise TlsError(f"upstream.tls: a file cannot be used: {error}") from None
