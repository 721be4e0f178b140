"""Raw requests and what becomes of them: the verdict on every ambiguity of a message, as a table.

`test_framing.py` sends each over a real socket to a real gateway before a recording upstream;
`python -m tests.edge.framing_cases > docs/framing.md` writes the page. The rule behind the rows: a message that two
recipients could read differently is answered 400 and the connection closes; what can be read in one way only is
forwarded, and then the request line is byte for byte what was authorised.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

HOST = b"Host: api.example.org\r\n"


@dataclass(frozen=True, slots=True)
class Case:
    """One row.

    Attributes:
        id: names the RFC section, the advisory or the thing.
        sent: all bytes, as one piece.
        reason: why the verdict is what it is.
        statuses: of the answers, in order.
        closes: whether the connection ends after them.
        forwarded: the requests that reach the controller: "METHOD target", and after an empty line the content.
        fields: what the last of them carries; None for a field that must not arrive.
        generic: whether the gateway reads targets generically (`route_table: none`), else as the Cloud Controller.
    """

    id: str
    sent: bytes
    reason: str
    statuses: tuple[int, ...] = (400,)
    closes: bool = True
    forwarded: tuple[bytes, ...] = ()
    fields: tuple[tuple[str, str | None], ...] = ()
    generic: bool = False


def get(target: bytes = b"/staging/x", *lines: bytes, host: bytes = HOST, version: bytes = b"HTTP/1.1") -> bytes:
    """A GET with these field lines."""
    return b"GET %s %s\r\n%s%s\r\n" % (target, version, host, b"".join(line + b"\r\n" for line in lines))


def post(*lines: bytes, body: bytes = b"", version: bytes = b"HTTP/1.1") -> bytes:
    """A POST with these field lines and this content."""
    return b"POST /staging/x %s\r\n%s%s\r\n%s" % (version, HOST, b"".join(line + b"\r\n" for line in lines), body)


def chunked(body: bytes, *lines: bytes) -> bytes:
    """A chunked POST whose content is written as it is."""
    return post(b"Transfer-Encoding: chunked", *lines, body=body)


def refused(name: str, sent: bytes, reason: str, status: int = 400) -> Case:
    """One answer, a close, and nothing of it reaches the controller."""
    return Case(name, sent, reason, (status,))


def passed(
    name: str,
    sent: bytes,
    reason: str,
    forwarded: bytes = b"GET /staging/x",
    *,
    fields: tuple[tuple[str, str | None], ...] = (),
    closes: bool = False,
    generic: bool = False,
) -> Case:
    """Forwarded as one request and answered 200."""
    return Case(name, sent, reason, (200,), closes, (forwarded,), fields, generic)


def dropped(name: str, line: bytes, reason: str, *gone: str, kept: tuple[tuple[str, str | None], ...] = ()) -> Case:
    """A request that passes without some of its fields."""
    return passed(name, get(b"/staging/x", *line.split(b"\n")), reason, fields=(*((one, None) for one in gone), *kept))


POSTED = b"POST /staging/x\r\n\r\n"
SMUGGLED = b"GET /staging/smuggled HTTP/1.1\r\n" + HOST + b"\r\n"

_LINE = (
    passed("plain", get(), "nothing is odd about it"),
    passed("RFC9112-2.2-CRLF-before-the-line", b"\r\n" + get(), "an empty line before a request line is ignored"),
    passed("RFC9112-2.2-many-CRLFs-before-the-line", b"\r\n" * 20 + get(), "likewise, however many"),
    refused("RFC9112-2.2-bare-LF-line", get().replace(b"HTTP/1.1\r\n", b"HTTP/1.1\n", 1), "LF alone ends no line"),
    refused("RFC9112-2.2-bare-LF-everywhere", get().replace(b"\r\n", b"\n"), "LF alone ends no line"),
    refused("RFC9112-2.2-bare-CR-line", get().replace(b"HTTP/1.1\r\n", b"HTTP/1.1\r", 1), "CR alone ends no line"),
    refused("RFC9112-2.2-CR-CR-LF", get().replace(b"HTTP/1.1\r\n", b"HTTP/1.1\r\r\n", 1), "CR alone is no space"),
    refused("RFC9112-2.2-space-before-the-line", b" " + get(), "the line begins with the method"),
    refused("RFC9112-2.2-space-before-the-first-field", get().replace(b"Host", b" Host", 1), "no line is continued"),
    passed("RFC9112-3-two-spaces", get().replace(b"GET /", b"GET  /", 1), "read in one way, forwarded with one space"),
    refused("RFC9112-3-tab-for-space", get().replace(b"GET /", b"GET\t/", 1), "one space, no other blank"),
    passed("RFC9112-3-two-spaces-before-version", get().replace(b" HTTP", b"  HTTP", 1), "likewise"),
    refused("RFC9112-3-space-after-version", get().replace(b"1.1\r", b"1.1 \r", 1), "nothing follows the version"),
    refused("RFC9112-3-four-words", get(b"/staging/x /staging/y"), "a target has no space"),
    refused("RFC9112-3-vertical-tab", get().replace(b"GET /", b"GET\x0b/", 1), "one space, no other blank"),
    refused("RFC9112-3-no-target", b"GET HTTP/1.1\r\n" + HOST + b"\r\n", "three words"),
    refused("HTTP-0.9", b"GET /staging/x\r\n\r\n", "HTTP/0.9 has no framing and no fields"),
    refused("HTTP-0.9-one-line", b"GET /staging/x\r\n" + HOST + b"\r\n", "a line without version is HTTP/0.9"),
    refused("HTTP-2.0-line", get(version=b"HTTP/2.0"), "not a version that is written like this"),
    refused("HTTP-2-preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/2 is not spoken here"),
    refused("HTTP-1.2-line", get(version=b"HTTP/1.2"), "there is no such version"),
    refused("HTTP-1.10-line", get(version=b"HTTP/1.10"), "one digit on each side"),
    refused("HTTP-01.1-line", get(version=b"HTTP/01.1"), "one digit on each side"),
    refused("HTTP-1.1.1-line", get(version=b"HTTP/1.1.1"), "one digit on each side"),
    refused("HTTP-comma-line", get(version=b"HTTP/1,1"), "a dot between the digits"),
    refused("http-lower-case-line", get(version=b"http/1.1"), "HTTP is written in capitals"),
    refused("HTTQ-line", get(version=b"HTTQ/1.1"), "another protocol"),
    refused("ICAP-line", get(version=b"ICAP/1.0"), "another protocol"),
    passed("RTSP-line", get(version=b"RTSP/1.0"), "read as HTTP/1.0, forwarded as HTTP/1.1", closes=True),
    refused("controller.md-4-lower-case-method", get().replace(b"GET", b"get", 1), "methods are case-sensitive"),
    refused("mixed-case-method", get().replace(b"GET", b"Get", 1), "methods are case-sensitive"),
    refused("method-not-a-token", get().replace(b"GET", b"G@T", 1), "a method is a token"),
    refused("empty-method", get().replace(b"GET", b"", 1), "a method is a token"),
    refused("long-method", get().replace(b"GET", b"G" * 3000, 1), "no such method"),
    refused("CONNECT-authority", b"CONNECT api.example.org:443 HTTP/1.1\r\n" + HOST + b"\r\n", "no tunnels"),
    refused("CONNECT-origin-form", get().replace(b"GET", b"CONNECT", 1), "no tunnels"),
    refused("garbage", b"\x00\x01\x02\x03garbage\r\n\r\n", "not HTTP"),
    refused("TLS-hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64), "not HTTP"),
    refused("SSH-banner", b"SSH-2.0-OpenSSH_9.6\r\n", "not HTTP"),
    refused("PROXY-header", b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + get(), "not from a trusted peer"),
    refused("line-of-80-KB", get(b"/staging/x?" + b"a" * 80_000), "limits.max_line_bytes", 431),
    passed("line-of-32-KB", get(b"/staging/x?" + b"a" * 32_768), "lines of real clients pass",
           b"GET /staging/x?" + b"a" * 32_768),
)  # fmt: skip

_TARGET = (
    refused("OPTIONS-asterisk", b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", "asks about the gateway, which has none"),
    refused("GET-asterisk", get(b"*"), "asterisk-form is for OPTIONS"),
    refused("RFC9112-3.2.3-authority-form", get(b"api.example.org:443"), "authority-form is for CONNECT"),
    refused("relative-target", get(b"staging/x"), "a path begins with a slash"),
    refused("empty-authority", get(b"http:///staging/x"), "absolute-form has an authority"),
    refused("other-scheme", get(b"ftp://a/staging/x"), "http and https only"),
    refused("javascript-scheme", get(b"javascript:alert(1)"), "http and https only"),
    refused("RFC9110-4.2.4-userinfo", get(b"http://u:p@a/staging/x"), "userinfo hides where a URL leads"),
    refused("authority-with-backslash", get(b"http://a\\@b/staging/x"), "read in two ways"),
    refused("authority-with-space", get(b"http://a b/staging/x"), "a target has no space"),
    passed("RFC9112-3.2.2-absolute-form", get(b"http://evil.example.org/staging/x?a=1"),
           "where it goes was decided by the connection", b"GET /staging/x?a=1",
           fields=(("host", "api.internal.example.org"), ("x-forwarded-host", "api.example.org"))),
    passed("absolute-form-upper-case", get(b"HTTP://A/staging/x"), "schemes have no case"),
    refused("fragment", get(b"/staging/x#y"), "a fragment is never sent"),
    refused("backslash", get(b"/staging\\x"), "some origins read it as a slash"),
    refused("raw-NUL", get(b"/staging/x\0"), "no text in any reading"),
    refused("raw-DEL", get(b"/staging/x\x7f"), "no text in any reading"),
    refused("raw-tab", get(b"/staging/x\ty"), "no text in any reading"),
    refused("raw-ESC", get(b"/staging/\x1b[31m"), "no text in any reading"),
    refused("raw-UTF-8", get(b"/staging/\xc3\xa9"), "non-ASCII is encoded"),
    refused("raw-Latin-1", get(b"/staging/\xe9"), "non-ASCII is encoded"),
    refused("raw-UTF-8-in-query", get(b"/staging/x?a=\xc3\xa9"), "non-ASCII is encoded"),
    refused("raw-overlong-slash", get(b"/staging\xc0\xafx"), "non-ASCII is encoded"),
    refused("controller.md-4-raw-quotes", get(b'/staging/x?a="<>'), "the controller's parser refuses them"),
    refused("lone-percent", get(b"/staging/%"), "no encoding"),
    refused("half-an-escape", get(b"/staging/%7"), "no encoding"),
    refused("no-hexadecimal", get(b"/staging/%zz"), "no encoding"),
    refused("percent-u", get(b"/staging/%u002e"), "no encoding"),
    Case("CVE-2025-66490-encoded-slash", get(b"/staging%2Fx"), "404 as the controller answers it", (404,), False),
    Case("CVE-2025-66490-encoded-backslash", get(b"/staging%5Cx"), "404 as the controller answers it", (404,), False),
    Case("CVE-2025-66490-encoded-slash-behind-dots", get(b"/staging/..%2fv3/processes"), "404 likewise", (404,), False),
    Case("CVE-2025-66490-encoded-NUL", get(b"/staging/x%00"), "404 likewise", (404,), False),
    Case("encoded-CRLF", get(b"/staging/x%0d%0aX:y"), "404 likewise; nothing is reflected", (404,), False),
    Case("encoded-letter", get(b"/%73taging/x"), "404 likewise: a second spelling is a second name", (404,), False),
    Case("encoded-dot", get(b"/staging/%2e"), "404 likewise", (404,), False),
    Case("GHSA-6jwx-7vp4-9847-dot-segments", get(b"/staging/../v3/processes"), "404 likewise", (404,), False),
    Case("GHSA-6jwx-7vp4-9847-encoded-dot-segments", get(b"/staging/%2e%2e/v3/processes"), "404", (404,), False),
    Case("half-encoded-dot-segment", get(b"/staging/.%2e/v3"), "404 likewise", (404,), False),
    Case("dot-segment-with-parameter", get(b"/staging/..;/v3"), "404 likewise", (404,), False),
    Case("single-dot-segment", get(b"/staging/./x"), "404 likewise", (404,), False),
    Case("dot-segment-at-the-end", get(b"/staging/.."), "404 likewise", (404,), False),
    Case("VSV00018-dots-behind-an-authority", get(b"http://a/../v3/processes"), "404 likewise", (404,), False),
    passed("slashes", get(b"//staging///x/"), "one spelling, as the controller reads it"),
    passed("slashes-in-absolute-form", get(b"http://a//staging//x"), "likewise"),
    passed("double-encoded-slash", get(b"/staging/x%252fy"), "decoded by nobody, forwarded as it came",
           b"GET /staging/x%252fy"),
    passed("double-encoded-dots", get(b"/staging/%252e%252e/x"), "likewise", b"GET /staging/%252e%252e/x"),
    passed("encoded-non-ASCII", get(b"/staging/caf%C3%A9"), "needed encoding stays", b"GET /staging/caf%C3%A9"),
    passed("encoded-lower-case", get(b"/staging/caf%c3%a9"), "and its letters keep their case",
           b"GET /staging/caf%c3%a9"),
    passed("sub-delims", get(b"/staging/a@b:c!$&'()*+,;=~"), "forwarded as they came",
           b"GET /staging/a@b:c!$&'()*+,;=~"),
    passed("empty-query", get(b"/staging/x?"), "an empty query is none"),
    passed("query-of-queries", get(b"/staging/x?a=?&b=/../&c=%2e%2e%2f&d=%00&e=%"), "a query is not a path",
           b"GET /staging/x?a=?&b=/../&c=%2e%2e%2f&d=%00&e=%"),
    passed("query-with-brackets", get(b"/staging/x?a[]=1&b={}|^`\\"), "forwarded as it came",
           b"GET /staging/x?a[]=1&b={}|^`\\"),
    passed("generic-encoded-slash", get(b"/a%2Fb"), "a name at another origin", b"GET /a%2Fb", generic=True),
    passed("generic-slashes", get(b"//a//b/"), "names at another origin", b"GET //a//b/", generic=True),
    passed("generic-needless-encoding", get(b"/%61"), "forwarded as it came", b"GET /%61", generic=True),
    passed("generic-double-encoding", get(b"/%252e%252e%252fb"), "likewise", b"GET /%252e%252e%252fb", generic=True),
    Case("generic-dot-segments", get(b"/a/../b"), "origins resolve them", generic=True),
    Case("generic-encoded-dot-segments", get(b"/a/%2e%2E/b"), "origins decode and resolve them", generic=True),
    Case("generic-dots-between-encoded-slashes", get(b"/a%2f..%2fb"), "origins decode and resolve them", generic=True),
    Case("generic-dots-with-parameter", get(b"/a/..;x/b"), "some origins strip the parameter", generic=True),
    Case("generic-encoded-NUL", get(b"/a%00b"), "ends the name for some origins", generic=True),
    Case("generic-encoded-CRLF", get(b"/a%0d%0ab"), "splits a line for some origins", generic=True),
    Case("generic-backslash", get(b"/a\\..\\b"), "some origins read it as a slash", generic=True),
)  # fmt: skip


def _host(name: str, value: bytes, reason: str) -> Case:
    return refused(name, get(host=b"Host: " + value + b"\r\n"), reason)


_HOST = (
    refused("RFC9112-3.2-no-host", get(host=b""), "exactly one"),
    refused("RFC9112-3.2-two-hosts", get(host=HOST + HOST), "exactly one"),
    refused("RFC9112-3.2-two-different-hosts", get(host=b"Host: a\r\nHost: b\r\n"), "exactly one"),
    refused("two-hosts-apart", get(b"/staging/x", b"X: 1", b"host: b"), "exactly one, in any case and place"),
    _host("empty-host", b"", "names nobody"),
    _host("host-with-path", b"a/b", "a name and a port only"),
    _host("host-with-scheme", b"http://a", "a name and a port only"),
    _host("host-with-userinfo", b"user@a", "a name and a port only"),
    _host("host-with-query", b"a?b", "a name and a port only"),
    _host("host-with-fragment", b"a#b", "a name and a port only"),
    _host("host-comma-list", b"a, b", "one name"),
    _host("host-with-space", b"a b", "one name"),
    _host("host-with-tab", b"a\tb", "one name"),
    _host("host-with-backslash", b"a\\b", "one name"),
    _host("host-with-percent", b"a%2fb", "a decoded name would be another"),
    _host("host-non-ASCII", "bücher.example".encode(), "names are ASCII on the wire"),
    _host("host-with-quote", b'a"b', "would break out where it is quoted"),
    _host("host-with-markup", b"<script>", "would break out where it is reflected"),
    _host("host-with-odd-port", b"a:port", "a port is a number"),
    _host("host-with-signed-port", b"a:-1", "a port is a number"),
    _host("host-with-two-ports", b"a:80:81", "one port"),
    _host("host-with-huge-port", b"a:99999", "a port has 16 bits"),
    _host("host-with-empty-port", b"a:", "a port is a number"),
    _host("host-only-port", b":80", "names nobody"),
    _host("host-open-bracket", b"[::1", "no address"),
    _host("host-long", b"a" * 3000, "no name is so long"),
    passed("host-IPv6", get(host=b"Host: [2001:db8::1]:8443\r\n"), "an address",
           fields=(("x-forwarded-host", "[2001:db8::1]:8443"), ("x-forwarded-port", "8443"))),
    passed("host-trailing-dot", get(host=b"Host: api.example.org.\r\n"), "a name"),
    passed("CVE-2026-2836-host-is-not-trusted", get(host=b"Host: evil.example.org\r\n"),
           "any Host is answered alike: the controller is asked with the configured one, and no key, link or page "
           "depends on the client's", fields=(("host", "api.internal.example.org"),)),
    passed("HTTP-1.0-without-host", get(host=b"", version=b"HTTP/1.0"), "HTTP/1.0 has none", closes=True),
)  # fmt: skip

_FIELDS = (
    refused("RFC9112-5.1-space-before-colon", get(b"/staging/x", b"X-A : 1"), "names end at the colon"),
    refused("RFC9112-5.1-tab-before-colon", get(b"/staging/x", b"X-A\t: 1"), "names end at the colon"),
    refused("space-before-colon-of-length", post(b"Content-Length : 5", body=b"hello"), "names end at the colon"),
    refused("space-before-colon-of-coding", post(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n"), "likewise"),
    refused("space-in-field-name", get(b"/staging/x", b"X A: 1"), "a name is a token"),
    refused("empty-field-name", get(b"/staging/x", b": 1"), "a name is a token"),
    refused("no-colon", get(b"/staging/x", b"X-A"), "a field has a colon"),
    refused("NUL-in-field-name", get(b"/staging/x", b"X\0A: 1"), "a name is a token"),
    refused("non-ASCII-in-field-name", get(b"/staging/x", b"X-\xc3\xa9: 1"), "a name is a token"),
    refused("bracket-in-field-name", get(b"/staging/x", b"X(A): 1"), "a name is a token"),
    refused("control-in-field-name", get(b"/staging/x", b"\x01X: 1"), "a name is a token"),
    refused("RFC9112-5.2-obs-fold", get(b"/staging/x", b"X-A: 1\r\n  folded"), "lines are not continued"),
    refused("RFC9112-5.2-obs-fold-tab", get(b"/staging/x", b"X-A: 1\r\n\tfolded"), "lines are not continued"),
    refused("obs-fold-empty", get(b"/staging/x", b"X-A:\r\n "), "lines are not continued"),
    refused("bare-LF-field", get(host=b"Host: a\n"), "LF alone ends no line"),
    refused("bare-LF-in-value", get(b"/staging/x", b"X-A: 1\nX-B: 2"), "LF alone ends no line"),
    refused("bare-CR-in-value", get(b"/staging/x", b"X-A: a\rb"), "CR alone is no space"),
    refused("bare-CR-before-field", get(b"/staging/x", b"\rX-A: a"), "CR alone is no space"),
    refused("CR-CR-LF-at-the-end", get()[:-2] + b"\r\r\n", "CR alone ends nothing"),
    refused("bare-LF-at-the-end", get()[:-2] + b"\n", "LF alone ends no head"),
    refused("NUL-in-value", get(b"/staging/x", b"X-A: a\0b"), "no text in any reading"),
    refused("control-in-value", get(b"/staging/x", b"X-A: a\x01b"), "no text in any reading"),
    refused("ESC-in-value", get(b"/staging/x", b"X-A: \x1b[31m"), "no text in any reading"),
    refused("DEL-in-value", get(b"/staging/x", b"X-A: a\x7fb"), "no text in any reading"),
    refused("undecodable-value", get(b"/staging/x", b"X-A: \xff\xfe"), "could not be forwarded as it came"),
    passed("UTF-8-value", get(b"/staging/x", b"X-A: \xc3\xa9"), "obs-text is forwarded as it came",
           fields=(("x-a", "\xc3\xa9"),)),
    passed("empty-value", get(b"/staging/x", b"X-A:"), "a value may be empty", fields=(("x-a", ""),)),
    passed("space-around-value", get(b"/staging/x", b"X-A: \t 1 \t "), "no part of the value", fields=(("x-a", "1"),)),
    refused("RFC6585-5-field-of-80-KB", get(b"/staging/x", b"X: " + b"a" * 80_000), "limits.max_header_bytes", 431),
    refused("RFC6585-5-name-of-80-KB", get(b"/staging/x", b"a" * 80_000 + b": 1"), "limits.max_header_bytes", 431),
    refused("RFC6585-5-fields-of-72-KB", get(b"/staging/x", *(b"X-%d: %s" % (n, b"a" * 8000) for n in range(9))),
            "limits.max_header_bytes", 431),
    refused("RFC6585-5-1000-fields", get(b"/staging/x", *(b"X-%d: 1" % n for n in range(1000))),
            "limits.max_header_count", 431),
    refused("two-content-types", post(b"Content-Type: a/b", b"Content-Type: c/d", b"Content-Length: 0"),
            "which of them counts differs between recipients"),
    Case("two-authorizations", get(b"/v3/apps", b"Authorization: bearer a", b"Authorization: bearer b"),
         "two tokens are no token", (401,), False),
)  # fmt: skip

_LENGTH = (
    passed("RFC9112-6.2-length", post(b"Content-Length: 5", body=b"hello"), "plain", POSTED + b"hello"),
    passed("length-0", post(b"Content-Length: 0"), "no content", b"POST /staging/x"),
    passed("length-with-blanks", post(b"Content-Length: \t5 ", body=b"hello"), "blanks are no part of a value",
           POSTED + b"hello"),
    passed("length-on-GET", get(b"/staging/x", b"Content-Length: 5") + b"hello", "content is read, so none is left",
           b"GET /staging/x\r\n\r\nhello"),
    refused("RFC9112-6.3-two-lengths", post(b"Content-Length: 3", b"Content-Length: 4", body=b"abcd"), "exactly one"),
    refused("RFC9112-6.3-two-equal-lengths", post(b"Content-Length: 3", b"Content-Length: 3", body=b"abc"),
            "exactly one"),
    refused("RFC9112-6.3-length-list", post(b"Content-Length: 3, 4", body=b"abcd"), "a number"),
    refused("RFC9112-6.3-equal-length-list", post(b"Content-Length: 3, 3", body=b"abc"), "a number"),
    refused("length-trailing-comma", post(b"Content-Length: 3,", body=b"abc"), "a number"),
    refused("length-negative", post(b"Content-Length: -1"), "digits only"),
    refused("length-signed", post(b"Content-Length: +1", body=b"a"), "digits only"),
    refused("length-hex", post(b"Content-Length: 0x1", body=b"a"), "digits only"),
    refused("length-exponent", post(b"Content-Length: 1e1", body=b"a" * 10), "digits only"),
    refused("length-decimal", post(b"Content-Length: 1.0", body=b"a"), "digits only"),
    refused("length-underscore", post(b"Content-Length: 1_0", body=b"a" * 10), "digits only"),
    refused("length-with-inner-space", post(b"Content-Length: 1 0", body=b"a" * 10), "one number"),
    refused("length-empty", post(b"Content-Length:"), "a number"),
    refused("length-text", post(b"Content-Length: five", body=b"hello"), "digits only"),
    refused("length-quoted", post(b'Content-Length: "5"', body=b"hello"), "digits only"),
    refused("length-vertical-tab", post(b"Content-Length: \x0b5", body=b"hello"), "digits only"),
    refused("length-arabic-digits", post("Content-Length: \u0665".encode(), body=b"hello"), "ASCII digits only"),
    refused("length-overflow", post(b"Content-Length: " + b"9" * 30), "more than 64 bits"),
    refused("length-2-to-64", post(b"Content-Length: 18446744073709551616"), "more than 64 bits"),
    refused("length-2-to-64-less-1", post(b"Content-Length: 18446744073709551615"), "means endless to a parser"),
    refused("length-leading-zeros", post(b"Content-Length: 005", body=b"hello"), "octal to some"),
    refused("length-of-a-line-more", post(b"Content-Length: 5\r\n 0", body=b"hello"), "lines are not continued"),
    passed("CVE-2025-64484-underscore-length", post(b"Content_Length: 5", b"Content-Length: 0"),
           "a twin for CGI-like origins, dropped", b"POST /staging/x", fields=(("content_length", None),)),
)  # fmt: skip

_CODING = (
    passed("RFC9112-7.1-chunked", chunked(b"5\r\nhello\r\n0\r\n\r\n"), "plain", POSTED + b"hello"),
    passed("coding-mixed-case", post(b"Transfer-Encoding: cHuNkEd", body=b"5\r\nhello\r\n0\r\n\r\n"),
           "codings have no case", POSTED + b"hello"),
    passed("coding-with-blanks", post(b"Transfer-Encoding: \tchunked ", body=b"5\r\nhello\r\n0\r\n\r\n"),
           "blanks are no part of a value", POSTED + b"hello"),
    passed("chunked-GET", get(b"/staging/x", b"Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n",
           "content is read, so none is left", b"GET /staging/x\r\n\r\nhello"),
    refused("RFC9112-6.1-CL-and-TE", post(b"Content-Length: 3", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
            "one framing"),
    refused("RFC9112-6.1-TE-and-CL", post(b"Transfer-Encoding: chunked", b"Content-Length: 3", body=b"0\r\n\r\n"),
            "one framing"),
    refused("RFC9112-6.1-CL-0-and-TE", post(b"Content-Length: 0", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
            "one framing"),
    refused("smuggling-CL.TE", post(b"Content-Length: 4", b"Transfer-Encoding: chunked",
                                    body=b"0\r\n\r\n" + SMUGGLED), "one framing"),
    refused("smuggling-TE.CL", post(b"Transfer-Encoding: chunked", b"Content-Length: 4",
                                    body=b"40\r\n" + SMUGGLED + b"\r\n0\r\n\r\n"), "one framing"),
    refused("smuggling-TE.TE", post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: x",
                                    body=b"0\r\n\r\n" + SMUGGLED), "chunked last, and once"),
    refused("smuggling-TE.TE-first", post(b"Transfer-Encoding: x", b"Transfer-Encoding: chunked",
                                          body=b"0\r\n\r\n" + SMUGGLED), "no coding but chunked"),
    refused("RFC9112-6.1-not-chunked", post(b"Transfer-Encoding: gzip", body=b"abc"), "has no end"),
    refused("RFC9112-6.1-chunked-not-last", post(b"Transfer-Encoding: chunked, gzip", body=b"0\r\n\r\n"), "has no end"),
    refused("RFC9112-6.1-gzip-chunked", post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
            "no coding but chunked"),
    refused("RFC9112-6.1-chunked-twice", post(*([b"Transfer-Encoding: chunked"] * 2), body=b"0\r\n\r\n"), "once"),
    refused("RFC9112-6.1-chunked-chunked", post(b"Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n"), "once"),
    refused("coding-identity", post(b"Transfer-Encoding: identity", body=b"abc"), "abolished, and no framing"),
    refused("coding-identity-chunked", post(b"Transfer-Encoding: identity, chunked", body=b"0\r\n\r\n"), "likewise"),
    refused("coding-identity-with-length", post(b"Transfer-Encoding: identity", b"Content-Length: 3", body=b"abc"),
            "one framing"),
    refused("coding-empty", post(b"Transfer-Encoding:", body=SMUGGLED), "no framing"),
    refused("coding-empty-with-length", post(b"Transfer-Encoding:", b"Content-Length: 0"), "one framing"),
    refused("coding-trailing-comma", post(b"Transfer-Encoding: chunked,", body=b"0\r\n\r\n"), "just the word chunked"),
    refused("coding-leading-comma", post(b"Transfer-Encoding: ,chunked", body=b"0\r\n\r\n"), "just the word chunked"),
    refused("coding-parameter", post(b"Transfer-Encoding: chunked;q=1", body=b"0\r\n\r\n"), "just the word chunked"),
    refused("coding-quoted", post(b'Transfer-Encoding: "chunked"', body=b"0\r\n\r\n"), "just the word chunked"),
    refused("coding-prefix", post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n"), "just the word chunked"),
    refused("coding-suffix", post(b"Transfer-Encoding: chunkedx", body=b"0\r\n\r\n"), "just the word chunked"),
    refused("coding-split", post(b"Transfer-Encoding: chun ked", body=b"0\r\n\r\n"), "just the word chunked"),
    refused("coding-vertical-tab", post(b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n"), "no blank"),
    refused("coding-form-feed", post(b"Transfer-Encoding: chunked\x0c", body=b"0\r\n\r\n"), "no blank"),
    refused("coding-NUL", post(b"Transfer-Encoding: chunked\0", body=b"0\r\n\r\n"), "no text in any reading"),
    refused("coding-no-break-space", post(b"Transfer-Encoding: \xc2\xa0chunked", body=b"0\r\n\r\n"), "no blank"),
    refused("coding-obs-fold", post(b"Transfer-Encoding:\r\n chunked", body=b"0\r\n\r\n"), "lines are not continued"),
    refused("coding-obs-fold-behind", post(b"Transfer-Encoding: chunked\r\n , x", body=b"0\r\n\r\n"), "likewise"),
    refused("coding-in-HTTP-1.0", post(b"Transfer-Encoding: chunked", body=b"0\r\n\r\n", version=b"HTTP/1.0"),
            "HTTP/1.0 has none (RFC 9112 §6.1)"),
    passed("CVE-2025-64484-underscore-coding", post(b"Transfer_Encoding: chunked", b"Content-Length: 5",
           body=b"hello"), "a twin for CGI-like origins, dropped", POSTED + b"hello",
           fields=(("transfer_encoding", None),)),
)  # fmt: skip


def _bad_chunk(name: str, body: bytes, reason: str) -> Case:
    return refused(name, chunked(body), reason)


_CHUNKS = (
    passed("RFC9112-7.1.1-extension", chunked(b"5;a=b\r\nhello\r\n0\r\n\r\n"), "ignored", POSTED + b"hello"),
    passed("RFC9112-7.1.1-quoted-extension", chunked(b'5;a="b;c"\r\nhello\r\n0\r\n\r\n'), "ignored",
           POSTED + b"hello"),
    passed("extension-of-the-last-chunk", chunked(b"5\r\nhello\r\n0;a=b\r\n\r\n"), "ignored", POSTED + b"hello",
           closes=True),
    passed("chunk-size-upper-case", chunked(b"A\r\nhellohello\r\n0\r\n\r\n"), "hexadecimal", POSTED + b"hellohello"),
    passed("chunk-size-zeros", chunked(b"0005\r\nhello\r\n0\r\n\r\n"), "hexadecimal", POSTED + b"hello"),
    passed("last-chunk-zeros", chunked(b"5\r\nhello\r\n000\r\n\r\n"), "hexadecimal", POSTED + b"hello", closes=True),
    passed("chunks-many", chunked(b"1\r\nx\r\n" * 200 + b"0\r\n\r\n"), "content is what they say", POSTED + b"x" * 200),
    _bad_chunk("chunk-size-empty", b"\r\nhello\r\n0\r\n\r\n", "a size has digits"),
    _bad_chunk("chunk-size-only-extension", b";a\r\nhello\r\n0\r\n\r\n", "a size has digits"),
    _bad_chunk("chunk-size-text", b"xyz\r\nabc\r\n0\r\n\r\n", "hexadecimal digits"),
    _bad_chunk("chunk-size-negative", b"-5\r\nhello\r\n0\r\n\r\n", "hexadecimal digits"),
    _bad_chunk("chunk-size-signed", b"+5\r\nhello\r\n0\r\n\r\n", "hexadecimal digits"),
    _bad_chunk("chunk-size-prefixed", b"0x5\r\nhello\r\n0\r\n\r\n", "hexadecimal digits"),
    _bad_chunk("chunk-size-underscore", b"1_0\r\n" + b"a" * 16 + b"\r\n0\r\n\r\n", "hexadecimal digits"),
    _bad_chunk("chunk-size-overflow", b"fffffffffffffffff\r\nhello", "more than 64 bits"),
    _bad_chunk("chunk-size-leading-space", b" 5\r\nhello\r\n0\r\n\r\n", "no blanks"),
    _bad_chunk("chunk-size-trailing-space", b"5 \r\nhello\r\n0\r\n\r\n", "no blanks"),
    _bad_chunk("chunk-size-trailing-tab", b"5\t\r\nhello\r\n0\r\n\r\n", "no blanks"),
    _bad_chunk("chunk-size-bare-LF", b"5\nhello\r\n0\r\n\r\n", "LF alone ends no line"),
    _bad_chunk("chunk-size-bare-CR", b"5\rhello\r\n0\r\n\r\n", "CR alone ends no line"),
    _bad_chunk("chunk-extension-bare-LF", b"5;a\nhello\r\n0\r\n\r\n", "LF alone ends no line"),
    _bad_chunk("chunk-extension-bare-CR", b"5;a\rb\r\nhello\r\n0\r\n\r\n", "CR alone is no space"),
    _bad_chunk("chunk-extension-NUL", b"5;a\0b\r\nhello\r\n0\r\n\r\n", "no text in any reading"),
    _bad_chunk("chunk-extension-LF-in-quotes", b'5;a="\n"\r\nhello\r\n0\r\n\r\n', "LF alone ends no line"),
    passed("chunk-extension-of-80-KB", chunked(b"5;" + b"a" * 80_000 + b"\r\nhello\r\n0\r\n\r\n"),
           "ignored and not kept; one that never ends is content that stands still (408)", POSTED + b"hello"),
    _bad_chunk("chunk-longer-than-said", b"3\r\nhello\r\n0\r\n\r\n", "content ends where it says"),
    _bad_chunk("chunk-without-CRLF", b"5\r\nhello0\r\n\r\n", "a chunk ends with CRLF"),
    _bad_chunk("chunk-bare-LF-behind", b"5\r\nhello\n0\r\n\r\n", "a chunk ends with CRLF"),
    _bad_chunk("last-chunk-bare-LF", b"5\r\nhello\r\n0\n\n", "LF alone ends no line"),
    passed("RFC9110-6.5-trailer", chunked(b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n", b"Trailer: X-Sum"),
           "read and dropped; the connection ends, for aiohttp's parser would give the field to the next request",
           POSTED + b"hello", fields=(("x-sum", None), ("trailer", None)), closes=True),
    passed("trailer-authorization", chunked(b"5\r\nhello\r\n0\r\nAuthorization: bearer x\r\n\r\n"),
           "no trailer becomes a field", POSTED + b"hello", fields=(("authorization", None),), closes=True),
    passed("trailer-host", chunked(b"5\r\nhello\r\n0\r\nHost: evil\r\n\r\n"), "likewise", POSTED + b"hello",
           fields=(("host", "api.internal.example.org"),), closes=True),
    passed("trailer-x-forwarded-for", chunked(b"5\r\nhello\r\n0\r\nX-Forwarded-For: 192.0.2.9\r\n\r\n"), "likewise",
           POSTED + b"hello", fields=(("x-forwarded-for", "127.0.0.1"),), closes=True),
    Case("trailer-is-no-field-of-the-next-request", chunked(b"0\r\nX-Evil: 1\r\n\r\n") + get(b"/staging/2"),
         "nothing is read behind a trailer", (200,), True, (b"POST /staging/x",)),
    _bad_chunk("trailer-content-length", b"5\r\nhello\r\n0\r\nContent-Length: 50\r\n\r\n", "no framing in a trailer"),
    _bad_chunk("trailer-transfer-encoding", b"5\r\nhello\r\n0\r\nTransfer-Encoding: x\r\n\r\n", "likewise"),
    _bad_chunk("trailer-obs-fold", b"5\r\nhello\r\n0\r\nX: 1\r\n 2\r\n\r\n", "lines are not continued"),
    _bad_chunk("trailer-NUL", b"5\r\nhello\r\n0\r\nX: \0\r\n\r\n", "no text in any reading"),
    _bad_chunk("trailer-no-colon", b"5\r\nhello\r\n0\r\nnonsense\r\n\r\n", "a field has a colon"),
    _bad_chunk("trailer-bare-LF", b"5\r\nhello\r\n0\r\nX: 1\n\r\n", "LF alone ends no line"),
    refused("trailer-many", chunked(b"5\r\nhello\r\n0\r\n" + b"X: 1\r\n" * 1000 + b"\r\n"),
            "limits.max_header_count", 431),
    refused("trailer-of-80-KB", chunked(b"5\r\nhello\r\n0\r\nX: " + b"a" * 80_000 + b"\r\n\r\n"),
            "limits.max_header_bytes", 431),
)  # fmt: skip

_SEQUENCE = (
    Case("pipelined", get(b"/staging/1") + get(b"/staging/2"), "answered in order", (200, 200), False,
         (b"GET /staging/1", b"GET /staging/2")),
    Case("pipelined-behind-a-length", post(b"Content-Length: 5", body=b"hello") + get(b"/staging/2"),
         "the next request begins where the content ends", (200, 200), False, (POSTED + b"hello", b"GET /staging/2")),
    Case("pipelined-behind-chunks", chunked(b"5\r\nhello\r\n0\r\n\r\n") + get(b"/staging/2"),
         "in one piece with chunks: there may have been a trailer", (200,), True, (POSTED + b"hello",)),
    Case("CRLF-between-requests", get(b"/staging/1") + b"\r\n\r\n" + get(b"/staging/2"), "ignored (RFC 9112 §2.2)",
         (200, 200), False, (b"GET /staging/1", b"GET /staging/2")),
    Case("CRLF-behind-content", post(b"Content-Length: 5", body=b"hello\r\n") + get(b"/staging/2"), "likewise",
         (200, 200), False, (POSTED + b"hello", b"GET /staging/2")),
    Case("content-without-framing", post() + SMUGGLED, "no framing, no content: it is a request of its own",
         (200, 200), False, (b"POST /staging/x", b"GET /staging/smuggled")),
    refused("malformed-behind-a-request", get(b"/staging/1") + b"garbage\r\n\r\n",
            "what came in one piece with it is refused with it"),
    refused("malformed-behind-content", post(b"Content-Length: 5", body=b"hello\x00\r\n\r\n"), "likewise"),
    refused("request-behind-a-close", get(b"/staging/1", b"Connection: close") + get(b"/staging/2"),
            "nothing may follow a close (RFC 9112 §9.6)"),
    passed("CRLF-behind-a-close", post(b"Connection: close", b"Content-Length: 5", body=b"hello\r\n"),
           "old clients write it (RFC 9112 §2.2)", POSTED + b"hello", closes=True),
    Case("behind-a-refusal", get(b"/staging/\\") + get(b"/staging/2"), "a client that writes malformed requests gets "
         "no next one", (400,), True),
    Case("CVE-2025-4366-content-of-a-denied-request",
         get(b"/v3/apps", b"Content-Length: %d" % len(SMUGGLED)) + SMUGGLED, "unread content is never a request",
         (401,), True),
    Case("CVE-2025-4366-chunks-of-a-denied-request",
         get(b"/v3/apps", b"Transfer-Encoding: chunked") + b"%x\r\n" % len(SMUGGLED) + SMUGGLED + b"\r\n0\r\n\r\n",
         "likewise", (401,), True),
    passed("request-in-a-length", get(b"/staging/x", b"Content-Length: %d" % len(SMUGGLED)) + SMUGGLED,
           "content, and forwarded as such", b"GET /staging/x\r\n\r\n" + SMUGGLED),
    passed("RFC9110-7.8-h2c-upgrade", get(b"/staging/x", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c",
           b"HTTP2-Settings: AAMAAABkAAQAAP__"), "ignored, and not forwarded: nothing can be tunnelled behind it",
           fields=(("upgrade", None), ("connection", None), ("http2-settings", None))),
    Case("h2c-upgrade-with-a-tail", get(b"/staging/x", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c",
         b"HTTP2-Settings: AAMAAABkAAQAAP__") + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "nothing is read behind it",
         (200,), True, (b"GET /staging/x",)),
    Case("websocket-upgrade-with-a-tail", get(b"/staging/x", b"Connection: Upgrade", b"Upgrade: websocket") + SMUGGLED,
         "likewise", (200,), True, (b"GET /staging/x",)),
    passed("upgrade-with-content", post(b"Connection: Upgrade", b"Upgrade: websocket", b"Content-Length: 5",
           body=b"hello"), "ignored", POSTED + b"hello", fields=(("upgrade", None),)),
    passed("RFC9110-10.1.1-expect", post(b"Expect: 100-continue", b"Content-Length: 5", body=b"hello"),
           "answered by the gateway, not forwarded", POSTED + b"hello", fields=(("expect", None),)),
    passed("expect-without-content", get(b"/staging/x", b"Expect: 100-continue"), "nothing to wait for"),
    passed("expect-in-HTTP-1.0", post(b"Expect: 100-continue", b"Content-Length: 5", body=b"hello",
           version=b"HTTP/1.0"), "ignored there", POSTED + b"hello", closes=True, fields=(("expect", None),)),
    passed("expect-other", get(b"/staging/x", b"Expect: a-miracle"), "ignored and not forwarded",
           fields=(("expect", None),)),
    passed("expect-list", post(b"Expect: 100-continue, x", b"Content-Length: 5", body=b"hello"), "likewise",
           POSTED + b"hello", fields=(("expect", None),)),
    Case("HTTP-1.0-keep-alive", get(b"/staging/x", b"Connection: keep-alive", version=b"HTTP/1.0"),
         "kept when asked for", (200,), False, (b"GET /staging/x",)),
)  # fmt: skip

_FORWARDING = (
    dropped("RFC9110-7.6.1-connection-option", b"Connection: keep-alive, X-Secret\nX-Secret: 1", "named by Connection",
            "x-secret", "connection"),
    dropped("CVE-2024-45410-connection-x-forwarded-for", b"Connection: X-Forwarded-For, X-Real-IP",
            "what the gateway says of the client cannot be struck",
            kept=(("x-forwarded-for", "127.0.0.1"), ("x-real-ip", "127.0.0.1"))),
    dropped("CVE-2024-45410-connection-x-forwarded-host", b"Connection: X-Forwarded-Host, X-Forwarded-Proto",
            "likewise", kept=(("x-forwarded-host", "api.example.org"), ("x-forwarded-proto", "http"))),
    dropped("CVE-2025-48865-connection-authorization", b"Connection: Authorization\nAuthorization: basic eDp5",
            "what was judged is what is forwarded", kept=(("authorization", "basic eDp5"),)),
    dropped("CVE-2025-48865-connection-cookie", b"Connection: Cookie\nCookie: a=b", "likewise",
            kept=(("cookie", "a=b"),)),
    dropped("connection-host", b"Connection: Host", "likewise", kept=(("host", "api.internal.example.org"),)),
    dropped("connection-if-none-match", b'Connection: If-None-Match\nIf-None-Match: "a"', "likewise",
            kept=(("if-none-match", '"a"'),)),
    passed("connection-content-length", post(b"Connection: Content-Length", b"Content-Length: 5", body=b"hello"),
           "likewise", POSTED + b"hello"),
    passed("connection-transfer-encoding", post(b"Connection: Transfer-Encoding", b"Transfer-Encoding: chunked",
           body=b"5\r\nhello\r\n0\r\n\r\n"), "framed anew in any case", POSTED + b"hello"),
    dropped("connection-request-id", b"Connection: X-Vcap-Request-Id\nX-Vcap-Request-Id: abc", "likewise",
            kept=(("x-vcap-request-id", "abc"),)),
    dropped("RFC9110-7.6.1-hop-by-hop", b"Keep-Alive: 5\nProxy-Connection: x\nTE: trailers\nProxy-Authorization: x",
            "of this connection only", "keep-alive", "proxy-connection", "te", "proxy-authorization"),
    dropped("CVE-2025-64484-underscore-twins", b"X_Forwarded_For: 192.0.2.9\nX_Vcap_Request_Id: x\nAuthorization_: x",
            "twins for CGI-like origins", "x_forwarded_for", "x_vcap_request_id", "authorization_"),
    dropped("spoofed-x-forwarded-for", b"X-Forwarded-For: 192.0.2.9, 192.0.2.10", "from no trusted proxy",
            kept=(("x-forwarded-for", "127.0.0.1"),)),
    dropped("spoofed-x-forwarded-host", b"X-Forwarded-Host: evil.example.org", "likewise",
            kept=(("x-forwarded-host", "api.example.org"),)),
    dropped("spoofed-x-forwarded-proto", b"X-Forwarded-Proto: https", "likewise",
            kept=(("x-forwarded-proto", "http"),)),
    dropped("spoofed-x-forwarded-port", b"X-Forwarded-Port: 443", "likewise", kept=(("x-forwarded-port", "80"),)),
    dropped("spoofed-x-forwarded-prefix", b"X-Forwarded-Prefix: /evil", "likewise", "x-forwarded-prefix"),
    dropped("spoofed-forwarded", b"Forwarded: for=192.0.2.9;host=evil", "likewise", "forwarded"),
    dropped("spoofed-x-real-ip", b"X-Real-IP: 192.0.2.9", "likewise", kept=(("x-real-ip", "127.0.0.1"),)),
    dropped("x-original-url", b"X-Original-URL: /v3/apps\nX-Rewrite-URL: /v3/apps", "another target than was judged",
            "x-original-url", "x-rewrite-url"),
    dropped("method-override", b"X-HTTP-Method-Override: DELETE\nX-HTTP-Method: PUT\nX-Method-Override: PATCH",
            "another method than was judged", "x-http-method-override", "x-http-method", "x-method-override"),
    dropped("CVE-2016-5385-httpoxy", b"Proxy: http://evil", "a variable of CGI-like origins", "proxy"),
    dropped("reflected-request-id", b"X-Vcap-Request-Id: a%0d%0aSet-Cookie: b<script>",
            "cleaned before it is sent or shown", kept=(("x-vcap-request-id", "a0d0aSet-Cookiebscript"),)),
    dropped("RFC9110-7.6.3-via", b"Via: 1.0 fred", "appended to", kept=(("via", "1.0 fred, 1.1 gateway"),)),
)  # fmt: skip

GROUPS = {
    "Request line": _LINE,
    "Target": _TARGET,
    "Host": _HOST,
    "Fields": _FIELDS,
    "Content-Length": _LENGTH,
    "Transfer-Encoding": _CODING,
    "Chunks and trailers": _CHUNKS,
    "One message and the next": _SEQUENCE,
    "What is forwarded": _FORWARDING,
}
CASES = tuple(case for group in GROUPS.values() for case in group)

_INTRODUCTION = """\
# Framing: raw requests and what becomes of them

