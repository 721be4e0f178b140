"""Accept-Encoding (RFC 9110 §12.5.3): which content codings a client takes, and which of them it likes best.

Knows no content and makes none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

# A weight of three decimals at most (RFC 9110 §12.4.2); a member that is not of this form counts as absent.
_MEMBER: Final = re.compile(
    r"[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?:[ \t]*;[ \t]*[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?[ \t]*"
)
# Older names of the same codings (RFC 9110 §8.4.1).
_ALIASES: Final = {"x-gzip": "gzip", "x-compress": "compress"}


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a client takes.

    Attributes:
        preferred: codings it likes at least as much as none, the best first.
        taken: all codings it takes.
        identity: whether it takes content without a coding.
    """

    preferred: tuple[str, ...]
    taken: frozenset[str]
    identity: bool


def accepted(values: tuple[str, ...], offered: tuple[str, ...]) -> Accepted:
    """Which of the codings that could be sent a client takes.

    Args:
        values: the field's lines in wire order. None at all means that any coding would do (§12.5.3); but who says
            nothing has probably never heard of the newer ones, and gets none.
        offered: the codings there are, those that are preferred at equal weights first.
    """
    if not values:
        return _ANYTHING
    if sum(map(len, values)) > _LONGEST:
        return _accepted(values, offered)
    return _remembered(values, offered)


def _accepted(values: tuple[str, ...], offered: tuple[str, ...]) -> Accepted:
    weights: dict[str, float] = {}
    for member in ",".join(values).split(","):
        found = _MEMBER.fullmatch(member)
        if found is not None:
            name = found[1].lower()
            weights.setdefault(_ALIASES.get(name, name), 1.0 if found[2] is None else float(found[2]))
    rest = weights.get("*", 0.0)
    # Identity is taken unless it is excluded by name, or by `*;q=0` without being named.
    identity = weights.get("identity", rest if "*" in weights else None)
    liking = {coding: weights.get(coding, rest) for coding in offered}
    taken = [coding for coding in offered if liking[coding] > 0]
    least = weights.get("identity", 0.0)
    preferred = sorted((coding for coding in taken if liking[coding] >= least), key=lambda coding: -liking[coding])
    return Accepted(tuple(preferred), frozenset(taken), identity is None or identity > 0)


# The same few fields come with every request; what clients make up is bounded.
_LONGEST: Final = 200
_remembered: Final = lru_cache(maxsize=256)(_accepted)
_ANYTHING: Final = Accepted((), frozenset(), identity=True)
