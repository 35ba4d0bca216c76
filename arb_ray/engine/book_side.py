"""
One side of a book that is kept by diffs.

Sizes lie in a dict, and their prices in one sorted list with the best at its end, where most
changes fall and an insertion moves little. For a thousand levels that is a third of what a
sorted container costs, and no dearer at the bound of ten thousand (decision 21).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable

from arb_ray.domain.book import Levels

_NO_KEY = float("-inf")


class BookSide:
    """
    Levels by a key that is larger the better they are: a bid's price, an ask's negative one.

    ``horizon`` is the key beyond which levels are unknown until they change; -inf when the
    whole side is known.
    """

    def __init__(self, sign: int) -> None:
        assert sign in {1, -1}
        self._sign = float(sign)
        self._sizes: dict[float, float] = {}
        self._keys: list[float] = []
        self._best: Levels | None = None  # kept until a change touches it
        self._best_depth = 0
        self._edge = _NO_KEY  # the worst key in ``_best``; -inf when all there is lies in it
        self.horizon = _NO_KEY

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def best_key(self) -> float:
        """Return the key of the best level, -inf on an empty side."""
        return self._keys[-1] if self._keys else _NO_KEY

    def clear(self) -> None:
        """Forget everything."""
        self._sizes.clear()
        self._keys.clear()
        self._best, self.horizon = None, _NO_KEY

    def load(self, levels: Levels, *, goes_on: bool) -> None:
        """Take a snapshot's levels; ``goes_on`` says that there are more beyond them."""
        sign = self._sign
        self._sizes = {price * sign: size for price, size in levels}
        self._keys = sorted(self._sizes)
        self._best = None
        self.horizon = self._keys[0] if goes_on and self._keys else _NO_KEY

    def merge(self, changes: Iterable[tuple[float, float]]) -> None:
        """Take changed levels with absolute sizes; 0 deletes, also what was never seen."""
        sizes, keys, sign, edge = self._sizes, self._keys, self._sign, self._edge
        is_touched = False
        for price, size in changes:
            key = price * sign
            if key >= edge:
                is_touched = True
            if size:
                if key not in sizes:
                    insort(keys, key)
                sizes[key] = size
            elif key in sizes:
                del sizes[key]
                del keys[bisect_left(keys, key)]
        if is_touched:
            self._best = None

    def trim(self, limit: int, slack: int) -> int:
        """Drop the worst levels above ``limit`` once ``slack`` are over; return how many."""
        excess = len(self._keys) - limit
        if excess <= slack:
            return 0
        for key in self._keys[:excess]:
            del self._sizes[key]
        del self._keys[:excess]
        self.horizon = max(self.horizon, self._keys[0])
        self._best = None
        return excess

    def best(self, depth: int) -> Levels:
        """Return the best ``depth`` levels or more, best first; all when there are fewer."""
        if self._best is None or self._best_depth < depth:
            sizes = self._sizes
            keys = self._keys[: -depth - 1 : -1]
            if self._sign > 0:
                self._best = tuple([(key, sizes[key]) for key in keys])
            else:
                self._best = tuple([(-key, sizes[key]) for key in keys])
            self._best_depth = depth
            self._edge = keys[-1] if len(keys) == depth else _NO_KEY
        return self._best

    def known(self) -> int:
        """Return how many levels lie within the horizon."""
        return len(self._keys) - bisect_left(self._keys, self.horizon)
