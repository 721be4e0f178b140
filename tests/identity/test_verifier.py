from __future__ import annotations

import base64
import hashlib
import hmac
import json
from functools import cache
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt.algorithms import RSAAlgorithm

from gateway.core.claims import ClaimPolicy
from gateway.core.model import Principal
from gateway.identity.keys import KeySet, from_pem, from_secret
from gateway.identity.verifier import Verifier, unverified
from gateway.pipeline.ports import KeyUnknown, Rejected

NOW = 1_700_000_000.0
ISSUER = "https://uaa.example.org/oauth/token"
POLICY = ClaimPolicy(ISSUER, frozenset({"cloud_controller"}))
SECRET = b"0123456789abcdef" * 4


@cache
def rsa_key(name: str = "uaa") -> rsa.RSAPrivateKey:
    del name
    return rsa.generate_private_key(65537, 2048)


@cache
def ec_key(curve: type[ec.EllipticCurve] = ec.SECP256R1) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(curve())


def pem(key: Any) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def claims(**changes: Any) -> dict[str, Any]:
    base = {
        "jti": "4b5f",
        "iss": ISSUER,
        "user_id": "u-1",
        "scope": ["cloud_controller.read"],
        "aud": ["cloud_controller"],
        "exp": int(NOW) + 60,
    }
    return {**base, **changes}


def encode(part: bytes | dict[str, Any]) -> str:
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def sign(header: bytes | dict[str, Any], payload: bytes | dict[str, Any], secret: bytes = SECRET) -> str:
    """A token by hand, signed with HS256 whatever its header says."""
    signed = f"{encode(header)}.{encode(payload)}"
    return f"{signed}.{encode(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


def make(*keys: Any, refetchable: bool = False, memo_entries: int = 100) -> Verifier:
    held = KeySet(tuple(keys))
    return Verifier(lambda: held, POLICY, refetchable=refetchable, max_token_bytes=16 * 1024, memo_entries=memo_entries)


HS = {"alg": "HS256", "typ": "JWT"}


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_hmac(algorithm: str) -> None:
    token = jwt.encode(claims(), SECRET, algorithm=algorithm)
    assert isinstance(make(from_secret(SECRET)).verify(token, NOW), Principal)


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"])
def test_rsa(algorithm: str) -> None:
    token = jwt.encode(claims(), rsa_key(), algorithm=algorithm)
    assert isinstance(make(from_pem(pem(rsa_key()))).verify(token, NOW), Principal)


@pytest.mark.parametrize(("algorithm", "curve"), [("ES256", ec.SECP256R1), ("ES384", ec.SECP384R1)])
def test_ecdsa(algorithm: str, curve: type[ec.EllipticCurve]) -> None:
    token = jwt.encode(claims(), ec_key(curve), algorithm=algorithm)
    assert isinstance(make(from_pem(pem(ec_key(curve)))).verify(token, NOW), Principal)


def deep(levels: int) -> bytes:
    return b'{"x":' + b"[" * levels + b"]" * levels + b"}"


def with_signature(token: str, signature: str) -> str:
    return f"{token.rpartition('.')[0]}.{signature}"


GOOD = sign(HS, claims())
HEAD, BODY, SIGNATURE = GOOD.split(".")
OTHER_RSA = RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 2048).public_key(), as_dict=True)


