"""Token checks of the sandbox: RS256 and rotation as with a UAA, algorithms pinned by the key (controller.md §2)."""

from __future__ import annotations

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from gateway.sandbox.tokens import RSA_ALGORITHMS, Key, TokenChecker, hmac_checker
from gateway.sandbox.visibility import Principal

NOW = 1_800_000_000
SECRET = b"a symmetric key that is long enough for HS512, sixty-four bytes and some more"
GOOD = {
    "aud": ["cloud_controller"],
    "exp": NOW + 1,
    "jti": "one",
    "iss": "https://uaa.test/oauth/token",
    "user_id": "u",
}


@pytest.fixture(scope="module")
def pair():
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def public_pem(key):
    encoding, kind = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(encoding, kind).decode()


def test_rs256_by_the_key_in_force_when_the_token_is_shown(pair):
    keys = []
    checker = TokenChecker(lambda: keys, clock=lambda: NOW)
    token = jwt.encode(GOOD, pair, "RS256")
    assert checker(token) is None
    keys.append(Key(public_pem(pair), RSA_ALGORITHMS))
    assert checker(token) == GOOD
    keys.clear()
    assert checker(token) is None


def test_a_public_key_is_no_hmac_secret(pair):
    pem = public_pem(pair)
    head, _, rest = jwt.encode(GOOD, SECRET, "HS256").partition(".")
    checker = TokenChecker(lambda: [Key(pem, RSA_ALGORITHMS)], clock=lambda: NOW)
    assert checker(f"{head}.{rest}") is None


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_hmac_algorithms(algorithm):
    assert hmac_checker(SECRET, clock=lambda: NOW)(jwt.encode(GOOD, SECRET, algorithm)) == GOOD


@pytest.mark.parametrize(
    "change",
    [
        {"exp": NOW},
        {"exp": float(NOW + 10)},
        {"exp": str(NOW + 10)},
        {"aud": ["cf"]},
        {"aud": [["cloud_controller"]]},
        {"aud": {"cloud_controller": 1}},
        {"jti": "one-r"},
        {"jti": 5},
        {"iss": "https://other.test/oauth/token"},
    ],
    ids=str,
)
def test_what_is_refused(change):
    checker = hmac_checker(SECRET, GOOD["iss"], clock=lambda: NOW)
    assert checker(jwt.encode(GOOD, SECRET, "HS256")) == GOOD
    assert checker(jwt.encode(GOOD | change, SECRET, "HS256", sort_headers=True)) is None


@pytest.mark.parametrize(
    ("claims", "principal"),
    [
        ({"user_id": "u", "client_id": "cf", "scope": ["a"]}, Principal("u", True, frozenset({"a"}))),
        ({"client_id": "ops", "scope": []}, Principal("ops", False, frozenset())),
        ({"user_id": "u", "scope": "a"}, Principal("u", True, None)),
        ({"user_id": "", "client_id": "cf"}, None),
        ({}, None),
    ],
    ids=["user before client", "client", "scope is text", "empty user", "nobody"],
)
def test_who_a_token_names(claims, principal):
    assert Principal.of(claims) == principal
