"""One run of the main job, watched from outside: processes, the Gateway's status, the end."""

from __future__ import annotations

import contextlib
import http.client
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from arb_ray.adapters.storage.process import free_port
from arb_ray.engine.health import live_symbols
from arb_ray.engine.status import SystemStatus
from benchmarks.family import Family, Member

START_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 90.0
GONE_TIMEOUT_S = 20.0
STATUS_TIMEOUT_S = 5.0


class Sample(msgspec.Struct, frozen=True):
    """What was seen at one moment, ``at_s`` after all symbols were live."""

    at_s: float
    members: list[Member]
    status: SystemStatus | None  # None: the Gateway did not answer in time


class End(msgspec.Struct, frozen=True):
    """How the run ended."""

    code: int
    stop_s: float  # from the end of the set time to the end of the process
    left: list[str]  # processes that outlived it
    summary: dict[str, Any]
    stderr: str


class WatchedRun:
    """
    Starts ``python -m arb_ray.submit``, and ends whatever it started, also when we fail.

    Attributes:
        live_after_s: From the start of the command until every symbol was live.
        ray_after_s: From the start of the command until Ray was up, as its line told.
        port: The Gateway's.
        family: The processes of the run.
    """

    def __init__(
        self, options: Sequence[str], *, environment: Mapping[str, str] | None = None
    ) -> None:
        self._options = options
        self._environment = environment or {}
        self._folder = Path(tempfile.mkdtemp(prefix="arb_ray_bench."))
        self.port = free_port()
        self.family = Family(self._folder)
        self._stderr = (self._folder / "stderr.txt").open("w+", encoding="utf-8")
        self._stdout = (self._folder / "stdout.txt").open("w+", encoding="utf-8")
        self._process: subprocess.Popen[bytes] | None = None
        self._live_at_s = 0.0
        self.live_after_s = 0.0
        self.ray_after_s = 0.0

    def __enter__(self) -> Self:
        command = [
            *(sys.executable, "-m", "arb_ray.submit", "--env", "dev", "--json"),
            *("--data-dir", str(self._folder / "data")),
            *("--set", f"gateway.http_port={self.port}"),
            *self._options,
        ]
        begun_s = time.monotonic()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._stdout,
            stderr=self._stderr,
            env={**self.family.environment(), **self._environment},
            start_new_session=True,
        )
        try:
            self._await_live(begun_s)
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_TIMEOUT_S)
        self.family.kill()
        self._process.wait()
        self._stderr.close()
        self._stdout.close()
        if isinstance(error, RuntimeError):
            error.add_note(f"Its logs stay in {self._folder}")
        else:
            shutil.rmtree(self._folder, ignore_errors=True)

    def samples(self, duration_s: float, interval_s: float) -> Iterator[Sample]:
        """Look at the run every ``interval_s`` until ``duration_s`` after all were live."""
        due_s = self._live_at_s
        while due_s < self._live_at_s + duration_s:
            time.sleep(max(0.0, due_s - time.monotonic()))
            self.check_alive()
            at_s = time.monotonic() - self._live_at_s
            yield Sample(at_s, self.family.members(), self._status())
            # What took longer than an interval is not made up for.
            due_s = max(due_s + interval_s, time.monotonic())

    def end(self) -> End:
        """Wait until it has ended by itself."""
        assert self._process
        begun_s = time.monotonic()
        try:
            code = self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"no end within {STOP_TIMEOUT_S:g} s:\n{self._told()}") from None
        stop_s = time.monotonic() - begun_s
        left = self.family.wait_until_gone(GONE_TIMEOUT_S)
        self._stdout.seek(0)
        lines = self._stdout.read().splitlines()
        summary = msgspec.json.decode(lines[-1]) if lines else {}
        return End(code, stop_s, left, summary, self._told())

    def _await_live(self, begun_s: float) -> None:
        labelled_s = begun_s
        while True:
            self.check_alive()
            now_s = time.monotonic()
            if not self.ray_after_s and "Ray up in " in self._told():
                self.ray_after_s = now_s - begun_s
            status = self._status()
            if status is not None:
                live, wanted = live_symbols(status)
                if wanted and live == wanted and not status.missing:
                    break
            elif re.search(r"^(\d+) of \1 symbols live", self._told(), re.MULTILINE):
                break
            if now_s >= labelled_s + 1:
                # An actor's title may stay that of a running method later: learn names now.
                labelled_s = now_s
                for process in self.family.processes():
                    self.family.label(process)
            if now_s - begun_s > START_TIMEOUT_S:
                raise RuntimeError(f"not live after {START_TIMEOUT_S:g} s:\n{self._told()}")
            time.sleep(0.1)
        self._live_at_s = time.monotonic()
        self.live_after_s = self._live_at_s - begun_s

    def check_alive(self) -> None:
        """Raise RuntimeError when the command has ended."""
        assert self._process
        if self._process.poll() is not None:
            raise RuntimeError(f"the run ended early:\n{self._told()}")

    def _told(self) -> str:
        self._stderr.seek(0)
        return self._stderr.read()

    def _status(self) -> SystemStatus | None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=STATUS_TIMEOUT_S)
        try:
            connection.request("GET", "/status")
            answer = connection.getresponse()
            body = answer.read()
            return msgspec.json.decode(body, type=SystemStatus) if answer.status == 200 else None
        except (OSError, http.client.HTTPException):
            return None  # not up yet, or too busy to answer: the judge counts these
        finally:
            connection.close()
