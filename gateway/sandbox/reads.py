"""Single resources and the public documents: `/`, `/v3`, info, jobs, stats, environment, manifest.

Handlers of GET; none changes anything.
"""

from __future__ import annotations

import json
from typing import Any, Final

from gateway.sandbox.call import BARE_JSON, V2_JSON, V3_JSON, Call, Reply, Stack, json_reply
from gateway.sandbox.errors import not_authorized, resource_not_found
from gateway.sandbox.render import compact, plain, pretty, pretty_safe
from gateway.sandbox.world import Process, timestamp

V2_VERSION: Final = "2.214.0"
V3_VERSION: Final = "3.149.0"
_FINGERPRINT: Final = "47:0d:d1:c8:c3:3d:0a:36:d1:49:2f:f2:90:27:31:d0"
_V3_RESOURCES: Final = (
    *("app_usage_events", "apps", "audit_events", "buildpacks", "builds", "deployments", "domains", "droplets"),
    *("environment_variable_groups", "feature_flags", "info", "isolation_segments", "organizations"),
    *("organization_quotas", "packages", "processes", "resource_matches", "roles", "routes", "security_groups"),
    *("service_brokers", "service_instances", "service_credential_bindings", "service_offerings", "service_plans"),
    *("service_route_bindings", "service_usage_events", "spaces", "space_quotas", "stacks", "tasks", "users"),
)


def _system_host(call: Call, name: str) -> str:
    """A sibling of the API's host: `doppler` beside `api.example.org` is `doppler.example.org`."""
    host = call.site.external_url.partition("://")[2].partition("/")[0].partition(":")[0]
    return f"{name}.{host.partition('.')[2] or host}"


def root(call: Call) -> Reply:
    """`GET /`."""
    origin, ssh = call.site.external_url, f"{_system_host(call, 'ssh')}:2222"
    links = {
        "self": {"href": origin},
        "cloud_controller_v2": {"href": f"{origin}/v2", "meta": {"version": V2_VERSION}},
        "cloud_controller_v3": {"href": f"{origin}/v3", "meta": {"version": V3_VERSION}},
        "network_policy_v0": {"href": f"{origin}/networking/v0/external"},
        "network_policy_v1": {"href": f"{origin}/networking/v1/external"},
        "login": {"href": call.site.login_url},
        "uaa": {"href": call.site.uaa_url},
        "credhub": {"href": f"https://{_system_host(call, 'credhub')}:8844"},
        "routing": {"href": f"{origin}/routing"},
        "logging": {"href": f"wss://{_system_host(call, 'doppler')}:443"},
        "log_cache": {"href": f"https://{_system_host(call, 'log-cache')}"},
        "log_stream": {"href": f"https://{_system_host(call, 'log-stream')}"},
        "app_ssh": {"href": ssh, "meta": {"host_key_fingerprint": _FINGERPRINT, "oauth_client": "ssh-proxy"}},
    }
    return Reply(200, pretty({"links": links}), V2_JSON, Stack.SINATRA)


def v3_root(call: Call) -> Reply:
    """`GET /v3`."""
    origin = f"{call.site.external_url}/v3"
    links = {"self": {"href": origin}} | {name: {"href": f"{origin}/{name}"} for name in _V3_RESOURCES}
    return Reply(200, pretty_safe({"links": links}), V3_JSON)


def v3_info(call: Call) -> Reply:
    """`GET /v3/info`."""
    site = call.site
    return json_reply(
        {
            "build": site.build,
            "cli_version": {"minimum": "6.22.0", "recommended": "latest"},
            "custom": {"arbitrary": "stuff"},
            "description": site.description,
            "name": site.name,
            "version": 2,
            "links": {
                "self": {"href": f"{site.external_url}/v3/info"},
                "support": {"href": f"https://{_system_host(call, 'support')}"},
            },
        }
    )


def _v2_head(call: Call) -> dict[str, Any]:
    return {
        "name": call.site.name,
        "build": call.site.build,
        "support": f"https://{_system_host(call, 'support')}",
        "version": 2,
        "description": call.site.description,
        "authorization_endpoint": call.site.login_url,
        "token_endpoint": call.site.uaa_url,
    }


