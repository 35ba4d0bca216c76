"""What is copied to Ray: exact counts, present gauges, a bounded choice of samples."""

import asyncio

import pytest

from arb_ray.actors import ray_metrics
from arb_ray.actors.ray_metrics import RayExporter, watch_loop
from arb_ray.adapters.telemetry.metrics import SAMPLES_MAX, PrometheusMetrics
from arb_ray.engine.topology import Role
from tests.shell_world import Counts


@pytest.fixture
def told(monkeypatch):
    """What Ray's metrics are told, in order: (name, value, tags)."""
    records = []

    def record(self, value, tags=None):
        assert set(tags) == set(self.info["tag_keys"]), "Ray raises on a missing tag"
        records.append((self.info["name"], value, tags))

    # Below this method is Ray's worker; the integration tests have a real one.
    monkeypatch.setattr(ray_metrics.ray_metrics.Metric, "_record", record)
    return records


@pytest.fixture
def metrics():
    return PrometheusMetrics(Role.HOST, "000")


def values(told, name):
    return [value for told_name, value, _ in told if told_name == name]


async def test_a_counter_begins_at_zero_and_then_tells_what_was_added(metrics, told):
    exporter = RayExporter(metrics)
    await exporter.export()
    metrics.inc("decisions", 3)
    await exporter.export()
    await exporter.export()
    metrics.inc("decisions", 2)
    await exporter.export()
    assert values(told, "arb_decisions") == [0, 3, 2]


async def test_labels_make_series_of_their_own(metrics, told):
    exporter = RayExporter(metrics)
    for venue, count in (("upbit", 2), ("binance_spot", 5)):
        metrics.inc("order_failures", count, venue=venue)
    await exporter.export()
    metrics.inc("order_failures", 1, venue="upbit")
    await exporter.export()
    assert [(value, tags) for name, value, tags in told if name == "arb_order_failures"] == [
        (2, {"actor": "host:000", "venue": "upbit"}),
        (5, {"actor": "host:000", "venue": "binance_spot"}),
        (1, {"actor": "host:000", "venue": "upbit"}),
    ]


async def test_a_gauge_is_told_every_time_and_no_more_once_it_is_unset(metrics, told):
    exporter = RayExporter(metrics)
    metrics.set("premium_bps", 5.0, symbol="BTC")
    await exporter.export()
    await exporter.export()
    metrics.unset("premium_bps", symbol="BTC")
    await exporter.export()
    assert values(told, "arb_premium_bps") == [5.0, 5.0]


async def test_samples_of_a_histogram_are_told_once_and_within_their_bound(metrics, told):
    exporter = RayExporter(metrics)
    for value in range(10 * SAMPLES_MAX):
        metrics.observe("reserve_ms", float(value))
    await exporter.export()
    await exporter.export()
    assert len(values(told, "arb_reserve_ms")) == SAMPLES_MAX


async def test_the_longest_turn_of_the_loop_is_seen_by_who_looks_later(monkeypatch):
    monkeypatch.setattr(ray_metrics, "BEAT_S", 0.001)
    counts = Counts()
    task = asyncio.create_task(watch_loop(counts))
    await asyncio.sleep(0.02)
    quiet = counts.gauges["loop_time_ms"]
    blocked_s = 0.05 + quiet / 1e3
    until = asyncio.get_running_loop().time() + blocked_s
    while asyncio.get_running_loop().time() < until:
        pass  # a turn that is too long
    await asyncio.sleep(0.02)
    assert counts.gauges["loop_time_ms"] >= (blocked_s - 0.002) * 1e3
    task.cancel()
