"""
One side of a book that is kept by diffs.

Sizes lie in a dict by price; only the prices nearest to the market are kept in order, in the
*window*. Most changes of a diff fall far behind it and are one look into a dict then, and what
is shown never reaches so deep. A window that ran short is filled from the dict anew: rare,
because it holds some ten times what is shown (decision 21).
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Iterable
from operator import neg

from arb_ray.domain.book import Levels

WINDOW = 128
"""Prices that are put in order when the window is filled; at twice as many it is cut back."""

_NO_KEY = float("-inf")


class BookSide:
    """
    Levels by a key that is larger the better they are: a bid's price, an ask's negative one.

    ``horizon`` is the key beyond which levels are unknown until they change; -inf when the
    whole side is known. All keys from ``_floor`` up are in the window.
    """

    def __init__(self, sign: int, window: int = WINDOW) -> None:
        assert sign in {1, -1}
        assert window > 0
        self._sign = float(sign)
        self._wanted = window
        self._sizes: dict[float, float] = {}
        self._window: list[float] = []  # the best at its end, where most changes fall
        self._floor = _NO_KEY
        self._best: Levels | None = None  # kept until a change touches it
        self._best_depth = 0
        self._edge = _NO_KEY  # the worst key in ``_best``; -inf when all there is lies in it
        self.horizon = _NO_KEY

    def __len__(self) -> int:
        return len(self._sizes)

    @property
    def best_key(self) -> float:
        """Return the key of the best level, -inf on an empty side."""
        return self._window[-1] if self._window else _NO_KEY

    def clear(self) -> None:
        """Forget everything."""
        self._sizes.clear()
        self._window.clear()
        self._floor = self.horizon = _NO_KEY
        self._best = None

    def load(self, levels: Levels, *, goes_on: bool) -> None:
        """Take a snapshot's levels; ``goes_on`` says that there are more beyond them."""
        sign = self._sign
        self._sizes = {price * sign: size for price, size in levels}
        self._fill(self._wanted)
        self._best = None
        self.horizon = min(self._sizes) if goes_on and self._sizes else _NO_KEY

    def merge(self, changes: Iterable[tuple[float, float]]) -> None:
        """Take changed levels with absolute sizes; 0 deletes, also what was never seen."""
        sizes, window, sign = self._sizes, self._window, self._sign
        edge, floor = self._edge, self._floor
        is_touched = False
        for price, size in changes:
            key = price * sign
            if key >= edge:
                is_touched = True
            if size:
                if key >= floor and key not in sizes:
                    insort(window, key)
                sizes[key] = size
            elif key in sizes:
                del sizes[key]
                if key >= floor:
                    del window[bisect_left(window, key)]
        if is_touched:
            self._best = None
        count = len(window)
        if count > 2 * self._wanted:
            del window[: count - self._wanted]
            self._floor = window[0]
        elif not count and sizes:
            self._fill(self._wanted)  # so that the best is always in it

    def trim(self, limit: int, slack: int) -> int:
        """Drop the worst levels above ``limit`` once ``slack`` are over; return how many."""
        excess = len(self._sizes) - limit
        if excess <= slack:
            return 0
        for key in heapq.nsmallest(excess, self._sizes):
            del self._sizes[key]
        self.horizon = max(self.horizon, min(self._sizes))
        self._fill(self._wanted)
        self._best = None
        return excess

    def best(self, depth: int) -> Levels:
        """Return the best ``depth`` levels or more, best first; all when there are fewer."""
        if self._best is None or self._best_depth < depth:
            if len(self._window) < min(depth, len(self._sizes)):
                self._fill(max(self._wanted, 2 * depth))
            keys = self._window[: -depth - 1 : -1]
            prices = keys if self._sign > 0 else map(neg, keys)
            self._best = tuple(zip(prices, map(self._sizes.__getitem__, keys), strict=True))
            self._best_depth = depth
            self._edge = keys[-1] if len(keys) == depth else _NO_KEY
        return self._best

    def knows(self, n: int) -> bool:
        """Tell whether ``n`` levels lie within the horizon, or the side ends before."""
        horizon = self.horizon
        if horizon == _NO_KEY:
            return True
        if len(self._window) >= n:
            return self._window[-n] >= horizon
        return sum(key >= horizon for key in self._sizes) >= n

    def _fill(self, count: int) -> None:
        self._window[:] = heapq.nlargest(count, self._sizes)[::-1]
        is_all = len(self._window) == len(self._sizes)
        self._floor = _NO_KEY if is_all else self._window[0]
