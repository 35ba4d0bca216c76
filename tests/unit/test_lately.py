"""The peak of the last while is seen, and forgotten in time."""

from arb_ray.engine.lately import LatelyMax


def test_a_peak_is_seen_for_a_window_at_least_and_for_two_at_most():
    lately = LatelyMax(5.0)
    lately.add(3.0, 100.0)
    lately.add(9.0, 104.0)
    lately.add(1.0, 104.5)
    assert lately.value(104.9) == 9.0
    lately.add(2.0, 106.0)  # the window has turned, the peak is 2 s old
    assert lately.value(109.0) == 9.0
    lately.add(1.0, 111.5)
    assert lately.value(111.6) == 2.0


def test_after_a_long_silence_nothing_is_left():
    lately = LatelyMax(5.0)
    assert lately.value(0.0) == 0.0
    lately.add(9.0, 0.0)
    assert lately.value(60.0) == 0.0


def test_who_looks_takes_nothing_away():
    lately = LatelyMax(5.0)
    lately.add(9.0, 0.0)
    assert [lately.value(1.0), lately.value(1.0)] == [9.0, 9.0]
