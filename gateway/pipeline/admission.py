"""Rate limits at work: which policies count a request, what it costs, and what its answer says of them.

Synchronous and on the path of every hit. The arithmetic is in `core/ratelimit.py`, the buckets behind the port
`Counters`. Several policies may count one request: the strictest decides, and units are taken only when all agree.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from gateway.core import bearer
from gateway.core.errors import Denial, Reason
from gateway.core.forwarding import client_address
from gateway.core.model import Fields, RequestHead, Target
from gateway.core.rate_fields import Wording, lines, pairs, whole
from gateway.core.rate_policy import EXEMPT, Key, Mode, Who, network_of, rows_asked
from gateway.core.ratelimit import Decision
from gateway.pipeline.exchange import Exchange, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.core.forwarding import TrustedProxies
    from gateway.core.model import Principal
    from gateway.core.rate_policy import RatePolicy
    from gateway.core.routes import Route
    from gateway.pipeline.ports import Charge, Counters, TokenVerifier

# Rate classes of rows whose answer has nothing to do with a token: one is never a reason to refuse them.
FREE: Final = frozenset({EXEMPT, "public"})

_NO_FAULT: Final = (None, Reason.NO_TOKEN.value)
_NO_ROUTE: Final = "default"
_READS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_SERVED: Final = frozenset({Verdict.HIT, Verdict.STALE})
_BY_TOKEN: Final = frozenset({Who.PRINCIPAL, Who.CLIENT_ID})
_BY_ADDRESS: Final = frozenset({Who.IP, Who.ANONYMOUS})
_REMEMBERED: Final = 4096  # clients whose address was worked out
_LONGEST: Final = 256  # of the forwarding fields remembered with them


class Rule:
    """A policy made ready: its number among the counters, its wording, and how often it decided what.

    Args:
        number: its place among the policies.
        policy: the policy.
    """

    __slots__ = ("allowed", "by_principal", "enforced", "exempt", "number", "policy", "refused", "who", "wording")

    def __init__(self, number: int, policy: RatePolicy) -> None:
        self.number: Final = number
        self.policy: Final = policy
        self.who: Final = policy.who
        self.by_principal: Final = policy.who is Who.PRINCIPAL
        self.exempt: Final = policy.exempt_scopes_any
        self.enforced: Final = policy.mode is Mode.ENFORCE
        self.wording: Final = Wording(policy)
        self.allowed = 0
        self.refused = 0


class Admission:
    """Admits requests or refuses them.

    Args:
        policies: the policies, numbered in this order in charges.
        counters: their buckets; when there is `failures`, also that policy's, as the last number.
        trusted: peers whose forwarding fields are believed.
        failures: how many failed authentications an address may have before its unknown tokens are refused unread.
    """

    def __init__(
        self,
        policies: Sequence[RatePolicy],
        counters: Counters,
        *,
        trusted: TrustedProxies,
        failures: RatePolicy | None = None,
    ) -> None:
        self._counters: Final = counters
        self._take_one: Final = counters.take_one
        self._rules: Final = [Rule(number, policy) for number, policy in enumerate(policies)]
        self._failures: Final = None if failures is None else Rule(len(self._rules), failures)
        classes = {name for policy in policies for name in policy.classes} - {EXEMPT}
        self._with_token: Final[dict[str, tuple[Rule, ...]]] = {
            name: tuple(rule for rule in self._rules if name in rule.policy.classes and rule.who is not Who.ANONYMOUS)
            for name in classes
        }
        self._without: Final[dict[str, tuple[Rule, ...]]] = {
            name: tuple(rule for rule in self._rules if name in rule.policy.classes and rule.who not in _BY_TOKEN)
            for name in classes
        }
        self._identified: Final = frozenset(
            name
            for rule in self._rules
            if rule.exempt or rule.who in _BY_TOKEN or rule.who is Who.ANONYMOUS
            for name in rule.policy.classes
        )

        @lru_cache(_REMEMBERED)
        def network(peer: str, forwarded: tuple[str, ...]) -> str:
            head = RequestHead("GET", _NOWHERE, Fields(("X-Forwarded-For", value) for value in forwarded), peer)
            return network_of(client_address(head, trusted))

        self._network: Final = network

    def identifies(self, row: Route) -> bool:
        """Whether the limits must know who asks, although the row itself need not."""
        name = "public" if row.rate == EXEMPT else row.rate
        return name in self._identified or (self._failures is not None and name not in FREE)

    def admit(self, exchange: Exchange, now: float) -> None:
        """Take what a looked-up request costs.

        Raises:
            Denial: RATE_LIMITED or IP_RATE_LIMITED; INVALID_TOKEN when it carries one, even where none is needed
                (recordings: bad-token-05). Nothing was taken.
        """
        self._take(exchange, *self.charges(exchange), now)

    def refused(self, exchange: Exchange, denial: Denial, now: float) -> Denial:
        """Count a request that was refused before it came to `admit`.

        As the controller does (recordings: invalid-then-count, anonymous-04, bad-token-04): over the limit the answer
        is 429, but a bad token's is still 401.

        Returns:
            What to answer.
        """
        if denial.reason is Reason.IP_RATE_LIMITED:
            return denial
        try:
            self._take(exchange, *self.charges(exchange, denied=True), now)
        except Denial as limited:
            return denial if denial.reason is Reason.INVALID_TOKEN else limited
        return denial

    def charges(self, exchange: Exchange, *, denied: bool = False) -> tuple[list[Rule], list[Charge]]:
        """The policies that count this request, and for each of them whose bucket and how much.

        Args:
            exchange: routed, and looked up unless `denied`.
            denied: whether the gateway refuses it anyway.
        """
        row = exchange.route
        name = _NO_ROUTE if row is None else row.rate
        counting: list[Rule] = []
        charges: list[Charge] = []
        if name == EXEMPT:
            if exchange.head.target.query is None:
                return counting, charges
            name = "public"  # the controller's exemption is for the bare path alone (recordings: user-13)
        principal = exchange.principal
        at_hand = denied or exchange.verdict in _SERVED
        for rule in (self._without if principal is None else self._with_token).get(name, ()):
            if principal is not None and rule.exempt and not rule.exempt.isdisjoint(principal.scopes):
                continue
            counting.append(rule)
            if principal is not None and rule.by_principal:
                key: Key = (principal.issuer, principal.zone, principal.id)
            else:
                key = self._key(rule.who, exchange, principal)
            charges.append((rule.number, key, rule.policy.cost.hit if at_hand else _units(rule, exchange)))
        return counting, charges

    def turn(self, exchange: Exchange, counting: list[Rule], charges: list[Charge]) -> None:
        """Charge somebody else, of the same scopes, for the same.

        Args:
            exchange: is his now.
            counting: what `charges` said of it: the policies,
            charges: and what they charge; written over.
        """
        principal = exchange.principal
        for place, rule in enumerate(counting):
            if principal is not None and rule.by_principal:
                key: Key = (principal.issuer, principal.zone, principal.id)
            else:
                key = self._key(rule.who, exchange, principal)
            charges[place] = (rule.number, key, charges[place][2])

    def failure(self, exchange: Exchange) -> Charge | None:
        """What the policy of failures charges for a failed authentication; None when nobody counts them."""
        rule = self._failures
        return None if rule is None else (rule.number, (self.address(exchange.head),), 1.0)

    def _key(self, who: Who, exchange: Exchange, principal: Principal | None) -> Key:
        if who is Who.CLIENT_ID and principal is not None:
            return (principal.issuer, principal.zone, principal.client_id)
        return (self.address(exchange.head),) if who in _BY_ADDRESS else ("",)

    def address(self, head: RequestHead) -> str:
        """Whom the client's address belongs to, as far as trusted proxies vouch for it."""
        forwarded = tuple(head.fields.get_all("x-forwarded-for"))
        if forwarded and sum(map(len, forwarded)) > _LONGEST:
            return self._network.__wrapped__(head.peer, forwarded)
        return self._network(head.peer, forwarded)

    def again(self, exchange: Exchange, counting: list[Rule], charges: list[Charge], now: float) -> bool:
        """Take what a hit costs that is like one before, if no policy refuses it; otherwise nothing happens.

        Args:
            exchange: is told of its limits.
            counting: what `charges` said of it: the policies,
            charges: and what they charge.
            now: epoch seconds.
        """
        if len(counting) == 1:
            rule = counting[0]
            take_one = self._take_one  # named first: what an instance holds is slow to call
            decision = take_one(charges[0], now)
            if decision[2] or not rule.enforced:
                return not rule.enforced and self._again(exchange, counting, (Decision._make(decision),), now)
            rule.allowed += 1
            exchange.rate_lines = rule.wording.alone(decision, now)
            return True
        return self._again(exchange, counting, self._counters.take(charges, now), now)

    def _again(self, exchange: Exchange, counting: list[Rule], decisions: Sequence[Decision], now: float) -> bool:
        for place, rule in enumerate(counting):
            if decisions[place][2] and rule.enforced:
                return False  # so nothing was taken
        self._tell(exchange, counting, decisions, now)
        return True

    def _take(self, exchange: Exchange, counting: list[Rule], charges: list[Charge], now: float) -> None:
        if not counting:
            return
        strictest, its = self._tell(exchange, counting, self._counters.take(charges, now), now)
        if strictest is not None and its[2]:
            if exchange.principal is None and exchange.token_fault not in _NO_FAULT:
                raise bearer.invalid_token(exchange.token_fault or "")  # so that command lines refresh it
            anonymous = exchange.principal is None and strictest.who in _BY_ADDRESS
            raise Denial(
                Reason.IP_RATE_LIMITED if anonymous else Reason.RATE_LIMITED,
                f"policy {strictest.policy.name}: retry after {whole(its[2])} s",
            )

    @staticmethod
    def _tell(
        exchange: Exchange, counting: list[Rule], decisions: Sequence[Decision], now: float
    ) -> tuple[Rule | None, Decision]:
        """Count what was decided and write it into the answer; the strictest enforced policy, and its decision."""
        strictest, its = None, decisions[0]
        states = policies = ""
        for place, rule in enumerate(counting):
            decision = decisions[place]
            if decision[2]:  # retry_after, by its place because this is the hot path
                rule.refused += 1
                exchange.limited += (rule.policy.name,)
            else:
                rule.allowed += 1
            if not rule.enforced:
                continue
            wording = rule.wording
            if strictest is None:
                strictest, its = rule, decision
                states, policies = wording.state(decision), wording.policy
            else:
                if _stricter(rule, decision, strictest, its):
                    strictest, its = rule, decision
                states, policies = f"{states}, {wording.state(decision)}", f"{policies}, {wording.policy}"
        if strictest is not None:
            exchange.rate_lines = lines(strictest.wording, its, states, policies, now)
        return strictest, its

    # -- failed authentications

    def guard(self, exchange: Exchange, token: str, verifier: TokenVerifier, now: float) -> None:
        """Keep an address that guesses tokens from having more of them verified.

        Raises:
            Denial: IP_RATE_LIMITED; it has failed too often, and this token is not one that was verified before.
        """
        rule = self._failures
        if rule is None or verifier.remembered(token, now) is not None:
            return
        decision = self.blocked(self.failure(exchange), now)
        if decision is not None:
            rule.refused += 1
            exchange.limited += (rule.policy.name,)
            raise Denial(
                Reason.IP_RATE_LIMITED,
                f"policy {rule.policy.name}: retry after {whole(decision.retry_after)} s",
                pairs(lines(rule.wording, decision, rule.wording.state(decision), rule.wording.policy, now)),
            )

    def blocked(self, charge: Charge | None, now: float) -> Decision | None:
        """Why an address has no more unknown tokens verified: what the policy of failures says; None when it may.

        Args:
            charge: what `failure` says of it.
            now: epoch seconds.
        """
        decision = None if charge is None else self._counters.peek(charge, now)
        return decision if decision is not None and decision[2] else None

    def failed(self, charge: Charge | None, now: float) -> None:
        """Note that the token of a request does not count; `charge` is what `failure` says of it."""
        if charge is not None and self._failures is not None:
            self._failures.allowed += 1
            self._counters.take_one(charge, now)

    def succeed(self, other: Admission) -> None:
        """Go on counting decisions where the admission that this one replaces stops."""
        before = {(rule.policy.name, rule.policy.mode): rule for rule in other._all()}
        for rule in self._all():
            old = before.get((rule.policy.name, rule.policy.mode))
            if old is not None:
                rule.allowed, rule.refused = old.allowed, old.refused

    def _all(self) -> list[Rule]:
        return [*self._rules, *([] if self._failures is None else [self._failures])]

    def decisions(self) -> Mapping[tuple[str, ...], int]:
        """Decisions so far, by (policy, decision, mode)."""
        return {
            (rule.policy.name, decision, rule.policy.mode.value): count
            for rule in self._all()
            for decision, count in (("allowed", rule.allowed), ("limited", rule.refused))
        }


_NOWHERE: Final = Target("/")


def _units(rule: Rule, exchange: Exchange) -> float:
    """What a request costs that is not answered from what is at hand."""
    cost = rule.policy.cost
    if exchange.head.method not in _READS:
        return cost.write
    if not cost.per_row or exchange.row.rate != "list":
        return cost.miss
    return cost.miss + cost.per_row * rows_asked(exchange.head.target.query)


def _stricter(rule: Rule, decision: Decision, other: Rule, its: Decision) -> bool:
    """Whether this policy says more than the other: it makes wait longer, or has less of its quota left."""
    if decision.retry_after or its.retry_after:
        return decision.retry_after > its.retry_after
    return decision.remaining * other.policy.bucket.quota < its.remaining * rule.policy.bucket.quota
