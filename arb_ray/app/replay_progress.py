"""
How far each worker of a sharded replay has come, in memory that all of them share.

A *point* is a part of an instant of the recording, as one number that grows with both. A worker's
point says that whatever it asks for next comes there or later. It is written at every frame, which
costs a tenth of a microsecond; a message is sent only by who passes what somebody waits for.
"""

from __future__ import annotations

import mmap
from enum import IntEnum
from typing import Final

RISK: Final = frozenset({"reserve", "settle", "mark", "free"})
IN_ORDER: Final = RISK | {"post", "balances"}
"""Calls whose result depends on what other symbols did before; all others commute."""


class Part(IntEnum):
    """
    The parts of one instant, in the order in which one process does them.

    Within a part it is worker by worker, which is the order of the symbols.
    """

    WAKE = 0  # sleepers whose time has come
    MARK = 1  # a sweep: all marks,
    LEARN = 2  # then what the guard makes of them,
    LOOK = 3  # then a look at every symbol
    FRAME = 4


PART_BITS = 3
CELL_BYTES = 8
"""A point is below 2**63 for thirty years; eight aligned bytes are written at once."""


class Progresses:
    """
    A cell for each worker, and one for the point that is waited for.

    Made before the workers are forked. Each cell has one writer.
    """

    def __init__(self, start_ns: int, workers: int) -> None:
        self._start_ns = start_ns
        self._wanted_at = workers
        self._memory = mmap.mmap(-1, (workers + 1) * CELL_BYTES)
        self._cells = memoryview(self._memory).cast("q")
        self._told = 0  # of this process: the wish that it has answered

    def point(self, at_ns: int, part: Part) -> int:
        """Return an instant's part as one number; none is 0."""
        return (at_ns - self._start_ns + 1) << PART_BITS | part

    def at_ns(self, point: int) -> int:
        """Return the instant of a point."""
        return self._start_ns + (point >> PART_BITS) - 1

    def reach(self, worker: int, at_ns: int, part: Part) -> bool:
        """Write how far a worker is; tell whether it must say so, because it is waited for."""
        point = (at_ns - self._start_ns + 1) << PART_BITS | part
        cells = self._cells
        cells[worker] = point
        wanted = cells[self._wanted_at]
        # A wish that is written at this very moment may be missed: the next frame sees it, and a
        # worker that has no next frame sends a message anyway.
        if not wanted or point < wanted or wanted == self._told:
            return False
        if point > wanted:  # equal is far enough for those who come before it within a part
            self._told = wanted
        return True

    def of(self, worker: int) -> int:
        """Return how far a worker is."""
        return self._cells[worker]

    def want(self, point: int) -> None:
        """Ask every worker to say when it comes to this point; 0: nobody need say anything."""
        self._cells[self._wanted_at] = point
