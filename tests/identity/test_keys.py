from __future__ import annotations

import base64
import json
from functools import cache
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from gateway.identity.keys import KeyLoadError, KeySet, from_pem, from_secret, parse_set

LONG = b"0123456789abcdef" * 4


@cache
def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


@cache
def ec_key(curve: type[ec.EllipticCurve] = ec.SECP256R1) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(curve())


def pem(key: Any) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def rsa_jwk(bits: int = 2048, **changes: Any) -> dict[str, Any]:
    return {**RSAAlgorithm.to_jwk(rsa_key(bits).public_key(), as_dict=True), "kid": "rsa", **changes}


def ec_jwk(curve: type[ec.EllipticCurve] = ec.SECP256R1, **changes: Any) -> dict[str, Any]:
    return {**ECAlgorithm.to_jwk(ec_key(curve).public_key(), as_dict=True), "kid": "ec", **changes}


def oct_jwk(secret: bytes = LONG, **changes: Any) -> dict[str, Any]:
    return {"kty": "oct", "k": base64.urlsafe_b64encode(secret).rstrip(b"=").decode(), "kid": "mac", **changes}


def load(*members: Any, symmetric: bool = True) -> KeySet:
    return parse_set(json.dumps({"keys": members}).encode(), allow_symmetric=symmetric)


@pytest.mark.parametrize(
    ("member", "algorithms"),
    [
        pytest.param(rsa_jwk(), {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}, id="RSA"),
        pytest.param(rsa_jwk(alg="RS256", use="sig"), {"RS256"}, id="RSA pinned by its alg"),
        pytest.param(rsa_jwk(alg="SHA256withRSA"), {"RS256"}, id="UAA's old name"),
        pytest.param(ec_jwk(), {"ES256"}, id="P-256"),
        pytest.param(ec_jwk(ec.SECP384R1), {"ES384"}, id="P-384"),
        pytest.param(oct_jwk(), {"HS256", "HS384", "HS512"}, id="oct"),
        pytest.param(oct_jwk(LONG[:32]), {"HS256"}, id="RFC 7518 §3.2 only hashes that fit"),
        pytest.param({"kty": "MAC", "value": LONG.decode(), "alg": "HMACSHA256"}, {"HS256"}, id="UAA's MAC key"),
        pytest.param({"kty": "RSA", "value": pem(rsa_key()).decode(), "kid": "p"}, None, id="UAA's PEM alone"),
        pytest.param(rsa_jwk(key_ops=["verify"]), None, id="key_ops verify"),
    ],
)
def test_loaded(member: dict[str, Any], algorithms: set[str] | None) -> None:
    keys = load(member)
    assert keys.refused == ()
    assert len(keys.keys) == 1
    if algorithms is not None:
        assert keys.keys[0].algorithms == algorithms


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        pytest.param(rsa_jwk(use="enc"), "use is not sig", id="use"),
        pytest.param(rsa_jwk(key_ops=["encrypt"]), "key_ops lack verify", id="key_ops"),
        pytest.param(rsa_jwk(key_ops="verify"), "key_ops lack verify", id="key_ops not a list"),
        pytest.param(rsa_jwk(1024), "1024 bits", id="RSA-1024"),
        pytest.param(rsa_jwk(alg="HS256"), "does not fit", id="CVE-2022-29217 an RSA key for HMAC"),
        pytest.param(rsa_jwk(alg="none"), "does not fit", id="none"),
        pytest.param(ec_jwk(alg="RS256"), "does not fit", id="EC key for RSA"),
        pytest.param(ec_jwk(ec.SECP521R1), "P-256 or P-384", id="another curve"),
        pytest.param({**rsa_jwk(), "d": "AQAB"}, "private key", id="private"),
        pytest.param(oct_jwk(b"short"), "shorter than its hash", id="short secret"),
        pytest.param(oct_jwk(alg="RS256"), "HS256", id="a secret for RSA"),
        pytest.param({"kty": "OKP", "crv": "Ed25519", "x": "AA"}, "kty is not", id="EdDSA"),
        pytest.param({"kty": "RSA", "n": "!!", "e": "AQAB"}, "no public key", id="garbage numbers"),
        pytest.param({"kty": "RSA", "value": "not pem"}, "not a public key", id="garbage PEM"),
        pytest.param(rsa_jwk(kid=7), "kid is not a string", id="kid is a number"),
        pytest.param("text", "not an object", id="not an object"),
        pytest.param(rsa_jwk(kty=["RSA"]), "kty is not", id="kty is a list"),
        pytest.param(rsa_jwk(kty={"RSA": 1}), "kty is not", id="kty is an object"),
        pytest.param({"kty": "RSA", "value": pem(ec_key()).decode()}, "not of its kty", id="an EC key called RSA"),
        pytest.param({"kty": "MAC", "value": ""}, "shorter than its hash", id="an empty secret"),
    ],
)
def test_refused_with_its_reason(member: Any, reason: str) -> None:
    keys = load(member, ec_jwk(kid="good"))
    assert [key.kid for key in keys.keys] == ["good"], "one bad key does not take the good ones along"
    assert reason in keys.refused[0][1]


