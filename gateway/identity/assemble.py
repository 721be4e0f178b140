"""Builds keys and verifier from the settings' description of them, and speaks for both to the rest of the gateway."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gateway.identity.keys import Key, KeyLoadError, KeySet, from_pem, from_secret, parse_set
from gateway.identity.sources import KeyRing
from gateway.identity.verifier import Verifier, unverified

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from gateway.core.claims import ClaimPolicy
    from gateway.core.model import Principal
    from gateway.pipeline.ports import KeyUnknown, Noticeboard, Rejected


class SecretText(Protocol):
    """A value that hides itself."""

    def get_secret_value(self) -> str:
        """The value."""
        ...


class KeyDescription(Protocol):
    """One source of keys as the operator describes it; exactly one of the first four is given."""

    @property
    def url(self) -> str | None:
        """Where a key set is fetched."""
        ...

    @property
    def secret(self) -> SecretText | None:
        """A shared secret."""
        ...

    @property
    def pem_file(self) -> Path | None:
        """A public key or certificate."""
        ...

    @property
    def jwks_file(self) -> Path | None:
        """A key set."""
        ...

    @property
    def kid(self) -> str | None:
        """The key's id."""
        ...

    @property
    def algorithms(self) -> Sequence[str] | None:
        """What it is used with."""
        ...

    @property
    def allow_short_secret(self) -> bool:
        """Whether a secret may be short."""
        ...

    @property
    def refresh_interval(self) -> float:
        """Seconds between two fetches."""
        ...


class Identity:
    """Keys and verifier of one gateway.

    Args:
        keys: the key sources.
        policy: what claims must say.
        max_token_bytes: longer tokens are refused unread.
        memo_entries: how many verified tokens are remembered.
        board: where processes tell each other what keys they fetched.

    Raises:
        KeyLoadError: a file or secret cannot be used; the text names the source.
    """

    def __init__(
        self,
        keys: Sequence[KeyDescription],
        policy: ClaimPolicy,
        *,
        max_token_bytes: int = 16 * 1024,
        memo_entries: int = 10_000,
        board: Noticeboard | None = None,
    ) -> None:
        self._policy = policy
        static = tuple(key for position, described in enumerate(keys) for key in _static(position, described))
        named = [key.kid for key in static if key.kid is not None]
        twice = sorted({kid for kid in named if named.count(kid) > 1})
        if twice:
            raise KeyLoadError(f"several keys have the same kid: {', '.join(twice)}")
        self.ring = KeyRing(KeySet(static), board=board, issuer=policy.issuer or "")
        for described in keys:
            if described.url is not None:
                self.ring.add(
                    described.url,
                    interval=described.refresh_interval,
                    allow_symmetric=described.allow_short_secret,
                )
        ring = self.ring
        self._verifier = Verifier(
            lambda: ring.current,
            policy,
            refetchable=bool(self.ring.sources),
            max_token_bytes=max_token_bytes,
            memo_entries=memo_entries,
        )
        self._bind()

    def _bind(self) -> None:
        """Whoever verifies calls the parts themselves, without a step between."""
        self.verify = self._verifier.verify
        self.remembered = self._verifier.remembered
        self.recalled = self._verifier.recalled
        self.refused = self._verifier.refused
        self.refused_again = self._verifier.refused_again
        self.start = self.ring.start
        self.stop = self.ring.stop
        self.fetch_for = self.ring.fetch_for

    def alike(self, other: Identity) -> bool:
        """Whether the keys from files and secrets are those of another one, whose settings are the same."""
        return not self.ring.static_differs(other.ring)

    async def prepare(self, other: Identity) -> None:
        """Start another one that is to replace this one; keys from the same URLs are taken over.

        Raises:
            KeyLoadError: it would have no key, where there is one now.
        """
        other.ring.succeed(self.ring)
        await other.start()
        if other.fault is not None and self.fault is None:
            await other.stop()
            raise KeyLoadError(other.fault)

    def adopt(self, other: Identity) -> Coroutine[Any, Any, None]:
        """Go on with the keys and claim rules of another one, which has been prepared.

        Returns:
            What ends the parts that were replaced, once those who wait for them have what they wait for.
        """
        other._verifier.succeed(self._verifier)
        before, self.ring, self._verifier, self._policy = self.ring, other.ring, other._verifier, other._policy
        self._bind()
        return before.retire()

    @property
    def fault(self) -> str | None:
        """Why tokens cannot be judged, or None."""
        return self.ring.fault

    def summary(self) -> str:
        """The keys at hand, for people."""
        keys = self.ring.current.keys
        ids = ", ".join(key.kid or "(no kid)" for key in keys)
        refused = "".join(f"; refused {kid}: {why}" for kid, why in self.ring.current.refused)
        return f"{len(keys)} loaded: {ids}{refused}"

    def offline(self) -> tuple[OfflineVerifier, bool]:
        """A verifier that needs no network, and whether it leaves signatures unchecked (keys are at a URL)."""
        unchecked = bool(self.ring.sources)
        return OfflineVerifier(None if unchecked else self._verifier, self._policy), unchecked

    def observe(self, observe: Callable[..., None]) -> None:
        """Expose the state of keys and verifier as metrics.

        Args:
            observe: takes name, help, a function that reads the value, and a label name for several values.
        """
        observe(
            "gateway_auth_verifications_total",
            "Tokens verified, not counting remembered ones, by result: accepted, or the fault's name.",
            lambda: {"accepted": 0, **self._verifier.results},
            "result",
        )
        observe("gateway_auth_memo_hits_total", "Tokens known from before.", lambda: self._verifier.memo_hits)
        observe("gateway_auth_memo_entries", "Verified tokens remembered.", lambda: len(self._verifier))
        observe(
            "gateway_auth_memo_tokens_expiring",
            "Remembered tokens that expire within so many seconds; of more than 10,000 an estimate.",
            lambda: self._verifier.expiring(time.time()),
            "within",
        )
        observe("gateway_keys", "Verification keys at hand.", lambda: len(self.ring.current.keys), merge="max")
        observe("gateway_keys_unknown_total", "Tokens that named an unknown key.", lambda: self.ring.unknown)
        observe(
            "gateway_key_fetches_total",
            "Fetches of key sets, by result: ok or failed; or shared (another process's was taken in place of one).",
            lambda: _sum(self.ring),
            "result",
        )
        observe(
            "gateway_keys_age_seconds",
            "Since the oldest key set was last fetched; 0 when none is fetched.",
            lambda: _age(self.ring),
            merge="max",
        )


