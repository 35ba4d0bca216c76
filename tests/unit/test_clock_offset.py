from __future__ import annotations

import math
import random

import pytest

from arb_ray.engine.clock_offset import UNKNOWN, ClockOffset

MS = 1_000_000
BEGIN_NS = 1_700_000_000_000_000_000


def observe(
    clock: ClockOffset,
    offset_ms: float,
    latency_ms: float,
    at_ms: float,
    wall_ahead_ms: float = 0.0,
) -> None:
    """
    A frame stamped ``at_ms`` by the venue, whose clock is ``offset_ms`` ahead of ours.

    Our wall clock is ``wall_ahead_ms`` ahead of where it would be if nobody had set it.
    """
    exchange_ns = BEGIN_NS + int(at_ms * MS)
    wall_ns = exchange_ns - int(offset_ms * MS) + int(latency_ms * MS)
    clock.observe(exchange_ns, wall_ns, wall_ns - BEGIN_NS - int(wall_ahead_ms * MS))


def test_nothing_is_known_before_the_first_dated_frame() -> None:
    clock = ClockOffset()
    clock.observe(0, BEGIN_NS, 0)
    assert clock.estimate() == UNKNOWN
    assert math.isinf(UNKNOWN.uncertainty_ms)


@pytest.mark.parametrize("offset_ms", [-250.0, 0.0, 1_273.0])
def test_the_fastest_frame_is_nearest_the_offset(offset_ms: float) -> None:
    clock, rng = ClockOffset(), random.Random(7)
    for n in range(1_000):
        observe(clock, offset_ms, latency_ms=2 + rng.expovariate(1 / 3), at_ms=n * 100)
    estimate = clock.estimate()
    assert estimate.offset_ms == pytest.approx(offset_ms - 2, abs=0.1)
    assert estimate.jitter_ms == pytest.approx(3 * math.log(2), abs=0.5)
    assert estimate.samples == 1_000


def test_a_recorder_that_is_behind_gives_a_positive_offset() -> None:
    clock = ClockOffset()
    clock.observe(BEGIN_NS + 1_273 * MS, BEGIN_NS, 0)
    assert clock.estimate().offset_ms == 1_273


def test_a_venues_clock_that_steps_is_followed_within_two_windows() -> None:
    clock = ClockOffset(window_ns=1_000 * MS, kept_samples=16)
    for n in range(30):
        observe(clock, 500, latency_ms=1, at_ms=n * 100)
    for n in range(30, 60):
        observe(clock, 100, latency_ms=1, at_ms=n * 100)
    assert clock.estimate().offset_ms == pytest.approx(99)


def test_a_long_silence_leaves_nothing_of_the_old_window() -> None:
    clock = ClockOffset(window_ns=1_000 * MS)
    observe(clock, 500, latency_ms=1, at_ms=0)
    observe(clock, 100, latency_ms=1, at_ms=60_000)
    assert clock.estimate().offset_ms == pytest.approx(99)


@pytest.mark.parametrize("by_ms", [-40_000.0, -150.0, 150.0, 40_000.0])
def test_our_own_clock_that_is_set_is_followed_at_once(by_ms: float) -> None:
    clock = ClockOffset()
    for n in range(30):
        observe(clock, 5 - by_ms, latency_ms=1, at_ms=n * 100, wall_ahead_ms=by_ms)
    for n in range(30, 40):
        observe(clock, 5, latency_ms=1, at_ms=n * 100)
    estimate = clock.estimate()
    assert estimate.offset_ms == pytest.approx(4)
    assert estimate.jitter_ms == pytest.approx(0)


def test_a_clock_that_is_slewed_is_not_taken_for_one_that_is_set() -> None:
    clock = ClockOffset()
    observe(clock, 5, latency_ms=1, at_ms=0)
    for n in range(1, 100):
        observe(clock, 5 - n, latency_ms=1 + n, at_ms=n * 100, wall_ahead_ms=float(n))
    assert clock.estimate().offset_ms == pytest.approx(4)
