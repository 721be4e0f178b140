"""Verifies bearer tokens with the keys at hand: strictly parsed, signature by the key's algorithms, then the claims.

Synchronous and free of I/O. Verified tokens are remembered by the *whole* token (CVE-2026-35039), so that a repeated
one costs a dictionary look-up and a comparison of `exp`. What a token says about keys (`jku`, `jwk`, `x5u`, `x5c`) is
never looked at.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final, NoReturn

from gateway.core.claims import ClaimFault, ClaimPolicy, judge
from gateway.core.model import Principal
from gateway.identity.keys import ALGORITHMS, Key, KeySet
from gateway.pipeline.ports import KeyUnknown, Rejected

if TYPE_CHECKING:
    from collections.abc import Callable

_COMPACT: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt"})
_MOST_CANDIDATES: Final = 8
_DEEPEST: Final = 32
_HORIZON: Final = (60, 300, 900, 3600, 43200, 86400)
_MOST_LOOKED_AT: Final = 10_000


# What stays true of a token as long as the keys stay, and the clock does not go back.
_FINAL: Final = frozenset({"signature", "expired"})
_MOST_REFUSED: Final = 512
_LONGEST_REFUSED: Final = 4096


class _MalformedError(Exception):
    """A token that cannot be read; the text is the fault's name."""


