"""A line per step with its seconds, and the one way in which a step fails."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

BEGAN_S = time.monotonic()
FoundT = TypeVar("FoundT")


class Failed(Exception):
    """The cluster did not do what it must; the text says what, and is the verdict."""


def say(text: str) -> None:
    """Print a line at once, whoever reads it."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


@contextlib.contextmanager
def step(name: str) -> Iterator[list[str]]:
    """Tell how long a step took; what is put into the list stands behind it."""
    began_s = time.monotonic()
    notes: list[str] = []
    try:
        yield notes
    except BaseException:
        say(f"{_elapsed()}  {name:<44} {time.monotonic() - began_s:6.1f} s  FAILED")
        raise
    note = "  " + ", ".join(notes) if notes else ""
    say(f"{_elapsed()}  {name:<44} {time.monotonic() - began_s:6.1f} s{note}")


def _elapsed() -> str:
    return f"[{time.monotonic() - BEGAN_S:5.0f} s]"


def wait_for(
    what: str, look: Callable[[], FoundT | None], timeout_s: float, every_s: float
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
