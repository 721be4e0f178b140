"""What one of several workers gets of the settings."""

from __future__ import annotations

import os

import pytest

from gateway.settings import ConfigError, parse
from gateway.workers.share import count, share

TEXT = """
public_url: https://gateway.example.org
upstream: {{url: "http://127.0.0.1:1", connections: 100}}
auth: {{keys: [{{secret: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa}}]}}
cache: {{max_bytes: 100MiB, max_entry_bytes: 32MiB}}
rate_limits:
  policies: [{{name: users, who: principal, limit: 10, burst: 3, window: 1h}}]
  failed_authentications: {{limit: 1, window: 1m}}
concurrency: {{per_principal: 10, upstream: {{min: 2, initial: 40, max: 90}}, queue: 10}}
workers: {workers}
"""


def test_memory_connections_and_limits_are_shared_out() -> None:
    settings = share(parse(TEXT.format(workers=4), {}), 4)
    assert settings.cache.max_bytes == settings.cache.max_entry_bytes == 25 * 1024 * 1024
    assert settings.upstream.connections == 25
    (policy,) = settings.rate_limits.policies
    assert (policy.limit, policy.burst) == (2, 1)
    assert settings.rate_limits.failed_authentications is not None
    assert settings.rate_limits.failed_authentications.limit == 1
    concurrency = settings.concurrency
    assert (concurrency.per_principal, concurrency.queue) == (2, 3)
    assert concurrency.upstream is not None
    assert (concurrency.upstream.min, concurrency.upstream.initial, concurrency.upstream.max) == (1, 10, 22)


@pytest.mark.parametrize(
    ("written", "expected"), [("1", 1), ("3", 3), ("auto", len(os.sched_getaffinity(0))), ("'2'", 2)]
)
def test_how_many(written: str, expected: int) -> None:
    assert count(parse(TEXT.format(workers=written), {})) == expected


@pytest.mark.parametrize("written", ["0", "257", "many", "-1", "true"])
def test_what_is_no_number_of_workers(written: str) -> None:
    with pytest.raises(ConfigError, match="workers: expected a whole number from 1 to 256, or auto"):
        parse(TEXT.format(workers=written), {})
