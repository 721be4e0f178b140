"""The threat model is held to the tests it names, and the supply chain to its locks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.splitlines() if re.match(r"\| [STRIDE] \|", line)]
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[2].strip()[:60])
def test_each_threat_names_a_test(row: str) -> None:
    kind, threat, defence, tests = (cell.strip() for cell in row.strip("| ").split(" | "))
    assert kind in "STRIDE"
    assert threat
    assert defence
    assert re.fullmatch(r"`tests/[\w/]+\.py::test_\w+`(, `tests/[\w/]+\.py::test_\w+`)*", tests)


@pytest.mark.parametrize(("file", "name"), NAMED, ids=[name for _, name in NAMED])
def test_each_test_that_is_named_exists(file: str, name: str) -> None:
    source = (ROOT / file).read_text(encoding="utf-8")
    assert re.search(rf"^(async )?def {name}\(", source, re.MULTILINE)


def test_each_boundary_has_each_kind() -> None:
    for section in PAGE.split("\n### ")[1:]:
        kinds = set(re.findall(r"^\| ([STRIDE]) \|", section, re.MULTILINE))
        assert kinds == set("STRIDE"), section.splitlines()[0]


def test_the_sbom_and_the_audit_are_made_from_the_locks() -> None:
    """Every requirement is pinned and hashed, and both commands read the file that is installed."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for command in ("cyclonedx-py requirements requirements/runtime.txt", "pip-audit --strict --require-hashes"):
        assert command in makefile
    for lock in (ROOT / "requirements").glob("*.txt"):
        text = lock.read_text(encoding="utf-8")
        pinned = re.findall(r"^[a-z0-9._-]+(?:\[[a-z,]+\])?==\S+", text, re.MULTILINE | re.IGNORECASE)
        blocks = re.split(r"\n(?=[a-zA-Z0-9])", text.partition("\n\n")[0] + "\n" + text)
        assert len(pinned) > 20
        assert all("--hash=sha256:" in block for block in blocks if re.match(r"[A-Za-z0-9._-]+(\[.*\])?==", block))
        assert "://" not in re.sub(r"#.*", "", text), "no addresses of registries"


def test_security_names_what_exists() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for command in re.findall(r"`make (\w+)`", text):
        assert re.search(rf"^{command}:", makefile, re.MULTILINE)


# Every class of failure that comparable software had, and that is to be defended against here.
ADVISORIES = (
    *("CVE-2022-29217", "CVE-2026-39999", "CVE-2026-32597", "GHSA-75c5-xw7c-p5pm", "CVE-2018-0114", "CVE-2026-35039"),
    *("CVE-2025-66490", "GHSA-6jwx-7vp4-9847", "VSV00018", "CVE-2024-45410", "CVE-2025-48865", "CVE-2025-64484"),
    *("CVE-2025-4366", "CVE-2026-2836", "CVE-2023-28858", "envoy-16399", "envoy-13705", "go-oidc-482"),
    *("krakend-ce-687", "spring-cloud-gateway-3152", "slowloris"),
)


@pytest.mark.parametrize("advisory", ADVISORIES)
def test_each_advisory_class_has_a_test_that_names_it(advisory: str) -> None:
    pattern = re.compile(re.sub(r"[-_]", "[-_#]", advisory), re.IGNORECASE)
    naming = [file for file in (ROOT / "tests").rglob("test_*.py") if file != Path(__file__).resolve()]
    assert any(pattern.search(file.read_text(encoding="utf-8")) for file in naming)
