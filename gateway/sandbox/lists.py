"""Every list: filter, order, cut the page, render (controller.md §1).

One engine and one `ListSpec` per kind of resource; what the caller may see is asked of `visibility`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from gateway.sandbox.call import Call, Reply
from gateway.sandbox.query import ListQuery, ListSpec, parse_list
from gateway.sandbox.render import compact

if TYPE_CHECKING:
    from gateway.sandbox.world import App, Organization, Process, Role, Space

_BASE: Final = ("page", "per_page", "order_by", "created_ats", "updated_ats")
PROCESSES: Final = ListSpec(
    (*_BASE, "guids", "app_guid", "types", "space_guids", "organization_guids", "app_guids", "label_selector"),
    ("guids", "types", "space_guids", "organization_guids", "app_guids"),
)
APPS: Final = ListSpec(
    (
        *(*_BASE, "guids", "names", "organization_guids", "space_guids", "stacks"),
        *("include", "lifecycle_type", "label_selector"),
    ),
    ("guids", "names", "organization_guids", "space_guids"),
    ("created_at", "updated_at", "name", "state"),
)
SPACES: Final = ListSpec(
    (*_BASE, "names", "organization_guids", "guids", "include", "label_selector"),
    ("names", "organization_guids", "guids"),
    ("created_at", "updated_at", "name"),
)
ORGANIZATIONS: Final = ListSpec(
    (*_BASE, "names", "guids", "isolation_segment_guids", "label_selector"),
    ("names", "guids"),
    ("created_at", "updated_at", "name"),
)
ROLES: Final = ListSpec(
    (*_BASE, "guids", "types", "user_guids", "organization_guids", "space_guids", "include"),
    ("guids", "types", "user_guids", "organization_guids", "space_guids"),
    default_order="created_at",
)
PLAIN: Final = ListSpec((*_BASE, "guids", "names", "label_selector"), ("guids", "names"))

T = TypeVar("T")


Getters = Mapping[str, Callable[[Any], str | None]]
_PROCESS: Final[Getters] = {
    "guids": lambda each: each.guid,
    "types": lambda each: each.type,
    "app_guids": lambda each: each.app.guid,
    "space_guids": lambda each: each.app.space.guid,
    "organization_guids": lambda each: each.app.space.organization.guid,
}
_APP: Final[Getters] = {
    "guids": lambda each: each.guid,
    "names": lambda each: each.name,
    "space_guids": lambda each: each.space.guid,
    "organization_guids": lambda each: each.space.organization.guid,
}
_SPACE: Final[Getters] = {
    "guids": lambda each: each.guid,
    "names": lambda each: each.name,
    "organization_guids": lambda each: each.organization.guid,
}
_ORGANIZATION: Final[Getters] = {"guids": lambda each: each.guid, "names": lambda each: each.name}
_ROLE: Final[Getters] = {
    "guids": lambda each: each.guid,
    "types": lambda each: each.type,
    "user_guids": lambda each: each.user_guid,
    "organization_guids": lambda each: each.organization.guid if each.organization else None,
    "space_guids": lambda each: each.space.guid if each.space else None,
}


def select(query: ListQuery, candidates: Iterable[T], getters: Getters) -> list[T]:
    """The candidates that satisfy the query, in its order; "by id" is the order they come in."""
    chosen = list(candidates)
    for key, wanted in query.filters.items():
        if (get := getters.get(key)) is not None:
            chosen = [each for each in chosen if get(each) in wanted]
    for condition in query.created:
        chosen = [each for each in chosen if condition.accepts(_attribute(each, "created_at"))]
    for condition in query.updated:
        chosen = [each for each in chosen if condition.accepts(_attribute(each, "updated_at"))]
    for requirement in query.selector:
        chosen = [each for each in chosen if requirement.accepts(getattr(each, "labels", {}))]
    if (column := query.order_by) is not None:
        chosen.sort(key=lambda each: (_attribute(each, column), _attribute(each, "guid")), reverse=query.descending)
    return chosen


def _attribute(item: object, name: str) -> str:
    value = getattr(item, name, None)
    return value if isinstance(value, str) else str(getattr(item, "created_at", ""))


def page_of(query: ListQuery, items: Sequence[T]) -> Sequence[T]:
    """The items of the query's page."""
    start = (query.page - 1) * query.per_page
    return items[start : start + query.per_page]


