"""What stands before HTTP, on real sockets: TLS and its files, the PROXY protocol, unix sockets."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import stat
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trustme

from gateway.app import Gateway
from gateway.edge.tls import Certificates, Files, TlsError
from gateway.settings import ConfigError, parse
from tests.conftest import Answer, Stub, Wire, bearer
from tests.core.test_proxy_protocol import V4, V6, v2

AUTHORIZATION = f"Authorization: {bearer()['Authorization']}"
V1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n"


class Pki:
    """An authority and what it has issued, as files."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.folder = folder
        self.ca = folder / "ca.pem"
        self.authority.cert_pem.write_to_path(self.ca)
        self.certificate, self.key = folder / "server.pem", folder / "server.key"
        self.issue()

    def issue(self, authority: trustme.CA | None = None) -> None:
        """A new certificate in the place of the old one."""
        issued = (authority or self.authority).issue_cert("localhost", "127.0.0.1")
        certificate, key = self.folder / "new.pem", self.folder / "new.key"
        issued.cert_chain_pems[0].write_to_path(certificate)
        issued.private_key_pem.write_to_path(key)
        key.replace(self.key)
        certificate.replace(self.certificate)

    def trusting(self, *, client: bool = False, **options: ssl.TLSVersion) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.ca))
        for name, value in options.items():
            setattr(context, name, value)
        if client:
            self.authority.issue_cert("operator").configure_cert(context)
        return context

    @property
    def tls(self) -> str:
        return f"{{certificate_file: {self.certificate}, key_file: {self.key}}}"


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path)


def port_of(gateway: Gateway) -> int:
    return int(gateway.url.rpartition(":")[2])


async def ask(port: int, context: ssl.SSLContext | None, *, before: bytes = b"", path: str = "/v3/apps") -> Answer:
    """One request on a connection of its own; what stands before TLS is written first."""
    loop = asyncio.get_running_loop()
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(before)
    connection.setblocking(False)
    options = {"ssl": context, "server_hostname": "localhost"} if context else {}
    reader, writer = await asyncio.open_connection(sock=connection, limit=1 << 20, **options)
    del loop
    try:
        return await Wire(reader, writer).ask(f"GET {path}", AUTHORIZATION, "Connection: close")
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


async def refused(gateway: Gateway, reason: str, count: int = 1) -> None:
    """Wait until so many connections were refused for a reason."""
    async with asyncio.timeout(10):
        while gateway.doors.refused()[reason] < count:
            await asyncio.sleep(0.01)


async def fails(port: int, context: ssl.SSLContext | None, *, before: bytes = b"") -> None:
    with pytest.raises((OSError, asyncio.IncompleteReadError)):
        await ask(port, context, before=before)


StartGateway = Callable[..., Awaitable[Gateway]]


async def test_tls_is_spoken_and_the_upstream_is_told(stub: Stub, start_gateway: StartGateway, pki: Pki) -> None:
    gateway = await start_gateway(stub.url, listen=f"{{port: 0, tls: {pki.tls}}}")
    assert gateway.url.startswith("https://")
    assert (await ask(port_of(gateway), pki.trusting())).status == 200
    assert (await ask(port_of(gateway), pki.trusting())).status == 200
    asked = [request for request in stub.received if "/v3/apps" in request.line]
    assert asked[0].field("x-forwarded-proto") == "https"
    await fails(port_of(gateway), None)
    await refused(gateway, "tls")


@pytest.mark.parametrize(
    ("minimum", "spoken", "works"),
    [("1.2", "TLSv1_2", True), ("1.3", "TLSv1_2", False), ("1.3", "TLSv1_3", True)],
    ids=["1.2 where 1.2 is enough", "1.2 where 1.3 is asked for", "1.3"],
)
async def test_older_versions_are_turned_away(
    minimum: str, spoken: str, works: bool, stub: Stub, start_gateway: StartGateway, pki: Pki
) -> None:
    tls = pki.tls.replace("}", f", minimum_version: {minimum}}}")
    gateway = await start_gateway(stub.url, listen=f"{{port: 0, tls: {tls}}}")
    context = pki.trusting(maximum_version=ssl.TLSVersion[spoken])
    if works:
        assert (await ask(port_of(gateway), context)).status == 200
    else:
        await fails(port_of(gateway), context)


