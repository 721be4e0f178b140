"""Counting in the shared store: the script that does it, and what a process knows of the store it ran on.

Buckets lie in shards, each on one node of a cluster. A shard has an **epoch**: begun anew by the script when it finds
none, or one of another run of a server. So a restart (with or without the data), FLUSHALL and a failover all begin one,
and whoever hears of a new epoch tells the store every level it knows. Of each bucket the store keeps the highest level
it is told: taking the highest twice, late or out of order changes nothing.

**Levels are told in the server's own time**, as it said them, so no process's clock has a part in them. `Shard` notes
how far the server's clock is ahead of a clock that never goes back, and the script takes levels only from who expects
about the time that it is; who does not (another server, whose clock differs) learns it from the answer and tells its
levels again, moved by the difference.

What a process tells can only make a limit stricter, and no level counts beyond `most`.
"""

from __future__ import annotations

import secrets
from typing import Final

from gateway.shared.link import Script

SHARDS: Final = 8
# Seconds after an epoch began in which not all processes may have told what they know. More than it takes to notice.
SETTLE: Final = 2.0
# How far what a process expects the server's clock to say may be from what it says, in seconds.
TOLERANCE: Final = 0.1

COUNT: Final = Script(f"""#!lua flags=allow-oom
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
local by, epoch, born = string.match(redis.call('GET', KEYS[1]) or '', '^(%w+) (%w+) (%S+)$')
born = tonumber(born or '')
if by ~= run or not born or not (born <= now + 1) then
  epoch, born = ARGV[3], now
  redis.call('SET', KEYS[1], string.format('%s %s %.6f', run, epoch, now))
end
local same = math.abs(now - tonumber(ARGV[2])) <= {TOLERANCE}
local answers = {{ARGV[1], epoch, string.format('%.7f', now), string.format('%.3f', now - born), same and 1 or 0}}
for place = 2, #KEYS do
  local key, at = KEYS[place], 7 * place - 11
  local units, first, second = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  local since, told, most = tonumber(ARGV[at + 5]), tonumber(ARGV[at + 6]), tonumber(ARGV[at + 7])
  local state = redis.call('GET', key) or ''
  if ARGV[at + 1] == 'g' then
    local full_at = tonumber(state)
    if not full_at or not (full_at >= now) then full_at = now end
    local before = full_at
    if same and since > full_at then full_at = since end
    if full_at > now + most then full_at = now + most end
    full_at = full_at + units * first
    if full_at ~= before then
      redis.call('SET', key, string.format('%.7f', full_at), 'PX', math.ceil((full_at - now) * 1000) + 1)
    end
    answers[#answers + 1] = string.format('%.7f', full_at)
    answers[#answers + 1] = '0'
  else
    local start = math.floor((now - second) / first) * first + second
    local began, counted = string.match(state, '^(%S+) (%S+)$')
    began, counted = tonumber(began or ''), tonumber(counted or '')
    if not began or not (math.abs(began - start) < first / 2) or not (counted and counted >= 0) then counted = 0 end
    local before = counted
    if same and math.abs(since - start) < first / 2 and told > counted then counted = told end
    if counted > most then counted = most end
    counted = counted + units
    if counted ~= before then
      local lasts = math.ceil((start + first - now) * 1000) + 1
      redis.call('SET', key, string.format('%.6f %.9f', start, counted), 'PX', lasts)
    end
    answers[#answers + 1] = string.format('%.7f', start)
    answers[#answers + 1] = string.format('%.9f', counted)
  end
end
return answers
""")
# What comes before the buckets in an answer, and how much for each.
HEAD: Final = 5
EACH: Final = 2


class Shard:
    """What one process knows of one shard.

    Attributes:
        epoch: in which its levels are; "" before the first answer.
        offset: what the server's clock is ahead of the steady one, in seconds; None before the first answer.
        heard: when the last answered report was sent, on the steady clock.
    """

    __slots__ = ("epoch", "heard", "offset")

    def __init__(self) -> None:
        self.epoch = ""
        self.offset: float | None = None
        self.heard = float("-inf")

    def expects(self, steady: float) -> float:
        """What the server's clock should say now; 0 when nothing is known."""
        return 0.0 if self.offset is None else steady + self.offset

    def learn(self, epoch: str, server: float, sent: float, came: float, *, same: bool) -> bool:
        """Take over what an answer says of its shard.

        Args:
            epoch: in which it is.
            server: what the server's clock said.
            sent: when it was asked, on the steady clock.
            came: when the answer came.
            same: whether the server's clock said what was expected.

        Returns:
            Whether this is a new epoch, in which the store may know less than this process.
        """
        if self.offset is None:
            self.offset = server - (sent + came) / 2
        elif not same:  # else it stays as it is, to the bit: levels go to and fro with it
            self.offset = min(max(self.offset, server - came), server - sent)
        self.heard = max(self.heard, sent)
        begun, self.epoch = epoch != self.epoch, epoch
        return begun


def fresh_epoch() -> str:
    """A name for an epoch, should one begin."""
    return secrets.token_hex(8)
