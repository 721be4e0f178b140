"""One name with several addresses: each address is a controller of its own, looked up again and again.

The operating system's resolver does not tell how long an answer holds, so the interval is the operator's. A look-up
that fails changes nothing: the addresses known before stand.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.upstream.balancer import Balancer
    from gateway.upstream.endpoint import Endpoint

_MOST: Final = 32
_RETRY: Final = 1.0


async def addresses(host: str, port: int) -> list[str]:
    """The addresses of a name, in the resolver's order, each once.

    Raises:
        OSError: it cannot be looked up.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


class Resolver:
    """Keeps a balancer's endpoints those that a name leads to.

    Args:
        url: the URL with the name, without a path.
        balancer: whose endpoints.
        make: makes an endpoint from its URL, its label and the name its certificate must have.
        interval: seconds between two look-ups.
        look_up: finds addresses of a host and a port. May raise OSError.
    """

    def __init__(
        self,
        url: str,
        balancer: Balancer,
        make: Callable[[str, str, str], Endpoint],
        *,
        interval: float,
        look_up: Callable[[str, int], Awaitable[list[str]]] = addresses,
    ) -> None:
        parts = urlsplit(url)
        self._scheme: Final = parts.scheme
        self._host: Final = parts.hostname or ""
        self._port: Final = parts.port or (443 if parts.scheme == "https" else 80)
        self._balancer: Final = balancer
        self._make: Final = make
        self._interval: Final = interval
        self._look_up: Final = look_up
        self._known: dict[str, tuple[int, Endpoint]] = {}
        self._task: asyncio.Task[None] | None = None
        self.failures = 0

    async def start(self) -> None:
        """Look up once, then go on behind."""
        await self.resolve()
        self._task = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def resolve(self) -> None:
        """Look up once. At most 32 addresses are used."""
        try:
            found = (await self._look_up(self._host, self._port))[:_MOST]
        except OSError:
            found = []
        if not found:
            self.failures += 1
            return
        kept = {address: self._known[address] for address in found if address in self._known}
        free = iter(sorted(set(range(_MOST)) - {place for place, _ in kept.values()}))
        for address in found:
            if address not in kept:
                place = next(free)
                authority = f"[{address}]:{self._port}" if ":" in address else f"{address}:{self._port}"
                label = f"{self._host}:{self._port}#{place}"
                kept[address] = place, self._make(f"{self._scheme}://{authority}", label, self._host)
        if kept.keys() != self._known.keys():
            self._known = kept
            await self._balancer.replace([endpoint for _, endpoint in kept.values()])

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._interval if self._known else min(_RETRY, self._interval))
            await self.resolve()
