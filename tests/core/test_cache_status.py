"""Cache-Status (RFC 9211)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.cache_status import append, render
from gateway.core.structured import Item, Token, parse_item, parse_list


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        pytest.param({"hit": True, "ttl": 376}, "gateway;hit;ttl=376", id="2.1-hit"),
        pytest.param({"hit": True, "ttl": -412}, "gateway;hit;ttl=-412", id="2.4-stale-hit"),
        pytest.param({"hit": True, "ttl": 0}, "gateway;hit;ttl=0", id="2.4-zero-is-written"),
        pytest.param(
            {"hit": True, "fwd": "stale", "fwd_status": 200, "stored": True}, "gateway;hit", id="2.2-hit-excludes-fwd"
        ),
        pytest.param({"fwd": "uri-miss"}, "gateway;fwd=uri-miss", id="2.2-fwd"),
        pytest.param(
            {"fwd": "uri-miss", "fwd_status": 200, "stored": True, "collapsed": True, "ttl": 30},
            "gateway;fwd=uri-miss;fwd-status=200;ttl=30;stored;collapsed",
            id="2.3-2.6-everything-of-a-miss",
        ),
        pytest.param(
            {"fwd": "miss", "stored": False, "collapsed": False}, "gateway;fwd=miss", id="2.5-false-is-left-out"
        ),
        pytest.param({"fwd": "bypass", "detail": "range"}, "gateway;fwd=bypass;detail=range", id="2.8-detail-token"),
        pytest.param(
            {"fwd": "bypass", "detail": 'a "b"'}, 'gateway;fwd=bypass;detail="a \\"b\\""', id="2.8-detail-string"
        ),
        pytest.param({"fwd": "miss", "key": "/v3/a?b=c"}, 'gateway;fwd=miss;key="/v3/a?b=c"', id="2.7-key-is-a-string"),
        pytest.param({"fwd": "miss", "key": "é\r\n"}, 'gateway;fwd=miss;key="???"', id="2.7-key-cannot-break-out"),
        pytest.param({"cache": "my cache", "hit": True}, '"my cache";hit', id="2-name-as-a-string"),
        pytest.param({"hit": True, "ttl": 10**20}, "gateway;hit;ttl=999999999999999", id="9651-3.3.1-largest"),
        pytest.param({}, "gateway", id="2-nothing-known"),
    ],
)
def test_render(arguments, expected):
    assert render(**arguments) == expected


@pytest.mark.parametrize(
    ("existing", "expected"),
    [
        pytest.param([], "gateway;hit", id="2-alone"),
        pytest.param(["origin; hit"], "origin;hit, gateway;hit", id="2-nearest-the-client-comes-last"),
        pytest.param(["a;hit", "b;fwd=miss"], "a;hit, b;fwd=miss, gateway;hit", id="2-two-lines"),
        pytest.param(["HIT from proxy, x"], "gateway;hit", id="9651-4.2-an-unreadable-list-is-dropped"),
    ],
)
def test_append(existing, expected):
    assert append(existing, "gateway;hit") == expected


@given(name=st.text(max_size=20), key=st.text(max_size=40), detail=st.text(max_size=40), ttl=st.integers())
def test_any_text_gives_a_field_that_reads_back(name, key, detail, ttl):
    item = parse_item(render(name, fwd="miss", key=key, detail=detail, ttl=ttl))
    assert item.parameters["fwd"] == Token("miss")
    assert len(item.parameters["key"]) == len(key)
    shown = item.parameters["detail"]
    assert (shown.value if isinstance(shown, Token) else shown) == "".join(
        c if " " <= c <= "~" else "?" for c in detail
    )


@given(st.lists(st.text(max_size=20), max_size=3))
def test_ours_is_always_the_last_member(existing):
    assert parse_list([append(existing, render(hit=True))])[-1] == Item(Token("gateway"), {"hit": True})
