"""Trace contexts as fields carry them: W3C `traceparent` and Zipkin's B3, which Cloud Foundry's routers speak.

Parsing is strict: a field that is not to the letter of its specification is as good as absent, and nothing of it is
repeated. Pure; ids are made elsewhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gateway.core.model import Fields, Pair

# W3C Trace Context §3.2: version 00 is exact, a later one may go on behind a further dash.
_TRACEPARENT: Final = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
# B3 single: {trace}-{span}[-{sampled}[-{parent}]]; a decision alone carries no ids.
_B3: Final = re.compile(r"([0-9a-f]{32}|[0-9a-f]{16})-([0-9a-f]{16})(?:-([01d])(?:-[0-9a-f]{16})?)?")
_TRACE: Final = re.compile(r"[0-9a-f]{32}|[0-9a-f]{16}")
_SPAN: Final = re.compile(r"[0-9a-f]{16}")
_NO_TRACE: Final = "0" * 32
_NO_SPAN: Final = "0" * 16
_YES: Final = frozenset({"1", "true"})  # old tracers write words into X-B3-Sampled
FIELDS: Final = frozenset(
    {"traceparent", "b3", "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled", "x-b3-flags"}
)


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Where in which trace a request stands.

    Attributes:
        trace_id: 32 hexadecimal digits; a B3 id of 16 is padded in front.
        span_id: 16 hexadecimal digits.
        sampled: whether the caller records it; None when it leaves that open (B3's deferred decision).
    """

    trace_id: str
    span_id: str
    sampled: bool | None = None

    @property
    def traceparent(self) -> str:
        """The W3C field value (§3.2)."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"

    @property
    def b3(self) -> str:
        """The B3 single field value."""
        state = "" if self.sampled is None else f"-{int(self.sampled)}"
        return f"{self.trace_id}-{self.span_id}{state}"


def extract(fields: Fields) -> TraceContext | None:
    """The context a request came with: `traceparent`, else `b3`, else `X-B3-*`; None when there is no valid one.

    Args:
        fields: the request's.
    """
    if "traceparent" in fields:
        found = parse_traceparent(fields.get_all("traceparent"))
        if found is not None:
            return found
    if "b3" in fields:
        found = parse_b3(fields.get_all("b3"))
        if found is not None:
            return found
    return _several(fields) if "x-b3-traceid" in fields else None


def parse_traceparent(values: list[str]) -> TraceContext | None:
    """A context from the lines of `traceparent`: exactly one, as W3C Trace Context §3.2 has it."""
    match = _TRACEPARENT.fullmatch(values[0]) if len(values) == 1 else None
    if match is None or (match[1] == "00" and match[5]):
        return None
    return _valid(match[2], match[3], sampled=bool(int(match[4], 16) & 1))


def parse_b3(values: list[str]) -> TraceContext | None:
    """A context from the lines of `b3`: exactly one, in the single form."""
    match = _B3.fullmatch(values[0].lower()) if len(values) == 1 else None
    if match is None:
        return None
    return _valid(match[1], match[2], sampled=None if match[3] is None else match[3] != "0")


def _several(fields: Fields) -> TraceContext | None:
    trace, span = (fields.get_all(name) for name in ("x-b3-traceid", "x-b3-spanid"))
    if len(trace) != 1 or len(span) != 1:
        return None
    trace_id, span_id = trace[0].lower(), span[0].lower()
    if _TRACE.fullmatch(trace_id) is None or _SPAN.fullmatch(span_id) is None:
        return None
    said = (fields.get("x-b3-sampled") or "").lower()
    sampled = True if said in _YES or fields.get("x-b3-flags") == "1" else None if not said else False
    return _valid(trace_id, span_id, sampled=sampled)


def _valid(trace_id: str, span_id: str, *, sampled: bool | None) -> TraceContext | None:
    trace_id = trace_id.rjust(32, "0")
    return None if trace_id == _NO_TRACE or span_id == _NO_SPAN else TraceContext(trace_id, span_id, sampled)


def continued(fields: Fields, context: TraceContext) -> Fields:
    """The fields for the next hop: any trace context in them replaced by this one, in both forms.

    `tracestate` stays: it belongs to the same trace.

    Args:
        fields: as they would be sent.
        context: the span that sends them.
    """
    kept: list[Pair] = [pair for pair in fields if pair[0].lower() not in FIELDS]
    several = [("X-B3-TraceId", context.trace_id), ("X-B3-SpanId", context.span_id)]
    if context.sampled is not None:
        several.append(("X-B3-Sampled", str(int(context.sampled))))
    return type(fields)([*kept, ("traceparent", context.traceparent), ("b3", context.b3), *several])
