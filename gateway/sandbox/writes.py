"""Changes of processes and apps: what each does to the world and what it answers.

Order of refusals as the Cloud Controller's: hidden (404), role (403), suspended (403), feature flag (403), body (422).
"""

from __future__ import annotations

from typing import Final

from gateway.sandbox.bodies import Scale, metadata, process_update, refuse, related_guid, require_known, scale
from gateway.sandbox.call import Call, Reply, accepted, json_reply
from gateway.sandbox.errors import feature_disabled, not_unique, resource_not_found, unprocessable
from gateway.sandbox.world import App, HealthCheck, Process, timestamp

DEFAULT_LOG_RATE_LIMIT: Final = 1_048_576


def update_process(call: Call) -> Reply:
    """`PATCH /v3/processes/:guid`."""
    return _update(call, call.visible_process(call.args[0]))


def update_app_process(call: Call) -> Reply:
    """`PATCH /v3/apps/:guid/processes/:type`."""
    return _update(call, call.process_of_app())


def _update(call: Call, process: Process) -> Reply:
    call.access.require_write(process.app.space)
    change = process_update(call.body, process)
    if change.has_command:
        process.command = change.command
    process.health_check, process.readiness_check = change.health_check, change.readiness_check
    change.metadata.apply(process)
    call.world.touch(process, now=call.now)
    return Reply(200, call.process_body(process))


def scale_process(call: Call) -> Reply:
    """`POST /v3/processes/:guid/actions/scale`: 202 with a body and no job."""
    return _scale(call, call.visible_process(call.args[0]))


def scale_app_process(call: Call) -> Reply:
    """`POST /v3/apps/:guid/processes/:type/actions/scale`."""
    return _scale(call, call.process_of_app())


def _scale(call: Call, process: Process) -> Reply:
    call.access.require_manage(process.app.space)
    if not call.world.flags["app_scaling"].enabled and not call.access.principal.is_admin:
        raise feature_disabled("app_scaling")
    apply_scale(call, process, scale(call.body))
    return Reply(202, call.process_body(process))


def apply_scale(call: Call, process: Process, wanted: Scale) -> None:
    """Scale a process; more or less memory of a started app makes a new version."""
    if wanted.memory_in_mb not in (None, process.memory_in_mb) and process.app.state == "STARTED":
        process.version = call.world.new_guid()
    for name in ("instances", "memory_in_mb", "disk_in_mb", "log_rate_limit"):
        if (value := getattr(wanted, name)) is not None:
            setattr(process, name, value)
    call.world.touch(process, now=call.now)


def delete_instance(call: Call) -> Reply:
    """`DELETE /v3/processes/:guid/instances/:index`: 204, rows unchanged."""
    return _delete_instance(call, call.visible_process(call.args[0]), call.args[1])


def delete_app_instance(call: Call) -> Reply:
    """`DELETE /v3/apps/:guid/processes/:type/instances/:index`."""
    return _delete_instance(call, call.process_of_app(), call.args[2])


def _delete_instance(call: Call, process: Process, index: str) -> Reply:
    call.access.require_manage(process.app.space)
    if index.isdigit() and int(index) >= process.instances:
        raise resource_not_found("Instance")
    return Reply(204, b"", None, varies=False)


def create_app(call: Call) -> Reply:
    """`POST /v3/apps`: the app and its `web` process, which has the app's guid."""
    world = call.world
    faults = require_known(call.body, "name", "environment_variables", "relationships", "lifecycle", "metadata")
    name = call.body.get("name")
    if not isinstance(name, str) or not name:
        faults.append("Name must be a string")
    if not isinstance(call.body.get("relationships"), dict):
        faults.append("Relationships 'relationships' is not an object")
    changes = metadata(call.body, faults)
    refuse(faults)
    space = world.spaces.get(related_guid(call.body, "space") or "")
    if space is None or not call.access.reads(space):
        raise unprocessable("Invalid space. Ensure that the space exists and you have access to it.")
    call.access.require_write(space)
    if any(app.name == name and app.space is space for app in world.apps.values()):
        raise not_unique(f"App with the name '{name}' already exists.")
    at = timestamp(call.now)
    app = App(world.new_guid(), str(name), space, at, at)
    changes.apply(app)
    app.environment = dict(call.body.get("environment_variables") or {})
    world.apps[app.guid] = app
    web = Process(app.guid, app, "web", at, at, world.new_guid(), log_rate_limit=DEFAULT_LOG_RATE_LIMIT)
    world.add_process(web)
    return json_reply(call.presenter.app(app), 201)


