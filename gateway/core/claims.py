"""RFC 7519 claims under the UAA's rules: which claims make a principal, and what is wrong with the others.

Judges claims that were signed by a trusted key; knows nothing of signatures. The rules are the controller's
(controller.md §2, §7), stricter only where no UAA goes: where it would crash (a `scope` that is text), where claims
that tell principals apart are not text, and where `aud` holds anything but text.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from gateway.core.model import PrincipalKind
from gateway.core.visibility import make_principal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.core.model import Principal


class ClaimFault(Enum):
    """Why claims do not make a principal."""

    EXPIRED = "expired"
    EXP_NOT_INTEGER = "exp-not-integer"
    WRONG_AUDIENCE = "wrong-audience"
    WRONG_ISSUER = "wrong-issuer"
    NO_TOKEN_ID = "no-jti"  # noqa: S105 - a reason, not a secret
    REFRESH_TOKEN = "refresh-token"  # noqa: S105 - likewise
    BAD_SCOPE = "bad-scope"
    NOT_TEXT = "not-text"
    NO_PRINCIPAL = "no-principal"


@dataclass(frozen=True, slots=True)
class ClaimPolicy:
    """What claims must say.

    Attributes:
        issuer: the exact `iss`; None for a deployment whose tokens have none (the 2015 seed's shape), in which `jti` is
            not required either.
        audiences: `aud` must hold one of these.
        leeway: seconds of grace after `exp`; the controller grants none.
    """

    issuer: str | None
    audiences: frozenset[str]
    leeway: float = 0.0


_REFRESH_SUFFIX: Final = "-r"
# No clock goes beyond it; a later `exp` is read as this one, since floats end somewhere and integers do not.
_LATEST: Final = 1 << 53
_TEXTS: Final = ("iss", "zid", "client_id", "jti")


def judge(claims: Mapping[str, Any], policy: ClaimPolicy, now: float) -> Principal | ClaimFault:
    """The principal these claims make, or what is wrong with them.

    Args:
        claims: the decoded payload.
        policy: what it must say.
        now: epoch seconds.
    """
    expires = claims.get("exp")
    if type(expires) is not int:  # neither bool nor "2030": PyJWT takes strings, the controller does not
        return ClaimFault.EXP_NOT_INTEGER
    if expires <= now - policy.leeway:
        return ClaimFault.EXPIRED
    if policy.issuer is not None and claims.get("iss") != policy.issuer:
        return ClaimFault.WRONG_ISSUER
    if not policy.audiences.intersection(_strings(claims.get("aud"), lone=True) or ()):
        return ClaimFault.WRONG_AUDIENCE
    scopes = _strings(claims.get("scope", []))
    if scopes is None:
        return ClaimFault.BAD_SCOPE
    token_id = claims.get("jti")
    if isinstance(token_id, str) and token_id.endswith(_REFRESH_SUFFIX):
        return ClaimFault.REFRESH_TOKEN
    if policy.issuer is not None and not (isinstance(token_id, str) and token_id):
        return ClaimFault.NO_TOKEN_ID
    # They tell visibility domains apart: read as "", two issuers or zones would share one.
    if any(not isinstance(claims.get(name), str | None) for name in _TEXTS):
        return ClaimFault.NOT_TEXT
    return _principal(claims, frozenset(scopes), min(expires, _LATEST))


def _principal(claims: Mapping[str, Any], scopes: frozenset[str], expires: int) -> Principal | ClaimFault:
    """user_id, else client_id. A `user_id` that is there but empty is nobody (recording auth-039)."""
    user, client = claims.get("user_id"), claims.get("client_id")
    kind = PrincipalKind.CLIENT if user is None else PrincipalKind.USER
    principal_id = client if user is None else user
    if not isinstance(principal_id, str) or not principal_id:
        return ClaimFault.NO_PRINCIPAL
    return make_principal(
        kind=kind,
        principal_id=principal_id,
        issuer=_text(claims.get("iss")),
        zone=_text(claims.get("zid")),
        client_id=_text(client),
        scopes=scopes,
        expires=expires,
    )


def _strings(value: object, *, lone: bool = False) -> list[str] | None:
    """A list of strings as it is; a lone string as a list where the claim allows it (RFC 7519 §4.1.3); else None."""
    if lone and isinstance(value, str):
        return [value]
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    return None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