def test_a_shared_secret_from_a_public_place_is_refused() -> None:
    keys = load(oct_jwk(), symmetric=False)
    assert keys.keys == ()
    assert "no secret" in keys.refused[0][1]


def test_duplicate_kids_are_both_refused() -> None:
    keys = load(rsa_jwk(kid="same"), ec_jwk(kid="same"), ec_jwk(ec.SECP384R1, kid="other"))
    assert [key.kid for key in keys.keys] == ["other"]
    assert [reason for _, reason in keys.refused] == ["its kid is not unique"] * 2


def test_cve_2022_29217_a_secret_among_public_keys_is_refused() -> None:
    keys = load(rsa_jwk(), oct_jwk())
    assert [key.kid for key in keys.keys] == ["rsa"]
    assert keys.refused == (("mac", "a shared secret among public keys"),)


@pytest.mark.parametrize("document", [b"", b"[]", b"null", b'{"keys":{}}', b"{}", b"[" * 100_000, b"\xff"])
def test_what_is_no_key_set_is_told(document: bytes) -> None:
    with pytest.raises(KeyLoadError, match="not a key set"):
        parse_set(document, allow_symmetric=True)


def test_a_key_set_without_end_is_refused() -> None:
    document = json.dumps({"keys": [oct_jwk(kid=str(number)) for number in range(101)]}).encode()
    with pytest.raises(KeyLoadError, match="101 keys"):
        parse_set(document, allow_symmetric=True)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
NAMES = ["kty", "kid", "alg", "use", "key_ops", "value", "n", "e", "crv", "x", "y", "k"]


@given(st.sampled_from([rsa_jwk(), ec_jwk(), oct_jwk()]), st.dictionaries(st.sampled_from(NAMES), JSON, max_size=3))
@settings(max_examples=150, deadline=None)
def test_no_member_is_more_than_refused(good: dict[str, Any], changes: dict[str, Any]) -> None:
    """Whatever a key server writes, its other keys stay usable: anything but a refusal would end the refreshing."""
    assert (
        "witness" in [key.kid for key in load({**good, **changes}, ec_jwk(kid="witness")).keys]
        or changes.get("kid") == "witness"
    )


def test_an_empty_secret_is_refused_even_where_short_ones_are_allowed() -> None:
    for member in ({"kty": "MAC", "value": ""}, {"kty": "MAC"}, {"kty": "oct", "k": ""}):
        document = json.dumps({"keys": [member]}).encode()
        assert parse_set(document, allow_symmetric=True, allow_short=True).keys == ()


def test_pem_files() -> None:
    assert from_pem(pem(rsa_key()), kid="k").kid == "k"
    assert from_pem(pem(ec_key())).algorithms == {"ES256"}
    with pytest.raises(KeyLoadError, match="private"):
        from_pem(rsa_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(KeyLoadError, match="neither RSA nor"):
        from_pem(pem(ed25519.Ed25519PrivateKey.generate()))
    with pytest.raises(KeyLoadError, match="not fit"):
        from_pem(pem(rsa_key()), algorithms=["ES256"])


def test_secrets() -> None:
    with pytest.raises(KeyLoadError, match="shorter"):
        from_secret(b"tokensecret")
    assert "HS256" in from_secret(b"tokensecret", allow_short=True).algorithms
    with pytest.raises(KeyLoadError, match="HS256"):
        from_secret(LONG, algorithms=["RS256"])
    with pytest.raises(KeyLoadError):
        from_secret(pem(rsa_key()))


def test_a_key_verifies_by_its_own_algorithms_alone() -> None:
    key = from_pem(pem(rsa_key()), algorithms=["RS256"])
    signed, _, signature = jwt.encode({}, rsa_key(), algorithm="RS256").rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    assert key.verifies("RS256", signed.encode(), raw)
    assert not key.verifies("RS512", signed.encode(), raw)
    assert not key.verifies("HS256", signed.encode(), raw)


def test_keys_hide_their_material() -> None:
    assert "tokensecret" not in repr(from_secret(b"tokensecret", allow_short=True))
