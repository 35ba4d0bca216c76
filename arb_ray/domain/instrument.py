"""
What can be traded, where, and by which rules.

An instrument is a stable id, because venues reuse tickers: the asset's identity is ours,
the symbol is the venue's, and the two are translated in the adapter only.
"""

from __future__ import annotations

import enum
from decimal import Decimal
from typing import NewType

import msgspec

from arb_ray.domain.errors import OrderRejected
from arb_ray.domain.money import BPS, Asset, Side, floor_to

InstrumentId = NewType("InstrumentId", str)
"""``"<venue>:<asset>-<quote>[-PERP]"``: ``"upbit:BTC-KRW"``, ``"binance_usdm:BTC-USDT-PERP"``."""

VenueSymbol = NewType("VenueSymbol", str)
"""The venue's own spelling: ``"KRW-BTC"``, ``"BTCUSDT"``, ``"1000PEPEUSDT"``."""

Symbol = NewType("Symbol", str)
"""What a strategy trades across venues, named by its asset: ``"BTC"``."""


class Venue(enum.StrEnum):
    """A market with books, rules and balances of its own."""

    UPBIT = "upbit"
    BINANCE_SPOT = "binance_spot"
    BINANCE_USDM = "binance_usdm"


class Kind(enum.StrEnum):
    """Whether a sale needs inventory (spot) or can be short (perpetual)."""

    SPOT = "spot"
    PERP = "perp"


class Instrument(msgspec.Struct, frozen=True):
    """
    The identity of one market.

    ``multiplier`` is how many units of ``asset`` one venue unit of base stands for: 1,
    or 1000 for 1000PEPEUSDT. ``valid_from_ns`` is when this meaning of the venue's symbol
    began (ns UTC).
    """

    id: InstrumentId
    asset: Asset
    quote: Asset
    venue: Venue
    kind: Kind
    venue_symbol: VenueSymbol
    multiplier: Decimal = Decimal(1)
    valid_from_ns: int = 0


class TickBand(msgspec.Struct, frozen=True):
    """From ``price_from`` upwards, prices move in steps of ``tick_size``."""

    price_from: Decimal
    tick_size: Decimal


RULES_UNKNOWN = "unknown"
"""``TradingRules.source`` of a market that may be watched and must not be traded."""


RULES_NOT_TRADING = "not_trading"
"""The same for one that its venue has halted, delisted or never listed."""


class TradingRules(msgspec.Struct, frozen=True):
    """
    A market's grid and bounds, as read from the venue at ``valid_from_ns``.

    Quantities are in venue units, ``min_notional`` in the quote asset. ``tick_bands`` are
    sorted by ``price_from``, lowest first. ``max_qty`` of zero means no bound.
    """

    tick_bands: tuple[TickBand, ...]
    lot: Decimal
    min_qty: Decimal
    max_qty: Decimal
    min_notional: Decimal
    valid_from_ns: int = 0
    source: str = "fallback"  # "venue" when read by REST, "fallback" for the dated table, ...

    @property
    def is_tradable(self) -> bool:
        """Tell whether orders may be sent; a market that is not may still be watched."""
        return self.source not in {RULES_UNKNOWN, RULES_NOT_TRADING}

    def tick_size(self, price: Decimal) -> Decimal:
        """Return the step of the price grid at ``price``."""
        tick = self.tick_bands[0].tick_size
        for band in self.tick_bands:
            if price < band.price_from:
                break
            tick = band.tick_size
        return tick

    def check(self, client_order_id: str, price: Decimal, qty: Decimal) -> None:
        """
        Check an order before either leg is sent.

        Raises:
            OrderRejected: The order is off the grid or out of bounds; the text names the rule.
        """
        problem = self.problem_with(price, qty)
        if problem:
            raise OrderRejected(client_order_id, problem)

    def problem_with(self, price: Decimal, qty: Decimal) -> str:
        """Name the first rule that an order breaks; empty when it breaks none."""
        tick = self.tick_size(price)
        if price <= 0 or floor_to(price, tick) != price:
            return f"price {price} is off the tick grid of {tick}"
        if qty <= 0 or floor_to(qty, self.lot) != qty:
            return f"quantity {qty} is off the lot grid of {self.lot}"
        if qty < self.min_qty:
            return f"quantity {qty} is below the minimum of {self.min_qty}"
        if self.max_qty > 0 and qty > self.max_qty:
            return f"quantity {qty} is above the maximum of {self.max_qty}"
        if price * qty < self.min_notional:
            return f"notional {price * qty} is below the minimum of {self.min_notional}"
        return ""


class FeeAsset(enum.StrEnum):
    """What a venue takes its fee from."""

    QUOTE = "quote"  # Upbit, and perpetuals
    RECEIVED = "received"  # Binance spot: base on a buy, quote on a sale


class FeeSchedule(msgspec.Struct, frozen=True):
    """A venue's fee for takers from ``valid_from_ns`` on, with the page it was read from."""

    taker_bps: Decimal
    fee_asset: FeeAsset
    valid_from_ns: int = 0
    source: str = ""

    @property
    def taker_rate(self) -> Decimal:
        """The fee as a ratio of the notional."""
        return self.taker_bps / BPS

    def is_taken_in_base(self, side: Side) -> bool:
        """Tell whether the fee of an order on ``side`` shrinks the base that arrives."""
        return self.fee_asset is FeeAsset.RECEIVED and side is Side.BUY


class Leg(msgspec.Struct, frozen=True):
    """One market of a pair, with the rules and fees in force when the strategy started."""

    instrument: Instrument
    rules: TradingRules
    fees: FeeSchedule

    def to_venue_qty(self, base_qty: Decimal) -> Decimal:
        """Convert units of the asset into venue units, before rounding."""
        return base_qty / self.instrument.multiplier

    def to_base_qty(self, venue_qty: Decimal) -> Decimal:
        """Convert venue units into units of the asset."""
        return venue_qty * self.instrument.multiplier


class Pair(msgspec.Struct, frozen=True):
    """The same asset on both venues: leg A in KRW on Upbit, leg B in USDT on Binance."""

    symbol: Symbol
    a: Leg
    b: Leg
    fx: Leg  # KRW-USDT on Upbit; read for conversion, never traded

    def __post_init__(self) -> None:
        assert self.a.instrument.asset == self.b.instrument.asset, "one asset, two venues"
