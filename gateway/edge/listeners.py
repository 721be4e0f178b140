"""Sockets that clients connect to: opened, accepted from, closed without losing who had connected already.

Accepting is done here and not by the event loop, because what stands before HTTP (a PROXY header, TLS with the
certificate of the moment) belongs to each connection, because a listening socket may be shared with other processes,
and because a connection that waits in the kernel's queue when a listener closes would be reset by it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

# No more than so many at a time, so that processes which share a socket share its connections.
_BURST: Final = 16
_PAUSE: Final = 0.25
# Out of descriptors or memory: nothing is wrong with the listener, and trying again at once would be a busy loop.
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Listener:
    """Accepts connections from one listening socket.

    Args:
        listening: the socket, not blocking; it is closed with the listener.
        serve: makes the protocol of a new connection.

    Attributes:
        address: host and port.
        exhausted: how often no connection could be accepted for want of descriptors or memory.
    """

    def __init__(self, listening: socket.socket, serve: Callable[[], asyncio.Protocol]) -> None:
        self._socket: Final = listening
        self._serve: Final = serve
        self._loop: Final = asyncio.get_running_loop()
        self._begun: Final[set[asyncio.Task[None]]] = set()
        self._paused: asyncio.TimerHandle | None = None
        self.address: Final[tuple[str, int]] = listening.getsockname()[:2]
        self.exhausted = 0

    def start(self) -> None:
        """Accept from now on."""
        self._loop.add_reader(self._socket.fileno(), self._accept)

    async def close(self) -> None:
        """Accept whoever has connected already, and nobody else."""
        if self._socket.fileno() < 0:
            return
        if self._paused is not None:
            self._paused.cancel()
        self._loop.remove_reader(self._socket.fileno())
        while self._accept_one():
            pass
        self._socket.close()
        await asyncio.gather(*self._begun, return_exceptions=True)

    def _accept(self) -> None:
        for _ in range(_BURST):
            if not self._accept_one():
                return

    def _accept_one(self) -> bool:
        """Whether there may be another one."""
        try:
            accepted, _ = self._socket.accept()
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                return error.errno == errno.ECONNABORTED  # who gave up in the queue is no reason to stop
            self.exhausted += 1
            self._loop.remove_reader(self._socket.fileno())
            self._paused = self._loop.call_later(_PAUSE, self.start)
            return False
        accepted.settimeout(0)
        task = self._loop.create_task(self._begin(accepted))
        self._begun.add(task)
        task.add_done_callback(self._begun.discard)
        return True

    async def _begin(self, accepted: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._serve, accepted)
        except OSError:
            accepted.close()


def open_tcp(host: str, port: int, *, backlog: int) -> list[socket.socket]:
    """Listening sockets, one for each address that a name stands for.

    Args:
        host: address or name to bind.
        port: port to bind, 0 for one that is free.
        backlog: how many connections may wait to be accepted.

    Raises:
        OSError: one of them cannot be bound; none stays open then.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    with contextlib.ExitStack() as opened:
        sockets = []
        for family, kind, protocol, _, address in dict.fromkeys(found):
            listening = opened.enter_context(socket.socket(family, kind, protocol))
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.bind(address)
            listening.listen(backlog)
            listening.settimeout(0)
            sockets.append(listening)
        opened.pop_all()
    return sockets
