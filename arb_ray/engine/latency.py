"""A bounded histogram of durations: a few hundred counters, mergeable, no samples kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

_BASE_NS = 1_000  # the first bucket ends at 1 us
_GROWTH = 1.05  # so a quantile is right within 5 %
_BUCKETS = 400  # 1 us * 1.05**400 is about five minutes; what is longer counts in the last
_LOG_GROWTH = math.log(_GROWTH)


class LatencyHistogram:
    """Counts of durations in buckets that grow by 5 %."""

    __slots__ = ("_counts", "count", "max_ns")

    def __init__(self) -> None:
        self._counts = [0] * (_BUCKETS + 1)
        self.count = 0
        self.max_ns = 0

    def add(self, duration_ns: int, times: int = 1) -> None:
        """Count a duration (ns); one below the first bucket counts in it."""
        index = 0
        if duration_ns > _BASE_NS:
            index = min(int(math.log(duration_ns / _BASE_NS) / _LOG_GROWTH) + 1, _BUCKETS)
        self._counts[index] += times
        self.count += times
        self.max_ns = max(self.max_ns, duration_ns)

    def merge(self, counts: Mapping[int, int], max_ns: int) -> None:
        """Add another histogram's ``sparse`` counts to this one."""
        for index, times in counts.items():
            self._counts[index] += times
            self.count += times
        self.max_ns = max(self.max_ns, max_ns)

    def sparse(self) -> dict[int, int]:
        """Return the non-empty buckets, to be sent and merged elsewhere."""
        return {index: times for index, times in enumerate(self._counts) if times}

    def quantile_ms(self, share: float) -> float:
        """Return the duration below which ``share`` of all lie, ms; 0 when empty."""
        if not self.count:
            return 0.0
        rank = share * self.count
        seen = 0
        for index, times in enumerate(self._counts):
            seen += times
            if seen >= rank and times:
                upper_ns = _BASE_NS * _GROWTH**index
                return min(upper_ns, float(self.max_ns)) / 1e6
        return self.max_ns / 1e6

    def summary_ms(self, shares: Sequence[float] = (0.5, 0.99)) -> dict[str, float]:
        """Return quantiles and the maximum, ms, under the names p50, p99, max."""
        result = {f"p{share * 100:g}": round(self.quantile_ms(share), 3) for share in shares}
        result["max"] = round(self.max_ns / 1e6, 3)
        return result
