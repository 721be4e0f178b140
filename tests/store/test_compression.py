"""Encoded forms of pages: made once, beside the loop, the biggest first, in the budget."""

from __future__ import annotations

import asyncio
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace

import brotli
import pytest
from backports import zstd

from gateway.core.conditional import mint_etag
from gateway.core.keys import CacheKey
from gateway.core.model import Fields
from gateway.pipeline.entry import Entry
from gateway.store import compression
from gateway.store.compression import CAPACITY, CODERS, Compressor
from gateway.store.memory import MemoryStore

KIB = 1024
DECODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda body: zlib.decompress(body, 16 + zlib.MAX_WBITS),
    "br": brotli.decompress,
    "zstd": zstd.decompress,
}


def page(name: str = "a", body: bytes = b'{"guid":"0123"},' * 1000) -> Entry:
    return Entry(CacheKey("d", f"/v3/{name}", "", "json"), Fields(), body, mint_etag(body), 0.0, 5.0, 5.0, 5.0, ())


def stored(store: MemoryStore, name: str = "a") -> Entry:
    entry = store.peek(page(name).key)
    assert isinstance(entry, Entry)
    return entry


def setting(
    max_bytes: int = 1 << 20, codings: tuple[str, ...] = ("zstd", "br", "gzip")
) -> tuple[MemoryStore, Compressor]:
    store = MemoryStore(max_bytes=max_bytes, max_entry_bytes=max_bytes)
    return store, Compressor(store, codings=codings, min_bytes=KIB, seconds=time.perf_counter)


def put(store: MemoryStore, entry: Entry) -> Entry:
    assert store.put(entry, generation=store.generation(entry.tags)) is None
    return entry


async def idle(compressor: Compressor) -> None:
    async with asyncio.timeout(10):
        while compressor._worker is not None:
            await asyncio.gather(compressor._worker, return_exceptions=True)


