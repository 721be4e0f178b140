"""A small UAA: discovery, token keys with rotation, and the password, client-credentials and refresh grants.

What the cf CLI, cloudfoundry-client and a gateway ask of a UAA, in the shapes of the real one (controller.md §7).
Tokens are signed with RS256; the keys live as long as the process. Knows the people, nothing of the controller.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import jwt
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from jwt.algorithms import RSAAlgorithm

from gateway.sandbox.grants import GrantError, authenticated, client_claims, logged_in, user_claims
from gateway.sandbox.people import PEOPLE, Client, Person
from gateway.sandbox.tokens import RSA_ALGORITHMS, Key, TokenChecker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ZONE: Final = "uaa"
AUDIENCES: Final = ("cloud_controller", "openid", "cf")
_REFRESH_LIFETIME: Final = 30 * 24 * 3600


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key pair and its id."""

    kid: str
    private: RSAPrivateKey

    def jwk(self) -> dict[str, Any]:
        """The public half as `token_keys` lists it."""
        public = self.private.public_key()
        pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        numbers = RSAAlgorithm.to_jwk(public, as_dict=True)
        return {
            "kty": "RSA",
            "e": numbers["e"],
            "use": "sig",
            "kid": self.kid,
            "alg": "RS256",
            "value": pem.decode().strip(),
            "n": numbers["n"],
        }


