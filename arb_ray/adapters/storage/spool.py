"""
An append-only disk spool for what must reach PostgreSQL while it is away.

    record = length u32 | crc32 u32 | seq u64 | payload      (little-endian)

``append`` returns once the record is on the disk. ``replay`` hands records over in order
and notes each one's number in ``spool.ack`` before the next; a crash between the hand-over
and the note repeats one record, which the receiver knows by its id. Together: exactly once.
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
from typing import Any, Final, TypeVar

from arb_ray.adapters.storage.process import prepare_folder, sync_folder, write_private
from arb_ray.domain.errors import BadInput, StoreUnavailable

HEADER: Final = struct.Struct("<IIQ")
SIZE_MAX: Final = 256_000_000
"""Bytes on disk; at the bound ``append`` refuses. Hours of exits and events fit."""

RECORD_BYTES_MAX: Final = 4_000_000

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

    def __init__(self, folder: Path | str, *, size_max: int = SIZE_MAX) -> None:
        self._folder = Path(folder)
        self._size_max = size_max
        self._lock = asyncio.Lock()
        prepare_folder(self._folder)
        self._path = self._folder / "spool.log"
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._acked = self._read_ack()
            self._recover()
        except BlockingIOError:
            os.close(self._file)
            raise SpoolInUse(
                str(self._path), "another process uses this spool", "Name another folder."
            ) from None
        except BaseException:
            os.close(self._file)
            raise
        sync_folder(self._folder)

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
        return self._end

    async def append(self, payload: bytes) -> int:
        """
        Store a record durably; return its number.

        Raises:
            SpoolFull: The bound is reached.
            StoreUnavailable: The disk did not take it; nothing was kept.
        """
        assert 0 < len(payload) <= RECORD_BYTES_MAX
        async with self._lock:
            if self._end + HEADER.size + len(payload) > self._size_max:
                raise SpoolFull(
                    "spool", f"it holds {self._end} bytes, the bound is {self._size_max}"
                )
            return await _finish(asyncio.to_thread(self._append, payload))

    async def replay(self, deliver: Callable[[bytes], Awaitable[None]]) -> int:
        """
        Hand over every pending record in order; return how many.

        What ``deliver`` raises ends the replay before its record is acknowledged. Records
        appended meanwhile are handed over too. An empty spool gives its disk space back.
        """
        count = 0
        while self._pending:
            offset, length, seq = self._pending[0]
            payload = await asyncio.to_thread(os.pread, self._file, length, offset)
            await deliver(payload)
            async with self._lock:
                await _finish(asyncio.to_thread(self._acknowledge, seq))
            count += 1
        return count

    def close(self) -> None:
        """Close the file and let another process have it."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _append(self, payload: bytes) -> int:
        seq = self._next_seq
        record = HEADER.pack(len(payload), _checksum(seq, payload), seq) + payload
        try:
            _write_all(self._file, record, self._end)
            os.fsync(self._file)
        except OSError as error:
            # Whether any of it reached the disk is unknown: cut it off again.
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._end)
            raise StoreUnavailable("spool", str(error)) from error
        self._pending.append((self._end + HEADER.size, len(payload), seq))
        self._end += len(record)
        self._next_seq += 1
        return seq

    def _acknowledge(self, seq: int) -> None:
        try:
            write_private(self._folder / "spool.ack", str(seq))
        except OSError as error:
            raise StoreUnavailable("spool", str(error)) from error
        self._acked = seq
        self._pending.popleft()
        if not self._pending:
            # A crash before this leaves acknowledged records, which a start skips.
            os.ftruncate(self._file, 0)
            os.fsync(self._file)
            self._end = 0

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
        data = self._path.read_bytes()
        self._pending: deque[tuple[int, int, int]] = deque()
        self._end = 0
        self._next_seq = self._acked + 1
        while self._end < len(data):
            found = _read(data, self._end)
            if found is None:
                self._require_torn(data)
                os.ftruncate(self._file, self._end)
                os.fsync(self._file)
                return
            length, seq = found
            if seq > self._acked:
                self._pending.append((self._end + HEADER.size, length, seq))
            self._next_seq = max(self._next_seq, seq + 1)
            self._end += HEADER.size + length

    def _require_torn(self, data: bytes) -> None:
        """Tell a torn tail from damage: each append is synced, so only the last can be torn."""
        following = (self._next_seq + 1).to_bytes(8, "little")
        at = data.find(following, self._end)
        while at >= 0:
            # The number stands in a header's last eight bytes.
            if _read(data, max(0, at + 8 - HEADER.size)):
                raise BadInput(
                    str(self._path),
                    f"the record at byte {self._end} is damaged and others follow it",
                    "Keep the file, reconcile by hand, then move it away.",
                )
            at = data.find(following, at + 1)


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
