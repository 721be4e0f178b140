"""The gateway as its own process: memory under load, and how it starts and ends."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

GIB = 1 << 30
MIB = 1 << 20
PIECE = memoryview(bytes(1 << 20))


# -- a controller that pours and swallows, in blocking threads so that it costs next to nothing


class Sink:
    """An upstream that answers GET with as many bytes as the query says and counts what it is sent."""

    def __init__(self) -> None:
        self.swallowed = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.url = url_of(self._listener)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while (request := read_head(connection)) is not None:
                head, rest = request
                self._swallow(connection, length(head) - len(rest))
                wanted = int(re.search(rb"bytes=(\d+)", head)[1]) if b"bytes=" in head else 2
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % wanted)
                pour(connection, wanted)

    def _swallow(self, connection: socket.socket, left: int) -> None:
        buffer = bytearray(1 << 20)
        while left > 0 and (count := connection.recv_into(buffer)):
            left -= count
            self.swallowed += count


def url_of(listener: socket.socket) -> str:
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


def read_head(connection: socket.socket) -> tuple[bytes, bytes] | None:
    data = b""
    while b"\r\n\r\n" not in data:
        if not (piece := connection.recv(65536)):
            return None
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def length(head: bytes) -> int:
    found = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    return int(found[1]) if found else 0


def pour(connection: socket.socket, left: int) -> None:
    while left > 0:
        left -= connection.send(PIECE[: min(left, len(PIECE))])


@pytest.fixture
def sink() -> Iterator[Sink]:
    upstream = Sink()
    yield upstream
    upstream.close()


# -- the gateway


@dataclass
class Running:
    """A gateway process."""

    process: subprocess.Popen[str]
    url: str
    port: int
    admin: str

    def __post_init__(self) -> None:
        # Its log is read all the time: a full pipe would stop it.
        self._written: list[str] = []
        assert self.process.stderr is not None
        self._reader = threading.Thread(target=self._written.extend, args=(self.process.stderr,), daemon=True)
        self._reader.start()

    @property
    def peak(self) -> int:
        """The most memory it ever had resident, in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def ended(self) -> tuple[int, str]:
        """Its exit code and what it wrote since it began to listen."""
        code = self.process.wait(20)
        self._reader.join(5)
        return code, "".join(self._written)


Launch = Callable[..., Running]
CONFIG = """
listen: {{host: 127.0.0.1, port: {port}}}
admin: {{port: 0}}
public_url: https://gateway.example.org
drain: 10s
log: {{level: {level}}}
upstream: {{url: {url}, advertised_urls: ["https://api.internal.example.org"]}}
auth: {{keys: [{{secret: a-secret-that-is-long-enough-for-hs256-and-its-tests}}]}}
"""


