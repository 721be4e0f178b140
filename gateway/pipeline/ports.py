"""What the pipeline needs from the outside, as Protocols. Implementations live in identity, store, upstream, telemetry.

Nothing here holds state; adapters are handed in by the composition root.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    from gateway.core.errors import Denial
    from gateway.core.keys import CacheKey
    from gateway.core.links import Rewriter
    from gateway.core.model import Principal, RequestHead, ResponseHead
    from gateway.core.rate_policy import Key
    from gateway.core.ratelimit import Decision, Said
    from gateway.pipeline.entry import Entry
    from gateway.pipeline.exchange import Exchange
    from gateway.pipeline.resource import Resource
    from gateway.pipeline.standing import Standing

    Stored: TypeAlias = Entry | Resource  # what modes `policy` and `origin` keep


@dataclass(frozen=True, slots=True)
class Rejected:
    """A token that is not acceptable.

    Attributes:
        fault: closed name of the reason ("expired", "signature", …), for logs and metrics.
        detail: a sentence for the operator; never contains any part of the token.
    """

    fault: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class KeyUnknown:
    """The token names a key we do not hold; fetching might find it."""

    kid: str | None


class KeysUnavailableError(Exception):
    """The key source could not be reached, so an unknown key cannot be judged."""


class TokenVerifier(Protocol):
    """Verifies bearer tokens without waiting; fetching keys is a separate, explicit step."""

    def remembered(self, token: str, now: float) -> Principal | None:
        """The principal of a token that was verified before and still counts, at the cost of a look-up."""

    def recalled(self) -> None:
        """Somebody was let in because of what `remembered` said."""

    def refused(self, token: str, now: float) -> str | None:
        """The fault of a token that was refused before and is still, as it will always be; None: ask `verify`."""

    def refused_again(self, fault: str) -> None:
        """Somebody was refused because of what `refused` said."""

    def verify(self, token: str, now: float) -> Principal | Rejected | KeyUnknown:
        """Judge a token with the keys at hand. Never raises, never blocks."""

    async def fetch_for(self, kid: str | None) -> None:
        """Fetch keys once for an unknown `kid`; rate-limited, concurrent calls join.

        Raises:
            KeysUnavailableError: the key source failed; the token's validity is unknown.
        """


# (number of the policy, whose bucket, units)
Charge: TypeAlias = "tuple[int, Key, float]"


class Counters(Protocol):
    """Where the buckets of rate limits are kept. Never waits: a shared store answers from the units it has leased."""

    def peek(self, charge: Charge, now: float) -> Decision:
        """What would be decided; nothing is taken."""

    def take_one(self, charge: Charge, now: float) -> Said:
        """Take what a charge asks for that is the only one of its request."""

    def take(self, charges: Sequence[Charge], now: float) -> Sequence[Decision]:
        """Take what all of the charges ask for, or nothing when an enforced one refuses; what each said, in order."""


class Place(Protocol):
    """Where a page is stored.

    Attributes:
        held: the page; None as soon as it is stored no more, or another one in its stead.
        hits: how often it was found; whoever serves it from here adds one.
        standing: the first of the hits that stand for it, told by the store when it is stored no more.
    """

    held: Stored | None
    hits: int
    standing: Standing | None


class PageStore(Protocol):
    """Bounded storage of immutable entries."""

    @property
    def in_touch(self) -> Callable[[], bool] | None:
        """Asked before a page is served from its place: whether it may be, as it is. None when it always may."""

    @property
    def most_standing(self) -> int:
        """How many hits may stand for its pages at once."""

    def get(self, key: CacheKey) -> Stored | None:
        """The entry stored under exactly this key and domain, or None."""

    def peek(self, key: CacheKey) -> Stored | None:
        """The same, without counting as a hit."""

    def place(self, key: CacheKey) -> Place | None:
        """Where that is, for who serves it again and again; None when nothing is stored."""

    def put(self, entry: Stored, *, generation: int) -> str | None:
        """Store an entry unless one of its tags was invalidated after `generation`.

        Returns:
            None when stored, else the named reason why not.
        """

    def discard(self, key: CacheKey) -> bool:
        """Drop what is stored under exactly this key; whether anything was."""

    def generation(self, tags: Iterable[str]) -> int:
        """When one of the tags was last invalidated; taken before a fetch, given back to `put`."""

    def invalidate(self, tags: Iterable[str]) -> int:
        """Drop every entry that carries one of the tags; returns how many."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """A moment on the clock that all processes share.

    Attributes:
        epoch: the life of the clock; moments of two epochs cannot be compared.
        generation: its count of invalidations.
    """

    epoch: str
    generation: int


class SharedStore(Protocol):
    """What several gateway processes have in common. Never raises; slow or gone, it has nothing and takes nothing."""

    def in_touch(self) -> bool:
        """Whether every write through other processes is known here."""

    async def find(self, key: CacheKey, tags: Sequence[str], *, wait: bool) -> tuple[Entry | None, Stamp | None]:
        """A fresh page another process stored or, with `wait`, is fetching now; and the moment before a fetch.

        Who gets no page is to fetch it, and then either to give it and the moment to `offer`, or to `release` it.
        """

    async def find_resource(self, key: CacheKey, tags: Sequence[str]) -> tuple[Resource | None, Stamp | None]:
        """What other processes stored for a target in mode `origin`; and the moment before a fetch."""

    def offer_resource(self, resource: Resource) -> None:
        """Give the others those variants of a target that have a moment before their fetch; does not wait."""

    def release(self, key: CacheKey) -> None:
        """Let others fetch, for there is nothing to offer; does not wait."""

    def offer(self, entry: Entry, stamp: Stamp) -> None:
        """Give the others a page whose fetch began after `stamp`; does not wait."""

    async def announced(self) -> None:
        """Wait until the others have dropped what was invalidated here so far, or cannot be told."""


class UpstreamResponse(Protocol):
    """A response whose head has arrived and whose body has not been read yet."""

    head: ResponseHead

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives.

        Raises:
            UpstreamError: the transfer broke before its end.
        """

    def in_hand(self) -> bytes | None:
        """The whole body, when it has arrived already and nothing of it was taken; `chunks` has nothing then.

        Raises:
            UpstreamError: it is larger than allowed.
        """

    async def release(self) -> None:
        """Give the connection back, or close it when the body was not read to its end."""


