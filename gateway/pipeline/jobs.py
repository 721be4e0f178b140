"""Jobs that a 202 named: what their end will change, so that pages are dropped again then (controller.md §1, §4).

A job is noticed when its answer passes the gateway on its way to whoever polls it. Bounded: the oldest is forgotten,
and then the ttl of the pages is the limit of their age.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final
from urllib.parse import urlsplit

_PREFIX: Final = "/v3/jobs/"


class PendingJobs:
    """Jobs under way and the tags their end drops.

    Args:
        capacity: the most jobs remembered.
    """

    def __init__(self, capacity: int = 10_000) -> None:
        self._capacity: Final = capacity
        self._tags: Final[OrderedDict[str, frozenset[str]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tags)

    def remember(self, location: str | None, tags: frozenset[str]) -> None:
        """Note the job that a 202's Location names.

        Args:
            location: the field's value, absolute or relative; ignored unless it names a job.
            tags: what the end of the job drops.
        """
        guid = _guid(urlsplit(location or "").path)
        if guid is None or not tags:
            return
        self._tags[guid] = tags
        while len(self._tags) > self._capacity:
            self._tags.popitem(last=False)

    def ended(self, path: str, status: int, body: bytes) -> frozenset[str]:
        """The tags to drop because this answer says that a remembered job is over; empty otherwise.

        Args:
            path: path of the request that was answered.
            status: status of the answer.
            body: its content.
        """
        guid = _guid(path)
        if guid is None or guid not in self._tags:
            return frozenset()
        processing = b'"PROCESSING"' in body or b'"POLLING"' in body
        if status != 200 or processing:
            return frozenset()
        return self._tags.pop(guid)


def _guid(path: str) -> str | None:
    index = path.find(_PREFIX)
    rest = path[index + len(_PREFIX) :] if index >= 0 else ""
    return rest if rest and "/" not in rest else None
