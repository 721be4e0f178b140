from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import bearer
from gateway.core.errors import Denial, Reason


@pytest.mark.parametrize(
    ("values", "token"),
    [
        pytest.param([], None, id="no field"),
        pytest.param([""], None, id="recording auth-011 empty field"),
        pytest.param(["Basic dXNlcjpwYXNz"], None, id="controller.md §2 Basic counts as missing"),
        pytest.param(["Token abc"], None, id="recording auth-007"),
        pytest.param(["abc.def.ghi"], None, id="recording auth-004 no prefix"),
        pytest.param(["bearer abc"], "abc", id="seed lowercase"),
        pytest.param(["Bearer abc"], "abc", id="recording auth-001"),
        pytest.param(["BEARER abc"], "abc", id="recording auth-002"),
        pytest.param(["bearer  abc"], "abc", id="recording auth-005 two spaces"),
        pytest.param(["bearer\tabc"], "abc", id="recording auth-006 tab"),
    ],
)
def test_extract(values: list[str], token: str | None) -> None:
    assert bearer.extract(values) == token


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(["bearerfoo abc"], id="recording auth-003"),
        pytest.param(["bearer "], id="recording auth-008"),
        pytest.param(["bearer"], id="recording auth-009"),
        pytest.param(["bearer a b"], id="recording auth-010"),
        pytest.param(["bearer abc x"], id="recording auth-012"),
        pytest.param(["bearer abc, bearer def"], id="recording auth-013"),
        pytest.param(["bearer abc", "bearer def"], id="recording auth-014 two fields"),
        pytest.param(["bearer abc", "bearer abc"], id="two equal fields"),
        pytest.param(["bearerabc"], id="no space"),
        pytest.param(["bearer\u00a0abc"], id="a no-break space is no blank"),
        pytest.param(["bearer\x85abc"], id="a next-line character is no blank"),
        pytest.param(["bearer\x1cabc"], id="a file separator is no blank"),
    ],
)
def test_malformed(values: list[str]) -> None:
    with pytest.raises(Denial) as caught:
        bearer.extract(values)
    assert caught.value.reason is Reason.INVALID_TOKEN


def challenge(denial: Denial) -> str:
    return dict(denial.fields)["WWW-Authenticate"]


def test_rfc6750_3_1_no_error_code_without_a_token() -> None:
    assert challenge(bearer.no_token()) == 'Bearer realm="cloud_controller"'


def test_rfc6750_3_1_invalid_token() -> None:
    denial = bearer.invalid_token("expired", "the token expired")
    assert challenge(denial).endswith('error="invalid_token", error_description="the token expired"')
    assert denial.detail == "expired"


def test_rfc6750_3_1_insufficient_scope_names_what_is_needed_and_what_there_is() -> None:
    denial = bearer.insufficient_scope(["cloud_controller.write", "cloud_controller.admin"], {"openid"})
    assert challenge(denial).endswith('scope="cloud_controller.write cloud_controller.admin"')
    assert denial.detail == "required one of: cloud_controller.write cloud_controller.admin; present: openid"


@given(st.frozensets(st.text(max_size=200), max_size=60))
def test_foreign_scopes_cannot_break_out_of_a_field(scopes: frozenset[str]) -> None:
    detail = bearer.insufficient_scope(["a"], scopes).detail
    assert detail.isascii()
    assert detail.isprintable()
    assert len(detail) < 4000


def test_an_operators_scope_cannot_break_out_of_the_challenge() -> None:
    denial = bearer.insufficient_scope(['a", x="\r\n', "b"], {"openid"})
    assert challenge(denial).endswith('error="insufficient_scope", scope="a?,?x=??? b"')


@given(st.text(max_size=60))
def test_a_description_cannot_break_out_of_its_quotes(text: str) -> None:
    value = challenge(bearer.invalid_token("fault", text))
    assert value.isprintable()
    assert value.count('"') == 6
