"""Hits that stand: what `decide` came to holds for the next request like it, until something it rests on changes.

The law: kept is only what follows from the head (less its id and token), the policy, the domain and the page. Whether
this token counts, whether that very page is stored still and fresh, whether the die falls and whether the limits let
it pass is asked for each request, of those whom `decide` asks. Where any of it is not as it was, nothing has been
taken or counted, and `decide` is asked. Answers, counters and buckets are the same either way
(tests/edge/test_lanes.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.core.early import EARLIEST, refresh_early
from gateway.core.routes import Share
from gateway.pipeline.decide import tokenless
from gateway.pipeline.decision import decision
from gateway.pipeline.entry import CLOCK_SKEW, Entry
from gateway.pipeline.exchange import Chosen, Verdict
from gateway.pipeline.refusing import refused_again
from gateway.pipeline.representation import from_entry
from gateway.pipeline.words import NO_WORDS

if TYPE_CHECKING:
    from gateway.core.model import Principal
    from gateway.pipeline.admission import Rule
    from gateway.pipeline.decide import Policy
    from gateway.pipeline.exchange import Exchange
    from gateway.pipeline.known import Known
    from gateway.pipeline.ports import Charge, Place
    from gateway.pipeline.refusing import Refusal
    from gateway.pipeline.words import Word

# Sums of floats near the present miss by less than this many seconds.
_ROUNDING: Final = 1e-5
_NEVER: Final = float("inf")
# Who sends one of these asks for more than the page: how old it may be at most, or why it is this one.
_ASKS: Final = ("cache-control", "pragma", "gateway-debug")
_PUBLIC: Final = "public"  # the domain of rows that look at no token
_GLOBAL: Final = Share.GLOBAL  # looking a member up costs as much as a comparison


class Standing:
    """A hit that stands.

    Args:
        exchange: the first of its kind, over and recorded. It is used again for each one, so nobody else may keep it.
        place: where the page is.
        policy: what it was judged by.
        word: writes a reply down, for a method and an instant in epoch seconds; None when it cannot.

    Attributes:
        exchange: the last one.
        place: where its page is.
        words: the head of its answer.
        counting: the limits that count it,
        charges: and what they charge.
        throws_from: from when on dice are thrown, epoch seconds.
    """

    __slots__ = (
        *("charges", "counting", "exchange", "place", "throws_from", "words"),
        *("_coding", "_in_touch", "_policy", "_since", "_until", "_whole", "_word"),
    )

    def __init__(
        self,
        exchange: Exchange,
        place: Place,
        policy: Policy,
        word: Word,
    ) -> None:
        self.exchange: Final = exchange
        self.place: Final = place
        self._policy: Final = policy
        self._in_touch: Final = policy.store.in_touch
        self._word: Final = word
        self.words = NO_WORDS
        self._whole = True
        self._coding = ""
        self._since = self._until = 0.0  # when the words are right
        self.throws_from = _NEVER if policy.drift is None else 0.0
        entry = exchange.entry
        if entry is not None and policy.drift is None and exchange.row.cache.early_refresh and entry.fetch_seconds > 0:
            self.throws_from = entry.fresh_until - EARLIEST * (entry.fresh_until - entry.stored_at) - _ROUNDING
        self.counting: list[Rule] = []
        self.charges: list[Charge] = []
        exchange.like = decision(exchange, complete=True, seconds=0.0)
        exchange.entry = None  # the place has it
        if policy.admission is not None:
            self.counting, self.charges = policy.admission.charges(exchange)

    def page(self, now: float) -> Entry | None:
        """The page, if it is stored still, may be served and is fresh."""
        entry = self.place.held
        if not isinstance(entry, Entry) or not (self._in_touch is None or self._in_touch()):
            return None
        return entry if self._since <= now < self._until or self._reword(entry, now) else None

    def _reword(self, entry: Entry, now: float) -> bool:
        """Write the answer down as it is at this instant, and for how long it is so; whether there is one."""
        if now >= entry.fresh_until or entry.stored_at > now + CLOCK_SKEW:
            return False
        exchange = self.exchange
        reply = from_entry(exchange, entry, self._policy, now)
        words = self._word(reply, exchange.head.method, now)
        if words is None:
            return False
        self.words, self._whole = words, reply.body is entry.body
        self._coding = "" if reply.body is None else next((c.coding for c in entry.encoded if c.body is reply.body), "")
        # Age, ttl and Date change with whole seconds: of the page's age, of what is left of it, of the clock.
        second, age, ttl = int(now), max(0, int(now - entry.stored_at)), int(entry.fresh_until - now)
        self._since = max(second, entry.stored_at + age if age else second, entry.fresh_until - ttl - 1) + _ROUNDING
        self._until = min(second + 1, entry.stored_at + age + 1, entry.fresh_until - ttl) - _ROUNDING
        return True

    def chosen(self, entry: Entry, now: float) -> Chosen | None:
        """Throw the dice that `decide` throws for a hit."""
        policy = self._policy
        if self.exchange.row.cache.early_refresh:
            early = refresh_early(
                now=now,
                stored_at=entry.stored_at,
                fresh_until=entry.fresh_until,
                fetch_seconds=entry.fetch_seconds,
                chance=policy.chance(),
            )
            if early:
                return Chosen.EARLY
        return Chosen.DRIFT if policy.drift is not None and policy.drift.due() else None

    def turn_to(self, principal: Principal | None, peer: str) -> bool:
        """Let the exchange be somebody else's; whether the rules of access are the same for both."""
        exchange, before = self.exchange, self.exchange.principal
        if principal is not None and before is not None and principal.scopes != before.scopes:
            return False
        exchange.principal, exchange.head.peer = principal, peer
        admission = self._policy.admission
        if admission is not None:
            admission.turn(exchange, self.counting, self.charges)
        return True

    def content(self) -> bytes:
        """The content of the answer to the last one."""
        entry = self.exchange.entry
        if entry is None:
            return b""
        if self._whole:
            return entry.body
        form = entry.variant(self._coding)
        return b"" if form is None else form.body or b""


