"""Fields that cross the gateway (RFC 9110 §7.6, controller.md §3 and §4, peers.md "Headers")."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import forwarding
from gateway.core.forwarding import (
    TrustedProxies,
    cacheable_fields,
    client_address,
    request_fields,
    request_id,
    response_fields,
)
from gateway.core.model import Fields, RequestHead, ResponseHead, Target

NOBODY = TrustedProxies()
LB = TrustedProxies(["10.0.0.0/8", "2001:db8:1::/48"])


def head(*pairs, peer="192.0.2.7", scheme="http"):
    return RequestHead("GET", Target("/v3/processes"), Fields(pairs), peer=peer, scheme=scheme)


def sent(request, trusted=NOBODY, **how):
    options = {"host": "api.cf.internal", "via": "gw", "request_id": "id-1", "identity_encoding": False}
    return request_fields(request, trusted=trusted, **(options | how))


HOST = ("Host", "cf.example.org")


def test_a_plain_request_in_full():
    fields = sent(head(HOST, ("authorization", "bearer t"), ("Accept", "*/*"), ("X-Request-Id", "mine")))
    assert fields.pairs == (
        ("Host", "api.cf.internal"),
        ("authorization", "bearer t"),
        ("Accept", "*/*"),
        ("X-Request-Id", "mine"),
        ("Via", "1.1 gw"),
        ("X-Forwarded-For", "192.0.2.7"),
        ("X-Real-IP", "192.0.2.7"),
        ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Host", "cf.example.org"),
        ("X-Forwarded-Port", "80"),
        ("X-Vcap-Request-Id", "id-1"),
    )


@pytest.mark.parametrize(
    "pair",
    [
        ("Connection", "close"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
        ("Proxy-Authorization", "Basic eA=="),
        ("Proxy-Authenticate", "Basic"),
        ("TE", "trailers"),
        ("Trailer", "Digest"),
        ("Transfer-Encoding", "chunked"),
        ("Upgrade", "websocket"),
        ("Expect", "100-continue"),
        ("HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA"),
        ("Forwarded", "for=203.0.113.9"),
        ("Proxy", "http://evil.example"),
        ("X-HTTP-Method-Override", "DELETE"),
        ("X-Original-URL", "/internal"),
        ("X_Forwarded_For", "203.0.113.9"),
        ("x_user", "admin"),
        ("X-Forwarded-Client-Cert", "MIIB"),
    ],
    ids=lambda pair: {
        "Proxy": "CVE-2016-5386 httpoxy",
        "X_Forwarded_For": "CVE-2025-64484 underscore twin",
        "x_user": "CVE-2025-64484 any underscore",
    }.get(pair[0], pair[0]),
)
def test_what_never_goes_upstream(pair):
    assert pair[0].lower() not in sent(head(HOST, pair))


@pytest.mark.parametrize(
    ("connection", "gone"),
    [
        pytest.param("X-Hop", True, id="RFC 9110 §7.6.1"),
        pytest.param("close, x-HOP ,\tfoo", True, id="RFC 9110 §7.6.1 list without regard to case"),
        pytest.param("X-Ho", False, id="another name"),
        pytest.param("", False, id="empty"),
    ],
)
def test_fields_named_by_connection(connection, gone):
    fields = sent(head(HOST, ("Connection", "keep-alive"), ("Connection", connection), ("X-Hop", "1")))
    assert ("x-hop" in fields) is not gone


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("Authorization", id="CVE-2024-45410/CVE-2025-48865 Authorization"),
        pytest.param("X-Forwarded-For", id="CVE-2024-45410 X-Forwarded-For"),
        pytest.param("X-Forwarded-Host", id="CVE-2024-45410 X-Forwarded-Host"),
        pytest.param("X-Forwarded-Proto", id="CVE-2025-48865 X-Forwarded-Proto"),
        pytest.param("X-Real-IP", id="CVE-2025-48865 X-Real-IP"),
        *("Host", "Via", "X-Vcap-Request-Id", "X-Request-Id", "Content-Length", "Content-Type", "Accept", "Cookie"),
        *("Range", "If-None-Match", "Cache-Control", "Origin"),
    ],
)
def test_connection_cannot_strip_what_decisions_rest_on(name):
    request = head(HOST, ("Connection", f"close, {name}"), (name, "203.0.113.1"))
    fields = sent(request, host=None)
    assert name.lower() in fields


def test_content_length_yields_to_transfer_encoding():
    """RFC 9112 §6.3: of the two only the coding counts, and it is not forwarded but made anew."""
    assert "content-length" in sent(head(HOST, ("Content-Length", "3")))
    assert "content-length" not in sent(head(HOST, ("Content-Length", "3"), ("Transfer-Encoding", "chunked")))
    answer = ResponseHead(200, Fields([("Content-Length", "3"), ("Transfer-Encoding", "chunked")]))
    assert response_fields(answer, via="gw", strip_principal=True).pairs == (("Via", "1.1 gw"),)


def test_host():
    assert sent(head(HOST)).get_all("host") == ["api.cf.internal"]
    assert sent(head(("A", "1"), HOST), host=None).pairs[0] == HOST
    without = sent(head(), host=None)
    assert "host" not in without
    assert "x-forwarded-host" not in without


def test_options():
    request = head(HOST, ("Authorization", "bearer t"), ("Cookie", "a=b"), ("Accept-Encoding", "gzip"))
    assert sent(request).get("accept-encoding") == "gzip"
    shared = sent(request, drop_authorization=True, identity_encoding=True)
    assert "authorization" not in shared
    assert "cookie" not in shared
    assert shared.get_all("accept-encoding") == ["identity"]


def test_via_is_appended():
    fields = sent(head(HOST, ("Via", "1.0 a"), ("Via", "2 b")), version="1.0")
    assert fields.get_all("via") == ["1.0 a, 2 b, 1.0 gw"]


@pytest.mark.parametrize(
    ("peer", "x_forwarded_for", "out"),
    [
        pytest.param("192.0.2.7", [], "192.0.2.7", id="direct"),
        pytest.param("192.0.2.7", ["203.0.113.9"], "192.0.2.7", id="envoy#16399 spoofed by a stranger"),
        pytest.param("10.0.0.1", ["203.0.113.9"], "203.0.113.9, 10.0.0.1", id="one trusted hop"),
        pytest.param("10.0.0.1", ["6.6.6.6, 203.0.113.9"], "203.0.113.9, 10.0.0.1", id="spoofed behind a trusted hop"),
        pytest.param(
            "10.0.0.1", ["6.6.6.6", "203.0.113.9, 10.0.0.2"], "203.0.113.9, 10.0.0.2, 10.0.0.1", id="two trusted hops"
        ),
        pytest.param("10.0.0.1", [], "10.0.0.1", id="trusted peer says nothing"),
        pytest.param("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3, 10.0.0.2, 10.0.0.1", id="all trusted"),
        pytest.param("10.0.0.1", ["203.0.113.9, nonsense"], "10.0.0.1", id="malformed entry stops the walk"),
        pytest.param("10.0.0.1", ["203.0.113.9,"], "10.0.0.1", id="empty entry stops the walk"),
        pytest.param("10.0.0.1", ["300.1.1.1"], "10.0.0.1", id="no address"),
        pytest.param("10.0.0.1", ["203.0.113.9:5512"], "203.0.113.9, 10.0.0.1", id="with port"),
        pytest.param("10.0.0.1", ["[2001:DB8::7]:99"], "2001:db8::7, 10.0.0.1", id="IPv6 in brackets with port"),
        pytest.param("10.0.0.1", ["2001:db8::7"], "2001:db8::7, 10.0.0.1", id="bare IPv6"),
        pytest.param("::ffff:10.0.0.1", ["203.0.113.9"], "203.0.113.9, 10.0.0.1", id="IPv4-mapped trusted peer"),
        pytest.param("::ffff:192.0.2.7", ["203.0.113.9"], "192.0.2.7", id="IPv4-mapped stranger"),
        pytest.param("2001:db8:1::5", ["203.0.113.9"], "203.0.113.9, 2001:db8:1::5", id="trusted IPv6 peer"),
        pytest.param("fe80::1%eth0", [], "fe80::1", id="zone id"),
        pytest.param("", ["203.0.113.9"], None, id="unix socket, not trusted"),
    ],
)
def test_the_first_forwarded_for_entry_is_the_true_client(peer, x_forwarded_for, out):
    request = head(HOST, *(("X-Forwarded-For", value) for value in x_forwarded_for), peer=peer)
    fields = sent(request, LB)
    first = out.split(",")[0] if out else None
    assert fields.get_all("x-forwarded-for") == ([out] if out else [])
    assert fields.get("x-real-ip") == first
    assert client_address(request, LB) == (first or "")


def test_a_trusted_unix_socket():
    request = head(HOST, ("X-Forwarded-For", "203.0.113.9"), peer="")
    unix = TrustedProxies(["unix"])
    assert client_address(request, unix) == "203.0.113.9"
    assert sent(request, unix).get("x-forwarded-for") == "203.0.113.9"


@pytest.mark.parametrize("network", ["10.0.0.1/8", "example.org", "10.0.0.0/33"])
def test_networks_that_are_none(network):
    with pytest.raises(ValueError, match=network):
        TrustedProxies([network])


@given(spoofed=st.lists(st.sampled_from(["10.0.0.9", "203.0.113.9", "x", "", "::1"]), max_size=4))
def test_no_stranger_chooses_its_address(spoofed):
    """Whatever a client writes, the entry its proxy appended decides."""
    forwarded = ", ".join([*spoofed, "198.51.100.4"])
    request = head(HOST, ("X-Forwarded-For", forwarded), peer="10.0.0.1")
    assert client_address(request, LB) == "198.51.100.4"
    assert client_address(head(HOST, ("X-Forwarded-For", forwarded)), LB) == "192.0.2.7"


CLAIMS = (("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "api.example.com"), ("X-Forwarded-Port", "8443"))


@pytest.mark.parametrize(
    ("request_head", "how", "expected"),
    [
        pytest.param(head(HOST, *CLAIMS), {}, ("http", "cf.example.org", "80"), id="a stranger's claims"),
        pytest.param(
            head(HOST, *CLAIMS, peer="10.0.0.1"), {}, ("https", "api.example.com", "8443"), id="a trusted peer's claims"
        ),
        pytest.param(
            head(("Host", "cf.example.org:8080"), scheme="https"),
            {},
            ("https", "cf.example.org:8080", "8080"),
            id="the connection's own truth",
        ),
        pytest.param(
            head(HOST, ("X-Forwarded-Proto", "gopher"), ("X-Forwarded-Host", "a b"), peer="10.0.0.1"),
            {},
            ("http", "cf.example.org", "80"),
            id="a trusted peer's nonsense",
        ),
        pytest.param(
            head(HOST, ("X-Forwarded-Proto", "https, http"), ("X-Forwarded-Host", "a.example, b"), peer="10.0.0.1"),
            {},
            ("https", "a.example", "443"),
            id="a trusted peer's lists",
        ),
        pytest.param(
            head(HOST, *CLAIMS, peer="10.0.0.1"),
            {"external_scheme": "https", "external_host": "cf.example.net"},
            ("https", "cf.example.net", "443"),
            id="cache poisoning: a shared fetch speaks of the public URL only",
        ),
        pytest.param(head(("Host", "evil/<x>")), {}, ("http", None, "80"), id="a Host that is none"),
        pytest.param(head(("Host", "[2001:db8::1]:81")), {}, ("http", "[2001:db8::1]:81", "81"), id="IPv6 Host"),
    ],
)
def test_how_the_client_reached_us(request_head, how, expected):
    fields = sent(request_head, LB, **how)
    assert tuple(fields.get(f"x-forwarded-{name}") for name in ("proto", "host", "port")) == expected


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        pytest.param([("X-Vcap-Request-Id", "trace-me-123")], "trace-me-123", id="recordings protocol-028"),
        pytest.param([("X-Vcap-Request-Id", 'bad $%{}"id')], "badid", id="recordings protocol-029"),
        pytest.param([("X-Vcap-Request-Id", "$%")], "fresh", id="nothing survives cleaning"),
        pytest.param([("X-Vcap-Request-Id", "a" * 300)], "a" * 255, id="recordings protocol-031"),
        pytest.param([("X-Vcap-Request-Id", "")], "fresh", id="recordings protocol-032"),
        pytest.param([("X-Request-Id", "from-x")], "from-x", id="recordings protocol-033"),
        pytest.param([("X-Request-Id", "other"), ("X-Vcap-Request-Id", "wins")], "wins", id="recordings protocol-050"),
        pytest.param(
            [("X-Vcap-Request-Id", "one"), ("X-Vcap-Request-Id", "two")], "onetwo", id="recordings protocol-051"
        ),
        pytest.param([("X-Request-Id", "x\r\nSet-Cookie: a_é")], "xSet-Cookiea_", id="CRLF and non-ASCII"),
        pytest.param([], "fresh", id="none given"),
    ],
)
def test_request_id(pairs, expected):
    assert request_id(Fields(pairs), "fresh") == expected


ANSWER = ResponseHead(
    200,
    Fields(
        [
            ("Content-Type", "application/json; charset=utf-8"),
            ("X-USER-GUID", "u-1"),
            ("Set-Cookie", "a=1"),
            ("x-cf-warnings", "one"),
            ("Set-Cookie", "b=2"),
            ("X-Cf-Warnings", "two"),
            ("Connection", "close, X-Hop, Content-Type, Cache-Control"),
            ("Cache-Control", "no-store"),
            ("X-Hop", "1"),
            ("Keep-Alive", "timeout=20"),
            ("Transfer-Encoding", "chunked"),
            ("Trailer", "X-T"),
            ("Upgrade", "h2c"),
            ("Via", "1.1 gorouter"),
        ]
    ),
)


def test_response_fields_keep_order_case_and_repetition():
    assert response_fields(ANSWER, via="gw", strip_principal=True).pairs == (
        ("Content-Type", "application/json; charset=utf-8"),
        ("Set-Cookie", "a=1"),
        ("x-cf-warnings", "one"),
        ("Set-Cookie", "b=2"),
        ("X-Cf-Warnings", "two"),
        ("Cache-Control", "no-store"),
        ("Via", "1.1 gorouter, 1.1 gw"),
    )
    assert response_fields(ANSWER, via="gw", strip_principal=False).get("x-user-guid") == "u-1"


@pytest.mark.parametrize(
    "name",
    [
        *(
            "X-RateLimit-Limit",
            "X-RateLimit-Remaining",
            "X-RateLimit-Reset",
            "RateLimit",
            "RateLimit-Policy",
            "Retry-After",
        ),
        *(
            "X-VCAP-Request-ID",
            "X-Request-Id",
            "X-B3-TraceId",
            "X-Runtime",
            "X-Cf-Warnings",
            "Set-Cookie",
            "X-USER-GUID",
        ),
        *("Date", "Age", "Vary", "Content-Length"),
    ],
)
def test_what_is_never_replayed_from_the_cache(name):
    stay = (("Content-Type", "application/json"), ("X-Frame-Options", "SAMEORIGIN"), ("ETag", '"x"'), ("X-Rate", "1"))
    assert cacheable_fields(Fields([stay[0], (name, "1"), *stay[1:], (name.lower(), "2")])).pairs == stay


def test_addresses_without_end_take_a_bounded_place():
    """Clients choose them."""
    trusted = forwarding.TrustedProxies(["10.0.0.0/8"])
    for number in range(3 * forwarding._ADDRESSES):
        assert (f"10.0.{number // 256}.{number % 256}" in trusted) is True
        assert (f"192.0.{number // 256}.{number % 256}" in trusted) is False
    assert 0 < len(trusted._known) <= forwarding._ADDRESSES
    before = len(trusted._known)
    assert "x" * 1000 not in trusted
    assert len(trusted._known) == before


def test_what_speaks_against_a_name_too_long_to_be_remembered():
    long = "X" * 1000
    kept = Fields(((long, "1"),))
    sent = request_fields(
        RequestHead("GET", Target("/"), kept.plus((f"X-Forwarded-{long}", "2"), (f"{long}_", "3"))),
        host=None,
        via="gateway",
        trusted=forwarding.TrustedProxies(),
        request_id="id",
        identity_encoding=False,
    )
    assert [pair for pair in sent.pairs if long in pair[0]] == [*kept.pairs]
