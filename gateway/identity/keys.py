"""Verification keys and the sets they come in; what is unfit is refused when loaded, with a reason.

A key says which algorithms may be used with it; a token never does (RFC 8725 §3.1). Everything PyJWT alone lets pass
(peers.md, "Token") is closed here: `use` and `key_ops`, short keys, private keys, duplicate ids, mixed sets.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import Algorithm, ECAlgorithm, HMACAlgorithm, RSAAlgorithm, get_default_algorithms
from jwt.exceptions import InvalidKeyError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_HMAC: Final = {"HS256": 32, "HS384": 48, "HS512": 64}
_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES: Final = {"secp256r1": "ES256", "secp384r1": "ES384"}
# PyJWT has more (none, EdDSA, ES256K, …); what no key here may be used with is not known here either.
ALGORITHMS: Final[Mapping[str, Algorithm]] = {
    name: algorithm
    for name, algorithm in get_default_algorithms().items()
    if name in {*_HMAC, *_RSA, *_CURVES.values()}
}
_LEAST_RSA_BITS: Final = 2048
_MOST_RSA_BITS: Final = 8192  # beyond it a single verification holds the event loop for milliseconds
_MOST_KEYS: Final = 100
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth"})


class KeyLoadError(Exception):
    """A key that cannot be used. The text says why and never holds key material."""


@dataclass(frozen=True, slots=True)
class Key:
    """One verification key.

    Attributes:
        kid: its id, None when it serves tokens of any id.
        algorithms: the algorithms it may be used with.
        symmetric: whether it is a shared secret.
        material: what PyJWT verifies with.
    """

    kid: str | None
    algorithms: frozenset[str]
    symmetric: bool
    material: Any = field(repr=False)

    def verifies(self, algorithm: str, signed: bytes, signature: bytes) -> bool:
        """Whether `signature` over `signed` is this key's, by an algorithm it allows."""
        return algorithm in self.algorithms and ALGORITHMS[algorithm].verify(signed, self.material, signature)


@dataclass(frozen=True, slots=True)
class KeySet:
    """Keys that are valid together.

    Attributes:
        keys: in the order of their source.
        refused: (kid or position, reason) of what the source held besides.
    """

    keys: tuple[Key, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()

    def candidates(self, kid: str | None, algorithm: str) -> list[Key]:
        """The keys a token with this header may have been signed by, those that its id names first."""
        fit = [key for key in self.keys if algorithm in key.algorithms]
        if kid is None:
            return fit
        return [key for key in fit if key.kid == kid] + [key for key in fit if key.kid is None]

    def names(self, kid: str | None) -> bool:
        """Whether a key has exactly this id."""
        return any(key.kid == kid for key in self.keys)


def from_secret(
    secret: bytes, *, kid: str | None = None, algorithms: Iterable[str] | None = None, allow_short: bool = False
) -> Key:
    """A symmetric key.

    Args:
        secret: the shared secret.
        kid: its id.
        algorithms: those it is to be used with; by default every HMAC whose hash is no longer than the secret
            (RFC 7518 §3.2).
        allow_short: accept a shorter secret, by the operator's explicit word.

    Raises:
        KeyLoadError: it is too short or looks like an asymmetric key.
    """
    wanted = frozenset(algorithms) if algorithms is not None else None
    if wanted is not None and not wanted <= _HMAC.keys():
        raise KeyLoadError("a secret is used with HS256, HS384 or HS512 only")
    fit = frozenset(name for name, least in _HMAC.items() if allow_short or len(secret) >= least)
    if not fit or (wanted is not None and not wanted <= fit):
        raise KeyLoadError(f"a secret of {len(secret)} bytes is shorter than its hash (RFC 7518 §3.2)")
    try:
        material = HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(secret)
    except InvalidKeyError as error:
        raise KeyLoadError(str(error)) from None
    return Key(kid, wanted or fit, symmetric=True, material=material)


def from_pem(pem: bytes, *, kid: str | None = None, algorithms: Iterable[str] | None = None) -> Key:
    """A public key or certificate in PEM.

    Raises:
        KeyLoadError: it is neither, or too weak, or of an unsupported kind.
    """
    if b"PRIVATE KEY" in pem:
        raise KeyLoadError("a private key; the gateway needs only the public one")
    try:
        certificate = b"BEGIN CERTIFICATE" in pem
        material = x509.load_pem_x509_certificate(pem).public_key() if certificate else load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise KeyLoadError("not a public key or certificate in PEM") from None
    return _asymmetric(material, kid, algorithms)


def from_jwk(jwk: Mapping[str, Any], *, allow_symmetric: bool, allow_short: bool = False) -> Key:
    """One member of a key set (RFC 7517 §4), in UAA's spelling too (`value` holds PEM or the secret).

    Args:
        jwk: the decoded object.
        allow_symmetric: whether a shared secret may come from here.
        allow_short: whether it may be short.

    Raises:
        KeyLoadError: it must not or cannot be used.
    """
    if jwk.get("use", "sig") != "sig":
        raise KeyLoadError("its use is not sig")
    operations = jwk.get("key_ops")
    if operations is not None and not (isinstance(operations, list) and "verify" in operations):
        raise KeyLoadError("its key_ops lack verify")
    kid, algorithm, value = jwk.get("kid"), jwk.get("alg"), jwk.get("value")
    if kid is not None and not isinstance(kid, str):
        raise KeyLoadError("its kid is not a string")
    algorithms = None if algorithm is None else [_alias(algorithm)]
    kty = jwk.get("kty")
    if kty in ("oct", "MAC"):
        if not allow_symmetric:
            raise KeyLoadError("a shared secret from a public source is no secret")
        return _symmetric(jwk, value, kid, algorithms, allow_short=allow_short)
    if kty not in ("RSA", "EC"):
        raise KeyLoadError("its kty is not RSA, EC or oct")
    if _PRIVATE & jwk.keys():
        raise KeyLoadError("a private key; the gateway needs only the public one")
    if ("n" not in jwk and "x" not in jwk) and isinstance(value, str):
        key = from_pem(value.encode(), kid=kid, algorithms=algorithms)
    else:
        key = _asymmetric(_numbers(jwk), kid, algorithms)
    if isinstance(key.material, RSAPublicKey) is not (kty == "RSA"):
        raise KeyLoadError("its value is not of its kty")
    return key


def parse_set(document: bytes, *, allow_symmetric: bool, allow_short: bool = False) -> KeySet:
    """A JWK Set or a UAA `token_keys` document; its bad members are refused one by one.

    Args:
        document: JSON.
        allow_symmetric: whether shared secrets may come from here.
        allow_short: whether these may be short.

    Raises:
        KeyLoadError: it is no such document.
    """
    try:
        data = json.loads(document, object_pairs_hook=_unique)
        members = data["keys"]
    except (ValueError, RecursionError, TypeError, KeyError):
        raise KeyLoadError("not a key set: expected a JSON object with keys") from None
    if not isinstance(members, list):
        raise KeyLoadError("not a key set: keys is not a list")
    if len(members) > _MOST_KEYS:
        raise KeyLoadError(f"a key set of {len(members)} keys; {_MOST_KEYS} are the most")
    keys: list[Key] = []
    refused: list[tuple[str, str]] = []
    for position, member in enumerate(members):
        name = str(member.get("kid", position)) if isinstance(member, dict) else str(position)
        try:
            if not isinstance(member, dict):
                raise KeyLoadError("not an object")  # noqa: TRY301 - one place collects the reasons
            keys.append(from_jwk(member, allow_symmetric=allow_symmetric, allow_short=allow_short))
        except KeyLoadError as error:
            refused.append((name, str(error)))
    return _consistent(keys, refused)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose member names are unique: of two keys by one name each reader could take another."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member name occurs twice")
    return members


