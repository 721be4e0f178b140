"""The documentation is held to the code."""

from __future__ import annotations

import re
from pathlib import Path

import aiohttp

from gateway import catalogue
from gateway.core.caching import NoStoreReason
from gateway.core.errors import Reason
from gateway.pipeline import decide
from gateway.pipeline.exchange import Bypass

DOCS = Path(__file__).parents[1] / "docs"


def rows(page: str, column: int = 0) -> set[str]:
    """What stands in backquotes in a column of the page's tables."""
    lines = [line for line in (DOCS / page).read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    cells = [line.strip("| ").split(" | ")[column].strip() for line in lines]
    return {cell.strip("`") for cell in cells if cell.startswith("`")}


def test_request_path_names_the_steps_of_decide() -> None:
    documented = [
        name.removeprefix("decide.") for name in sorted(rows("request-path.md", 1)) if name.startswith("decide.")
    ]
    assert sorted(documented) == sorted(step.__name__ for step in decide.STEPS)


def test_request_path_names_every_bypass() -> None:
    documented = {row for row in rows("request-path.md") if re.fullmatch(r"[a-z-]+", row)}
    assert documented == {bypass.value for bypass in Bypass if bypass is not Bypass.METHOD}


def test_request_path_names_reasons_that_exist() -> None:
    text = (DOCS / "request-path.md").read_text(encoding="utf-8")
    named = set(re.findall(r"[45]\d\d `([a-z-]+)`", text))
    assert named <= {reason.value for reason in Reason}
    assert {"no-token", "invalid-token", "insufficient-scope"} <= named


def test_caching_names_every_reason_against_storing() -> None:
    table = (DOCS / "caching.md").read_text(encoding="utf-8").partition("### Not stored")[2].partition("## Many")[0]
    documented = set(re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE))
    assert documented == {reason.value for reason in NoStoreReason} | {"too-large", "stale-if-error"}


def test_the_metric_catalogue_is_generated_from_the_code() -> None:
    committed = (DOCS / "metrics.md").read_text(encoding="utf-8")
    assert committed == catalogue.document(), "run: python -m gateway.catalogue > docs/metrics.md"


async def test_every_metric_is_in_the_catalogue_and_the_other_way_round(
    stub, start_gateway, http: aiohttp.ClientSession
) -> None:
    gateway = await start_gateway(stub.url)
    async with http.get(f"{gateway.admin_url}/metrics") as response:
        text = await response.text()
    families = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    assert families == {one.name: one.kind for one in catalogue.catalogue()}
