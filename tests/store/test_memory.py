from __future__ import annotations

import tracemalloc
from dataclasses import replace
from typing import Any

import pytest

from gateway.core.invalidation import EVERYTHING
from gateway.core.keys import CacheKey
from gateway.core.model import Fields
from gateway.pipeline.entry import Entry
from gateway.store.eviction import Node
from gateway.store.memory import MemoryStore

KIB = 1024


def page(name: str = "a", *, size: int = 0, tags: tuple[str, ...] = ("processes",), domain: str = "d") -> Entry:
    return Entry(
        key=CacheKey(domain, f"/v3/{name}", "", "json"),
        fields=Fields(),
        body=b"x" * size,
        etag='"e"',
        stored_at=0.0,
        fresh_until=5.0,
        refresh_until=5.0,
        error_until=5.0,
        tags=tags,
    )


def store(**limits: Any) -> MemoryStore:
    return MemoryStore(**{"max_bytes": 64 * KIB, "max_entry_bytes": 32 * KIB} | limits)


def put(target: MemoryStore, entry: Entry) -> str | None:
    return target.put(entry, generation=target.generation(entry.tags))


def test_what_was_put_is_found_under_its_key_and_no_other() -> None:
    pages = store()
    assert put(pages, page("a", domain="one")) is None
    assert pages.get(page("a", domain="one").key) is not None
    assert pages.get(page("a", domain="two").key) is None


def test_the_key_inside_the_entry_is_compared_on_read() -> None:
    pages = store()
    foreign = page("a", domain="victim")
    pages._nodes[page("a", domain="attacker").key] = Node(foreign, 1)
    assert pages.get(page("a", domain="attacker").key) is None


def test_too_large_is_refused_and_harms_nothing() -> None:
    pages = store()
    put(pages, page("a"))
    assert put(pages, page("b", size=33 * KIB)) == "too-large"
    assert pages.get(page("a").key) is not None


def test_no_budget_stores_nothing() -> None:
    assert put(store(max_bytes=0), page()) == "too-large"


@pytest.mark.parametrize(
    ("dropped", "left"),
    [({"processes"}, ["b"]), ({"apps"}, ["a"]), ({"roles"}, ["a", "b"]), ({EVERYTHING}, []), (set(), ["a", "b"])],
)
def test_invalidation_drops_what_carries_the_tag(dropped: set[str], left: list[str]) -> None:
    pages = store()
    put(pages, page("a", tags=("processes",)))
    put(pages, page("b", tags=("apps",)))
    pages.invalidate(dropped)
    assert [name for name in "ab" if pages.get(page(name).key)] == left


@pytest.mark.parametrize("tag", ["processes", EVERYTHING])
def test_a_fetch_that_began_before_a_write_is_not_kept(tag: str) -> None:
    pages = store()
    before = pages.generation(("processes",))
    pages.invalidate({tag})
    assert pages.put(page(), generation=before) == "invalidated-meanwhile"
    assert put(pages, page()) is None


def test_a_write_to_something_else_does_not_refuse_a_fetch() -> None:
    pages = store()
    before = pages.generation(("processes",))
    pages.invalidate({"domains"})
    assert pages.put(page(), generation=before) is None


def test_a_purge_refuses_every_fetch_under_way_and_drops_nothing() -> None:
    pages = store()
    put(pages, page("a"))
    before = pages.generation(("domains",))
    pages.refuse_under_way()
    assert pages.put(page("b", tags=("domains",)), generation=before) == "invalidated-meanwhile"
    assert pages.get(page("a").key) is not None


def test_only_the_very_entry_is_replaced() -> None:
    pages, first, second = store(), page("a", size=1), page("a", size=2)
    put(pages, first)
    assert pages.replace(first, second)
    assert not pages.replace(first, page("a", size=3)), "it was replaced already"
    assert pages.get(first.key) is second
    assert pages.bytes == second.size
    assert not pages.replace(second, page("a", size=40 * KIB)), "it does not fit"
    assert pages.get(first.key) is second


def test_an_entry_counts_for_no_less_than_the_memory_it_takes() -> None:
    count, bodies = 2000, 256
    tracemalloc.start()
    try:
        pages, before = store(max_bytes=1 << 24), tracemalloc.get_traced_memory()[0]
        for number in range(count):
            entry = page(f"{number}/" + "p" * 40, tags=("processes", f"processes:{number}"))
            put(pages, replace(entry, body=bytes(bodies), fields=Fields([(f"name-{number}", "v" * 30)])))
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(pages) == count
    assert 0.5 * pages.bytes < taken <= pages.bytes
