"""
Recordings: what a venue sent, verbatim, one JSON object a line, zstd-compressed.

    {"recv_ns": 1723161253937085768, "venue": "binance_spot", "raw": "{...}"}

``request`` stands on a REST reply (``GET /api/v3/depth?symbol=BTCUSDT&limit=1000``) and on a
frame that we sent (``WS send``), and nowhere else. Keys come in any order, unknown ones are
ignored, and ``raw`` is any text: whether it is a market-data frame is for the codec to say.

A writer appends one complete zstd frame a flush, so a file that a crash cut short is good up
to the last flush; frames lie one after the other, which zstd allows.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Generator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, BinaryIO, Self

import msgspec
import zstandard

from arb_ray.domain.errors import BadInput, StoreUnavailable

WS_SEND = "WS send"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
# The longest line seen is a whole exchangeInfo: 2 MB in 2021, several times that by now.
LINE_BYTES_MAX = 64 * 1024 * 1024
# Small reads bound what one of them can expand to: zstd's densest block turns 4 bytes into
# 128 KiB, so 1 KiB yields 32 MiB at the very worst.
READ_BYTES = 1_024
PLAIN_READ_BYTES = 256 * 1_024


class RecordedFrame(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of a recording. ``recv_ns`` is UTC by the recorder's clock."""

    recv_ns: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    venue: Annotated[str, msgspec.Meta(min_length=1)]
    raw: str
    request: str | None = None


LEFT_OUT = "(left out)"
"""This very object is the text of a frame that a reader did not want."""

Wants = Callable[[msgspec.Raw], bool]


class _Skimmed(msgspec.Struct):
    """The same line, the text as it is spelled."""

    recv_ns: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    venue: Annotated[str, msgspec.Meta(min_length=1)]
    raw: msgspec.Raw
    request: str | None = None


_skim = msgspec.json.Decoder(_Skimmed).decode
_text = msgspec.json.Decoder(str).decode


class TruncatedTail(msgspec.Struct, frozen=True):
    """A recording that ends in the middle of a frame or line; all before it was read."""

    path: str
    lines_read: int
    problem: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem} after line {self.lines_read}"


