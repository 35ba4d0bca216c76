"""How often to look: seldom at what is well, often at what has just ceased to be."""

from __future__ import annotations

from collections.abc import Hashable


class Pace:
    """
    The wait before the next look.

    Calm while nothing is lacking. Hurried after what is lacking has changed, for
    ``hurry_for_s``: a recovery should not wait for the next calm look, and what stays lacking
    for longer needs a person and not a busy machine.
    """

    def __init__(self, calm_s: float, hurried_s: float, hurry_for_s: float) -> None:
        self._calm_s = calm_s
        self._hurried_s = min(hurried_s, calm_s)
        self._hurry_for_s = hurry_for_s
        self._lacking: frozenset[Hashable] = frozenset()
        self._changed_s = 0.0

    def wait_s(self, lacking: frozenset[Hashable], now_s: float) -> float:
        """Return the wait, given what is lacking now; ``now_s`` is monotonic."""
        if lacking != self._lacking:
            self._lacking, self._changed_s = lacking, now_s
        is_hurried = lacking and now_s - self._changed_s < self._hurry_for_s
        return self._hurried_s if is_hurried else self._calm_s
