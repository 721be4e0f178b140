"""Trace contexts by their specifications: W3C Trace Context and B3."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.model import Fields
from gateway.core.tracing import TraceContext, continued, extract

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SHORT = "a3ce929d0e0e4736"
PADDED = SHORT.rjust(32, "0")


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([("traceparent", f"00-{TRACE}-{SPAN}-01")], (TRACE, SPAN, True)),
        ([("Traceparent", f"00-{TRACE}-{SPAN}-00")], (TRACE, SPAN, False)),
        ([("traceparent", f"00-{TRACE}-{SPAN}-03")], (TRACE, SPAN, True)),
        ([("traceparent", f"01-{TRACE}-{SPAN}-01-later")], (TRACE, SPAN, True)),
        ([("b3", f"{TRACE}-{SPAN}-1")], (TRACE, SPAN, True)),
        ([("b3", f"{SHORT}-{SPAN}-d-{SPAN}")], (PADDED, SPAN, True)),
        ([("b3", f"{TRACE}-{SPAN}-0")], (TRACE, SPAN, False)),
        ([("b3", f"{TRACE}-{SPAN}")], (TRACE, SPAN, None)),
        ([("X-B3-TraceId", TRACE), ("X-B3-SpanId", SPAN)], (TRACE, SPAN, None)),
        ([("X-B3-TraceId", SHORT.upper()), ("X-B3-SpanId", SPAN), ("X-B3-Sampled", "1")], (PADDED, SPAN, True)),
        ([("X-B3-TraceId", TRACE), ("X-B3-SpanId", SPAN), ("X-B3-Sampled", "false")], (TRACE, SPAN, False)),
        ([("X-B3-TraceId", TRACE), ("X-B3-SpanId", SPAN), ("X-B3-Flags", "1")], (TRACE, SPAN, True)),
        ([("traceparent", f"00-{TRACE}-{SPAN}-01"), ("b3", f"{PADDED}-{SPAN}-0")], (TRACE, SPAN, True)),
        ([("traceparent", "rubbish"), ("b3", f"{TRACE}-{SPAN}-1")], (TRACE, SPAN, True)),
    ],
    ids=[
        "W3C §3.2",
        "W3C not sampled",
        "W3C other flags",
        "W3C §4 later version",
        "b3",
        "b3 64 bits, debug, parent",
        "b3 denied",
        "b3 deferred",
        "several",
        "several, 64 bits",
        "several, old word",
        "several, debug",
        "W3C goes before B3",
        "an invalid one is as good as absent",
    ],
)
def test_what_is_understood(pairs: list[tuple[str, str]], expected: tuple[str, str, bool | None]) -> None:
    assert extract(Fields(pairs)) == TraceContext(*expected)


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        [("traceparent", f"00-{TRACE}-{SPAN}-01-more")],
        [("traceparent", f"ff-{TRACE}-{SPAN}-01")],
        [("traceparent", f"00-{'0' * 32}-{SPAN}-01")],
        [("traceparent", f"00-{TRACE}-{'0' * 16}-01")],
        [("traceparent", f"00-{TRACE.upper()}-{SPAN}-01")],
        [("traceparent", f"00-{TRACE}-{SPAN}-01\n")],
        [("traceparent", f"00-{TRACE}-{SPAN}-01"), ("traceparent", f"00-{TRACE}-{SPAN}-01")],
        [("b3", "0")],
        [("b3", f"{TRACE}-{SPAN}-1"), ("b3", f"{TRACE}-{SPAN}-1")],
        [("b3", f"{TRACE}{SPAN}")],
        [("X-B3-TraceId", TRACE)],
        [("X-B3-TraceId", f"{TRACE}0"), ("X-B3-SpanId", SPAN)],
        [("X-B3-TraceId", TRACE), ("X-B3-SpanId", "span")],
    ],
)
def test_what_is_not(pairs: list[tuple[str, str]]) -> None:
    assert extract(Fields(pairs)) is None


def test_the_next_hop_gets_one_context_and_nothing_of_the_old() -> None:
    given = Fields(
        [
            ("Host", "h"),
            ("traceparent", f"00-{TRACE}-{SPAN}-00"),
            ("tracestate", "a=b"),
            ("B3", "0"),
            ("X-B3-TraceId", PADDED),
            ("X-B3-ParentSpanId", SPAN),
        ]
    )
    out = continued(given, TraceContext(TRACE, "00f067aa0ba902b7", sampled=True))
    assert dict(out) == {
        "Host": "h",
        "tracestate": "a=b",
        "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01",
        "b3": f"{TRACE}-00f067aa0ba902b7-1",
        "X-B3-TraceId": TRACE,
        "X-B3-SpanId": "00f067aa0ba902b7",
        "X-B3-Sampled": "1",
    }


hexadecimal = st.text("0123456789abcdef", min_size=16, max_size=16).filter(lambda text: set(text) != {"0"})


@given(st.builds(lambda a, b: a + b, hexadecimal, hexadecimal), hexadecimal, st.sampled_from([True, False, None]))
def test_what_is_sent_is_read_back(trace: str, span: str, sampled: bool | None) -> None:
    context = TraceContext(trace, span, sampled)
    fields = continued(Fields([("traceparent", "old")]), context)
    assert extract(fields) == TraceContext(trace, span, bool(sampled))
    assert extract(fields.without("traceparent")) == context
    assert extract(fields.without("traceparent", "b3")) == context


@given(st.lists(st.tuples(st.sampled_from(["traceparent", "b3", "X-B3-TraceId", "X-B3-SpanId"]), st.text())))
def test_nothing_that_a_client_writes_is_a_fault(pairs: list[tuple[str, str]]) -> None:
    extract(Fields(pairs))
