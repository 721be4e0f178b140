"""Rate limits as the operator writes them, and how they become policies of the core's vocabulary.

What the words mean is decided in `core/rate_policy.py` and `core/ratelimit.py`; which rate classes there are, in
`core/cf_routes.py`.
"""

import re
from collections.abc import Iterator
from enum import Enum
from typing import Annotated, Final

from gateway.core.cf_routes import RATE_CLASSES
from gateway.core.rate_policy import EXEMPT, Cost, Mode, RatePolicy, Who
from gateway.core.ratelimit import FixedWindow, Gcra
from gateway.settings.errors import Problem, either
from gateway.settings.scalars import Count, Duration, ReadError, Scalar, Scope, Word, plain_text
from gateway.settings.section import Section

FAILURES: Final = "failed_authentications"
_UNITS: Final = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,6})?")
_LONGEST: Final = 31 * 86_400.0
_SHORTEST: Final = 0.001


def parse_units(value: object) -> float:
    """What a request costs: 0 or more, with up to six decimals.

    Raises:
        ReadError: anything else.
    """
    text = repr(value) if isinstance(value, int | float) and not isinstance(value, bool) else plain_text(value)
    if not _UNITS.fullmatch(text):
        raise ReadError
    return float(text)


def _write_units(value: float) -> float:
    return int(value) if value.is_integer() else value


def _class(known: tuple[str, ...]) -> Scalar:
    def read(value: object) -> str:
        text = plain_text(value)
        if text not in known:
            raise ReadError
        return text

    return Scalar(f"a rate class: {either(known)}", read, {"type": "string", "enum": list(known)}, str, "rate class")


Units = Annotated[
    float,
    Scalar("a number from 0, such as 1 or 0.02", parse_units, {"type": "number", "minimum": 0}, _write_units, "number"),
]
RateClass = Annotated[str, _class(tuple(RATE_CLASSES))]
CountedClass = Annotated[str, _class(tuple(name for name in RATE_CLASSES if name != EXEMPT))]


class Algorithm(Enum):
    """How a policy counts."""

    GCRA = "gcra"
    FIXED_WINDOW = "fixed_window"


class Costs(Section):
    """Units by what a request asks of whom."""

    hit: Units = 1.0
    """A request the gateway answers itself: from a stored page, or with a refusal."""
    miss: Units = 1.0
    """A read that goes to the upstream."""
    write: Units = 1.0
    """Any other method."""
    per_row: Units = 0.0
    """On top, for each row (`per_page`, by default 50) that a read of class `list` asks the upstream for."""


class Policy(Section):
    """One named limit. A request may fall under several: the strictest decides, and units are taken when all agree."""

    name: Word
    """Its name in metrics, logs and the `RateLimit` fields."""
    who: Who
    """Whose requests are counted together: a `principal` (user or client, whatever its tokens), the OAuth client that \
obtained the token (`client_id`), a client address or IPv6 /64 (`ip`), the same but only requests without a valid \
token (`anonymous`), or all requests in one (`everybody`)."""
    classes: tuple[CountedClass, ...] = ()
    """The rate classes it counts; empty for all. A route's class is in `routes[].rate` or built in."""
    limit: Count
    """Units a `window`."""
    window: Duration
    """The time in which `limit` units flow back, or after which they are there again."""
    burst: Count | None = None
    """With `gcra`: units that may be taken at once; by default `limit`."""
    algorithm: Algorithm = Algorithm.GCRA
    """`gcra` lets units flow back steadily; `fixed_window` counts like the Cloud Controller's own limiter."""
    mode: Mode = Mode.ENFORCE
    """`shadow` counts what would be limited and lets it pass."""
    exempt_scopes_any: tuple[Scope, ...] = ()
    """A token with one of these scopes is not counted."""
    cost: Costs = Costs()
    """What a request costs."""

    def problems(self) -> Iterator[Problem]:
        """Windows of no length, and keys without a meaning."""
        yield from _window_problems(self.window)
        if self.burst is not None and self.algorithm is Algorithm.FIXED_WINDOW:
            yield Problem(("burst",), "no such key with algorithm fixed_window", "one")
        if self.exempt_scopes_any and self.who is Who.ANONYMOUS:
            yield Problem(("exempt_scopes_any",), "no such key with who: anonymous", "one", "there is no token")
        if self.name == FAILURES:
            yield Problem(("name",), "another name", f'"{FAILURES}"', f"rate_limits.{FAILURES} has it")

    def policy(self) -> RatePolicy:
        """The same in the core's words."""
        cost = self.cost
        return RatePolicy(
            name=self.name,
            who=self.who,
            bucket=(
                Gcra(self.limit, self.window, self.burst)
                if self.algorithm is Algorithm.GCRA
                else FixedWindow(self.limit, self.window)
            ),
            classes=frozenset(self.classes or (name for name in RATE_CLASSES if name != EXEMPT)),
            mode=self.mode,
            exempt_scopes_any=frozenset(self.exempt_scopes_any),
            cost=Cost(cost.hit, cost.miss, cost.write, cost.per_row),
        )


class FailedAuthentications(Section):
    """How many tokens that do not count a client address (or IPv6 /64) may send."""

    limit: Count
    """Failures a `window`; after that its tokens are refused unverified with 429, but for those verified before."""
    window: Duration
    """The time in which `limit` failures are forgiven, steadily."""

    def problems(self) -> Iterator[Problem]:
        """Windows of no length."""
        yield from _window_problems(self.window)


class RateLimits(Section):
    """How much of the API anybody may use."""

    policies: tuple[Policy, ...] = ()
    """The limits."""
    failed_authentications: FailedAuthentications | None = None
    """How many tokens that do not count a client address may send; without it any number."""
    max_buckets: Count = 100_000
    """The most buckets kept in memory for each policy, about 300 bytes each. Beyond it the one charged longest ago \
is forgotten, and so begins full again."""

    def problems(self) -> Iterator[Problem]:
        """Names given twice."""
        named: dict[str, int] = {}
        for index, policy in enumerate(self.policies):
            first = named.setdefault(policy.name, index)
            if first != index:
                expected = f"each name once (also in rate_limits.policies[{first}])"
                yield Problem(("policies", index, "name"), expected, f'"{policy.name}"')

    def failures(self) -> RatePolicy | None:
        """The limit of failed authentications in the core's words."""
        given = self.failed_authentications
        if given is None:
            return None
        return RatePolicy(FAILURES, Who.IP, Gcra(given.limit, given.window), frozenset())


def _window_problems(window: float) -> Iterator[Problem]:
    if not _SHORTEST <= window <= _LONGEST:
        yield Problem(("window",), "a duration from 1ms to 31d", f"{window:g}s")