@pytest.mark.parametrize(
    ("mode", "with_certificate", "works"),
    [("required", True, True), ("required", False, False), ("optional", True, True), ("optional", False, True)],
)
async def test_client_certificates(
    mode: str, with_certificate: bool, works: bool, stub: Stub, start_gateway: StartGateway, pki: Pki
) -> None:
    tls = pki.tls.replace("}", f", client_ca_file: {pki.ca}, client_certificates: {mode}}}")
    gateway = await start_gateway(stub.url, listen=f"{{port: 0, tls: {tls}}}")
    context = pki.trusting(client=with_certificate)
    if works:
        assert (await ask(port_of(gateway), context)).status == 200
    else:
        await fails(port_of(gateway), context)


async def test_a_client_certificate_of_another_authority_is_turned_away_even_where_none_is_needed(
    stub: Stub, start_gateway: StartGateway, pki: Pki
) -> None:
    tls = pki.tls.replace("}", f", client_ca_file: {pki.ca}, client_certificates: optional}}")
    gateway = await start_gateway(stub.url, listen=f"{{port: 0, tls: {tls}}}")
    context = pki.trusting()
    trustme.CA().issue_cert("stranger").configure_cert(context)
    await fails(port_of(gateway), context)


async def test_a_new_certificate_is_taken_and_connections_stay(
    stub: Stub, start_gateway: StartGateway, pki: Pki
) -> None:
    gateway = await start_gateway(stub.url, listen=f"{{port: 0, tls: {pki.tls}}}")
    certificates = gateway.doors.certificates["listen"]
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port_of(gateway), ssl=pki.trusting(), server_hostname="localhost"
    )
    old = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    pki.issue()
    certificates.refresh()
    assert certificates.results == {"applied": 1, "refused": 0}
    assert (await Wire(reader, writer).ask("GET /v3/apps", AUTHORIZATION)).status == 200
    _, other = await asyncio.open_connection(
        "127.0.0.1", port_of(gateway), ssl=pki.trusting(), server_hostname="localhost"
    )
    assert other.get_extra_info("ssl_object").getpeercert(binary_form=True) != old
    for one in (writer, other):
        one.transport.abort()
    await asyncio.sleep(0)


async def test_files_that_cannot_be_used_leave_the_old_certificate(
    stub: Stub, start_gateway: StartGateway, pki: Pki
) -> None:
    gateway = await start_gateway(stub.url, listen=f"{{port: 0, tls: {pki.tls}}}")
    pki.certificate.write_text("half a fi")
    gateway.doors.certificates["listen"].refresh()
    assert gateway.doors.certificates["listen"].results == {"applied": 0, "refused": 1}
    assert (await ask(port_of(gateway), pki.trusting())).status == 200
    with pytest.raises(TlsError, match=r"listen\.tls: .*server\.pem"):
        gateway.doors.check()


async def test_the_files_are_looked_at_by_themselves(pki: Pki) -> None:
    told = asyncio.Event()
    certificates = Certificates(Files(pki.certificate, pki.key), lambda _: told.set())
    before = certificates.context
    certificates.watch(interval=0.01)
    pki.issue()
    async with asyncio.timeout(10):
        await told.wait()
    await certificates.stop()
    assert certificates.context is not before


async def test_the_expiry_is_a_metric(stub: Stub, start_gateway: StartGateway, pki: Pki, http) -> None:
    gateway = await start_gateway(stub.url, listen=f"{{port: 0, tls: {pki.tls}}}")
    async with http.get(f"{gateway.admin_url}/metrics") as response:
        text = await response.text()
    line = next(line for line in text.splitlines() if line.startswith("gateway_tls_certificate_expiry"))
    assert line.startswith('gateway_tls_certificate_expiry_timestamp_seconds{listener="listen"} ')
    assert float(line.split()[-1]) > time.time()


