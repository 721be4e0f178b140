"""The people and clients of the sandbox: who can log in, with what scopes, holding which roles.

Shared by the sandbox's UAA (which authenticates them and mints their tokens) and its Cloud Controller (which seeds
their roles). Knows neither of the two, and nothing of tokens. Every password here is public on purpose.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

READ: Final = "cloud_controller.read"
WRITE: Final = "cloud_controller.write"
ADMIN: Final = "cloud_controller.admin"
ADMIN_READ_ONLY: Final = "cloud_controller.admin_read_only"
GLOBAL_AUDITOR: Final = "cloud_controller.global_auditor"
OPENID: Final = "openid"


@dataclass(frozen=True, slots=True)
class Person:
    """A user of the sandbox.

    Attributes:
        username: Login name, also the local part of the e-mail address.
        password: Password of the password grant.
        user_guid: `user_id` and `sub` of the tokens, `guid` of the user in the Cloud Controller.
        scopes: Scopes granted with every token.
        roles: `(role type, organization or organization/space)` in the seeded world, e.g.
            `("space_developer", "acme/dev")`. An organization role names just the organization.
        description: One line for `--help` and for what the demo prints.
    """

    username: str
    password: str
    user_guid: str
    scopes: tuple[str, ...]
    roles: tuple[tuple[str, str], ...]
    description: str

    @property
    def email(self) -> str:
        """Address claimed in the tokens."""
        return f"{self.username}@example.org"


@dataclass(frozen=True, slots=True)
class Client:
    """An OAuth client of the sandbox.

    Attributes:
        client_id: `client_id`, `cid` and, for client credentials, `sub` of the tokens.
        secret: Client secret; empty for the public client of the cf CLI.
        grant_types: OAuth grants the client may use.
        scopes: Authorities of a client-credentials token; upper bound of a user token's scopes (empty: no bound).
        roles: As on `Person`, held by the client itself (the Cloud Controller knows it by its client id).
        description: One line for what the demo prints.
    """

    client_id: str
    secret: str
    grant_types: tuple[str, ...]
    scopes: tuple[str, ...]
    roles: tuple[tuple[str, str], ...]
    description: str


PEOPLE: Final = (
    Person(
        "admin",
        "admin",
        "a0000000-0000-4000-8000-000000000001",
        (ADMIN, READ, WRITE, OPENID),
        (),
        "sees and changes everything",
    ),
    Person(
        "admin_read_only",
        "admin_read_only",
        "a0000000-0000-4000-8000-000000000002",
        (ADMIN_READ_ONLY, READ, WRITE, OPENID),
        (),
        "sees everything, secrets included",
    ),
    Person(
        "global_auditor",
        "global_auditor",
        "a0000000-0000-4000-8000-000000000003",
        (GLOBAL_AUDITOR, READ, WRITE, OPENID),
        (),
        "sees everything but secrets",
    ),
    Person(
        "space_developer",
        "space_developer",
        "b0000000-0000-4000-8000-000000000001",
        (READ, WRITE, OPENID),
        (("organization_user", "acme"), ("space_developer", "acme/dev")),
        "developer in acme/dev",
    ),
    Person(
        "space_auditor",
        "space_auditor",
        "b0000000-0000-4000-8000-000000000002",
        (READ, WRITE, OPENID),
        (
            ("organization_user", "acme"),
            ("organization_user", "globex"),
            ("space_auditor", "acme/prod"),
            ("space_auditor", "globex/dev"),
        ),
        "auditor in acme/prod and globex/dev",
    ),
    Person(
        "org_manager",
        "org_manager",
        "b0000000-0000-4000-8000-000000000003",
        (READ, WRITE, OPENID),
        (("organization_user", "globex"), ("organization_manager", "globex")),
        "manager of globex",
    ),
    Person(
        "no_roles",
        "no_roles",
        "b0000000-0000-4000-8000-000000000004",
        (READ, WRITE, OPENID),
        (),
        "a user without any role",
    ),
    Person(
        "openid_only",
        "openid_only",
        "b0000000-0000-4000-8000-000000000005",
        (OPENID,),
        (),
        "a user whose tokens carry no cloud_controller scope",
    ),
    Person(
        "space_supporter",
        "space_supporter",
        "b0000000-0000-4000-8000-000000000006",
        (READ, WRITE, OPENID),
        (("organization_user", "acme"), ("space_supporter", "acme/dev")),
        "supporter in acme/dev",
    ),
    Person(
        "space_manager",
        "space_manager",
        "b0000000-0000-4000-8000-000000000007",
        (READ, WRITE, OPENID),
        (("organization_user", "initech"), ("space_manager", "initech/lab")),
        "manager of initech/lab",
    ),
)
"""Every user, in the order the demo prints them. The guids of the first eight are those of the recordings."""

CF_CLIENT: Final = Client(
    "cf",
    "",
    ("password", "refresh_token"),
    (),
    (),
    "the public client of the cf CLI, with its empty secret",
)
METRICS_COLLECTOR: Final = Client(
    "metrics-collector",
    "metrics-secret",
    ("client_credentials",),
    (READ, WRITE),
    (("organization_user", "initech"), ("space_developer", "initech/lab")),
    "client credentials, developer in initech/lab",
)
OPS_AUTOMATION: Final = Client(
    "ops-automation",
    "ops-secret",
    ("client_credentials",),
    (ADMIN,),
    (),
    "client credentials with cloud_controller.admin",
)
CLIENTS: Final = (CF_CLIENT, METRICS_COLLECTOR, OPS_AUTOMATION)
"""Every OAuth client."""


def person(username: str) -> Person:
    """The user of that name; raises `KeyError` when there is none."""
    for candidate in PEOPLE:
        if candidate.username == username:
            return candidate
    raise KeyError(username)


def client(client_id: str) -> Client:
    """The client of that id; raises `KeyError` when there is none."""
    for candidate in CLIENTS:
        if candidate.client_id == client_id:
            return candidate
    raise KeyError(client_id)
