"""
The market behind the simulated exchanges: prices as a function of seed, origin and time.

Nothing here reads a clock or keeps state that matters: a process that was restarted, or
one on another machine, meets the same prices at the same instant. Only what an operator
scripts on top (``force_premium``, ``start_panic``) lives in this process alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

from arb_ray.adapters.venues.sim.coins import Coin, coin_named
from arb_ray.adapters.venues.sim.noise import (
    STEP_NS,
    STEPS_PER_MINUTE,
    STEPS_PER_S,
    Reverting,
    Shots,
    VolatilityClock,
    Wander,
    key_of,
    unit,
)
from arb_ray.adapters.venues.sim.presets import Preset

BP = 1e-4
PANIC_HOURS = 3.0
PANIC_DEPTH_BPS = (
    (0.0, 0.0),
    (0.45, -3_300.0),
    (0.60, -2_000.0),
    (1.0, -800.0),
    (2.0, -350.0),
    (3.0, 0.0),
)
"""Premium of coins in KRW by hours since the panic began: 2024-12-03 13:00 UTC (E)."""

SCRIPTS_MAX = 1_000  # forced premia kept per coin; the oldest is forgotten beyond it


class _Lane:
    """One coin's random parts."""

    def __init__(self, coin: Coin, preset: Preset, seed: int, clock: VolatilityClock) -> None:
        self.coin = coin
        self.shared = coin.vol * coin.beta
        self.own = coin.vol * math.sqrt(1 - coin.beta**2)
        asset = coin.asset
        self.path = Wander(
            key_of(seed, "coin", asset), preset.binance_vol, clock, preset.wander_half_life_days
        )
        self.fast = Reverting(
            key_of(seed, "premium-fast", asset),
            preset.premium_fast_std,
            preset.premium_fast_half_life_s,
            driver=self.path,
            rho=preset.premium_fast_rho,
        )
        self.slow = Reverting(
            key_of(seed, "premium-slow", asset),
            preset.premium_slow_std,
            preset.premium_slow_half_life_s,
            draws_per_minute=1,
        )
        burst = preset.burst
        self.bursts = Shots(
            key_of(seed, "burst", asset),
            window_s=burst.window_s,
            chance=burst.chance,
            size_bps=burst.size_bps,
            half_life_s=burst.half_life_s,
            rise_s=burst.rise_s,
        )
        self.basis = Reverting(
            key_of(seed, "basis", asset),
            preset.basis_std,
            preset.basis_half_life_s,
            draws_per_minute=STEPS_PER_MINUTE,
        )
        low, high = preset.lag_s
        self.lag = round(STEPS_PER_S * (low + (high - low) * unit(key_of(seed, "lag", asset), 0)))
        self.panic_share = 0.85 + 0.3 * unit(key_of(seed, "panic", asset), 0)
        self.scripts: list[tuple[int, int, float]] = []


