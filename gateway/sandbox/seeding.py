"""A plausible world of any size from a seed: the same seed and size give the same world, byte for byte.

The named organizations and spaces hold what the people of `people` have roles in; further organizations take the rest.
"""

from __future__ import annotations

import random
from typing import Final

from gateway.sandbox.people import CLIENTS, PEOPLE, Client, Person
from gateway.sandbox.world import App, HealthCheck, Organization, Process, Space, World, timestamp

EPOCH: Final = 1_700_000_000
"""Creation of the oldest organization, epoch seconds; nothing depends on the day the world is made."""

_NAMED: Final = {"acme": ("dev", "prod"), "globex": ("dev", "prod"), "initech": ("lab",)}
_SPACES_PER_ORGANIZATION: Final = 4
_PROCESSES_PER_SPACE: Final = 60
_NAMED_SHARE: Final = 30
_ADJECTIVES: Final = (
    "amber",
    "brisk",
    "calm",
    "dusky",
    "eager",
    "fuzzy",
    "grand",
    "hazy",
    "icy",
    "jolly",
    "keen",
    "lucid",
)
_NOUNS: Final = (
    "billing",
    "catalog",
    "chat",
    "gateway",
    "inventory",
    "ledger",
    "mailer",
    "portal",
    "reports",
    "search",
)
_TIERS: Final = ("frontend", "backend", "batch", "edge")
_MEMORY: Final = (64, 128, 256, 512, 1024, 2048)
_COMMANDS: Final = ("bundle exec puma -p $PORT", "java -jar app.jar", "node server.js", "python app.py", "./run")


def seeded_world(processes: int, seed: int = 2015) -> World:
    """Build a world.

    Args:
        processes: How many processes it holds, exactly.
        seed: Seed of everything in it, and of the guids made later.
    """
    source = random.Random(seed)
    world = World(seed)
    named, others = _places(world, processes)
    _roles(world, {f"{space.organization.name}/{space.name}": space for space in named})
    number = 0
    while len(world.processes) < processes:
        ours = number < _NAMED_SHARE or not others or source.random() < 0.02
        space = named[number % len(named)] if ours else others[number % len(others)]
        _app(world, source, space, number, processes - len(world.processes))
        number += 1
    return world


def _places(world: World, processes: int) -> tuple[list[Space], list[Space]]:
    """The spaces of the named organizations, and those of as many further ones as the processes need."""
    further = max(0, processes - _NAMED_SHARE) // (_PROCESSES_PER_SPACE * _SPACES_PER_ORGANIZATION)
    layout = dict(_NAMED)
    for index in range(1, further + 1):
        layout[f"org-{index:03d}"] = tuple(f"space-{each}" for each in range(1, _SPACES_PER_ORGANIZATION + 1))
    named: list[Space] = []
    others: list[Space] = []
    for position, (name, spaces) in enumerate(layout.items()):
        created = timestamp(EPOCH + position * 3600)
        organization = Organization(world.new_guid(), name, created, created)
        organization.labels = {"region": ("eu", "us", "ap")[position % 3]}
        world.organizations[organization.guid] = organization
        for space_name in spaces:
            space = Space(world.new_guid(), space_name, organization, created, created, {"stage": space_name})
            world.spaces[space.guid] = space
            (named if name in _NAMED else others).append(space)
    return named, others


def _roles(world: World, spaces: dict[str, Space]) -> None:
    organizations = {each.name: each for each in world.organizations.values()}
    holder: Person | Client
    for holder in (*PEOPLE, *CLIENTS):
        identifier = holder.user_guid if isinstance(holder, Person) else holder.client_id
        world.users.setdefault(identifier, timestamp(EPOCH))
        for kind, where in holder.roles:
            world.add_role(kind, identifier, spaces[where] if "/" in where else organizations[where], timestamp(EPOCH))


def _app(world: World, source: random.Random, space: Space, number: int, room: int) -> None:
    """An app with its web process and, sometimes and while there is room, a worker and a clock."""
    created = EPOCH + 86_400 + number * 601 + source.randrange(600)
    updated = created + source.randrange(90 * 86_400)
    name = f"{source.choice(_ADJECTIVES)}-{source.choice(_NOUNS)}-{number}"
    app = App(world.new_guid(), name, space, timestamp(created), timestamp(updated))
    app.labels = {"env": space.name, "tier": source.choice(_TIERS), "example.org/team": f"team-{number % 17}"}
    app.environment = {"N": str(number)}
    world.apps[app.guid] = app
    kinds = ["web", *(["worker"] if source.random() < 0.2 else []), *(["clock"] if source.random() < 0.07 else [])]
    kinds = kinds[:room]
    app.droplet = world.add_droplet(app, {kind: source.choice(_COMMANDS) for kind in kinds}, created)
    app.state = "STARTED" if source.random() < 0.8 else "STOPPED"
    if app.state == "STARTED":
        app.revision_guid, app.revision_version = world.new_guid(), 1
    for kind in kinds:
        process = Process(
            app.guid if kind == "web" else world.new_guid(), app, kind, app.created_at, app.updated_at, world.new_guid()
        )
        process.instances = source.choice((1, 1, 1, 2, 2, 3, 4, 8)) if source.random() > 0.05 else 0
        process.memory_in_mb = source.choice(_MEMORY)
        process.disk_in_mb = source.choice((512, 1024, 2048))
        process.log_rate_limit = source.choice((-1, 1_048_576))
        process.revision_guid = app.revision_guid
        process.labels = app.labels if kind == "web" else {**app.labels, "kind": kind}
        process.health_check = HealthCheck("port" if kind == "web" else "process")
        world.add_process(process)
    web = world.processes[app.guid]
    web.labels = dict(app.labels)
    if source.random() < 0.1:
        web.health_check = HealthCheck("http", 90, 5, None, f"/healthz?deep=1&app={number}")
    if number % 25 == 7:
        web.annotations = {"href": "https://api.internal.example.org/v3/processes?page=2&per_page=50"}
