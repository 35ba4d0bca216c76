"""A line per step with its seconds, and the one way in which a step fails."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

FoundT = TypeVar("FoundT")


class Failed(Exception):
    """Something did not hold; the text says what, and is the verdict."""


def say(text: str) -> None:
    """Print a line at once, whoever reads it."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


@contextlib.contextmanager
def step(name: str) -> Iterator[list[str]]:
    """Tell how long a step took; what is put into the list stands behind it."""
    began_s = time.monotonic()
    notes: list[str] = []
    end = "FAILED"
    try:
        yield notes
        end = ", ".join(notes)
    finally:
        say(f"  {name:<58} {time.monotonic() - began_s:6.1f} s  {end}".rstrip())


def wait_for(
    what: str, look: Callable[[], FoundT | None], timeout_s: float, every_s: float = 1.0
) -> FoundT:
    """Return the first answer of ``look`` that is something. Raises Failed after the bound."""
    end_s = time.monotonic() + timeout_s
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > end_s:
            raise Failed(f"{what}: not within {timeout_s:.0f} s")
        time.sleep(every_s)


def run(
    *command: str | Path,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str = "",
) -> str:
    """Return what a command wrote to stdout. Raises Failed when it fails or takes too long."""
    done = attempt(*command, timeout_s=timeout_s, env=env, cwd=cwd, stdin=stdin)
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip())[-1500:]
        raise Failed(f"{_short(command)} ended with {done.returncode}: {said}")
    return done.stdout


def attempt(
    *command: str | Path,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run a command whose failure may be an answer. Raises Failed when it takes too long."""
    try:
        return subprocess.run(
            [str(word) for word in command],
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            env=env,
            cwd=cwd,
            input=stdin,
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"{_short(command)} took more than {timeout_s:.0f} s") from None
    except FileNotFoundError as error:
        raise Failed(f"{error.filename} is not there") from None


def _short(command: Sequence[str | Path]) -> str:
    words = " ".join(str(word) for word in command)
    return words if len(words) < 120 else words[:117] + "..."
