"""Jobs that a 202 named: what their end will change, so that pages are dropped again then (controller.md §1, §4).

A job is noticed when its answer passes the gateway on its way to whoever polls it; `watch.py` asks by itself as well.
Bounded: the oldest is forgotten, and then the ttl of the pages is the limit of their age.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import Final
from urllib.parse import urlsplit

import msgspec

_PREFIX: Final = "/v3/jobs/"
_NAMES_V2: Final = "/v2/jobs/"
# What may stand in a path that is asked with somebody's token: a name and nothing that leads elsewhere.
_PLAIN: Final = re.compile(r"[0-9A-Za-z_-]+")
# v3's states and v2's; all others mean that there is still something to come.
_OVER: Final = frozenset({"COMPLETE", "FAILED", "finished", "failed"})


class _Entity(msgspec.Struct, gc=False):
    status: str = ""


class _Metadata(msgspec.Struct, gc=False):
    url: str = ""


class _Job(msgspec.Struct, gc=False):
    state: str = ""
    entity: _Entity = msgspec.field(default_factory=_Entity)
    metadata: msgspec.Raw = msgspec.Raw(b"{}")


_JOB: Final = msgspec.json.Decoder(_Job)
_METADATA: Final = msgspec.json.Decoder(_Metadata)
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def job_path(location: str | None) -> str | None:
    """The path of the v3 job that a 202's Location names, whatever host it names; None when it names none."""
    guid = _guid(urlsplit(location or "").path)
    return f"{_PREFIX}{guid}" if guid is not None and _PLAIN.fullmatch(guid) else None


def job_path_v2(body: bytes) -> str | None:
    """The path of the v2 job that the content of a 202 describes, None when it describes none.

    Args:
        body: `{"metadata": {"url": "/v2/jobs/<guid>", …}, "entity": {…}}`; never raises, whatever it is.
    """
    try:
        url = _METADATA.decode(_JOB.decode(body).metadata).url
    except _UNREADABLE:
        return None
    return url if url.startswith(_NAMES_V2) and _PLAIN.fullmatch(url.removeprefix(_NAMES_V2)) else None


def is_over(body: bytes) -> bool:
    """Whether a job, as v3 or v2 describes it, is over.

    Args:
        body: the content of a 200 answer; never raises, whatever it is.
    """
    try:
        job = _JOB.decode(body)
    except _UNREADABLE:
        return False
    return job.state in _OVER or job.entity.status in _OVER


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
        if guid is None or guid not in self._tags or status != 200 or not is_over(body):
            return frozenset()
        return self._tags.pop(guid)


def _guid(path: str) -> str | None:
    index = path.find(_PREFIX)
    rest = path[index + len(_PREFIX) :] if index >= 0 else ""
    return rest if rest and "/" not in rest else None
