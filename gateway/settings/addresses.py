"""The values of a settings file that name places in a network: hosts, URLs, origins, networks."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any, Final
from urllib.parse import SplitResult, urlsplit

from gateway.settings.scalars import ReadError, Scalar, plain_text, text

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_AUTHORITY: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^][:@]+)(?::[0-9]{1,5})?")
_HOST_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9])?")
_PATH: Final = re.compile(r"(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+)*/?")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_URI: Final[dict[str, Any]] = {"type": "string", "pattern": "^https?://[^?#@]+$"}


def _split(value: object) -> tuple[SplitResult, str]:
    """An http(s) URL in its parts and its normalised origin (RFC 3986 §6.2)."""
    url = plain_text(value)
    if not url.isascii() or not url.isprintable() or set(url) & set(" \\?#"):
        raise ReadError("a query, a fragment, spaces and backslashes do not belong there" if url else "")
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise ReadError("it must not carry a user or password")
    if parts.scheme not in _DEFAULT_PORTS or not _AUTHORITY.fullmatch(parts.netloc) or parts.port == 0:
        raise ReadError
    host = parts.hostname or ""
    if parts.netloc.startswith("["):
        host = f"[{ipaddress.IPv6Address(host)}]"
    elif not _HOST_NAME.fullmatch(host):
        raise ReadError
    port = "" if parts.port in (None, _DEFAULT_PORTS[parts.scheme]) else f":{parts.port}"
    if not _PATH.fullmatch(parts.path) or {".", ".."} & set(parts.path.split("/")):
        raise ReadError("its path must be plain: no empty or dot segments")
    return parts, f"{parts.scheme}://{host}{port}"


def _url(value: object) -> str:
    parts, origin = _split(value)
    return origin + parts.path.rstrip("/")


def _origin(value: object) -> str:
    parts, origin = _split(value)
    if parts.path not in ("", "/"):
        raise ReadError("it must not have a path")
    return origin


def _network(value: object) -> Network:
    written = plain_text(value)
    try:
        return ipaddress.ip_network(written)
    except ValueError:
        meant = ipaddress.ip_network(written, strict=False)
        raise ReadError(f"the network of that address is {meant}") from None


Host = Annotated[
    str, text(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+(?:%[A-Za-z0-9._-]+)?", "an IP address or host name", "host")
]
HostField = Annotated[
    str, text(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?", "a host such as api.example.org", "host")
]
Issuer = Annotated[
    str, text(r"https?://[^\s?#]+", "the token issuer's URL such as https://uaa.example.org/oauth/token", "URL")
]
Url = Annotated[str, Scalar("a URL such as https://api.example.org", _url, _URI, str, "URL")]
Origin = Annotated[str, Scalar("an origin such as https://api.example.org", _origin, _URI, str, "origin")]


def _trusted(value: object) -> Network | str:
    return "unix" if value == "unix" else _network(value)


TrustedPeer = Annotated[
    Network | str,
    Scalar(
        "an IP address, a network such as 10.0.0.0/8, or unix", _trusted, {"type": "string"}, str, "network or `unix`"
    ),
]
IPNetwork = Annotated[
    Network, Scalar("an IP address or network such as 10.0.0.0/8", _network, {"type": "string"}, str, "network")
]
