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
    from gateway.pipeline.admission import Rule
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
        words: the head of its answer.
        policy: what it was judged by.
        counting: the limits that count it,
        charges: and what they charge.
        failure: what the limit for failures charges.
    """

    __slots__ = ("_reply", "_until", "_word", "charges", "counting", "exchange", "failure", "policy", "words")

    def __init__(self, exchange: Exchange, reply: Reply, policy: Policy, word: Word) -> None:
        self.exchange: Final = exchange
        self.policy: Final = policy
        self.words = NO_WORDS
        self._reply: Final = reply
        self._word: Final = word
        self._until = 0
        self.counting: list[Rule] = []
        self.charges: list[Charge] = []
        self.failure: Charge | None = None
        exchange.like = decision(exchange, complete=True, seconds=0.0)
        self.charge()

    def charge(self) -> None:
        """Work out which limits count the exchange."""
        admission = self.policy.admission
        if admission is not None:
            self.counting, self.charges = admission.charges(self.exchange, denied=True)
            self.failure = admission.failure(self.exchange)

    def worded(self, now: float) -> bool:
        """Whether the answer is written down with the date of this second."""
        if self._until != int(now):
            words = self._word(self._reply, self.exchange.head.method, now)
            if words is None:
                return False
            self.words, self._until = words, int(now)
        return True

    def content(self) -> bytes:
        """The content of the answer."""
        body = self._reply.body
        return body if isinstance(body, bytes) and self.exchange.head.method != "HEAD" else b""


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


def refused_again(known: Known, policy: Policy, peer: str, token: str, now: float) -> Refusal | None:
    """Refuse a request as the one like it before; as `standing.again`."""
    if not known.refused:
        return None
    verifier, admission = policy.verifier, policy.admission
    fault = verifier.refused(token, now)
    refusal = None if fault is None else known.refused.get(fault)
    if fault is None or refusal is None or refusal.policy is not policy or not refusal.worded(now):
        return None
    exchange = refusal.exchange
    if peer != exchange.head.peer:
        exchange.head.peer = peer
        refusal.charge()
    exchange.received_at, exchange.limited, exchange.trace = now, (), None
    if admission is not None:
        if refusal.failure is not None and admission.blocked(refusal.failure, now) is not None:
            return None
        if refusal.counting and not admission.again(exchange, refusal.counting, refusal.charges, now):
            return None
        admission.failed(refusal.failure, now)
    verifier.refused_again(fault)
    return refusal
