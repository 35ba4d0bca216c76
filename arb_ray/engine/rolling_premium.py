"""Rolling mean and spread of a coin's premium: a gauge, and the basis of a perpetual leg."""

from __future__ import annotations

import math

import msgspec

from arb_ray.engine.spread import BPS, Sides

MAX_STEP_S = 10.0
"""One sample speaks for at most this long: the first look after an outage is one look."""


class RollingPremium(msgspec.Struct):
    """
    Exponentially weighted over observed time; a plain mean until a half-life was observed.

    A pure state: the same samples give the same figures.
    """

    half_life_s: float
    mean_bps: float = 0.0
    variance_bps2: float = 0.0
    last_bps: float = 0.0
    last_ns: int = 0
    observed_s: float = 0.0

    @property
    def std_bps(self) -> float:
        """The weighted standard deviation around the rolling mean."""
        return math.sqrt(self.variance_bps2)

    def add(self, at_ns: int, premium_bps: float) -> None:
        """Take one sample; one that is not later than the last is left out."""
        if not self.last_ns:
            self.mean_bps = premium_bps
        else:
            step_s = min((at_ns - self.last_ns) / 1e9, MAX_STEP_S)
            if step_s <= 0:
                return
            self.observed_s += step_s
            fade = 1 - 0.5 ** (step_s / self.half_life_s)
            weight = max(fade, step_s / self.observed_s)
            away = premium_bps - self.mean_bps
            self.mean_bps += weight * away
            self.variance_bps2 = (1 - weight) * (self.variance_bps2 + weight * away * away)
        self.last_bps, self.last_ns = premium_bps, at_ns


def premium_bps(u: Sides, n: Sides, f: Sides, scale: float) -> float:
    """
    Return how far U's mid lies above N's, converted at F's mid.

    ``scale`` is leg A's contract multiplier over leg B's.
    """
    u_twice = u[0][0][0] + u[1][0][0]
    n_twice = n[0][0][0] + n[1][0][0]
    f_twice = f[0][0][0] + f[1][0][0]
    return (u_twice / (n_twice * f_twice / 2 * scale) - 1) * BPS
