from __future__ import annotations

import pytest

from gateway.core.invalidation import EVERYTHING, dropped_by
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
        ("/v2/jobs/j-1", 1),
        ("/v2/jobs/", 0),
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
        ("/v2/jobs/j-1", 200, "COMPLETE", False),
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
    assert jobs.ended("/v3/jobs/c", 200, b'{"state":"COMPLETE"}') == TAGS
    assert jobs.ended("/v3/jobs/a", 200, b'{"state":"COMPLETE"}') == {EVERYTHING}, "it is not known any more"


@pytest.mark.parametrize(
    ("operation", "dropped"),
    [
        ("app.delete", dropped_by("DELETE", "/v3/apps/g")),
        ("app.clear_buildpack_cache", frozenset({"audit_events", "usage", "other"})),
        ("space.delete", {EVERYTHING}),
        ("role.delete", {EVERYTHING}),
        ("space.apply_manifest", {EVERYTHING}),
        ("unheard.of", {EVERYTHING}),
        ("", {EVERYTHING}),
    ],
)
@pytest.mark.parametrize("state", ["COMPLETE", "FAILED"])
def test_the_end_of_a_job_that_was_begun_elsewhere_drops_by_what_it_does(
    operation: str, dropped: frozenset[str], state: str
) -> None:
    """Begun through another process, or past the gateway; told once, or asking would cost everybody their pages."""
    jobs, body = PendingJobs(), f'{{"state":"{state}","operation":"{operation}"}}'.encode()
    assert jobs.ended("/v3/jobs/other", 200, body.replace(state.encode(), b"PROCESSING")) == frozenset()
    assert jobs.ended("/v3/jobs/other", 200, body) == dropped
    assert jobs.ended("/v3/jobs/other", 200, body) == frozenset()


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"state":1}', b'{"entity":{"status":"finished"}}', b"\xff"])
def test_what_is_no_v3_job_ends_none(body: bytes) -> None:
    assert PendingJobs().ended("/v3/jobs/other", 200, body) == frozenset()


def test_v2_calls_jobs_finished_that_it_does_not_know() -> None:
    jobs, finished = PendingJobs(), b'{"entity":{"guid":"0","status":"finished"}}'
    assert jobs.ended("/v2/jobs/any", 200, finished) == frozenset()
    jobs.remember("/v2/jobs/j-1", TAGS)
    assert jobs.ended("/v2/jobs/j-1", 200, finished) == TAGS
    assert jobs.ended("/v2/jobs/j-1", 200, finished) == frozenset()


def test_so_many_ends_are_remembered() -> None:
    jobs = PendingJobs(capacity=2)
    for guid in ("a", "b", "c"):
        assert jobs.ended(f"/v3/jobs/{guid}", 200, b'{"state":"COMPLETE"}')
    assert not jobs.ended("/v3/jobs/c", 200, b'{"state":"COMPLETE"}')
    assert jobs.ended("/v3/jobs/a", 200, b'{"state":"COMPLETE"}')
