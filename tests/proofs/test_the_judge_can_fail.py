"""A gateway that is broken on purpose is found out: by the judge that tests/e2e/test_visibility.py and the soak share.

Each mutant lacks one thing that keeps a page from being shown for too long or to the wrong people. First within this
process, told by stories of the visibility matrix, then as processes under the soak's own clients.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.core import invalidation, rows
from gateway.core.templates import Matcher
from gateway.pipeline import decide, fulfil, jobs
from gateway.store.memory import MemoryStore
from tests.e2e.test_visibility import BACKWARDS, EVERYBODY, JOBS, play

ROOT = Path(__file__).parents[2]
Patch = pytest.MonkeyPatch


def story(number: int, *, through: bool = True) -> list[tuple[str, Any]]:
    return [("reads", EVERYBODY), ("write", (number, through)), ("reads", BACKWARDS)]


@pytest.mark.parametrize(
    ("row", "number"),
    [
        ("POST /v3/processes/:guid/actions/scale", 0),
        ("PATCH /v3/processes/:guid", 2),
        ("POST /v3/roles", 3),
        ("POST /v3/apps/:guid/actions/stop", 5),
        ("POST /v3/apps", 6),
        ("PATCH /v3/apps/:guid", 9),
        ("PATCH /v3/spaces/:guid", 10),
        ("PATCH /v3/organizations/:guid", 11),
        ("PATCH /v3/apps/:guid/processes/:type", 12),
        ("* /v2/apps/*", 13),
    ],
)
def test_a_row_of_the_table_is_missing(monkeypatch: Patch, row: str, number: int) -> None:
    methods, wanted = row.split()
    kept = frozenset() if methods == "*" else frozenset(methods.split(","))
    nothing = invalidation._Drops(invalidation._ALWAYS)
    entries = [
        (template, named, nothing if (named, template) == (kept, wanted) else drops)
        for template, named, drops in invalidation._entries()
    ]
    assert [drops for _, _, drops in entries].count(nothing) > [drops for *_, drops in invalidation._entries()].count(
        nothing
    )
    monkeypatch.setattr(invalidation, "_WRITES", Matcher(entries))
    with pytest.raises(AssertionError, match="asked"):
        asyncio.run(play(story(number)))


@pytest.mark.parametrize("number", [4, 7], ids=["a role", "an app"])
def test_the_end_of_a_job_begun_elsewhere_drops_nothing(monkeypatch: Patch, number: int) -> None:
    monkeypatch.setattr(jobs, "dropped_by_job", lambda operation: frozenset())
    with pytest.raises(AssertionError, match="asked"):
        asyncio.run(play([("write", (number, False)), *story(JOBS)]))


def test_the_end_of_a_job_that_is_told_later_drops_nothing(monkeypatch: Patch) -> None:
    """It was over, and pages from before it were read, before anybody asked for it."""
    monkeypatch.setattr(jobs, "dropped_by_job", lambda operation: frozenset())
    with pytest.raises(AssertionError, match="asked"):
        asyncio.run(play([("write", (7, False)), *story(JOBS, through=False), *story(JOBS)]))


def coarse_pages_are_left(monkeypatch: Patch) -> None:
    """The change of a row does not drop pages that may be ordered or filtered by it."""
    right = invalidation._Drops.tags
    monkeypatch.setattr(
        invalidation._Drops, "tags", lambda drops, path: frozenset(tag for tag in right(drops, path) if ":*" not in tag)
    )


def every_page_is_fine(monkeypatch: Patch) -> None:
    """Order and filter are taken to be such as no change of a row can reach."""
    monkeypatch.setattr(rows, "_unmoved", lambda kind, query: True)


def included_is_forgotten(monkeypatch: Patch) -> None:
    """Pages carry the tags of their own type alone."""
    monkeypatch.setattr(invalidation, "_SHOWS", {})


def dropped_too_late(monkeypatch: Patch) -> None:
    """A write's pages are dropped after its answer."""
    right = MemoryStore.invalidate

    def late(store: MemoryStore, tags: Any) -> int:
        asyncio.get_running_loop().call_later(5, right, store, tuple(tags))
        return 0

    monkeypatch.setattr(MemoryStore, "invalidate", late)


