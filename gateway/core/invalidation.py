"""Which write drops which pages: the controller's relations between resource types, as a table.

A page carries the tags of every type it may show; a write drops the tags of every type it may change. A write that is
not in the table drops everything: too much is a miss, too little a lie. Where the controller answers a write with 202
and a job, the same tags must be dropped again at the job's end, since the job does the work (controller.md §1).

There are two grains. `processes` is carried by every page of the type and dropped by what may change which rows a page
has, or who sees them. `processes:<guid>` is dropped by what changes one row and neither adds nor removes any; it is
carried by the pages whose rows are known (`rows.py`), under the row's own guid and under that of the app it belongs to.
Pages whose rows are not known, and pages whose filter or order such a change may reach, carry `processes:*` in its
place, which every change of a row drops.

Pages also change without a write that passes here: through deployments under way, staging callbacks, other ways to the
controller. Hence every page has a ttl as well; this module cannot see those.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gateway.core.templates import PARAMETER, Matcher, shape

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.core.routes import Route

EVERYTHING: Final = "*"
# Pages of a type we do not know, which an operator chose to cache: any write may change them.
OTHER: Final = "other"

# The types whose pages can carry tags of single rows.
ROW_TYPES: Final = frozenset({"apps", "processes"})
_ANY_ROW: Final = "*"
# A segment that names one row and nothing else: no escapes, no `.json` for the controller to take off.
_PLAIN: Final = re.compile(r"[0-9A-Za-z_-]+")

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_WRITE_METHODS: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})

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
    "manifests": (
        *("apps", "processes", "routes", "sidecars", "service_bindings", "service_instances"),
        *("droplets", "packages"),
    ),
}

# "+name" stands for a set of types that change together; "type:" for the row that the first parameter of the template
# names, or for the rows that belong to it.
_SETS: Final = {
    "+app_row": "apps: processes: revisions deployments sidecars",
    "+app": "apps processes revisions deployments sidecars",
    "+app_tree": "apps processes revisions deployments sidecars droplets packages builds tasks routes service_bindings",
    "+domains": "domains organizations routes service_bindings apps processes revisions deployments sidecars",
    "+quotas": "organization_quotas space_quotas organizations spaces",
    "+bindings": "service_bindings service_instances routes apps processes revisions deployments sidecars",
    "+services": "services service_instances service_bindings",
}

_TABLE: Final = """
# methods        template                                                    drops
# These change one process, which stays where it is in every list that is not ordered or filtered by what changed.
PATCH            /v3/processes/:guid                                         processes: revisions
POST             /v3/processes/:guid/actions/scale                           processes:
DELETE           /v3/processes/:guid/instances/:index                        processes:
PATCH            /v3/apps/:guid/processes/:type                              processes: revisions
POST             /v3/apps/:guid/processes/:type/actions/scale                processes:
DELETE           /v3/apps/:guid/processes/:type/instances/:index             processes:

# A new app has its web process at once. A new name is written into the app's processes. Starting makes a revision and
# a new version of each process.
POST             /v3/apps                                                    apps processes
PATCH            /v3/apps/:guid                                              +app_row
DELETE           /v3/apps/:guid                                              +app_tree
POST             /v3/apps/:guid/actions/start                                +app
POST             /v3/apps/:guid/actions/stop                                 +app
POST             /v3/apps/:guid/actions/restart                              +app
POST             /v3/apps/:guid/actions/clear_buildpack_cache                -
PATCH            /v3/apps/:guid/environment_variables                        +app_row
PATCH            /v3/apps/:guid/features/:name                               +app_row
# The droplet brings its process types and sidecars.
PATCH            /v3/apps/:guid/relationships/current_droplet                +app droplets
POST             /v3/apps/:guid/sidecars                                     +app
# A task takes the next of its app's numbers, which is a change of the app.
POST             /v3/apps/:guid/tasks                                        tasks apps:

PATCH            /v3/revisions/:guid                                         revisions
PATCH,DELETE     /v3/sidecars/:guid                                          +app
PATCH            /v3/tasks/:guid                                             tasks
POST             /v3/tasks/:guid/actions/cancel                              tasks
PUT              /v3/tasks/:guid/cancel                                      tasks
POST             /v3/packages                                                packages
# What was made of a package or a droplet names it for as long as it is there.
PATCH,DELETE     /v3/packages/:guid                                          packages builds droplets
POST             /v3/packages/:guid/upload                                   packages
POST             /v3/builds                                                  builds droplets packages
PATCH            /v3/builds/:guid                                            builds droplets packages
POST             /v3/droplets                                                droplets
PATCH            /v3/droplets/:guid                                          droplets
DELETE           /v3/droplets/:guid                                          droplets apps builds revisions tasks
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

