"""The route table of the sandbox and how a request target finds its row.

Slashes are squeezed, a trailing one and a `.json` are ignored, static segments are compared undecoded, as the real
server does (controller.md §4). What has no row, or not with that method, is unknown: 404, never 405.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from gateway.sandbox import administration, lists, reads, v2, writes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.sandbox.call import Handler

METHODS: Final = frozenset(
    (
        *("OPTIONS", "GET", "HEAD", "POST", "PUT", "DELETE", "TRACE", "CONNECT", "PATCH"),
        *("PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK", "VERSION-CONTROL", "REPORT", "CHECKOUT"),
        *("CHECKIN", "UNCHECKOUT", "MKWORKSPACE", "UPDATE", "LABEL", "MERGE", "BASELINE-CONTROL", "MKACTIVITY"),
        *("ORDERPATCH", "ACL", "SEARCH", "MKCALENDAR"),
    )
)
"""What Rails knows; anything else breaks the application server (500)."""


class Guard(Enum):
    """What a route asks of the caller before its handler runs."""

    PUBLIC = "public"
    """No token; a bad one does no harm."""
    SCOPED = "scoped"
    """A good token with a read scope (GET) or a write scope."""
    AUTHENTICATED = "authenticated"
    """A good token, whatever its scopes: reads of v2."""


class Streaming(Enum):
    """Routes whose bodies are not held in memory."""

    UPLOAD = "upload"
    BLOB = "blob"


@dataclass(frozen=True, slots=True)
class Target:
    """A request target, taken apart.

    Attributes:
        path: Squeezed, without trailing slash and format.
        query: The raw query string.
        has_format: Whether the path had a `.json` or the like.
    """

    path: str
    query: str
    has_format: bool

    @property
    def is_v3(self) -> bool:
        """Whether the v3 part of the server answers."""
        return self.path == "/v3" or self.path.startswith("/v3/")


@dataclass(frozen=True, slots=True)
class Route:
    """A row of the table: `:name` in the pattern takes one segment."""

    method: str
    pattern: str
    handler: Handler | Streaming
    guard: Guard = Guard.SCOPED


MAX_PATH: Final = 8_192
MAX_QUERY: Final = 10_240
MAX_VALUE: Final = 81_920
_NOT_IN_TARGETS: Final = re.compile(r'["<>`{}|^ ]')
_ORIGIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")
_SLASHES: Final = re.compile(r"/{2,}")
_FORMAT: Final = re.compile(r"\.[^./]+$")

_PUBLIC: Final = (
    Route("GET", "/", reads.root, Guard.PUBLIC),
    Route("GET", "/info", reads.old_info, Guard.PUBLIC),
    Route("GET", "/v2/info", reads.v2_info, Guard.PUBLIC),
    Route("GET", "/v3", reads.v3_root, Guard.PUBLIC),
    Route("GET", "/v3/info", reads.v3_info, Guard.PUBLIC),
    Route("GET", "/v3/service_offerings", lists.static_list("/v3/service_offerings"), Guard.PUBLIC),
    Route("GET", "/v3/service_plans", lists.static_list("/v3/service_plans"), Guard.PUBLIC),
)
_READS: Final = (
    Route("GET", "/v3/processes", lists.processes),
    Route("GET", "/v3/processes/:guid", reads.process),
    Route("GET", "/v3/processes/:guid/stats", reads.process_stats),
    Route("GET", "/v3/processes/:guid/sidecars", lists.process_sidecars),
    Route("GET", "/v3/apps", lists.apps),
    Route("GET", "/v3/apps/:guid", reads.app),
    Route("GET", "/v3/apps/:guid/env", reads.app_environment),
    Route("GET", "/v3/apps/:guid/environment_variables", reads.app_environment_variables),
    Route("GET", "/v3/apps/:guid/manifest", reads.app_manifest),
    Route("GET", "/v3/apps/:guid/sidecars", lists.app_sidecars),
    Route("GET", "/v3/apps/:guid/relationships/current_droplet", reads.current_droplet),
    Route("GET", "/v3/apps/:guid/processes", lists.app_processes),
    Route("GET", "/v3/apps/:guid/processes/:type", reads.app_process),
    Route("GET", "/v3/apps/:guid/processes/:type/stats", reads.app_process_stats),
    Route("GET", "/v3/spaces", lists.spaces),
    Route("GET", "/v3/spaces/:guid", reads.space),
    Route("GET", "/v3/organizations", lists.organizations),
    Route("GET", "/v3/organizations/:guid", reads.organization),
    Route("GET", "/v3/roles", lists.roles),
    Route("GET", "/v3/roles/:guid", reads.role),
    Route("GET", "/v3/users", lists.users),
    Route("GET", "/v3/droplets", lists.droplets),
    Route("GET", "/v3/deployments", lists.deployments),
    Route("GET", "/v3/deployments/:guid", reads.deployment),
    Route("GET", "/v3/feature_flags", lists.feature_flags),
    Route("GET", "/v3/feature_flags/:name", reads.feature_flag),
    Route("GET", "/v3/jobs/:guid", reads.job),
    Route("GET", "/v3/environment_variable_groups/:name", reads.running_environment),
    Route("GET", "/v3/packages/:guid/download", reads.package_download),
    Route("GET", "/v3/sandbox/blob", Streaming.BLOB, Guard.PUBLIC),
    Route("GET", "/v2/apps", v2.apps, Guard.AUTHENTICATED),
    Route("GET", "/v2/apps/:guid", v2.app, Guard.AUTHENTICATED),
    *(
        Route("GET", f"/v3/{name}", lists.static_list(f"/v3/{name}"))
        for name in (
            "stacks",
            "domains",
            "buildpacks",
            "tasks",
            "audit_events",
            "packages",
            "routes",
            "service_instances",
        )
    ),
)
_WRITES: Final = (
    Route("PATCH", "/v3/processes/:guid", writes.update_process),
    Route("POST", "/v3/processes/:guid/actions/scale", writes.scale_process),
    Route("DELETE", "/v3/processes/:guid/instances/:index", writes.delete_instance),
    Route("PATCH", "/v3/apps/:guid/processes/:type", writes.update_app_process),
    Route("POST", "/v3/apps/:guid/processes/:type/actions/scale", writes.scale_app_process),
    Route("DELETE", "/v3/apps/:guid/processes/:type/instances/:index", writes.delete_app_instance),
    Route("POST", "/v3/apps", writes.create_app),
    Route("PATCH", "/v3/apps/:guid", writes.update_app),
    Route("DELETE", "/v3/apps/:guid", writes.delete_app),
    Route("PATCH", "/v3/apps/:guid/environment_variables", writes.update_environment),
    Route("PATCH", "/v3/apps/:guid/relationships/current_droplet", writes.assign_droplet),
    Route("POST", "/v3/apps/:guid/actions/start", writes.start_app),
    Route("POST", "/v3/apps/:guid/actions/stop", writes.stop_app),
    Route("POST", "/v3/apps/:guid/actions/restart", writes.restart_app),
    Route("PATCH", "/v3/spaces/:guid", administration.update_space),
    Route("DELETE", "/v3/spaces/:guid", administration.delete_space),
    Route("POST", "/v3/spaces/:guid/actions/apply_manifest", administration.apply_manifest),
    Route("PATCH", "/v3/organizations/:guid", administration.update_organization),
    Route("DELETE", "/v3/organizations/:guid", administration.delete_organization),
    Route("POST", "/v3/roles", administration.create_role),
    Route("DELETE", "/v3/roles/:guid", administration.delete_role),
    Route("PATCH", "/v3/feature_flags/:name", administration.update_feature_flag),
    Route("POST", "/v3/deployments", administration.create_deployment),
    Route("POST", "/v3/deployments/:guid/actions/cancel", administration.cancel_deployment),
    Route("POST", "/v3/packages/:guid/upload", Streaming.UPLOAD),
    Route("PUT", "/v2/apps/:guid", v2.update_app),
)
ROUTES: Final = (*_PUBLIC, *_READS, *_WRITES)

_HEALTHZ: Final = Route("GET", "/healthz", reads.healthz, Guard.PUBLIC)
_BY_SHAPE: Final[dict[tuple[str, int], list[tuple[tuple[str, ...], Route]]]] = {}
for _route in ROUTES:
    _segments = tuple(_route.pattern.split("/"))
    _BY_SHAPE.setdefault((_route.method, len(_segments)), []).append((_segments, _route))


def take_apart(raw: str) -> Target:
    """The parts of a request target in origin or absolute form; a fragment is dropped."""
    raw = _ORIGIN.sub("", raw, count=1) if not raw.startswith("/") else raw
    path, _, query = raw.partition("#")[0].partition("?")
    squeezed = _SLASHES.sub("/", path).rstrip("/") or "/"
    plain = _FORMAT.sub("", squeezed)
    has_format = plain != squeezed and plain.startswith("/v3/")
    return Target(plain if has_format else squeezed, query, has_format)


def refused_by_parser(raw: str, values: Iterable[str]) -> bool:
    """Whether the real server's parser refuses a request for its size or characters (controller.md §4, Wire).

    Args:
        raw: The request target as it came.
        values: The values of its header fields.
    """
    path, _, query = raw.partition("?")
    too_long = len(path) > MAX_PATH or len(query) > MAX_QUERY or any(len(value) > MAX_VALUE for value in values)
    return too_long or _NOT_IN_TARGETS.search(raw) is not None


def find(method: str, path: str) -> tuple[Route, tuple[str, ...]] | None:
    """The row for a method (HEAD counts as GET) and a path of `take_apart`, with the decoded placeholders."""
    method = "GET" if method == "HEAD" else method
    if method == "GET" and (path == "/healthz" or path.startswith("/healthz/")):
        return _HEALTHZ, ()
    segments = path.split("/")
    for pattern, route in _BY_SHAPE.get((method, len(segments)), ()):
        pairs = list(zip(pattern, segments, strict=True))
        if all(wanted == given or (wanted[:1] == ":" and given) for wanted, given in pairs):
            return route, tuple(unquote(given) for wanted, given in pairs if wanted[:1] == ":")
    return None
