"""What came in: from aiohttp's parsed request to the model, and what is refused before anything is decided.

aiohttp's parser has judged the framing (C extension required); this adds what it lets through (peers.md, "Framing").
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from aiohttp import HttpVersion11
from aiohttp.web_protocol import RequestPayloadError

from gateway.core import target as targets
from gateway.core.errors import Denial, Reason
from gateway.core.model import Fields, RequestHead, Target
from gateway.pipeline.ports import ContentError

if TYPE_CHECKING:
    from aiohttp import web

    from gateway.pipeline.exchange import Exchange

# Upper case only: the client library would send "get" as GET, and what is authorised must be what is forwarded.
_METHOD: Final = re.compile(r"[A-Z][A-Z_-]{0,31}")
# RFC 9112 §3.2, RFC 3986 §3.2.2: a name, an IPv4 address or a bracketed IPv6 address, and perhaps a port.
_HOST: Final = re.compile(r"(?:[A-Za-z0-9._~-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{1,5}))?")
_PORTS: Final = 65_535
# One spelling of a number that fits in 63 bits; RFC 9110 §8.6 allows zeros before it, and no client writes them.
_LENGTH: Final = re.compile(r"0|[1-9][0-9]{0,17}")
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class StalledError(RequestPayloadError):
    """The client let its content stand still, or sent it too slowly."""


class TrailerError(RequestPayloadError):
    """The trailer behind the content has too many fields, or one that is too large."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may measure, in bytes.

    Attributes:
        max_line_bytes: the request line.
        max_header_bytes: all fields together, and each of them.
        max_body_bytes: the content; None for no limit.
        max_header_count: how many fields.
    """

    max_line_bytes: int
    max_header_bytes: int
    max_body_bytes: int | None = None
    max_header_count: int = 256


def head_of(request: web.BaseRequest) -> RequestHead:
    """The request head as it came, the target not yet canonical."""
    peer, scheme = ("", "http") if request.transport is None else peer_of(request.transport)
    return RequestHead(
        method=request.method,
        target=Target(request.raw_path),
        fields=Fields(
            (name.decode("latin-1"), value.decode("utf-8", "surrogateescape")) for name, value in request.raw_headers
        ),
        peer=peer,
        scheme=scheme,
        has_body=request.can_read_body,
    )


def peer_of(transport: asyncio.BaseTransport) -> tuple[str, str]:
    """The IP address of a connection's peer or of whom it speaks for, "" for a unix socket, and the scheme spoken."""
    told: str | None = getattr(transport.get_protocol(), "client", None)
    if told is not None:  # by a trusted peer, before HTTP began
        return told, "https" if transport.get_extra_info("sslcontext") else "http"
    peer = transport.get_extra_info("peername")
    return peer[0] if isinstance(peer, tuple) else "", "https" if transport.get_extra_info("sslcontext") else "http"


def canonical(
    head: RequestHead, limits: Limits, *, strict_api: bool, prefix: str = "", http_1_0: bool = False
) -> RequestHead:
    """The head with its one canonical target.

    Args:
        head: as `head_of` made it.
        limits: what it may measure.
        strict_api: whether targets are read as the Cloud Controller reads them.
        prefix: the path of the public URL; what lies under it is asked of the controller without it.
        http_1_0: whether Host may be missing (RFC 9112 §3.2) and content must not be chunked (§6.1).

    Raises:
        Denial: the method, Host, the framing, a field value or the target is not acceptable.
    """
    if _METHOD.fullmatch(head.method) is None or head.method == "CONNECT":
        raise Denial(Reason.BAD_REQUEST, "method not acceptable")
    hosts = head.fields.get_all("host")
    if len(hosts) > 1 or not (hosts or http_1_0) or not all(map(_acceptable_host, hosts)):
        raise Denial(Reason.BAD_REQUEST, "exactly one valid Host is required")
    _check_framing(head.fields, http_1_0=http_1_0)
    if any(not value.isascii() and _undecodable(value) for _, value in head.fields):
        raise Denial(Reason.BAD_REQUEST, "a field value is not UTF-8")
    if sum(len(name) + len(value) for name, value in head.fields) > limits.max_header_bytes:
        raise Denial(Reason.FIELDS_TOO_LARGE, f"at most {limits.max_header_bytes} bytes of fields")
    return replace(head, target=asked_for(str(head.target), strict_api=strict_api, prefix=prefix))


