"""Who stays when room runs out: scans, hostile queries, shares, and the books."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.core.invalidation import EVERYTHING
from gateway.core.keys import CacheKey
from gateway.core.model import Fields, PrincipalKind
from gateway.core.visibility import global_domain, principal_domain
from gateway.pipeline.entry import ENTRY_OVERHEAD, Entry
from gateway.store import eviction
from gateway.store.memory import MemoryStore

KIB, MIB = 1 << 10, 1 << 20
SCOPES = frozenset({"cloud_controller.admin"})


def of(principal: str) -> str:
    return principal_domain(
        kind=PrincipalKind.USER, principal_id=principal, issuer="i", zone="z", scopes=frozenset()
    ).id


GLOBAL = global_domain(issuer="i", zone="z", scopes=SCOPES)
assert GLOBAL is not None
EVERYBODYS = GLOBAL.id


def page(name: str, size: int, *, domain: str = EVERYBODYS, at: float = 0.0, ttl: float = 1000.0) -> Entry:
    """A page of exactly `size` bytes."""
    key = CacheKey(domain, f"/v3/{name}", "", "json")
    own = ENTRY_OVERHEAD + len(key.path)
    return Entry(key, Fields(), bytes(size - own), '"e"', at, at + ttl, at + ttl, at + ttl, ())


class Clients:
    """Ask a store as clients do: look up, and fetch what is not there."""

    def __init__(self, **limits: Any) -> None:
        self.store = MemoryStore(**{"max_bytes": 10 * MIB, "max_entry_bytes": 4 * MIB} | limits)
        self.fetched = 0

    def ask(self, wanted: Entry) -> bool:
        """Whether it was a hit."""
        found = self.store.get(wanted.key)
        if isinstance(found, Entry) and wanted.stored_at < found.dead_after:
            return True
        self.fetched += 1
        self.store.put(wanted, generation=self.store.generation(()))
        return False


def hot(number: int, at: float = 0.0, domain: str = EVERYBODYS) -> Entry:
    return page(f"hot-{number}", 50 * KIB, at=at, domain=domain)


def warmed(count: int = 100, **limits: Any) -> Clients:
    clients = Clients(**limits)
    for _ in range(4):
        for number in range(count):
            clients.ask(hot(number))
    clients.fetched = 0
    return clients


def test_an_exporter_that_walks_big_pages_evicts_no_hot_small_one() -> None:
    """One walk of 200 pages of 6 % of the budget each: twelve times the whole."""
    clients = warmed()
    for number in range(200):
        clients.ask(page(f"walk-{number}", 600 * KIB))
    assert all(clients.ask(hot(number)) for number in range(100))


def test_not_even_one_that_comes_again_every_minute() -> None:
    """Its pages are dead when it comes again, so that it has them no sooner is no reason to keep them longer."""
    clients = warmed()
    for scrape in range(1, 20):
        at = scrape * 60.0
        for number in range(40):
            clients.ask(page(f"walk-{number}", 600 * KIB, at=at, ttl=30.0))
    assert all(clients.ask(hot(number)) for number in range(100))
    assert clients.fetched == 19 * 40


def test_nor_one_that_comes_again_while_its_pages_would_still_live() -> None:
    """They were pushed out too early, but each would cost a dozen others their place."""
    clients = warmed()
    for _ in range(10):
        for number in range(40):
            clients.ask(page(f"walk-{number}", 600 * KIB))
        assert all(clients.ask(hot(number)) for number in range(100))


def test_what_was_pushed_out_too_early_moves_up_when_it_is_fetched_again() -> None:
    clients = warmed(160)
    clients.ask(page("again", 50 * KIB))
    clients.ask(page("again", 50 * KIB))
    for number in range(60):
        clients.ask(page(f"once-{number}", 50 * KIB))
    assert not clients.ask(page("again", 50 * KIB)), "one hit is not enough to stay"
    for number in range(60, 120):
        clients.ask(page(f"once-{number}", 50 * KIB))
    assert clients.ask(page("again", 50 * KIB))


def test_endless_distinct_parameters_take_a_tenth_at_most_and_push_out_nothing_hot() -> None:
    clients = warmed(180)
    held = clients.store.bytes
    for number in range(5000):
        clients.ask(page(f"q-{number}", 50 * KIB))
    kept = [node for node in clients.store.nodes() if "/v3/q-" in node.entry.key.path]
    assert sum(node.size for node in kept) <= 10 * MIB - held + 50 * KIB
    assert all(clients.ask(hot(number)) for number in range(180))


@pytest.mark.parametrize("times", [2, 3, 5])
def test_asking_each_several_times_buys_no_more_than_what_is_not_hot(times: int) -> None:
    clients = warmed(100)
    for number in range(2000):
        for _ in range(times):
            clients.ask(page(f"q-{number}", 50 * KIB))
        clients.ask(hot(number % 100))
        clients.ask(hot((number + 50) % 100))
    assert sum(clients.ask(hot(number)) for number in range(100)) == 100


def test_one_principal_takes_its_share_and_no_more_and_its_own_pages_give_way() -> None:
    clients = Clients(max_domain_share=0.25)
    others = [hot(number, domain=of("other")) for number in range(20)]
    for _ in range(2):
        assert len([clients.ask(one) for one in others]) == 20
    for number in range(500):
        clients.ask(page(f"q-{number}", 50 * KIB, domain=of("greedy")))
        taken = sum(node.size for node in clients.store.nodes() if node.entry.key.domain == of("greedy"))
        assert taken <= 0.25 * 10 * MIB
    assert all(clients.store.get(one.key) for one in others)
    assert clients.store.evictions["share"] == 500 - 51


def test_within_its_share_a_principal_keeps_what_it_asks_for() -> None:
    clients, greedy = Clients(max_domain_share=0.25), of("greedy")
    for number in range(500):
        clients.ask(page(f"q-{number}", 50 * KIB, domain=greedy))
        assert clients.ask(hot(0, domain=greedy)) or number == 0


def test_what_is_more_than_a_principals_share_is_not_stored() -> None:
    clients = Clients(max_domain_share=0.25)
    assert clients.store.put(page("big", 3 * MIB, domain=of("one")), generation=0) == "too-large"
    assert clients.store.put(page("big", 3 * MIB), generation=0) is None, "everybody's pages have no share"


def test_a_dead_page_goes_first_however_hot_it_was() -> None:
    clients = warmed(150)
    dead = page("dead", 50 * KIB, ttl=5.0)
    for _ in range(5):
        clients.ask(dead)
    for number in range(60):
        clients.ask(page(f"q-{number}", 50 * KIB, at=10.0))
    assert clients.store.get(dead.key) is None


def test_a_page_fetched_anew_keeps_its_standing() -> None:
    clients = warmed(100)
    for number in range(100):
        clients.store.put(hot(number, at=1.0), generation=0)
    for number in range(200):
        clients.ask(page(f"walk-{number}", 600 * KIB, at=1.0))
    assert all(clients.ask(hot(number, at=1.0)) for number in range(100))


def test_one_eviction_looks_at_a_bounded_number_of_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where everything is hot the hand does not go round and round."""
    monkeypatch.setattr(eviction, "_PATIENCE", 8)
    clients = Clients(max_bytes=2 * MIB, max_entry_bytes=MIB)
    for _ in range(4):
        for number in range(36):
            clients.ask(hot(number))
    rounds = 0
    another = eviction.Eviction._another_round

    def counted(self: eviction.Eviction, node: eviction.Node) -> bool:
        nonlocal rounds
        rounds += 1
        return another(self, node)

    monkeypatch.setattr(eviction.Eviction, "_another_round", counted)
    for number in range(10):
        clients.ask(page(f"q-{number}", 50 * KIB))
        clients.store.get(page(f"q-{number}", 50 * KIB).key)
        clients.store.get(page(f"q-{number}", 50 * KIB).key)
    evicted = sum(clients.store.evictions.values())
    assert evicted > 0
    assert rounds <= 8 * evicted


