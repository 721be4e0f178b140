"""How the gateway proves itself to the controller, and whom it takes for the controller.

Files are read at the start and at a reload; a context that works is only ever exchanged for another one that does.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path


class ClientTls:
    """The context that new connections to the controller get.

    Args:
        ca: certificates in PEM that the controller's must lead to; None for those of the system.
        certificate: chain in PEM to show; None for none.
        key: its private key in PEM, not encrypted.
        verify: whether the controller's certificate is looked at at all.

    Attributes:
        context: the one in force.

    Raises:
        OSError: a file cannot be used.
    """

    def __init__(
        self, *, ca: Path | None = None, certificate: Path | None = None, key: Path | None = None, verify: bool = True
    ) -> None:
        self._ca: Final = ca
        self._certificate: Final = certificate
        self._key: Final = key
        self._verify: Final = verify
        self.context = self.built()

    def built(self) -> ssl.SSLContext:
        """A context of the files as they are.

        Raises:
            OSError: one cannot be used.
        """
        context = ssl.create_default_context(cafile=self._ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        if not self._verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self._certificate is not None:
            context.load_cert_chain(self._certificate, self._key, password="")  # not a question on the terminal
        return context