def asked_for(raw: str, *, strict_api: bool, prefix: str) -> Target:
    """The canonical target of a request line, as the controller will be asked for it.

    Args:
        raw: the target as it came.
        strict_api: whether targets are read as the Cloud Controller reads them.
        prefix: the path of the public URL, "" for none.

    Raises:
        Denial: it is no acceptable target.
    """
    target = targets.parse(raw, strict_api=strict_api)
    if prefix and (target.path == prefix or target.path.startswith(f"{prefix}/")):
        target = replace(target, path=target.path.removeprefix(prefix) or "/")
    return target


def _acceptable_host(host: str) -> bool:
    parts = _HOST.fullmatch(host)
    return parts is not None and (parts[1] is None or int(parts[1]) <= _PORTS)


def _check_framing(fields: Fields, *, http_1_0: bool) -> None:
    """Refuse what aiohttp's parser frames in one way and others might in another (RFC 9112 §6).

    Raises:
        Denial: the coding is not just `chunked`, or the length is not just a number.
    """
    codings = fields.get_all("transfer-encoding")
    lengths = fields.get_all("content-length")
    if codings and (lengths or http_1_0 or len(codings) > 1 or codings[0].lower() != "chunked"):
        raise Denial(Reason.BAD_REQUEST, "the only transfer coding is chunked, once and without Content-Length")
    if lengths and (len(lengths) > 1 or _LENGTH.fullmatch(lengths[0]) is None):
        raise Denial(Reason.BAD_REQUEST, "Content-Length is one plain number")


def _undecodable(value: str) -> bool:
    return any("\udc80" <= character <= "\udcff" for character in value)


class Upload:
    """The request content as it arrives; the first read tells a waiting client to go on (RFC 9110 §10.1.1).

    Args:
        request: whose content it is.
        exchange: knows the most that it may have.

    Attributes:
        size: how many bytes of it have been read.
        waiting: whether a reader waits for the client.
    """

    def __init__(self, request: web.BaseRequest, exchange: Exchange) -> None:
        self._request = request
        self._exchange = exchange
        self.size = 0
        self.waiting = False
        # Who forwards the content may still be on its way out when the rest is discarded.
        self._reading = asyncio.Lock()
        expects = request.headers.get("Expect", "").strip().lower() == "100-continue"
        self._continue = expects and request.version >= HttpVersion11

    @property
    def finished(self) -> bool:
        """Whether all of it has been read."""
        content = self._request.content
        return content.at_eof() and content.exception() is None

    def __aiter__(self) -> Upload:
        return self

    async def __anext__(self) -> bytes:
        """The next piece.

        Raises:
            ContentError: the framing is broken, the content is too large, or the client went away.
        """
        async with self._reading:
            if self._continue and self._request.transport is not None:
                self._continue = False
                self._request.transport.write(_CONTINUE)
            content = self._request.content
            self.waiting = True
            try:
                piece = await content.readany()
                # A reader that a chunk's end had woken already is not told of a fault behind it.
                if not piece and (fault := content.exception()) is not None:
                    raise fault
            except StalledError as error:
                raise ContentError(Denial(Reason.REQUEST_TIMEOUT, str(error))) from error
            except TrailerError as error:
                raise ContentError(Denial(Reason.FIELDS_TOO_LARGE, "the trailer")) from error
            except (RequestPayloadError, OSError) as error:
                raise ContentError(
                    Denial(Reason.BAD_REQUEST, "the request content is malformed or broke off")
                ) from error
            finally:
                self.waiting = False
        if not piece:
            raise StopAsyncIteration
        self.size += len(piece)
        limit = self._exchange.max_body_bytes
        if limit is not None and self.size > limit:
            raise ContentError(Denial(Reason.BODY_TOO_LARGE, f"at most {limit} bytes"))
        return piece

    def fail(self, error: RequestPayloadError) -> None:
        """Let whoever reads, now or later, find this fault in place of the rest."""
        self._request.content.set_exception(error)

    async def discard(self, patience: float) -> None:
        """Swallow what is left for a while, so that the answer is not lost in a reset (RFC 9112 §9.6).

        Args:
            patience: seconds. A client that still waits to be told to go on has sent nothing and is not waited for.
        """
        if self._continue:
            return
        with contextlib.suppress(TimeoutError, RequestPayloadError, OSError):
            async with asyncio.timeout(patience), self._reading:
                while await self._request.content.readany():
                    pass