def no_guard(monkeypatch: Patch) -> None:
    """A page whose fetch began before a write is stored after it."""
    right = MemoryStore.put
    monkeypatch.setattr(MemoryStore, "put", lambda store, entry, *, generation: right(store, entry, generation=2**62))


def everybody_is_one(monkeypatch: Patch) -> None:
    """One visibility domain for all."""
    everybody = decide.ANONYMOUS_DOMAIN
    monkeypatch.setattr(decide, "_domain", lambda exchange: exchange.principal and everybody)


def scopes_do_not_count(monkeypatch: Patch) -> None:
    """A token that may not read is answered from the store."""
    nothing = decide.STEPS[decide.STEPS.index(decide.authorize)]
    steps = tuple((lambda *_: None) if step is nothing else step for step in decide.STEPS)
    monkeypatch.setattr(decide, "STEPS", steps)
    monkeypatch.setattr(decide, "_domain", lambda exchange: exchange.principal and decide.ANONYMOUS_DOMAIN)


def fresh_for_too_long(monkeypatch: Patch) -> None:
    """A page lives longer than its ttl."""
    right = fulfil.mint

    async def long(page: Any, key: Any, rule: Any, *given: Any, **more: Any) -> Any:
        return await right(page, key, replace(rule, ttl=rule.ttl + 1), *given, **more)

    monkeypatch.setattr(fulfil, "mint", long)


HELD = [("hold", ("admin", 0, (0, True))), ("reads", EVERYBODY)]
AGAIN = [("reads", EVERYBODY), ("write", (0, False)), ("write", (0, True)), ("reads", EVERYBODY)]
PAST = [("reads", EVERYBODY), ("write", (0, False)), ("wait", 5.0), ("reads", EVERYBODY)]


@pytest.mark.parametrize(
    ("mutant", "told"),
    [
        (coarse_pages_are_left, story(2)),
        (every_page_is_fine, story(2)),
        (included_is_forgotten, story(10)),
        (dropped_too_late, story(0)),
        (no_guard, HELD),
        (dropped_too_late, AGAIN),
        (everybody_is_one, [("reads", EVERYBODY)]),
        (scopes_do_not_count, [("reads", EVERYBODY)]),
        (fresh_for_too_long, PAST),
    ],
    ids=lambda given: getattr(given, "__name__", ""),
)
def test_a_mutant(monkeypatch: Patch, mutant: Callable[[Patch], None], told: list[tuple[str, Any]]) -> None:
    mutant(monkeypatch)
    with pytest.raises(AssertionError, match="asked"):
        asyncio.run(play(told))


@pytest.mark.parametrize("told", [HELD, PAST, AGAIN, *(story(number) for number in (0, 2, 10))], ids="abcdef")
def test_the_same_stories_are_well_without(told: list[tuple[str, Any]]) -> None:
    asyncio.run(play(told))


@pytest.mark.timeout(300)  # on a busy machine; on an idle one a few seconds
@pytest.mark.parametrize("mutant", ["no guard", "told late", "spared"])
async def test_a_mutant_of_processes(mutant: str) -> None:
    """Two workers and a Valkey server, under the soak's clients: ends as soon as one answer is wrong."""
    assert await soak(mutant, 120) == 0


async def test_nothing_is_wrong_without_a_mutant() -> None:
    assert await soak("none", 5) == 3, "there is nothing to notice"


async def soak(mutant: str, seconds: int) -> int | None:
    command = (sys.executable, "soak/run.py", "--seconds", str(seconds), "--seed", "3", "--mutant", mutant)
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT)
    try:
        return await process.wait()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
