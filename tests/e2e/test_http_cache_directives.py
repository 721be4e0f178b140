"""Mode `origin` over real sockets, continued: directives that contradict each other, odd numbers, whole transfers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from gateway.core.model import Fields, RequestHead, Target
from gateway.pipeline.exchange import Exchange
from tests.conftest import Connect, Received, StartUpstream, bearer
from tests.e2e.test_http_cache import (
    Conversation,
    Says,
    Step,
    cc,
    conversation,
    converse,
    fresh,
    hit,
    kept,
    not_kept,
    says,
    scenario,
    targeted,
)

__all__ = ["conversation"]  # a fixture

CHUNKED = (
    b"HTTP/1.1 200 OK\r\nCache-Control: max-age=10\r\nTransfer-Encoding: chunked\r\nTrailer: ETag\r\n\r\n"
    b'5\r\nfirst\r\n0\r\nETag: "late"\r\nCache-Control: no-store\r\n\r\n'
)

CONTRADICTIONS = [
    not_kept("9111-5.2.2.5-no-store-wins", cc("max-age=10, no-store, public")),
    not_kept("9111-5.2.2.5-no-store-wins-on-another-line", says(Cache_Control=["max-age=10", "no-store"])),
    not_kept("9111-5.2.2.7-private-wins-over-public", cc("public, private, max-age=10")),
    not_kept("9111-5.2.2.4-no-cache-wins-over-max-age", cc("no-cache, max-age=10")),
    not_kept("9111-4.2.1-max-age-differs-on-two-lines", says(Cache_Control=["max-age=10", "max-age=20"])),
    kept("9111-4.2.1-max-age-the-same-on-two-lines", says(Cache_Control=["max-age=10", "max-age=10"])),
    not_kept("9111-5.2.2.10-s-maxage-twice-contradictory", cc("s-maxage=10, s-maxage=20")),
    not_kept("9111-5.2.2.10-s-maxage-0-over-max-age", cc("s-maxage=0, max-age=100")),
    kept("9111-5.2.2.10-s-maxage-quoted", cc('s-maxage="10"')),
    not_kept("9111-5.2.2.10-s-maxage-unreadable", cc("s-maxage=ten, max-age=10")),
    kept("9111-1.2.2-s-maxage-beyond-any-integer", cc("s-maxage=" + "9" * 40), after=1e6),
    kept("9111-5.2-no-store-inside-a-quoted-string", cc('max-age=10, ext="no-store, no-cache"')),
    not_kept("9111-5.2-an-unclosed-quote-hides-nothing", cc('ext="max-age=10, no-store')),
    not_kept("9111-5.2-no-store-with-an-argument", cc("max-age=10, no-store=yes")),
    not_kept("9111-5.2-private-with-a-broken-argument", cc('max-age=10, private="')),
    kept("9111-5.2.2.9-public-alone-makes-nothing-fresh-but-forbids-nothing", cc("public, max-age=10")),
    not_kept("9111-4.2.2-public-without-a-date", cc("public")),
    not_kept("9213-2.2-targeted-contradictory", targeted("max-age=10, no-store", Cache_Control="max-age=10")),
    kept("9213-2.1-the-last-of-a-key-counts", targeted("max-age=0, max-age=10", Cache_Control="no-store")),
    not_kept("9213-2.2-targeted-must-not-be-helped-by-cache-control", targeted("public", Cache_Control="max-age=100")),
]

IMMUTABLE = [
    kept("8246-2-immutable-and-fresh", cc("max-age=10, immutable"), after=9.0),
    not_kept("8246-2-immutable-is-no-lifetime", cc("immutable")),
    not_kept("8246-2-immutable-ends-with-max-age", cc("max-age=10, immutable"), after=10.0),
    scenario(
        "8246-2-a-reload-is-still-the-clients-right",
        Step(cc("max-age=100, immutable", ETag='"a"')),
        Step(
            says(status=304, ETag='"a"'),
            fields={"Cache-Control": "no-cache"},
            sent={"if-none-match": '"a"'},
            body=b"first",
            cache="gateway;fwd=request;fwd-status=304;ttl=100;stored",
        ),
        hit(),
    ),
]

REQUESTS = [
    scenario(
        "9111-5.4-pragma-beside-cache-control-means-nothing",
        Step(fresh()),
        hit(fields={"Pragma": "no-cache", "Cache-Control": "max-stale=5"}),
        Step(fresh("second"), fields={"Pragma": "foo, no-cache"}, body=b"second"),
    ),
    scenario(
        "9111-5.2.1.1-max-age-contradictory-takes-nothing",
        Step(cc("max-age=100")),
        Step(fresh("second"), fields={"Cache-Control": "max-age=50, max-age=60"}, body=b"second"),
    ),
    scenario(
        "9111-5.2.1.2-max-stale-unreadable-permits-nothing",
        Step(cc("max-age=10")),
        Step(fresh("second"), after=15.0, fields={"Cache-Control": "max-stale=much"}, body=b"second"),
    ),
    scenario(
        "9111-5.2.1.3-min-fresh-unreadable-takes-nothing",
        Step(cc("max-age=100")),
        Step(fresh("second"), fields={"Cache-Control": "min-fresh=x"}, body=b"second"),
    ),
    scenario(
        "9111-5.2.1.2-max-stale-with-max-age",
        Step(cc("max-age=10")),
        hit(after=14.0, fields={"Cache-Control": "max-age=20, max-stale=5"}),
        Step(fresh("second"), fields={"Cache-Control": "max-age=12, max-stale=5"}, body=b"second"),
    ),
    scenario(
        "9111-5.2.1.7-only-if-cached-with-no-cache",
        Step(fresh()),
        Step(asked=False, fields={"Cache-Control": "only-if-cached, no-cache"}, status=504),
    ),
    scenario(
        "9111-5.2.1.7-only-if-cached-and-another-variant",
        Step(fresh(Vary="Foo"), fields={"Foo": "1"}),
        Step(asked=False, fields={"Cache-Control": "only-if-cached", "Foo": "2"}, status=504),
        hit(fields={"Cache-Control": "only-if-cached", "Foo": "1"}),
    ),
]

TRANSFERS = [
    scenario(
        "9110-6.5.1-trailers-change-nothing-that-was-decided",
        Step(Says(raw=CHUNKED), body=b"first", got={"ETag": None, "Trailer": None}),
        hit(body=b"first", got={"ETag": None}),
    ),
    scenario(
        "8297-early-hints-are-neither-stored-nor-the-answer",
        Step(
            Says(
                raw=b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nCache-Control: no-store\r\n\r\n"
                b"HTTP/1.1 102 Processing\r\n\r\n"
                b"HTTP/1.1 200 OK\r\nCache-Control: max-age=10\r\nContent-Length: 5\r\n\r\nfirst"
            ),
            body=b"first",
            got={"Link": None, "Cache-Control": "max-age=10"},
        ),
        hit(body=b"first", got={"Link": None}),
    ),
    scenario(
        "9111-4.3.4-one-304-freshens-all-variants-with-its-tag-and-no-other",
        Step(fresh("de", Vary="Foo", ETag='"a"'), fields={"Foo": "1"}),
        Step(fresh("en", Vary="Foo", ETag='"a"'), fields={"Foo": "2"}),
        Step(fresh("fr", Vary="Foo", ETag='"b"'), fields={"Foo": "3"}),
        Step(
            says(status=304, ETag='"a"', Cache_Control="max-age=100", X_New="n"),
            after=15.0,
            fields={"Foo": "1"},
            body=b"de",
            got={"X-New": "n"},
        ),
        hit(fields={"Foo": "2"}, body=b"en", after=50.0, got={"X-New": "n"}),
        Step(fresh("new"), fields={"Foo": "3"}, body=b"new"),
    ),
]


@pytest.mark.parametrize("steps", CONTRADICTIONS)
async def test_contradictions_and_odd_numbers(conversation: Conversation, steps: Sequence[Step]) -> None:
    await converse(conversation, steps)


@pytest.mark.parametrize("steps", IMMUTABLE)
async def test_immutable(conversation: Conversation, steps: Sequence[Step]) -> None:
    await converse(conversation, steps)


@pytest.mark.parametrize("steps", REQUESTS)
async def test_request_directives(conversation: Conversation, steps: Sequence[Step]) -> None:
    await converse(conversation, steps)


@pytest.mark.parametrize("steps", TRANSFERS)
async def test_transfers(conversation: Conversation, steps: Sequence[Step]) -> None:
    await converse(conversation, steps)


ROUTES = """
routes:
  - match: GET /plain/*
    access: public
    rewrite: false
    cache: {mode: origin, share: public}
"""


@pytest.mark.parametrize("target", ["/v3/processes", "/plain/page"], ids=["policy", "origin"])
async def test_ten_thousand_waiters_for_a_cold_page_are_one_request_to_the_controller(
    start_upstream: StartUpstream, start_gateway: Any, connect: Connect, target: str
) -> None:
    """9,500 requests in the pipeline and 500 on sockets of their own wait at once for an answer over a real socket."""
    sockets, count = 500, 10_000
    body, asked, go_on = b'{"resources":[]}', list[str](), asyncio.Event()

    async def serve(request: Received, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(request.line)
        await go_on.wait()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        writer.write(f"{head}Cache-Control: public, max-age=60\r\nConnection: close\r\n\r\n".encode() + body)

    gateway = await start_gateway(await start_upstream(serve), ROUTES)
    wires = [await connect(gateway.url) for _ in range(sockets)]
    authorization = ("Authorization", bearer()["Authorization"])
    for wire in wires:
        await wire.request(f"GET {target}", ": ".join(authorization))

    def in_flight() -> float:
        return gateway.metrics.registry.get_sample_value("gateway_requests_in_flight") or 0

    async with asyncio.timeout(60):
        while in_flight() < sockets or not asked:
            await asyncio.sleep(0)
    head = RequestHead("GET", Target(target), Fields([("Host", "api.example.org"), authorization]))
    exchanges = [Exchange(head, request_id=f"{number}", received_at=0.0) for number in range(count - sockets)]
    waiting = [asyncio.ensure_future(gateway.pipeline.answer(exchange, None)) for exchange in exchanges]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    go_on.set()
    replies = await asyncio.wait_for(asyncio.gather(*waiting), 60)
    answers = [await wire.answer() for wire in wires]
    assert {answer.body for answer in answers} == {body}
    assert {reply.status for reply in replies} | {answer.status for answer in answers} == {200}
    for reply in replies:
        if reply.body is not None and not isinstance(reply.body, bytes):
            assert b"".join([piece async for piece in reply.body]) == body
            await reply.body.aclose()
    said = [reply.fields.get("cache-status") or "" for reply in replies]
    said += [answer.field("cache-status") or "" for answer in answers]
    assert sum("collapsed" in one for one in said) == count - 1
    assert asked == [f"GET {target} HTTP/1.1"]
