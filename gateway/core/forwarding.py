"""Which fields cross the gateway: request fields upstream, response fields downstream, fields that may be stored.

The law (RFC 9110 §7.6): what concerns one connection stays on that connection; what the gateway says about the client
it says itself, after everything a client could say about it is gone. A field that a decision was based on (the token,
the target, a validator) cannot be removed by naming it in `Connection`: otherwise the origin would judge another
request than the one that was authorised.

`Content-Length` passes, since it tells the HTTP library on the other side how the content is framed;
`Transfer-Encoding` does not, since that library frames anew. The gateway answers `Expect` itself and supports no
`Upgrade`.

Pure functions over field lists. Whether a message is well-formed was decided at the edge.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Final

from gateway.core.by_name import ByName
from gateway.core.fields import HOP_BY_HOP
from gateway.core.model import Fields

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.core.model import Pair, RequestHead, ResponseHead

# Of requests also what is asked of the next hop alone (RFC 9110 §10.1.1, RFC 7540 §3.2.1).
_HOP_BY_HOP: Final = HOP_BY_HOP | {"expect", "http2-settings"}
# End-to-end fields that `Connection` must not name (RFC 9110 §7.6.1) and that the gateway, the cache or the controller
# decides by.
_KEPT: Final = frozenset(
    {
        *("age", "authorization", "cache-control", "cookie", "date", "etag", "expires", "forwarded", "host"),
        *(
            "last-modified",
            "location",
            "origin",
            "pragma",
            "range",
            "set-cookie",
            "user-agent",
            "vary",
            "via",
            "warning",
        ),
        *("www-authenticate", "x-real-ip", "x-request-id", "x-vcap-request-id", "b3", "traceparent"),
    }
)
_KEPT_PREFIXES: Final = ("accept", "cdn-cache-control", "content-", "if-", "x-b3-", "x-forwarded-")
# Replaced by what the gateway knows itself.
_RESTATED: Final = frozenset(
    {"forwarded", "host", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-proto"}
    | {"x-real-ip", "x-vcap-request-id"}
)
# These would have the origin act on another method, target or proxy than was authorised.
_OVERRIDES: Final = frozenset(
    {"proxy", "x-http-method", "x-http-method-override", "x-method-override", "x-original-url", "x-rewrite-url"}
)
# What may speak against a field, as bits: always, or by what is asked for.
_GONE: Final = 1
_CREDENTIALS: Final = 2
_ENCODING: Final = 4
_HEARSAY: Final = 8
_LENGTH: Final = 16
_PRINCIPAL: Final = 32
_ADDRESSES: Final = 1024  # of peers that are remembered; long ones are not
_LONG: Final = 64
# True of one exchange, not of the page: a cached answer gets its own, or none.
_MOMENTARY: Final = frozenset(
    {
        *("age", "date", "content-length"),  # made for each answer
        *("retry-after", "vary"),  # the first speaks of now; the key already carries what was negotiated
        *("set-cookie", "x-user-guid"),  # one principal's
        *("x-cf-warnings", "x-runtime", "server-timing"),  # of that one run of the controller
        *("x-vcap-request-id", "x-request-id", "traceparent", "b3"),  # that one request's
    }
)
_MOMENTARY_PREFIXES: Final = ("ratelimit", "x-b3-", "x-ratelimit-")  # that principal's budget, that trace

_DEFAULT_PORT: Final = {"http": "80", "https": "443"}
_HOST: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~-]+)(?::([0-9]{1,5}))?")
_HOP: Final = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?|([0-9.]+)(?::[0-9]{1,5})?|([0-9A-Fa-f:.]+)")
_PORT: Final = re.compile(r"[0-9]{1,5}")
_ID_LENGTH: Final = 255
_LONGEST_HOST: Final = 255  # that is remembered
_NOT_ID: Final = re.compile(r"[^A-Za-z0-9_-]")


class TrustedProxies:
    """The peers whose X-Forwarded-* are believed.

    Args:
        networks: addresses or networks ("10.0.0.0/8", "2001:db8::1"), and "unix" for the peers of a unix socket.

    Raises:
        ValueError: a network is none, or has host bits set.
    """

    __slots__ = ("_known", "_networks", "_unix")

    def __init__(self, networks: Iterable[str] = ()) -> None:
        given = tuple(networks)
        self._unix: Final = "unix" in given
        self._networks: Final = tuple(ip_network(network) for network in given if network != "unix")
        self._known: Final[dict[str, bool]] = {}

    def __contains__(self, peer: str) -> bool:
        """Whether `peer` (an IP address, "" for a unix socket) is one of them."""
        if not peer:
            return self._unix
        if not self._networks:
            return False
        known = self._known.get(peer)
        if known is None:
            address = _address(peer)
            known = address is not None and any(address in network for network in self._networks)
            if len(peer) <= _LONG:
                if len(self._known) >= _ADDRESSES:
                    self._known.clear()
                self._known[peer] = known
        return known


def client_address(head: RequestHead, trusted: TrustedProxies) -> str:
    """The address of the client: the nearest hop that is no trusted proxy.

    Returns:
        An IP address in its canonical spelling, or "" for a unix socket whose peer names nobody.
    """
    return _hops(head, trusted)[0]


def request_id(fields: Fields, fresh: str) -> str:
    """The id of a request, by the controller's rule (controller.md §4): the client's, cleaned, else `fresh`.

    Args:
        fields: the request's fields.
        fresh: an id of our own, for a request that brought none that survives cleaning.
    """
    for name in ("x-vcap-request-id", "x-request-id"):
        cleaned = _NOT_ID.sub("", fields.combined(name) or "")[:_ID_LENGTH]
        if cleaned:
            return cleaned
    return fresh


def request_fields(  # noqa: D417 - `head` and `trusted` speak for themselves
    head: RequestHead,
    *,
    host: str | None,
    via: str,
    trusted: TrustedProxies,
    request_id: str,
    identity_encoding: bool,
    drop_authorization: bool = False,
    external_scheme: str | None = None,
    external_host: str | None = None,
    version: str = "1.1",
) -> Fields:
    """The fields to send upstream.

    The first X-Forwarded-For entry is the true client, as the controller's limiter reads it (controller.md §3);
    whatever stood left of it was hearsay. Names with "_" go, since CGI-like origins read them as the "-" twin.

    Args:
        host: the upstream's Host, or None to keep the client's.
        via: this gateway's name in `Via` (RFC 9110 §7.6.3).
        request_id: goes out as X-Vcap-Request-Id.
        identity_encoding: whether the upstream must send content uncoded, so that links in it can be rewritten.
        drop_authorization: for a fetch whose answer is shared with everyone: neither token nor cookies go with it.
        external_scheme: with `external_host`, what X-Forwarded-Proto claims instead of what this connection shows;
            for answers that will be shared, so that no one client's Host can end up in them (cache poisoning).
        external_host: what X-Forwarded-Host claims, "name" or "name:port".
        version: HTTP version of the received request, for `Via`.
    """
    fields = head.fields
    believed = head.peer in trusted
    against = _GONE
    if "transfer-encoding" in fields:
        against |= _LENGTH  # RFC 9112 §6.3: never both
    if drop_authorization:
        against |= _CREDENTIALS
    if identity_encoding:
        against |= _ENCODING
    if not believed:
        against |= _HEARSAY
    kept = [pair for pair in fields.pairs if not _FATE_OF_REQUEST[pair[0]] & against]
    if "connection" in fields:
        named = _named_by_connection(fields)
        kept = [pair for pair in kept if pair[0].lower() not in named]
    client_host = fields.get("host")
    outbound_host = client_host if host is None else host
    if outbound_host is not None:
        kept.insert(0, ("Host", outbound_host))
    if identity_encoding:
        kept.append(("Accept-Encoding", "identity"))
    kept.append(("Via", _via(fields, version, via)))
    hops = _hops(head, trusted)
    if hops[0]:
        kept += (("X-Forwarded-For", ", ".join(hop for hop in hops if hop)), ("X-Real-IP", hops[0]))
    kept += _forwarded_origin(head, external_scheme, external_host, believed=believed)
    kept.append(("X-Vcap-Request-Id", request_id))
    return Fields(kept)


def response_fields(head: ResponseHead, *, via: str, strip_principal: bool, version: str = "1.1") -> Fields:
    """The fields to send downstream: everything but the upstream connection's own, in order and case as it came.

    Args:
        head: the upstream's response.
        via: this gateway's name in `Via`.
        strip_principal: whether X-USER-GUID, the controller's mark of who asked, is removed.
        version: HTTP version of the received response, for `Via`.
    """
    fields = head.fields
    against = _GONE
    if "transfer-encoding" in fields:
        against |= _LENGTH
    if strip_principal:
        against |= _PRINCIPAL
    kept = [pair for pair in fields.pairs if not _FATE_OF_RESPONSE[pair[0]] & against]
    if "connection" in fields:
        named = _named_by_connection(fields)
        kept = [pair for pair in kept if pair[0].lower() not in named]
    kept.append(("Via", _via(fields, version, via)))
    return Fields(kept)


def cacheable_fields(fields: Fields) -> Fields:
    """The part of already forwarded response fields that may be stored with a page and replayed to others.

    Off goes what is true of one moment or one principal: rate budgets, ids and traces, timings, warnings, cookies.
    `Date`, `Age`, `Vary` and `Content-Length` go because each answer from the cache gets its own.
    """
    return Fields(
        pair
        for pair in fields
        if (name := pair[0].lower()) not in _MOMENTARY and not name.startswith(_MOMENTARY_PREFIXES)
    )


def _of_request(lower: str) -> int:
    """What speaks against a request field of this name."""
    if "_" in lower or lower in _HOP_BY_HOP or lower in _RESTATED or lower in _OVERRIDES:
        return _GONE
    if lower in {"authorization", "cookie"}:
        return _CREDENTIALS
    if lower.startswith("x-forwarded-"):
        return _HEARSAY
    return {"accept-encoding": _ENCODING, "content-length": _LENGTH}.get(lower, 0)


def _of_response(lower: str) -> int:
    """What speaks against a response field of this name."""
    if lower in _HOP_BY_HOP or lower == "via":
        return _GONE
    return {"x-user-guid": _PRINCIPAL, "content-length": _LENGTH}.get(lower, 0)


_FATE_OF_REQUEST: Final = ByName(_of_request)
_FATE_OF_RESPONSE: Final = ByName(_of_response)


def _named_by_connection(fields: Fields) -> frozenset[str]:
    """The fields that `Connection` declares its own (RFC 9110 §7.6.1), less those that it must not."""
    values = fields.get_all("connection")
    if not values:
        return frozenset()
    options = (option.strip(" \t").lower() for option in ",".join(values).split(","))
    return frozenset(name for name in options if name not in _KEPT and not name.startswith(_KEPT_PREFIXES))


def _via(fields: Fields, version: str, name: str) -> str:
    earlier = fields.combined("via")
    own = f"{version} {name}"
    return f"{earlier}, {own}" if earlier else own


def _hops(head: RequestHead, trusted: TrustedProxies) -> list[str]:
    """The way of the request, client first, peer last, as far as trusted proxies vouch for it.

    From the peer outwards: each trusted hop vouches for the entry on its left. An entry that is no address ends the
    walk, as does the first address nobody vouches further for.
    """
    way = [_canonical(head.peer)]
    if way[0] not in trusted:
        return way
    entries = ",".join(head.fields.get_all("x-forwarded-for")).split(",")
    while way[-1] in trusted and entries:
        address = _address(entries.pop().strip(" \t"))
        if address is None:
            break
        way.append(str(address))
    way.reverse()
    return way


@lru_cache(maxsize=1024)
def _canonical(peer: str) -> str:
    address = _address(peer)
    return peer if address is None else str(address)


@lru_cache(maxsize=1024)
def _address(text: str) -> IPv4Address | IPv6Address | None:
    """An address as proxies write it: with or without a port or brackets; zone ids and IPv4-mapping are undone."""
    parts = _HOP.fullmatch(text.partition("%")[0])
    if parts is None:
        return None
    try:
        address = ip_address(parts[1] or parts[2] or parts[3])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _forwarded_origin(
    head: RequestHead, external_scheme: str | None, external_host: str | None, *, believed: bool
) -> tuple[Pair, ...]:
    """X-Forwarded-Proto, -Host and -Port: as configured, else as a trusted peer says, else as this connection shows."""
    host = head.fields.get("host") or ""
    if not believed:
        shown = external_host or host
        state = _stated if len(shown) <= _LONGEST_HOST else _stated.__wrapped__
        return state(external_scheme or head.scheme, shown, "")
    scheme = _claimed(head, "x-forwarded-proto").lower()
    if external_scheme is not None or scheme not in _DEFAULT_PORT:
        scheme = external_scheme or head.scheme
    claimed = _claimed(head, "x-forwarded-host")
    said_port = "" if external_host is not None else _claimed(head, "x-forwarded-port")
    return _stated.__wrapped__(scheme, external_host or (claimed if _HOST.fullmatch(claimed) else host), said_port)


@lru_cache(maxsize=1024)
def _stated(scheme: str, host: str, said_port: str) -> tuple[Pair, ...]:
    parts = _HOST.fullmatch(host)
    own_port = (parts and parts[1]) or _DEFAULT_PORT.get(scheme, "")
    stated = (
        ("X-Forwarded-Proto", scheme),
        ("X-Forwarded-Host", host if parts else ""),
        ("X-Forwarded-Port", said_port if _PORT.fullmatch(said_port) else own_port),
    )
    return tuple(pair for pair in stated if pair[1])


def _claimed(head: RequestHead, name: str) -> str:
    """What a believed peer says; of a list its first entry, which is the one nearest to the client."""
    return (head.fields.combined(name) or "").partition(",")[0].strip(" \t")