def update_app(call: Call) -> Reply:
    """`PATCH /v3/apps/:guid`; a new name also touches the processes."""
    app = call.visible_app(call.args[0])
    call.access.require_write(app.space)
    faults = require_known(call.body, "name", "lifecycle", "metadata")
    name = call.body.get("name", app.name)
    if not isinstance(name, str) or not name:
        faults.append("Name must be a string")
    changes = metadata(call.body, faults)
    refuse(faults)
    if name != app.name:
        if any(other.name == name and other.space is app.space for other in call.world.apps.values()):
            raise not_unique(f"App with the name '{name}' already exists.")
        app.name = name
        call.world.touch(*call.world.processes_of(app), now=call.now)
    changes.apply(app)
    app.updated_at = timestamp(call.now)
    return json_reply(call.presenter.app(app))


def update_environment(call: Call) -> Reply:
    """`PATCH /v3/apps/:guid/environment_variables`; null deletes."""
    app = call.visible_app(call.args[0])
    call.access.require_write(app.space)
    variables = call.body.get("var")
    if not isinstance(variables, dict):
        raise unprocessable("Var must be an object")
    merged = {**app.environment, **variables}
    app.environment = {key: value for key, value in merged.items() if value is not None}
    app.updated_at = timestamp(call.now)
    return json_reply(call.presenter.environment_variables(app))


def start_app(call: Call) -> Reply:
    """`POST /v3/apps/:guid/actions/start`: a revision, and a new version of every process."""
    app = _operated_app(call)
    if app.droplet is None:
        raise unprocessable("Assign a droplet before starting this app.")
    if app.state != "STARTED":
        app.state, app.updated_at = "STARTED", timestamp(call.now)
        _renew(call, app)
    return json_reply(call.presenter.app(app))


def restart_app(call: Call) -> Reply:
    """`POST /v3/apps/:guid/actions/restart`: new versions; the row of a started app keeps its time."""
    app = _operated_app(call)
    if app.droplet is None:
        raise unprocessable("Assign a droplet before starting this app.")
    if app.state != "STARTED":
        app.state, app.updated_at = "STARTED", timestamp(call.now)
    _renew(call, app)
    return json_reply(call.presenter.app(app))


def stop_app(call: Call) -> Reply:
    """`POST /v3/apps/:guid/actions/stop`."""
    app = _operated_app(call)
    if app.state != "STOPPED":
        app.state, app.updated_at = "STOPPED", timestamp(call.now)
        call.world.touch(*call.world.processes_of(app), now=call.now)
    return json_reply(call.presenter.app(app))


def _operated_app(call: Call) -> App:
    app = call.visible_app(call.args[0])
    call.access.require_manage(app.space)
    return app


def _renew(call: Call, app: App) -> None:
    if app.revision_guid is None:
        app.revision_guid, app.revision_version = call.world.new_guid(), 1
    for process in call.world.processes_of(app):
        process.version = call.world.new_guid()
        process.revision_guid = app.revision_guid
        call.world.touch(process, now=call.now)


def delete_app(call: Call) -> Reply:
    """`DELETE /v3/apps/:guid`: a job; the processes stay listed until it is done."""
    app = call.visible_app(call.args[0])
    call.access.require_write(app.space)
    links = {"app": f"/v3/apps/{app.guid}"}
    return accepted(call, "app.delete", lambda _now: call.world.delete_app(app), links=links)


def assign_droplet(call: Call) -> Reply:
    """`PATCH /v3/apps/:guid/relationships/current_droplet`: process types the app lacks appear, with no instances."""
    app, world = call.visible_app(call.args[0]), call.world
    call.access.require_write(app.space)
    data = call.body.get("data")
    droplet = world.droplets.get(data.get("guid", "")) if isinstance(data, dict) else None
    if droplet is None or droplet.app_guid != app.guid:
        message = "Unable to assign current droplet. Ensure the droplet exists and belongs to this app."
        raise unprocessable(message)
    app.droplet, app.updated_at = droplet, timestamp(call.now)
    at = timestamp(call.now)
    present = {process.type for process in world.processes_of(app)}
    for kind in droplet.process_types:
        if kind not in present:
            check = HealthCheck("port" if kind == "web" else "process")
            process = Process(world.new_guid(), app, kind, at, at, world.new_guid(), instances=int(kind == "web"))
            process.log_rate_limit, process.health_check = DEFAULT_LOG_RATE_LIMIT, check
            world.add_process(process)
    return json_reply(call.presenter.current_droplet(app))
