"""A copy of the tree, and the trials that are run in it: which tests notice a bug, and when."""

from __future__ import annotations

import ast
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

import msgspec

from tests.mutants.planting import Mutant

TEST_S = 20
"""Seconds that one test may take in a trial; all of ours take less than four."""

STAGE_S = 240
"""Seconds that a stage may take: many times what it takes without a bug. Then it is stopped,
and a bug that made it endless is noticed."""

SIM_SEEDS = 40

WIRING = ("arb_ray.app", "arb_ray.cli", "arb_ray.submit", "arb_ray.adapters.venues.sim")
"""What reaches everything and judges nothing: tests that come this way concern no bug here."""

LEFT_OUT = frozenset({"test_simulation", "test_mutants"})
"""The simulation runs as a stage of its own; this command does not try itself."""

KILLED_BY_TESTS = {1: "", 2: "could not be imported"}


class BrokenTrial(Exception):
    """A trial says nothing about the bug: the tests fail without one, or did not run."""


class Outcome(msgspec.Struct, frozen=True):
    """What became of a mutant."""

    mutant: Mutant
    noticed_by: str  # empty when nobody did
    took_s: float


class Copy:
    """A copy of the tree in which one bug at a time is planted."""

    def __init__(self, folder: Path) -> None:
        self.root = folder
        self._reach = _Reach(folder)
        self._is_writing = False

    @classmethod
    def of(cls, checkout: Path, folder: Path) -> Copy:
        """Copy what git knows or would take; ignored files, data and .venv stay behind."""
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=checkout,
            check=True,
            capture_output=True,
            text=True,
        )
        for name in filter(None, listed.stdout.split("\0")):
            if (checkout / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(checkout / name, folder / name)
        return cls(folder)

    def twin(self, folder: Path) -> Copy:
        """Return another copy, for trials at the same time; compiled modules come along."""
        shutil.copytree(self.root, folder)
        return Copy(folder)

    def prove(self, modules: list[str]) -> None:
        """
        Run all that any trial of ``modules`` would run, without a bug.

        Raises:
            BrokenTrial: Something fails, so no trial could tell a bug from that.
        """
        near, far = set(), set()
        for module in modules:
            stages = self._reach.tests(module)
            near |= set(stages[0])
            far |= set(stages[1])
        self._is_writing = True
        noticed = self._run_tests(sorted(near | far)) or self._run_simulation()
        self._is_writing = False
        if noticed:
            raise BrokenTrial(f"Without any bug a test fails: {noticed}")

    def try_out(self, mutant: Mutant) -> Outcome:
        """Plant a bug, run the tests that concern it, the nearest first, and take it out."""
        began_s = time.monotonic()
        path = self.root / mutant.path
        saved, stat = path.read_bytes(), path.stat()
        path.write_text(mutant.code(self.root), encoding="utf-8")
        # Compiled modules are recognised by time and size, and a bug may share both with its original.
        os.utime(path, (stat.st_atime, stat.st_mtime + 10))
        try:
            near, far = self._reach.tests(mutant.module)
            noticed = self._run_tests(near) or self._run_simulation() or self._run_tests(far)
        finally:
            path.write_bytes(saved)
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        return Outcome(mutant, noticed, time.monotonic() - began_s)

    def _run_tests(self, files: list[str]) -> str:
        if not files:
            return ""
        options = ["-p", "tests.mutants.plugin", "-p", "no:randomly", "-p", "no:cacheprovider"]
        options += ["--hypothesis-seed=0", f"--timeout={TEST_S}", "-xq", "--tb=no", "-rfE"]
        code, output = self._run(["pytest", *options, *files])
        if code in {0, None}:
            return "" if code == 0 else "endless"
        if code not in KILLED_BY_TESTS:
            raise BrokenTrial(f"pytest ended with {code}:\n{output[-2000:]}")
        for line in output.splitlines():
            if line.startswith(("FAILED ", "ERROR ")):
                return line.split(" - ")[0].split(" ", 1)[1]
        return "pytest"

    def _run_simulation(self) -> str:
        command = ["tests.sim", "--seeds", str(SIM_SEEDS), "--jobs", "1", "--json"]
        code, _ = self._run(command)
        if code is None:
            return "tests.sim: endless"
        return "tests.sim" if code else ""

    def _run(self, command: list[str]) -> tuple[int | None, str]:
        environment = os.environ | {"PYTHONPATH": str(self.root), "PYTHONHASHSEED": "0"}
        if not self._is_writing:  # no bug's bytecode stays behind
            environment["PYTHONDONTWRITEBYTECODE"] = "1"
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=self.root,
            env=environment,
            text=True,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            output, _ = process.communicate(timeout=STAGE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return None, ""
        return process.returncode, output


class _Reach:
    """Which test files reach a module through imports, and over how many."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._imports: dict[str, set[str]] = {}
        self._files = sorted(
            path
            for folder in ("tests/unit", "tests/property")
            for path in (root / folder).glob("test_*.py")
            if path.stem not in LEFT_OUT
        )

    def tests(self, module: str) -> tuple[list[str], list[str]]:
        """Return the test files that import ``module`` nearly, and those that reach it at all."""
        target = f"arb_ray.{module}"
        near, far = [], []
        for file in self._files:
            name = ".".join(file.relative_to(self._root).with_suffix("").parts)
            steps = self._steps(name, target)
            if steps is not None:
                weight = steps, file.stat().st_size
                (near if steps <= 2 else far).append((weight, str(file.relative_to(self._root))))
        return [name for _, name in sorted(near)], [name for _, name in sorted(far)]

    def _steps(self, start: str, target: str) -> int | None:
        seen, queue = {start}, deque([(start, 0)])
        while queue:
            name, steps = queue.popleft()
            if name == target:
                return steps
            if name.startswith(WIRING):
                continue
            for other in self._imported_by(name) - seen:
                seen.add(other)
                queue.append((other, steps + 1))
        return None

    def _imported_by(self, name: str) -> set[str]:
        if name not in self._imports:
            path = self._root / f"{name.replace('.', '/')}.py"
            tree = (
                ast.parse(path.read_text(encoding="utf-8"))
                if path.is_file()
                else ast.Module([], [])
            )
            named: set[str] = set()
            for node in ast.walk(tree):
                if isinstance(node, ast.Import):
                    named |= {alias.name for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    named |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            self._imports[name] = {one for one in named if one.startswith(("arb_ray.", "tests."))}
        return self._imports[name]
