"""The request as the controller gets it.

A fetch whose answer may be shown to more than the one who asked carries nothing of that one's Host or, where everybody
may see the answer, of its token: no client may write itself into a shared page. In mode `origin` tokens and cookies go
to the origin, and RFC 9111 §3.5 decides what may be stored of its answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gateway.core import forwarding
from gateway.core.model import NOBODY, PUBLIC_DOMAIN, Claim, OutgoingHead
from gateway.core.rate_policy import network_of, rows_asked
from gateway.core.routes import CacheMode
from gateway.core.tracing import continued

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.core.tracing import TraceContext
    from gateway.pipeline.exchange import Exchange

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})


@dataclass(frozen=True, slots=True)
class Outgoing:
    """How request heads are made for the controller.

    Attributes:
        via: the gateway's name in Via.
        host: the Host the controller is to see; None for the client's own.
        trusted: peers whose X-Forwarded-* are believed.
        external_scheme: scheme of the public URL.
        external_host: host (and port) of the public URL.
        trace: gives the trace context that the controller is told; None passes on what came.
        claims: whether anybody asks what a request takes up at the controller.
    """

    via: str
    host: str | None
    trusted: forwarding.TrustedProxies
    external_scheme: str
    external_host: str
    trace: Callable[[Exchange], TraceContext] | None = None
    claims: bool = False

    def request(self, exchange: Exchange, *, plain: bool) -> OutgoingHead:
        """The head to send for an exchange.

        Args:
            exchange: a decided exchange.
            plain: whether the answer is to be read here, to rewrite its links or to learn of a job, and so must not
                come encoded.
        """
        shared = exchange.key is not None and exchange.bypass is None
        public = exchange.key is not None and exchange.key.domain == PUBLIC_DOMAIN.id
        fields = forwarding.request_fields(
            exchange.head,
            host=self.host,
            via=self.via,
            trusted=self.trusted,
            request_id=exchange.request_id,
            identity_encoding=plain,
            drop_authorization=shared and public and exchange.row.cache.mode is CacheMode.POLICY,
            external_scheme=self.external_scheme if shared else None,
            external_host=self.external_host if shared else None,
        )
        if self.trace is not None:
            fields = continued(fields, self.trace(exchange))
        head = exchange.head
        return OutgoingHead(
            head.method,
            head.target,
            fields,
            head.peer,
            head.scheme,
            head.has_body,
            claim=self._claim(exchange) if self.claims else NOBODY,
        )

    def _claim(self, exchange: Exchange) -> Claim:
        """Whose share of the upstream a request takes, and what its time is to be compared with."""
        head, principal, route = exchange.head, exchange.principal, exchange.route
        if principal is not None:
            owner: tuple[str, ...] = (principal.issuer, principal.zone, principal.id)
        else:
            owner = (network_of(forwarding.client_address(head, self.trusted)),)
        if route is None:
            return Claim(owner, "")
        method = head.method if head.method in _METHODS else "other"
        rows = rows_asked(head.target.query).bit_length() if route.rate == "list" else 0
        return Claim(owner, f"{method} {route.template} {rows}")
