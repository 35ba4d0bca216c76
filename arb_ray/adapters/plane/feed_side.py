"""A feed's end of the plane: its board, and the bells of the hosts that live on this node."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from arb_ray.adapters.plane import segments
from arb_ray.adapters.plane.bells import BellRope
from arb_ray.adapters.plane.board import BoardWriter
from arb_ray.adapters.plane.layout import SCHEMA, WORD, Layout
from arb_ray.domain.board import BoardBook, Pulse
from arb_ray.domain.book import FundingUpdate
from arb_ray.domain.errors import PlaneUnavailable
from arb_ray.domain.instrument import InstrumentId

FUNDING = "funding "
"""Before an instrument's id in the key of its funding."""

HEAD_BYTES = 72
"""A packed book without levels, rounded up: five integers and the headers of its lists."""

LEVEL_BYTES = 19
"""A packed level: two float64 and three headers."""

PULSE_BYTES = 16_384
"""Room for more than 256 connections."""

FUNDING_BYTES = 256


def board_layout(instruments: int, levels: int) -> Layout:
    """Return the sizes for so many instruments, each with a book and funding."""
    slot_bytes = max(FUNDING_BYTES, HEAD_BYTES + 2 * levels * LEVEL_BYTES)
    return Layout(2 * max(instruments, 1) + 1, -(-slot_bytes // WORD) * WORD, PULSE_BYTES)


class FeedBoard:
    """
    The newest books of one feed on one node; implements ``ports.BookBoard``.

    ``clipped`` counts books whose deepest levels found no room, which a board that was made for
    the feed's own depth has always.

    Raises PlaneUnavailable when there is no shared memory to be had.
    """

    def __init__(self, folder: Path, feed: str, epoch: int, layout: Layout) -> None:
        self.clipped = 0
        self._folder = folder
        segments.remove_stale(folder.parent.parent)
        path = folder / f"{segments.file_name(feed)}-{epoch}.board"
        self._segment = segments.create(path, layout.size)
        self._board = BoardWriter(self._segment.fd, layout, epoch)
        self._ropes: dict[str, BellRope] = {}
        self._missed: dict[str, BellRope] = {}
        self._encode = msgspec.msgpack.Encoder().encode

    def reach(self, host: str) -> str:
        """Find a host's bell; return why it cannot be rung, or nothing when it can."""
        rope = self._ropes.get(host)
        if rope is not None:
            if rope.is_answered:
                return ""
            self.leave(host)
        try:
            rope = BellRope(self._folder, host)
        except PlaneUnavailable as error:
            return error.problem
        if rope.schema == SCHEMA and rope.is_answered:
            self._ropes[host] = rope
            return ""
        rope.close()
        if rope.schema != SCHEMA:
            return f"{host} reads boards of schema {rope.schema}, and this feed writes {SCHEMA}"
        return f"{host} does not run"

    def leave(self, host: str) -> None:
        """Ring a host no more."""
        self._missed.pop(host, None)
        rope = self._ropes.pop(host, None)
        if rope is not None:
            rope.close()

    def put_pulse(self, pulse: Pulse) -> None:
        """Replace what is told of the feed."""
        self._board.put(0, self._encode(pulse))

    def put_book(self, instrument: InstrumentId, book: BoardBook) -> None:
        """Replace an instrument's book."""
        board = self._board
        value = self._encode(book)
        if len(value) > board.layout.slot_bytes:
            value = self._clip(book)
        board.put(board.slot(instrument), value)

    def put_funding(self, funding: FundingUpdate) -> None:
        """Replace an instrument's funding."""
        board = self._board
        board.put(board.slot(FUNDING + funding.instrument), self._encode(funding))

    def ring(self, hosts: Iterable[str], now_mono_ns: int) -> bool:
        """Wake those who sleep; return whether ``ring_missed`` has something to do soon."""
        ropes, missed = self._ropes, self._missed
        for host in hosts:
            rope = ropes.get(host)
            if rope is not None and rope.ring(now_mono_ns):
                missed[host] = rope
        return bool(missed)

    def ring_missed(self, now_mono_ns: int) -> bool:
        """Wake who fell asleep over what was published; return whether one is still awake."""
        missed = self._missed
        for host in [host for host, rope in missed.items() if not rope.ring_if_missed(now_mono_ns)]:
            del missed[host]
        return bool(missed)

    def close(self) -> None:
        """Take the board away."""
        for host in list(self._ropes):
            self.leave(host)
        self._board.close()
        self._segment.close()

    def _clip(self, book: BoardBook) -> bytes:
        self.clipped += 1
        levels = (self._board.layout.slot_bytes - HEAD_BYTES) // (2 * LEVEL_BYTES)
        cut = msgspec.structs.replace(book, bids=book.bids[:levels], asks=book.asks[:levels])
        return self._encode(cut)
