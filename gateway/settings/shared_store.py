"""The store that gateway processes share, as the operator writes it down. What is done with it: docs/scaling.md."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal

from gateway.settings.errors import Problem
from gateway.settings.scalars import (
    MIB,
    Boolean,
    Count,
    Duration,
    File,
    ReadError,
    Scalar,
    Secret,
    Size,
    Text,
    Word,
    plain_text,
)
from gateway.settings.scalars import format_duration as _written
from gateway.settings.section import Section

_SHORTEST_KEY: Final = 32
_HOST: Final = r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])"
_PORT: Final = 6379
_URL: Final = re.compile(rf"(valkeys?|rediss?)://({_HOST})(?::([0-9]{{1,5}}))?(?:/([0-9]{{1,3}})?)?")
_UNIX: Final = re.compile(r"unix://(/[^\0?#]+)")
_NODE: Final = re.compile(rf"({_HOST}):([0-9]{{1,5}})")
_SHOWN: Final[dict[str, Any]] = {"type": "string", "pattern": "^(valkeys?|rediss?|unix)://[^?#@]+$"}


def _store_url(value: object) -> str:
    url = plain_text(value)
    if "@" in url:
        raise ReadError("it must not carry a user or password: they have keys of their own")
    match = _URL.fullmatch(url)
    if not _UNIX.fullmatch(url) and (match is None or not 0 < int(match[3] or _PORT) < 65_536):
        raise ReadError
    return url


def _node(value: object) -> str:
    match = _NODE.fullmatch(plain_text(value))
    if match is None or not 0 < int(match[2]) < 65_536:
        raise ReadError
    return match[0]


StoreUrl = Annotated[
    str,
    Scalar("a URL such as valkey://valkey.internal:6379 or unix:///run/valkey.sock", _store_url, _SHOWN, str, "URL"),
]
Node = Annotated[str, Scalar("a host and port such as 10.0.0.2:6379", _node, {"type": "string"}, str, "host and port")]


class StoreTls(Section):
    """With `valkeys://` or `rediss://`: how the store proves itself, and the gateway to it."""

    ca_file: File | None = None
    """Authorities that are believed, in PEM; without it the system's. The host's name must be in its certificate."""
    cert_file: File | None = None
    """The gateway's certificate, when the store asks for one."""
    key_file: File | None = None
    """Its private key."""

    def problems(self) -> Iterator[Problem]:
        """Half a pair."""
        if (self.cert_file is None) != (self.key_file is None):
            missing = "key_file" if self.key_file is None else "cert_file"
            yield Problem((missing,), "a readable file, since the other of the pair is given", "nothing")


