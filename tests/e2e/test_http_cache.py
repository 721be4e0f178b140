"""`config/http-cache.yaml` before a scripted origin, over real sockets: RFC 9111 rule by rule.

A scenario is a conversation: each step is one request, what the origin would answer if it were asked, and what must
come of it. `asked` is the point of most of them: whether the origin heard of the request. The gateway's clock is set by
the scenario; dates in fields are written relative to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from gateway.app import Gateway
from gateway.core.dates import format_date
from gateway.settings import parse

CONFIG = Path(__file__).parents[2] / "config" / "http-cache.yaml"
START = 1_700_000_000.0
PUBLIC = "https://www.example.org"
CLOSES = b""


@dataclass(frozen=True)
class At:
    """A date, in seconds from the clock of the step."""

    seconds: float
    form: Callable[[float], str] = format_date


Value = str | At
FieldList = dict[str, Value | Sequence[Value]]


@dataclass(frozen=True)
class Says:
    """What the origin answers if it is asked; a Date of the step's own time comes by itself."""

    fields: FieldList = field(default_factory=dict)
    status: int = 200
    body: bytes = b"first"
    dated: bool = True
    raw: bytes | None = None


@dataclass(frozen=True)
class Step:
    """One request and what must come of it."""

    origin: Says | None = None
    asked: bool = True
    after: float = 0.0
    method: str = "GET"
    target: str = "/page"
    fields: FieldList = field(default_factory=dict)
    content: bytes | None = None
    status: int = 200
    body: bytes | None = None
    got: dict[str, str | None] = field(default_factory=dict)
    sent: dict[str, str | None] = field(default_factory=dict)
    cache: str | None = None


def says(
    body: bytes | str = b"first", *, status: int = 200, dated: bool = True, **fields: Value | Sequence[Value]
) -> Says:
    """What the origin answers; underscores in names are dashes."""
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    return Says(named, status, body if isinstance(body, bytes) else body.encode(), dated)


def fresh(body: bytes | str = b"first", **fields: Value | Sequence[Value]) -> Says:
    """A storable answer: fresh for ten seconds unless told otherwise."""
    return says(body, **{"Cache_Control": "max-age=10", **fields})


def hit(**options: object) -> Step:
    """A request that must be answered without the origin."""
    return Step(**{"asked": False, "origin": says("not asked for"), **options})  # type: ignore[arg-type]


@dataclass
class Origin:
    """An origin on a real socket that answers as the step in turn says."""

    clock: Callable[[], float]
    says: Says = field(default_factory=Says)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while not writer.is_closing():
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
                await reader.readexactly(int(fields.get("content-length", "0")))
                if " /healthz " in head[0]:
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                    continue
                self.asked.append((head[0], fields))
                self._answer(writer, head[0].partition(" ")[0])
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _answer(self, writer: asyncio.StreamWriter, method: str) -> None:
        answer = self.says
        if answer.raw is not None:
            writer.write(answer.raw)
            writer.close()
            return
        lines = [f"HTTP/1.1 {answer.status} Whatever", *written(answer.fields, self.clock())]
        if answer.dated and "Date" not in answer.fields:
            lines.append(f"Date: {format_date(self.clock())}")
        empty = answer.status in {204, 304}
        if not empty and "Content-Length" not in answer.fields:
            lines.append(f"Content-Length: {len(answer.body)}")
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        writer.write(head + (b"" if empty or method == "HEAD" else answer.body))


def written(fields: FieldList, now: float) -> list[str]:
    """Fields as lines."""
    lines = []
    for name, value in fields.items():
        values = [value] if isinstance(value, (str, At)) else value
        lines += [f"{name}: {one.form(now + one.seconds) if isinstance(one, At) else one}" for one in values]
    return lines


class Conversation:
    """A gateway, its origin and a client."""

    def __init__(self, gateway: Gateway, origin: Origin, client: aiohttp.ClientSession, time: list[float]) -> None:
        self.gateway = gateway
        self.origin = origin
        self._client = client
        self._time = time

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self._time[0] += seconds

    async def step(self, step: Step, place: str = "") -> None:
        """Carry out a step and check it."""
        self.wait(step.after)
        self.origin.says = step.origin or Says()
        before = len(self.origin.asked)
        lines = (line.split(": ", 1) for line in written(step.fields, self._time[0]))
        async with self._client.request(
            step.method,
            self.gateway.url + step.target,
            headers=[(name, value) for name, value in lines],
            data=step.content,
            allow_redirects=False,
        ) as response:
            body = await response.read()
        await self.gateway.pipeline.drain()
        asked = self.origin.asked[before:]
        said = response.headers.get("Cache-Status", "")
        assert bool(asked) is step.asked, f"{place}: {asked}; {said}"
        assert response.status == step.status, f"{place}: {said}"
        if step.body is not None:
            assert body == step.body, f"{place}: {said}"
        for name, value in step.got.items():
            assert response.headers.get(name) == value, f"{place}: {name}; {said}"
        for name, value in step.sent.items():
            assert asked[0][1].get(name.lower()) == value, f"{place}: {name}"
        if step.cache is not None:
            assert said == step.cache, place


