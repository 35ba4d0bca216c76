"""
The coins of the simulated exchanges: plausible prices of 2026, grids, depth and activity.

Prices and ticks of the first coins come from CALIBRATION G (one tick in bps at 2026
prices); the others follow from a coin's price and its rank by the rules below. Any name
of the form ``SIM001`` is a made-up coin, so that any number of symbols can be had.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Final

import msgspec

from arb_ray.adapters.venues.sim.noise import key_of, unit
from arb_ray.domain.errors import BadConfig

E8 = 100_000_000
"""Prices and sizes are whole numbers of 1e-8 units: the finest step of either venue."""

UPBIT_TICKS_E8: Final = tuple(
    (int(Decimal(price) * E8), int(Decimal(tick) * E8))
    for price, tick in (
        ("1000000", "1000"),
        ("500000", "500"),
        ("100000", "100"),
        ("50000", "50"),
        ("10000", "10"),
        ("5000", "5"),
        ("100", "1"),
        ("10", "0.1"),
        ("1", "0.01"),
        ("0.1", "0.001"),
        ("0.01", "0.0001"),
        ("0.001", "0.00001"),
        ("0.0001", "0.000001"),
        ("0.00001", "0.0000001"),
        ("0", "0.00000001"),
    )
)
"""Upbit's KRW price bands, highest first: Upbit's page "KRW market info", 2026-05-04."""

_LISTED = """
BTC 78000 ETH 2250 XRP 1.452 SOL 95 DOGE 0.1102 ADA 0.272 TRX 0.271 SUI 1.07 LINK 9.9 AVAX 10.4
XLM 0.172 HBAR 0.108 BCH 455 DOT 1.62 SHIB 0.0000066 PEPE 0.0000045 NEAR 1.31 APT 1.02 ETC 9.3
AAVE 128 UNI 3.9 ONDO 0.292 ICP 2.7 ARB 0.118 POL 0.113 ATOM 2.05 ALGO 0.104 VET 0.0087
FIL 1.07 SEI 0.076 BONK 0.0000071 ENA 0.128 WLD 0.421 INJ 3.41 STX 0.268 IMX 0.191 GRT 0.0312
SAND 0.0894 MANA 0.104 AXS 1.02 FLOW 0.0871 THETA 0.221 EGLD 4.9 CHZ 0.0378 KAVA 0.068 NEO 2.9
QTUM 1.05 GAS 1.72 ZIL 0.0041 BAT 0.124 ENJ 0.0242 ZRX 0.112 TIA 0.41 JUP 0.182 PYTH 0.0571
STG 0.118 BLUR 0.0234 MASK 0.52 CELO 0.0921 JTO 0.33 W 0.0218 ZRO 1.73 AGLD 0.27 ASTR 0.0103
RENDER 1.65 TRUMP 3.1 PENGU 0.0089 ENS 7.4 XTZ 0.42 IOTA 0.071 1INCH 0.118 ANKR 0.0058 GMT 0.0151
MINA 0.062 ID 0.049 T 0.0071 G 0.0042 A 0.094 XEC 0.0000081 BTT 0.00000036
""".split()  # noqa: SIM905  # a table reads better than a list of 160 strings
LISTED: Final = tuple(_LISTED[::2])
"""The listed coins, busiest first."""

_PRICES: Final = dict(zip(LISTED, map(float, _LISTED[1::2]), strict=True))
_MAJORS_VOL: Final = {"BTC": 1.0, "ETH": 1.9, "XRP": 1.75, "SOL": 2.3, "DOGE": 2.2, "ADA": 2.1}
_THOUSANDS: Final = frozenset({"PEPE", "SHIB", "BONK", "XEC"})
_BINANCE_TICKERS: Final = {"BTT": "BTTC"}
"""Where Binance's ticker is not Upbit's."""

_SIMULATED: Final = re.compile(r"SIM\d{3,4}")


class Coin(msgspec.Struct, frozen=True):
    """
    One coin: where its price starts and how its three books look at rest.

    ``activity`` is 1 for BTC and falls with rank; message rates scale with it. Notionals
    are what one level holds at the median.
    """

    asset: str
    price_usdt: float
    vol: float  # volatility in units of BTC's
    beta: float  # correlation with the market's common move
    activity: float
    spot_tick_e8: int
    spot_lot_e8: int
    spot_level_usdt: float
    spot_wide_bps: float  # the spread's 95th percentile (F)
    perp_wide_bps: float  # the same of the perpetual: two ticks on BTC, one on ETH (F)
    perp_tick_e8: int
    perp_lot_e8: int
    perp_min_notional: int
    basis_offset_bps: float  # how far this coin's basis lies from the preset's (F)
    multiplier: int  # 1000 for 1000PEPEUSDT and the like
    upbit_level_krw: float
    upbit_spread_bps: float  # median before the tick grid widens it (G)

    @property
    def spot_symbol(self) -> str:
        """Binance's spelling on the spot market."""
        return f"{_BINANCE_TICKERS.get(self.asset, self.asset)}USDT"

    @property
    def perp_symbol(self) -> str:
        """Binance's spelling of the perpetual."""
        return f"{'' if self.multiplier == 1 else self.multiplier}{self.spot_symbol}"

    @property
    def upbit_code(self) -> str:
        """Upbit's spelling of the KRW market."""
        return f"KRW-{self.asset}"


