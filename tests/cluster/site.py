"""
Three hosts and a control machine, made of namespaces; used inside the outermost ones only.

A host has its own network (one end of a veth pair, the other on a bridge), processes, mounts,
hostname, /tmp, /dev/shm, /run, home and ssh server with its own key. It does not see the
checkout: whatever runs there came by rsync. Killing its first process is a power cut: the
kernel ends all others, and its cable was pulled before.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

from tests.cluster.progress import Failed, wait_for

BASE = Path("/srv")  # every Debian has it; this test covers it with memory of its own
HOME = BASE / "home" / "arb"
SITE = BASE / "site"
NODE_IMAGE = SITE / "node-image"
CONTROL_HOME = SITE / "control" / "home"
USER, UID = "arb", 2001

BRIDGE = "arb-bridge"
SUBNET = "10.200.7"
CONTROL_IP = f"{SUBNET}.1"
HEAD_IP, WORKER_1_IP, WORKER_2_IP = (f"{SUBNET}.{last}" for last in (10, 11, 12))
HOSTS = {"arb-head": HEAD_IP, "arb-worker-1": WORKER_1_IP, "arb-worker-2": WORKER_2_IP}

SSHD_CONFIG = """\
Port 22
ListenAddress {address}
HostKey {folder}/host_key
PidFile none
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PubkeyAuthentication yes
AuthorizedKeysFile .ssh/authorized_keys
PermitRootLogin no
AllowUsers {user}
"""

# The dependencies are installed once and shared below a writable layer: the layer of a host is
# its own, and arb_ray itself is installed into it by the cluster's setup command.
HOST_SCRIPT = """\
set -eu
hostname {name}
mount -t tmpfs -o mode=1777,size=2g tmpfs /dev/shm
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir /run/sshd
mount -t overlay overlay -o lowerdir={image},upperdir={folder}/upper,workdir={folder}/work {home}
mount -t tmpfs -o mode=0000 tmpfs {checkout}
mount --bind {folder}/tmp /tmp
cd /
exec "$(command -v sshd)" -D -e -f {folder}/sshd_config
"""


def run(*command: str) -> None:
    """Run a command of the system. Raises Failed with its last words."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode != 0:
        raise Failed(f"{' '.join(command)}: {done.stderr.strip()[-300:]}")


def furnish(checkout: Path, image: Path) -> None:
    """Cover what the test would touch, so that all it writes is memory that goes with it."""
    run("mount", "-t", "tmpfs", "-o", "mode=0755,size=8g", "tmpfs", str(BASE))
    for folder in (HOME, NODE_IMAGE, CONTROL_HOME / ".ssh", SITE / "control" / "tmp"):
        folder.mkdir(parents=True)
    (SITE / "control" / "tmp").chmod(0o1777)
    run("mount", "--bind", str(image), str(NODE_IMAGE))
    _cover_checkout(checkout)
    _cover_accounts()
    run("mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/run")
    _cover_tmp(checkout)
    os.chdir(checkout)


def _cover_checkout(checkout: Path) -> None:
    """The guide's commands write into the checkout; here they write into memory above it."""
    upper, work = SITE / "checkout-upper", SITE / "checkout-work"
    upper.mkdir()
    work.mkdir()
    layers = f"lowerdir={checkout},upperdir={upper},workdir={work}"
    run("mount", "-t", "overlay", "overlay", "-o", layers, str(checkout))
    for leftover in ("secrets", "dist", "data"):  # of the developer, and not of this cluster
        shutil.rmtree(checkout / leftover, ignore_errors=True)
    (checkout / "cluster.yaml").unlink(missing_ok=True)


def _cover_tmp(checkout: Path) -> None:
    """Ray's launcher keeps its state and ssh's sockets there; a checkout may lie there too."""
    again = SITE / "checkout"
    again.mkdir()
    run("mount", "--bind", str(checkout), str(again))
    run("mount", "--bind", str(SITE / "control" / "tmp"), "/tmp")
    if checkout.is_relative_to("/tmp"):
        checkout.mkdir(parents=True)
        run("mount", "--bind", str(again), str(checkout))


def _cover_accounts() -> None:
    lines = {
        "passwd": f"{USER}:x:{UID}:{UID}::{HOME}:/bin/bash\nroot:x:0:0::{CONTROL_HOME}:/bin/bash\n",
        "group": f"{USER}:x:{UID}:\n",
        # An asterisk is no password, and no lock either.
        "shadow": f"{USER}:*:19000:0:99999:7:::\n",
        "hosts": "127.0.0.1 localhost\n",
    }
    for name, address in HOSTS.items():
        lines["hosts"] += f"{address} {name}\n"
    for file, ours in lines.items():
        system, copy = Path("/etc") / file, SITE / file
        kept = "" if file == "hosts" else system.read_text()
        taken = {f"{USER}:"} | ({"root:"} if file == "passwd" else set())
        kept = "".join(
            line
            for line in kept.splitlines(keepends=True)
            if not any(line.startswith(name) for name in taken)
        )
        copy.write_text(ours + kept)
        copy.chmod(0o640 if file == "shadow" else 0o644)
        run("mount", "--bind", str(copy), str(system))


