"""Standing hits against `decide`: whatever happens in between, both give the same answers and leave the same behind."""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.cf_routes import CLOUD_FOUNDRY
from gateway.core.forwarding import TrustedProxies
from gateway.core.keys import CacheKey
from gateway.core.model import Fields, Principal, PrincipalKind, RequestHead
from gateway.core.rate_policy import Cost, Mode, RatePolicy, Who
from gateway.core.ratelimit import Gcra
from gateway.core.routes import Access, CacheMode, CacheRule, RouteOverride, Share
from gateway.core.target import parse
from gateway.core.visibility import make_principal
from gateway.edge.rendering import Renderer, written
from gateway.limits.memory import MemoryCounters
from gateway.pipeline.admission import Admission
from gateway.pipeline.decide import Policy, decide
from gateway.pipeline.drift import Drift
from gateway.pipeline.entry import Encoded, Entry
from gateway.pipeline.exchange import Exchange, Reply
from gateway.pipeline.known import Held, Known
from gateway.pipeline.ports import KeyUnknown, Rejected
from gateway.pipeline.refusing import refused_again, stand_refused
from gateway.pipeline.standing import again, stand
from gateway.store.memory import MemoryStore

NOW = 1_000_000.0
CACHED = CacheRule(CacheMode.POLICY, 4.0, 3.0, 60.0, Share.GLOBAL)
PUBLIC = dataclasses.replace(CACHED, share=Share.PUBLIC)
ROUTES = CLOUD_FOUNDRY.with_overrides(
    [
        RouteOverride("/v3/processes", frozenset({"GET"}), cache=CACHED),
        RouteOverride("/v3/apps", frozenset({"GET"}), cache=dataclasses.replace(CACHED, share=Share.PRINCIPAL)),
        RouteOverride(
            "/open", access=Access.PUBLIC, cache=dataclasses.replace(CACHED, share=Share.PUBLIC), rate="public"
        ),
        RouteOverride("/open/limited", access=Access.PUBLIC, cache=dataclasses.replace(CACHED, share=Share.PUBLIC)),
        RouteOverride("/open/own", access=Access.PUBLIC, cache=dataclasses.replace(CACHED, share=Share.PRINCIPAL)),
    ]
)
PATHS = ("/v3/processes", "/v3/apps", "/open", "/open/own", "/open/limited")


def _principal(name: str, *scopes: str, expires: float = 1000.0) -> Principal:
    return make_principal(
        kind=PrincipalKind.USER,
        principal_id=name,
        issuer="",
        zone="",
        client_id="cf",
        scopes=frozenset(scopes),
        expires=int(NOW + expires),
    )


PEOPLE = {
    "a": _principal("a", "cloud_controller.read", "cloud_controller.admin_read_only"),
    "b": _principal("b", "cloud_controller.read", "cloud_controller.admin_read_only"),
    "more": _principal("more", "cloud_controller.read", "cloud_controller.admin_read_only", "openid"),
    "free": _principal("free", "cloud_controller.read", "cloud_controller.admin_read_only", "free"),
    "own": _principal("own", "cloud_controller.read"),
    "short": _principal("short", "cloud_controller.read", "cloud_controller.admin_read_only", expires=5),
    "none": _principal("none", "openid"),
}
HEADS: tuple[tuple[tuple[str, str], ...], ...] = (
    (),
    (("Accept", "application/json"),),
    (("If-None-Match", '"etag"'),),
    (("Cache-Control", "max-age=2"),),
    (("Cache-Control", "no-cache"),),
    (("Gateway-Debug", "1"),),
    (("Accept-Encoding", "gzip"),),
)


class Tokens:
    """Tokens are the names of people; those in `refused` count no more."""

    def __init__(self) -> None:
        self.bad: set[str] = set()
        self.memo: set[str] = set()
        self.rejected: set[str] = set()
        self.hits = self.refusals = 0

    def remembered(self, token: str, now: float) -> Principal | None:
        known = PEOPLE.get(token)
        counts = known is not None and token in self.memo and token not in self.bad and known.expires > now
        return known if counts else None

    def recalled(self) -> None:
        self.hits += 1

    def verify(self, token: str, now: float) -> Principal | Rejected | KeyUnknown:
        known = self.remembered(token, now)
        if known is not None:
            self.hits += 1
            return known
        known = PEOPLE.get(token)
        if token in self.rejected or known is None or token in self.bad or known.expires <= now:
            self.rejected.add(token)
            self.refusals += 1
            return Rejected("signature")
        self.memo.add(token)
        return known

    def refused(self, token: str, now: float) -> str | None:
        return "signature" if token in self.rejected and self.remembered(token, now) is None else None

    def refused_again(self, fault: str) -> None:
        assert fault == "signature"
        self.refusals += 1

    async def fetch_for(self, kid: str | None) -> None:
        raise NotImplementedError


