"""What is shipped runs outside the tree: the wheel and the sdist, with the files they need and nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

from gateway.settings import load

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a wheel and an sdist, made of what git knows."""
    folder = tmp_path_factory.mktemp("built")
    source = folder / "source"
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.split(b"\0")
    for name in filter(None, names):
        path = ROOT / os.fsdecode(name)
        if path.exists() and path.relative_to(ROOT).parts[0] in {"gateway", "pyproject.toml", "README.md"}:
            target = source / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(source)],
        capture_output=True,
        check=True,
        timeout=110,
    )
    return folder


def test_the_wheel_runs_outside_the_tree(built: Path, tmp_path: Path) -> None:
    wheel = next(built.glob("gateway-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    where = run("-c", "import gateway; print(gateway.__file__)").stdout
    assert where.startswith(str(tmp_path)), "the tree's own package was tested"
    assert run("-m", "gateway", "--version").stdout.startswith("gateway ")
    assert run("-m", "gateway", "schema").stdout == (ROOT / "config/schema.json").read_text()
    done = run("-m", "gateway", "check", "--offline", "-c", str(ROOT / "config/minimal.yaml"))
    assert done.returncode == 0, done.stderr
    page = run("-c", "from gateway.admin.status import _PAGE; print(_PAGE.read_text())")
    assert "gateway status" in page.stdout, page.stderr


def test_the_wheel_holds_the_package_alone(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("gateway-*.whl"))) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"gateway"}
    assert "gateway/py.typed" in names
    entry = next(name for name in names if name.endswith("entry_points.txt"))
    with zipfile.ZipFile(next(built.glob("gateway-*.whl"))) as archive:
        assert "gateway = gateway.cli:main" in archive.read(entry).decode()


def test_the_sdist_can_be_built_from(built: Path) -> None:
    with tarfile.open(next(built.glob("gateway-*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "gateway/app.py", "gateway/admin/status.html"} <= names


def test_the_container_runs_as_nobody_and_installs_by_hash() -> None:
    text = (ROOT / "deploy/Containerfile").read_text()
    last = text.split("FROM ")[-1]
    assert re.search(r"^USER \d+:\d+$", last, re.MULTILINE)
    assert "--require-hashes" in text
    assert "RUN" not in last, "the last layer only copies"


def test_the_manifest_names_variables_that_the_settings_know() -> None:
    manifest = yaml.safe_load((ROOT / "deploy/manifest.yml").read_text())
    known = set(re.findall(r"\$\{([A-Z_]+)", (ROOT / "config/gateway.yaml").read_text()))
    for application in manifest["applications"]:
        assert set(application["env"]) <= known
        assert application["command"].endswith("-c config/gateway.yaml")


def test_the_cluster_is_the_same_in_settings_compose_and_unit() -> None:
    compose = yaml.safe_load((ROOT / "deploy/docker-compose.yaml").read_text())
    known = set(re.findall(r"\$\{([A-Z_0-9]+)", (ROOT / "config/cluster.yaml").read_text()))
    services = compose["services"]
    gateways = [service for name, service in services.items() if name.startswith("gateway-")]
    assert len(gateways) == 2
    for service in gateways:
        assert set(service["environment"]) <= known
        assert service["command"] == ["run", "-c", "/etc/gateway/cluster.yaml"]
        assert service["read_only"]
    environment = {"VALKEY_PASSWORD": "secret", "SHARED_STORE_KEY": "k" * 32}
    settings = load(ROOT / "config/cluster.yaml", environment)
    assert settings.shared_store is not None
    assert settings.shared_store.stands == "cluster"
    assert {host for host, _ in settings.shared_store.addresses} <= set(services)
    unit = (ROOT / "deploy/gateway.service").read_text()
    assert "run -c /etc/gateway/cluster.yaml" in unit
    stops = int(re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)[0])
    assert stops > settings.drain
    assert int(gateways[0]["stop_grace_period"].removesuffix("s")) > settings.drain
