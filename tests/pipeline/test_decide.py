"""`decide` called with literal values: every outcome, every reason, every state of a stored page."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from gateway.core.cf_routes import CLOUD_FOUNDRY
from gateway.core.errors import ERRORS, Reason
from gateway.core.keys import CacheKey
from gateway.core.model import ANONYMOUS_DOMAIN, PUBLIC_DOMAIN, Fields, Principal, PrincipalKind, RequestHead
from gateway.core.routes import Access, CacheMode, CacheRule, RouteOverride, RouteTable, Share
from gateway.core.target import parse
from gateway.core.visibility import make_principal
from gateway.pipeline.decide import Fetch, FetchKeys, Outcome, Policy, decide
from gateway.pipeline.entry import Entry
from gateway.pipeline.exchange import Bypass, Exchange, Reply, Verdict
from gateway.pipeline.ports import KeyUnknown, Rejected
from gateway.pipeline.representation import describe
from gateway.store.memory import MemoryStore

NOW = 1_000_000.0
LIST = "/v3/processes"
TTL, REFRESH, ERROR = 10.0, 20.0, 60.0
OWN = CacheRule(CacheMode.POLICY, ttl=TTL, share=Share.PRINCIPAL)
# Rows that an operator could write, for what the built-in table does not do.
TABLE = CLOUD_FOUNDRY.with_overrides(
    [
        RouteOverride(
            LIST,
            frozenset({"GET"}),
            cache=CacheRule(CacheMode.POLICY, TTL, REFRESH, ERROR, Share.GLOBAL),
        ),
        RouteOverride("/open/own", access=Access.PUBLIC, cache=OWN),
        RouteOverride("/open/global", access=Access.PUBLIC, cache=dataclasses.replace(OWN, share=Share.GLOBAL)),
        RouteOverride("/v3/new_things", cache=OWN),
    ]
)


def principal(name: str, *scopes: str) -> Principal:
    return make_principal(
        kind=PrincipalKind.USER,
        principal_id=name,
        issuer="",
        zone="",
        client_id="cf",
        scopes=frozenset(f"cloud_controller.{scope}" for scope in scopes),
        expires=int(NOW) + 100,
    )


PEOPLE = {
    "dev": principal("dev", "read", "write"),
    "reader": principal("reader", "read"),
    "admin": principal("admin", "admin"),
    "auditor": principal("auditor", "global_auditor"),
    "nothing": principal("nothing"),
}


class Verifier:
    """Tokens are names; `new-key` is signed with a key that a fetch may find."""

    def __init__(self, *, found: bool = True) -> None:
        self.found = found

    def verify(self, token: str, now: float) -> Principal | Rejected | KeyUnknown:
        if token == "new-key":
            return KeyUnknown("k2") if not self.found else PEOPLE["dev"]
        return PEOPLE.get(token) or Rejected("expired", "the token has expired")

    async def fetch_for(self, kid: str | None) -> None:
        raise AssertionError("decide never waits")


def policy(table: RouteTable = TABLE, *, found: bool = True) -> Policy:
    return Policy(table, Verifier(found=found), MemoryStore(max_bytes=1 << 20, max_entry_bytes=1 << 20))


def exchange(target: str = LIST, who: str | None = "dev", *fields: tuple[str, str], **head: Any) -> Exchange:
    authorization = () if who is None else (("Authorization", f"bearer {who}"),)
    facts = {"method": "GET", "target": parse(target, strict_api=True), "fields": Fields((*authorization, *fields))}
    return Exchange(RequestHead(**facts | head), request_id="id", received_at=NOW)


def store(rules: Policy, key: CacheKey, *, age: float = 0.0, body: bytes = b'{"page":1}') -> Entry:
    stored = NOW - age
    entry = Entry(
        key=key,
        fields=Fields((("Content-Type", "application/json"),)),
        body=body,
        etag='"tag"',
        stored_at=stored,
        fresh_until=stored + TTL,
        refresh_until=stored + TTL + REFRESH,
        error_until=stored + TTL + ERROR,
        tags=("processes",),
    )
    assert rules.store.put(entry, generation=rules.store.generation(entry.tags)) is None
    return entry


def with_page(age: float, target: str = LIST, who: str = "dev") -> Policy:
    """A policy whose store holds the page of that request."""
    rules = policy()
    first = exchange(target, who)
    assert decide(first, rules, NOW) == Fetch(fill=True)
    assert first.key is not None
    store(rules, first.key, age=age)
    return rules


def replied(outcome: Outcome) -> Reply:
    assert isinstance(outcome, Reply)
    return outcome


def refused(asked: Exchange, rules: Policy | None = None) -> tuple[Reason | None, Reply]:
    reply = replied(decide(asked, rules or policy(), NOW))
    return asked.denied, reply


# -- refusals


@pytest.mark.parametrize(
    ("asked", "reason", "challenge"),
    [
        pytest.param(exchange("/internal/v4/x"), Reason.DENIED_ROUTE, None, id="internal"),
        pytest.param(exchange("/internal/v4/x", None), Reason.DENIED_ROUTE, None, id="internal-without-token"),
        pytest.param(exchange(who=None), Reason.NO_TOKEN, 'Bearer realm="cloud_controller"', id="rfc6750-3.1-none"),
        pytest.param(
            exchange(LIST, None, ("Authorization", "Basic dXNlcjpwYXNz")),
            Reason.NO_TOKEN,
            'Bearer realm="cloud_controller"',
            id="basic-counts-as-none",
        ),
        pytest.param(
            exchange(who="stale"),
            Reason.INVALID_TOKEN,
            'Bearer realm="cloud_controller", error="invalid_token", error_description="the token has expired"',
            id="rfc6750-3.1-invalid",
        ),
        pytest.param(
            exchange(LIST, "dev", ("Authorization", "bearer admin")),
            Reason.INVALID_TOKEN,
            'Bearer realm="cloud_controller", error="invalid_token", '
            'error_description="one Authorization field is allowed"',
            id="auth-014-two-fields",
        ),
        pytest.param(
            exchange(who="nothing"),
            Reason.INSUFFICIENT_SCOPE,
            'Bearer realm="cloud_controller", error="insufficient_scope", scope="cloud_controller.read '
            'cloud_controller.admin cloud_controller.admin_read_only cloud_controller.global_auditor"',
            id="rfc6750-3.1-scope",
        ),
        pytest.param(
            exchange(f"{LIST}/g/actions/scale", "reader", method="POST"),
            Reason.INSUFFICIENT_SCOPE,
            'Bearer realm="cloud_controller", error="insufficient_scope", '
            'scope="cloud_controller.write cloud_controller.admin"',
            id="reader-writes",
        ),
        pytest.param(
            exchange(LIST, "dev", ("Cache-Control", "only-if-cached")),
            Reason.ONLY_IF_CACHED,
            None,
            id="rfc9111-5.2.1.7",
        ),
        pytest.param(
            exchange(f"{LIST}/g", "dev", ("Cache-Control", "only-if-cached")),
            Reason.ONLY_IF_CACHED,
            None,
            id="rfc9111-5.2.1.7-uncached-route",
        ),
        pytest.param(
            exchange(LIST, "dev", ("Cache-Control", "no-store, only-if-cached"), method="HEAD"),
            Reason.ONLY_IF_CACHED,
            None,
            id="rfc9111-5.2.1.7-no-store",
        ),
    ],
)
def test_refusals(asked: Exchange, reason: Reason, challenge: str | None) -> None:
    denied, reply = refused(asked)
    assert denied is reason
    assert reply.status == ERRORS[reason].status
    assert reply.fields.get("www-authenticate") == challenge
    assert (reply.fields.get("x-gateway-error") or "").startswith(reason.value)


def test_no_row_is_404() -> None:
    denied, reply = refused(exchange("/x"), policy(RouteTable(())))
    assert (denied, reply.status) == (Reason.UNKNOWN_ROUTE, 404)


def test_a_denial_says_what_was_required_and_what_the_token_had() -> None:
    _, reply = refused(exchange(f"{LIST}/g", "reader", method="PATCH"))
    assert reply.fields.get("x-gateway-error") == (
        "insufficient-scope; required one of: cloud_controller.write cloud_controller.admin; "
        "present: cloud_controller.read"
    )


def test_only_if_cached_means_nothing_to_a_write() -> None:
    asked = exchange(f"{LIST}/g", "dev", ("Cache-Control", "only-if-cached"), method="PATCH")
    assert decide(asked, policy(), NOW) == Fetch(fill=False)


def test_a_row_without_scopes_takes_any_valid_token() -> None:
    assert decide(exchange("/v2/apps", "nothing"), policy(), NOW) == Fetch(fill=False)
    assert refused(exchange("/v2/apps", "stale"))[0] is Reason.INVALID_TOKEN


def test_asking_for_the_row_of_an_unrouted_exchange_is_a_fault_of_ours() -> None:
    with pytest.raises(RuntimeError, match="not been routed"):
        _ = exchange().row


# -- tokens that do not count where none is needed


@pytest.mark.parametrize("who", [None, "stale", "new-key", "dev"])
@pytest.mark.parametrize(
    ("target", "fill"),
    [("/", True), ("/v3", True), ("/v3/info", True), ("/v2/info", False), ("/v3/service_offerings", False)],
)
def test_public_rows_do_not_look_at_the_token(target: str, fill: bool, who: str | None) -> None:
    asked = exchange(target, who)
    assert decide(asked, policy(found=False), NOW) == Fetch(fill=fill)
    assert asked.principal is None
    if fill:
        assert asked.key is not None
        assert asked.key.domain == PUBLIC_DOMAIN.id


@pytest.mark.parametrize("target", ["/open/own", "/open/global"])
@pytest.mark.parametrize(
    ("who", "domain"),
    [
        (None, ANONYMOUS_DOMAIN),
        ("stale", None),
        ("new-key", None),
        ("dev", PEOPLE["dev"].domain),
    ],
)
def test_public_rows_cached_by_principal(target: str, who: str | None, domain: Any) -> None:
    """What a token that does not count gets is nobody's page: the controller may treat it as it likes."""
    asked = exchange(target, who)
    asked.keys_fetched = True
    outcome = decide(asked, policy(found=False), NOW)
    assert outcome == Fetch(fill=domain is not None)
    assert asked.bypass is (Bypass.TOKEN if domain is None else None)
    assert (asked.key.domain if asked.key else None) == (domain.id if domain else None)


