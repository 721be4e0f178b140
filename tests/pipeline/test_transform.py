from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.core.keys import CacheKey
from gateway.core.links import Rewriter
from gateway.core.model import Fields, ResponseHead
from gateway.core.routes import CacheMode, CacheRule, Route, Share
from gateway.pipeline.ports import UpstreamError
from gateway.pipeline.transform import (
    BIG,
    Page,
    collect,
    is_json,
    mint,
    own_fields,
    response_fields,
    rewrite,
    unstorable,
    without_byte_exact,
)

ORIGIN, PUBLIC = "https://api.internal.example.org", "https://gateway.example.org"
REWRITER = Rewriter([ORIGIN], PUBLIC)
JSON = ("Content-Type", "application/json; charset=utf-8")
KEY = CacheKey("domain", "/v3/processes", "", "json")


def page(*fields: tuple[str, str], status: int = 200, body: bytes = b"{}") -> Page:
    return Page(status, None, Fields(fields or (JSON,)), body)


@pytest.mark.parametrize(
    ("fields", "json"),
    [
        ((JSON,), True),
        ((("Content-Type", "application/json"),), True),
        ((("Content-Type", "Application/JSON;charset=utf-8"),), True),
        ((("Content-Type", "application/problem+json"),), True),
        ((("Content-Type", "application/x-yaml"),), False),
        ((("Content-Type", "application/jsonp"),), False),
        ((), False),
        ((JSON, ("Content-Encoding", "gzip")), False),
        ((JSON, ("Content-Encoding", "identity")), True),
    ],
)
def test_what_has_links_to_rewrite(fields: tuple[tuple[str, str], ...], json: bool) -> None:
    assert is_json(Fields(fields)) is json


@pytest.mark.parametrize(
    ("status", "raw", "rewritten"),
    [
        (202, False, True),
        (302, False, True),
        (201, True, True),
        (302, True, False),
    ],
    ids=["job", "redirect", "created-raw", "signed-url-of-the-blob-store"],
)
def test_location_and_link_are_rewritten_but_for_raw_redirects(status: int, raw: bool, rewritten: bool) -> None:
    head = ResponseHead(
        status, Fields((("Location", f"{ORIGIN}/v3/jobs/1"), ("Link", f"<{ORIGIN}/v3>; rel=self"), ("X-A", ORIGIN)))
    )
    fields = response_fields(head, Route("/v3/x", rewrite=not raw), REWRITER, "g")
    base = PUBLIC if rewritten else ORIGIN
    assert fields.get("location") == f"{base}/v3/jobs/1"
    assert fields.get("link") == f"<{base}/v3>; rel=self"
    assert fields.get("x-a") == ORIGIN


def test_response_fields_lose_what_is_the_connections_or_the_principals() -> None:
    head = ResponseHead(200, Fields((JSON, ("Connection", "X-Mine"), ("X-Mine", "1"), ("X-USER-GUID", "u"))))
    fields = response_fields(head, Route("/v3/x"), None, "g")
    assert [name for name, _ in fields] == ["Content-Type", "Via"]


def test_what_describes_exact_bytes_goes_when_bytes_may_change() -> None:
    given = [JSON, ("ETag", '"x"'), ("Content-Length", "2"), ("Content-MD5", "x"), ("Repr-Digest", "x"), ("X-A", "1")]
    assert [name for name, _ in without_byte_exact(Fields(given))] == ["Content-Type", "X-A"]