class Encodes:
    codings, min_bytes = ("gzip",), 1

    def want(self, entry: Entry, coding: str) -> None:
        """Never."""


@dataclass
class World:
    """A pipeline's front half, with hits that stand or without."""

    stands: bool
    store: MemoryStore = field(default_factory=lambda: MemoryStore(max_bytes=1 << 20, max_entry_bytes=1 << 20))
    tokens: Tokens = field(default_factory=Tokens)
    held: Held = field(default_factory=Held)
    known: dict[object, Known] = field(default_factory=dict)
    manners: dict[object, dict[object, Any]] = field(default_factory=dict)  # of heads that differ in the line alone
    die: float = 1.0
    sample: float = 1.0
    served: int = 0  # by what stands

    def __post_init__(self) -> None:
        limits = [
            RatePolicy("users", Who.PRINCIPAL, Gcra(30, 6.0), frozenset({"list", "default"}), cost=Cost(hit=2)),
            RatePolicy("seen", Who.IP, Gcra(12, 6.0), frozenset({"list"}), Mode.SHADOW),
            RatePolicy("all", Who.EVERYBODY, Gcra(60, 6.0), frozenset({"list"}), exempt_scopes_any=frozenset({"free"})),
        ]
        failures = RatePolicy("failures", Who.IP, Gcra(12, 6.0), frozenset())
        self.counters = MemoryCounters([*limits, failures], max_buckets=1000)
        self.admission = Admission(limits, self.counters, trusted=TrustedProxies([]), failures=failures)
        self.renderer = Renderer()
        self.renew()

    def renew(self) -> None:
        """Judge by a new policy."""
        self.policy = Policy(
            ROUTES,
            self.tokens,
            self.store,
            chance=lambda: self.die,
            admission=self.admission,
            encoder=Encodes(),
            drift=Drift(0.2, lambda: self.sample),
            debug_scopes=frozenset({"openid"}),
        )

    def ask(self, method: str, path: str, fields: Any, token: str | None, peer: str, now: float) -> tuple[Any, ...]:
        known = self._known(method, path, fields) if self.stands else None
        if known is not None:
            # The lane asks for refusals first where the head is not the usual one of its connection.
            first = refused_again(known, self.policy, peer, token, now) if self.die < 1 or token != "a" else None
            standing = first or again(known, self.policy, peer, token, now)
            if standing is not None:
                self.served += 1
                exchange = standing.exchange
                told = written(standing.words, exchange.rate_lines, "id", standing.content())
                return (told, *self._left(exchange))
        pairs = [*fields, *([] if token is None else [("Authorization", f"bearer {token}")])]
        target = parse(path, strict_api=True)
        exchange = Exchange(
            RequestHead(method, target, Fields(pairs), peer), request_id="id", received_at=now, known=known, token=token
        )
        if known is not None:
            exchange.chosen = known.take_chosen()
        outcome = decide(exchange, self.policy, now)
        if not isinstance(outcome, Reply):
            return outcome, exchange.verdict, exchange.refresh, exchange.drift
        words = self.renderer.words(outcome, method, now)
        assert words is not None
        exchange.status = outcome.status
        content = outcome.body if isinstance(outcome.body, bytes) and method != "HEAD" else b""
        told, left = written(words, exchange.rate_lines, "id", content), self._left(exchange)
        if exchange.denied is None:
            stand(exchange, self.policy, self.renderer.words)
        else:
            stand_refused(exchange, outcome, self.policy, self.renderer.words, now)
        return (told, *left)

    def _known(self, method: str, path: str, fields: Any) -> Known:
        known = self.known.get((method, path, fields))
        if known is None:
            manners = self.manners.setdefault(fields, {})
            known = self.known[method, path, fields] = Known(self.held, manners)
        return known

    @staticmethod
    def _left(exchange: Exchange) -> tuple[Any, ...]:
        """What recorders are told of an exchange."""
        seen = ("principal", "status", "verdict", "denied", "limited", "refresh", "drift", "entry", "received_at")
        head = exchange.head
        return (str(head.target), head.peer, exchange.route, exchange.key, *(getattr(exchange, name) for name in seen))

    def buckets(self) -> list[Any]:
        return [dict(table.cells) for table in self.counters._tables]


