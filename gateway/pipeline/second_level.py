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
    from collections.abc import Awaitable, Callable, Sequence

    from gateway.pipeline.exchange import Exchange, Reply
    from gateway.pipeline.ports import PageStore, SharedStore


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


async def find_or_fetch(
    shared: SharedStore,
    store: PageStore,
    exchange: Exchange,
    *,
    tags: Sequence[str],
    generation: int,
    fetch: Callable[[], Awaitable[Fill]],
) -> Fill:
    """Another process's page for an exchange, if it is newer than what this one holds; else a fetched one, for all.

    Args:
        shared: what processes have in common.
        store: the pages of this one.
        exchange: has a key.
        tags: of its page, as far as they are known.
        generation: of these tags, read before.
        fetch: asks the controller.
    """
    key = exchange.key
    if key is None:
        return await fetch()
    alone = exchange.verdict is Verdict.REVALIDATED
    found, stamp = await shared.find(key, tags, wait=not alone)
    offered = False
    try:
        if found is not None and not alone:
            held = store.peek(key)
            newer = not isinstance(held, Entry) or found.stored_at > held.stored_at
            if found is held or (newer and store.put(found, generation=generation) != "invalidated-meanwhile"):
                page = Page(found.status, None, found.fields, found.body)
                return Fill(page, found, None, found.fetch_seconds, shared=True)
        fill = await fetch()
        if fill.entry is not None and stamp is not None:
            shared.offer(fill.entry, stamp)
            offered = True
    finally:
        if not offered:
            shared.release(key)
    return fill


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
