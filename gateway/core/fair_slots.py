"""Places for requests under way, and a bounded queue before them that serves its owners in turns.

Each owner has a queue of its own; a free place goes to the owners in rotation, so that one who asks a thousand times
waits no less for each than one who asks once. When the queue is full, whoever has most waiting gives way. Bookkeeping
alone: no clock, nothing waits here; who is let in or put out is returned.
"""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable

Waiter = TypeVar("Waiter", bound="Hashable")


class Answer(Enum):
    """What becomes of one who asks for a place."""

    ADMITTED = "admitted"
    QUEUED = "queued"
    REFUSED = "refused"  # the queue is full, and nobody has more waiting than this one would have


class FairSlots(Generic[Waiter]):
    """Places and the queue before them.

    Args:
        limit: how many places there are; None for any number.
        per_owner: how many one owner may have at once; None for any number.
        queue: how many may wait.

    Attributes:
        in_flight: places taken.
    """

    __slots__ = ("_held", "_limit", "_owned", "_per_owner", "_queue", "_ready", "_waiting", "in_flight")

    def __init__(self, *, limit: int | None, per_owner: int | None, queue: int) -> None:
        self._limit = limit
        self._per_owner: Final = per_owner
        self._queue: Final = queue
        self._owned: Final[dict[Hashable, int]] = {}
        # Waiters by owner, in rotation; apart those of owners that have all they may have.
        self._ready: Final[OrderedDict[Hashable, dict[Waiter, None]]] = OrderedDict()
        self._held: Final[dict[Hashable, dict[Waiter, None]]] = {}
        self._waiting = 0
        self.in_flight = 0

    def __len__(self) -> int:
        """How many wait."""
        return self._waiting

    @property
    def limit(self) -> int | None:
        """How many places there are; None for any number."""
        return self._limit

    @property
    def owners(self) -> int:
        """How many owners have a place."""
        return len(self._owned)

    @property
    def free(self) -> bool:
        """Whether there is a place."""
        return self._limit is None or self.in_flight < self._limit

    def capped(self, owner: Hashable) -> bool:
        """Whether an owner has all the places it may have."""
        return self._per_owner is not None and self._owned.get(owner, 0) >= self._per_owner

    def ask(self, owner: Hashable, waiter: Waiter) -> tuple[Answer, Waiter | None]:
        """Ask for a place.

        Args:
            owner: whose request it is.
            waiter: who waits, should that be necessary; unique.

        Returns:
            What becomes of it, and who was put out of the queue for it.
        """
        if self.free and not self.capped(owner):
            self.take(owner)
            return Answer.ADMITTED, None
        put_out = None
        if self._waiting >= self._queue:
            put_out = self._give_way(len(self._queue_of(owner)) + 1)
            if put_out is None:
                return Answer.REFUSED, None
        waiters = self._held if self.capped(owner) else self._ready
        waiters.setdefault(owner, {})[waiter] = None
        self._waiting += 1
        return Answer.QUEUED, put_out

    def take(self, owner: Hashable) -> None:
        """Take a place whether there is one or not."""
        self.in_flight += 1
        self._owned[owner] = self._owned.get(owner, 0) + 1

    def done(self, owner: Hashable) -> list[Waiter]:
        """Give a place back; returns who is let in for it, with the place taken."""
        self.in_flight -= 1
        left = self._owned[owner] - 1
        if left:
            self._owned[owner] = left
        else:
            del self._owned[owner]
        if owner in self._held and not self.capped(owner):
            self._ready[owner] = self._held.pop(owner)
        return self._let_in()

    def resize(self, limit: int | None) -> list[Waiter]:
        """Change how many places there are; returns who is let in for it. Nobody loses a place."""
        self._limit = limit
        return self._let_in()

    def withdraw(self, owner: Hashable, waiter: Waiter) -> None:
        """One who waits gives up."""
        for queues in (self._ready, self._held):
            waiters = queues.get(owner)
            if waiters is not None and waiter in waiters:
                del waiters[waiter]
                self._waiting -= 1
                if not waiters:
                    del queues[owner]

    def _let_in(self) -> list[Waiter]:
        admitted: list[Waiter] = []
        while self._ready and self.free:
            owner, waiters = self._ready.popitem(last=False)
            waiter = next(iter(waiters))
            del waiters[waiter]
            self._waiting -= 1
            self.take(owner)
            admitted.append(waiter)
            if waiters:
                (self._held if self.capped(owner) else self._ready)[owner] = waiters
        return admitted

    def _queue_of(self, owner: Hashable) -> dict[Waiter, None]:
        return self._ready.get(owner) or self._held.get(owner) or {}

    def _give_way(self, as_many: int) -> Waiter | None:
        """The last of whoever has most waiting, put out; None when nobody has more than `as_many`."""
        most = max((*self._ready.items(), *self._held.items()), key=lambda item: len(item[1]), default=None)
        if most is None or len(most[1]) <= as_many:
            return None
        owner, waiters = most
        waiter = next(reversed(waiters))
        self.withdraw(owner, waiter)
        return waiter
