"""Whether a process may serve what it stored at this moment: a matter of when it last heard what.

It may while two things hold. **The pulse**: what brings it invalidations has answered a question that was asked less
than `pulse` ago; so it knows of everything that was announced before. **The lease**: of every process that it knows,
itself included, the store heard less than `lease` ago; so nobody is writing unheard. Each ends by itself, without any
message, at an instant that the others can compute: this is what a writer waits for who cannot be answered.

No I/O and no tasks; the clock is given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Lease:
    """The right to serve.

    Args:
        process: the name of this process.
        lease: seconds.
        grace: for how long a silent process counts, in seconds.
        pulse: seconds.
        monotonic: seconds of a clock that never goes back.

    Attributes:
        lost: how often a lease that was held ended.
    """

    __slots__ = (
        "_alive",
        "_grace",
        "_held",
        "_monotonic",
        "_process",
        "_pulsed",
        "_right",
        "_until",
        "lasts",
        "lost",
        "pulse",
    )

    def __init__(
        self, process: str, *, lease: float, grace: float, pulse: float, monotonic: Callable[[], float]
    ) -> None:
        self._process: Final = process
        self._grace: Final = grace
        self._monotonic: Final = monotonic
        self.lasts: Final = lease
        self.pulse: Final = pulse
        self._alive: Final[dict[str, float]] = {}
        self._pulsed = self._until = self._right = 0.0
        self._held = False
        self.lost = 0

    def serves(self) -> bool:
        """Whether it may. Cheap: asked for every hit."""
        return self._monotonic() < self._right

    def heard(self) -> bool:
        """Whether the lease holds, whatever of the pulse."""
        return self._monotonic() < self._until

    @property
    def processes(self) -> int:
        """How many there are, this one included, as far as is known."""
        return max(1, len(self._alive))

    @property
    def serving(self) -> int:
        """How many others may be serving by what the store heard of them."""
        now = self._monotonic()
        return sum(now - seen < self.lasts for name, seen in self._alive.items() if name != self._process)

    def answered(self, asked: float) -> bool:
        """Note an answer to a pulse.

        Args:
            asked: when that was sent.

        Returns:
            Whether stored pages may be served now.
        """
        self._pulsed = max(self._pulsed, asked + self.pulse)
        return self._judge()

    def met(self, asked: float, ages: Mapping[str, float]) -> bool:
        """Note the answer to a heartbeat.

        Args:
            asked: when that was sent.
            ages: how long ago the store heard of each process, in seconds.

        Returns:
            Whether stored pages may be served now.
        """
        alive, now = self._alive, self._monotonic()
        for process, age in ages.items():
            # Not later than the store heard of it: it is asked behind the question.
            alive[process] = max(asked - age, alive.get(process, asked - age))
        for process, seen in list(alive.items()):
            if now - seen >= self._grace:
                del alive[process]
        if self._process in alive:
            self._until = min(alive.values()) + self.lasts
        if self.heard():
            self._held = True
        else:
            self.lose()
        return self._judge()

    def forget(self, process: str) -> None:
        """A process has said farewell."""
        self._alive.pop(process, None)

    def suspect(self) -> None:
        """Of whom nothing was heard because this process was deaf itself: it may be there still, and deaf."""
        silent = self._monotonic() - self.lasts
        self._alive.update(dict.fromkeys(self._alive, silent))

    def lose(self) -> None:
        """Nothing that is stored may be served until more was heard."""
        self._until = self._right = 0.0
        if self._held:
            self._held = False
            self.lost += 1

    def break_off(self) -> None:
        """The connection that pulses go over is gone."""
        self._pulsed = 0.0
        self.lose()

    def _judge(self) -> bool:
        self._right = min(self._until, self._pulsed)
        return self.serves()
