"""The states of a trade, and what can be read off them. The moves are in ``engine.trade``."""

from __future__ import annotations

import enum
from decimal import Decimal

import msgspec

from arb_ray.domain.ledger import Entry
from arb_ray.domain.money import ZERO
from arb_ray.domain.order import OrderReport, OrderRequest, Purpose
from arb_ray.domain.risk_intent import Settlement
from arb_ray.engine.pnl import ExecutedOrder, Valuation, position
from arb_ray.engine.trade_events import FundingPaid
from arb_ray.engine.trade_plan import LegKey, OrderPrice, TradePlan


class Phase(enum.StrEnum):
    """Where a trade is; the picture in ``engine.trade`` shows the moves."""

    IDLE = "idle"
    RESERVING = "reserving"
    CONFIRMING = "confirming"
    ENTERING = "entering"
    HEDGING = "hedging"
    HOLDING = "holding"
    EXITING = "exiting"
    UNWINDING = "unwinding"
    SETTLING = "settling"


class Idle(msgspec.Struct, frozen=True):
    """No trade; ``last_number`` is the highest trade number that was ever used here."""

    last_number: int = 0

    @property
    def phase(self) -> Phase:
        """``IDLE``."""
        return Phase.IDLE


class Reserving(msgspec.Struct, frozen=True):
    """RiskGuard was asked."""

    plan: TradePlan

    @property
    def phase(self) -> Phase:
        """``RESERVING``."""
        return Phase.RESERVING


class Confirming(msgspec.Struct, frozen=True):
    """Room is held; the edge is looked at once more."""

    plan: TradePlan

    @property
    def phase(self) -> Phase:
        """``CONFIRMING``."""
        return Phase.CONFIRMING


class Finished(msgspec.Struct, frozen=True):
    """An order with the venue's last word."""

    key: LegKey
    order: OrderRequest
    report: OrderReport


class Funding(msgspec.Struct, frozen=True):
    """What a funding instant moved: positive was received, USDT."""

    funding_ns: int
    amount_usdt: Decimal


class ExitTerms(msgspec.Struct, frozen=True):
    """Why and at which rates the position is left."""

    reason: str
    fx_mid_krw: Decimal
    decided_ns: int


class Live(msgspec.Struct, frozen=True):
    """
    Orders were sent: the trade has, or may have, a position.

    ``working`` are orders without a last word. ``attempts`` counts tries since something
    last filled. ``funding_waiting`` are instants that an order on its way may yet have closed
    the position before. ``exit`` is there once an exit was decided. ``mark_usdt`` is the newest
    stated worth of one unit of the asset.
    """

    plan: TradePlan
    phase: Phase
    mark_usdt: Decimal
    orders_sent: int = 0
    working: tuple[OrderRequest, ...] = ()
    finished: tuple[Finished, ...] = ()
    funding: tuple[Funding, ...] = ()
    funding_waiting: tuple[FundingPaid, ...] = ()
    exit: ExitTerms | None = None
    attempts: int = 0

    @property
    def executed(self) -> tuple[ExecutedOrder, ...]:
        """The finished orders with their legs, as the PnL reads them."""
        return tuple(
            ExecutedOrder(self.plan.leg(done.key), done.order, done.report)
            for done in self.finished
        )

    def position(self, key: LegKey, until_ns: int | None = None) -> Decimal:
        """Return what a leg has gained since the trade began, asset units, signed."""
        return position(self.executed, self.plan.leg(key), until_ns)

    def position_with_dust(self, key: LegKey) -> Decimal:
        """Return what a leg has to close: its position, and the dust that it takes along."""
        return self.position(key) + self.plan.dust(key)

    @property
    def net_base(self) -> Decimal:
        """Exposure to the asset: both legs together, asset units, signed."""
        return self.position(LegKey.A) + self.position(LegKey.B)

    @property
    def valuation(self) -> Valuation:
        """The stated rates; a trade that never decided an exit keeps the entry's FX."""
        fx_exit = self.exit.fx_mid_krw if self.exit else self.plan.fx_mid_krw
        return Valuation(self.plan.fx_mid_krw, fx_exit, self.mark_usdt)

    def entered_qty(self, key: LegKey) -> Decimal:
        """Return the venue units that a leg's entry orders have filled."""
        entries = (
            done.report.filled_qty
            for done in self.finished
            if done.key is key and done.order.purpose is Purpose.ENTRY
        )
        return sum(entries, ZERO)

    def reference_price(self, key: LegKey) -> OrderPrice:
        """Return the newest price that was decided on for a leg."""
        leg_id = self.plan.leg(key).instrument.id
        # No two orders of a leg are ever on their way at once.
        for order in (*self.working, *(done.order for done in reversed(self.finished))):
            if order.instrument == leg_id:
                return OrderPrice(order.side, order.decision_price, order.limit_price)
        return self.plan.planned(key).price


class Settling(msgspec.Struct, frozen=True):
    """Nothing is open any more; the books are closed and RiskGuard told."""

    plan: TradePlan
    entries: tuple[Entry, ...]
    settlement: Settlement

    @property
    def phase(self) -> Phase:
        """``SETTLING``."""
        return Phase.SETTLING


Trade = Idle | Reserving | Confirming | Live | Settling
"""One symbol's trade slot: at most one trade is live in it."""
