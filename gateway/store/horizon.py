"""Until when other processes may serve what this one has made void and could not tell them: the far side of `lease.py`.

No I/O and no tasks; instants are those of the clock that the lease has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.store.lease import Lease

_NEVER: Final = float("-inf")


class Horizon:
    """What a writer waits for.

    Args:
        lease: this process's own.
        late_by: seconds after which the store counts no heartbeat any more that was sent.
        monotonic: seconds of a clock that never goes back.

    Attributes:
        last_beat: when this process sent its last heartbeat.
        left_at: when it lost or left the connection that it listened on.
        gone_at: when the store was found to be gone, for all; None where it is not known to be.
        owed_at: when it first could not announce something that it has not announced since.
        resent_at: when it had announced all that could not be announced before.
    """

    __slots__ = ("_late_by", "_lease", "_monotonic", "gone_at", "last_beat", "left_at", "owed_at", "resent_at")

    def __init__(self, lease: Lease, *, late_by: float, monotonic: Callable[[], float]) -> None:
        self._lease: Final = lease
        self._late_by: Final = late_by
        self._monotonic: Final = monotonic
        self.last_beat = self.left_at = self.owed_at = self.resent_at = _NEVER
        self.gone_at: float | None = None

    def all_here(self) -> bool:
        """Whether nobody may be listening at a server that this process has left: all were heard at the present one."""
        return self._lease.heard() or self._monotonic() >= self._moved_until()

    def told(self, at: float) -> float:
        """Until when somebody may serve what was announced, although it did not answer.

        Who has not heard of it has had no answer to a pulse since before it was announced.

        Args:
            at: when the store said that it has announced it.
        """
        until = at + self._lease.pulse
        return until if self.all_here() else max(until, self._moved_until())

    def untold(self, *, away: bool, owing: bool) -> float:
        """Until when somebody may serve what could not be announced.

        Args:
            away: whether this process does not reach the store.
            owing: whether it still is not announced.
        """
        if not owing:
            return self.resent_at + self._lease.pulse
        if away and self.gone_at is not None:
            return self.gone_at + self._lease.pulse  # nobody has had an answer since
        # Nobody misses whom nobody has heard yet: it waits as long, until it may have been able to tell.
        missed = self.owed_at if self.last_beat == _NEVER else self.last_beat
        return missed + self._late_by + self._lease.lasts

    def _moved_until(self) -> float:
        """Until when others may go on by this process's last heartbeat at the server that it has left."""
        return self.left_at + self._late_by + self._lease.lasts
