"""Certificates of a listener: loaded, replaced when their files change, and never by what cannot be used.

The law: a listener always has a context that works. What a file has become is judged whole before it is put in force,
and connections that exist keep what they began with.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_LOOK: Final = 10.0  # seconds between two looks at the files
_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


class TlsError(Exception):
    """Files that make no listener; the text names the file."""


@dataclass(frozen=True, slots=True)
class Files:
    """What a listener proves itself with.

    Attributes:
        certificate: chain in PEM, its own certificate first.
        key: private key in PEM, not encrypted.
        minimum_version: "1.2" or "1.3".
        client_ca: certificates in PEM that client certificates must lead to; None to ask for none.
        client_required: whether a client without a certificate is turned away.
    """

    certificate: Path
    key: Path
    minimum_version: str = "1.2"
    client_ca: Path | None = None
    client_required: bool = False


class Certificates:
    """The context that new connections get.

    Args:
        files: where it comes from.
        changed: told when the files have changed: None, or why what they are now cannot be used.

    Attributes:
        context: the one in force.
        expires: when its certificate does, epoch seconds.
        results: how often files that had changed were taken, or refused.

    Raises:
        TlsError: the files cannot be used.
    """

    def __init__(self, files: Files, changed: Callable[[str | None], None] = lambda _: None) -> None:
        self._files: Final = files
        self._changed: Final = changed
        self._seen = _signature(files)
        self._watching: asyncio.Task[None] | None = None
        self.results: Final = {"applied": 0, "refused": 0}
        self.context, self.expires = _built(files)

    def check(self) -> None:
        """Judge the files as they are.

        Raises:
            TlsError: they cannot be used.
        """
        _built(self._files)

    def refresh(self) -> None:
        """Put the files in force if they have changed and can be used."""
        seen = _signature(self._files)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self.context, self.expires = _built(self._files)
        except TlsError as error:
            self.results["refused"] += 1
            self._changed(str(error))
        else:
            self.results["applied"] += 1
            self._changed(None)

    def watch(self, interval: float = _LOOK) -> None:
        """Look at the files again and again."""
        self._watching = asyncio.create_task(self._watch(interval))

    async def stop(self) -> None:
        """Look no more."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    async def _watch(self, interval: float) -> None:
        while True:
            await asyncio.sleep(interval)
            self.refresh()


def _signature(files: Files) -> tuple[object, ...]:
    """What changes when one of the files does: its time, its size, and itself (links are turned to other files)."""
    found: list[object] = []
    for path in (files.certificate, files.key, files.client_ca):
        try:
            stat = None if path is None else path.stat()
        except OSError:
            stat = None
        found.append(None if stat is None else (stat.st_mtime_ns, stat.st_size, stat.st_ino))
    return tuple(found)


def _built(files: Files) -> tuple[ssl.SSLContext, float]:
    from cryptography import x509  # several megabytes, and a listener without TLS has no use for them

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[files.minimum_version]
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        # An empty password instead of a question on the terminal, which would never be answered.
        context.load_cert_chain(files.certificate, files.key, password="")
        expires = x509.load_pem_x509_certificate(files.certificate.read_bytes()).not_valid_after_utc.timestamp()
    except (OSError, ValueError) as error:
        raise TlsError(f"{files.certificate} with {files.key}: {_why(error)}") from None
    if files.client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED if files.client_required else ssl.CERT_OPTIONAL
        try:
            context.load_verify_locations(files.client_ca)
        except (OSError, ValueError) as error:
            raise TlsError(f"{files.client_ca}: {_why(error)}") from None
    return context, expires


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return f"not usable ({error.reason or 'no PEM'})"
    return error.strerror or "not readable" if isinstance(error, OSError) else "no certificate"
