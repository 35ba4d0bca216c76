"""
Everything that one run started, however deep, and what it holds.

Ray's workers outlive the raylet's parent, PostgreSQL gives itself an environment of its own,
so no single tie holds a run's processes together. Three do: a mark in the environment that
children inherit, a data folder that servers work in, and the parent of a known process.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
import psutil

MARK = "RUN_FAMILY_MARK"
"""Not an ARB_ variable: those are settings, and unknown ones are refused."""

POLL_S = 0.2
MIB = 1 << 20


class Member(msgspec.Struct, frozen=True):
    """A process of the run at this moment. Memory in MiB; ``pss`` shares what is shared."""

    pid: int
    label: str
    pss_mib: float
    uss_mib: float
    rss_mib: float
    handles: int
    cpu_s: float


class Family:
    """The processes of a run that was started with ``environment()``."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir.resolve()
        self._mark = uuid.uuid4().hex
        self._known: dict[int, float] = {}  # pid -> time of birth: a pid may be given again
        self._labels: dict[int, str] = {}

    def environment(self) -> dict[str, str]:
        """Return this process's environment with the run's mark."""
        return {**os.environ, MARK: self._mark}

    def processes(self) -> list[psutil.Process]:
        """Return what is alive now; zombies are not."""
        found: dict[int, psutil.Process] = {}
        parents: dict[int, int] = {}
        rest: dict[int, psutil.Process] = {}
        for process in psutil.process_iter():
            try:
                with process.oneshot():
                    if process.status() == psutil.STATUS_ZOMBIE:
                        continue
                    parents[process.pid] = process.ppid()
                    born = process.create_time()
                    belongs = self._known.get(process.pid) == born or self._is_ours(process)
            except psutil.Error:
                continue  # it ended while we looked
            (found if belongs else rest)[process.pid] = process
            if belongs:
                self._known[process.pid] = born
        for pid, process in _descendants(set(found), parents, rest):
            found[pid] = process
            self._known[pid] = process.create_time()
        return list(found.values())

    def members(self) -> list[Member]:
        """Measure every process."""
        measured = (_measure(process, self.label(process)) for process in self.processes())
        return [member for member in measured if member is not None]

    def titled(self, title: str) -> list[psutil.Process]:
        """Return the processes called so, such as ``ray::FeedActor``; oldest first."""
        found = [process for process in self.processes() if self.label(process) == title]
        return sorted(found, key=lambda process: self._known[process.pid])

    def label(self, process: psutil.Process) -> str:
        """Name a process; an actor keeps its name while its title tells the running method."""
        label = label_of(process)
        if label.startswith("ray::") and label.endswith("Actor"):
            self._labels[process.pid] = label
        return self._labels.get(process.pid, label)

    def wait_until_gone(self, timeout_s: float) -> list[str]:
        """Wait for all of them to end; return the titles of those that did not."""
        deadline = time.monotonic() + timeout_s
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        return [f"{process.pid} {label_of(process)}" for process in left]

    def kill(self) -> None:
        """End what is left of the run, and nothing else."""
        for process in self.processes():
            try:
                process.kill()
            except psutil.Error:
                continue

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            if process.environ().get(MARK) == self._mark:
                return True
        except (psutil.Error, OSError):
            pass  # closed to us, or overwritten by a title: the folder may still tell
        try:
            folder = Path(process.cwd())
        except (psutil.Error, OSError):
            return False
        return folder == self._data_dir or self._data_dir in folder.parents


def _descendants(
    known: set[int], parents: dict[int, int], rest: dict[int, psutil.Process]
) -> Iterator[tuple[int, psutil.Process]]:
    is_growing = True
    while is_growing:
        is_growing = False
        for pid in [pid for pid in rest if parents[pid] in known]:
            known.add(pid)
            yield pid, rest.pop(pid)
            is_growing = True


def _measure(process: psutil.Process, label: str) -> Member | None:
    try:
        memory = process.memory_full_info()
        times = process.cpu_times()
        return Member(
            pid=process.pid,
            label=label,
            pss_mib=memory.pss / MIB,
            uss_mib=memory.uss / MIB,
            rss_mib=memory.rss / MIB,
            handles=process.num_fds(),
            cpu_s=times.user + times.system,
        )
    except psutil.Error:
        return None  # it ended while we looked


_KNOWN_PARTS = (
    ("arb_ray.submit", "submit"),
    ("gcs_server", "ray gcs_server"),
    ("raylet/raylet", "ray raylet"),
    ("monitor.py", "ray monitor"),
    ("dashboard.py", "ray dashboard"),
    ("valkey-server", "valkey"),
    ("postgres", "postgres"),
)


def label_of(process: psutil.Process) -> str:
    """Name a process in a few words: ``ray::FeedActor``, ``postgres``, ``ray raylet``."""
    try:
        line = process.cmdline()
        if line and line[0].startswith("ray::"):
            return line[0].strip().partition(".")[0]
        # The log monitor is told from the monitor by its folder, both by their script.
        told = " ".join(line[:4])
        if "log_monitor.py" in told:
            return "ray log_monitor"
        return next((label for part, label in _KNOWN_PARTS if part in told), process.name())
    except psutil.Error:
        return "ended"


def total_pss_mib(members: Iterable[Member]) -> float:
    """Return the memory of all of them together, MiB."""
    return sum(member.pss_mib for member in members)
