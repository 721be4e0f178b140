"""Which write drops which pages: the controller's relations between resource types, as a table.

A page carries the tags of every type it may show; a write drops the tags of every type it may change. A write that is
not in the table drops everything: too much is a miss, too little a lie. The grain is the resource type; a finer tag
(`processes:<guid>`) could stand beside the type's without changing either function. Where the controller answers a
write with 202 and a job, the same tags must be dropped again at the job's end, since the job does the work
(controller.md §1).

Pages also change without a write that passes here: through deployments under way, staging callbacks, other ways to the
controller. Hence every page has a ttl as well; this module cannot see those.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.core.templates import Matcher

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.core.routes import Route

EVERYTHING: Final = "*"
# Pages of a type we do not know, which an operator chose to cache: any write may change them.
OTHER: Final = "other"

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})

# Every write leaves a trace in these.
_ALWAYS: Final = frozenset({"audit_events", "usage", OTHER})

# What a page of a type shows besides its own type: `include`, `fields[...]`, and what manifests are made of.
_SHOWS: Final = {
    "apps": ("apps", "spaces", "organizations"),
    "spaces": ("spaces", "organizations"),
    "roles": ("roles", "users", "spaces", "organizations"),
    "routes": ("routes", "domains", "spaces", "organizations"),
    "domains": ("domains", "organizations"),
    "users": ("users", "roles"),
    "service_offerings": ("services",),
    "service_plans": ("services", "spaces", "organizations"),
    "service_brokers": ("services",),
    "service_instances": ("service_instances", "services", "spaces", "organizations"),
    "service_credential_bindings": ("service_bindings", "service_instances", "apps"),
    "service_route_bindings": ("service_bindings", "service_instances", "routes"),
    "jobs": (OTHER,),
    "manifests": ("apps", "processes", "routes", "sidecars", "service_bindings", "service_instances"),
}

# "+name" stands for a set of types that change together.
_SETS: Final = {
    "+app": "apps processes revisions deployments sidecars",
    "+app_tree": "apps processes revisions deployments sidecars droplets packages builds tasks routes service_bindings",
    "+quotas": "organization_quotas space_quotas organizations spaces",
    "+services": "services service_instances service_bindings",
}

_TABLE: Final = """
# methods        template                                                    drops
PATCH            /v3/processes/:guid                                         processes revisions
POST             /v3/processes/:guid/actions/scale                           processes
DELETE           /v3/processes/:guid/instances/:index                        processes
PATCH            /v3/apps/:guid/processes/:type                              processes revisions
POST             /v3/apps/:guid/processes/:type/actions/scale                processes
DELETE           /v3/apps/:guid/processes/:type/instances/:index             processes

# A new app has its web process at once. Starting makes a revision and a new version of each process.
POST             /v3/apps                                                    apps processes
PATCH            /v3/apps/:guid                                              +app
DELETE           /v3/apps/:guid                                              +app_tree
POST             /v3/apps/:guid/actions/start                                +app
POST             /v3/apps/:guid/actions/stop                                 +app
POST             /v3/apps/:guid/actions/restart                              +app
POST             /v3/apps/:guid/actions/clear_buildpack_cache                -
PATCH            /v3/apps/:guid/environment_variables                        +app
PATCH            /v3/apps/:guid/features/:name                               +app
# The droplet brings its process types and sidecars.
PATCH            /v3/apps/:guid/relationships/current_droplet                +app droplets
POST             /v3/apps/:guid/sidecars                                     +app
POST             /v3/apps/:guid/tasks                                        tasks