@dataclass(frozen=True, slots=True)
class _Page:
    """What a list page is made of: the path of its hrefs, how many there are in all, the rendered rows of the page."""

    path: str
    total: int
    rows: bytes
    included: dict[str, Any] | None = None


def _page_reply(call: Call, query: ListQuery, page: _Page) -> Reply:
    pagination = compact(call.presenter.pagination(query, page.path, page.total))
    tail = b',"included":' + compact(page.included) if page.included is not None else b""
    return Reply(200, b'{"pagination":' + pagination + b',"resources":[' + page.rows + b"]" + tail + b"}")


def _rows(resources: Iterable[dict[str, Any]]) -> bytes:
    return b",".join(compact(resource) for resource in resources)


def processes(call: Call) -> Reply:
    """`GET /v3/processes`, also in its hidden app-nested form `?app_guid=`."""
    return _processes(call, parse_list(call.params, PROCESSES))


def app_processes(call: Call) -> Reply:
    """`GET /v3/apps/:guid/processes`."""
    return _processes(call, parse_list(call.params, PROCESSES, app_guid=call.args[0]))


def _processes(call: Call, query: ListQuery) -> Reply:
    path = "/v3/processes"
    candidates: Iterable[Process]
    if query.app_guid is not None:
        app = call.visible_app(query.app_guid)
        path, candidates = f"/v3/apps/{app.guid}/processes", call.world.processes_of(app)
    else:
        visible = call.access.spaces()
        candidates = call.world.processes.values()
        if visible is not None:
            candidates = [each for each in candidates if each.app.space in visible]
    found = select(query, candidates, _PROCESS)
    return _page_reply(call, query, _Page(path, len(found), call.presenter.process_rows(page_of(query, found))))


def apps(call: Call) -> Reply:
    """`GET /v3/apps`, with `include=space` and `include=space.organization`."""
    query = parse_list(call.params, APPS)
    visible = call.access.spaces()
    candidates: Iterable[App] = call.world.apps.values()
    if visible is not None:
        candidates = [app for app in candidates if app.space in visible]
    found = select(query, candidates, _APP)
    page = page_of(query, found)
    included: dict[str, Any] | None = None
    if query.include:
        wanted = query.include.split(",")
        wanted_spaces = {app.space for app in page}
        spaces = [space for space in call.world.spaces.values() if space in wanted_spaces]
        included = {"spaces": [call.presenter.space(space) for space in spaces]}
        if "space.organization" in wanted:
            included["organizations"] = _organizations_of(call, spaces)
    return _page_reply(call, query, _Page("/v3/apps", len(found), _rows(map(call.presenter.app, page)), included))


def spaces(call: Call) -> Reply:
    """`GET /v3/spaces`, with `include=organization`."""
    query = parse_list(call.params, SPACES)
    visible = call.access.spaces()
    candidates: Iterable[Space] = call.world.spaces.values()
    if visible is not None:
        candidates = [space for space in candidates if space in visible]
    found = select(query, candidates, _SPACE)
    page = page_of(query, found)
    included = {"organizations": _organizations_of(call, page)} if query.include else None
    return _page_reply(call, query, _Page("/v3/spaces", len(found), _rows(map(call.presenter.space, page)), included))


def _organizations_of(call: Call, spaces: Iterable[Space]) -> list[dict[str, Any]]:
    wanted = {space.organization for space in spaces}
    return [call.presenter.organization(each) for each in call.world.organizations.values() if each in wanted]


