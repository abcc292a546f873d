"""How much of a cluster's load may be retries: never more, in any interval."""

from bisect import bisect_left, bisect_right
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.contract.policies import RetryBudgetSpec
from meshproxy.policies.retry_budget import RetryBudget

START = 1_000.0


def spend(budget: RetryBudget, now: float, wanted: int) -> int:
    """Ask for so many retries; return how many were granted."""
    return sum(budget.withdraw(now) for _ in range(wanted))


def begin(budget: RetryBudget, now: float, requests: int) -> None:
    for _ in range(requests):
        budget.deposit(now)


def test_a_share_of_the_requests() -> None:
    """By default a fifth of those of the last ten seconds."""
    budget = RetryBudget()
    begin(budget, START, 1_000)
    assert spend(budget, START, 1_000) == 200


def test_a_few_are_always_allowed() -> None:
    """Ten in any second; a share of few requests would be none."""
    budget = RetryBudget()
    assert spend(budget, START, 100) == 10
    assert spend(budget, START + 0.999, 100) == 0
    assert spend(budget, START + 1.0, 100) == 10


def test_the_larger_of_the_two_counts_not_their_sum() -> None:
    """With 100 requests a share of 20 is not 20 and 10 more."""
    budget = RetryBudget()
    begin(budget, START, 100)
    assert spend(budget, START, 100) == 20


def test_old_requests_are_forgotten() -> None:
    """What was deposited more than an interval ago allows nothing any more."""
    budget = RetryBudget(RetryBudgetSpec(min_count=0))
    begin(budget, START, 100)
    assert spend(budget, START + 8.9, 5) == 5
    assert spend(budget, START + 11.0, 5) == 0
    begin(budget, START + 1_000, 5)
    assert spend(budget, START + 1_000, 5) == 1


def test_nothing_may_be_nothing() -> None:
    """No share and no minimum: no retries at all."""
    budget = RetryBudget(RetryBudgetSpec(percent=0, min_count=0))
    begin(budget, START, 1_000)
    assert spend(budget, START, 10) == 0


@pytest.mark.parametrize("interval", [10_000, 2_000])
def test_a_new_spec_does_not_refill_the_budget(interval: int) -> None:
    """What was taken stays taken, whatever is configured."""
    budget = RetryBudget(RetryBudgetSpec(min_count=3))
    begin(budget, START, 10)
    assert spend(budget, START, 10) == 3
    budget.adopt(RetryBudgetSpec(min_count=5, interval=interval))
    assert spend(budget, START, 10) == 2


def test_looking_changes_nothing() -> None:
    """The statistics, at any later time, are what would be found then."""
    budget = RetryBudget()
    begin(budget, START, 100)
    spend(budget, START, 20)
    assert budget.statistics(START) == {"requests": 100, "retries": 20, "left": 0}
    assert budget.statistics(START + 60) == {"requests": 0, "retries": 0, "left": 10}
    assert budget.statistics(START) == {"requests": 100, "retries": 20, "left": 0}


events = st.lists(
    st.tuples(
        st.one_of(st.just(0.0), st.floats(0, 0.2), st.floats(0, 3), st.floats(0, 30)),
        st.integers(0, 40),
        st.integers(0, 40),
    ),
    max_size=30,
)


@given(
    events=events,
    percent=st.sampled_from([0.0, 1.0, 20.0, 33.3, 100.0]),
    floor=st.integers(0, 12),
    interval=st.sampled_from([100, 1_000, 10_000]),
)
def test_it_is_never_exceeded_over_any_interval(
    events: list[tuple[float, int, int]], percent: float, floor: int, interval: int
) -> None:
    """
    Whenever a retry is granted, one of the two promises holds for the interval that ends with it;
    and over an interval of any length no more are granted than the two together allow.
    """
    spec = RetryBudgetSpec(percent=percent, min_count=floor, interval=interval, min_interval=500)
    budget = RetryBudget(spec)
    now = START
    requests: list[float] = []
    retries: list[float] = []
    for pause, begun, wanted in events:
        now += pause
        begin(budget, now, begun)
        requests += [now] * begun
        for left in range(budget.statistics(now)["left"], -1, -1)[:wanted]:
            assert budget.withdraw(now) == (left > 0)
            if left == 0:
                break
            retries.append(now)
            share = percent / 100 * within(requests, now, interval / 1000)
            assert (
                within(retries, now, interval / 1000) <= share or within(retries, now, 0.5) <= floor
            )
    moments = sorted(set(retries))
    for first in moments:
        for last in moments[bisect_left(moments, first) :]:
            granted_within = bisect_right(retries, last) - bisect_left(retries, first)
            begun = bisect_right(requests, last) - bisect_left(requests, first - interval / 1000)
            allowed = percent / 100 * begun + floor * ((last - first) // 0.5 + 1)
            assert granted_within <= allowed


def within(times: list[float], now: float, seconds: float) -> int:
    """Count those of the last so many seconds."""
    return bisect_right(times, now) - bisect_right(times, now - seconds)


@given(st.lists(st.floats(0, 5), min_size=2, max_size=50))
def test_a_steady_load_gets_its_share(pauses: list[float]) -> None:
    """The slots cost it no more than a tenth of the interval."""
    budget = RetryBudget(RetryBudgetSpec(min_count=0))
    now = START
    times = [now := now + pause for pause in pauses]
    for _, later in pairwise(times):
        begin(budget, later, 10)
    recent = 10 * sum(time > times[-1] - 9.0 for time in times[1:])
    assert spend(budget, times[-1], 1_000) >= recent * 0.2 - 1