def test_who_sees_everything_shares_also_where_no_token_is_needed() -> None:
    asked = exchange("/open/global", "auditor")
    decide(asked, policy(), NOW)
    assert asked.key is not None
    assert asked.key.domain == PEOPLE["admin"].global_domain.id  # type: ignore[union-attr]


@pytest.mark.parametrize("who", [None, "stale"])
def test_lenient_rows_leave_a_bad_token_to_the_controller(who: str | None) -> None:
    """Recordings other-033, other-036: the controller answers 404 before it looks at the token."""
    asked = exchange("/v3/nosuch", who)
    assert decide(asked, policy(), NOW) == Fetch(fill=False)
    assert asked.token_fault == ("no-token" if who is None else "expired")


def test_lenient_rows_ask_a_good_token_for_the_default_scopes() -> None:
    assert refused(exchange("/v3/nosuch", "nothing"))[0] is Reason.INSUFFICIENT_SCOPE


@pytest.mark.parametrize("who", [None, "stale"])
def test_a_lenient_row_that_is_cached_keeps_nothing_for_a_bad_token(who: str | None) -> None:
    asked = exchange("/v3/new_things", who)
    assert decide(asked, policy(), NOW) == Fetch(fill=False)
    assert asked.bypass is Bypass.TOKEN
    good = exchange("/v3/new_things", "dev")
    assert decide(good, policy(), NOW) == Fetch(fill=True)


