"""What a trade is about to do: everything that is needed later, decided once and journaled."""

from __future__ import annotations

import enum
from decimal import Decimal

import msgspec

from arb_ray.domain.instrument import Leg, Symbol
from arb_ray.domain.money import ZERO, Price, Qty, Side
from arb_ray.domain.opportunity import Direction, Opportunity
from arb_ray.domain.risk_intent import Hold, ReserveIntent


class LegKey(enum.StrEnum):
    """Which leg of the pair: A is Upbit, B is Binance."""

    A = "a"
    B = "b"

    @property
    def other(self) -> LegKey:
        """The other leg."""
        return LegKey.B if self is LegKey.A else LegKey.A


class OrderPrice(msgspec.Struct, frozen=True):
    """
    What an order on ``side`` is decided at.

    ``decision`` is the average price over depth at the size (venue units of quote), against
    which slippage is measured; ``limit`` the worst price accepted, on the tick grid.
    """

    side: Side
    decision: Decimal
    limit: Price


class PlannedLeg(msgspec.Struct, frozen=True):
    """One entry order; ``qty`` in venue units."""

    leg: Leg
    side: Side
    qty: Qty
    price: OrderPrice

    def __post_init__(self) -> None:
        assert self.price.side is self.side


class TradeLimits(msgspec.Struct, frozen=True):
    """The bounds of one trade, fixed at its start so that a restart keeps them."""

    take_profit_bps: Decimal
    stop_loss_bps: Decimal
    reversal_bps: Decimal
    max_hold_ns: int
    entry_ttl_ns: int = 2_000_000_000  # an entry order that was never accepted dies after this
    retry_ms: int = 250  # the first wait; doubled with each attempt
    retry_max_ms: int = 30_000  # and never longer than this
    alarm_attempts: int = 5  # a note "stuck" is given at every multiple of this


class TradePlan(msgspec.Struct, frozen=True):
    """
    A trade as decided at ``decided_ns``.

    ``number`` is the symbol's durable trade number. ``fx_mid_krw`` is F's mid at the entry
    decision; ``mark_usdt`` what one unit of the asset was worth then.
    """

    number: int
    trade_id: str
    session_id: str
    symbol: Symbol
    owner_epoch: int
    direction: Direction
    a: PlannedLeg
    b: PlannedLeg
    fx_mid_krw: Decimal
    mark_usdt: Decimal
    worst_loss_usdt: Decimal
    notional_usdt: Decimal
    holds: tuple[Hold, ...]
    opportunity: Opportunity
    limits: TradeLimits
    decided_ns: int
    deadline_ns: int
    # What earlier trades left on both venues, asset units, signed: taken along on the way out.
    dust_a: Decimal = ZERO
    dust_b: Decimal = ZERO

    def __post_init__(self) -> None:
        assert self.number >= 1
        assert self.a.side is self.direction.entry_side_a
        assert self.b.side is self.a.side.opposite

    def planned(self, key: LegKey) -> PlannedLeg:
        """Return one of the two entry orders."""
        return self.a if key is LegKey.A else self.b

    def leg(self, key: LegKey) -> Leg:
        """Return one of the two markets."""
        return self.planned(key).leg

    def dust(self, key: LegKey) -> Decimal:
        """Return the dust that one of the legs takes along."""
        return self.dust_a if key is LegKey.A else self.dust_b

    @property
    def intent(self) -> ReserveIntent:
        """The room to ask for; the same at every repeat."""
        return ReserveIntent(
            trade_id=self.trade_id,
            session_id=self.session_id,
            symbol=self.symbol,
            owner_epoch=self.owner_epoch,
            direction=self.direction,
            worst_loss_usdt=self.worst_loss_usdt,
            notional_usdt=self.notional_usdt,
            holds=self.holds,
            asked_ns=self.decided_ns,
            deadline_ns=self.deadline_ns,
        )


def trade_id_for(env: str, symbol: Symbol, number: int) -> str:
    """Return the one name of a trade, a pure function of where, what and which."""
    return f"{env}:{symbol}:{number}"