def test_the_memory_of_what_went_is_bounded() -> None:
    clients = Clients(max_bytes=MIB, max_entry_bytes=MIB)
    for number in range(3000):
        clients.ask(page(f"q-{number}", 4 * KIB))
    assert len(clients.store._eviction._ghosts) == 128


DOMAINS = [EVERYBODYS, of("one"), of("two")]
NAMES = st.sampled_from("abcdefgh")
TAGS = st.sets(st.sampled_from(["processes", "apps", "spaces"]))


class StoreLaws(RuleBasedStateMachine):
    """Whatever happens, the budget and the shares hold, bytes are exact, and index and queues know what is stored."""

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore(max_bytes=64 * KIB, max_entry_bytes=32 * KIB, max_domain_share=0.4)
        self.now = 0.0

    @rule(name=NAMES, size=st.integers(2 * KIB, 40 * KIB), tags=TAGS, domain=st.sampled_from(DOMAINS))
    def put(self, name: str, size: int, tags: set[str], domain: str) -> None:
        made = page(name, size, domain=domain, at=self.now, ttl=5.0)
        entry = Entry(made.key, made.fields, made.body, made.etag, self.now, *[self.now + 5] * 3, tuple(sorted(tags)))
        before = self.store.get(entry.key)
        why_not = self.store.put(entry, generation=self.store.generation(entry.tags))
        assert self.store.get(entry.key) is (entry if why_not is None else before)

    @rule(tags=st.sets(st.sampled_from(["processes", "apps", "spaces", EVERYTHING])))
    def invalidate(self, tags: set[str]) -> None:
        self.store.invalidate(tags)
        for node in self.store.nodes():
            assert EVERYTHING not in tags
            assert tags.isdisjoint(node.entry.tags)

    @rule(name=NAMES, domain=st.sampled_from(DOMAINS), times=st.integers(1, 4))
    def get(self, name: str, domain: str, times: int) -> None:
        for _ in range(times):
            self.store.get(page(name, 2 * KIB, domain=domain).key)

    @rule(name=NAMES, domain=st.sampled_from(DOMAINS))
    def discard(self, name: str, domain: str) -> None:
        key = page(name, 2 * KIB, domain=domain).key
        held = key in {node.entry.key for node in self.store.nodes()}
        assert self.store.discard(key) is held

    @rule(name=NAMES, size=st.integers(2 * KIB, 40 * KIB))
    def replace(self, name: str, size: int) -> None:
        old = self.store.get(page(name, 2 * KIB).key)
        if old is not None:
            self.store.replace(old, page(name, size, at=self.now))

    @rule(seconds=st.integers(1, 10))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @invariant()
    def books_are_right(self) -> None:
        order, nodes = self.store._eviction, self.store._nodes
        assert self.store.bytes == sum(node.entry.size for node in nodes.values()) <= 64 * KIB
        queued = {**order._probation, **order._settled}
        assert len(queued) == len(order._probation) + len(order._settled)
        assert queued == nodes
        assert order._probation_bytes == sum(node.size for node in order._probation.values())
        assert all(key == node.entry.key for key, node in nodes.items())

    @invariant()
    def shares_hold(self) -> None:
        order = self.store._eviction
        for domain in DOMAINS[1:]:
            own = {key: node for key, node in self.store._nodes.items() if key.domain == domain}
            assert order._domains.get(domain, {}) == own
            assert order.domain_bytes(domain) == sum(node.size for node in own.values()) <= 0.4 * 64 * KIB
        assert EVERYBODYS not in order._domains

    @invariant()
    def index_is_exact(self) -> None:
        indexed = {(tag, key) for tag, keys in self.store._tagged.items() for key in keys}
        assert indexed == {(tag, key) for key, node in self.store._nodes.items() for tag in node.entry.tags}


StoreLaws.TestCase.settings = settings(max_examples=40, deadline=None)
test_store_laws = StoreLaws.TestCase
