"""Which write drops which pages: gateway/core/invalidation.py."""

import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from gateway.core.cf_routes import CLOUD_FOUNDRY
from gateway.core.invalidation import EVERYTHING, OTHER, SAFE_METHODS, dropped_by, tags_of_page
from gateway.core.routes import Route

RECORDINGS = Path(__file__).parents[2] / "../shared/recordings"


def tags(path):
    return set(tags_of_page(CLOUD_FOUNDRY.match("GET", path), path))


def drops(method, path, page):
    """Whether a page of `page` is dropped by this write."""
    dropped = dropped_by(method, path)
    return EVERYTHING in dropped or bool(dropped & tags(page))


@pytest.mark.parametrize(
    "page", ["/v3/processes", "/v3/apps/g/processes", "/v3/apps/g/processes/web", "/v3/apps/g/manifest"]
)
@pytest.mark.parametrize(
    "write",
    [
        # controller.md §1, "What changes the list"
        "PATCH /v3/processes/g",
        "POST /v3/processes/g/actions/scale",
        "DELETE /v3/processes/g/instances/0",
        "PATCH /v3/apps/g/processes/web",
        "POST /v3/apps/g/processes/web/actions/scale",
        "DELETE /v3/apps/g/processes/web/instances/0",
        "POST /v3/apps",
        "PATCH /v3/apps/g",
        "DELETE /v3/apps/g",
        "POST /v3/apps/g/actions/start",
        "POST /v3/apps/g/actions/stop",
        "POST /v3/apps/g/actions/restart",
        "PATCH /v3/apps/g/relationships/current_droplet",
        "POST /v3/apps/g/actions/apply_manifest",
        "POST /v3/spaces/g/actions/apply_manifest",
        "POST /v3/deployments",
        "POST /v3/deployments/g/actions/cancel",
        "POST /v3/deployments/g/actions/continue",
        "DELETE /v3/spaces/g",
        "DELETE /v3/organizations/g",
        "POST /v3/roles",
        "DELETE /v3/roles/g",
        "DELETE /v3/users/g",
        "PUT /v2/apps/g",
        "PUT /v2/spaces/g/developers/u",
        "DELETE /v2/organizations/g/managers/u",
        "PUT /v2/users/u/spaces/g",
        "POST /staging/v3/droplets/g/upload",
    ],
)
def test_writes_that_change_the_processes(write, page):
    assert drops(*write.split(), page)


@pytest.mark.parametrize(
    ("write", "page"),
    [
        # what a page includes of other types
        ("PATCH /v3/spaces/g", "/v3/apps"),
        ("PATCH /v3/organizations/g", "/v3/spaces"),
        ("PATCH /v3/organizations/g", "/v3/apps"),
        ("PATCH /v3/users/g", "/v3/roles"),
        ("PATCH /v3/apps/g", "/v3/service_credential_bindings"),
        ("PATCH /v3/service_instances/g", "/v3/service_credential_bindings"),
        ("DELETE /v3/domains/g", "/v3/routes"),
        # relations
        ("POST /v3/organization_quotas/g/relationships/organizations", "/v3/organizations"),
        ("PATCH /v3/buildpacks/g", "/v3/apps"),
        ("DELETE /v3/droplets/g", "/v3/apps/g/droplets/current"),
        ("DELETE /v3/droplets/g", "/v3/apps/g/revisions"),
        ("DELETE /v3/droplets/g", "/v3/builds"),
        ("DELETE /v3/droplets/g", "/v3/tasks"),
        ("DELETE /v3/packages/g", "/v3/droplets"),
        ("DELETE /v3/packages/g", "/v3/builds"),
        ("POST /v3/packages", "/v3/apps/g/manifest"),
        ("PATCH /v3/environment_variable_groups/running", "/v3/apps/g/env"),
        ("POST /v3/service_credential_bindings", "/v3/apps/g/env"),
        ("POST /v3/service_brokers", "/v3/service_plans"),
        ("POST /v3/apps/g/tasks", "/v3/tasks"),
        ("POST /v3/apps/g/tasks", "/v3/apps"),
        ("POST /v3/processes/g/actions/scale", "/v3/spaces/g/usage_summary"),
        ("POST /v3/processes/g/actions/scale", "/v3/audit_events"),
        ("PUT /v2/routes/g/apps/a", "/v3/routes"),
        # unknown writes, and pages of unknown type
        ("POST /v3/nosuch", "/v3/processes"),
        ("POST /v2/nosuch", "/v3/domains"),
        ("POST /v3/apps.json", "/v3/apps"),
        ("POST /v3/processes/unheard/of", "/v3/processes"),
        ("DELETE /v3/packages/g", "/v2/apps"),
        ("POST /networking/v1/external/policies", "/networking/v1/external/policies"),
        ("PUT /x", "/x"),
    ],
)
def test_other_relations(write, page):
    assert drops(*write.split(), page)


