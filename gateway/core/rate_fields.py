"""The response fields that tell a client of its limits: the controller's X-RateLimit-*, and the IETF's RateLimit.

`X-RateLimit-Limit`, `-Reset` (epoch seconds) and `-Remaining` are spelt and ordered as the Cloud Controller does
(controller.md §3) and tell of one policy. `RateLimit` and `RateLimit-Policy` are those of
draft-ietf-httpapi-ratelimit-headers-10 and tell of all. Knows policies and decisions, not who asked.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Final

from gateway.core.rate_policy import Who
from gateway.core.ratelimit import FixedWindow
from gateway.core.structured import Item
from gateway.core.structured_writer import serialize_bare_item, serialize_member

if TYPE_CHECKING:
    from gateway.core.model import Pair
    from gateway.core.rate_policy import RatePolicy
    from gateway.core.ratelimit import Decision, Said

# Sums of floats near the present miss by less than a microsecond; a whole second must not become the next one.
_ROUNDING: Final = 1e-5


class Wording:
    """A policy as the fields name it, written once.

    Args:
        policy: the policy.
    """

    __slots__ = (
        *("_before_reset", "_before_state", "_behind", "_end", "_from", "_least", "_most", "_name", "_start", "_to"),
        *("limit", "policy", "reserve"),
    )

    def __init__(self, policy: RatePolicy) -> None:
        bucket = policy.bucket
        self._name: Final = serialize_bare_item(policy.name)
        self.limit: Final = str(int(bucket.quota))
        parameters = {"q": int(bucket.limit), "w": max(1, ceil(bucket.window))}
        self.policy: Final = serialize_member(Item(policy.name, parameters))
        # The controller tells an address one request less than it has (recordings: anonymous-01 to -03).
        self.reserve: Final = int(isinstance(bucket, FixedWindow) and policy.who is Who.ANONYMOUS)
        # What stands between the numbers when no other policy is told of.
        self._before_reset: Final = f"X-RateLimit-Limit: {self.limit}\r\nX-RateLimit-Reset: "
        self._before_state: Final = f"\r\nRateLimit: {self._name};r="
        self._behind: Final = f"\r\nRateLimit-Policy: {self.policy}\r\n"
        # And what stood before and behind the units of the answer before, with the instants after which and until which
        # its Reset is right, and the seconds for its t: requests of one second have them in common.
        self._start = self._end = ""
        self._from = self._to = self._least = self._most = 0.0

    def alone(self, decision: Said, now: float) -> str:
        """What `lines` says of an answer that this policy alone let pass."""
        reset_after = decision[1] - _ROUNDING
        reset = now + reset_after
        if not self._from < reset <= self._to:
            whole_reset = ceil(reset)
            self._from, self._to = whole_reset - 1.0, float(whole_reset)
            self._start = f"{self._before_reset}{whole_reset}\r\nX-RateLimit-Remaining: "
        if not self._least < reset_after <= self._most:
            seconds = ceil(reset_after)
            self._least, self._most = seconds - 1.0, float(seconds)
            self._end = f";t={seconds}{self._behind}"
        left = int(decision[0])
        if left < 0 or self.reserve:
            return f"{self._start}{max(0, left - self.reserve)}{self._before_state}{max(0, left)}{self._end}"
        units = f"{left}"
        return f"{self._start}{units}{self._before_state}{units}{self._end}"

    def state(self, decision: Decision) -> str:
        """The policy's member of the RateLimit field."""
        left = int(decision[0])
        # Fields by their place, because this is the hot path.
        return f"{self._name};r={max(0, left)};t={ceil(decision[1] - _ROUNDING)}"


def whole(seconds: float) -> int:
    """Whole seconds to wait, at least one (RFC 9110 §10.2.3)."""
    return max(1, ceil(seconds - _ROUNDING))


def lines(told: Wording, decision: Decision, states: str, policies: str, now: float) -> str:
    """The fields of one answer as lines of a head, each with its line end: they are other ones for every answer.

    Args:
        told: the policy of the X-RateLimit-* fields, which know only one: the one that decided.
        decision: what it decided; when it refused there is a Retry-After.
        states: value of RateLimit: `Wording.state` of all enforced policies that counted the request.
        policies: value of RateLimit-Policy: their `Wording.policy`.
        now: epoch seconds.
    """
    remaining, reset_after, retry_after, _ = decision
    left = int(remaining) - told.reserve
    text = (
        f"X-RateLimit-Limit: {told.limit}\r\nX-RateLimit-Reset: {ceil(now + reset_after - _ROUNDING)}\r\n"
        f"X-RateLimit-Remaining: {max(0, left)}\r\nRateLimit: {states}\r\nRateLimit-Policy: {policies}\r\n"
    )
    return f"{text}Retry-After: {whole(retry_after)}\r\n" if retry_after else text


def pairs(written: str) -> tuple[Pair, ...]:
    """What `lines` wrote, one by one."""
    return tuple((name, value) for name, _, value in (line.partition(": ") for line in written.split("\r\n")[:-1]))
