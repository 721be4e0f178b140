"""One way of speaking to a single server, to a server behind Sentinel and to a cluster.

The `valkey` client does the protocol; nothing is decided here. Its own time limits and retries are off: deadlines are
`link.py`'s, and a command that was cancelled or timed out closes its connection (advisory CVE-2023-28858), which the
client does as long as nobody tells it otherwise. No module beside this one knows the client.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any, Final, Protocol
from weakref import WeakSet

from valkey.asyncio import Connection, Sentinel, SSLConnection, Valkey
from valkey.asyncio.cluster import ClusterNode, ValkeyCluster
from valkey.exceptions import (
    AuthenticationError,
    AuthorizationError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    ValkeyClusterException,
    ValkeyError,
)

from gateway.shared.options import Fault

if TYPE_CHECKING:
    from gateway.shared.options import Options

# What the `valkey` client lets out: its own errors, and those of sockets and of look-ups in what it knows of a cluster.
ERRORS: Final = (ValkeyError, ValkeyClusterException, OSError, LookupError)
_DENIED: Final = (AuthenticationError, AuthorizationError, NoPermissionError)
_GONE: Final = ("LOADING", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN", "MOVED", "ASK", "NOREPLICAS", "UNBLOCKED")

# Where answers to `Listener.ping` come; no channel has this name.
PONG: Final = ""
_PING: Final = b"*1\r\n$4\r\nPING\r\n"


class Client(Protocol):
    """Sends commands to wherever their key lives."""

    async def command(self, *parts: Any) -> Any:
        """The answer to a command.

        Raises:
            ERRORS: one of them.
        """

    async def listener(self, key: str) -> Listener:
        """A connection of its own to the server that has `key`, to be closed by who asked.

        Raises:
            ERRORS: one of them.
        """

    async def close(self) -> None:
        """Close all connections."""


class Listener:
    """A connection that is told things.

    Args:
        connection: connected.
    """

    def __init__(self, connection: Any) -> None:
        self._connection: Final = connection

    async def subscribe(self, *channels: str) -> None:
        """Subscribe to sharded channels of one slot.

        Raises:
            ERRORS: one of them.
        """
        await self._connection.send_command("SSUBSCRIBE", *channels)
        for _ in channels:
            await self._connection.read_response()

    async def ping(self) -> None:
        """Ask for a message on `PONG`, which comes behind all messages that the server has sent by then.

        Raises:
            ERRORS: one of them.
        """
        await self._connection.send_packed_command(_PING, check_health=False)

    async def message(self) -> tuple[str, bytes] | None:
        """The next message with its channel; None when this server has nothing to do with the channel any more.

        Raises:
            ERRORS: one of them.
        """
        while True:
            kind, *rest = await self._connection.read_response()
            if kind == b"smessage":
                channel, content = rest
                return channel.decode(), content
            if kind == b"pong":
                return PONG, b""
            if kind == b"sunsubscribe":
                return None

    async def close(self) -> None:
        """Close it."""
        await self._connection.disconnect(nowait=True)


class _Single:
    """One server, wherever Sentinel says it is."""

    def __init__(self, options: Options) -> None:
        arguments = _arguments(options)
        self._sentinel: Sentinel | None = None
        if options.mode == "sentinel":
            self._sentinel = Sentinel(  # type: ignore[no-untyped-call]
                list(options.nodes),
                sentinel_kwargs={
                    **arguments,
                    "username": options.sentinel_username,
                    "password": options.sentinel_password,
                    "ssl": options.tls is not None,
                },
                **arguments,
                db=options.database,
                ssl=options.tls is not None,
            )
            self._client: Any = self._sentinel.master_for(options.sentinel_master, Valkey, check_connection=False)
        elif options.unix_path is not None:
            self._client = Valkey(unix_socket_path=options.unix_path, db=options.database, **arguments)
        else:
            host, port = options.nodes[0]
            self._client = Valkey(host=host, port=port, db=options.database, ssl=options.tls is not None, **arguments)

    async def command(self, *parts: Any) -> Any:
        return await self._client.execute_command(*parts)

    async def listener(self, _key: str) -> Listener:
        connection = self._client.connection_pool.make_connection()
        return await _listening(connection)

    async def close(self) -> None:
        await self._client.connection_pool.disconnect()
        for sentinel in [] if self._sentinel is None else self._sentinel.sentinels:
            await sentinel.connection_pool.disconnect()


class _Lasting(dict[str, Any]):
    """The nodes to ask for the others. The client strikes one that fails off its list, until none is left."""

    def pop(self, *_: Any) -> None:
        pass


class _Cluster:
    """A cluster. The client forgets connections to nodes that have left it; they are closed here."""

    def __init__(self, options: Options) -> None:
        self._client: Final[Any] = ValkeyCluster(
            startup_nodes=[ClusterNode(host, port) for host, port in options.nodes],
            ssl=options.tls is not None,
            require_full_coverage=False,
            reinitialize_steps=1,
            cluster_error_retry_attempts=1,
            connection_error_retry_attempts=0,
            dynamic_startup_nodes=False,
            **_arguments(options),
        )
        kept = self._connections = WeakSet[Any]()
        kind: Any = SSLConnection if options.tls is not None else Connection

        class Kept(kind):  # type: ignore[misc]
            def __init__(self, **arguments: Any) -> None:
                super().__init__(**arguments)
                kept.add(self)

        self._client.connection_kwargs["connection_class"] = Kept
        nodes = self._client.nodes_manager
        nodes.startup_nodes = _Lasting(nodes.startup_nodes)
        for node in nodes.startup_nodes.values():
            node.connection_class = Kept

    async def command(self, *parts: Any) -> Any:
        return await self._client.execute_command(*parts)

    async def listener(self, key: str) -> Listener:
        await self._client.initialize()
        node = self._client.get_node_from_key(key)
        if node is None:
            raise ValkeyClusterException(f"no node has the slot of {key}")
        return await _listening(node.connection_class(**node.connection_kwargs))

    async def close(self) -> None:
        try:
            await self._client.aclose()
        finally:
            for connection in list(self._connections):
                await connection.disconnect(nowait=True)


def client(options: Options) -> Client:
    """A client that has not connected yet."""
    return _Cluster(options) if options.mode == "cluster" else _Single(options)


def fault_of(error: BaseException) -> Fault:
    """What one of `ERRORS` means."""
    if isinstance(error, _DENIED):
        return Fault.DENIED
    if isinstance(error, ReadOnlyError) or "READONLY" in str(error) or "MISCONF" in str(error):
        return Fault.READ_ONLY
    if isinstance(error, OutOfMemoryError) or str(error).startswith("OOM"):
        return Fault.FULL
    if isinstance(error, ResponseError) and not str(error).startswith(_GONE):
        refused = type(error) is ResponseError or type(error).__name__ in {"NoScriptError", "DataError"}
        return Fault.REFUSED if refused else Fault.UNREACHABLE
    return Fault.UNREACHABLE


async def _listening(connection: Any) -> Listener:
    try:
        await connection.connect()
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    return Listener(connection)


def _arguments(options: Options) -> dict[str, Any]:
    found: dict[str, Any] = {
        "username": options.username,
        "password": options.password,
        "socket_timeout": None,
        "socket_connect_timeout": options.connect_timeout,
        "lib_name": None,
        "lib_version": None,
    }
    tls = options.tls
    if tls is not None:
        found |= {
            "ssl_ca_certs": tls.ca_file,
            "ssl_certfile": tls.cert_file,
            "ssl_keyfile": tls.key_file,
            "ssl_check_hostname": True,
            "ssl_min_version": ssl.TLSVersion.TLSv1_2,
        }
    return found