def wire() -> None:
    """Make the bridge; the control machine is the bridge's own address."""
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", BRIDGE, "type", "bridge")
    run("ip", "address", "add", f"{CONTROL_IP}/24", "dev", BRIDGE)
    run("ip", "link", "set", BRIDGE, "up")


class Host:
    """One machine of the site, from power on to power cut."""

    def __init__(self, name: str, address: str, checkout: Path) -> None:
        self.name = name
        self.address = address
        self._checkout = checkout
        self._folder = SITE / name
        self._cable = f"v-{address.rsplit('.', 1)[1]}"
        self._process: subprocess.Popen[bytes] | None = None

    def install(self, public_key: str) -> None:
        """Make its disk: an ssh server with a key of its own, and a user whom ours lets in."""
        for part in ("tmp", "upper", "work"):
            (self._folder / part).mkdir(parents=True)
        (self._folder / "tmp").chmod(0o1777)
        ssh = self._folder / "upper" / ".ssh"
        ssh.mkdir(mode=0o700)
        (ssh / "authorized_keys").write_text(public_key)
        for path in (self._folder / "upper", ssh, ssh / "authorized_keys"):
            os.chown(path, UID, UID)
        key = str(self._folder / "host_key")
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
        (self._folder / "sshd_config").write_text(
            SSHD_CONFIG.format(address=self.address, folder=self._folder, user=USER)
        )

    def power_on(self) -> None:
        """Plug it in and start its ssh server, which is its first process."""
        self._plug_in()
        script = HOST_SCRIPT.format(
            name=self.name,
            folder=self._folder,
            image=NODE_IMAGE,
            home=HOME,
            checkout=self._checkout,
        )
        own = ("unshare", "--mount", "--pid", "--uts", "--ipc", "--fork", "--mount-proc")
        with (self._folder / "console.log").open("ab") as output:
            self._process = subprocess.Popen(
                ["ip", "netns", "exec", self.name, *own, "--kill-child", "sh", "-c", script],
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                # Not of the control machine: a host has an environment of its own.
                env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
            )
        wait_for(f"ssh on {self.name}", self._answers, timeout_s=20, every_s=0.1)

    def _plug_in(self) -> None:
        inside = ("ip", "-n", self.name)
        run("ip", "netns", "add", self.name)
        run("ip", "link", "add", self._cable, "type", "veth", "peer", "eth0", "netns", self.name)
        run("ip", "link", "set", self._cable, "master", BRIDGE, "up")
        run(*inside, "link", "set", "lo", "up")
        # The same card after each start: others remember which one has the address.
        last = int(self.address.rsplit(".", 1)[1])
        run(*inside, "link", "set", "eth0", "address", f"02:00:00:00:00:{last:02x}")
        run(*inside, "address", "add", f"{self.address}/24", "dev", "eth0")
        run(*inside, "link", "set", "eth0", "up")
        # Nothing lies behind it. Ray finds its own address by asking for the way out.
        run(*inside, "route", "add", "default", "via", CONTROL_IP)

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise Failed(f"{self.name} did not start; its words are in its console.log")
        found = subprocess.run(
            ["ssh-keyscan", "-T", "2", self.address], capture_output=True, check=False, timeout=10
        )
        return b"ssh-ed25519" in found.stdout

    def processes(self) -> list[tuple[int, str]]:
        """Return pid and command line of what runs there, its first process included."""
        space = self._process_space()
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or space is None:
                continue
            try:
                if (entry / "ns" / "pid").readlink() == space:
                    words = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                    found.append((int(entry.name), words.decode(errors="replace").strip()))
            except OSError:
                continue  # it ended while we looked
        return sorted(found)

    def _process_space(self) -> Path | None:
        assert self._process is not None
        try:
            return Path(f"/proc/{self._process.pid}/ns/pid_for_children").readlink()
        except OSError:
            return None

    def power_cut(self) -> None:
        """Pull the cable, then end every process at once: no goodbye reaches anybody."""
        assert self._process is not None
        run("ip", "link", "set", self._cable, "down")
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(timeout=20)
        run("ip", "link", "delete", self._cable)
        run("ip", "netns", "delete", self.name)

    def read(self, path: str) -> str:
        """Return a file of the user's home; empty when there is none."""
        file = self._folder / "upper" / path
        return file.read_text() if file.exists() else ""

    def keep_logs(self, target: Path) -> None:
        """Copy this host's console and Ray's logs to where they survive the test."""
        target = target / self.name
        target.mkdir(exist_ok=True)
        if (self._folder / "console.log").exists():
            shutil.copy(self._folder / "console.log", target)
        for session in (self._folder / "tmp" / "ray").glob("session_2*"):
            shutil.copytree(
                session / "logs",
                target,
                dirs_exist_ok=True,
                ignore=lambda folder, names: [
                    name for name in names if (Path(folder) / name).is_socket()
                ],
            )
