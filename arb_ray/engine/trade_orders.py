"""Which orders bring a live trade where it should be: entry legs, hedges and the way out."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import msgspec

from arb_ray.domain.money import ZERO, Qty, Side
from arb_ray.domain.order import Purpose
from arb_ray.engine.sizing import (
    closing_qty,
    closing_side,
    order_problem,
    size_exit,
    venue_qty_for,
)
from arb_ray.engine.trade_plan import LegKey, OrderPrice
from arb_ray.engine.trade_state import Live, Phase, Trade

Prices = Mapping[LegKey, OrderPrice | None]


class Wanted(msgspec.Struct, frozen=True):
    """An order that is to be priced; ``qty`` in venue units."""

    key: LegKey
    side: Side
    qty: Qty
    purpose: Purpose


def entry_orders(live: Live) -> tuple[Wanted, ...]:
    """Return both legs as planned, leg A first."""
    return tuple(
        Wanted(key, live.plan.planned(key).side, live.plan.planned(key).qty, Purpose.ENTRY)
        for key in LegKey
    )


def hedge_candidates(live: Live) -> tuple[Wanted, ...]:
    """
    Return the orders of which *one* brings the net base back to zero, the better first.

    Undoing the excess on the leg that filled more comes first: it always shrinks the
    position, and an edge that one venue did not give may be gone. Completing the other leg
    is the way when the excess is below the first venue's minimum or that venue is down; it
    is an entry order, and never takes a leg beyond its plan, which is what was reserved.
    """
    net = live.net_base
    side = closing_side(net)
    undo, complete = [], []
    for key in LegKey:
        leg, position = live.plan.leg(key), live.position(key)
        if position * net > 0:
            excess = min(abs(net), abs(position)).copy_sign(net)
            undo.append(Wanted(key, side, closing_qty(leg, excess), Purpose.HEDGE))
        elif side is live.plan.planned(key).side:
            left = live.plan.planned(key).qty - live.entered_qty(key)
            qty = min(venue_qty_for(leg, side, abs(net)), left)
            complete.append(Wanted(key, side, Qty(qty), Purpose.ENTRY))
    return tuple(wanted for wanted in (*undo, *complete) if wanted.qty > 0)


def closing_orders(live: Live) -> tuple[Wanted, ...]:
    """
    Return what closes both legs as far as lots allow; see ``sizing.size_exit``.

    Dust of earlier trades goes out with them: it needs no order, no minimum and no room of
    its own.
    """
    return _closing(live, {key: live.position_with_dust(key) for key in LegKey})


def has_entered(live: Live) -> bool:
    """Tell whether the trade's own fills are worth closing; dust alone waits for the next one."""
    own = _closing(live, {key: live.position(key) for key in LegKey})
    return any(is_tradeable(live, wanted) for wanted in own)


def _closing(live: Live, position: Mapping[LegKey, Decimal]) -> tuple[Wanted, ...]:
    legs = size_exit(
        live.plan.leg(LegKey.A), live.plan.leg(LegKey.B), position[LegKey.A], position[LegKey.B]
    )
    purpose = Purpose.EXIT if live.exit is None else Purpose.UNWIND
    return tuple(
        Wanted(key, closing_side(position[key]), Qty(qty), purpose)
        for key, qty in ((LegKey.A, legs.qty_a), (LegKey.B, legs.qty_b))
        if qty > 0
    )


def net_reducing_order(live: Live, key: LegKey) -> Wanted | None:
    """
    Return what closing on one leg alone may do: shrink the net exposure, not open it.

    For when the other venue is down: closing this leg whole would leave that one naked.
    """
    position = live.position_with_dust(key)
    net = position + live.position_with_dust(key.other)
    if net * position <= 0:
        return None
    excess = min(abs(net), abs(position)).copy_sign(net)
    qty = closing_qty(live.plan.leg(key), excess)
    return Wanted(key, closing_side(position), qty, Purpose.UNWIND) if qty > ZERO else None


def is_sendable(live: Live, wanted: Wanted, limit_price: Decimal) -> bool:
    """Tell whether the venue's rules let the order through at this limit."""
    return not order_problem(live.plan.leg(wanted.key), wanted.purpose, limit_price, wanted.qty)


def is_tradeable(live: Live, wanted: Wanted) -> bool:
    """Tell the same at the price that was last decided on; below it a rest is dust."""
    return is_sendable(live, wanted, live.reference_price(wanted.key).limit)


def wanted(trade: Trade) -> tuple[Wanted, ...]:
    """
    Return the orders that an ExitDecided or Retry should price, sizes included.

    HOLDING: the closing of both legs. HEDGING: the candidates. UNWINDING: what is left.
    Empty in every other state and while orders are working.
    """
    if not isinstance(trade, Live) or trade.working:
        return ()
    if trade.phase is Phase.HEDGING:
        return hedge_candidates(trade)
    if trade.phase in {Phase.HOLDING, Phase.UNWINDING}:
        return closing_orders(trade)
    return ()
