"""Attacks upon signed tokens, each named by an advisory of its class: none makes a principal, or learns more than no.

Two verifiers are attacked: one that trusts public keys (RSA, P-256, P-384), one that trusts a shared secret. The
attacker knows everything public: the keys, their ids, good tokens of others, and the gateway's source.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from functools import cache
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from gateway.core.cf_routes import CLOUD_FOUNDRY
from gateway.core.claims import ClaimPolicy
from gateway.core.model import Fields, Principal, RequestHead, Target
from gateway.identity.keys import KeyLoadError, KeySet, from_jwk, from_pem, from_secret, parse_set
from gateway.identity.verifier import Verifier
from gateway.pipeline.decide import Policy, decide
from gateway.pipeline.exchange import Exchange, Reply
from gateway.pipeline.ports import KeyUnknown, Rejected
from gateway.store.memory import MemoryStore

NOW = 1_700_000_000.0
ISSUER = "https://uaa.example.org/oauth/token"
POLICY = ClaimPolicy(ISSUER, frozenset({"cloud_controller"}))
SECRET = b"0123456789abcdef" * 4
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@cache
def rsa_key(name: str) -> rsa.RSAPrivateKey:
    del name
    return rsa.generate_private_key(65537, 2048)


@cache
def ec_key(name: str, curve: type[ec.EllipticCurve] = ec.SECP256R1) -> ec.EllipticCurvePrivateKey:
    del name
    return ec.generate_private_key(curve())


def public_pem(key: Any, form: PublicFormat = PublicFormat.SubjectPublicKeyInfo) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, form)


def claims(**changes: Any) -> dict[str, Any]:
    base = {
        "jti": "4b5f",
        "iss": ISSUER,
        "user_id": "u-1",
        "client_id": "cf",
        "zid": "uaa",
        "scope": ["cloud_controller.admin"],
        "aud": ["cloud_controller"],
        "exp": int(NOW) + 60,
    }
    return {name: value for name, value in {**base, **changes}.items() if value is not ...}


def encode(part: bytes | str | dict[str, Any]) -> str:
    raw = part if isinstance(part, bytes) else part.encode() if isinstance(part, str) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def mac(header: Any, payload: Any, secret: bytes = SECRET, hashed: Any = hashlib.sha256) -> str:
    """A token signed with HMAC, whatever its header says."""
    signed = f"{encode(header)}.{encode(payload)}"
    return f"{signed}.{encode(hmac.digest(secret, signed.encode(), hashed))}"


def rs(header: Any, payload: Any, key: rsa.RSAPrivateKey | None = None) -> str:
    """A token signed with RSASSA-PKCS1-v1_5 and SHA-256, whatever its header says."""
    signed = f"{encode(header)}.{encode(payload)}"
    signature = (key or rsa_key("uaa")).sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{signed}.{encode(signature)}"


def es(
    header: Any, payload: Any, key: ec.EllipticCurvePrivateKey, change: Callable[[int, int], tuple[int, int]]
) -> str:
    """A token signed with ECDSA and SHA-256, whatever its header says; r and s as `change` makes them."""
    signed = f"{encode(header)}.{encode(payload)}"
    r, s = change(*decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256()))))
    size = (key.curve.key_size + 7) // 8
    return f"{signed}.{encode(r.to_bytes(size, 'big') + s.to_bytes(size, 'big'))}"


def forged(header: Any, signature: str = "AA", payload: Any = None) -> str:
    return f"{encode(header)}.{encode(claims() if payload is None else payload)}.{signature}"


RS: dict[str, Any] = {"alg": "RS256", "kid": "rsa-1", "typ": "JWT"}
ES: dict[str, Any] = {"alg": "ES256", "kid": "ec-1", "typ": "JWT"}
HS: dict[str, Any] = {"alg": "HS256", "typ": "JWT"}
PEM = public_pem(rsa_key("uaa"))
ATTACKER = rsa_key("attacker")
ATTACKER_JWK = RSAAlgorithm.to_jwk(ATTACKER.public_key(), as_dict=True)
EC_PEM = public_pem(ec_key("uaa"))
GOOD_RS = rs(RS, claims())
GOOD_HS = mac(HS, claims())
GOOD_ES = es(ES, claims(), ec_key("uaa"), lambda r, s: (r, s))
HEAD, BODY, SIGNATURE = GOOD_RS.split(".")
SIGNED_ES = f"{encode(ES)}.{encode(claims())}"
DER = ec_key("uaa").sign(SIGNED_ES.encode(), ec.ECDSA(hashes.SHA256()))
SHORT_PADDING = b"\x00\x01\xff\xff\xff\x00" + hashlib.sha256(f"{HEAD}.{BODY}".encode()).digest() + bytes(218)


def public_keys() -> KeySet:
    return KeySet(
        (
            from_pem(PEM, kid="rsa-1"),
            from_pem(EC_PEM, kid="ec-1"),
            from_pem(public_pem(ec_key("uaa-384", ec.SECP384R1)), kid="ec-2"),
        )
    )


def make(keys: KeySet, *, refetchable: bool = False) -> Verifier:
    return Verifier(lambda: keys, POLICY, refetchable=refetchable, max_token_bytes=16 * 1024, memo_entries=100)


def same(r: int, s: int) -> tuple[int, int]:
    return r, s


def deep(levels: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    return b'{"x":' + opening * levels + closing * levels + b"}"


def raw_claims(extra: str) -> bytes:
    """Good claims as text, with members behind them that a dictionary could not hold."""
    return (json.dumps(claims())[:-1] + extra + "}").encode()


def psychic(curve_bytes: int, r: int, s: int) -> str:
    return encode(r.to_bytes(curve_bytes, "big") + s.to_bytes(curve_bytes, "big"))


# Each: what the attacker sends, and the fault that the log and the metric name.
UNSIGNED: dict[str, tuple[str, str]] = {
    # CVE-2015-9235 (jsonwebtoken), CVE-2021-22160 (Pulsar): the algorithm "none"
    **{
        f"CVE-2015-9235 alg {name!r}": (forged({"alg": name}), "algorithm") for name in ("none", "None", "NONE", "nOnE")
    },
    "CVE-2015-9235 alg none and no signature": (forged({"alg": "none"}, ""), "malformed"),
    "CVE-2015-9235 alg none with the old signature": (f"{encode({'alg': 'none'})}.{BODY}.{SIGNATURE}", "algorithm"),
    "CVE-2021-22160 alg null": (forged({"alg": None}), "algorithm"),
    "CVE-2021-22160 no alg": (forged({"typ": "JWT"}), "algorithm"),
    "CVE-2021-22160 alg empty": (forged({"alg": ""}), "algorithm"),
    **{
        f"RFC 8725 §3.1 alg is {name!r}": (forged({"alg": name}), "algorithm")
        for name in (0, True, ["RS256"], {"a": 1})
    },
    **{
        f"RFC 8725 §3.1 alg {name!r}": (forged({**RS, "alg": name}, SIGNATURE), "algorithm")
        for name in ("rs256", "RS256 ")
    },
    **{
        f"RFC 8725 §3.1 alg {name}": (forged({"alg": name}), "algorithm")
        for name in ("EdDSA", "ES256K", "ES512", "dir")
    },
    "unicode twin of RS256": (rs({**RS, "alg": "\uff32\uff33256"}, claims()), "algorithm"),
    "unicode twin of the member alg": (forged({"\uff41lg": "none", "alg": "RS256", "kid": "rsa-1"}), "signature"),
    # CVE-2022-29217, CVE-2017-11424 (PyJWT), CVE-2026-39999 (APISIX), CVE-2023-48238, CVE-2024-33663: the public key,
    # which everybody has, taken for a secret
    "CVE-2022-29217 PEM as secret": (mac({**RS, "alg": "HS256"}, claims(), PEM), "signature"),
    "CVE-2022-29217 PEM stripped": (mac({**RS, "alg": "HS256"}, claims(), PEM.strip()), "signature"),
    "CVE-2022-29217 PEM without kid": (mac(HS, claims(), PEM), "signature"),
    "CVE-2026-39999 HS384": (mac({**RS, "alg": "HS384"}, claims(), PEM, hashlib.sha384), "signature"),
    "CVE-2026-39999 HS512": (mac({**RS, "alg": "HS512"}, claims(), PEM, hashlib.sha512), "signature"),
    "CVE-2017-11424 PKCS#1 PEM": (mac(HS, claims(), public_pem(rsa_key("uaa"), PublicFormat.PKCS1)), "signature"),
    "CVE-2023-48238 EC PEM": (mac({**ES, "alg": "HS256"}, claims(), EC_PEM), "signature"),
    "CVE-2024-33663 OpenSSH": (
        mac(HS, claims(), ec_key("uaa").public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)),
        "signature",
    ),
    "CVE-2022-29217 DER": (
        mac(HS, claims(), rsa_key("uaa").public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)),
        "signature",
    ),
    "CVE-2022-29217 modulus": (
        mac(HS, claims(), rsa_key("uaa").public_key().public_numbers().n.to_bytes(256, "big")),
        "signature",
    ),
    "CVE-2019-20933 an empty secret": (mac(HS, claims(), b""), "signature"),
    # CVE-2018-0114 (node-jose): a key that the token brings, or says where to find
    "CVE-2018-0114 jwk": (rs({**RS, "jwk": ATTACKER_JWK}, claims(), ATTACKER), "signature"),
    "CVE-2018-0114 jwk and its kid": (
        rs({**RS, "kid": "a", "jwk": {**ATTACKER_JWK, "kid": "a"}}, claims(), ATTACKER),
        "signature",
    ),
    **{
        f"CVE-2018-0114 {name}": (rs({**RS, name: brought}, claims(), ATTACKER), "signature")
        for name, brought in (
            ("jku", "https://attacker.example.org/token_keys"),
            ("jku ", "https://uaa.example.org@attacker.example.org/token_keys"),
            ("x5u", "https://attacker.example.org/cert.pem"),
            ("x5c", [base64.b64encode(public_pem(ATTACKER)).decode()]),
            ("x5t", "AAAA"),
            ("x5t#S256", "AAAA"),
            ("epk", ATTACKER_JWK),
        )
    },
    "CVE-2018-0114 jku at the metadata service": (
        rs({**RS, "kid": "n", "jku": "http://169.254.169.254/latest"}, claims(), ATTACKER),
        "signature",
    ),
    # the class of kid injection: path, SQL, command, NUL, another key's id
    **{
        f"kid injection {kid[:24]!r}": (mac({**HS, "kid": kid}, claims(), secret), "signature")
        for kid, secret in (
            ("../../../../dev/null", b""),
            ("/proc/sys/kernel/randomize_va_space", b"2\n"),
            ("x' UNION SELECT 'attacker';--", b"attacker"),
            ("rsa-1|/usr/bin/id", b""),
            ("rsa-1\x00", b""),
            ("\x00", b""),
            ("rsa-1 ", b""),
            ("RSA-1", b""),
            ("https://attacker.example.org/key", b""),
        )
    },
    **{
        f"kid is {kid!r}": (rs({**RS, "kid": kid}, claims()), "malformed")
        for kid in (7, True, ["rsa-1"], {"kid": "rsa-1"})
    },
    "kid of another type of key": (rs({**RS, "kid": "ec-1"}, claims()), "signature"),
    "kid of another key": (es({**ES, "kid": "ec-2"}, claims(), ec_key("uaa"), same), "signature"),
    # CVE-2026-32597 (PyJWT), RFC 7515 §4.1.11, RFC 7797
    **{
        f"CVE-2026-32597 crit {crit!r}": (rs({**RS, "crit": crit}, claims()), "critical-extension")
        for crit in (["exp"], ["b64"], [], None, "exp", ["cnf"], ["alg"], {})
    },
    "RFC 7797 b64 false": (rs({**RS, "b64": False}, claims()), "critical-extension"),
    "RFC 7797 b64 false and crit": (rs({**RS, "b64": False, "crit": ["b64"]}, claims()), "critical-extension"),
    "RFC 7797 b64 true": (rs({**RS, "b64": True}, claims()), "critical-extension"),
    "RFC 7797 payload not encoded": (f"{HEAD}.{json.dumps(claims())}.{SIGNATURE}", "malformed"),
    # typ and cty: RFC 8725 §3.11, another kind of token by the same issuer
    **{
        f"RFC 8725 §3.11 typ {kind!r}": (rs({**RS, "typ": kind}, claims()), "type")
        for kind in (
            "logout+jwt",
            "secevent+jwt",
            "dpop+jwt",
            "JOSE",
            "JWE",
            "",
            "id+jwt",
            ["JWT"],
            1,
            "JWT\u0000",
            "\u212aWT",
        )
    },
    "RFC 8725 §2.5 a nested token": (rs({**RS, "cty": "JWT"}, GOOD_RS), "malformed"),
    # CVE-2022-21449 (Java): nothing, signed by nobody
    "CVE-2022-21449 r 0 s 0": (forged(ES, psychic(32, 0, 0)), "signature"),
    "CVE-2022-21449 r n s n": (forged(ES, psychic(32, P256_ORDER, P256_ORDER)), "signature"),
    "CVE-2022-21449 r 1 s 0": (forged(ES, psychic(32, 1, 0)), "signature"),
    "CVE-2022-21449 r 0 s 1": (forged(ES, psychic(32, 0, 1)), "signature"),
    "CVE-2022-21449 s beyond the order": (es(ES, claims(), ec_key("uaa"), lambda r, _: (r, 2**256 - 1)), "signature"),
    "CVE-2022-21449 P-384": (forged({**ES, "alg": "ES384", "kid": "ec-2"}, psychic(48, 0, 0)), "signature"),
    "ECDSA signature as DER": (f"{SIGNED_ES}.{encode(DER)}", "signature"),
    "ECDSA signature too short": (f"{GOOD_ES.rpartition('.')[0]}.{encode(b'x' * 63)}", "signature"),
    "ECDSA signature too long": (f"{GOOD_ES.rpartition('.')[0]}.{encode(b'x' * 65)}", "signature"),
    "ECDSA signature of one byte": (f"{GOOD_ES.rpartition('.')[0]}.AA", "signature"),
    # wrong curve, wrong hash, wrong scheme
    "wrong curve P-384 as ES256": (
        es({**ES, "kid": "ec-2"}, claims(), ec_key("uaa-384", ec.SECP384R1), same),
        "signature",
    ),
    "wrong curve secp256k1": (es(ES, claims(), ec_key("k1", ec.SECP256K1), same), "signature"),
    "wrong curve P-256 as ES384": (es({**ES, "alg": "ES384"}, claims(), ec_key("uaa"), same), "signature"),
    "an RSA signature said to be ECDSA": (rs({**RS, "alg": "ES256"}, claims()), "signature"),
    "PKCS#1 said to be PSS": (rs({**RS, "alg": "PS256"}, claims()), "signature"),
    "SHA-256 said to be SHA-512": (rs({**RS, "alg": "RS512"}, claims()), "signature"),
    "CVE-2020-28042 signature cut off": (f"{HEAD}.{BODY}.{SIGNATURE[:40]}", "signature"),
    "CVE-2020-28042 signature of one character": (f"{HEAD}.{BODY}.A", "malformed"),
    "CVE-2020-28042 no signature": (f"{HEAD}.{BODY}.", "malformed"),
    "CVE-2020-28042 no signature and no dot": (f"{HEAD}.{BODY}", "malformed"),
    "an RSA signature of zeros": (f"{HEAD}.{BODY}.{encode(bytes(256))}", "signature"),
    "an RSA signature of one": (f"{HEAD}.{BODY}.{encode(bytes(255) + bytes([1]))}", "signature"),
    "CVE-2006-4339 the hash behind short padding": (f"{HEAD}.{BODY}.{encode(SHORT_PADDING)}", "signature"),
    # exchanged and spliced parts
    "payload exchanged": (f"{HEAD}.{encode(claims(user_id='admin'))}.{SIGNATURE}", "signature"),
    "header exchanged": (f"{encode({**RS, 'x': 1})}.{BODY}.{SIGNATURE}", "signature"),
    "signature of another token": (f"{HEAD}.{encode(claims(jti='b'))}.{SIGNATURE}", "signature"),
    "CVE-2022-39227 JSON and compact at once": (
        json.dumps(
            {"protected": HEAD, "payload": encode(claims(user_id="admin")), "signature": SIGNATURE, "x": GOOD_RS}
        ),
        "malformed",
    ),
    "CVE-2022-39227 inside a member name": (
        f'{{" {HEAD}.{encode(claims(user_id="admin"))}.{SIGNATURE}":"x"}}',
        "malformed",
    ),
    "RFC 7515 §7.2 JSON serialisation": (
        json.dumps({"payload": BODY, "signatures": [{"protected": HEAD, "signature": SIGNATURE}]}),
        "malformed",
    ),
    "RFC 7516 five parts": (f"{encode({'alg': 'dir', 'enc': 'A128GCM'})}..AAAA.AAAA.AAAA", "malformed"),
    "four parts": (f"{GOOD_RS}.{SIGNATURE}", "malformed"),
    "an empty part before": (f".{GOOD_RS}", "malformed"),
    "two tokens": (f"{GOOD_RS},{GOOD_RS}", "malformed"),
    # encodings
    "padding behind the header": (f"{HEAD}=.{BODY}.{SIGNATURE}", "malformed"),
    "padding behind the payload": (f"{HEAD}.{BODY}==.{SIGNATURE}", "malformed"),
    "padding at the end": (f"{GOOD_RS}==", "malformed"),
    "base64 of the other alphabet": (GOOD_RS[:-2] + "+/", "malformed"),
    "a newline inside": (f"{HEAD}.{BODY[:9]}\n{BODY[9:]}.{SIGNATURE}", "malformed"),
    "a newline behind": (f"{GOOD_RS}\n", "malformed"),
    "a NUL behind": (f"{GOOD_RS}\x00", "malformed"),
    "percent-encoding": (GOOD_RS.replace("-", "%2D").replace(".", "%2E"), "malformed"),
    "unicode twin of the dot": (GOOD_RS.replace(".", "\u2024"), "malformed"),
    "unicode twins of letters": (GOOD_RS.replace("e", "\u0435", 1), "malformed"),
    "half a surrogate pair": (f"{GOOD_RS}\udcff", "malformed"),
    "header not UTF-8": (rs(b'{"alg":"RS256","x":"\xff"}', claims()), "malformed"),
    "header in UTF-16": (rs(json.dumps(RS).encode("utf-16"), claims()), "malformed"),
    "header behind a byte order mark": (rs(b"\xef\xbb\xbf" + json.dumps(RS).encode(), claims()), "malformed"),
    "header with text behind": (rs(json.dumps(RS) + "x", claims()), "malformed"),
    "header a list": (rs(b"[]", claims()), "malformed"),
    "header a string": (rs(b'"RS256"', claims()), "malformed"),
    "header twice alg": (rs(b'{"alg":"none","alg":"RS256","kid":"rsa-1"}', claims()), "malformed"),
    "header twice alg, escaped": (rs(b'{"\\u0061lg":"none","alg":"RS256"}', claims()), "malformed"),
    "header twice kid": (rs(b'{"alg":"RS256","kid":"evil","kid":"rsa-1"}', claims()), "malformed"),
    # exhaustion
    "1 MB token": (rs(RS, claims(pad="x" * 1_000_000)), "too-long"),
    "1 MB of dots": ("." * 1_000_000, "too-long"),
    "1 MB of header": (f"{'A' * 1_000_000}.{BODY}.{SIGNATURE}", "too-long"),
    "8,000 dots": ("." * 8_000, "malformed"),
    "deep header": (rs(b'{"alg":"RS256","x":' + b"[" * 3000 + b"]" * 3000 + b"}", claims()), "malformed"),
    "deep payload": (rs(RS, deep(3000)), "malformed"),
    "deep objects": (rs(RS, deep(1000, b'{"a":', b"}").replace(b"{}", b"{}")), "malformed"),
    "a number of 5,000 digits": (rs(RS, raw_claims(f', "n": {"9" * 5000}')), "malformed"),
    "CVE-2024-33664 compressed": (rs({**RS, "zip": "DEF"}, b"\x78\x9c" + bytes(100)), "malformed"),
}

# Signed by the right key, and wrong all the same: what the issuer, or another client of it, could be brought to sign.
SIGNED: dict[str, tuple[bytes | dict[str, Any], str]] = {
    "duplicated claims": (raw_claims(', "user_id": "admin"'), "malformed"),
    "duplicated claims, escaped": (raw_claims(', "\\u0075ser_id": "admin"'), "malformed"),
    "duplicated exp": (raw_claims(', "exp": 99999999999'), "malformed"),
    "duplicated deep down": (raw_claims(', "x": {"a": 1, "a": 2}'), "malformed"),
    "exp as text": (claims(exp=str(int(NOW) + 60)), "exp-not-integer"),
    "exp as float": (claims(exp=NOW + 60.5), "exp-not-integer"),
    "exp true": (claims(exp=True), "exp-not-integer"),
    "exp null": (claims(exp=None), "exp-not-integer"),
    "exp a list": (claims(exp=[int(NOW) + 60]), "exp-not-integer"),
    "exp missing": (claims(exp=...), "exp-not-integer"),
    "exp 1e400": (raw_claims("").replace(str(int(NOW) + 60).encode(), b"1e400"), "exp-not-integer"),
    "exp NaN": (raw_claims("").replace(str(int(NOW) + 60).encode(), b"NaN"), "malformed"),
    "exp negative": (claims(exp=-1), "expired"),
    "exp now, leeway 0": (claims(exp=int(NOW)), "expired"),
    "GHSA-75c5-xw7c-p5pm part of iss": (claims(iss=ISSUER[:-3]), "wrong-issuer"),
    "GHSA-75c5-xw7c-p5pm iss and more": (claims(iss=f"{ISSUER}/x"), "wrong-issuer"),
    "GHSA-75c5-xw7c-p5pm one letter of iss": (claims(iss="h"), "wrong-issuer"),
    "GHSA-75c5-xw7c-p5pm iss empty": (claims(iss=""), "wrong-issuer"),
    "CVE-2025-30144 iss a list": (claims(iss=["https://attacker.example.org", ISSUER]), "wrong-issuer"),
    "iss missing": (claims(iss=...), "wrong-issuer"),
    "iss null": (claims(iss=None), "wrong-issuer"),
    "iss with the other slash": (claims(iss=f"{ISSUER}/"), "wrong-issuer"),
    "iss in capitals": (claims(iss=ISSUER.upper()), "wrong-issuer"),
    "iss unicode twin": (claims(iss=ISSUER.replace("a", "\u0430")), "wrong-issuer"),
    "aud part": (claims(aud=["cloud_controller_x", "cloud"]), "wrong-audience"),
    "aud text of several": (claims(aud="openid cloud_controller"), "wrong-audience"),
    "aud text with commas": (claims(aud="openid,cloud_controller"), "wrong-audience"),
    "aud an object": (claims(aud={"cloud_controller": 1}), "wrong-audience"),
    "aud nested": (claims(aud=[["cloud_controller"]]), "wrong-audience"),
    "aud with a number": (claims(aud=["cloud_controller", 1]), "wrong-audience"),
    "aud empty": (claims(aud=[]), "wrong-audience"),
    "aud missing": (claims(aud=...), "wrong-audience"),
    "an ID token": (claims(aud=["cf"]), "wrong-audience"),
    "a refresh token": (claims(jti="4b5f-r"), "refresh-token"),
    "jti missing": (claims(jti=...), "no-jti"),
    "jti a number": (claims(jti=7), "no-jti"),
    "scope as text": (claims(scope="cloud_controller.admin"), "bad-scope"),
    "scope an object": (claims(scope={"cloud_controller.admin": True}), "bad-scope"),
    "scope nested": (claims(scope=[["cloud_controller.admin"]]), "bad-scope"),
    "scope null": (claims(scope=None), "bad-scope"),
    "user_id a list": (claims(user_id=["u-1"]), "no-principal"),
    "user_id a number": (claims(user_id=1), "no-principal"),
    "user_id false": (claims(user_id=False), "no-principal"),
    "user_id empty beside a client": (claims(user_id=""), "no-principal"),
    "nobody": (claims(user_id=..., client_id=...), "no-principal"),
    "only sub": (claims(user_id=..., client_id=..., sub="admin"), "no-principal"),
    "zid a list": (claims(zid=["uaa"]), "not-text"),
    "zid a number": (claims(zid=1), "not-text"),
    "half a surrogate pair": (raw_claims(', "x": "\\ud800"'), "malformed"),
    "claims a list": (b"[]", "malformed"),
    "claims a number": (b"1", "malformed"),
    "claims nothing": (b"{}", "exp-not-integer"),
    "claims with text behind": (raw_claims("") + b"x", "malformed"),
    "claims not UTF-8": (raw_claims(', "x": "').replace(b'"}', b'\xff"}') + b"", "malformed"),
    "Infinity": (raw_claims(', "x": Infinity'), "malformed"),
    "a comment": (raw_claims("/* */"), "malformed"),
}


@pytest.mark.parametrize("refetchable", [False, True], ids=["fixed keys", "keys at a URL"])
@pytest.mark.parametrize("name", UNSIGNED)
def test_no_forged_token_is_accepted(name: str, refetchable: bool) -> None:
    token, fault = UNSIGNED[name]
    verifier = make(public_keys(), refetchable=refetchable)
    assert isinstance(verifier.verify(GOOD_RS, NOW), Principal)
    assert isinstance(verifier.verify(GOOD_ES, NOW), Principal)
    verdict = verifier.verify(token, NOW)
    if isinstance(verdict, KeyUnknown):  # an id nobody has: asked for again by the rules of the key ring, at most
        assert refetchable
        assert fault == "signature"
        return
    assert isinstance(verdict, Rejected)
    assert verdict.fault == fault
    assert verifier.verify(token, NOW) == verdict, "a refusal is no state"
    assert isinstance(make(KeySet((from_secret(SECRET),))).verify(token, NOW), Rejected)


@pytest.mark.parametrize("name", SIGNED)
def test_no_token_with_wrong_claims_is_accepted(name: str) -> None:
    payload, fault = SIGNED[name]
    for verifier, token in (
        (make(public_keys()), rs(RS, payload)),
        (make(KeySet((from_secret(SECRET),))), mac(HS, payload)),
    ):
        verdict = verifier.verify(token, NOW)
        assert isinstance(verdict, Rejected)
        assert verdict.fault in {fault, "too-long"}


@pytest.mark.parametrize("name", [*UNSIGNED, *SIGNED])
def test_the_answer_is_the_same_refusal_for_all_and_repeats_nothing(name: str) -> None:
    """401 in the controller's form; the challenge names the kind of fault and holds no part of the token."""
    token = UNSIGNED[name][0] if name in UNSIGNED else rs(RS, SIGNED[name][0])
    verifier = make(public_keys())
    policy = Policy(CLOUD_FOUNDRY, verifier, MemoryStore(max_bytes=1 << 20, max_entry_bytes=1 << 20))
    head = RequestHead("GET", Target("/v3/processes"), Fields([("Authorization", f"bearer {token}")]))
    exchange = Exchange(head, request_id="id", received_at=NOW)
    reply = decide(exchange, policy, NOW)
    assert isinstance(reply, Reply)
    assert isinstance(reply.body, bytes)
    assert (reply.status, json.loads(reply.body)["errors"][0]["code"]) == (401, 1000)
    assert exchange.principal is None
    written = repr((reply, exchange.detail, exchange.token_fault, head, dict(reply.fields)))
    pieces = [piece for piece in token.split(".") if len(piece) >= 8]
    assert not [piece for piece in pieces if piece[:24] in written]