@pytest.mark.parametrize("broken", ["certificate", "key", "pair"])
def test_what_cannot_be_used_stops_the_start(broken: str, pki: Pki) -> None:
    if broken == "pair":
        key = pki.key.read_bytes()
        pki.issue()
        pki.key.write_bytes(key)
    else:
        getattr(pki, broken).write_text("nothing")
    with pytest.raises(TlsError, match=r"server\.pem with .*server\.key"):
        Certificates(Files(pki.certificate, pki.key))


async def test_the_admin_listener_can_ask_for_a_certificate(stub: Stub, pki: Pki, connect) -> None:
    text = f"""
listen: {{port: 0}}
admin: {{port: 0, tls: {pki.tls.replace("}", f", client_ca_file: {pki.ca}}}")}}}
public_url: https://gateway.example.org
upstream: {{url: "{stub.url}", advertised_urls: ["https://api.x.example.org"]}}
auth: {{keys: [{{secret: a-secret-of-more-than-thirty-two-bytes-here}}]}}
"""
    gateway = Gateway(parse(text, {}))
    await gateway.start()
    try:
        assert gateway.admin_url.startswith("https://")
        port = int(gateway.admin_url.rpartition(":")[2])
        assert (await ask(port, pki.trusting(client=True), path="/healthz")).status == 200
        await fails(port, pki.trusting())
    finally:
        await gateway.stop()


# -- PROXY protocol


def client(stub: Stub) -> str | None:
    return [request for request in stub.received if "/v3/apps" in request.line][-1].field("x-forwarded-for")


PROXIED = "{{port: 0, proxy_protocol: {}{}}}"
TRUSTED = "trusted_proxies: [127.0.0.1]"


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("mode", ["optional", "required"])
@pytest.mark.parametrize(
    ("header", "source"),
    [
        (V1, "192.0.2.7"),
        (v2(0x21, 0x11, V4), "192.0.2.7"),
        (v2(0x21, 0x21, V6), "2001:db8::7"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    ],
    ids=["v1", "v2", "v2 over IPv6", "unknown"],
)
async def test_the_client_is_whom_a_trusted_peer_names(
    header: bytes, source: str, mode: str, encrypted: bool, stub: Stub, start_gateway: StartGateway, pki: Pki
) -> None:
    listen = PROXIED.format(mode, f", tls: {pki.tls}" if encrypted else "")
    gateway = await start_gateway(stub.url, TRUSTED, listen=listen)
    answer = await ask(port_of(gateway), pki.trusting() if encrypted else None, before=header)
    assert answer.status == 200
    assert source in (client(stub) or "")


async def test_a_header_cut_at_every_byte_is_read(stub: Stub, start_gateway: StartGateway) -> None:
    gateway = await start_gateway(stub.url, TRUSTED, listen=PROXIED.format("required", ""))
    for header in (V1, v2(0x21, 0x11, V4)):
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(gateway))
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in header:
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
        assert (await Wire(reader, writer).ask("GET /v3/apps", AUTHORIZATION)).status == 200
        assert "192.0.2.7" in (client(stub) or "")
        writer.transport.abort()
        await asyncio.sleep(0)


@pytest.mark.parametrize("first", [b"G", b"P", b"PATCH /v3/apps"], ids=["G", "P", "PATCH"])
async def test_without_a_header_optional_serves_and_required_does_not(
    first: bytes, stub: Stub, start_gateway: StartGateway
) -> None:
    method = "PATCH" if first.startswith(b"P") else "GET"
    request = f"{method} /v3/apps HTTP/1.1\r\nHost: a.example.org\r\n{AUTHORIZATION}\r\n\r\n".encode()
    gateway = await start_gateway(stub.url, TRUSTED, listen=PROXIED.format("optional", ""))
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(gateway))
    writer.write(first)
    await asyncio.sleep(0.01)
    writer.write(request[len(first) :])
    assert (await Wire(reader, writer).answer()).status == 200
    writer.transport.abort()
    gateway = await start_gateway(stub.url, TRUSTED, listen=PROXIED.format("required", ""))
    await fails(port_of(gateway), None)
    await refused(gateway, "proxy-protocol")


