"""Who may pass, proved over the whole surface: each row by methods, scope sets and states of the token.

The expectations come from the table below, written from the controller's documented rules (its API reference and the
facts of docs/request-path.md), not from `cf_routes.py`: nothing of the gateway's own table is used to judge it, except
that its rows are among the paths asked for, so that a row nobody thought of here cannot hide.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from itertools import combinations
from typing import Any, NamedTuple

import jwt
import pytest

from gateway.core.cf_routes import CLOUD_FOUNDRY
from gateway.core.claims import ClaimPolicy
from gateway.core.errors import Denial, Reason
from gateway.core.model import Fields, RequestHead, Target
from gateway.core.target import parse as parse_target
from gateway.identity.keys import KeySet, from_secret
from gateway.identity.verifier import Verifier
from gateway.pipeline.decide import Fetch, Policy, decide
from gateway.pipeline.entry import Entry
from gateway.pipeline.exchange import Exchange, Reply
from gateway.store.memory import MemoryStore

NOW = 1_800_000_000.0
ISSUER = "https://uaa.example.org/oauth/token"
SECRET = b"a-secret-that-is-long-enough-for-any-of-the-hashes-and-their-tests"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "get")

# -- the independent table: what the controller serves under /v3, methods and paths (G, H a guid, N a name).
# To DELETE the last word of …/shared_spaces/usage_summary is a guid like any other.
V3_LINES = """
GET,POST         apps packages organizations organization_quotas spaces space_quotas users domains routes
GET,POST         security_groups isolation_segments service_brokers service_instances buildpacks
GET,POST         service_credential_bindings service_route_bindings stacks droplets apps/G/sidecars apps/G/tasks
GET,POST         builds deployments roles routes/G/relationships/shared_spaces
GET,POST         isolation_segments/G/relationships/organizations service_instances/G/relationships/shared_spaces
GET,PATCH,DELETE apps/G packages/G organizations/G organization_quotas/G spaces/G space_quotas/G users/G domains/G
GET,PATCH,DELETE routes/G security_groups/G isolation_segments/G service_brokers/G service_instances/G buildpacks/G
GET,PATCH,DELETE service_credential_bindings/G service_route_bindings/G stacks/G droplets/G sidecars/G
GET,PATCH,DELETE service_offerings/G service_plans/G
GET              processes processes/G/stats processes/G/process_instances processes/G/sidecars apps/G/processes
GET              apps/G/processes/web/stats apps/G/processes/web/process_instances apps/G/env apps/G/manifest
GET              apps/G/features apps/G/permissions apps/G/ssh_enabled apps/G/builds apps/G/droplets/current
GET              apps/G/droplets apps/G/packages apps/G/revisions apps/G/revisions/deployed apps/G/routes
GET              revisions/G/environment_variables tasks packages/G/download packages/G/droplets droplets/G/download
GET              jobs/G organizations/G/domains organizations/G/users organizations/G/domains/default
GET              organizations/G/usage_summary spaces/G/users spaces/G/features spaces/G/usage_summary
GET              spaces/G/running_security_groups spaces/G/staging_security_groups domains/G/route_reservations
GET              isolation_segments/G/organizations isolation_segments/G/relationships/spaces service_offerings
GET              service_plans service_instances/G/credentials service_instances/G/parameters
GET              service_instances/G/permissions service_credential_bindings/G/details
GET              service_credential_bindings/G/parameters service_route_bindings/G/parameters stacks/G/apps
GET              feature_flags audit_events audit_events/G info/usage_summary app_usage_events app_usage_events/G
GET              service_usage_events service_usage_events/G
GET,PATCH        processes/G apps/G/processes/web apps/G/environment_variables apps/G/features/ssh
GET,PATCH        apps/G/relationships/current_droplet revisions/G tasks/G builds/G deployments/G
GET,PATCH        organizations/G/relationships/default_isolation_segment spaces/G/features/ssh
GET,PATCH        spaces/G/relationships/isolation_segment feature_flags/N environment_variable_groups/running
POST             processes/G/actions/scale apps/G/processes/web/actions/scale apps/G/actions/start
POST             apps/G/actions/stop apps/G/actions/restart apps/G/actions/apply_manifest
POST             apps/G/actions/clear_buildpack_cache tasks/G/actions/cancel packages/G/upload droplets/G/upload
POST             deployments/G/actions/cancel deployments/G/actions/continue resource_matches
POST             organization_quotas/G/relationships/organizations space_quotas/G/relationships/spaces
POST             spaces/G/actions/apply_manifest spaces/G/manifest_diff domains/G/relationships/shared_organizations
POST             security_groups/G/relationships/running_spaces security_groups/G/relationships/staging_spaces
POST             buildpacks/G/upload app_usage_events/actions/destructively_purge_all_and_reseed
POST             service_usage_events/actions/destructively_purge_all_and_reseed admin/actions/clear_buildpack_cache
DELETE           processes/G/instances/0 apps/G/processes/web/instances/0 space_quotas/G/relationships/spaces/H
DELETE           spaces/G/routes domains/G/relationships/shared_organizations/H
DELETE           routes/G/relationships/shared_spaces/H security_groups/G/relationships/running_spaces/H
DELETE           security_groups/G/relationships/staging_spaces/H isolation_segments/G/relationships/organizations/H
DELETE           service_plans/G/visibility/H service_instances/G/relationships/shared_spaces/H
PUT              tasks/G/cancel
GET,DELETE       roles/G service_instances/G/relationships/shared_spaces/usage_summary
GET,POST,PATCH   routes/G/destinations
PATCH,DELETE     routes/G/destinations/H
PATCH            routes/G/relationships/space
POST,PATCH       service_plans/G/visibility
"""
V3 = {path: line.split()[0].split(",") for line in V3_LINES.strip().splitlines() for path in line.split()[1:]}
V2 = (
    *("app_usage_events", "apps", "buildpacks", "config", "domains", "events", "organizations", "private_domains"),
    *("quota_definitions", "resource_match", "route_mappings", "routes", "security_groups", "service_bindings"),
    *("service_brokers", "service_instances", "service_keys", "service_plan_visibilities", "service_plans"),
    *("service_usage_events", "services", "shared_domains", "space_quota_definitions", "spaces", "stacks"),
    *("user_provided_service_instances", "users"),
)
# controller.md §2, "No token needed": reads of these alone.
OPEN = frozenset(
    (
        *("/", "/v3", "/v3/info", "/v2/info", "/info", "/healthz", "/v3/service_offerings", "/v3/service_offerings/G"),
        *("/v3/service_plans", "/v3/service_plans/G", "/v2/services", "/v2/service_plans"),
        "/v2/buildpacks/G/download",
    )
)
READ = frozenset(f"cloud_controller.{name}" for name in ("read", "admin", "admin_read_only", "global_auditor"))
WRITE = frozenset(f"cloud_controller.{name}" for name in ("write", "admin"))
ONE_PLACE = {
    ("GET", "/v3/service_instances/G/permissions"): "cloud_controller_service_permissions.read",
    ("HEAD", "/v3/service_instances/G/permissions"): "cloud_controller_service_permissions.read",
    ("PATCH", "/v3/builds/G"): "cloud_controller.update_build_state",
}


class Rule(NamedTuple):
    """What the controller asks of a request: a valid token or not, and which scopes one of is needed (None: any)."""

    token: bool
    scopes: frozenset[str] | None = None
    nobody: bool = False


def rule(method: str, path: str) -> Rule:
    """The rule of controller.md §2 for a request, by the table above."""
    reads = method in {"GET", "HEAD"}
    if path == "/internal" or path.startswith("/internal/"):
        return Rule(token=True, nobody=True)
    if (reads and path in OPEN) or re.match(r"/(staging|networking|routing)(/|$)", path):
        return Rule(token=False)
    if path == "/v3" or path.startswith("/v3/"):
        if method == "OPTIONS":
            return Rule(token=False)
        methods = V3.get(path.removeprefix("/v3/"), [])
        exists = method in methods or (method == "HEAD" and "GET" in methods)
        extra = ONE_PLACE.get((method, path))
        return Rule(token=exists, scopes=(READ if reads else WRITE) | ({extra} if extra else set()))
    if path.startswith("/v2/"):
        # DELETE of a whole collection is no route of the controller; asking for a token first gives nothing away.
        return Rule(token=path.split("/")[2] in V2 and method in {"GET", "HEAD", "POST", "PUT", "DELETE"})
    return Rule(token=False)


# -- the tokens

RELEVANT = (
    *(f"cloud_controller.{name}" for name in ("read", "write", "admin", "admin_read_only", "global_auditor")),
    *("cloud_controller_service_permissions.read", "cloud_controller.update_build_state"),
)
TWINS = (
    ("openid",),
    ("uaa.admin", "scim.read", "doppler.firehose", "network.admin"),
    ("Cloud_Controller.Admin", "CLOUD_CONTROLLER.READ"),
    ("cloud_controller.read.x", "cloud_controller.reader", "xcloud_controller.admin", "cloud_controller"),
    ("cloud_controller.read ", " cloud_controller.write", "cloud_controller.admin\n", "cloud_controller.\u0430dmin"),
    ("cloud_controller.read cloud_controller.write cloud_controller.admin",),
    ("cloud_controller.*", "*", ""),
)
SCOPE_SETS = (
    *(held for size in (0, 1, 2) for held in combinations(RELEVANT, size)),
    RELEVANT,
    *TWINS,
    *((*twin, "cloud_controller.read") for twin in TWINS),
)


@cache
def token(scopes: tuple[str, ...], *, secret: bytes = SECRET, **changes: Any) -> str:
    claims: dict[str, Any] = {
        "jti": "4b5f",
        "iss": ISSUER,
        "user_id": "u-1",
        "client_id": "cf",
        "scope": list(scopes),
        "aud": ["cloud_controller", "openid"],
        "exp": int(NOW) + 60,
    }
    claims |= {name: list(value) if isinstance(value, tuple) else value for name, value in changes.items()}
    return jwt.encode({name: value for name, value in claims.items() if value is not None}, secret, "HS256")


ALL = RELEVANT
# Everything that must not count, each with all scopes there are; "missing" is answered 10002, "bad" 1000.
STATES: dict[str, tuple[str, tuple[str, ...]]] = {
    "no field": ("missing", ()),
    "Basic": ("missing", ("Basic YWRtaW46YWRtaW4=",)),
    "empty": ("missing", ("",)),
    "the token alone": ("missing", (token(ALL),)),
    "another scheme": ("missing", (f"Token {token(ALL)}",)),
    "bearer alone": ("bad", ("bearer",)),
    "three words": ("bad", (f"bearer {token(ALL)} x",)),
    "bearerfoo": ("bad", (f"bearerfoo {token(ALL)}",)),
    "two fields": ("bad", (f"bearer {token(ALL)}", f"bearer {token(ALL)}")),
    "garbage": ("bad", ("bearer garbage",)),
    "expired": ("bad", (f"bearer {token(ALL, exp=int(NOW) - 1)}",)),
    "expires now": ("bad", (f"bearer {token(ALL, exp=int(NOW))}",)),
    "exp as text": ("bad", (f"bearer {token(ALL, exp=str(int(NOW) + 60))}",)),
    "no exp": ("bad", (f"bearer {token(ALL, exp=None)}",)),
    "bad signature": ("bad", (f"bearer {token(ALL, secret=b'another-secret-that-is-long-enough-for-the-hash')}",)),
    "signature cut off": ("bad", (f"bearer {token(ALL).rpartition('.')[0]}.",)),
    "unsigned": ("bad", (f"bearer {jwt.encode({'exp': int(NOW) + 60}, None, 'none')}",)),
    "wrong aud": ("bad", (f"bearer {token(ALL, aud=('openid', 'cloud_controller_x'))}",)),
    "no aud": ("bad", (f"bearer {token(ALL, aud=None)}",)),
    "wrong iss": ("bad", (f"bearer {token(ALL, iss='https://uaa.example.com/oauth/token')}",)),
    "iss cut off": ("bad", (f"bearer {token(ALL, iss=ISSUER[:-1])}",)),
    "no iss": ("bad", (f"bearer {token(ALL, iss=None)}",)),
    "refresh token": ("bad", (f"bearer {token(ALL, jti='4b5f-r')}",)),
    "no jti": ("bad", (f"bearer {token(ALL, jti=None)}",)),
    "nobody's": ("bad", (f"bearer {token(ALL, user_id=None, client_id=None)}",)),
    "an empty user": ("bad", (f"bearer {token(ALL, user_id='')}",)),
    "scope as text": ("bad", (f"bearer {token(ALL, scope='cloud_controller.admin')}",)),
}

# -- the requests: every path of either table, and paths that neither knows


def paths() -> Iterator[str]:
    yield from ("/", "/v3", "/info", "/healthz", "/healthz/deep", "/v2/info", "/v2/jobs/G", "/v4", "/nosuch/x")
    yield from ("/internal", "/internal/v4/x", "/staging", "/staging/x", "/networking/x", "/routing/x", "/v2", "/v3/no")
    yield from ("/internalx", "/stagingx/y", "/v2x/apps", "/v3x/apps", "/v3/apps/G/nosuch", "/v3/processes/G/stats/x")
    yield from (f"/v3/{path}" for path in V3)
    yield from (f"/v2/{name}{rest}" for name in V2 for rest in ("", "/G", "/G/summary"))
    named = {"name": "N", "type": "web", "index": "0", "space": "H", "org": "H", "destination": "H"}
    for row in CLOUD_FOUNDRY.rows:
        yield re.sub(r":(\w+)", lambda found: named.get(found[1], "G"), row.template).replace("*", "G/x")


PATHS = sorted({*paths(), "/v2/buildpacks/G/download", "/v3/environment_variable_groups/running"})


def normal(path: str) -> str:
    """The names of this table for what the gateway's templates name otherwise."""
    return path.replace("/features/N", "/features/ssh").replace("_groups/N", "_groups/running")


