"""An edge between two venues, with every cost between the headline and the pocket."""

from __future__ import annotations

import enum
from decimal import Decimal

import msgspec

from arb_ray.domain.instrument import Symbol
from arb_ray.domain.money import Side


class Direction(enum.StrEnum):
    """Which venue is bought. A is Upbit (KRW), B is Binance (USDT)."""

    LONG_A_SHORT_B = "long_a_short_b"
    LONG_B_SHORT_A = "long_b_short_a"

    @property
    def entry_side_a(self) -> Side:
        """Side of the entry order on Upbit; leg B takes the opposite."""
        return Side.BUY if self is Direction.LONG_A_SHORT_B else Side.SELL

    @property
    def reverse(self) -> Direction:
        """The other direction."""
        if self is Direction.LONG_A_SHORT_B:
            return Direction.LONG_B_SHORT_A
        return Direction.LONG_A_SHORT_B


class Costs(msgspec.Struct, frozen=True):
    """Every term between gross and net, in basis points of the entry notional."""

    entry_fee_a_bps: float
    entry_fee_b_bps: float
    exit_fee_a_bps: float
    exit_fee_b_bps: float
    exit_spread_bps: float  # crossing both books on the way out, over depth
    slippage_allowance_bps: float
    expected_exit_premium_bps: float  # 0 on spot; the rolling basis on the perp leg
    expected_funding_bps: float  # over the expected holding time; perp leg only
    safety_buffer_bps: float

    @property
    def entry_fees_bps(self) -> float:
        """Both legs' fees on the way in."""
        return self.entry_fee_a_bps + self.entry_fee_b_bps

    @property
    def total_bps(self) -> float:
        """All terms together."""
        return (
            self.entry_fees_bps
            + self.exit_fee_a_bps
            + self.exit_fee_b_bps
            + self.exit_spread_bps
            + self.slippage_allowance_bps
            + self.expected_exit_premium_bps
            + self.expected_funding_bps
            + self.safety_buffer_bps
        )


class Opportunity(msgspec.Struct, frozen=True):
    """
    One direction of one symbol at one moment, at the size that would be traded.

    ``qty`` is in units of the asset. ``price_*`` are average prices over depth in venue
    units of quote; ``fx_krw`` is what converting this size would get from KRW-USDT's paying
    side; ``fx_mid_krw`` its mid, which values KRW in reports. Signal-grade float64.
    """

    symbol: Symbol
    direction: Direction
    at_ns: int
    qty: float
    notional_usdt: float
    price_a: float
    price_b: float
    fx_krw: float
    fx_mid_krw: float
    gross_bps: float
    costs: Costs

    @property
    def net_bps(self) -> float:
        """Gross less every cost, the way out included."""
        return self.gross_bps - self.costs.total_bps

    @property
    def after_entry_fees_bps(self) -> float:
        """Gross less the entry fees of both legs: the crossing that CALIBRATION H speaks of."""
        return self.gross_bps - self.costs.entry_fees_bps


class Refusal(enum.StrEnum):
    """Why an entry was not made; each is counted. Cheapest checks come first."""

    BUSY = "busy"
    NOT_OWNER = "not_owner"
    WARMING_UP = "warming_up"
    BOOK_MISSING = "book_missing"
    BOOK_INVALID = "book_invalid"
    STALE_A = "stale_a"
    STALE_B = "stale_b"
    STALE_FX = "stale_fx"
    FX_OUT_OF_RANGE = "fx_out_of_range"
    CLOCK_OFFSET = "clock_offset"
    BOOK_SKEW = "book_skew"
    VENUE_UNHEALTHY = "venue_unhealthy"
    ASSET_UNKNOWN = "asset_unknown"
    DEPTH_SHORT = "depth_short"
    BELOW_MINIMUM = "below_minimum"
    NO_EDGE = "no_edge"
    IMPLAUSIBLE_EDGE = "implausible_edge"
    INSUFFICIENT_BALANCE = "insufficient_balance"
    COOLING_DOWN = "cooling_down"
    RISK_REFUSED = "risk_refused"
    RISK_UNREACHABLE = "risk_unreachable"
    EDGE_GONE = "edge_gone"
    STORE_UNAVAILABLE = "store_unavailable"
    DRAINING = "draining"


class SizedLegs(msgspec.Struct, frozen=True):
    """
    Exact order quantities of both legs, in venue units, on both lot grids.

    The legs' net base amounts are equal after fees taken in base; ``residual_base`` is
    what the grids leave over (bought minus sold, in units of the asset).
    """

    qty_a: Decimal
    qty_b: Decimal
    residual_base: Decimal