class UpstreamError(Exception):
    """The controller's fault, mapped once at the I/O border.

    Attributes:
        kind: a name of `pipeline/failures.py`.
        sent: whether any byte of the request may have arrived.
        retry_after: seconds after which asking again may help, None when nobody knows.
    """

    def __init__(self, kind: str, detail: str, *, sent: bool = True, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.sent = sent
        self.retry_after = retry_after


class OwnError(UpstreamError):
    """A failure that is only that of whoever asked: who waited for the same answer asks for itself."""


class ContentError(Exception):
    """The client's fault: its request content is malformed, too large, or broke off.

    Attributes:
        denial: what to answer, should the client still listen.
    """

    def __init__(self, denial: Denial) -> None:
        super().__init__(denial.detail)
        self.denial = denial


class Recorder(Protocol):
    """Told about every exchange."""

    def begin(self) -> None:
        """An exchange has begun."""

    def record(self, exchange: Exchange, *, complete: bool, seconds: float) -> None:
        """It is over: delivered in full, or not. Called exactly once for every `begin`."""

    def again(self, exchange: Exchange, seconds: float) -> None:
        """An exchange like one before (`exchange.like`) has begun and is over, delivered in full: both in one."""

    def malformed(self) -> None:
        """A request could not be parsed, so there is no exchange."""


class Links(Protocol):
    """Knows where links are to point."""

    async def rewriter(self) -> Rewriter:
        """The rewriter for the origins that the controller advertises now.

        Raises:
            UpstreamError: they are not configured and could not be learnt yet.
        """


class Upstream(Protocol):
    """The controller."""

    async def send(self, head: RequestHead, body: AsyncIterator[bytes] | None) -> UpstreamResponse:
        """Send a request as it is, stream its body, return when the response head has arrived.

        Raises:
            UpstreamError: no head arrived.
        """


class Notice(Protocol):
    """What another process learnt from the controller's or the UAA's own mouth."""

    @property
    def content(self) -> bytes:
        """What."""
        ...

    @property
    def learnt_at(self) -> float:
        """When it began to learn it, in epoch seconds of its clock."""
        ...

    @property
    def age(self) -> float:
        """How old that is at most, in seconds."""
        ...


class Noticeboard(Protocol):
    """What processes tell each other that they have learnt; only authenticated notices come out of it."""

    async def find(self, kind: str, subject: bytes, *, after: float, max_age: float) -> Notice | None:
        """What another process learnt later than `after` and no longer than `max_age` ago. Never raises.

        Returns:
            It, or None when the caller is to learn it itself and then call `offer` or `release`.
        """

    def offer(self, kind: str, subject: bytes, content: bytes, *, learnt_at: float, max_age: float) -> None:
        """Tell the others, behind."""

    def release(self, kind: str, subject: bytes) -> None:
        """Let another process learn it: this one could not."""