def stand(exchange: Exchange, policy: Policy, word: Word) -> None:
    """Keep a hit that was just answered, if there can be another just like it.

    Args:
        exchange: over and recorded; whoever called gives it away.
        policy: what it was judged by.
        word: as in `Standing`.
    """
    known, key, entry = exchange.known, exchange.key, exchange.entry
    if exchange.verdict is not Verdict.HIT or known is None or key is None or not isinstance(entry, Entry):
        return
    plain = exchange.denied is None and exchange.token_fault is None and exchange.detail is None
    if known.policy is not policy or not plain or exchange.refresh:
        return
    if any(name in exchange.head.fields for name in _ASKS):
        return
    anybody = exchange.principal is None and tokenless(exchange.row, policy)
    if not anybody and (exchange.principal is None or known.share is None):
        return
    place = policy.store.place(key)
    if place is not None and place.held is entry:
        exchange.limited = ()
        known.stand(key.domain, Standing(exchange, place, policy, word), anybody=anybody)


def again(known: Known, policy: Policy, peer: str, token: str | None, now: float) -> Standing | Refusal | None:
    """Answer a request as the one like it before.

    Args:
        known: what is known of its head.
        policy: what to judge by.
        peer: IP address of the TCP peer.
        token: the bearer token.
        now: epoch seconds.

    Returns:
        What stands, its exchange being this request's less the id; what it costs has been taken. None when `decide`
        must be asked; nothing has happened then.
    """
    principal: Principal | None = None
    domain = _PUBLIC
    if not known.anybody:
        if token is None:
            return None
        principal = policy.verifier.remembered(token, now)
        if principal is None:
            return refused_again(known, policy, peer, token, now) if known.refused else None
        own = (principal.global_domain if known.share is _GLOBAL else None) or principal.domain
        domain = own.id
    standing = known.standing.get(domain) if known.policy is policy else None
    entry = None if standing is None else standing.page(now)
    if standing is None or entry is None:
        return None
    if now >= standing.throws_from and (chosen := standing.chosen(entry, now)) is not None:
        known.chosen = chosen
        return None
    exchange = standing.exchange
    if (principal is not exchange.principal or peer != exchange.head.peer) and not standing.turn_to(principal, peer):
        return None
    exchange.received_at, exchange.limited, exchange.trace = now, (), None
    if standing.counting:
        admission = policy.admission
        if admission is None or not admission.again(exchange, standing.counting, standing.charges, now):
            return None
    if principal is not None:
        policy.verifier.recalled()
    standing.place.hits += 1
    exchange.entry = entry
    return standing
