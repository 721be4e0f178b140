"""What follows from the settings alone: values that name no part, for the processes that have few or none.

Imports core and nothing else; `assembly` makes the parts.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gateway import __version__
from gateway.core.cf_routes import CLOUD_FOUNDRY
from gateway.core.forwarding import TrustedProxies
from gateway.core.routes import RouteTable

if TYPE_CHECKING:
    from gateway.settings import Settings


def route_table(settings: Settings) -> RouteTable:
    """The table these settings ask for: the built-in rows, and the operator's laid over them."""
    builtin = CLOUD_FOUNDRY if settings.route_table == "cloud_foundry" else RouteTable(())
    return builtin.with_overrides(settings.route_rows())


def prefix(settings: Settings) -> str:
    """The path of the public URL, "" for none."""
    return urlsplit(settings.public_url).path.rstrip("/")


def trusted_proxies(settings: Settings) -> TrustedProxies:
    """The peers whose forwarding fields are believed."""
    return TrustedProxies(str(network) for network in settings.trusted_proxies)


def upstream_host(settings: Settings) -> str:
    """The `Host` that the controller is asked with."""
    return settings.upstream.host_header or urlsplit(settings.upstream.origins[0]).netloc


def rules_of(settings: Settings) -> bytes:
    """A digest of everything by which pages are made: where their links lead, who shares them, for how long."""
    upstream = settings.upstream
    parts = (
        __version__,
        settings.public_url,
        settings.route_table,
        upstream.url or sorted(upstream.urls),
        upstream.host_header,
        upstream.advertised_urls,
        [row.model_dump(mode="json") for row in settings.routes],
    )
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).digest()
