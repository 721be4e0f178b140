"""A process holds what its settings ask for, and no more: looked at in processes that run, not at what they weigh."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.lean import PUT_OFF
from tests.conftest import SECRET, Stub
from tests.processes import Process, children, running
from tests.test_drain import settings

# Writes down what is imported, and not merely put off (`gateway/lean.py`), when it is told to; in every Python process
# that finds it on its path.
TELLER = """
import os, pathlib, signal, sys
def tell(*_):
    folder = pathlib.Path(os.environ["TOLD"])
    read = [name for name, module in list(sys.modules.items()) if type(module).__module__ != "gateway.lean"]
    (folder / "half").write_text("\\n".join(sorted(read)))
    (folder / "half").rename(folder / str(os.getpid()))
signal.signal(signal.SIGUSR1, tell)
"""
COMMAND_LINE = {"typer", "click", "gateway.commands", "gateway.cache_cli"}
UNASKED = {
    *("valkey", "redis", "rich", "pygments", "opentelemetry", "requests", "gateway.sharing", "gateway.shared.link"),
    *("backports.zstd", "compression.zstd"),  # what aiohttp would bring in
}
NOT_READ = (PUT_OFF | {"bz2", "lzma", "importlib.resources.readers"}) - {"cryptography.x509"}
OF_CERTIFICATES = {"cryptography.x509", "cryptography.x509.base"}
OF_WORKERS = {"cryptography", "jwt", "gateway.app", "gateway.assembly", "gateway.pipeline.decide", "gateway.upstreams"}
SHARED = "shared_store: {url: 'valkey://127.0.0.1:1', hmac_key: a key that is long enough for the shared store}"
TRACED = "tracing: {endpoint: 'http://127.0.0.1:9/v1/traces'}"


@pytest.fixture
def told(tmp_path: Path) -> dict[str, str]:
    """The environment of processes that tell what they have imported."""
    folder = tmp_path / "told"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(TELLER)
    return {"PYTHONPATH": f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}", "TOLD": str(folder)}


async def imported(pid: int, told: dict[str, str]) -> set[str]:
    """What a process has imported by now."""
    path = Path(told["TOLD"]) / str(pid)
    os.kill(pid, signal.SIGUSR1)
    async with asyncio.timeout(30):
        while not path.exists():
            await asyncio.sleep(0.01)
    return set(path.read_text().split("\n"))


def pid(gateway: Process) -> int:
    return gateway.process.pid


async def test_one_process_has_nothing_that_nobody_asked_for(stub: Stub, tmp_path: Path, told: dict[str, str]) -> None:
    key = generate_private_key(65537, 2048).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "key.pem").write_bytes(key)
    path = settings(tmp_path, stub.url)
    path.write_text(path.read_text().replace(f"secret: {SECRET}", "pem_file: key.pem"))
    async with running(path, **told) as gateway:
        found = await imported(pid(gateway), told)
    assert {"aiohttp", "jwt", "gateway.app", "gateway.edge.hitlane"} <= found
    assert sorted(found & (NOT_READ | OF_CERTIFICATES)) == []
    assert found.isdisjoint(UNASKED | COMMAND_LINE | {"gateway.workers.supervisor", "difflib"})


@pytest.mark.parametrize(
    ("asked", "there"),
    [(SHARED, {"valkey", "gateway.sharing"}), (TRACED, {"opentelemetry", "gateway.telemetry.traces"})],
    ids=["shared_store", "tracing"],
)
async def test_what_is_asked_for_is_there(
    asked: str, there: set[str], stub: Stub, tmp_path: Path, told: dict[str, str]
) -> None:
    async with running(settings(tmp_path, stub.url, f"{asked}\ndrain: 1s"), **told) as gateway:
        assert there <= await imported(pid(gateway), told)


async def test_a_supervisor_has_nothing_of_its_workers(stub: Stub, tmp_path: Path, told: dict[str, str]) -> None:
    async with running(settings(tmp_path, stub.url, "workers: 2\ndrain: 1s"), **told) as gateway:
        supervisor = await imported(pid(gateway), told)
        workers = [await imported(child, told) for child in children(pid(gateway))]
    assert "gateway.workers.supervisor" in supervisor
    assert supervisor.isdisjoint(OF_WORKERS | UNASKED | COMMAND_LINE)
    assert sorted(supervisor & NOT_READ) == []
    assert len(workers) == 2
    for worker in workers:
        assert worker >= OF_WORKERS
        assert worker.isdisjoint(UNASKED | COMMAND_LINE | {"gateway.workers.supervisor"})
        assert sorted(worker & NOT_READ) == []


def test_console_logs_need_no_rich() -> None:
    """structlog's own form for people, tracebacks included, is drawn without it."""
    script = (
        "import sys\n"
        "from gateway.telemetry.log import configure\n"
        "from gateway.telemetry.structured import structlog\n"
        "configure(level='info', style='console')\n"
        "try:\n    secret = 'value'; 1 / 0\n"
        "except ZeroDivisionError:\n    structlog.get_logger('x').exception('went wrong', a=1)\n"
        "assert 'rich' not in sys.modules\n"
        "import rich.console\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "went wrong" in done.stderr
    assert "ZeroDivisionError" in done.stderr


def test_what_was_imported_before_stays() -> None:
    script = (
        "import sys, rich\n"
        "from gateway.telemetry.structured import without\n"
        "with without('rich'):\n    import rich as again\n"
        "assert again is sys.modules['rich'] is rich\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
