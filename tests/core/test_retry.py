"""What may be sent again, and how often."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.retry import Again, Failure, RetryBudget, again

METHODS = ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "POST", "PATCH", "PURGE", "get"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("failure", Failure)
@pytest.mark.parametrize("begun", [False, True])
def test_rfc_9110_9_2_2_nothing_that_may_have_arrived_is_repeated_unless_idempotent(
    method: str, failure: Failure, begun: bool
) -> None:
    where = again(method, failure, begun=begun)
    if begun:
        assert where is Again.NOWHERE
    elif failure is Failure.UNSENT:
        assert where is Again.ELSEWHERE
    elif failure is Failure.TIMEOUT or method not in {"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"}:
        assert where is Again.NOWHERE
    else:
        assert where is (Again.ANEW if failure is Failure.LOST else Again.ELSEWHERE)


@given(
    st.floats(0, 1),
    st.floats(0, 10),
    st.floats(0, 20),
    st.lists(st.tuples(st.floats(0, 5), st.booleans()), max_size=100),
)
def test_no_run_makes_more_retries_than_the_budget(
    ratio: float, per_second: float, burst: float, steps: list[tuple[float, bool]]
) -> None:
    budget, now, requests = RetryBudget(ratio, per_second, burst), 100.0, 0
    for pause, wants in steps:
        now += pause
        budget.earn(now)
        requests += 1
        if wants:
            budget.spend(now)
    assert budget.spent <= burst + ratio * requests + per_second * (now - 100.0) + 1e-6
    assert budget.spent + budget.refused == sum(wants for _, wants in steps)


def test_a_few_retries_are_always_there_when_little_is_asked() -> None:
    budget = RetryBudget(0.0, 1.0, burst=2.0)
    for second in range(10):
        budget.earn(second)
        assert budget.spend(second)
