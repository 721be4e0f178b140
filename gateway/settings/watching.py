"""What is told about the work done: logs and traces."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Literal

from gateway.settings.addresses import Url
from gateway.settings.errors import Problem
from gateway.settings.scalars import Ratio
from gateway.settings.section import Section


class Log(Section):
    """What is logged to standard error."""

    format: Literal["json", "console", "rfc5424"] = "json"
    """`json` writes one object a line, `console` is for people, `rfc5424` is syslog's form, as Cloud Foundry's own \
components write it."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe messages that are written."""
    access_sample: Ratio = 0.01
    """The share of answers from the cache that get a line in the access log; a line costs more than such an answer. \
All other requests get theirs."""


class Tracing(Section):
    """Traces by OpenTelemetry; needs the extra `otel`. Without an endpoint what clients send passes through."""

    endpoint: Url | None = None
    """Where spans are sent, by OTLP over HTTP: `http://collector:4318/v1/traces`."""
    sample: Ratio = 0.01
    """The share of requests that are traced. What a peer in `trusted_proxies` decided for its \
request stands; others may name their trace, and no more."""

    def problems(self) -> Iterator[Problem]:
        """Traces that nobody gets, or that nothing can make."""
        if self.endpoint is None and self.sets("sample"):
            yield Problem(("sample",), "tracing.endpoint beside it", str(self.sample), "nothing is traced without one")
        if self.endpoint is not None and not _installed():
            hint = "pip install 'gateway[otel]'"
            yield Problem(("endpoint",), "the extra otel to be installed", "it missing", hint)


def _installed() -> bool:
    """Whether the packages of the extra are there; none of them is imported."""
    try:
        return all(find_spec(name) for name in ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"))
    except ModuleNotFoundError:
        return False
