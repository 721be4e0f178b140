"""Accept-Encoding (RFC 9110 §12.5.3)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.encodings import accepted

OFFERED = ("zstd", "br", "gzip")
ALL = {"zstd", "br", "gzip"}


@pytest.mark.parametrize(
    ("values", "preferred", "taken", "identity"),
    [
        pytest.param([], (), set(), True, id="§12.5.3-absent: any would do, none is sent"),
        pytest.param([""], (), set(), True, id="§12.5.3-empty: none"),
        pytest.param(["gzip"], ("gzip",), {"gzip"}, True, id="one"),
        pytest.param(
            ["gzip, deflate, br, zstd"], ("zstd", "br", "gzip"), ALL, True, id="a browser: the server's order"
        ),
        pytest.param(["gzip;q=1.0, br;q=0.5"], ("gzip", "br"), {"gzip", "br"}, True, id="§12.4.2-weights"),
        pytest.param(["br;q=0.5,gzip;q=0.5"], ("br", "gzip"), {"gzip", "br"}, True, id="equal weights"),
        pytest.param(["gzip;q=0"], (), set(), True, id="§12.4.2-not acceptable"),
        pytest.param(["gzip;q=0.000"], (), set(), True, id="zero to three decimals"),
        pytest.param(["*"], ("zstd", "br", "gzip"), ALL, True, id="any"),
        pytest.param(["*;q=0"], (), set(), False, id="nothing, not even identity"),
        pytest.param(["identity;q=0"], (), set(), False, id="no identity, and nothing else"),
        pytest.param(["identity;q=0, *"], ("zstd", "br", "gzip"), ALL, False, id="anything but identity"),
        pytest.param(["gzip, *;q=0"], ("gzip",), {"gzip"}, False, id="gzip or nothing"),
        pytest.param(["gzip, identity, *;q=0"], ("gzip",), {"gzip"}, True, id="gzip or identity"),
        pytest.param(["br;q=0, *;q=0.1"], ("zstd", "gzip"), {"zstd", "gzip"}, True, id="any but br"),
        pytest.param(["identity, gzip;q=0.5"], (), {"gzip"}, True, id="identity is liked better"),
        pytest.param(["identity;q=0.5, gzip"], ("gzip",), {"gzip"}, True, id="identity is liked less"),
        pytest.param(["identity;q=0.5, gzip;q=0.5"], ("gzip",), {"gzip"}, True, id="as much as identity"),
        pytest.param(["GZIP"], ("gzip",), {"gzip"}, True, id="§8.4.1-case"),
        pytest.param(["x-gzip"], ("gzip",), {"gzip"}, True, id="§8.4.1.3-x-gzip"),
        pytest.param(["deflate, compress"], (), set(), True, id="others"),
        pytest.param(["br", "gzip"], ("br", "gzip"), {"br", "gzip"}, True, id="§5.3-several lines"),
        pytest.param([" ,gzip ; q=0.7 ,, "], ("gzip",), {"gzip"}, True, id="§5.6.1-empty members"),
        pytest.param(["gzip;Q=0.7"], ("gzip",), {"gzip"}, True, id="Q"),
        pytest.param(["gzip;q=2"], (), set(), True, id="malformed weight"),
        pytest.param(["gzip;q=0.1234"], (), set(), True, id="too many decimals"),
        pytest.param(["gzip;level=9"], (), set(), True, id="parameters there are none"),
        pytest.param(["g zip"], (), set(), True, id="no token"),
        pytest.param(["gzip;q=0, gzip;q=1"], (), set(), True, id="twice: the first"),
        pytest.param(["gzip," + "x" * 300], ("gzip",), {"gzip"}, True, id="long"),
    ],
)
def test_what_a_client_takes(values: list[str], preferred: tuple[str, ...], taken: set[str], identity: bool) -> None:
    found = accepted(tuple(values), OFFERED)
    assert (found.preferred, found.taken, found.identity) == (preferred, taken, identity)


def weight(coding: str, members: list[tuple[str, int]]) -> int | None:
    """The weight of a coding in tenths by the letter of §12.5.3; None where the field does not speak of it."""
    for name, tenths in members:
        if name == coding:
            return tenths
    return next((tenths for name, tenths in members if name == "*"), None)


MEMBERS = st.lists(
    st.tuples(st.sampled_from(["gzip", "br", "zstd", "identity", "*", "deflate"]), st.integers(0, 10)),
    min_size=1,
    max_size=6,
    unique_by=lambda member: member[0],
)


@given(MEMBERS)
def test_no_coding_is_sent_that_a_literal_reading_does_not_allow(members: list[tuple[str, int]]) -> None:
    found = accepted((", ".join(f"{name};q={tenths / 10}" for name, tenths in members),), OFFERED)
    for coding in OFFERED:
        assert (coding in found.taken) == bool(weight(coding, members))
    assert found.identity == (weight("identity", members) != 0)
    weights = [weight(coding, members) or 0 for coding in found.preferred]
    assert weights == sorted(weights, reverse=True)
    named = dict(members).get("identity", 0)
    assert set(found.preferred) == {coding for coding in found.taken if (weight(coding, members) or 0) >= named}


@given(st.lists(st.text(max_size=20), max_size=4))
def test_no_text_raises(values: list[str]) -> None:
    found = accepted(tuple(values), OFFERED)
    assert set(found.preferred) <= found.taken <= ALL
