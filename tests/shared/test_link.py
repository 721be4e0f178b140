"""The way to the shared store over real servers: deadlines, the breaker, cancelled commands, every kind of server."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from gateway.shared.link import Link, Script
from gateway.shared.options import Fault, Options, SharedStoreError, Tls
from tests.shared.servers import Server, cluster, eventually, relay, server

ECHO = Script("#!lua flags=no-writes\nreturn {KEYS[1], ARGV[1]}")


@asynccontextmanager
async def linked(options: Options) -> AsyncIterator[tuple[Link, list[Fault | None]]]:
    changes: list[Fault | None] = []
    link = Link(options, probe_key="{t}:probe", changed=changes.append)
    await link.start()
    try:
        yield link, changes
    finally:
        await link.stop()


def options(one: Server, **more: object) -> Options:
    return Options(nodes=(("127.0.0.1", one.port),), retry_interval=0.05, **more)  # type: ignore[arg-type]


async def test_commands_and_scripts() -> None:
    async with server() as one, linked(options(one)) as (link, changes):
        assert await link.call("SET", "a", "1") in {b"OK", True}
        assert await link.run(ECHO, ["k"], "v") == [b"k", b"v"]
        await one.ask("SCRIPT", "FLUSH")
        assert await link.run(ECHO, ["k"], "w") == [b"k", b"w"]
        with pytest.raises(SharedStoreError) as refused:
            await link.call("NONSENSE")
        assert refused.value.fault is Fault.REFUSED
        assert link.fault is None
        assert changes == [None]


async def test_a_frozen_server_costs_one_deadline_and_then_nothing() -> None:
    async with server() as one, linked(options(one)) as (link, changes):
        one.freeze()
        started = time.monotonic()
        with pytest.raises(SharedStoreError) as late:
            await link.call("GET", "a")
        assert late.value.fault is Fault.TIMEOUT
        for _ in range(1000):
            with pytest.raises(SharedStoreError) as closed:
                await link.call("GET", "a")
            assert closed.value.fault is Fault.OPEN
        assert time.monotonic() - started < 1.0  # 50 ms and what a busy machine adds
        one.thaw()
        await eventually(lambda: link.fault is None)
        assert await link.call("GET", "a") is None
        assert changes == [None, Fault.TIMEOUT, None]
        assert (link.opened, link.calls["open"]) == (1, 1000)


async def test_a_slow_server_is_waited_for_once_for_as_long_as_it_is_slow() -> None:
    """It answers within the time for connecting, but not within the time that a request may wait."""
    async with server() as one, relay(one.port) as way:
        given = Options(nodes=(("127.0.0.1", way.port),), retry_interval=0.05)
        async with linked(given) as (link, changes):
            assert link.fault is None
            way.delay = 0.1
            with pytest.raises(SharedStoreError):
                await link.call("GET", "a")
            tried = len(way.writers)
            await eventually(lambda: len(way.writers) >= tried + 10)  # five probes
            assert (link.fault, link.opened) == (Fault.TIMEOUT, 1)
            way.delay = 0.0
            await eventually(lambda: link.fault is None)
            assert await link.call("GET", "a") is None
            assert changes == [None, Fault.TIMEOUT, None]


async def test_a_killed_server_is_noticed_once_and_found_again() -> None:
    async with server() as one, linked(options(one)) as (link, changes):
        await link.call("SET", "a", "1")
        one.kill()
        results = await asyncio.gather(*(link.call("GET", "a") for _ in range(20)), return_exceptions=True)
        assert all(isinstance(result, SharedStoreError) for result in results)
        await one.start()
        await eventually(lambda: link.fault is None)
        assert await link.call("GET", "a") is None
        assert changes == [None, Fault.UNREACHABLE, None]


async def test_it_starts_without_a_server() -> None:
    async with server() as one:
        one.kill()
        async with linked(options(one)) as (link, changes):
            assert link.fault is Fault.UNREACHABLE
            await one.start()
            await eventually(lambda: link.fault is None)
            assert changes == [Fault.UNREACHABLE, None]


async def test_a_full_server_is_read_still() -> None:
    async with server("maxmemory 1mb", "maxmemory-policy noeviction") as one, linked(options(one)) as (link, _):
        for number in range(20):
            found = await asyncio.gather(link.call("SET", f"a{number}", bytes(100_000)), return_exceptions=True)
        assert isinstance(found[0], SharedStoreError)
        assert found[0].fault is Fault.FULL
        assert link.fault is None
        assert await link.call("GET", "other") is None


async def test_a_replica_counts_as_away_until_it_takes_writes() -> None:
    async with (
        server() as master,
        server(f"replicaof 127.0.0.1 {master.port}") as replica,
        linked(options(replica)) as (link, _),
    ):
        assert link.fault is Fault.READ_ONLY
        await replica.ask("REPLICAOF", "NO", "ONE")
        await eventually(lambda: link.fault is None)
        await replica.ask("REPLICAOF", "127.0.0.1", master.port)
        with pytest.raises(SharedStoreError) as refused:
            await link.call("SET", "a", "1")
        assert refused.value.fault is Fault.READ_ONLY
        assert link.fault is Fault.READ_ONLY


async def test_users_and_passwords() -> None:
    async with server("user gateway on >secret ~* &* +@all", "user default off") as one:
        async with linked(options(one, username="gateway", password="wrong")) as (link, _):
            assert link.fault is Fault.DENIED
        async with linked(options(one, username="gateway", password="secret")) as (link, _):
            assert await link.call("GET", "a") is None


async def test_a_unix_socket() -> None:
    async with server() as one, linked(Options(nodes=(), unix_path=str(one.socket))) as (link, _):
        assert await link.call("GET", "a") is None


@pytest.mark.parametrize("name", ["localhost", "elsewhere.example.org"])
async def test_tls_is_believed_only_from_the_right_host(name: str, tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with server() as one, tunnel(one, context) as port:
        given = Options(nodes=(("localhost", port),), tls=Tls(ca_file=str(tmp_path / "ca.pem")))
        async with linked(given) as (link, _):
            if name != "localhost":
                assert link.fault is Fault.UNREACHABLE
                return
            assert await link.call("GET", "a") is None


@asynccontextmanager
async def tunnel(one: Server, context: ssl.SSLContext) -> AsyncIterator[int]:
    """TLS in front of a server, since the wheel's has none."""
    writers: list[asyncio.StreamWriter] = []

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", one.port)
        writers.extend((writer, inner_writer))
        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        for writer in writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)