def _consistent(keys: list[Key], refused: list[tuple[str, str]]) -> KeySet:
    """Of keys that contradict each other none is used: who could say which one is meant?"""
    ids = [key.kid for key in keys if key.kid is not None]
    twice = {kid for kid in ids if ids.count(kid) > 1}
    mixed = len({key.symmetric for key in keys}) > 1
    kept: list[Key] = []
    for position, key in enumerate(keys):
        name = key.kid or str(position)
        if key.kid in twice:
            refused.append((name, "its kid is not unique"))
        elif mixed and key.symmetric:
            refused.append((name, "a shared secret among public keys"))
        else:
            kept.append(key)
    return KeySet(tuple(kept), tuple(refused))


def _symmetric(
    jwk: Mapping[str, Any], value: object, kid: str | None, algorithms: list[str] | None, *, allow_short: bool
) -> Key:
    if "k" not in jwk and not isinstance(value, str):
        raise KeyLoadError("its value is no text")
    try:
        secret = HMACAlgorithm.from_jwk({**jwk, "kty": "oct"}) if "k" in jwk else str(value).encode()
    except (InvalidKeyError, ValueError, TypeError):
        raise KeyLoadError("its k is no secret") from None
    return from_secret(secret, kid=kid, algorithms=algorithms, allow_short=allow_short)


def _numbers(jwk: Mapping[str, Any]) -> object:
    """The public key that a JWK spells out (RFC 7518 §6)."""
    try:
        return (RSAAlgorithm if jwk["kty"] == "RSA" else ECAlgorithm).from_jwk(dict(jwk))
    except (InvalidKeyError, ValueError, KeyError, TypeError):
        raise KeyLoadError("its numbers are no public key") from None


def _asymmetric(material: object, kid: str | None, algorithms: Iterable[str] | None) -> Key:
    if isinstance(material, RSAPublicKey):
        if material.key_size < _LEAST_RSA_BITS:
            raise KeyLoadError(f"an RSA key of {material.key_size} bits; {_LEAST_RSA_BITS} are the least")
        if material.key_size > _MOST_RSA_BITS:
            raise KeyLoadError(f"an RSA key of {material.key_size} bits; {_MOST_RSA_BITS} are the most")
        if material.public_numbers().n % 2 == 0:
            raise KeyLoadError("an RSA key whose modulus is even")
        fit = frozenset(_RSA)
    elif isinstance(material, EllipticCurvePublicKey) and material.curve.name in _CURVES:
        fit = frozenset({_CURVES[material.curve.name]})
    else:
        raise KeyLoadError("neither RSA nor a P-256 or P-384 key")
    wanted = fit if algorithms is None else frozenset(algorithms)
    if not wanted or not wanted <= fit:
        raise KeyLoadError("its algorithm does not fit its type")
    return Key(kid, wanted, symmetric=False, material=material)


def _alias(algorithm: object) -> str:
    """UAA writes Java's names for some algorithms."""
    names = {"SHA256withRSA": "RS256", "SHA512withRSA": "RS512", "HMACSHA256": "HS256", "HMACSHA512": "HS512"}
    return names.get(str(algorithm), str(algorithm))
