"""Boards in real shared memory: whole values only, whatever the writer does or stops doing."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from arb_ray.adapters.plane import board as module
from arb_ray.adapters.plane import segments
from arb_ray.adapters.plane.board import BoardReader, BoardUnknown, BoardWriter, TornRead
from arb_ray.adapters.plane.layout import (
    BUFFER,
    RING,
    W_MAGIC,
    W_SCHEMA,
    WORD,
    Layout,
)
from arb_ray.domain.errors import BadInput

LAYOUT = Layout(8, 4_096, 4_096)
ROOT = Path(__file__).resolve().parents[2]


class Board:
    """A board with its reader, in one process."""

    def __init__(self, folder, layout=LAYOUT):
        self.segment = segments.create(folder / "a.board", layout.size)
        self.writer = BoardWriter(self.segment.fd, layout, epoch=7)
        self.readers = []

    def reader(self):
        fd = os.open(self.segment.path, os.O_RDONLY)
        reader = BoardReader(fd)
        os.close(fd)
        self.readers.append(reader)
        return reader

    def close(self):
        for reader in self.readers:
            reader.close()
        self.writer.close()
        self.segment.close()


@pytest.fixture
def folder(tmp_path):
    return segments.run_folder(tmp_path, "test")


@pytest.fixture
def board(folder):
    board = Board(folder)
    yield board
    board.close()


def test_the_newest_value_of_a_key_is_read_with_how_often_it_was_written(board):
    reader, slot = board.reader(), board.writer.slot("upbit:BTC-KRW")
    assert reader.read(slot) is None
    board.writer.put(slot, b"one")
    assert reader.read(slot) == (1, b"one")
    board.writer.put(slot, b"another")
    board.writer.put(slot, b"third")
    assert reader.read(slot) == (3, b"third")
    assert reader.read(slot, known=3) is None
    assert (reader.key_count, reader.key(slot)) == (2, "upbit:BTC-KRW")
    assert reader.epoch == 7


def test_a_slot_holds_as_much_as_the_layout_says_and_a_full_board_says_so(board):
    for number in range(1, LAYOUT.slots):
        slot = board.writer.slot(f"k{number}")
        board.writer.put(slot, bytes([number]) * LAYOUT.slot_bytes)
    reader = board.reader()
    for slot in range(1, LAYOUT.slots):
        assert reader.read(slot) == (1, bytes([slot]) * LAYOUT.slot_bytes)
    with pytest.raises(BadInput, match="no room"):
        board.writer.slot("one more")
    assert board.writer.slot("k3") == 3


def test_only_what_was_written_is_looked_at_again(board):
    reader, writer = board.reader(), board.writer
    slots = [writer.slot(f"k{n}") for n in range(5)]
    mine = frozenset(slots[:4])
    assert reader.written_since(mine) == mine  # the first time it knows nothing
    assert not reader.written_since(mine)
    writer.put(slots[1], b"x")
    writer.put(slots[4], b"x")
    assert set(reader.written_since(mine)) == {slots[1]}
    assert not reader.written_since(mine)
    assert reader.written_since(mine, is_all=True) == mine


@pytest.mark.parametrize("behind", [1, RING // 2, RING // 2 + 1, RING, 3 * RING + 5])
def test_no_write_is_overlooked_however_far_a_reader_is_behind(board, behind):
    reader, writer = board.reader(), board.writer
    slots = [writer.slot(f"k{n}") for n in range(3)]
    for _ in range(RING - 3):  # so that the ring wraps in between
        writer.put(slots[2], b"")
    mine = frozenset(slots)
    reader.written_since(mine)
    writer.put(slots[0], b"x")
    for _ in range(behind - 1):
        writer.put(slots[1], b"y")
    assert slots[0] in reader.written_since(mine)


def half_written(board, slot, value):
    """Stop a writer in the middle of a value: announced, half of it there, not published."""
    layout, memory = LAYOUT, board.writer._map
    words = memoryview(memory).cast("Q")
    version = board.writer._versions[slot] + 1
    at = layout.slot_at(slot)
    words[at // WORD] = version
    start = at + WORD + (version & 1) * (BUFFER.size + layout.room(slot))
    BUFFER.pack_into(memory, start, version, len(value), 0)
    memory[start + BUFFER.size : start + BUFFER.size + len(value) // 2] = value[: len(value) // 2]
    words.release()


def test_a_writer_that_stops_in_the_middle_leaves_the_value_before(board):
    reader, slot = board.reader(), board.writer.slot("k")
    for value in (b"first" * 100, b"second" * 100):
        board.writer.put(slot, value)
        half_written(board, slot, b"never" * 200)
        assert reader.read(slot)[1] == value
        assert not reader.torn


def test_a_value_that_was_published_before_it_was_whole_is_refused(board):
    """What a processor that reorders stores could show: the version first, the bytes later."""
    reader, slot = board.reader(), board.writer.slot("k")
    board.writer.put(slot, b"whole" * 10)
    half_written(board, slot, b"never" * 200)
    with memoryview(board.writer._map) as view, view.cast("Q") as words:
        words[LAYOUT.versions_at // WORD + slot] = 2
    with pytest.raises(TornRead):
        reader.read(slot)
    assert reader.torn == module.READ_ATTEMPTS


def test_a_buffer_that_is_being_filled_anew_is_not_trusted(board):
    reader, slot = board.reader(), board.writer.slot("k")
    board.writer.put(slot, b"a")
    with memoryview(board.writer._map) as view, view.cast("Q") as words:
        words[LAYOUT.slot_at(slot) // WORD] = 3  # two ahead: it goes into the same buffer
    with pytest.raises(TornRead):
        reader.read(slot)


def test_any_flipped_bit_of_a_value_is_noticed(board):
    reader, slot = board.reader(), board.writer.slot("k")
    value = bytes(range(64))
    board.writer.put(slot, value)
    at = LAYOUT.slot_at(slot) + WORD + BUFFER.size + LAYOUT.slot_bytes
    for offset in range(BUFFER.size + len(value)):
        for bit in range(8):
            board.writer._map[at + offset] ^= 1 << bit
            with pytest.raises(TornRead):
                reader.read(slot)
            board.writer._map[at + offset] ^= 1 << bit
    assert reader.read(slot) == (1, value)


@pytest.mark.parametrize(
    ("word", "value", "kind"), [(W_SCHEMA, 99, BoardUnknown), (W_MAGIC, 5, BadInput)]
)
def test_what_is_not_our_layout_is_refused_and_not_read(board, word, value, kind):
    with memoryview(board.writer._map) as view, view.cast("Q") as words:
        words[word] = value
    with pytest.raises(kind):
        board.reader()


def test_a_file_that_is_not_ready_or_cut_short_is_refused(folder):
    segment = segments.create(folder / "b.board", LAYOUT.size)
    with pytest.raises(BadInput):
        BoardReader(segment.fd)
    writer = BoardWriter(segment.fd, LAYOUT, 1)
    writer.close()
    os.ftruncate(segment.fd, LAYOUT.size // 2)
    with pytest.raises(BadInput):
        BoardReader(segment.fd)
    segment.close()


def test_a_reader_cannot_write(board):
    with pytest.raises(TypeError):
        board.reader()._map[0] = 1


HOSTILE = """
import os, sys
from pathlib import Path
from arb_ray.adapters.plane import segments
from arb_ray.adapters.plane.board import BoardWriter
from arb_ray.adapters.plane.layout import Layout
layout = Layout(8, 4096, 4096)
segment = segments.create(Path(sys.argv[1]), layout.size)
writer = BoardWriter(segment.fd, layout, 1)
slot = writer.slot("k")
values = [bytes([n]) * (8 + 37 * n % 4000) for n in range(256)]
n = 0
while True:
    n += 1
    writer.put(slot, values[n % 256])