def command(tmp_path: Path, url: str, port: int, level: str = "info") -> list[str]:
    file = tmp_path / "gateway.yaml"
    file.write_text(CONFIG.format(url=url, port=port, level=level), encoding="utf-8")
    return [sys.executable, "-m", "gateway", "run", "-c", str(file)]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """Starts gateways and waits until they listen."""
    running: list[Running] = []

    def start(url: str, port: int = 0) -> Running:
        process = subprocess.Popen(command(tmp_path, url, port), stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        for line in process.stderr:
            if '"listening"' in line:
                told = json.loads(line)
                gateway = Running(process, told["url"], int(told["url"].rpartition(":")[2]), told["admin"])
                running.append(gateway)
                return gateway
        raise AssertionError(f"it ended with {process.wait()}")

    yield start
    for gateway in running:
        if gateway.process.poll() is None:
            gateway.process.kill()
        gateway.ended()
        assert gateway.process.stderr is not None
        gateway.process.stderr.close()


# -- memory


def test_a_2_gib_download_at_flat_memory(sink, launch) -> None:
    gateway = launch(sink.url)
    with gateway.connect() as client:
        client.sendall(b"GET /staging/x?bytes=%d HTTP/1.1\r\nHost: a\r\n\r\n" % (2 * GIB))
        head, rest = read_head(client)
        assert head.startswith(b"HTTP/1.1 200 OK")
        assert length(head) == 2 * GIB
        left = 2 * GIB - len(rest)
        buffer = bytearray(1 << 20)
        while left and (count := client.recv_into(buffer)):
            left -= count
        assert left == 0
    assert gateway.peak < 120 * MIB


def test_a_2_gib_upload_at_flat_memory(sink, launch) -> None:
    gateway = launch(sink.url)
    with gateway.connect() as client:
        client.sendall(b"POST /staging/x HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (2 * GIB))
        pour(client, 2 * GIB)
        head, _ = read_head(client)
        assert head.startswith(b"HTTP/1.1 200 OK")
    assert 2 * GIB - 65536 <= sink.swallowed <= 2 * GIB, "less what came in one read with the head"
    assert gateway.peak < 120 * MIB


def test_1000_idle_clients(sink, launch) -> None:
    gateway = launch(sink.url)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(gateway.connect()) for _ in range(1000)]
        for client in clients:
            client.sendall(b"GET /staging/x HTTP/1.1\r\nHost: a\r\n\r\n")
            head, rest = read_head(client)
            assert head.startswith(b"HTTP/1.1 200 OK")
            while len(rest) < 2:
                rest += client.recv(2)
        assert gateway.peak < 150 * MIB
        for client in (clients[0], clients[-1]):
            client.sendall(b"GET /staging/x HTTP/1.1\r\nHost: a\r\n\r\n")
            assert read_head(client)[0].startswith(b"HTTP/1.1 200 OK"), "and each is still served"


# -- start and end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_ends_it_quickly_with_0_and_the_port_is_free_at_once(sink, launch, number: signal.Signals) -> None:
    gateway = launch(sink.url)
    with gateway.connect() as idle:
        idle.sendall(b"GET /staging/x HTTP/1.1\r\nHost: a\r\n\r\n")
        assert read_head(idle) is not None
        started = time.monotonic()
        gateway.process.send_signal(number)
        code, written = gateway.ended()
        assert code == 0
        assert time.monotonic() - started < 3, "an idle client is not waited for"
    assert "Traceback" not in written
    assert [json.loads(line)["event"] for line in written.splitlines()][-2:] == ["draining", "stopped"]
    again = launch(sink.url, gateway.port)
    assert again.port == gateway.port
    with again.connect() as client:
        client.sendall(b"GET /staging/x HTTP/1.1\r\nHost: a\r\n\r\n")
        assert read_head(client)[0].startswith(b"HTTP/1.1 200 OK")
    with urllib.request.urlopen(f"{again.admin}/healthz", timeout=5) as answer:
        assert answer.status == 200


def test_a_request_under_way_is_finished_before_it_ends(launch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        asked, go_on = threading.Event(), threading.Event()

        def slowly() -> None:
            while True:
                connection, _ = listener.accept()
                with connection:
                    head, _ = read_head(connection)
                    if b"/healthz" not in head:
                        asked.set()
                        go_on.wait(20)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
                    if asked.is_set():
                        return

        upstream = threading.Thread(target=slowly, daemon=True)
        upstream.start()
        gateway = launch(url_of(listener))
        with gateway.connect() as client:
            client.sendall(b"GET /staging/x HTTP/1.1\r\nHost: a\r\n\r\n")
            assert asked.wait(10)
            gateway.process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + 10
            with contextlib.suppress(OSError):
                while time.monotonic() < deadline:  # until nobody new gets in
                    gateway.connect().close()
            go_on.set()
            head, _ = read_head(client)
            assert head.startswith(b"HTTP/1.1 200 OK")
        code, written = gateway.ended()
        assert code == 0
        assert "Traceback" not in written
        upstream.join(5)


def test_a_taken_port_is_exit_code_3_and_a_clear_message(sink, launch, tmp_path: Path) -> None:
    first = launch(sink.url)
    second = subprocess.run(
        command(tmp_path, sink.url, first.port), capture_output=True, text=True, timeout=30, check=False
    )
    assert second.returncode == 3
    last = second.stderr.strip().splitlines()[-1]
    assert "cannot listen" in last
    assert str(first.port) in last
    assert "in use" in last
    assert "Traceback" not in second.stderr
    with first.connect() as client:
        client.sendall(b"GET /staging/x HTTP/1.1\r\nHost: a\r\n\r\n")
        assert read_head(client)[0].startswith(b"HTTP/1.1 200 OK"), "the first one is not disturbed"
