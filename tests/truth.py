"""The judge: was this answer one that the gateway had a right to give? The rule of docs/caching.md, exactly.

The controller makes one change after another, and after each it is asked itself, for everybody: that is the truth. Of a
change it is known whether it went **through** the gateway, and when its answer, or the news that its job is over, was
delivered; or that it went past it. An answer got through the gateway must then be

1. **whole**: what the controller itself told this principal after some one change that had begun when it came,
2. **recent**: made untrue by no change longer before the question than is allowed (ttl, stale windows),
3. **after every write**: no **fact** it shows is from before the last change of that fact that went through the gateway
   and was delivered before the question.

A list shows as facts which rows it has (with their order and the numbers about pages), which is its own, and each row,
which is everybody's: nobody's page may show a row as it was before a write to it. That a page is from before a change
made past the gateway is no fault, also when a write to something it does not show came later. Hence facts: of a page
as a whole the third part would say too much. Nothing here knows how the gateway decides what to drop.
"""

from __future__ import annotations

import json
import sys
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

Pair = tuple[str, str]
"""(who, target)."""
Told = tuple[int, bytes]
"""(status, content), links as the controller prints them."""


@dataclass
class Version:
    """An answer of the controller.

    Attributes:
        told: the answer.
        since: before the change that made it so began.
        until: when the change that made it another was complete; None while it holds.
    """

    told: Told
    since: float
    until: float | None = None


@dataclass(frozen=True)
class Got:
    """An answer through the gateway.

    Attributes:
        pair: who asked for what.
        told: the answer.
        asked: when.
        came: when it was complete.
        allowed: seconds it may be out of date.
        delivered: the number of the last change through the gateway that had been answered before it was asked.
        note: what the gateway said of it, for the report.
    """

    pair: Pair
    told: Told
    asked: float
    came: float
    allowed: float
    delivered: int
    note: str = ""


@dataclass
class Shown:
    """What an answer shows: its own fact, and rows by their own address."""

    own: Any
    rows: dict[str, str] = field(default_factory=dict)


def shown(told: Told) -> Shown:
    """Take an answer apart."""
    status, body = told
    try:
        page = json.loads(body)
    except ValueError:
        return Shown(told)
    if status != 200 or not isinstance(page, dict) or "resources" not in page:
        return Shown(told)
    rows = {}
    for row in (*page["resources"], *(row for kind in page.get("included", {}).values() for row in kind)):
        rows[row["links"]["self"]["href"]] = json.dumps(row, sort_keys=True)
    return Shown((status, json.dumps(page["pagination"]), tuple(rows)), rows)


@dataclass
class Fact:
    """Something that answers show, and what became of it: (number of the change, value), oldest first."""

    values: list[tuple[int, Any]] = field(default_factory=list)

    def note(self, number: int, value: Any) -> None:
        if not self.values or self.values[-1][1] != value:
            self.values.append((number, value))

    def floor(self, delivered: int, told: dict[int, int]) -> int:
        """The last change of it that was told through the gateway with change `delivered` or before; 0 for none."""
        return max((number for number, _ in self.values if told.get(number, delivered + 1) <= delivered), default=0)

    def holds(self, value: Any, floor: int, last: int) -> bool:
        """Whether it was so after the change `floor` or a later one, up to the change `last`."""
        return any(floor <= number <= last and value == each for number, each in self.values)


@dataclass
class Truth:
    """Everything that was ever true, and how the answers through the gateway compare.

    Attributes:
        delivered: the number of the last change through the gateway whose answer, or whose job's end, was delivered.
        wrong: a line for each answer that the gateway had no right to give.
        judged: how many answers were.
        oldest: the most that one was out of date, in seconds.
        versions: what the controller told whom, oldest first.
    """

    delivered: int = 0
    wrong: list[str] = field(default_factory=list)
    judged: int = 0
    oldest: float = 0.0
    versions: dict[Pair, list[Version]] = field(default_factory=dict)
    _own: dict[Pair, Fact] = field(default_factory=dict)
    _rows: dict[str, Fact] = field(default_factory=dict)
    _began: list[tuple[float, int]] = field(default_factory=list)
    _told: dict[int, int] = field(default_factory=dict)
    _waiting: list[Got] = field(default_factory=list)
    _apart: dict[Told, Shown] = field(default_factory=dict)

    def changed(
        self, number: int, answers: dict[Pair, Told], whole: list[bytes], *, began: float, done: float, through: bool
    ) -> None:
        """Note what is true after a change.

        Args:
            number: of the change, counted from 1.
            answers: of the controller itself, to everybody.
            whole: of the controller itself, to one who sees everything: every list in one page.
            began: before the change was asked for.
            done: after it was complete at the controller.
            through: whether the change went through the gateway, and was complete when it was answered.

        Raises:
            AssertionError: a row is not the same for everybody, or is missing where everything is seen.
        """
        if not self._began or self._began[-1][1] != number:
            self._began.append((began, number))
        if through:
            self._told[number] = number
        rows = {address: row for body in whole for address, row in shown((200, body)).rows.items()}
        for address in {*rows, *self._rows}:
            self._rows.setdefault(address, Fact()).note(number, rows.get(address))
        for pair, told in answers.items():
            apart = self._taken_apart(told)
            assert apart.rows.items() <= rows.items(), f"{pair} shows other rows than there are"
            self._own.setdefault(pair, Fact()).note(number, apart.own)
            versions = self.versions.setdefault(pair, [])
            if versions and versions[-1].told == told:
                continue
            if versions:
                versions[-1].until = done
            versions.append(Version(told, began))

    def told(self, changes: Iterable[int], number: int) -> None:
        """Note that changes made past the gateway, ends of jobs, were told through it with the change `number`."""
        self._told.update(dict.fromkeys(changes, number))

    def got(self, answer: Got) -> None:
        """Keep an answer until `judge`."""
        self._waiting.append(answer)

    def judge(self) -> None:
        """Judge all answers that came; to be called when the truth after the last change that began is known."""
        for answer in self._waiting:
            self.judged += 1
            for fault in self.faults(answer):
                who, target = answer.pair
                self.wrong.append(f"{who!r} {target}: {answer.told[0]} {answer.note}: {fault}")
        self._waiting.clear()

    def faults(self, got: Got) -> Iterator[str]:
        """What is wrong with an answer."""
        fitting = [one for one in self.versions[got.pair] if one.told == got.told and one.since <= got.came]
        if not fitting:
            yield "nothing the controller told this principal"
            return
        age = min(0.0 if one.until is None else max(0.0, got.asked - one.until) for one in fitting)
        self.oldest = max(self.oldest, age)
        if age > got.allowed:
            yield f"out of date for {age:.3f} s where {got.allowed:.3f} are allowed"
        apart = self._taken_apart(got.told)
        last = self._began[bisect_right(self._began, (got.came, sys.maxsize)) - 1][1]
        floor = self._own[got.pair].floor(got.delivered, self._told)
        if not self._own[got.pair].holds(apart.own, floor, last):
            yield f"the rows it has are from before write {floor}"
        for address, row in apart.rows.items():
            floor = self._rows[address].floor(got.delivered, self._told)
            if not self._rows[address].holds(row, floor, last):
                yield f"{address} is from before write {floor}"

    def _taken_apart(self, told: Told) -> Shown:
        if told not in self._apart:
            self._apart[told] = shown(told)
        return self._apart[told]
