"""What is put off is there all the same, and who trusts the system's certificates says so."""

from __future__ import annotations

import asyncio
import re
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

from gateway.lean import PUT_OFF, trusting_nobody
from tests.conftest import ADVERTISED, SECRET, Connect, Stub, bearer
from tests.processes import running

PACKAGE = Path(__file__).parents[1] / "gateway"
AUTHORIZATION = f"Authorization: {bearer()['Authorization']}"
BEGUN = "import os, sys\nfrom gateway.lean import begin\nbegin()\n"


def run(script: str, **environment: str) -> None:
    subprocess.run([sys.executable, "-c", BEGUN + script], check=True, env={"PATH": "", **environment}, timeout=60)


@pytest.mark.parametrize(
    ("module", "use"),
    [
        ("cryptography.x509", "assert callable(m.load_pem_x509_certificate) and m.Certificate and m.oid.NameOID"),
        ("zipfile", "assert m.is_zipfile(sys.executable) is False and issubclass(m.BadZipFile, Exception)"),
        ("csv", "assert list(m.reader(['a,b'])) == [['a', 'b']]"),
        ("shutil", "assert m.disk_usage('/').total and m.which('') is None"),
        ("locale", "assert m.getlocale() and m.localeconv()['decimal_point']"),
        ("gzip", "assert m.decompress(m.compress(b'x' * 99)) == b'x' * 99"),
        ("msgspec.inspect", "assert type(m.type_info(int)) is m.IntType\nimport msgspec\nmsgspec.json.schema(int)"),
        ("brotli", "assert m.decompress(m.compress(b'x' * 99)) == b'x' * 99"),
    ],
)
def test_what_is_put_off_is_read_when_it_is_used(module: str, use: str) -> None:
    run(
        "from types import ModuleType\n"
        "import gateway.app, gateway.store.compression\n"
        f"m = sys.modules[{module!r}]\n"
        "assert type(m) is not ModuleType\n"
        f"{use}\n"
        "assert type(m) is ModuleType\n"
        "assert type(m.__loader__).__module__ != 'gateway.lean'\n"
        "try:\n    m.there_is_no_such_thing\nexcept AttributeError as error:\n    assert 'no attribute' in str(error)\n"
        "else:\n    raise SystemExit('found')\n"
    )


def test_everything_that_is_put_off_is_used_above() -> None:
    (marker,) = test_what_is_put_off_is_read_when_it_is_used.pytestmark  # type: ignore[attr-defined]
    assert {module for module, _ in marker.args[1]} == PUT_OFF


def test_a_module_that_cannot_be_read_says_so_each_time(tmp_path: Path) -> None:
    (tmp_path / "gzip.py").write_text("raise RuntimeError('broken')\n")
    run(
        f"sys.path.insert(0, {str(tmp_path)!r})\nimport gzip\n"
        "for _ in range(2):\n"
        "    try:\n        gzip.compress\n"
        "    except RuntimeError as error:\n        assert str(error) == 'broken'\n"
        "    else:\n        raise SystemExit('read')\n"
    )


def test_threads_that_ask_together_read_it_once(tmp_path: Path) -> None:
    (tmp_path / "gzip.py").write_text(
        "import sys, time\nsys.read = getattr(sys, 'read', 0) + 1\ntime.sleep(0.1)\nx = 1\n"
    )
    run(
        f"sys.path.insert(0, {str(tmp_path)!r})\nimport gzip\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(4) as pool:\n    assert list(pool.map(lambda _: gzip.x, range(8))) == [1] * 8\n"
        "assert sys.read == 1\n"
    )


@pytest.mark.parametrize("given", [{}, {"SSL_CERT_FILE": "/a/file", "SSL_CERT_DIR": ""}], ids=["unset", "set"])
def test_aiohttps_own_context_trusts_nobody_and_the_environment_is_as_before(given: dict[str, str]) -> None:
    run(
        "from aiohttp import connector\n"
        "own = connector._SSL_CONTEXT_VERIFIED\n"
        "assert own.cert_store_stats()['x509_ca'] == 0\n"
        "assert own.verify_mode.name == 'CERT_REQUIRED' and own.check_hostname\n"
        f"assert {{n: v for n, v in os.environ.items() if n.startswith('SSL_')}} == {given!r}\n",
        **given,
    )


def test_a_context_made_meanwhile_is_empty_and_one_made_afterwards_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    with trusting_nobody():
        meanwhile = ssl.create_default_context()
    assert meanwhile.cert_store_stats()["x509_ca"] == 0
    assert ssl.create_default_context().cert_store_stats()["x509_ca"] == 1


@pytest.mark.parametrize("workers", ["", "workers: 2\ndrain: 1s"], ids=["one process", "workers"])
@pytest.mark.parametrize("trusted", [True, False], ids=["trusted by the system", "not trusted"])
async def test_controllers_and_key_sources_are_whom_the_system_trusts(
    trusted: bool, workers: str, stub: Stub, tmp_path: Path, connect: Connect
) -> None:
    """Nothing in the settings says whom to trust, and what aiohttp would trust by itself is nobody."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server = await asyncio.start_server(stub.serve, "127.0.0.1", 0, ssl=context)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    stub.answers_json(b'{"keys":[]}')
    path = tmp_path / "gateway.yaml"
    path.write_text(
        "listen: {host: 127.0.0.1, port: 0}\nadmin: {port: 0}\npublic_url: https://gateway.example.org\n"
        f'upstream: {{url: "{url}", advertised_urls: ["{ADVERTISED}"]}}\n'
        f"auth: {{keys: [{{secret: {SECRET}}}, {{url: {url}/token_keys}}]}}\n{workers}\n"
    )
    environment = {"SSL_CERT_FILE": str(tmp_path / "ca.pem")} if trusted else {}
    async with running(path, **environment) as gateway:
        answer = await (await connect(gateway.url)).ask("GET /v3/apps", AUTHORIZATION)
        assert answer.status == (200 if trusted else 502)
        asked = {request.line.split()[1] for request in stub.received}
        assert asked - {"/healthz"} == ({"/token_keys", "/v3/apps"} if trusted else set())
        server.close()


def test_zstandard_is_for_pages_and_not_for_aiohttp() -> None:
    """What is fetched by aiohttp, keys alone, is asked for in what it can read."""
    run(
        "from aiohttp.client_reqrep import ClientRequest\n"
        "assert 'zstd' not in ClientRequest.DEFAULT_HEADERS['Accept-Encoding'].split(', ')\n"
        "from gateway.store.compression import CODERS\n"
        "assert 'backports.zstd' not in sys.modules\n"
        "packed = CODERS['zstd'](b'x' * 99)\n"
        "from backports import zstd\n"
        "assert zstd.decompress(packed) == b'x' * 99\n"
    )


def test_who_connects_is_known() -> None:
    """Another one must give its own context as well, and then belongs here."""
    opening = re.compile(r"\b(?:ClientSession|TCPConnector|Connector|UnixConnector)\(|aiohttp\.request\(")
    found = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if opening.search(path.read_text(encoding="utf-8")) and "sandbox" not in path.parts
    }
    assert found == {"identity/sources.py", "upstream/client.py", "upstream/connections.py"}
