"""The largest value of the last while, in two numbers."""

from __future__ import annotations


class LatelyMax:
    """
    The largest value of the last ``window_s`` at least, and of twice that at most.

    A peak that lasts a millisecond would be missed by who looks every few seconds, and
    seen by one of two who both reset it. Times are any clock's seconds that do not fall.
    """

    __slots__ = ("_before", "_began_s", "_now", "_window_s")

    def __init__(self, window_s: float) -> None:
        assert window_s > 0
        self._window_s = window_s
        self._began_s = float("-inf")
        self._before = 0.0
        self._now = 0.0

    def add(self, value: float, now_s: float) -> None:
        """Take a value that is not negative."""
        self._turn(now_s)
        self._now = max(self._now, value)

    def value(self, now_s: float) -> float:
        """Return the largest; 0 when nothing came lately."""
        self._turn(now_s)
        return max(self._before, self._now)

    def _turn(self, now_s: float) -> None:
        passed_s = now_s - self._began_s
        if passed_s < self._window_s:
            return
        self._before = self._now if passed_s < 2 * self._window_s else 0.0
        self._now = 0.0
        self._began_s = now_s
