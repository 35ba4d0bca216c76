"""
Budgets: how many messages, connections or REST weights a venue takes in a time.

A budget is a log of what was spent, and a spend is allowed while every window that would
hold it stays within its count. That is stricter than the fixed minutes by which venues
count, and needs no knowledge of where their minutes begin. The caller brings the clock, so
nothing here waits: ask ``delay_s``, sleep, ask again, ``spend``.

A budget knows only what this process spends. Venues count by IP address, so several
processes behind one address each get a share of the venue's number, by configuration.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

import msgspec


class Window(msgspec.Struct, frozen=True):
    """At most ``count`` units in any ``seconds``: (5, 1) and (100, 60) for an Upbit socket."""

    count: int
    seconds: float

    def __post_init__(self) -> None:
        assert self.count >= 1
        assert self.seconds > 0
        assert math.isfinite(self.seconds)


class Budget:
    """
    Sliding-window limits that hold together: a spend must fit all of them.

    ``now_s`` is any monotonic clock in seconds, the same one in every call. Windows are
    half-open, so a unit is free again exactly ``seconds`` after it was spent. The network
    squeezes gaps between messages a little; where a venue bans instead of delaying, give
    the window a few percent more seconds than the venue's own.

    Memory: at most the largest ``count`` entries, since each costs at least one unit.
    """

    def __init__(self, windows: Iterable[Window | tuple[int, float]]) -> None:
        self._windows = tuple(w if isinstance(w, Window) else Window(*w) for w in windows)
        self._spent = [0] * len(self._windows)
        self._logs: list[deque[tuple[float, int]]] = [deque() for _ in self._windows]
        self._held_until_s = -math.inf

    def delay_s(self, now_s: float, cost: int = 1) -> float:
        """
        Return the seconds to wait before ``cost`` units may be spent; 0.0 is "now".

        A cost above some window's count could never be spent: that is a bug of the caller.
        """
        assert cost >= 1
        ready_s = max(now_s, self._held_until_s)
        for at, window in enumerate(self._windows):
            assert cost <= window.count, f"{cost} units never fit {window}"
            self._forget(at, now_s)
            excess = self._spent[at] + cost - window.count
            for spent_s, units in self._logs[at]:
                if excess <= 0:
                    break
                excess -= units
                ready_s = max(ready_s, spent_s + window.seconds)
        return ready_s - now_s

    def spend(self, now_s: float, cost: int = 1) -> None:
        """Take ``cost`` units at ``now_s``; spending what ``delay_s`` forbids is a bug."""
        assert self.delay_s(now_s, cost) == 0.0, "ask delay_s before spending"
        self._take(now_s, cost)

    def hold(self, until_s: float) -> None:
        """Allow nothing before ``until_s``: the venue said 429 with a Retry-After."""
        self._held_until_s = max(self._held_until_s, until_s)

    def observe(self, now_s: float, used: int, seconds: float) -> None:
        """
        Take over the venue's own count of the last ``seconds`` where it is above ours.

        Others may share our address (Binance tells all of them in ``X-MBX-USED-WEIGHT-1M``).
        The difference is booked as spent now, which errs on the slow side.
        """
        for at, window in enumerate(self._windows):
            if window.seconds != seconds:
                continue
            self._forget(at, now_s)
            unseen = min(used, window.count) - self._spent[at]
            if unseen > 0:
                self._logs[at].append((now_s, unseen))
                self._spent[at] += unseen

    def set_count(self, count: int, seconds: float) -> None:
        """Take over the venue's own limit for the windows of ``seconds``; spends stay booked."""
        self._windows = tuple(
            Window(count, seconds) if window.seconds == seconds else window
            for window in self._windows
        )

    def used_ratio(self, now_s: float) -> float:
        """Return the used part of the fullest window; above 1 right after a limit fell."""
        for at in range(len(self._windows)):
            self._forget(at, now_s)
        pairs = zip(self._spent, self._windows, strict=True)
        return max((spent / window.count for spent, window in pairs), default=0.0)

    def _take(self, now_s: float, cost: int) -> None:
        for at, log in enumerate(self._logs):
            assert not log or log[-1][0] <= now_s, "the clock of a budget must not go back"
            log.append((now_s, cost))
            self._spent[at] += cost

    def _forget(self, at: int, now_s: float) -> None:
        log, seconds = self._logs[at], self._windows[at].seconds
        # The same sum as in delay_s: whoever sleeps until a moment must find it free then.
        while log and log[0][0] + seconds <= now_s:
            self._spent[at] -= log.popleft()[1]
