"""One name with several addresses, looked up again and again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from gateway.core.balance import EjectionPolicy
from gateway.core.model import Fields, RequestHead, Target
from gateway.core.retry import RetryBudget
from gateway.upstream.balancer import Balancer
from gateway.upstream.client import Client, Timeouts
from gateway.upstream.endpoint import Endpoint
from gateway.upstream.resolve import Resolver, addresses

URL = "https://controller.example.org:9024"


def endpoint(url: str, label: str, server_name: str) -> Endpoint:
    client = Client(url, timeouts=Timeouts(1, 1, 1), connections=2, server_name=server_name)
    return Endpoint(label, client, connections=2, breaker=None, ejection=EjectionPolicy(), clock=lambda: 0.0)


class Names:
    """A name server: what it says next, or that it fails."""

    def __init__(self, *addresses: str) -> None:
        self.addresses: list[str] | None = list(addresses)
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append((host, port))
        if self.addresses is None:
            raise OSError("no such name")
        return self.addresses


@pytest.fixture
async def balancer() -> AsyncIterator[Balancer]:
    one = Balancer(
        [endpoint(URL, "controller.example.org:9024", "")],
        patience=2,
        budget=RetryBudget(0, 0),
        attempts=1,
        clock=lambda: 0.0,
    )
    await one.start()
    yield one
    await one.stop()


def resolver(balancer: Balancer, names: Names, make: Callable[[str, str, str], Endpoint] = endpoint) -> Resolver:
    return Resolver(URL, balancer, make, interval=30, look_up=names)


def labels(balancer: Balancer) -> list[str]:
    return [one.label for one in balancer.endpoints]


async def test_each_address_is_an_endpoint_with_the_names_certificate(balancer: Balancer) -> None:
    made: list[tuple[str, str, str]] = []

    def make(url: str, label: str, server_name: str) -> Endpoint:
        made.append((url, label, server_name))
        return endpoint(url, label, server_name)

    names = Names("10.0.0.1", "fd00::1")
    await resolver(balancer, names, make).resolve()
    assert names.asked == [("controller.example.org", 9024)]
    assert made == [
        ("https://10.0.0.1:9024", "controller.example.org:9024#0", "controller.example.org"),
        ("https://[fd00::1]:9024", "controller.example.org:9024#1", "controller.example.org"),
    ]
    assert labels(balancer) == [label for _, label, _ in made]


async def test_who_stays_keeps_what_is_known_of_it(balancer: Balancer) -> None:
    names = Names("10.0.0.1", "10.0.0.2")
    looking = resolver(balancer, names)
    await looking.resolve()
    _, second = balancer.endpoints
    names.addresses = ["10.0.0.2", "10.0.0.3"]
    await looking.resolve()
    assert second in balancer.endpoints
    assert sorted(labels(balancer)) == ["controller.example.org:9024#0", "controller.example.org:9024#1"]
    names.addresses = ["10.0.0.3", "10.0.0.2"]
    before = balancer.endpoints
    await looking.resolve()
    assert balancer.endpoints == before, "another order is no change"


@pytest.mark.parametrize("answer", [None, []], ids=["fails", "none"])
async def test_a_look_up_that_finds_nothing_changes_nothing(balancer: Balancer, answer: list[str] | None) -> None:
    names = Names("10.0.0.1")
    looking = resolver(balancer, names)
    await looking.resolve()
    before = balancer.endpoints
    names.addresses = answer
    await looking.resolve()
    assert (balancer.endpoints, looking.failures) == (before, 1)


async def test_until_the_first_look_up_succeeds_the_name_itself_is_asked(balancer: Balancer) -> None:
    names = Names()
    names.addresses = None
    looking = resolver(balancer, names)
    await looking.start()
    assert labels(balancer) == ["controller.example.org:9024"]
    await looking.stop()


async def test_labels_are_a_closed_set_however_many_addresses_come_and_go(balancer: Balancer) -> None:
    names = Names()
    looking = resolver(balancer, names)
    seen: set[str] = set()
    for number in range(100):
        names.addresses = [f"10.0.{number}.{host}" for host in range(40)]
        await looking.resolve()
        seen.update(labels(balancer))
    assert len(seen) == len(balancer.endpoints) == 32


async def test_who_is_gone_finishes_what_is_under_way(balancer: Balancer, stub) -> None:
    names = Names("127.0.0.1")

    def make(_: str, label: str, server_name: str) -> Endpoint:
        return endpoint(stub.url, label, server_name)

    stub.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nha")
    looking = resolver(balancer, names, make)
    await looking.resolve()
    response = await balancer.send(RequestHead("GET", Target("/"), Fields((("Host", "a"),))), None)
    names.addresses = ["127.0.0.2"]
    await looking.resolve()
    chunks = response.chunks()
    assert await anext(chunks) == b"ha"
    for transport in stub.serving.values():
        transport.write(b"lf")
    assert await anext(chunks) == b"lf"
    await response.release()
    async with asyncio.timeout(5):
        await stub.closed.wait()  # and then its connections are closed


async def test_the_systems_resolver() -> None:
    assert await addresses("127.0.0.1", 80) == ["127.0.0.1"]