def test_the_good_tokens_are_good() -> None:
    """Or the corpus would prove nothing."""
    for token in (GOOD_RS, GOOD_ES):
        assert isinstance(make(public_keys()).verify(token, NOW), Principal)
    assert isinstance(make(KeySet((from_secret(SECRET),))).verify(GOOD_HS, NOW), Principal)
    assert len(UNSIGNED) + len(SIGNED) > 150


def test_an_ecdsa_twin_is_the_same_principal_and_no_more() -> None:
    """(r, n - s) is a signature too, JOSE asks for neither half: two spellings of one principal, each judged alone."""
    twin = es(ES, claims(), ec_key("uaa"), lambda r, s: (r, P256_ORDER - s))
    verifier = make(public_keys())
    assert verifier.verify(twin, NOW) == verifier.verify(GOOD_ES, NOW)
    assert verifier.verify(twin, NOW + 60) == verifier.verify(GOOD_ES, NOW + 60) == Rejected("expired")


@pytest.mark.parametrize("expires", [1 << 60, 10**400], ids=["beyond exact seconds", "beyond a double"])
def test_an_exp_beyond_any_clock_is_one_to_reckon_with(expires: int) -> None:
    """The controller takes it; here it must not end in an OverflowError where a time is made of it."""
    principal = make(public_keys()).verify(rs(RS, claims(exp=expires)), NOW)
    assert isinstance(principal, Principal)
    assert float(principal.expires) - NOW > 10**9


