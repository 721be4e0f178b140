"""Single values: what is read, what is refused, and that writing and reading are each other's inverse."""

from __future__ import annotations

import re
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from gateway.settings import addresses, scalars
from gateway.settings.cache import format_percent, parse_percent
from gateway.settings.routing import parse_match
from gateway.settings.scalars import ReadError, format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("30s", 30.0),
        ("1m30s", 90.0),
        ("250ms", 0.25),
        ("1.5h", 5400.0),
        ("7d", 604_800.0),
        ("1d2h3m4s5ms", 93_784.005),
        ("1s500ms", 1.5),
        ("0.25s", 0.25),
        ("5m", 300.0),
        ("0s", 0.0),
        ("0", 0.0),
        (0, 0.0),
    ],
)
def test_durations(written, seconds):
    assert parse_duration(written) == seconds


@pytest.mark.parametrize(
    "written",
    [
        "",
        "s",
        "30",
        "soon",
        "-1s",
        "1s ",
        " 1s",
        "1S",
        "1s1m",
        "1s1s",
        "1.2345s",
        "1e3s",
        "30 s",
        "٣s",
        "1s\n",
        None,
        [],
        30,
        1.5,
        True,
        False,
        "9" * 10 + "s",
    ],
)
def test_no_durations(written):
    with pytest.raises(ReadError):
        parse_duration(written)


@pytest.mark.parametrize(
    ("written", "count"),
    [
        ("0", 0),
        (0, 0),
        ("512B", 512),
        ("64KiB", 65536),
        ("256MiB", 268435456),
        ("1GB", 10**9),
        ("2TiB", 2 << 40),
        ("5kB", 5000),
        ("5KB", 5000),
        ("3MB", 3000000),
    ],
)
def test_sizes(written, count):
    assert parse_size(written) == count


@pytest.mark.parametrize(
    "written",
    ["", "1", 1, 65_536, "64K", "64kib", "1.5GiB", "-1B", "1 GB", "٣B", "1GB\n", None, {}, True, "9" * 16 + "B"],
)
def test_no_sizes(written):
    with pytest.raises(ReadError):
        parse_size(written)


@given(st.integers(min_value=0, max_value=10**15))
def test_every_duration_is_written_so_that_it_reads_back(microseconds):
    assert parse_duration(format_duration(microseconds / 1_000_000)) == microseconds / 1_000_000


@given(st.dictionaries(st.sampled_from(["d", "h", "m", "s", "ms"]), st.integers(0, 10**6), min_size=1))
def test_a_duration_is_the_sum_of_its_parts(parts):
    milliseconds = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
    written = "".join(f"{parts[unit]}{unit}" for unit in milliseconds if unit in parts)
    assert parse_duration(written) == sum(parts[unit] * milliseconds[unit] for unit in parts) / 1000


@given(st.integers(min_value=0, max_value=10**15 - 1))
def test_every_size_is_written_so_that_it_reads_back(count):
    written = format_size(count)
    assert parse_size(written) == count
    assert len(written) <= len(f"{count}B")


@given(st.one_of(st.text(max_size=12), st.integers(), st.floats(), st.none(), st.booleans()))
def test_readers_refuse_by_name_and_in_no_other_way(value):
    for kind in (scalars.DURATION, scalars.SIZE):
        try:
            read = kind.read(value)
        except ReadError:
            continue
        assert read >= 0


def _read(annotation: Any, value: object) -> Any:
    return TypeAdapter(annotation).validate_python(value)


