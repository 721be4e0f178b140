"""Sockets that clients connect to: opened, accepted from, closed without losing who had connected already.

Accepting is done here and not by the event loop, because what stands before HTTP (a PROXY header, TLS with the
certificate of the moment) belongs to each connection, because a listening socket may be shared with other processes,
and because a connection that waits in the kernel's queue when a listener closes would be reset by it.
"""

from __future__ import annotations

import asyncio
import errno
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from gateway.core.proxy_protocol import ProxyError
from gateway.edge.proxied import NoHeaderError, read_header

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from gateway.edge.tls import Certificates

# No more than so many at a time, so that processes which share a socket share its connections.
_BURST: Final = 16
_PAUSE: Final = 0.25
# Out of descriptors or memory: nothing is wrong with the listener, and trying again at once would be a busy loop.
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_HANDSHAKE: Final = 10.0  # seconds for a TLS handshake
_FAREWELL: Final = 5.0  # seconds for its end
_BEGINNING: Final = 1024  # connections that may stand before HTTP at once


class Refused(Enum):
    """Why a connection came to no HTTP; the closed `reason` label of `gateway_connections_refused_total`."""

    TLS = "tls"  # no handshake: another protocol, version or certificate, or too slow
    PROXY = "proxy-protocol"  # a header that is malformed, missing, from somebody who is not trusted, or too slow
    CROWDED = "crowded"  # too many stand before HTTP already
    EXHAUSTED = "exhausted"  # out of descriptors or memory; those who wait are accepted later


class ProxyProtocol(Enum):
    """Whether connections begin with a PROXY header."""

    OFF = "off"
    OPTIONAL = "optional"  # from trusted peers, if they send one
    REQUIRED = "required"  # from trusted peers, and nobody else may connect


def _nobody(_peer: str) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Before:
    """What stands before HTTP on a listener.

    Attributes:
        certificates: for TLS; None for plain connections.
        proxy_protocol: whether there is a PROXY header, before TLS.
        trusted: says whose headers are believed, by address, "" for a unix socket.
    """

    certificates: Certificates | None = None
    proxy_protocol: ProxyProtocol = ProxyProtocol.OFF
    trusted: Callable[[str], bool] = _nobody


class Listener:
    """Accepts connections from one listening socket.

    Args:
        listening: the socket, not blocking; it is closed with the listener.
        serve: makes the protocol of a new connection, given the client's address if another than the peer's.
        before: what stands before HTTP.

    Attributes:
        address: host and port; of a unix socket its path and 0.
        refused: how many connections came to no HTTP, by reason.
    """

    def __init__(
        self,
        listening: socket.socket,
        serve: Callable[[str | None], asyncio.Protocol],
        before: Before | None = None,
    ) -> None:
        self._socket: Final = listening
        self._serve: Final = serve
        self._before: Final = before or Before()
        self._loop: Final = asyncio.get_running_loop()
        self._begun: Final[set[asyncio.Task[None]]] = set()
        self._paused: asyncio.TimerHandle | None = None
        name = listening.getsockname()
        self.address: Final[tuple[str, int]] = (name, 0) if isinstance(name, str) else name[:2]
        self.refused: Final = {reason.value: 0 for reason in Refused}

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
            accepted, name = self._socket.accept()
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                return error.errno == errno.ECONNABORTED  # who gave up in the queue is no reason to stop
            self._refuse(Refused.EXHAUSTED)
            self._loop.remove_reader(self._socket.fileno())
            self._paused = self._loop.call_later(_PAUSE, self.start)
            return False
        if len(self._begun) >= _BEGINNING:
            self._refuse(Refused.CROWDED)
            accepted.close()
            return True
        accepted.settimeout(0)
        peer = name[0] if isinstance(name, tuple) else ""
        task = self._loop.create_task(self._begin(accepted, peer))
        self._begun.add(task)
        task.add_done_callback(self._begun.discard)
        return True

    async def _begin(self, accepted: socket.socket, peer: str) -> None:
        reason = Refused.PROXY
        try:
            client = await self._client(accepted, peer)
            reason = Refused.TLS
            await self._connect(accepted, client)
        except (OSError, ProxyError, TimeoutError):  # ssl's errors are OSErrors
            self._refuse(reason)
            accepted.close()
        except asyncio.CancelledError:
            accepted.close()
            raise

    async def _client(self, accepted: socket.socket, peer: str) -> str | None:
        """Whom a PROXY header names, None for the peer itself."""
        before = self._before
        required = before.proxy_protocol is ProxyProtocol.REQUIRED
        if before.proxy_protocol is ProxyProtocol.OFF:
            return None
        if not before.trusted(peer):
            if required:
                raise ProxyError("not from a trusted peer")
            return None
        try:
            return await read_header(self._loop, accepted)
        except NoHeaderError:
            if required:
                raise ProxyError("no header") from None
            return None

    async def _connect(self, accepted: socket.socket, client: str | None) -> None:
        certificates = self._before.certificates
        if certificates is None:
            await self._loop.connect_accepted_socket(lambda: self._serve(client), accepted)
            return
        await self._loop.connect_accepted_socket(
            lambda: self._serve(client),
            accepted,
            ssl=certificates.context,
            ssl_handshake_timeout=_HANDSHAKE,
            ssl_shutdown_timeout=_FAREWELL,
        )

    def _refuse(self, reason: Refused) -> None:
        self.refused[reason.value] += 1
