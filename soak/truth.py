"""What was right, for whom, from when to when: the controller's own answers, asked for after every change.

An answer got through the gateway is right if the controller would have given it to that principal at some time from the
allowed staleness before the request until the answer had come. Knows nothing of how either is asked.
"""

from __future__ import annotations

from dataclasses import dataclass, field

Pair = tuple[str, str]
"""(who, target)."""
Told = tuple[int, bytes]
"""(status, content)."""


@dataclass
class Version:
    """An answer of the controller.

    Attributes:
        told: the answer.
        since: before the change that made it so began.
        until: after the change that made it another was seen; None while it holds.
        number: of the change.
        past: whether the change that ended it went past the gateway, which then cannot know that it is over: not even a
            later write through it need drop a page that does not show what was written.
    """

    told: Told
    since: float
    number: int
    until: float | None = None
    past: bool = False


@dataclass(frozen=True)
class Got:
    """An answer through the gateway.

    Attributes:
        pair: who asked for what.
        told: the answer, its links as the controller prints them.
        asked: when.
        came: when it was complete.
        allowed: seconds it may be out of date.
        floor: the number of the last change through the gateway whose outcome must show.
        note: what the gateway said of it, for the report.
    """

    pair: Pair
    told: Told
    asked: float
    came: float
    allowed: float
    floor: int
    note: str


@dataclass
class Truth:
    """Every answer that was ever right, and how the answers through the gateway compare."""

    versions: dict[Pair, list[Version]] = field(default_factory=dict)
    floors: dict[Pair, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    judged: int = 0
    oldest: float = 0.0
    _waiting: list[Got] = field(default_factory=list)

    def changed(self, number: int, answers: dict[Pair, Told], *, began: float, seen: float, through: bool) -> None:
        """Note what is right after a change.

        Args:
            number: of the change.
            answers: of the controller itself.
            began: before the change was asked for.
            seen: after all answers had come.
            through: whether the change went through the gateway, and was complete when it was answered.
        """
        for pair, told in answers.items():
            versions = self.versions.setdefault(pair, [])
            if versions and versions[-1].told == told:
                continue
            if versions:
                versions[-1].until, versions[-1].past = seen, not through
            versions.append(Version(told, began, number))
            if through:
                self.floors[pair] = number

    def got(self, answer: Got) -> None:
        """Keep an answer until `judge`."""
        self._waiting.append(answer)

    def judge(self) -> None:
        """Judge all answers that came; to be called while nothing is being changed."""
        for answer in self._waiting:
            self._judge(answer)
        self._waiting.clear()

    def _judge(self, got: Got) -> None:
        self.judged += 1
        fitting = [
            version
            for version in self.versions[got.pair]
            if version.told == got.told
            and version.since <= got.came
            and (version.until is None or version.until >= got.asked - got.allowed)
            and (version.past or version.number >= self._least(got))
        ]
        if not fitting:
            who, target = got.pair
            known = [version.number for version in self.versions[got.pair] if version.told == got.told]
            self.wrong.append(f"{who!r} {target}: {got.told[0]} {got.note}; as after change {known}, floor {got.floor}")
            return
        until = fitting[-1].until
        if until is not None:
            self.oldest = max(self.oldest, got.asked - until)

    def _least(self, got: Got) -> int:
        """The number of the version that the floor names: the outcome of a write holds until the next change."""
        return max((each.number for each in self.versions[got.pair] if each.number <= got.floor), default=0)
