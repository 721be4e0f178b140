"""Which of several responses to one target a request selects (RFC 9111 §4.1): Vary, normalised and compared.

The law: two requests are the same only where the fields' meaning is known to be the same, and credentials are compared
to the letter. Knows nothing of freshness.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from gateway.core.fields import VARY_ANY, split_list

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.core.model import Fields

# Per nominated field, in the order of `vary_names`: its normalised value, None where the request has none.
Selecting = tuple[str | None, ...]

# Fields whose exact text is somebody's secret or signature: never normalised beyond joining lines.
_VERBATIM: Final = frozenset({"authorization", "proxy-authorization", "cookie", "signature", "signature-input"})
# Preferences: members in any order and letter case mean the same (RFC 9110 §12.5.2 - §12.5.4).
_PREFERENCES: Final = frozenset({"accept-language", "accept-encoding", "accept-charset"})
_OWS: Final = " \t"
# RFC 9110 §12.4.2
_WEIGHT: Final = re.compile(r"[ \t]*[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")


def selecting(request: Fields, names: Sequence[str]) -> Selecting:
    """The values that select a variant, in a form that compares and hashes.

    Args:
        request: the request fields.
        names: from `vary_names`.
    """
    return tuple(_normalised(name, request.get_all(name)) for name in names)


def selects(request: Fields, names: Sequence[str], stored: Selecting, response: Fields) -> bool:
    """Whether a request selects a stored response.

    Beyond equal selecting fields, a response in the one language the request likes best is selected whatever else its
    Accept-Language lists.

    Args:
        request: the request fields.
        names: what the stored response varies on.
        stored: what `selecting` gave for the request it answered.
        response: the stored response's fields.
    """
    if names == VARY_ANY:
        return False
    for name, known in zip(names, stored, strict=True):
        values = request.get_all(name)
        if _normalised(name, values) != known and not (name == "accept-language" and _speaks(response, values)):
            return False
    return True


def _normalised(name: str, values: Sequence[str]) -> str | None:
    if not values:
        return None
    if name in _VERBATIM:
        return ", ".join(values)
    if name in _PREFERENCES:
        return ",".join(sorted({"".join(member.lower().split()) for member in split_list(values)}))
    # Lines joined, space around commas dropped; empty members stay, for what they mean is not known here.
    return ",".join(part.strip(_OWS) for part in split_list(values, keep_empty=True))


def _speaks(response: Fields, accept_language: Sequence[str]) -> bool:
    """Whether the response's only language is the one language with the request's highest weight."""
    languages = split_list(response.get_all("content-language"))
    if len(languages) != 1:
        return False
    weights: dict[str, float] = {}
    for member in split_list(accept_language):
        tag, _, parameter = member.partition(";")
        weight = _WEIGHT.fullmatch(parameter)
        if parameter and weight is None:
            return False
        weights[tag.strip(_OWS).lower()] = 1.0 if weight is None else float(weight[1])
    best = max(weights.values(), default=0.0)
    return best > 0 and [tag for tag, weight in weights.items() if weight == best] == [languages[0].lower()]
