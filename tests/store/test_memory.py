from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.core.invalidation import EVERYTHING
from gateway.core.keys import CacheKey
from gateway.core.model import Fields
from gateway.pipeline.entry import Entry
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
    pages._pages[page("a", domain="attacker").key] = foreign
    assert pages.get(page("a", domain="attacker").key) is None


def test_the_least_recently_used_gives_way() -> None:
    pages = store()
    for name in ("a", "b", "c"):
        put(pages, page(name, size=16 * KIB))
    assert pages.get(page("a").key) is not None
    put(pages, page("d", size=16 * KIB))
    assert [name for name in "abcd" if pages.get(page(name).key)] == ["a", "c", "d"]
    assert pages.evictions == 1


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


class StoreLaws(RuleBasedStateMachine):
    """Whatever happens, the budget holds, bytes are exact and the tag index knows exactly what is stored."""

    def __init__(self) -> None:
        super().__init__()
        self.pages = store()

    @rule(
        name=st.sampled_from("abcdefgh"),
        size=st.integers(0, 40 * KIB),
        tags=st.sets(st.sampled_from(["processes", "apps", "spaces"])),
    )
    def put(self, name: str, size: int, tags: set[str]) -> None:
        put(self.pages, page(name, size=size, tags=tuple(tags)))

    @rule(tags=st.sets(st.sampled_from(["processes", "apps", "spaces", EVERYTHING])))
    def invalidate(self, tags: set[str]) -> None:
        self.pages.invalidate(tags)

    @rule(name=st.sampled_from("abcdefgh"))
    def get(self, name: str) -> None:
        self.pages.get(page(name).key)

    @invariant()
    def budget_holds(self) -> None:
        stored = list(self.pages._pages.values())
        assert self.pages.bytes == sum(entry.size for entry in stored) <= 64 * KIB

    @invariant()
    def index_is_exact(self) -> None:
        indexed = {(tag, key) for tag, keys in self.pages._tagged.items() for key in keys}
        assert indexed == {(tag, entry.key) for entry in self.pages._pages.values() for tag in entry.tags}


StoreLaws.TestCase.settings = settings(max_examples=30, deadline=None)
test_store_laws = StoreLaws.TestCase
