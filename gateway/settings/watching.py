"""What is told about the work done: logs."""

from typing import Literal

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
