"""What the operator's cache API does, as plain data in and out, so that it can be done in this process or in another.

What is asked was judged before (`admin/cache.py`); here it is carried out on one page store, and the answers of several
stores become one.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any, Final

from gateway.core.selection import selection
from gateway.core.visibility import kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gateway.core.selection import Selection
    from gateway.pipeline.inspection import Held, Inspector

CRITERIA: Final = frozenset({"url", "prefix", "type", "guid", "space", "principal"})
CLASSES: Final = ("public", "anonymous", "global", "principal")
_SORTED: Final[dict[str, Callable[[Held], float]]] = {
    "newest": lambda node: node.number,
    "oldest": lambda node: -node.number,
    "size": lambda node: node.size,
    "hits": lambda node: node.hits,
}
SORTS: Final = tuple(_SORTED)
# Pages of several stores are numbered apart, so there they are ordered by what their lines say.
_MERGED: Final[dict[str, Callable[[dict[str, Any]], float]]] = {
    "newest": lambda line: -line["age"],
    "oldest": lambda line: line["age"],
    "size": lambda line: line["size"],
    "hits": lambda line: line["hits"],
}


def chosen(criteria: Mapping[str, str], public_path: str) -> Selection:
    """The selection that an operator's criteria make.

    Raises:
        SelectionError: a value that can select nothing.
    """
    return selection(
        url=criteria.get("url"),
        prefix=criteria.get("prefix"),
        type_=criteria.get("type"),
        guid=criteria.get("guid", criteria.get("space")),
        principal=criteria.get("principal"),
        public_path=public_path,
    )


async def perform(inspector: Inspector, public_path: str, name: str, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    """Carry out an operation on the store of this process.

    Args:
        inspector: the store.
        public_path: the path of the public URL.
        name: "statistics", "entries", "entry", "purge" or "purge-entry".
        asked: what the operation takes.

    Returns:
        What to answer; None where there is no such entry.
    """
    match name:
        case "statistics":
            return await _statistics(inspector)
        case "entries":
            return await _entries(inspector, chosen(asked["criteria"], public_path), asked)
        case "purge":
            count = await inspector.purge(chosen(asked["criteria"], public_path), soft=asked["soft"])
            return {"purged": count, "soft": asked["soft"]}
    number = asked["id"]
    node = inspector.find(int(number)) if number.isascii() and number.isdigit() and len(number) < 19 else None
    if node is None:
        return None
    if name == "entry":
        return inspector.detail(node)
    return {"purged": int(inspector.purge_one(node.entry.key, soft=asked["soft"])), "soft": asked["soft"]}


async def _statistics(inspector: Inspector) -> dict[str, Any]:
    store, found = inspector.store, await inspector.statistics()
    return {
        "entries": sum(found.entries.values()),
        "bytes": store.bytes,
        "max_bytes": store.max_bytes,
        "stale": found.stale,
        "settled": found.settled,
        "domains": found.domains,
        "largest_principal_bytes": found.largest,
        "by_class": {kind: {"entries": count, "bytes": found.sizes[kind]} for kind, count in found.entries.items()},
        "by_mode": found.modes,
        "evicted": dict(store.evictions),
        "purged": dict(inspector.purged),
    }


async def _entries(inspector: Inspector, wanted: Selection, asked: Mapping[str, Any]) -> dict[str, Any]:
    domain = asked["domain"]
    found = [
        node async for node in inspector.select(wanted) if domain is None or kind_of(node.entry.key.domain) == domain
    ]
    shown = heapq.nlargest(asked["limit"], found, key=_SORTED[asked["sort"]])
    return {
        "total": len(found),
        "bytes": sum(node.size for node in found),
        "entries": [inspector.summary(node, principal=wanted.principal) for node in shown],
    }


def merged(name: str, asked: Mapping[str, Any], answers: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    """The answers of several stores as one.

    Args:
        name: the operation: "statistics", "entries" or "purge".
        asked: what it took.
        answers: by the number of the store; at least one.
    """
    if name == "purge":
        return {"purged": sum(answer["purged"] for answer in answers.values()), "soft": asked["soft"]}
    if name == "entries":
        lines = [line | {"id": f"{store}-{line['id']}"} for store, one in answers.items() for line in one["entries"]]
        return {
            "total": sum(answer["total"] for answer in answers.values()),
            "bytes": sum(answer["bytes"] for answer in answers.values()),
            "entries": heapq.nlargest(asked["limit"], lines, key=_MERGED[asked["sort"]]),
        }
    largest = max(answer["largest_principal_bytes"] for answer in answers.values())
    return _added(list(answers.values())) | {"largest_principal_bytes": largest, "stores": len(answers)}


def _added(answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Numbers added up, name by name."""
    found: dict[str, Any] = {}
    for name in dict.fromkeys(name for answer in answers for name in answer):
        values = [answer[name] for answer in answers if name in answer]
        found[name] = _added(values) if isinstance(values[0], dict) else sum(values)
    return found