@pytest.mark.parametrize(
    ("write", "page"),
    [
        ("POST /v3/processes/g/actions/scale", "/v3/apps"),
        ("POST /v3/processes/g/actions/scale", "/v3/organizations"),
        ("POST /v3/packages/g/upload", "/v3/processes"),
        ("POST /v3/apps/g/tasks", "/v3/processes"),
        ("POST /v3/resource_matches", "/v3/processes"),
        ("PUT /v2/resource_match", "/v3/processes"),
        ("PATCH /v3/spaces/g", "/v3/processes"),
        ("POST /v3/domains", "/v3/processes"),
        ("POST /networking/v1/external/policies", "/v3/processes"),
        ("POST /v3/apps", "/v3/info"),
    ],
)
def test_what_a_write_leaves_in_the_cache(write, page):
    assert not drops(*write.split(), page)


@pytest.mark.parametrize("method", sorted(SAFE_METHODS))
@pytest.mark.parametrize("path", ["/v3/processes", "/v3/nosuch", "/v2/apps", "/v3/stacks/g/apps", "/x"])
def test_safe_methods_drop_nothing(method, path):
    assert dropped_by(method, path) == frozenset()


def concrete(row):
    return row.template.replace("*", "x").replace(":", "")


WRITES = [
    pytest.param(method, row, id=f"{method} {row.template}")
    for row in CLOUD_FOUNDRY.rows
    for method in sorted(row.methods - SAFE_METHODS)
    if row.resource is not None
]
ASKS_ONLY = {
    "/v3/resource_matches",
    "/v3/spaces/:guid/manifest_diff",
    "/v3/apps/:guid/actions/clear_buildpack_cache",
    "/v3/admin/actions/clear_buildpack_cache",
}


@pytest.mark.parametrize(("method", "row"), WRITES)
def test_a_write_drops_the_pages_of_what_it_writes_to(method, row):
    dropped = dropped_by(method, concrete(row))
    own = set(tags_of_page(row, concrete(row)))
    assert (EVERYTHING in dropped or bool(own & dropped)) == (row.template not in ASKS_ONLY)


def test_only_these_known_writes_drop_everything():
    everything = {
        f"{method} {row.template}"
        for row in CLOUD_FOUNDRY.rows
        for method in row.methods - SAFE_METHODS
        if row.resource is not None and dropped_by(method, concrete(row)) == {EVERYTHING}
    }
    assert everything == {
        "POST /v3/roles",
        "DELETE /v3/roles/:guid",
        "DELETE /v3/users/:guid",
        "DELETE /v3/spaces/:guid",
        "DELETE /v3/organizations/:guid",
        "POST /v3/apps/:guid/actions/apply_manifest",
        "POST /v3/spaces/:guid/actions/apply_manifest",
        "PATCH /v3/feature_flags/:name",
    }


def test_tags_dropped_and_tags_carried_are_the_same_words():
    carried = {tag for row in CLOUD_FOUNDRY.rows if "GET" in row.methods for tag in tags_of_page(row, concrete(row))}
    dropped = {tag for row in CLOUD_FOUNDRY.rows for method in row.methods for tag in dropped_by(method, concrete(row))}
    named = {"apps:guid", "processes:guid"}
    assert dropped - {EVERYTHING} == (carried | named) - {"root", "feature_flags"}


def test_a_page_of_unknown_type_goes_with_any_write():
    assert tags_of_page(Route("/x", operator=True), "/x") == (OTHER,)
    assert OTHER in dropped_by("PATCH", "/v3/tasks/g")
    assert OTHER in dropped_by("PUT", "/x")


def test_no_recorded_page_outlives_the_write_that_changed_it():
    """A cache without any ttl, kept by these two functions alone, shows what the controller showed (group writes)."""
    if not RECORDINGS.is_dir():
        pytest.skip("recordings not beside the checkout")
    lines = (RECORDINGS / "exchanges.jsonl").read_text(encoding="utf-8").splitlines()
    pages, jobs = {}, {}
    for exchange in (one for one in map(json.loads, lines) if one["group"] == "writes"):
        method, target = exchange["request"]["method"], exchange["request"]["target"]
        status, body = exchange["response"]["status"], exchange["response"]["body"]
        path = target.partition("?")[0]
        dropped = dropped_by(method, path) if not 400 <= status < 500 else frozenset()
        location = dict(exchange["response"]["headers"]).get("Location")
        if location:
            jobs[urlsplit(location).path] = dropped
        if path in jobs and status == 200 and json.loads(body)["state"] != "PROCESSING":
            dropped |= jobs.pop(path)
        pages = {
            key: (kept, page) for key, (kept, page) in pages.items() if EVERYTHING not in dropped and not dropped & kept
        }
        row = CLOUD_FOUNDRY.match(method, path)
        # Statistics come from Diego and change by themselves; they are never cached by default.
        if method == "GET" and status == 200 and row.resource == "processes" and not path.endswith("/stats"):
            key = (exchange["principal"], target)
            if key in pages:
                assert pages[key][1] == body, exchange["name"]
            pages[key] = (set(tags_of_page(row, path)), body)
