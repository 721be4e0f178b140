"""What is known of a head from one client never gives another one a key, a page or a way in that it would not have."""

from __future__ import annotations

from itertools import product

import pytest

from gateway.core.cf_routes import CLOUD_FOUNDRY
from gateway.core.model import Fields, Principal, PrincipalKind, RequestHead
from gateway.core.routes import Access, CacheMode, CacheRule, RouteOverride, Share
from gateway.core.target import parse
from gateway.core.visibility import make_principal
from gateway.pipeline.decide import Policy, decide
from gateway.pipeline.exchange import Exchange, Reply
from gateway.pipeline.known import Held, Known
from gateway.pipeline.ports import KeyUnknown, Rejected
from gateway.store.memory import MemoryStore

NOW = 1_000_000.0
CACHES = {
    "principal": CacheRule(CacheMode.POLICY, ttl=10.0, share=Share.PRINCIPAL),
    "global": CacheRule(CacheMode.POLICY, ttl=10.0, share=Share.GLOBAL),
    "origin": CacheRule(CacheMode.ORIGIN, share=Share.PRINCIPAL),
}
TABLE = CLOUD_FOUNDRY.with_overrides(
    [
        override
        for name, rule in CACHES.items()
        for override in (
            RouteOverride(f"/open/{name}", access=Access.PUBLIC, cache=rule),
            RouteOverride(f"/scoped/{name}", access=Access.SCOPES, scopes_any=("cloud_controller.read",), cache=rule),
        )
    ]
)
TARGETS = [f"/{access}/{name}" for access in ("open", "scoped") for name in CACHES]


def someone(name: str, *scopes: str) -> Principal:
    return make_principal(
        kind=PrincipalKind.USER,
        principal_id=name.partition("-")[0],
        issuer="",
        zone="",
        client_id="cf",
        scopes=frozenset(f"cloud_controller.{scope}" for scope in scopes),
        expires=int(NOW) + 100,
    )


PEOPLE = {
    "dev-1": someone("dev-1", "read"),
    "dev-2": someone("dev-2", "read"),
    "twin": someone("twin", "read"),
    "writer": someone("writer", "read", "write"),
    "nothing": someone("nothing"),
    "auditor": someone("auditor", "read", "global_auditor"),
    "colleague": someone("colleague", "read", "global_auditor"),
    "blind": someone("blind", "global_auditor"),
}
EVERYBODY = [*PEOPLE, "forged", None]


class Verifier:
    def remembered(self, token: str, now: float) -> Principal | None:
        raise AssertionError("there are no limits to guard")

    def verify(self, token: str, now: float) -> Principal | Rejected | KeyUnknown:
        return PEOPLE.get(token) or Rejected("signature")

    async def fetch_for(self, kid: str | None) -> None:
        raise AssertionError("decide never waits")


def judged(policy: Policy, target: str, who: str | None, known: Known | None) -> tuple[object, ...]:
    fields = Fields(() if who is None else (("Authorization", f"bearer {who}"),))
    head = RequestHead("GET", parse(target, strict_api=True), fields)
    exchange = Exchange(head, request_id="id", received_at=NOW, known=known)
    outcome = decide(exchange, policy, NOW)
    said = (outcome.status, outcome.fields, outcome.body) if isinstance(outcome, Reply) else outcome
    return said, exchange.key, exchange.denied, exchange.detail, exchange.bypass, exchange.verdict, exchange.principal


@pytest.mark.parametrize("target", TARGETS)
def test_who_asks_after_another_is_judged_as_if_alone(target: str) -> None:
    policy = Policy(TABLE, Verifier(), MemoryStore(max_bytes=1 << 20, max_entry_bytes=1 << 20))
    for first, second in product(EVERYBODY, EVERYBODY):
        known = Known(Held())
        judged(policy, target, first, known)
        assert judged(policy, target, second, known) == judged(policy, target, second, None), (first, second)
        assert judged(policy, target, first, known) == judged(policy, target, first, None), (first, second)


def test_two_people_with_the_same_scopes_have_keys_of_their_own_where_pages_are() -> None:
    policy = Policy(TABLE, Verifier(), MemoryStore(max_bytes=1 << 20, max_entry_bytes=1 << 20))
    known = Known(Held())
    keys = [judged(policy, "/scoped/global", who, known)[1] for who in ("dev-1", "twin", "auditor", "colleague")]
    assert len({*keys}) == 3
    assert keys[2] == keys[3], "who sees everything sees the same"