class Uaa:
    """The UAA.

    Args:
        lifetime: seconds an access token is valid.
        clock: epoch seconds.
    """

    def __init__(self, *, lifetime: int = 600, clock: Callable[[], float] = time.time) -> None:
        self.lifetime = lifetime
        self.down = False
        self.token_keys_requests = 0
        self.url = ""
        self._clock: Final = clock
        self._generation = 0
        self._keys: list[SigningKey] = [self._new_key()]
        self._runner: web.AppRunner | None = None

    @property
    def issuer(self) -> str:
        """The `iss` of its tokens."""
        return f"{self.url}/oauth/token"

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Listen; returns the base URL."""
        app = web.Application(middlewares=[self._outage])
        app.router.add_get("/.well-known/openid-configuration", self._discovery)
        app.router.add_get("/token_keys", self._token_keys)
        app.router.add_get("/token_key", self._token_key)
        app.router.add_get("/info", self._info)
        app.router.add_get("/login", self._info)
        app.router.add_post("/oauth/token", self._token)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        self.url = "http://{}:{}".format(*self._runner.addresses[0][:2])
        return self.url

    async def stop(self) -> None:
        """Close the listener."""
        if self._runner is not None:
            await self._runner.cleanup()

    def rotate(self) -> str:
        """Sign with a new key from now on; the old ones stay listed. Returns the new key's id."""
        self._keys.insert(0, self._new_key())
        return self._keys[0].kid

    def retire_old(self) -> None:
        """List the signing key only."""
        del self._keys[1:]

    def verify(self, token: str) -> Mapping[str, Any] | None:
        """The claims of a good access token, or None: the check that the sandbox controller makes."""
        keys = [Key(key.private.public_key(), RSA_ALGORITHMS) for key in self._keys]
        return TokenChecker(lambda: keys, self.issuer, self._clock)(token)

    def mint(self, who: Person | Client, *, client: str = "cf", **overrides: Any) -> str:
        """An access token.

        Args:
            who: a user, or a client for its own credentials.
            client: the client a user logs in with.
            overrides: claims to replace; None removes one.
        """
        now = int(self._clock())
        common: dict[str, Any] = {
            "jti": uuid.uuid4().hex,
            "iat": now,
            "exp": now + self.lifetime,
            "iss": self.issuer,
            "zid": ZONE,
            "aud": list(AUDIENCES),
            "scope": list(who.scopes),
            "rev_sig": "5d6f7a8b",
        }
        claims = {**common, **(user_claims(who, client, now) if isinstance(who, Person) else client_claims(who))}
        claims = {name: value for name, value in {**claims, **overrides}.items() if value is not None}
        return self._signed(claims)

    def _signed(self, claims: Mapping[str, Any]) -> str:
        key = self._keys[0]
        headers = {"kid": key.kid, "typ": "JWT", "jku": f"{self.url}/token_keys"}
        return jwt.encode(dict(claims), key.private, algorithm="RS256", headers=headers)

    def _new_key(self) -> SigningKey:
        self._generation += 1
        return SigningKey(f"sandbox-key-{self._generation}", generate_private_key(65537, 2048))

    # -- handlers

    @web.middleware
    async def _outage(self, request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
        if self.down:
            return web.Response(status=503, text="The UAA is down.\n")
        response: web.StreamResponse = await handler(request)
        return response

    async def _discovery(self, _request: web.Request) -> web.Response:
        return web.json_response(
            {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.url}/oauth/authorize",
                "token_endpoint": f"{self.url}/oauth/token",
                "jwks_uri": f"{self.url}/token_keys",
                "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
                "id_token_signing_alg_values_supported": ["RS256"],
                "scopes_supported": ["openid"],
                "subject_types_supported": ["public"],
            }
        )

    async def _token_keys(self, _request: web.Request) -> web.Response:
        self.token_keys_requests += 1
        # Its entity-tag lacks the quotes, as with the real one: a client that parses it finds out here.
        etag = {"ETag": str(self._generation)}
        return web.json_response({"keys": [key.jwk() for key in self._keys]}, headers=etag)

    async def _token_key(self, _request: web.Request) -> web.Response:
        return web.json_response(self._keys[0].jwk())

    async def _info(self, _request: web.Request) -> web.Response:
        return web.json_response(
            {
                "app": {"version": "77.0.0"},
                "links": {
                    "uaa": self.url,
                    "login": self.url,
                    "passwd": "/forgot_password",
                    "register": "/create_account",
                },
                "zone_name": ZONE,
                "entityID": "sandbox",
                "prompts": {"username": ["text", "Email"], "password": ["password", "Password"]},
            }
        )

    async def _token(self, request: web.Request) -> web.Response:
        form = {name: value for name, value in (await request.post()).items() if isinstance(value, str)}
        try:
            client = authenticated(request.headers.get("Authorization"), form)
            answer = self._grant(client, form)
        except GrantError as error:
            body = {"error": error.error, "error_description": error.description}
            headers = {"Cache-Control": "no-store"}
            if error.error == "invalid_client":
                headers["WWW-Authenticate"] = 'Basic realm="UAA/client"'
            return web.json_response(body, status=error.status, headers=headers)
        return web.json_response(answer, headers={"Cache-Control": "no-store", "Pragma": "no-cache"})

    def _grant(self, client: Client, form: Mapping[str, str]) -> dict[str, Any]:
        grant = form.get("grant_type")
        if grant is None:
            raise GrantError(400, "invalid_request", "Missing grant type")
        if grant not in {"password", "client_credentials", "refresh_token"}:
            raise GrantError(400, "unsupported_grant_type", f"Unsupported grant type: {grant[:40]}")
        if grant not in client.grant_types:
            raise GrantError(401, "unauthorized_client", f"Unauthorized grant type: {grant}")
        if grant == "client_credentials":
            return self._answer(client, client)
        person = self._refreshed(client, form) if grant == "refresh_token" else logged_in(form)
        return {**self._answer(person, client), "refresh_token": self._refresh_token(person, client)}

    def _answer(self, who: Person | Client, client: Client) -> dict[str, Any]:
        token_id = uuid.uuid4().hex
        return {
            "access_token": self.mint(who, client=client.client_id, jti=token_id),
            "token_type": "bearer",
            "expires_in": self.lifetime - 1,
            "scope": " ".join(who.scopes),
            "jti": token_id,
        }

    def _refresh_token(self, person: Person, client: Client) -> str:
        now = int(self._clock())
        return self._signed(
            {
                "jti": f"{uuid.uuid4().hex}-r",
                "sub": person.user_guid,
                "user_id": person.user_guid,
                "iat": now,
                "exp": now + _REFRESH_LIFETIME,
                "cid": client.client_id,
                "client_id": client.client_id,
                "iss": self.issuer,
                "zid": ZONE,
                "aud": list(AUDIENCES),
                "grant_type": "password",
            }
        )

    def _refreshed(self, client: Client, form: Mapping[str, str]) -> Person:
        """Whom a refresh token speaks for; it is good for the client that got it, and no other (RFC 6749 §6)."""
        for key in self._keys:
            try:
                claims = jwt.decode(
                    form.get("refresh_token", ""),
                    key.private.public_key(),
                    algorithms=["RS256"],
                    options={"verify_aud": False, "verify_exp": False, "verify_iat": False},
                )
            except jwt.InvalidTokenError:
                continue
            refreshes = str(claims.get("jti", "")).endswith("-r") and claims.get("client_id") == client.client_id
            person = next((person for person in PEOPLE if person.user_guid == claims.get("user_id")), None)
            if person is not None and refreshes and claims.get("exp", 0) > self._clock():
                return person
        raise GrantError(401, "invalid_token", "The refresh token is invalid or has expired")