@pytest.fixture
async def conversation() -> AsyncIterator[Conversation]:
    time = [START]
    origin = Origin(lambda: time[0])
    server = await asyncio.start_server(origin.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    environ = {"ORIGIN_URL": f"http://127.0.0.1:{port}", "PORT": "0", "ADMIN_PORT": "0", "PUBLIC_URL": PUBLIC}
    settings = parse(CONFIG.read_text(encoding="utf-8"), environ)
    gateway = Gateway(settings, clock=lambda: time[0])
    await gateway.start()
    async with aiohttp.ClientSession(
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
    ) as client:
        yield Conversation(gateway, origin, client, time)
    await gateway.stop()
    server.close()


def scenario(name: str, *steps: Step) -> object:
    return pytest.param(steps, id=name)


def kept(name: str, origin: Says, *, after: float = 1.0, **request: object) -> object:
    """The answer is stored and used again."""
    return scenario(
        name, Step(origin, status=origin.status, **request), hit(after=after, status=origin.status, **request)
    )


def not_kept(name: str, origin: Says, *, after: float = 1.0, **request: object) -> object:
    """The answer is not used for a second request, be it that it was not stored or that it had to be validated."""
    first, second = (
        Step(origin, status=origin.status, **request),
        Step(origin, after=after, status=origin.status, **request),
    )
    return scenario(name, first, second)


def cc(value: str, **fields: Value | Sequence[Value]) -> Says:
    return says(Cache_Control=value, **fields)


def asctime(seconds: float) -> str:
    date = format_date(seconds)
    return f"{date[:3]} {date[8:11]} {date[5:7].lstrip('0'):>2} {date[17:25]} {date[12:16]}"


def rfc850(seconds: float) -> str:
    date = format_date(seconds)
    day = {"M": "Monday", "W": "Wednesday", "F": "Friday", "Tu": "Tuesday", "Th": "Thursday", "Sa": "Saturday"}
    name = day.get(date[0]) or day.get(date[:2]) or "Sunday"
    return f"{name}, {date[5:7]}-{date[8:11]}-{date[14:16]} {date[17:]}"


def imprecise(text: str) -> At:
    """A date with `text` put in the place of its zone."""
    return At(100, lambda seconds: format_date(seconds).replace("GMT", text))


FRESHNESS = [
    kept("9111-4.2.1-max-age", cc("max-age=10"), after=9.0),
    not_kept("9111-4.2.1-max-age-over", cc("max-age=10"), after=10.0),
    not_kept("9111-4.2.1-max-age-0", cc("max-age=0")),
    kept("9111-1.2.2-max-age-2-to-31", cc("max-age=2147483648")),
    kept("9111-1.2.2-max-age-beyond-any-integer", cc("max-age=99999999999999999999999")),
    kept("9111-5.2-max-age-quoted", cc('max-age="10"')),
    kept("9111-5.2-max-age-any-case", cc("MaX-aGe=10")),
    kept("9111-5.2-max-age-leading-zero", cc("max-age=0010")),
    not_kept("9111-5.2-max-age-single-quotes", cc("max-age='10'")),
    not_kept("9111-5.2-max-age-negative", cc("max-age=-10")),
    not_kept("9111-5.2-max-age-decimal", cc("max-age=10.5")),
    not_kept("9111-5.2-max-age-letters", cc("max-age=10a")),
    not_kept("9111-5.2-max-age-space-before-equals", cc("max-age =10")),
    not_kept("9111-5.2-max-age-space-after-equals", cc("max-age= 10")),
    not_kept("9111-4.2.1-max-age-twice-contradictory", cc("max-age=10, max-age=0")),
    kept("9111-4.2.1-max-age-twice-the-same", says(Cache_Control=["max-age=10", "max-age=10"])),
    kept("9111-5.2.3-extensions-ignored", cc('foobar, a=b, max-age=10, ext="max-age=0"')),
    kept("9111-5.2-empty-members", cc(", ,max-age=10,,")),
    kept("9111-5.2.2.10-s-maxage-over-max-age", cc("max-age=0, s-maxage=10")),
    not_kept("9111-5.2.2.10-short-s-maxage-over-max-age", cc("max-age=10, s-maxage=1")),
    kept("9111-5.3-expires", says(Expires=At(10)), after=9.0),
    not_kept("9111-5.3-expires-over", says(Expires=At(10)), after=10.0),
    not_kept("9111-5.3-expires-past", says(Expires=At(-10))),
    not_kept("9111-5.3-expires-now", says(Expires=At(0)), after=0.0),
    kept("9111-5.3-expires-no-date-field", says(Expires=At(10), dated=False), after=9.0),
    kept("9111-5.3-max-age-over-expires", cc("max-age=10", Expires=At(-100))),
    not_kept("9111-5.3-max-age-0-over-expires", cc("max-age=0", Expires=At(100))),
    kept("9111-5.3-max-age-over-broken-expires", cc("max-age=10", Expires="0")),
    kept("9110-5.6.7-expires-rfc850", says(Expires=At(100, rfc850))),
    kept("9110-5.6.7-expires-asctime", says(Expires=At(100, asctime))),
    kept("9110-5.6.7-expires-any-case", says(Expires=At(100, lambda seconds: format_date(seconds).lower()))),
    *[
        not_kept(f"9111-5.3-expires-{name}", says(Expires=value))
        for name, value in {
            "zero": "0",
            "minus-one": "-1",
            "empty": "",
            "word": "never",
            "number": "1800000000",
            "zone-utc": imprecise("UTC"),
            "zone-missing": imprecise(""),
            "zone-offset": imprecise("+0000"),
            "zone-other": imprecise("AEST"),
            "no-comma": At(100, lambda seconds: format_date(seconds).replace(",", "")),
            "two-spaces": At(100, lambda seconds: format_date(seconds).replace(", ", ",  ")),
            "dashes": At(100, lambda seconds: format_date(seconds).replace(" 20", "-20")),
            "periods-in-time": At(100, lambda seconds: format_date(seconds).replace(":", ".")),
            "one-digit-hour": "Fri, 01 Jan 2038 1:01:01 GMT",
            "two-digit-year": "Fri, 01 Jan 38 01:01:01 GMT",
            "iso": "2038-01-01T01:01:01Z",
            "two-different": [At(100), At(200)],
        }.items()
    ],
    kept("9111-4.2.3-age-counts-from-its-value", cc("max-age=100", Age="90"), after=9.0),
    not_kept("9111-4.2.3-age-at-the-limit", cc("max-age=100", Age="90"), after=10.0),
    not_kept("9111-4.2.3-age-older-than-lifetime", cc("max-age=100", Age="101")),
    not_kept("9111-4.2.3-age-huge", cc("max-age=100", Age="2147483649")),
    kept("9111-5.1-age-first-of-list", cc("max-age=100", Age="0, 200")),
    not_kept("9111-5.1-age-first-of-list-old", cc("max-age=100", Age="200, 0")),
    not_kept("9111-5.1-age-first-line", cc("max-age=100", Age=["200", "0"])),
    kept("9111-5.1-age-unreadable-ignored", cc("max-age=100", Age="old")),
    kept("9111-5.1-age-negative-ignored", cc("max-age=100", Age="-200")),
    kept("9111-5.1-age-decimal-ignored", cc("max-age=100", Age="200.0")),
    not_kept("9111-4.2.3-date-long-ago", cc("max-age=100", Date=At(-200))),
    kept("9111-4.2.3-date-in-the-future", cc("max-age=100", Date=At(5000)), after=99.0),
    kept("9111-4.2.3-date-unreadable", cc("max-age=100", Date="yesterday"), after=99.0),
    not_kept("9111-4.2.3-expires-and-age", says(Expires=At(100), Age="150")),
    scenario(
        "9111-5.1-age-sent-and-grows",
        Step(cc("max-age=100", Age="30"), got={"Age": "30"}),
        hit(after=7.0, got={"Age": "37"}),
    ),
    scenario("9111-4.2.3-age-from-date", Step(cc("max-age=100", Date=At(-40))), hit(after=2.0, got={"Age": "42"})),
    kept("9111-4.2.2-heuristic-a-tenth", says(Last_Modified=At(-1000)), after=99.0),
    not_kept("9111-4.2.2-heuristic-over", says(Last_Modified=At(-1000)), after=101.0),
    not_kept("9111-4.2.2-nothing-said", says()),
    not_kept("9111-4.2.2-heuristic-last-modified-in-the-future", says(Last_Modified=At(1000))),
    not_kept("9111-4.2.2-heuristic-last-modified-unreadable", says(Last_Modified="long ago")),
]

STATUS = [
    *[
        kept(f"9111-3-status-{status}-explicit", says(status=status, Cache_Control="max-age=10"))
        for status in (
            200,
            203,
            204,
            299,
            301,
            302,
            303,
            307,
            308,
            400,
            401,
            403,
            404,
            405,
            410,
            414,
            429,
            499,
            500,
            501,
        )
    ],
    *[
        kept(f"9110-15.1-heuristic-{status}", says(status=status, Last_Modified=At(-100000)))
        for status in (200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501)
    ],
    *[
        not_kept(f"9110-15.1-no-heuristic-{status}", says(status=status, Last_Modified=At(-100000)))
        for status in (201, 202, 302, 303, 307, 403, 429, 502, 503, 504, 599, 999)
    ],
    kept("9111-4.2.2-heuristic-599-public", says(status=599, Last_Modified=At(-100000), Cache_Control="public")),
    not_kept("9111-5.2.2.3-must-understand-unknown", says(status=299, Cache_Control="max-age=10, must-understand")),
    kept("9111-5.2.2.3-must-understand-known", cc("max-age=10, must-understand, no-store")),
    not_kept(
        "9111-5.2.2.3-must-understand-unknown-no-store",
        says(status=499, Cache_Control="max-age=10, must-understand, no-store"),
    ),
    not_kept("9111-3-206-is-not-stored", says(status=206, Cache_Control="max-age=10", Content_Range="bytes 0-4/9")),
]

DIRECTIVES = [
    not_kept("9111-5.2.2.5-no-store", cc("no-store, max-age=10")),
    not_kept("9111-5.2.2.5-no-store-any-case", cc("No-StOrE, max-age=10")),
    not_kept("9111-5.2.2.7-private", cc("private, max-age=10")),
    not_kept("9111-5.2.2.4-no-cache", cc("no-cache, max-age=10")),
    scenario(
        "9111-5.2.2.4-no-cache-is-validated",
        Step(cc("no-cache, max-age=10", ETag='"a"')),
        Step(says(status=304, ETag='"a"'), after=1.0, sent={"if-none-match": '"a"'}, body=b"first"),
    ),
    scenario(
        "9111-5.2.2.4-no-cache-with-fields-omits-them",
        Step(cc('max-age=10, no-cache="Secret, X-Other"', Secret="s", X_Kept="k")),
        hit(got={"Secret": None, "X-Kept": "k"}),
    ),
    scenario(
        "9111-5.2.2.7-private-with-fields-omits-them",
        Step(cc('max-age=10, private="secret"', Secret="s", X_Kept="k")),
        hit(got={"Secret": None, "X-Kept": "k"}),
    ),
    scenario(
        "9111-5.2.2.2-must-revalidate-when-stale",
        Step(cc("max-age=10, must-revalidate")),
        hit(after=9.0, fields={"Cache-Control": "max-stale=100"}),
        Step(fresh("second"), after=1.0, fields={"Cache-Control": "max-stale=100"}, body=b"second"),
    ),
    not_kept("9111-3.5-authorization", cc("max-age=10"), fields={"Authorization": "Bearer x"}),
    kept("9111-3.5-authorization-public", cc("max-age=10, public"), fields={"Authorization": "Bearer x"}),
    kept(
        "9111-3.5-authorization-must-revalidate",
        cc("max-age=10, must-revalidate"),
        fields={"Authorization": "Bearer x"},
    ),
    kept("9111-3.5-authorization-s-maxage", cc("s-maxage=10"), fields={"Authorization": "Bearer x"}),
    scenario(
        "9111-3.5-authorization-reaches-the-origin",
        Step(
            cc("max-age=10"),
            fields={"Authorization": "Bearer x", "Cookie": "a=b"},
            sent={"authorization": "Bearer x", "cookie": "a=b"},
        ),
    ),
    scenario(
        "9111-5.2.1.5-request-no-store",
        Step(
            fresh(),
            fields={"Cache-Control": "no-store"},
            cache="gateway;fwd=uri-miss;fwd-status=200;detail=request-no-store",
        ),
        Step(fresh()),
        Step(fresh("second"), fields={"Cache-Control": "no-store"}, body=b"second"),
    ),
    scenario(
        "9111-5.2.1.4-request-no-cache",
        Step(fresh(ETag='"a"')),
        Step(
            says(status=304, ETag='"a"'),
            fields={"Cache-Control": "no-cache"},
            sent={"if-none-match": '"a"'},
            body=b"first",
            cache="gateway;fwd=request;fwd-status=304;ttl=10;stored",
        ),
        hit(),
    ),
    scenario(
        "9111-5.4-pragma-no-cache",
        Step(fresh()),
        Step(fresh("second"), fields={"Pragma": "no-cache"}, body=b"second"),
        hit(fields={"Pragma": "other"}),
        hit(fields={"Pragma": "no-cache", "Cache-Control": "max-age=100"}),
    ),
    kept("9111-5.4-pragma-in-a-response-means-nothing", cc("max-age=10", Pragma="no-cache")),
    scenario(
        "9111-5.2.1.1-request-max-age",
        Step(cc("max-age=100")),
        hit(after=5.0, fields={"Cache-Control": "max-age=5"}),
        Step(fresh("second"), after=1.0, fields={"Cache-Control": "max-age=5"}, body=b"second"),
    ),
    scenario("9111-5.2.1.1-request-max-age-0", Step(fresh()), Step(fresh(), fields={"Cache-Control": "max-age=0"})),
    scenario(
        "9111-5.2.1.3-request-min-fresh",
        Step(cc("max-age=10")),
        hit(after=4.0, fields={"Cache-Control": "min-fresh=6"}),
        Step(fresh(), after=1.0, fields={"Cache-Control": "min-fresh=6"}),
    ),
    scenario(
        "9111-5.2.1.2-request-max-stale",
        Step(cc("max-age=10")),
        hit(after=15.0, fields={"Cache-Control": "max-stale=5"}, got={"Cache-Status": "gateway;hit;ttl=-5"}),
        hit(fields={"Cache-Control": "max-stale"}),
        Step(fresh(), fields={"Cache-Control": "max-stale=4"}),
    ),
    scenario(
        "9111-5.2.1.7-only-if-cached",
        Step(
            asked=False,
            fields={"Cache-Control": "only-if-cached"},
            status=504,
            got={"X-Gateway-Error": "only-if-cached"},
        ),
        Step(fresh()),
        hit(fields={"Cache-Control": "only-if-cached"}),
        Step(asked=False, after=10.0, fields={"Cache-Control": "only-if-cached"}, status=504),
    ),
    kept("9111-3-cookies-do-not-matter", cc("max-age=10"), fields={"Cookie": "a=b"}),
    kept("9111-7.3-set-cookie-with-an-explicit-lifetime", cc("max-age=10", Set_Cookie="a=b")),
    not_kept("9111-7.3-set-cookie-without-one", says(Set_Cookie="a=b", Last_Modified=At(-100000))),
    scenario(
        "9111-7.3-set-cookie-is-not-replayed-by-a-304",
        Step(cc("no-cache", Set_Cookie="who=alice", ETag='"a"')),
        Step(
            cc("no-cache", Set_Cookie="who=bob", ETag='"a"'),
            sent={"if-none-match": None},
            got={"Set-Cookie": "who=bob"},
        ),
    ),
    scenario(
        "9111-3.1-connection-fields-are-not-stored",
        Step(cc("max-age=10", Connection="X-Hop", X_Hop="1", Keep_Alive="timeout=5", X_Kept="2")),
        hit(got={"X-Hop": None, "Keep-Alive": None, "X-Kept": "2"}),
    ),
    scenario(
        "9111-2-query-is-part-of-the-key",
        Step(fresh()),
        Step(fresh(), target="/page?a=1&b=2"),
        Step(fresh(), target="/page?b=2&a=1"),
        hit(target="/page?a=1&b=2"),
    ),
]


def targeted(value: str, **fields: Value | Sequence[Value]) -> Says:
    return says(CDN_Cache_Control=value, **fields)


TARGETED = [
    kept("9213-2.2-max-age", targeted("max-age=10")),
    kept("9213-2.2-max-age-2-to-31", targeted("max-age=2147483648")),
    kept("9213-2.2-max-age-greater", targeted("max-age=99999999999")),
    not_kept("9213-2.2-age-counts", targeted("max-age=100", Age="200")),
    not_kept("9213-2.1-space-before-equals", targeted("max-age =100", Cache_Control="max-age=1")),
    not_kept("9213-2.1-space-after-equals", targeted("max-age= 100", Cache_Control="max-age=1")),
    not_kept("9213-2.2-max-age-0", targeted("max-age=0", Cache_Control="max-age=100")),
    kept("9213-2.1-extension", targeted("foobar, max-age=10")),
    not_kept("9213-2.1-keys-are-lower-case", targeted("MaX-aGe=100", Cache_Control="max-age=1")),
    kept("9213-2.2-over-past-expires", targeted("max-age=10", Expires=At(-100))),
    kept("9213-2.2-over-broken-expires", targeted("max-age=10", Expires="0")),
    not_kept("9213-2.2-max-age-0-over-expires", targeted("max-age=0", Expires=At(100))),
    kept("9213-2.2-over-short-cache-control", targeted("max-age=100", Cache_Control="max-age=1"), after=50.0),
    not_kept("9213-2.2-short-over-cache-control", targeted("max-age=1", Cache_Control="max-age=100")),
    not_kept("9213-2.2-private-over-cache-control", targeted("private", Cache_Control="max-age=100", Expires=At(100))),
    not_kept(
        "9213-2.2-no-cache-over-cache-control", targeted("no-cache", Cache_Control="max-age=100", Expires=At(100))
    ),
    not_kept(
        "9213-2.2-no-store-over-cache-control", targeted("no-store", Cache_Control="max-age=100", Expires=At(100))
    ),
    kept("9213-2.2-over-no-store", targeted("max-age=10", Cache_Control="no-store")),
    not_kept("9213-2.1-not-a-structured-field", targeted("max-age=100, &&&", Cache_Control="no-store")),
    not_kept("9213-2.1-value-of-the-wrong-type", targeted('max-age="100"', Cache_Control="no-store")),
    kept("9213-2.1-empty-is-absent", targeted("", Cache_Control="max-age=10")),
    kept("9213-2.2-own-field-first", targeted("no-store", Gateway_Cache_Control="max-age=10")),
    scenario(
        "9213-2-cdn-field-is-forwarded-and-own-one-consumed",
        Step(
            says(CDN_Cache_Control="max-age=5", Gateway_Cache_Control="max-age=10"),
            got={"CDN-Cache-Control": "max-age=5", "Gateway-Cache-Control": None},
        ),
        hit(after=9.0, got={"CDN-Cache-Control": "max-age=5", "Gateway-Cache-Control": None}),
        Step(
            says(CDN_Cache_Control="no-store", Gateway_Cache_Control="no-store"),
            method="POST",
            content=b"x",
            got={"CDN-Cache-Control": "no-store", "Gateway-Cache-Control": None},
        ),
    ),
]


LM = At(-1000)
CONDITIONAL = [
    scenario(
        "9111-4.3.2-if-none-match",
        Step(fresh(ETag='"a"', X_Large="not in a 304", Vary="Foo", Content_Location="/p")),
        hit(
            fields={"If-None-Match": '"a"'},
            status=304,
            body=b"",
            got={
                "ETag": '"a"',
                "X-Large": None,
                "Vary": "Foo",
                "Content-Location": "/p",
                "Cache-Control": "max-age=10",
                "Age": "0",
                "Cache-Status": "gateway;hit;ttl=10",
            },
        ),
        hit(fields={"If-None-Match": 'W/"a"'}, status=304),
        hit(fields={"If-None-Match": '"b", "a"'}, status=304),
        hit(fields={"If-None-Match": "*"}, status=304),
        hit(fields={"If-None-Match": '"b"'}, status=200, body=b"first"),
        hit(fields={"If-None-Match": "a"}, status=200),
    ),
    scenario("9110-8.8.3.2-weak-tag", Step(fresh(ETag='W/"a"')), hit(fields={"If-None-Match": '"a"'}, status=304)),
    scenario(
        "9111-4.3.2-if-modified-since",
        Step(fresh(Last_Modified=LM)),
        hit(fields={"If-Modified-Since": LM}, status=304),
        hit(fields={"If-Modified-Since": At(-10)}, status=304),
        hit(fields={"If-Modified-Since": At(-1001)}, status=200),
        hit(fields={"If-Modified-Since": At(-10, rfc850)}, status=304),
        hit(fields={"If-Modified-Since": At(-10, asctime)}, status=304),
        hit(fields={"If-Modified-Since": "whenever"}, status=200),
    ),
    scenario(
        "9111-4.3.2-if-modified-since-against-date",
        Step(fresh()),
        hit(after=5.0, fields={"If-Modified-Since": At(-5)}, status=304),
        hit(fields={"If-Modified-Since": At(-6)}, status=200),
    ),
    scenario(
        "9110-13.2.2-if-none-match-before-if-modified-since",
        Step(fresh(ETag='"a"', Last_Modified=LM)),
        hit(fields={"If-None-Match": '"b"', "If-Modified-Since": LM}, status=200),
        hit(fields={"If-None-Match": '"a"', "If-Modified-Since": At(-5000)}, status=304),
    ),
    scenario(
        "9111-4.3.2-if-match-is-for-the-origin",
        Step(fresh(ETag='"a"')),
        Step(
            says(status=412),
            fields={"If-Match": '"b"'},
            sent={"if-match": '"b"'},
            status=412,
            cache="gateway;fwd=bypass;fwd-status=412;detail=precondition",
        ),
        Step(fresh("second"), fields={"If-Unmodified-Since": LM}, body=b"second"),
        hit(body=b"first"),
    ),
    scenario(
        "9110-13.2.1-only-a-200-is-conditional",
        Step(says(status=404, Cache_Control="max-age=10", ETag='"a"'), status=404),
        hit(fields={"If-None-Match": '"a"'}, status=404),
    ),
    scenario(
        "9111-4.3.1-nothing-stored-conditions-pass",
        Step(
            says(status=304, ETag='"a"'),
            fields={"If-None-Match": '"a"'},
            sent={"if-none-match": '"a"'},
            status=304,
            cache="gateway;fwd=uri-miss;fwd-status=304;detail=not-modified",
        ),
        Step(fresh(ETag='"a"'), fields={"If-None-Match": '"b"'}, sent={"if-none-match": '"b"'}),
        hit(),
    ),
    scenario(
        "9111-4.3.1-stored-validators-replace-the-clients",
        Step(fresh(ETag='"a"', Last_Modified=LM)),
        Step(
            says(status=304, ETag='"a"'),
            after=20.0,
            fields={"If-None-Match": '"mine"', "If-Modified-Since": At(-5)},
            sent={"if-none-match": '"a"', "if-modified-since": format_date(START - 1000)},
            status=200,
            body=b"first",
        ),
    ),
    scenario(
        "9111-4.3.3-the-client-gets-its-304-from-a-new-200",
        Step(fresh(ETag='"a"')),
        Step(
            fresh("second", ETag='"b"'),
            after=20.0,
            fields={"If-None-Match": '"b"'},
            sent={"if-none-match": '"a"'},
            status=304,
        ),
        hit(body=b"second"),
    ),
    scenario(
        "9111-4.3.3-a-new-200-replaces",
        Step(fresh(ETag='"a"')),
        Step(fresh("second", ETag='"b"'), after=20.0, body=b"second"),
        hit(body=b"second"),
    ),
    scenario(
        "9111-4.3.3-what-is-not-stored-outdates-too",
        Step(cc("max-age=10, stale-if-error=1000", ETag='"a"')),
        Step(says("gone", status=410, Cache_Control="no-store"), after=20.0, status=410),
        Step(says(status=503), status=503),
    ),
    scenario(
        "9111-4.3.1-no-validator-no-condition",
        Step(cc("max-age=10")),
        Step(fresh("second"), after=20.0, sent={"if-none-match": None, "if-modified-since": None}, body=b"second"),
    ),
    scenario(
        "9110-8.8.3-a-malformed-tag-is-no-validator",
        Step(fresh(ETag="unquoted")),
        Step(fresh("second"), after=20.0, sent={"if-none-match": None}, body=b"second"),
    ),
]


def updates(name: str, before: str, later: str, *, kept_as: str | None = None) -> object:
    """A field of the 304 replaces the stored one, or does not."""
    label = name.replace("-", "_")
    return scenario(
        f"9111-3.2-304-{name}",
        Step(fresh(**{"ETag": '"a"', label: before}), got={name: before}),
        Step(
            says(status=304, **{"ETag": '"a"', "Cache_Control": "max-age=10", label: later}),
            after=11.0,
            got={name: kept_as or later},
            body=b"first",
        ),
        hit(got={name: kept_as or later}),
    )


UPDATE_304 = [
    *[
        updates(name, "one", "two")
        for name in ("Test-Header", "X-Test-Header", "Content-Foo", "X-Content-Foo", "Content-MD5", "Public-Key-Pins")
    ],
    updates("Cache-Control", "max-age=10", "max-age=100"),
    updates("Content-Type", "text/plain", "text/plain;charset=utf-8"),
    updates("Content-Location", "/foo", "/bar"),
    updates("Content-Security-Policy", "default-src 'self'", "default-src 'none'"),
    updates("Expires", format_date(START + 5000), format_date(START + 9000)),
    updates("Set-Cookie", "a=b", "a=c"),
    updates("X-Frame-Options", "deny", "sameorigin"),
    updates("Content-Encoding", "x-one", "x-two", kept_as="x-one"),
    updates("Content-Range", "one", "two", kept_as="one"),
    scenario(
        "9111-3.2-304-omitted-fields-stay",
        Step(fresh(Last_Modified=format_date(START - 1000), X_Kept="k")),
        Step(says(status=304, Cache_Control="max-age=10"), after=11.0, got={"X-Kept": "k"}),
        hit(after=9.0, got={"X-Kept": "k", "Age": "9"}),
    ),
    scenario(
        "9111-4.3.4-304-of-another-response-updates-nothing",
        Step(fresh(ETag='"a"')),
        Step(says(status=304, ETag='"b"'), after=11.0, status=304),
    ),
    scenario(
        "9111-4.3.4-304-may-forbid-to-keep-it",
        Step(fresh(ETag='"a"')),
        Step(says(status=304, ETag='"a"', Cache_Control="no-store"), after=11.0, body=b"first"),
        Step(fresh("second"), sent={"if-none-match": None}, body=b"second"),
    ),
    scenario(
        "9111-4.3.4-304-to-an-authorized-request-leaves-the-stored-one",
        Step(fresh(ETag='"a"')),
        Step(
            says(status=304, ETag='"a"', X_For="alice"),
            after=11.0,
            fields={"Authorization": "Bearer alice"},
            body=b"first",
        ),
        Step(
            says(status=304, ETag='"a"', Cache_Control="max-age=10"), sent={"if-none-match": '"a"'}, got={"X-For": None}
        ),
        hit(),
    ),
]

HEAD = [
    scenario(
        "9111-4-get-answers-head",
        Step(fresh(X_Kept="k")),
        hit(method="HEAD", body=b"", got={"Content-Length": "5", "X-Kept": "k"}),
    ),
    scenario("9111-4-head-does-not-answer-get", Step(fresh(), method="HEAD"), Step(fresh())),
    scenario(
        "9111-4.3.5-head-freshens",
        Step(fresh(ETag='"a"', X_Other="1")),
        Step(fresh(ETag='"a"', X_Other="2"), after=11.0, method="HEAD", fields={"Cache-Control": "no-cache"}),
        hit(got={"X-Other": "2"}, body=b"first"),
    ),
    scenario(
        "9111-4.3.5-head-with-another-tag-outdates",
        Step(fresh(ETag='"a"')),
        Step(fresh(ETag='"b"'), method="HEAD", fields={"Cache-Control": "no-cache"}),
        Step(fresh("second"), body=b"second"),
    ),
    scenario(
        "9111-4.3.5-head-with-another-length-outdates",
        Step(fresh()),
        Step(fresh("longer content"), method="HEAD", fields={"Cache-Control": "no-cache"}),
        Step(fresh("second"), body=b"second"),
    ),
    scenario(
        "9111-4.3.5-head-410-leaves-it",
        Step(fresh()),
        Step(says(status=410), method="HEAD", fields={"Cache-Control": "no-cache"}, status=410),
        hit(),
    ),
    scenario(
        "9111-4.3.5-head-304-freshens",
        Step(fresh(ETag='"a"')),
        Step(
            says(status=304, ETag='"a"', Cache_Control="max-age=10"),
            after=11.0,
            method="HEAD",
            body=b"",
            got={"Content-Length": "5"},
        ),
        hit(after=9.0),
    ),
    scenario(
        "9111-4.3.4-head-304-of-another-response",
        Step(fresh(ETag='"a"')),
        Step(says(status=304, ETag='"b"'), after=11.0, method="HEAD", status=304),
    ),
    scenario(
        "9110-14.2-range-means-nothing-to-head",
        Step(fresh()),
        hit(method="HEAD", fields={"Range": "bytes=0-1"}, got={"Content-Length": "5"}),
    ),
]


def vary(value: str, body: str = "first", **fields: Value | Sequence[Value]) -> Says:
    return fresh(body, Vary=value, **fields)


VARY = [
    scenario("9111-4.1-match", Step(vary("Foo"), fields={"Foo": "1"}), hit(fields={"Foo": "1"})),
    scenario(
        "9111-4.1-mismatch",
        Step(vary("Foo"), fields={"Foo": "1"}),
        Step(vary("Foo"), fields={"Foo": "2"}, cache="gateway;fwd=vary-miss;fwd-status=200;ttl=10;stored"),
    ),
    scenario("9111-4.1-omitted", Step(vary("Foo"), fields={"Foo": "1"}), Step(vary("Foo"))),
    scenario("9111-4.1-added", Step(vary("Foo")), Step(vary("Foo"), fields={"Foo": "1"})),
    scenario("9111-4.1-both-absent", Step(vary("Foo")), hit()),
    scenario(
        "9111-4.1-several-variants-are-kept",
        Step(vary("Foo", "one"), fields={"Foo": "1"}),
        Step(vary("Foo", "two"), fields={"Foo": "2"}),
        hit(fields={"Foo": "1"}, body=b"one"),
        hit(fields={"Foo": "2"}, body=b"two"),
    ),
    scenario(
        "9111-4.1-two-fields",
        Step(vary("Foo, Bar"), fields={"Foo": "1", "Bar": "2"}),
        hit(fields={"Bar": "2", "Foo": "1"}),
        Step(vary("Foo, Bar"), fields={"Foo": "1", "Bar": "3"}),
    ),
    scenario(
        "9111-4.1-two-lines",
        Step(fresh(Vary=["Foo", "Bar"]), fields={"Foo": "1", "Bar": "2"}),
        Step(fresh(), fields={"Foo": "1"}),
    ),
    scenario(
        "9111-4.1-name-in-any-case",
        Step(vary("fOO"), fields={"Foo": "1"}),
        hit(fields={"foo": "1"}),
        Step(fresh(), fields={"Foo": "2"}),
    ),
    scenario("9111-4.1-empty-members", Step(vary(", Foo,,"), fields={"Foo": "1"}), hit(fields={"Foo": "1"})),
    scenario(
        "9111-4.1-order-of-lines",
        Step(vary("Foo"), fields={"Foo": ["1", "2"]}),
        hit(fields={"Foo": "1,  2"}),
        Step(fresh(), fields={"Foo": "2, 1"}),
    ),
    scenario(
        "9110-12.5.4-languages-in-any-order-and-case",
        Step(vary("Accept-Language"), fields={"Accept-Language": "en, de"}),
        hit(fields={"Accept-Language": "DE,EN"}),
    ),
    scenario(
        "9110-8.5-the-language-wanted-most",
        Step(vary("Accept-Language", Content_Language="de"), fields={"Accept-Language": "de"}),
        hit(fields={"Accept-Language": "de, en;q=0.5"}),
        Step(fresh(), fields={"Accept-Language": "en, de;q=0.5"}),
    ),
    *[
        not_kept(f"9111-4.1-any-{name}", vary(value))
        for name, value in {"alone": "*", "first": "*, Foo", "last": "Foo, *", "spaced": " * "}.items()
    ],
    not_kept("9111-4.1-any-second-line", fresh(Vary=["Foo", "*"])),
    not_kept("9111-4.1-what-the-gateway-states-itself", vary("X-Forwarded-For")),
    scenario(
        "9111-4.1-changing-vary",
        Step(vary("Foo", "by foo"), fields={"Foo": "1", "Bar": "1"}),
        Step(vary("Bar", "by bar"), fields={"Foo": "2", "Bar": "1"}),
        hit(fields={"Foo": "2", "Bar": "1"}, body=b"by bar"),
        hit(fields={"Foo": "3", "Bar": "1"}, body=b"by bar"),
    ),
    scenario(
        "9111-4.3.4-a-304-freshens-every-variant-with-its-tag",
        Step(vary("Foo", "one", ETag='"same"'), fields={"Foo": "1"}),
        Step(vary("Foo", "two", ETag='"same"'), fields={"Foo": "2"}),
        Step(says(status=304, ETag='"same"', Cache_Control="max-age=10"), after=11.0, fields={"Foo": "1"}, body=b"one"),
        hit(fields={"Foo": "2"}, body=b"two"),
    ),
    scenario(
        "9111-4-the-origins-last-word-counts-whatever-its-date",
        Step(vary("Foo", "later", Date=At(5000)), fields={"Foo": "1"}),
        Step(vary("Foo", "last"), fields={"Foo": "1", "Cache-Control": "no-cache"}),
        hit(fields={"Foo": "1"}, body=b"last"),
    ),
]

_DROPS = Step(fresh("second"), body=b"second", cache="gateway;fwd=uri-miss;fwd-status=200;ttl=10;stored")


def invalidated(method: str, status: int = 200, *, dropped: bool = True, **fields: Value | Sequence[Value]) -> object:
    """Whether a request of this method drops what is stored for its target."""
    write = Step(
        says(status=status, **fields),
        method=method,
        content=b"x",
        status=status,
        cache=f"gateway;fwd=method;fwd-status={status}",
    )
    name = f"9111-4.4-{method}-{status}{'' if dropped else '-drops-nothing'}"
    return scenario(name, Step(fresh()), write, _DROPS if dropped else hit(body=b"first"))


def elsewhere(name: str, reference: str, *, dropped: bool = True) -> list[object]:
    """Whether what Location and Content-Location name is dropped."""
    return [
        scenario(
            f"9111-4.4-{label}-{name}",
            Step(fresh(), target="/other/page?q=1"),
            Step(
                says(status=201, **{label.replace("-", "_"): reference}),
                method="POST",
                target="/other/form",
                content=b"x",
                status=201,
            ),
            Step(fresh("second"), target="/other/page?q=1", body=b"second")
            if dropped
            else hit(target="/other/page?q=1"),
        )
        for label in ("Location", "Content-Location")
    ]


INVALIDATION = [
    *[invalidated(method) for method in ("POST", "PUT", "PATCH", "DELETE", "M-SEARCH", "NOTIFY")],
    *[invalidated("POST", status) for status in (201, 204, 303, 399)],
    *[invalidated("POST", status, dropped=False) for status in (400, 404, 409, 500, 503)],
    *[invalidated(method, dropped=False) for method in ("OPTIONS", "TRACE")],
    *elsewhere("absolute-path", "/other/page?q=1"),
    *elsewhere("relative", "page?q=1"),
    *elsewhere("same-origin", f"{PUBLIC}/other/page?q=1"),
    *elsewhere("another-origin", "https://elsewhere.example.org/other/page?q=1", dropped=False),
    *elsewhere("another-port", f"{PUBLIC}:8443/other/page?q=1", dropped=False),
    scenario(
        "9111-4.4-every-variant",
        Step(vary("Foo", "one"), fields={"Foo": "1"}),
        Step(says(), method="PUT", content=b"x"),
        Step(vary("Foo"), fields={"Foo": "1"}),
    ),
    scenario(
        "9111-4.4-an-unknown-outcome-counts-as-success",
        Step(fresh()),
        Step(Says(raw=CLOSES), method="POST", content=b"x", status=502),
        _DROPS,
    ),
    scenario(
        "9110-9.3.3-post-is-not-stored",
        Step(fresh(), method="POST", content=b"x"),
        Step(fresh("second"), body=b"second"),
    ),
    scenario(
        "9110-9.3.1-get-with-content-passes",
        Step(fresh()),
        Step(
            fresh("second"),
            content=b"x",
            body=b"second",
            cache="gateway;fwd=bypass;fwd-status=200;detail=request-content",
        ),
        hit(body=b"first"),
    ),
]

DIGITS = fresh("0123456789", ETag='"d"', Last_Modified=At(-1000), Content_Type="text/plain")


def part(value: str, body: bytes, content_range: str, **fields: Value) -> Step:
    return hit(
        fields={"Range": value, **{name.replace("_", "-"): text for name, text in fields.items()}},
        status=206,
        body=body,
        got={"Content-Range": content_range, "Content-Length": str(len(body)), "ETag": '"d"'},
    )


def whole(value: str, **fields: Value) -> Step:
    return hit(
        fields={"Range": value, **{name.replace("_", "-"): text for name, text in fields.items()}},
        status=200,
        body=b"0123456789",
    )


RANGES = [
    scenario(
        "9110-14.2-parts-of-a-complete-response",
        Step(DIGITS),
        part("bytes=2-4", b"234", "bytes 2-4/10"),
        part("bytes=7-", b"789", "bytes 7-9/10"),
        part("bytes=-2", b"89", "bytes 8-9/10"),
        part("bytes=0-99", b"0123456789", "bytes 0-9/10"),
        whole("lines=1-2"),
        whole("bytes=4-2"),
        whole("bytes=x"),
        hit(fields={"Range": "bytes=10-"}, status=416, got={"Content-Range": "bytes */10"}, body=b""),
    ),
    scenario(
        "9110-13.1.5-if-range",
        Step(DIGITS),
        part("bytes=2-4", b"234", "bytes 2-4/10", If_Range='"d"'),
        part("bytes=2-4", b"234", "bytes 2-4/10", If_Range=At(-1000)),
        whole("bytes=2-4", If_Range='"e"'),
        whole("bytes=2-4", If_Range='W/"d"'),
        whole("bytes=2-4", If_Range=At(-999)),
    ),
    scenario(
        "9110-13.2.2-condition-before-range",
        Step(DIGITS),
        hit(fields={"Range": "bytes=2-4", "If-None-Match": '"d"'}, status=304),
    ),
    scenario(
        "9111-3.4-a-part-is-not-stored-but-passes",
        Step(
            says("234", status=206, Cache_Control="max-age=10", Content_Range="bytes 2-4/10"),
            fields={"Range": "bytes=2-4"},
            sent={"range": "bytes=2-4"},
            status=206,
            cache="gateway;fwd=uri-miss;fwd-status=206;detail=partial-content",
        ),
        Step(DIGITS, sent={"range": None}),
        part("bytes=2-4", b"234", "bytes 2-4/10"),
    ),
    scenario(
        "9110-14.2-an-origin-without-ranges",
        Step(DIGITS, fields={"Range": "bytes=2-4"}, status=200, body=b"0123456789"),
        part("bytes=2-4", b"234", "bytes 2-4/10"),
    ),
    scenario(
        "9111-4.3.1-the-whole-is-validated",
        Step(DIGITS),
        Step(
            says(status=304, ETag='"d"', Cache_Control="max-age=10"),
            after=11.0,
            fields={"Range": "bytes=2-4"},
            sent={"range": None, "if-none-match": '"d"'},
            status=206,
            body=b"234",
        ),
    ),
]

BROKEN = Says(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nCache-Control: max-age=10\r\n\r\nshort")
STALE = [
    scenario(
        "5861-3-stale-while-revalidate",
        Step(cc("max-age=10, stale-while-revalidate=20", ETag='"a"')),
        Step(
            cc("max-age=10", ETag='"b"'),
            after=15.0,
            sent={"if-none-match": '"a"'},
            body=b"first",
            got={"Age": "15", "Cache-Status": "gateway;hit;ttl=-5"},
        ),
        hit(got={"ETag": '"b"'}),
    ),
    scenario(
        "5861-3-stale-while-revalidate-over",
        Step(cc("max-age=10, stale-while-revalidate=20")),
        Step(fresh("second"), after=30.0, body=b"second"),
    ),
    scenario(
        "5861-3-a-304-behind-freshens",
        Step(cc("max-age=10, stale-while-revalidate=20", ETag='"a"')),
        Step(says(status=304, ETag='"a"', Cache_Control="max-age=10"), after=15.0, body=b"first"),
        hit(after=9.0, body=b"first"),
    ),
    scenario(
        "5861-3-a-refresh-that-fails-is-not-repeated-at-once",
        Step(cc("max-age=10, stale-while-revalidate=20")),
        Step(says(status=500), after=15.0, body=b"first"),
        hit(body=b"first"),
        Step(fresh("second"), after=1.0, body=b"first"),
        hit(body=b"second"),
    ),
    scenario(
        "5861-3-head-refreshes-by-get",
        Step(cc("max-age=10, stale-while-revalidate=20")),
        Step(fresh("second"), after=15.0, method="HEAD"),
        hit(body=b"second"),
    ),
    *[
        scenario(
            f"5861-4-stale-if-error-{name}",
            Step(cc("max-age=10, stale-if-error=20")),
            Step(answer, after=15.0, body=b"first", got={"Age": "15"}, cache=status),
            Step(answer, after=15.0, status=answer.status if answer.raw is None else 502),
        )
        for name, answer, status in [
            *[
                (str(code), says(status=code), f"gateway;fwd=stale;fwd-status={code};ttl=-5;detail=stale-if-error")
                for code in (500, 502, 503, 504)
            ],
            ("closed", Says(raw=CLOSES), 'gateway;fwd=stale;ttl=-5;detail="stale-if-error: broken"'),
        ]
    ],
    scenario(
        "5861-4-not-for-404", Step(cc("max-age=10, stale-if-error=20")), Step(says(status=404), after=15.0, status=404)
    ),
    scenario(
        "5861-4-a-body-that-breaks-before-its-first-byte",
        Step(cc("max-age=10, stale-if-error=20")),
        Step(
            Says(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nCache-Control: max-age=9\r\n\r\n"),
            after=15.0,
            body=b"first",
        ),
    ),
    scenario(
        "5861-4-the-request-may-ask-for-it",
        Step(cc("max-age=10")),
        Step(says(status=503), after=15.0, fields={"Cache-Control": "stale-if-error=20"}, body=b"first"),
    ),
    scenario(
        "5861-4-head",
        Step(cc("max-age=10, stale-if-error=20")),
        Step(says(status=503), method="HEAD", after=15.0, got={"Age": "15"}),
    ),
    *[
        scenario(
            f"9111-4.2.4-never-stale-with-{directive}",
            Step(cc(f"max-age=10, stale-if-error=100, stale-while-revalidate=100, {directive}")),
            Step(Says(raw=CLOSES), after=15.0, status=502),
            Step(says(status=503), status=503),
        )
        for directive in ("must-revalidate", "proxy-revalidate", "s-maxage=10", "no-cache")
    ],
    scenario(
        "9111-4.2.4-no-permission-no-stale", Step(cc("max-age=10")), Step(Says(raw=CLOSES), after=15.0, status=502)
    ),
    scenario(
        "9111-5.2.1.4-a-reload-gets-the-error",
        Step(cc("max-age=10, stale-if-error=100")),
        Step(says(status=503), fields={"Cache-Control": "no-cache"}, status=503),
    ),
    scenario(
        "9111-4.3.3-an-error-does-not-drop",
        Step(fresh(ETag='"a"')),
        Step(says(status=503), after=11.0, status=503),
        Step(says(status=304, ETag='"a"'), sent={"if-none-match": '"a"'}, body=b"first"),
    ),
]

OTHER = [
    scenario("9111-3.3-complete-is-stored", Step(Says(raw=BROKEN.raw + b"x" * 95)), hit()),
    scenario(
        "9112-7.1-trailers-are-dropped",
        Step(
            Says(
                raw=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n"
                b"Cache-Control: max-age=10\r\n\r\n5\r\nfirst\r\n0\r\nX-T: 1\r\n\r\n"
            ),
            body=b"first",
            got={"X-T": None, "Trailer": None},
        ),
        hit(body=b"first", got={"X-T": None, "Content-Length": "5"}),
    ),
    scenario(
        "9110-15.2-interim-responses-are-not-the-answer",
        Step(
            Says(
                raw=b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
                b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nCache-Control: max-age=10\r\n\r\nfirst"
            ),
            body=b"first",
        ),
        hit(body=b"first"),
    ),
    scenario(
        "9112-9.6-content-until-close",
        Step(Says(raw=b"HTTP/1.1 200 OK\r\nCache-Control: max-age=10\r\n\r\nfirst"), body=b"first"),
        hit(body=b"first"),
    ),
    scenario(
        "9112-2.6-http-1.0",
        Step(Says(raw=b"HTTP/1.0 200 OK\r\nCache-Control: max-age=10\r\n\r\nfirst"), body=b"first"),
        hit(body=b"first"),
    ),
    scenario("9110-15.1-unknown-codes-pass", Step(says(status=799), status=799), Step(says(status=999), status=999)),
    scenario(
        "9211-2-upstream-caches-come-first",
        Step(fresh(Cache_Status="inner;hit"), cache="inner;hit, gateway;fwd=uri-miss;fwd-status=200;ttl=10;stored"),
        hit(cache="inner;hit, gateway;hit;ttl=10"),
    ),
    scenario(
        "9211-2.5-not-stored-says-why",
        Step(says(), cache="gateway;fwd=uri-miss;fwd-status=200;detail=never-reusable"),
        Step(cc("private"), cache="gateway;fwd=uri-miss;fwd-status=200;detail=private"),
        Step(cc("max-age=0"), cache="gateway;fwd=uri-miss;fwd-status=200;detail=never-reusable"),
    ),
    scenario(
        "9211-2.2-stale",
        Step(fresh(ETag='"a"')),
        Step(
            says(status=304, ETag='"a"', Cache_Control="max-age=5"),
            after=12.0,
            cache="gateway;fwd=stale;fwd-status=304;ttl=5;stored",
        ),
    ),
    scenario("9110-6.6.1-date-is-kept", Step(fresh(Date=At(-3))), hit(after=2.0, got={"Date": format_date(START - 3)})),
    scenario(
        "9110-7.6.3-via",
        Step(fresh(), sent={"via": "1.1 gateway"}, got={"Via": "1.1 gateway"}),
        hit(got={"Via": "1.1 gateway"}),
    ),
]


async def converse(conversation: Conversation, steps: Sequence[Step]) -> None:
    for number, step in enumerate(steps, 1):
        await conversation.step(step, f"step {number}")


@pytest.mark.parametrize("steps", FRESHNESS)
async def test_freshness(conversation: Conversation, steps: Sequence[Step]) -> None:
    await converse(conversation, steps)


@pytest.mark.parametrize("steps", STATUS)
async def test_status_codes(conversation: Conversation, steps: Sequence[Step]) -> None:
    await converse(conversation, steps)


@pytest.mark.parametrize("steps", DIRECTIVES)
async def test_directives(conversation: Conversation, steps: Sequence[Step]) -> None:
    await converse(conversation, steps)


@pytest.mark.parametrize("steps", TARGETED)
async def test_targeted_fields(conversation: Conversation, steps: Sequence[Step]) -> None:
    await converse(conversation, steps)


@pytest.mark.parametrize("steps", CONDITIONAL)
async def test_conditional_requests(conversation: Conversation, steps: Sequence[Step]) -> None:
    await converse(conversation, steps)


@pytest.mark.parametrize("steps", UPDATE_304)
async def test_updates_by_304(conversation: Conversation, steps: Sequence[Step]) -> None:
    await converse(conversation, steps)


@pytest.mark.parametrize("steps", HEAD)
async def test_head(conversation: Conversation, steps: Sequence[Step]) -> None:
    await converse(conversation, steps)


@pytest.mark.parametrize("steps", VARY)
async def test_vary(conversation: Conversation, steps: Sequence[Step]) -> None:
    await converse(conversation, steps)


@pytest.mark.parametrize("steps", INVALIDATION)
async def test_invalidation(conversation: Conversation, steps: Sequence[Step]) -> None:
    await converse(conversation, steps)


@pytest.mark.parametrize("steps", RANGES)
async def test_ranges(conversation: Conversation, steps: Sequence[Step]) -> None:
    await converse(conversation, steps)


@pytest.mark.parametrize("steps", STALE)
async def test_stale(conversation: Conversation, steps: Sequence[Step]) -> None:
    await converse(conversation, steps)


@pytest.mark.parametrize("steps", OTHER)
async def test_the_rest(conversation: Conversation, steps: Sequence[Step]) -> None:
    await converse(conversation, steps)


async def test_9110_15_3_7_several_parts(conversation: Conversation) -> None:
    await conversation.step(Step(DIGITS))
    client = conversation._client
    async with client.get(f"{conversation.gateway.url}/page", headers={"Range": "bytes=0-1, 8-"}) as response:
        body, media = await response.read(), response.headers["Content-Type"]
    boundary = media.removeprefix("multipart/byteranges; boundary=").encode()
    assert response.status == 206
    assert body.split(b"--" + boundary) == [
        b"",
        b"\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/10\r\n\r\n01\r\n",
        b"\r\nContent-Type: text/plain\r\nContent-Range: bytes 8-9/10\r\n\r\n89\r\n",
        b"--\r\n",
    ]


async def test_9111_3_3_a_transfer_that_breaks_is_passed_on_as_broken_and_not_stored(
    conversation: Conversation,
) -> None:
    conversation.origin.says = BROKEN
    with pytest.raises(aiohttp.ClientPayloadError):
        async with conversation._client.get(f"{conversation.gateway.url}/page") as response:
            await response.read()
    await conversation.step(Step(fresh("second"), body=b"second"))


async def test_5861_4_stale_if_error_when_the_origin_is_gone(conversation: Conversation) -> None:
    await conversation.step(Step(cc("max-age=10, stale-if-error=100")))
    client = conversation.gateway.client.balancer.endpoints[0].client
    await client.stop()
    client._base = "http://127.0.0.1:1"
    await client.start()
    cache = 'gateway;fwd=stale;ttl=-5;detail="stale-if-error: unreachable"'
    await conversation.step(hit(after=15.0, body=b"first", cache=cache))
