"""
The market of a seed: three pairs, one exchange rate, premiums that come and go, and jumps.

A step moves the prices and packs what changed into one batch a venue, as a feed does. Books
are thin at times, so that orders fill in part; a venue can fall silent; and once in a while
one side jumps by up to a third, as on 2024-12-03.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from decimal import Decimal

from arb_ray.domain.book import BookUpdate, ConnectionAlive, FundingUpdate, TickBatch
from arb_ray.domain.instrument import (
    FeeAsset,
    FeeSchedule,
    Instrument,
    InstrumentId,
    Kind,
    Leg,
    Pair,
    Symbol,
    TickBand,
    TradingRules,
    Venue,
    VenueSymbol,
)
from arb_ray.domain.money import KRW, USDT, Asset
from tests.signal_market import make_batch

D = Decimal
FX_KRW = 1400.0
EDGE_BPS = 75.0
"""How far a premium goes when there is one: past all costs, below the plausibility cap."""

TRADE_NOTIONAL_USDT = 500

FUNDING_NS = 10 * 10**9
"""Perpetuals pay so often that a short life sees it."""


def _leg(
    venue: Venue, asset: str, quote: Asset, tick: str, lot: str, least: str, multiplier: int = 1
) -> Leg:
    is_perp = venue is Venue.BINANCE_USDM
    name = f"{venue}:{asset}-{quote}" + ("-PERP" if is_perp else "")
    instrument = Instrument(
        InstrumentId(name),
        Asset(asset),
        quote,
        venue,
        Kind.PERP if is_perp else Kind.SPOT,
        VenueSymbol(name),
        D(multiplier),
    )
    rules = TradingRules((TickBand(D(0), D(tick)),), D(lot), D(lot), D(0), D(least))
    bps, fee_asset = {
        Venue.UPBIT: (D(5), FeeAsset.QUOTE),
        Venue.BINANCE_SPOT: (D(10), FeeAsset.RECEIVED),
        Venue.BINANCE_USDM: (D(5), FeeAsset.QUOTE),
    }[venue]
    return Leg(instrument, rules, FeeSchedule(bps, fee_asset))


FX_LEG = _leg(Venue.UPBIT, "USDT", KRW, "0.1", "0.00000001", "5000")


def _pair(symbol: str, a: Leg, b: Leg) -> Pair:
    return Pair(Symbol(symbol), a, b, FX_LEG)


PAIRS = (
    _pair(
        "ETH",
        _leg(Venue.UPBIT, "ETH", KRW, "1000", "0.00000001", "5000"),
        _leg(Venue.BINANCE_SPOT, "ETH", USDT, "0.01", "0.0001", "5"),
    ),
    _pair(
        "SOL",  # a lot of 4 USDT: legs come out unalike
        _leg(Venue.UPBIT, "SOL", KRW, "100", "0.00000001", "5000"),
        _leg(Venue.BINANCE_USDM, "SOL", USDT, "0.01", "0.02", "5"),
    ),
    _pair(
        "PEPE",  # a contract of thousands
        _leg(Venue.UPBIT, "PEPE", KRW, "0.0001", "1", "5000"),
        _leg(Venue.BINANCE_USDM, "PEPE", USDT, "0.0000001", "1", "5", 1000),
    ),
)

LEVELS = 3

_GRIDS = {
    leg.instrument.id: (
        float(leg.rules.tick_bands[0].tick_size),
        float(leg.rules.lot),
        -leg.rules.tick_bands[0].tick_size.normalize().as_tuple().exponent,
        -leg.rules.lot.normalize().as_tuple().exponent,
    )
    for leg in (FX_LEG, *(leg for pair in PAIRS for leg in (pair.a, pair.b)))
}
"""Tick and lot of each market, and their decimals; PEPE's lot of 1,000 has negative ones."""

PRICE_USDT = {"ETH": 2000.0, "SOL": 200.0, "PEPE": 0.0125}


