"""
How far the venue's clock is from ours, from the frames alone.

Every dated frame gives ``exchange stamp - receive time``, which is the offset less the
frame's latency. Latency is never negative, so the largest value seen is nearest the truth;
what it still lacks is the smallest latency.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import median

import msgspec

NS_PER_MS = 1_000_000
WINDOW_NS = 300 * 1_000_000_000
"""Clocks drift and are stepped; a maximum older than one to two windows is forgotten."""

STEP_NS = 100 * NS_PER_MS
"""Our wall clock has left the monotonic one by more than slewing does: somebody has set it."""

KEPT_SAMPLES = 1_024
"""Enough for a steady median; the oldest go first."""


class ClockEstimate(msgspec.Struct, frozen=True):
    """
    Venue clock minus ours.

    ``offset_ms`` is positive when our clock is behind. ``jitter_ms`` is the median latency
    above the fastest frame. ``uncertainty_ms`` says how far to doubt the offset: by the
    jitter, and without end while nothing dated has been seen. The fastest frame's own
    latency cannot be seen from here.
    """

    offset_ms: float
    jitter_ms: float
    uncertainty_ms: float
    samples: int


UNKNOWN = ClockEstimate(0.0, 0.0, math.inf, 0)


class ClockOffset:
    """A running estimate over the last one to two windows."""

    def __init__(self, window_ns: int = WINDOW_NS, kept_samples: int = KEPT_SAMPLES) -> None:
        self._window_ns = window_ns
        self._window_start_ns = 0
        self._best_ns: int | None = None  # of the window that is running
        self._previous_best_ns: int | None = None
        self._recent: deque[int] = deque(maxlen=kept_samples)
        self._samples = 0
        self._wall_ahead_ns: int | None = None  # our wall clock less our monotonic one

    def observe(self, exchange_ns: int, recv_ns: int, recv_mono_ns: int) -> None:
        """
        Take one dated frame.

        Args:
            exchange_ns: The venue's stamp, ns UTC by its clock.
            recv_ns: When it was received, ns UTC by ours.
            recv_mono_ns: The same instant on our monotonic clock.
        """
        if exchange_ns <= 0:
            return  # this stream carries no stamp
        self._forget_if_set(recv_ns - recv_mono_ns)
        if recv_ns - self._window_start_ns >= self._window_ns or recv_ns < self._window_start_ns:
            is_next = 0 <= recv_ns - self._window_start_ns < 2 * self._window_ns
            self._previous_best_ns = self._best_ns if is_next else None
            self._best_ns = None
            self._window_start_ns = recv_ns
        sample_ns = exchange_ns - recv_ns
        if self._best_ns is None or sample_ns > self._best_ns:
            self._best_ns = sample_ns
        self._recent.append(sample_ns)
        self._samples += 1

    def _forget_if_set(self, wall_ahead_ns: int) -> None:
        # A maximum by a clock that was off until now would stand for one to two windows.
        before_ns, self._wall_ahead_ns = self._wall_ahead_ns, wall_ahead_ns
        if before_ns is not None and abs(wall_ahead_ns - before_ns) > STEP_NS:
            self._best_ns = self._previous_best_ns = None
            self._recent.clear()

    def estimate(self) -> ClockEstimate:
        """Return the estimate; ``UNKNOWN`` before the first dated frame."""
        bests = [b for b in (self._best_ns, self._previous_best_ns) if b is not None]
        if not bests:
            return UNKNOWN
        best_ns = max(bests)
        jitter_ms = max(best_ns - median(self._recent), 0) / NS_PER_MS
        return ClockEstimate(
            offset_ms=best_ns / NS_PER_MS,
            jitter_ms=jitter_ms,
            uncertainty_ms=jitter_ms,
            samples=self._samples,
        )
