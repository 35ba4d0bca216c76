"""
What one turn of the event loop read from a venue's sockets: the newest frame of each book.

A feed that is slower than its socket would else work through an ever older backlog, frame by
frame. A frame that holds all of what it tells of (a bookTicker, a partial depth, a whole book) is
overwritten by the next of its kind on the same connection, before anything is parsed; everything
else, diffs above all, is kept and keeps its order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

FRAMES_MAX = 4_096
"""Frames that wait for the end of the turn; at the bound they are worked off at once."""


class TakenFrame(msgspec.Struct, frozen=True):
    """A frame as it left the socket, and how many of its kind it overwrote."""

    plan: int
    connection: int
    raw: bytes
    recv_wall_ns: int
    recv_mono_ns: int
    overwrote: int = 0


class FrameIntake:
    """
    Holds frames between two turns. Bounded by ``FRAMES_MAX``.

    Args:
        book_of: Returns what a frame tells the whole of, or None where an older one still counts.
    """

    def __init__(self, book_of: Callable[[bytes], bytes | None]) -> None:
        self.conflated = 0
        self._book_of = book_of
        self._kept = 0  # frames that nothing overwrites; numbers them
        self._frames: dict[tuple[int, bytes | None], TakenFrame] = {}

    def put(
        self, plan: int, connection: int, raw: bytes, recv_wall_ns: int, recv_mono_ns: int
    ) -> None:
        """Take a frame; it stands behind all others, also where it overwrites one."""
        book = self._book_of(raw)
        overwrote = 0
        if book is None:
            self._kept += 1
            key: tuple[int, bytes | None] = (self._kept, None)
        else:
            key = (connection, book)
            before = self._frames.pop(key, None)
            if before is not None:
                overwrote = before.overwrote + 1
                self.conflated += 1
        self._frames[key] = TakenFrame(plan, connection, raw, recv_wall_ns, recv_mono_ns, overwrote)

    @property
    def waiting(self) -> int:
        """How many frames wait."""
        return len(self._frames)

    def take(self) -> Iterable[TakenFrame]:
        """Hand over what waits, in order."""
        taken, self._frames = self._frames, {}
        return taken.values()
