"""A process that serves keeps what it began with out of the garbage collector's way."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = """
listen: {host: 127.0.0.1, port: 0}
admin: {port: 0}
public_url: https://gateway.example.org
upstream: {url: "http://127.0.0.1:1"}
auth: {keys: [{secret: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa}]}
"""

# What each kind of process does, but for waiting until somebody ends it.
ALONE = """
async def run(self, ready=lambda: None):
    await self.start()
    look("listening")
    ready()
    look("serving")
    await self.stop()
    return True
Gateway.run = run
from gateway.serving import serve_file
serve_file(Path(sys.argv[1]))
"""
WORKER = """
import asyncio, socket
from gateway.workers.worker import Worker
async def main():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        worker = Worker([listening.detach()])
    raw = Path(sys.argv[1]).read_bytes()
    look("listening")
    start = {"name": "x", "base": ".", "settings": raw, "latest": raw, "number": 1, "workers": 1}
    assert await worker._started(start) == {"faults": []}
    look("serving")
    await worker.drain()
asyncio.run(main())
"""
LOOK = """
import gc, sys
from pathlib import Path
from gateway.app import Gateway
def look(when):
    print(when, gc.get_freeze_count() > 20_000, len(gc.get_objects()) < 5_000, gc.get_threshold()[0] >= 10_000)
"""


@pytest.mark.parametrize("process", [ALONE, WORKER], ids=["alone", "worker"])
def test_what_a_process_began_with_is_not_looked_through_again(process: str, tmp_path: Path) -> None:
    config = tmp_path / "gateway.yaml"
    config.write_text(SETTINGS)
    command = [sys.executable, "-c", LOOK + process, str(config)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["listening False False False", "serving True True True"]
