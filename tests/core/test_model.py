from __future__ import annotations

import pytest

from gateway.core.model import Fields, Principal, PrincipalKind, RequestHead, Target, VisibilityDomain

SENT = (("Accept", "a"), ("X-One", "1"), ("accept", "b"), ("Authorization", "bearer secret-token"))


def test_fields_are_found_without_regard_to_case_and_keep_theirs() -> None:
    fields = Fields(SENT)
    assert fields.get("accept") == "a"
    assert fields.get_all("accept") == ["a", "b"]
    assert fields.combined("accept") == "a, b"
    assert list(fields) == list(SENT)
    assert len(fields) == 4
    assert "x-one" in fields


def test_what_is_not_there() -> None:
    fields = Fields(SENT)
    assert fields.get("x-two") is None
    assert fields.get_all("x-two") == []
    assert fields.combined("x-two") is None
    assert "x-two" not in fields


def test_changing_fields_makes_others() -> None:
    fields = Fields(SENT)
    assert [name for name, _ in fields.without("accept", "authorization")] == ["X-One"]
    assert fields.plus(("Via", "1.1 g")).pairs == (*SENT, ("Via", "1.1 g"))
    assert fields.pairs == SENT


def test_fields_are_values() -> None:
    assert Fields(SENT) == Fields(iter(SENT))
    assert hash(Fields(SENT)) == hash(Fields(SENT))
    assert Fields(SENT) != Fields(SENT[:1])
    assert Fields(()) != ()


def test_the_text_form_of_fields_never_shows_a_value() -> None:
    head = RequestHead("GET", Target("/"), Fields(SENT))
    for shown in (repr(Fields(SENT)), repr(head), str(head)):
        assert "secret-token" not in shown
        assert "Authorization" in shown


@pytest.mark.parametrize(
    ("target", "text"),
    [(Target("/a"), "/a"), (Target("/a", ""), "/a?"), (Target("/a", "b=c&d"), "/a?b=c&d")],
    ids=["no-query", "empty-query", "query"],
)
def test_a_target_is_written_as_it_came(target: Target, text: str) -> None:
    assert str(target) == text


def test_the_text_form_of_a_principal_does_not_show_its_domains() -> None:
    domain = VisibilityDomain("principal", "9:principal")
    principal = Principal(PrincipalKind.USER, "u", "", "", "cf", frozenset(), 1, domain, domain)
    assert "9:principal" not in repr(principal)
