"""Where keys come from: files and secrets once, UAA's `token_keys` again and again.

The laws (peers.md, "What their users suffer from"): keys are fetched before serving and refreshed behind; a failed
fetch never takes good keys away; a key that leaves the list is dropped with the next good fetch; unknown ids, however
many, lead to at most one fetch in a while.

Several processes may tell each other what they fetched (`Noticeboard`). A set from there is the document that UAA sent,
read by the same rules, and its age counts from that fetch: no key is used for longer than if this process had fetched
it then. Sets that may hold secrets are fetched by each process: a store is no place for those.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import ssl
import time
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from gateway.identity.keys import Key, KeyLoadError, KeySet, parse_set
from gateway.pipeline.ports import KeysUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.pipeline.ports import Noticeboard

_KIND: Final = "keys"
_LIMIT: Final = 1024 * 1024
_TIMEOUT: Final = aiohttp.ClientTimeout(total=10, connect=5)
_FIRST_RETRY: Final = 1.0
_LONGEST_RETRY: Final = 60.0
_JITTER: Final = 0.1


class UrlSource:
    """A key set at a URL.

    Args:
        url: UAA's `token_keys`, or any JWK Set.
        interval: seconds between two fetches behind.
        allow_symmetric: accept shared secrets from it, and short ones.
        on_change: called after the keys have changed.
        board: where processes tell each other what they fetched.
        issuer: whose tokens the keys are for.
    """

    def __init__(
        self,
        url: str,
        *,
        interval: float,
        allow_symmetric: bool,
        on_change: Callable[[], None],
        board: Noticeboard | None = None,
        issuer: str = "",
    ) -> None:
        self.url: Final = url
        self.interval: Final = interval
        self._board: Final = None if allow_symmetric else board
        self._subject: Final = json.dumps([url, issuer]).encode()
        self.allow_symmetric: Final = allow_symmetric
        self._on_change: Final = on_change
        self._begun = 0
        self._heard = 0
        self.failures = 0
        self.keys = KeySet()
        self.fetched_at: float | None = None
        self.lead = 0.0
        self.fault: str | None = "not fetched yet"
        self.fetches: Final[dict[str, int]] = {"ok": 0, "failed": 0, "shared": 0}

    async def renew(self, session: aiohttp.ClientSession, *, max_age: float) -> bool:
        """What another process fetched lately, or else fetch.

        Args:
            session: to fetch with.
            max_age: how long ago another's fetch may be, in seconds; it never may be as long ago as `interval`.

        Returns:
            As `fetch`.
        """
        board = self._board
        if board is None:
            return await self.fetch(session)
        self._begun += 1
        turn = self._begun
        after = 0.0 if self.fetched_at is None else self.fetched_at
        found = await board.find(_KIND, self._subject, after=after, max_age=min(max_age, self.interval))
        if found is not None:
            try:
                keys = self._parsed(found.content)
            except KeyLoadError:
                return await self.fetch(session)
            self.fetches["shared"] += 1
            self._learnt(turn, keys, found.learnt_at, found.age)
            return True
        try:
            return await self.fetch(session)
        finally:
            board.release(_KIND, self._subject)

    async def fetch(self, session: aiohttp.ClientSession) -> bool:
        """Fetch once; what is held stays when that fails.

        Args:
            session: to fetch with.

        Returns:
            Whether it went well; `fault` says what was wrong.
        """
        self._begun += 1
        turn, begun_at = self._begun, time.time()
        try:
            document = await _document(session, self.url)
            keys = self._parsed(document)
        except Exception as error:  # noqa: BLE001 - whatever went wrong, refreshing goes on with the keys at hand
            self.fetches["failed"] += 1
            if turn > self._heard:
                text = str(error) if isinstance(error, KeyLoadError) else type(error).__name__
                self._heard, self.fault = turn, f"{self.url}: {text}"
                self.failures += 1
            return False
        self.fetches["ok"] += 1
        if self._learnt(turn, keys, begun_at, 0.0) and self._board is not None:
            self._board.offer(_KIND, self._subject, document, learnt_at=begun_at, max_age=self.interval)
        return True

    def _parsed(self, document: bytes) -> KeySet:
        keys = parse_set(document, allow_symmetric=self.allow_symmetric, allow_short=self.allow_symmetric)
        _insist_on_keys(keys)
        return keys

    def _learnt(self, turn: int, keys: KeySet, at: float, lead: float) -> bool:
        """Go on with these keys, unless what was begun later was heard of before: then they are history."""
        if turn < self._heard:
            return False
        self._heard, self.failures = turn, 0
        self.fault, self.fetched_at, self.lead = None, at, lead
        if _differs(keys, self.keys):
            self.keys = keys
            self._on_change()
        return True


class KeyRing:
    """All keys that are valid now.

    Args:
        static: keys from files and secrets.
        cooldown: seconds between two fetches for unknown ids.
        monotonic: seconds on a clock that never goes back.
        board: where processes tell each other what they fetched.
        issuer: whose tokens the keys are for.
    """

    def __init__(
        self,
        static: KeySet,
        *,
        cooldown: float = 10.0,
        monotonic: Callable[[], float] = time.monotonic,
        board: Noticeboard | None = None,
        issuer: str = "",
    ) -> None:
        self._static: Final = static
        self._board: Final = board
        self._issuer: Final = issuer
        self._cooldown: Final = cooldown
        self._monotonic: Final = monotonic
        self._tasks: list[asyncio.Task[None]] = []
        self._session: aiohttp.ClientSession | None = None
        self._fetching: asyncio.Future[bool] | None = None
        self._asked_at: float | None = None
        self.sources: list[UrlSource] = []
        self.current = static
        self.unknown = 0

    def add(self, url: str, *, interval: float, allow_symmetric: bool = False) -> None:
        """Add a URL to fetch keys from; before `start`."""
        self.sources.append(
            UrlSource(
                url,
                interval=interval,
                allow_symmetric=allow_symmetric,
                on_change=self._combine,
                board=self._board,
                issuer=self._issuer,
            )
        )

    @property
    def fault(self) -> str | None:
        """What keeps tokens from being judged: no key at all."""
        if self.current.keys:
            return None
        return "; ".join(source.fault for source in self.sources if source.fault) or "no keys"

    async def start(self) -> None:
        """Fetch every source once, then keep refreshing behind. A source that is down is retried, not fatal."""
        if not self.sources:
            return
        secure = any(source.url.lower().startswith("https:") for source in self.sources)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=_trust() if secure else True),
            timeout=_TIMEOUT,
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept": "application/json"},
        )
        await self._fetch_all(max_age=math.inf)
        self._tasks = [asyncio.create_task(self._keep_fresh(source)) for source in self.sources]

    def succeed(self, other: KeyRing) -> None:
        """Begin with the keys that another ring has fetched from the same sources; before `start`."""
        before = {(source.url, source.allow_symmetric): source for source in other.sources}
        for source in self.sources:
            old = before.get((source.url, source.allow_symmetric))
            if old is not None:
                source.keys, source.fetched_at, source.fault = old.keys, old.fetched_at, old.fault
                source.fetches.update(old.fetches)
        self.unknown = other.unknown
        self._combine()

    def static_differs(self, other: KeyRing) -> bool:
        """Whether the keys from files and secrets are not the same."""
        return _differs(self._static, other._static)

    async def retire(self) -> None:
        """Stop refreshing, but let a fetch end that requests wait for."""
        if self._fetching is not None:
            await asyncio.wait([self._fetching])
        await self.stop()

    async def stop(self) -> None:
        """Stop refreshing."""
        under_way: list[asyncio.Future[Any]] = [*self._tasks]
        if self._fetching is not None:
            under_way.append(self._fetching)
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def fetch_for(self, kid: str | None) -> None:
        """Fetch once for an unknown id; concurrent calls join, later ones wait out the cool-down with what is known.

        Args:
            kid: the id; it does not matter which, or inventing ids would make fetches.

        Raises:
            KeysUnavailableError: the last fetch failed, so the id cannot be judged.
        """
        del kid
        self.unknown += 1
        if not self.sources:
            return
        now = self._monotonic()
        if self._fetching is None and (self._asked_at is None or now - self._asked_at >= self._cooldown):
            self._asked_at = now
            # What another process fetched within the cool-down is what this one would have to be content with as well.
            self._fetching = asyncio.ensure_future(self._fetch_all(max_age=self._cooldown))
            self._fetching.add_done_callback(self._fetched)
        if self._fetching is not None:
            await asyncio.shield(self._fetching)
        faults = [source.fault for source in self.sources if source.fault is not None]
        if faults:
            raise KeysUnavailableError("; ".join(faults))

    def _fetched(self, _: object) -> None:
        self._fetching = None

    async def _fetch_all(self, *, max_age: float) -> bool:
        session = self._session
        if session is None:
            return False
        return all(await asyncio.gather(*(source.renew(session, max_age=max_age) for source in self.sources)))

    async def _keep_fresh(self, source: UrlSource) -> None:
        while self._session is not None:
            # Spread out, so that many gateways do not ask in step.
            spread = 1.0 + _JITTER * (2.0 * random.random() - 1.0)  # noqa: S311 - nothing secret
            pause = spread * pause_before_fetch(source.interval, source.failures)
            await asyncio.sleep(max(0.0, pause - source.lead) if source.failures == 0 else pause)
            await source.renew(self._session, max_age=math.inf)

    def _combine(self) -> None:
        """One set from all sources. An id that two sources give to different keys belongs to none of them."""
        keys: list[Key] = []
        twice: set[str] = set()
        for key in (*self._static.keys, *(key for source in self.sources for key in source.keys.keys)):
            if any(_same(key, other) for other in keys):
                continue
            if key.kid is not None and any(key.kid == other.kid and key.material != other.material for other in keys):
                twice.add(key.kid)
            keys.append(key)
        refused = [*self._static.refused, *(pair for source in self.sources for pair in source.keys.refused)]
        refused += [(kid, "given by two sources") for kid in sorted(twice)]
        self.current = KeySet(tuple(key for key in keys if key.kid not in twice), tuple(refused))


def pause_before_fetch(interval: float, failures: int) -> float:
    """Seconds until the next fetch behind: soon after a failure, then doubling, at most a minute.

    Args:
        interval: seconds between two fetches that go well.
        failures: how many failed in a row.
    """
    if failures == 0:
        return interval
    return min(_FIRST_RETRY * 2.0 ** min(failures - 1, 10), _LONGEST_RETRY)


def _trust() -> ssl.SSLContext:
    """Whom the system trusts; aiohttp's own context trusts nobody here (`gateway/lean.py`)."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


async def _document(session: aiohttp.ClientSession, url: str) -> bytes:
    document = b""
    async with session.get(url, allow_redirects=False) as response:
        if response.status != 200:
            raise KeyLoadError(f"answered {response.status}")
        async for chunk in response.content.iter_any():
            document += chunk
            if len(document) > _LIMIT:
                raise KeyLoadError("answered more than 1 MiB")
    return document


def _insist_on_keys(keys: KeySet) -> None:
    """An empty set is an accident, not a wish: taking it would lock everybody out."""
    if not keys.keys:
        raise KeyLoadError("; ".join(("no usable key", *(f"{kid}: {why}" for kid, why in keys.refused))))


def _differs(one: KeySet, other: KeySet) -> bool:
    if one.refused != other.refused or len(one.keys) != len(other.keys):
        return True
    return not all(map(_same, one.keys, other.keys))


def _same(one: Key, other: Key) -> bool:
    return (one.kid, one.algorithms, one.material) == (other.kid, other.algorithms, other.material)