class SharedStore(Section):
    """A Valkey (7.2 or newer) or Redis (7 or newer) that several gateway processes share."""

    url: StoreUrl
    """Where it is: `valkey://host:port/database` (or `redis://`), `valkeys://` (or `rediss://`) for TLS, \
`unix:///path`. With Sentinel or a cluster: one of its nodes."""
    mode: Literal["standalone", "sentinel", "cluster"] | None = None
    """What stands there; by default `sentinel` when `sentinel_master` is given, `cluster` when only `nodes` is, else \
`standalone`."""
    nodes: tuple[Node, ...] = ()
    """Further Sentinels or nodes of the cluster, in case that of `url` is away."""
    sentinel_master: Word | None = None
    """The name under which Sentinel knows the server."""
    sentinel_username: Text | None = None
    """The user for Sentinel itself."""
    sentinel_password: Secret | None = None
    """The password for Sentinel itself."""
    username: Text | None = None
    """The ACL user of the server."""
    password: Secret | None = None
    """Its password."""
    tls: StoreTls = StoreTls()
    """Certificates."""
    namespace: Word = "gateway"
    """The beginning of all keys; gateways that share must agree on it, those that must not share must differ."""
    hmac_key: Secret
    """Authenticates what is stored, so that who can write to the store cannot make pages; at least 32 bytes, the same \
in all processes."""
    connect_timeout: Duration = 1.0
    """How long connecting may take, and storing a page; no request waits for either."""
    max_added_latency: Duration = 0.05
    """The most that the store may add to a request before it counts as gone; also for how long a process serves what \
it stored without hearing from the store (at least 20ms), and a write waits for one that does not answer."""
    lease: Duration = 1.0
    """How long a process may be silent before the others serve nothing they stored; a write that could not be \
announced waits until then (1.25 of it at most)."""
    grace: Duration = 10.0
    """How long the others wait, without serving what they stored, for a process that has vanished without a farewell \
and may be writing unheard."""
    max_staleness: Duration = 0.0
    """How old a stored page may be that a process serves while it cannot know of the others' writes; 0 asks the \
controller each time."""
    max_page_bytes: Size = 8 * MIB
    """Larger pages are not shared."""
    collapse_wait: Duration = 2.0
    """How long a miss waits for a page that another process is fetching, likewise for keys; 0 fetches at once."""
    share_keys: Boolean = True
    """Whether a set of verification keys that one process fetched serves the others as well, for its \
`refresh_interval`; never one with `allow_short_secret`."""
    counter_lease: Count = 10
    """Units of a rate limit that a process may give away before the others know, or 1 % of the burst if that is \
more."""
    processes: Count = 2
    """Among how many a rate limit is split while the store is away, until it has been seen how many there are."""

    def problems(self) -> Iterator[Problem]:
        """Modes that do not fit, keys that can be guessed, limits of nothing."""
        yield from self._mode_problems()
        size = len(self.hmac_key.get_secret_value().encode())
        if size < _SHORTEST_KEY:
            yield Problem(("hmac_key",), f"at least {_SHORTEST_KEY} bytes", f"{size}")
        for name in ("connect_timeout", "max_added_latency"):
            if getattr(self, name) <= 0:
                yield Problem((name,), "a duration above 0", "0")
        if self.lease < 0.1:  # noqa: PLR2004 - heartbeats are a quarter of it
            yield Problem(("lease",), "a duration of at least 100ms", _written(self.lease))
        if self.grace < self.lease:
            yield Problem(("grace",), f"at least shared_store.lease ({_written(self.lease)})", _written(self.grace))
        if (self.tls.sets("ca_file") or self.tls.sets("cert_file")) and not self.encrypted:
            yield Problem(("tls",), "no such key without valkeys:// or rediss://", "one")

    def _mode_problems(self) -> Iterator[Problem]:
        mode = self.stands
        if mode == "sentinel" and self.sentinel_master is None:
            yield Problem(("sentinel_master",), "a name, since mode is sentinel", "nothing")
        if mode != "sentinel" and self.sentinel_master is not None:
            yield Problem(("sentinel_master",), f"no such key with mode {mode}", "one")
        if mode == "standalone" and self.nodes:
            yield Problem(("nodes",), "no such key with mode standalone", "one")
        if mode != "standalone" and self.unix_path is not None:
            yield Problem(("url",), f"a TCP address, since mode is {mode}", "a unix socket")
        if mode == "cluster" and self.database:
            yield Problem(("url",), "no database number, since a cluster has only 0", str(self.database))

    @property
    def stands(self) -> Literal["standalone", "sentinel", "cluster"]:
        """What stands at `url`."""
        if self.mode is not None:
            return self.mode
        return "sentinel" if self.sentinel_master is not None else "cluster" if self.nodes else "standalone"

    @property
    def encrypted(self) -> bool:
        """Whether TLS is spoken."""
        return self.url.startswith(("valkeys:", "rediss:"))

    @property
    def unix_path(self) -> str | None:
        """The path of the unix socket, if it is one."""
        match = _UNIX.fullmatch(self.url)
        return None if match is None else match[1]

    @property
    def database(self) -> int:
        """The number behind the address."""
        match = _URL.fullmatch(self.url)
        return int(match[4] or 0) if match else 0

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """All hosts and ports, that of `url` first; none with a unix socket."""
        match = _URL.fullmatch(self.url)
        first = [] if match is None else [(match[2].strip("[]"), int(match[3] or _PORT))]
        nodes = [_NODE.fullmatch(node) for node in self.nodes]
        return (*first, *((node[1].strip("[]"), int(node[2])) for node in nodes if node))
