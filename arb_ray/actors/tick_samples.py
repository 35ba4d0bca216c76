"""How long ticks take, sampled: a histogram costs too much to observe for each of them."""

from __future__ import annotations

from arb_ray.engine.market_view import LiveBook
from arb_ray.ports import Metrics

SAMPLE_INTERVAL_NS = 100_000_000
"""At most ten samples a second and host, however many batches arrive."""

NS_PER_MS = 1e6


class TickSamples:
    """Observes one book of one batch in each interval."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.due_ns = -(2**63)  # the first batch is sampled, whatever its clock shows

    def take(self, book: LiveBook, arrived_mono_ns: int, done_mono_ns: int) -> None:
        """Take a book of a batch that arrived, and was looked at until ``done_mono_ns``."""
        if done_mono_ns < self.due_ns:
            return
        self.due_ns = done_mono_ns + SAMPLE_INTERVAL_NS
        queued_ms = (arrived_mono_ns - book.recv_mono_ns) / NS_PER_MS
        self._metrics.observe("queue_latency_ms", max(0.0, queued_ms))
        if book.is_read:
            taken_ms = (done_mono_ns - book.recv_mono_ns) / NS_PER_MS
            self._metrics.observe("tick_to_decision_ms", max(0.0, taken_ms))