class Market:
    """
    Prices of every coin on every venue at any step of 100 ms since ``origin_ns``.

    A coin's paths are drawn when it is first asked for, so listing hundreds costs nothing.
    """

    def __init__(self, preset: Preset, seed: int, symbols: Iterable[str], origin_ns: int) -> None:
        self.preset = preset
        self.seed = seed
        self.origin_ns = origin_ns
        self.coins = {asset: coin_named(asset) for asset in symbols}
        self._lanes: dict[str, _Lane] = {}
        self._clock = VolatilityClock(key_of(seed, "busy"), preset.hour_sigma, preset.minute_sigma)
        self._common = Wander(
            key_of(seed, "common"), preset.binance_vol, self._clock, preset.wander_half_life_days
        )
        self._krw_slow = Reverting(
            key_of(seed, "krw-slow"),
            preset.krw_slow_std,
            preset.krw_slow_half_life_s,
            driver=self._common,
            rho=preset.krw_rho,
        )
        self._krw_fast = Reverting(
            key_of(seed, "krw-fast"),
            preset.krw_fast_std,
            preset.krw_fast_half_life_s,
            driver=self._common,
            rho=preset.krw_rho,
        )
        self._panic_key = key_of(seed, "panic")
        self._panics: list[tuple[float, float]] = []  # started by hand: (start s, speed)

    def step_at(self, t_ns: int) -> int:
        """Return the step that contains ``t_ns`` (ns UTC)."""
        return (t_ns - self.origin_ns) // STEP_NS

    def time_ns(self, step: int) -> int:
        """Return when ``step`` begins, ns UTC."""
        return self.origin_ns + step * STEP_NS

    def busyness(self, step: int) -> float:
        """Return the market's volatility multiplier in the minute of ``step``."""
        return self._clock.at_minute(step // STEPS_PER_MINUTE)

    def krw_per_usdt(self, step: int) -> float:
        """Return the fair price of one USDT in KRW, off any grid."""
        bps = self._krw_slow.at(step) + self._krw_fast.at(step)
        return self.preset.krw_per_usdt * math.exp(bps * BP)

    def spot_mid(self, asset: str, step: int) -> float:
        """Return the coin's fair price on Binance spot, USDT, off any grid."""
        lane = self._lane(asset)
        bps = lane.shared * self._common.at(step) + lane.own * lane.path.at(step)
        return lane.coin.price_usdt * math.exp(bps * BP)

    def basis_bps(self, asset: str, step: int) -> float:
        """Return the perpetual's distance from spot, bps (F)."""
        return self.rest_basis_bps(asset) + self._lane(asset).basis.at(step)

    def perp_mid(self, asset: str, step: int) -> float:
        """Return the perpetual's fair price in USDT per coin (not per contract)."""
        return self.spot_mid(asset, step) * (1 + self.basis_bps(asset, step) * BP)

    def rest_basis_bps(self, asset: str) -> float:
        """Return what the basis reverts to, bps."""
        return self.preset.basis_mean + self.coins[asset].basis_offset_bps

    def slow_premium_bps(self, asset: str, step: int) -> float:
        """Return the part of the premium that lasts for hours, bps."""
        return self._lane(asset).slow.at(step)

    def premium_bps(self, asset: str, step: int) -> float:
        """Return what the coin's fair KRW price exceeds Binance times KRW-USDT by, bps."""
        lane = self._lane(asset)
        forced = self.forced_premium_bps(asset, step)
        if forced is not None:
            return forced
        bps = lane.fast.at(step) + lane.slow.at(step) + lane.bursts.at(step / STEPS_PER_S)
        panic = self.panic_bps(step)
        return bps + panic * lane.panic_share if panic else bps

    def upbit_mid(self, asset: str, step: int) -> float:
        """Return the coin's fair price on Upbit, KRW: Binance as Upbit has heard of it."""
        heard = step
        if self.forced_premium_bps(asset, step) is None:
            heard -= self._lane(asset).lag
        usdt = self.spot_mid(asset, heard) * (1 + self.premium_bps(asset, step) * BP)
        return usdt * self.krw_per_usdt(step)

    def funding_rate(self, asset: str, step: int) -> float:
        """Return the funding rate of the 8 hours that contain ``step``, a ratio."""
        period = self.time_ns(step) // (8 * 3_600 * 1_000_000_000)
        return 1e-4 * (2 * unit(key_of(self.seed, "funding", asset), period) - 0.6)

    def panic_bps(self, step: int) -> float:
        """Return the stress regime's premium (E); 0 outside it."""
        t_s = step / STEPS_PER_S
        for start_s, speed in self._panics:
            depth = _panic_depth((t_s - start_s) * speed / 3_600)
            if depth:
                return depth
        stress = self.preset.stress
        period = math.floor(t_s / stress.period_s)
        if unit(self._panic_key, period) >= stress.chance:
            return 0.0
        return _panic_depth((t_s - period * stress.period_s) * stress.speed / 3_600)

    def forced_premium_bps(self, asset: str, step: int) -> float | None:
        """Return the scripted premium in force at ``step``, if there is one."""
        lane = self._lanes.get(asset)
        if lane is not None:
            for start, end, bps in lane.scripts:
                if start <= step < end:
                    return bps
        return None

    def force_premium(self, asset: str, start: int, end: int, bps: float) -> None:
        """
        Script a coin's premium for the steps from ``start`` to before ``end``.

        Upbit's reaction lag is off meanwhile, so that the premium is exactly ``bps``
        before ticks and spreads. The newest script wins.
        """
        scripts = self._lane(asset).scripts
        scripts.insert(0, (start, end, bps))
        del scripts[SCRIPTS_MAX:]

    def start_panic(self, step: int, speed: float) -> None:
        """Begin the stress regime at ``step``; its three hours are divided by ``speed``."""
        self._panics = [(step / STEPS_PER_S, speed), *self._panics[:9]]

    def _lane(self, asset: str) -> _Lane:
        lane = self._lanes.get(asset)
        if lane is None:
            lane = self._lanes[asset] = _Lane(
                self.coins[asset], self.preset, self.seed, self._clock
            )
        return lane


def _panic_depth(hours: float) -> float:
    if not 0 <= hours < PANIC_HOURS:
        return 0.0
    for (t0, d0), (t1, d1) in itertools.pairwise(PANIC_DEPTH_BPS):
        if hours < t1:
            return d0 + (d1 - d0) * (hours - t0) / (t1 - t0)
    raise AssertionError("the table ends at PANIC_HOURS")
