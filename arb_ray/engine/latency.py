"""A bounded histogram of durations: a few hundred counters, mergeable, no samples kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_BASE_BITS = 10  # the first bucket ends at 1,024 ns
_PART_BITS = 5  # each doubling has 32 buckets, so a quantile is right within 3.2 %
_DOUBLINGS = 28  # 1,024 ns * 2**28 is more than four minutes; what is longer counts in the last
_PARTS = 1 << _PART_BITS
_LAST = 1 + _DOUBLINGS * _PARTS


class LatencyHistogram:
    """
    Counts of durations, 32 buckets between one power of two and the next.

    One is added for every tick that was decided, so the bucket is found by shifting bits.
    """

    __slots__ = ("_counts", "count", "max_ns")

    def __init__(self) -> None:
        self._counts = [0] * (_LAST + 1)
        self.count = 0
        self.max_ns = 0

    def add(self, duration_ns: int, times: int = 1) -> None:
        """Count a duration (ns); one below the first bucket counts in it."""
        doubling = duration_ns.bit_length() - _BASE_BITS - 1
        if duration_ns <= 0 or doubling < 0:
            index = 0
        elif doubling >= _DOUBLINGS:
            index = _LAST
        else:
            # The leading bit and the next five: 32 to 63.
            index = (duration_ns >> (doubling + _BASE_BITS - _PART_BITS)) + doubling * _PARTS
            index -= _PARTS - 1
        self._counts[index] += times
        self.count += times
        if duration_ns > self.max_ns:  # noqa: PLR1730  # max() costs a call at every tick
            self.max_ns = duration_ns

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
                return min(upper_edge_ns(index), self.max_ns) / 1e6
        return self.max_ns / 1e6

    def summary_ms(self, shares: Sequence[float] = (0.5, 0.99)) -> dict[str, float]:
        """Return quantiles and the maximum, ms, under the names p50, p99, max."""
        result = {f"p{share * 100:g}": round(self.quantile_ms(share), 3) for share in shares}
        result["max"] = round(self.max_ns / 1e6, 3)
        return result


def upper_edge_ns(index: int) -> int:
    """Return where a bucket ends (ns)."""
    if not index:
        return 1 << _BASE_BITS
    doubling, part = divmod(index - 1, _PARTS)
    return (_PARTS + part + 1) << (doubling + _BASE_BITS - _PART_BITS)
