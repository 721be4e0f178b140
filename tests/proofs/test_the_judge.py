"""`tests/truth.py` by itself, on worlds of two rows: what it allows, and what it does not.

Change n takes from second n to n + 0.5. Each case names what the page showed, row by row, after each change; whether
each went through the gateway; and what somebody then was answered.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from tests.truth import Got, Told, Truth

PAIR = ("somebody", "/v3/apps")
PAST, THROUGH = False, True


def page(rows: str) -> Told:
    """A list of rows, each as its name and a digit: "a0 b1"."""
    resources = [{"links": {"self": {"href": f"/{row[0]}"}}, "value": row[1]} for row in rows.split()]
    return 200, json.dumps({"pagination": {"total_results": len(resources)}, "resources": resources}).encode()


@dataclass(frozen=True)
class Case:
    """What happened and what was answered.

    Attributes:
        history: what the page showed after each change, and how that was made; the first is from the beginning.
        answer: what was answered.
        asked: when.
        delivered: the last change through the gateway that had been answered by then.
        told: changes that were the end of jobs, and with which change that was told.
    """

    history: tuple[tuple[str, bool], ...]
    answer: str
    asked: float
    delivered: int = 0
    told: tuple[tuple[int, int], ...] = ()

    def faults(self) -> list[str]:
        truth = Truth()
        for number, (rows, through) in enumerate(self.history):
            told = page(rows)
            truth.changed(number, {PAIR: told}, [told[1]], began=number, done=number + 0.5, through=through)
        for change, number in self.told:
            truth.told([change], number)
        truth.got(Got(PAIR, page(self.answer), self.asked, self.asked + 0.01, 5.0, self.delivered))
        truth.judge()
        return truth.wrong


START = ("a0 b0", PAST)
RIGHT = {
    "as it is": Case((START,), "a0 b0", 0.9),
    "made untrue past the gateway, within the ttl": Case((START, ("a1 b0", PAST)), "a0 b0", 6.4),
    # The page shows nothing that the write changed.
    "made untrue past the gateway, before a write that only its successor shows": Case(
        (("a0", PAST), ("a0 b0", PAST), ("a0 b1", THROUGH)), "a0", 2.9, delivered=2
    ),
    "a write whose answer is under way": Case((START, ("a1 b0", THROUGH)), "a0 b0", 1.4),
    "a state that came back, after it came back": Case(
        (START, ("a0", THROUGH), ("a0 b0", PAST)), "a0 b0", 2.9, delivered=1
    ),
    "the end of a job that nobody was told": Case((START, ("a1 b0", PAST), ("a1 b0", THROUGH)), "a0 b0", 2.9, 2),
}
WRONG = {
    "never told": (Case((START,), "a0 b7", 0.9), "nothing the controller told"),
    "out of date for longer than the ttl": (Case((START, ("a1 b0", PAST)), "a0 b0", 6.6), "out of date"),
    "not true yet": (Case((START, ("a1 b0", PAST)), "a1 b0", 0.9), "nothing the controller told"),
    "before a write to a row": (Case((START, ("a1 b0", THROUGH)), "a0 b0", 1.9, 1), "/a is from before write 1"),
    "before a write that took a row away": (Case((START, ("a0", THROUGH)), "a0 b0", 1.9, 1), "the rows it has"),
    # Out of date past the gateway first: no excuse for what a write through it changed later.
    "made untrue past the gateway, before a write to the same row": (
        Case((START, ("a1 b0", PAST), ("a2 b0", THROUGH)), "a0 b0", 2.9, 2),
        "/a is from before write 2",
    ),
    "made untrue past the gateway, before a write to another row that it shows": (
        Case((START, ("a1 b0", PAST), ("a1 b1", THROUGH)), "a0 b0", 2.9, 2),
        "/b is from before write 2",
    ),
    "a write, and then a change past the gateway": (
        Case((START, ("a1 b0", THROUGH), ("a2 b0", PAST)), "a0 b0", 2.9, 1),
        "/a is from before write 1",
    ),
    # Judged only after the next change, which must not excuse what came before it.
    "a state that came back, before it came back": (
        Case((START, ("a0", THROUGH), ("a0 b0", PAST)), "a0 b0", 1.9, 1),
        "the rows it has are from before write 1",
    ),
    "the end of a job, told later": (
        Case((START, ("a1 b0", PAST), ("a1 b0", THROUGH)), "a0 b0", 2.9, 2, told=((1, 2),)),
        "/a is from before write 1",
    ),
}


@pytest.mark.parametrize("case", RIGHT.values(), ids=RIGHT)
def test_the_gateway_had_a_right_to_it(case: Case) -> None:
    assert case.faults() == []


@pytest.mark.parametrize(("case", "fault"), WRONG.values(), ids=WRONG)
def test_it_had_none(case: Case, fault: str) -> None:
    assert fault in case.faults()[0]
