"""The recorded world: rebuilds from `world.json` and the recorded bodies the state the exchanges were recorded in.

`world.json` names things and relations; versions, disk, health checks, time stamps and static lists come from the
recorded answers of the groups before the writes. Reads no file: it is given parsed JSON.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from gateway.sandbox.world import App, Droplet, HealthCheck, Organization, Process, Space, World

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_CHANGING: Final = frozenset({"malformed", "writes", "degraded"})
_STATIC: Final = ("/v3/stacks", "/v3/domains")


def recorded_world(data: Mapping[str, Any], exchanges: Iterable[Mapping[str, Any]]) -> World:
    """Build the world of the recordings.

    Args:
        data: `world.json`.
        exchanges: Rows of `exchanges.jsonl`.
    """
    seen, static = _resources(exchanges)
    world = World()
    world.static_lists = static
    for resource in _of_kind(seen, "/v3/organizations/"):
        world.organizations[resource["guid"]] = Organization(
            resource["guid"],
            resource["name"],
            resource["created_at"],
            resource["updated_at"],
            resource["suspended"],
            **resource["metadata"],
        )
    organizations = {each.name: each for each in world.organizations.values()}
    spaces = {}
    for path, guid in data["spaces"].items():
        organization, name = path.split("/")
        known = seen.get(f"/v3/spaces/{guid}") or {"metadata": {"labels": {"stage": name}, "annotations": {}}}
        created = known.get("created_at", organizations[organization].created_at)
        space = Space(guid, name, organizations[organization], created, created, **known["metadata"])
        spaces[path] = world.spaces[guid] = space
    rows = {row["guid"]: row for row in data["processes"]}
    for number, (guid, row) in enumerate(data["apps"].items()):
        web = rows[guid]
        app = App(guid, row["name"], spaces[row["space"]], web["created_at"], web["updated_at"])
        app.labels = dict(web["labels"])
        app.environment = {"N": str(number)}
        world.apps[guid] = app
    for row in data["processes"]:
        world.add_process(_process(row, seen[f"/v3/processes/{row['guid']}"], world.apps[row["app"]]))
    _droplets(world, rows, seen)
    _sidecars(world, seen)
    created_at = next(iter(seen["roles"].values()))["created_at"] if "roles" in seen else ""
    claims = data["principals"]
    for holder, roles in data["roles"].items():
        principal = claims.get(holder) or claims.get(holder.split(" ")[0])
        for role in roles:
            kind, _, where = role.partition(" ")
            if kind.startswith(("organization_", "space_")):
                place = spaces[where] if "/" in where else organizations[where]
                world.add_role(kind, principal.get("user_id") or principal["client_id"], place, created_at)
    return world


def _resources(exchanges: Iterable[Mapping[str, Any]]) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """Every recorded v3 resource by the path of its `self` link, the sidecars, and the static lists by their path."""
    seen: dict[str, Any] = {}
    static: dict[str, list[Any]] = {}
    for exchange in exchanges:
        target, response = exchange["request"].get("target", ""), exchange["response"]
        if exchange["group"] in _CHANGING or not response or not (response["body"] or "").startswith('{"'):
            continue
        body = json.loads(response["body"])
        resources = [
            *body.get("resources", [body]),
            *(each for kind in body.get("included", {}).values() for each in kind),
        ]
        if target in _STATIC:
            static[target] = resources
        for resource in resources:
            href = resource.get("links", {}).get("self", {}).get("href", "")
            if "/v3/" in href and not ("/processes/" in href and target.startswith("/v3/processes?")):
                seen[href[href.index("/v3/") :]] = resource
            elif href:
                seen.setdefault(href[href.index("/v3/") :], resource)
            elif "process_types" in resource and "origin" in resource:
                seen.setdefault("sidecars", {})[resource["guid"]] = resource
            if "/v3/roles/" in href:
                seen.setdefault("roles", {})[resource["guid"]] = resource
    return seen, static


def _of_kind(seen: Mapping[str, Any], prefix: str) -> list[dict[str, Any]]:
    found = [resource for path, resource in seen.items() if path.startswith(prefix)]
    return sorted(found, key=lambda resource: (resource["created_at"], resource["name"]))


def _process(row: Mapping[str, Any], seen: Mapping[str, Any], app: App) -> Process:
    return Process(
        row["guid"],
        app,
        row["type"],
        row["created_at"],
        row["updated_at"],
        seen["version"],
        command=None if row["command"] in ("", f"default {row['type']}") else row["command"],
        instances=row["instances"],
        memory_in_mb=row["memory_in_mb"],
        disk_in_mb=seen["disk_in_mb"],
        log_rate_limit=seen["log_rate_limit_in_bytes_per_second"],
        health_check=_check(seen["health_check"]),
        readiness_check=_check(seen["readiness_health_check"]),
        labels=dict(row["labels"]),
        annotations=dict(row["annotations"]),
    )


def _check(check: Mapping[str, Any]) -> HealthCheck:
    return HealthCheck(check["type"], **check["data"])


def _droplets(world: World, rows: Mapping[str, Any], seen: Mapping[str, Any]) -> None:
    """An app whose process runs `default <type>` has a droplet that says so; storefront's was seen itself."""
    listed = (droplet for path, droplet in seen.items() if path.startswith("/v3/droplets/"))
    staged = {droplet["relationships"]["app"]["data"]["guid"]: droplet for droplet in listed}
    for app in world.apps.values():
        processes = world.processes_of(app)
        if any(rows[each.guid]["command"] == f"default {each.type}" for each in processes) or app.guid in staged:
            kinds = {each.type: f"default {each.type}" for each in processes}
            known = staged.get(app.guid, {"guid": world.new_guid(), "created_at": app.created_at})
            app.droplet = Droplet(known["guid"], app.guid, known["created_at"], kinds)
            world.droplets[app.droplet.guid] = app.droplet


def _sidecars(world: World, seen: Mapping[str, Any]) -> None:
    world.sidecars = list(seen.get("sidecars", {}).values())
