from __future__ import annotations

import json

import pytest

from gateway.core.errors import ERROR_FIELD, ERRORS, Denial, Reason, is_v3, render

# As the controller wrote them (recordings: errors, auth, other, degraded).
RECORDED_V3 = {
    Reason.NO_TOKEN: (
        401,
        b'{"errors":[{"detail":"Authentication error","title":"CF-NotAuthenticated","code":10002}]}',
    ),
    Reason.INVALID_TOKEN: (
        401,
        b'{"errors":[{"detail":"Invalid Auth Token","title":"CF-InvalidAuthToken","code":1000}]}',
    ),
    Reason.INSUFFICIENT_SCOPE: (
        403,
        (
            b'{"errors":[{"detail":"You are not authorized to perform the requested action",'
            b'"title":"CF-NotAuthorized","code":10003}]}'
        ),
    ),
    Reason.UNKNOWN_ROUTE: (404, b'{"errors":[{"detail":"Unknown request","title":"CF-NotFound","code":10000}]}'),
}


@pytest.mark.parametrize("reason", RECORDED_V3, ids=lambda reason: reason.value)
def test_v3_bodies_are_the_controllers(reason: Reason) -> None:
    status, fields, body = render(Denial(reason), "/v3/processes")
    assert (status, body) == RECORDED_V3[reason]
    assert fields.get("content-type") == "application/json; charset=utf-8"


@pytest.mark.parametrize("path", ["/v2/apps", "/", "/v30", "/v", "/v3x/processes"])
def test_everything_outside_v3_gets_the_v2_body(path: str) -> None:
    _, fields, body = render(Denial(Reason.NO_TOKEN), path)
    assert body == (
        b'{\n  "description": "Authentication error",\n  "error_code": "CF-NotAuthenticated",\n  "code": 10002\n}\n'
    )
    assert fields.get("content-type") == "application/json;charset=utf-8"


def test_the_v2_body_for_no_route_ends_without_a_line_feed() -> None:
    """Recording other-038."""
    body = render(Denial(Reason.UNKNOWN_ROUTE), "/nosuch")[2]
    assert body == b'{\n  "description": "Unknown request",\n  "error_code": "CF-NotFound",\n  "code": 10000\n}'


@pytest.mark.parametrize(("path", "v3"), [("/v3", True), ("/v3/", True), ("/v3/a", True), ("/v2", False), ("", False)])
def test_which_paths_are_v3(path: str, v3: bool) -> None:
    assert is_v3(path) is v3


@pytest.mark.parametrize("reason", Reason, ids=lambda reason: reason.value)
@pytest.mark.parametrize("path", ["/v3/apps", "/v2/apps"])
def test_every_reason_has_an_error_that_names_it(reason: Reason, path: str) -> None:
    status, fields, body = render(Denial(reason, "because", (("Retry-After", "1"),)), path)
    assert status == ERRORS[reason].status >= 400
    private = reason.value.startswith(("upstream-", "keys-")) or reason is Reason.INTERNAL
    assert fields.get(ERROR_FIELD.lower()) == (reason.value if private else f"{reason.value}; because")
    assert fields.get("retry-after") == "1"
    error = json.loads(body)
    error = error["errors"][0] if "errors" in error else error
    assert error["code"] == ERRORS[reason].code
    assert b"because" not in body


def test_reason_names_are_distinct_and_safe_in_a_field() -> None:
    assert len({reason.value for reason in Reason}) == len(Reason)
    assert all(reason.value.replace("-", "").isalpha() and reason.value.islower() for reason in Reason)


def test_without_a_detail_the_field_is_the_reason_alone() -> None:
    assert render(Denial(Reason.DRAINING), "/")[1].get("x-gateway-error") == "draining"
