"""HTTP dates (RFC 9110 §5.6.7): read in all three forms, written in the one.

Knows nothing of what a date is for. A date that is not exactly one of the three forms is no date; only the letter case
and a day name that does not belong to the date are forgiven, as §5.6.7 asks recipients to be robust and neither makes
the instant ambiguous.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTH: Final = f"(?P<month>{'|'.join(_MONTHS)})"
_TIME: Final = r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_DAY: Final = r"(?:mon|tue|wed|thu|fri|sat|sun)"
_FULL_DAY: Final = r"(?:monday|tuesday|wednesday|thursday|friday|saturday|sunday)"
_FORMS: Final = (
    # IMF-fixdate: Sun, 06 Nov 1994 08:49:37 GMT
    re.compile(rf"{_DAY}, (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_TIME} gmt", re.IGNORECASE | re.ASCII),
    # RFC 850: Sunday, 06-Nov-94 08:49:37 GMT
    re.compile(
        rf"{_FULL_DAY}, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} gmt", re.IGNORECASE | re.ASCII
    ),
    # asctime: Sun Nov  6 08:49:37 1994
    re.compile(rf"{_DAY} {_MONTH} (?P<day>[0-9]{{2}}| [0-9]) {_TIME} (?P<year>[0-9]{{4}})", re.IGNORECASE | re.ASCII),
)
_LONGEST: Final = len("Wednesday, 06-Nov-94 08:49:37 GMT")
_LEAP_SECOND: Final = 60
_CENTURY: Final = 100
_HORIZON_YEARS: Final = 50

_WithinYear = tuple[int, int, int, int, int]


def http_date(text: str, now: float) -> int | None:
    """An HTTP date in epoch seconds, None when `text` is none.

    Args:
        text: a whole field value, without surrounding space.
        now: epoch seconds; settles the century of a two-digit year: not more than 50 years ahead (RFC 9110 §5.6.7).
    """
    if len(text) > _LONGEST:
        return None
    for form in _FORMS:
        parts = form.fullmatch(text)
        if parts is None:
            continue
        year = int(parts["year"])
        month = _MONTHS.index(parts["month"].lower()) + 1
        day, hour, minute, second = (int(parts[name]) for name in ("day", "hour", "minute", "second"))
        if len(parts["year"]) == 2:
            return _two_digit_year(year, (month, day, hour, minute, second), now)
        return _instant(year, (month, day, hour, minute, second))
    return None


def _two_digit_year(year: int, rest: _WithinYear, now: float) -> int | None:
    today = datetime.fromtimestamp(now, UTC)
    horizon = (today.year + _HORIZON_YEARS, today.month, today.day, today.hour, today.minute, today.second)
    century = today.year - today.year % _CENTURY
    # The latest reading that is not beyond the horizon.
    for base in (century + _CENTURY, century, century - _CENTURY):
        instant = _instant(base + year, rest)
        if instant is not None and (base + year, *rest) <= horizon:
            return instant
    return None


def _instant(year: int, rest: _WithinYear) -> int | None:
    month, day, hour, minute, second = rest
    leap = second == _LEAP_SECOND
    try:
        moment = datetime(year, month, day, hour, minute, second - leap, tzinfo=UTC)
    except ValueError:
        return None
    return int(moment.timestamp()) + leap


def format_date(instant: float) -> str:
    """An instant in epoch seconds as IMF-fixdate, the fraction cut off."""
    moment = datetime.fromtimestamp(int(instant), UTC)
    month = _MONTHS[moment.month - 1].capitalize()
    return f"{_DAYS[moment.weekday()]}, {moment.day:02} {month} {moment.year:04} {moment:%H:%M:%S} GMT"
