"""Changes above the app: spaces, organizations, roles, feature flags, manifests, deployments, and v2's app update.

Handlers of writes; each refuses first and then changes the world, at once or by a job.
"""

from __future__ import annotations

from typing import Any, Final

import yaml

from gateway.sandbox.bodies import Scale, metadata, refuse, related_guid, require_known
from gateway.sandbox.call import BARE_JSON, Call, Reply, accepted, json_reply
from gateway.sandbox.errors import UnknownError, resource_not_found, unprocessable
from gateway.sandbox.render import compact
from gateway.sandbox.world import (
    Deployment,
    DeploymentStatus,
    Organization,
    Process,
    Space,
    World,
    timestamp,
)
from gateway.sandbox.writes import apply_scale

ROLE_TYPES: Final = {
    "organization": (
        "organization_user",
        "organization_manager",
        "organization_auditor",
        "organization_billing_manager",
    ),
    "space": ("space_developer", "space_manager", "space_auditor", "space_supporter"),
}
_UNITS: Final = {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1024 * 1024}


def update_space(call: Call) -> Reply:
    """`PATCH /v3/spaces/:guid`."""
    space = call.visible_space(call.args[0])
    call.access.require_space_update(space)
    _rename(call, space, "name", "metadata")
    return json_reply(call.presenter.space(space))


def delete_space(call: Call) -> Reply:
    """`DELETE /v3/spaces/:guid`: a job; what is in the space stays listed until it is done."""
    space = call.visible_space(call.args[0])
    call.access.require_space_update(space)
    links = {"space": f"/v3/spaces/{space.guid}"}
    return accepted(call, "space.delete", lambda _now: call.world.delete_space(space), links=links)


def _organization(call: Call) -> Organization:
    found, visible = call.world.organizations.get(call.args[0]), call.access.organizations()
    if found is None or (visible is not None and found not in visible):
        raise resource_not_found("Organization")
    return found


def update_organization(call: Call) -> Reply:
    """`PATCH /v3/organizations/:guid`; only an admin may suspend."""
    organization = _organization(call)
    if "suspended" in call.body:
        call.access.require_admin()
    call.access.require_role_change(organization)
    _rename(call, organization, "name", "metadata", "suspended")
    organization.suspended = bool(call.body.get("suspended", organization.suspended))
    return json_reply(call.presenter.organization(organization))


def delete_organization(call: Call) -> Reply:
    """`DELETE /v3/organizations/:guid`: a job."""
    organization = _organization(call)
    call.access.require_admin()
    links = {"organization": f"/v3/organizations/{organization.guid}"}
    return accepted(call, "organization.delete", lambda _now: call.world.delete_organization(organization), links=links)


def _rename(call: Call, owner: Space | Organization, *known: str) -> None:
    faults = require_known(call.body, *known)
    name = call.body.get("name", owner.name)
    if not isinstance(name, str) or not name:
        faults.append("Name must be a string")
    changes = metadata(call.body, faults)
    refuse(faults)
    owner.name, owner.updated_at = name, timestamp(call.now)
    changes.apply(owner)


def create_role(call: Call) -> Reply:
    """`POST /v3/roles`: acts at once on what the user sees."""
    kind, user = call.body.get("type"), related_guid(call.body, "user")
    level = next((level for level, kinds in ROLE_TYPES.items() if kind in kinds), None)
    if level is None or not isinstance(kind, str):
        valid = ", ".join(each for kinds in ROLE_TYPES.values() for each in kinds)
        raise unprocessable(f"Type must be one of the allowed types [{valid}]")
    guid = related_guid(call.body, level) or ""
    where: Space | Organization | None
    where = call.world.spaces.get(guid) if level == "space" else call.world.organizations.get(guid)
    if where is None or (isinstance(where, Space) and not call.access.reads(where)):
        raise unprocessable(f"Invalid {level}. Ensure that the {level} exists and you have access to it.")
    call.access.require_role_change(where)
    if user is None or user not in call.world.users:
        raise unprocessable("Invalid user. Ensure that the user exists and you have access to it.")
    if any(role.type == kind and role.place is where for role in call.world.roles_of(user)):
        raise unprocessable(f"User '{user}' already has '{kind}' role in {level} '{where.name}'.")
    return json_reply(call.presenter.role(call.world.add_role(kind, user, where, timestamp(call.now))), 201)


def delete_role(call: Call) -> Reply:
    """`DELETE /v3/roles/:guid`: a job."""
    role = call.world.roles.get(call.args[0])
    if role is None:
        raise resource_not_found("Role")
    call.access.require_role_change(role.place)

    def work(_now: float) -> None:
        call.world.roles.pop(role.guid, None)

    return accepted(call, "role.delete", work)


def update_feature_flag(call: Call) -> Reply:
    """`PATCH /v3/feature_flags/:name`."""
    flag = call.world.flags.get(call.args[0])
    if flag is None:
        raise resource_not_found("Feature flag")
    call.access.require_admin()
    if not isinstance(call.body.get("enabled"), bool):
        raise unprocessable("Enabled must be a boolean")
    flag.enabled, flag.updated_at = call.body["enabled"], timestamp(call.now)
    return json_reply(call.presenter.feature_flag(flag))


