"""What must be true of budgets: no window ever holds more than its count."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arb_ray.adapters.transport.rate_limit import Budget, Window

windows = st.lists(
    st.tuples(st.integers(3, 12), st.sampled_from([0.5, 1.0, 7.3, 60.0])), min_size=1, max_size=3
)
steps = st.lists(st.tuples(st.floats(0, 5), st.integers(1, 3)), min_size=1, max_size=60)


def spend_as_soon_as_allowed(budget, now_s, cost):
    naps = 0
    while (wait_s := budget.delay_s(now_s, cost)) > 0:
        now_s += wait_s
        naps += 1
        assert naps < 50, "the wait never ends"
    budget.spend(now_s, cost)
    return now_s


@given(windows, steps)
def test_no_window_ever_holds_more_than_its_count(limits, steps):
    budget, now_s, spent = Budget(limits), 1000.0, []
    for idle_s, cost in steps:
        now_s = spend_as_soon_as_allowed(budget, now_s + idle_s, cost)
        spent.append((now_s, cost))
    for count, seconds in limits:
        for begin_s, _ in spent:
            inside = sum(c for at_s, c in spent if begin_s <= at_s and at_s < begin_s + seconds)
            assert inside <= count


@given(windows, steps)
def test_no_wait_is_longer_than_the_limits_need(limits, steps):
    """Just before the end of a wait, the spend would have overfilled some window."""
    budget, now_s, spent = Budget(limits), 1000.0, []
    for idle_s, cost in steps:
        asked_s = now_s + idle_s
        now_s = spend_as_soon_as_allowed(budget, asked_s, cost)
        if now_s > asked_s:
            just_before_s = now_s - 1e-6
            assert any(
                cost + sum(c for at_s, c in spent if at_s + seconds > just_before_s) > count
                for count, seconds in limits
            )
        spent.append((now_s, cost))


def test_upbits_two_windows_hold_together():
    budget, now_s, times = Budget([Window(5, 1), Window(100, 60)]), 0.0, []
    for _ in range(101):
        now_s = spend_as_soon_as_allowed(budget, now_s, 1)
        times.append(now_s)
    assert times[4] == 0.0
    assert times[5] == 1.0
    assert times[99] == 19.0
    assert times[100] == 60.0


def test_a_budget_without_windows_never_waits():
    budget = Budget(())
    for _ in range(1000):
        budget.spend(0.0)
    assert budget.delay_s(0.0) == 0.0


def test_a_hold_delays_everything_until_it_is_over():
    budget = Budget([(10, 1.0)])
    budget.hold(7.0)
    budget.hold(3.0)
    assert budget.delay_s(5.0) == 2.0
    assert budget.delay_s(7.0) == 0.0


def test_one_answer_covers_all_windows_and_the_hold():
    budget = Budget([(1, 9.0), (1, 2.0)])
    budget.spend(0.0)
    assert budget.delay_s(1.0) == 8.0
    budget.hold(20.0)
    assert budget.delay_s(1.0) == 19.0


def test_the_venues_own_count_is_taken_over_where_it_is_higher():
    budget = Budget([(100, 60.0)])
    budget.spend(0.0, 10)
    budget.observe(1.0, 95, 60.0)
    budget.observe(1.0, 20, 60.0)  # lower than ours: no news
    assert budget.delay_s(1.0, 5) == 0.0
    assert budget.delay_s(1.0, 6) == 59.0


def test_spending_what_is_not_allowed_is_a_bug():
    budget = Budget([(1, 1.0)])
    budget.spend(0.0)
    with pytest.raises(AssertionError, match="ask delay_s"):
        budget.spend(0.5)


def test_a_cost_that_never_fits_is_a_bug_and_not_an_endless_wait():
    with pytest.raises(AssertionError, match="never fit"):
        Budget([(10, 1.0)]).delay_s(0.0, 11)


def test_memory_stays_bounded_by_the_count():
    budget, now_s = Budget([(50, 1.0)]), 0.0
    for _ in range(2000):
        now_s = spend_as_soon_as_allowed(budget, now_s + 0.01, 1)
    assert len(budget._logs[0]) <= 50


def test_a_limit_that_the_venue_tells_holds_from_now_on():
    budget = Budget([(100, 60.0), (5, 1.0)])
    budget.spend(0.0, 5)
    assert budget.used_ratio(0.0) == 1.0  # the fuller window counts
    budget.set_count(8, 60.0)
    assert budget.used_ratio(2.0) == 5 / 8
    assert budget.delay_s(2.0, 3) == 0.0
    assert budget.delay_s(2.0, 4) == 58.0
    budget.set_count(4, 60.0)  # below what was spent already
    assert budget.used_ratio(2.0) == 5 / 4
    assert budget.delay_s(2.0, 1) == 58.0
    assert budget.delay_s(60.0, 4) == 0.0
