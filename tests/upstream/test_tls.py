"""TLS to the controller on real sockets: whom the gateway takes for it, and what it shows."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trustme

from gateway.app import Gateway
from gateway.edge.tls import TlsError
from gateway.settings import ConfigError, parse
from tests.conftest import ADVERTISED, SECRET, Connect, Stub, bearer

pytestmark = pytest.mark.usefixtures("exchange")
AUTHORIZATION = f"Authorization: {bearer()['Authorization']}"


class Controller:
    """A stub that speaks TLS, with a certificate for `controller.example.org` and 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.ca = folder / "ca.pem"
        self.authority.cert_pem.write_to_path(self.ca)
        client = self.authority.issue_cert("gateway")
        self.certificate, self.key = folder / "gateway.pem", folder / "gateway.key"
        client.cert_chain_pems[0].write_to_path(self.certificate)
        client.private_key_pem.write_to_path(self.key)

    def context(self, *names: str, mutual: bool) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert(*names).configure_cert(context)
        if mutual:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.ca)
        return context


@pytest.fixture
def controller(tmp_path: Path) -> Controller:
    return Controller(tmp_path)


Start = Callable[..., Awaitable[Gateway]]


@pytest.fixture
async def start(stub: Stub, controller: Controller) -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:

        async def begin(tls: str | None, *names: str, mutual: bool = False) -> Gateway:
            context = controller.context(*(names or ("127.0.0.1",)), mutual=mutual)
            server = await asyncio.start_server(stub.serve, "127.0.0.1", 0, ssl=context)
            stack.callback(server.close)
            port = server.sockets[0].getsockname()[1]
            path = controller.folder / "gateway.yaml"
            path.write_text(settings(port, tls))
            gateway = Gateway(parse(path.read_text(), {}), source=lambda: parse(path.read_text(), {}))
            await gateway.start()
            stack.push_async_callback(stub.hang_up)
            stack.push_async_callback(gateway.stop)
            return gateway

        yield begin


def settings(port: int, tls: str | None) -> str:
    return f"""
listen: {{port: 0}}
admin: {{port: 0}}
public_url: https://gateway.example.org
upstream:
  url: https://127.0.0.1:{port}
  advertised_urls: [{ADVERTISED}]
  {f"tls: {tls}" if tls else ""}
auth: {{keys: [{{secret: {SECRET}}}]}}
"""


async def status(gateway: Gateway, connect: Connect) -> int:
    return (await (await connect(gateway.url)).ask("GET /v3/apps", AUTHORIZATION)).status


@pytest.mark.parametrize(
    ("tls", "names", "expected"),
    [
        (None, ("127.0.0.1",), 502),
        ("{{ca_file: {ca}}}", ("127.0.0.1",), 200),
        ("{{ca_file: {ca}}}", ("controller.example.org",), 502),
        ("{{ca_file: {ca}, server_name: controller.example.org}}", ("controller.example.org",), 200),
        ("{{ca_file: {ca}, server_name: controller.example.org}}", ("127.0.0.1",), 502),
        ("{{verify: false}}", ("whoever.example.org",), 200),
    ],
    ids=["unknown authority", "own authority", "another name", "the name asked for", "not the name", "not verified"],
)
async def test_whom_the_gateway_takes_for_the_controller(
    tls: str | None, names: tuple[str, ...], expected: int, start: Start, controller: Controller, connect: Connect
) -> None:
    gateway = await start(tls and tls.format(ca=controller.ca), *names)
    assert await status(gateway, connect) == expected


@pytest.mark.parametrize(("shown", "expected"), [(True, 200), (False, 502)], ids=["shown", "not shown"])
async def test_the_gateways_own_certificate(
    shown: bool, expected: int, start: Start, controller: Controller, connect: Connect
) -> None:
    own = f", certificate_file: {controller.certificate}, key_file: {controller.key}" if shown else ""
    gateway = await start(f"{{ca_file: {controller.ca}{own}}}", mutual=True)
    assert await status(gateway, connect) == expected


async def test_a_reload_reads_the_files_again_and_refuses_what_cannot_be_used(
    start: Start, controller: Controller, connect: Connect
) -> None:
    good = controller.ca.read_bytes()
    trustme.CA().cert_pem.write_to_path(controller.ca)
    gateway = await start(f"{{ca_file: {controller.ca}}}")
    assert await status(gateway, connect) == 502
    controller.ca.write_bytes(b"nothing")
    outcome = await gateway.reloader.reload()
    assert not outcome.reloaded
    assert outcome.faults[0].startswith("upstream.tls: a file cannot be used")
    controller.ca.write_bytes(good)
    assert (await gateway.reloader.reload()).reloaded
    assert await status(gateway, connect) == 200


def test_files_that_cannot_be_used_stop_the_start(controller: Controller) -> None:
    controller.key.write_text("nothing")
    tls = f"{{certificate_file: {controller.certificate}, key_file: {controller.key}}}"
    with pytest.raises(TlsError, match=r"upstream\.tls"):
        Gateway(parse(settings(1, tls), {}))


@pytest.mark.parametrize(
    ("tls", "url", "fault"),
    [
        ("{{certificate_file: {file}}}", "https", "upstream.tls.key_file: expected a file"),
        ("{{key_file: {file}}}", "https", "upstream.tls.certificate_file: expected a file"),
        ("{{verify: false, ca_file: {file}}}", "https", "upstream.tls.ca_file: expected no such key"),
        ("{{verify: false}}", "http", "upstream.tls: expected no such key without an https controller"),
    ],
    ids=["no key", "no certificate", "an authority for nothing", "no TLS"],
)
def test_what_contradicts_itself_is_a_fault(tls: str, url: str, fault: str, controller: Controller) -> None:
    text = settings(1, tls.format(file=controller.ca)).replace("https://127", f"{url}://127")
    with pytest.raises(ConfigError, match=fault.replace(".", r"\.")):
        parse(text, {})