def top_assets(count: int) -> tuple[str, ...]:
    """Name the ``count`` busiest coins; beyond the listed ones they are made up."""
    made_up = tuple(f"SIM{i:03d}" for i in range(1, count - len(LISTED) + 1))
    return LISTED[:count] + made_up


def coin_named(asset: str) -> Coin:
    """
    Return the coin called ``asset``.

    Raises:
        BadConfig: The simulated exchanges do not list it.
    """
    if asset in _PRICES:
        return _coin(asset, _PRICES[asset], LISTED.index(asset))
    if _SIMULATED.fullmatch(asset):
        number = int(asset[3:])
        price = 0.02 * 5_000 ** unit(key_of(0, "price", asset), 0)
        return _coin(asset, round(price, 4), len(LISTED) + number)
    raise BadConfig(
        "sim.symbols",
        f"the simulated exchanges do not list {asset!r}",
        f"Use one of {', '.join(LISTED[:6])}, ... or SIM001, SIM002, ...",
    )


def asset_of_symbol(venue_symbol: str) -> str:
    """Return the asset behind a Binance symbol, in either case; of an unknown one, its base."""
    symbol = venue_symbol.upper()
    return _ASSETS.get(symbol, symbol.removesuffix("USDT"))


def upbit_tick_e8(price_e8: int) -> int:
    """Return the step of Upbit's KRW grid at ``price_e8``."""
    for bottom, tick in UPBIT_TICKS_E8:
        if price_e8 >= bottom:
            return tick
    raise AssertionError("prices are not negative")


def _coin(asset: str, price: float, rank: int) -> Coin:
    tick_e8 = 1_000_000 if asset == "BTC" else _tick_e8(price)
    lot_e8 = min(E8, int(Decimal(10) ** math.ceil(-1 - math.log10(price)) * E8))
    multiplier = 1_000 if asset in _THOUSANDS else 1
    own = unit(key_of(0, "coin", asset), 0)
    return Coin(
        asset=asset,
        price_usdt=price,
        vol=_MAJORS_VOL.get(asset, 2.0 + 0.8 * own),
        beta=0.9 if rank == 0 else 0.85 if rank == 1 else 0.75,
        activity=1 / (1 + 0.22 * rank),
        spot_tick_e8=tick_e8,
        spot_lot_e8=lot_e8,
        spot_level_usdt=max(3_000.0, 38_000 / rank**0.7) if rank else 162_000.0,
        spot_wide_bps=(0.16, 0.30)[rank] if rank < 2 else 1.0 + 0.05 * min(rank, 60),
        perp_wide_bps=(0.016, 0.0)[rank] if rank < 2 else 0.1 + 0.005 * min(rank, 60),
        perp_tick_e8=10_000_000 if asset == "BTC" else _tick_e8(price * multiplier),
        perp_lot_e8=E8 if price * multiplier < 5 else 10_000_000 if price < 500 else 100_000,
        perp_min_notional={"BTC": 100, "ETH": 20}.get(asset, 5),
        basis_offset_bps=(0.3, -0.4)[rank] if rank < 2 else 0.0,
        multiplier=multiplier,
        upbit_level_krw=max(1.2e6, 1.6e7 / (1 + 0.06 * max(0, rank - 2))),
        upbit_spread_bps=(1.2, 3.4, 3.0)[rank] if rank < 3 else 4.0 + 0.12 * min(rank, 60),
    )


def _tick_e8(price: float) -> int:
    """Binance keeps four to five digits: 0.01 at 2,250 and at 95, 0.0001 at 1.45."""
    digits = math.floor(math.log10(price)) - 4 if price < 10 else -2
    return max(1, int(Decimal(10) ** digits * E8))


_ASSETS: Final = {
    symbol: coin.asset
    for coin in map(coin_named, LISTED)
    for symbol in (coin.spot_symbol, coin.perp_symbol)
}
