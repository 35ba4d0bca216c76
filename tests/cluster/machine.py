"""What the outermost process does: needs, dependencies, namespaces, and a look afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from tests.cluster.progress import Failed, step
from tests.cluster.site import BASE, HOME, UID

COMMANDS = ("sshd", "ssh", "ssh-keygen", "ssh-keyscan", "rsync", "ip", "unshare", "setpriv")
IMAGE_TIMEOUT_S = 420.0
MARK = "ARB_RAY_CLUSTER_TEST"  # no setting: it names what is ours among all processes


def check_needs(checkout: Path) -> None:
    """Raise Failed when the test cannot run here, with what to do about it."""
    if os.geteuid() != 0:
        raise Failed("it makes network namespaces and mounts, so it needs root")
    # sshd is not on every user's path.
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    missing = [name for name in COMMANDS if shutil.which(name) is None]
    if missing:
        raise Failed(
            f"{', '.join(missing)} not found: apt-get install openssh-server openssh-client rsync "
            "iproute2 util-linux"
        )
    if not BASE.is_dir() or checkout.is_relative_to(BASE):
        raise Failed(f"{BASE} must exist, and the checkout must not lie in it")


def node_image(checkout: Path, work: Path) -> None:
    """
    Make a node's home with the dependencies installed: the machine image of the test.

    Made by deploy/install_node.sh itself, once for a list of dependencies. It is installed
    where the hosts will see it, because the scripts of a venv name their own place.
    """
    image = work / "node-image"
    base = image / "arb_ray"
    base.mkdir(parents=True, exist_ok=True)
    shutil.copy(checkout / "requirements" / "base.txt", base / "requirements.txt")
    shutil.copy(checkout / "deploy" / "install_node.sh", base / "install_node.sh")
    script = (
        f"mount -t tmpfs tmpfs {BASE} && mkdir -p {HOME} && mount --bind '{image}' {HOME} && "
        f"export HOME={HOME} PATH=/usr/local/bin:/usr/bin:/bin && unset VIRTUAL_ENV && "
        "sh ~/arb_ray/install_node.sh --dependencies"
    )
    with step("dependencies of the nodes, installed once"):
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=IMAGE_TIMEOUT_S,
        )
        if done.returncode != 0:
            raise Failed(f"the dependencies were not installed: {done.stderr.strip()[-500:]}")
        # The hosts' user installs arb_ray into it.
        subprocess.run(["chown", "-R", f"{UID}:{UID}", str(image)], check=True, timeout=60)


def run_inside(arguments: list[str], timeout_s: float) -> int:
    """
    Run this program again in namespaces of its own; return its exit code.

    Its end, or ours, is the end of everything in them: unshare dies with us, its child dies
    with it, and the child is the first process of its process namespace.
    """
    spaces = ["--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--mount-proc"]
    command = [
        *("setpriv", "--pdeathsig", "KILL"),
        *("unshare", *spaces, "--kill-child"),
        *(sys.executable, "-u", "-m", "tests.cluster", "--inside", *arguments),
    ]
    process = subprocess.Popen(command, env=os.environ | {MARK: str(os.getpid())})
    try:
        return process.wait(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise Failed(f"not done within {timeout_s:.0f} s") from None
    finally:
        # SIGKILL to unshare reaches all of it; there is nothing left to tidy in order.
        process.send_signal(signal.SIGKILL)
        process.wait()


def leftovers(before: set[str]) -> list[str]:
    """Return what of ours is still there: processes by our mark, interfaces, mounts, files."""
    mark = f"{MARK}={os.getpid()}".encode()
    found = sorted(shared_state() - before)
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(f"process {entry.name}")
        except OSError:
            continue  # it ended while we looked
    return found


def shared_state() -> set[str]:
    """Return the interfaces, mounts and files in places that a leak would show in."""
    interfaces = {f"interface {path.name}" for path in Path("/sys/class/net").iterdir()}
    mounts = {
        f"mount {line.split()[1]}"
        for line in Path("/proc/self/mounts").read_text().splitlines()
        if str(BASE) in line or "arb" in line.split()[1]
    }
    files = {f"file {path}" for path in BASE.iterdir()}
    named = Path("/run/netns")
    files |= {f"namespace {path.name}" for path in named.iterdir()} if named.is_dir() else set()
    return interfaces | mounts | files
