"""The Cloud Controller's refusals: status, code, title and detail, and their two JSON forms.

One exception type, one constructor per case of controller.md §2. Knows nothing of requests or resources.
"""

from __future__ import annotations

from typing import Any, Final

from gateway.sandbox.render import compact, plain, pretty

CRASH_TEXT: Final = (
    b"500 Internal Server Error\nIf you are the administrator of this website, then please read this web application's "
    b"log file and/or the web server's log file to find out what went wrong."
)
LOW_LEVEL_TEXT: Final = b"An unhandled lowlevel error occurred. The application logs may have details.\n"


class CloudControllerError(Exception):
    """A refusal in the Cloud Controller's own words.

    Attributes:
        status: HTTP status.
        code: Numeric CF error code.
        title: CF error title, `CF-NotFound` for instance.
        detail: Text for people, matched verbatim by some clients.
    """

    def __init__(self, status: int, code: int, title: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.title = title
        self.detail = detail

    def v3(self) -> bytes:
        """`{"errors":[…]}`, the form of everything under `/v3`."""
        return compact({"errors": [self._v3_entry()]})

    def v2(self) -> bytes:
        """`{"description",…}`, the form of everything else; ends in a newline as the real one does."""
        return pretty(self._v2_entry()) + b"\n"

    def v2_compact(self) -> bytes:
        """The v2 form on one line, as the rate limiter writes it."""
        return plain(self._v2_entry())

    def _v3_entry(self) -> dict[str, Any]:
        return {"detail": self.detail, "title": self.title, "code": self.code}

    def _v2_entry(self) -> dict[str, Any]:
        return {"description": self.detail, "error_code": self.title, "code": self.code}


class UnknownError(CloudControllerError):
    """An exception the Cloud Controller did not foresee; its body has another key order."""

    def __init__(self) -> None:
        super().__init__(500, 10001, "UnknownError", "An unknown error occurred.")

    def _v3_entry(self) -> dict[str, Any]:
        return {"title": self.title, "detail": self.detail, "code": self.code}

    def _v2_entry(self) -> dict[str, Any]:
        return {"error_code": self.title, "description": self.detail, "code": self.code}


class MalformedQueryError(Exception):
    """The query cannot even be decoded: Rails answers 500 in plain text before any controller runs."""


def not_authenticated() -> CloudControllerError:
    """No token was sent."""
    return CloudControllerError(401, 10002, "CF-NotAuthenticated", "Authentication error")


def invalid_token() -> CloudControllerError:
    """The token is bad, expired, for another audience or a refresh token."""
    return CloudControllerError(401, 1000, "CF-InvalidAuthToken", "Invalid Auth Token")


def not_authorized() -> CloudControllerError:
    """Scope or role does not suffice."""
    detail = "You are not authorized to perform the requested action"
    return CloudControllerError(403, 10003, "CF-NotAuthorized", detail)


def org_suspended() -> CloudControllerError:
    """A write in a suspended organization by anyone but an admin."""
    return CloudControllerError(403, 10017, "CF-OrgSuspended", "The organization is suspended")


def feature_disabled(flag: str) -> CloudControllerError:
    """A feature flag forbids the operation."""
    return CloudControllerError(403, 330002, "CF-FeatureDisabled", f"Feature Disabled: {flag}")


def resource_not_found(kind: str) -> CloudControllerError:
    """No such resource, or not visible; `kind` is its capitalised name."""
    return CloudControllerError(404, 10010, "CF-ResourceNotFound", f"{kind} not found")


def unknown_request() -> CloudControllerError:
    """No route, or no such method on it (never 405)."""
    return CloudControllerError(404, 10000, "CF-NotFound", "Unknown request")


def unparsable_body() -> CloudControllerError:
    """The request body is not JSON."""
    detail = "Request invalid due to parse error: invalid request body"
    return CloudControllerError(400, 1001, "CF-MessageParseError", detail)


def bad_query(messages: list[str]) -> CloudControllerError:
    """Query parameters that fail validation; several messages are joined."""
    detail = f"The query parameter is invalid: {', '.join(messages)}"
    return CloudControllerError(400, 10005, "CF-BadQueryParameter", detail)


def unprocessable(*messages: str) -> CloudControllerError:
    """A body that fails validation; several messages are joined."""
    return CloudControllerError(422, 10008, "CF-UnprocessableEntity", ", ".join(messages))


def not_unique(message: str) -> CloudControllerError:
    """A name already taken."""
    return CloudControllerError(422, 10016, "CF-UniquenessError", message)


def rate_limited(*, by_address: bool) -> CloudControllerError:
    """Over the limit, per user or (unauthenticated) per address."""
    if by_address:
        detail = (
            "Rate Limit Exceeded: Unauthenticated requests from this IP address have exceeded the limit. Please log in."
        )
        return CloudControllerError(429, 10014, "CF-IPBasedRateLimitExceeded", detail)
    return CloudControllerError(429, 10013, "CF-RateLimitExceeded", "Rate Limit Exceeded")
