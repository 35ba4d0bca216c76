"""
A strategy host's end of the plane: every board on this node, and its own bell.

What it reads becomes the same ``TickBatch`` that Ray's plane brings, so a host does not know which
plane it is on.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from arb_ray.adapters.plane import bells, segments
from arb_ray.adapters.plane.bells import Bell
from arb_ray.adapters.plane.board import BoardReader, BoardUnknown, TornRead
from arb_ray.adapters.plane.feed_side import FUNDING
from arb_ray.domain.board import LINES_PER_LIFE, BoardBook, Pulse, line_of
from arb_ray.domain.book import SCHEMA, BookUpdate, ConnectionAlive, FundingUpdate, TickBatch
from arb_ray.domain.errors import BadInput
from arb_ray.domain.instrument import InstrumentId
from arb_ray.ports import Clock

BOARDS_MAX = 64
"""Boards read at once; a run has one a feed, and some of feeds that were replaced."""


class HostBoards:
    """
    Implements ``ports.TickSource``.

    ``missed`` counts books that were overwritten on the board before this host looked, since it
    first saw their instrument; ``torn``, copies that were refused; ``unknown``, boards of a schema
    that this version does not read.
    """

    def __init__(self, folder: Path, host: str, node: str, clock: Clock, log: Any) -> None:
        self.missed = self.unknown = 0
        self._torn_before = 0
        self._folder = folder
        self._host = host
        self._node = node
        self._clock = clock
        self._log = log
        self._watched: frozenset[InstrumentId] = frozenset()
        self._bell: Bell | None = None
        self._boards: dict[str, _Board] = {}
        self._refused: set[str] = set()
        self._seen_mtime_ns = -1

    @property
    def boards(self) -> int:
        """How many boards are read."""
        return len(self._boards)

    @property
    def torn(self) -> int:
        """How many copies were refused."""
        return self._torn_before + sum(one.reader.torn for one in self._boards.values())

    def open(self, born_ns: int) -> int:
        """Hang up the bell; return what becomes readable when it rings. Raises PlaneUnavailable."""
        segments.remove_stale(self._folder.parent.parent)
        self._bell = Bell(self._folder, self._host, born_ns)
        return self._bell.fileno()

    def neighbours(self) -> Sequence[str]:
        """Return the hosts that can be rung on this node, this one among them."""
        return bells.hosts_in(self._folder) if self._bell is not None else ()

    def watch(self, instruments: Iterable[InstrumentId]) -> None:
        """Read these from now on; what lies there of them counts as new."""
        self._watched = frozenset(instruments)
        for board in self._boards.values():
            board.forget()

    def hear(self) -> None:
        """Take up what was rung; nobody need ring until ``sleep``."""
        assert self._bell is not None, "open comes first"
        self._bell.wake()
        self._bell.hear()

    def wake(self) -> None:
        """Say that nobody need ring until ``sleep``."""
        assert self._bell is not None, "open comes first"
        self._bell.wake()

    def sleep(self, looked_mono_ns: int) -> None:
        """Ask to be rung for what comes; ``looked_mono_ns`` is when the last look began."""
        assert self._bell is not None, "open comes first"
        self._bell.sleep(looked_mono_ns)

    def look(self, *, is_all: bool = False) -> Sequence[TickBatch]:
        """
        Return what is new, one batch a feed.

        Args:
            is_all: Find boards that are new or gone, and trust no short cut.
        """
        if is_all:
            self._discover()
        batches: list[TickBatch] = []
        for board in self._boards.values():
            batch = board.read(self._watched, self._clock.mono_ns(), self._node, is_all=is_all)
            if batch is not None:
                batches.append(batch)
                self.missed += board.take_missed()
        return batches

    def close(self) -> None:
        """Take the bell down and let go of the boards."""
        for name in list(self._boards):
            self._drop(name)
        if self._bell is not None:
            self._bell.close()
            self._bell = None

    def _discover(self) -> None:
        try:
            mtime_ns = self._folder.stat().st_mtime_ns
            if mtime_ns == self._seen_mtime_ns:
                return
            names = {one.name for one in self._folder.iterdir() if one.suffix == ".board"}
        except OSError:
            return  # nobody has made the folder yet, or somebody cleans up
        self._seen_mtime_ns = mtime_ns
        self._refused &= names
        for name in [name for name in self._boards if name not in names]:
            self._drop(name)
        for name in sorted(names - self._boards.keys() - self._refused):
            if len(self._boards) < BOARDS_MAX:
                self._attach(name)

    def _attach(self, name: str) -> None:
        try:
            fd = os.open(self._folder / name, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:
            self._seen_mtime_ns = -1
            return
        try:
            self._boards[name] = _Board(BoardReader(fd))
        except BoardUnknown as error:
            self.unknown += 1
            self._refused.add(name)
            self._log.warning("plane_schema_unknown", board=name, cause=error.problem)
        except BadInput:
            self._seen_mtime_ns = -1  # its maker has not finished it; the next look finds it
        finally:
            os.close(fd)

    def _drop(self, name: str) -> None:
        reader = self._boards.pop(name).reader
        self._torn_before += reader.torn
        reader.close()


class _Board:
    """One board, and how far this host has read it."""

    def __init__(self, reader: BoardReader) -> None:
        self.reader = reader
        self._missed = 0
        self._decode_pulse = msgspec.msgpack.Decoder(Pulse).decode
        self._decode_book = msgspec.msgpack.Decoder(BoardBook).decode
        self._decode_funding = msgspec.msgpack.Decoder(FundingUpdate).decode
        self._lives: dict[int, int] = {}
        self._lines: dict[int, None] = {}  # told of as up
        self._pulse: Pulse | None = None
        self._again: set[int] = set()
        self.forget()

    def forget(self) -> None:
        """Read everything anew."""
        self._keys = 1
        self._pulse_version = 0
        self._mine: dict[int, InstrumentId] = {}
        self._funding: frozenset[int] = frozenset()
        self._slots = frozenset({0})
        self._versions: dict[int, int] = {}

    def take_missed(self) -> int:
        """Return what was missed since the last call."""
        missed, self._missed = self._missed, 0
        return missed

    def read(
        self, watched: frozenset[InstrumentId], now_ns: int, node: str, *, is_all: bool
    ) -> TickBatch | None:
        """Return what is new, or None."""
        if self.reader.is_quiet and not (is_all or self._again):
            return None
        if self.reader.key_count != self._keys:
            is_all = self._learn_keys(watched) or is_all
        slots = self.reader.written_since(self._slots, is_all=is_all)
        if self._again:
            slots = slots | self._again
            self._again = set()
        if not slots:
            return None
        alive: list[ConnectionAlive] = []
        if 0 in slots:
            slots = slots - {0}
            alive = self._read_pulse(now_ns)
        if self._pulse is None:
            self._again |= slots
            return None
        updates: list[BookUpdate] = []
        funding: list[FundingUpdate] = []
        for slot in sorted(slots):  # in one order, so that a replay in lock-step repeats itself
            value = self._take(slot)
            if value is None:
                continue
            if slot in self._funding:
                funding.append(self._decode_funding(value))
            else:
                updates.append(self._update(slot, self._decode_book(value), alive, now_ns))
        if not (alive or updates or funding):
            return None
        pulse = self._pulse
        return TickBatch(
            SCHEMA,
            pulse.feed,
            pulse.feed_epoch,
            node,
            now_ns,
            pulse.clock_offset_ms,
            pulse.clock_skew_ms,
            tuple(alive),
            tuple(updates),
            tuple(funding),
        )

    def _learn_keys(self, watched: frozenset[InstrumentId]) -> bool:
        count = self.reader.key_count
        funding = set(self._funding)
        for slot in range(self._keys, count):
            key = self.reader.key(slot)
            instrument = InstrumentId(key.removeprefix(FUNDING))
            if instrument in watched:
                self._mine[slot] = instrument
                if key.startswith(FUNDING):
                    funding.add(slot)
        is_more = count > self._keys
        self._keys, self._funding = count, frozenset(funding)
        self._slots = frozenset({0, *self._mine})
        return is_more

    def _take(self, slot: int) -> bytes | None:
        before = self._versions.get(slot, 0)
        try:
            got = self.reader.read(slot, before)
        except TornRead:
            self._again.add(slot)
            return None
        if got is None:
            return None
        version, value = got
        self._versions[slot] = version
        if before and slot in self._mine and slot not in self._funding:
            self._missed += version - before - 1
        return value

    def _read_pulse(self, now_ns: int) -> list[ConnectionAlive]:
        value = self._take(0)
        if value is None:
            return []
        pulse = self._pulse = self._decode_pulse(value)
        alive: list[ConnectionAlive] = []
        for line in pulse.lines:
            if line.life > self._lives.get(line.connection, -1):
                self._lives[line.connection] = line.life
                alive += [self._cut(one) for one in self._former(line.connection, line.life)]
            if line.is_up:
                number = line_of(line.connection, line.life)
                self._lines[number] = None
                alive.append(ConnectionAlive(number, max(0, now_ns - line.alive_mono_ns), True))
        return alive

    def _former(self, connection: int, life: int) -> list[int]:
        return [
            line
            for line in self._lines
            if line % LINES_PER_LIFE == connection and line // LINES_PER_LIFE < life
        ]

    def _cut(self, line: int) -> ConnectionAlive:
        self._lines.pop(line, None)
        return ConnectionAlive(line, 0, False)

    def _update(
        self, slot: int, book: BoardBook, alive: list[ConnectionAlive], now_ns: int
    ) -> BookUpdate:
        life, connection = divmod(book.line, LINES_PER_LIFE)
        if life < self._lives.get(connection, 0):
            # From before a cut that a host which started later was never told of.
            alive.append(self._cut(book.line))
        else:
            self._lines[book.line] = None
        assert self._pulse is not None
        return BookUpdate(
            self._mine[slot],
            self._pulse.feed_epoch,
            book.seq,
            book.line,
            book.recv_ns,
            book.exchange_ns,
            max(0, now_ns - book.recv_mono_ns),
            book.bids,
            book.asks,
        )
