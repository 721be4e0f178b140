"""Range requests (RFC 9110 §14)."""

from email.parser import BytesParser
from email.policy import HTTP

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.model import Fields
from gateway.core.ranges import MAX_RANGES, ByteRange, NoRange, partial, select, unsatisfiable

WHOLE, UNSATISFIABLE = NoRange.WHOLE, NoRange.UNSATISFIABLE


@pytest.mark.parametrize(
    ("value", "size", "expected"),
    [
        pytest.param("bytes=0-1", 11, [(0, 1)], id="14.1.2-first-and-last"),
        pytest.param("bytes=1-", 11, [(1, 10)], id="14.1.2-no-last"),
        pytest.param("bytes=-1", 11, [(10, 10)], id="14.1.2-suffix"),
        pytest.param("bytes=-50", 11, [(0, 10)], id="14.1.2-suffix-longer-than-all"),
        pytest.param("bytes=5-99", 11, [(5, 10)], id="14.1.2-last-behind-the-end"),
        pytest.param("bytes=0-0", 11, [(0, 0)], id="14.1.2-one-byte"),
        pytest.param("BYTES=0-1", 11, [(0, 1)], id="14.1-unit-any-case"),
        pytest.param("bytes= 0-1 ,\t3-4, ", 11, [(0, 1), (3, 4)], id="14.1.1-ows-and-empty-members"),
        pytest.param("bytes=7-8,0-1", 11, [(7, 8), (0, 1)], id="14.2-order-kept"),
        pytest.param("bytes=5-8,0-6", 11, [(0, 8)], id="14.2-overlap-merged"),
        pytest.param("bytes=0-1,2-3", 11, [(0, 3)], id="14.2-touching-merged"),
        pytest.param("bytes=0-1,3-4", 11, [(0, 1), (3, 4)], id="14.2-gap-not-merged"),
        pytest.param("bytes=0-9,2-3", 11, [(0, 9)], id="14.2-contained"),
        pytest.param("bytes=0-1,99-", 11, [(0, 1)], id="14.2-unsatisfiable-one-left-out"),
        pytest.param("bytes=11-", 11, UNSATISFIABLE, id="14.1.2-first-behind-the-end"),
        pytest.param("bytes=-0", 11, UNSATISFIABLE, id="14.1.2-empty-suffix"),
        pytest.param("bytes=0-", 0, UNSATISFIABLE, id="14.1.2-empty-representation"),
        pytest.param("bytes=-5", 0, UNSATISFIABLE, id="14.1.2-suffix-of-an-empty-representation"),
        pytest.param("bytes=" + "9" * 6000 + "-", 11, UNSATISFIABLE, id="14.1.2-more-digits-than-int-takes"),
        pytest.param("bytes=0-" + "9" * 6000, 11, [(0, 10)], id="14.1.2-endless-last"),
        pytest.param("bytes=" + "0" * 6000 + "1-1", 11, [(1, 1)], id="14.1.2-leading-zeros"),
        pytest.param("bytes=2-1", 11, WHOLE, id="14.1.1-last-before-first-is-invalid"),
        pytest.param("bytes=0-1,5-2", 11, WHOLE, id="14.1.1-one-invalid-spoils-all"),
        pytest.param("bytes=", 11, WHOLE, id="14.1.1-no-range"),
        pytest.param("bytes=-", 11, WHOLE, id="14.1.1-only-a-dash"),
        pytest.param("bytes=a-b", 11, WHOLE, id="14.1.1-letters"),
        pytest.param("bytes=0 - 1", 11, WHOLE, id="14.1.1-inner-spaces"),
        pytest.param("bytes=0-1-2", 11, WHOLE, id="14.1.1-two-dashes"),
        pytest.param("bytes=\u0661-2", 11, WHOLE, id="14.1.1-arabic-digit"),
        pytest.param("bytes 0-1", 11, WHOLE, id="14.2-no-equals"),
        pytest.param("lines=0-1", 11, WHOLE, id="14.2-unknown-unit"),
        pytest.param(",".join(["bytes=0-0"] + ["5-5"] * MAX_RANGES), 11, WHOLE, id="14.2-too-many"),
    ],
)
def test_select(value, size, expected):
    if isinstance(expected, list):
        expected = tuple(ByteRange(*pair) for pair in expected)
    assert select([value], size) == expected


