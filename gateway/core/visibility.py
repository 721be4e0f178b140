"""From a token's identity to its visibility domain: who may share a cached page with whom.

The law (design.md, "Visibility domains"): a page is shared only inside a set of principals for whom the controller's
answer is provably the same bytes. The class comes from *this token's* scopes, never from the user behind it, since one
user may hold an admin token and a narrow one.
"""

from __future__ import annotations

from functools import lru_cache
from sys import intern
from typing import Final

from gateway.core.model import Principal, PrincipalKind, VisibilityDomain

GLOBAL_SCOPES: Final = frozenset(
    {"cloud_controller.admin", "cloud_controller.admin_read_only", "cloud_controller.global_auditor"}
)


def encode(*parts: str) -> str:
    """Join parts injectively: each is preceded by its length, so no part can imitate a border."""
    return "".join(f"{len(part)}:{part}" for part in parts)


def kind_of(domain_id: str) -> str:
    """The class of a domain by its id, for logs and metrics: "public", "anonymous", "global" or "principal"."""
    length, _, rest = domain_id.partition(":")
    return rest[: int(length)] if rest else domain_id


def decode(text: str) -> tuple[str, ...] | None:
    """The parts that `encode` joined; None where it joined none."""
    parts: list[str] = []
    position = 0
    while position < len(text):
        digits, colon, _ = text[position:].partition(":")
        if not (colon and digits.isascii() and digits.isdigit()):
            return None
        begin = position + len(digits) + 1
        position = begin + int(digits)
        if position > len(text):
            return None
        parts.append(text[begin:position])
    return tuple(parts)


def principal_of_domain(domain: str) -> str | None:
    """The id of the one principal whose domain this is; None when it is shared."""
    parts = decode(domain)
    return parts[4] if parts and parts[0] == "principal" and len(parts) > 4 else None


def principal_domain(
    *, kind: PrincipalKind, principal_id: str, issuer: str, zone: str, scopes: frozenset[str]
) -> VisibilityDomain:
    """The domain of one principal holding these Cloud Controller scopes."""
    mine = sorted(scope for scope in scopes if scope.startswith("cloud_controller"))
    return VisibilityDomain("principal", encode("principal", issuer, zone, kind.value, principal_id, *mine))


def global_domain(*, issuer: str, zone: str, scopes: frozenset[str]) -> VisibilityDomain | None:
    """The domain shared by all who see everything (controller.md §2: byte-identical lists), or None."""
    if GLOBAL_SCOPES.isdisjoint(scopes):
        return None
    # The class is in the key, not the scope: admin and auditor share one entry.
    return _global(issuer, zone)


# Equal values of different tokens as one object: thousands of principals have few sorts of them, and what all of them
# share is compared at once and is in the processor's cache.
@lru_cache(256)
def _global(issuer: str, zone: str) -> VisibilityDomain:
    return VisibilityDomain("global", encode("global", issuer, zone))


@lru_cache(1024)
def _shared(scopes: frozenset[str]) -> frozenset[str]:
    return scopes


def make_principal(
    *,
    kind: PrincipalKind,
    principal_id: str,
    issuer: str,
    zone: str,
    client_id: str,
    scopes: frozenset[str],
    expires: int,
) -> Principal:
    """Build a principal together with its domains, so that no caller can pair it with another's.

    Args:
        kind: user or client.
        principal_id: user_id or client_id.
        issuer: `iss`, "" when absent.
        zone: `zid`, "" when absent.
        client_id: the OAuth client, "" when absent.
        scopes: all scopes of the token.
        expires: `exp`, epoch seconds.
    """
    scopes = _shared(scopes)
    return Principal(
        kind=kind,
        id=principal_id,
        issuer=intern(issuer),
        zone=intern(zone),
        client_id=intern(client_id),
        scopes=scopes,
        expires=expires,
        domain=principal_domain(kind=kind, principal_id=principal_id, issuer=issuer, zone=zone, scopes=scopes),
        global_domain=global_domain(issuer=issuer, zone=zone, scopes=scopes),
    )