def page(path: str, domain: str, now: float, version: int, *, encoded: bool) -> Entry:
    body, own = b'{"resources":[%d]}' % version, [("X-VCAP-Request-ID", "theirs")] if version % 3 == 0 else []
    return Entry(
        CacheKey(domain, path, "", "json"),
        Fields([("Content-Type", "application/json"), *own]),
        body,
        '"etag"' if version % 2 else f'"{version}"',
        now,
        now + 4.0,
        now + 7.0,
        now + 60.0,
        ("processes",),
        fetch_seconds=0.5,
        encoded=(Encoded("gzip", b"zip%d" % version, '"zip"'),) if encoded else (),
    )


DOMAINS = sorted(
    {"public", "anonymous"}
    | {one.domain.id for one in PEOPLE.values()}
    | {one.global_domain.id for one in PEOPLE.values() if one.global_domain is not None}
)
ASK = st.tuples(
    st.just("ask"),
    st.sampled_from([*["GET"] * 5, "HEAD"]),
    st.sampled_from([*PATHS[:1] * 6, *PATHS]),
    st.sampled_from([*HEADS[:1] * 6, *HEADS]),
    st.sampled_from([*PEOPLE, *"ababab", "forged", "forged", "other", None]),
    st.sampled_from(["192.0.2.1", "192.0.2.2"]),
    st.sampled_from([1.0, 1.0, 1.0, 0.0, 0.2]),
    st.sampled_from([1.0, 1.0, 1.0, 0.1]),
)
STEP = st.one_of(
    ASK,
    ASK,
    ASK,
    ASK,
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.999999, 1.0, 1.7, 4.0, -0.5, -3.0])),
    st.tuples(st.just("store"), st.sampled_from(PATHS), st.integers(0, 9), st.booleans()),
    st.tuples(st.just("void")),
    st.tuples(st.just("discard"), st.sampled_from(PATHS)),
    st.tuples(st.just("renew")),
    st.tuples(st.just("refuse"), st.sampled_from(["a", "b", "own"])),
    st.tuples(st.just("keys")),
)


def _do(world: World, step: tuple[Any, ...], now: float) -> None:
    match step:
        case ("store", path, version, encoded):
            for domain in DOMAINS:
                world.store.put(page(path, domain, now, version, encoded=encoded), generation=1 << 60)
        case ("void",):
            world.store.invalidate(["processes"])
        case ("discard", path):
            for domain in DOMAINS:
                world.store.discard(CacheKey(domain, path, "", "json"))
        case ("renew",):
            world.renew()
        case ("refuse", name):
            world.tokens.bad.add(name)
        case ("keys",):
            world.tokens.memo.clear()
            world.tokens.rejected.clear()
            world.tokens.bad.clear()


def _compare(steps: list[tuple[Any, ...]]) -> World:
    """Do the same in two worlds; the one in which hits stand."""
    plain, quick = World(stands=False), World(stands=True)
    now = NOW
    for path in PATHS:
        for world in (plain, quick):
            _do(world, ("store", path, 1, False), now)
    for step in steps:
        if step[0] == "wait":
            now += step[1]
        elif step[0] == "ask":
            _, *asked, die, sample = step
            for _ in range(2):  # so that something can stand
                told = []
                for world in (plain, quick):
                    world.die, world.sample = die, sample
                    told.append(world.ask(*asked, now))
                assert told[0] == told[1]
                now += 0.01
        else:
            for world in (plain, quick):
                _do(world, step, now)
        assert quick.buckets() == plain.buckets()
        assert (quick.tokens.hits, quick.tokens.refusals) == (plain.tokens.hits, plain.tokens.refusals)
        assert quick.admission.decisions() == plain.admission.decisions()
        assert [node.hits for node in quick.store.nodes()] == [node.hits for node in plain.store.nodes()]
    return quick


@settings(max_examples=100, deadline=None)
@given(st.lists(STEP, min_size=10, max_size=60))
def test_what_stands_is_what_decide_would_say(steps: list[tuple[Any, ...]]) -> None:
    _compare(steps)


