"""How many clients may be connected: in all, and from one address.

The law: whoever is connected stays; it is newcomers who are turned away, at once and with an answer. Room is made by
closing idle connections early while the house is nearly full. Load balancers that are trusted speak for many clients
and are counted in all, but not by address. Counting costs two dictionary operations a connection and nothing a request.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gateway.core.rate_policy import network_of
from gateway.edge.refusal import Ending

if TYPE_CHECKING:
    from gateway.core.forwarding import TrustedProxies

_NEARLY: Final = 7 / 8  # of the most, from where on idle connections are closed early


@dataclass(frozen=True, slots=True)
class Capacity:
    """How many may be connected.

    Attributes:
        total: in all.
        per_address: from one IPv4 address or one IPv6 /64; None for no limit.
        trusted: the peers that `per_address` does not count.
    """

    total: int
    per_address: int | None
    trusted: TrustedProxies


class Crowd:
    """Counts who is connected.

    Args:
        capacity: how many may be.
    """

    def __init__(self, capacity: Capacity) -> None:
        self._capacity = capacity
        self._by_address: Final[dict[str, int]] = {}
        self._total = 0

    def adopt(self, capacity: Capacity) -> None:
        """Judge newcomers by another capacity from now on; nobody is thrown out."""
        self._capacity = capacity

    @property
    def crowded(self) -> bool:
        """Whether it is nearly full."""
        return self._total >= self._capacity.total * _NEARLY

    def enter(self, address: str) -> Ending | None:
        """Count a connection in.

        Args:
            address: of the peer, "" for a unix socket.

        Returns:
            None, or why it is turned away; it is not counted then.
        """
        capacity = self._capacity
        if self._total >= capacity.total:
            return Ending.FULL
        whose = network_of(address)
        here = self._by_address.get(whose, 0)
        limit = capacity.per_address
        if limit is not None and here >= limit and address and address not in capacity.trusted:
            return Ending.ADDRESS_FULL
        self._by_address[whose] = here + 1
        self._total += 1
        return None

    def leave(self, address: str) -> None:
        """Count out a connection that was counted in with this address."""
        whose = network_of(address)
        left = self._by_address[whose] - 1
        if left:
            self._by_address[whose] = left
        else:
            del self._by_address[whose]
        self._total -= 1
