"""Checks of this machine: Python, the package, folders, disk, shared memory, open files."""

from __future__ import annotations

import importlib.metadata
import platform
import resource
import shutil
import sys
from pathlib import Path

import arb_ray
from arb_ray.app.doctor import Check, fail, ok, warn
from arb_ray.app.planes import MEND, SYMBOLS_TRIED, boards_bytes, plane_problem
from arb_ray.app.run_plan import check_folders
from arb_ray.app.settings import Settings
from arb_ray.domain.errors import BadInput

PYTHON_MIN = (3, 11)
SHM = Path("/dev/shm")  # noqa: S108  # Ray's object store lies there
DISK_BYTES_MIN = 500_000_000
"""Less, and PostgreSQL, the spool or Ray's logs fill the disk within hours."""

OPEN_FILES_MIN, OPEN_FILES_GOOD = 1_024, 8_192
"""A Ray head has hundreds of connections, and each actor dozens of files."""


def python() -> Check:
    """Check the interpreter."""
    version = platform.python_version()
    if sys.version_info < PYTHON_MIN:
        return fail("python", f"this is Python {version}", "Use Python 3.11 or newer")
    return ok("python", f"Python {version}, {sys.executable}")


def package() -> Check:
    """Tell which arb_ray and which Ray are installed; every node must have the same."""
    place = Path(arb_ray.__file__).parent
    ray = importlib.metadata.version("ray")
    return ok("package", f"arb_ray {arb_ray.__version__} in {place}, Ray {ray}")


def machine(settings: Settings) -> list[Check]:
    """Check what the settings ask of this machine."""
    return [
        data_folder(settings),
        disk(settings),
        shared_memory(settings.ray.object_store_bytes),
        *tick_plane(settings),
    ]


def data_folder(settings: Settings) -> Check:
    """Check whether the folders that a run writes to can be written."""
    try:
        check_folders(settings)
    except BadInput as error:
        return fail("data folder", f"{error.place}: {error.problem}", error.mend)
    return ok("data folder", f"{Path(settings.session.data_dir).absolute()} can be written")


def disk(settings: Settings) -> Check:
    """Check the free space where the data lie."""
    folder = Path(settings.session.data_dir).absolute()
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(nearest).free
    words = f"{_size(free)} are free at {nearest}"
    if free < DISK_BYTES_MIN:
        return fail("disk", words, f"Free at least {_size(DISK_BYTES_MIN)}")
    spool = settings.persistence.spool_max_bytes
    if free < spool:
        return warn(
            "disk",
            f"{words}, less than persistence.spool_max_bytes",
            f"Free some, or lower it from {_size(spool)}",
        )
    return ok("disk", words)


def shared_memory(wanted_bytes: int, folder: Path = SHM) -> Check:
    """Check whether Ray's object store fits into shared memory."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        words = f"{folder} cannot be looked at ({error.strerror}); Ray then uses slow files"
        return warn("shared memory", words, "Mount a tmpfs there")
    words = f"{_size(free)} are free in {folder}, ray.object_store_bytes is {_size(wanted_bytes)}"
    if free < wanted_bytes:
        return warn(
            "shared memory",
            f"{words}: Ray then uses slow files",
            "Give it more (docker: --shm-size), or lower ray.object_store_bytes",
        )
    return ok("shared memory", words)


def tick_plane(settings: Settings) -> list[Check]:
    """Try whether ticks can go through shared memory here, where the settings want that."""
    wanted = settings.topology.tick_plane
    if wanted == "ray":
        return []
    if not (problem := plane_problem(settings)):
        size = _size(boards_bytes(settings, SYMBOLS_TRIED))
        return [ok("tick plane", f"shared memory; {size} for {SYMBOLS_TRIED} symbols can be had")]
    if wanted == "shm":
        return [fail("tick plane", f"topology.tick_plane is shm: {problem}", MEND)]
    return [warn("tick plane", f"Ray calls, which are slower, will carry ticks: {problem}", MEND)]


def open_files() -> Check:
    """Check how many files a process may have open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    words = f"a process may have {soft} files open (at most {hard})"
    if soft < OPEN_FILES_MIN:
        return fail("open files", words, f"ulimit -n {OPEN_FILES_GOOD}")
    if soft < OPEN_FILES_GOOD:
        return warn("open files", words, f"ulimit -n {OPEN_FILES_GOOD}")
    return ok("open files", words)


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
