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
from gateway.core.encodings import accepted
from gateway.core.routes import Share
from gateway.pipeline.decide import tokenless
from gateway.pipeline.decision import decision
from gateway.pipeline.entry import CLOCK_SKEW, Entry
from gateway.pipeline.exchange import Chosen, Verdict
from gateway.pipeline.refusing import refused_again
from gateway.pipeline.representation import describe, from_entry
from gateway.pipeline.words import NO_WORDS

if TYPE_CHECKING:
    from gateway.core.model import Principal, Target
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
_MOST_BESIDE: Final = 16  # hits that stand for one page
_MOST_MANNERS: Final = 8  # of heads that differ in the request line alone
_MOST_MIDDLES: Final = 4096
_MOST_RESTS: Final = 16
# Who sends one of these asks for more than the page: how old it may be at most, or why it is this one.
_ASKS: Final = ("cache-control", "pragma", "gateway-debug")
_PUBLIC: Final = "public"  # the domain of rows that look at no token
_GLOBAL: Final = Share.GLOBAL  # looking a member up costs as much as a comparison


class Manner:
    """What hits have in common that differ in page and target alone.

    Args:
        exchange: the first of its kind, over and recorded. It is used again for each one, so nobody else may keep it.
        policy: what it was judged by.
        word: writes a reply down, for a method and an instant in epoch seconds; None when it cannot.

    Attributes:
        exchange: the last one.
        policy: what it was judged by.
        word: as given.
        counting: the limits that count it,
        charges: and what they charge.
        in_touch: the store's, asked before a page is served.
        users: how many hits of this manner stand.
    """

    __slots__ = ("_middles", "_rests", "charges", "counting", "exchange", "in_touch", "policy", "users", "word")

    def __init__(self, exchange: Exchange, policy: Policy, word: Word) -> None:
        self.exchange: Final = exchange
        self.policy: Final = policy
        self.word: Final = word
        self.in_touch: Final = policy.store.in_touch
        self._middles: Final[dict[tuple[int, int], bytes]] = {}
        self._rests: Final[dict[bytes, bytes]] = {}
        self.counting: list[Rule] = []
        self.charges: list[Charge] = []
        self.users = 0
        exchange.like = decision(exchange, complete=True, seconds=0.0)
        exchange.known = exchange.entry = None
        if policy.admission is not None:
            self.counting, self.charges = policy.admission.charges(exchange)

    def middle(self, ttl: int, age: int) -> bytes:
        """The two fields of an answer that change from second to second: Cache-Status and Age.

        Args:
            ttl: whole seconds for which the page is fresh.
            age: how many it is old.
        """
        middles = self._middles
        middle = middles.get((ttl, age))
        if middle is None:
            if len(middles) >= _MOST_MIDDLES:
                middles.clear()
            status = describe(self.exchange, self.policy.cache_name, ttl=ttl)
            middle = middles[ttl, age] = f"Cache-Status: {status}\r\nAge: {age}\r\n".encode()
        return middle

    def rest(self, rest: bytes) -> bytes:
        """The fields behind those two, each sort but once: mostly there are few."""
        if len(self._rests) >= _MOST_RESTS:
            self._rests.clear()
        return self._rests.setdefault(rest, rest)

    def turn_to(self, principal: Principal | None, peer: str) -> bool:
        """Let the exchange be somebody else's; whether the rules of access are the same for both."""
        exchange, before = self.exchange, self.exchange.principal
        if principal is not None and before is not None:
            scopes, others = principal.scopes, before.scopes
            if scopes is not others and scopes != others:  # nearly always one object, as equal ones are
                return False
        exchange.principal, exchange.head.peer = principal, peer
        admission = self.policy.admission
        if admission is not None:
            admission.turn(exchange, self.counting, self.charges)
        return True

    def settles(self, entry: Entry) -> bool:
        """Whether writing a page down again asks for nothing: no form of it is wanted that is not there."""
        encoder, fields = self.policy.encoder, self.exchange.head.fields
        if encoder is None or not entry.transformable or len(entry.body) < encoder.min_bytes:
            return True
        preferred = accepted(tuple(fields.get_all("accept-encoding")), encoder.codings).preferred[:1]
        return not preferred or ((form := entry.variant(preferred[0])) is not None and form.body is not None)


