"""What was settled for an earlier request with the same head, so that it need not be settled again.

The law: nothing here answers "may this token?" or "is this page stored?"; those are asked for every request. Kept is
only what follows from the head (less its id and token), the policy and the principal alone: the row, the key, and the
hits that stand (`standing.py`). `decide` fills it in and reads it; who reads heads keeps it beside them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.core.keys import CacheKey
from gateway.core.routes import CacheMode, Share

if TYPE_CHECKING:
    from gateway.core.model import Principal
    from gateway.core.routes import Route
    from gateway.pipeline.decide import Policy
    from gateway.pipeline.exchange import Chosen
    from gateway.pipeline.refusing import Refusal
    from gateway.pipeline.standing import Standing

# How many hits and refusals stand at once in a process, each of about 3 KB; they do not keep pages alive.
_MOST_STANDING: Final = 8192
_GLOBAL: Final = Share.GLOBAL  # looking a member up costs as much as the comparison


class Held:
    """The hits and refusals that stand; one for all that is known of heads in a process."""

    __slots__ = ("_by",)

    def __init__(self) -> None:
        self._by: Final[list[Known]] = []

    def __len__(self) -> int:
        return len(self._by)

    def note(self, known: Known) -> None:
        """Another one stands. When there are too many, none of the others does any more."""
        if len(self._by) >= _MOST_STANDING:
            for one in self._by:
                one.standing.clear()
                one.refused.clear()
            self._by.clear()
        self._by.append(known)


class Known:
    """What is known of one head.

    Args:
        held: knows of the hits that stand.

    Attributes:
        policy: for which it was settled; None when nothing is.
        route: the row.
        principal: for whom the key was made.
        key: the cache key, of a request that is no bypass.
        share: who has the page in common, where the domain is the principal's and the rest of the key is the head's.
        anybody: whether hits stand for anybody, whatever token comes along.
        standing: the hits that stand, by the id of their domain.
        refused: the refusals that stand, by the fault of the token; each knows its policy.
        chosen: what the next request was chosen for, until somebody takes it.
    """

    __slots__ = ("_held", "anybody", "chosen", "key", "policy", "principal", "refused", "route", "share", "standing")

    def __init__(self, held: Held) -> None:
        self._held: Final = held
        self.policy: Policy | None = None
        self.route: Route | None = None
        self.principal: Principal | None = None
        self.key: CacheKey | None = None
        self.share: Share | None = None
        self.anybody = False
        self.standing: Final[dict[str, Standing]] = {}
        self.refused: Final[dict[str, Refusal]] = {}
        self.chosen: Chosen | None = None

    def settle(self, policy: Policy, route: Route | None, principal: Principal | None, key: CacheKey | None) -> None:
        """Keep what the steps before the look-up came to."""
        if self.policy is not policy:
            self.standing.clear()
            self.anybody = False
        self.policy, self.route, self.principal, self.key = policy, route, principal, key
        own = route is not None and route.cache.mode is CacheMode.POLICY and route.cache.share is not Share.PUBLIC
        self.share = route.cache.share if route is not None and own else None

    def key_for(self, principal: Principal | None) -> CacheKey | None:
        """The key for somebody whose token was verified, None when it must be settled.

        Of two who have the same scopes neither is refused unless both are, and their keys differ in the domain alone.
        """
        before, key = self.principal, self.key
        if principal is before:
            return key
        if principal is None or before is None or key is None or self.share is None:
            return None
        if principal.scopes != before.scopes:
            return None
        domain = (principal.global_domain if self.share is _GLOBAL else None) or principal.domain
        return key if domain.id == key.domain else CacheKey(domain.id, key.path, key.query, key.variant)

    def stand(self, domain: str, hit: Standing, *, anybody: bool) -> None:
        """Let a hit stand.

        Args:
            domain: id of its visibility domain.
            hit: it.
            anybody: whether it stands whatever token comes along.
        """
        if domain not in self.standing:
            self._held.note(self)
        self.standing[domain], self.anybody = hit, anybody

    def refuse(self, fault: str, refusal: Refusal) -> None:
        """Let a refusal stand for a fault of tokens."""
        if fault not in self.refused:
            self._held.note(self)
        self.refused[fault] = refusal

    def take_chosen(self) -> Chosen | None:
        """What this request was chosen for."""
        chosen, self.chosen = self.chosen, None
        return chosen
