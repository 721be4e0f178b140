"""What is kept of v2: apps as lists, singly, and their update, which also changes v3's processes.

v2 hrefs are relative, its pages count from `results-per-page`, its errors have another form (controller.md §2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.sandbox.bodies import Scale
from gateway.sandbox.call import Call, Reply, v2_reply
from gateway.sandbox.errors import CloudControllerError, UnknownError
from gateway.sandbox.world import STACK_GUID, App, Process, timestamp
from gateway.sandbox.writes import apply_scale

if TYPE_CHECKING:
    from gateway.sandbox.params import Params


def apps(call: Call) -> Reply:
    """`GET /v2/apps`."""
    access = call.access
    visible = access.spaces()
    found = [app for app in call.world.apps.values() if visible is None or app.space in visible]
    page, per_page = _number(call.params, "page", 1), _number(call.params, "results-per-page", 50)
    if page < 1 or not 1 <= per_page <= 100:
        raise UnknownError
    pages = max(1, -(-len(found) // per_page))

    def href(number: int) -> str:
        return f"/v2/apps?order-direction=asc&page={number}&results-per-page={per_page}"

    return v2_reply(
        {
            "total_results": len(found),
            "total_pages": pages,
            "prev_url": href(page - 1) if page > 1 else None,
            "next_url": href(page + 1) if page < pages else None,
            "resources": [_resource(call, app) for app in found[(page - 1) * per_page : page * per_page]],
        }
    )


def app(call: Call) -> Reply:
    """`GET /v2/apps/:guid`."""
    return v2_reply(_resource(call, _visible(call)))


def update_app(call: Call) -> Reply:
    """`PUT /v2/apps/:guid`: instances, memory, name, state of the app and its `web` process."""
    found = _visible(call)
    call.access.require_write(found.space)
    web = call.world.process_of_type(found, "web")
    if web is None:
        raise UnknownError
    body = call.body
    apply_scale(call, web, Scale(body.get("instances"), body.get("memory"), body.get("disk_quota")))
    if "memory" in body:
        web.version = call.world.new_guid()
    found.name, found.state = body.get("name", found.name), body.get("state", found.state)
    found.updated_at = timestamp(call.now)
    return v2_reply(_resource(call, found), 201)


def _visible(call: Call) -> App:
    found = call.world.apps.get(call.args[0])
    if found is None:
        raise CloudControllerError(404, 100004, "CF-AppNotFound", f"The app could not be found: {call.args[0]}")
    if not call.access.reads(found.space):
        raise CloudControllerError(
            403, 10003, "CF-NotAuthorized", "You are not authorized to perform the requested action"
        )
    return found


def _number(params: Params, name: str, default: int) -> int:
    value = params.get(name)
    return int(value) if isinstance(value, str) and value.isdigit() else default if value is None else 0


def _resource(call: Call, app: App) -> dict[str, Any]:
    path = f"/v2/apps/{app.guid}"
    web = call.world.process_of_type(app, "web") or Process(app.guid, app, "web", app.created_at, app.updated_at, "")
    droplet, check = app.droplet, web.health_check
    return {
        "metadata": {"guid": app.guid, "url": path, "created_at": web.created_at, "updated_at": web.updated_at},
        "entity": {
            "name": app.name,
            "production": False,
            "space_guid": app.space.guid,
            "stack_guid": STACK_GUID,
            "buildpack": None,
            "detected_buildpack": None,
            "detected_buildpack_guid": None,
            "environment_json": app.environment,
            "memory": web.memory_in_mb,
            "instances": web.instances,
            "disk_quota": web.disk_in_mb,
            "log_rate_limit": web.log_rate_limit,
            "state": app.state,
            "version": web.version,
            "command": web.command,
            "console": False,
            "debug": None,
            "staging_task_id": droplet.guid if droplet else None,
            "package_state": "STAGED" if droplet else "PENDING",
            "health_check_type": check.type,
            "health_check_timeout": check.timeout,
            "health_check_http_endpoint": check.endpoint,
            "staging_failed_reason": None,
            "staging_failed_description": None,
            "diego": True,
            "docker_image": None,
            "docker_credentials": {"username": None, "password": None},
            "package_updated_at": None,
            "detected_start_command": droplet.process_types.get("web", "") if droplet else "",
            "enable_ssh": True,
            "ports": [8080],
            "space_url": f"/v2/spaces/{app.space.guid}",
            "stack_url": f"/v2/stacks/{STACK_GUID}",
            **{f"{name}_url": f"{path}/{name}" for name in ("routes", "events", "service_bindings", "route_mappings")},
        },
    }