@pytest.mark.parametrize(
    ("kind", "written", "value"),
    [
        (addresses.Url, "https://api.example.org", "https://api.example.org"),
        (addresses.Url, "https://api.example.org/", "https://api.example.org"),
        (addresses.Url, "HTTPS://API.Example.org:443/CF/", "https://api.example.org/CF"),
        (addresses.Url, "http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        (addresses.Url, "http://[FE80::1]:80/a%20b", "http://[fe80::1]/a%20b"),
        (addresses.Origin, "http://cc:80/", "http://cc"),
        (addresses.Issuer, "https://uaa.example.org/oauth/token", "https://uaa.example.org/oauth/token"),
        (addresses.Host, "::", "::"),
        (addresses.Host, "localhost", "localhost"),
        (addresses.HostField, "[::1]:80", "[::1]:80"),
        (scalars.Port, "8080", 8080),
        (scalars.Port, 0, 0),
        (scalars.Boolean, "true", True),
        (scalars.Boolean, False, False),
        (scalars.Pseudonym, "gw-1", "gw-1"),
        (scalars.Scope, "cloud_controller.read", "cloud_controller.read"),
    ],
)
def test_accepted(kind, written, value):
    assert _read(kind, written) == value


@pytest.mark.parametrize(
    ("kind", "written"),
    [
        (addresses.Url, written)
        for written in [
            "",
            "api.example.org",
            "//api.example.org",
            "ftp://api.example.org",
            "https://",
            "https://:443",
            "https://api.example.org:",
            "https://api.example.org:0",
            "https://api.example.org:65536",
            "https://api.example.org:8o",
            "https://user@api.example.org",
            "https://user:pw@api.example.org",
            "https://api.example.org?",
            "https://api.example.org/?a=b",
            "https://api.example.org/#",
            "https://api.example.org/a//b",
            "https://api.example.org/a/../b",
            "https://api.example.org/%zz",
            "https://api.example.org\\evil",
            "https://api example.org",
            "https://api.example.org\n",
            "https://äpi.example.org",
            "https://[::1",
            "https://[::1]x",
            "https://[v1.x]",
            "https://-api.example.org",
            42,
            None,
        ]
    ]
    + [
        (addresses.Origin, "https://api.example.org/prefix"),
        (addresses.Issuer, ""),
        (addresses.Issuer, "uaa"),
        (addresses.Issuer, "https://uaa/ x"),
        (addresses.Host, "a b"),
        (addresses.Host, ""),
        (addresses.HostField, "api/x"),
        (addresses.HostField, "a\r\nb"),
        (scalars.Port, -1),
        (scalars.Port, 65_536),
        (scalars.Port, 80.5),
        (scalars.Port, True),
        (scalars.Count, 0),
        (scalars.Boolean, 1),
        (scalars.Boolean, "yes"),
        (scalars.Boolean, None),
        (scalars.Text, ""),
        (scalars.Text, 5),
        (scalars.Pseudonym, "two words"),
        (scalars.Scope, "a b"),
        (scalars.Word, "Default"),
        (scalars.Secret, ""),
        (scalars.File, ""),
        (scalars.File, "\0"),
    ],
)
def test_refused(kind, written):
    with pytest.raises(ValidationError):
        _read(kind, written)


@pytest.mark.parametrize(
    ("written", "normal"),
    [("10.0.0.0/8", "10.0.0.0/8"), ("10.1.2.3", "10.1.2.3/32"), ("fd00::/8", "fd00::/8"), ("::1", "::1/128")],
)
def test_networks(written, normal):
    assert str(_read(addresses.IPNetwork, written)) == normal


@pytest.mark.parametrize("written", ["10.0.0.1/8", "10.0.0.0/33", "10.0", "x", "", 10, None])
def test_no_networks(written):
    with pytest.raises(ValidationError):
        _read(addresses.IPNetwork, written)


@pytest.mark.parametrize(
    ("written", "methods", "template"),
    [
        ("GET /v3/processes", ("GET",), "/v3/processes"),
        ("* /", (), "/"),
        ("GET,HEAD /x/*", ("GET", "HEAD"), "/x/*"),
        ("GET,GET /x", ("GET",), "/x"),
        ("VERSION-CONTROL /v3/apps/:guid/x", ("VERSION-CONTROL",), "/v3/apps/:guid/x"),
    ],
)
def test_matches(written, methods, template):
    match = parse_match(written)
    assert (match.methods, match.template) == (methods, template)
    assert parse_match(str(match)) == match


@pytest.mark.parametrize(
    "written",
    [
        "",
        "GET",
        "GET/x",
        "get /x",
        "GET  /x",
        "GET, HEAD /x",
        "GET x",
        "GET /x?y=1",
        "GET /x#y",
        "GET /x//y",
        "GET /x/",
        "GET /x/*/y",
        "GET /x*",
        "GET /:",
        "GET /a b",
        "GET /../x",
        "GET,* /x",
        " GET /x",
        "GET /ä",
        "GET /x\n",
        None,
        7,
    ],
)
def test_no_matches(written):
    with pytest.raises(ReadError):
        parse_match(written)


def test_every_kind_says_what_it_expects_as_the_object_of_a_sentence():
    kinds = [kind for module in (scalars, addresses) for kind in vars(module).values() if hasattr(kind, "__metadata__")]
    assert len(kinds) > 12
    for kind in kinds:
        (scalar,) = kind.__metadata__
        assert re.match(r"(an?|the|text|true or false)\b", scalar.expected)
        assert TypeAdapter(Annotated[kind.__origin__, scalar]).json_schema()


@pytest.mark.parametrize(
    ("written", "share"), [("25%", 0.25), ("1%", 0.01), ("100%", 1.0), ("70%", 0.7), ("29%", 0.29)]
)
def test_percentages(written: str, share: float) -> None:
    assert parse_percent(written) == share
    assert format_percent(share) == written


@pytest.mark.parametrize(
    "written", ["", "%", "0%", "25", "101%", "-1%", "25 %", "05%", "2.5%", "٣%", "25%\n", 0.25, None]
)
def test_percentages_that_are_refused(written: object) -> None:
    with pytest.raises(ReadError):
        parse_percent(written)
