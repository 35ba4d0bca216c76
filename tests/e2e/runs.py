"""A run as a person starts it: a command line, its output, and everything that it started."""

from __future__ import annotations

import contextlib
import os
import pty
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import msgspec

from arb_ray.engine.status import SystemStatus
from benchmarks.family import Family

ROOT = Path(__file__).resolve().parents[2]
PYTHON = sys.executable
SUBMIT = (PYTHON, "-m", "arb_ray.submit")

START_TIMEOUT_S = 110.0
"""Ten seconds on a quiet machine; a test must not depend on a quiet one."""

END_TIMEOUT_S = 60.0
GONE_TIMEOUT_S = 20.0


@contextlib.contextmanager
def short_folder():
    """An empty folder with a short name: Ray's sockets lie below, and a path has 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="e2e.", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


class Run:
    """
    One command, started in a session of its own, as a terminal or a service would.

    Use as a context manager: what is left at its end is killed, so that a failed test does
    not spoil the next one. Whether anything was left is for ``left_running`` to tell.
    """

    def __init__(
        self, command, data_dir: Path, *, environment=None, on_terminal=False, gateway=None
    ):
        self.family = Family(data_dir)
        self.gateway = gateway
        self._environment = {**self.family.environment(), **(environment or {})}
        self._out, self._err = bytearray(), bytearray()
        self._readers: list[threading.Thread] = []
        self.process = self._start([str(part) for part in command], on_terminal=on_terminal)

    def _start(self, command, *, on_terminal):
        common = {"cwd": ROOT, "env": self._environment, "start_new_session": True}
        if on_terminal:
            ours, theirs = pty.openpty()
            process = subprocess.Popen(
                command, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, **common
            )
            os.close(theirs)
            self._read(ours, self._out)
        else:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                **common,
            )
            self._read(os.dup(process.stdout.fileno()), self._out)
            process.stdout.close()
        self._read(os.dup(process.stderr.fileno()), self._err)
        process.stderr.close()
        return process

    def _read(self, descriptor, into):
        def read():
            with os.fdopen(descriptor, "rb", buffering=0) as stream:
                while True:
                    try:
                        part = stream.read(65536)
                    except OSError:  # a terminal whose other side is closed says it so
                        return
                    if not part:
                        return
                    into.extend(part)

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        self._readers.append(thread)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.family.kill()
        self.process.wait(END_TIMEOUT_S)

    @property
    def out(self) -> str:
        """What it wrote to stdout until now."""
        return self._out.decode(errors="replace")

    @property
    def err(self) -> str:
        """What it wrote to stderr until now."""
        return self._err.decode(errors="replace")

    def wait(self, timeout_s) -> int:
        """Wait for its end; return the exit code."""
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout_s:g} s: {self.err}") from None
        for thread in self._readers:
            thread.join(GONE_TIMEOUT_S)  # a reader ends when the last holder of the pipe does
        return code

    def left_running(self) -> list[str]:
        """Return what it left behind, after a while for children that are just ending."""
        return self.family.wait_until_gone(GONE_TIMEOUT_S)

    def until(self, is_so, what, timeout_s=START_TIMEOUT_S):
        """Wait until ``is_so(self)`` is true of the running command; return what it gave."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if found := is_so(self):
                return found
            assert self.process.poll() is None, f"ended before {what}: {self.err}"
            time.sleep(0.2)
        raise AssertionError(f"no {what} within {timeout_s:g} s: {self.err}")

    def until_live(self):
        """Wait until every symbol is live."""
        return self.until(lambda run: "20 of 20 symbols live" in run.err, "all symbols live")

    def status(self) -> SystemStatus | None:
        """Ask the Gateway; None while it does not answer."""
        try:
            with urllib.request.urlopen(  # loopback, plain HTTP
                f"http://127.0.0.1:{self.gateway}/status", timeout=5
            ) as answer:
                return msgspec.json.decode(answer.read(), type=SystemStatus)
        except (urllib.error.URLError, OSError):
            return None

    def interrupt(self):
        """Ctrl-C: the terminal sends it to every process of the foreground group."""
        os.killpg(self.process.pid, signal.SIGINT)


def submit(data_dir, *options, gateway=None, environment=None) -> Run:
    """Start ``python -m arb_ray.submit --env dev`` with a data folder; TMPDIR is beside it."""
    port = ("--set", f"gateway.http_port={gateway}") if gateway else ()
    command = (*SUBMIT, "--env", "dev", "--data-dir", str(data_dir), *port, *options)
    environment = {"TMPDIR": str(data_dir.parent), **(environment or {})}
    return Run(command, data_dir, environment=environment, gateway=gateway)


def one_line_of_json(run) -> dict:
    """Return the object on stdout, which must be there alone."""
    lines = run.out.splitlines()
    assert len(lines) == 1, f"stdout is not one line: {run.out!r}"
    return msgspec.json.decode(lines[0])
