"""Every token variant that was shown to the real controller, shown to the real verifier: do both let the same ones in?

The recordings name what was changed about a token and not the token itself, so each is made anew from the principal's
recorded claims. What the controller let in must reach it; what it refused must be refused with its status and its body.
"""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import jwt
import pytest

from gateway.core.cf_routes import CLOUD_FOUNDRY
from gateway.core.claims import ClaimPolicy
from gateway.core.model import Fields, RequestHead
from gateway.core.target import parse
from gateway.identity.keys import KeySet, from_secret
from gateway.identity.verifier import Verifier
from gateway.pipeline.decide import Fetch, Policy, decide
from gateway.pipeline.exchange import Exchange, Reply
from gateway.store.memory import MemoryStore

RECORDINGS = Path(__file__).parents[2] / "../shared/recordings"
NOW = 1_700_000_000.0
SECRET = b"the symmetric key of the recorded world, or one of the kind: 64+ bytes"
WRONG_SECRET = SECRET[::-1]
RULES = ClaimPolicy(
    "http://uaa.real.test/oauth/token", frozenset({"cloud_controller", "cloud_controller_service_permissions"})
)
REMOVED = object()
READ = "cloud_controller.read"

# What the name of a variant says was changed about the claims.
CLAIMS: dict[str, dict[str, Any]] = {
    "no jti": {"jti": REMOVED},
    "no exp": {"exp": REMOVED},
    "exp is text": {"exp": str(int(NOW) + 86400)},
    "exp just passed": {"exp": int(NOW) - 1},
    "nbf in the future": {"nbf": int(NOW) + 3600},
    "iat in the future": {"iat": int(NOW) + 3600},
    "other issuer": {"iss": "http://uaa.other.test/oauth/token"},
    "no issuer": {"iss": REMOVED},
    "aud is a string": {"aud": "cloud_controller"},
    "aud second resource id": {"aud": ["cloud_controller_service_permissions"]},
    "no aud": {"aud": REMOVED},
    "aud is a scope prefix": {"aud": ["cloud_controller.read"]},
    "scope is a string": {"scope": READ},
    "no scope": {"scope": REMOVED},
    "empty scope": {"scope": []},
    "only write scope": {"scope": ["cloud_controller.write"]},
    "admin scope alone": {"scope": ["cloud_controller.admin"]},
    "admin_read_only alone": {"scope": ["cloud_controller.admin_read_only"]},
    "global_auditor alone": {"scope": ["cloud_controller.global_auditor"]},
    "update_build_state scope": {"scope": ["cloud_controller.update_build_state"]},
    "no user_id, no client_id": {"user_id": REMOVED, "client_id": REMOVED},
    "user_id unknown to CC": {"user_id": "11111111-2222-4333-8444-555555555555"},
    "user_id is empty": {"user_id": ""},
    "user_name with unicode": {"user_name": "zoë 日本"},
    "long valid token (12 KB)": {"padding": "x" * 9000},
}
# What it says was changed about the header alone, after signing.
HEADERS = {"alg none in the header": "none", "alg HS512 in the header": "HS512"}
# Where the field and not the token was changed; the recording shows the field.
FIELD_ONLY = {"Bearer capitalised", "BEARER upper case", "bearerfoo prefix", "no prefix", "two spaces", "tab"}
FIELD_ONLY |= {"Token prefix", "empty header"}
# The controller crashed (500), or its HTTP parser refused the request before a token was read (400).
STRICTER = {"auth-029 scope is a string", "auth-044 very long token (81 KB header)"}


def load(name: str) -> str:
    path = RECORDINGS / name
    if not path.exists():
        pytest.skip("recordings not beside the checkout")
    return path.read_text(encoding="utf-8")


def exchanges() -> list[Any]:
    """The exchanges of group auth, and those that every principal made, broken tokens included."""
    path = RECORDINGS / "exchanges.jsonl"
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    rows = [json.loads(line) for line in lines]
    return [pytest.param(row, id=row["name"]) for row in rows if row["group"] in {"auth", "visibility"}]


