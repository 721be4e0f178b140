"""What is fuzzed: functions from bytes to nothing that hold laws by assertions. Used by libFuzzer and by Hypothesis.

A target never raises but by a broken law: what the code under it is allowed to raise is caught here, by name. Targets
know nothing of the engine; `run.py` drives them with coverage, `tests/fuzz` with the committed corpus and random bytes.
"""

from __future__ import annotations

import asyncio
import json
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import unquote

import jwt
from aiohttp import HttpVersion11
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser, HttpResponseParser, RawRequestMessage

from gateway.core import bearer, caching, conditional, dates, fields, proxy_protocol, ranges, structured
from gateway.core.cf_routes import CLOUD_FOUNDRY
from gateway.core.claims import ClaimPolicy
from gateway.core.errors import Denial, Reason
from gateway.core.etags import entity_tag
from gateway.core.forwarding import TrustedProxies, request_fields
from gateway.core.keys import CacheKey, accept_class, canonical_query, shareable_query
from gateway.core.links import Rewriter
from gateway.core.model import Fields, Principal, RequestHead, Target
from gateway.core.routes import Access
from gateway.core.structured_writer import serialize_list, serialize_member
from gateway.core.target import parse as parse_target
from gateway.edge.quick_heads import Caller, QuickHeads
from gateway.edge.receive import Limits, canonical
from gateway.identity.keys import KeyLoadError, KeySet, from_secret, parse_set
from gateway.identity.verifier import Verifier
from gateway.pipeline.decide import Fetch, FetchKeys, Policy, decide
from gateway.pipeline.entry import Entry
from gateway.pipeline.exchange import Exchange, Reply
from gateway.pipeline.ports import KeyUnknown, Rejected, Stamp
from gateway.settings import ConfigError, Settings, parse
from gateway.shared.seal import Sealer
from gateway.store.codec import PageCodec, Unusable
from gateway.store.memory import MemoryStore
from gateway.upstream import whole
from tests.core.test_links import API, PUBLIC, reference

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = 1_800_000_000.0
LONGEST = 4096  # bytes of the head of an answer
SECRET = b"a-secret-that-is-long-enough-for-any-of-the-hashes-and-their-tests"
_CLAIMS = {
    "jti": "1",
    "iss": "https://uaa.example.org/oauth/token",
    "user_id": "u",
    "scope": ["cloud_controller.read"],
    "aud": ["cloud_controller"],
    "exp": int(NOW) + 60,
}
TOKEN = jwt.encode(_CLAIMS, SECRET, "HS256")  # stands where an input says `$T`
_KEYS = KeySet((from_secret(SECRET),))
_CLAIM_POLICY = ClaimPolicy("https://uaa.example.org/oauth/token", frozenset({"cloud_controller"}))
_VERIFIER = Verifier(lambda: _KEYS, _CLAIM_POLICY, refetchable=True, max_token_bytes=16_384, memo_entries=10)
_POLICY = Policy(CLOUD_FOUNDRY, _VERIFIER, MemoryStore(max_bytes=1 << 20, max_entry_bytes=1 << 20))
_LIMITS = Limits(64 * 1024, 64 * 1024)
_LOOP = asyncio.new_event_loop()
_NOBODY = TrustedProxies(())
_HOP_BY_HOP = {"connection", "keep-alive", "proxy-authorization", "te", "trailer", "upgrade", "proxy-connection"}


def _messages(data: bytes) -> list[tuple[RawRequestMessage, object]] | None:
    """What aiohttp reads in these bytes; None where it refuses them."""
    parser = HttpRequestParser(
        BaseProtocol(_LOOP), _LOOP, 1 << 16, max_line_size=1 << 16, max_field_size=1 << 16, max_headers=256,
        auto_decompress=False,
    )  # fmt: skip
    try:
        messages, _upgraded, _rest = parser.feed_data(data)
    except (HttpProcessingError, ValueError):
        return None
    return list(messages)


def _head(message: RawRequestMessage, payload: object) -> RequestHead:
    pairs = ((name.decode("latin-1"), value.decode("utf-8", "surrogateescape")) for name, value in message.raw_headers)
    has_body = not getattr(payload, "is_eof", lambda: True)()
    return RequestHead(message.method, Target(message.path), Fields(pairs), "192.0.2.1", "http", has_body)


