"""The controllers and limits of concurrency in the settings: what contradicts itself stops the start."""

from __future__ import annotations

import pytest

from gateway.core.balance import EjectionPolicy
from gateway.core.breaker import BreakerPolicy
from gateway.core.concurrency import LimitPolicy
from gateway.settings import ConfigError, Settings, parse


def settings(upstream: str, more: str = "") -> Settings:
    return parse(
        f"public_url: https://p.example.org\nupstream: {{{upstream}}}\nroute_table: none\n"
        f"routes: [{{match: GET /, access: public}}]\n{more}",
        {},
    )


def test_one_url_or_several() -> None:
    assert settings("url: http://a").upstream.origins == ("http://a",)
    assert settings("urls: [http://a, http://b]").upstream.origins == ("http://a", "http://b")


def test_in_the_cores_words() -> None:
    upstream = settings("url: http://a").upstream
    assert upstream.breaker.policy() == BreakerPolicy()
    assert upstream.ejection_policy() == EjectionPolicy()
    assert settings("url: http://a, breaker: {enabled: false}").upstream.breaker.policy() is None
    limits = settings("url: http://a", "concurrency: {upstream: {}}").concurrency.upstream
    assert limits is not None
    assert limits.policy() == LimitPolicy()


@pytest.mark.parametrize(
    ("upstream", "more", "fault"),
    [
        ("connections: 1", "", "upstream.url: expected an origin such as https://api.example.org, or a list"),
        ("url: http://a, urls: [http://b]", "", "upstream.urls: expected no such key beside url"),
        ("urls: [http://a, http://b, http://a]", "", "upstream.urls[2]: expected each controller once"),
        ("urls: [http://a], resolve_interval: 5s", "", "upstream.resolve_interval: expected no such key beside urls"),
        ("url: http://a, max_header_bytes: 5B", "", "upstream.max_header_bytes: expected a size of at least 1KiB"),
        ("url: http://a, health: {path: healthz}", "", "upstream.health.path: expected a path such as /healthz"),
        ("url: http://a, health: {interval: 0}", "", "upstream.health.interval: expected a duration above 0"),
        ("url: http://a, ejection: {rest: 9m}", "", "upstream.ejection.longest: expected at least as long as rest"),
        ("url: http://a, breaker: {ratio: 0}", "", "upstream.breaker.ratio: expected a share above 0"),
        ("url: http://a, breaker: {window: 0}", "", "upstream.breaker.window: expected a duration above 0"),
        ("url: http://a", "concurrency: {upstream: {min: 9, max: 5}}", "concurrency.upstream.max: expected at least"),
        ("url: http://a", "concurrency: {upstream: {initial: 101}}", "concurrency.upstream.initial: expected a number"),
        ("url: http://a", "concurrency: {upstream: {tolerance: 1}}", "concurrency.upstream.tolerance: expected"),
        ("url: http://a", "concurrency: {upstream: {window: 0}}", "concurrency.upstream.window: expected"),
        ("url: http://a", "concurrency: {queue_timeout: 0}", "concurrency.queue_timeout: expected a duration above 0"),
    ],
)
def test_contradictions(upstream: str, more: str, fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(upstream, more)
    assert fault in str(caught.value)
