"""What is kept of earlier requests: never what another head, policy or domain would get, and a bounded number of it."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from gateway.core.keys import CacheKey
from gateway.core.model import Fields
from gateway.edge.quick_heads import Caller, QuickHeads
from gateway.edge.receive import Limits
from gateway.edge.rendering import Renderer
from gateway.pipeline.decide import Policy, decide
from gateway.pipeline.entry import Entry
from gateway.pipeline.exchange import Exchange, Reply
from gateway.pipeline.known import MOST_REFUSALS, MOST_WAITING, Held, Known
from gateway.pipeline.standing import Standing, again, stand
from gateway.store.memory import MemoryStore
from tests.pipeline.test_standing import NOW, ROUTES, Tokens

KEY = CacheKey("domain", "/v3/processes", "", "json")
RENDERER = Renderer()


class Front:
    """Heads as they are read, and a pipeline's front half, over a store."""

    def __init__(self, max_bytes: int = 64 << 20) -> None:
        self.store = MemoryStore(max_bytes=max_bytes, max_entry_bytes=max_bytes)
        self.policy = Policy(ROUTES, Tokens(), self.store)
        self.heads = QuickHeads(Limits(65536, 65536), strict_api=True, prefix="")
        self.caller = Caller("192.0.2.1", "http")
        self.held = self.heads._held

    def page(self, query: str, now: float = NOW) -> Entry:
        """Store a page of everybody's."""
        key = CacheKey("public", "/open", query and f"?{query}", "json")
        times = (now, now + 1000, now + 1000, now + 1000)
        entry = Entry(key, Fields([("Content-Type", "application/json")]), b"{}" * 20, f'"{query}"', *times, ("x",))
        assert self.store.put(entry, generation=1 << 60) is None
        return entry

    def read(self, query: str, more: str = "", path: str = "/open") -> Known:
        line = f"GET {path}{query and '?'}{query} HTTP/1.1\r\nHost: a\r\n{more}\r\n"
        assert self.heads.read(line.encode(), self.caller) is not None
        known = self.caller.last[0]
        assert isinstance(known, Known)
        return known

    def ask(self, query: str, more: str = "", now: float = NOW) -> bool | None:
        """Whether what stands answered; None when nothing did."""
        known = self.read(query, more)
        standing = again(known, self.policy, "192.0.2.1", None, now)
        if standing is not None:
            assert f'"{query}"'.encode() in standing.words.own
            standing.exchange.entry = None
            return True
        exchange = Exchange(self.caller.head(""), request_id="id", received_at=now, known=known)
        outcome = decide(exchange, self.policy, now)
        if not isinstance(outcome, Reply):
            return None
        exchange.status = outcome.status
        stand(exchange, self.policy, RENDERER.words)
        return False


def test_hits_of_all_pages_stand_and_none_but_its_own_goes_with_a_page() -> None:
    front = Front()
    for number in range(10_000):
        front.page(f"a={number}")
        assert front.ask(f"a={number}") is False
    assert all(front.ask(f"a={number}") for number in range(10_000))
    assert front.store.discard(CacheKey("public", "/open", "?a=7", "json"))
    assert len(front.held) == 9999
    assert (front.ask("a=7"), front.ask("a=8")) == (None, True)


def test_a_page_takes_what_stands_for_it_along() -> None:
    front = Front()
    front.page("a=1")
    front.ask("a=1")
    (standing,) = front.read("a=1").standing()
    front.page("a=1")  # another in its stead
    assert (standing.stands, len(front.held), front.read("a=1").standing()) == (False, 0, [])
    assert (standing.beside, standing.words.own, standing.place.standing) == (None, b"", None)


def test_what_stands_no_more_is_kept_by_nobody() -> None:
    front = Front()
    for number in range(3000):
        front.page(f"a={number}")
        front.ask(f"a={number}")
    front.store.invalidate(["x"])
    for number in range(20):
        front.page(f"a={number}")
        front.ask(f"a={number}")
    gc.collect()
    left = [one for one in gc.get_objects() if type(one) is Standing and one.manner.policy is front.policy]
    assert sum(one.stands for one in left) == len(front.held) == 20
    assert len(left) <= 2 * 20 + 1024 + 1


def test_the_least_budget_pushes_pages_out_and_hits_with_them() -> None:
    front = Front(max_bytes=200_000)
    for number in range(2000):
        front.page(f"a={number}")
        front.ask(f"a={number}")
    assert len(front.held) == len(front.store) < 200
    assert len(front.held._standing) <= 2 * len(front.held) + 1025


