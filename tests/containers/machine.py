"""The namespaces that the engine lives in, and the look at what was left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.containers.progress import Failed, run

MARK = "ARB_RAY_CONTAINER_TEST"  # no setting: it names what is ours among all processes
CGROUP_NAME = "arb-container-test"
CGROUP_TIMEOUT_S = 10.0
SOCKETS = "/run/arb-container-test"  # a socket's path has 107 bytes, and a checkout may lie deep
ENGINE_FOLDERS = ("/etc/docker", "/run/docker", "/run/containerd", SOCKETS)
"""Where an engine writes beside its data: its key, and the sockets of its parts."""


def run_inside(arguments: list[str], timeout_s: float, *, with_network: bool) -> int:
    """
    Run this program again in namespaces of its own; return its exit code.

    Its end, or ours, is the end of everything in them: unshare dies with us, its child dies with
    it, and the child is the first process of its process namespace. Engine, containers, mounts
    and bridges go with them. Without the network nothing in there can reach any other machine.
    """
    spaces = ["--mount", "--pid", "--uts", "--ipc", "--fork", "--mount-proc"]
    command = [
        *("setpriv", "--pdeathsig", "KILL"),
        *("unshare", *spaces, *([] if with_network else ["--net"]), "--kill-child"),
        *(sys.executable, "-u", "-m", "tests.containers", *arguments),
    ]
    process = subprocess.Popen(command, env=os.environ | {MARK: str(os.getpid())})
    try:
        return process.wait(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise Failed(f"not done within {timeout_s:.0f} s") from None
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        remove_cgroups()


def remove_cgroups() -> None:
    """Remove the control groups of our containers, deepest first; the dead leave them slowly."""
    end_s = time.monotonic() + CGROUP_TIMEOUT_S
    while groups := _cgroups():
        for group in sorted(groups, key=lambda path: -len(path.parts)):
            with contextlib.suppress(OSError):
                group.rmdir()
        if time.monotonic() > end_s:
            return  # leftovers() will name them
        time.sleep(0.1)


def _cgroups() -> list[Path]:
    root = Path("/sys/fs/cgroup")
    tops = [*root.glob(CGROUP_NAME), *root.glob(f"*/{CGROUP_NAME}")]
    return [*tops, *(path for top in tops for path in top.rglob("*") if path.is_dir())]


@contextlib.contextmanager
def own_folders() -> Iterator[None]:
    """Have every folder that the engine uses; those that were not there go again."""
    made = [folder for folder in map(Path, ENGINE_FOLDERS) if not folder.exists()]
    for folder in made:
        folder.mkdir(parents=True)
    try:
        yield
    finally:
        for folder in made:
            folder.rmdir()


def hide_folders() -> None:
    """Mount memory over the engine's folders; for processes in our namespaces only."""
    for folder in ENGINE_FOLDERS:
        run("mount", "-t", "tmpfs", "tmpfs", folder, timeout_s=10)


def shared_state(work: Path) -> set[str]:
    """Return interfaces, mounts, namespaces, control groups and files that a leak would show in."""
    found = {f"interface {path.name}" for path in Path("/sys/class/net").iterdir()}
    for line in Path("/proc/self/mounts").read_text().splitlines():
        place = line.split()[1]
        if place.startswith((str(work), *ENGINE_FOLDERS)):
            found.add(f"mount {place}")
    found |= {f"control group {path}" for path in _cgroups()}
    for folder in map(Path, ("/run/netns", "/var/lib/docker", *ENGINE_FOLDERS)):
        found |= {f"file {folder}"} if folder.is_dir() else set()
        found |= {f"file {path}" for path in folder.iterdir()} if folder.is_dir() else set()
    return found


def leftovers(before: set[str], work: Path) -> list[str]:
    """Return what of ours is still there: processes by our mark, and what ``before`` had not."""
    mark = f"{MARK}={os.getpid()}".encode()
    found = sorted(shared_state(work) - before)
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(f"process {entry.name}")
        except OSError:
            continue  # it ended while we looked
    return found
