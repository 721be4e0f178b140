from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gateway import __version__
from gateway.commands import app
from tests.conftest import SECRET, Stub, token


def gateway(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def settings_file(tmp_path: Path) -> Path:
    return write(tmp_path, "http://127.0.0.1:1")


def write(folder: Path, upstream: str, extra: str = "") -> Path:
    path = folder / "gateway.yaml"
    path.write_text(
        f"""
listen: {{port: 0}}
admin: {{port: 0}}
public_url: https://gateway.example.org
upstream: {{url: {upstream}}}
auth: {{keys: [{{secret: {SECRET}}}]}}
{extra}
"""
    )
    return path


@pytest.fixture
def controller() -> Iterator[Stub]:
    """A stub in a thread of its own, since a command runs its own event loop."""
    stub = Stub()
    stub.answers_json(b'{"links":{"self":{"href":"https://api.internal.example.org"}}}')
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(stub.serve, "127.0.0.1", 0))
    stub.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield stub
    loop.call_soon_threadsafe(server.close)

    async def rest() -> None:
        await asyncio.sleep(0.05)

    asyncio.run_coroutine_threadsafe(rest(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_version_and_help() -> None:
    assert gateway("--version").output == f"gateway {__version__}\n"
    overview = gateway("--help").output
    assert all(command in overview for command in ("run", "demo", "check", "explain"))


@pytest.mark.parametrize("command", [["run"], ["check"], ["explain", "GET", "/v3/processes"]], ids=lambda one: one[0])
def test_faulty_settings_stop_every_command_with_2_and_the_line(command: list[str], tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("public_url: https://x.example.org\nupstream: {url: http://127.0.0.1:1}\nauht: {}\n")
    result = gateway(*command, "-c", str(path))
    assert result.exit_code == 2
    assert f"{path}:3: auht" in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize("command", [["run"], ["check"], ["explain", "GET", "/"]], ids=lambda one: one[0])
def test_an_unusable_key_stops_every_command_with_2(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    path = write(tmp_path, "http://127.0.0.1:1")
    path.write_text(path.read_text().replace(f"secret: {SECRET}", "pem_file: key.pem"))
    result = gateway(*command, "-c", str(path))
    assert result.exit_code == 2
    assert "key.pem: not a public key" in result.stderr


def test_check_says_what_it_found(controller: Stub, tmp_path: Path) -> None:
    result = gateway("check", "-c", str(write(tmp_path, controller.url)))
    assert result.exit_code == 0, result.output
    assert re.search(r"^ok +keys: 1 loaded", result.output, re.MULTILINE)
    assert re.search(r"^ok +upstream: ", result.output, re.MULTILINE)
    assert "https://api.internal.example.org (learnt from GET /) -> https://gateway.example.org" in result.output


def test_check_fails_when_nothing_answers(settings_file: Path) -> None:
    result = gateway("check", "-c", str(settings_file))
    assert result.exit_code == 1
    assert re.search(r"^FAIL +upstream: connection failed", result.output, re.MULTILINE)
    assert re.search(r"^FAIL +advertised origin: ", result.output, re.MULTILINE)


def test_check_names_conflicts_of_the_table(controller: Stub, tmp_path: Path) -> None:
    path = write(tmp_path, controller.url, 'routes: [{match: "* /internal/*", access: public}]')
    result = gateway("check", "-c", str(path))
    assert result.exit_code == 1
    assert re.search(r"^ERROR +route-opened: .*internal", result.output, re.MULTILINE)


def test_check_speaks_json_for_a_ci(tmp_path: Path) -> None:
    routes = "routes: [{match: GET /v3/apps, scopes_any: [cloud_controller.raed]}]"
    path = write(tmp_path, "http://127.0.0.1:1", routes)
    result = gateway("check", "-c", str(path), "--offline", "-o", "json")
    assert result.exit_code == 0
    found = {finding["name"]: finding for finding in json.loads(result.output)}
    assert found["unknown-scope"]["level"] == "warning"
    assert found["unknown-scope"]["key"] == "routes"
    assert gateway("check", "-c", str(path), "--offline", "--strict").exit_code == 1


def test_run_refuses_what_would_leak(tmp_path: Path) -> None:
    routes = "routes: [{match: GET /v3/apps/:guid/env, cache: {mode: policy, ttl: 5s, share: global}}]"
    result = gateway("run", "-c", str(write(tmp_path, "http://127.0.0.1:1", routes)))
    assert result.exit_code == 2
    assert "share: global would show them" in result.stderr


def test_schema_is_the_one_the_examples_name() -> None:
    printed = gateway("schema").output
    config = Path(__file__).parents[1] / "config"
    assert (config / "schema.json").read_text() == printed, "run: gateway schema > config/schema.json"
    for example in config.glob("*.yaml"):
        assert example.read_text().startswith("# yaml-language-server: $schema=schema.json\n"), example


EXPLAINED = [
    pytest.param(
        ["GET", "/v3/processes?per_page=2&page=1"],
        {},
        0,
        [
            "route .*GET.* /v3/processes",
            "access +scopes",
            "decision +allowed",
            "rate class +list",
            r"cache key +/v3/processes\?page=1&per_page=2",
        ],
        id="a list",
    ),
    pytest.param(
        ["GET", "/v3/processes"],
        None,
        1,
        ["decision +refused: no-token", "answer +401 CF-NotAuthenticated"],
        id="no token",
    ),
    pytest.param(
        ["POST", "/v3/apps"],
        {"scope": ["cloud_controller.read"]},
        1,
        [
            "scopes required +cloud_controller.write",
            "scopes present +cloud_controller.read",
            "refused: insufficient-scope",
        ],
        id="scope missing",
    ),
    pytest.param(["GET", "/v3/processes"], {"exp": 1}, 1, ["token +expired", "refused: invalid-token"], id="expired"),
    pytest.param(["GET", "/internal/v4/x"], {}, 1, ["refused: denied-route", "answer +403"], id="denied route"),
    pytest.param(["GET", "/v3/%2e%2e/x"], {}, 1, ["refused: unknown-route"], id="dot segments"),
    pytest.param(["GET", "/v3/apps/x"], {}, 0, ["decision +allowed", "cache key +none: route"], id="not cached"),
    pytest.param(["GET", "/"], None, 0, ["visibility domain +public"], id="public"),
    pytest.param(
        ["GET", "/v3/processes"],
        {"scope": ["cloud_controller.admin"]},
        0,
        ["visibility domain +6:global"],
        id="sees everything",
    ),
]


@pytest.mark.parametrize(("request_line", "claims", "code", "expected"), EXPLAINED)
def test_explain(
    settings_file: Path, request_line: list[str], claims: dict | None, code: int, expected: list[str]
) -> None:
    given = [] if claims is None else ["--token", token(**claims)]
    result = gateway("explain", "-c", str(settings_file), *given, *request_line)
    assert result.exit_code == code, result.output
    for line in expected:
        assert re.search(line, result.output), f"{line!r} not in\n{result.output}"


LIMITS = """
rate_limits:
  policies:
    - {name: users, who: principal, limit: 100, window: 1m, cost: {miss: 2, per_row: 0.5}}
    - {name: trial, who: anonymous, limit: 3, window: 1h, mode: shadow}
"""


@pytest.mark.parametrize(
    ("request_line", "claims", "expected"),
    [
        pytest.param(
            ["GET", "/v3/processes?per_page=10"],
            {},
            r"rate limit +users: 7 units \(1 from the cache\) of principal uaa-id-432; 100 per 60s, 100 at once\n",
            id="a user",
        ),
        pytest.param(
            ["GET", "/v3/processes"],
            None,
            r"rate limit +trial: 1 units .* of anonymous the client's address; 3 per 3600s, 3 at once, shadow\n",
            id="nobody",
        ),
        pytest.param(["GET", "/"], {}, "rate limit +none counts it", id="exempt"),
    ],
)
def test_explain_names_the_limits_that_count(
    tmp_path: Path, request_line: list[str], claims: dict | None, expected: str
) -> None:
    given = [] if claims is None else ["--token", token(**claims)]
    result = gateway("explain", "-c", str(write(tmp_path, "http://127.0.0.1:1", LIMITS)), *given, *request_line)
    assert re.search(expected, result.output), result.output


def test_explain_takes_a_token_from_a_file_and_never_prints_it(settings_file: Path, tmp_path: Path) -> None:
    secret = token()
    (tmp_path / "token").write_text(secret + "\n")
    result = gateway("explain", "-c", str(settings_file), "--token", f"@{tmp_path / 'token'}", "GET", "/v3/processes")
    assert result.exit_code == 0
    assert secret not in result.output


def test_explain_says_when_a_signature_was_not_checked(tmp_path: Path) -> None:
    path = write(tmp_path, "http://127.0.0.1:1")
    path.write_text(path.read_text().replace(f"secret: {SECRET}", "url: http://127.0.0.1:1/token_keys"))
    result = gateway("explain", "-c", str(path), "--token", token(), "GET", "/v3/processes")
    assert "signature NOT checked" in result.output