class Verifier:
    """Judges tokens.

    Args:
        keys: the keys valid now; asked on every verification, so that a new set acts at once.
        policy: what claims must say.
        refetchable: whether an unknown key could be fetched.
        max_token_bytes: longer tokens are refused unread.
        memo_entries: how many verified tokens are remembered. Each costs its own length and about 1 KiB.
    """

    def __init__(
        self,
        keys: Callable[[], KeySet],
        policy: ClaimPolicy,
        *,
        refetchable: bool,
        max_token_bytes: int,
        memo_entries: int,
    ) -> None:
        self._keys: Final = keys
        self._policy: Final = policy
        self._refetchable: Final = refetchable
        self._max_token_bytes: Final = max_token_bytes
        # Two generations: an LRU cache would keep an order on every hit, this one asks one dictionary.
        self._young: dict[str, Principal] = {}
        self._old: dict[str, Principal] = {}
        self._generation_entries: Final = max(1, memo_entries // 2)
        # Refusals that time does not undo, by the whole token as well: a client that goes on with a bad token must not
        # cost everybody a signature each time. Whoever invents new ones gains nothing.
        self._refused: dict[str, tuple[Rejected, float]] = {}
        self._memo_keys: KeySet | None = None
        self.memo_hits = 0
        self.results: Final[dict[str, int]] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def succeed(self, other: Verifier) -> None:
        """Go on counting where the verifier that this one replaces stops; what it remembers is not taken over."""
        self.memo_hits = other.memo_hits
        self.results.update(other.results)

    def verify(self, token: str, now: float) -> Principal | Rejected | KeyUnknown:
        """Judge a token.

        Args:
            token: what followed `bearer`.
            now: epoch seconds.

        Returns:
            The principal it speaks for, or why it does not count, or the id of a key that could be fetched.
        """
        keys = self._keys()
        if keys is not self._memo_keys:
            self._young, self._old, self._refused, self._memo_keys = {}, {}, {}, keys
        known = self._young.get(token) or self._recalled(token)
        if known is not None and known.expires > now - self._policy.leeway:
            self.memo_hits += 1
            return known
        refused = self._refused.get(token)
        if refused is not None and now >= refused[1]:
            self.refused_again(refused[0].fault)
            return refused[0]
        verdict = self._verify(token, keys, now)
        if isinstance(verdict, Principal):
            self._remember(token, verdict)
            self._counted("accepted")
        elif isinstance(verdict, Rejected):
            self._counted(verdict.fault)
            if verdict.fault in _FINAL and len(token) <= _LONGEST_REFUSED:
                if len(self._refused) >= _MOST_REFUSED:
                    self._refused.clear()
                self._refused[token] = (verdict, now)
        else:
            self._counted("unknown-key")
        return verdict

    def remembered(self, token: str, now: float) -> Principal | None:
        """The principal of a token that was verified before with the keys valid now and has not expired.

        Args:
            token: what followed `bearer`.
            now: epoch seconds.
        """
        keys = self._keys  # named first, as in `HitLane.take`
        if keys() is not self._memo_keys:
            return None
        known = self._young.get(token) or self._old.get(token)
        return known if known is not None and known.expires > now - self._policy.leeway else None

    def recalled(self) -> None:
        """Count a token that was known from before."""
        self.memo_hits += 1

    def refused(self, token: str, now: float) -> str | None:
        """The fault of a token that was refused before with the keys valid now, and that time does not mend.

        Args:
            token: what followed `bearer`.
            now: epoch seconds.
        """
        refused, keys = self._refused.get(token), self._keys  # named first, as in `HitLane.take`
        if refused is None or now < refused[1] or keys() is not self._memo_keys:
            return None
        rejected = refused[0]
        return None if rejected.detail else rejected.fault

    def refused_again(self, fault: str) -> None:
        """Count a token that was refused before."""
        self.results[fault] += 1  # it was counted when it was first refused

    def expiring(self, now: float) -> dict[str, int]:
        """How many remembered tokens expire within so many seconds, cumulative; the last has no bound.

        Args:
            now: epoch seconds.
        """
        # A full memo is looked at in part: the answer is for a graph, and the loop waits for it.
        left = [
            known.expires - now for known in islice(chain(self._young.values(), self._old.values()), _MOST_LOOKED_AT)
        ]
        share = len(self) / len(left) if left else 1.0
        return {str(bound): round(share * sum(1 for seconds in left if seconds <= bound)) for bound in _HORIZON} | {
            "+Inf": len(self)
        }

    def _recalled(self, token: str) -> Principal | None:
        known = self._old.pop(token, None)
        if known is not None:
            self._remember(token, known)
        return known

    def _remember(self, token: str, principal: Principal) -> None:
        if len(self._young) >= self._generation_entries and token not in self._young:
            self._old, self._young = self._young, {}
        self._young[token] = principal

    def _verify(self, token: str, keys: KeySet, now: float) -> Principal | Rejected | KeyUnknown:
        if len(token) > self._max_token_bytes:
            return Rejected("too-long", f"a token of more than {self._max_token_bytes} bytes")
        try:
            header, payload, signature = _parts(token)
            algorithm, kid = _header(header)
            candidates = keys.candidates(kid, algorithm)[:_MOST_CANDIDATES]
            signed = token[: token.rindex(".")].encode()
            if not _signed_by_any(candidates, algorithm, signed, signature):
                return self._unsigned(keys, kid)
            claims = _object(payload)
        except _MalformedError as error:
            return Rejected(str(error))
        verdict = judge(claims, self._policy, now)
        return Rejected(verdict.value) if isinstance(verdict, ClaimFault) else verdict

    def _counted(self, result: str) -> None:
        self.results[result] = self.results.get(result, 0) + 1

    def _unsigned(self, keys: KeySet, kid: str | None) -> Rejected | KeyUnknown:
        """No key at hand has signed it. Another may have, if it names one, or if there is none to judge it by."""
        unknown = not keys.keys if kid is None else not keys.names(kid)
        return KeyUnknown(kid) if self._refetchable and unknown else Rejected("signature")


def unverified(token: str, policy: ClaimPolicy, now: float) -> Principal | Rejected:
    """Judge a token's claims without its signature: for `gateway explain`, never for serving."""
    try:
        header, payload, _ = _parts(token)
        _header(header)
        verdict = judge(_object(payload), policy, now)
    except _MalformedError as error:
        return Rejected(str(error))
    return Rejected(verdict.value) if isinstance(verdict, ClaimFault) else verdict


def _parts(token: str) -> tuple[bytes, bytes, bytes]:
    """The three decoded segments (RFC 7515 §7.1), in the one spelling each of them has."""
    match = _COMPACT.fullmatch(token)
    if match is None:
        raise _MalformedError("malformed")
    header, payload, signature = (_base64url(part) for part in match.groups())
    return header, payload, signature


def _base64url(segment: str) -> bytes:
    try:
        decoded = base64.b64decode(segment + "=" * (-len(segment) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise _MalformedError("malformed") from None
    if base64.urlsafe_b64encode(decoded).rstrip(b"=") != segment.encode():
        raise _MalformedError("malformed")  # stray bits at the end: two spellings of one token
    return decoded


def _header(raw: bytes) -> tuple[str, str | None]:
    """The header's algorithm and key id (RFC 7515 §4.1)."""
    header = _object(raw)
    if "crit" in header or "b64" in header:
        raise _MalformedError("critical-extension")  # none is understood here (CVE-2026-32597)
    algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise _MalformedError("algorithm")
    if kid is not None and not isinstance(kid, str):
        raise _MalformedError("malformed")
    if kind is not None and not (isinstance(kind, str) and kind.lower() in _TYPES):
        raise _MalformedError("type")
    return algorithm, kid


def _signed_by_any(keys: list[Key], algorithm: str, signed: bytes, signature: bytes) -> bool:
    return any(key.verifies(algorithm, signed, signature) for key in keys)


def _object(raw: bytes) -> dict[str, Any]:
    """A JSON object with unique member names, finite numbers, real text and no great depth."""
    try:
        if raw.count(b"[") + raw.count(b"{") > _DEEPEST and _depth(raw) > _DEEPEST:
            raise _MalformedError("malformed")
        decoded = json.loads(raw.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
        if b"\\u" in raw:  # half a surrogate pair is text to JSON, and to nobody who has to write it down
            json.dumps(decoded, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise _MalformedError("malformed") from None
    if not isinstance(decoded, dict):
        raise _MalformedError("malformed")
    return decoded


def _depth(raw: bytes) -> int:
    """An upper bound of the nesting: brackets inside strings count as well."""
    depth = deepest = 0
    for byte in raw:
        if byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member name occurs twice")
    return members


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