@cache
def policy() -> Policy:
    keys = KeySet((from_secret(SECRET),))
    claims = ClaimPolicy(ISSUER, frozenset({"cloud_controller", "cloud_controller_service_permissions"}))
    verifier = Verifier(lambda: keys, claims, refetchable=False, max_token_bytes=16384, memo_entries=1000)
    return Policy(CLOUD_FOUNDRY, verifier, MemoryStore(max_bytes=1 << 20, max_entry_bytes=1 << 20))


def outcome(method: str, target: Target, authorization: tuple[str, ...]) -> tuple[int, int | None, Reason | None]:
    """(0, None, None) when the request goes on to the controller, else status, CF code and reason of the refusal."""
    head = RequestHead(method, target, Fields(("Authorization", value) for value in authorization))
    exchange = Exchange(head, request_id="id", received_at=NOW)
    decided = decide(exchange, policy(), NOW)
    if isinstance(decided, Fetch):
        return 0, None, None
    assert isinstance(decided, Reply)
    assert isinstance(decided.body, bytes)
    body = json.loads(decided.body)
    return decided.status, (body["errors"][0] if "errors" in body else body)["code"], exchange.denied


PASS = (0, None, None)
DENIED = (403, 10003, Reason.DENIED_ROUTE)
NO_TOKEN = (401, 10002, Reason.NO_TOKEN)
BAD_TOKEN = (401, 1000, Reason.INVALID_TOKEN)
NO_SCOPE = (403, 10003, Reason.INSUFFICIENT_SCOPE)


