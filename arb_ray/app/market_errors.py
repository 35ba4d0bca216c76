"""Sampling errors of what is measured on a market: resampled in blocks, which keep memory."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

Tell = Callable[[int, int, str], None]
"""Hears of progress: done, total, of what."""

RESAMPLES = 100  # an error is known to a tenth of itself

T = TypeVar("T")


def silent(_done: int, _total: int, _what: str) -> None:
    """Tell nobody."""


class Row(msgspec.Struct, frozen=True):
    """
    One measured number beside the sheet's, which is an interval.

    ``real_se`` is the sheet's own sampling error: what this market shows over samples of the
    sheet's size. ``z`` is the distance to the interval in errors of both together.
    """

    sim: float
    sim_se: float
    real_low: float
    real_high: float
    real_se: float
    z: float | None
    is_contradicted: bool = False


def compare(
    sim: float,
    sim_se: float,
    real: tuple[float, float],
    real_se: float,
    *,
    is_contradicted: bool = False,
) -> Row:
    """Set a number beside the sheet's interval. ``z`` is None where neither can vary."""
    low, high = real
    off = sim - high if sim > high else sim - low if sim < low else 0.0
    both = math.hypot(sim_se, real_se)
    z = off / both if both else (0.0 if not off else None)
    return Row(sim, sim_se, low, high, real_se, z, is_contradicted)


def bootstrap_error(measure: Callable[[list[T]], float], series: Sequence[T], block: int) -> float:
    """Return the standard error of ``measure`` by the moving-block bootstrap."""
    rng = random.Random(len(series))  # noqa: S311  # resampling, and the same for the same data
    block = max(1, min(block, len(series) // 2))
    count = math.ceil(len(series) / block)
    resampled = []
    for _ in range(RESAMPLES):
        joined: list[T] = []
        for _ in range(count):
            at = rng.randrange(len(series) - block + 1)
            joined += series[at : at + block]
        resampled.append(measure(joined))
    return statistics.pstdev(resampled)


def changes(series: Sequence[float], lag: int) -> list[float]:
    """Return the differences over ``lag`` places."""
    return [b - a for a, b in zip(series, series[lag:], strict=False)]


def quantile(percent: int) -> Callable[[Sequence[float]], float]:
    """Return the measure of a percentile."""
    return lambda series: sorted(series)[min(len(series) - 1, len(series) * percent // 100)]


def share_over(bound: float) -> Callable[[Sequence[float]], float]:
    """Return the measure of the share beyond ``bound`` on either side, percent."""
    return lambda series: 100 * sum(abs(x) > bound for x in series) / len(series)


def correlation(pairs: Sequence[tuple[float, float]]) -> float:
    """Return the correlation of pairs."""
    return statistics.correlation([a for a, _ in pairs], [b for _, b in pairs])