def test_absent_and_repeated_fields_select_the_whole_9110_14_2():
    assert select([], 5) is WHOLE
    assert select(["bytes=0-1", "bytes=0-1"], 5) is WHOLE


FIELDS = Fields(
    [("Content-Type", "text/plain"), ("Content-Length", "11"), ("ETag", '"x"'), ("Cache-Control", "max-age=5")]
)


def test_one_part_9110_15_3_7_1():
    status, fields, body = partial(FIELDS, b"0123456789A", (ByteRange(1, 3),), "b")
    assert (status, body) == (206, b"123")
    assert fields.pairs == (
        ("Content-Type", "text/plain"),
        ("ETag", '"x"'),
        ("Cache-Control", "max-age=5"),
        ("Content-Range", "bytes 1-3/11"),
    )


def test_several_parts_9110_15_3_7_2():
    status, fields, body = partial(FIELDS, b"0123456789A", (ByteRange(7, 8), ByteRange(0, 1)), "frontier")
    assert status == 206
    assert "content-range" not in fields
    assert fields.get("etag") == '"x"'
    assert fields.get_all("content-type") == ["multipart/byteranges; boundary=frontier"]
    message = BytesParser(policy=HTTP).parsebytes(f"Content-Type: {fields.get('content-type')}\r\n\r\n".encode() + body)
    parts = message.get_payload()
    assert [(part["content-range"], part["content-type"], part.get_payload()) for part in parts] == [
        ("bytes 7-8/11", "text/plain", "78"),
        ("bytes 0-1/11", "text/plain", "01"),
    ]


def test_parts_without_a_content_type():
    _, _, body = partial(Fields(), b"0123456789", (ByteRange(0, 1), ByteRange(5, 6)), "b")
    assert body == (
        b"--b\r\nContent-Range: bytes 0-1/10\r\n\r\n01\r\n--b\r\nContent-Range: bytes 5-6/10\r\n\r\n56\r\n--b--\r\n"
    )


def test_unsatisfiable_9110_15_5_17():
    status, fields, body = unsatisfiable(FIELDS.plus(("Date", "x")), 11)
    assert (status, body) == (416, b"")
    assert fields.pairs == (("Date", "x"), ("Content-Range", "bytes */11"))


@given(
    st.lists(st.tuples(st.integers(0, 30) | st.none(), st.integers(0, 30) | st.none()), min_size=1, max_size=6),
    st.binary(max_size=25),
)
def test_the_parts_are_exactly_the_bytes_asked_for(specs, body):
    """Against a reference that marks every wanted byte."""
    wanted, valid = set(), True
    for first, last in specs:
        if first is None and last is None:
            valid = False
        elif first is None:
            wanted |= set(range(len(body))[max(0, len(body) - last) :])
        elif last is not None and last < first:
            valid = False
        else:
            wanted |= set(range(len(body))[first : None if last is None else last + 1])
    shown = ("" if first is None else first for first, _ in specs), ("" if last is None else last for _, last in specs)
    found = select(["bytes=" + ",".join(f"{first}-{last}" for first, last in zip(*shown, strict=True))], len(body))
    if not valid:
        assert found is WHOLE
    elif not wanted:
        assert found is UNSATISFIABLE
    else:
        positions = [position for part in found for position in range(part.first, part.last + 1)]
        assert sorted(positions) == sorted(wanted)
        assert sum(part.size for part in found) == len(wanted)


@given(st.text(max_size=40) | st.text("bytes=0123456789-, ", max_size=40).map("bytes={}".format), st.integers(0, 50))
def test_no_text_raises_and_no_part_lies_outside(value, size):
    found = select([value], size)
    if not isinstance(found, NoRange):
        assert found
        assert all(0 <= part.first <= part.last < size for part in found)
