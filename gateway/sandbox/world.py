"""The data of the embedded Cloud Controller: organizations, spaces, apps, processes, roles and their changes.

Plain mutable records in memory and the few relations between them. Knows neither HTTP nor JSON nor who may see what,
and never reads the clock: every change takes its time. `seeding` and `recording` fill a world.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

QUOTA_GUID: Final = "49516c39-0a4c-4f91-a7a3-ac2c8f65719e"
STACK_GUID: Final = "24ea3803-e364-4d01-9588-c40d97af6787"
FLAGS: Final = {
    "app_bits_upload": True,
    "app_scaling": True,
    "diego_docker": False,
    "env_var_visibility": True,
    "hide_marketplace_from_unauthenticated_users": False,
    "private_domain_creation": True,
    "resource_matching": True,
    "route_creation": True,
    "route_sharing": False,
    "service_instance_creation": True,
    "service_instance_sharing": False,
    "set_roles_by_username": True,
    "space_developer_env_var_visibility": True,
    "space_scoped_private_broker_creation": True,
    "task_creation": True,
    "unset_roles_by_username": True,
    "user_org_creation": False,
}


def timestamp(now: float) -> str:
    """Epoch seconds as the Cloud Controller writes them: `YYYY-MM-DDThh:mm:ssZ`."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(slots=True, eq=False)
class Organization:
    """An organization."""

    guid: str
    name: str
    created_at: str
    updated_at: str
    suspended: bool = False
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Space:
    """A space of an organization."""

    guid: str
    name: str
    organization: Organization
    created_at: str
    updated_at: str
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Droplet:
    """Staged bits of an app: the process types it can run, each with its start command."""

    guid: str
    app_guid: str
    created_at: str
    process_types: dict[str, str]


@dataclass(slots=True, eq=False)
class App:
    """An app of a space."""

    guid: str
    name: str
    space: Space
    created_at: str
    updated_at: str
    state: str = "STOPPED"
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    droplet: Droplet | None = None
    revision_guid: str | None = None
    revision_version: int = 0


@dataclass(slots=True)
class HealthCheck:
    """A health or readiness check; readiness has no timeout."""

    type: str = "port"
    timeout: int | None = None
    invocation_timeout: int | None = None
    interval: int | None = None
    endpoint: str | None = None


@dataclass(slots=True, eq=False)
class Process:
    """A process of an app.

    `generation` counts its changes, so that a rendered row can be kept until the next one.
    """

    guid: str
    app: App
    type: str
    created_at: str
    updated_at: str
    version: str
    command: str | None = None
    instances: int = 1
    memory_in_mb: int = 1024
    disk_in_mb: int = 1024
    log_rate_limit: int = -1
    health_check: HealthCheck = field(default_factory=HealthCheck)
    readiness_check: HealthCheck = field(default_factory=lambda: HealthCheck("process"))
    revision_guid: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    generation: int = 0

    @property
    def start_command(self) -> str:
        """The command that would run: its own, else the droplet's for its type, else nothing."""
        if self.command is not None:
            return self.command
        return self.app.droplet.process_types.get(self.type, "") if self.app.droplet else ""


@dataclass(slots=True, eq=False)
class Role:
    """A role of a user (or of a client, by its id) in an organization or a space."""

    guid: str
    type: str
    user_guid: str
    organization: Organization | None
    space: Space | None
    created_at: str

    @property
    def place(self) -> Organization | Space:
        """Where the role is held."""
        place = self.space or self.organization
        assert place is not None  # noqa: S101 - one of the two is always set
        return place


class DeploymentStatus(StrEnum):
    """Reason of a deployment's status."""

    DEPLOYING = "DEPLOYING"
    CANCELING = "CANCELING"
    CANCELED = "CANCELED"
    DEPLOYED = "DEPLOYED"

    @property
    def active(self) -> bool:
        """Whether the deployment still runs."""
        return self in (DeploymentStatus.DEPLOYING, DeploymentStatus.CANCELING)


@dataclass(slots=True, eq=False)
class Deployment:
    """A rolling deployment: while it runs the app has two `web` processes."""

    guid: str
    app: App
    old: Process
    new: Process
    created_at: str
    updated_at: str
    status: DeploymentStatus = DeploymentStatus.DEPLOYING


@dataclass(slots=True, eq=False)
class FeatureFlag:
    """A feature flag; `updated_at` is None until an operator sets it."""

    name: str
    enabled: bool
    updated_at: str | None = None


