"""A recovery is looked at often, what is well or long lost is not."""

from arb_ray.engine.pace import Pace

NOTHING = frozenset()
A, B = frozenset({"a"}), frozenset({"a", "b"})


def test_what_is_well_is_looked_at_calmly():
    pace = Pace(0.5, 0.1, 15.0)
    assert [pace.wait_s(NOTHING, at_s) for at_s in (0.0, 1.0)] == [0.5, 0.5]


def test_what_is_lacking_is_hurried_for_a_while_and_not_for_ever():
    pace = Pace(0.5, 0.1, 15.0)
    assert [pace.wait_s(A, at_s) for at_s in (100.0, 114.9, 115.0, 1000.0)] == [0.1, 0.1, 0.5, 0.5]


def test_a_second_fault_is_hurried_though_the_first_still_lasts():
    pace = Pace(0.5, 0.1, 15.0)
    pace.wait_s(A, 0.0)
    assert pace.wait_s(A, 20.0) == 0.5
    assert pace.wait_s(B, 20.0) == 0.1
    assert pace.wait_s(A, 21.0) == 0.1  # one is back: the next may follow
    assert pace.wait_s(NOTHING, 21.1) == 0.5


def test_a_calm_pace_that_is_quicker_is_kept():
    assert Pace(0.05, 0.1, 15.0).wait_s(A, 0.0) == 0.05
