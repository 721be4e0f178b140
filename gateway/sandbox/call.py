"""One request as the handlers see it, and what they answer: plain values, no sockets.

Handlers are ordinary functions `Call -> Reply`; everything about the wire is `controller`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from gateway.sandbox.errors import not_authenticated, resource_not_found
from gateway.sandbox.present import HIDDEN, Presenter
from gateway.sandbox.render import compact, pretty
from gateway.sandbox.visibility import Access, Principal

if TYPE_CHECKING:
    from gateway.sandbox.jobs import JobBoard
    from gateway.sandbox.params import Params
    from gateway.sandbox.world import App, Process, Space, World

V3_JSON: Final = "application/json; charset=utf-8"
V2_JSON: Final = "application/json;charset=utf-8"
BARE_JSON: Final = "application/json"


class Stack(Enum):
    """Which part of the real server answers: each has its own set of headers and its own framing."""

    RAILS = "rails"
    """v3: security headers, chunked."""
    SINATRA = "sinatra"
    """v2, `/`, `/info`: Content-Length."""
    HEALTH = "health"
    """`/healthz`: chunked, few headers."""
    CRASH = "crash"
    """Rails' last resort, plain text, chunked."""
    PUMA = "puma"
    """The application server itself: Content-Length and nothing else."""
    LIMITER = "limiter"
    """The rate limiter in front of everything: Content-Length."""


@dataclass(slots=True)
class Reply:
    """An answer.

    Attributes:
        varies: Whether `Vary: Accept` may be sent: the answer was rendered, not just headed.
        fields: Further header fields, placed where the real server places them.
    """

    status: int
    body: bytes = b""
    content_type: str | None = V3_JSON
    stack: Stack = Stack.RAILS
    varies: bool = True
    fields: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Site:
    """What every call shares: the world and how it is advertised.

    Attributes:
        external_url: Origin of every href.
        login_url: `login` link of the root, `authorization_endpoint` of v2.
        uaa_url: `uaa` link of the root, `token_endpoint` of v2.
        name: Name of the installation in `/v3/info`.
        build: Build of the installation in `/v3/info`.
    """

    world: World
    presenter: Presenter
    jobs: JobBoard
    external_url: str
    login_url: str
    uaa_url: str
    name: str = "cf-recorded"
    build: str = "recorded"
    description: str = "recorded world"


@dataclass(slots=True)
class Call:
    """A request that found its route.

    Attributes:
        args: The placeholders of the route, decoded.
        params: Nested query parameters.
        raw: The request body as it came.
        body: The JSON object of the request body; anything else under `_json`, nothing when it is not JSON.
        now: Epoch seconds.
    """

    site: Site
    method: str
    args: tuple[str, ...]
    params: Params
    principal: Principal | None
    now: float
    raw: bytes = b""
    body: dict[str, Any] = field(default_factory=dict)

    @property
    def world(self) -> World:
        """The world."""
        return self.site.world

    @property
    def presenter(self) -> Presenter:
        """The presenter."""
        return self.site.presenter

    @property
    def access(self) -> Access:
        """What the caller may do; raises 401 when there is no caller."""
        if self.principal is None:
            raise not_authenticated()
        return Access(self.site.world, self.principal)

    def visible_process(self, guid: str) -> Process:
        """The process of that guid; raises 404 when there is none or it is hidden."""
        process = self.world.processes.get(guid)
        if process is None or not self.access.reads(process.app.space):
            raise resource_not_found("Process")
        return process

    def visible_app(self, guid: str) -> App:
        """The app of that guid; raises 404 when there is none or it is hidden."""
        app = self.world.apps.get(guid)
        if app is None or not self.access.reads(app.space):
            raise resource_not_found("App")
        return app

    def visible_space(self, guid: str) -> Space:
        """The space of that guid; raises 404 when there is none or it is hidden."""
        space = self.world.spaces.get(guid)
        if space is None or not self.access.reads(space):
            raise resource_not_found("Space")
        return space

    def process_of_app(self) -> Process:
        """The process named by an app guid and a type, the first two placeholders; raises 404."""
        process = self.world.process_of_type(self.visible_app(self.args[0]), self.args[1])
        if process is None:
            raise resource_not_found("Process")
        return process

    def process_body(self, process: Process) -> bytes:
        """A single process; its command is shown to whoever may read secrets."""
        secret = self.access.reads_secrets(process.app.space)
        return compact(self.presenter.process(process, process.start_command if secret else HIDDEN))


Handler = Callable[[Call], Reply]


def json_reply(value: Any, status: int = 200) -> Reply:
    """A v3 answer."""
    return Reply(status, compact(value))


def v2_reply(value: Any, status: int = 200) -> Reply:
    """A v2 answer."""
    return Reply(status, pretty(value), V2_JSON, Stack.SINATRA)


def accepted(call: Call, operation: str, work: Callable[[float], None], **options: Any) -> Reply:
    """202 with the absolute Location of a new job and no body."""
    job = call.site.jobs.add(call.world.new_guid(), operation, work, call.now, **options)
    location = call.presenter.url(f"/v3/jobs/{job.guid}")
    return Reply(202, b"", BARE_JSON, varies=False, fields=(("Location", location),))
