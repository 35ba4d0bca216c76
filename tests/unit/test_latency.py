"""A bounded histogram: right within four per cent, however many samples, wherever merged."""

import random

import pytest

from arb_ray.engine.latency import LatencyHistogram


def test_an_empty_histogram_has_no_quantile():
    assert LatencyHistogram().summary_ms() == {"p50": 0.0, "p99": 0.0, "max": 0.0}


def test_quantiles_are_right_within_a_bucket():
    rng = random.Random(3)
    samples = sorted(int(rng.lognormvariate(13, 1.5)) for _ in range(5_000))
    histogram = LatencyHistogram()
    for sample in samples:
        histogram.add(sample)
    for share in (0.1, 0.5, 0.9, 0.99, 0.999):
        exact = samples[int(share * len(samples)) - 1] / 1e6
        assert histogram.quantile_ms(share) == pytest.approx(exact, rel=0.04)
    assert histogram.quantile_ms(1.0) == samples[-1] / 1e6


@pytest.mark.parametrize("duration_ns", [-5, 0, 1, 1_023, 1_024, 1_055, 1_056, 10**9, 10**15])
def test_any_duration_is_counted_once(duration_ns):
    histogram = LatencyHistogram()
    histogram.add(duration_ns, 3)
    assert sum(histogram.sparse().values()) == histogram.count == 3
    assert histogram.quantile_ms(0.5) * 1e6 <= max(duration_ns, 1_024)


def test_merged_parts_equal_the_whole():
    whole, parts = LatencyHistogram(), [LatencyHistogram(), LatencyHistogram()]
    for number in range(1, 200):
        whole.add(number * 7_000)
        parts[number % 2].add(number * 7_000)
    merged = LatencyHistogram()
    for part in parts:
        merged.merge(part.sparse(), part.max_ns)
    assert merged.sparse() == whole.sparse()
    assert merged.summary_ms() == whole.summary_ms()


def test_what_is_longer_than_five_minutes_counts_in_the_last_bucket():
    histogram = LatencyHistogram()
    histogram.add(10**15)
    histogram.add(250 * 10**9)
    shorter, last = sorted(histogram.sparse())
    assert (shorter < last, last) == (True, 897)
