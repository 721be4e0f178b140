"""`python -m grafana.generate` writes `grafana/dashboards/*.json`."""

from __future__ import annotations

from pathlib import Path

from grafana.build import Page, render
from grafana.pages_policy import ACCESS, CACHE, LIMITS, SHARED
from grafana.pages_service import OVERVIEW, PROCESS, UPSTREAM

PAGES: tuple[Page, ...] = (OVERVIEW, CACHE, ACCESS, LIMITS, UPSTREAM, SHARED, PROCESS)
FOLDER = Path(__file__).parent / "dashboards"


def files() -> dict[Path, str]:
    """What belongs into the folder, by path."""
    return {FOLDER / f"{page.uid}.json": render(page) for page in PAGES}


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")
