"""Overload is told when it lasts, once, and is over when that lasts."""

from arb_ray.engine.overload import Overload

S = 10**9


def run(overload, seconds, decided_per_s, overwritten_per_s, *, since=(0, 0, 0), lag_ms=0.0):
    """Look once a second; return the seconds at which it changed, and the totals."""
    at, decided, overwritten = since
    changed = []
    for _ in range(seconds):
        at, decided, overwritten = at + 1, decided + decided_per_s, overwritten + overwritten_per_s
        if overload.look(at * S, decided, overwritten, lag_ms):
            changed.append(at)
    return changed, (at, decided, overwritten)


def test_a_share_below_the_bound_is_told_once_when_it_has_lasted():
    overload = Overload()
    changed, since = run(overload, 20, 300, 700)
    assert changed == [6]
    assert overload.is_overloaded
    assert "30%" in overload.why
    changed, _ = run(overload, 20, 900, 100, since=since)
    assert changed == [26]
    assert overload.why == ""


def test_a_burst_of_a_second_is_none():
    overload = Overload()
    _, since = run(overload, 10, 900, 10)
    changed, since = run(overload, 2, 100, 5_000, since=since)
    more, _ = run(overload, 20, 900, 10, since=since)
    assert changed == more == []


def test_few_updates_say_nothing_and_silence_ends_it():
    overload = Overload()
    assert run(overload, 30, 1, 9) == ([], (30, 30, 270))
    changed, since = run(overload, 20, 300, 700, since=(30, 30, 270))
    assert len(changed) == 1
    changed, _ = run(overload, 30, 0, 0, since=since)
    assert len(changed) == 1
    assert not overload.is_overloaded


def test_a_late_loop_is_overload_too():
    overload = Overload()
    changed, _ = run(overload, 10, 900, 10, lag_ms=400.0)
    assert changed == [6]
    assert "400 ms" in overload.why


def test_a_third_lost_is_overload_where_many_are_lost_and_none_where_few():
    few, many = Overload(), Overload()
    assert run(few, 20, 700, 300)[0] == []
    assert run(many, 20, 7_000, 3_000)[0] == [6]
    assert "70%" in many.why
    assert run(Overload(), 20, 9_000, 1_500)[0] == []
    assert run(Overload(), 20, 3_000, 900)[0] == []
