"""Which representation of a page answers a request."""

from __future__ import annotations

import pytest

from gateway.core.keys import CacheKey
from gateway.core.model import Fields, RequestHead, Target
from gateway.pipeline.entry import Encoded, Entry
from gateway.pipeline.representation import represent

BODY = b"x" * 100


class Wanted:
    """An encoder that only notes what it is asked for."""

    codings = ("zstd", "br", "gzip")
    min_bytes = 100

    def __init__(self) -> None:
        self.wanted: list[str] = []

    def want(self, _entry: Entry, coding: str) -> None:
        self.wanted.append(coding)


def page(*made: str, useless: str = "", body: bytes = BODY, transformable: bool = True, status: int = 200) -> Entry:
    encoded = (*(Encoded(coding, coding.encode(), f'"e-{coding}"') for coding in made),)
    if useless:
        encoded += (Encoded(useless, None, f'"e-{useless}"'),)
    return Entry(
        CacheKey("d", "/v3/x", "", "json"), Fields(), body, '"e"', 0.0, 5.0, 5.0, 5.0, (),
        encoded=encoded, transformable=transformable, status=status,
    )  # fmt: skip


def head(accept: str | None = None, *fields: tuple[str, str]) -> RequestHead:
    given = [] if accept is None else [("Accept-Encoding", accept)]
    return RequestHead("GET", Target("/v3/x"), Fields([*given, *fields]))


@pytest.mark.parametrize(
    ("accept", "made", "sent", "wanted"),
    [
        pytest.param(None, ["gzip"], None, [], id="absent"),
        pytest.param("gzip", ["gzip"], "gzip", [], id="made"),
        pytest.param("gzip", [], None, ["gzip"], id="not made: as it is, and made for the next"),
        pytest.param("br, gzip", ["gzip"], "gzip", ["br"], id="the better one is not made: the worse meanwhile"),
        pytest.param("br, gzip", ["br"], "br", [], id="the worse one is not needed"),
        pytest.param("gzip, br;q=0.1", ["br"], "br", ["gzip"], id="even one that is liked less"),
        pytest.param("identity, gzip;q=0.1", ["gzip"], None, [], id="identity is liked better"),
        pytest.param("deflate", ["gzip"], None, [], id="none that there is"),
        pytest.param("gzip;q=0", ["gzip"], None, [], id="refused"),
        pytest.param("identity;q=0, br", [], None, ["br"], id="identity refused: never 406"),
        pytest.param("*;q=0", ["gzip"], None, [], id="everything refused: never 406"),
        pytest.param("identity;q=0, *", ["gzip"], "gzip", ["zstd"], id="any but identity"),
    ],
)
def test_what_is_sent(accept: str | None, made: list[str], sent: str | None, wanted: list[str]) -> None:
    encoder = Wanted()
    chosen = represent(head(accept), page(*made), encoder)
    assert (chosen.coding, encoder.wanted) == (sent, wanted)
    assert chosen.body == (BODY if sent is None else sent.encode())
    assert chosen.etag == ('"e"' if sent is None else f'"e-{sent}"')
    assert chosen.varies


def test_a_form_that_is_not_worth_it_is_as_if_not_offered() -> None:
    encoder = Wanted()
    assert represent(head("gzip"), page(useless="gzip"), encoder).coding is None
    assert represent(head("br, gzip"), page("gzip", useless="br"), encoder).coding == "gzip"
    assert not encoder.wanted


@pytest.mark.parametrize(
    "entry",
    [page("gzip", body=b"x" * 99), page("gzip", transformable=False)],
    ids=["small", "RFC 9110 §7.7 no-transform"],
)
def test_pages_that_are_sent_as_they_are(entry: Entry) -> None:
    encoder = Wanted()
    chosen = represent(head("gzip"), entry, encoder)
    assert (chosen.body, chosen.etag, chosen.coding, chosen.varies) == (entry.body, '"e"', None, False)
    assert not encoder.wanted


def test_rfc_9111_5_2_1_6_a_client_that_wants_no_transformation_gets_none() -> None:
    encoder = Wanted()
    chosen = represent(head("gzip", ("Cache-Control", "max-age=5, No-Transform")), page("gzip"), encoder)
    assert (chosen.coding, chosen.varies, encoder.wanted) == (None, True, [])


@pytest.mark.parametrize(
    ("accept", "asked", "matched"),
    [
        pytest.param(None, '"e"', '"e"', id="as it is"),
        pytest.param("gzip", '"e-gzip"', '"e-gzip"', id="the one that would be sent"),
        pytest.param("gzip", '"e"', '"e"', id="as it is, when gzip would be sent"),
        pytest.param("gzip", '"e", "e-gzip"', '"e-gzip"', id="both: the one that would be sent"),
        pytest.param("gzip, br", '"e-br"', '"e-br"', id="one that is not made, of the same content"),
        pytest.param(None, '"e-gzip"', None, id="a cache's gzip, for a client that takes none"),
        pytest.param("br", '"e-gzip"', None, id="a cache's gzip, for a client that takes br"),
        pytest.param("gzip, *;q=0", '"e"', None, id="a cache's plain one, for a client that takes gzip alone"),
        pytest.param("*;q=0", '"e"', '"e"', id="nothing is taken: what would be sent"),
        pytest.param("gzip", 'W/"e-gzip"', '"e-gzip"', id="RFC 9110 §13.1.2 weak comparison"),
        pytest.param("gzip", '"other-gzip"', None, id="another page's"),
        pytest.param("gzip", "*", None, id="any"),
    ],
)
def test_rfc_9110_13_1_2_what_a_client_has_already(accept: str | None, asked: str, matched: str | None) -> None:
    chosen = represent(head(accept, ("If-None-Match", asked)), page("gzip"), Wanted())
    assert chosen.matched == matched


def test_rfc_9110_13_2_1_preconditions_count_for_a_200_only() -> None:
    assert represent(head(None, ("If-None-Match", '"e"')), page(status=404), Wanted()).matched is None


def test_without_an_encoder_pages_are_as_they_are() -> None:
    chosen = represent(head("gzip", ("If-None-Match", '"e"')), page("gzip"), None)
    assert (chosen.coding, chosen.varies, chosen.matched) == (None, False, '"e"')