@pytest.mark.parametrize("seed", range(8))
def test_long_walks_over_few_heads(seed: int) -> None:
    """So that one head is asked for by several, dice fall, and pages come and go while something stands."""
    chance = random.Random(seed)
    steps: list[tuple[Any, ...]] = []
    for _ in range(400):
        kind = chance.random()
        if kind < 0.8:
            steps.append(
                (
                    "ask",
                    "GET",
                    chance.choice(PATHS[:2]),
                    chance.choice([(), (), HEADS[3], HEADS[6]]),
                    chance.choice([*"aab", "more", "own", "forged", "short"]),
                    chance.choice(["192.0.2.1", "192.0.2.2"]),
                    chance.choice([1.0] * 9 + [0.0]),
                    chance.choice([1.0] * 19 + [0.0]),
                )
            )
        elif kind < 0.92:
            steps.append(("wait", chance.choice([0.2, 0.5, 0.9, 1.3])))
        else:
            more = [("store", PATHS[0], chance.randrange(9), chance.random() < 0.5), ("renew",), ("keys",), ("void",)]
            steps.append(chance.choice(more + more[:1] * 8))
    assert _compare(steps).served > 50


@pytest.mark.parametrize(
    ("path", "token", "fields", "times"),
    [
        ("/v3/processes", "a", (), 2),
        ("/v3/apps", "own", (), 2),
        ("/open", None, (), 2),
        ("/open", "a", (), 2),
        ("/open/own", "a", (), 2),
        ("/open/own", None, (), 0),
        ("/open/limited", None, (), 0),
        ("/v3/processes", "a", (("Gateway-Debug", "1"),), 0),
        ("/v3/processes", "a", (("Cache-Control", "no-cache"),), 0),
        ("/v3/processes", "forged", (), 2),
        ("/v3/processes", None, (), 0),
    ],
)
def test_what_can_stand_does(path: str, token: str | None, fields: Any, times: int) -> None:
    world = World(stands=True)
    _do(world, ("store", path, 1, False), NOW)
    for _ in range(3):
        world.ask("GET", path, fields, token, "192.0.2.1", NOW)
    assert world.served == times


def test_a_page_that_is_stored_no_more_is_not_kept_alive() -> None:
    world = World(stands=True)
    _do(world, ("store", "/v3/processes", 1, False), NOW)
    for _ in range(3):
        world.ask("GET", "/v3/processes", (), "a", "192.0.2.1", NOW)
    (known,) = world.known.values()
    (standing,) = known.standing()
    standing.exchange.entry = None  # as the lane does
    world.store.invalidate(["processes"])
    assert standing.place.held is None
    assert (len(world.held), known.standing(), standing.stands) == (0, [], False)
    assert again(known, world.policy, "192.0.2.1", "a", NOW) is None


@pytest.mark.parametrize(("fields", "wanted"), [((("Accept-Encoding", "gzip"),), 6), ((), 0)])
def test_a_form_that_is_not_there_is_asked_for_in_each_second(fields: Any, wanted: int) -> None:
    """Whoever makes it may have had no time before; an answer that is only mended would never ask again."""
    asked = []

    class Wants(Encodes):
        def want(self, entry: Entry, coding: str) -> None:
            asked.append(coding)

    world = World(stands=True)
    world.policy = dataclasses.replace(world.policy, encoder=Wants(), drift=None)
    world.store.put(
        dataclasses.replace(
            page("/v3/processes", PEOPLE["a"].global_domain.id, NOW, 1, encoded=False), fresh_until=NOW + 99
        ),  # type: ignore[union-attr]
        generation=1 << 60,
    )
    for second in range(6):
        world.ask("GET", "/v3/processes", fields, "a", "192.0.2.1", NOW + second)
    assert (world.served, len(asked)) == (5, wanted)


def test_out_of_touch_nothing_stands() -> None:
    touch = [True]

    class Shared(MemoryStore):
        @staticmethod
        def in_touch() -> bool:
            return touch[0]

    world = World(stands=True, store=Shared(max_bytes=1 << 20, max_entry_bytes=1 << 20))
    _do(world, ("store", "/v3/processes", 1, False), NOW)
    for second, (touch[0], served) in enumerate([(True, 0), (True, 1), (False, 1), (True, 2)]):
        world.ask("GET", "/v3/processes", (), "a", "192.0.2.1", NOW + second * 0.9)
        assert world.served == served
