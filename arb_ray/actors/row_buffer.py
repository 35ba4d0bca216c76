"""Rows on their way to PostgreSQL, in order, with their bytes counted."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from arb_ray.actors.wire import pack
from arb_ray.ports import Snapshot

ROW_BYTES = 150
"""What a row costs beside its payload: names, stamps, and the object that holds them."""


def size_bytes(row: Snapshot) -> int:
    """Return about what an encoded row weighs; text of ours is nearly all ASCII."""
    assert isinstance(row.payload, str), "a row is encoded before it is weighed"
    return ROW_BYTES + len(row.payload)


class RowBuffer:
    """Encoded rows, oldest first. Who fills it sees to its bounds."""

    def __init__(self) -> None:
        self._rows: deque[tuple[int, Snapshot]] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def size_bytes(self) -> int:
        """About what all rows weigh."""
        return self._bytes

    def extend(self, rows: Sequence[tuple[int, Snapshot]]) -> None:
        """Add rows at the end, each with its weight."""
        self._rows.extend(rows)
        self._bytes += sum(size for size, _ in rows)

    def take(self, rows_max: int, bytes_max: int) -> tuple[Snapshot, ...]:
        """Take the oldest rows within both bounds; at least one if there is any."""
        taken: list[Snapshot] = []
        weight = 0
        while self._rows and len(taken) < rows_max:
            if taken and weight + self._rows[0][0] > bytes_max:
                break
            size, row = self._rows.popleft()
            taken.append(row)
            weight += size
        self._bytes -= weight
        return tuple(taken)


def encode_rows(rows: Sequence[Snapshot]) -> bytes:
    """Encode snapshots for ``Persistence.put``."""
    return pack([row.encoded() for row in rows])
