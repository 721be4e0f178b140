"""Rate limits in `decide`: who is counted, what it costs, what the answer says, who may not have tokens verified."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import pytest

from gateway.core.cf_routes import CLOUD_FOUNDRY, RATE_CLASSES
from gateway.core.errors import ERRORS, Reason
from gateway.core.forwarding import TrustedProxies
from gateway.core.model import Fields, Principal, PrincipalKind, RequestHead
from gateway.core.rate_fields import pairs
from gateway.core.rate_policy import Cost, Mode, RatePolicy, Who
from gateway.core.ratelimit import Algorithm, FixedWindow, Gcra
from gateway.core.routes import RouteOverride
from gateway.core.structured import parse_list
from gateway.core.target import parse
from gateway.core.visibility import make_principal
from gateway.limits.memory import MemoryCounters
from gateway.pipeline.admission import Admission
from gateway.pipeline.decide import Fetch, Outcome, Policy, decide
from gateway.pipeline.entry import Entry
from gateway.pipeline.exchange import Exchange, Reply, Verdict
from gateway.pipeline.ports import KeyUnknown, Rejected
from gateway.store.memory import MemoryStore

NOW = 1_800_000_000.0
LIST = "/v3/processes"
ALL = frozenset(RATE_CLASSES) - {"exempt"}
PROXY, CLIENT = "10.0.0.1", "203.0.113.7"


def person(name: str, *scopes: str, client: str = "cf") -> Principal:
    return make_principal(
        kind=PrincipalKind.USER,
        principal_id=name,
        issuer="https://uaa",
        zone="",
        client_id=client,
        scopes=frozenset(f"cloud_controller.{scope}" for scope in scopes),
        expires=int(NOW) + 100_000,
    )


# Token -> whom it speaks for.
TOKENS = {
    "dev": person("dev", "read", "write"),
    "dev-narrow": person("dev", "read"),
    "other": person("other", "read", "write"),
    "robot": person("robot", "read", client="robots"),
    "admin": person("admin", "admin"),
    "openid": person("openid"),
}


class Verifier:
    """Tokens are names; those in `memo` were verified before."""

    def __init__(self) -> None:
        self.memo: set[str] = set()
        self.verified: list[str] = []

    def remembered(self, token: str, now: float) -> Principal | None:
        return TOKENS[token] if token in self.memo else None

    def verify(self, token: str, now: float) -> Principal | Rejected | KeyUnknown:
        if token not in self.memo:
            self.verified.append(token)
        return TOKENS.get(token) or Rejected("signature")

    async def fetch_for(self, kid: str | None) -> None:
        raise AssertionError("decide never waits")


def limit(name: str = "users", who: Who = Who.PRINCIPAL, bucket: Algorithm | None = None, **more: Any) -> RatePolicy:
    return RatePolicy(name, who, bucket or Gcra(2, 60.0), more.pop("classes", ALL), **more)


@dataclasses.dataclass
class World:
    policy: Policy
    counters: MemoryCounters
    verifier: Verifier
    admission: Admission

    def ask(
        self, target: str = LIST, who: str | None = "dev", *fields: tuple[str, str], at: float = 0.0, **head: Any
    ) -> tuple[Exchange, Outcome]:
        authorization = () if who is None else (("Authorization", f"bearer {who}"),)
        facts = {
            "method": "GET",
            "target": parse(target, strict_api=True),
            "fields": Fields((*authorization, *fields)),
            "peer": CLIENT,
        }
        exchange = Exchange(RequestHead(**facts | head), request_id="id", received_at=NOW)
        return exchange, decide(exchange, self.policy, NOW + at)

    def reasons(self, count: int, *args: Any, **more: Any) -> list[Reason | None]:
        return [self.ask(*args, **more)[0].denied for _ in range(count)]

    def cache(self, target: str = LIST, who: str = "dev") -> None:
        """Put the page of a request into the store."""
        exchange, _ = self.ask(target, who)
        assert exchange.key is not None
        entry = Entry(
            key=exchange.key,
            fields=Fields((("Content-Type", "application/json"),)),
            body=b"{}",
            etag='"tag"',
            stored_at=NOW,
            fresh_until=NOW + 10,
            refresh_until=NOW + 20,
            error_until=NOW + 60,
            tags=("processes",),
        )
        assert self.policy.store.put(entry, generation=0) is None


def world(*policies: RatePolicy, failures: RatePolicy | None = None, routes: Sequence[RouteOverride] = ()) -> World:
    counters = MemoryCounters([*policies, *([failures] if failures else [])], max_buckets=1000)
    admission = Admission(policies, counters, trusted=TrustedProxies([f"{PROXY}/32"]), failures=failures)
    verifier = Verifier()
    store = MemoryStore(max_bytes=1 << 20, max_entry_bytes=1 << 20)
    table = CLOUD_FOUNDRY.with_overrides(routes)
    return World(Policy(table, verifier, store, admission=admission), counters, verifier, admission)


def told(exchange: Exchange) -> dict[str, str]:
    fields = pairs(exchange.rate_lines)
    assert len(fields) == len(dict(fields))
    return dict(fields)


NO, LIMITED, BY_IP = None, Reason.RATE_LIMITED, Reason.IP_RATE_LIMITED


# -- who


def test_a_principal_is_counted_over_all_of_its_tokens() -> None:
    one = world(limit())
    assert one.reasons(2) == [NO, NO]
    assert one.reasons(1, LIST, "dev-narrow") == [LIMITED]
    assert one.reasons(1, LIST, "other") == [NO]


def test_a_client_id_is_counted_over_all_of_its_users() -> None:
    one = world(limit(who=Who.CLIENT_ID))
    assert one.reasons(1) + one.reasons(2, LIST, "other") == [NO, NO, LIMITED]
    assert one.reasons(1, LIST, "robot") == [NO]


def test_an_address_is_counted_whoever_uses_it() -> None:
    one = world(limit(who=Who.IP))
    assert one.reasons(1) + one.reasons(1, LIST, None) == [NO, Reason.NO_TOKEN]
    assert one.reasons(1) == [LIMITED], "who is logged in is not told to log in"
    assert one.reasons(1, LIST, None) == [BY_IP]
    assert one.reasons(1, peer="203.0.113.8") == [NO]


def test_an_ipv6_client_is_counted_by_its_64() -> None:
    one = world(limit(who=Who.IP))
    seen = [one.reasons(1, peer=f"2001:db8:1:2::{host:x}")[0] for host in range(3)]
    assert seen == [NO, NO, LIMITED]
    assert one.reasons(1, peer="2001:db8:1:3::1") == [NO]


def test_anonymous_counts_requests_without_a_valid_token_only() -> None:
    one = world(limit(who=Who.ANONYMOUS))
    assert one.reasons(5) == [NO] * 5
    assert one.reasons(3, LIST, None) == [Reason.NO_TOKEN, Reason.NO_TOKEN, BY_IP]
    assert one.reasons(1) == [NO], "a user of the same address (recordings: anonymous-16)"


def test_everybody_is_one_bucket() -> None:
    one = world(limit(who=Who.EVERYBODY))
    assert one.reasons(1) + one.reasons(1, LIST, "robot", peer="203.0.113.9") == [NO, NO]
    assert one.reasons(1, LIST, "other") == [LIMITED]


# envoy#16399: the client's address taken from the left of X-Forwarded-For can be anything the client likes.
SPOOFED = [
    pytest.param(CLIENT, ("198.51.100.1", "198.51.100.2", "198.51.100.3"), id="from nobody we trust: ignored"),
    pytest.param(PROXY, (f"198.51.100.1, {CLIENT}", f"198.51.100.2, {CLIENT}", f"x, {CLIENT}"), id="left of the hop"),
    pytest.param(PROXY, (f"{PROXY}, {CLIENT}", f"127.0.0.1, {CLIENT}", CLIENT), id="a trusted address as the claim"),
    pytest.param(PROXY, (f"1.1.1.1, {CLIENT}, {PROXY}", f"2.2.2.2, {CLIENT}, {PROXY}", CLIENT), id="two hops"),
    pytest.param(PROXY, (f"{'9' * 300}, {CLIENT}", f"{'8' * 300}, {CLIENT}", CLIENT), id="too long to remember"),
]


@pytest.mark.parametrize(("peer", "claims"), SPOOFED)
def test_envoy_16399_a_spoofed_forwarded_for_escapes_no_limit(peer: str, claims: tuple[str, ...]) -> None:
    one = world(limit(who=Who.IP))
    seen = [one.reasons(1, LIST, "dev", ("X-Forwarded-For", claim), peer=peer)[0] for claim in claims]
    assert seen == [NO, NO, LIMITED]


def test_envoy_16399_the_address_a_trusted_proxy_vouches_for_is_the_clients() -> None:
    one = world(limit(who=Who.IP))
    for last in range(5):
        field = ("X-Forwarded-For", f"198.51.100.{last}")
        assert one.reasons(1, LIST, "dev", field, peer=PROXY) == [NO], "clients behind one proxy are not one client"


# -- what it costs


def costs(units: Outcome, spent: World) -> float:
    return round(100 - spent.counters.peek((0, ("https://uaa", "", "dev"), 0.0), NOW).remaining, 2)


COST = Cost(hit=1, miss=10, write=20, per_row=0.5)
SPENT = [
    pytest.param(LIST, {}, 10 + 25, id="a miss of a list: 50 rows by default"),
    pytest.param(f"{LIST}?per_page=2", {}, 10 + 1, id="a miss of two rows"),
    pytest.param("/v3/apps/g", {}, 10, id="a miss of one resource has no rows"),
    pytest.param(f"{LIST}?per_page=2;x", {}, 10 + 1, id="a bypass costs what a miss does"),
    pytest.param("/v3/processes/g/actions/scale", {"method": "POST"}, 20, id="a write"),
    pytest.param("/v3/apps/g", {"method": "DELETE"}, 20, id="a deletion"),
    pytest.param("/v3/apps/g", {"method": "HEAD"}, 10, id="a HEAD"),
]


@pytest.mark.parametrize(("target", "head", "units"), SPENT)
def test_units_by_what_is_asked_of_whom(target: str, head: dict, units: float) -> None:
    one = world(limit(bucket=Gcra(100, 1e6), cost=COST))
    _, outcome = one.ask(target, **head)
    assert isinstance(outcome, Fetch)
    assert costs(outcome, one) == units


@pytest.mark.parametrize(
    ("age", "fields", "units"),
    [
        pytest.param(0, (), 1, id="fresh hit"),
        pytest.param(15, (), 1, id="stale hit"),
        pytest.param(0, (("If-None-Match", '"tag"'),), 1, id="304"),
        pytest.param(0, (("Cache-Control", "no-cache"),), 35, id="not wanted from the cache"),
        pytest.param(0, (("Cache-Control", "no-store"),), 35, id="bypass"),
        pytest.param(100, (), 35, id="expired"),
    ],
)
def test_hits_and_misses_cost_what_they_cause(age: float, fields: tuple, units: float) -> None:
    one = world(limit(bucket=Gcra(100, 1e9), cost=COST))
    one.cache()
    before = one.counters.peek((0, ("https://uaa", "", "dev"), 0.0), NOW + age).remaining
    one.ask(LIST, "dev", *fields, at=age)
    after = one.counters.peek((0, ("https://uaa", "", "dev"), 0.0), NOW + age).remaining
    assert round(before - after, 2) == units


def test_a_refusal_of_ours_costs_a_hit() -> None:
    one = world(limit(bucket=Gcra(100, 1e6), cost=COST))
    assert one.reasons(1, LIST, "dev", ("Cache-Control", "only-if-cached")) == [Reason.ONLY_IF_CACHED]
    assert one.reasons(1, "/v3/apps", "dev-narrow", method="POST") == [Reason.INSUFFICIENT_SCOPE]
    assert costs(None, one) == 2  # type: ignore[arg-type]


def test_free_hits_pass_when_the_quota_is_spent() -> None:
    one = world(limit(bucket=Gcra(1, 60.0), cost=Cost(hit=0)))
    one.cache()
    assert one.reasons(1, "/v3/apps/g") == [LIMITED]
    exchange, outcome = one.ask()
    assert exchange.verdict is Verdict.HIT
    assert isinstance(outcome, Reply)
    assert told(exchange)["X-RateLimit-Remaining"] == "0"


# -- which requests


def test_classes_say_which_requests_count() -> None:
    one = world(limit(classes=frozenset({"list"})))
    assert one.reasons(5, "/v3/apps/g") == [NO] * 5
    assert one.reasons(3) == [NO, NO, LIMITED]
    exchange, _ = one.ask("/v3/apps/g")
    assert exchange.rate_lines == ""


@pytest.mark.parametrize("target", ["/", "/?", "/v3", "/v2/info", "/healthz"])
def test_exempt_paths_are_those_of_the_controller(target: str) -> None:
    one = world(limit(), limit("addresses", Who.IP), limit("anonymous", Who.ANONYMOUS))
    assert one.reasons(5, target, None) + one.reasons(5, target) == [NO] * 10
    assert one.counters.buckets() == {"users": 0, "addresses": 0, "anonymous": 0}


@pytest.mark.parametrize("target", ["/v3?x=1", "/v3/info", "/healthz/x"])
def test_what_only_looks_exempt_counts_recording_user_13(target: str) -> None:
    one = world(limit())
    assert one.reasons(3, target) == [NO, NO, LIMITED]


def test_an_operators_route_can_be_exempt() -> None:
    one = world(limit(), routes=[RouteOverride("/v3/apps/:guid", rate="exempt")])
    assert one.reasons(4, "/v3/apps/g") == [NO] * 4


def test_scopes_exempt_and_the_answer_says_nothing_of_limits() -> None:
    one = world(limit(exempt_scopes_any=frozenset({"cloud_controller.admin"})))
    assert one.reasons(5, LIST, "admin") == [NO] * 5
    assert one.ask(LIST, "admin")[0].rate_lines == ""
    assert one.reasons(3) == [NO, NO, LIMITED]


def test_public_routes_count_for_the_user_whose_token_they_carry_recording_user_10() -> None:
    one = world(limit(), limit("anonymous", Who.ANONYMOUS))
    assert one.reasons(3, "/v3/info") == [NO, NO, LIMITED]
    assert one.reasons(3, "/v3/info", None) == [NO, NO, BY_IP]
    assert one.reasons(1, "/v3/info", "nonsense", peer="203.0.113.99") == [NO], "and do not fail on a bad token"


def test_without_limits_nothing_is_said() -> None:
    store = MemoryStore(max_bytes=1 << 20, max_entry_bytes=1 << 20)
    bare = World(Policy(CLOUD_FOUNDRY, Verifier(), store), None, Verifier(), None)  # type: ignore[arg-type]
    assert bare.ask()[0].rate_lines == ""


# -- refusals


def test_over_the_limit_the_answer_is_the_controllers() -> None:
    one = world(limit(bucket=FixedWindow(1, 60.0)))
    one.ask()
    exchange, reply = one.ask()
    assert isinstance(reply, Reply)
    assert (reply.status, reply.body) == (
        429,
        b'{"errors":[{"detail":"Rate Limit Exceeded","title":"CF-RateLimitExceeded","code":10013}]}',
    )
    assert exchange.limited == ("users",)
    fields = told(exchange)
    assert list(fields) == [
        "X-RateLimit-Limit",
        "X-RateLimit-Reset",
        "X-RateLimit-Remaining",
        "RateLimit",
        "RateLimit-Policy",
        "Retry-After",
    ]
    assert int(fields["X-RateLimit-Reset"]) - NOW == int(fields["Retry-After"])
    assert 1 <= int(fields["Retry-After"]) <= 60
    assert reply.fields.get("x-gateway-error") == (f"rate-limited; policy users: retry after {fields['Retry-After']} s")


def test_an_invalid_token_over_the_limit_is_401_recording_bad_token_04() -> None:
    one = world(limit("anonymous", Who.ANONYMOUS))
    assert one.reasons(4, LIST, "garbage") == [Reason.INVALID_TOKEN] * 4
    exchange, reply = one.ask(LIST, "garbage")
    assert isinstance(reply, Reply)
    assert reply.status == 401
    assert b'"code":1000' in (reply.body or b"")  # type: ignore[operator]
    assert int(told(exchange)["Retry-After"]) >= 1
    assert one.reasons(1, LIST, None) == [BY_IP], "they count as anonymous"


@pytest.mark.parametrize(
    ("target", "who", "reason"),
    [
        pytest.param(LIST, "openid", Reason.INSUFFICIENT_SCOPE, id="openid_only-06"),
        pytest.param("/internal/x", "openid", Reason.DENIED_ROUTE, id="closed route"),
    ],
)
def test_what_is_refused_anyway_counts_too(target: str, who: str, reason: Reason) -> None:
    one = world(limit(), limit("addresses", Who.IP))
    seen = one.reasons(3, target, who)
    assert seen[:2] == [reason, reason]
    assert ERRORS[seen[2]].status == 429  # type: ignore[index]


def test_a_missing_token_over_the_limit_is_429_recording_anonymous_04() -> None:
    one = world(limit("anonymous", Who.ANONYMOUS, FixedWindow(3, 60.0)))
    remaining = []
    for _ in range(3):
        exchange, reply = one.ask(LIST, None)
        assert isinstance(reply, Reply)
        assert reply.status == 401
        remaining.append(told(exchange)["X-RateLimit-Remaining"])
    assert remaining == ["1", "0", "0"], "the controller tells an address one less than it has"
    _, reply = one.ask("/v2/apps", None)
    assert isinstance(reply, Reply)
    assert reply.status == 429
    assert reply.body == (
        b'{"description":"Rate Limit Exceeded: Unauthenticated requests from this IP address have exceeded the limit. '
        b'Please log in.","error_code":"CF-IPBasedRateLimitExceeded","code":10014}'
    )


# -- several policies


def test_the_strictest_decides_and_no_units_are_taken_for_nothing() -> None:
    one = world(limit("hour", bucket=Gcra(10, 3600.0)), limit("minute", bucket=Gcra(2, 60.0)))
    assert one.reasons(4) == [NO, NO, LIMITED, LIMITED]
    exchange, _ = one.ask()
    assert exchange.limited == ("minute",)
    state = {item.value: item.parameters for item in parse_list([told(exchange)["RateLimit"]])}  # type: ignore[union-attr]
    assert state["hour"]["r"] == 8
    assert state["minute"] == {"r": 0, "t": 60}
    assert told(exchange)["X-RateLimit-Limit"] == "2"
    assert told(exchange)["Retry-After"] == "30"


def test_of_several_refusals_the_longest_wait_is_told() -> None:
    one = world(limit("short", bucket=Gcra(1, 10.0)), limit("long", bucket=Gcra(1, 600.0)))
    one.ask()
    exchange, _ = one.ask()
    assert exchange.limited == ("short", "long")
    assert told(exchange)["Retry-After"] == "600"


def test_while_all_allow_the_one_nearest_its_end_is_told() -> None:
    one = world(limit("wide", bucket=Gcra(100, 60.0)), limit("narrow", bucket=Gcra(3, 60.0)))
    exchange, _ = one.ask()
    assert told(exchange)["X-RateLimit-Limit"] == "3"
    assert told(exchange)["RateLimit-Policy"] == '"wide";q=100;w=60, "narrow";q=3;w=60'


def test_shadow_decides_counts_and_changes_nothing() -> None:
    one = world(limit("trial", mode=Mode.SHADOW))
    for number in range(4):
        exchange, outcome = one.ask()
        assert isinstance(outcome, Fetch)
        assert exchange.rate_lines == ""
        assert exchange.limited == (("trial",) if number >= 2 else ())
    assert one.admission.decisions() == {("trial", "allowed", "shadow"): 2, ("trial", "limited", "shadow"): 2}


def test_shadow_beside_an_enforced_one_is_not_told() -> None:
    one = world(limit("real", bucket=Gcra(10, 60.0)), limit("trial", bucket=Gcra(1, 60.0), mode=Mode.SHADOW))
    assert one.reasons(3) == [NO, NO, NO]
    fields = told(one.ask()[0])
    assert fields["X-RateLimit-Limit"] == "10"
    assert "trial" not in fields["RateLimit"] + fields["RateLimit-Policy"]


# -- fields


@pytest.mark.parametrize("bucket", [Gcra(5, 60.0), FixedWindow(5, 60.0)], ids=["gcra", "fixed-window"])
def test_fields_are_structured_and_agree_with_each_other(bucket: Algorithm) -> None:
    one = world(limit(bucket=bucket))
    for left in (4, 3, 2, 1, 0):
        exchange, _ = one.ask(at=0.25)
        fields = told(exchange)
        (state,) = parse_list([fields["RateLimit"]])
        (policy,) = parse_list([fields["RateLimit-Policy"]])
        assert (state.value, state.parameters["r"]) == ("users", left)  # type: ignore[union-attr]
        assert (policy.value, policy.parameters) == ("users", {"q": 5, "w": 60})  # type: ignore[union-attr]
        assert (fields["X-RateLimit-Limit"], fields["X-RateLimit-Remaining"]) == ("5", str(left))
        until = state.parameters["t"]
        assert isinstance(until, int)
        assert 0 <= int(fields["X-RateLimit-Reset"]) - (NOW + 0.25) - until + 1 < 2
        assert "Retry-After" not in fields


def test_hits_misses_and_304_carry_the_fields() -> None:
    one = world(limit(bucket=Gcra(100, 60.0)))
    one.cache()
    for fields in ((), (("If-None-Match", '"tag"'),), (("Cache-Control", "no-cache"),)):
        assert "X-RateLimit-Remaining" in told(one.ask(LIST, "dev", *fields)[0])


def test_retry_after_is_when_it_passes() -> None:
    one = world(limit(bucket=Gcra(3, 10.0)))
    for _ in range(3):
        one.ask()
    exchange, _ = one.ask(at=1.0)
    wait = int(told(exchange)["Retry-After"])
    assert wait == math.ceil(10 / 3 - 1)
    assert one.ask(at=1.0 + wait)[0].denied is None


# -- failed authentications


def guessing(limit_: int = 3) -> World:
    failures = RatePolicy("failed_authentications", Who.IP, Gcra(limit_, 60.0), frozenset())
    return world(failures=failures)


def test_guessing_costs_the_guesser_and_not_the_cpu() -> None:
    one = guessing()
    assert one.reasons(3, LIST, "guess") == [Reason.INVALID_TOKEN] * 3
    one.verifier.verified.clear()
    exchange, reply = one.ask(LIST, "guess")
    assert exchange.denied is BY_IP
    assert isinstance(reply, Reply)
    assert (reply.status, reply.fields.get("retry-after")) == (429, "20")
    assert b'"code":10014' in (reply.body or b"")  # type: ignore[operator]
    assert one.verifier.verified == [], "no signature was looked at"
    assert one.reasons(1, LIST, "guess", peer="203.0.113.8") == [Reason.INVALID_TOKEN]
    assert one.ask(LIST, "guess", at=20.1)[0].denied is Reason.INVALID_TOKEN


def test_guessing_leaves_tokens_verified_before_alone() -> None:
    one = guessing()
    one.verifier.memo.add("dev")
    one.reasons(4, LIST, "guess")
    assert one.reasons(1) == [NO]
    assert one.reasons(1, LIST, "other") == [BY_IP], "a good token that is not known costs a verification too"


def test_guessing_never_closes_what_needs_no_token() -> None:
    one = guessing()
    one.reasons(4, LIST, "guess")
    assert one.reasons(1, "/", "guess") + one.reasons(1, "/v3/info", "guess") == [NO, NO]
    assert one.reasons(1, LIST, None) == [Reason.NO_TOKEN]


@pytest.mark.parametrize("target", ["/v3/nosuch", "/v3/service_offerings", "/v2/nosuch"])
def test_guessing_is_not_handed_on_to_the_controller(target: str) -> None:
    one = guessing()
    one.reasons(4, LIST, "guess")
    assert one.reasons(1, target, "guess") == [BY_IP]


def test_good_tokens_are_no_failures() -> None:
    one = guessing()
    assert one.reasons(20) == [NO] * 20
    assert one.counters.buckets() == {"failed_authentications": 0}
    assert one.admission.decisions()["failed_authentications", "limited", "enforce"] == 0