def head(data: bytes) -> None:
    """Bytes of a connection, read as a request, up to the decision about it, and on to what is forwarded."""
    data = data.replace(b"$T", TOKEN.encode())
    for message, payload in _messages(data) or ():
        try:
            asked = canonical(
                _head(message, payload), _LIMITS, strict_api=True, http_1_0=message.version < HttpVersion11
            )
        except Denial:
            continue
        assert parse_target(str(asked.target), strict_api=True) == asked.target
        exchange = Exchange(asked, request_id="id", received_at=NOW)
        outcome = decide(exchange, _POLICY, NOW)
        assert isinstance(outcome, Reply | Fetch | FetchKeys)
        _passes_rightly(exchange, outcome)
        if isinstance(outcome, Fetch):
            _forwards_safely(asked)


def _passes_rightly(exchange: Exchange, outcome: object) -> None:
    segments = [each for each in unquote(exchange.head.target.path).split("/") if each not in ("", ".")]
    if segments[:1] == ["internal"]:
        assert exchange.denied is Reason.DENIED_ROUTE
    row = exchange.route
    if isinstance(outcome, Fetch):
        assert row is not None
        assert row.access is not Access.DENY
        if row.access is Access.SCOPES and not row.lenient:
            assert exchange.principal is not None
            assert not row.scopes_any or exchange.principal.scopes & set(row.scopes_any)
    if exchange.key is not None and exchange.principal is not None:
        mine = {"public", "anonymous", exchange.principal.domain.id}
        assert exchange.key.domain in mine
    if exchange.principal is not None:
        assert TOKEN in (exchange.head.fields.get("authorization") or "")


def _forwards_safely(asked: RequestHead) -> None:
    sent = request_fields(
        asked, host="api.internal", via="gateway", trusted=_NOBODY, request_id="id", identity_encoding=True
    )
    assert sent.get_all("host") == ["api.internal"]
    assert sent.get_all("x-vcap-request-id") == ["id"]
    assert sent.get_all("authorization") == asked.fields.get_all("authorization") or "authorization" not in sent
    for name, value in sent:
        assert not set(value) & {"\r", "\n", "\0"}
        assert "_" not in name
        assert name.lower() not in _HOP_BY_HOP


def quick(data: bytes) -> None:
    """A head that the hit lane reads is what aiohttp reads in the same bytes, field by field, whatever it read before.

    The byte 30 separates segments that come one after another on one connection.
    """
    fresh, caller = QuickHeads(_LIMITS, strict_api=True, prefix=""), Caller("192.0.2.1", "http")
    long_known = Caller("192.0.2.1", "http")  # one reader each, for who reads with another one forgets
    for segment in data.replace(b"$T", TOKEN.encode()).split(b"\x1e"):
        readings = ((fresh, caller), (fresh, caller), (fresh, Caller("192.0.2.1", "http")), (_QUICK, long_known))
        for reader, whose in readings:
            found = reader.read(segment, whose)
            if found is not None:
                _ordinary_alike(segment, whose.head(found.decode()), found.decode())


def _ordinary_alike(segment: bytes, found: RequestHead, identity: str) -> None:
    messages = _messages(segment)
    assert messages is not None
    assert len(messages) == 1
    message, payload = messages[0]
    assert not message.should_close
    assert not message.upgrade
    assert not message.chunked
    ordinary = canonical(_head(message, payload), _LIMITS, strict_api=True)
    assert found == ordinary
    assert found.fields.get("authorization") == ordinary.fields.get("authorization")
    assert identity in {"", *(value for name, value in ordinary.fields if name.lower().endswith("request-id"))}


_QUICK = QuickHeads(_LIMITS, strict_api=True, prefix="")