@pytest.mark.parametrize(
    ("token", "fault"),
    [
        pytest.param(sign({"alg": "none"}, claims()), "algorithm", id="none"),
        pytest.param(sign({"alg": "NONE"}, claims()), "algorithm", id="NONE"),
        pytest.param(sign({"alg": None}, claims()), "algorithm", id="alg null"),
        pytest.param(sign({"typ": "JWT"}, claims()), "algorithm", id="no alg"),
        pytest.param(sign({"alg": ["HS256"]}, claims()), "algorithm", id="alg a list"),
        pytest.param(f"{encode({'alg': 'none'})}.{BODY}.", "malformed", id="none without signature"),
        pytest.param(sign({"alg": "ES256K"}, claims()), "algorithm", id="ES256K"),
        pytest.param(sign({"alg": "EdDSA"}, claims()), "algorithm", id="EdDSA"),
        pytest.param(sign({"alg": "HS512"}, claims()), "signature", id="recording auth-022 another hash claimed"),
        pytest.param(sign({**HS, "crit": ["exp"]}, claims()), "critical-extension", id="CVE-2026-32597 crit"),
        pytest.param(sign({**HS, "crit": []}, claims()), "critical-extension", id="CVE-2026-32597 empty crit"),
        pytest.param(sign({**HS, "b64": False}, claims()), "critical-extension", id="RFC 7797 b64"),
        pytest.param(sign({**HS, "kid": 7}, claims()), "malformed", id="kid a number"),
        pytest.param(sign({**HS, "typ": "JOSE"}, claims()), "type", id="another type"),
        pytest.param(sign(b'{"alg":"none","alg":"HS256"}', claims()), "malformed", id="alg twice"),
        pytest.param(sign(HS, b'{"exp":1,"exp":99999999999}'), "malformed", id="duplicated claims"),
        pytest.param(sign(HS, b'{"exp":NaN}'), "malformed", id="NaN"),
        pytest.param(sign(HS, b'{"exp":Infinity}'), "malformed", id="Infinity"),
        pytest.param(sign(HS, b"[]"), "malformed", id="payload a list"),
        pytest.param(sign(HS, b'{"user_id":"\\ud800"}'), "malformed", id="RFC 8259 §8.2 half a surrogate pair"),
        pytest.param(sign(HS, b"\xff"), "malformed", id="payload not UTF-8"),
        pytest.param(sign(HS, b"not json"), "malformed", id="recording auth-041 payload not JSON"),
        pytest.param(sign(HS, deep(40)), "malformed", id="deep JSON"),
        pytest.param(sign(HS, deep(5000)), "malformed", id="very deep JSON"),
        pytest.param(sign(HS, claims(exp=str(int(NOW) + 60))), "exp-not-integer", id="exp as text"),
        pytest.param(sign(HS, claims(exp=int(NOW))), "expired", id="recording auth-018 exp just passed"),
        pytest.param(sign(HS, claims(jti="x-r")), "refresh-token", id="a refresh token"),
        pytest.param(sign(HS, claims(), b"another secret of thirty-two byte"), "signature", id="wrong signature"),
        pytest.param(f"{HEAD}.{encode(claims(user_id='admin'))}.{SIGNATURE}", "signature", id="payload exchanged"),
        pytest.param(f"{HEAD}.{BODY}", "malformed", id="two parts"),
        pytest.param(f"{GOOD}.{SIGNATURE}", "malformed", id="four parts"),
        pytest.param(f"{HEAD}=.{BODY}.{SIGNATURE}", "malformed", id="padding inside a segment"),
        pytest.param(f"{GOOD}=", "malformed", id="padding at the end"),
        pytest.param(f"{HEAD}.{BODY}.", "malformed", id="empty signature"),
        pytest.param(f".{BODY}.{SIGNATURE}", "malformed", id="empty header"),
        pytest.param(f"{GOOD}\n", "malformed", id="newline behind"),
        pytest.param(GOOD.replace(".", "\uff0e"), "malformed", id="unicode twin of the dot"),
        pytest.param("a" * 8000, "malformed", id="recording auth-042 8 KB of nothing"),
        pytest.param(sign(HS, claims(pad="x" * 1_000_000)), "too-long", id="1 MB token"),
    ],
)
def test_refused(token: str, fault: str) -> None:
    verdict = make(from_secret(SECRET)).verify(token, NOW)
    assert isinstance(verdict, Rejected)
    assert verdict.fault == fault


def test_a_token_of_12_kb_is_accepted() -> None:
    assert isinstance(make(from_secret(SECRET)).verify(sign(HS, claims(pad="x" * 9000)), NOW), Principal)


def test_stray_bits_in_the_last_character_are_refused() -> None:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    twins = [with_signature(GOOD, SIGNATURE[:-1] + character) for character in alphabet]
    accepted = [twin for twin in twins if isinstance(make(from_secret(SECRET)).verify(twin, NOW), Principal)]
    assert accepted == [GOOD]


@pytest.mark.parametrize(
    "secret",
    [pem(rsa_key()), pem(rsa_key()).strip(), rsa_key().public_key().public_bytes(Encoding.DER, PublicFormat.PKCS1)],
    ids=["PEM", "PEM stripped", "DER"],
)
def test_cve_2022_29217_cve_2026_39999_a_public_key_is_no_hmac_secret(secret: bytes) -> None:
    forged = sign(HS, claims(scope=["cloud_controller.admin"]), secret)
    verdict = make(from_pem(pem(rsa_key()))).verify(forged, NOW)
    assert verdict == Rejected("signature")


