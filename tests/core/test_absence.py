"""Answers that say that there is nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.absence import is_empty_page, says_absent

V3 = b'{"errors":[{"detail":"App not found","title":"CF-ResourceNotFound","code":10010}]}'
UNKNOWN = b'{"errors":[{"detail":"Unknown request","title":"CF-NotFound","code":10000}]}'
V2 = b'{"description":"The app could not be found: x","error_code":"CF-AppNotFound","code":100004}'
V2_UNKNOWN = b'{"description":"Unknown request","error_code":"CF-NotFound","code":10000}'


@pytest.mark.parametrize(
    ("status", "body", "controllers", "others"),
    [
        pytest.param(404, V3, True, True, id="v3: the resource is not there"),
        pytest.param(410, V3, True, True, id="v3: not any more"),
        pytest.param(404, UNKNOWN, False, False, id="v3: no such path"),
        pytest.param(404, V2, True, True, id="v2: the resource is not there"),
        pytest.param(404, V2_UNKNOWN, False, False, id="v2: no such path"),
        pytest.param(404, b'{"errors":[{"code":10010},{"code":10008}]}', False, False, id="and something else"),
        pytest.param(404, b'{"message":"nothing here"}', False, True, id="another origin's words"),
        pytest.param(404, b"404 Not Found: Requested route does not exist.", False, True, id="a router's words"),
        pytest.param(404, b"", False, True, id="no words"),
        pytest.param(404, b'{"code":1,"error_code":"CF-Other"}', False, False, id="v2: another error"),
        pytest.param(404, V3 + b" " * 5000, False, False, id="too long for an error"),
        pytest.param(403, V3, False, False, id="403"),
        pytest.param(200, V3, False, False, id="200"),
        pytest.param(500, V3, False, False, id="500"),
    ],
)
def test_what_says_that_a_resource_is_not_there(status: int, body: bytes, controllers: bool, others: bool) -> None:
    assert says_absent(status, body, controllers=True) is controllers
    assert says_absent(status, body, controllers=False) is others


@pytest.mark.parametrize(
    ("body", "empty"),
    [
        (b'{"pagination":{"total_results":0},"resources":[]}', True),
        (b'{"pagination":{"total_results":1},"resources":[{}]}', False),
        (b"[]", False),
        (b'{"resources":null}', False),
        (b"{}", False),
        (b'{"resources":[]', False),
        (b'{"resources":[],"x":"' + b"x" * 5000 + b'"}', False),
    ],
)
def test_what_is_a_page_without_rows(body: bytes, empty: bool) -> None:
    assert is_empty_page(body) is empty


@given(st.binary(max_size=100))
def test_no_content_raises(body: bytes) -> None:
    says_absent(404, body, controllers=True)
    is_empty_page(body)
