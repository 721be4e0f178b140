"""The embedded Cloud Controller: a server on a socket that answers as the real one does (controller.md).

Takes a request apart, asks in the real order — rate limit, route, token, scopes, body — and hands what is left to the
handler of its route. Stands alone: tokens are judged by a function given at construction.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aiohttp import web

from gateway.sandbox import administration
from gateway.sandbox.bodies import parse_body
from gateway.sandbox.call import BARE_JSON, V2_JSON, Call, Reply, Site, Stack
from gateway.sandbox.errors import (
    CRASH_TEXT,
    LOW_LEVEL_TEXT,
    CloudControllerError,
    MalformedQueryError,
    invalid_token,
    not_authenticated,
    rate_limited,
    unknown_request,
)
from gateway.sandbox.faults import Fault, Faults
from gateway.sandbox.heads import DEFAULT_CORS_ORIGINS, RequestFacts, fields_of, preflight
from gateway.sandbox.jobs import JobBoard
from gateway.sandbox.limiter import EXEMPT, RateLimiter, Verdict
from gateway.sandbox.params import Params, parse
from gateway.sandbox.present import Presenter
from gateway.sandbox.render import pretty
from gateway.sandbox.routing import METHODS, Guard, Route, Streaming, Target, find, refused_by_parser, take_apart
from gateway.sandbox.visibility import Principal
from gateway.sandbox.wire import BARE_400, hang_up, only_our_fields, send, send_broken, send_raw, send_zeros, swallow

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.sandbox.tokens import Verify
    from gateway.sandbox.world import World

CONTROL_PREFIX: Final = "/__sandbox__/"
MAX_LINE: Final = 65_536
MAX_FIELD: Final = 131_072
MAX_FIELDS: Final = 1_000
MAX_BODY: Final = 64 * 1024 * 1024
IDLE_SECONDS: Final = 20.0
REQUESTS_KEPT: Final = 10_000


class Received(NamedTuple):
    """A request the controller received, for tests to count."""

    method: str
    target: str
    principal: str | None
    headers: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class _Caller:
    """Who asks: no token, a bad token, or a principal; `guid` is what a signed token named, were it the empty text."""

    principal: Principal | None
    sent_token: bool
    basic: bool = False
    guid: str | None = None


@dataclass(frozen=True, slots=True)
class _Exchange:
    """One request under way, with what was found out about it."""

    request: web.Request
    target: Target
    caller: _Caller
    facts: RequestFacts
    now: float


class Controller:
    """The embedded Cloud Controller.

    Args:
        world: What it knows.
        verify: Judges a bare token: its claims, or None for a bad one (see `tokens.TokenChecker`).
        external_url: Origin of every href; the request's Host never matters.
        uaa_url: Advertised UAA; default: `uaa` beside the API's host.
        login_url: Advertised login server; default: `uaa_url` when that is given, else `login` beside the API's host.
        job_delay: Seconds a job takes; None: until `complete_jobs`.
        deployment_delay: Seconds a rolling deployment takes; None: until `complete_deployments`.
        limiter: The controller's own rate limiter, or None for none.
        cors_origins: Patterns of allowed origins.
        clock: Epoch seconds.
        control: Whether faults and jobs can be commanded over HTTP, under `/__sandbox__/`.
        name: Name of the installation in the info documents.

    Attributes:
        faults: What goes wrong, settable at any time.
        requests: What was received, newest last, bounded.
    """

    def __init__(
        self,
        *,
        world: World,
        verify: Verify,
        external_url: str = "https://api.internal.example.org",
        uaa_url: str | None = None,
        login_url: str | None = None,
        job_delay: float | None = 1.0,
        deployment_delay: float | None = None,
        limiter: RateLimiter | None = None,
        cors_origins: tuple[str, ...] = DEFAULT_CORS_ORIGINS,
        clock: Callable[[], float] = time.time,
        control: bool = False,
        name: str = "cf-recorded",
    ) -> None:
        origin = external_url.rstrip("/")
        scheme, _, host = origin.partition("://")
        domain = host.partition(".")[2]
        self.world = world
        self.jobs = JobBoard(job_delay)
        self.faults = Faults()
        self.requests: deque[Received] = deque(maxlen=REQUESTS_KEPT)
        self._site = Site(
            world,
            Presenter(origin),
            self.jobs,
            origin,
            login_url or uaa_url or f"{scheme}://login.{domain}",
            uaa_url or f"{scheme}://uaa.{domain}",
            name,
        )
        self._verify = verify
        self._deployment_delay = deployment_delay
        self._limiter = limiter
        self._cors_origins = cors_origins
        self._clock = clock
        self._control = control
        self._runner: web.AppRunner | None = None

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Listen; returns the base URL it is reached at (not the one it advertises)."""
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_route("*", r"/{target:[\s\S]*}", self._handle)
        app.on_response_prepare.append(only_our_fields)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            keepalive_timeout=IDLE_SECONDS,
            max_line_size=MAX_LINE,
            max_field_size=MAX_FIELD,
            max_headers=MAX_FIELDS,
            shutdown_timeout=0.1,
            handler_cancellation=True,
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        bound = self._runner.addresses[0]
        return f"http://{host}:{bound[1]}"

    async def stop(self) -> None:
        """Stop listening and close every connection; stalled requests are let go."""
        self.faults.clear()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def complete_jobs(self) -> int:
        """Complete every job now; returns how many."""
        return self.jobs.run_all(self._clock())

    def complete_deployments(self) -> int:
        """Finish every rolling deployment now; returns how many."""
        return administration.finish_deployments(self.world, self._clock())

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        started = time.perf_counter()
        target = take_apart(request.raw_path)
        if self._control and request.path.startswith(CONTROL_PREFIX):
            return await self._command(request)
        if refused_by_parser(request.raw_path, request.headers.values()):
            return send_raw(request, BARE_400)
        caller = self._caller(request)
        principal = caller.principal
        headers = tuple((name, value) for name, value in request.headers.items())
        self.requests.append(
            Received(request.method, request.raw_path, principal.id if principal is not None else None, headers)
        )
        now = self._clock()
        self._catch_up(now)
        verdict = self._count(request, target, caller, now)
        facts = RequestFacts(
            request.method,
            lambda name: ", ".join(request.headers.getall(name, ())) if name in request.headers else None,
            target.has_format,
            caller.guid,
            verdict.fields() if verdict is not None else (),
            self._cors_origins,
        )
        fault = self.faults.take(request.method, request.raw_path)
        if fault is not None and fault.latency:
            await asyncio.sleep(fault.latency)
        if fault is None and (raw := preflight(facts)) is not None:
            return send_raw(request, raw)
        exchange = _Exchange(request, target, caller, facts, now)
        reply = _over_limit(target, caller) if verdict is not None and verdict.refused else await self._answer(exchange)
        if fault is not None and fault.lag:
            await asyncio.sleep(fault.lag)
        if isinstance(reply, web.StreamResponse):
            return reply
        reply.status = fault.status if fault is not None and fault.status is not None else reply.status
        fields = fields_of(reply, facts, time.perf_counter() - started)
        if fault is None:
            return await send(request, reply, fields)
        return await send_broken(request, reply, fields, fault, faults=self.faults)

    def _catch_up(self, now: float) -> None:
        self.jobs.run_due(now)
        if self._deployment_delay is not None and self.world.deployments:
            administration.finish_deployments(self.world, now, started_before=now - self._deployment_delay)

    def _caller(self, request: web.Request) -> _Caller:
        """Two words of which the first is `bearer`; what does not start so counts as no token (controller.md §2)."""
        header = ", ".join(request.headers.getall("Authorization", ()))
        if not header.upper().startswith("BEARER"):
            return _Caller(None, sent_token=False, basic=header.upper().startswith("BASIC"))
        words = header.split()
        claims = self._verify(words[1]) if len(words) == 2 and words[0].lower() == "bearer" else None
        if claims is None:
            return _Caller(None, sent_token=True)
        guid = claims.get("user_id", claims.get("client_id"))
        return _Caller(Principal.of(claims), sent_token=True, guid=guid if isinstance(guid, str) else None)

    def _count(self, request: web.Request, target: Target, caller: _Caller, now: float) -> Verdict | None:
        path = request.raw_path
        if self._limiter is None or caller.basic or path in EXEMPT or target.path.startswith("/internal"):
            return None
        principal = caller.principal
        if principal is not None:
            if principal.is_limiter_exempt:
                return None
            return self._limiter.count(principal.id, now, authenticated=True)
        forwarded = request.headers.get("X-Forwarded-For", "").partition(",")[0].strip()
        return self._limiter.count(forwarded or request.remote or "", now, authenticated=False)

    async def _answer(self, exchange: _Exchange) -> Reply | web.StreamResponse:
        target = exchange.target
        if exchange.request.method not in METHODS:
            return Reply(500, LOW_LEVEL_TEXT, None, Stack.PUMA)
        try:
            params = parse(target.query)
            if target.is_v3 and not _acceptable(exchange.facts.header("Accept")):
                return Reply(406, b"", "text/html; charset=UTF-8", Stack.CRASH, varies=False)
            return await self._route(exchange, params)
        except MalformedQueryError:
            return Reply(500, CRASH_TEXT, "text/plain", Stack.CRASH)
        except CloudControllerError as error:
            return Reply(error.status, error.v3()) if target.is_v3 else _v2_refusal(error)

    async def _route(self, exchange: _Exchange, params: Params) -> Reply | web.StreamResponse:
        request, caller = exchange.request, exchange.caller
        found = find(request.method, exchange.target.path)
        if found is None:
            if exchange.target.is_v3:
                raise unknown_request()
            return _v2_unknown()
        route, args = found
        _admit(route, caller, write=request.method not in ("GET", "HEAD"))
        call = Call(self._site, request.method, args, params, caller.principal, exchange.now)
        if route.handler is Streaming.UPLOAD:
            return administration.upload_package(call, *await swallow(request))
        if route.handler is Streaming.BLOB:
            size = params.get("bytes")
            reply = Reply(200, content_type="application/octet-stream", varies=False)
            count = int(size) if isinstance(size, str) and size.isdigit() else 0
            return await send_zeros(request, fields_of(reply, exchange.facts, 0.0), count)
        if request.body_exists:
            call.raw = await request.read()
            call.body = parse_body(call.raw, request.headers.get("Content-Type", ""))
        return route.handler(call)

    async def _command(self, request: web.Request) -> web.StreamResponse:
        """Commands of tests in other processes: `POST`/`DELETE faults`, `POST jobs/complete`, `GET requests`."""
        command = (request.method, request.path.removeprefix(CONTROL_PREFIX))
        answer: Any
        match command:
            case ("POST", "faults"):
                try:
                    self.faults.add(Fault.from_json(await request.json()))
                except (TypeError, ValueError) as error:
                    return web.json_response({"error": str(error)}, status=400)
                answer = {}
            case ("DELETE", "faults"):
                self.faults.clear()
                answer = {}
            case ("POST", "jobs/complete"):
                answer = {"completed": self.complete_jobs() + self.complete_deployments()}
            case ("GET", "requests"):
                answer = [[each.method, each.target, each.principal] for each in self.requests]
            case _:
                return hang_up(request)
        return web.Response(body=json.dumps(answer), content_type="application/json")