class World:
    """Everything the controller knows.

    Dictionaries are keyed by guid and keep the order of creation, which is the order of an unsorted list ("by id").

    Args:
        seed: Seed of the guids made while the world lives.
    """

    def __init__(self, seed: int = 2015) -> None:
        self._random = random.Random(seed)
        self.organizations: dict[str, Organization] = {}
        self.spaces: dict[str, Space] = {}
        self.apps: dict[str, App] = {}
        self.processes: dict[str, Process] = {}
        self.roles: dict[str, Role] = {}
        self.droplets: dict[str, Droplet] = {}
        self.deployments: dict[str, Deployment] = {}
        self.flags = {name: FeatureFlag(name, enabled) for name, enabled in FLAGS.items()}
        self.sidecars: list[dict[str, Any]] = []
        self.static_lists: dict[str, list[Any]] = {}
        self.users: dict[str, str] = {}
        self._of_app: dict[str, list[Process]] = {}

    @classmethod
    def seeded(cls, processes: int, seed: int = 2015) -> World:
        """A plausible world of exactly that many processes, the same for the same seed."""
        from gateway.sandbox.seeding import seeded_world

        return seeded_world(processes, seed)

    @classmethod
    def from_recording(cls, world: Mapping[str, Any], exchanges: Iterable[Mapping[str, Any]]) -> World:
        """The recorded world: `world.json`, completed from the recorded exchanges (versions, disk, health checks…)."""
        from gateway.sandbox.recording import recorded_world

        return recorded_world(world, exchanges)

    def new_guid(self) -> str:
        """A fresh version 4 guid, from the world's own randomness."""
        bits = self._random.getrandbits(128)
        digits = f"{bits & ~(0xF000 << 64) & ~(0xC000 << 48) | (0x4000 << 64) | (0x8000 << 48):032x}"
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"

    def add_process(self, process: Process) -> None:
        """Register a process with its app."""
        self.processes[process.guid] = process
        self._of_app.setdefault(process.app.guid, []).append(process)

    def remove_process(self, process: Process) -> None:
        """Forget a process."""
        del self.processes[process.guid]
        self._of_app[process.app.guid].remove(process)

    def processes_of(self, app: App) -> list[Process]:
        """The processes of an app, oldest first."""
        return list(self._of_app.get(app.guid, ()))

    def process_of_type(self, app: App, kind: str) -> Process | None:
        """The process of that type; the newest when a deployment runs two."""
        return next((process for process in reversed(self.processes_of(app)) if process.type == kind), None)

    def add_droplet(self, app: App, process_types: dict[str, str], now: float, guid: str | None = None) -> Droplet:
        """A staged droplet of the app, not yet assigned to it."""
        droplet = Droplet(guid or self.new_guid(), app.guid, timestamp(now), process_types)
        self.droplets[droplet.guid] = droplet
        return droplet

    def touch(self, *processes: Process, now: float) -> None:
        """Record a change of processes."""
        for process in processes:
            process.updated_at = timestamp(now)
            process.generation += 1

    def roles_of(self, principal_id: str) -> Iterator[Role]:
        """The roles held by a user or client."""
        return (role for role in self.roles.values() if role.user_guid == principal_id)

    def add_role(self, kind: str, user_guid: str, where: Organization | Space, created_at: str) -> Role:
        """Give a user a role in an organization or a space."""
        organization = where if isinstance(where, Organization) else None
        space = where if isinstance(where, Space) else None
        role = Role(self.new_guid(), kind, user_guid, organization, space, created_at)
        self.roles[role.guid] = role
        self.users.setdefault(user_guid, created_at)
        return role

    def delete_app(self, app: App) -> None:
        """Forget an app and all that belongs to it."""
        self.apps.pop(app.guid, None)
        for process in self._of_app.pop(app.guid, []):
            self.processes.pop(process.guid, None)
        self.droplets = {guid: each for guid, each in self.droplets.items() if each.app_guid != app.guid}
        self.deployments = {guid: each for guid, each in self.deployments.items() if each.app is not app}

    def delete_space(self, space: Space) -> None:
        """Forget a space with its apps and roles."""
        for app in [app for app in self.apps.values() if app.space is space]:
            self.delete_app(app)
        self.roles = {guid: role for guid, role in self.roles.items() if role.space is not space}
        self.spaces.pop(space.guid, None)

    def delete_organization(self, organization: Organization) -> None:
        """Forget an organization with its spaces and roles."""
        for space in [space for space in self.spaces.values() if space.organization is organization]:
            self.delete_space(space)
        self.roles = {guid: role for guid, role in self.roles.items() if role.organization is not organization}
        self.organizations.pop(organization.guid, None)