def answer(data: bytes) -> None:
    """An answer that is read as a whole is what aiohttp reads in the same bytes, and nothing is left in its parser."""
    found = whole.read(data, LONGEST)
    if found is None:
        return
    parser = HttpResponseParser(
        BaseProtocol(_LOOP), _LOOP, 1 << 16, max_line_size=LONGEST, max_field_size=LONGEST, max_headers=LONGEST,
        auto_decompress=False,
    )  # fmt: skip
    ((message, payload),), upgraded, rest = parser.feed_data(data)
    assert (message.code, message.reason) == (found.head.status, found.head.reason)
    assert message.raw_headers == tuple((name.encode(), value.encode()) for name, value in found.head.fields)
    assert not (message.should_close or message.upgrade or message.chunked or upgraded or rest)
    body = found.in_hand()
    assert (payload.read_nowait() if body else b"") == body
    assert payload.is_eof()
    assert [len(more) for more in parser.feed_data(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")[:1]] == [1]


def target(data: bytes) -> None:
    """A request target in both readings: canonical once and for all, or refused."""
    raw = data.decode("utf-8", "surrogateescape")
    for strict in (True, False):
        try:
            found = parse_target(raw, strict_api=strict)
        except Denial as denial:
            assert raw not in denial.detail or len(raw) < 8
            continue
        assert found.path.startswith("/")
        assert parse_target(str(found), strict_api=strict) == found
        if found.path == "/v3/processes":
            assert strict or raw.partition("?")[0].partition("#")[0].endswith("/v3/processes")
    if shareable_query(raw):
        once = canonical_query(raw)
        assert canonical_query(once.removeprefix("?")) == once


def field_values(data: bytes) -> None:
    """HTTP field values, each as what it might be: read without a fault, and within bounds."""
    values = data.decode("latin-1").split("\n")
    for value in values:
        age = fields.age([value])
        assert age is None or age >= 0
        date = dates.http_date(value, NOW)
        assert date is None or dates.http_date(dates.format_date(date), NOW) == date
        fields.is_token(value)
        fields.unquote(value)
        fields.delta_seconds(value)
    fields.cache_control(values)
    fields.targeted(Fields(("CDN-Cache-Control", value) for value in values))
    assert all(fields.is_token(name) or name == "*" for name in fields.vary_names(values))
    fields.split_list(values)
    assert accept_class(values) is None or isinstance(accept_class(values), str)
    assert conditional.matching(values, ['"x"']) in {None, '"x"'}
    caching.request_directives(Fields(("Cache-Control", value) for value in values))
    chosen = ranges.select(values, 1000)
    if not isinstance(chosen, ranges.NoRange):
        for part in chosen:
            assert 0 <= part.first <= part.last < 1000
    if values and (tag := entity_tag(values[0])) is not None:
        assert entity_tag(str(tag)) == tag
    try:
        token = bearer.extract(values)
    except Denial as denial:
        assert denial.reason is Reason.INVALID_TOKEN
    else:
        assert token is None or not set(token) & {" ", "\t"}


def structured_fields(data: bytes) -> None:
    """RFC 9651: what is read and written again reads the same."""
    text = data.decode("latin-1")
    for read, write in (
        (lambda: structured.parse_item(text), serialize_member),
        (lambda: structured.parse_list([text]), serialize_list),
    ):
        try:
            value = read()
        except structured.StructuredFieldError:
            continue
        written = write(value)  # type: ignore[operator]
        again = structured.parse_item(written) if write is serialize_member else structured.parse_list([written])
        assert again == value
    try:
        members = structured.parse_dictionary([text])
    except structured.StructuredFieldError:
        return
    assert all(name == name.lower() for name in members)


_REWRITER = Rewriter([API], PUBLIC)


def links(data: bytes) -> None:
    """Rewriting is what the reference says, and done once."""
    data = data.replace(b"$A", API.encode())
    changed = _REWRITER.rewrite(data)
    try:
        expected = reference(data)
    except RecursionError:
        return
    assert changed == expected
    assert _REWRITER.rewrite(changed) == changed


def jwks(data: bytes) -> None:
    """A document with keys: refused, or keys that are fit."""
    for symmetric in (False, True):
        try:
            keys = parse_set(data, allow_symmetric=symmetric)
        except KeyLoadError as error:
            assert len(str(error)) < 200
            continue
        named = [key.kid for key in keys.keys if key.kid is not None]
        assert len(set(named)) == len(named)
        for key in keys.keys:
            assert key.algorithms
            assert symmetric or not key.symmetric
            assert not any(key.verifies(name, b"x", b"x") for name in key.algorithms)
            if hasattr(key.material, "key_size") and "RS256" in key.algorithms:
                assert 2048 <= key.material.key_size <= 8192


def token(data: bytes) -> None:
    """A token: only the one that was signed makes a principal."""
    text = data.replace(b"$T", TOKEN.encode()).decode("utf-8", "surrogateescape")
    verdict = _VERIFIER.verify(text, NOW)
    if isinstance(verdict, Principal):
        assert text == TOKEN
        return
    assert isinstance(verdict, Rejected | KeyUnknown)
    if isinstance(verdict, Rejected):
        assert verdict.fault
        assert len(verdict.detail) < 200
    assert _VERIFIER.remembered(text, NOW) is None


def claims(data: bytes) -> None:
    """Claims that were signed: a principal, or a named fault, and no other end."""
    signed = jwt.api_jws.PyJWS().encode(data, SECRET, "HS256", {"typ": "JWT"})
    verdict = Verifier(lambda: _KEYS, _CLAIM_POLICY, refetchable=False, max_token_bytes=1 << 20, memo_entries=2).verify(
        signed, NOW
    )
    if isinstance(verdict, Principal):
        found = json.loads(data)
        assert found["iss"] == _CLAIMS["iss"]
        assert type(found["exp"]) is int
        assert found["exp"] > NOW
        assert not found["jti"].endswith("-r")
        assert verdict.id == (found.get("user_id") or found.get("client_id"))
        assert float(verdict.expires) > NOW
        verdict.domain.id.encode()
    else:
        assert isinstance(verdict, Rejected)


_CODEC = PageCodec(Sealer(b"k" * 32, "fuzz"))
_KEY = CacheKey("domain", "/v3/apps", "", "json")
_ENTRY = Entry(_KEY, Fields([("A", "b")]), b"{}", '"e"', NOW, NOW + 5, NOW + 5, NOW + 65, ("apps",))
_RECORD = _CODEC.encode(_ENTRY, b"rules", Stamp("epoch", 1)) or b""


def codec(data: bytes) -> None:
    """A record of a shared store: only what was sealed for its key is a page; sealed garbage is none."""
    found = _CODEC.decode(_KEY, b"rules", data.replace(b"$R", _RECORD), NOW)
    if not isinstance(found, Unusable):
        assert data == b"$R"
        assert found[0] == _ENTRY
    sealed = Sealer(b"k" * 32, "fuzz").seal(b"pagerules", _KEY.encode(), data)
    inside = _CODEC.decode(_KEY, b"rules", sealed, NOW)
    if not isinstance(inside, Unusable):
        assert inside[0].key == _KEY
        assert inside[0].stored_at <= NOW


def proxy(data: bytes) -> None:
    """A PROXY header (v1, v2): a header with an address that is one, a wish for more bytes, none, or an error."""
    try:
        found = proxy_protocol.parse(data)
    except proxy_protocol.ProxyError:
        return
    if found is None:
        return
    if isinstance(found, int):
        assert len(data) < found <= proxy_protocol.LARGEST
        return
    assert 0 < found.length <= min(len(data), proxy_protocol.LARGEST)
    if found.source is not None:
        ip_address(found.source)
    again = proxy_protocol.parse(data[: found.length] + b"GET / HTTP/1.1")
    assert again == found, "what comes behind it has no say"


_SECRET_IN_SETTINGS = "canary5e7c-canary5e7c-canary5e7c-canary5e7c"


def settings(data: bytes) -> None:
    """A settings file: settings, or every fault it has, without the secrets of its environment."""
    began = time.perf_counter()
    try:
        found = parse(data, {"SECRET": _SECRET_IN_SETTINGS, "PORT": "8080"})
    except ConfigError as error:
        assert error.faults
        assert all(fault.expected for fault in error.faults)
        assert "\x1b" not in str(error)
    else:
        assert isinstance(found, Settings)
        assert _SECRET_IN_SETTINGS not in repr(found)
        json.dumps(found.redacted())
        found.route_rows()
    assert time.perf_counter() - began < 5


TARGETS: dict[str, Callable[[bytes], None]] = {
    "head": head,
    "quick": quick,
    "answer": answer,
    "target": target,
    "fields": field_values,
    "structured": structured_fields,
    "links": links,
    "jwks": jwks,
    "token": token,
    "claims": claims,
    "codec": codec,
    "proxy": proxy,
    "settings": settings,
}
