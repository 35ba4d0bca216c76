"""
Two columns of stamps that the processes of a run share: when an update was sent, when decided.

An update is a row. The load generator writes the first column, the one host that has the
update's symbol the second, both with the monotonic clock, which all processes of a machine have
in common. A stamp costs a store into mapped memory, so recording is no part of what it measures.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path

import msgspec

ROWS = 1 << 20
"""Updates of one cell, at most: 20,000 a second for 52 s."""

WORD = 8


class Column:
    """One int64 a row, in a file that is mapped; 0 where nothing was written."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            with path.open("wb") as file:
                file.truncate(ROWS * WORD)
        with path.open("r+b") as file:
            self._mapped = mmap.mmap(file.fileno(), ROWS * WORD)
        self.rows = memoryview(self._mapped).cast("q")

    def clear(self, count: int) -> None:
        """Forget the first ``count`` rows."""
        self.rows[:count] = memoryview(bytes(count * WORD)).cast("q")


class Tables:
    """Both columns of a run's folder."""

    def __init__(self, folder: Path) -> None:
        self.sent = Column(folder / "sent")
        self.decided = Column(folder / "decided")

    def clear(self, count: int) -> None:
        """Begin a cell of ``count`` updates."""
        assert 0 < count <= ROWS
        self.sent.clear(count)
        self.decided.clear(count)

    def latencies_ns(self, first: int, count: int) -> tuple[list[int], int]:
        """Return the sorted times of what was decided among the rows, and how many were sent."""
        sent = self.sent.rows[first : first + count].tolist()
        decided = self.decided.rows[first : first + count].tolist()
        took = sorted(d - s for s, d in zip(sent, decided, strict=True) if s and d)
        return took, sum(1 for s in sent if s)


class Spread(msgspec.Struct, frozen=True):
    """Percentiles, ms."""

    p50_ms: float
    p99_ms: float
    p999_ms: float
    most_ms: float


def spread(sorted_ns: Sequence[int]) -> Spread:
    """Return the percentiles of sorted times; infinite where nothing was decided."""
    if not sorted_ns:
        return Spread(*[float("inf")] * 4)
    last = len(sorted_ns) - 1
    at = (0.5, 0.99, 0.999, 1.0)
    return Spread(
        *(round(sorted_ns[min(last, int(share * len(sorted_ns)))] / 1e6, 4) for share in at)
    )
