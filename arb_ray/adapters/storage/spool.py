"""
An append-only disk spool for what must reach PostgreSQL while it is away.

    record = length u32 | crc32 u32 | seq u64 | payload      (little-endian)

``append`` returns once the record is on the disk. ``replay`` hands records over in order
and notes in ``spool.ack``, after every twenty and at its end, how far it came; a crash before
the note repeats those, in the same order, and the receiver knows each by its id. Together:
exactly once.

``spool.log`` takes the records; when it is large it is sealed under its first number as
``spool-N.log`` and another is begun. A sealed segment goes once it is acknowledged, so a long
replay gives its space back piece by piece, and a start reads one segment at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import struct
import zlib
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from arb_ray.adapters.storage.process import prepare_folder, sync_folder, write_private
from arb_ray.domain.errors import BadInput, StoreUnavailable
from arb_ray.ports import SPOOL

HEADER: Final = struct.Struct("<IIQ")
SIZE_MAX: Final = 256_000_000
"""Bytes on disk; at the bound ``append`` refuses. Hours of exits and events fit."""

RECORD_BYTES_MAX: Final = 4_000_000

SEGMENT_BYTES: Final = 16_000_000
"""From here on the log is sealed: a start holds one segment in memory."""

NOTED_RECORDS: Final = 20
"""Records between two notes: each note is two syncs of the disk, as dear as a record itself."""

LOG: Final = "spool.log"
NEXT: Final = "spool.next"

Result = TypeVar("Result")


class SpoolFull(StoreUnavailable):
    """The spool reached its bound: nothing more is accepted until it has been replayed."""


class SpoolInUse(BadInput):
    """Another process has this spool open."""


class Spool:
    """
    One spool in one folder, for one process and one event loop.

    Raises (on creation):
        SpoolInUse: Another process has it open.
        BadInput: A record in its middle is damaged.
    """

    def __init__(
        self, folder: Path | str, *, size_max: int = SIZE_MAX, segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        self._folder = Path(folder)
        self._size_max = size_max
        self._segment_bytes = segment_bytes
        self._lock = asyncio.Lock()
        prepare_folder(self._folder)
        self._pending: deque[tuple[int, int, int]] = deque()  # offset, length, number
        self._sealed: list[_Segment] = []
        self._end = 0  # of the log
        self._first_seq = self._next_seq = 1
        self._file = -1
        self._guard = self._locked("spool.lock")
        try:
            # What was left by a version without spool.lock is locked by its log alone.
            self._file = self._locked(LOG)
            self._acked = self._read_ack()
            self._recover()
        except BaseException:
            self.close()
            raise
        sync_folder(self._folder)

    def _locked(self, name: str) -> int:
        file = os.open(self._folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            raise SpoolInUse(
                str(self._folder / name), "another process uses this spool", "Name another folder."
            ) from None
        return file

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self._folder

    @property
    def name(self) -> str:
        """The folder's name."""
        return self._folder.name

    @property
    def pending(self) -> int:
        """Records that are not acknowledged."""
        return len(self._pending)

    @property
    def size_bytes(self) -> int:
        """Bytes on disk."""
        return self._end + sum(segment.size for segment in self._sealed)

    async def append(self, payload: bytes) -> int:
        """
        Store a record durably; return its number.

        Raises:
            SpoolFull: The bound is reached.
            StoreUnavailable: The disk did not take it; nothing was kept.
        """
        assert 0 < len(payload) <= RECORD_BYTES_MAX
        async with self._lock:
            if self.size_bytes + HEADER.size + len(payload) > self._size_max:
                raise SpoolFull(
                    SPOOL, f"it holds {self.size_bytes} bytes, the bound is {self._size_max}"
                )
            return await _finish(asyncio.to_thread(self._append, payload))

    async def replay(self, deliver: Callable[[bytes], Awaitable[None]]) -> int:
        """
        Hand over every pending record in order; return how many.

        What ``deliver`` raises ends the replay before its record is acknowledged and after all
        before it are. Records appended meanwhile are handed over too. An empty spool gives its
        disk space back.

        Raises:
            StoreUnavailable: The disk does not give a record, or takes no note (``SPOOL``).
        """
        count = 0
        while self._pending:
            count += await self._replay_some(deliver)
        return count

    async def _replay_some(self, deliver: Callable[[bytes], Awaitable[None]]) -> int:
        handed = 0
        try:
            while handed < min(len(self._pending), NOTED_RECORDS):
                offset, length, seq = self._pending[handed]
                async with self._lock:  # an append could seal what is read
                    payload = await _finish(asyncio.to_thread(self._payload, offset, length, seq))
                await deliver(payload)
                handed += 1
                if self._sealed and seq >= self._sealed[0].last_seq:
                    break  # noted at once, and its space comes back
        finally:
            if handed:
                async with self._lock:
                    await _finish(asyncio.to_thread(self._acknowledge, handed))
        return handed

    def close(self) -> None:
        """Close the files and let another process have them."""
        for file in (self._file, self._guard):
            if file >= 0:
                os.close(file)
        self._file = self._guard = -1

    def _append(self, payload: bytes) -> int:
        seq = self._next_seq
        record = HEADER.pack(len(payload), _checksum(seq, payload), seq) + payload
        try:
            if self._end >= self._segment_bytes:
                self._seal()
            _write_all(self._file, record, self._end)
            os.fsync(self._file)
        except OSError as error:
            # Whether any of it reached the disk is unknown: cut it off again.
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._end)
            raise StoreUnavailable(SPOOL, str(error)) from error
        self._pending.append((self._end + HEADER.size, len(payload), seq))
        self._end += len(record)
        self._next_seq += 1
        return seq

    def _seal(self) -> None:
        """Put the log aside under its first number and begin another, empty and locked."""
        os.ftruncate(self._file, self._end)  # what a failed append may have left behind it
        os.fsync(self._file)
        # The one step that needs room comes first, so that without it nothing has changed.
        following = self._locked(NEXT)
        log, path = self._folder / LOG, self._folder / f"spool-{self._first_seq:020d}.log"
        log.rename(path)
        # A crash here leaves no log, and a start begins one.
        (self._folder / NEXT).rename(log)
        sync_folder(self._folder)
        self._sealed.append(_Segment(path, self._next_seq - 1, self._end))
        os.close(self._file)
        self._file, self._end, self._first_seq = following, 0, self._next_seq

    def _payload(self, offset: int, length: int, seq: int) -> bytes:
        segment = next((one for one in self._sealed if seq <= one.last_seq), None)
        try:
            if segment is None:
                return os.pread(self._file, length, offset)
            with segment.path.open("rb") as file:
                return os.pread(file.fileno(), length, offset)
        except OSError as error:
            raise StoreUnavailable(SPOOL, str(error)) from error

    def _acknowledge(self, count: int) -> None:
        seq = self._pending[count - 1][2]
        try:
            write_private(self._folder / "spool.ack", str(seq))
            self._forget(count, seq)
        except OSError as error:
            raise StoreUnavailable(SPOOL, str(error)) from error

    def _forget(self, count: int, seq: int) -> None:
        """Let go what has been acknowledged on disk, and give its space back."""
        self._acked = seq
        for _ in range(count):
            self._pending.popleft()
        # A crash before this leaves acknowledged records, which a start skips.
        while self._sealed and self._sealed[0].last_seq <= seq:
            self._sealed.pop(0).path.unlink()
        if not self._pending:
            os.ftruncate(self._file, 0)
            os.fsync(self._file)
            self._end, self._first_seq = 0, self._next_seq

    def _read_ack(self) -> int:
        try:
            return int((self._folder / "spool.ack").read_text(encoding="ascii"))
        except FileNotFoundError:
            return 0
        except ValueError:
            raise BadInput(
                str(self._folder / "spool.ack"), "it holds no number", "Restore it."
            ) from None

    def _recover(self) -> None:
        """Find the records; cut off a torn tail, which was never promised to anybody."""
        self._next_seq = self._acked + 1
        for path in sorted(self._folder.glob("spool-*.log")):
            self._recover_sealed(path)
        self._first_seq = self._next_seq
        data = (self._folder / LOG).read_bytes()
        self._end = self._take_records(data)
        if self._end < len(data):
            self._require_torn(data)
            os.ftruncate(self._file, self._end)
            os.fsync(self._file)

    def _recover_sealed(self, path: Path) -> None:
        data = path.read_bytes()
        end = self._take_records(data)
        if end < len(data):
            raise _damaged(path, end)
        if self._next_seq - 1 <= self._acked:
            path.unlink()  # acknowledged, and a crash came before it went
        else:
            self._sealed.append(_Segment(path, self._next_seq - 1, end))

    def _take_records(self, data: bytes) -> int:
        """Note the whole records of a segment; return where the first that is none begins."""
        end = 0
        while end < len(data):
            found = _read(data, end)
            if found is None:
                break
            length, seq = found
            if seq > self._acked:
                self._pending.append((end + HEADER.size, length, seq))
            self._next_seq = max(self._next_seq, seq + 1)
            end += HEADER.size + length
        return end

    def _require_torn(self, data: bytes) -> None:
        """Tell a torn tail from damage: each append is synced, so only the last can be torn."""
        following = (self._next_seq + 1).to_bytes(8, "little")
        at = data.find(following, self._end)
        while at >= 0:
            # The number stands in a header's last eight bytes.
            if _read(data, max(0, at + 8 - HEADER.size)):
                raise _damaged(self._folder / LOG, self._end)
            at = data.find(following, at + 1)


class _Segment(NamedTuple):
    """A sealed file, the number of its last record, and its size."""

    path: Path
    last_seq: int
    size: int


def _damaged(path: Path, offset: int) -> BadInput:
    return BadInput(
        str(path),
        f"the record at byte {offset} is damaged and others follow it",
        "Keep the file, reconcile by hand, then move it away.",
    )


def _write_all(file: int, record: bytes, offset: int) -> None:
    written = 0
    while written < len(record):
        written += os.pwrite(file, record[written:], offset + written)


def _read(data: bytes, offset: int) -> tuple[int, int] | None:
    """Return length and number of the record at ``offset``; None when it is not whole."""
    if len(data) - offset < HEADER.size:
        return None
    length, crc32, seq = HEADER.unpack_from(data, offset)
    payload = data[offset + HEADER.size : offset + HEADER.size + length]
    if not length or len(payload) != length or _checksum(seq, payload) != crc32:
        return None
    return length, seq


def _checksum(seq: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(seq.to_bytes(8, "little")))


async def _finish(work: Coroutine[Any, Any, Result]) -> Result:
    """Wait for disk work to its end, also when cancelled: a thread cannot be called back."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