class Standing:
    """A hit that stands: it goes with its page.

    Args:
        manner: what it has in common with others.
        known: what is known of its head.
        domain: whose page it is: the id of the visibility domain.
        place: where the page is.
        target: what is asked for.

    Attributes:
        exchange: the last one of this manner; this one's after `turn`.
        beside: another hit that stands for the same page.
        words: the head of its answer.
        stands: whether it does.
        throws_from: from when on dice are thrown, epoch seconds.
        touched: whether it was used since somebody last looked.
    """

    __slots__ = (
        *("beside", "domain", "exchange", "known", "manner", "place", "stands", "target", "throws_from", "touched"),
        *("_coding", "_mends", "_since", "_until", "words"),
    )

    def __init__(self, manner: Manner, known: Known, domain: str, place: Place, target: Target) -> None:
        self.exchange: Final = manner.exchange
        self.manner: Final = manner
        self.known: Final = known
        self.domain: Final = domain
        self.place: Final = place
        self.target: Final = target
        self.beside: Standing | None = None
        self.words = NO_WORDS
        self.stands, self.touched = True, False
        self._mends = False  # whether of the words only the middle and the end change
        self._coding: str | None = None  # None for the page as it is
        self._since = self._until = 0.0  # when the words are right
        policy, entry = manner.policy, place.held
        self.throws_from = _NEVER if policy.drift is None else 0.0
        early = self.exchange.row.cache.early_refresh
        if isinstance(entry, Entry) and policy.drift is None and early and entry.fetch_seconds > 0:
            self.throws_from = entry.fresh_until - EARLIEST * (entry.fresh_until - entry.stored_at) - _ROUNDING

    def page(self, now: float) -> Entry | None:
        """The page, if it is stored still, may be served and is fresh."""
        entry, in_touch = self.place.held, self.manner.in_touch
        if not isinstance(entry, Entry) or not (in_touch is None or in_touch()):
            return None
        return entry if self._since <= now < self._until or self._reword(entry, now) else None

    def _reword(self, entry: Entry, now: float) -> bool:
        """Write the answer down as it is at this instant, and for how long it is so; whether there is one."""
        stored_at, fresh_until = entry.stored_at, entry.fresh_until
        if now >= fresh_until or stored_at > now + CLOCK_SKEW:
            return False
        # Age, ttl and Date change with whole seconds: of the page's age, of what is left of it, of the clock.
        second, ttl = int(now), int(fresh_until - now)
        age = int(now - stored_at) if now > stored_at else 0
        words, middle = self.words, self.manner.middle(ttl, age)
        if self._mends and words.pen is not None:
            words.middle, words.after = middle, words.pen.end(words.length, now, dated=words.dated)
        elif not self._word(entry, now, middle):
            return False
        # The latest of the three beginnings and the first of the three ends; without `max`, which costs as much as all.
        since, until = fresh_until - ttl - 1, fresh_until - ttl
        begun, over = stored_at + age, stored_at + age + 1
        if age and begun > since:
            since = begun
        if over < until:  # noqa: PLR1730
            until = over
        self._since = (second if second > since else since) + _ROUNDING  # noqa: FURB136
        self._until = (second + 1 if second + 1 < until else until) - _ROUNDING  # noqa: FURB136
        self.touched = self.known.touched = True
        return True

    def _word(self, entry: Entry, now: float, middle: bytes) -> bool:
        """Write the answer down from the beginning; whether that can be done."""
        exchange, manner = self.exchange, self.manner
        exchange.head.target, exchange.key = self.target, entry.key
        reply = from_entry(exchange, entry, manner.policy, now)
        words = manner.word(reply, exchange.head.method, now)
        if words is None:
            return False
        self.words, body = words, reply.body
        self._coding = None if body is entry.body else ""
        if self._coding is not None and body is not None:
            self._coding = next((c.coding for c in entry.encoded if c.body is body), "")
        # The page never changes in its place, nor does what is made of it, if nothing is waited for.
        if manner.settles(entry):
            own, found, rest = words.own.partition(middle)
            if found:
                self._mends = True
                words.own, words.middle, words.rest = own, middle, manner.rest(rest)
        return True

    def chosen(self, entry: Entry, now: float) -> Chosen | None:
        """Throw the dice that `decide` throws for a hit."""
        policy = self.manner.policy
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

    def content(self) -> bytes:
        """The content of the answer to the last one."""
        entry = self.exchange.entry
        if entry is None:
            return b""
        if self._coding is None:
            return entry.body
        form = entry.variant(self._coding)
        return b"" if form is None else form.body or b""

    def gone(self) -> None:
        """The page is stored no more."""
        if self.stands:
            self.stands = False
            self.words = NO_WORDS
            self.known.lose(self)

    def leave(self) -> None:
        """Stand no more, whatever becomes of the page."""
        place, one = self.place, self.place.standing
        if one is self:
            place.standing = self.beside
        else:
            while one is not None and one.beside is not self:
                one = one.beside
            if one is not None:
                one.beside = self.beside
        self.beside = None
        self.gone()


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
    if place is None or place.held is not entry:
        return
    exchange.limited = ()
    if known.key == key:
        known.key = entry.key  # the same, but kept already
    manner = _manner(exchange, known, policy, word)
    hit = Standing(manner, known, key.domain, place, exchange.head.target)
    _bounded(place)
    hit.beside, place.standing = place.standing, hit
    known.stand(hit, policy.store.most_standing, anybody=anybody)


