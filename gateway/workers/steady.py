"""What a process has when it begins to serve, it has until it ends: the garbage collector need not look at it again.

Modules, settings and the pipeline are 70,000 objects. A full collection that looks through them holds the event loop
for 15 ms, and every request with it; there is no garbage among them. Whatever of them is given up later, by a reload,
goes by counting references as anything else; a cycle among those would stay, of the first settings alone.

Nor need it look at requests under way each time there are 700 more objects: most are gone by reference counts before it
would look again (what it gave: docs/performance.md, "Passing through").
"""

from __future__ import annotations

import gc
from typing import Final

_YOUNG: Final = 10_000  # objects more than there were, until the youngest are looked at


def steady() -> None:
    """Collect seldom, and nothing that is there now; for a process that serves, and for nobody else."""
    gc.freeze()
    gc.set_threshold(_YOUNG)