"""


def is_empty(reader):
    with contextlib.suppress(TornRead):
        return reader.read(1) is None
    return True


def start_hostile(path):
    child = subprocess.Popen([sys.executable, "-c", HOSTILE, str(path)], cwd=ROOT)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            fd = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            time.sleep(0.005)
            continue
        try:
            reader = BoardReader(fd)
        except BadInput:
            continue
        finally:
            os.close(fd)
        while is_empty(reader):
            assert time.monotonic() < deadline
        return child, reader
    raise AssertionError("it never wrote")


def check(got):
    version, value = got
    kind = version % 256
    assert value == bytes([kind]) * (8 + 37 * kind % 4000)


def test_what_is_read_from_a_writer_that_never_rests_is_always_whole(folder):
    child, reader = start_hostile(folder / "hostile.board")
    try:
        versions = []
        for _ in range(60_000):
            with contextlib.suppress(TornRead):
                got = reader.read(1)
                check(got)
                versions.append(got[0])
        assert len(versions) > 1_000
        assert versions == sorted(versions)
        assert versions[-1] - versions[0] > 1_000, "it wrote while it was read"
    finally:
        child.kill()
        child.wait()
        reader.close()


@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL])
def test_a_writer_that_is_stopped_or_killed_anywhere_leaves_a_whole_value(folder, how):
    for attempt in range(8):
        path = folder / f"{attempt}.board"
        child, reader = start_hostile(path)
        try:
            time.sleep(0.003 * attempt)
            child.send_signal(how)
            if how == signal.SIGKILL:
                child.wait()
            else:
                os.waitid(os.P_PID, child.pid, os.WSTOPPED)
            check(reader.read(1))
            check(reader.read(1))
        finally:
            child.kill()
            child.wait()
            reader.close()
        assert path in segments.remove_stale(folder.parent.parent)


READER = """
import os, sys, time
from arb_ray.adapters.plane.board import BoardReader, TornRead
reader = BoardReader(os.open(sys.argv[1], os.O_RDONLY))
print("reads", flush=True)
while True:
    try:
        reader.read(1)
    except TornRead:
        pass
"""


@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL])
def test_a_reader_that_is_stopped_or_killed_costs_the_writer_nothing(board, how):
    slot = board.writer.slot("k")
    board.writer.put(slot, b"x" * 100)
    child = subprocess.Popen(
        [sys.executable, "-c", READER, str(board.segment.path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    try:
        assert child.stdout.readline() == b"reads\n"
        child.send_signal(how)
        reader = board.reader()
        for number in range(20_000):
            board.writer.put(slot, b"%d" % number)
        assert reader.read(slot) == (20_001, b"19999")
        assert os.fstat(board.segment.fd).st_size == LAYOUT.size
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