@pytest.mark.parametrize("name", ["jwk", "jku", "x5u", "x5c", "x5t", "x5t#S256"])
def test_cve_2018_0114_keys_that_a_token_brings_are_not_looked_at(name: str) -> None:
    attacker = rsa_key("attacker")
    brought = OTHER_RSA if name == "jwk" else "https://attacker.example.org/keys"
    forged = jwt.encode(claims(), attacker, algorithm="RS256", headers={name: brought})
    assert make(from_pem(pem(rsa_key()))).verify(forged, NOW) == Rejected("signature")
    honest = jwt.encode(claims(), rsa_key(), algorithm="RS256", headers={name: brought})
    assert isinstance(make(from_pem(pem(rsa_key()))).verify(honest, NOW), Principal)


def test_a_signature_by_another_curve_is_refused() -> None:
    token = jwt.encode(claims(), ec_key(ec.SECP384R1), algorithm="ES384")
    assert make(from_pem(pem(ec_key()))).verify(token, NOW) == Rejected("signature")


@pytest.mark.parametrize("kid", ["../../etc/passwd", "' or 1=1 --", "\x00", "x" * 5000])
def test_a_strange_kid_is_just_unknown(kid: str) -> None:
    token = jwt.encode(claims(), SECRET, algorithm="HS256", headers={"kid": kid})
    keyed = from_secret(SECRET, kid="known")
    assert make(keyed).verify(token, NOW) == Rejected("signature")
    assert make(keyed, refetchable=True).verify(token, NOW) == KeyUnknown(kid)


@pytest.mark.parametrize("algorithm", ["none", "ES256K", "EdDSA", "ES512"])
def test_an_algorithm_that_no_key_could_have_asks_for_no_fetch(algorithm: str) -> None:
    token = sign({"alg": algorithm, "kid": "new"}, claims())
    assert make(from_secret(SECRET, kid="known"), refetchable=True).verify(token, NOW) == Rejected("algorithm")


def test_a_kid_finds_its_key_among_any_number_without_one() -> None:
    nameless = [from_secret(b"%064d" % number) for number in range(20)]
    token = jwt.encode(claims(), SECRET, algorithm="HS256", headers={"kid": "named"})
    assert isinstance(make(*nameless, from_secret(SECRET, kid="named")).verify(token, NOW), Principal)


def test_a_known_kid_with_a_bad_signature_asks_for_no_fetch() -> None:
    token = jwt.encode(claims(), b"x" * 64, algorithm="HS256", headers={"kid": "known"})
    assert make(from_secret(SECRET, kid="known"), refetchable=True).verify(token, NOW) == Rejected("signature")


def test_a_token_without_kid_asks_for_no_fetch() -> None:
    token = jwt.encode(claims(), b"x" * 64, algorithm="HS256")
    assert make(from_secret(SECRET, kid="known"), refetchable=True).verify(token, NOW) == Rejected("signature")


def test_envoy_13705_without_any_key_no_token_is_called_bad() -> None:
    token = jwt.encode(claims(), SECRET, algorithm="HS256")
    assert make(refetchable=True).verify(token, NOW) == KeyUnknown(None)
    assert make().verify(token, NOW) == Rejected("signature")


def test_a_token_without_kid_is_tried_with_each_key() -> None:
    keys = (from_pem(pem(rsa_key("old")), kid="old"), from_pem(pem(rsa_key()), kid="new"))
    token = jwt.encode(claims(), rsa_key(), algorithm="RS256")
    assert isinstance(make(*keys).verify(token, NOW), Principal)


class Held:
    """Keys that a test exchanges."""

    def __init__(self, *keys: Any) -> None:
        self.keys = KeySet(tuple(keys))

    def verifier(self, memo_entries: int = 100) -> Verifier:
        return Verifier(
            lambda: self.keys, POLICY, refetchable=False, max_token_bytes=1 << 14, memo_entries=memo_entries
        )


def test_the_memo_rechecks_exp() -> None:
    verifier = make(from_secret(SECRET))
    assert isinstance(verifier.verify(GOOD, NOW), Principal)
    assert isinstance(verifier.verify(GOOD, NOW + 59), Principal)
    assert verifier.memo_hits == 1
    assert verifier.verify(GOOD, NOW + 60) == Rejected("expired")


@pytest.mark.parametrize("later", [0, 1, 5], ids=["young", "old", "forgotten"])
def test_the_memo_is_dropped_when_keys_change(later: int) -> None:
    held = Held(from_secret(SECRET))
    verifier = held.verifier(memo_entries=2)
    verifier.verify(GOOD, NOW)
    for number in range(later):
        verifier.verify(sign(HS, claims(jti=str(number))), NOW)
    held.keys = KeySet((from_secret(b"y" * 64),))
    assert verifier.verify(GOOD, NOW) == Rejected("signature")
    assert len(verifier) == 0


