"""The request target: what is matched is what is forwarded (peers.md, "Path")."""

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.errors import Denial, Reason
from gateway.core.model import Target
from gateway.core.target import parse

RECORDINGS = Path(__file__).parents[2] / "../shared/recordings"


@pytest.mark.parametrize(
    ("raw", "path", "query"),
    [
        pytest.param("/", "/", None, id="root"),
        pytest.param("/?", "/", None, id="an empty query is none"),
        pytest.param("/v3/processes", "/v3/processes", None, id="plain"),
        pytest.param("/v3/processes?page=2&per_page=50", "/v3/processes", "page=2&per_page=50", id="plain with query"),
        pytest.param("/v2/users/a@b.example?x=?&y=/", "/v2/users/a@b.example", "x=?&y=/", id="RFC 3986 §3.4 query"),
        pytest.param("/v2/users/caf%C3%A9", "/v2/users/caf%C3%A9", None, id="needed encoding stays"),
        pytest.param("/v3/apps/a..b/.c/...", "/v3/apps/a..b/.c/...", None, id="dots that are no dot segment"),
        pytest.param("http://api.example.org/v3/info?a=b", "/v3/info", "a=b", id="RFC 9112 §3.2.2 absolute-form"),
        pytest.param("HTTPS://api.example.org:8443", "/", None, id="RFC 9112 §3.2.2 empty path"),
        pytest.param("http://[2001:db8::1]:80?q", "/", "q", id="RFC 9112 §3.2.2 IPv6, query only"),
        pytest.param(
            "/v3/processes?a=%", "/v3/processes", "a=%", id="recordings malformed-027 is the controller's to judge"
        ),
        pytest.param(
            "/v3/processes?types=a\\b'{}|^`", "/v3/processes", "types=a\\b'{}|^`", id="recordings malformed-045/046"
        ),
        pytest.param(
            "/v3/processes?next=../%2e%2e/%00", "/v3/processes", "next=../%2e%2e/%00", id="the query is not a path"
        ),
    ],
)
@pytest.mark.parametrize("strict", [True, False], ids=["strict", "generic"])
def test_accepted_by_both_readings(raw, path, query, strict):
    assert parse(raw, strict_api=strict) == Target(path, query)


@pytest.mark.parametrize(
    ("raw", "strict", "generic"),
    [
        pytest.param("//v3/processes", "/v3/processes", "//v3/processes", id="controller.md §1 leading slashes"),
        pytest.param(
            "/v3//processes///x", "/v3/processes/x", "/v3//processes///x", id="controller.md §1 inner slashes"
        ),
        pytest.param("/v3/processes/", "/v3/processes", "/v3/processes/", id="controller.md §1 trailing slash"),
        pytest.param("/v3/processes//?a", "/v3/processes?a", "/v3/processes//?a", id="recordings protocol-072"),
        pytest.param("///", "/", "///", id="nothing but slashes"),
        pytest.param("http://api.example.org//v3/", "/v3", "//v3/", id="absolute-form with slashes"),
    ],
)
def test_slashes_are_collapsed_for_the_controller_only(raw, strict, generic):
    assert str(parse(raw, strict_api=True)) == strict
    assert str(parse(raw, strict_api=False)) == generic


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param("", id="empty"),
        pytest.param("*", id="RFC 9112 §3.2.4 asterisk-form"),
        pytest.param("api.example.org:443", id="RFC 9112 §3.2.3 authority-form"),
        pytest.param("v3/processes", id="recordings protocol-094 relative path"),
        pytest.param("ftp://example.org/", id="other scheme"),
        pytest.param("http:///v3", id="absolute-form without authority"),
        pytest.param("http://user:secret@example.org/v3", id="RFC 9110 §4.2.4 userinfo"),
        pytest.param("http://example.org\\@evil.example/", id="backslash in the authority"),
        pytest.param("http://example.org:80x/", id="broken port"),
        pytest.param("/v3/pro cesses", id="space"),
        pytest.param("/v3\r\nX: y", id="CRLF"),
        pytest.param("/v3/processes\n", id="trailing LF"),
        pytest.param("/v3/\x00", id="NUL"),
        pytest.param("/v3/\x7f", id="DEL"),
        pytest.param("/v3/é", id="non-ASCII path"),
        pytest.param("/v3/\udce9", id="undecodable byte"),
        pytest.param("/v3/processes?types=é", id="recordings malformed-044 non-ASCII query"),
        pytest.param("/v3/processes?a=\t", id="control in the query"),
        pytest.param('/v3/processes?types="<>`{}|^', id="recordings malformed-043"),
        pytest.param("/v3/processes?a=<", id="less-than in the query"),
        pytest.param("/v3/processes#top", id="fragment"),
        pytest.param("/v3\\processes", id="backslash"),
        pytest.param("/v3/%", id="lone percent"),
        pytest.param("/v3/%7", id="half an escape"),
        pytest.param("/v3/%zz", id="no hexadecimal"),
    ],
)
@pytest.mark.parametrize("strict", [True, False], ids=["strict", "generic"])
def test_bad_targets(raw, strict):
    with pytest.raises(Denial) as caught:
        parse(raw, strict_api=strict)
    assert caught.value.reason is Reason.BAD_TARGET
    assert caught.value.detail.isascii()
    assert caught.value.detail.isprintable()


