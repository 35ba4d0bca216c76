"""
A board: the newest value of each key, in memory that one process writes and many read.

Why a torn read is impossible. The writer announces a version, fills the buffer that readers are
not sent to, and only then publishes it. A reader copies the buffer of the published version and
takes it when (a) the buffer says that it is that version, (b) no version was announced since that
would fill the same buffer, and (c) the checksum over version and value is right. (a) and (b) are
enough where stores are seen in their order (x86); (c) also where they are not, and against a
writer that does as it likes. What is refused is read again, and left for later after a few
attempts. Readers map the board read-only and leave no trace on it, so a reader that is dead or
frozen costs the writer nothing.
"""

from __future__ import annotations

import mmap
import os
from zlib import crc32

from arb_ray.adapters.plane.layout import (
    BUFFER,
    KEY_BYTES,
    MAGIC,
    MAX_SLOT_BYTES,
    MAX_SLOTS,
    RING,
    SCHEMA,
    W_EPOCH,
    W_FIRST_BYTES,
    W_HEAD,
    W_KEYS,
    W_MAGIC,
    W_SCHEMA,
    W_SLOT_BYTES,
    W_SLOTS,
    WORD,
    Layout,
)
from arb_ray.domain.errors import BadInput

READ_ATTEMPTS = 8
"""A writer would have to write one slot twice during each of them."""

_LOW_BITS = 0xFFFF_FFFF
_UNKNOWN_HEAD = -1
_NOTHING: frozenset[int] = frozenset()
_BUFFER_BYTES = BUFFER.size
_pack, _unpack = BUFFER.pack_into, BUFFER.unpack_from