def _manner(exchange: Exchange, known: Known, policy: Policy, word: Word) -> Manner:
    """The manner of a hit: that of another one before, if there was one just like it."""
    principal, route, target = exchange.principal, exchange.row, exchange.head.target
    likeness = (
        *(exchange.head.method, exchange.status, target.query is None),
        *(route.template, None if principal is None else (principal.scopes, principal.global_domain is None)),
    )
    manner = known.manners.get(likeness)
    if manner is not None and manner.policy is policy and manner.exchange.route is route:
        exchange.entry = None
        return manner
    if len(known.manners) >= _MOST_MANNERS:
        known.manners.clear()
    manner = known.manners[likeness] = Manner(exchange, policy, word)
    return manner


def _bounded(place: Place) -> None:
    """Let a page have no more than its part of what stands: clients choose the heads."""
    count, one = 1, place.standing
    while one is not None and count < _MOST_BESIDE:
        count, one = count + 1, one.beside
    if one is not None:
        one.leave()


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
        remembered = policy.verifier.remembered  # named first, as in `HitLane.take`
        principal = remembered(token, now)
        if principal is None:
            return refused_again(known, policy, peer, token, now) if known.refused else None
        own = (principal.global_domain if known.share is _GLOBAL else None) or principal.domain
        domain = own.id
    standing = known.first if known.policy is policy else None
    if standing is not None and standing.domain != domain:
        standing = known.at(domain)
    entry = None if standing is None else standing.page(now)
    if standing is None or entry is None:
        return None
    if now >= standing.throws_from and (chosen := standing.chosen(entry, now)) is not None:
        known.chosen = chosen
        return None
    exchange, manner = standing.exchange, standing.manner
    head = exchange.head
    if (principal is not exchange.principal or peer != head.peer) and not manner.turn_to(principal, peer):
        return None
    head.target, exchange.key = standing.target, entry.key
    exchange.received_at, exchange.limited, exchange.trace = now, (), None
    admission, counting = policy.admission, manner.counting
    if counting and (admission is None or not admission.again(exchange, counting, manner.charges, now)):
        return None
    if principal is not None:
        recalled = policy.verifier.recalled
        recalled()
    standing.place.hits += 1
    exchange.entry = entry
    return standing
