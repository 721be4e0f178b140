"""The page cache: how much memory it may take, and how much of that one principal."""

import re
from collections.abc import Iterator
from typing import Annotated, Final, Literal

from gateway.settings.errors import Problem
from gateway.settings.scalars import KIB, MIB, Boolean, Ratio, ReadError, Scalar, Size, format_size
from gateway.settings.section import Section

_PERCENT: Final = re.compile(r"(100|[1-9]?[0-9])%")


def parse_percent(value: object) -> float:
    """Read `25%` as 0.25.

    Raises:
        ReadError: anything but a whole percentage from 1% to 100%.
    """
    found = _PERCENT.fullmatch(value) if isinstance(value, str) else None
    if found is None or found[1] == "0":
        raise ReadError
    return int(found[1]) / 100


def format_percent(share: float) -> str:
    """A share as `parse_percent` reads it."""
    return f"{share:.0%}"


Percent = Annotated[
    float,
    Scalar(
        "a percentage such as 25%",
        parse_percent,
        {"type": "string", "pattern": r"^(100|[1-9][0-9]?)%$"},
        format_percent,
        "percentage",
    ),
]


class Compression(Section):
    """Encoded forms of stored pages, for clients that take them; made once a page, beside the requests."""

    encodings: tuple[Literal["zstd", "br", "gzip"], ...] = ("zstd", "br", "gzip")
    """Which content codings are made of pages of mode `policy`, the preferred first; an empty list makes none."""
    min_bytes: Size = 2 * KIB
    """Smaller pages are sent as they are."""

    def problems(self) -> Iterator[Problem]:
        """A coding given twice."""
        if len(set(self.encodings)) < len(self.encodings):
            yield Problem(("encodings",), "each coding once", ", ".join(self.encodings))


class Cache(Section):
    """The page cache of the process."""

    max_bytes: Size = 256 * MIB
    """Memory for pages, with all that is kept of them; those nobody asks for leave first. 0 caches nothing."""
    max_entry_bytes: Size = 32 * MIB
    """Larger pages are passed on and not kept."""
    max_domain_share: Percent = 0.25
    """How much of `max_bytes` the pages of one principal may take, so that none can crowd out the others; pages that \
several principals share are not counted."""
    drift_sample: Ratio = 0.0
    """The share of hits in rows of mode `policy` whose page is fetched anew behind the answer and compared, one at a \
time: `0.001` is one of a thousand. What differs had changed past this gateway; `gateway_cache_drift_checks_total` \
counts it."""

    emit_groups: Boolean = False
    """Whether pages of mode `policy` say which types of resources they show (`Cache-Groups`), and answers to writes \
which they change (`Cache-Group-Invalidation`, RFC 9875), for caches between the gateway and its clients."""
    compression: Compression = Compression()
    """Encoded forms of stored pages."""

    def problems(self) -> Iterator[Problem]:
        """A page that could never fit."""
        if self.max_bytes and self.max_entry_bytes > self.max_bytes:
            expected = f"at most cache.max_bytes ({format_size(self.max_bytes)})"
            yield Problem(("max_entry_bytes",), expected, format_size(self.max_entry_bytes))
