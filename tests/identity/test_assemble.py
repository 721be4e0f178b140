from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import RSAAlgorithm

from gateway.core.claims import ClaimPolicy
from gateway.core.model import Principal
from gateway.identity.assemble import Identity
from gateway.identity.keys import KeyLoadError
from gateway.pipeline.ports import Rejected

PRIVATE = rsa.generate_private_key(65537, 2048)
PEM = PRIVATE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
JWK: dict[str, Any] = {**RSAAlgorithm.to_jwk(PRIVATE.public_key(), as_dict=True), "kid": "file"}
SECRET = "0123456789abcdef" * 4
POLICY = ClaimPolicy(None, frozenset({"cloud_controller"}))


class Hidden:
    def __init__(self, text: str) -> None:
        self._text = text

    def get_secret_value(self) -> str:
        return self._text


class Described:
    """One entry of `auth.keys`."""

    def __init__(self, **given: Any) -> None:
        self.url = self.secret = self.pem_file = self.jwks_file = self.kid = self.algorithms = None
        self.allow_short_secret = False
        self.refresh_interval = 60.0
        for name, value in given.items():
            setattr(self, name, value)


def secret(text: str = SECRET, **given: Any) -> Described:
    return Described(secret=Hidden(text), **given)


def jwks(folder: Path, *members: dict[str, Any]) -> Described:
    path = folder / "keys.json"
    path.write_text(json.dumps({"keys": members}))
    return Described(jwks_file=path)


def token(key: Any, algorithm: str, **headers: Any) -> str:
    claims = {"user_id": "u-1", "aud": ["cloud_controller"], "exp": int(time.time()) + 600}
    return jwt.encode(claims, key, algorithm=algorithm, headers=headers)


def test_keys_of_every_static_kind_work_side_by_side(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(PEM)
    keys = [secret(kid="mac"), jwks(tmp_path, JWK), Described(pem_file=tmp_path / "key.pem", kid="pem")]
    identity = Identity(keys, POLICY)
    for good in (token(SECRET, "HS256", kid="mac"), token(PRIVATE, "RS256", kid="pem"), token(PRIVATE, "RS256")):
        assert isinstance(identity.verify(good, time.time()), Principal)
    assert identity.fault is None
    assert identity.summary() == "3 loaded: mac, file, pem"


def test_static_keys_alone_never_ask_for_a_fetch() -> None:
    identity = Identity([secret(kid="mac")], POLICY)
    assert identity.verify(token(SECRET, "HS256", kid="other"), time.time()) == Rejected("signature")


def test_without_keys_there_is_a_fault() -> None:
    assert Identity((), POLICY).fault == "no keys"


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        pytest.param(({**JWK, "use": "enc"},), "file: its use is not sig", id="one bad key"),
        pytest.param(
            (JWK, {**JWK, "kid": "bad", "alg": "HS256"}), "bad: its algorithm does not fit", id="a bad one too"
        ),
        pytest.param((JWK, JWK), "its kid is not unique", id="a kid twice"),
        pytest.param((), "no keys", id="no key"),
    ],
)
def test_a_bad_key_in_a_file_is_a_fault_of_the_configuration(
    members: tuple[dict[str, Any], ...], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(KeyLoadError, match=r"keys\.json: .*" + reason):
        Identity([jwks(tmp_path, *members)], POLICY)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyLoadError, match=r"gone\.pem: No such file"):
        Identity([Described(pem_file=tmp_path / "gone.pem")], POLICY)


def test_a_short_secret_needs_an_explicit_word() -> None:
    with pytest.raises(KeyLoadError, match=r"^auth\.keys\[1\]\.secret: .* shorter than its hash") as caught:
        Identity([secret(), secret("tokensecret")], POLICY)
    assert "tokensecret" not in str(caught.value)
    assert Identity([secret("tokensecret", allow_short_secret=True)], POLICY).fault is None


def test_one_kid_in_two_static_sources_is_refused(tmp_path: Path) -> None:
    """The settings compare the kids they hold; only here those inside files are known."""
    with pytest.raises(KeyLoadError, match="several keys have the same kid: file"):
        Identity([secret(kid="file"), jwks(tmp_path, JWK)], POLICY)


def test_offline_checks_signatures_unless_the_keys_are_elsewhere() -> None:
    forged = token("x" * 64, "HS256")
    verifier, unchecked = Identity([secret()], POLICY).offline()
    assert not unchecked
    assert verifier.verify(forged, time.time()) == Rejected("signature")
    verifier, unchecked = Identity([Described(url="http://127.0.0.1:1/token_keys")], POLICY).offline()
    assert unchecked
    assert isinstance(verifier.verify(forged, time.time()), Principal)


def test_the_state_is_observable() -> None:
    seen: dict[str, Any] = {}
    identity = Identity([secret()], POLICY)
    identity.observe(lambda name, _help, read, *_label, **_merge: seen.update({name: read}))
    good = token(SECRET, "HS256")
    for text in (good, good, "garbage"):
        identity.verify(text, time.time())
    assert seen["gateway_auth_verifications_total"]() == {"accepted": 1, "malformed": 1}
    assert (seen["gateway_auth_memo_hits_total"](), seen["gateway_auth_memo_entries"](), seen["gateway_keys"]()) == (
        1,
        1,
        1,
    )
    assert seen["gateway_key_fetches_total"]() == {"ok": 0, "failed": 0, "shared": 0}
    assert seen["gateway_keys_age_seconds"]() == 0