def test_the_memo_is_bounded() -> None:
    verifier = make(from_secret(SECRET), memo_entries=10)
    for number in range(50):
        verifier.verify(sign(HS, claims(jti=str(number))), NOW)
    assert 5 <= len(verifier) <= 10


def test_the_memo_keeps_what_is_in_use() -> None:
    verifier = make(from_secret(SECRET), memo_entries=10)
    for number in range(200):
        assert isinstance(verifier.verify(GOOD, NOW), Principal)
        verifier.verify(sign(HS, claims(jti=str(number))), NOW)
    assert verifier.memo_hits == 199


def test_refusals_are_not_remembered() -> None:
    verifier = make(from_secret(SECRET))
    for number in range(50):
        verifier.verify(sign(HS, claims(), f"wrong {number}".encode()), NOW)
    assert len(verifier) == 0


@given(position=st.integers(0, len(GOOD) - 1), character=st.sampled_from("AZaz09-_."))
@settings(max_examples=300, deadline=None)
def test_cve_2026_35039_the_memo_is_keyed_by_the_whole_token(position: int, character: str) -> None:
    verifier = make(from_secret(SECRET))
    assert isinstance(verifier.verify(GOOD, NOW), Principal)
    twin = GOOD[:position] + character + GOOD[position + 1 :]
    assert isinstance(verifier.verify(twin, NOW), Principal) == (twin == GOOD)


@given(st.text(max_size=300) | st.from_regex(r"[A-Za-z0-9_-]{1,40}\.[A-Za-z0-9_-]{1,40}\.[A-Za-z0-9_-]{1,40}"))
@settings(max_examples=200, deadline=None)
def test_no_text_is_more_than_refused(text: str) -> None:
    assert isinstance(make(from_secret(SECRET)).verify(text, NOW), Rejected)


def test_unverified_judges_claims_for_explain() -> None:
    token = jwt.encode(claims(), rsa_key(), algorithm="RS256", headers={"kid": "k"})
    assert isinstance(unverified(token, POLICY, NOW), Principal)
    assert unverified(token, POLICY, NOW + 60) == Rejected("expired")
    assert unverified("x", POLICY, NOW) == Rejected("malformed")


# -- refusals that are remembered


def test_a_refused_signature_is_judged_once_and_again_with_other_keys(monkeypatch) -> None:
    sets = [KeySet((from_secret(SECRET),)), KeySet((from_secret(b"another secret" * 4),))]
    current = [sets[1]]
    judge = Verifier(lambda: current[0], POLICY, refetchable=False, max_token_bytes=16384, memo_entries=10)
    asked = []
    verify = Verifier._verify
    monkeypatch.setattr(Verifier, "_verify", lambda self, *rest: asked.append(rest) or verify(self, *rest))
    token = jwt.encode(claims(), SECRET, "HS256")
    assert [judge.verify(token, NOW) for _ in range(3)] == [Rejected("signature")] * 3
    assert (len(asked), judge.results["signature"]) == (1, 3), "counted each time, judged once"
    current[0] = sets[0]
    assert isinstance(judge.verify(token, NOW), Principal)


def test_an_expired_token_is_judged_anew_when_the_clock_goes_back() -> None:
    judge = make(from_secret(SECRET))
    token = jwt.encode(claims(), SECRET, "HS256")
    assert judge.verify(token, NOW + 60) == judge.verify(token, NOW + 61) == Rejected("expired")
    assert isinstance(judge.verify(token, NOW), Principal)


def test_refusals_that_time_may_undo_and_unknown_keys_are_not_remembered() -> None:
    judge = make(refetchable=True)
    assert isinstance(judge.verify(jwt.encode(claims(), SECRET, "HS256", {"kid": "x"}), NOW), KeyUnknown)
    judge.verify("garbage", NOW)
    assert judge._refused == {}


def test_forged_tokens_without_end_take_a_bounded_place() -> None:
    judge = make(from_secret(SECRET))
    for number in range(1500):
        judge.verify(jwt.encode(claims(jti=str(number)), b"another secret" * 4, "HS256"), NOW)
        assert 0 < len(judge._refused) <= 512
    judge.verify(jwt.encode(claims(pad="x" * 5000), b"another secret" * 4, "HS256"), NOW)
    assert all(len(token) <= 4096 for token in judge._refused)
