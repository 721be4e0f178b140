"""The acceptance run of several gateways under load, `make outage`, for a few seconds."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "soak" / "outage.py"


async def test_the_store_is_killed_twice_under_load_and_nothing_fails() -> None:
    """With patience, since what a busy machine adds is not what this is about."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(SCRIPT), "--seconds", "8", "--limit", "400", "--patience", "2s"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    said = out.decode()
    assert process.returncode == 0, said
    assert "store killed and restarted empty 2 times" in said
    assert "failed 0\n" in said
    assert "stale answers 0\n" in said
