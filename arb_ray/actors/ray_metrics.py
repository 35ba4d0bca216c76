"""
A process' metrics, brought to Ray's own export.

The hot path counts in the process' cheap registry; what is here copies it to
``ray.util.metrics`` every two seconds: gauges whole, because Ray drops one that was not set
for two of its report intervals; counters by what was added, exactly; histograms by the
bounded choice of samples that a reading hands out, because each costs Ray's node agent
27 us and the raylet shares its fate.
"""

from __future__ import annotations

import asyncio
from typing import TypeAlias

from ray.util import metrics as ray_metrics

from arb_ray.actors.hosting import Loops
from arb_ray.engine.lately import LatelyMax
from arb_ray.ports import MetricKind, MetricReading, Metrics, MetricsSource

EXPORT_INTERVAL_S = 2.0
READINGS_A_TURN = 50
"""About half a millisecond of an event loop that has ticks to serve."""

BEAT_S = 0.1
"""Ten wake-ups a second cost a thousandth of a core, and show every turn longer than this."""

LOOP_WINDOW_S = 15.0
"""As long as the usual time between two scrapes, so that no long turn falls between them."""

Series: TypeAlias = tuple[str, tuple[tuple[str, str], ...]]


class _Counter(ray_metrics.Counter):
    """A counter that can begin at zero; Ray's ``inc`` refuses a zero."""

    def add(self, amount: float, tags: dict[str, str]) -> None:
        self._record(amount, tags)


class RayExporter:
    """Copies one process' metrics to Ray."""

    def __init__(self, source: MetricsSource) -> None:
        self._source = source
        self._counters: dict[str, _Counter] = {}
        self._gauges: dict[str, ray_metrics.Gauge] = {}
        self._histograms: dict[str, ray_metrics.Histogram] = {}
        self._told: dict[Series, float] = {}

    async def export(self) -> None:
        """Copy once; ticks that arrive meanwhile do not wait for all of it."""
        for count, reading in enumerate(self._source.readings(), start=1):
            self._copy(reading)
            if count % READINGS_A_TURN == 0:
                await asyncio.sleep(0)

    def _copy(self, reading: MetricReading) -> None:
        tags = dict(reading.labels)
        match reading.kind:
            case MetricKind.COUNTER:
                self._count(reading, tags)
            case MetricKind.GAUGE:
                self._gauge(reading).set(reading.value, tags)
            case MetricKind.HISTOGRAM:
                histogram = self._histogram(reading)
                for sample in reading.samples:
                    histogram.observe(sample, tags)

    def _count(self, reading: MetricReading, tags: dict[str, str]) -> None:
        series = (reading.name, tuple(sorted(tags.items())))
        told = self._told.get(series)
        if told == reading.value:
            return
        # A new series begins at zero there too: a first failure must show as an increase.
        self._counter(reading).add(reading.value - (told or 0.0), tags)
        self._told[series] = reading.value

    def _counter(self, reading: MetricReading) -> _Counter:
        if reading.name not in self._counters:
            made = _Counter(reading.name, reading.help, tuple(reading.labels))
            self._counters[reading.name] = made
        return self._counters[reading.name]

    def _gauge(self, reading: MetricReading) -> ray_metrics.Gauge:
        if reading.name not in self._gauges:
            made = ray_metrics.Gauge(reading.name, reading.help, tuple(reading.labels))
            self._gauges[reading.name] = made
        return self._gauges[reading.name]

    def _histogram(self, reading: MetricReading) -> ray_metrics.Histogram:
        if reading.name not in self._histograms:
            made = ray_metrics.Histogram(
                reading.name, reading.help, list(reading.buckets), tuple(reading.labels)
            )
            self._histograms[reading.name] = made
        return self._histograms[reading.name]

    async def run(self) -> None:
        """Copy again and again."""
        while True:
            await self.export()
            await asyncio.sleep(EXPORT_INTERVAL_S)


async def watch_loop(metrics: Metrics) -> None:
    """Measure the longest turn of this event loop: how late a timer was, again and again."""
    loop = asyncio.get_running_loop()
    turns = LatelyMax(LOOP_WINDOW_S)
    while True:
        began_s = loop.time()
        await asyncio.sleep(BEAT_S)
        now_s = loop.time()
        turns.add(max(0.0, now_s - began_s - BEAT_S) * 1e3, now_s)
        metrics.set("loop_time_ms", turns.value(now_s))


def start_exporting(source: MetricsSource, loops: Loops) -> None:
    """Start what every actor's process tells of itself."""
    loops.start("loop_time", watch_loop(source))
    loops.start("ray_metrics", RayExporter(source).run())
