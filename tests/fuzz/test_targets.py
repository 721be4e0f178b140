"""The laws of the fuzz targets, held by Hypothesis and by every input that a fuzzer ever found worth keeping."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "fuzz"))

from targets import API, TARGETS, TOKEN  # noqa: E402 - beside the tests, since it is a script's module too

from gateway.core.model import Fields, ResponseHead  # noqa: E402
from gateway.upstream.whole import Whole  # noqa: E402

CORPUS = ROOT / "fuzz" / "corpus"
# What inputs are made of, besides any bytes: pieces that get past the first check.
PIECES = [
    *(
        b"GET ",
        b"POST ",
        b"HEAD ",
        b"/v3/processes",
        b"/internal/x",
        b"//",
        b"/..",
        b"%2f",
        b"%00",
        b"?a=1&b[]=2",
        b"#",
    ),
    *(
        b" HTTP/1.1\r\n",
        b"Host: a\r\n",
        b"Authorization: bearer $T\r\n",
        b"Content-Length: 1\r\n",
        b"\r\n\r\n",
        b"\r\n",
    ),
    *(
        b'{"links":{"a":{"href":"',
        b'"}}}',
        b'{"resources":[',
        b"]}",
        b"$A/v3",
        b"\\/v3",
        b"\\u002f",
        b'"href":"',
        b"null",
    ),
    *(
        b"max-age=",
        b"no-cache",
        b'"x"',
        b'W/"y"',
        b"bytes=0-",
        b"-1",
        b", ",
        b";q=0.5",
        b"?1",
        b":YQ==:",
        b"@1",
        b"bearer ",
    ),
    *(b"$T", b".", b"=", b"eyJhbGciOiJub25lIn0", b'{"keys":[', b'{"kty":"RSA","n":"', b'","e":"AQAB"}', b'"kid":"a"'),
    *(
        b"public_url: http://a\n",
        b"upstream: {url: http://b}\n",
        b"auth: {keys: [{secret: ",
        b"${SECRET}",
        b"}]}\n",
        b"&a *a",
    ),
    *(b'{"jti":"1","iss":"https://uaa.example.org/oauth/token","aud":["cloud_controller"],', b'"exp":1800000060', b"}"),
    *(b"HTTP/1.1 200 OK\r\n", b"Content-Length: ", b"Connection: keep-alive\r\n", b"2\r\n\r\nok", b"0\r\n\r\n"),
    *(b"\x00", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"9" * 30, b"[" * 50),
]
inputs = st.one_of(
    st.binary(max_size=300),
    st.lists(st.sampled_from(PIECES) | st.binary(max_size=4), max_size=12).map(b"".join),
)


@pytest.mark.parametrize("name", TARGETS)
def test_every_input_of_the_corpus(name: str) -> None:
    found = sorted((CORPUS / name).iterdir())
    assert found, "a target begins with seeds"
    for file in found:
        TARGETS[name](file.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes(name: str) -> None:
    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=inputs)
    def holds(data: bytes) -> None:
        TARGETS[name](data)

    holds()


def test_corpus_and_targets_are_the_same_names() -> None:
    assert {folder.name for folder in CORPUS.iterdir()} == set(TARGETS)


def test_the_corpus_holds_nothing_secret() -> None:
    """Fuzzers keep what they were given; inputs say `$T` for the token that is put in its place."""
    for file in CORPUS.rglob("*"):
        if file.is_file() and file.stat().st_size < 1 << 16:
            data = file.read_bytes()
            assert TOKEN.encode() not in data
            assert not re.search(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\n[A-Za-z0-9+/=\n]{100}", data)


# -- the targets can tell: each is shown a broken law


@pytest.mark.parametrize(
    ("name", "module", "attribute", "broken", "data"),
    [
        ("links", "targets", "_REWRITER", "rewrite", b'{"links":{"a":{"href":"$A/v3"}}}'),
        ("token", "targets", "_VERIFIER", "verify", b"a.b.c"),
        ("answer", "targets", "whole", "read", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\noH"),
    ],
)
def test_a_target_can_tell(monkeypatch, name: str, module: str, attribute: str, broken: str, data: bytes) -> None:
    import targets

    class Broken:
        def rewrite(self, body: bytes) -> bytes:
            return body

        def verify(self, text: str, now: float) -> object:
            del text, now
            return targets.Principal

        def remembered(self, text: str, now: float) -> object:
            return self.verify(text, now)

        def read(self, data: bytes, most: int) -> object:
            return Whole(ResponseHead(200, Fields([("Content-Length", "1")]), "OK"), data[-2:][:most])

    assert hasattr(Broken, broken)
    assert module == targets.__name__
    assert API in targets.reference.__globals__["API"]
    monkeypatch.setattr(targets, attribute, Broken())
    with pytest.raises(AssertionError):
        TARGETS[name](data)