class OfflineVerifier:
    """Judges tokens for `gateway explain`."""

    def __init__(self, verifier: Verifier | None, policy: ClaimPolicy) -> None:
        self._verifier = verifier
        self._policy = policy

    def verify(self, token: str, now: float) -> Principal | Rejected | KeyUnknown:
        """As `Verifier.verify`; with keys at a URL the signature stays unchecked."""
        return unverified(token, self._policy, now) if self._verifier is None else self._verifier.verify(token, now)

    def remembered(self, token: str, now: float) -> Principal | None:  # noqa: ARG002 - the protocol's signature
        """Nothing is remembered between two commands."""
        return None

    def recalled(self) -> None:
        """So nothing is recalled."""

    def refused(self, token: str, now: float) -> str | None:  # noqa: ARG002 - the protocol's signature
        """And nobody was refused before."""
        return None

    def refused_again(self, fault: str) -> None:
        """So nobody is again."""

    async def fetch_for(self, kid: str | None) -> None:
        """There is no network."""


def _static(position: int, described: KeyDescription) -> list[Key]:
    """The keys of a source that is not a URL."""
    if described.secret is not None:
        return [_secret(position, described, described.secret)]
    path = described.pem_file or described.jwks_file
    if path is None:
        return []
    try:
        content = Path(path).read_bytes()
        if described.pem_file is not None:
            return [from_pem(content, kid=described.kid, algorithms=described.algorithms)]
        keys = parse_set(content, allow_symmetric=True, allow_short=described.allow_short_secret)
    except OSError as error:
        raise KeyLoadError(f"{path}: {error.strerror}") from None
    except KeyLoadError as error:
        raise KeyLoadError(f"{path}: {error}") from None
    if keys.refused or not keys.keys:
        reasons = "; ".join(f"{kid}: {why}" for kid, why in keys.refused) or "no keys"
        raise KeyLoadError(f"{path}: {reasons}")
    return list(keys.keys)


def _secret(position: int, described: KeyDescription, secret: SecretText) -> Key:
    try:
        return from_secret(
            secret.get_secret_value().encode(),
            kid=described.kid,
            algorithms=described.algorithms,
            allow_short=described.allow_short_secret,
        )
    except KeyLoadError as error:
        raise KeyLoadError(f"auth.keys[{position}].secret: {error}") from None


def _sum(ring: KeyRing) -> Mapping[str, float]:
    return {result: sum(source.fetches[result] for source in ring.sources) for result in ("ok", "failed", "shared")}


def _age(ring: KeyRing) -> float:
    fetched = [source.fetched_at for source in ring.sources if source.fetched_at is not None]
    return time.time() - min(fetched) if fetched else 0.0