def expected(asked: Rule, state: str, scopes: tuple[str, ...] = ()) -> tuple[int, int | None, Reason | None]:
    if asked.nobody:
        return DENIED
    if state == "valid":
        return PASS if asked.scopes is None or asked.scopes & set(scopes) else NO_SCOPE
    if not asked.token:
        return PASS
    return NO_TOKEN if state == "missing" else BAD_TOKEN


@pytest.mark.parametrize("method", METHODS)
def test_every_path_with_every_relevant_scope_set(method: str) -> None:
    """A valid token passes by its scopes alone, a person's as a program's."""
    calls = 0
    for path in PATHS:
        asked = rule(method, normal(path))
        for scopes in SCOPE_SETS:
            for kind in ({}, {"user_id": None}):
                found = outcome(method, Target(path), (f"bearer {token(scopes, **kind)}",))
                assert found == expected(asked, "valid", scopes), (method, path, scopes, kind)
                calls += 1
    assert calls > 25_000


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("state", STATES)
def test_every_path_with_every_token_that_does_not_count(method: str, state: str) -> None:
    kind, authorization = STATES[state]
    for path in PATHS:
        found = outcome(method, Target(path), authorization)
        assert found == expected(rule(method, normal(path)), kind), (method, path)


def test_the_two_tables_know_the_same_surface() -> None:
    """No endpoint of the controller is unknown (and so lenient) here, and no strict row is unknown to this table."""
    for path, methods in V3.items():
        for method in methods:
            row = CLOUD_FOUNDRY.match(method, f"/v3/{path}")
            assert row is not None
            assert "*" not in row.template, (method, path)
            assert not row.lenient, (method, path)
    strict = {
        (method, path)
        for path in PATHS
        for method in METHODS
        if rule(method, normal(path)).token and not rule(method, normal(path)).nobody
    }
    assert len(strict) > 500