def test_cve_2026_35039_tokens_that_share_a_beginning_or_an_end_share_no_memo() -> None:
    verifier = make(public_keys())
    first = verifier.verify(rs(RS, claims(pad="x" * 4000, user_id="one")), NOW)
    for user in ("two", "six"):
        token = rs(RS, claims(pad="x" * 4000, user_id=user))
        found = verifier.verify(token, NOW)
        assert isinstance(found, Principal)
        assert found != first
        for cut in (1, 2, 100, 300):
            assert isinstance(verifier.verify(token[:-cut], NOW), Rejected)
            assert isinstance(verifier.verify(token[cut:], NOW), Rejected)
        assert isinstance(verifier.verify(token.swapcase(), NOW), Rejected)


def test_a_token_stops_counting_the_moment_its_key_is_gone() -> None:
    held = public_keys()
    verifier = Verifier(lambda: held, POLICY, refetchable=False, max_token_bytes=1 << 14, memo_entries=10)
    assert isinstance(verifier.verify(GOOD_RS, NOW), Principal)
    assert verifier.remembered(GOOD_RS, NOW) is not None
    held = KeySet(public_keys().keys[1:])
    assert verifier.remembered(GOOD_RS, NOW) is None
    assert verifier.verify(GOOD_RS, NOW) == Rejected("signature")


