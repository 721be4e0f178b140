"""Resources as v3 of the API shows them: key by key in the real order, absolute hrefs from the configured origin.

Reads the world's records; decides nothing. The rendered row of a process in a list is kept until the process changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from gateway.sandbox.render import compact
from gateway.sandbox.world import (
    QUOTA_GUID,
    App,
    Deployment,
    Droplet,
    FeatureFlag,
    HealthCheck,
    Organization,
    Process,
    Role,
    Space,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.sandbox.query import ListQuery

HIDDEN_IN_LISTS: Final = "[PRIVATE DATA HIDDEN IN LISTS]"
HIDDEN: Final = "[PRIVATE DATA HIDDEN]"


class Presenter:
    """Presents resources with hrefs under one origin.

    Args:
        external_url: The advertised origin, e.g. `https://api.internal.example.org`; never taken from a request.
    """

    def __init__(self, external_url: str) -> None:
        self.external_url = external_url.rstrip("/")
        self._rows: dict[str, tuple[int, bytes]] = {}

    def url(self, path: str) -> str:
        """The absolute href of a path."""
        return self.external_url + path

    def pagination(self, query: ListQuery, path: str, total: int) -> dict[str, Any]:
        """The `pagination` object; a page beyond the last one shows totals of an empty result."""
        pages = max(1, -(-total // query.per_page))
        if query.page > pages:
            total, pages = 0, 1

        def href(page: int) -> dict[str, str]:
            return {"href": f"{self.external_url}{path}?{query.href_query(page)}"}

        return {
            "total_results": total,
            "total_pages": pages,
            "first": href(1),
            "last": href(pages),
            "next": href(query.page + 1) if query.page < pages else None,
            "previous": href(query.page - 1) if query.page > 1 else None,
        }

    def process_rows(self, processes: Iterable[Process]) -> bytes:
        """The rendered rows of processes, joined by commas."""
        rows = self._rows
        rendered = []
        for process in processes:
            kept = rows.get(process.guid)
            if kept is None or kept[0] != process.generation:
                kept = (process.generation, compact(self.process(process, HIDDEN_IN_LISTS)))
                rows[process.guid] = kept
            rendered.append(kept[1])
        return b",".join(rendered)

    def process(self, process: Process, command: str) -> dict[str, Any]:
        """A process, with the command the caller may see."""
        path = f"/v3/processes/{process.guid}"
        revision = {"data": {"guid": process.revision_guid}} if process.revision_guid else None
        return {
            "guid": process.guid,
            "created_at": process.created_at,
            "updated_at": process.updated_at,
            "version": process.version,
            "type": process.type,
            "command": command,
            "instances": process.instances,
            "memory_in_mb": process.memory_in_mb,
            "disk_in_mb": process.disk_in_mb,
            "log_rate_limit_in_bytes_per_second": process.log_rate_limit,
            "health_check": _health_check(process.health_check, with_timeout=True),
            "readiness_health_check": _health_check(process.readiness_check, with_timeout=False),
            "relationships": {"app": {"data": {"guid": process.app.guid}}, "revision": revision},
            "metadata": _metadata(process),
            "links": {
                "self": self._link(path),
                "scale": self._link(f"{path}/actions/scale", "POST"),
                "app": self._link(f"/v3/apps/{process.app.guid}"),
                "space": self._link(f"/v3/spaces/{process.app.space.guid}"),
                "stats": self._link(f"{path}/stats"),
            },
        }

    def app(self, app: App) -> dict[str, Any]:
        """An app."""
        path = f"/v3/apps/{app.guid}"
        return {
            "guid": app.guid,
            "created_at": app.created_at,
            "updated_at": app.updated_at,
            "name": app.name,
            "state": app.state,
            "lifecycle": {"type": "buildpack", "data": {"buildpacks": [], "stack": "cflinuxfs4"}},
            "relationships": {"space": {"data": {"guid": app.space.guid}}},
            "metadata": _metadata(app),
            "links": {
                "self": self._link(path),
                "environment_variables": self._link(f"{path}/environment_variables"),
                "space": self._link(f"/v3/spaces/{app.space.guid}"),
                "processes": self._link(f"{path}/processes"),
                "packages": self._link(f"{path}/packages"),
                "current_droplet": self._link(f"{path}/droplets/current"),
                "droplets": self._link(f"{path}/droplets"),
                "tasks": self._link(f"{path}/tasks"),
                "start": self._link(f"{path}/actions/start", "POST"),
                "stop": self._link(f"{path}/actions/stop", "POST"),
                "revisions": self._link(f"{path}/revisions"),
                "deployed_revisions": self._link(f"{path}/revisions/deployed"),
                "features": self._link(f"{path}/features"),
            },
        }

    def environment_variables(self, app: App) -> dict[str, Any]:
        """The `environment_variables` sub-resource of an app."""
        path = f"/v3/apps/{app.guid}"
        links = {"self": self._link(f"{path}/environment_variables"), "app": self._link(path)}
        return {"var": app.environment, "links": links}

    def environment(self, app: App) -> dict[str, Any]:
        """The whole environment of an app."""
        organization = app.space.organization
        application: dict[str, Any] = {
            "cf_api": self.external_url,
            "limits": {"fds": 16384},
            "application_name": app.name,
            "application_uris": [],
            "name": app.name,
            "space_name": app.space.name,
            "space_id": app.space.guid,
            "organization_id": organization.guid,
            "organization_name": organization.name,
            "uris": [],
            "users": None,
            "application_id": app.guid,
        }
        return {
            "environment_variables": app.environment,
            "staging_env_json": {},
            "running_env_json": {},
            "system_env_json": {"VCAP_SERVICES": {}},
            "application_env_json": {"VCAP_APPLICATION": application},
        }

    def current_droplet(self, app: App) -> dict[str, Any]:
        """The `current_droplet` relationship of an app."""
        path = f"/v3/apps/{app.guid}"
        links = {
            "self": self._link(f"{path}/relationships/current_droplet"),
            "related": self._link(f"{path}/droplets/current"),
        }
        return {"data": {"guid": app.droplet.guid if app.droplet else None}, "links": links}

    def space(self, space: Space) -> dict[str, Any]:
        """A space."""
        path = f"/v3/spaces/{space.guid}"
        return {
            "guid": space.guid,
            "created_at": space.created_at,
            "updated_at": space.updated_at,
            "name": space.name,
            "relationships": {
                "organization": {"data": {"guid": space.organization.guid}},
                "quota": {"data": None},
            },
            "metadata": _metadata(space),
            "links": {
                "self": self._link(path),
                "organization": self._link(f"/v3/organizations/{space.organization.guid}"),
                "features": self._link(f"{path}/features"),
                "apply_manifest": self._link(f"{path}/actions/apply_manifest", "POST"),
            },
        }

    def organization(self, organization: Organization) -> dict[str, Any]:
        """An organization."""
        path = f"/v3/organizations/{organization.guid}"
        return {
            "guid": organization.guid,
            "created_at": organization.created_at,
            "updated_at": organization.updated_at,
            "name": organization.name,
            "suspended": organization.suspended,
            "relationships": {"quota": {"data": {"guid": QUOTA_GUID}}},
            "metadata": _metadata(organization),
            "links": {
                "self": self._link(path),
                "domains": self._link(f"{path}/domains"),
                "default_domain": self._link(f"{path}/domains/default"),
                "quota": self._link(f"/v3/organization_quotas/{QUOTA_GUID}"),
            },
        }

    def role(self, role: Role) -> dict[str, Any]:
        """A role; the place it is for comes first among the two places."""
        places: dict[str, Organization | Space | None] = {"space": role.space, "organization": role.organization}
        if role.organization is not None:
            places = {"organization": role.organization, "space": role.space}
        links = {"self": self._link(f"/v3/roles/{role.guid}"), "user": self._link(f"/v3/users/{role.user_guid}")}
        links |= {name: self._link(f"/v3/{name}s/{place.guid}") for name, place in places.items() if place}
        return {
            "guid": role.guid,
            "created_at": role.created_at,
            "updated_at": role.created_at,
            "type": role.type,
            "relationships": {
                "user": {"data": {"guid": role.user_guid}},
                **{name: {"data": {"guid": place.guid} if place else None} for name, place in places.items()},
            },
            "links": links,
        }

    def user(self, guid: str, created_at: str) -> dict[str, Any]:
        """A user as a controller without a UAA to ask shows it."""
        return {
            "guid": guid,
            "created_at": created_at,
            "updated_at": created_at,
            "username": None,
            "presentation_name": guid,
            "origin": None,
            "metadata": {"labels": {}, "annotations": {}},
            "links": {"self": self._link(f"/v3/users/{guid}")},
        }

    def droplet(self, droplet: Droplet) -> dict[str, Any]:
        """A droplet, as lists show it."""
        path, app = f"/v3/droplets/{droplet.guid}", f"/v3/apps/{droplet.app_guid}"
        return {
            "guid": droplet.guid,
            "created_at": droplet.created_at,
            "updated_at": droplet.created_at,
            "state": "STAGED",
            "error": None,
            "lifecycle": {"type": "buildpack", "data": {}},
            "checksum": {"type": "sha256", "value": "0" * 64},
            "buildpacks": [],
            "stack": None,
            "image": None,
            "execution_metadata": HIDDEN_IN_LISTS,
            "process_types": {"redacted_message": HIDDEN_IN_LISTS},
            "relationships": {"app": {"data": {"guid": droplet.app_guid}}},
            "metadata": {"labels": {}, "annotations": {}},
            "links": {
                "self": self._link(path),
                "app": self._link(app),
                "assign_current_droplet": self._link(f"{app}/relationships/current_droplet", "PATCH"),
                "download": self._link(f"{path}/download"),
            },
        }

    def deployment(self, deployment: Deployment) -> dict[str, Any]:
        """A deployment."""
        app = deployment.app
        droplet = {"guid": app.droplet.guid if app.droplet else None}
        links = {
            "self": self._link(f"/v3/deployments/{deployment.guid}"),
            "app": self._link(f"/v3/apps/{app.guid}"),
        }
        active = deployment.status.active
        if active:
            links["cancel"] = self._link(f"/v3/deployments/{deployment.guid}/actions/cancel", "POST")
        return {
            "guid": deployment.guid,
            "created_at": deployment.created_at,
            "updated_at": deployment.updated_at,
            "status": {
                "value": "ACTIVE" if active else "FINALIZED",
                "reason": deployment.status.value,
                "details": {"last_successful_healthcheck": deployment.created_at},
            },
            "strategy": "rolling",
            "droplet": droplet,
            "previous_droplet": droplet,
            "new_processes": [{"guid": deployment.new.guid, "type": deployment.new.type}],
            "revision": {"guid": app.revision_guid, "version": app.revision_version},
            "relationships": {"app": {"data": {"guid": app.guid}}},
            "metadata": {"labels": {}, "annotations": {}},
            "links": links,
        }

    def feature_flag(self, flag: FeatureFlag) -> dict[str, Any]:
        """A feature flag."""
        return {
            "name": flag.name,
            "enabled": flag.enabled,
            "updated_at": flag.updated_at,
            "custom_error_message": None,
            "links": {"self": self._link(f"/v3/feature_flags/{flag.name}")},
        }

    def _link(self, path: str, method: str | None = None) -> dict[str, str]:
        link = {"href": self.external_url + path}
        if method:
            link["method"] = method
        return link


def _metadata(owner: Process | App | Space | Organization) -> dict[str, Any]:
    return {"labels": owner.labels, "annotations": owner.annotations}


def _health_check(check: HealthCheck, *, with_timeout: bool) -> dict[str, Any]:
    data: dict[str, Any] = {"timeout": check.timeout} if with_timeout else {}
    data |= {"invocation_timeout": check.invocation_timeout, "interval": check.interval}
    if check.type == "http":
        data["endpoint"] = check.endpoint
    return {"type": check.type, "data": data}
