"""Token checks as the Cloud Controller makes them (controller.md §2), by PyJWT.

Takes keys from whoever owns them (a symmetric secret in tests, the sandbox UAA's RSA keys in the demo) and never
fetches anything. Signature first, then `aud`, `exp` (integer, no leeway), `jti`, `iss`; `nbf` and `iat` are ignored.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import jwt

if TYPE_CHECKING:
    from jwt.types import Options

RSA_ALGORITHMS: Final = ("RS256", "RS384", "RS512")
HMAC_ALGORITHMS: Final = ("HS256", "HS384", "HS512")
AUDIENCES: Final = frozenset({"cloud_controller", "cloud_controller_service_permissions"})

_SIGNATURE_ONLY: Final[Options] = {
    "verify_signature": True,
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_aud": False,
    "verify_iss": False,
    "verify_sub": False,
    "verify_jti": False,
}

Verify = Callable[[str], Mapping[str, Any] | None]
"""Gives the claims of a good token, None for a bad one."""


@dataclass(frozen=True, slots=True)
class Key:
    """A verification key with the algorithms it is for: an HMAC secret, a PEM text or a key object."""

    material: Any
    algorithms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TokenChecker:
    """Verifies access tokens.

    Attributes:
        keys: Called at each check, so a rotation acts at once; every key is tried in turn.
        issuer: Required `iss`, or None to accept any.
        clock: Epoch seconds.
    """

    keys: Callable[[], Iterable[Key]]
    issuer: str | None = None
    clock: Callable[[], float] = time.time

    def __call__(self, token: str) -> Mapping[str, Any] | None:
        """The claims of a good token, or None."""
        for key in self.keys():
            try:
                claims = jwt.decode(token, key.material, algorithms=list(key.algorithms), options=_SIGNATURE_ONLY)
            except jwt.InvalidTokenError:
                continue
            return claims if self._acceptable(claims) else None
        return None

    def _acceptable(self, claims: Mapping[str, Any]) -> bool:
        expiry, identifier, audience = claims.get("exp"), claims.get("jti"), claims.get("aud")
        audiences = [audience] if isinstance(audience, str) else audience
        return (
            isinstance(audiences, list)
            and not AUDIENCES.isdisjoint(each for each in audiences if isinstance(each, str))
            and isinstance(expiry, int)
            and expiry > self.clock()
            and isinstance(identifier, str)
            and not identifier.endswith("-r")
            and (self.issuer is None or claims.get("iss") == self.issuer)
        )


def hmac_checker(secret: bytes, issuer: str | None = None, clock: Callable[[], float] = time.time) -> TokenChecker:
    """A checker for tokens signed with one symmetric secret, as the recorded world used."""
    keys = (Key(secret, HMAC_ALGORITHMS),)
    return TokenChecker(lambda: keys, issuer, clock)
