"""Several controllers as one, on real sockets: who is asked, what is sent again, when nobody is."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from gateway.core.model import Fields, RequestHead, Target
from gateway.pipeline.ports import UpstreamError
from gateway.settings import parse
from gateway.upstream.endpoint import Answer, Result
from gateway.upstreams import Controllers
from tests.faults.conftest import FAULTY, PAGE, FaultyController, answer, running, then_close, then_reset, then_stall

NOWHERE = "http://127.0.0.1:1"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


Make = Callable[..., Awaitable[Controllers]]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    started: list[Controllers] = []

    async def start(*urls: str, more: str = "", clock: Clock | None = None) -> Controllers:
        text = f"""
public_url: https://p.example.org
upstream:
  urls: [{", ".join(urls)}]
  timeouts: {{connect: 250ms, head: 250ms, idle: 250ms}}
  {more}
auth: {{keys: [{{secret: a-secret-that-is-long-enough-for-hs256-and-its-tests}}]}}
"""
        controllers = Controllers(parse(text, {}), clock=clock or Clock())
        await controllers.start()
        started.append(controllers)
        return controllers

    yield start
    for one in started:
        await one.stop()


@pytest.fixture
async def two() -> AsyncIterator[tuple[FaultyController, FaultyController]]:
    async with running() as first, running() as second:
        yield first, second


def request(method: str = "GET", target: str = f"/{FAULTY}") -> RequestHead:
    return RequestHead(method, Target(target), Fields((("Host", "api.example.org"),)))


async def read(response: Answer) -> bytes:
    try:
        return b"".join([chunk async for chunk in response.chunks()])
    finally:
        await response.release()


async def ask(controllers: Controllers, method: str = "GET", target: str = f"/{FAULTY}") -> bytes:
    return await read(await controllers.send(request(method, target), None))


async def test_equals_are_asked_in_turns(make: Make, two) -> None:
    controllers = await make(*(one.url for one in two))
    for _ in range(10):
        assert await ask(controllers) == PAGE
    assert [len(one.received) for one in two] == [5, 5]


async def test_who_has_fewer_under_way_is_asked(make: Make, two) -> None:
    slow, quick = two
    slow.fault = then_stall()
    controllers = await make(slow.url, quick.url)
    stuck = asyncio.create_task(ask(controllers))
    while not slow.received:  # it may be the quick one's turn first
        await ask(controllers)
    before = len(quick.received)
    for _ in range(10):
        await ask(controllers)
    assert (len(slow.received), len(quick.received)) == (1, before + 10)
    stuck.cancel()
    await asyncio.gather(stuck, return_exceptions=True)


async def test_under_way_is_until_the_answer_is_released(make: Make, two) -> None:
    controllers = await make(*(one.url for one in two))
    held = [await controllers.send(request(), None) for _ in range(4)]
    assert [endpoint.in_flight for endpoint in controllers.balancer.endpoints] == [2, 2]
    for response in held:
        await response.release()
        await response.release()
    assert [endpoint.in_flight for endpoint in controllers.balancer.endpoints] == [0, 0]


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH"])
async def test_a_refused_connection_is_tried_elsewhere_whatever_the_method(make: Make, two, method: str) -> None:
    down, up = two
    await down.down()
    controllers = await make(down.url, up.url)

    async def body() -> AsyncIterator[bytes]:
        yield b"con"
        yield b"tent"

    for _ in range(4):
        length = () if method == "GET" else (("Content-Length", "7"),)
        head = RequestHead(method, Target("/x"), Fields((("Host", "a"), *length)))
        assert await read(await controllers.send(head, body() if length else None)) == PAGE
    assert [one.body for one in up.received] == [b"content" if length else b""] * 4


@pytest.mark.parametrize("method", ["POST", "PATCH"])
@pytest.mark.parametrize("fault", [then_close(), then_reset(), then_close(b"HTTP/1.1 2"), then_stall()])
@pytest.mark.parametrize("kept", [False, True], ids=["new connection", "kept connection"])
@pytest.mark.parametrize("content", [False, True], ids=["no content", "content"])
async def test_a_write_that_may_have_arrived_is_never_sent_again(
    make: Make, two, method: str, fault, kept: bool, content: bool
) -> None:
    """RFC 9110 §9.2.2, over every way in which a controller can lose an answer."""
    controllers = await make(*(one.url for one in two), more="breaker: {enabled: false}")
    if kept:
        for _ in range(4):
            await ask(controllers, target="/fine")
    for one in two:
        one.received.clear()
        one.fault = fault

    async def body() -> AsyncIterator[bytes]:
        yield b"x"

    head = RequestHead(
        method, Target(f"/{FAULTY}"), Fields((("Host", "a"), ("Content-Length", "1" if content else "0")))
    )
    with pytest.raises(UpstreamError) as caught:
        await controllers.send(head, body() if content else None)
    assert caught.value.sent
    assert sum(len(one.received) for one in two) == 1


@pytest.mark.parametrize(
    "fault", [then_close(), then_reset(), then_close(b"HTTP/1.1 2")], ids=["closed", "reset", "cut"]
)
async def test_a_read_that_broke_is_asked_elsewhere(make: Make, two, fault) -> None:
    bad, good = two
    bad.fault = fault
    controllers = await make(bad.url, good.url)
    for _ in range(4):
        assert await ask(controllers) == PAGE
    assert bad.received, "it was asked, too"


@pytest.mark.parametrize(
    ("status", "content_type", "method", "again"),
    [
        (b"502 E", "text/html", "GET", True),
        (b"503 E", "text/plain", "DELETE", True),
        (b"502 E", "text/html", "POST", False),
        (b"504 E", "text/html", "GET", False),
        (b"502 E", "application/json", "GET", False),
        (b"500 E", "text/html", "GET", False),
    ],
)
async def test_what_the_controllers_proxy_answers_in_its_absence_is_asked_elsewhere(
    make: Make, two, status: bytes, content_type: str, method: str, again: bool
) -> None:
    absent, there = two
    absent.fault = answer(b"gone", status=status, content_type=content_type)
    controllers = await make(absent.url, there.url, more="ejection: {failures: 100}")
    got = {await ask(controllers, method) for _ in range(4)}
    assert got == ({PAGE} if again else {PAGE, b"gone"})
    assert [endpoint.in_flight for endpoint in controllers.balancer.endpoints] == [0, 0]


async def test_where_all_are_absent_the_last_ones_answer_is_passed_on(make: Make, two) -> None:
    for one in two:
        one.fault = answer(b"gone", status=b"502 E", content_type="text/html")
    controllers = await make(*(one.url for one in two))
    response = await controllers.send(request(), None)
    assert response.head.status == 502
    assert await read(response) == b"gone"
    assert [len(one.received) for one in two] == [1, 1]


async def test_a_read_that_timed_out_is_not_asked_again(make: Make, two) -> None:
    for one in two:
        one.fault = then_stall()
    controllers = await make(*(one.url for one in two))
    with pytest.raises(UpstreamError) as caught:
        await ask(controllers)
    assert caught.value.kind == "timeout"
    assert sum(len(one.received) for one in two) == 1


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_a_kept_connection_that_the_controller_closed_costs_nothing(make: Make, method: str) -> None:
    """Not even with a single controller, and with no retry budget."""
    async with running() as only:
        controllers = await make(only.url, more="retries: {attempts: 1, ratio: 0, per_second: 0}")
        await ask(controllers)
        seen = 0

        async def once(received, reader, writer) -> None:
            nonlocal seen
            seen += 1
            await (then_close() if seen == 1 else answer(PAGE))(received, reader, writer)

        only.fault = once
        assert await ask(controllers, method) == PAGE
        assert seen == 2
        endpoint = controllers.balancer.endpoints[0]
        assert endpoint.results[Result.LOST] == 1
        only.fault = then_close()
        with pytest.raises(UpstreamError):
            await ask(controllers, method)
        assert len(only.received) == 5, "once anew, and that is all"


async def test_retries_end_with_their_budget(make: Make) -> None:
    controllers = await make(
        NOWHERE, "http://127.0.0.1:2", more="retries: {ratio: 0, per_second: 0}\n  breaker: {enabled: false}"
    )
    for _ in range(30):
        with pytest.raises(UpstreamError) as caught:
            await ask(controllers)
        assert caught.value.kind == "unreachable"
    budget = controllers.balancer.budget
    assert (budget.spent, budget.refused) == (20, 10)


async def test_one_request_is_sent_so_often_and_no_oftener(make: Make) -> None:
    controllers = await make(*(f"http://127.0.0.1:{port}" for port in range(1, 7)), more="retries: {attempts: 4}")
    with pytest.raises(UpstreamError):
        await ask(controllers)
    asked = Counter(endpoint.results[Result.UNREACHABLE] for endpoint in controllers.balancer.endpoints)
    assert asked == {1: 4, 0: 2}


BREAKER = "breaker: {minimum: 4, rest: 10s}\n  retries: {attempts: 1}"


async def test_an_open_breaker_fails_at_once_then_tries_then_closes(make: Make) -> None:
    clock = Clock()
    async with running() as only:
        await only.down()
        controllers = await make(only.url, more=BREAKER, clock=clock)
        for _ in range(4):
            with pytest.raises(UpstreamError):
                await ask(controllers)
        await only.up()
        clock.now += 3
        with pytest.raises(UpstreamError) as caught:
            await ask(controllers)
        assert (caught.value.kind, caught.value.sent, caught.value.retry_after) == ("breaker", False, 7)
        assert not only.received
        clock.now += 7
        assert await ask(controllers) == PAGE
        assert await ask(controllers) == PAGE


async def test_one_open_breaker_is_nobodys_trouble_where_there_is_another_controller(make: Make, two) -> None:
    clock = Clock()
    down, up = two
    await down.down()
    controllers = await make(down.url, up.url, more="breaker: {minimum: 4, rest: 10s}", clock=clock)
    for _ in range(30):
        assert await ask(controllers) == PAGE
    failed, _ = controllers.balancer.endpoints
    assert failed.results[Result.UNREACHABLE] == 4
    assert failed.breaker is not None
    assert failed.breaker.opened == 1
    await down.up()
    clock.now += 10
    for _ in range(10):
        await ask(controllers)
    assert down.received, "back by itself"


@pytest.mark.parametrize(
    ("status", "content_type", "counts"),
    [
        (b"500 E", "application/json", False),
        (b"500 E", "text/html", False),
        (b"502 E", "application/json; charset=utf-8", False),
        (b"503 E", "application/problem+json", False),
        (b"404 E", "text/html", False),
        (b"502 E", "text/html", True),
        (b"503 E", "text/plain", True),
        (b"504 E", "", True),
    ],
)
async def test_only_what_no_client_can_bring_about_opens_the_breaker(
    make: Make, status: bytes, content_type: str, counts: bool
) -> None:
    """`page[x]=1` is a 500, a service broker's fault a 502 of the controller's own (controller.md §1)."""
    async with running() as only:
        only.fault = answer(b"{}", status=status, content_type=content_type)
        controllers = await make(only.url, more=BREAKER)
        for _ in range(4):
            await ask(controllers)
        if counts:
            with pytest.raises(UpstreamError) as caught:
                await ask(controllers)
            assert caught.value.kind == "breaker"
        else:
            assert await ask(controllers) == b"{}"


async def test_clients_that_go_away_do_not_open_the_breaker(make: Make) -> None:
    async with running() as only:
        only.fault = then_stall()
        controllers = await make(only.url, more=BREAKER)
        for number in range(8):
            task = asyncio.create_task(ask(controllers))
            while len(only.received) <= number:
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        only.fault = None
        assert await ask(controllers) == PAGE
        (endpoint,) = controllers.balancer.endpoints
        assert (endpoint.in_flight, endpoint.results[Result.GIVEN_UP]) == (0, 8)


async def test_content_that_breaks_off_counts(make: Make) -> None:
    async with running() as only:
        only.fault = then_close(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        controllers = await make(only.url, more=BREAKER)
        for _ in range(2):  # each is an answer and a failure
            with pytest.raises(UpstreamError):
                await ask(controllers)
        with pytest.raises(UpstreamError) as caught:
            await ask(controllers)
        assert caught.value.kind == "breaker"


async def test_an_ejected_controller_comes_back(make: Make, two) -> None:
    clock = Clock()
    bad, good = two
    bad.fault = then_close()
    controllers = await make(
        bad.url, good.url, more="ejection: {failures: 3, rest: 10s}\n  breaker: {enabled: false}", clock=clock
    )
    for _ in range(30):
        assert await ask(controllers) == PAGE
    assert len(bad.received) == 3
    bad.fault = None
    clock.now += 10
    for _ in range(10):
        await ask(controllers)
    assert len(bad.received) > 3


async def test_the_last_one_is_asked_whatever_it_does(make: Make) -> None:
    async with running() as only:
        controllers = await make(only.url, more="ejection: {failures: 1, rest: 5m}\n  breaker: {enabled: false}")
        only.fault = then_close()
        for _ in range(5):
            with pytest.raises(UpstreamError):
                await ask(controllers)
        only.fault = None
        assert await ask(controllers) == PAGE
        assert controllers.balancer.endpoints[0].health.ejections == 0


async def test_a_controller_whose_probes_fail_is_asked_only_when_there_is_no_other(make: Make, two) -> None:
    sick, well = two
    sick.healthy = False
    controllers = await make(sick.url, well.url, more="health: {failures: 2}")
    for _ in range(2):
        await controllers.probe.ask()
    assert controllers.probe.fault is None, "one is enough to be ready"
    for _ in range(6):
        await ask(controllers)
    assert (len(sick.received), len(well.received)) == (0, 6)
    well.healthy = False
    for _ in range(2):
        await controllers.probe.ask()
    assert controllers.probe.fault == "answered 500"
    for _ in range(6):
        await ask(controllers)
    assert sick.received
    sick.healthy = True
    await controllers.probe.ask()
    before = len(well.received)
    for _ in range(6):
        await ask(controllers)
    assert len(well.received) == before


async def test_connections_that_are_all_in_use_are_not_the_controllers_fault(make: Make) -> None:
    async with running() as only:
        controllers = await make(only.url, more=f"connections: 2\n  {BREAKER}")
        only.fault = then_stall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        held = [await controllers.send(request(), None) for _ in range(2)]
        for _ in range(4):
            with pytest.raises(UpstreamError) as caught:
                await ask(controllers)
            assert (caught.value.kind, caught.value.sent) == ("timeout", False)
        (endpoint,) = controllers.balancer.endpoints
        assert (endpoint.results[Result.GIVEN_UP], endpoint.results[Result.TIMEOUT]) == (4, 0)
        for response in held:
            await response.release()
        assert await ask(controllers, target="/fine") == PAGE


async def test_a_name_is_looked_up_and_each_address_asked() -> None:
    async with running() as only:
        port = only.url.rpartition(":")[2]
        text = f"""
public_url: https://p.example.org
upstream: {{url: "http://localhost:{port}", resolve_interval: 1h}}
auth: {{keys: [{{secret: a-secret-that-is-long-enough-for-hs256-and-its-tests}}]}}
"""
        controllers = Controllers(parse(text, {}))
        await controllers.start()
        try:
            labels = {endpoint.label for endpoint in controllers.balancer.endpoints}
            assert f"localhost:{port}#0" in labels
            for _ in range(3):  # also where localhost is [::1] as well, and nobody there
                assert await ask(controllers) == PAGE
        finally:
            await controllers.stop()