@pytest.mark.parametrize(
    "header",
    [b"PROXY TCP4 192.0.2.7\r\n", v2(0x21, 0x12, V4), v2(0x31, 0x11, V4)],
    ids=["v1", "v2 datagram", "v2 version"],
)
async def test_a_malformed_header_ends_the_connection(header: bytes, stub: Stub, start_gateway: StartGateway) -> None:
    gateway = await start_gateway(stub.url, TRUSTED, listen=PROXIED.format("optional", ""))
    await fails(port_of(gateway), None, before=header)
    await refused(gateway, "proxy-protocol")
    assert not [request for request in stub.received if "/v3/apps" in request.line]


async def test_who_is_not_trusted_is_not_believed(stub: Stub, start_gateway: StartGateway) -> None:
    trusted = "trusted_proxies: [192.0.2.1]"
    gateway = await start_gateway(stub.url, trusted, listen=PROXIED.format("optional", ""))
    answer = await ask(port_of(gateway), None)
    assert answer.status == 200
    assert (await ask(port_of(gateway), None, before=V1)).status == 400
    assert client(stub) == "127.0.0.1"
    gateway = await start_gateway(stub.url, trusted, listen=PROXIED.format("required", ""))
    await fails(port_of(gateway), None, before=V1)
    await refused(gateway, "proxy-protocol")


async def test_a_connection_that_ends_in_its_header_is_no_trouble(stub: Stub, start_gateway: StartGateway) -> None:
    gateway = await start_gateway(stub.url, TRUSTED, listen=PROXIED.format("required", ""))
    for part in (b"", b"PRO", V1[:-1]):
        _, writer = await asyncio.open_connection("127.0.0.1", port_of(gateway))
        writer.write(part)
        writer.close()
        await writer.wait_closed()
    assert (await ask(port_of(gateway), None, before=V1)).status == 200


async def test_nobody_else_waits_for_a_header_that_does_not_come(stub: Stub, start_gateway: StartGateway) -> None:
    gateway = await start_gateway(stub.url, TRUSTED, listen=PROXIED.format("required", ""))
    silent = [await asyncio.open_connection("127.0.0.1", port_of(gateway)) for _ in range(50)]
    assert (await ask(port_of(gateway), None, before=V1)).status == 200
    for _, writer in silent:
        writer.transport.abort()
    await asyncio.sleep(0)


def test_nobody_to_trust_is_a_fault() -> None:
    with pytest.raises(ConfigError, match=r"listen\.proxy_protocol: expected off, since there are no trusted_proxies"):
        parse(
            'public_url: https://a.example.org\nupstream: {url: "http://127.0.0.1:1"}\nroute_table: none\n'
            "routes: [{match: GET /x, access: public}]\nlisten: {proxy_protocol: required}\n",
            {},
        )


# -- unix sockets


async def test_a_unix_socket_serves_beside_tcp(stub: Stub, start_gateway: StartGateway, tmp_path: Path) -> None:
    path = tmp_path / "gateway.sock"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()  # as a process that was killed leaves it
    gateway = await start_gateway(
        stub.url,
        "trusted_proxies: [unix]",
        listen=f'{{port: 0, unix_socket: {path}, unix_socket_mode: "600", proxy_protocol: optional}}',
    )
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for page, before, source in ((1, b"", None), (2, V1, "192.0.2.7")):
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(before)
        answer = await Wire(reader, writer).ask(f"GET /v3/apps?page={page}", AUTHORIZATION)
        assert answer.status == 200
        assert source is None or source in (client(stub) or "")
        writer.transport.abort()
        await asyncio.sleep(0)
    assert (await ask(port_of(gateway), None)).status == 200
    await gateway.stop()
    assert not path.exists()


@pytest.mark.parametrize("there", ["a file", "a listener"])
def test_what_is_there_already_is_left_alone(there: str, tmp_path: Path) -> None:
    from gateway.edge.sockets import open_unix

    path = tmp_path / "there"
    with socket.socket(socket.AF_UNIX) as other:
        if there == "a file":
            path.write_text("important")
        else:
            other.bind(str(path))
            other.listen()
        with pytest.raises(OSError, match=r"is no socket|somebody listens"):
            open_unix(path, 0o600, backlog=1)
    assert os.path.lexists(path)