# -- what a key set must not bring in

RSA_JWK = {**RSAAlgorithm.to_jwk(rsa_key("uaa").public_key(), as_dict=True), "kid": "a"}
EC_JWK = {**ECAlgorithm.to_jwk(ec_key("uaa").public_key(), as_dict=True), "kid": "a"}


def number(value: int) -> str:
    return encode(value.to_bytes((value.bit_length() + 7) // 8, "big"))


WEAK: dict[str, dict[str, Any]] = {
    "RSA-1024": {**RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 1024).public_key(), as_dict=True)},
    "RSA with the exponent 1": {**RSA_JWK, "e": number(1)},
    "RSA with an even exponent": {**RSA_JWK, "e": number(65536)},
    "RSA with an even modulus": {**RSA_JWK, "n": number(1 << 2047)},
    "RSA of 32,768 bits, slow to verify": {**RSA_JWK, "n": number((1 << 32767) | 1)},
    "RSA with a private part": {**RSA_JWK, "d": "AQAB"},
    "RSA for encryption": {**RSA_JWK, "use": "enc"},
    "RSA that may not verify": {**RSA_JWK, "key_ops": ["encrypt"]},
    "RSA for HS256": {**RSA_JWK, "alg": "HS256"},
    "RSA for none": {**RSA_JWK, "alg": "none"},
    "RSA for ES256": {**RSA_JWK, "alg": "ES256"},
    "RSA whose kid is a number": {**RSA_JWK, "kid": 7},
    "RSA of no numbers": {"kty": "RSA", "n": 7, "e": []},
    "CVE-2015-7940 a point beside its curve": {**EC_JWK, "y": EC_JWK["x"]},
    "the point at infinity": {**EC_JWK, "x": encode(bytes(32)), "y": encode(bytes(32))},
    "P-256 said to be P-384": {**EC_JWK, "crv": "P-384"},
    "secp256k1": {**ECAlgorithm.to_jwk(ec_key("k1", ec.SECP256K1).public_key(), as_dict=True)},
    "P-521": {**ECAlgorithm.to_jwk(ec_key("521", ec.SECP521R1).public_key(), as_dict=True)},
    "Ed25519": {
        "kty": "OKP",
        "crv": "Ed25519",
        "x": encode(ed25519.Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)),
    },
    "a shared secret from a public place": {"kty": "oct", "k": encode(SECRET)},
    "UAA's MAC from a public place": {"kty": "MAC", "value": SECRET.decode()},
    "EC in the dress of RSA": {"kty": "RSA", "value": EC_PEM.decode()},
    "a kty of no kind": {"kty": ["RSA"], "n": RSA_JWK["n"], "e": "AQAB"},
    "a private PEM": {"kty": "RSA", "value": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"},
}


