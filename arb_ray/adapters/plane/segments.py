"""
The folder of a run's boards and bells in shared memory: made whole, owned, found, cleaned up.

Whoever makes a file holds a lock on it for as long as its process lives; the kernel takes the
lock back however that process ends. So a file whose lock can be had belongs to nobody, whichever
namespace of pids its maker lived in, and is removed; one whose lock is held is never touched.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from secrets import token_hex

from arb_ray.domain.errors import PlaneUnavailable

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # memory, and the only place for it
PREFIX = "arb_ray-"
CREATE_ATTEMPTS = 8
NEW = ".new"
"""Suffix of a file that is being made."""


def base_folder(root: Path = SHARED_MEMORY) -> Path:
    """Return this user's folder: nobody else may write a price there."""
    return root / f"{PREFIX}{os.getuid()}"


def run_folder(root: Path, *scope: str) -> Path:
    """Return the folder of one run on this node; ``scope`` is what sets it apart from others."""
    return base_folder(root) / sha256("\x1f".join(scope).encode()).hexdigest()[:16]


def file_name(owner: str) -> str:
    """Return an actor's name as a file's."""
    return "".join(one if one.isalnum() or one in "-_@:." else "_" for one in owner)[:120]


class Segment:
    """A file in shared memory that this process owns until ``close`` or its end."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.fd = fd

    @property
    def is_there(self) -> bool:
        """Whether the path still leads to this file, and not to a younger owner's."""
        return _is_at(self.fd, self.path)

    def close(self) -> None:
        """Remove the file; who has it mapped keeps what it sees."""
        with contextlib.suppress(OSError):
            if self.is_there:
                self.path.unlink()
                self.path.parent.rmdir()  # only an empty one goes
        os.close(self.fd)


def create(path: Path, size: int) -> Segment:
    """
    Make a file of ``size`` zero bytes that is there as a whole or not at all.

    The memory is had at once: written to later, a full /dev/shm would kill the process. Raises
    PlaneUnavailable.
    """
    for _ in range(CREATE_ATTEMPTS):
        # Nobody else's: two processes of one name may come at once.
        new = path.with_name(f"{path.name}.{token_hex(8)}{NEW}")
        fd = -1
        try:
            _make_folder(path.parent)
            fd = os.open(new, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW, 0o600)
            fcntl.flock(fd, fcntl.LOCK_EX)
            if not _is_at(fd, new):
                os.close(fd)  # somebody cleaned up between the two lines
                continue
            os.posix_fallocate(fd, 0, size)
            new.rename(path)
        except OSError as error:
            if fd >= 0:
                os.close(fd)
            with contextlib.suppress(OSError):
                new.unlink()
            if error.errno == errno.ENOENT:
                continue  # the folder was empty, and somebody cleaned up
            raise PlaneUnavailable(_problem(error, path.parent, size)) from error
        return Segment(path, fd)
    raise PlaneUnavailable(f"{path.parent}: somebody removes what is made there")


def try_out(size: int, root: Path = SHARED_MEMORY) -> None:
    """Make a file of ``size`` bytes and take it away again. Raises PlaneUnavailable."""
    create(run_folder(root, "trial") / "trial", size).close()


def is_owned(path: Path) -> bool:
    """Tell whether a living process owns a file."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def remove_stale(root: Path = SHARED_MEMORY) -> tuple[Path, ...]:
    """Remove what belongs to nobody any more in this user's folder; return what that was."""
    removed: list[Path] = []
    for folder in _folders(base_folder(root)):
        removed += [path for path in sorted(folder.iterdir()) if _remove_if_stale(path)]
        with contextlib.suppress(OSError):
            folder.rmdir()  # only an empty one goes
    return tuple(removed)


def _folders(base: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        yield from sorted(one for one in base.iterdir() if one.is_dir() and not one.is_symlink())


def _remove_if_stale(path: Path) -> bool:
    try:
        mode = path.lstat().st_mode
        if stat.S_ISFIFO(mode):
            # A pipe has no lock of its own; it is its bell's.
            if path.with_suffix(".bell").exists():
                return False
            path.unlink()
            return True
        if not stat.S_ISREG(mode):
            return False
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _is_at(fd, path):
            return False
        path.unlink()
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _make_folder(folder: Path) -> None:
    for one in (folder.parent, folder):
        with contextlib.suppress(FileExistsError):
            one.mkdir(mode=0o700)
        facts = one.lstat()
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid():
            raise PlaneUnavailable(f"{one} belongs to somebody else")
        if facts.st_mode & 0o077:
            raise PlaneUnavailable(f"{one} is open to others")


def _is_at(fd: int, path: Path) -> bool:
    try:
        there = path.lstat()
    except OSError:
        return False
    here = os.fstat(fd)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def _problem(error: OSError, folder: Path, size: int) -> str:
    if error.errno == errno.ENOSPC:
        return f"{folder} has no room for {size / 1e6:.1f} MB"
    return f"{folder}: {error.strerror or error}"
