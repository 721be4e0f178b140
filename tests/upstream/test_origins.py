"""The origins in the controller's links: learnt from its root, kept current, and no answer with links without them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from gateway.app import Gateway
from gateway.core.model import Fields
from gateway.pipeline.ports import UpstreamError
from gateway.settings import parse
from gateway.upstream.client import Client, Timeouts
from gateway.upstream.origins import Origins, advertised
from tests.conftest import SECRET, bearer, listening

PUBLIC = "https://gateway.example.org"


def root(origin: str) -> bytes:
    links = {"self": {"href": origin}, "cloud_controller_v3": {"href": f"{origin}/v3"}, "network_policy_v0": None}
    return json.dumps({"links": links}).encode()


# -- reading a root document


@pytest.mark.parametrize(
    ("links", "expected"),
    [
        ({"self": {"href": "https://a"}, "cloud_controller_v3": {"href": "https://a/v3"}}, ("https://a",)),
        ({"self": {"href": "https://a/"}}, ("https://a",)),
        ({"self": None, "cloud_controller_v3": {"href": "https://a/v3"}}, ("https://a",)),
        ({"self": {"href": "https://a"}, "cloud_controller_v3": {"href": "https://b/v3"}}, ("https://a", "https://b")),
        ({"self": {"href": "https://a"}, "cloud_controller_v3": {"href": None}}, ("https://a",)),
        ({"self": {"href": "https://a"}, "uaa": {"href": "https://uaa"}, "login": None}, ("https://a",)),
    ],
    ids=["both", "slash", "controller.md-5-null-link", "two origins", "null href", "others are not the API's"],
)
def test_the_origins_in_a_root_document(links: dict, expected: tuple[str, ...]) -> None:
    assert advertised(200, json.dumps({"links": links}).encode()) == expected


GARBAGE = {
    "empty": (200, b""),
    "text": (200, b"OK"),
    "html": (200, b"<html></html>"),
    "list": (200, b"[]"),
    "number": (200, b"7"),
    "no links": (200, b"{}"),
    "links a list": (200, b'{"links":[]}'),
    "link a text": (200, b'{"links":{"self":"https://a"}}'),
    "no origin": (200, b'{"links":{"self":{"href":"/"}}}'),
    "other scheme": (200, b'{"links":{"self":{"href":"wss://a"}}}'),
    "no host": (200, b'{"links":{"self":{"href":"https://"}}}'),
    "no authority": (200, b'{"links":{"self":{"href":"https://a b/\\n"}}}'),
    "not UTF-8": (200, b'{"links":{"self":{"href":"https://\xff"}}}'),
    "too deep": (200, b"[" * 200_000),
    "error": (500, b'{"links":{"self":{"href":"https://a"}}}'),
    "redirect": (302, b""),
}


@pytest.mark.parametrize(("status", "body"), GARBAGE.values(), ids=GARBAGE)
async def test_a_garbage_root_is_the_controllers_fault_and_changes_nothing(
    stub, learner, status: int, body: bytes
) -> None:
    origins = learner(stub.url)
    stub.answers_json(root("https://a.example.org"))
    await origins.learn()
    stub.answers_json(body, status=f"{status} Whatever")
    with pytest.raises(UpstreamError) as caught:
        await origins.learn()
    assert caught.value.kind == "broken"
    assert origins.known == ("https://a.example.org",), "the last good ones stay"
    assert origins.fault
    assert (await origins.rewriter()).rewrite(b'{"links":{"self":{"href":"https://a.example.org/v3"}}}') == (
        b'{"links":{"self":{"href":"https://gateway.example.org/v3"}}}'
    )


async def test_a_root_without_end_is_given_up(stub, learner) -> None:
    stub.answers_json(b" " * 2_000_000)
    with pytest.raises(UpstreamError, match="too large"):
        await learner(stub.url).learn()


# -- asking for it


@pytest.fixture
async def learner() -> AsyncIterator[Callable[..., Origins]]:
    started: list[Client | Origins] = []

    def make(url: str, **options: float) -> Origins:
        client = Client(url, timeouts=Timeouts(1, 30, 30), connections=4)
        started.append(client)
        origins = Origins(
            public_url=PUBLIC,
            configured=(),
            upstream=_Started(client),
            fields=Fields((("Host", "api.example.org"),)),
            **options,
        )
        started.append(origins)
        return origins

    yield make
    for one in reversed(started):
        await one.stop()


class _Started:
    """A client that opens its pool when it is first used."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._opened = False

    async def send(self, head, body):
        if not self._opened:
            self._opened = True
            await self._client.start()
        return await self._client.send(head, body)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_refresh_picks_up_a_change(stub, learner) -> None:
    stub.answers_json(root("https://old.example.org"))
    origins = learner(stub.url, interval=0.02)
    await origins.start()
    assert origins.known == ("https://old.example.org",)
    stub.answers_json(root("https://new.example.org"))
    await until(lambda: origins.known == ("https://new.example.org",))
    assert (await origins.rewriter()).location("https://new.example.org/v3/jobs/1") == f"{PUBLIC}/v3/jobs/1"