@pytest.mark.parametrize("name", WEAK)
def test_a_key_that_must_not_verify_is_refused_when_loaded(name: str) -> None:
    with pytest.raises(KeyLoadError):
        from_jwk(WEAK[name], allow_symmetric=False)


@pytest.mark.parametrize("value", [{"a": 1}, ["x" * 64], 10**40, None, True, ""], ids=str)
def test_a_secret_that_is_no_text_is_refused(value: Any) -> None:
    with pytest.raises(KeyLoadError):
        from_jwk({"kty": "MAC", "value": value}, allow_symmetric=True, allow_short=True)


@pytest.mark.parametrize(
    "secret", [b"", PEM, EC_PEM, public_pem(rsa_key("uaa"), PublicFormat.PKCS1), b"ssh-rsa AAAAB3NzaC1yc2E x"],
    ids=["CVE-2019-20933 empty", "CVE-2022-29217 PEM", "EC PEM", "CVE-2017-11424 PKCS#1", "OpenSSH"],
)  # fmt: skip
def test_what_must_not_be_a_secret_is_none(secret: bytes) -> None:
    with pytest.raises(KeyLoadError):
        from_secret(secret, allow_short=True)


@pytest.mark.parametrize(("length", "fit"), [(31, set()), (32, {"HS256"}), (48, {"HS256", "HS384"}), (47, {"HS256"})])
def test_rfc_7518_3_2_a_secret_shorter_than_its_hash(length: int, fit: set[str]) -> None:
    if not fit:
        with pytest.raises(KeyLoadError):
            from_secret(b"x" * length)
        return
    assert from_secret(b"x" * length).algorithms == fit


