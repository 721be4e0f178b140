"""The way in, for `gateway` and for `python -m gateway`.

`gateway run -c FILE` is taken at once: its process stays, and needs nothing of what parses a command line. Everything
else, help and mistakes included, is for the commands to read.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def main() -> None:
    """The console script."""
    config = _to_serve(sys.argv[1:])
    if config is None:
        from gateway.commands import app

        app()
    else:
        from gateway.serving import serve_file

        sys.exit(serve_file(config))


def _to_serve(arguments: Sequence[str]) -> Path | None:
    """The settings file, when these are the arguments of a plain `run`."""
    match arguments:
        case ["run", "-c" | "--config", name] if name and not name.startswith("-"):
            return Path(name)
        case _:
            return None