@pytest.mark.parametrize(
    ("raw", "generic"),
    [
        pytest.param("/v3/../internal/v4/syslog_drain_urls", Reason.BAD_TARGET, id="GHSA-6jwx-7vp4-9847 dot segments"),
        pytest.param("/v3/info/%2e%2e/processes", Reason.BAD_TARGET, id="GHSA-6jwx-7vp4-9847 encoded dot segments"),
        pytest.param("/v3/info/.%2E/processes", Reason.BAD_TARGET, id="half-encoded dot segment"),
        pytest.param("/v3/info/..%2fprocesses", Reason.BAD_TARGET, id="CVE-2025-66490 encoded slash behind dots"),
        pytest.param(
            "/v3/info/%2e%2e%5cprocesses", Reason.BAD_TARGET, id="CVE-2025-66490 encoded backslash behind dots"
        ),
        pytest.param("/v3/info/..;/processes", Reason.BAD_TARGET, id="dot segment with a path parameter"),
        pytest.param("/v3/./processes", Reason.BAD_TARGET, id="recordings protocol-073"),
        pytest.param("/v3/..", Reason.BAD_TARGET, id="dot segment at the end"),
        pytest.param("http://api.example.org/../internal", Reason.BAD_TARGET, id="VSV00018 dots behind an authority"),
        pytest.param("/v3/processes%00", Reason.BAD_TARGET, id="CVE-2025-66490 encoded NUL"),
        pytest.param("/v3/processes%0d%0aX:y", Reason.BAD_TARGET, id="encoded CRLF"),
        pytest.param("/v3%2Fprocesses", None, id="CVE-2025-66490 encoded slash"),
        pytest.param("/v3/apps%5cx", None, id="CVE-2025-66490 encoded backslash"),
        pytest.param("/v3/%70rocesses", None, id="recordings protocol-078 needless encoding"),
        pytest.param("/%69nternal/v4/x", None, id="deny row behind needless encoding"),
        pytest.param("/v3/processes%2ejson", None, id="encoded dot in a segment"),
        pytest.param("/v3/%7Eme", None, id="encoded tilde"),
    ],
)
def test_where_the_controller_answers_404(raw, generic):
    with pytest.raises(Denial) as caught:
        parse(raw, strict_api=True)
    assert caught.value.reason is Reason.UNKNOWN_ROUTE
    if generic is None:
        assert str(parse(raw, strict_api=False)) == raw
    else:
        with pytest.raises(Denial) as caught:
            parse(raw, strict_api=False)
        assert caught.value.reason is generic


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param("/v3/processes/x.css", id="suffix"),
        pytest.param("/v3/processes;x.css", id="path parameter"),
        pytest.param("/v3/processes%3Fx.css", id="encoded question mark"),
        pytest.param("/v3/processes%23x.css", id="encoded number sign"),
        pytest.param("/v3/processes%252fx.css", id="double encoding"),
    ],
)
def test_deception_by_suffix_keeps_the_bytes_it_is_judged_by(raw):
    """Web cache deception (peers.md, "Cache"): nothing is decoded, so the matched path cannot be the shorter one."""
    assert parse(raw, strict_api=True).path == raw


PIECES = st.sampled_from(
    (
        *("/", "//", ".", "..", "%2e", "%2F", "%5c", "%00", "%41", "%C3%A9", "%", "\\", "?", "#", "v3", "a.b", ";x"),
        *(" ", "é", "http://h", "https://u@h", "*", "&", "=", '"', "<", "~", "-"),
    )
)


@given(raw=st.lists(PIECES, max_size=8).map("".join) | st.text(max_size=20), strict=st.booleans())
@example(raw="http://h//x/", strict=True)
@example(raw="http://h//x/", strict=False)
def test_the_canonical_form_is_its_own_canonical_form(raw, strict):
    try:
        once = parse(raw, strict_api=strict)
    except Denial:
        return
    assert once.path.startswith("/")
    assert str(once).isascii()
    assert parse(str(once), strict_api=strict) == once


@given(raw=st.lists(PIECES, max_size=8).map("".join))
def test_a_strict_path_has_one_reading(raw):
    """No segment of an accepted strict path is empty, dotted, or becomes another one by decoding."""
    try:
        path = parse("/" + raw, strict_api=True).path
    except Denial:
        return
    assert path == "/" or all(part not in ("", ".", "..") for part in path[1:].split("/"))
    assert not {"%2f", "%5c", "%2e", "%00", "%41"} & {path[i : i + 3].lower() for i in range(len(path))}


def test_recorded_targets_are_judged_as_the_controller_judged_them():
    if not RECORDINGS.exists():
        pytest.skip("recordings not beside the checkout")
    seen = {Reason.BAD_TARGET: 0, Reason.UNKNOWN_ROUTE: 0}
    for line in (RECORDINGS / "exchanges.jsonl").read_text(encoding="utf-8").splitlines():
        exchange = json.loads(line)
        raw, status = exchange["request"].get("target"), exchange["response"]["status"]
        if not raw or "<" in exchange.get("note", ""):
            continue
        try:
            parse(raw, strict_api=True)
        except Denial as denial:
            seen[denial.reason] += 1
            # "*" (404) and the raw byte E9 (500) are refused with 400: no client depends on either.
            expected = {404} if denial.reason is Reason.UNKNOWN_ROUTE else {400, 500} if raw != "*" else {404}
            assert status in expected, (exchange["name"], raw)
    assert seen[Reason.BAD_TARGET] >= 3
    assert seen[Reason.UNKNOWN_ROUTE] >= 10
