"""The values every layer speaks: field lists, targets, message heads, principals, visibility domains.

Nothing here decides anything. All values are immutable; whoever wants another one makes another one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Self

Pair = tuple[str, str]
_NONE: Final[list[str]] = []  # no value; never changed


class Fields:
    """An ordered list of HTTP fields, case kept, duplicates kept, found without regard to case (RFC 9110 §5.1).

    Args:
        pairs: (name, value) in wire order.

    Attributes:
        stem: fields that these were made of by appending, so that what is known of them need not be worked out again.
        rendered: how a lane writes them, kept here by whoever writes the same fields often; None until then.
    """

    __slots__ = ("_found", "_late", "_pairs", "rendered", "stem")

    def __init__(self, pairs: Iterable[Pair] = ()) -> None:
        self._pairs: tuple[Pair, ...] | None = tuple(pairs)
        self._late: Callable[[], tuple[Pair, ...]] | None = None
        self.stem: Fields | None = None
        self.rendered: tuple[bytes, frozenset[str]] | None = None
        self._found: dict[str, list[str]] | None = None

    @classmethod
    def indexed(cls, index: dict[str, list[str]], late: Callable[[], tuple[Pair, ...]]) -> Self:
        """Fields whose values by lower-case name are at hand already.

        Args:
            index: every value of each name, in wire order; not to be changed any more.
            late: makes the pairs in wire order, should anybody ask for them.
        """
        fields = cls.__new__(cls)  # not through the constructor: one is made for every hit
        fields._pairs, fields._late, fields._found = None, late, index  # noqa: SLF001 - its own
        fields.stem = fields.rendered = None
        return fields

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """The (name, value) pairs in wire order."""
        pairs = self._pairs
        if pairs is None:
            pairs = self._pairs = () if self._late is None else self._late()
        return pairs

    @property
    def _index(self) -> dict[str, list[str]]:
        """Made when something is first looked for, which is never for most answers."""
        found = self._found
        if found is None:
            found = {}
            for name, value in self.pairs:
                found.setdefault(name.lower(), []).append(value)
            self._found = found
        return found

    def get(self, name: str) -> str | None:
        """The only or first value of `name` (given in lower case), or None."""
        values = (self._found or self._index).get(name)
        return values[0] if values else None

    def get_all(self, name: str) -> list[str]:
        """Every value of `name` (lower case) in wire order; do not change the list."""
        return (self._found or self._index).get(name, _NONE)

    def combined(self, name: str) -> str | None:
        """All values of `name` (lower case) joined by a comma (RFC 9110 §5.3), or None."""
        values = self._index.get(name)
        return ", ".join(values) if values else None

    def without(self, *names: str) -> Fields:
        """The same fields less those named (lower case)."""
        return Fields(pair for pair in self.pairs if pair[0].lower() not in names)

    def plus(self, *pairs: Pair) -> Fields:
        """The same fields with `pairs` appended."""
        more = Fields((*self.pairs, *pairs))
        more.stem = self
        return more

    def __contains__(self, name: str) -> bool:
        return name in (self._found or self._index)

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fields) and self.pairs == other.pairs

    def __hash__(self) -> int:
        return hash(self.pairs)

    def __repr__(self) -> str:
        # Values may hold tokens and cookies: names only.
        return f"Fields({', '.join(name for name, _ in self.pairs)})"


@dataclass(frozen=True, slots=True)
class Target:
    """A request target, decided once: what is matched and authorised is what is forwarded.

    Attributes:
        path: begins with "/", still percent-encoded.
        query: the part behind "?", percent-encoded, or None when there was no "?".
    """

    path: str
    query: str | None = field(default=None, repr=False)  # may hold names and secrets

    def __str__(self) -> str:
        return self.path if self.query is None else f"{self.path}?{self.query}"

    @property
    def shown(self) -> str | None:
        """The path alone, for logs and operators, also of a target that was refused as it came.

        None when something else stands in front of it: an authority, with a password perhaps.
        """
        return self.path.partition("?")[0].partition("#")[0] if self.path.startswith("/") else None


@dataclass(slots=True)
class RequestHead:
    """What a client asked, without its body. Not to be changed; it is not frozen because one is made for every hit.

    Attributes:
        method: as sent, case kept (methods are case-sensitive, RFC 9110 §9.1).
        target: the canonical target.
        fields: the request fields as they came.
        peer: IP address of the TCP peer, "" for a unix socket.
        scheme: "http" or "https", as the listener saw it.
        has_body: whether a Content-Length above 0 or a Transfer-Encoding announces content.
    """

    method: str
    target: Target
    fields: Fields
    peer: str = ""
    scheme: str = "http"
    has_body: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """What a request takes up at the upstream.

    Attributes:
        owner: whose share it is.
        kind: what is like it in the time it takes; one of a closed set.
    """

    owner: tuple[str, ...]
    kind: str


NOBODY: Final = Claim((), "")


@dataclass(slots=True)
class OutgoingHead(RequestHead):
    """A request on its way to the upstream.

    Attributes:
        claim: what it takes up there.
        queued: whether it waits for its turn, and so has certainly not been sent.
        repeated: whether it was sent before, and may have arrived then: what is answered now may be the answer to a
            second time.
    """

    claim: Claim = NOBODY
    queued: bool = False
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """Status line and fields of a response."""

    status: int
    fields: Fields
    reason: str | None = None


class PrincipalKind(Enum):
    """Whether a token speaks for a person or for a program."""

    USER = "user"
    CLIENT = "client"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a verified token speaks for (controller.md §2, §7).

    Attributes:
        kind: user when the token has a user_id, else client.
        id: user_id or client_id.
        issuer: the `iss` claim, "" when absent.
        zone: the UAA identity zone (`zid`), "" when absent.
        client_id: the OAuth client that obtained the token, "" when absent.
        scopes: the token's scopes.
        expires: `exp` in epoch seconds.
        domain: the visibility domain of this token's non-shared pages, computed once beside the principal.
        global_domain: the domain it shares with everyone who sees everything, or None.
    """

    kind: PrincipalKind
    id: str
    issuer: str
    zone: str
    client_id: str
    scopes: frozenset[str]
    expires: int
    domain: VisibilityDomain = field(repr=False)
    global_domain: VisibilityDomain | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class VisibilityDomain:
    """A set of principals for whom the controller's answer is provably the same bytes.

    Attributes:
        kind: "public", "anonymous", "global" or "principal": the class for logs and metrics, never an identity.
        id: injective, length-prefixed encoding of everything that makes a token see less or more.
    """

    kind: str
    id: str


PUBLIC_DOMAIN: Final = VisibilityDomain("public", "public")
ANONYMOUS_DOMAIN: Final = VisibilityDomain("anonymous", "anonymous")