class _Coin:
    """One pair's prices: N in USDT, and U's premium over it."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.usdt = PRICE_USDT[pair.symbol]
        self.premium_bps = 0.0
        self.jump = 1.0  # of U alone
        self.jump_left = 0  # steps until U comes back


class SimMarket:
    """Moves prices; ``step`` returns the batches that every host gets."""

    def __init__(
        self, rng: random.Random, now_ns: Callable[[], int], *, are_together: bool
    ) -> None:
        self._rng = rng
        # Premiums of one country's venue move together at times, and all signal at once.
        self._are_together = are_together
        self._now_ns = now_ns
        self._coins = [_Coin(pair) for pair in PAIRS]
        self._seq = 0
        self.is_calm = False
        # In some calms the premiums go, and trades close by themselves; in others they stay.
        self._do_premiums_stay = rng.random() < 0.5
        self.is_silent = {"upbit": False, "binance": False}
        self._jump_chance = rng.choice((0.0, 0.0, 0.01, 0.04))
        self._thin_chance = rng.choice((0.0, 0.1, 0.4))
        self._switch_chance = rng.choice((0.15, 0.4))

    def step(self, mono_ns: int) -> list[TickBatch]:
        """Move once; silent venues move unseen."""
        updates: dict[str, list[BookUpdate]] = {"upbit": [], "binance": []}
        fx = FX_KRW * (1 + self._rng.uniform(-2, 2) / 10_000)
        for coin in self._coins:
            self._move(coin)
        if self._are_together and not self.is_calm:
            for coin in self._coins[1:]:
                coin.premium_bps = self._coins[0].premium_bps
        for coin in self._coins:
            krw = coin.usdt * fx * (1 + coin.premium_bps / 10_000) * coin.jump
            usdt = coin.usdt * float(coin.pair.b.instrument.multiplier)
            base = TRADE_NOTIONAL_USDT / coin.usdt
            updates["upbit"].append(self._book(coin.pair.a, krw, base))
            base /= float(coin.pair.b.instrument.multiplier)
            updates["binance"].append(self._book(coin.pair.b, usdt, base))
        updates["upbit"].append(self._book(FX_LEG, fx, 1e6))
        return [
            make_batch(
                feed,
                books,
                mono_ns,
                alive=(ConnectionAlive(0, 0, True),),
                funding=self._fundings() if feed == "binance" else (),
            )
            for feed, books in updates.items()
            if not self.is_silent[feed]
        ]

    def _move(self, coin: _Coin) -> None:
        rng = self._rng
        coin.usdt *= 1 + rng.gauss(0, 3) / 10_000
        if self.is_calm:
            if not self._do_premiums_stay:
                coin.premium_bps, coin.jump = 0.0, 1.0
            return
        if rng.random() < self._switch_chance:
            level = rng.choice((0, 0, -EDGE_BPS, EDGE_BPS, -1.6 * EDGE_BPS))
            coin.premium_bps = level + rng.gauss(0, 5)
        if coin.jump_left:
            coin.jump_left -= 1
            if not coin.jump_left:
                coin.jump = 1.0
        elif rng.random() < self._jump_chance:
            coin.jump = rng.choice((0.67, 0.67, 0.9, 0.95, 1.2))
            coin.jump_left = rng.randint(2, 12)

    def _book(self, leg: Leg, mid: float, size: float) -> BookUpdate:
        rng = self._rng
        self._seq += 1
        tick, lot, tick_digits, lot_digits = _GRIDS[leg.instrument.id]
        step = max(tick, mid * 0.0001)
        is_thin = not self.is_calm and leg is not FX_LEG and rng.random() < self._thin_chance
        share = rng.choice((0.02, 0.3, 0.8)) if is_thin else 4.0
        size = _on_grid(size * share, lot, lot_digits)
        bids, asks = (
            tuple(
                (_on_grid(mid + sign * step * depth, tick, tick_digits), size)
                for depth in range(1, LEVELS + 1)
            )
            for sign in (-1, 1)
        )
        return BookUpdate(
            leg.instrument.id,
            1,
            self._seq,
            0,
            self._now_ns(),
            0,
            0,
            bids,
            asks,
        )

    def _fundings(self) -> tuple[FundingUpdate, ...]:
        now_ns = self._now_ns()
        due_ns = (now_ns // FUNDING_NS + 1) * FUNDING_NS
        return tuple(
            FundingUpdate(
                coin.pair.b.instrument.id,
                coin.usdt * float(coin.pair.b.instrument.multiplier),
                self._rng.choice((0.0001, -0.0002, 0.0)),
                due_ns,
                now_ns,
            )
            for coin in self._coins
            if coin.pair.b.instrument.kind is Kind.PERP
        )


def _on_grid(value: float, step: float, digits: int) -> float:
    return max(round(round(value / step) * step, digits), step)
