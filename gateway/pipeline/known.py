"""What was settled for an earlier request with the same head, so that it need not be settled again.

The law: nothing here answers "may this token?" or "is this page stored?"; those are asked for every request. Kept is
only what follows from the head (less its id and token), the policy and the principal alone: the row, the key, and the
hits that stand (`standing.py`). `decide` fills it in and reads it; who reads heads keeps it beside them.

A hit stands for a page that is stored, and goes with it. What else clients can fill by choosing heads is `Held`'s to
bound, one at a time: nothing is forgotten in bulk, and a walk over heads that nobody sends twice pushes out its own.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from gateway.core.keys import CacheKey
from gateway.core.routes import CacheMode, Share

if TYPE_CHECKING:
    from gateway.core.model import Principal
    from gateway.core.routes import Route
    from gateway.pipeline.decide import Policy
    from gateway.pipeline.exchange import Chosen
    from gateway.pipeline.refusing import Refusal
    from gateway.pipeline.standing import Manner, Standing

# Heads that are known although nothing stands for them, each of about 1 KB.
MOST_WAITING: Final = 8192
# Refusals that stand, each of about 3 KB.
MOST_REFUSALS: Final = 4096
# What a manner costs, in hits that stand.
_MANNER: Final = 4
# How many that were used lately are passed over for one that goes.
_PATIENCE: Final = 64
# So many that stand no more may be in the queue, beside as many as those that do.
_SLACK: Final = 1024
_GLOBAL: Final = Share.GLOBAL  # looking a member up costs as much as the comparison
_NO_REFUSALS: Final[dict[str, Any]] = {}  # of nobody; never changed


class Held:
    """Everything that is known of heads in a process, within its bounds.

    Attributes:
        heads: what is known of each head, by its own bytes.
    """

    __slots__ = ("_cost", "_refusals", "_stand", "_standing", "_waiting", "heads")

    def __init__(self) -> None:
        self.heads: Final[dict[bytes, Known]] = {}
        self._waiting: Final[deque[Known]] = deque()
        self._standing: Final[deque[Standing]] = deque()
        self._stand = self._cost = 0
        self._refusals: Final[deque[tuple[Known, str]]] = deque()

    def __len__(self) -> int:
        """How many hits stand."""
        return self._stand

    @property
    def refusals(self) -> int:
        """How many refusals stand."""
        return len(self._refusals)

    def enter(self, key: bytes, known: Known) -> None:
        """Keep what is known of a head.

        Args:
            key: its bytes.
            known: from now on kept here.
        """
        self.heads[key] = known
        known.key_bytes = key
        self.wait(known)

    def wait(self, known: Known) -> None:
        """Nothing stands for a head that is kept here: it stays for as long as it is used."""
        if known.waits or known.key_bytes is None:
            return
        known.waits = True
        waiting = self._waiting
        waiting.append(known)
        if len(waiting) <= MOST_WAITING:
            return
        for _ in range(_PATIENCE):
            known = waiting.popleft()
            if known.first is not None:
                known.waits = False
                return
            if not known.touched:
                break
            known.touched = False
            waiting.append(known)
        else:
            known = waiting.popleft()
        known.waits = False
        if known.first is None and known.key_bytes is not None:
            del self.heads[known.key_bytes]
            known.key_bytes = None

    def note(self, standing: Standing, most: int) -> None:
        """Another hit stands; if they cost more than `most` do that have a manner in common, some do no more."""
        queue, manner = self._standing, standing.manner
        queue.append(standing)
        self._stand += 1
        self._cost += 1 if manner.users else 1 + _MANNER
        manner.users += 1
        while self._cost > most and self._stand > 1:
            self._one_less()
        if len(queue) > 2 * self._stand + _SLACK:
            alive = [one for one in queue if one.stands]
            queue.clear()
            queue.extend(alive)

    def lost(self, standing: Standing) -> None:
        """One that stood does no more."""
        manner = standing.manner
        manner.users -= 1
        self._stand -= 1
        self._cost -= 1 if manner.users else 1 + _MANNER

    def note_refusal(self, known: Known, fault: str) -> None:
        """Another refusal stands; if there are too many, the first of them does no more."""
        self._refusals.append((known, fault))
        if len(self._refusals) > MOST_REFUSALS:
            other, its = self._refusals.popleft()
            del other.refused[its]

    def clear(self) -> None:
        """Let nothing stand and know nothing: heads will be read by others."""
        for standing in self._standing:
            if standing.stands:
                standing.leave()
        for known, _ in self._refusals:
            known.refused = _NO_REFUSALS
        for known in self._waiting:
            known.key_bytes = None
        self._standing.clear()
        self._refusals.clear()
        self._waiting.clear()
        self.heads.clear()

    def _one_less(self) -> None:
        queue = self._standing
        patience = _PATIENCE
        while True:
            standing = queue.popleft()
            if not standing.stands:
                continue
            if standing.touched and patience:
                patience -= 1
                standing.touched = False
                queue.append(standing)
                continue
            standing.leave()
            return


class Known:
    """What is known of one head.

    Args:
        held: keeps it within bounds.
        manners: the ways in which heads that differ from this one in the request line alone are answered.
        read: what its reader read.

    Attributes:
        policy: for which it was settled; None when nothing is.
        route: the row.
        principal: for whom the key was made.
        key: the cache key, of a request that is no bypass.
        share: who has the page in common, where the domain is the principal's and the rest of the key is the head's.
        anybody: whether hits stand for anybody, whatever token comes along.
        manners: as given.
        read: as given.
        first: a hit that stands; nearly always there is but one.
        others: the others, by the id of their domain.
        refused: the refusals that stand, by the fault of the token; each knows its policy.
        chosen: what the next request was chosen for, until somebody takes it.
        touched: whether it was used since somebody last looked.
        waits: whether `Held` waits for it to be used.
        key_bytes: its bytes, while `Held` keeps it.
    """

    __slots__ = (
        *("_held", "anybody", "chosen", "first", "key", "key_bytes", "manners", "others", "policy", "principal"),
        *("read", "refused", "route", "share", "touched", "waits"),
    )

    def __init__(self, held: Held, manners: dict[object, Manner] | None = None, read: Any = None) -> None:
        self._held: Final = held
        self.manners: Final = {} if manners is None else manners
        self.read: Final = read
        self.policy: Policy | None = None
        self.route: Route | None = None
        self.principal: Principal | None = None
        self.key: CacheKey | None = None
        self.share: Share | None = None
        self.anybody = False
        self.first: Standing | None = None
        self.others: dict[str, Standing] | None = None
        self.refused: dict[str, Refusal] = _NO_REFUSALS
        self.chosen: Chosen | None = None
        self.touched = False
        self.waits = False
        self.key_bytes: bytes | None = None

    def settle(self, policy: Policy, route: Route | None, principal: Principal | None, key: CacheKey | None) -> None:
        """Keep what the steps before the look-up came to."""
        if self.policy is not policy:
            for standing in self.standing():
                standing.leave()
            self.anybody = False
        self.policy, self.route, self.principal, self.key = policy, route, principal, key
        own = route is not None and route.cache.mode is CacheMode.POLICY and route.cache.share is not Share.PUBLIC
        self.share = route.cache.share if route is not None and own else None

    def key_for(self, principal: Principal | None) -> CacheKey | None:
        """The key for somebody whose token was verified, None when it must be settled.

        Of two who have the same scopes neither is refused unless both are, and their keys differ in the domain alone.
        """
        before, key = self.principal, self.key
        self.touched = True
        if principal is before:
            return key
        if principal is None or before is None or key is None or self.share is None:
            return None
        if principal.scopes != before.scopes:
            return None
        domain = (principal.global_domain if self.share is _GLOBAL else None) or principal.domain
        return key if domain.id == key.domain else CacheKey(domain.id, key.path, key.query, key.variant)

    def standing(self) -> list[Standing]:
        """The hits that stand."""
        first = [] if self.first is None else [self.first]
        return [*first, *self.others.values()] if self.others else first

    def at(self, domain: str) -> Standing | None:
        """The hit that stands for a domain."""
        first = self.first
        if first is not None and first.domain == domain:
            return first
        return None if self.others is None else self.others.get(domain)

    def stand(self, hit: Standing, most: int, *, anybody: bool) -> None:
        """Let a hit stand.

        Args:
            hit: it.
            most: how many may stand at once, of all heads.
            anybody: whether it stands whatever token comes along.
        """
        before = self.at(hit.domain)
        if before is not None:
            before.leave()
        if self.first is None:
            self.first = hit
        elif self.others is None:
            self.others = {hit.domain: hit}
        else:
            self.others[hit.domain] = hit
        self.anybody = anybody
        self._held.note(hit, most)

    def lose(self, hit: Standing) -> None:
        """A hit that stood does no more."""
        others = self.others
        if self.first is hit:
            self.first = others.popitem()[1] if others else None
        elif others is not None and others.get(hit.domain) is hit:
            del others[hit.domain]
        else:
            return
        self._held.lost(hit)
        if self.first is None:
            self._held.wait(self)

    def refuse(self, fault: str, refusal: Refusal) -> None:
        """Let a refusal stand for a fault of tokens."""
        if self.refused is _NO_REFUSALS:
            self.refused = {}
        if fault not in self.refused:
            self._held.note_refusal(self, fault)
        self.refused[fault] = refusal

    def take_chosen(self) -> Chosen | None:
        """What this request was chosen for."""
        chosen, self.chosen = self.chosen, None
        return chosen
