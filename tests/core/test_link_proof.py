"""The proof by counting: when it gives a number, replacing text is the same as reading the document token by token."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.core import links
from gateway.core.link_proof import links_alone, links_only
from tests.core.test_links import API, REWRITER, SPACED, WHOLE, refuse, scanned

__all__ = ["scanned"]  # a fixture

LINK = b'"links":{"self":{"href":"/v3"}}'
ESCAPED = (b"\\u006", b"\\u007")  # whoever asks for the proof has seen that there are none


def by_scanning(body: bytes) -> bytes:
    """The document with its links rewritten, none of it taken at once."""
    return links._Scan(body, links._DOCUMENT, REWRITER._href).run()


@settings(max_examples=400, deadline=None)
@given(body=SPACED, at=st.integers(0, 400), noise=st.sampled_from([b"", b"", b'"', b"{", b"]", b",", b":", b"1", b" "]))
@example(body=WHOLE, at=0, noise=b"")
def test_what_is_proven_is_what_a_scan_finds(body: bytes, at: int, noise: bytes) -> None:
    body = body[:at] + noise + body[at:]
    proven = links_alone(body)
    if proven is None or any(escape in body for escape in ESCAPED):
        return
    json.loads(body, parse_constant=refuse)
    assert proven == body.count(b'"href')
    assert REWRITER._replace(body, proven) == by_scanning(body)


@pytest.mark.parametrize(
    ("document", "links"),
    [
        pytest.param(b"{}", 0, id="empty"),
        pytest.param(b"{" + LINK + b"}", 1, id="a resource"),
        pytest.param(
            b'{"resources":[{%b},{%b,"x":[{"y":1}]}],"included":{"spaces":[{%b}]}}' % ((LINK,) * 3), 3, id="page"
        ),
        pytest.param(b'{"pagination":{"next":{"href":"/v3"},"previous":null,"total":1}}', 1, id="pagination"),
        pytest.param(b'{"pagination":null,%b}' % LINK, 1, id="no pagination"),
        pytest.param(b'{"links":{"self":{"href":1}}}', 1, id="a link that is no text"),
        pytest.param(b'{"pagination":{"other":{"href":"/v3"}}}', None, id="no link of pagination"),
        pytest.param(b'{"x":{"href":"/v3"}}', None, id="elsewhere"),
        pytest.param(b'{"metadata":{"annotations":{"href":"/v3"}},%b}' % LINK, None, id="in an annotation"),
        pytest.param(b'{"x":"\\"href\\":","links":{"self":{"href":"/v3"}}}', None, id="behind an escaped quote"),
        pytest.param(b'{"x":"\\\\","hrefs":1,%b}' % LINK, None, id="a key that begins so"),
        pytest.param(b'{"links":{"self":{"href":"/a","href":"/b"}}}', None, id="a key twice in a link"),
        pytest.param(b'{"links":{"a":{"href":"/a"},"a":{"href":"/b"}}}', None, id="a link twice"),
        pytest.param(b'{"links":{"a":{"href":"/a"}},"links":{"a":{"href":"/b"}}}', None, id="all links twice"),
        pytest.param(b'{"links":{"a":{"href":"/a"}},"links":{}}', None, id="none at second sight"),
        pytest.param(b'{"resources":[{%b}],"resources":[]}' % LINK, None, id="resources twice"),
        pytest.param(b'{"links":{"a":[{"href":"/a"}]}}', None, id="an array of links"),
        pytest.param(b'{"links":{"a":null},"x":"href"}', None, id="no link"),
        pytest.param(b'{"links":{"a":{"href":{"href":"/v3"}}}}', None, id="a link in a link"),
        pytest.param(b'{"resources":[1,{%b}]}' % LINK, None, id="no resource"),
        pytest.param(b'{"resources":null,%b}' % LINK, None, id="no resources"),
        pytest.param(b"[{" + LINK + b"}]", None, id="no object"),
    ],
)
def test_what_is_certain(document: bytes, links: int | None) -> None:
    assert links_alone(document) == links


@pytest.mark.parametrize(
    "value",
    [
        *(b"01", b"1.", b".5", b"+1", b"-", b"-01", b"1e", b"0x1", b"1_0", b"NaN", b"Infinity", b"nul", b"", b"'x'"),
        *(b"[1,]", b"[,1]", b"[1 2]", b"[1}", b"{1:2}", b'{"a":1,}', b'{"a"}', b'"\\x"', b'"\\u12g4"', b'"\x01"'),
        *(b'"\t"', b'"\\ud8', b"\x0b1", b"\xc2\xa01", b"\xef\xbb\xbf1"),
    ],
    ids=repr,
)
@pytest.mark.parametrize(
    "document",
    [
        b'{"x":%b,"links":{"self":{"href":"/v3"}}}',
        b'{"links":{"self":{"href":"/v3"}},"x":%b}',
        b'{"links":{"self":{"href":"/v3","x":%b}}}',
        b'{"links":{"self":{"href":%b}}}',
        b'{"resources":[{"x":%b,"links":{"self":{"href":"/v3"}}}]}',
        b'{"links":{"self":{"href":"/v3"}}}%b,',
    ],
)
def test_nothing_is_certain_of_what_is_no_json(document: bytes, value: bytes) -> None:
    assert links_alone(document % value) is None


def test_depth_is_not_certain() -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    assert links_alone(b'{"x":%b,%b}' % (deep, LINK)) is None
    assert links_only(b'{"x":%b,%b}' % (deep, LINK)) is None


def test_a_small_page_is_not_scanned(scanned: list[int]) -> None:
    resource = f'{{"guid":"1","links":{{"self":{{"href":"{API}/v3/apps/1"}}}}}}'
    page = f'{{"pagination":{{"first":{{"href":"{API}/v3/apps"}}}},"resources":[{resource},{resource}]}}'.encode()
    assert REWRITER.rewrite(page).count(API.encode()) == 0
    assert scanned == []
