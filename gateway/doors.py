"""The listeners of a gateway, built from the settings: sockets, certificates, and what stands before HTTP on each."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Final

from gateway import derived
from gateway.edge.listeners import Before, Listener, ProxyProtocol, Refused
from gateway.edge.sockets import open_tcp, open_unix
from gateway.edge.tls import Certificates, Files, TlsError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping, Sequence

    from aiohttp import web

    from gateway.settings import Settings
    from gateway.settings.listen import Tls
    from gateway.telemetry.structured import structlog


def open_sockets(settings: Settings) -> list[socket.socket]:
    """What clients connect to, listening.

    Raises:
        OSError: one of the addresses cannot be bound.
    """
    listen = settings.listen
    sockets = open_tcp(listen.host, listen.port, backlog=listen.backlog, send_buffer=listen.send_buffer)
    if listen.unix_socket is not None:
        try:
            sockets.append(open_unix(listen.unix_socket, listen.unix_socket_mode, backlog=listen.backlog))
        except BaseException:
            for one in sockets:
                one.close()
            raise
    return sockets


def forget_sockets(settings: Settings) -> None:
    """Take away the name of the unix socket, when nobody listens on it any more."""
    if settings.listen.unix_socket is not None:
        with contextlib.suppress(OSError):
            settings.listen.unix_socket.unlink()


class Doors:
    """The listeners of one process.

    Args:
        settings: where and how.
        log: told when certificates change.

    Raises:
        TlsError: a certificate or key cannot be used.
    """

    def __init__(self, settings: Settings, log: structlog.typing.FilteringBoundLogger) -> None:
        self._settings: Final = settings
        self._log: Final = log
        self._trusted = derived.trusted_proxies(settings)
        given = {"listen": settings.listen.tls, "admin": settings.admin.tls}
        self.certificates: Final = {
            name: Certificates(_files(tls), self._told(name)) for name, tls in given.items() if tls is not None
        }
        self._listeners: Final[list[Listener]] = []
        self._admin: Listener | None = None
        self._own_sockets = False

    @property
    def url(self) -> str:
        """Where clients connect, once open."""
        return _url("listen" in self.certificates, self._listeners[0].address) if self._listeners else ""

    @property
    def admin_url(self) -> str:
        """Where the operator connects, once open."""
        return "" if self._admin is None else _url("admin" in self.certificates, self._admin.address)

    def url_of(self, opened: socket.socket) -> str:
        """The URL of a socket that others accept from."""
        return _url("listen" in self.certificates, opened.getsockname()[:2])

    def open(
        self, serve: Callable[[str | None], asyncio.Protocol], inherited: Sequence[socket.socket] | None = None
    ) -> None:
        """Let clients in.

        Args:
            serve: makes the protocol of a connection, given the client's address if another than the peer's.
            inherited: sockets to accept from; None to open them.

        Raises:
            OSError: an address cannot be bound.
        """
        self._own_sockets = inherited is None
        proxy_protocol = ProxyProtocol(self._settings.listen.proxy_protocol)
        for opened in open_sockets(self._settings) if inherited is None else inherited:
            plain = opened.family == socket.AF_UNIX  # who gets there is on this machine, and allowed to by its mode
            certificates = None if plain else self.certificates.get("listen")
            before = Before(certificates, proxy_protocol, lambda peer: peer in self._trusted)
            self._listeners.append(Listener(opened, serve, before))
        for listener in self._listeners:
            listener.start()
        self.watch()

    async def open_admin(self, runner: web.AppRunner) -> None:
        """Let the operator in.

        Args:
            runner: of the admin application, not set up yet.

        Raises:
            OSError: the address cannot be bound.
        """
        await runner.setup()
        serve = runner.server
        if serve is None:
            raise RuntimeError("the application was not set up")
        admin = self._settings.admin
        opened, *others = open_tcp(admin.host, admin.port, backlog=128)
        for other in others:
            other.close()
        self._admin = Listener(opened, lambda _: serve(), Before(self.certificates.get("admin")))
        self._admin.start()

    def watch(self) -> None:
        """Take certificates that change from now on."""
        for one in self.certificates.values():
            one.watch()

    async def close(self) -> None:
        """Accept whoever waits, then nobody."""
        for listener in self._listeners:
            await listener.close()
        if self._own_sockets:
            forget_sockets(self._settings)

    async def close_admin(self) -> None:
        """The last to close."""
        if self._admin is not None:
            await self._admin.close()
        for one in self.certificates.values():
            await one.stop()

    def check(self) -> None:
        """Judge the certificates as their files are now.

        Raises:
            TlsError: one cannot be used.
        """
        for name, one in self.certificates.items():
            try:
                one.check()
            except TlsError as error:
                raise TlsError(f"{name}.tls: {error}") from None

    def adopt(self, settings: Settings) -> None:
        """Believe other peers, and take certificates that have changed."""
        self._trusted = derived.trusted_proxies(settings)
        for one in self.certificates.values():
            one.refresh()

    def refused(self) -> Mapping[str, int]:
        """How many connections came to no HTTP, by reason."""
        return {reason.value: sum(one.refused[reason.value] for one in self._listeners) for reason in Refused}

    def expiries(self) -> Mapping[str, float]:
        """When certificates expire, by listener."""
        return {name: one.expires for name, one in self.certificates.items()}

    def exchanges(self) -> Mapping[str, int]:
        """How often changed certificates were taken or refused."""
        return {
            result: sum(one.results[result] for one in self.certificates.values()) for result in ("applied", "refused")
        }

    def _told(self, name: str) -> Callable[[str | None], None]:
        def told(fault: str | None) -> None:
            if fault is None:
                self._log.info("certificate exchanged", listener=name)
            else:
                self._log.error("certificate refused", listener=name, fault=fault)

        return told


def _files(tls: Tls) -> Files:
    return Files(
        tls.certificate_file,
        tls.key_file,
        tls.minimum_version,
        tls.client_ca_file,
        tls.client_certificates != "optional",
    )


def _url(encrypted: bool, address: tuple[str, int]) -> str:  # noqa: FBT001 - private
    host, port = address
    scheme = "https" if encrypted else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
