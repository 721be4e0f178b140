"""The clock that processes share: a count of invalidations in the shared store, and who has been told.

One hash holds the epoch, the generation and, for each tag, the generation that dropped it last; scripts change it in
one step. **It is all or nothing**: a server that was restarted, has taken over from another or has evicted the hash
begins a new epoch, for it may have forgotten invalidations; with the old epoch everything stored under it is void. The
same when the hash has grown too large. So no snapshot, no failover and no eviction can bring back a page.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gateway.core.invalidation import EVERYTHING
from gateway.pipeline.ports import Stamp
from gateway.shared.link import Script

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.shared.link import Link

# So many tags are remembered before a new epoch begins.
TAGS_REMEMBERED: Final = 50_000

_PRELUDE: Final = f"""#!lua flags=allow-oom
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
local state = redis.call('HMGET', KEYS[1], 'run', 'epoch', 'generation')
if state[1] ~= run or not state[2] or not state[3] or redis.call('HLEN', KEYS[1]) > {TAGS_REMEMBERED} then
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'run', run, 'epoch', ARGV[1], 'generation', 0)
  state = {{run, ARGV[1], '0'}}
end
"""
_READ: Final = Script(
    _PRELUDE
    + """
local fields = {}
for place = 2, #ARGV do fields[place - 1] = 't:' .. ARGV[place] end
local found = redis.call('HMGET', KEYS[1], unpack(fields))
local latest = 0
for _, value in ipairs(found) do
  if value and tonumber(value) > latest then latest = tonumber(value) end
end
return {state[2], tonumber(state[3]), latest}
"""
)
_ANNOUNCE: Final = Script(
    _PRELUDE
    + """
local generation = redis.call('HINCRBY', KEYS[1], 'generation', 1)
for place = 3, #ARGV do redis.call('HSET', KEYS[1], 't:' .. ARGV[place], generation) end
local told = redis.call('SPUBLISH', KEYS[2], state[2] .. ' ' .. generation .. ' ' .. ARGV[2])
return {state[2], generation, told}
"""
)
_BEAT: Final = Script(
    _PRELUDE
    + """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - tonumber(ARGV[4]))
if now <= tonumber(ARGV[5]) then redis.call('ZADD', KEYS[2], now, ARGV[2]) end
local members = redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES')
local parts = {state[2], state[3], ARGV[3], string.format('%d', now)}
for place = 1, #members, 2 do
  parts[#parts + 1] = members[place]
  parts[#parts + 1] = string.format('%d', now - tonumber(members[place + 1]))
end
redis.call('SPUBLISH', KEYS[3], table.concat(parts, ' '))
return 1
"""
)


class Beat(NamedTuple):
    """The answer to a heartbeat.

    Attributes:
        epoch: of the clock.
        generation: of the clock.
        nonce: of the heartbeat.
        at: the server's time, in milliseconds.
        ages: how long ago each process was heard, in seconds.
    """

    epoch: str
    generation: int
    nonce: str
    at: int
    ages: dict[str, float]

    @classmethod
    def read(cls, content: bytes) -> Beat:
        """From what the script wrote.

        Raises:
            ValueError: it did not write this.
        """
        epoch, generation, nonce, at, *members = content.decode("ascii", "replace").split(" ")
        pairs = zip(members[::2], members[1::2], strict=True)
        ages = {process: max(0, int(age)) / 1000 for process, age in pairs}
        return cls(epoch, int(generation), nonce, int(at), ages)


class SharedClock:
    """The scripts, by what they are for.

    Args:
        link: the way to the store.
        namespace: this gateway's part of it.
        process: the name of this process among the others: no spaces.
        slack: seconds by which a heartbeat may come later than its patience allows.

    Attributes:
        late_by: seconds after which no heartbeat counts any more, however late the store gets to it.
    """

    def __init__(self, link: Link, namespace: str, process: str, *, slack: float) -> None:
        self._link: Final = link
        self._server_at: tuple[int, float] | None = None
        self.late_by: Final = link.options.max_added_latency + slack
        self.process: Final = process
        self.key: Final = f"{{{namespace}}}:sync"
        self._members: Final = f"{{{namespace}}}:members"
        self.channel: Final = f"{{{namespace}}}:invalidations"

    def channel_of(self, process: str) -> str:
        """Where one process is told what concerns it alone."""
        return f"{self.channel}:{process}"

    async def read(self, tags: Sequence[str]) -> tuple[Stamp, int]:
        """Now, and when one of the tags was last invalidated, both in the epoch of the stamp.

        Raises:
            SharedStoreError: not known.
        """
        answer = await self._link.run(_READ, [self.key], _new_epoch(), EVERYTHING, *tags)
        epoch, generation, latest = answer
        return Stamp(epoch.decode(), int(generation)), int(latest)

    async def announce(self, message: bytes, tags: Sequence[str], *, patience: float | None = None) -> int:
        """Invalidate tags for everybody.

        Args:
            message: what processes are told beside the generation.
            tags: what is void from now on.
            patience: seconds, where a request may wait for longer than for other answers.

        Returns:
            How many processes are being told.

        Raises:
            SharedStoreError: perhaps nobody.
        """
        keys = [self.key, self.channel]
        answer: list[Any] = await self._link.run(_ANNOUNCE, keys, _new_epoch(), message, *tags, patience=patience)
        return int(answer[2])

    async def beat(self, nonce: str, *, forget_after: float, now: float) -> None:
        """Say that this process is there; the answer comes on its channel, behind all that was announced before.

        A server that stood still may get to it long after this process has given it up; then it does not count.

        Args:
            nonce: comes back; no spaces.
            forget_after: seconds after which a silent process is none any more.
            now: on the clock that `told` is given.

        Raises:
            SharedStoreError: not said.
        """
        keys = [self.key, self._members, self.channel_of(self.process)]
        await self._link.run(
            _BEAT, keys, _new_epoch(), self.process, nonce, int(forget_after * 1000), self._not_after(now)
        )

    def told(self, at: int, now: float) -> None:
        """Note the server's time, in milliseconds, that an answer says which has come now."""
        self._server_at = (at, now)

    def _not_after(self, now: float) -> int:
        """The server's time after which a heartbeat of now is late, in milliseconds; rather too early."""
        if self._server_at is None:
            return 1 << 53
        at, then = self._server_at
        return at + int(1000 * (now - then + self.late_by))

    async def send(self, channel: str, message: bytes) -> None:
        """Tell whoever listens on a channel.

        Raises:
            SharedStoreError: not told.
        """
        await self._link.call("SPUBLISH", channel, message)

    async def leave(self) -> None:
        """This process is none of them any more.

        Raises:
            SharedStoreError: not said.
        """
        await self._link.call("ZREM", self._members, self.process)


def _new_epoch() -> str:
    return secrets.token_hex(8)
