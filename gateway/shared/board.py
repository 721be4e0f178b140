"""What one process has learnt elsewhere, for the others: a few small notices in the shared store, one for each subject.

A notice is believed only with the operator's seal, over its kind, its subject and the moment at which it was learnt;
and only for as long as its reader allows, counted from that moment and never from when it was read. So a notice that is
replayed is at most as old as what the reader might have learnt by itself, and who has the store but not the key can
take notices away, no more. Knows nothing of what they say.

One process learns at a time while the others wait for its notice. That only spares whoever is asked: a turn runs out,
and where the store cannot tell, everybody has it.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from gateway.shared.link import Script
from gateway.shared.options import SharedStoreError
from gateway.shared.seal import OVERHEAD

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from gateway.shared.link import Link
    from gateway.shared.seal import Sealer

VERSION: Final = 1
# The clocks of machines may differ by so much; each notice is taken to be older by it, in seconds.
CLOCK_SKEW: Final = 5.0
# No notice is longer, in bytes.
LONGEST: Final = 1 << 20
_FRAME: Final = 64
# For how long one process may be learning before another may, in seconds.
_TURN: Final = 10.0
_FIRST_PAUSE: Final = 0.01
_LONGEST_PAUSE: Final = 0.1
_RESULTS: Final = ("hit", "waited", "miss", "failed", "seal", "form", "clock", "old", "stored", "not-stored")

_GIVE_UP: Final = Script("""#!lua flags=allow-oom
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
""")


class _Record(msgspec.Struct, frozen=True, array_like=True, gc=False, forbid_unknown_fields=True):
    version: int
    learnt_at: float
    content: bytes


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(_Record)


@dataclass(frozen=True, slots=True)
class Notice:
    """What another process learnt.

    Attributes:
        content: what.
        learnt_at: when it began to learn it, in epoch seconds of its clock.
        age: how old that is at most, in seconds.
    """

    content: bytes
    learnt_at: float
    age: float


class Board:
    """Notices in the shared store.

    Args:
        link: the way to it.
        sealer: the operator's key at work.
        namespace: this gateway's part of it.
        kinds: of which there are notices.
        wait: how long to wait for another process that is learning, in seconds.
        clock: epoch seconds.

    Attributes:
        counts: by kind and result.
    """

    def __init__(
        self,
        link: Link,
        sealer: Sealer,
        namespace: str,
        *,
        kinds: Iterable[str],
        wait: float = 2.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._link: Final = link
        self._sealer: Final = sealer
        self._namespace: Final = namespace
        self._wait: Final = wait
        self._clock: Final = clock
        self._turns: Final[dict[str, str]] = {}
        self._behind: Final[set[asyncio.Task[None]]] = set()
        self.counts: Final[dict[tuple[str, ...], int]] = {(kind, result): 0 for kind in kinds for result in _RESULTS}

    async def find(self, kind: str, subject: bytes, *, after: float, max_age: float) -> Notice | None:
        """What another process has learnt; never raises, and takes no longer than `wait` beside the store's own limit.

        Args:
            kind: one of those there are.
            subject: about what.
            after: only what was learnt later is of use, in epoch seconds.
            max_age: only what is no older, in seconds; clocks that may differ are allowed for.

        Returns:
            It, or None when the caller is to learn it itself and then call `offer` or `release`.
        """
        name = self._name(kind, subject)
        until = time.monotonic() + self._wait
        pause, first = _FIRST_PAUSE, True
        while True:
            try:
                sealed = await self._link.call("GET", name)
            except SharedStoreError:
                self.counts[kind, "failed"] += 1
                return None
            found, why = self._read(kind, subject, sealed, after, max_age)
            if first:
                self.counts[kind, why] += 1
            elif found is not None:
                self.counts[kind, "waited"] += 1
            if found is not None or await self._turn(name) or time.monotonic() >= until:
                return found
            first = False
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def offer(self, kind: str, subject: bytes, content: bytes, *, learnt_at: float, max_age: float) -> None:
        """Tell the others, behind.

        Args:
            kind: one of those there are.
            subject: about what.
            content: what.
            learnt_at: when learning it began, in epoch seconds.
            max_age: nobody will want it when it is older, in seconds.
        """
        turn = self._turns.pop(self._name(kind, subject), None)
        self._do_behind(self._offer(kind, subject, _Record(VERSION, learnt_at, content), max_age, turn))

    def release(self, kind: str, subject: bytes) -> None:
        """Let another process learn it: this one could not."""
        name = self._name(kind, subject)
        turn = self._turns.pop(name, None)
        if turn is not None:
            self._do_behind(self._give_up(name, turn))

    async def drain(self) -> None:
        """Wait for what is done behind."""
        await asyncio.gather(*self._behind, return_exceptions=True)

    def _read(
        self, kind: str, subject: bytes, sealed: bytes | None, after: float, max_age: float
    ) -> tuple[Notice | None, str]:
        """A notice, and the result to count."""
        if sealed is None:
            return None, "miss"
        if len(sealed) > LONGEST + OVERHEAD + _FRAME:
            return None, "form"
        content = self._sealer.open(_purpose(kind), subject, sealed)
        if content is None:
            return None, "seal"
        try:
            record = _DECODER.decode(content)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None, "form"
        if record.version != VERSION:
            return None, "form"
        past = self._clock() - record.learnt_at
        if not past >= -CLOCK_SKEW:
            return None, "clock"
        age = max(past, 0.0) + CLOCK_SKEW
        if age > max_age:
            return None, "old"
        if record.learnt_at <= after:
            return None, "miss"
        return Notice(record.content, record.learnt_at, age), "hit"

    async def _turn(self, name: str) -> bool:
        """Whether this process is to learn it; it is when nobody can tell."""
        token = secrets.token_hex(8)
        try:
            taken = await self._link.call("SET", f"{name}:turn", token, "NX", "PX", int(1000 * _TURN))
        except SharedStoreError:
            return True
        if taken:
            self._turns[name] = token
        return bool(taken)

    async def _offer(self, kind: str, subject: bytes, record: _Record, max_age: float, turn: str | None) -> None:
        name = self._name(kind, subject)
        lasts = max_age - (self._clock() - record.learnt_at)
        try:
            if len(record.content) > LONGEST or not 0 < lasts <= max_age:
                self.counts[kind, "not-stored"] += 1
                return
            sealed = self._sealer.seal(_purpose(kind), subject, _ENCODER.encode(record))
            await self._link.call(
                *("SET", name, sealed, "PX", max(1, int(1000 * lasts))), patience=self._link.options.connect_timeout
            )
            self.counts[kind, "stored"] += 1
        except SharedStoreError:
            self.counts[kind, "not-stored"] += 1
        finally:
            if turn is not None:
                await self._give_up(name, turn)

    async def _give_up(self, name: str, turn: str) -> None:
        with suppress(SharedStoreError):
            await self._link.run(_GIVE_UP, [f"{name}:turn"], turn)

    def _do_behind(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._behind.add(task)
        task.add_done_callback(self._behind.discard)

    def _name(self, kind: str, subject: bytes) -> str:
        return f"{self._namespace}:notice:{self._sealer.name(_purpose(kind), subject)}"


def _purpose(kind: str) -> bytes:
    return b"notice " + kind.encode()
