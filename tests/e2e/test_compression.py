"""Compression of stored pages over real sockets: negotiated, never waited for, with validators of their own."""

from __future__ import annotations

import asyncio
import zlib
from typing import Any

import pytest

from tests.conftest import Answer, Connect, Stub, Wire, bearer

AUTHORIZATION = f"Authorization: {bearer()['Authorization']}"
PAGE = b'{"pagination":{"total_results":0},"resources":[' + b",".join([b'{"guid":"0123"}'] * 500) + b"]}"
LIST = "GET /v3/processes"


async def asked(wire: Wire, line: str = LIST, *fields: str) -> Answer:
    return await wire.ask(line, AUTHORIZATION, *fields)


async def made(gateway: Any) -> None:
    """Until no form of a page is being made."""
    async with asyncio.timeout(10):
        while gateway.compressor._worker is not None:
            await asyncio.gather(gateway.compressor._worker, return_exceptions=True)


@pytest.fixture
async def world(stub: Stub, start_gateway: Any, connect: Connect) -> tuple[Any, Wire]:
    stub.answers_json(PAGE)
    gateway = await start_gateway(stub.url)
    return gateway, await connect(gateway.url)


async def test_the_request_that_asks_first_is_answered_at_once_and_the_next_has_it_encoded(
    world: tuple[Any, Wire], stub: Stub
) -> None:
    gateway, wire = world
    first = await asked(wire, LIST, "Accept-Encoding: gzip, deflate")
    assert (first.body, first.field("content-encoding")) == (PAGE, None)
    assert first.field("vary") == "Accept-Encoding"
    await made(gateway)
    second = await asked(wire, LIST, "Accept-Encoding: gzip, deflate")
    assert second.field("content-encoding") == "gzip"
    assert second.field("content-length") == str(len(second.body))
    assert zlib.decompress(second.body, 31) == PAGE
    assert second.field("content-type") == first.field("content-type")
    assert ";hit" in (second.field("cache-status") or "")
    plain = await asked(wire)
    assert (plain.body, plain.field("etag"), plain.field("vary")) == (PAGE, first.field("etag"), "Accept-Encoding")
    assert second.field("etag") == (first.field("etag") or "")[:-1] + '-gzip"'
    assert sum(request.line.startswith(LIST) for request in stub.received) == 1
    assert stub.received[-1].field("accept-encoding") == "identity"


async def test_rfc_9110_9_3_2_a_head_says_what_a_get_would_be_sent(world: tuple[Any, Wire]) -> None:
    gateway, wire = world
    await asked(wire, LIST, "Accept-Encoding: br")
    await made(gateway)
    got = await asked(wire, LIST, "Accept-Encoding: br")
    head = await asked(wire, "HEAD /v3/processes", "Accept-Encoding: br")
    for name in ("content-length", "content-encoding", "etag", "vary"):
        assert head.field(name) == got.field(name)
    assert head.body == b""


async def test_each_form_is_validated_by_its_own_entity_tag(world: tuple[Any, Wire]) -> None:
    gateway, wire = world
    await asked(wire, LIST, "Accept-Encoding: gzip")
    await made(gateway)
    encoded = await asked(wire, LIST, "Accept-Encoding: gzip")
    again = await asked(wire, LIST, "Accept-Encoding: gzip", f"If-None-Match: {encoded.field('etag')}")
    assert (again.status, again.field("etag"), again.field("vary")) == (304, encoded.field("etag"), "Accept-Encoding")
    assert again.field("content-encoding") is None
    plain = await asked(wire, LIST, f"If-None-Match: {encoded.field('etag')}")
    assert (plain.status, plain.body) == (200, PAGE), "this client cannot read what the tag stands for"


async def test_a_page_that_changes_has_no_form_of_the_old_one(world: tuple[Any, Wire], stub: Stub) -> None:
    gateway, wire = world
    await asked(wire, LIST, "Accept-Encoding: gzip")
    await made(gateway)
    stub.answers_json(PAGE.replace(b"0123", b"4567"))
    gateway.store.invalidate({"processes"})
    fresh = await asked(wire, LIST, "Accept-Encoding: gzip")
    assert b"4567" in fresh.body
    await made(gateway)
    encoded = await asked(wire, LIST, "Accept-Encoding: gzip")
    assert b"4567" in zlib.decompress(encoded.body, 31)


@pytest.mark.parametrize(
    "extra",
    ["cache: {compression: {encodings: []}}", "cache: {compression: {min_bytes: 1MiB}}"],
    ids=["switched off", "too small"],
)
async def test_where_there_is_no_choice_nothing_varies(
    stub: Stub, start_gateway: Any, connect: Connect, extra: str
) -> None:
    stub.answers_json(PAGE)
    gateway = await start_gateway(stub.url, extra)
    wire = await connect(gateway.url)
    for _ in range(2):
        answer = await asked(wire, LIST, "Accept-Encoding: gzip")
        assert (answer.body, answer.field("content-encoding"), answer.field("vary")) == (PAGE, None, None)


async def test_rfc_9110_7_7_no_transform_is_honoured(stub: Stub, start_gateway: Any, connect: Connect) -> None:
    stub.answers_json(PAGE, "Cache-Control: no-transform")
    gateway = await start_gateway(stub.url)
    wire = await connect(gateway.url)
    for _ in range(2):
        answer = await asked(wire, LIST, "Accept-Encoding: gzip")
        assert (answer.body, answer.field("vary")) == (PAGE, None)
    assert gateway.compressor._worker is None


async def test_v3_varies_on_both_fields_where_both_are_sent(world: tuple[Any, Wire]) -> None:
    gateway, wire = world
    await asked(wire, LIST, "Accept-Encoding: gzip", "Accept: application/json")
    await made(gateway)
    answer = await asked(wire, LIST, "Accept-Encoding: gzip", "Accept: application/json")
    assert sorted(answer.all("vary")) == ["Accept", "Accept-Encoding"]
    assert answer.field("content-encoding") == "gzip"
