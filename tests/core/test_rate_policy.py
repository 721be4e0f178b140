from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.rate_policy import network_of, rows_asked


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        (None, 50),
        ("", 50),
        ("page=3", 50),
        ("per_page=5000", 5000),
        ("results-per-page=100", 100),
        ("per%5Fpage=5000", 5000),
        ("per_page=%35000", 5000),
        ("per_page=1&per_page=5000", 5000),
        ("per_page=5000&per_page=1", 5000),
        ("page=1;per_page=5000", 5000),
        ("per_page=2abc", 2),
        ("per_page=+7", 7),
        ("per_page=0", 50),
        ("per_page=5001", 50),
        ("per_page=99999999999999999999", 50),
        ("per_page=abc", 50),
        ("per_page", 50),
        ("names=per_page=5000", 50),
    ],
    ids=str,
)
def test_rows_asked_reads_as_the_controller_does_or_dearer(query: str | None, rows: int) -> None:
    assert rows_asked(query) == rows


@given(st.text())
def test_rows_asked_takes_any_query(query: str) -> None:
    assert 1 <= rows_asked(query) <= 5000


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("2001:DB8:1:3::1", "2001:db8:1:3::/64"),
        ("::1", "::/64"),
        ("", ""),
    ],
    ids=str,
)
def test_an_ipv6_host_has_its_whole_64(address: str, network: str) -> None:
    assert network_of(address) == network
