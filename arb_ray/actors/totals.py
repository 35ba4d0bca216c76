"""Totals that somebody else keeps, told to a counter by what was added."""

from __future__ import annotations

from arb_ray.ports import Metrics


class Totals:
    """Remembers what each series was told last. Bounded by the series there are."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._told: dict[tuple[str, tuple[tuple[str, str], ...]], int] = {}

    def tell(self, name: str, total: int, **labels: str) -> None:
        """Bring the counter to ``total``, which does not shrink."""
        series = (name, tuple(labels.items()))
        added = total - self._told.get(series, 0)
        assert added >= 0, f"{name} is a total, and totals do not shrink"
        self._told[series] = total
        self._metrics.inc(name, added, **labels)