def claims_of(principal: str, world: dict[str, Any]) -> dict[str, Any]:
    lifetime = -60 if principal == "expired" else 86400
    return {**world["principals"][principal], "exp": int(NOW) + lifetime, "iat": int(NOW) - 60}


def token(principal: str, variant: str | None, world: dict[str, Any]) -> str:
    changed = {**claims_of(principal, world), **CLAIMS.get(variant or "", {})}
    claims = {name: value for name, value in changed.items() if value is not REMOVED}
    secret = WRONG_SECRET if principal == "wrong_signature" else SECRET
    signed = jwt.PyJWS().encode(json.dumps(claims).encode(), secret, algorithm="HS256")
    if variant in HEADERS:
        header = base64.urlsafe_b64encode(json.dumps({"alg": HEADERS[variant], "typ": "JWT"}).encode())
        return ".".join([header.rstrip(b"=").decode(), *signed.split(".")[1:]])
    assert variant is None or variant in CLAIMS or variant in FIELD_ONLY, f"a variant this test cannot make: {variant}"
    return signed


def written(value: str, world: dict[str, Any]) -> str:
    """An Authorization value of the recordings with its placeholders filled in."""
    if value == "bearer <three base64 parts, payload not JSON>":
        parts = (b'{"alg":"HS256","typ":"JWT"}', b"not json", b"signature")
        return "bearer " + ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
    if value.endswith(": empty header>"):
        return ""
    value = value.replace("<garbage>", "garbage").replace("<basic>", "dXNlcjpwYXNz")
    value = re.sub(r"<(\d+) x (.)>", lambda found: found[2] * int(found[1]), value)
    return re.sub(r"<(\w+)(?:: ([^>]+))?>", lambda found: token(found[1], found[2], world), value)


@pytest.fixture(scope="module")
def world() -> dict[str, Any]:
    return json.loads(load("world.json"))


def judged(row: dict[str, Any], world: dict[str, Any]) -> Reply | None:
    """Our refusal of a recorded request; None when it goes on to the controller."""
    request = row["request"]
    fields = [
        (name, written(value, world) if name.lower() == "authorization" else value)
        for name, value in request["headers"]
    ]
    keys = KeySet((from_secret(SECRET),))
    verifier = Verifier(lambda: keys, RULES, refetchable=False, max_token_bytes=16 * 1024, memo_entries=10)
    rules = Policy(CLOUD_FOUNDRY, verifier, MemoryStore(max_bytes=1 << 20, max_entry_bytes=1 << 20))
    head = RequestHead(request["method"], parse(request["target"], strict_api=True), Fields(fields))
    # The second time the memo answers: it must not change its mind.
    outcomes = [decide(Exchange(head, request_id="id", received_at=NOW), rules, NOW) for _ in range(2)]
    refusals = [outcome if isinstance(outcome, Reply) else None for outcome in outcomes]
    assert all(isinstance(outcome, Reply | Fetch) for outcome in outcomes)
    first, second = (one and (one.status, one.body) for one in refusals)
    assert first == second
    return refusals[0]


@pytest.mark.parametrize("row", exchanges())
def test_the_gateway_lets_in_whom_the_controller_let_in(row: dict[str, Any], world: dict[str, Any]) -> None:
    refusal = judged(row, world)
    recorded = row["response"]
    if row["name"] in STRICTER:
        assert refusal is not None
        assert refusal.status == 401
        assert json.loads(refusal.body)["errors"][0]["title"] == "CF-InvalidAuthToken"
    elif recorded["status"] in {401, 403}:
        assert refusal is not None, "the controller refused this"
        assert refusal.status == recorded["status"]
        assert json.loads(refusal.body) == json.loads(recorded["body"])
    else:
        assert refusal is None, "the controller let this pass"


def test_there_are_recordings_to_agree_with() -> None:
    load("exchanges.jsonl")
    names = [row.values[0]["name"] for row in exchanges()]
    assert sum(name.startswith("auth-") for name in names) == 44
    assert len(names) == 44 + 108