def apply_manifest(call: Call) -> Reply:
    """`POST /v3/spaces/:guid/actions/apply_manifest`: a job that scales the processes the YAML names."""
    space = call.visible_space(call.args[0])
    call.access.require_write(space)
    try:
        manifest = yaml.safe_load(call.raw)
        changes = [_manifest_changes(call.world, space, app) for app in manifest["applications"]]
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError):
        raise UnknownError from None

    def work(now: float) -> None:
        call.now = now
        for process, wanted in (pair for pairs in changes for pair in pairs):
            if process.guid in call.world.processes:
                apply_scale(call, process, wanted)

    links = {"space": f"/v3/spaces/{space.guid}"}
    return accepted(call, "space.apply_manifest", work, links=links, kept_links=True)


def _manifest_changes(world: World, space: Space, given: dict[str, Any]) -> list[tuple[Process, Scale]]:
    apps = [app for app in world.apps.values() if app.space is space and app.name == given["name"]]
    wanted = given.get("processes") or [{**given, "type": "web"}]
    found = [(world.process_of_type(app, each["type"]), each) for app in apps for each in wanted]
    return [(process, _manifest_scale(each)) for process, each in found if process is not None]


def _manifest_scale(given: dict[str, Any]) -> Scale:
    memory, disk = given.get("memory"), given.get("disk_quota")
    return Scale(given.get("instances"), memory and _megabytes(memory), disk and _megabytes(disk))


def _megabytes(text: str) -> int:
    return int(float(text.rstrip("Bb")[:-1]) * _UNITS[text.rstrip("Bb")[-1].upper()])


def create_deployment(call: Call) -> Reply:
    """`POST /v3/deployments`: a second `web` process of one instance beside the first."""
    world = call.world
    app = world.apps.get(related_guid(call.body, "app") or "")
    if app is None or not call.access.reads(app.space):
        raise unprocessable("Unable to use app. Ensure that the app exists and you have access to it.")
    call.access.require_manage(app.space)
    old = world.process_of_type(app, "web")
    if app.droplet is None or old is None:
        raise unprocessable(
            "Invalid droplet. Please specify a droplet in the request or set a current droplet for the app."
        )
    at = timestamp(call.now)
    new = Process(world.new_guid(), app, "web", at, at, world.new_guid(), command=old.command)
    for name in ("memory_in_mb", "disk_in_mb", "log_rate_limit", "health_check", "readiness_check", "revision_guid"):
        setattr(new, name, getattr(old, name))
    new.labels, new.annotations = dict(old.labels), dict(old.annotations)
    world.add_process(new)
    deployment = Deployment(world.new_guid(), app, old, new, at, at)
    world.deployments[deployment.guid] = deployment
    return json_reply(call.presenter.deployment(deployment), 201)


def cancel_deployment(call: Call) -> Reply:
    """`POST /v3/deployments/:guid/actions/cancel`: 200 without a body; the updater removes the new process later."""
    deployment = call.world.deployments.get(call.args[0])
    if deployment is None or not call.access.reads(deployment.app.space):
        raise resource_not_found("Deployment")
    call.access.require_manage(deployment.app.space)
    if not deployment.status.active:
        raise unprocessable(f"Cannot cancel a {deployment.status.value} deployment")
    deployment.status, deployment.updated_at = DeploymentStatus.CANCELING, timestamp(call.now)
    return Reply(200, b"", BARE_JSON, varies=False)


def finish_deployments(world: World, now: float, *, started_before: float | None = None) -> int:
    """What the background updater does in the end: the new `web` takes over, or goes if the deployment was canceled.

    Args:
        world: The world.
        now: Epoch seconds.
        started_before: Leave alone what was created at or after this (epoch seconds); None: finish all.

    Returns:
        How many deployments were finished.
    """
    limit = timestamp(started_before) if started_before is not None else None
    due = [each for each in world.deployments.values() if each.status.active]
    due = [each for each in due if limit is None or each.created_at < limit]
    for deployment in due:
        canceled = deployment.status is DeploymentStatus.CANCELING
        gone, kept = (deployment.new, deployment.old) if canceled else (deployment.old, deployment.new)
        if not canceled:
            kept.instances = gone.instances
            world.touch(kept, now=now)
        if gone.guid in world.processes:
            world.remove_process(gone)
        deployment.status = DeploymentStatus.CANCELED if canceled else DeploymentStatus.DEPLOYED
        deployment.updated_at = timestamp(now)
    return len(due)


def upload_package(call: Call, size: int, digest: str) -> Reply:
    """The answer to a finished upload: a package that knows what it received."""
    path = f"/v3/packages/{call.args[0]}"
    at = timestamp(call.now)
    body = {
        "guid": call.args[0],
        "created_at": at,
        "updated_at": at,
        "type": "bits",
        "state": "PROCESSING_UPLOAD",
        "data": {"error": None, "checksum": {"type": "sha256", "value": digest}, "size": size},
        "metadata": {"labels": {}, "annotations": {}},
        "links": {
            "self": {"href": call.presenter.url(path)},
            "upload": {"href": call.presenter.url(f"{path}/upload"), "method": "POST"},
            "download": {"href": call.presenter.url(f"{path}/download"), "method": "GET"},
        },
    }
    return Reply(200, compact(body))