def organizations(call: Call) -> Reply:
    """`GET /v3/organizations`."""
    query = parse_list(call.params, ORGANIZATIONS)
    visible = call.access.organizations()
    candidates: Iterable[Organization] = call.world.organizations.values()
    if visible is not None:
        candidates = [organization for organization in candidates if organization in visible]
    found = select(query, candidates, _ORGANIZATION)
    rows = _rows(map(call.presenter.organization, page_of(query, found)))
    return _page_reply(call, query, _Page("/v3/organizations", len(found), rows))


def roles(call: Call) -> Reply:
    """`GET /v3/roles`: those of the visible spaces and organizations."""
    query = parse_list(call.params, ROLES)
    spaces_seen, organizations_seen = call.access.spaces(), call.access.organizations()
    candidates: Iterable[Role] = call.world.roles.values()
    if spaces_seen is not None and organizations_seen is not None:
        candidates = [
            role for role in candidates if role.space in spaces_seen or role.organization in organizations_seen
        ]
    found = select(query, candidates, _ROLE)
    return _page_reply(
        call, query, _Page("/v3/roles", len(found), _rows(map(call.presenter.role, page_of(query, found))))
    )


def feature_flags(call: Call) -> Reply:
    """`GET /v3/feature_flags`, by name."""
    query = parse_list(call.params, PLAIN)
    found = sorted(call.world.flags.values(), key=lambda flag: flag.name)
    rows = _rows(map(call.presenter.feature_flag, page_of(query, found)))
    return _page_reply(call, query, _Page("/v3/feature_flags", len(found), rows))


def users(call: Call) -> Reply:
    """`GET /v3/users`."""
    query = parse_list(call.params, PLAIN)
    found = list(call.world.users.items())
    rows = _rows(call.presenter.user(guid, created_at) for guid, created_at in page_of(query, found))
    return _page_reply(call, query, _Page("/v3/users", len(found), rows))


def droplets(call: Call) -> Reply:
    """`GET /v3/droplets`."""
    query = parse_list(call.params, PLAIN)
    visible = call.access.spaces()
    held = call.world.droplets.values()
    found = [each for each in held if visible is None or call.world.apps[each.app_guid].space in visible]
    rows = _rows(map(call.presenter.droplet, page_of(query, found)))
    return _page_reply(call, query, _Page("/v3/droplets", len(found), rows))


def deployments(call: Call) -> Reply:
    """`GET /v3/deployments`."""
    query = parse_list(call.params, PLAIN)
    visible = call.access.spaces()
    found = [each for each in call.world.deployments.values() if visible is None or each.app.space in visible]
    rows = _rows(map(call.presenter.deployment, page_of(query, found)))
    return _page_reply(call, query, _Page("/v3/deployments", len(found), rows))


def static_list(path: str) -> Callable[[Call], Reply]:
    """A handler for a list of resources that nothing changes, empty in a seeded world."""

    def handler(call: Call) -> Reply:
        query = parse_list(call.params, PLAIN)
        found = call.world.static_lists.get(path, [])
        return _page_reply(call, query, _Page(path, len(found), _rows(page_of(query, found))))

    return handler


def process_sidecars(call: Call) -> Reply:
    """`GET /v3/processes/:guid/sidecars`."""
    process = call.visible_process(call.args[0])
    return _sidecars(call, f"/v3/processes/{process.guid}/sidecars", process.app, process.type)


def app_sidecars(call: Call) -> Reply:
    """`GET /v3/apps/:guid/sidecars`."""
    app = call.visible_app(call.args[0])
    return _sidecars(call, f"/v3/apps/{app.guid}/sidecars", app, None)


def _sidecars(call: Call, path: str, app: App, kind: str | None) -> Reply:
    query = parse_list(call.params, PLAIN)
    of_app = [each for each in call.world.sidecars if each["relationships"]["app"]["data"]["guid"] == app.guid]
    found = [each for each in of_app if kind is None or kind in each["process_types"]]
    return _page_reply(call, query, _Page(path, len(found), _rows(page_of(query, found))))