SETS: dict[str, bytes] = {
    "duplicate kids": json.dumps({"keys": [RSA_JWK, {**EC_JWK}]}).encode(),
    "duplicate kids, the same key": json.dumps({"keys": [RSA_JWK, RSA_JWK]}).encode(),
    "a member twice": json.dumps({"keys": [RSA_JWK]}).encode().replace(b'"kid"', b'"kid": "b", "kid"'),
    "keys twice": b'{"keys": [' + json.dumps(EC_JWK).encode() + b'], "keys": [' + json.dumps(RSA_JWK).encode() + b"]}",
    "nothing": b"",
    "no JSON": b"<html>",
    "a list": b"[]",
    "keys null": b'{"keys": null}',
    "keys text": b'{"keys": "a"}',
    "keys of nothing": b'{"keys": [null, 1, "a", [], {}]}',
    "deep": b'{"keys": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "more than anybody has": json.dumps({"keys": [RSA_JWK] * 101}).encode(),
    "not UTF-8": b'{"keys": ["\xff"]}',
}


@pytest.mark.parametrize("name", SETS)
def test_a_key_set_that_contradicts_itself_gives_no_key(name: str) -> None:
    try:
        keys = parse_set(SETS[name], allow_symmetric=False)
    except KeyLoadError:
        return
    assert keys.keys == ()


def test_a_secret_among_public_keys_is_refused_and_they_stay() -> None:
    document = json.dumps({"keys": [RSA_JWK, {"kty": "oct", "kid": "b", "k": encode(SECRET)}]}).encode()
    keys = parse_set(document, allow_symmetric=True)
    assert [key.kid for key in keys.keys] == ["a"]
    assert isinstance(make(keys).verify(mac({**HS, "kid": "b"}, claims()), NOW), Rejected)


def test_a_key_set_of_pyjwt_would_have_taken_some_of_these() -> None:
    """What is closed here is open in the library below; should that change, the comments about it can go."""
    assert jwt.decode(mac(HS, claims(exp=str(int(NOW) + 10**9))), SECRET, ["HS256"], audience="cloud_controller")
