"""Who the caller is and what the caller may see and change: scopes and roles (controller.md §2).

Knows the world's roles, not HTTP. Every question is answered afresh from the world, so a role change acts at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from gateway.sandbox.errors import UnknownError, not_authorized, org_suspended
from gateway.sandbox.world import Organization, Role, Space, World

if TYPE_CHECKING:
    from collections.abc import Mapping

READ: Final = "cloud_controller.read"
WRITE: Final = "cloud_controller.write"
ADMIN: Final = "cloud_controller.admin"
ADMIN_READ_ONLY: Final = "cloud_controller.admin_read_only"
GLOBAL_AUDITOR: Final = "cloud_controller.global_auditor"

_GLOBAL_READERS: Final = frozenset({ADMIN, ADMIN_READ_ONLY, GLOBAL_AUDITOR})


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller of a verified token.

    Attributes:
        id: `user_id`, else `client_id`.
        is_user: Whether `id` is a user's.
        scopes: The token's scopes; None when the claim is not a list, which the Cloud Controller does not survive.
    """

    id: str
    is_user: bool
    scopes: frozenset[str] | None

    @classmethod
    def of(cls, claims: Mapping[str, Any]) -> Principal | None:
        """The principal of verified claims, or None when they name nobody."""
        user, client = claims.get("user_id"), claims.get("client_id")
        identifier = user if user is not None else client
        if not isinstance(identifier, str) or not identifier:
            return None
        scopes = claims.get("scope") or []
        return cls(identifier, user is not None, frozenset(scopes) if isinstance(scopes, list) else None)

    @property
    def is_admin(self) -> bool:
        """Whether the token may change everything."""
        return ADMIN in self._scopes

    @property
    def is_limiter_exempt(self) -> bool:
        """Whether the rate limiter leaves the token alone (without an admin limit)."""
        return self.scopes is not None and not self.scopes.isdisjoint((ADMIN, ADMIN_READ_ONLY))

    @property
    def sees_everything(self) -> bool:
        """Whether lists are not filtered by role."""
        return not self._scopes.isdisjoint(_GLOBAL_READERS)

    @property
    def _scopes(self) -> frozenset[str]:
        if self.scopes is None:
            raise UnknownError
        return self.scopes

    def require_scope(self, *, write: bool) -> None:
        """Refuse (403) a token whose scopes do not suffice for the kind of request."""
        needed = (WRITE, ADMIN) if write else (READ, *_GLOBAL_READERS)
        if self._scopes.isdisjoint(needed):
            raise not_authorized()


@dataclass(frozen=True, slots=True)
class Access:
    """What one principal may do in one world."""

    world: World
    principal: Principal

    def spaces(self) -> set[Space] | None:
        """The readable spaces, or None for all."""
        if self.principal.sees_everything:
            return None
        managed = {role.organization for role in self._roles() if role.type == "organization_manager"}
        spaces = {role.space for role in self._roles() if role.space is not None}
        return spaces | {space for space in self.world.spaces.values() if space.organization in managed}

    def organizations(self) -> set[Organization] | None:
        """The readable organizations, or None for all."""
        if self.principal.sees_everything:
            return None
        return {role.organization for role in self._roles() if role.organization is not None}

    def reads(self, space: Space) -> bool:
        """Whether the space and all in it is visible."""
        spaces = self.spaces()
        return spaces is None or space in spaces

    def reads_secrets(self, space: Space) -> bool:
        """Whether start commands and environments of the space are shown."""
        scopes = self.principal.scopes or frozenset()
        return bool({ADMIN, ADMIN_READ_ONLY} & scopes) or self._holds(space, "space_developer")

    def require_write(self, space: Space) -> None:
        """Refuse (403) whoever may not change apps in the space: admins and its developers may."""
        self._require(space, "space_developer")

    def require_manage(self, space: Space) -> None:
        """Refuse (403) whoever may not operate apps in the space: admins, its developers and supporters may."""
        self._require(space, "space_developer", "space_supporter")

    def require_space_update(self, space: Space) -> None:
        """Refuse (403) whoever may not change the space itself: admins, its managers, managers of its organization."""
        if not (self.principal.is_admin or self._holds(space, "space_manager") or self._manages(space.organization)):
            raise not_authorized()

    def require_role_change(self, where: Organization | Space) -> None:
        """Refuse (403) whoever may not give or take roles there."""
        if self.principal.is_admin:
            return
        organization = where if isinstance(where, Organization) else where.organization
        if self._manages(organization):
            return
        if isinstance(where, Space) and self._holds(where, "space_manager"):
            return
        raise not_authorized()

    def require_admin(self) -> None:
        """Refuse (403) everyone but admins."""
        if not self.principal.is_admin:
            raise not_authorized()

    def _roles(self) -> list[Role]:
        return list(self.world.roles_of(self.principal.id))

    def _holds(self, space: Space, *kinds: str) -> bool:
        return any(role.space is space and role.type in kinds for role in self._roles())

    def _manages(self, organization: Organization) -> bool:
        held = (role for role in self._roles() if role.type == "organization_manager")
        return any(role.organization is organization for role in held)

    def _require(self, space: Space, *kinds: str) -> None:
        if self.principal.is_admin:
            return
        if not self._holds(space, *kinds):
            raise not_authorized()
        if space.organization.suspended:
            raise org_suspended()
