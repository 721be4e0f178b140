"""What a token must be to count: issuer, audiences, and the keys that may have signed it.

Nothing here verifies a token or reads a key; the identity package does. How strong a secret must be is
in RFC 7518 §3.2.
"""

from collections.abc import Iterator
from typing import Annotated, Final, Literal

from pydantic import Field

from gateway.settings.addresses import Issuer, Url
from gateway.settings.errors import Problem
from gateway.settings.scalars import KIB, Boolean, Count, Duration, File, Secret, Size, Text
from gateway.settings.section import Section

Algorithm = Literal["HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384"]

_SOURCES: Final = ("url", "secret", "pem_file", "jwks_file")
_LONGEST_LEEWAY: Final = 300.0


class AuthKey(Section):
    """One source of keys: exactly one of `url`, `secret`, `pem_file` and `jwks_file`."""

    url: Url | None = None
    """Where the UAA publishes its keys (`https://uaa…/token_keys`); fetched before serving and refreshed behind."""
    secret: Secret | None = None
    """A symmetric key (HS256, HS384, HS512)."""
    pem_file: File | None = None
    """A public key or certificate in PEM; relative to the settings file."""
    jwks_file: File | None = None
    """A JSON Web Key Set (RFC 7517); relative to the settings file."""
    kid: Text | None = None
    """The key id tokens name it by, for `secret` and `pem_file`; without it the key serves tokens of any id."""
    algorithms: tuple[Algorithm, ...] | None = None
    """The algorithms accepted with it; by default those that its type permits."""
    allow_short_secret: Boolean = False
    """Accept a symmetric key shorter than its hash. Such keys can be guessed: for development."""
    refresh_interval: Duration = 60.0
    """How often a `url` is fetched anew."""

    def source(self) -> str | None:
        """Which of the four it is; None when it is none or several."""
        given = [name for name in _SOURCES if getattr(self, name) is not None]
        return given[0] if len(given) == 1 else None

    def problems(self) -> Iterator[Problem]:
        """None or several sources, options that do not fit the source, weak secrets."""
        source = self.source()
        if source is None:
            given = [name for name in _SOURCES if getattr(self, name) is not None]
            yield Problem((), f"exactly one of {', '.join(_SOURCES)}", " and ".join(given) or "none of them")
            return
        yield from self._misplaced(source)
        yield from self._unfit_algorithms(source)
        if self.refresh_interval < 1:
            yield Problem(("refresh_interval",), "a duration of at least 1s", f"{self.refresh_interval:g}s")
        if self.secret is not None and not self.allow_short_secret:
            hashes = [int(name[2:]) for name in self.algorithms or () if name.startswith("HS")]
            needed = max(hashes, default=256) // 8
            if len(self.secret.get_secret_value().encode()) < needed:
                expected = f"a secret of at least {needed} bytes"
                yield Problem(("secret",), expected, "a shorter one", "allow_short_secret: true accepts it")

    def _misplaced(self, source: str) -> Iterator[Problem]:
        fits = {
            "kid": ("secret", "pem_file"),
            "allow_short_secret": ("url", "secret", "jwks_file"),
            "refresh_interval": ("url",),
        }
        for name, sources in fits.items():
            if self.sets(name) and source not in sources:
                yield Problem((name,), f"no such key beside {source}", "one")

    def _unfit_algorithms(self, source: str) -> Iterator[Problem]:
        if self.algorithms == ():
            yield Problem(("algorithms",), "at least one algorithm", "an empty list")
        for index, name in enumerate(self.algorithms or ()):
            symmetric = name.startswith("HS")
            if source == "secret" and not symmetric:
                yield Problem(("algorithms", index), "HS256, HS384 or HS512 for a secret", f'"{name}"')
            if source == "pem_file" and symmetric:
                yield Problem(("algorithms", index), "RS…, PS… or ES… for a public key", f'"{name}"')


class Auth(Section):
    """How tokens are judged."""

    issuer: Issuer | None = None
    """What `iss` must be, letter for letter, as in the UAA's `/.well-known/openid-configuration`; without it `iss` is \
not looked at."""
    audiences: Annotated[tuple[Text, ...], Field(min_length=1)] = (
        "cloud_controller",
        "cloud_controller_service_permissions",
    )
    """`aud` must have at least one of these."""
    leeway: Duration = 0.0
    """How far clocks may differ when `exp` is judged, at most 5m. The Cloud Controller grants nothing."""
    keys: Annotated[tuple[AuthKey, ...], Field(min_length=1)]
    """The keys that may have signed a token."""
    max_token_bytes: Size = 16 * KIB
    """Longer tokens are refused unread."""
    memo_entries: Count = 10_000
    """How many verified tokens are remembered, so that their signatures are not checked again."""

    def problems(self) -> Iterator[Problem]:
        """Leeway beyond clock skew, several keys of one id."""
        if self.leeway > _LONGEST_LEEWAY:
            yield Problem(("leeway",), "a duration from 0s to 5m", f"{self.leeway:g}s")
        if self.max_token_bytes < KIB:
            yield Problem(("max_token_bytes",), "a size of at least 1KiB", f"{self.max_token_bytes}B")
        named: dict[str, int] = {}
        for index, key in enumerate(self.keys):
            first = index if key.kid is None else named.setdefault(key.kid, index)
            if first != index:
                expected = f"each key id once (also in auth.keys[{first}])"
                yield Problem(("keys", index, "kid"), expected, "the same again")
