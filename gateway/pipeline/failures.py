"""What each failure of the controller becomes: an answer with a named reason, or why a stale page stands in for one."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Final

from gateway.core.errors import Denial, Reason
from gateway.pipeline.exchange import Stale

if TYPE_CHECKING:
    from gateway.pipeline.ports import UpstreamError

# By `UpstreamError.kind`.
_MEANING: Final = {
    "unreachable": (Reason.UPSTREAM_UNREACHABLE, Stale.UNREACHABLE),
    "timeout": (Reason.UPSTREAM_TIMEOUT, Stale.TIMEOUT),
    "broken": (Reason.UPSTREAM_BROKEN, Stale.BROKEN),
    "head-too-large": (Reason.UPSTREAM_HEAD_TOO_LARGE, Stale.BROKEN),
    "body-too-large": (Reason.UPSTREAM_BODY_TOO_LARGE, Stale.BROKEN),
    "breaker": (Reason.BREAKER_OPEN, Stale.BREAKER),
    "principal-concurrency": (Reason.PRINCIPAL_CONCURRENCY, Stale.OVERLOAD),
    "queue-full": (Reason.QUEUE_FULL, Stale.OVERLOAD),
    "queue-timeout": (Reason.QUEUE_TIMEOUT, Stale.OVERLOAD),
}


def denial_for(error: UpstreamError) -> Denial:
    """The answer when nothing stands in."""
    reason, _ = _MEANING[error.kind]
    wait = error.retry_after
    return Denial(reason, error.detail, () if wait is None else (("Retry-After", str(max(1, ceil(wait)))),))


def stale_for(error: UpstreamError) -> Stale:
    """Why a stored page stands in (RFC 5861 §4)."""
    return _MEANING[error.kind][1]