# -- keys that are not held


def test_an_unknown_key_is_a_need_and_the_exchange_goes_on_where_it_stated_it() -> None:
    verifier = Verifier(found=False)
    rules = dataclasses.replace(policy(), verifier=verifier)
    asked = exchange(who="new-key")
    assert decide(asked, rules, NOW) == FetchKeys("k2")
    verifier.found, asked.keys_fetched = True, True
    assert decide(asked, rules, NOW) == Fetch(fill=True)
    assert asked.principal == PEOPLE["dev"]


def test_an_unknown_key_after_a_fetch_is_a_bad_token() -> None:
    asked = exchange(who="new-key")
    rules = policy(found=False)
    assert decide(asked, rules, NOW) == FetchKeys("k2")
    asked.keys_fetched = True
    denied, reply = refused(asked, rules)
    assert denied is Reason.INVALID_TOKEN
    assert (reply.fields.get("x-gateway-error") or "") == "invalid-token; unknown-key"


# -- bypass


BYPASSED = [
    (Bypass.METHOD, exchange(f"{LIST}/g", "dev", method="PATCH")),
    (Bypass.ROUTE, exchange(f"{LIST}/g")),
    (Bypass.ORIGIN_FIELD, exchange(LIST, "dev", ("Origin", "https://ui.example.org"))),
    (Bypass.RANGE, exchange(LIST, "dev", ("Range", "bytes=0-1"))),
    (Bypass.CONTENT, exchange(LIST, "dev", has_body=True)),
    (Bypass.ACCEPT, exchange(LIST, "dev", ("Accept", "garbage"))),
    (Bypass.QUERY, exchange(f"{LIST}?a;b")),
    (Bypass.TOKEN, exchange("/open/own", "stale")),
    (Bypass.NO_STORE, exchange(LIST, "dev", ("Cache-Control", "no-store"))),
    (Bypass.COOKIE, exchange("/open/own", None, ("Cookie", "session=1"))),
]


