"""The Cloud Foundry table against what a real controller answered: gateway/core/cf_routes.py."""

import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from gateway.core import cf_routes
from gateway.core.cf_routes import CLOUD_FOUNDRY, RATE_CLASSES, READ_SCOPES, WRITE_SCOPES
from gateway.core.routes import Access, CacheMode, Share

RECORDINGS = Path(__file__).parents[2] / "../shared/recordings"


def row(method, path):
    return CLOUD_FOUNDRY.match(method, path)


def access(route):
    word = {Access.PUBLIC: "public", Access.DENY: "deny"}.get(route.access)
    if word is None:
        word = {READ_SCOPES: "read", WRITE_SCOPES: "write", (): "valid"}.get(route.scopes_any, "other")
    return word + ("?" if route.lenient else "")


def cache(route):
    return "off" if route.cache.mode is CacheMode.OFF else route.cache.share.value


@pytest.mark.parametrize(
    ("method", "path", "template", "expected"),
    [
        # controller.md §2, "No token needed"
        ("GET", "/", "/", "public public exempt"),
        ("HEAD", "/", "/", "public public exempt"),
        ("GET", "/v3", "/v3", "public public exempt"),
        ("GET", "/v3/info", "/v3/info", "public public public"),
        ("GET", "/v2/info", "/v2/info", "public off exempt"),
        ("GET", "/info", "/info", "public off public"),
        ("GET", "/healthz", "/healthz", "public off exempt"),
        ("GET", "/healthz/x", "/healthz/*", "public off public"),
        ("GET", "/v3/service_offerings", "/v3/service_offerings", "public off list"),
        ("GET", "/v3/service_offerings/g", "/v3/service_offerings/:guid", "public off read"),
        ("GET", "/v3/service_plans", "/v3/service_plans", "public off list"),
        ("GET", "/v3/service_plans/g", "/v3/service_plans/:guid", "public off read"),
        ("GET", "/v2/services", "/v2/services", "public off list"),
        ("GET", "/v2/service_plans", "/v2/service_plans", "public off list"),
        # but the rest of these is not public
        ("PATCH", "/v3/service_offerings/g", "/v3/service_offerings/:guid", "write off write"),
        ("DELETE", "/v3/service_plans/g", "/v3/service_plans/:guid", "write off write"),
        ("GET", "/v2/services/g", "/v2/services/*", "valid off read"),
        ("POST", "/v2/service_plans", "/v2/service_plans", "valid off list"),
        # denied, basic auth, other servers
        ("GET", "/internal", "/internal/*", "deny off default"),
        ("POST", "/internal/v4/droplets/g/upload", "/internal/*", "deny off default"),
        ("OPTIONS", "/internal/x", "/internal/*", "deny off default"),
        ("POST", "/staging/v3/droplets/g/upload", "/staging/*", "public off upload"),
        ("GET", "/v2/buildpacks/g/download", "/v2/buildpacks/:guid/download", "public off upload"),
        ("GET", "/networking/v1/external/policies", "/networking/*", "public off default"),
        ("GET", "/routing/v1/router_groups", "/routing/*", "public off default"),
        # the purpose of all this
        ("GET", "/v3/processes", "/v3/processes", "read global list"),
        ("HEAD", "/v3/processes", "/v3/processes", "read global list"),
        ("GET", "/v3/apps", "/v3/apps", "read global list"),
        ("POST", "/v3/apps", "/v3/apps", "write off write"),
        ("GET", "/v3/spaces", "/v3/spaces", "read global list"),
        ("GET", "/v3/organizations", "/v3/organizations", "read global list"),
        ("GET", "/v3/apps/g/processes", "/v3/apps/:guid/processes", "read principal list"),
        # single resources show secrets by role
        ("GET", "/v3/processes/g", "/v3/processes/:guid", "read off read"),
        ("PATCH", "/v3/processes/g", "/v3/processes/:guid", "write off write"),
        ("GET", "/v3/apps/g/env", "/v3/apps/:guid/env", "read off read"),
        ("POST", "/v3/packages/g/upload", "/v3/packages/:guid/upload", "write off upload"),
        # unknown: other-033, other-036, other-061, other-063
        ("GET", "/v3/nosuch", "/v3/*", "read? off read"),
        ("DELETE", "/v3/processes", "/v3/*", "write? off write"),
        ("POST", "/v3/processes", "/v3/*", "write? off write"),
        ("OPTIONS", "/v3/processes", "/v3/*", "public off public"),
        ("GET", "/v2/nosuch", "/v2/*", "valid? off read"),
        ("GET", "/nosuch", "/*", "valid? off default"),
        ("GET", "/v4", "/*", "valid? off default"),
        # v2 takes any valid token: other-047
        ("GET", "/v2/apps", "/v2/apps", "valid off list"),
        ("PUT", "/v2/apps/g", "/v2/apps/*", "valid off write"),
        ("GET", "/v2/spaces/g/summary", "/v2/spaces/*", "valid off read"),
        ("GET", "/v2/jobs/g", "/v2/jobs/*", "valid? off read"),
    ],
)
def test_rows(method, path, template, expected):
    route = row(method, path)
    assert route.template == template
    assert f"{access(route)} {cache(route)} {route.rate}" == expected


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "/v3/service_instances/g/permissions", "cloud_controller_service_permissions.read"),
        ("PATCH", "/v3/builds/g", "cloud_controller.update_build_state"),
    ],
)
def test_a_scope_that_suffices_in_one_place_only(method, path, scope):
    assert scope in row(method, path).scopes_any
    assert [one.template for one in CLOUD_FOUNDRY.rows if scope in one.scopes_any] == [row(method, path).template]