def test_a_flood_of_heads_for_one_page_takes_a_bounded_place() -> None:
    front = Front()
    front.page("a=1")
    for number in range(12_000):
        front.ask("a=1", f"User-Agent: {number}\r\n")
    assert len(front.held) <= 16
    assert len(front.held.heads) <= MOST_WAITING + len(front.held) + 1


def test_a_flood_of_heads_for_all_pages_takes_a_bounded_place() -> None:
    """Each of them in a manner of its own, which costs as much as some hits."""
    front = Front(max_bytes=4 << 20)
    most = front.store.most_standing
    for number in range(500):
        front.page(f"a={number}")
    for agent in range(12):
        for number in range(500):
            front.ask(f"a={number}", f"User-Agent: {agent}-{number}\r\n")
    held = front.held
    assert len(held) * 5 <= most == 2048
    manners = {id(one.manner): one.manner for one in held._standing if one.stands}
    assert held._cost == len(held) + 4 * len(manners) <= most
    assert sum(manner.users for manner in manners.values()) == len(held)


def test_a_flood_of_heads_does_not_push_out_what_is_used() -> None:
    front = Front(max_bytes=4 << 20)
    for number in range(1000):
        front.page(f"a={number}")
    used = [f"a={number}" for number in range(50)]
    for query in used:
        front.ask(query)
    kept = 0
    for number in range(10_000):
        now = NOW + number / 100
        front.ask(f"a={50 + number % 950}", f"User-Agent: {number}\r\n", now)
        if number % 4 == 0:
            kept += front.ask(used[number // 4 % 50], "", now) is True
    assert kept >= 2450


def test_heads_for_which_nothing_stands_are_forgotten_one_at_a_time() -> None:
    front = Front()
    often = front.read("a=often", path="/v3/apps")
    for number in range(3 * MOST_WAITING):
        front.read(f"a={number}", path="/v3/apps")
        if number % 100 == 0:
            often.key_for(None)  # as whoever decides does
            assert front.read("a=often", path="/v3/apps") is often
    assert len(front.held.heads) == MOST_WAITING


def test_another_reader_of_heads_leaves_nothing_of_the_first_behind() -> None:
    front = Front()
    page = front.page("a=1")
    front.ask("a=1")
    front.heads.forget()
    place = front.store.place(page.key)
    assert place is not None
    assert (place.standing, len(front.held), front.held.heads) == (None, 0, {})
    assert front.ask("a=1") is False


def test_how_many_refusals_stand_is_bounded() -> None:
    held, refusal = Held(), object()
    heads = [Known(held) for _ in range(2 * MOST_REFUSALS)]
    for known in heads:
        for fault in ("signature", "expired", "signature"):
            known.refuse(fault, refusal)  # type: ignore[arg-type]
    assert held.refusals == sum(len(known.refused) for known in heads) == MOST_REFUSALS
    assert set(heads[-1].refused) == {"signature", "expired"}


@pytest.mark.parametrize("domains", [1, 2, 5])
def test_hits_of_many_domains_stand_for_one_head(domains: int) -> None:
    held = Held()
    known = Known(held)
    hits = [_Hit(known, f"domain {number}") for number in range(domains)]
    for hit in [*hits, *hits]:
        known.stand(hit, 100, anybody=False)  # type: ignore[arg-type]
    assert (len(held), [known.at(hit.domain) for hit in hits]) == (domains, hits)
    for left in range(domains - 1, -1, -1):
        hits[left].leave()
        assert (len(held), [known.at(hit.domain) for hit in hits[:left]]) == (left, hits[:left])
        assert known.at(f"domain {left}") is None
    assert known.first is None


class _Hit:
    """What stands, as far as `Held` knows of it."""

    def __init__(self, known: Known, domain: str) -> None:
        self.known, self.domain, self.manner = known, domain, self
        self.stands, self.touched, self.users = True, False, 0

    def leave(self) -> None:
        self.stands = False
        self.known.lose(self)  # type: ignore[arg-type]
        self.stands = True  # to be used again


def test_nothing_stands_under_another_policy() -> None:
    known = Known(Held())
    one: Any = object()
    other: Any = object()
    hit: Any = _Hit(known, "public")
    known.settle(one, None, None, KEY)
    known.stand(hit, 10, anybody=True)
    known.settle(one, None, None, KEY)
    assert (known.standing(), known.anybody) == ([hit], True)
    known.settle(other, None, None, KEY)
    assert (known.standing(), known.anybody) == ([], False)


def test_what_a_request_was_chosen_for_is_taken_once() -> None:
    known = Known(Held())
    known.chosen = hit = KEY  # type: ignore[assignment]
    assert (known.take_chosen(), known.take_chosen()) == (hit, None)