@pytest.mark.parametrize(("bypass", "asked"), BYPASSED, ids=[bypass.value for bypass, _ in BYPASSED])
def test_bypasses(bypass: Bypass, asked: Exchange) -> None:
    assert decide(asked, policy(), NOW) == Fetch(fill=False)
    assert (asked.bypass, asked.verdict) == (bypass, Verdict.BYPASS)
    expected = "gateway;fwd=method" if bypass is Bypass.METHOD else f"gateway;fwd=bypass;detail={bypass.value}"
    assert describe(asked, "gateway") == expected


def test_every_bypass_is_tested() -> None:
    # Who judges a precondition is asked in mode `origin` alone: test_origin_decide.py.
    assert {bypass for bypass, _ in BYPASSED} == set(Bypass) - {Bypass.PRECONDITION}


def test_a_page_with_no_store_is_not_even_served() -> None:
    asked = exchange(LIST, "dev", ("Cache-Control", "no-store"))
    assert decide(asked, with_page(age=0), NOW) == Fetch(fill=False)
    assert asked.entry is None


def test_a_cookie_beside_a_token_or_on_a_page_for_all_changes_nothing() -> None:
    """A fetch for everybody carries no cookie (pipeline/outgoing.py), and a token is in the key."""
    assert decide(exchange("/", None, ("Cookie", "a=b")), policy(), NOW) == Fetch(fill=True)
    assert decide(exchange(LIST, "dev", ("Cookie", "a=b")), policy(), NOW) == Fetch(fill=True)


# -- who gets whose page


def key_of(asked: Exchange) -> CacheKey | None:
    decide(asked, policy(), NOW)
    return asked.key


def test_keys_keep_principals_apart_and_let_those_who_see_everything_share() -> None:
    keys = {who: key_of(exchange(who=who)) for who in ("dev", "reader", "admin", "auditor")}
    assert keys["admin"] == keys["auditor"]
    assert len(set(keys.values())) == 3


def test_on_rows_of_ones_own_nobody_shares() -> None:
    assert key_of(exchange("/v3/apps/g/processes", "admin")) != key_of(exchange("/v3/apps/g/processes", "auditor"))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (exchange(f"{LIST}?a=1&b=2"), exchange(f"{LIST}?b=2&a=1"), True),
        (exchange(f"{LIST}?page=1&page=2"), exchange(f"{LIST}?page=2&page=1"), False),
        (exchange(f"{LIST}?a=1"), exchange(f"{LIST}?a=2"), False),
        (exchange(LIST), exchange(LIST, "dev", ("Accept", "*/*")), True),
        (exchange(LIST), exchange(LIST, method="HEAD"), True),
        (exchange(LIST), exchange(f"/{LIST}/"), True),
    ],
    ids=["order", "duplicates-last-wins", "value", "accept-class", "head", "spelling"],
)
def test_which_requests_ask_for_one_page(one: Exchange, other: Exchange, same: bool) -> None:
    assert (key_of(one) == key_of(other)) is same
    assert key_of(one) is not None


