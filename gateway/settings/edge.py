"""What a request may measure and how long a client may take; docs/edge.md says what a client gets past each limit."""

from collections.abc import Iterator
from typing import Final

from gateway.settings.errors import Problem
from gateway.settings.scalars import KIB, Count, Duration, Size, format_duration, format_size
from gateway.settings.section import Section

_FEWEST: Final = 64  # fields that the hit lane takes uncounted, and more than any client sends


class Limits(Section):
    """What a request may measure, and how long a client may take."""

    max_line_bytes: Size = 64 * KIB
    """The request line; the cf CLI sends queries of 8 KB."""
    max_header_bytes: Size = 64 * KIB
    """All header fields together, and each of them."""
    max_header_count: Count = 256
    """How many header fields; a trailer may have as many."""
    max_body_bytes: Size | None = None
    """The content; without it as much as the upstream takes."""
    head_timeout: Duration = 10.0
    """For a request head, from its first byte; and for a new connection to begin one. 0 sets no limit."""
    body_idle_timeout: Duration = 30.0
    """How long a client may leave a transfer standing still: content that it does not go on sending, an answer that \
it does not go on reading. 0 sets no limit, and none to the rate."""
    min_transfer_rate: Size = 512
    """Bytes a second that a transfer must reach on the whole, `body_idle_timeout` after it began. Only time in which \
the gateway waits for the client counts. 0 sets no limit."""
    request_timeout: Duration = 3600.0
    """For a whole exchange, uploads included. 0 sets no limit."""

    def problems(self) -> Iterator[Problem]:
        """Limits below what every client sends."""
        for name in ("max_line_bytes", "max_header_bytes"):
            if getattr(self, name) < KIB:
                yield Problem((name,), "a size of at least 1KiB", format_size(getattr(self, name)))
        if self.max_header_count < _FEWEST:
            yield Problem(("max_header_count",), f"at least {_FEWEST}", str(self.max_header_count))
        if self.min_transfer_rate and not self.body_idle_timeout:
            expected = "0, since body_idle_timeout is 0"
            yield Problem(("min_transfer_rate",), expected, format_size(self.min_transfer_rate))
        if 0 < self.request_timeout < self.body_idle_timeout:
            expected = f"at least body_idle_timeout ({format_duration(self.body_idle_timeout)}), or 0"
            yield Problem(("request_timeout",), expected, format_duration(self.request_timeout))