def v2_info(call: Call) -> Reply:
    """`GET /v2/info`; names the caller when a good token came along."""
    body = _v2_head(call) | {
        "min_cli_version": "6.22.0",
        "min_recommended_cli_version": "latest",
        "app_ssh_endpoint": f"{_system_host(call, 'ssh')}:2222",
        "app_ssh_host_key_fingerprint": _FINGERPRINT,
        "app_ssh_oauth_client": "ssh-proxy",
        "doppler_logging_endpoint": f"wss://{_system_host(call, 'doppler')}:443",
        "api_version": V2_VERSION,
        "osbapi_version": "2.15",
        "routing_endpoint": f"{call.site.external_url}/routing",
        "custom": {"arbitrary": "stuff"},
    }
    if call.principal is not None:
        body["user"] = call.principal.id
    return Reply(200, plain(body), V2_JSON, Stack.SINATRA)


def old_info(call: Call) -> Reply:
    """`GET /info`, deprecated and saying so."""
    fields = (("X-Cf-Warnings", "Endpoint+deprecated"),)
    return Reply(200, plain(_v2_head(call) | {"allow_debug": True}), V2_JSON, Stack.SINATRA, fields=fields)


def healthz(_call: Call) -> Reply:
    """`GET /healthz` and all below it."""
    return Reply(200, b"OK", BARE_JSON, Stack.HEALTH)


def process(call: Call) -> Reply:
    """`GET /v3/processes/:guid`."""
    return Reply(200, call.process_body(call.visible_process(call.args[0])))


def app_process(call: Call) -> Reply:
    """`GET /v3/apps/:guid/processes/:type`."""
    return Reply(200, call.process_body(call.process_of_app()))


def process_stats(call: Call) -> Reply:
    """`GET /v3/processes/:guid/stats`."""
    return _stats(call, call.visible_process(call.args[0]))


def app_process_stats(call: Call) -> Reply:
    """`GET /v3/apps/:guid/processes/:type/stats`."""
    return _stats(call, call.process_of_app())


def _stats(call: Call, process: Process) -> Reply:
    down = {"state": "DOWN", "uptime": 0, "isolation_segment": None, "details": None}
    running = process.app.state == "STARTED"
    return json_reply(
        {
            "resources": [
                {"type": process.type, "index": index} | (_instance(call, process, index) if running else down)
                for index in range(process.instances)
            ]
        }
    )


def _instance(call: Call, process: Process, index: int) -> dict[str, Any]:
    ports = {"external": 61000 + index, "internal": 8080}
    proxies = {"external_tls_proxy_port": 61003 + index, "internal_tls_proxy_port": 61001}
    usage = {"time": timestamp(call.now).replace("Z", "+00:00"), "cpu": 0.125, "mem": 33554432 + index}
    return {
        "state": "RUNNING",
        "host": f"10.0.16.{10 + index % 200}",
        "instance_internal_ip": f"10.255.3.{4 + index % 200}",
        "uptime": 446,
        "mem_quota": process.memory_in_mb * 1048576,
        "disk_quota": process.disk_in_mb * 1048576,
        "log_rate_limit": process.log_rate_limit,
        "fds_quota": 16384,
        "isolation_segment": None,
        "details": None,
        "instance_ports": [ports | proxies],
        "usage": usage | {"disk": 1048576, "log_rate": 17},
    }


def app(call: Call) -> Reply:
    """`GET /v3/apps/:guid`."""
    return json_reply(call.presenter.app(call.visible_app(call.args[0])))


def app_environment(call: Call) -> Reply:
    """`GET /v3/apps/:guid/env`: secrets."""
    found = call.visible_app(call.args[0])
    if not call.access.reads_secrets(found.space):
        raise not_authorized()
    return json_reply(call.presenter.environment(found))


def app_environment_variables(call: Call) -> Reply:
    """`GET /v3/apps/:guid/environment_variables`: secrets."""
    found = call.visible_app(call.args[0])
    if not call.access.reads_secrets(found.space):
        raise not_authorized()
    return json_reply(call.presenter.environment_variables(found))


