"""The disk is full, or the reader of the log has gone: lines are lost and counted, requests are not."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
import structlog

from gateway.telemetry import log
from tests.conftest import SECRET, bearer


class Full:
    """A standard error that takes nothing.

    Attributes:
        error: what it raises.
        tried: how often it was tried.
    """

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.tried = 0

    def write(self, _text: str) -> int:
        self.tried += 1
        raise self.error

    def flush(self) -> None:
        raise self.error

    def isatty(self) -> bool:
        return False


@pytest.fixture
def _restored():
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.mark.usefixtures("_restored")
@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError(errno.EIO, "Input/output error"),
        BrokenPipeError(errno.EPIPE, "Broken pipe"),
        BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"),
        ValueError("I/O operation on closed file"),
    ],
    ids=["ENOSPC", "EDQUOT", "EIO", "EPIPE", "EAGAIN", "closed"],
)
async def test_a_log_that_cannot_be_written_fails_no_request(
    stub, start_gateway, http: aiohttp.ClientSession, monkeypatch, error: Exception, form: str
) -> None:
    log.configure(level="debug", style=form)
    stub.answers_json(b'{"resources":[]}')
    gateway = await start_gateway(stub.url, "log: {access_sample: 1}")
    full = Full(error)
    monkeypatch.setattr(sys, "stderr", full)
    for target, status in (("/v3/processes", 200), ("/v3/processes", 200), ("/internal/x", 403), ("/v3/apps/x", 200)):
        async with http.get(f"{gateway.url}{target}", headers=bearer()) as response:
            assert response.status == status
            await response.read()
            assert response.connection is None or not response.connection.transport.is_closing()
    monkeypatch.undo()
    assert full.tried >= 4
    assert log.lost() >= 4
    async with http.get(f"{gateway.admin_url}/metrics") as response:
        text = await response.text()
    counted = re.search(r"^gateway_log_lines_lost_total (\S+)$", text, re.MULTILINE)
    assert counted is not None
    assert float(counted[1]) >= 4


@asynccontextmanager
async def running(tmp_path: Path, upstream: str, stderr: int) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """`gateway run` as a process of its own, with that standard error; gives its URL once it serves."""
    port_file = tmp_path / "port"
    settings = tmp_path / "gateway.yaml"
    import socket

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    settings.write_text(
        f"""
listen: {{port: {port}}}
admin: {{port: 0}}
public_url: https://gateway.example.org
upstream: {{url: "{upstream}", advertised_urls: ["https://api.internal.example.org"]}}
auth: {{keys: [{{secret: {SECRET}}}]}}
log: {{level: debug}}
"""
    )
    del port_file
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", "run", "-c", str(settings), stdout=stderr, stderr=stderr,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        async with asyncio.timeout(30):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except ConnectionError:
                    assert process.returncode is None
                    await asyncio.sleep(0.02)
                    continue
                writer.close()
                await writer.wait_closed()
                break
        yield process, url
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_process_on_a_full_disk_serves_and_ends_well(stub, http, tmp_path: Path) -> None:
    """Standard output and error at a device that is always full."""
    stub.answers_json(b'{"resources":[]}')
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        async with running(tmp_path, stub.url, full) as (process, url):
            for number in range(20):
                async with http.get(f"{url}/v3/processes?page={number}", headers=bearer()) as response:
                    assert response.status == 200
            async with http.get(f"{url}/internal/x") as response:
                assert response.status == 403
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(30):
                assert await process.wait() == 0
    finally:
        os.close(full)


async def test_a_process_whose_reader_has_gone_serves_on(stub, http, tmp_path: Path) -> None:
    """What read the log has died: writing to its pipe fails with EPIPE."""
    stub.answers_json(b'{"resources":[]}')
    reading, writing = os.pipe()
    try:
        async with running(tmp_path, stub.url, writing) as (process, url):
            os.close(reading)
            for number in range(20):
                async with http.get(f"{url}/v3/processes?page={number}", headers=bearer()) as response:
                    assert response.status == 200
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(30):
                assert await process.wait() == 0
    finally:
        os.close(writing)
