"""A copy of the tree, and the trials that are run in it: which test notices a bug."""

from __future__ import annotations

import ast
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from tests.mutants.planting import Mutant
from tests.mutants.plugin import MAP, TESTS, Reach

TEST_S = 30
"""Seconds that one test may take in a trial; without a bug all take less than four."""

STAGE_S = 300
"""Seconds for all tests of a trial, or for the simulation. A bug that makes them endless is
noticed then."""

PROVE_S = 900
"""Seconds for all tests without a bug, with every line of engine and domain noted."""

SIM_SEEDS = 40

LEFT_OUT = ("tests/property/test_simulation.py", "tests/unit/test_mutants.py")
"""The simulation runs by itself after the tests; this command does not try itself."""

TIMED = (
    "tests/unit/test_sim_market.py::test_a_day_ahead_is_reached_in_under_a_second_with_fifty_coins",
)
"""They bound their own CPU time, and noting each line that runs costs some."""

EVERY_MODULE = "tests/unit/test_core_structs.py"
"""Looks at what all modules define, whichever of their lines it runs."""

FAILED, BROKE_OFF = 1, 2
"""pytest's codes when a test fails, and when a module cannot be imported."""


class BrokenTrial(Exception):
    """A trial says nothing about the bug: the tests fail without one, or did not run."""


class Outcome(msgspec.Struct, frozen=True):
    """What became of a mutant."""

    mutant: Mutant
    noticed_by: str  # empty when nobody did
    took_s: float


class Copy:
    """A copy of the tree in which one bug at a time is planted."""

    def __init__(self, root: Path, reach: Reach | None = None) -> None:
        self.root = root
        self._reach = reach or Reach({}, {})

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

    def prove(self) -> None:
        """
        Run all tests and the simulation without a bug, and note who reaches which line.

        Raises:
            BrokenTrial: Something fails, so no trial could tell a bug from that.
        """
        written = self.root / "mutants.map"
        files = ["tests/unit", "tests/property", *(f"--ignore={name}" for name in LEFT_OUT)]
        files += [f"--deselect={name}" for name in TIMED]
        noticed = self._run_pytest(files, PROVE_S, {MAP: str(written)})
        noticed = noticed or self._run_simulation()
        if noticed:
            raise BrokenTrial(f"Without any bug this fails: {noticed}")
        self._reach = msgspec.json.decode(written.read_bytes(), type=Reach)

    def twin(self, folder: Path) -> Copy:
        """Return another copy, for trials at the same time."""
        shutil.copytree(self.root, folder)
        return Copy(folder, self._reach)

    def try_out(self, mutant: Mutant) -> Outcome:
        """Plant a bug, run the tests that reach it, then the simulation, and take it out."""
        began_s = time.monotonic()
        path = self.root / mutant.path
        saved, stat = path.read_bytes(), path.stat()
        tests = self._tests(mutant, saved.decode())
        path.write_text(mutant.code(self.root), encoding="utf-8")
        # Compiled modules are recognised by time and size, and a bug may share both with its
        # original.
        os.utime(path, (stat.st_atime, stat.st_mtime + 10))
        try:
            noticed = self._run_chosen(tests) or self._run_simulation()
        finally:
            path.write_bytes(saved)
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        return Outcome(mutant, noticed, time.monotonic() - began_s)

    def _tests(self, mutant: Mutant, source: str) -> list[str]:
        """Return the tests that run the statement, or use its module if it runs at import."""
        lines = self._reach.lines.get(mutant.path, {})
        tree = ast.parse(source)
        first, last = _statement(tree, mutant.line)
        ran = {place for line in range(first, last + 1) for place in lines.get(line, ())}
        if not _is_in_function(tree, first):
            # Imported once, by whichever file came first; and to make a struct runs no line.
            ran = {place for places in lines.values() for place in places} | {EVERY_MODULE}
            ran |= self._importing(mutant.module)
        # A place is a test, or a file whose import ran the line.
        found = [test for test in self._reach.took_s if ran & {test, test.split("::")[0]}]
        return sorted(found, key=lambda test: self._reach.took_s[test])

    def _importing(self, module: str) -> set[str]:
        """Return the files of tests that name the module in an import."""
        package, name = module.split(".")
        names_it = re.compile(rf"^from arb_ray\.{package}(\.| import .*\b){name}\b", re.MULTILINE)
        files = {test.split("::")[0] for test in self._reach.took_s}
        return {file for file in files if names_it.search((self.root / file).read_text())}

    def _run_chosen(self, tests: list[str]) -> str:
        if not tests:
            return ""
        chosen = self.root / "mutants.tests"
        chosen.write_text("\n".join(tests), encoding="utf-8")
        files = sorted({test.split("::")[0] for test in tests})
        return self._run_pytest(files, STAGE_S, {TESTS: str(chosen)})

    def _run_pytest(self, files: list[str], bound_s: int, more: dict[str, str]) -> str:
        options = ["-p", "tests.mutants.plugin", "-p", "no:randomly", "-p", "no:cacheprovider"]
        options += ["--hypothesis-seed=0", f"--timeout={TEST_S}", "-xq", "--tb=no", "-rfE"]
        code, output = self._run(["pytest", *options, *files], bound_s, more)
        if code is None:
            return "being endless"
        if code not in {0, FAILED, BROKE_OFF}:
            raise BrokenTrial(f"pytest ended with {code}:\n{output[-2000:]}")
        for line in output.splitlines():
            if line.startswith(("FAILED ", "ERROR ")):
                return line.split(" - ")[0].split(" ", 1)[1]
        return f"pytest's code {code}" if code else ""

    def _run_simulation(self) -> str:
        command = ["tests.sim", "--seeds", str(SIM_SEEDS), "--jobs", "1", "--json"]
        code, _ = self._run(command, STAGE_S, {})
        return "" if code == 0 else "tests.sim"

    def _run(
        self, command: list[str], bound_s: int, more: dict[str, str]
    ) -> tuple[int | None, str]:
        environment = os.environ | {"PYTHONPATH": str(self.root), "PYTHONHASHSEED": "0"} | more
        if MAP not in more:  # no bug's bytecode stays behind
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
            output, _ = process.communicate(timeout=bound_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return None, ""
        return process.returncode, output


def _statement(tree: ast.Module, line: int) -> tuple[int, int]:
    """Return the lines of the innermost statement; of one with a body, those before it."""
    first = last = line
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or 0):
            body = getattr(node, "body", None)
            end = body[0].lineno - 1 if body else node.end_lineno
            first, last = node.lineno, max(node.lineno, end or 0)
    return (first, last) if first <= line <= last else (line, line)


def _is_in_function(tree: ast.Module, line: int) -> bool:
    return any(
        node.body[0].lineno <= line <= (node.end_lineno or 0)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    )
