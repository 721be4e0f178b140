"""Rewriting in steps: what comes of them is what `rewrite` gives at once, however small they are; none is long."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest
from hypothesis import given, settings

from gateway.core import links
from gateway.core.conditional import etag_steps, mint_etag
from tests.core.test_links import API, DOCUMENT, PUBLIC, REWRITER, SPACED, reference

T = TypeVar("T")

LINK = f'"links":{{"self":{{"href":"{API}/v3/x"}}}}'
PROVEN = f'{{"guid":"a",{LINK}}}'
SCANNED = f'{{"metadata":{{"annotations":{{"href":"{API}"}}}},{LINK}}}'


@contextmanager
def smallest() -> Iterator[None]:
    """Steps of one resource, one value and one letter each, and no document proven as a whole."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"_SMALL": 0, "_RUN": 0, "_DEARER": 1, "_TOKENS": 1, "_SOUGHT": 1, "_GIVEN_BACK": 1}.items():
            assert hasattr(links, name)
            patch.setattr(links, name, value)
        yield


def taken(steps: Generator[None, None, T]) -> tuple[T, int]:
    """What came of them, and how many there were."""
    count = 0
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value, count
        count += 1


@settings(max_examples=300, deadline=None)
@given(body=SPACED)
def test_small_steps_come_to_the_same(body: bytes) -> None:
    with smallest():
        assert taken(REWRITER.steps(body))[0] == reference(body)
        assert REWRITER.rewrite(body) == reference(body)


@settings(max_examples=200, deadline=None)
@given(document=DOCUMENT)
def test_small_steps_come_to_the_same_without_space(document: str) -> None:
    with smallest():
        assert taken(REWRITER.steps(document.encode()))[0] == reference(document.encode())


@pytest.mark.parametrize(
    "resources",
    [
        [],
        [PROVEN],
        [SCANNED],
        [PROVEN] * 5,
        [PROVEN, SCANNED, PROVEN],
        [SCANNED, SCANNED],
        [SCANNED, PROVEN, PROVEN, SCANNED],
        ["1", PROVEN, "null"],
    ],
    ids=["none", "one", "a scanned one", "all proven", "a scanned one between", "all scanned", "around", "no objects"],
)
@pytest.mark.parametrize("between", [",", " , ", ",\n"], ids=["tight", "spaced", "lines"])
@pytest.mark.parametrize("run", [0, 100, 1 << 20], ids=["each alone", "some together", "all together"])
def test_pieces_fit_together(resources: list[str], between: str, run: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "_SMALL", 0)
    monkeypatch.setattr(links, "_RUN", run)
    array = f"[{between.join(resources)}]"
    body = f'{{"before":{array},"resources":{array},{LINK},"included":{{"x":{array},"y":[]}}}}'.encode()
    assert REWRITER.rewrite(body) == reference(body)


@pytest.mark.parametrize("escape", ["l\\u0069nks", "\\u006cinks", "link\\u0073"])
@pytest.mark.parametrize("shift", range(6))
def test_an_escape_is_seen_across_steps(escape: str, shift: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever one step of the search ends and the next begins."""
    body = f'{{"pad":"{"x" * shift}","resources":[{{"{escape}":{{"self":{{"href":"{API}/v3"}}}}}}]}}'.encode()
    monkeypatch.setattr(links, "_SMALL", 0)
    for sought in range(1, 8):
        monkeypatch.setattr(links, "_SOUGHT", sought)
        assert REWRITER.rewrite(body) == reference(body)
        assert PUBLIC.encode() in REWRITER.rewrite(body)


@pytest.mark.parametrize(
    ("resource", "each"),
    [(PROVEN, links._RUN), (SCANNED, links._RUN // links._DEARER + len(SCANNED))],
    ids=["proven", "scanned"],
)
def test_no_step_grows_with_the_page(resource: str, each: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the decoder, which delimits the resources, and putting the page together."""
    longest: list[int] = []
    replace = links.Rewriter._replace

    def replaced(self: links.Rewriter, text: bytes, count: int) -> bytes:
        longest.append(len(text))
        return replace(self, text, count)

    monkeypatch.setattr(links.Rewriter, "_replace", replaced)
    body = f'{{"resources":[{",".join([resource] * (2_000_000 // len(resource)))}]}}'.encode()
    changed, count = taken(REWRITER.steps(body))
    assert changed == body.replace(f'"self":{{"href":"{API}'.encode(), f'"self":{{"href":"{PUBLIC}'.encode())
    assert max(longest, default=0) <= links._RUN + 2 * len(resource)
    assert count > len(body) / each


@pytest.mark.parametrize("size", [0, 1, 262_143, 262_144, 262_145, 1_000_000], ids=str)
def test_an_entity_tag_in_steps_is_the_same(size: int) -> None:
    body = b"".join(b"%07x," % place for place in range(size // 8 + 1))[:size]
    assert taken(etag_steps(body)) == (mint_etag(body), -(-size // 262_144))
