"""The adversary's schedule: a pure function of the seed, in which every kind gets its turn."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.kinds import BY_NAME, KINDS
from tests.chaos.schedule import AHEAD, LONG_RUN_S, schedule

SEEDS = st.integers(0, 2**32)


@given(SEEDS)
def test_the_same_seed_gives_the_same_schedule(seed):
    assert schedule(seed, 600) == schedule(seed, 600)


@given(SEEDS)
def test_another_seed_gives_another_schedule(seed):
    assert schedule(seed, 600) != schedule(seed + 1, 600)


@given(SEEDS)
def test_ten_minutes_have_room_for_every_kind(seed):
    met = {fault.kind for fault in schedule(seed, 600) if fault.at_s < 600}
    assert met == {kind.name for kind in KINDS}


@given(SEEDS)
def test_a_long_run_times_each_kind_alone_before_any_storm(seed):
    planned = schedule(seed, 600)
    first = planned[: len(KINDS)]
    assert {fault.kind for fault in first} == {kind.name for kind in KINDS}
    assert len({fault.episode for fault in first}) == len(KINDS)
    later = [fault.episode for fault in planned[len(KINDS) :]]
    assert len(set(later)) < len(later)


@given(SEEDS, st.sampled_from((20.0, 60.0, 600.0, 1200.0)))
def test_a_fault_meets_whom_it_may_for_as_long_as_it_may(seed, run_s):
    for fault in schedule(seed, run_s):
        kind = BY_NAME[fault.kind]
        assert fault.target in kind.targets
        assert kind.duration_s[0] - 0.01 <= fault.duration_s <= kind.duration_s[1] + 0.01
        assert kind.amount[0] - 0.001 <= fault.amount <= kind.amount[1] + 0.001


@given(SEEDS, st.sampled_from((20.0, 60.0, 600.0)))
def test_episodes_follow_one_another_and_go_on_past_the_end(seed, run_s):
    planned = schedule(seed, run_s)
    for before, after in itertools.pairwise(planned):
        if after.episode != before.episode:
            assert after.at_s > before.at_s + before.duration_s
    assert planned[-1].at_s > run_s * (AHEAD - 1)


@given(SEEDS)
def test_a_short_run_draws_nothing_that_lasts_long(seed):
    assert {fault.kind for fault in schedule(seed, LONG_RUN_S - 1)} <= {
        kind.name for kind in KINDS if kind.is_short
    }
