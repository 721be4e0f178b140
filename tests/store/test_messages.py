"""What processes say to each other: closed forms, authenticated, bounded."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.keys import CacheKey
from gateway.core.selection import Selection, selection
from gateway.pipeline.purges import Purge
from gateway.shared.seal import Sealer
from gateway.store.messages import (
    MOST_PURGES,
    Answer,
    UnreadableError,
    announcement,
    open_announcement,
    open_answer,
    seal,
)

SEALER = Sealer(b"k" * 32, "tests")
CHANNEL = "{tests}:invalidations"
EVERY_KIND = [
    Purge(soft=False, selection=selection(url="/v3/apps?b=1&a=2")),
    Purge(soft=True, selection=selection(prefix="/v3/apps?")),
    Purge(soft=True, selection=selection(type_="apps")),
    Purge(soft=False, selection=selection(guid="1cb006ee-fb05-47e1-b541-c34179ddc446")),
    Purge(soft=False, selection=selection(principal="uaa-id-432", type_="apps")),
    Purge(soft=True, selection=Selection()),
    Purge(soft=True, key=CacheKey("domain", "/v3/apps", "?page=1", "json")),
]


@pytest.mark.parametrize("purge", EVERY_KIND, ids=["url", "prefix", "type", "guid", "two", "all", "page"])
def test_a_purge_comes_out_as_it_went_in(purge: Purge) -> None:
    told = announcement("a", "n", {"apps"}, [purge])
    assert told is not None
    found = open_announcement(SEALER, CHANNEL, seal(SEALER, CHANNEL, told))
    assert (found.origin, found.nonce, found.tags, found.purges) == ("a", "n", ("apps",), [purge])
    assert found.void == ("*",), "which of the store's pages are meant it cannot tell"


def test_without_a_purge_only_the_tags_are_void() -> None:
    told = announcement("a", "n", {"b", "a"})
    assert told is not None
    assert told.void == ("a", "b")


@pytest.mark.parametrize(
    "purges",
    [
        pytest.param([EVERY_KIND[0]] * (MOST_PURGES + 1), id="too-many"),
        pytest.param([Purge(soft=False, selection=Selection(prefix="/" * 70_000))], id="too-long"),
        pytest.param([Purge(soft=False, key=CacheKey("d", "/\udcff", "", "json"))], id="no-utf-8"),
    ],
)
def test_what_cannot_be_told_is_not_cut_short(purges: list[Purge]) -> None:
    assert announcement("a", "n", (), purges) is None


def sealed(purged: object, tags: object = ()) -> bytes:
    content = msgspec.msgpack.encode(("a", "n", tags, purged))
    return SEALER.seal(b"invalidation", CHANNEL.encode(), content)


ONE = [False, None, None, [], None, None, None, None]


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(sealed([ONE] * (MOST_PURGES + 1)), id="too-many"),
        pytest.param(sealed([[*ONE[:2], "/" * 70_000, *ONE[3:]]]), id="too-long"),
        pytest.param(sealed([[*ONE, "more"]]), id="unknown-kind"),
        pytest.param(sealed([[*ONE[:5], "secrets", *ONE[6:]]]), id="unknown-type"),
        pytest.param(sealed([["yes", *ONE[1:]]]), id="form"),
        pytest.param(sealed([[False, ["d", "/"], *ONE[2:]]]), id="half-a-key"),
        pytest.param(sealed((), [1]), id="tags"),
        pytest.param(sealed([ONE])[:-1], id="cut"),
        pytest.param(Sealer(b"x" * 32, "tests").seal(b"invalidation", CHANNEL.encode(), b"\x94"), id="another-key"),
        pytest.param(SEALER.seal(b"acknowledgement", CHANNEL.encode(), sealed([ONE])[36:]), id="another-purpose"),
        pytest.param(SEALER.seal(b"invalidation", b"elsewhere", sealed([ONE])[36:]), id="another-channel"),
        pytest.param(b"", id="empty"),
    ],
)
def test_what_is_not_of_a_known_form_says_nothing(message: bytes) -> None:
    with pytest.raises(UnreadableError):
        open_announcement(SEALER, CHANNEL, message)


def test_the_known_form_itself_is_read() -> None:
    assert open_announcement(SEALER, CHANNEL, sealed([ONE])).purges == [Purge(soft=False, selection=Selection())]


def test_an_answer_is_one_only_on_its_channel() -> None:
    message = seal(SEALER, "own", Answer("n", "b"))
    assert open_answer(SEALER, "own", message) == Answer("n", "b")
    assert open_answer(SEALER, "other", message) is None
    with pytest.raises(UnreadableError):
        open_answer(SEALER, "own", SEALER.seal(b"acknowledgement", b"own", b"\xc1"))


@given(st.binary(max_size=200))
def test_sealed_garbage_is_an_error_of_one_kind(content: bytes) -> None:
    with pytest.raises(UnreadableError):
        open_announcement(SEALER, CHANNEL, SEALER.seal(b"invalidation", CHANNEL.encode(), content))
