"""Where several processes share a store: asked on a miss, before the controller is; told of writes, before the answer.

Hits never come here. What the shared store hands out is put into this process's own store like a page that was fetched,
under the generation that was read before it was asked, so a write that passed meanwhile wins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.core.invalidation import SAFE_METHODS
from gateway.pipeline.entry import Entry
from gateway.pipeline.exchange import Verdict
from gateway.pipeline.transform import Page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.pipeline.exchange import Exchange, Reply
    from gateway.pipeline.ports import PageStore, SharedStore, Stamp


@dataclass(frozen=True, slots=True)
class Fill:
    """What a fetch for a key brought.

    Attributes:
        page: the answer, for the one who asked.
        entry: the stored page that others of the domain may have too, or None.
        why_not: why there is no entry.
        seconds: how long the controller took.
        shared: whether it is another process's page and the controller was not asked.
    """

    page: Page
    entry: Entry | None
    why_not: str | None
    seconds: float
    shared: bool = False


async def find(
    shared: SharedStore, store: PageStore, exchange: Exchange, tags: Sequence[str], generation: int
) -> tuple[Fill | None, Stamp | None]:
    """Another process's page for this exchange, if there is one that is newer than what this process holds.

    Args:
        shared: what processes have in common.
        store: the pages of this one.
        exchange: has a key.
        tags: of its page, as far as they are known.
        generation: of these tags, read before.

    Returns:
        The page, None to ask the controller; and the moment before that, for `SharedStore.offer`.
    """
    if exchange.key is None:
        return None, None
    found, stamp = await shared.find(exchange.key, tags)
    if found is None or exchange.verdict is Verdict.REVALIDATED:
        return None, stamp
    held = store.get(exchange.key)
    if isinstance(held, Entry) and found.stored_at <= held.stored_at:
        return None, stamp
    if store.put(found, generation=generation) == "invalidated-meanwhile":
        return None, stamp
    return Fill(
        Page(found.status, None, found.fields, found.body), found, None, found.fetch_seconds, shared=True
    ), stamp


async def announced(shared: SharedStore | None, exchange: Exchange, reply: Reply) -> Reply:
    """The reply, once other processes know what it made void: a write, or the news that a job is over."""
    head = exchange.head
    if shared is None or (head.method in SAFE_METHODS and "/jobs/" not in head.target.path):
        return reply
    try:
        await shared.announced()
    except BaseException:
        if reply.body is not None and not isinstance(reply.body, bytes):
            await reply.body.aclose()
        raise
    return reply
