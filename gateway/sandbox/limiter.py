"""The Cloud Controller's own rate limiter: a fixed window per principal with a staggered start (controller.md §3).

Off unless configured. Keeps its counters in memory, for this controller alone, as the real one does.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import Final

EXEMPT: Final = frozenset({"/", "/v3", "/v2/info", "/healthz"})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the limiter says of one request.

    Attributes:
        retry_after: Seconds to wait when refused, else None.
    """

    limit: int
    remaining: int
    reset: int
    retry_after: int | None

    @property
    def refused(self) -> bool:
        """Whether the request is over the limit."""
        return self.retry_after is not None

    def fields(self) -> tuple[tuple[str, str], ...]:
        """The `X-RateLimit-*` fields, and `Retry-After` when refused."""
        fields = (
            ("X-RateLimit-Limit", str(self.limit)),
            ("X-RateLimit-Reset", str(self.reset)),
            ("X-RateLimit-Remaining", str(self.remaining)),
        )
        return (*fields, ("Retry-After", str(self.retry_after))) if self.retry_after is not None else fields


@dataclass(slots=True)
class RateLimiter:
    """Counts requests.

    Attributes:
        general: Requests a window of an authenticated principal.
        unauthenticated: Requests a window of an address.
        window: Length of a window, seconds.
    """

    general: int = 2000
    unauthenticated: int = 100
    window: int = 3600
    _counts: dict[str, tuple[int, int]] = field(default_factory=dict)

    def count(self, key: str, now: float, *, authenticated: bool) -> Verdict:
        """Count a request of a principal id or an address.

        Args:
            key: The principal's id or the client's address.
            now: Epoch seconds.
            authenticated: Whether the key is a principal's.
        """
        limit = self.general if authenticated else self.unauthenticated
        offset = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") % self.window
        start = math.floor((now - offset) / self.window) * self.window + offset
        reset = start + self.window
        kept, count = self._counts.get(key, (reset, 0))
        count = count + 1 if kept == reset else 1
        self._counts[key] = (reset, count)
        spare = limit - count if authenticated else limit - count - 1
        retry = math.ceil(reset - now) if count > limit else None
        return Verdict(limit, max(0, spare), reset, retry)
