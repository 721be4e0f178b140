"""Jobs that a 202 named: what their end will change, so that pages are dropped again then (controller.md §1, §4).

A job is noticed when its answer passes the gateway on its way to whoever polls it; `watch.py` asks by itself as well.
Whoever is told through a gateway that a job is over must see what it did, whichever process of the gateway tells it and
wherever the job was begun: the end of a v3 job that is not remembered drops what its operation changes. Not so in v2,
which calls every job finished that it does not know. Once for each job, so that asking again costs nobody their pages.
Bounded: the oldest is forgotten.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import Final
from urllib.parse import urlsplit

import msgspec

from gateway.core.invalidation import dropped_by_job

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
    operation: str = ""
    entity: _Entity = msgspec.field(default_factory=_Entity)
    metadata: msgspec.Raw = msgspec.Raw(b"{}")


_JOB: Final = msgspec.json.Decoder(_Job)
_METADATA: Final = msgspec.json.Decoder(_Metadata)
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def job_path(location: str | None) -> str | None:
    """The path of the v3 job that a 202's Location names, whatever host it names; None when it names none."""
    name = _name(urlsplit(location or "").path) or ""
    return name if name.startswith(_PREFIX) and _PLAIN.fullmatch(name.removeprefix(_PREFIX)) else None


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
    return _over(body) is not None


def is_job(path: str) -> bool:
    """Whether this is where a job is asked for."""
    return path.startswith((_PREFIX, _NAMES_V2))


def _over(body: bytes) -> _Job | None:
    """The job that this describes, if it is over."""
    try:
        job = _JOB.decode(body)
    except _UNREADABLE:
        return None
    return job if job.state in _OVER or job.entity.status in _OVER else None


class PendingJobs:
    """Jobs under way and the tags their end drops.

    Args:
        capacity: the most jobs remembered, and the most that are known to be over.
    """

    def __init__(self, capacity: int = 10_000) -> None:
        self._capacity: Final = capacity
        self._tags: Final[OrderedDict[str, frozenset[str]]] = OrderedDict()
        self._ended: Final[OrderedDict[str, None]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tags)

    def remember(self, location: str | None, tags: frozenset[str]) -> None:
        """Note the job that a 202's Location, or the content of a v2 answer, names.

        Args:
            location: the field's value, absolute or relative; ignored unless it names a job.
            tags: what the end of the job drops.
        """
        name = _name(urlsplit(location or "").path)
        if name is None or not tags:
            return
        self._tags[name] = tags
        while len(self._tags) > self._capacity:
            self._tags.popitem(last=False)

    def ended(self, path: str, status: int, body: bytes) -> frozenset[str]:
        """The tags to drop because this answer says, for the first time, that a job is over; empty otherwise.

        Args:
            path: path of the request that was answered.
            status: status of the answer.
            body: its content.
        """
        name = _name(path)
        job = _over(body) if name is not None and status == 200 else None
        if name is None or job is None:
            return frozenset()
        known = self._tags.pop(name, None)
        if known is None and (name in self._ended or not name.startswith(_PREFIX) or job.state not in _OVER):
            return frozenset()
        self._ended[name] = None
        while len(self._ended) > self._capacity:
            self._ended.popitem(last=False)
        return dropped_by_job(job.operation) if known is None else known


def _name(path: str) -> str | None:
    """What a job is called: the end of its path, from the version on."""
    for prefix in (_PREFIX, _NAMES_V2):
        index = path.find(prefix)
        guid = path[index + len(prefix) :] if index >= 0 else ""
        if guid and "/" not in guid:
            return prefix + guid
    return None
