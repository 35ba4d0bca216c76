"""What a feed tells of itself in metrics: gauges of now, and counters by what was added."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from arb_ray.actors.fan_out import FanOut
from arb_ray.actors.totals import Totals
from arb_ray.domain.book import ConnectionAlive
from arb_ray.engine.clock_offset import ClockEstimate
from arb_ray.engine.feed import FeedCounters
from arb_ray.ports import Metrics


class FeedMetrics:
    """One venue's metrics. Totals come in, what was added since the last time goes out."""

    def __init__(self, metrics: Metrics, venue: str) -> None:
        self._metrics = metrics
        self._venue = venue
        self._totals = Totals(metrics)
        metrics.inc("ws_alarms", 0, venue=venue)
        metrics.set("ws_recovery_ms", 0.0, venue=venue)

    def connections(self, alive: Sequence[ConnectionAlive]) -> None:
        """Tell which connections are up, and how long the most silent one has been so."""
        self._set("ws_connected", sum(one.is_up for one in alive))
        # A connection that is down proves nothing; ``ws_connected`` tells of it.
        oldest_ns = max((one.age_ns for one in alive if one.is_up), default=0)
        self._set("ws_message_age_ms", oldest_ns / 1e6)

    def sockets(self, counters: Iterable[Any]) -> None:
        """Tell what the transport counted, all sockets together."""
        known = list(counters)
        self._total("ws_reconnects", sum(one.reconnects for one in known))
        self._total("ws_rotations", sum(one.rotations for one in known))
        self._total("frame_bytes", sum(one.bytes for one in known))

    def protocol(self, counters: FeedCounters, book_updates: int) -> None:
        """Tell what the frames held."""
        self._total("frames", counters.frames)
        self._total("book_updates", book_updates)
        self._total("book_gaps", counters.gaps)
        self._total("books_rebuilt", counters.resyncs)
        self._total("frames_malformed", counters.malformed)
        self._total("frames_unknown", counters.unknown.total())
        self._total("rest_failures", counters.snapshot_failures)

    def load(self, frames_conflated: int, *, is_overloaded: bool) -> None:
        """Tell what was overwritten before it was parsed, and whether the feed keeps up."""
        self._total("frames_conflated", frames_conflated)
        self._metrics.set("overloaded", float(is_overloaded))

    def books(self, *, stale: int, silent: int, rest_used_ratio: float) -> None:
        """Tell of symbols that lack a book, and of the budget for fetching one."""
        self._set("symbols_stale", stale)
        self._set("symbols_silent", silent)
        self._set("rest_weight_used_ratio", rest_used_ratio)

    def clock(self, estimate: ClockEstimate) -> None:
        """Tell how far the venue's clock is off, once something dated has come."""
        if math.isfinite(estimate.uncertainty_ms):
            self._set("clock_offset_ms", estimate.offset_ms)
            self._set("clock_skew_ms", estimate.uncertainty_ms)

    def fan_out(self, fan_out: FanOut) -> None:
        """Tell what went to the hosts, and what waits for them."""
        self._total("batches_sent", fan_out.batches)
        self._total("conflated", fan_out.conflated)
        self._set("queue_depth_count", fan_out.pending)
        for plane, hosts in (
            ("shm", fan_out.on_board),
            ("relay", fan_out.by_relay),
            ("ray", fan_out.by_calls),
        ):
            self._metrics.set("plane_hosts_count", hosts, venue=self._venue, plane=plane)
        self._metrics.set("plane_fallback_count", float(bool(fan_out.plane_why)))

    def _set(self, name: str, value: float) -> None:
        self._metrics.set(name, float(value), venue=self._venue)

    def _total(self, name: str, total: int) -> None:
        self._totals.tell(name, total, venue=self._venue)
