"""
What happens while things start and stop, one plain sentence each, on stderr.

stdout is never touched, so ``--json`` needs no exception. On a terminal a line that is
still going on is overwritten by its end; elsewhere every line stands for itself.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TextIO

_ERASE_LINE = "\r\x1b[2K"
_COUNT_INTERVAL_S = 1.0
"""Between two lines of a count where they cannot overwrite each other."""


class Progress:
    """Tells steps, counts and sentences."""

    def __init__(
        self,
        stream: TextIO,
        *,
        is_terminal: bool | None = None,
        mono_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty() if is_terminal is None else is_terminal
        self._mono_s = mono_s
        self._is_line_open = False
        self._counted = ""
        self._counted_at_s = float("-inf")

    @property
    def stream(self) -> TextIO:
        """Where it is told."""
        return self._stream

    def say(self, sentence: str) -> None:
        """Write one line."""
        self._write(f"{self._erase()}{sentence}\n")

    @contextlib.contextmanager
    def step(self, what: str, done: str = "up") -> Iterator[None]:
        """
        Tell how long something took: ``PostgreSQL up in 0.7 s``.

        What is raised inside is told as a failure, with its time, and goes on upwards.
        """
        begun_s = self._mono_s()
        if self._is_terminal:
            self._hold(f"{what} ...")
        try:
            yield
        except BaseException:
            self.say(f"{what} failed after {self._mono_s() - begun_s:.1f} s")
            raise
        self.say(f"{what} {done} in {self._mono_s() - begun_s:.1f} s")

    def count(self, done: int, total: int, what: str) -> None:
        """Tell ``12 of 20 symbols live``; repeats are silent, the last one never is."""
        line = f"{done} of {total} {what}"
        if line == self._counted:
            return
        is_last = done >= total
        if not self._is_terminal or is_last:
            now_s = self._mono_s()
            if not is_last and now_s - self._counted_at_s < _COUNT_INTERVAL_S:
                return
            self._counted_at_s = now_s
            self.say(line)
        else:
            self._hold(line)
        self._counted = line

    def _hold(self, line: str) -> None:
        erase = self._erase()
        self._is_line_open = True
        self._write(f"{erase}{line}")

    def _erase(self) -> str:
        if not self._is_line_open:
            return ""
        self._is_line_open = False
        return _ERASE_LINE

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
