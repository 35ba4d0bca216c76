"""
How a host is woken: a pipe to wake it with, and a word that says whether it sleeps.

Only a sleeper is rung, and once until it sleeps again, so wake-ups coalesce by themselves: a host
that is busy finds what came meanwhile before it lies down. Between its last look and its
"I sleep" a publication can slip through where stores are seen late; who publishes keeps in mind
whom it did not ring, and looks again a few ms later (``BellRopes.sweep``).
"""

from __future__ import annotations

import contextlib
import mmap
import os
from pathlib import Path

from arb_ray.adapters.plane import segments
from arb_ray.adapters.plane.layout import SCHEMA, WORD
from arb_ray.domain.errors import PlaneUnavailable

BELL_WORDS = 8
BELL_BYTES = BELL_WORDS * WORD

W_SCHEMA, W_BORN, W_ASLEEP, W_LOOKED = range(4)
"""The layout's integer; the host's birth stamp; 1 while it sleeps; when its last look began."""

DRAIN_BYTES = 4_096


def bell_path(folder: Path, host: str) -> Path:
    """Return the file of a host's bell."""
    return folder / f"{segments.file_name(host)}.bell"


def hosts_in(folder: Path) -> tuple[str, ...]:
    """Return the hosts whose bells hang here and whose processes live."""
    try:
        paths = sorted(one for one in folder.iterdir() if one.suffix == ".bell")
    except OSError:
        return ()
    return tuple(path.name.removesuffix(".bell") for path in paths if segments.is_owned(path))


class Bell:
    """The host's end. Raises PlaneUnavailable when it cannot be made."""

    def __init__(self, folder: Path, host: str, born_ns: int) -> None:
        path = bell_path(folder, host)
        self._pipe = path.with_suffix(".fifo")
        self._segment = segments.create(path, BELL_BYTES)
        try:
            with contextlib.suppress(FileNotFoundError):
                self._pipe.unlink()  # of the process before this one
            os.mkfifo(self._pipe, 0o600)
            # Opened for both: so it never ends when the last ringer goes.
            self._pipe_fd = os.open(self._pipe, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW)
        except OSError as error:
            self._segment.close()
            raise PlaneUnavailable(f"{self._pipe}: {error.strerror}") from error
        self._map = mmap.mmap(self._segment.fd, BELL_BYTES)
        self._words = memoryview(self._map).cast("Q")
        self._words[W_BORN] = born_ns
        self._words[W_SCHEMA] = SCHEMA  # last: a bell without it is not ready

    def fileno(self) -> int:
        """Return what becomes readable when it rings."""
        return self._pipe_fd

    def wake(self) -> None:
        """Say that nobody need ring."""
        self._words[W_ASLEEP] = 0

    def hear(self) -> None:
        """Take up what was rung."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._pipe_fd, DRAIN_BYTES)

    def sleep(self, looked_mono_ns: int) -> None:
        """Ask to be rung; ``looked_mono_ns`` is when the last look began."""
        self._words[W_LOOKED] = looked_mono_ns
        self._words[W_ASLEEP] = 1

    def close(self) -> None:
        """Take it down."""
        self._words.release()
        self._map.close()
        os.close(self._pipe_fd)
        if self._segment.is_there:
            with contextlib.suppress(OSError):
                self._pipe.unlink()
        self._segment.close()


class BellRope:
    """The other end: rings one host. Raises PlaneUnavailable when there is no bell to ring."""

    def __init__(self, folder: Path, host: str) -> None:
        path = bell_path(folder, host)
        self._path = path
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        except OSError as error:
            raise PlaneUnavailable(f"{host} has no bell here") from error
        try:
            self._map = mmap.mmap(self._fd, BELL_BYTES)
        except (OSError, ValueError) as error:
            os.close(self._fd)
            raise PlaneUnavailable(f"{path} is no bell") from error
        self._words = memoryview(self._map).cast("Q")
        self.schema, self.born_ns = self._words[W_SCHEMA], self._words[W_BORN]
        try:
            self._pipe_fd = os.open(path.with_suffix(".fifo"), os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            self._close_map()
            raise PlaneUnavailable(f"{host} does not listen") from error
        self._missed_mono_ns = 0

    @property
    def is_answered(self) -> bool:
        """Whether the process whose bell this is lives and has hung up no other one."""
        try:
            is_same = os.fstat(self._fd).st_ino == self._path.stat().st_ino
        except OSError:
            return False
        return is_same and segments.is_owned(self._path)

    def ring(self, now_mono_ns: int) -> bool:
        """Ring if the host sleeps; return whether one must look again later."""
        words = self._words
        if not words[W_ASLEEP]:
            self._missed_mono_ns = now_mono_ns
            return True
        # Before the ring: a host that woke and slept again meanwhile must stay asleep here.
        words[W_ASLEEP] = 0
        # Full: it rings already. Broken: the host is dead, and the next look notices.
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(self._pipe_fd, b"\0")
        return False

    def ring_if_missed(self, now_mono_ns: int) -> bool:
        """Ring a host that fell asleep over what was published; return whether to look again."""
        words = self._words
        if not words[W_ASLEEP]:
            return True
        if words[W_LOOKED] > self._missed_mono_ns:
            return False
        return self.ring(now_mono_ns)

    def close(self) -> None:
        """Let go."""
        os.close(self._pipe_fd)
        self._close_map()

    def _close_map(self) -> None:
        self._words.release()
        self._map.close()
        os.close(self._fd)
