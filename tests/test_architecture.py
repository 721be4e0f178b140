"""The import rules of the design, held by the machine."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "gateway"
ADAPTERS = frozenset({"edge", "upstream", "identity", "store", "limits", "telemetry", "admin"})
ROOTS = frozenset(
    {
        *("app", "assembly", "observed", "catalogue", "tracing", "cli", "cache_cli", "commands"),
        *("check", "lint", "explain", "demo", "reload", "doors", "upstreams", "workers", "sharing", "__main__"),
        *("serving", "derived", "lifecycle", "lean"),
    }
)

MAY_IMPORT = {
    "core": frozenset({"core"}),
    "pipeline": frozenset({"core", "pipeline"}),
    **{adapter: frozenset({"core", "pipeline", adapter}) for adapter in ADAPTERS},
    # One way to the shared store for pages and counters: one breaker, one log line, one set of connections.
    "shared": frozenset({"shared"}),
    "store": frozenset({"core", "pipeline", "shared", "store"}),
    "limits": frozenset({"core", "pipeline", "shared", "limits"}),
    "settings": frozenset({"core", "settings"}),
    "sandbox": frozenset({"sandbox"}),
    "live": frozenset({"live"}),
}
NOT_IN_CORE = frozenset({"asyncio", "time", "logging", "random", "socket", "os", "threading", "subprocess"})
CODECS = frozenset({"msgspec"})


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            if node.module == "gateway":
                found |= {f"gateway.{alias.name}" for alias in node.names}
    return found


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_the_way_the_design_says(path: Path) -> None:
    part = part_of(path)
    if part in ROOTS or part == "__init__":
        return
    inside = {name.split(".")[1] for name in imports(path) if name.startswith("gateway.")}
    assert inside <= MAY_IMPORT[part]


@pytest.mark.parametrize("path", sorted((PACKAGE / "core").glob("*.py")), ids=lambda path: path.name)
def test_core_is_pure(path: Path) -> None:
    outside = {name.split(".")[0] for name in imports(path)} - {"gateway"}
    assert outside <= set(sys.stdlib_module_names) | CODECS
    assert outside.isdisjoint(NOT_IN_CORE)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_say_what_they_are_for_and_stay_one_room(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(source)), "the law of the module stands at its top"
    assert len(source.splitlines()) <= 400, "two rooms in one"


# Imported in these modules alone, so that a process that needs none of it has none of it (`tests/test_imports.py`).
ONLY_IN = {
    "structlog": {"telemetry/structured.py"},
    "typer": {"commands.py", "cache_cli.py"},
    "valkey": {"shared/clients.py"},
    "opentelemetry": {"telemetry/traces.py", "tracing.py"},
}


@pytest.mark.parametrize("library", ONLY_IN)
def test_libraries_that_few_need_have_one_way_in(library: str) -> None:
    importing = {path for path in modules() if any(name.split(".")[0] == library for name in imports(path))}
    assert {str(path.relative_to(PACKAGE)) for path in importing} == ONLY_IN[library]