async def test_many_who_need_it_ask_once_and_share_the_failure(start_upstream, learner) -> None:
    asked = 0
    all_wait = asyncio.Event()

    async def fail_later(_request, _reader, writer) -> None:
        nonlocal asked
        asked += 1
        await all_wait.wait()
        writer.close()

    origins = learner(await start_upstream(fail_later))
    waiting = [asyncio.create_task(origins.rewriter()) for _ in range(20)]
    await until(lambda: asked == 1)
    all_wait.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(result, UpstreamError) for result in results)
    assert asked <= 2, "once, and the client library's own second try"


async def test_who_leaves_does_not_take_the_asking_with_him(start_upstream, learner) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def later(_request, _reader, writer) -> None:
        asked.set()
        await go_on.wait()
        body = root("https://a.example.org")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    origins = learner(await start_upstream(later))
    first, second = asyncio.create_task(origins.rewriter()), asyncio.create_task(origins.rewriter())
    await asked.wait()
    first.cancel()
    go_on.set()
    await second
    assert origins.known == ("https://a.example.org",)


async def test_a_silent_controller_is_not_waited_for(start_upstream, learner) -> None:
    async def silence(_request, reader, _writer) -> None:
        await reader.read()

    origins = learner(await start_upstream(silence), patience=0.05)
    with pytest.raises(UpstreamError) as caught:
        await asyncio.wait_for(origins.rewriter(), 5)
    assert caught.value.kind == "timeout"
    assert "within" in (origins.fault or "")


# -- in a gateway


@pytest.fixture
async def start_learning() -> AsyncIterator[Callable[[str], Awaitable[Gateway]]]:
    """Starts gateways that are not told the advertised origin."""
    running: list[Gateway] = []

    async def start(url: str) -> Gateway:
        gateway = Gateway(
            parse(
                f"listen: {{port: 0}}\nadmin: {{port: 0}}\npublic_url: {PUBLIC}\ndrain: 1s\nupstream: {{url: {url}}}\n"
                f"auth: {{keys: [{{secret: {SECRET}}}]}}",
                {},
            )
        )
        await gateway.start()
        running.append(gateway)
        return gateway

    yield start
    for gateway in running:
        await gateway.stop()


async def test_unreachable_at_start_is_502_until_learnt_then_recovers_without_restart(start_learning, connect) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            target = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1]
            body = b'{"links":{"self":{"href":"https://cc.internal/v3/x"}}}'
            if target == b"/":
                body = root("https://cc.internal")
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            writer.write(head % len(body) + body)

    async with listening(answer) as url:
        port = int(url.rpartition(":")[2])
    gateway = await start_learning(url)
    client = await connect(gateway.url)
    admin = await connect(gateway.admin_url)
    authorization = f"Authorization: {bearer()['Authorization']}"
    for _ in range(2):
        refused = await client.ask("GET /v3/apps/x", authorization)
        assert refused.status == 502
        assert (refused.field("x-gateway-error") or "").startswith("upstream-unreachable")
    assert "origins" in json.loads((await admin.ask("GET /readyz")).body)["faults"]

    async with listening(answer, port):
        answered = await client.ask("GET /v3/apps/x", authorization)
        assert answered.status == 200
        assert answered.body == b'{"links":{"self":{"href":"https://gateway.example.org/v3/x"}}}'
        assert "origins" not in json.loads((await admin.ask("GET /readyz")).body)["faults"]


async def test_a_garbage_root_at_start_is_502_for_answers_with_links(stub, start_learning, connect) -> None:
    stub.answers_json(b"[" * 200_000)
    gateway = await start_learning(stub.url)
    client = await connect(gateway.url)
    refused = await client.ask("GET /v3/apps/x", f"Authorization: {bearer()['Authorization']}")
    assert (refused.status, (refused.field("x-gateway-error") or "").partition(";")[0]) == (502, "upstream-broken")