class Gate:
    """Holds the coder up, in its thread, until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open, self.order = threading.Event(), list[int]()
        self._real = CODERS["gzip"]
        monkeypatch.setattr(compression, "CODERS", {**CODERS, "gzip": self._code})

    def _code(self, body: bytes) -> bytes:
        self.order.append(len(body))
        assert self.open.wait(10)
        return self._real(body)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    made = Gate(monkeypatch)
    yield made
    made.open.set()


@pytest.mark.parametrize("coding", CODERS)
async def test_a_form_decodes_to_the_page_and_is_the_same_each_time(coding: str) -> None:
    store, compressor = setting()
    entry = put(store, page())
    compressor.want(entry, coding)
    await idle(compressor)
    made = stored(store).variant(coding)
    assert made is not None
    assert made.body is not None
    assert DECODERS[coding](made.body) == entry.body
    assert made.body == CODERS[coding](entry.body), "a strong entity-tag names one sequence of bytes"
    assert made.etag == f'{entry.etag[:-1]}-{coding}"'
    assert len(made.body) < len(entry.body) / 10
    assert compressor.results[coding, "made"] == 1
    assert compressor.sizes[coding, "in"] == len(entry.body)
    assert compressor.sizes[coding, "out"] == len(made.body)


async def test_forms_count_in_the_budget() -> None:
    store, compressor = setting()
    entry = put(store, page())
    before = store.bytes
    for coding in CODERS:
        compressor.want(entry, coding)
    await idle(compressor)
    forms = stored(store).encoded
    assert {one.coding for one in forms} == set(CODERS)
    assert store.bytes == stored(store).size == before + sum(300 + len(one.body or b"") for one in forms)


async def test_each_form_is_made_once_however_often_it_is_wanted(gate: Gate) -> None:
    store, compressor = setting()
    entry = put(store, page())
    for _ in range(1000):
        compressor.want(entry, "gzip")
    gate.open.set()
    await idle(compressor)
    assert compressor.results["gzip", "made"] == len(gate.order) == 1


async def test_the_biggest_page_comes_first_and_the_loop_goes_on(gate: Gate) -> None:
    store, compressor = setting()
    pages = [put(store, page(f"{size}", b"x" * size)) for size in (2000, 3000, 9000, 5000)]
    compressor.want(pages[0], "gzip")
    while not gate.order:
        await asyncio.sleep(0)
    for one in pages[1:]:
        compressor.want(one, "gzip")
    gate.open.set()
    await idle(compressor)
    assert gate.order == [2000, 9000, 5000, 3000]


async def test_what_waits_is_bounded(gate: Gate) -> None:
    store, compressor = setting(max_bytes=1 << 22)
    for number in range(CAPACITY + 10):
        compressor.want(put(store, page(f"{number}")), "gzip")
    assert compressor.results["gzip", "crowded"] == 10
    gate.open.set()
    await idle(compressor)
    assert compressor.results["gzip", "made"] == CAPACITY


@pytest.mark.parametrize("moment", ["before", "during"])
@pytest.mark.parametrize("how", ["dropped", "replaced"])
async def test_a_page_that_goes_takes_its_form_with_it(gate: Gate, moment: str, how: str) -> None:
    """A write between the request and the form: no form of the old page may stand with the new one."""
    store, compressor = setting()
    entry = put(store, page())
    if moment == "before":
        compressor.want(put(store, page("first")), "gzip")
    compressor.want(entry, "gzip")
    while not gate.order:
        await asyncio.sleep(0)
    if how == "dropped":
        store.discard(entry.key)
    else:
        put(store, page(body=b"new" * 1000))
    gate.open.set()
    await idle(compressor)
    assert compressor.results["gzip", "overtaken"] == 1
    held = store.peek(entry.key)
    assert held is None if how == "dropped" else isinstance(held, Entry) and not held.encoded


async def test_a_page_fetched_again_with_the_same_content_keeps_its_forms(gate: Gate) -> None:
    store, compressor = setting()
    entry = put(store, page())
    compressor.want(entry, "gzip")
    while not gate.order:
        await asyncio.sleep(0)
    again = replace(page(), stored_at=4.0, fresh_until=9.0).like(store.peek(entry.key))
    put(store, again)
    gate.open.set()
    await idle(compressor)
    assert stored(store).variant("gzip") is not None, "made of the same content"
    assert stored(store).fresh_until == 9.0
    third = replace(page(), stored_at=8.0).like(store.peek(entry.key))
    assert third.encoded == stored(store).encoded
    assert not replace(page(body=b"{}" * 999)).like(store.peek(entry.key)).encoded


async def test_what_hardly_shrinks_is_not_kept_and_not_tried_again() -> None:
    store, compressor = setting()
    noise = b"".join(mint_etag(bytes([a, b])).encode() for a in range(8) for b in range(8))
    entry = put(store, page(body=brotli.compress(noise)))
    compressor.want(entry, "gzip")
    await idle(compressor)
    made = stored(store).variant("gzip")
    assert made is not None
    assert made.body is None
    assert compressor.results["gzip", "not-worth-it"] == 1


async def test_what_does_not_fit_is_not_kept_and_not_tried_again() -> None:
    store, compressor = setting(max_bytes=20 * KIB)
    body = b"".join(mint_etag(bytes([a, b])).encode() for a in range(20) for b in range(24))[: 17 * KIB]
    entry = put(store, page(body=body))
    compressor.want(entry, "gzip")
    await idle(compressor)
    assert compressor.results["gzip", "no-room"] == 1
    made = stored(store).variant("gzip")
    assert made is not None
    assert made.body is None


async def test_stopping_leaves_nothing_behind(gate: Gate) -> None:
    store, compressor = setting()
    compressor.want(put(store, page()), "gzip")
    compressor.want(put(store, page("b")), "gzip")
    while not gate.order:
        await asyncio.sleep(0)
    await compressor.stop()
    assert compressor._worker is None
    gate.open.set()
    compressor.want(stored(store, "b"), "gzip")
    await idle(compressor)
    assert stored(store, "b").variant("gzip") is not None