@pytest.mark.parametrize("kind", ["standalone", "unix"])
async def test_cve_2023_28858_no_cancelled_command_leaves_its_answer_to_another(kind: str) -> None:
    async with server() as one:
        given = options(one, connections=2) if kind == "standalone" else Options((), str(one.socket), connections=2)
        async with linked(given) as (link, _):
            for number in range(50):
                await link.call("SET", f"key-{number}", f"value-{number}")
            # Cancel after every number of rounds of the loop that a command takes, and more.
            for rounds in range(40):
                for number in range(10):
                    task = asyncio.ensure_future(link.call("GET", f"key-{number}"))
                    for _ in range(rounds):
                        await asyncio.sleep(0)
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
                    other = 49 - number
                    assert await link.call("GET", f"key-{other}") == b"value-%d" % other
            assert link.fault is None


async def test_cve_2023_28858_no_late_answer_goes_to_another() -> None:
    async with server() as one, linked(options(one, connections=2, max_added_latency=0.03)) as (link, _):
        for number in range(20):
            await link.call("SET", f"key-{number}", f"value-{number}")
        for number in range(5):
            one.freeze()
            results = await asyncio.gather(
                *(link.call("GET", f"key-{place}") for place in range(4)), return_exceptions=True
            )
            assert all(isinstance(result, SharedStoreError) for result in results)
            one.thaw()  # and now the answers to all of them come
            await eventually(lambda: link.fault is None)
            assert await link.call("GET", f"key-{10 + number}") == b"value-%d" % (10 + number)


async def test_an_answer_that_came_while_the_process_was_busy_is_in_time() -> None:
    async with server() as one, linked(options(one)) as (link, _):
        await link.call("SET", "a", "1")
        asking = asyncio.ensure_future(link.call("GET", "a"))
        for _ in range(8):
            await asyncio.sleep(0)
        time.sleep(0.2)  # noqa: ASYNC251 - the loop stands still for longer than the deadline
        assert await asking == b"1"
        assert link.fault is None


async def test_a_cluster_whose_master_fails_over() -> None:
    async with cluster(masters=3, replicas=1) as nodes:
        given = Options(nodes=tuple(("127.0.0.1", node.port) for node in nodes[:3]), mode="cluster", retry_interval=0.1)
        async with linked(given) as (link, changes):
            names = [f"{{slot-{number}}}" for number in range(30)]
            for name in names:
                await link.call("SET", name, name)
            assert {(await link.call("GET", name)).decode() for name in names} == set(names)
            replica = nodes[3]

            async def synchronised() -> bool:
                return b"master_link_status:up" in await raw_info(replica)

            await eventually(synchronised)
            nodes[0].kill()
            gone = 0
            for name in names:
                try:
                    await link.call("GET", name)
                except SharedStoreError:
                    gone += 1
            assert gone > 0

            async def whole() -> bool:
                return [(await link.call("GET", name)).decode() for name in names] == names

            await eventually(whole)
            assert changes[0] is None
            assert changes[-1] is None


async def raw_info(one: Server) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
    writer.write(b"INFO replication\r\n")
    size = int((await reader.readline())[1:])
    body = await reader.readexactly(size)
    writer.close()
    await writer.wait_closed()
    return body


async def test_sentinel_says_where_the_server_is(tmp_path: Path) -> None:
    async with server() as master, server(f"replicaof 127.0.0.1 {master.port}") as replica:
        sentinel = Server(
            tmp_path,
            f"sentinel monitor main 127.0.0.1 {master.port} 1",
            "sentinel down-after-milliseconds main 300",
            "sentinel failover-timeout main 2000",
            sentinel=True,
        )
        await sentinel.start()
        try:
            given = Options(
                nodes=(("127.0.0.1", sentinel.port),), mode="sentinel", sentinel_master="main", retry_interval=0.1
            )
            async with linked(given) as (link, changes):
                await link.call("SET", "a", "1")

                async def knows() -> bool:
                    found = await sentinel.ask("SENTINEL", "REPLICAS", "main")
                    return bool(found) and b"slave_repl_offset:0" not in await raw_info(replica)

                await eventually(knows)
                master.kill()
                with pytest.raises(SharedStoreError):
                    await link.call("GET", "a")
                await eventually(lambda: link.fault is None, deadline=60)
                assert await link.call("SET", "b", "2") in {b"OK", True}
                assert changes[0] is None
                assert changes[-1] is None
        finally:
            sentinel.kill()
