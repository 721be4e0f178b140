"""The demo as a new user meets it: its own printed commands in a shell, and a real Cloud Foundry client."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from cloudfoundry_client.client import CloudFoundryClient
from cloudfoundry_client.errors import InvalidStatusCode


@dataclass
class Demo:
    url: str
    printed: str
    process: subprocess.Popen[str]


@pytest.fixture(scope="module", params=[1, 2], ids=["one-worker", "two-workers"])
def demo(request: pytest.FixtureRequest) -> Iterator[Demo]:
    command = [sys.executable, "-m", "gateway", "demo", "--port", "0", "--admin-port", "0", "--processes", "60"]
    command += ["--workers", str(request.param)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("Ctrl-C"):
                break
        printed = "".join(lines)
        found = re.search(r"gateway +(http://\S+)", printed)
        assert found, printed
        yield Demo(found[1], printed, process)
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=20)
        assert process.returncode == 0, rest
        assert "Traceback" not in rest


def test_the_printed_commands_do_what_they_say(demo: Demo) -> None:
    # What is indented by two and comes after the heading "log in" is for the shell.
    script = demo.printed.partition("log in")[2]
    commands = "\n".join(line[2:] for line in script.splitlines() if line.startswith("  "))
    shell = subprocess.run(["bash", "-euc", commands], capture_output=True, text=True, timeout=60, check=False)
    output = shell.stdout.lower()
    assert shell.returncode == 0, shell.stderr
    assert "cache-status: gateway;hit" in output
    assert f"{demo.url}/v3/processes?page=2&per_page=2".lower() in output
    assert re.findall(r"^http/1.1 (\d+)", output, re.MULTILINE) == ["200", "200", "401", "403", "304"]
    assert "x-gateway-error: insufficient-scope; required one of: cloud_controller.read" in output


@pytest.fixture
def client(demo: Demo) -> CloudFoundryClient:
    client = CloudFoundryClient(demo.url)
    client.init_with_user_credentials("admin", "admin")
    return client


def test_cloudfoundry_client_walks_all_processes_two_at_a_time(client: CloudFoundryClient) -> None:
    guids = [process["guid"] for process in client.v3.processes.list(per_page=2)]
    assert len(guids) == len(set(guids)) == 60


def test_cloudfoundry_client_reads_one_process(client: CloudFoundryClient) -> None:
    listed = client.v3.processes.get_first(per_page=1)
    one = client.v3.processes.get(listed["guid"])
    assert one["guid"] == listed["guid"]
    assert listed["command"] == "[PRIVATE DATA HIDDEN IN LISTS]" != one["command"]


def test_a_scale_shows_in_the_next_list(demo: Demo, client: CloudFoundryClient) -> None:
    before = client.v3.processes.get_first(per_page=2)
    wanted = before["instances"] + 3
    url = f"{demo.url}/v3/processes/{before['guid']}/actions/scale"
    assert client.post(url, json={"instances": wanted}).json()["instances"] == wanted
    after = {process["guid"]: process["instances"] for process in client.v3.processes.list(per_page=2)}
    assert after[before["guid"]] == wanted


def test_a_wrong_password_and_a_missing_resource_are_told_as_the_controller_tells_them(
    demo: Demo, client: CloudFoundryClient
) -> None:
    with pytest.raises(Exception, match="401"):
        CloudFoundryClient(demo.url).init_with_user_credentials("admin", "wrong")
    with pytest.raises(InvalidStatusCode, match="CF-ResourceNotFound"):
        client.v3.processes.get("00000000-0000-4000-8000-00000000dead")
