"""Refusals that stand: a token that was refused for good is refused again, at what a hit costs.

The law is that of `standing.py`: that this token is still refused, and that the limits for failures and requests let
the refusal be said, is asked for each request, and counted as `decide` counts it; otherwise nothing has happened. So
whoever guesses tokens takes no more from everybody else than whoever has a good one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.core.errors import Reason
from gateway.pipeline.decision import decision
from gateway.pipeline.words import NO_WORDS

if TYPE_CHECKING:
    from gateway.pipeline.admission import Admission, Rule
    from gateway.pipeline.decide import Policy
    from gateway.pipeline.exchange import Exchange, Reply
    from gateway.pipeline.known import Known
    from gateway.pipeline.ports import Charge
    from gateway.pipeline.words import Word


class Refusal:
    """A refusal that stands for one fault of tokens under one head.

    Args:
        exchange: the first of its kind, over and recorded. It is used again for each one, so nobody else may keep it.
        reply: what it was answered.
        policy: what it was judged by.
        word: writes the reply down.

    Attributes:
        exchange: the last one.
        words: the head of its answer,
        until: right until this instant, epoch seconds,
        since: and from this one on.
        body: the content of its answer.
        policy: what it was judged by.
        admission: its limits; None when none of them counts refusals.
    """

    __slots__ = (
        *("_charges", "_counting", "_failure", "_reply", "_word"),
        *("admission", "body", "exchange", "policy", "since", "until", "words"),
    )

    def __init__(self, exchange: Exchange, reply: Reply, policy: Policy, word: Word) -> None:
        self.exchange: Final = exchange
        self.policy: Final = policy
        self.words = NO_WORDS
        self.since = self.until = 0
        body = reply.body
        self.body: Final = body if isinstance(body, bytes) and exchange.head.method != "HEAD" else b""
        self._reply: Final = reply
        self._word: Final = word
        self._counting: list[Rule] = []
        self._charges: list[Charge] = []
        self._failure: Charge | None = None
        self.admission: Admission | None = None
        exchange.like = decision(exchange, complete=True, seconds=0.0)
        self.turn_to(exchange.head.peer)

    def turn_to(self, peer: str) -> None:
        """Let the exchange be of this peer, and work out which limits count it."""
        self.exchange.head.peer = peer
        admission = self.policy.admission
        if admission is not None:
            self._counting, self._charges = admission.charges(self.exchange, denied=True)
            self._failure = admission.failure(self.exchange)
            self.admission = admission if self._counting or self._failure is not None else None

    def worded(self, now: float) -> bool:
        """Write the answer down with the date of this second; whether it can be."""
        words = self._word(self._reply, self.exchange.head.method, now)
        if words is None:
            return False
        self.words, self.since = words, int(now)
        self.until = self.since + 1
        return True

    def charged(self, admission: Admission, now: float) -> bool:
        """Take what the refusal costs, unless a limit has something else to say; nothing has happened then."""
        if self._failure is not None and admission.blocked(self._failure, now) is not None:
            return False
        if self._counting and not admission.again(self.exchange, self._counting, self._charges, now):
            return False
        admission.failed(self._failure, now)
        return True

    def content(self) -> bytes:
        """The content of the answer."""
        return self.body


def stand_refused(exchange: Exchange, reply: Reply, policy: Policy, word: Word, now: float) -> None:
    """Keep a refusal that was just answered, if there can be another just like it.

    Args:
        exchange: over and recorded; whoever called gives it away.
        reply: its answer.
        policy: what it was judged by.
        word: writes the reply down.
        now: epoch seconds.
    """
    known, token = exchange.known, exchange.token
    if exchange.denied is not Reason.INVALID_TOKEN or known is None or token is None or exchange.limited:
        return
    fault = policy.verifier.refused(token, now)
    if fault is not None:
        known.refuse(fault, Refusal(exchange, reply, policy, word))


def refused_again(known: Known, policy: Policy, peer: str, token: str | None, now: float) -> Refusal | None:
    """Refuse a request as the one like it before; as `standing.again`.

    A token that is refused is none that is remembered, so it does not matter which of the two is asked for first.
    """
    if token is None:
        return None
    refused, counted = policy.verifier.refused, policy.verifier.refused_again  # named first, as in `HitLane.take`
    fault = refused(token, now)
    if fault is None:
        return None
    refusal = known.refused.get(fault)
    if refusal is None or refusal.policy is not policy:
        return None
    if not refusal.since <= now < refusal.until and not refusal.worded(now):
        return None
    exchange = refusal.exchange
    if peer != exchange.head.peer:
        refusal.turn_to(peer)
    exchange.received_at, exchange.limited, exchange.trace = now, (), None
    if refusal.admission is not None and not refusal.charged(refusal.admission, now):
        return None
    counted(fault)
    return refusal
