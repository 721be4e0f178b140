from __future__ import annotations

import pytest

from gateway.pipeline.jobs import PendingJobs

TAGS = frozenset({"apps", "processes"})
NAMED = "https://api.internal.example.org/v3/jobs/j-1"


def pending(location: str | None = NAMED, tags: frozenset[str] = TAGS) -> PendingJobs:
    jobs = PendingJobs()
    jobs.remember(location, tags)
    return jobs


@pytest.mark.parametrize(
    ("location", "remembered"),
    [
        (NAMED, 1),
        ("/v3/jobs/j-1", 1),
        ("https://api.example.org/prefix/v3/jobs/j-1?x=1", 1),
        (None, 0),
        ("", 0),
        ("https://api.example.org/v3/apps/j-1", 0),
        ("https://api.example.org/v3/jobs/", 0),
        ("https://api.example.org/v3/jobs/j-1/more", 0),
    ],
)
def test_which_locations_name_a_job(location: str | None, remembered: int) -> None:
    assert len(pending(location)) == remembered


def test_a_job_that_will_change_nothing_is_not_remembered() -> None:
    assert len(pending(tags=frozenset())) == 0


@pytest.mark.parametrize(
    ("path", "status", "state", "over"),
    [
        ("/v3/jobs/j-1", 200, "COMPLETE", True),
        ("/v3/jobs/j-1", 200, "FAILED", True),
        ("/v3/jobs/j-1", 200, "PROCESSING", False),
        ("/v3/jobs/j-1", 200, "POLLING", False),
        ("/v3/jobs/j-1", 401, "COMPLETE", False),
        ("/v3/jobs/j-2", 200, "COMPLETE", False),
        ("/v3/apps/j-1", 200, "COMPLETE", False),
    ],
)
def test_when_a_job_is_over(path: str, status: int, state: str, over: bool) -> None:
    jobs = pending()
    body = f'{{"guid":"j-1","state":"{state}"}}'.encode()
    assert jobs.ended(path, status, body) == (TAGS if over else frozenset())
    assert len(jobs) == (0 if over else 1)


def test_its_end_is_told_once() -> None:
    jobs = pending()
    assert jobs.ended("/v3/jobs/j-1", 200, b'{"state":"COMPLETE"}') == TAGS
    assert jobs.ended("/v3/jobs/j-1", 200, b'{"state":"COMPLETE"}') == frozenset()


def test_the_oldest_gives_way() -> None:
    jobs = PendingJobs(capacity=2)
    for guid in ("a", "b", "c"):
        jobs.remember(f"/v3/jobs/{guid}", TAGS)
    assert len(jobs) == 2
    assert not jobs.ended("/v3/jobs/a", 200, b'{"state":"COMPLETE"}')
    assert jobs.ended("/v3/jobs/c", 200, b'{"state":"COMPLETE"}') == TAGS
