"""The three markets that can be simulated, as numbers. Sources: CALIBRATION sheet, by letter."""

from __future__ import annotations

from typing import Final

import msgspec

from arb_ray.domain.errors import BadConfig


class Burst(msgspec.Struct, frozen=True):
    """Bursts of a coin's premium: one of ``size_bps`` per ``window_s`` with ``chance``."""

    window_s: float
    chance: float
    size_bps: tuple[float, float]
    half_life_s: tuple[float, float]
    rise_s: float


class Stress(msgspec.Struct, frozen=True):
    """
    The panic of 2024-12-03 (E): coins in KRW fall by a third within the hour and come back.

    One panic per ``period_s`` with ``chance``; ``speed`` divides its three hours.
    """

    period_s: float
    chance: float
    speed: float = 1.0


class Preset(msgspec.Struct, frozen=True):
    """Parameters of a market; vols in bps per square root of a second, stds in bps."""

    name: str
    is_realistic: bool
    label: str
    burst: Burst
    stress: Stress
    binance_vol: float = 0.55  # I; calm 0.55, busy 1.25 is the clock's upper end
    hour_sigma: float = 0.50  # spread of log-volatility between hours ...
    minute_sigma: float = 0.40  # ... and between minutes: kurtosis of C's minutes, F's busy hour
    krw_per_usdt: float = 1_465.0  # 2026 level of F's ticks (A: 6.85 bps a KRW)
    krw_slow_std: float = 30.0  # with 12 h half-life: 10 bps an hour, 37 a day (C)
    krw_slow_half_life_s: float = 43_200.0
    krw_fast_std: float = 0.9  # with 2 min, and with the coins' mean: 4.5 in five minutes (C)
    krw_fast_half_life_s: float = 120.0
    krw_rho: float = -0.95  # KRW leans against the market: Upbit moves less than Binance (C)
    premium_fast_std: float = 3.5  # I; asynchronous closes come on top when C is measured
    premium_fast_half_life_s: float = 180.0
    premium_fast_rho: float = -0.95  # the coin's own move is followed late (C)
    premium_slow_std: float = 3.4  # with the fast part 4.9: less the four coins' mean 4.4, acf of C
    premium_slow_half_life_s: float = 10_800.0
    lag_s: tuple[float, float] = (0.2, 1.5)  # Upbit's reaction; not measurable, assumed (I)
    upbit_rate_min: float = 0.4  # book changes a second of the quietest coin
    basis_mean: float = -4.0  # F: perp below spot
    basis_std: float = 0.57
    basis_half_life_s: float = 1.0
    wander_half_life_days: float = 30.0


CALIBRATED: Final = Preset(
    name="calibrated",
    is_realistic=True,
    label="calibrated to public recordings of 2024-2026",
    # I: bars beyond 30 bps came about once a week per pair of coins; rate below 5 min a guess.
    burst=Burst(43_200, 0.2, (15, 45), (120, 400), 5),
    # E happened twice in about three years; one panic in a year is on the busy side.
    stress=Stress(86_400.0, 1 / 365),
)

LIVELY: Final = Preset(
    name="lively",
    is_realistic=False,
    label="NOT REALISTIC: premium bursts are made up so that trades open and close while you watch",
    burst=Burst(75, 0.95, (75, 125), (8, 15), 1.0),
    stress=Stress(86_400.0, 0.0),
    lag_s=(0.2, 0.5),
    upbit_rate_min=3.0,
)

STRESS: Final = Preset(
    name="stress",
    is_realistic=False,
    label="NOT REALISTIC IN FREQUENCY: the panic of 2024-12-03 again and again, sped up",
    burst=CALIBRATED.burst,
    stress=Stress(720.0, 1.0, speed=18.0),
)

PRESETS: Final = {preset.name: preset for preset in (CALIBRATED, LIVELY, STRESS)}


def preset_named(name: str) -> Preset:
    """
    Return the preset called ``name``.

    Raises:
        BadConfig: There is no such preset.
    """
    preset = PRESETS.get(name)
    if preset is None:
        raise BadConfig("sim.preset", f"no preset is called {name!r}", f"Use {', '.join(PRESETS)}.")
    return preset
