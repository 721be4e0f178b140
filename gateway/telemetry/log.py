"""Logs: structlog, as JSON, syslog or text for people; one line for each exchange, of plain hits for a sample.

A line holds the path but never the query (it may name people), never a token, cookie or field value. A line that cannot
be written (a full disk, a reader that has gone) is lost and counted; it fails no request.
"""

from __future__ import annotations

import logging
import random
import sys
from math import log, log1p
from typing import TYPE_CHECKING, Final

from gateway.core.tracing import extract
from gateway.core.visibility import kind_of
from gateway.pipeline.exchange import Verdict
from gateway.telemetry.structured import structlog
from gateway.telemetry.syslog import SyslogRenderer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway.pipeline.exchange import Exchange
    from gateway.pipeline.ports import Recorder


def configure(*, level: str, style: str, always: Mapping[str, object] | None = None) -> None:
    """Set up logging for the process, to standard error; again to change it.

    What libraries log through the standard library takes the same form.

    Args:
        level: "debug", "info", "warning" or "error".
        style: "json" for one JSON object a line, "rfc5424" for syslog's form, "console" for people.
        always: what every line says from now on; None leaves that as it is.
    """
    if always is not None:
        _ALWAYS.clear()
        _ALWAYS.update(always)
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[structlog.typing.Processor] = [
        _say_always,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    rendering: list[structlog.typing.Processor]
    match style:
        case "console":
            # The other exception formatters show the values of variables: tokens.
            plain = structlog.dev.plain_traceback
            rendering = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
        case "rfc5424":
            rendering = [structlog.processors.format_exc_info, SyslogRenderer()]
        case _:
            rendering = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=[*shared, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: _PRINTER,
        cache_logger_on_first_use=False,
    )
    handler = _Standard()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    for other in [one for one in root.handlers if isinstance(one, _Standard)]:
        root.removeHandler(other)
    root.addHandler(handler)
    root.setLevel(max(number, logging.WARNING))


_ALWAYS: Final[dict[str, object]] = {}


def _say_always(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    event.update(_ALWAYS)
    return event


class _Printer:
    """Writes lines to what is standard error at that moment, and counts those it could not write."""

    def __init__(self) -> None:
        self.lost = 0

    def msg(self, message: str) -> None:
        try:
            # One call for the whole line: half of one, cut by a full disk, would spoil the next.
            sys.stderr.write(f"{message}\n")
            sys.stderr.flush()
        except (OSError, ValueError):  # ValueError: it is closed
            self.lost += 1

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


_PRINTER: Final = _Printer()


def lost() -> int:
    """How many lines could not be written."""
    return _PRINTER.lost


class _Standard(logging.Handler):
    """Takes what libraries log."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write it as everything else is written."""
        _PRINTER.msg(self.format(record))


_ALL: Final = 2**53  # more hits than there will be
_HIT: Final = Verdict.HIT  # looking a member up costs as much as all of the rest of a hit that is not logged


class AccessLog:
    """A recorder that writes a line for each exchange and passes on to the next recorder.

    Args:
        following: told everything too.
        sample: the share of plain hits that get a line, 0 to 1. Such a line says so.
        chance: a number from 0 to 1, evenly distributed.

    Attributes:
        skips: how many of the hits that stand have no line before one has; whoever passes one over takes one off.
        written: whether lines are written at all, as levels are now.
    """

    def __init__(
        self, following: Recorder, *, sample: float = 1.0, chance: Callable[[], float] = random.random
    ) -> None:
        self._following: Final = following
        self._following_again: Final = following.again
        self._chance: Final = chance
        self.resample(sample)
        self.begin: Final = following.begin  # nothing of its own
        self.renew()

    def renew(self) -> None:
        """Log as is configured now."""
        self._log = structlog.get_logger("access").bind()  # once: building a logger costs more than a line
        self.written = self._log.is_enabled_for(logging.INFO)

    def resample(self, share: float) -> None:
        """Give another share of plain hits a line from now on."""
        self.sample = share
        self.skips = self._skipped()

    def malformed(self) -> None:
        """A request could not be parsed."""
        self._log.warning("malformed request")
        self._following.malformed()

    def record(self, exchange: Exchange, *, complete: bool, seconds: float) -> None:
        """An exchange is over; write its line."""
        self._following.record(exchange, complete=complete, seconds=seconds)
        if exchange.verdict is _HIT and exchange.denied is None and complete and not exchange.limited:
            if self.sample >= 1 or self._chance() < self.sample:
                self._write(exchange, seconds, sampled=self.sample)
        else:
            self._write(exchange, seconds, complete=complete)

    def again(self, exchange: Exchange, seconds: float) -> None:
        """An exchange like one before; most get no line."""
        self._following_again(exchange, seconds)
        if exchange.denied is not None or exchange.limited:
            self._write(exchange, seconds)
        elif self.skips > 0:
            self.skips -= 1
        else:
            self._write(exchange, seconds, sampled=self.sample)
            self.skips = self._skipped()

    def _skipped(self) -> int:
        """How many hits are passed over: what dice for each of them would come to (the geometric distribution)."""
        if self.sample >= 1:
            return 0
        left = 1.0 - self._chance()
        if self.sample <= 0 or left <= 0:
            return _ALL
        return int(min(log(left) / log1p(-self.sample), _ALL))

    def _write(
        self, exchange: Exchange, seconds: float, *, complete: bool = True, sampled: float | None = None
    ) -> None:
        if self._log.is_enabled_for(logging.INFO):
            self._log.info("request", **_line(exchange, complete=complete, seconds=seconds, sampled=sampled))


def _line(exchange: Exchange, *, complete: bool, seconds: float, sampled: float | None) -> dict[str, object]:
    """What is told of an exchange: what was decided, why, and how long it took whom."""
    principal, trace = exchange.principal, exchange.trace or extract(exchange.head.fields)
    denied, upstream = exchange.denied, exchange.upstream_seconds
    return {
        "method": exchange.head.method,
        "path": exchange.head.target.shown,
        "status": exchange.status,
        "route": exchange.route.template if exchange.route is not None else None,
        "decision": "refused" if denied is not None else "answered",
        "denied": denied.value if denied is not None else None,
        "detail": exchange.detail,
        "cache": exchange.verdict.value,
        "bypass": exchange.bypass.value if exchange.bypass is not None else None,
        "stale": exchange.stale.value if exchange.stale is not None else None,
        "domain": kind_of(exchange.key.domain) if exchange.key is not None else None,
        "limited": exchange.limited or None,
        "principal": principal.kind.value if principal is not None else None,
        "complete": complete,
        "ms": round(seconds * 1000, 1),
        "own_ms": round(max(0.0, seconds - upstream) * 1000, 1),
        "upstream_ms": round(upstream * 1000, 1),
        "request_id": exchange.request_id,
        "trace_id": trace.trace_id if trace is not None else None,
        "sampled": sampled if sampled is not None and sampled < 1 else None,
    }