def test_every_row_has_a_known_rate_class():
    assert {one.rate for one in CLOUD_FOUNDRY.rows} == set(RATE_CLASSES)


def test_no_row_hides_another():
    seen = [(one.template, method) for one in CLOUD_FOUNDRY.rows for method in one.methods or ("*",)]
    assert len(seen) == len(set(seen))
    assert all(
        row(next(iter(one.methods), "FOO"), one.template.replace("*", "x/y")) == one for one in CLOUD_FOUNDRY.rows
    )


def test_only_reads_are_cached_and_only_public_rows_for_everybody():
    for one in CLOUD_FOUNDRY.rows:
        if one.cache.mode is not CacheMode.OFF:
            assert one.methods == {"GET"}
            assert (one.cache.share is Share.PUBLIC) == (one.access is Access.PUBLIC)
            assert one.cache.stale_while_revalidate == 0, "never older than the ttl while the controller is well"


def test_what_is_lenient_is_never_cached_by_default():
    assert not [one for one in CLOUD_FOUNDRY.rows if one.lenient and one.cache.mode is not CacheMode.OFF]


@pytest.mark.parametrize(
    "path",
    [
        "/v3/service_instances/g/parameters",
        "/v3/service_instances/g/credentials",
        "/v3/service_credential_bindings/g/details",
        "/v3/service_credential_bindings/g/parameters",
        "/v3/service_route_bindings/g/parameters",
        "/v3/packages/g/download",
        "/v3/droplets/g/download",
        "/v2/service_instances/g/parameters",
    ],
)
def test_the_users_own_json_is_not_rewritten(path):
    assert row("GET", path).rewrite is False


@pytest.mark.parametrize(
    ("path", "resource"),
    [
        ("/v3/processes", "processes"),
        ("/v3/apps/g/processes/web/stats", "processes"),
        ("/v3/apps/g/env", "apps"),
        ("/v3/apps/g/manifest", "manifests"),
        ("/v3", "root"),
        ("/v3/info", "root"),
        ("/v3/nosuch", None),
        ("/v2/apps", None),
        ("/healthz", None),
    ],
)
def test_resource_types(path, resource):
    assert row("GET", path).resource == resource


