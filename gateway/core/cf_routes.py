"""The Cloud Foundry API surface as one table: path -> access, cache, rate class (controller.md §2).

Data and the few words to read it with; matching is in `routes.py`. The rows are the endpoints of CC API v3.228 and v2.
What is known is strict: a request without the right token ends here. What is unknown is lenient, because the controller
answers 404 before it looks at the token (recordings: other-033, other-036, other-061) and because new endpoints must
not wait for a release of ours.

access  token    a token with a read scope for GET and HEAD, with a write scope for the rest
        valid    any valid token; v2 judges scopes by itself and has its own error for them (10007 CF-InsufficientScope)
        public   no token needed, and a bad one does not fail; what is sent is passed on
        deny     nobody
        …?       lenient: a missing or bad token is left for the controller to judge
cache   public   one page for everybody
        global   one page for all who see everything, one per principal for the rest: only lists whose rows hide
                 secrets from everybody alike, so that the three global scopes get the same bytes
        own      one page per principal
        -        off: single resources (secrets are shown by role), states that clients poll while the controller
                 changes them by itself (builds, droplets, deployments, tasks, jobs), and what answers a token and
                 no token differently (service_offerings, service_plans; `/v2/info` names the user: root-014)
rate    GET and HEAD take the class written; other methods of the same line are "write"
type    the resource type, where it is not the path's first segment, for invalidation; `raw` where the body is the
        user's own JSON or a redirect to a blob store, so that nothing in it is a link of the API
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.core.rate_policy import EXEMPT
from gateway.core.routes import NO_CACHE, Access, CacheMode, CacheRule, Route, RouteTable, Share

if TYPE_CHECKING:
    from collections.abc import Iterator

READ_SCOPES: Final = (
    "cloud_controller.read",
    "cloud_controller.admin",
    "cloud_controller.admin_read_only",
    "cloud_controller.global_auditor",
)
WRITE_SCOPES: Final = ("cloud_controller.write", "cloud_controller.admin")

# Scopes that suffice in one place only.
EXTRA_SCOPES: Final = {
    ("GET", "/v3/service_instances/:guid/permissions"): "cloud_controller_service_permissions.read",
    ("PATCH", "/v3/builds/:guid"): "cloud_controller.update_build_state",
}

# Five seconds: well below the scrape interval of exporters, and the longest that a change made past the gateway (the
# progress of a deployment, a role taken away elsewhere) stays unseen. Nothing stale is served while a refresh runs, so
# the bound holds; only when the controller fails may a page be older, and Cache-Status says so.
_LIST_TTL, _LIST_STALE_IF_ERROR = 5.0, 60.0
CACHES: Final = {
    "-": NO_CACHE,
    "public": CacheRule(CacheMode.POLICY, ttl=60.0, stale_if_error=600.0, share=Share.PUBLIC),
    "global": CacheRule(CacheMode.POLICY, ttl=_LIST_TTL, stale_if_error=_LIST_STALE_IF_ERROR, share=Share.GLOBAL),
    "own": CacheRule(CacheMode.POLICY, ttl=_LIST_TTL, stale_if_error=_LIST_STALE_IF_ERROR, share=Share.PRINCIPAL),
}

# Every rate class there is, with what falls under it.
RATE_CLASSES: Final = {
    EXEMPT: "what no policy counts: the paths that the controller's own limiter lets pass (controller.md §3), bare",
    "public": "info, health and CORS preflights: no token, next to no cost",
    "read": "one resource",
    "list": "a page of a list, the controller's dearest reads",
    "write": "whatever changes something",
    "upload": "bits of packages, droplets and buildpacks: few, long, large",
    "default": "what passes through to something other than the API, and the operator's own new routes",
}

TABLE: Final = """
# methods        template                                                   access  cache   rate    type
GET              /                                                          public  public  exempt  root
GET              /v3                                                        public  public  exempt  root
GET              /v3/info                                                   public  public  public  root
GET              /v2/info                                                   public  -       exempt  root
GET              /info                                                      public  -       public  root
GET              /healthz                                                   public  -       exempt
GET              /healthz/*                                                 public  -       public

# Never through a front door. Basic auth and other servers behind the same host: passed on as they come.
*                /internal/*                                                deny    -       default
*                /staging/*                                                 public  -       upload  raw
GET              /v2/buildpacks/:guid/download                              public  -       upload  raw
*                /networking/*                                              public  -       default
*                /routing/*                                                 public  -       default

GET              /v3/processes                                              token   global  list
GET,PATCH        /v3/processes/:guid                                        token   -       read
GET              /v3/processes/:guid/stats                                  token   -       read
GET              /v3/processes/:guid/process_instances                      token   -       list
GET              /v3/processes/:guid/sidecars                               token   -       list    sidecars
POST             /v3/processes/:guid/actions/scale                          token   -       write
DELETE           /v3/processes/:guid/instances/:index                       token   -       write
GET              /v3/apps/:guid/processes                                   token   own     list    processes
GET,PATCH        /v3/apps/:guid/processes/:type                             token   -       read    processes
GET              /v3/apps/:guid/processes/:type/stats                       token   -       read    processes
GET              /v3/apps/:guid/processes/:type/process_instances           token   -       list    processes
POST             /v3/apps/:guid/processes/:type/actions/scale               token   -       write   processes
DELETE           /v3/apps/:guid/processes/:type/instances/:index            token   -       write   processes

GET,POST         /v3/apps                                                   token   global  list
GET,PATCH,DELETE /v3/apps/:guid                                             token   -       read
POST             /v3/apps/:guid/actions/start                               token   -       write
POST             /v3/apps/:guid/actions/stop                                token   -       write
POST             /v3/apps/:guid/actions/restart                             token   -       write
POST             /v3/apps/:guid/actions/apply_manifest                      token   -       write
POST             /v3/apps/:guid/actions/clear_buildpack_cache               token   -       write
GET              /v3/apps/:guid/env                                         token   -       read
GET,PATCH        /v3/apps/:guid/environment_variables                       token   -       read
GET              /v3/apps/:guid/permissions                                 token   -       read
GET              /v3/apps/:guid/ssh_enabled                                 token   -       read
GET              /v3/apps/:guid/features                                    token   -       list
GET,PATCH        /v3/apps/:guid/features/:name                              token   -       read
GET              /v3/apps/:guid/manifest                                    token   -       read    manifests
GET,PATCH        /v3/apps/:guid/relationships/current_droplet               token   -       read
GET              /v3/apps/:guid/droplets/current                            token   -       read    droplets
GET              /v3/apps/:guid/droplets                                    token   -       list    droplets
GET              /v3/apps/:guid/packages                                    token   -       list    packages
GET              /v3/apps/:guid/builds                                      token   -       list    builds
GET              /v3/apps/:guid/revisions                                   token   -       list    revisions
GET              /v3/apps/:guid/revisions/deployed                          token   -       list    revisions
GET              /v3/apps/:guid/routes                                      token   -       list    routes
GET,POST         /v3/apps/:guid/sidecars                                    token   -       list    sidecars
GET,POST         /v3/apps/:guid/tasks                                       token   -       list    tasks

GET,PATCH        /v3/revisions/:guid                                        token   -       read
GET              /v3/revisions/:guid/environment_variables                  token   -       read
GET,PATCH,DELETE /v3/sidecars/:guid                                         token   -       read
GET              /v3/tasks                                                  token   -       list
GET,PATCH        /v3/tasks/:guid                                            token   -       read
POST             /v3/tasks/:guid/actions/cancel                             token   -       write
PUT              /v3/tasks/:guid/cancel                                     token   -       write

GET,POST         /v3/packages                                               token   -       list
GET,PATCH,DELETE /v3/packages/:guid                                         token   -       read
POST             /v3/packages/:guid/upload                                  token   -       upload
GET              /v3/packages/:guid/download                                token   -       read    raw
GET              /v3/packages/:guid/droplets                                token   -       list    droplets
GET,POST         /v3/builds                                                 token   -       list
GET,PATCH        /v3/builds/:guid                                           token   -       read
GET,POST         /v3/droplets                                               token   -       list
GET,PATCH,DELETE /v3/droplets/:guid                                         token   -       read
POST             /v3/droplets/:guid/upload                                  token   -       upload
GET              /v3/droplets/:guid/download                                token   -       read    raw
GET,POST         /v3/deployments                                            token   -       list
GET,PATCH        /v3/deployments/:guid                                      token   -       read
POST             /v3/deployments/:guid/actions/cancel                       token   -       write
POST             /v3/deployments/:guid/actions/continue                     token   -       write
POST             /v3/resource_matches                                       token   -       write
GET              /v3/jobs/:guid                                             token   -       read

GET,POST         /v3/organizations                                          token   global  list
GET,PATCH,DELETE /v3/organizations/:guid                                    token   -       read
GET              /v3/organizations/:guid/domains                            token   -       list    domains
GET              /v3/organizations/:guid/domains/default                    token   -       read    domains
GET              /v3/organizations/:guid/users                              token   -       list    users
GET              /v3/organizations/:guid/usage_summary                      token   -       read    usage
GET,PATCH        /v3/organizations/:guid/relationships/default_isolation_segment token   -       read
GET,POST         /v3/organization_quotas                                    token   -       list
GET,PATCH,DELETE /v3/organization_quotas/:guid                              token   -       read
POST             /v3/organization_quotas/:guid/relationships/organizations  token   -       write

GET,POST         /v3/spaces                                                 token   global  list
GET,PATCH,DELETE /v3/spaces/:guid                                           token   -       read
POST             /v3/spaces/:guid/actions/apply_manifest                    token   -       write
POST             /v3/spaces/:guid/manifest_diff                             token   -       write
DELETE           /v3/spaces/:guid/routes                                    token   -       write   routes
GET              /v3/spaces/:guid/users                                     token   -       list    users
GET              /v3/spaces/:guid/usage_summary                             token   -       read    usage
GET              /v3/spaces/:guid/features                                  token   -       list
GET,PATCH        /v3/spaces/:guid/features/:name                            token   -       read
GET,PATCH        /v3/spaces/:guid/relationships/isolation_segment           token   -       read
GET              /v3/spaces/:guid/running_security_groups                   token   -       list    security_groups
GET              /v3/spaces/:guid/staging_security_groups                   token   -       list    security_groups
GET,POST         /v3/space_quotas                                           token   -       list
GET,PATCH,DELETE /v3/space_quotas/:guid                                     token   -       read
POST             /v3/space_quotas/:guid/relationships/spaces                token   -       write
DELETE           /v3/space_quotas/:guid/relationships/spaces/:space         token   -       write

GET,POST         /v3/roles                                                  token   -       list
GET,DELETE       /v3/roles/:guid                                            token   -       read
GET,POST         /v3/users                                                  token   -       list
GET,PATCH,DELETE /v3/users/:guid                                            token   -       read

GET,POST         /v3/domains                                                token   -       list
GET,PATCH,DELETE /v3/domains/:guid                                          token   -       read
GET              /v3/domains/:guid/route_reservations                       token   -       read    routes
POST             /v3/domains/:guid/relationships/shared_organizations       token   -       write
DELETE           /v3/domains/:guid/relationships/shared_organizations/:org  token   -       write
GET,POST         /v3/routes                                                 token   -       list
GET,PATCH,DELETE /v3/routes/:guid                                           token   -       read
GET,POST,PATCH   /v3/routes/:guid/destinations                              token   -       list
PATCH,DELETE     /v3/routes/:guid/destinations/:destination                 token   -       write
GET,POST         /v3/routes/:guid/relationships/shared_spaces               token   -       list
DELETE           /v3/routes/:guid/relationships/shared_spaces/:space        token   -       write
PATCH            /v3/routes/:guid/relationships/space                       token   -       write

GET,POST         /v3/security_groups                                        token   -       list
GET,PATCH,DELETE /v3/security_groups/:guid                                  token   -       read
POST             /v3/security_groups/:guid/relationships/running_spaces     token   -       write
DELETE           /v3/security_groups/:guid/relationships/running_spaces/:space token   -       write
POST             /v3/security_groups/:guid/relationships/staging_spaces     token   -       write
DELETE           /v3/security_groups/:guid/relationships/staging_spaces/:space token   -       write
GET,POST         /v3/isolation_segments                                     token   -       list
GET,PATCH,DELETE /v3/isolation_segments/:guid                               token   -       read
GET              /v3/isolation_segments/:guid/organizations                 token   -       list    organizations
GET,POST         /v3/isolation_segments/:guid/relationships/organizations   token   -       list
DELETE           /v3/isolation_segments/:guid/relationships/organizations/:org token   -       write
GET              /v3/isolation_segments/:guid/relationships/spaces          token   -       list

GET,POST         /v3/service_brokers                                        token   -       list
GET,PATCH,DELETE /v3/service_brokers/:guid                                  token   -       read
GET              /v3/service_offerings                                      public  -       list
GET              /v3/service_offerings/:guid                                public  -       read
PATCH,DELETE     /v3/service_offerings/:guid                                token   -       write
GET              /v3/service_plans                                          public  -       list
GET              /v3/service_plans/:guid                                    public  -       read
PATCH,DELETE     /v3/service_plans/:guid                                    token   -       write
POST,PATCH       /v3/service_plans/:guid/visibility                         token   -       write
DELETE           /v3/service_plans/:guid/visibility/:org                    token   -       write
GET,POST         /v3/service_instances                                      token   -       list
GET,PATCH,DELETE /v3/service_instances/:guid                                token   -       read
GET              /v3/service_instances/:guid/credentials                    token   -       read    raw
GET              /v3/service_instances/:guid/parameters                     token   -       read    raw
GET              /v3/service_instances/:guid/permissions                    token   -       read
GET,POST         /v3/service_instances/:guid/relationships/shared_spaces    token   -       list
DELETE           /v3/service_instances/:guid/relationships/shared_spaces/:space token   -       write
GET              /v3/service_instances/:guid/relationships/shared_spaces/usage_summary token   -       read
GET,POST         /v3/service_credential_bindings                            token   -       list
GET,PATCH,DELETE /v3/service_credential_bindings/:guid                      token   -       read
GET              /v3/service_credential_bindings/:guid/details              token   -       read    raw
GET              /v3/service_credential_bindings/:guid/parameters           token   -       read    raw
GET,POST         /v3/service_route_bindings                                 token   -       list
GET,PATCH,DELETE /v3/service_route_bindings/:guid                           token   -       read
GET              /v3/service_route_bindings/:guid/parameters                token   -       read    raw

GET,POST         /v3/buildpacks                                             token   -       list
GET,PATCH,DELETE /v3/buildpacks/:guid                                       token   -       read
POST             /v3/buildpacks/:guid/upload                                token   -       upload
GET,POST         /v3/stacks                                                 token   -       list
GET,PATCH,DELETE /v3/stacks/:guid                                           token   -       read
GET              /v3/stacks/:guid/apps                                      token   -       list    apps
GET              /v3/feature_flags                                          token   -       list
GET,PATCH        /v3/feature_flags/:name                                    token   -       read
GET,PATCH        /v3/environment_variable_groups/:name                      token   -       read
GET              /v3/audit_events                                           token   -       list
GET              /v3/audit_events/:guid                                     token   -       read
GET              /v3/app_usage_events                                       token   -       list    usage
GET              /v3/app_usage_events/:guid                                 token   -       read    usage
POST             /v3/app_usage_events/actions/destructively_purge_all_and_reseed token   -       write   usage
GET              /v3/service_usage_events                                   token   -       list    usage
GET              /v3/service_usage_events/:guid                             token   -       read    usage
POST             /v3/service_usage_events/actions/destructively_purge_all_and_reseed token   -       write   usage
GET              /v3/info/usage_summary                                     token   -       read    usage
POST             /v3/admin/actions/clear_buildpack_cache                    token   -       write

# v2 lists that answer without a token, and jobs, whose rule for a missing token changed over time.
GET              /v2/services                                               public  -       list
GET              /v2/service_plans                                          public  -       list
*                /v2/jobs/*                                                 valid?  -       read

# Unknown: no route exists for OPTIONS but a CORS preflight, which carries no token.
OPTIONS          /v3/*                                                      public  -       public
GET              /v3/*                                                      token?  -       read
*                /v3/*                                                      token?  -       write
OPTIONS          /v2/*                                                      public  -       public
GET              /v2/*                                                      valid?  -       read
*                /v2/*                                                      valid?  -       write
*                /*                                                         valid?  -       default
"""

# v2 is one habit throughout: a collection, and resources with their relations below it.
V2_RESOURCES: Final = (
    "app_usage_events", "apps", "buildpacks", "config", "domains", "events", "organizations", "private_domains",
    "quota_definitions", "resource_match", "route_mappings", "routes", "security_groups", "service_bindings",
    "service_brokers", "service_instances", "service_keys", "service_plan_visibilities", "service_plans",
    "service_usage_events", "services", "shared_domains", "space_quota_definitions", "spaces", "stacks",
    "user_provided_service_instances", "users",
)  # fmt: skip


def _v2_lines() -> Iterator[str]:
    """v2 paths hold relative URLs only, so there is nothing to rewrite."""
    for name in V2_RESOURCES:
        public = name in {"services", "service_plans"}
        yield f"{'POST,PUT' if public else 'GET,POST,PUT'} /v2/{name} valid - list raw"
        yield f"GET,POST,PUT,DELETE /v2/{name}/* valid - read raw"


def _resource(template: str) -> str | None:
    """The type that a v3 path shows by its first segment."""
    first = template.removeprefix("/v3/").partition("/")[0]
    return first if template.startswith("/v3/") and first != "*" else None


def _rows(line: str) -> Iterator[Route]:
    """The one or two rows of a line: reads apart from the rest, since they need other scopes."""
    words = line.split()
    methods, template, access, cache, rate = words[:5]
    named = frozenset() if methods == "*" else frozenset(methods.split(","))
    resource = next((word for word in words[5:] if word != "raw"), None) or _resource(template)
    for part in (named & {"GET"}, named - {"GET"}) if named else (named,):
        if part or not named:
            reads = part == {"GET"}
            scopes = (READ_SCOPES if reads else WRITE_SCOPES) if access.startswith("token") else ()
            extra = tuple(
                EXTRA_SCOPES[method, template] for method in sorted(part) if (method, template) in EXTRA_SCOPES
            )
            yield Route(
                template=template,
                methods=part,
                access={"public": Access.PUBLIC, "deny": Access.DENY}.get(access, Access.SCOPES),
                scopes_any=scopes + extra,
                cache=CACHES[cache] if reads else NO_CACHE,
                rate="write" if "GET" in named and not reads else rate,
                resource=resource,
                rewrite="raw" not in words[5:],
                lenient=access.endswith("?"),
            )


def _lines() -> Iterator[str]:
    yield from (line for line in TABLE.splitlines() if line and not line.startswith("#"))
    yield from _v2_lines()


CLOUD_FOUNDRY: Final = RouteTable(row for line in _lines() for row in _rows(line))
