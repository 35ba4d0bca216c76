"""
What a symbol, an update and a node cost: least squares without negative costs.

Pure. There are three unknowns at most, so every subset of them is solved exactly and the best
one without a negative cost is taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import msgspec


class Cost(msgspec.Struct, frozen=True):
    """
    One cost as ``per_node + per_symbol * symbols + per_update * updates a second``.

    ``residuals`` are measured minus fitted, in the order of the points.
    """

    per_node: float
    per_symbol: float
    per_update: float
    residuals: tuple[float, ...]

    def of(self, symbols: float, updates_per_s: float) -> float:
        """Return what the model says of so many symbols and updates a second on one node."""
        return self.per_node + self.per_symbol * symbols + self.per_update * updates_per_s


def fit(
    points: Sequence[tuple[float, float]], measured: Sequence[float], *, by_updates: bool = True
) -> Cost:
    """
    Fit a cost to ``measured`` at ``points``, which are (symbols, updates a second).

    Without ``by_updates`` updates cost nothing: memory and start-up depend on symbols alone.
    """
    assert len(points) == len(measured) > 0
    rows = [(1.0, symbols, updates) for symbols, updates in points]
    best: tuple[float, tuple[float, ...]] | None = None
    for chosen in _subsets(3 if by_updates else 2):
        found = _solve([[row[i] for i in chosen] for row in rows], measured)
        if found is None or min(found) < 0:
            continue
        whole = tuple(dict(zip(chosen, found, strict=True)).get(i, 0.0) for i in range(3))
        error = sum(one**2 for one in _residuals(rows, measured, whole))
        if best is None or error < best[0]:
            best = error, whole
    assert best is not None, "a constant alone always fits what is not negative"
    per_node, per_symbol, per_update = best[1]
    residuals = tuple(_residuals(rows, measured, best[1]))
    return Cost(per_node, per_symbol, per_update, residuals)


def _subsets(count: int) -> Iterator[tuple[int, ...]]:
    for size in range(1, count + 1):
        yield from combinations(range(count), size)


def _residuals(
    rows: Sequence[Sequence[float]], measured: Sequence[float], costs: Sequence[float]
) -> list[float]:
    return [
        value - sum(cost * x for cost, x in zip(costs, row, strict=True))
        for row, value in zip(rows, measured, strict=True)
    ]


def _solve(rows: Sequence[Sequence[float]], measured: Sequence[float]) -> tuple[float, ...] | None:
    """Solve the normal equations by elimination; None when the points do not tell them apart."""
    count = len(rows[0])
    table = [
        [sum(row[i] * row[j] for row in rows) for j in range(count)]
        + [sum(row[i] * value for row, value in zip(rows, measured, strict=True))]
        for i in range(count)
    ]
    for i in range(count):
        pivot = max(range(i, count), key=lambda k: abs(table[k][i]))
        if abs(table[pivot][i]) < 1e-9:
            return None
        table[i], table[pivot] = table[pivot], table[i]
        for k in range(count):
            if k != i:
                ratio = table[k][i] / table[i][i]
                table[k] = [a - ratio * b for a, b in zip(table[k], table[i], strict=True)]
    return tuple(table[i][count] / table[i][i] for i in range(count))
