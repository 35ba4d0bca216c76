"""A Docker engine of the test's own, on a socket of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.containers.debian import docker_program
from tests.containers.machine import CGROUP_NAME, SOCKETS, hide_folders
from tests.containers.progress import Failed, attempt, run, wait_for

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 40.0
# Where the engine builds, the network is the machine's: it gets no bridge and no rule of ours.
BUILD_OPTIONS = ("--iptables=false", "--ip6tables=false", "--bridge=none", "--ip-forward=false")


class Engine:
    """A running engine, spoken to through its client."""

    def __init__(self, socket: Path) -> None:
        self.environ = {"DOCKER_HOST": f"unix://{socket}", "DOCKER_BUILDKIT": "1"}
        self.program = docker_program("docker")

    def docker(self, *words: str, timeout_s: float = 60, stdin: str = "") -> str:
        """Run ``docker``; return its stdout. Raises Failed."""
        env = os.environ | self.environ
        return run(self.program, *words, timeout_s=timeout_s, env=env, stdin=stdin)

    def docker_both(self, *words: str, timeout_s: float = 60) -> str:
        """Run ``docker``; return stdout and stderr, as `docker logs` needs it."""
        env = os.environ | self.environ
        done = attempt(self.program, *words, timeout_s=timeout_s, env=env)
        return done.stdout + done.stderr

    def answers(self) -> bool:
        """Tell whether it takes commands."""
        env = os.environ | self.environ
        return attempt(self.program, "version", timeout_s=20, env=env).returncode == 0


@contextlib.contextmanager
def engine(work: Path, *, builds: bool) -> Iterator[Engine]:
    """Run an engine whose images lie in ``work``; ``builds`` with the machine's network."""
    hide_folders()
    home = Path(SOCKETS)
    if not builds:
        run("ip", "link", "set", "lo", "up", timeout_s=10)
    socket = home / "docker.sock"
    log = (work / f"dockerd-{'build' if builds else 'run'}.log").open("wb")
    command = [
        *(str(docker_program("dockerd")), "--data-root", str(work / "engine")),
        *("--exec-root", str(home / "exec"), "--pidfile", str(home / "dockerd.pid")),
        *("--host", f"unix://{socket}", "--cgroup-parent", f"/{CGROUP_NAME}"),
        *(BUILD_OPTIONS if builds else ()),
    ]
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        client = Engine(socket)

        def is_up() -> bool:
            if process.poll() is not None:
                raise Failed(f"dockerd ended with {process.returncode}; see {log.name}")
            return socket.exists() and client.answers()

        wait_for("the Docker engine", is_up, START_TIMEOUT_S, every_s=0.3)
        yield client
    finally:
        process.terminate()
        try:
            process.wait(timeout=STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()  # the namespaces take the rest along
        log.close()
