"""
What the store committed, in the order of the commits, and what people were told.

The checkers read this and nothing else: neither the store's dictionaries nor the engine's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec


class Commit(msgspec.Struct, frozen=True):
    """One call that the store carried out; ``result`` is its answer."""

    now_ns: int  # the world's true time
    process: str
    method: str
    arguments: tuple[Any, ...]
    result: Any


class Violation(msgspec.Struct, frozen=True):
    """A promise that was broken."""

    check: str
    text: str
    at_s: float

    def __str__(self) -> str:
        return f"{self.check}: {self.text} (at {self.at_s:.3f} s)"


class History:
    """Collects commits, hands each to the checkers, and keeps their complaints."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._watchers: list[Callable[[Commit], None]] = []
        self._listeners: list[Callable[[Commit], None]] = []
        self._counts: Counter[str] = Counter()
        self.violations: list[Violation] = []
        self.spooled_ns: dict[str, int] = {}  # by order, when a local disk took it first
        self.is_closed = False  # what happens while the world is torn down is nobody's fault
        self.lines: list[str] | None = None  # a readable trace, when somebody wants one

    def watch(self, watcher: Callable[[Commit], None], listener: Callable[[Commit], None]) -> None:
        """Call ``watcher`` at every commit, ``listener`` when its caller has learned of it."""
        self._watchers.append(watcher)
        self._listeners.append(listener)

    def committed(self, commit: Commit) -> None:
        """Note a commit."""
        self._counts[commit.method] += 1
        for watcher in self._watchers:
            watcher(commit)

    def count(self, method: str) -> int:
        """How many calls of a method were committed."""
        return self._counts[method]

    def answered(self, commit: Commit) -> None:
        """Note that the answer has reached the caller."""
        for listener in self._listeners:
            listener(commit)

    def violated(self, check: str, text: str) -> None:
        """Note a broken promise."""
        if self.is_closed:
            return
        self.violations.append(Violation(check, text, self._now_s()))
        self.say("VIOLATION", f"{check}: {text}")

    def say(self, who: str, what: str) -> None:
        """Add a line to the trace."""
        if self.lines is not None:
            self.lines.append(f"{self._now_s():9.4f} {who:12} {what}")
