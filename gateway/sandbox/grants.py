"""Who may have a token of the sandbox's UAA: authentication of clients and users, and the claims that name them.

Knows the people and the words of OAuth 2.0 (RFC 6749); nothing of HTTP servers, keys or the form of a token.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus

from gateway.sandbox.people import CLIENTS, PEOPLE, Client, Person

if TYPE_CHECKING:
    from collections.abc import Mapping


class GrantError(Exception):
    """An OAuth error answer (RFC 6749 §5.2).

    Args:
        status: HTTP status.
        error: the `error` code.
        description: for people.
    """

    def __init__(self, status: int, error: str, description: str) -> None:
        super().__init__(description)
        self.status = status
        self.error = error
        self.description = description


def authenticated(authorization: str | None, form: Mapping[str, str]) -> Client:
    """The client that asks, by Basic or by form fields (RFC 6749 §2.3.1); a field that is there is the one that counts.

    Args:
        authorization: value of the Authorization field.
        form: the decoded request content.

    Raises:
        GrantError: it is unknown, or its secret is wrong.
    """
    name, secret = form.get("client_id", ""), form.get("client_secret", "")
    if authorization is not None:
        name, secret = _basic(authorization)
    for client in CLIENTS:
        if client.client_id == name and _equal(client.secret, secret):
            return client
    raise GrantError(401, "invalid_client", "Bad credentials")


def logged_in(form: Mapping[str, str]) -> Person:
    """The user whose name and password a form holds (RFC 6749 §4.3.2).

    Raises:
        GrantError: there is none.
    """
    for person in PEOPLE:
        if person.username == form.get("username") and _equal(person.password, form.get("password", "")):
            return person
    raise GrantError(401, "unauthorized", "Bad credentials")


def user_claims(person: Person, client: str, now: int) -> dict[str, Any]:
    """What tells a user's token from others (controller.md §7).

    Args:
        person: the user.
        client: id of the client they log in with.
        now: epoch seconds of the login.
    """
    return {
        "sub": person.user_guid,
        "user_id": person.user_guid,
        "user_name": person.username,
        "email": person.email,
        "origin": "uaa",
        "auth_time": now,
        "client_id": client,
        "cid": client,
        "azp": client,
        "grant_type": "password",
    }


def client_claims(client: Client) -> dict[str, Any]:
    """What tells a client's own token from others (controller.md §7)."""
    return {
        "sub": client.client_id,
        "client_id": client.client_id,
        "cid": client.client_id,
        "azp": client.client_id,
        "authorities": list(client.scopes),
        "grant_type": "client_credentials",
    }


def _basic(authorization: str) -> tuple[str, str]:
    """Name and secret of a Basic field (RFC 7617); those of nobody when it is malformed."""
    scheme, _, encoded = authorization.partition(" ")
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True).decode()
    except (binascii.Error, ValueError):
        return "", ""
    name, colon, secret = decoded.partition(":")
    return (unquote_plus(name), unquote_plus(secret)) if scheme.lower() == "basic" and colon else ("", "")


def _equal(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode(errors="surrogatepass"))
