"""The chaos table: what it counts, what it times, what it calls slow, and what it cannot hide."""

from __future__ import annotations

import pytest

from tests.chaos import table
from tests.chaos.adversary import Episode
from tests.chaos.kinds import BY_NAME, KINDS
from tests.chaos.schedule import Planned


def fault(kind, episode=0):
    return Planned(episode, 1.0, kind, BY_NAME[kind].targets[0], 0.0, 0.0)


def episode(*kinds, back_s=1.0, **changes):
    return Episode(0, [fault(kind) for kind in kinds], back_s=back_s, **changes)


def row(episodes, kind):
    (found,) = [one for one in table.rows(episodes) if one.kind == kind]
    return found


def test_every_kind_has_a_row_also_when_it_never_came():
    assert [one.kind for one in table.rows([])] == [kind.name for kind in KINDS]
    assert row([], "gap").injected == 0
    assert row([], "gap").longest_s is None


def test_faults_are_counted_alone_and_in_storms():
    found = row([episode("gap"), episode("gap", "silence"), episode("silence")], "gap")
    assert (found.injected, found.in_storms) == (2, 1)


def test_a_recovery_is_timed_where_the_fault_came_alone():
    episodes = [episode("gap", back_s=2.0), episode("gap", "silence", back_s=30.0)]
    assert row(episodes, "gap").recoveries_s == (2.0,)


def test_a_recovery_from_what_was_broken_before_is_not_the_faults_own():
    assert row([episode("gap", back_s=9.0, clean=False)], "gap").recoveries_s == ()


def test_who_never_came_back_has_no_recovery():
    assert row([episode("gap", back_s=90.0, why_not="BTC is not live")], "gap").recoveries_s == ()


def test_median_and_longest_are_those_of_the_recoveries():
    found = row([episode("kill_host", back_s=back_s) for back_s in (2.0, 3.0, 8.0)], "kill_host")
    assert (found.median_s, found.longest_s) == (3.0, 8.0)


@pytest.mark.parametrize(
    ("recoveries", "is_slow"),
    [((2.0, 9.0, 3.0), False), ((2.0, 10.5, 3.0), True), ((4.0, 4.0, 1.0), True), ((), False)],
)
def test_slow_is_what_breaks_the_median_or_the_bound(recoveries, is_slow):
    found = row([episode("kill_host", back_s=back_s) for back_s in recoveries], "kill_host")
    assert found.slow is is_slow


def test_what_was_not_possible_here_is_told_with_its_reason():
    (told,) = [
        line
        for line in table.lines(table.rows([Episode(0, not_here={"hang": "no such process"})]))
        if line.startswith("hang")
    ]
    assert "not here: no such process" in told


def test_the_sum_is_of_all_faults():
    assert table.lines(table.rows([episode("gap", "silence"), episode("gap")]))[-1].split() == [
        "all",
        "3",
    ]
