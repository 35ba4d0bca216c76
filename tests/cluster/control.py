"""The control machine's shell: runs the guide's commands, keeps what they print."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

from tests.cluster.progress import Failed, step
from tests.cluster.site import CONTROL_HOME, HEAD_IP, WORKER_1_IP, WORKER_2_IP

# The guide's addresses are those reserved for documentation; ours stand for them.
ADDRESSES = {"192.0.2.10": HEAD_IP, "192.0.2.11": WORKER_1_IP, "192.0.2.12": WORKER_2_IP}
SETTINGS = ("machines", "shell")  # these blocks only export; each shell begins with them
INHERITED = ("PATH", "LANG", "TERM")


class Control:
    """One person's terminal, in the checkout's root."""

    def __init__(self, steps: dict[str, str], stores: dict[str, str], logs: Path) -> None:
        self._steps = steps
        self._logs = logs
        self._environment = {name: os.environ[name] for name in INHERITED if name in os.environ} | {
            "HOME": str(CONTROL_HOME),
            **stores,
        }
        self._done: list[str] = []

    @property
    def unused(self) -> list[str]:
        """Return the guide's steps that were never run."""
        return [name for name in self._steps if name not in {*self._done, *SETTINGS}]

    def ask(self, name: str, *, timeout_s: float) -> str:
        """Run a step that is repeated, without a line of progress; return its stdout."""
        return self.run(self._steps[name], name=name, timeout_s=timeout_s)

    def follow(self, name: str, *, timeout_s: float, typed: str = "") -> str:
        """Run a step of the guide as a line of progress; return its stdout."""
        with step(f"guide: {name}"):
            return self.run(self._steps[name], name=name, timeout_s=timeout_s, typed=typed)

    def run(
        self,
        commands: str,
        *,
        name: str,
        timeout_s: float,
        typed: str = "",
    ) -> str:
        """Run commands as the guide's reader would. Raises Failed with the last words."""
        self._done.append(name)
        script = self._preamble() + commands
        log = self._logs / f"{len(self._done):02d}-{name}.log"
        errors = log.with_suffix(".err")
        with log.open("wb") as out, errors.open("wb") as err:
            process = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", script],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                env=self._environment,
                start_new_session=True,
            )
            try:
                assert process.stdin is not None
                process.stdin.write(typed.encode())
                process.stdin.close()
                code = process.wait(timeout=timeout_s)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise Failed(
                    f"{name}: not done within {timeout_s:.0f} s{_tail(errors, log)}"
                ) from None
        if code != 0:
            raise Failed(f"{name}: exit code {code}{_tail(errors, log)}")
        return log.read_text(errors="replace")

    def _preamble(self) -> str:
        text = "".join(self._steps[name] for name in SETTINGS)
        return re.sub(r"192\.0\.2\.\d+", lambda found: ADDRESSES.get(found[0], found[0]), text)


def _tail(*files: Path) -> str:
    parts = []
    for file in files:
        lines = file.read_text(errors="replace").strip().splitlines()[-12:]
        parts.extend(f"\n    {line[:300]}" for line in lines)
    return "".join(parts)
