"""Traces: what an exchange was, as OpenTelemetry spans, made when it is over.

The exchange knows when it began, when the controller was asked and how long that took; so its spans are written down
once, from the record, and nothing has to be opened and closed on the way. Only the ids must be known earlier: the
controller is told them. Without this recorder nothing of it is there, and trace fields pass through untouched.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from gateway.core.errors import CLIENT_CLOSED
from gateway.core.tracing import TraceContext, extract
from gateway.core.visibility import kind_of
from gateway.pipeline.exchange import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanProcessor

    from gateway.core.forwarding import TrustedProxies
    from gateway.pipeline.exchange import Exchange
    from gateway.pipeline.ports import Recorder

_ERROR: Final = Status(StatusCode.ERROR)
_UNSET: Final = Status(StatusCode.UNSET)


class Traces:
    """A recorder that makes spans and passes on to the next recorder.

    Args:
        following: told everything too; by then the exchange knows its trace.
        processor: takes finished spans.
        resource: what the spans are of.
        sample: the share of requests to trace, 0 to 1.
        trusted: peers whose decision to trace or not stands.
        clock: epoch seconds.
        chance: a number from 0 to 1, evenly distributed.
    """

    def __init__(
        self,
        following: Recorder,
        processor: SpanProcessor,
        resource: Resource,
        *,
        sample: float,
        trusted: TrustedProxies,
        clock: Callable[[], float],
        chance: Callable[[], float],
    ) -> None:
        self._following: Final = following
        self._processor: Final = processor
        self._resource: Final = resource
        self._sample = sample
        self._trusted = trusted
        self._clock: Final = clock
        self._chance: Final = chance

    def begin(self) -> None:
        """An exchange has begun."""
        self._following.begin()

    def malformed(self) -> None:
        """A request could not be parsed."""
        self._following.malformed()

    def asking(self, exchange: Exchange) -> TraceContext:
        """The context that the controller is told: this exchange's trace, and the span of asking."""
        if exchange.trace is None:
            exchange.trace = self._context(exchange, extract(exchange.head.fields))
        span_id = secrets.token_hex(8)
        exchange.asked = (span_id, self._clock())
        return TraceContext(exchange.trace.trace_id, span_id, exchange.trace.sampled)

    def record(self, exchange: Exchange, *, complete: bool, seconds: float) -> None:
        """An exchange is over; make its spans if it is traced."""
        parent = extract(exchange.head.fields)
        if exchange.trace is None and self._sampled(exchange, parent):
            exchange.trace = TraceContext(_trace_id(parent), secrets.token_hex(8), sampled=True)
        self._following.record(exchange, complete=complete, seconds=seconds)
        trace = exchange.trace
        if trace is not None and trace.sampled:
            self._spans(exchange, trace, parent, seconds, complete=complete)

    def reconfigure(self, *, sample: float, trusted: TrustedProxies) -> None:
        """Trace another share from now on, or believe other peers."""
        self._sample, self._trusted = sample, trusted

    def again(self, exchange: Exchange, seconds: float) -> None:
        """An exchange like one before: it is traced, or not, as any other."""
        self.begin()
        self.record(exchange, complete=True, seconds=seconds)

    def close(self) -> None:
        """Send what is left; may wait some seconds."""
        self._processor.shutdown()

    def _context(self, exchange: Exchange, parent: TraceContext | None) -> TraceContext:
        return TraceContext(_trace_id(parent), secrets.token_hex(8), self._sampled(exchange, parent))

    def _sampled(self, exchange: Exchange, parent: TraceContext | None) -> bool:
        """Whether to trace an exchange. A stranger may name its trace, but not make us record it."""
        if parent is not None and parent.sampled is not None and exchange.head.peer in self._trusted:
            return parent.sampled
        return self._chance() < self._sample

    def _spans(
        self, exchange: Exchange, trace: TraceContext, parent: TraceContext | None, seconds: float, *, complete: bool
    ) -> None:
        began, ended = exchange.received_at, exchange.received_at + max(0.0, seconds)
        route = exchange.route.template if exchange.route is not None else None
        own = _span_context(trace)
        self._emit(
            f"{exchange.head.method} {route}" if route else exchange.head.method,
            own,
            None if parent is None else _span_context(parent, remote=True),
            (began, ended),
            _said(exchange, route, complete=complete),
            kind=SpanKind.SERVER,
            failed=exchange.status >= 500,
        )
        if exchange.asked is None:
            phase = "collapse" if exchange.verdict is Verdict.COLLAPSED else "decide"
            self._emit(phase, _span_context(trace, secrets.token_hex(8)), own, (began, ended), {})
            return
        span_id, asked = exchange.asked
        answered = min(ended, asked + exchange.upstream_seconds)
        said = {"http.request.method": exchange.head.method, "http.response.status_code": exchange.fwd_status}
        decided = {"gateway.keys_fetched": exchange.keys_fetched}
        self._emit("decide", _span_context(trace, secrets.token_hex(8)), own, (began, asked), decided)
        failed = exchange.denied is not None or (exchange.fwd_status or 0) >= 500
        fetch = _span_context(trace, span_id)
        self._emit("fetch", fetch, own, (asked, answered), said, kind=SpanKind.CLIENT, failed=failed)
        self._emit("deliver", _span_context(trace, secrets.token_hex(8)), own, (answered, ended), {})

    def _emit(
        self,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        times: tuple[float, float],
        attributes: dict[str, Any],
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        failed: bool = False,
    ) -> None:
        self._processor.on_end(
            ReadableSpan(
                name,
                context,
                parent,
                self._resource,
                {key: value for key, value in attributes.items() if value is not None},
                kind=kind,
                status=_ERROR if failed else _UNSET,
                start_time=int(times[0] * 1e9),
                end_time=int(max(times) * 1e9),
            )
        )


def _said(exchange: Exchange, route: str | None, *, complete: bool) -> dict[str, Any]:
    """The attributes of an exchange: OpenTelemetry's names where it has some, else ours. No query, token or user."""
    principal, denied = exchange.principal, exchange.denied
    return {
        "http.request.method": exchange.head.method,
        "http.route": route,
        "http.response.status_code": exchange.status if exchange.status != CLIENT_CLOSED else None,
        "error.type": denied.value if denied is not None and exchange.status >= 500 else None,
        "gateway.cache": exchange.verdict.value,
        "gateway.bypass": exchange.bypass.value if exchange.bypass is not None else None,
        "gateway.stale": exchange.stale.value if exchange.stale is not None else None,
        "gateway.denied": denied.value if denied is not None else None,
        "gateway.domain": kind_of(exchange.key.domain) if exchange.key is not None else None,
        "gateway.principal": principal.kind.value if principal is not None else None,
        "gateway.limited": exchange.limited or None,
        "gateway.request_id": exchange.request_id,
        "gateway.complete": complete,
    }


def _trace_id(parent: TraceContext | None) -> str:
    return secrets.token_hex(16) if parent is None else parent.trace_id


def _span_context(context: TraceContext, span_id: str | None = None, *, remote: bool = False) -> SpanContext:
    flags = TraceFlags(TraceFlags.SAMPLED if context.sampled else TraceFlags.DEFAULT)
    return SpanContext(int(context.trace_id, 16), int(span_id or context.span_id, 16), remote, flags)