class Confused:
    """A store that hands out one entry for whatever is asked."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry

    def get(self, key: CacheKey) -> Entry:
        return self.entry

    def put(self, entry: Entry, *, generation: int) -> str | None:
        raise AssertionError

    generation = invalidate = put  # type: ignore[assignment]


@pytest.mark.parametrize("who", ["reader", "admin"])
def test_a_store_that_hands_out_anothers_page_is_a_miss_and_no_leak(who: str) -> None:
    rules = policy()
    first = exchange(who="dev")
    decide(first, rules, NOW)
    assert first.key is not None
    confused = dataclasses.replace(rules, store=Confused(store(rules, first.key)))
    asked = exchange(who=who)
    assert decide(asked, confused, NOW) == Fetch(fill=True)
    assert asked.entry is None
    assert replied(decide(exchange(who="dev"), confused, NOW)).status == 200


# -- freshness and what the client asks of it

STALE = TTL + 1
GONE = TTL + REFRESH


@pytest.mark.parametrize(
    ("age", "directives", "verdict", "status"),
    [
        (0, "", Verdict.HIT, "gateway;hit;ttl=10"),
        (4, "", Verdict.HIT, "gateway;hit;ttl=6"),
        (TTL - 0.001, "", Verdict.HIT, "gateway;hit;ttl=0"),
        (TTL, "", Verdict.STALE, "gateway;hit;ttl=0"),
        (STALE, "", Verdict.STALE, "gateway;hit;ttl=-1"),
        (GONE, "", Verdict.MISS, "gateway;fwd=stale"),
        (None, "", Verdict.MISS, "gateway;fwd=miss"),
        (0, "no-cache", Verdict.REVALIDATED, "gateway;fwd=request"),
        (None, "no-cache", Verdict.REVALIDATED, "gateway;fwd=request"),
        (4, "max-age=4", Verdict.HIT, "gateway;hit;ttl=6"),
        (4, "max-age=3", Verdict.REVALIDATED, "gateway;fwd=request"),
        (4, "max-age=0", Verdict.REVALIDATED, "gateway;fwd=request"),
        (0, "max-age=0", Verdict.HIT, "gateway;hit;ttl=10"),
        (STALE, "max-age=5", Verdict.REVALIDATED, "gateway;fwd=request"),
        (GONE, "max-age=5", Verdict.MISS, "gateway;fwd=stale"),
        (4, "only-if-cached", Verdict.HIT, "gateway;hit;ttl=6"),
        (STALE, "only-if-cached", Verdict.STALE, "gateway;hit;ttl=-1"),
        (4, "max-age=junk", Verdict.REVALIDATED, "gateway;fwd=request"),
        (4, "unknown-directive", Verdict.HIT, "gateway;hit;ttl=6"),
    ],
)
def test_states_of_a_page(age: float | None, directives: str, verdict: Verdict, status: str) -> None:
    rules = policy() if age is None else with_page(age)
    asked = exchange(LIST, "dev", *([("Cache-Control", directives)] if directives else []))
    outcome = decide(asked, rules, NOW)
    assert asked.verdict is verdict
    assert asked.refresh is (verdict is Verdict.STALE)
    if isinstance(outcome, Reply):
        assert outcome.body == b'{"page":1}'
        assert outcome.fields.get("cache-status") == status
        assert outcome.fields.get("age") == str(int(age or 0))
    else:
        assert outcome == Fetch(fill=True)
        assert describe(asked, "gateway") == status


@pytest.mark.parametrize("age", [GONE, None])
def test_only_if_cached_without_a_page_that_may_be_served(age: float | None) -> None:
    rules = policy() if age is None else with_page(age)
    denied, reply = refused(exchange(LIST, "dev", ("Cache-Control", "only-if-cached")), rules)
    assert (denied, reply.status) == (Reason.ONLY_IF_CACHED, 504)


def test_a_clock_that_went_back_gives_no_negative_age() -> None:
    """Nor a page that is fresh for as long as the clock went back: how old it is nobody can tell."""
    reply = replied(decide(exchange(), with_page(age=-0.9), NOW))
    assert reply.fields.get("age") == "0"
    assert decide(exchange(), with_page(age=-3), NOW) == Fetch(fill=True)


def test_head_is_answered_from_the_page_of_get() -> None:
    """RFC 9110 §9.3.2: the fields of GET, no content."""
    reply = replied(decide(exchange(method="HEAD"), with_page(age=0), NOW))
    assert (reply.status, reply.body) == (200, None)
    assert reply.fields.get("content-length") == str(len(b'{"page":1}'))
    assert reply.fields.get("etag") == '"tag"'


def test_head_without_a_page_is_not_kept() -> None:
    assert decide(exchange(method="HEAD"), policy(), NOW) == Fetch(fill=False)


@pytest.mark.parametrize(
    ("field", "status"),
    [
        ('"tag"', 304),
        ('W/"tag"', 304),
        ('"other", "tag"', 304),
        ('"other"', 200),
        ("*", 200),
        ("tag", 200),
        ("", 200),
    ],
    ids=["same", "weak-rfc9110-8.8.3.2", "list", "other", "any-protocol-022", "unquoted", "empty"],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("age", [3, STALE])
def test_if_none_match(field: str, status: int, method: str, age: float) -> None:
    asked = exchange(LIST, "dev", ("If-None-Match", field), method=method)
    reply = replied(decide(asked, with_page(age), NOW))
    assert reply.status == status
    assert reply.fields.get("etag") == '"tag"'
    assert reply.fields.get("age") == str(int(age))
    assert "cache-status" in reply.fields
    if status == 304:
        assert reply.body is None
        assert "content-type" not in reply.fields


@pytest.mark.parametrize(
    ("accept", "vary"),
    [
        (None, None),
        ("", None),
        ("application/json", "Accept"),
        ("*/*", "Accept"),
        ("text/html,application/xml;q=0.9,*/*;q=0.8", None),
    ],
    ids=["none", "empty-protocol-058", "json", "any", "browser-protocol-060"],
)
@pytest.mark.parametrize("tag", ['"tag"', '"other"'])
def test_vary_is_said_to_whom_the_controller_would_say_it(accept: str | None, vary: str | None, tag: str) -> None:
    """controller.md §4: `Vary: Accept` only if the client sent Accept."""
    fields = [("If-None-Match", tag), *([("Accept", accept)] if accept is not None else [])]
    rules = with_page(age=0)
    asked = exchange(LIST, "dev", *fields)
    outcome = decide(asked, rules, NOW)
    if accept == "":
        assert outcome == Fetch(fill=False)
    else:
        assert replied(outcome).fields.get("vary") == vary


@pytest.mark.parametrize("tag", ['"tag"', '"other"'])
def test_outside_v3_vary_is_the_pages_own(tag: str) -> None:
    rules = policy()
    first = exchange("/", None)
    decide(first, rules, NOW)
    assert first.key is not None
    entry = dataclasses.replace(store(rules, first.key), fields=Fields((("Vary", "Accept"),)))
    rules.store.put(entry, generation=rules.store.generation(entry.tags))
    reply = replied(decide(exchange("/", None, ("If-None-Match", tag)), rules, NOW))
    assert reply.fields.get_all("vary") == ["Accept"]


def test_the_name_in_cache_status_is_configured() -> None:
    rules = dataclasses.replace(with_page(age=0), cache_name="front.example.org")
    assert replied(decide(exchange(), rules, NOW)).fields.get("cache-status") == "front.example.org;hit;ttl=10"


def test_what_is_answered_before_the_cache_is_asked() -> None:
    asked = exchange(who=None)
    decide(asked, policy(), NOW)
    assert asked.verdict is Verdict.NONE
    assert describe(asked, "gateway") == "gateway;fwd=bypass"


def test_size_and_end_of_an_entry() -> None:
    rules = with_page(age=0)
    asked = exchange()
    decide(asked, rules, NOW)
    assert asked.entry is not None
    assert asked.entry.dead_after == NOW + TTL + ERROR
    assert asked.entry.size > len(asked.entry.body)
