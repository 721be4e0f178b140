"""Where and how the gateway listens: addresses, TLS, what stands before HTTP."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, Literal

from gateway.settings.errors import Problem
from gateway.settings.scalars import File, ReadError, Scalar, plain_text
from gateway.settings.section import Section

_LONGEST_PATH: Final = 100  # the kernel's limit is 107 bytes


def _version(value: object) -> str:
    text = str(value) if isinstance(value, float) else plain_text(value)
    if text not in ("1.2", "1.3"):
        raise ReadError
    return text


def _socket_path(value: object) -> Path:
    text = plain_text(value)
    if not text.startswith("/") or "\0" in text or len(text.encode()) > _LONGEST_PATH:
        raise ReadError
    return Path(text)


def _mode(value: object) -> int:
    text = plain_text(value)
    if not re.fullmatch(r"0?[0-7]{3}", text):
        raise ReadError
    return int(text, 8)


TlsVersion = Annotated[str, Scalar("1.2 or 1.3", _version, {"enum": [1.2, 1.3, "1.2", "1.3"]}, str, "`1.2` or `1.3`")]
SocketPath = Annotated[
    Path,
    Scalar(
        "an absolute path of at most 100 bytes",
        _socket_path,
        {"type": "string", "pattern": "^/"},
        str,
        "path",
    ),
]
Mode = Annotated[
    int,
    Scalar(
        'permissions in quotes such as "660"',
        _mode,
        {"type": "string", "pattern": "^0?[0-7]{3}$"},
        lambda value: f"{value:03o}",
        "permissions",
    ),
]


class Tls(Section):
    """How a listener proves itself. Files that change are taken within 10 s, and at a reload."""

    certificate_file: File
    """Certificate chain in PEM, the listener's own first."""
    key_file: File
    """Its private key in PEM, not encrypted."""
    minimum_version: TlsVersion = "1.2"
    """The oldest version of TLS that is spoken."""
    client_ca_file: File | None = None
    """Certificates in PEM; those of clients must lead to one of them."""
    client_certificates: Literal["optional", "required"] | None = None
    """Whether a client must show a certificate; by default `required` with a `client_ca_file`. What is shown is \
verified in any case."""

    def problems(self) -> Iterator[Problem]:
        """Certificates that nothing could verify."""
        if self.client_certificates is not None and self.client_ca_file is None:
            yield Problem(("client_certificates",), "no such key without client_ca_file", "one")