# A mapped route is written into the processes behind it, and a domain takes its routes with it.
*                /v3/domains/*                                               domains routes organizations
DELETE           /v3/domains/:guid                                           +domains
*                /v3/routes/*                                                routes +app service_bindings
*                /v3/service_brokers/*                                       +services
*                /v3/service_offerings/*                                     +services
*                /v3/service_plans/*                                         +services
*                /v3/service_instances/*                                     +services +app routes
*                /v3/service_credential_bindings/*                           service_bindings service_instances +app
*                /v3/service_route_bindings/*                                +bindings
# Apps name their buildpacks and stack.
*                /v3/buildpacks/*                                            buildpacks apps droplets
*                /v3/stacks/*                                                stacks buildpacks apps
# Flags rule who sees what; groups appear in each app's environment.
PATCH            /v3/feature_flags/:name                                     *
PATCH            /v3/environment_variable_groups/:name                       environment_variable_groups apps
POST             /v3/app_usage_events/actions/destructively_purge_all_and_reseed      usage
POST             /v3/service_usage_events/actions/destructively_purge_all_and_reseed  usage
POST             /v3/admin/actions/clear_buildpack_cache                     -

# v2 writes change what v3 shows. Spaces, organizations and users carry roles there: left to the last rows.
*                /v2/apps/*                                                  +app_tree
*                /v2/routes/*                                                routes +app service_bindings
*                /v2/route_mappings/*                                        routes +app
*                /v2/domains/*                                               +domains
*                /v2/private_domains/*                                       +domains
*                /v2/shared_domains/*                                        +domains
*                /v2/services/*                                              +services
*                /v2/service_brokers/*                                       +services
*                /v2/service_plans/*                                         +services
*                /v2/service_plan_visibilities/*                             +services
*                /v2/service_instances/*                                     +services +app routes
*                /v2/user_provided_service_instances/*                       +services +app routes
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

# By its `operation`, the write that a job does the work of: for jobs whose beginning was not seen. What is not here
# drops everything.
_WORK_OF: Final = {
    "app.clear_buildpack_cache": ("POST", "/v3/apps/guid/actions/clear_buildpack_cache"),
    "app.delete": ("DELETE", "/v3/apps/guid"),
    "service_broker.catalog.synchronize": ("PATCH", "/v3/service_brokers/guid"),
}


@dataclass(frozen=True, slots=True)
class _Drops:
    """What a write drops.

    Attributes:
        types: these, whole.
        rows: of these types, the rows that the path names.
        position: which segment of the path names them.
    """

    types: frozenset[str]
    rows: frozenset[str] = frozenset()
    position: int = 0

    def tags(self, path: str) -> frozenset[str]:
        """The tags, for a write on this path."""
        if not self.rows:
            return self.types
        guid = [segment for segment in path.split("/") if segment][self.position]
        if _PLAIN.fullmatch(guid) is None:
            return self.types | self.rows
        return self.types | {tag for kind in self.rows for tag in (any_row(kind), row(kind, guid))}


def _drops(template: str, words: list[str]) -> _Drops:
    if words == [EVERYTHING]:
        return _Drops(frozenset({EVERYTHING}))
    kinds = {kind for word in words if word != "-" for kind in _SETS.get(word, word).split()}
    rows = frozenset(kind[:-1] for kind in kinds if kind.endswith(":"))
    types = _ALWAYS | {kind for kind in kinds if not kind.endswith(":")}
    return _Drops(types, rows - types, shape(template).index(PARAMETER) if rows else 0)


def _entries() -> Iterator[tuple[str, frozenset[str], _Drops]]:
    for line in _TABLE.splitlines():
        if line and not line.startswith("#"):
            methods, template, *words = line.split()
            yield template, frozenset() if methods == "*" else frozenset(methods.split(",")), _drops(template, words)


_WRITES: Final = Matcher(_entries())

# Every type that a page can carry, for whoever names one.
TYPES: Final = frozenset().union(*(drops.types for _, _, drops in _entries()), *_SHOWS.values()) - {EVERYTHING}


def row(kind: str, guid: str) -> str:
    """The tag of one row, or of the rows that belong to it.

    Args:
        kind: one of `ROW_TYPES`.
        guid: its guid; case does not count, as in some of the controller's databases.
    """
    return f"{kind}:{guid.lower()}"


def any_row(kind: str) -> str:
    """The tag of pages that the change of any row of a type may reach."""
    return f"{kind}:{_ANY_ROW}"


def kind_of(tag: str) -> str:
    """The type that a tag speaks of: a closed label for metrics."""
    return tag.partition(":")[0]


def dropped_by(method: str, path: str) -> frozenset[str]:
    """The tags that a write drops once it has, or may have, happened; again when a job that it began ends.

    Args:
        method: as sent; one that the controller does not write with drops nothing. It answers 500 to methods it does
            not know (recordings: protocol-104 to -106), and nobody shall empty the cache by asking so.
        path: the canonical path.
    """
    if method not in _WRITE_METHODS:
        return frozenset()
    found = _WRITES.match(method, path)
    return frozenset({EVERYTHING}) if found is None else found.tags(path)


def dropped_by_job(operation: str) -> frozenset[str]:
    """The tags that the end of a job drops of which no more is known than what it does.

    Args:
        operation: as the job names it; whatever is not known drops everything.
    """
    work = _WORK_OF.get(operation)
    return frozenset({EVERYTHING}) if work is None else dropped_by(*work)


def tags_of_page(route: Route, _path: str) -> tuple[str, ...]:
    """The tags of a page whose rows are not known, or not yet: those that any write may drop that concerns it.

    Args:
        route: the row its request fell under.
        _path: the canonical path.
    """
    if route.resource is None:
        return (OTHER,)
    shown = _SHOWS.get(route.resource, (route.resource,))
    return (*shown, *(any_row(kind) for kind in shown if kind in ROW_TYPES))