def app_manifest(call: Call) -> Reply:
    """`GET /v3/apps/:guid/manifest`: the one YAML answer of the API."""
    found = call.visible_app(call.args[0])
    if not call.access.reads_secrets(found.space):
        raise not_authorized()
    lines = ["---", "applications:", f"- name: {_scalar(found.name)}"]
    lines += _mapping("  env:", "    ", found.environment)
    lines.append("  stack: cflinuxfs4")
    if found.labels or found.annotations:
        lines.append("  metadata:")
        lines += _mapping("    labels:", "      ", found.labels)
        lines += _mapping("    annotations:", "      ", found.annotations)
    lines.append("  processes:")
    for each in call.world.processes_of(found):
        lines += [f"  - type: {_scalar(each.type)}", f"    instances: {each.instances}"]
        lines += [f"    memory: {each.memory_in_mb}M", f"    disk_quota: {each.disk_in_mb}M"]
        rate = each.log_rate_limit if each.log_rate_limit < 0 else f"{each.log_rate_limit // 1024}K"
        lines.append(f"    log-rate-limit-per-second: {rate}")
        if each.command is not None:
            lines.append(f"    command: {_scalar(each.command)}")
        lines.append(f"    health-check-type: {each.health_check.type}")
        lines.append(f"    readiness-health-check-type: {each.readiness_check.type}")
    return Reply(200, ("\n".join(lines) + "\n").encode(), "application/x-yaml; charset=utf-8")


def _mapping(head: str, indent: str, pairs: dict[str, str]) -> list[str]:
    return [head, *(f"{indent}{_scalar(key)}: {_scalar(value)}" for key, value in pairs.items())] if pairs else []


def _scalar(text: str) -> str:
    """A YAML scalar: bare when it is a plain word, single-quoted digits, double-quoted (as JSON) otherwise."""
    if text and text[0].isalpha() and all(each.isalnum() or each in "-_." for each in text):
        return text
    if text.isdigit():
        return f"'{text}'"
    return json.dumps(text, ensure_ascii=False)


def current_droplet(call: Call) -> Reply:
    """`GET /v3/apps/:guid/relationships/current_droplet`."""
    found = call.visible_app(call.args[0])
    if found.droplet is None:
        raise resource_not_found("Droplet")
    return json_reply(call.presenter.current_droplet(found))


def space(call: Call) -> Reply:
    """`GET /v3/spaces/:guid`."""
    return json_reply(call.presenter.space(call.visible_space(call.args[0])))


def organization(call: Call) -> Reply:
    """`GET /v3/organizations/:guid`."""
    found, visible = call.world.organizations.get(call.args[0]), call.access.organizations()
    if found is None or (visible is not None and found not in visible):
        raise resource_not_found("Organization")
    return json_reply(call.presenter.organization(found))


def role(call: Call) -> Reply:
    """`GET /v3/roles/:guid`."""
    found, access = call.world.roles.get(call.args[0]), call.access
    spaces, organizations = access.spaces(), access.organizations()
    if found is None:
        raise resource_not_found("Role")
    if (
        spaces is not None
        and organizations is not None
        and not (found.space in spaces or found.organization in organizations)
    ):
        raise resource_not_found("Role")
    return json_reply(call.presenter.role(found))


def deployment(call: Call) -> Reply:
    """`GET /v3/deployments/:guid`."""
    found = call.world.deployments.get(call.args[0])
    if found is None or not call.access.reads(found.app.space):
        raise resource_not_found("Deployment")
    return json_reply(call.presenter.deployment(found))


def feature_flag(call: Call) -> Reply:
    """`GET /v3/feature_flags/:name`."""
    found = call.world.flags.get(call.args[0])
    if found is None:
        raise resource_not_found("Feature flag")
    return json_reply(call.presenter.feature_flag(found))


def job(call: Call) -> Reply:
    """`GET /v3/jobs/:guid`: every authenticated caller may look at every job."""
    found = call.site.jobs.jobs.get(call.args[0])
    if found is None:
        raise resource_not_found("Job")
    return json_reply(found.resource(call.presenter.url))


def running_environment(call: Call) -> Reply:
    """`GET /v3/environment_variable_groups/:name`."""
    path = f"/v3/environment_variable_groups/{call.args[0]}"
    oldest = next(iter(call.world.organizations.values())).created_at
    links = {"self": {"href": call.presenter.url(path)}}
    return Reply(200, compact({"updated_at": oldest, "name": call.args[0], "var": {}, "links": links}))


def package_download(call: Call) -> Reply:
    """`GET /v3/packages/:guid/download`: a redirect to a signed URL elsewhere, to be neither followed nor rewritten."""
    host = _system_host(call, "blobstore")
    signed = f"https://{host}/read/cc-packages/{call.args[0]}?md5=c2lnbmVk&expires={int(call.now) + 3600}"
    return Reply(302, b"", None, varies=False, fields=(("Location", signed),))