class RecordingReader(Iterator[RecordedFrame]):
    """
    Iterate over a recording's frames in the file's order, in bounded memory.

    After the end ``truncated`` tells whether the file was cut short; that is a warning,
    because a crash of the recorder leaves such files. The file closes at the end, at an error
    and with ``close``.
    """

    def __init__(
        self, path: Path, line_bytes_max: int = LINE_BYTES_MAX, wants: Wants | None = None
    ) -> None:
        self.path = path
        self._wants = wants
        self.lines_read = 0
        self.truncated: TruncatedTail | None = None
        self._line_bytes_max = line_bytes_max
        self._decoder = msgspec.json.Decoder(RecordedFrame)
        try:
            self._file: BinaryIO = path.open("rb")
        except OSError as fault:
            mend = "Name a file of recorded frames (.jsonl or .jsonl.zst)"
            raise BadInput(str(path), fault.strerror or str(fault), mend) from fault
        self._frames = self._read()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> RecordedFrame:
        return next(self._frames)

    def close(self) -> None:
        """Close the file; the iteration ends."""
        self._frames.close()
        self._file.close()

    def _read(self) -> Generator[RecordedFrame]:
        parts: list[bytes] = []  # of the line that the last chunk left open
        size = 0
        with self._file:
            for chunk in self._chunks():
                *ends, rest = chunk.split(b"\n")
                for end in ends:
                    line = b"".join((*parts, end)) if parts else end
                    parts, size = [], 0
                    if (frame := self._decode(line)) is not None:
                        yield frame
                size += len(rest)
                parts.append(rest)
                if size > self._line_bytes_max:
                    raise self._bad("is longer than the bound")
            last = b"".join(parts)
            if self.truncated is None and last:
                try:
                    frame = self._decode(last)
                except BadInput:
                    self._note_truncation("the last line is incomplete")
                else:
                    if frame is not None:
                        yield frame

    def _decode(self, line: bytes) -> RecordedFrame | None:
        if len(line) > self._line_bytes_max:
            raise self._bad("is longer than the bound")
        frame = None
        if line.strip():
            try:
                wants = self._wants
                frame = self._decoder.decode(line) if wants is None else _skimmed(line, wants)
            except (msgspec.DecodeError, UnicodeDecodeError) as fault:
                raise self._bad(f"is not a recorded frame ({fault})") from fault
        self.lines_read += 1
        return frame

    def _chunks(self) -> Iterator[bytes]:
        data = self._take(READ_BYTES)
        if not data or not ZSTD_MAGIC.startswith(data[: len(ZSTD_MAGIC)]):
            while data:
                yield data
                data = self._take(PLAIN_READ_BYTES)
            return
        context = zstandard.ZstdDecompressor()
        while data:
            data = yield from self._zstd_frame(context.decompressobj(), data)

    def _zstd_frame(
        self, frame: zstandard.ZstdDecompressionObj, data: bytes
    ) -> Generator[bytes, None, bytes]:
        """Decompress one frame that begins with ``data``; return what lies behind it."""
        while data:
            try:
                yield frame.decompress(data)
            except zstandard.ZstdError as fault:
                raise self._bad(f"cannot be decompressed ({fault})") from fault
            if frame.eof:
                return frame.unused_data or self._take(READ_BYTES)
            data = self._take(READ_BYTES)
        self._note_truncation("the last zstd frame is incomplete")
        return b""

    def _take(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except OSError as fault:
            raise self._bad(f"cannot be read ({fault.strerror})") from fault

    def _note_truncation(self, problem: str) -> None:
        self.truncated = TruncatedTail(str(self.path), self.lines_read, problem)

    def _bad(self, problem: str) -> BadInput:
        mend = "Each line holds recv_ns, venue, raw and, for REST replies and sent frames, request"
        return BadInput(f"{self.path}:{self.lines_read + 1}", f"the line {problem}", mend)


def _skimmed(line: bytes, wants: Wants) -> RecordedFrame:
    found = _skim(line)
    if found.request is None and not wants(found.raw):
        return RecordedFrame(found.recv_ns, found.venue, LEFT_OUT)
    return RecordedFrame(found.recv_ns, found.venue, _text(found.raw), found.request)


def read_recording(path: Path | str, wants: Wants | None = None) -> RecordingReader:
    """
    Open a recording, compressed or not, and iterate over its frames.

    ``wants`` is asked for each WebSocket frame, with its text as the line spells it: quoted and
    escaped. One that is not wanted comes with ``LEFT_OUT`` for its text, and costs less to read.

    Raises:
        BadInput: The file cannot be read, here; or a line of it, during iteration. Frames
            before that line were delivered.
    """
    return RecordingReader(Path(path), wants=wants)


class RecordingCounters(msgspec.Struct):
    """What a writer has done; read it, do not write it."""

    frames: int = 0  # on disk
    file_bytes: int = 0  # compressed, over all files
    files: int = 0
    dropped: int = 0  # refused at the buffer's bound, or lost with a failed write
    undecodable: int = 0  # not UTF-8; recorded with replacement characters


class RecordingWriter:
    """
    Append one venue's frames to ``directory``, a file per ``file_bytes_max``.

    ``append`` is a buffer append on the hot path; ``flush`` compresses and writes (with
    fsync), and ``keep_flushed`` does so every second in a thread. A crash loses what was not
    flushed. When the buffer is full, new frames are dropped and counted: a recording with a
    hole is worth less than a feed that waits for a disk. Not safe for use from two threads.
    """

    def __init__(
        self,
        directory: Path | str,
        venue: str,
        *,
        file_bytes_max: int = 512 * 1024 * 1024,
        buffer_bytes_max: int = 64 * 1024 * 1024,
        level: int = 3,
    ) -> None:
        assert venue
        assert min(file_bytes_max, buffer_bytes_max) > 0
        self.counters = RecordingCounters()
        self._directory = Path(directory)
        self._venue = venue
        self._file_bytes_max = file_bytes_max
        self._buffer_bytes_max = buffer_bytes_max
        # Checksums tell a damaged frame from a wrong line.
        self._compressor = zstandard.ZstdCompressor(level=level, write_checksum=True)
        self._encoder = msgspec.json.Encoder()
        self._lines: list[bytes] = []
        self._buffered_bytes = 0
        self._first_recv_ns = 0  # of the buffered lines
        self._disk = threading.Lock()  # held while a batch is written
        self._file: BinaryIO | None = None
        self._file_bytes = 0
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
        except OSError as fault:
            mend = "Name a folder that can be written"
            problem = fault.strerror or str(fault)
            raise BadInput(str(self._directory), problem, mend) from fault

    def append(self, recv_ns: int, raw: bytes | str, request: str | None = None) -> None:
        """Buffer one frame as received, or one reply or sent frame with its ``request``."""
        assert recv_ns >= 0
        text = raw if isinstance(raw, str) else self._text(raw)
        frame = RecordedFrame(recv_ns, self._venue, text, request)
        line = self._encoder.encode(frame) + b"\n"
        if self._buffered_bytes + len(line) > self._buffer_bytes_max:
            self.counters.dropped += 1
            return
        if not self._lines:
            self._first_recv_ns = recv_ns
        self._lines.append(line)
        self._buffered_bytes += len(line)

    def flush(self) -> None:
        """
        Write what is buffered.

        Raises:
            StoreUnavailable: The disk refused. The frames are lost and counted; the next
                flush begins a new file, so this one stays readable up to here.
        """
        self._write(self._first_recv_ns, self._take())

    async def keep_flushed(self, interval_s: float = 1.0) -> None:
        """Flush for ever, in a thread; raises as ``flush`` does. Call ``close`` afterwards."""
        while True:
            await asyncio.sleep(interval_s)
            first_recv_ns, lines = self._first_recv_ns, self._take()
            writing = asyncio.ensure_future(asyncio.to_thread(self._write, first_recv_ns, lines))
            try:
                await asyncio.shield(writing)
            except asyncio.CancelledError:
                # The thread cannot be stopped, and close() must not overtake it.
                await asyncio.wait({writing})
                writing.result()
                raise

    def close(self) -> None:
        """Flush and close the file; raises as ``flush`` does. Repeats change nothing."""
        try:
            self.flush()
        finally:
            self._end_file()

    def _text(self, raw: bytes) -> str:
        try:
            return raw.decode()
        except UnicodeDecodeError:
            self.counters.undecodable += 1
            return raw.decode("utf-8", "replace")

    def _take(self) -> list[bytes]:
        lines, self._lines, self._buffered_bytes = self._lines, [], 0
        return lines

    def _write(self, first_recv_ns: int, lines: list[bytes]) -> None:
        if not lines:
            return
        with self._disk:
            try:
                if self._file is None:
                    self._file = self._new_file(first_recv_ns)
                packed = self._compressor.compress(b"".join(lines))
                rest = memoryview(packed)
                while rest:  # an unbuffered write may take a part only
                    rest = rest[self._file.write(rest) :]
                os.fsync(self._file.fileno())
            except OSError as fault:
                self.counters.dropped += len(lines)
                self._end_file()
                problem = f"{self._directory}: {fault.strerror or fault}"
                raise StoreUnavailable("recording", problem) from fault
            self.counters.frames += len(lines)
            self.counters.file_bytes += len(packed)
            self._file_bytes += len(packed)
            if self._file_bytes >= self._file_bytes_max:
                self._end_file()

    def _new_file(self, first_recv_ns: int) -> BinaryIO:
        begin = datetime.fromtimestamp(first_recv_ns // 10**9, UTC).strftime("%Y%m%dT%H%M%SZ")
        while True:
            name = f"{self._venue}_{begin}_{self.counters.files:04d}.jsonl.zst"
            self.counters.files += 1
            try:
                # Unbuffered, so that a failed write leaves nothing for close() to repeat.
                return (self._directory / name).open("xb", buffering=0)
            except FileExistsError:
                continue  # an earlier writer's, which is never appended to

    def _end_file(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file, self._file_bytes = None, 0
