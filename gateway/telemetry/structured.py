"""structlog, without what it would load to draw tracebacks.

structlog imports rich, and with it pygments, wherever they are installed; nothing here draws with them (`log.py`), and
what `gateway top` draws is imported there. So they are kept from it while it is first imported. Whoever needs structlog
takes it from here.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def without(name: str) -> Iterator[None]:
    """Have a package count as not installed, unless somebody has imported it already.

    Args:
        name: of a package that those who import it meanwhile can do without.
    """
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment] # the import system's own way to say so
    try:
        yield
    finally:
        del sys.modules[name]


with without("rich"):
    import structlog

__all__ = ["structlog"]