def _admit(route: Route, caller: _Caller, *, write: bool) -> None:
    """Refuse (401, 403) a caller the route does not admit."""
    if route.guard is Guard.PUBLIC:
        return
    if caller.principal is None:
        raise invalid_token() if caller.sent_token else not_authenticated()
    if route.guard is Guard.SCOPED:
        caller.principal.require_scope(write=write)


def _acceptable(accept: str | None) -> bool:
    """Whether Rails can make sense of an Accept header."""
    kinds = [each.partition(";")[0].strip() for each in (accept or "").split(",")]
    return all("/" in kind or kind in ("", "*") for kind in kinds)


def _v2_unknown() -> Reply:
    error = unknown_request()
    body = pretty({"description": error.detail, "error_code": error.title, "code": error.code})
    return Reply(404, body, V2_JSON, Stack.SINATRA, fields=(("X-Cascade", "pass"),))


def _v2_refusal(error: CloudControllerError) -> Reply:
    return Reply(error.status, error.v2(), V2_JSON, Stack.SINATRA)


def _over_limit(target: Target, caller: _Caller) -> Reply:
    """429 in plain text type and compact JSON; 401 for an invalid token, so that CLIs refresh it."""
    bad_token = caller.sent_token and caller.principal is None
    error = invalid_token() if bad_token else rate_limited(by_address=caller.principal is None)
    body = error.v3() if target.is_v3 else error.v2_compact() if target.path.startswith("/v2") else b"null"
    return Reply(error.status, body, BARE_JSON if bad_token else "text/plain; charset=utf-8", Stack.LIMITER)