class BoardWriter:
    """The one who writes. ``fd`` is of a file of ``layout.size`` bytes, all zero."""

    def __init__(self, fd: int, layout: Layout, epoch: int) -> None:
        self.layout = layout
        self._map = mmap.mmap(fd, layout.size)
        self._view = memoryview(self._map)
        end = layout.slot_at(1)
        assert end % WORD == 0
        self._words = self._view[: layout.size // WORD * WORD].cast("Q")
        self._ring = self._view[layout.ring_at : layout.slots_at].cast("I")
        self._versions_at = layout.versions_at // WORD
        self._head = 0
        self._slot_bytes, self._first_bytes = layout.slot_bytes, layout.first_bytes
        self._versions = [0] * layout.slots
        self._places = layout.places()
        self._slots: dict[str, int] = {}
        for word, value in (
            (W_SCHEMA, SCHEMA),
            (W_SLOTS, layout.slots),
            (W_SLOT_BYTES, layout.slot_bytes),
            (W_FIRST_BYTES, layout.first_bytes),
            (W_EPOCH, epoch),
            (W_MAGIC, MAGIC),  # last: a board without it is not ready
        ):
            self._words[word] = value
        self.slot("")

    def slot(self, key: str) -> int:
        """Return the slot of a key; it is given one at first. Raises BadInput past the bound."""
        known = self._slots.get(key)
        if known is not None:
            return known
        number, text = len(self._slots), key.encode()
        if number == self.layout.slots or len(text) > KEY_BYTES - 2:
            problem = f"a board of {self.layout.slots} slots has no room for {key[:200]!r}"
            raise BadInput("tick plane", problem, "Take fewer instruments, or the plane ray")
        at = self.layout.keys_at + number * KEY_BYTES
        self._view[at : at + 2 + len(text)] = len(text).to_bytes(2, "little") + text
        self._slots[key] = number
        self._words[W_KEYS] = number + 1
        return number

    def put(self, slot: int, value: bytes) -> None:
        """Replace a slot's value, which fits ``layout.room(slot)``."""
        size = len(value)
        assert size <= (self._slot_bytes if slot else self._first_bytes), "the caller makes it fit"
        version = self._versions[slot] + 1
        self._versions[slot] = version
        place = self._places[slot]
        words = self._words
        words[place[0]] = version
        buffer_at = place[1 + (version & 1)]
        checksum = crc32(value, version & _LOW_BITS)
        _pack(self._map, buffer_at, version, size, checksum)
        start = buffer_at + _BUFFER_BYTES
        self._view[start : start + size] = value
        words[self._versions_at + slot] = version
        head = self._head
        self._ring[head % RING] = slot
        self._head = words[W_HEAD] = head + 1

    def close(self) -> None:
        """Let go of the memory; the file is its owner's."""
        for view in (self._words, self._ring, self._view):
            view.release()
        self._map.close()


class BoardReader:
    """
    One who reads. ``torn`` counts the copies that were refused.

    Raises BadInput for what is no board, BoardUnknown for one of another schema.
    """

    def __init__(self, fd: int) -> None:
        self._map, layout = _open(fd)
        self.layout = layout
        self.torn = 0
        self._view = memoryview(self._map)
        self._words = self._view[: layout.size // WORD * WORD].cast("Q")
        self._ring = self._view[layout.ring_at : layout.slots_at].cast("I")
        self._versions_at = layout.versions_at // WORD
        self._seen_head = _UNKNOWN_HEAD
        self._places = layout.places()
        self._slot_bytes, self._first_bytes = layout.slot_bytes, layout.first_bytes
        self.epoch = self._words[W_EPOCH]

    @property
    def key_count(self) -> int:
        """How many keys there are; it only grows."""
        return min(self._words[W_KEYS], self.layout.slots)

    def key(self, slot: int) -> str:
        """Return a key that exists."""
        at = self.layout.keys_at + slot * KEY_BYTES
        size = int.from_bytes(self._view[at : at + 2], "little")
        return bytes(self._view[at + 2 : at + 2 + size]).decode()

    @property
    def is_quiet(self) -> bool:
        """Whether nothing was written since ``written_since`` was asked last."""
        return self._words[W_HEAD] == self._seen_head

    def written_since(self, mine: frozenset[int], *, is_all: bool = False) -> frozenset[int]:
        """
        Return those of ``mine`` that may have been written since the last call.

        With ``is_all``, all of them. The ring is a short cut: where stores are seen out of order
        it may hide a slot for a moment, so ask so now and then.
        """
        before, head = self._seen_head, self._words[W_HEAD]
        self._seen_head = head
        count = head - before
        if is_all or before == _UNKNOWN_HEAD or not 0 <= count <= RING // 2:
            return mine
        if count == 0:
            return _NOTHING
        start, end = before % RING, head % RING
        if start < end:
            return mine.intersection(self._ring[start:end])
        return mine.intersection((*self._ring[start:], *self._ring[:end]))

    def read(self, slot: int, known: int = 0) -> tuple[int, bytes] | None:
        """
        Return ``(version, value)``, or None where the version is ``known``.

        Raises TornRead when the writer left no quiet moment; nothing was taken then.
        """
        words, version_at = self._words, self._versions_at + slot
        place = self._places[slot]
        room = self._slot_bytes if slot else self._first_bytes
        for _ in range(READ_ATTEMPTS):
            version = words[version_at]
            if version == known:
                return None
            buffer_at = place[1 + (version & 1)]
            its_version, size, checksum = _unpack(self._map, buffer_at)
            if its_version == version and size <= room:
                start = buffer_at + _BUFFER_BYTES
                value = self._map[start : start + size]
                is_untouched = words[place[0]] - version < 2
                if is_untouched and crc32(value, version & _LOW_BITS) == checksum:
                    return version, value
            self.torn += 1
        raise TornRead(slot)

    def close(self) -> None:
        """Let go of the memory."""
        for view in (self._words, self._ring, self._view):
            view.release()
        self._map.close()


class TornRead(Exception):
    """A slot was written all the time; look again later. Never leaves the plane."""


class BoardUnknown(BadInput):
    """A board of another version of arb_ray: its layout is not guessed at."""


def _open(fd: int) -> tuple[mmap.mmap, Layout]:
    size = os.fstat(fd).st_size
    if size < W_EPOCH * WORD + WORD:
        raise BadInput("tick plane", f"{size} bytes are no board", "It is left alone")
    memory = mmap.mmap(fd, size, prot=mmap.PROT_READ)
    with memoryview(memory) as view, view[: size // WORD * WORD].cast("Q") as words:
        magic, schema = words[W_MAGIC], words[W_SCHEMA]
        sizes = (words[W_SLOTS], words[W_SLOT_BYTES], words[W_FIRST_BYTES])
    if magic == MAGIC and schema != SCHEMA:
        memory.close()
        problem = f"a board has schema {schema}, and this version reads {SCHEMA}"
        raise BoardUnknown("tick plane", problem, "Its feed must use Ray's plane for this host")
    layout = _layout(*sizes)
    if magic != MAGIC or layout is None or layout.size > size:
        memory.close()
        raise BadInput("tick plane", f"{size} bytes that are no board", "They are left alone")
    return memory, layout


def _layout(slots: int, slot_bytes: int, first_bytes: int) -> Layout | None:
    is_sound = 1 < slots <= MAX_SLOTS and all(
        0 < size <= MAX_SLOT_BYTES and size % WORD == 0 for size in (slot_bytes, first_bytes)
    )
    return Layout(slots, slot_bytes, first_bytes) if is_sound else None
