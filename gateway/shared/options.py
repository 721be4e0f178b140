"""What is to be known to reach the shared store, as plain values, and what can go wrong with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

Mode = Literal["standalone", "sentinel", "cluster"]


class Fault(Enum):
    """Why the shared store did not do what it was asked; the closed `reason` label of its metrics and log lines."""

    TIMEOUT = "timeout"  # slower than the deadline
    UNREACHABLE = "unreachable"  # no connection, or it broke; also a cluster without this part of its keys
    READ_ONLY = "read-only"  # a replica, or one that has lost its disk
    DENIED = "denied"  # password or ACL
    FULL = "full"  # its memory is: reading works, storing does not
    REFUSED = "refused"  # any other error answer
    OPEN = "open"  # not asked: it has failed before


class SharedStoreError(Exception):
    """The shared store failed; nobody's request does for that.

    Attributes:
        fault: how.
    """

    def __init__(self, fault: Fault, detail: str = "") -> None:
        super().__init__(f"{fault.value}: {detail}" if detail else fault.value)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class Tls:
    """How the store proves itself, and the gateway to it.

    Attributes:
        ca_file: authorities that are believed; None for the system's.
        cert_file: the gateway's certificate, if the store asks for one.
        key_file: its key.
    """

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """How to reach the store.

    Attributes:
        nodes: (host, port) of the server, of Sentinels, or of some nodes of the cluster.
        unix_path: a unix socket in place of them.
        mode: what stands there.
        database: its number; 0 in a cluster.
        sentinel_master: the name Sentinel knows the server by.
        sentinel_username: Sentinel's own user, None for the default user.
        sentinel_password: for it.
        username: the server's user, None for the default user.
        password: for it.
        tls: None for plain TCP.
        connect_timeout: seconds, for what no request waits for.
        max_added_latency: the most seconds that a request waits for one answer.
        retry_interval: seconds between attempts while the store is gone.
        connections: the most commands under way at once.
    """

    nodes: tuple[tuple[str, int], ...]
    unix_path: str | None = None
    mode: Mode = "standalone"
    database: int = 0
    sentinel_master: str = ""
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: Tls | None = None
    connect_timeout: float = 1.0
    max_added_latency: float = 0.05
    retry_interval: float = 0.5
    connections: int = 32
