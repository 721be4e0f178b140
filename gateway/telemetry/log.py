"""Logs: structlog, JSON or console, one line for each exchange.

A line holds the path but never the query (it may name people), never a token, cookie or field value. A line that cannot
be written (a full disk, a reader that has gone) is lost and counted; it fails no request.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from gateway.pipeline.exchange import Exchange
    from gateway.pipeline.ports import Recorder


def configure(*, level: str, json: bool) -> None:
    """Set up logging for the process, to standard error; again to change it.

    Args:
        level: "debug", "info", "warning" or "error".
        json: one JSON object a line, else text for people.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if json
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            exception_formatter=structlog.dev.plain_traceback,  # others show the values of variables: tokens
        )
    )
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, renderer] if json else [*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: _PRINTER,
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(
        level=max(number, logging.WARNING), stream=sys.stderr, format="%(levelname)s %(name)s %(message)s"
    )
    logging.getLogger().setLevel(max(number, logging.WARNING))


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


class AccessLog:
    """A recorder that writes a line for each exchange and passes on to the next recorder.

    Args:
        following: told everything too.
    """

    def __init__(self, following: Recorder) -> None:
        self._following: Final = following
        self.renew()

    def renew(self) -> None:
        """Log as is configured now."""
        self._log = structlog.get_logger("access").bind()  # once: building a logger costs more than a line

    def begin(self) -> None:
        """An exchange has begun."""
        self._following.begin()

    def malformed(self) -> None:
        """A request could not be parsed."""
        self._log.warning("malformed request")
        self._following.malformed()

    def record(self, exchange: Exchange, *, complete: bool, seconds: float) -> None:
        """An exchange is over; write its line."""
        self._following.record(exchange, complete=complete, seconds=seconds)
        if not self._log.is_enabled_for(logging.INFO):
            return
        principal = exchange.principal
        self._log.info(
            "request",
            method=exchange.head.method,
            path=_path(exchange),
            status=exchange.status,
            route=exchange.route.template if exchange.route is not None else None,
            cache=exchange.verdict.value,
            bypass=exchange.bypass.value if exchange.bypass is not None else None,
            denied=exchange.denied.value if exchange.denied is not None else None,
            detail=exchange.detail,
            limited=exchange.limited or None,
            principal=principal.kind.value if principal is not None else None,
            complete=complete,
            ms=round(seconds * 1000, 1),
            upstream_ms=round(exchange.upstream_seconds * 1000, 1),
            request_id=exchange.request_id,
        )


def _path(exchange: Exchange) -> str | None:
    """The path alone, also of a target that was refused as it came; None when it has other parts than that in front."""
    path = exchange.head.target.path
    return path.partition("?")[0].partition("#")[0] if path.startswith("/") else None
