"""What must be true of the waits between attempts."""

import random

from hypothesis import given
from hypothesis import strategies as st

from arb_ray.adapters.transport.backoff import Backoff, BackoffPolicy

POLICY = BackoffPolicy(initial_s=0.5, factor=2, maximum_s=8, jitter=0.5, stable_s=30)


def test_waits_double_up_to_the_maximum_without_jitter():
    backoff = Backoff(POLICY, lambda: 0.0)
    assert [backoff.failed() for _ in range(7)] == [0.5, 1, 2, 4, 8, 8, 8]
    assert backoff.failures == 7


@given(st.integers(0, 2**32), st.integers(1, 40))
def test_jitter_only_shortens_a_wait_and_never_below_its_share(seed, failures):
    backoff = Backoff(POLICY, random.Random(seed).random)
    for n in range(failures):
        ceiling_s = min(8, 0.5 * 2**n)
        assert ceiling_s / 2 <= backoff.failed() <= ceiling_s


def test_the_same_seed_repeats_the_waits():
    waits = [
        [backoff.failed() for _ in range(9)]
        for backoff in (Backoff(POLICY, random.Random(7).random) for _ in range(2))
    ]
    assert waits[0] == waits[1]


def test_a_stable_connection_forgives_and_a_short_one_does_not():
    backoff = Backoff(POLICY, lambda: 0.0)
    assert [backoff.lost(29.9) for _ in range(3)] == [0.5, 1, 2]
    assert backoff.lost(30.0) == 0.5
    assert backoff.failures == 1


def test_a_night_of_retries_does_not_overflow():
    backoff = Backoff(BackoffPolicy(maximum_s=30), lambda: 0.0)
    assert {backoff.failed() for _ in range(20_000)} >= {30.0}
