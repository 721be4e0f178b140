"""`gateway top` over a real gateway: its numbers are those of the traffic; a pseudo-terminal, keys, resizing."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import io
import os
import pty
import select
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
from rich.console import Console

from gateway.app import Gateway
from gateway.live.samples import Change, Snapshot
from gateway.live.summary import Summary, summarize
from gateway.live.top import Source, Top, once
from gateway.live.view import number, seconds, size, spark
from tests.conftest import Stub, bearer

PAGE = b'{"pagination":{"next":null},"resources":[]}'


@pytest.fixture
async def busy(start_gateway, stub) -> Gateway:
    stub.answers_json(PAGE)
    return await start_gateway(stub.url)


async def traffic(url: str) -> None:
    async with aiohttp.ClientSession() as session:
        for path, headers in [("/v3/processes", bearer())] * 5 + [("/v3/processes", {})] * 2:
            async with session.get(f"{url}{path}", headers=headers) as response:
                await response.read()


async def look(admin: str) -> Snapshot:
    return await asyncio.to_thread(Source(admin).look)


async def test_the_numbers_are_those_of_the_traffic(busy: Gateway) -> None:
    before = await look(busy.admin_url)
    await traffic(busy.url)
    after = await look(busy.admin_url)
    summary = summarize(Change(Snapshot(0, before.series), Snapshot(1, after.series)))
    assert summary.requests == 7
    assert summary.verdicts == {"hit": 4, "none": 2, "miss": 1}
    assert summary.hit_ratio == pytest.approx(0.8)
    assert (summary.refused, summary.errors, summary.avoided, summary.upstream) == (2, 0, 4, 1)
    assert (summary.access, summary.domains) == ({"token": 5, "no-token": 2}, {"principal": 1})
    assert summary.waiting == ()
    assert summary.denials == {"no-token": 2}
    assert [(line.route, line.rate) for line in summary.routes] == [("/v3/processes", 7)]
    assert summary.entries == 1
    assert summary.p99 is not None
    assert summary.p99 >= (summary.p50 or 0) > 0


async def test_one_view_without_a_terminal(busy: Gateway) -> None:
    printed = io.StringIO()
    console = Console(width=120, force_terminal=False, file=printed)
    await traffic(busy.url)
    source = await asyncio.to_thread(Source, busy.admin_url)
    printing = asyncio.create_task(asyncio.to_thread(once, source, 0.5, console))
    while not printing.done():
        await traffic(busy.url)
        await asyncio.sleep(0.05)
    assert "/v3/processes" in printed.getvalue()
    assert "no-token" in printed.getvalue()


async def test_a_terminal_shows_numbers_takes_keys_and_resizes(busy: Gateway) -> None:
    await asyncio.to_thread(use_terminal, busy.admin_url)


def use_terminal(admin: str) -> None:
    with terminal("--admin", admin, "--interval", "0.3") as (screen, press, resize, process):
        screen("gateway top")
        screen("requests/s")
        press("h")
        screen("the controller was spared")
        press("h")
        press("p")
        screen("paused")
        press("p")
        resize(24, 80)
        screen("loop lag")
        press("q")
        assert process.wait(10) == 0


def test_who_does_not_answer_is_named() -> None:
    with socket.socket() as taken:  # bound, not listening: nobody answers, and nobody else gets it
        taken.bind(("127.0.0.1", 0))
        nobody(taken.getsockname()[1])


def nobody(free_port: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "top", "--admin", f"http://127.0.0.1:{free_port}", "--once"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert f"http://127.0.0.1:{free_port}: " in done.stderr
    assert "Traceback" not in done.stderr


async def test_what_is_no_gateway_is_refused(stub: Stub) -> None:
    stub.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nup 1\n")
    with pytest.raises(ValueError, match="not a gateway's"):
        await look(stub.url)
    with pytest.raises(ValueError, match="expected a URL"):
        Source("file:///etc/passwd")


async def test_a_gateway_that_goes_away_is_said_and_the_last_numbers_stay(busy: Gateway) -> None:
    top = await asyncio.to_thread(Top, Source(busy.admin_url))
    await traffic(busy.url)
    await asyncio.to_thread(top.refresh)
    await busy.stop()
    await asyncio.to_thread(top.refresh)
    console = Console(width=160, force_terminal=False)
    with console.capture() as got:
        console.print(top)
    assert "no answer" in got.get()
    assert "/v3/processes" in got.get()


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (number(None), ""),
        (number(0.0), "0"),
        (number(1.25), "1.2"),
        (number(123.4), "123"),
        (number(45_000), "45.0k"),
        (number(2_500_000), "2.5M"),
        (seconds(None), ""),
        (seconds(0.0004), "400µs"),
        (seconds(0.0123), "12.3ms"),
        (seconds(2.5), "2.50s"),
        (size(None), ""),
        (size(512), "512 B"),
        (size(3 * 1024**2), "3 MiB"),
        (size(5 * 1024**3), "5.00 GiB"),
        (spark([]), ""),
        (spark([0, 0]), "  "),
        (spark([1, 2, 4]), "▂▄█"),
    ],
)
def test_how_values_are_written(shown: str, expected: str) -> None:
    assert shown == expected


def test_every_field_of_a_summary_is_explained() -> None:
    assert Summary.__doc__ is not None
    assert all(f"        {name}: " in Summary.__doc__ for name in Summary.__slots__)


@contextlib.contextmanager
def terminal(*arguments: str) -> Iterator[tuple[Any, ...]]:
    """`gateway top` on a pseudo-terminal: (wait for text on it, press a key, resize, process)."""
    ours, theirs = pty.openpty()
    sized = struct.pack("HHHH", 40, 140, 0, 0)
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, sized)
    before = termios.tcgetattr(theirs)
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", "top", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color"},
        start_new_session=True,
    )

    def screen(text: str) -> None:
        seen, until = b"", time.monotonic() + 20
        while text.encode() not in seen:
            ready, _, _ = select.select([ours], [], [], max(0.0, until - time.monotonic()))
            assert ready, f"{text!r} did not appear: {seen[-2000:]!r}"
            seen += os.read(ours, 65536)

    def press(key: str) -> None:
        os.write(ours, key.encode())

    def resize(rows: int, columns: int) -> None:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    try:
        yield screen, press, resize, process
        assert termios.tcgetattr(theirs) == before
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)
