"""What was settled for an earlier request with the same head, so that it need not be settled again.

The law: nothing here answers "may this token?" or "is this page stored?"; those are asked for every request. Kept is
only what follows from the head (less its id and token), the policy and the principal alone: the row, the key, and how
one page was written down in one second. `decide` fills it in and reads it; who reads heads keeps it beside them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.core.keys import CacheKey
from gateway.core.routes import CacheMode, Share

if TYPE_CHECKING:
    from gateway.core.model import Principal
    from gateway.core.routes import Route
    from gateway.pipeline.decide import Policy
    from gateway.pipeline.entry import Entry
    from gateway.pipeline.exchange import Reply

# Answers are let go of when the second is over or there are so many, lest dropped pages live on in them.
_MOST_HELD: Final = 4096
_MOST_BYTES_HELD: Final = 16 << 20
_LARGEST_HELD: Final = 64 * 1024
_GLOBAL: Final = Share.GLOBAL  # looking a member up costs as much as the comparison


class Held:
    """The answers that are held at the moment; one for all that is known of heads in a process."""

    __slots__ = ("_by", "_bytes", "_second")

    def __init__(self) -> None:
        self._second = 0
        self._bytes = 0
        self._by: Final[list[Known]] = []

    def __len__(self) -> int:
        return len(self._by)

    def note(self, known: Known, size: int, now: float) -> None:
        """Another answer is held from now on; those of an earlier second are no longer.

        Args:
            known: who holds it.
            size: bytes of its body.
            now: epoch seconds.
        """
        second = int(now)
        self._bytes += size
        if second != self._second or len(self._by) >= _MOST_HELD or self._bytes > _MOST_BYTES_HELD:
            self._second, self._bytes = second, size
            for one in self._by:
                one.forget()
            self._by.clear()
        self._by.append(known)


class Known:
    """What is known of one head.

    Args:
        held: knows of the answers that are held.

    Attributes:
        policy: for which it was settled; None when nothing is.
        route: the row.
        principal: for whom the key was made.
        key: the cache key, of a request that is no bypass.
        entry: the page that was served last.
        age: its age then, whole seconds.
        ttl: what was left of its freshness, whole seconds.
        reply: the answer that said so; None when there is none to repeat.
    """

    __slots__ = ("_held", "_share", "age", "entry", "key", "policy", "principal", "reply", "route", "ttl")

    def __init__(self, held: Held) -> None:
        self._held: Final = held
        self.policy: Policy | None = None
        self.route: Route | None = None
        self.principal: Principal | None = None
        self.key: CacheKey | None = None
        self.entry: Entry | None = None
        self.reply: Reply | None = None
        self.age = self.ttl = 0
        self._share: Share | None = None

    def settle(self, policy: Policy, route: Route | None, principal: Principal | None, key: CacheKey | None) -> None:
        """Keep what the steps before the look-up came to; how a page was written down is the same for everybody."""
        if self.policy is not policy:
            self.forget()
        self.policy, self.route, self.principal, self.key = policy, route, principal, key
        # None where the domain is nobody's own, or the rest of the key may be more than the head's.
        own = route is not None and route.cache.mode is CacheMode.POLICY and route.cache.share is not Share.PUBLIC
        self._share = route.cache.share if route is not None and own else None

    def key_for(self, principal: Principal | None) -> CacheKey | None:
        """The key for somebody whose token was verified, None when it must be settled.

        Of two who have the same scopes neither is refused unless both are, and their keys differ in the domain alone.
        """
        before, key = self.principal, self.key
        if principal is before:
            return key
        if principal is None or before is None or key is None or self._share is None:
            return None
        if principal.scopes != before.scopes:
            return None
        domain = (principal.global_domain if self._share is _GLOBAL else None) or principal.domain
        return key if domain.id == key.domain else CacheKey(domain.id, key.path, key.query, key.variant)

    def served(self, entry: Entry, age: int, ttl: int, reply: Reply, now: float) -> None:
        """Keep how a fresh page was written down, for the rest of this second.

        Args:
            entry: the page.
            age: its age, whole seconds.
            ttl: what is left of its freshness, whole seconds.
            reply: the answer.
            now: epoch seconds.
        """
        size = len(reply.body) if isinstance(reply.body, bytes) else 0
        if size > _LARGEST_HELD:
            return
        self._held.note(self, size, now)
        self.entry, self.age, self.ttl, self.reply = entry, age, ttl, reply

    def forget(self) -> None:
        """Let go of the page."""
        self.entry = self.reply = None
