"""
Where everything lies on a board: offsets and sizes, and the integer that names this layout.

A board is one file. It has a header, the keys in the order in which they were first written, a
version a slot, a ring of the slots that were written last, and the slots. A slot has two
buffers, and the writer fills the one that nobody is sent to: a writer that dies in the middle
leaves the version before as it was.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

SCHEMA: Final = 1
"""Of the layout and of what lies in it; who knows another one keeps away."""

MAGIC: Final = 0x4152425F52415931  # "ARB_RAY1"

WORD: Final = 8
HEADER_WORDS: Final = 16
"""Eight are used; the rest is zero."""

# Words of the header.
W_MAGIC, W_SCHEMA, W_SLOTS, W_SLOT_BYTES, W_FIRST_BYTES, W_KEYS, W_HEAD, W_EPOCH = range(8)

KEY_BYTES: Final = 128
"""A key's text in UTF-8 with two bytes of length before it."""

RING: Final = 4_096
"""Slot numbers remembered; a reader that is further behind looks at all of its slots."""

BUFFER = struct.Struct("=QII")
"""Before each buffer: its version, the length of what follows, the checksum of both."""

MAX_SLOTS: Final = 65_536
MAX_SLOT_BYTES: Final = 1 << 20


class Layout(msgspec.Struct, frozen=True):
    """
    Sizes of one board, and what follows from them. Offsets are in bytes.

    Slot 0 is apart: it holds what is told of the feed as a whole, and has room of its own.
    """

    slots: int
    slot_bytes: int  # most bytes of a value, a multiple of 8
    first_bytes: int  # the same of slot 0

    def __post_init__(self) -> None:
        assert 1 < self.slots <= MAX_SLOTS
        for size in (self.slot_bytes, self.first_bytes):
            assert 0 < size <= MAX_SLOT_BYTES
            assert size % WORD == 0

    @property
    def keys_at(self) -> int:
        """Where the keys begin."""
        return HEADER_WORDS * WORD

    @property
    def versions_at(self) -> int:
        """Where the versions begin: one word a slot."""
        return self.keys_at + self.slots * KEY_BYTES

    @property
    def ring_at(self) -> int:
        """Where the ring begins: half a word an entry."""
        return self.versions_at + self.slots * WORD

    @property
    def slots_at(self) -> int:
        """Where slot 0 begins."""
        return self.ring_at + RING * WORD // 2

    def room(self, slot: int) -> int:
        """Return the most bytes of a value of this slot."""
        return self.slot_bytes if slot else self.first_bytes

    def slot_at(self, slot: int) -> int:
        """Return where a slot begins: the version under way, then its two buffers."""
        if not slot:
            return self.slots_at
        whole = WORD + 2 * (BUFFER.size + self.first_bytes)
        return self.slots_at + whole + (slot - 1) * (WORD + 2 * (BUFFER.size + self.slot_bytes))

    def places(self) -> list[tuple[int, int, int]]:
        """Return of each slot the word of its version under way, and where its buffers begin."""
        places = []
        for slot in range(self.slots):
            at = self.slot_at(slot)
            first = at + WORD
            places.append((at // WORD, first, first + BUFFER.size + self.room(slot)))
        return places

    @property
    def size(self) -> int:
        """The whole board."""
        return self.slot_at(self.slots)