DISGUISES = (
    ("/v3/processes/", "same"),
    ("//v3/processes", "same"),
    ("/v3//processes", "same"),
    ("https://other.example.org/v3/processes", "same"),
    ("/v3/processes?x=/healthz", "same"),
    ("/v3/processes?#/healthz", "same"),
    ("/v3/%70rocesses", "refused"),
    ("/v3/./processes", "refused"),
    ("/healthz/../v3/processes", "refused"),
    ("/healthz/%2e%2e/v3/processes", "refused"),
    ("/healthz/..;/v3/processes", "refused"),
    ("/healthz%2f..%2fv3%2fprocesses", "refused"),
    ("/v3%2Fprocesses", "refused"),
    ("/v3\\processes", "refused"),
    ("/v3/processes%00", "refused"),
    ("/v3/processes\u200b", "refused"),
    ("/v3/processes#/healthz", "refused"),
    ("//internal/v4/x", "denied"),
    ("/internal/", "denied"),
    ("/INTERNAL/x", "elsewhere"),
    ("/v3/processes;/healthz", "elsewhere"),
    ("/v3/processes.json", "elsewhere"),
    ("/V3/processes", "elsewhere"),
)


@pytest.mark.parametrize(("raw", "verdict"), DISGUISES, ids=[raw for raw, _ in DISGUISES])
def test_a_path_in_disguise_is_that_path_or_refused(raw: str, verdict: str) -> None:
    """CVE-2025-66490, GHSA-6jwx-7vp4-9847, VSV00018: whoever reads it otherwise finds nothing opened by it."""
    if verdict == "refused":
        with pytest.raises(Denial):
            parse_target(raw, strict_api=True)
        return
    target = parse_target(raw, strict_api=True)
    found = outcome("GET", target, ())
    match verdict:
        case "same":
            assert (target.path, found) == ("/v3/processes", NO_TOKEN)
        case "denied":
            assert found == DENIED
        case _:
            # A path of its own, which the controller judges: nothing of it is cached, and it is forwarded as it is.
            assert (target.path, found) == (raw, PASS)
            assert verdict == "elsewhere"