def test_every_line_of_the_table_is_a_row():
    lines = [line for line in cf_routes.TABLE.splitlines() if line and not line.startswith("#")]
    assert all(len(line.split()) in (5, 6) for line in lines)
    assert {line.split()[1] for line in lines} <= {one.template for one in CLOUD_FOUNDRY.rows}


# -- against the recordings


def recorded(name):
    if not RECORDINGS.is_dir():
        pytest.skip("recordings not beside the checkout")
    return (RECORDINGS / name).read_text(encoding="utf-8")


def exchanges():
    return [json.loads(line) for line in recorded("exchanges.jsonl").splitlines()]


BAD = {"garbage", "expired", "wrong_signature", "wrong_audience", "refresh_token"}
MISSING = {"anonymous", "basic"}


def token_state(exchange, principals):
    """What the gateway can know of the token: (fault or None, scopes)."""
    if exchange["principal"] in MISSING or "Authorization" not in dict(exchange["request"].get("headers") or ()):
        return "missing", ()
    if exchange["principal"] in BAD:
        return "bad", ()
    return None, principals[exchange["principal"]]["scope"]


def verdict(route, fault, scopes):
    """The status with which the gateway would refuse, or None when it forwards."""
    if route.access is Access.DENY:
        return 403
    if route.access is Access.PUBLIC:
        return None
    if fault:
        return None if route.lenient else 401
    return 403 if route.scopes_any and not set(route.scopes_any) & set(scopes) else None


def judged():
    principals = json.loads(recorded("world.json"))["principals"]
    for exchange in exchanges():
        request = exchange["request"]
        target = request.get("target", "")
        # Hand-made bytes and targets that are no paths never reach the table; group auth varies the token itself.
        if exchange["group"] == "auth" or "raw" in request or not target.startswith(("/", "http")):
            continue
        path = urlsplit(target).path if target.startswith("http") else target.partition("?")[0]
        route = row(request["method"], path)
        yield exchange, path, verdict(route, *token_state(exchange, principals))


def test_whatever_the_gateway_refuses_the_controller_refused_alike():
    refused = 0
    for exchange, path, status in judged():
        # /internal is the one thing that a front door refuses and the controller itself does not.
        if status is not None and not path.startswith("/internal"):
            assert exchange["response"]["status"] == status, exchange["name"]
            refused += 1
    assert refused > 50


def test_whatever_the_controller_refuses_for_the_token_the_gateway_refuses_itself():
    """All 401 and all 403 for scopes are known beforehand; roles and flags are for the controller to judge."""
    for exchange, path, status in judged():
        if exchange["response"]["status"] == 401:
            assert status == 401, (exchange["name"], path)
        if exchange["response"]["status"] == 403 and exchange["principal"] in {"read_scope_only", "openid_only"}:
            assert status == 403, (exchange["name"], path)


def test_pages_shared_by_default_are_the_same_for_all_who_share_them():
    """Lists shared by the global scopes, and public pages shared by all, were byte-identical when recorded."""
    sees_all = {"admin", "admin_read_only", "global_auditor", "client_admin"}
    pages: dict[tuple[str, str], set[str]] = {}
    for exchange in exchanges():
        request, response = exchange["request"], exchange["response"]
        if exchange["group"] not in {"root", "visibility", "list"} or request["method"] != "GET":
            continue
        rule = row("GET", request["target"].partition("?")[0]).cache
        shared = rule.share is Share.PUBLIC or (rule.share is Share.GLOBAL and exchange["principal"] in sees_all)
        if rule.mode is CacheMode.POLICY and shared and response["status"] == 200:
            pages.setdefault((request["target"], rule.share.value), set()).add(response["body"])
    assert len(pages) > 10
    assert all(len(bodies) == 1 for bodies in pages.values())
    assert ("/v2/info", "public") not in pages, "it names the user (root-014)"