{count} requests as they stand on the wire, each with its verdict. `tests/edge/test_framing.py` sends every one of them
over a real socket to a real gateway in front of a recording upstream, and compares the answers, whether the connection
ends, what reached the controller byte for byte, and whether a connection that goes on is in step with what is asked
next. Heads are sent once in one piece and once byte by byte.
This page is generated from that table (`python -m tests.edge.framing_cases > docs/framing.md`).

The rule behind the rows: a message that two recipients could read differently is answered 400 and the connection
closes; what can be read in one way only is forwarded, and then its request line is byte for byte what was authorised.

`·` in the bytes marks the end of a line (CR LF), `␍` and `␊` a lone CR or LF; the usual `Host: api.example.org` and the
blank line at the end are left out, long runs are shortened. Verdict: the statuses of the answers, and ✕ when the
connection ends. `=` in the last column but one means: the same method and target, and the same content.
"""


def _shown(data: bytes) -> str:
    text = data.replace(b"\r\n" + HOST, b"\r\n", 1).removesuffix(b"\r\n\r\n").decode("latin-1")
    for bytes_, sign in (("\r\n", "·"), ("\r", "␍"), ("\n", "␊"), ("|", "¦"), ("`", "\\x60")):
        text = text.replace(bytes_, sign)
    text = "".join(
        one if one in "·␍␊¦" or (one.isascii() and one.isprintable()) else f"\\x{ord(one):02x}" for one in text
    )
    return f"`{text}`" if len(text) <= 150 else f"`{text[:70]}` … `{text[-40:]}` ({len(data):,} bytes)"


def _forwarded(case: Case) -> str:
    if not case.forwarded:
        return "nothing"
    line = case.sent.lstrip(b"\r\n").split(b" HTTP/", 1)[0]
    what = ", ".join(
        "=" if one.split(b"\r\n\r\n")[0] == line else _shown(one.replace(b"\r\n\r\n", b" + ")) for one in case.forwarded
    )
    fields = ", ".join(
        f"no `{name}`" if value is None else f"`{name}: {value}`".replace("\xc3\xa9", "\\xc3\\xa9")
        for name, value in case.fields
    )
    return f"{what}; {fields}" if fields else what


def document() -> str:
    """The page, in Markdown."""
    parts = [_INTRODUCTION.format(count=len(CASES))]
    for title, cases in GROUPS.items():
        parts.append(f"\n## {title}\n\n| case | sent | verdict | reaches the controller | why |\n")
        parts.append("|---|---|---|---|---|\n")
        parts += (
            f"| {case.id} | {_shown(case.sent)} | {', '.join(map(str, case.statuses))}{' ✕' if case.closes else ''} | "
            f"{_forwarded(case)} | {case.reason}{' (`route_table: none`)' if case.generic else ''} |\n"
            for case in cases
        )
    return "".join(parts)


if __name__ == "__main__":
    sys.stdout.write(document())