def test_spring_cloud_gateway_3152_a_page_in_the_cache_opens_nothing() -> None:
    """A hit passes the same checks: the page of those who see everything is there, and nobody else gets at it."""
    held = policy()
    admin = ("cloud_controller.admin",)
    head = RequestHead("GET", Target("/v3/processes"), Fields([("Authorization", f"bearer {token(admin)}")]))
    asked = Exchange(head, request_id="id", received_at=NOW)
    assert isinstance(decide(asked, held, NOW), Fetch)
    assert asked.key is not None
    page = Entry(asked.key, Fields(), b"{}", '"e"', NOW, NOW + 60, NOW + 60, NOW + 60, ())
    assert held.store.put(page, generation=held.store.generation(())) is None
    try:
        found = decide(Exchange(head, request_id="id", received_at=NOW), held, NOW)
        assert isinstance(found, Reply)
        assert (found.status, found.body) == (200, b"{}")
        for kind, authorization in STATES.values():
            expected_refusal = NO_TOKEN if kind == "missing" else BAD_TOKEN
            assert outcome("GET", Target("/v3/processes"), authorization) == expected_refusal
        for scopes in SCOPE_SETS:
            if not READ & set(scopes):
                assert outcome("GET", Target("/v3/processes"), (f"bearer {token(scopes)}",)) == NO_SCOPE
        narrow = ("cloud_controller.read", "cloud_controller.write")
        assert outcome("GET", Target("/v3/processes"), (f"bearer {token(narrow)}",)) == PASS, "asked for anew"
    finally:
        policy.cache_clear()
