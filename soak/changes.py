"""What is changed in the world of a soak: writes of every kind that shows in a list, through the gateway or past it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.sandbox.people import person

if TYPE_CHECKING:
    import random

    from gateway.sandbox.world import App, World

Change = tuple[str, str, Any]
"""(method, path, content)."""
JOBS = ("jobs", "", None)
"""Every job that waits is done now."""


class Changes:
    """Chooses what to change next; each change is unlike all before, so that no state comes back.

    Args:
        world: of the controller.
        app: that most changes are made to.
        chance: chooses.

    Attributes:
        created: apps that were made here and may be deleted.
    """

    def __init__(self, world: World, app: App, chance: random.Random) -> None:
        self._world, self._app, self._chance = world, app, chance
        self._others = [other for other in world.apps.values() if other.space is app.space and other is not app]
        self.created: list[str] = []

    def next(self, number: int) -> Change:
        """A change, the first one with number 1."""
        chosen = self._chance.choice([self._rows, self._rows, self._places, self._roles, self._apps, self._jobs])
        return self._chance.choice(chosen(number))

    def _rows(self, number: int) -> list[Change]:
        guid, started = self._app.guid, self._app.state == "STARTED"
        labels = {"metadata": {"labels": {"n": str(number), "odd": "yes" if number % 2 else "no"}}}
        other = self._chance.choice(self._others).guid
        return [
            ("POST", f"/v3/processes/{guid}/actions/scale", {"instances": number}),
            ("POST", f"/v3/apps/{other}/processes/web/actions/scale", {"instances": number}),
            ("PATCH", f"/v3/processes/{guid}", labels),
            ("PATCH", f"/v3/apps/{other}/processes/web", labels),
            ("PATCH", f"/v3/apps/{guid}", {"name": f"renamed-{number}", **labels}),
            ("PATCH", f"/v3/apps/{other}", labels),
            ("POST", f"/v3/apps/{guid}/actions/{'stop' if started else 'start'}", None),
            ("PUT", f"/v2/apps/{other}", {"instances": number}),
        ]

    def _places(self, number: int) -> list[Change]:
        space = self._app.space
        name = {"name": f"renamed-{number}"}
        return [
            ("PATCH", f"/v3/spaces/{space.guid}", name),
            ("PATCH", f"/v3/organizations/{space.organization.guid}", name),
        ]

    def _roles(self, _: int) -> list[Change]:
        who = person(self._chance.choice(["space_auditor", "no_roles"])).user_guid
        space = {"data": {"guid": self._app.space.guid}}
        related = {"space": space, "user": {"data": {"guid": who}}}
        give = [("POST", "/v3/roles", {"type": "space_developer", "relationships": related})]
        take = [("DELETE", f"/v3/roles/{role.guid}", None) for role in self._world.roles_of(who)]
        return [*give, *take]

    def _apps(self, number: int) -> list[Change]:
        if len(self.created) < 3:
            space = {"space": {"data": {"guid": self._app.space.guid}}}
            return [("POST", "/v3/apps", {"name": f"new-{number}", "relationships": space})]
        return [("DELETE", f"/v3/apps/{self.created.pop(0)}", None)]

    def _jobs(self, _: int) -> list[Change]:
        return [JOBS]