PATCH            /v3/revisions/:guid                                         revisions
PATCH,DELETE     /v3/sidecars/:guid                                          +app
PATCH            /v3/tasks/:guid                                             tasks
POST             /v3/tasks/:guid/actions/cancel                              tasks
PUT              /v3/tasks/:guid/cancel                                      tasks
POST             /v3/packages                                                packages
PATCH,DELETE     /v3/packages/:guid                                          packages
POST             /v3/packages/:guid/upload                                   packages
POST             /v3/builds                                                  builds droplets packages
PATCH            /v3/builds/:guid                                            builds droplets packages
POST             /v3/droplets                                                droplets
PATCH            /v3/droplets/:guid                                          droplets
DELETE           /v3/droplets/:guid                                          droplets apps
POST             /v3/droplets/:guid/upload                                   droplets
# A deployment starts the app with its droplet, and its updater adds and removes web processes.
POST             /v3/deployments                                             +app droplets
PATCH            /v3/deployments/:guid                                       deployments
POST             /v3/deployments/:guid/actions/cancel                        +app droplets
POST             /v3/deployments/:guid/actions/continue                      +app droplets
*                /staging/*                                                  builds droplets packages +app

# These answer questions.
POST             /v3/resource_matches                                        -
POST             /v3/spaces/:guid/manifest_diff                              -
PUT              /v2/resource_match                                          -

POST             /v3/spaces                                                  spaces
PATCH            /v3/spaces/:guid                                            spaces
PATCH            /v3/spaces/:guid/features/:name                             spaces
PATCH            /v3/spaces/:guid/relationships/isolation_segment            spaces isolation_segments
DELETE           /v3/spaces/:guid/routes                                     routes
# Creating an organization can make its creator a manager of it.
POST             /v3/organizations                                           organizations roles users +quotas
PATCH            /v3/organizations/:guid                                     organizations
PATCH            /v3/organizations/:guid/relationships/default_isolation_segment organizations isolation_segments
*                /v3/organization_quotas/*                                   +quotas
*                /v3/space_quotas/*                                          +quotas
*                /v3/isolation_segments/*                                    isolation_segments organizations spaces
*                /v3/security_groups/*                                       security_groups

# Whoever gains or loses a role sees other lists of every type; so it is when a container of others goes.
POST             /v3/roles                                                   *
DELETE           /v3/roles/:guid                                             *
DELETE           /v3/spaces/:guid                                            *
DELETE           /v3/organizations/:guid                                     *
DELETE           /v3/users/:guid                                             *
POST             /v3/users                                                   users
PATCH            /v3/users/:guid                                             users
# A manifest touches whatever it names.
POST             /v3/apps/:guid/actions/apply_manifest                       *
POST             /v3/spaces/:guid/actions/apply_manifest                     *

# A mapped route is written into the processes behind it.
*                /v3/domains/*                                               domains routes organizations
*                /v3/routes/*                                                routes +app service_bindings
*                /v3/service_brokers/*                                       +services
*                /v3/service_offerings/*                                     +services
*                /v3/service_plans/*                                         +services
*                /v3/service_instances/*                                     +services apps routes
*                /v3/service_credential_bindings/*                           service_bindings service_instances +app
*                /v3/service_route_bindings/*                                service_bindings service_instances routes
# Apps name their buildpacks and stack.
*                /v3/buildpacks/*                                            buildpacks apps droplets
*                /v3/stacks/*                                                stacks buildpacks apps
# Flags rule who sees the marketplace and environments; groups appear in each app's environment.
PATCH            /v3/feature_flags/:name                                     feature_flags +services apps
PATCH            /v3/environment_variable_groups/:name                       environment_variable_groups apps
POST             /v3/app_usage_events/actions/destructively_purge_all_and_reseed      usage
POST             /v3/service_usage_events/actions/destructively_purge_all_and_reseed  usage
POST             /v3/admin/actions/clear_buildpack_cache                     -

# v2 writes change what v3 shows. Spaces, organizations and users carry roles there: left to the last rows.
*                /v2/apps/*                                                  +app_tree
*                /v2/routes/*                                                routes +app service_bindings
*                /v2/route_mappings/*                                        routes +app
*                /v2/domains/*                                               domains routes organizations
*                /v2/private_domains/*                                       domains routes organizations
*                /v2/shared_domains/*                                        domains routes organizations
*                /v2/services/*                                              +services
*                /v2/service_brokers/*                                       +services
*                /v2/service_plans/*                                         +services
*                /v2/service_plan_visibilities/*                             +services
*                /v2/service_instances/*                                     +services apps routes
*                /v2/user_provided_service_instances/*                       +services apps routes
*                /v2/service_bindings/*                                      service_bindings service_instances +app
*                /v2/service_keys/*                                          service_bindings service_instances
*                /v2/buildpacks/*                                            buildpacks apps droplets
*                /v2/stacks/*                                                stacks buildpacks apps
*                /v2/security_groups/*                                       security_groups
*                /v2/quota_definitions/*                                     +quotas
*                /v2/space_quota_definitions/*                               +quotas

*                /v3/*                                                       *
*                /v2/*                                                       *
*                /*                                                          -
"""


def _drops(words: list[str]) -> frozenset[str]:
    if words == [EVERYTHING]:
        return frozenset({EVERYTHING})
    types = {kind for word in words if word != "-" for kind in _SETS.get(word, word).split()}
    return _ALWAYS | types


def _entries() -> Iterator[tuple[str, frozenset[str], frozenset[str]]]:
    for line in _TABLE.splitlines():
        if line and not line.startswith("#"):
            methods, template, *words = line.split()
            yield template, frozenset() if methods == "*" else frozenset(methods.split(",")), _drops(words)


_WRITES: Final = Matcher(_entries())


def dropped_by(method: str, path: str) -> frozenset[str]:
    """The tags that a write drops once it has, or may have, happened; again when a job that it began ends.

    Args:
        method: as sent; a safe one (RFC 9110 §9.2.1) drops nothing.
        path: the canonical path.
    """
    if method in SAFE_METHODS:
        return frozenset()
    return _WRITES.match(method, path) or frozenset({EVERYTHING})


def tags_of_page(route: Route, _path: str) -> tuple[str, ...]:
    """The tags a stored page carries.

    Args:
        route: the row its request fell under.
        _path: the canonical path, for tags finer than the type; there are none yet.
    """
    if route.resource is None:
        return (OTHER,)
    return _SHOWS.get(route.resource, (route.resource,))