class Response:
    """A body in pieces."""

    head = ResponseHead(200, Fields())

    def __init__(self, *pieces: bytes, fault: Exception | None = None) -> None:
        self.pieces = pieces
        self.fault = fault
        self.released = 0

    def in_hand(self) -> bytes | None:
        return None

    async def chunks(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece
        if self.fault is not None:
            raise self.fault

    async def release(self) -> None:
        self.released += 1


@pytest.mark.parametrize("pieces", [(), (b"one",), (b"one", b"", b"two")])
async def test_collecting_a_body(pieces: tuple[bytes, ...]) -> None:
    response = Response(*pieces)
    assert await collect(response, 6) == b"".join(pieces)
    assert response.released == 1


@pytest.mark.parametrize(
    "response",
    [Response(b"1234567"), Response(b"123", b"4567"), Response(b"1", fault=UpstreamError("broken", "cut"))],
    ids=["too-large", "too-large-in-pieces", "cut"],
)
async def test_a_body_that_cannot_be_had_whole_is_released_too(response: Response) -> None:
    with pytest.raises(UpstreamError) as raised:
        await collect(response, 6)
    assert raised.value.kind == ("broken" if response.fault else "body-too-large")
    assert response.released == 1


@pytest.mark.parametrize("padding", [0, BIG], ids=["at-once", "in-steps"])
async def test_links_are_rewritten_in_small_and_big_bodies(padding: int) -> None:
    body = f'{{"links":{{"self":{{"href":"{ORIGIN}/v3/x"}}}},"name":"{ORIGIN}/v3/x","pad":"{"x" * padding}"}}'.encode()
    assert await rewrite(body, REWRITER) == body.replace(ORIGIN.encode(), PUBLIC.encode(), 1)
    assert await rewrite(body, None) is body
    assert await rewrite(b"", REWRITER) == b""


@pytest.mark.parametrize(
    ("answer", "why_not"),
    [
        (page(), None),
        (page(JSON, ("Vary", "Accept")), None),
        (page(JSON, ("Vary", "accept ")), None),
        (page(JSON, ("Cache-Control", "max-age=0")), None),
        (page(status=404), "status"),
        (page(status=206), "status"),
        (page(status=304), "status"),
        (page(("Content-Type", "text/html")), "not-json"),
        (page(JSON, ("Content-Encoding", "gzip")), "not-json"),
        (page(JSON, ("Set-Cookie", "a=b")), "set-cookie"),
        (page(JSON, ("Vary", "Accept,Origin")), "vary"),
        (page(JSON, ("Vary", "Accept"), ("Vary", "Cookie")), "vary"),
        (page(JSON, ("Vary", "*")), "vary"),
        (page(JSON, ("Cache-Control", "no-store")), "no-store"),
        (page(JSON, ("Cache-Control", "max-age=60, private")), "no-store"),
    ],
)
def test_which_pages_are_kept(answer: Page, why_not: str | None) -> None:
    assert unstorable(answer) == why_not


@pytest.mark.parametrize("size", [2, BIG + 1])
async def test_minting(size: int) -> None:
    rule = CacheRule(CacheMode.POLICY, ttl=5.0, stale_while_revalidate=7.0, stale_if_error=60.0, share=Share.GLOBAL)
    answer = page(
        *(JSON, ("X-Frame-Options", "SAMEORIGIN"), ("X-Cf-Warnings", "w"), ("X-Runtime", "0.1"), ("Vary", "Accept")),
        *(("X-RateLimit-Remaining", "5"), ("X-VCAP-Request-ID", "a::b"), ("ETag", '"theirs"'), ("Date", "today")),
        body=b"x" * size,
    )
    entry = await mint(answer, KEY, rule, ("processes",), 100.0)
    again = await mint(answer, KEY, rule, ("processes",), 200.0)
    other = await mint(page(body=b"y" * size), KEY, rule, ("processes",), 100.0)
    assert (entry.key, entry.body, entry.tags) == (KEY, answer.body, ("processes",))
    assert (entry.stored_at, entry.fresh_until, entry.refresh_until, entry.error_until) == (100.0, 105.0, 112.0, 165.0)
    assert [name for name, _ in entry.fields] == ["Content-Type", "X-Frame-Options"]
    assert entry.etag == again.etag != other.etag
    assert entry.etag.startswith('"')


async def test_who_fetched_a_page_gets_its_own_warnings_and_ids() -> None:
    """controller.md §4: X-Cf-Warnings are kept, and not replayed."""
    answer = page(
        JSON, ("X-Cf-Warnings", "w"), ("X-VCAP-Request-ID", "a::b"), ("Vary", "Accept"), ("X-RateLimit-Limit", "1")
    )
    own = ["Content-Type", "X-Cf-Warnings", "X-VCAP-Request-ID", "Vary"]
    rule = CacheRule(CacheMode.POLICY, ttl=10)
    entry = await mint(answer, KEY, rule, ("processes",), 100.0)
    assert [name for name, _ in own_fields(answer, entry)] == own
    entry = await mint(answer, KEY, rule, ("processes", "processes:0123"), 100.0, groups=True)
    assert own_fields(answer, entry).pairs[-1] == ("Cache-Groups", '"processes"')


@pytest.mark.parametrize(("path", "kept"), [("/v3/processes", None), ("/", "Accept"), ("/other", "Accept")])
async def test_vary_is_stored_where_it_does_not_depend_on_who_asks(path: str, kept: str | None) -> None:
    rule = CacheRule(CacheMode.POLICY, ttl=5.0)
    entry = await mint(page(JSON, ("Vary", "Accept")), KEY._replace(path=path), rule, (), 0.0)
    assert entry.fields.get("vary") == kept
