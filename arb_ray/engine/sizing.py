"""
How much to trade, and at what worst price: exact sizes of two legs on two grids.

The legs' *net* base amounts are made equal, after fees that a venue takes from the base
that was bought. The leg with the coarser lot is sized first and the finer one matches it,
so Upbit's eight decimals absorb what Binance's lots and fees leave over.
"""

from __future__ import annotations

from decimal import ROUND_UP, Decimal

from msgspec.structs import replace

from arb_ray.domain.instrument import Kind, Leg, Pair, TradingRules
from arb_ray.domain.money import BPS, USDT_QUANTUM, ZERO, Price, Qty, Side, ceil_to, floor_to
from arb_ray.domain.opportunity import Direction, Opportunity, SizedLegs
from arb_ray.domain.order import Purpose

FEE_QUANTUM = Decimal("1e-8")
"""Both venues book amounts with eight decimals."""

REDUCING = frozenset({Purpose.HEDGE, Purpose.EXIT, Purpose.UNWIND})
"""Purposes that only make a position smaller; on a perpetual they are sent reduce-only."""


def fee_amount(fee_base: Decimal, rate: Decimal) -> Decimal:
    """
    Return the fee on ``fee_base`` (of the asset that the fee is taken from).

    Rounded up to eight decimals: venues do not say which way they round, and a paper
    trade must never be cheaper than the real one.
    """
    return (fee_base * rate).quantize(FEE_QUANTUM, rounding=ROUND_UP)


def net_base(leg: Leg, side: Side, venue_qty: Decimal) -> Decimal:
    """Return the asset units that move, unsigned, when ``venue_qty`` fills in one piece."""
    base = leg.to_base_qty(venue_qty)
    if leg.fees.is_taken_in_base(side):
        return base - fee_amount(base, leg.fees.taker_rate)
    return base


def venue_qty_for(leg: Leg, side: Side, base_qty: Decimal) -> Qty:
    """
    Return the order size whose net base comes nearest to ``base_qty`` without passing it.

    Grossed up where the fee is taken in base; cut to the market's largest order (what is
    left over is seen by the trade machine as a short fill and sent again).
    """
    assert base_qty >= 0
    venue_qty = leg.to_venue_qty(base_qty)
    if leg.fees.is_taken_in_base(side):
        venue_qty /= 1 - leg.fees.taker_rate
    if leg.rules.max_qty > 0:
        venue_qty = min(venue_qty, leg.rules.max_qty)
    return Qty(floor_to(venue_qty, leg.rules.lot))


def closing_side(position: Decimal) -> Side:
    """Return the side that makes ``position`` (asset units, signed) smaller."""
    return Side.SELL if position > 0 else Side.BUY


def closing_qty(leg: Leg, position: Decimal) -> Qty:
    """Return the order size (venue units) that takes ``position`` nearest to zero."""
    return venue_qty_for(leg, closing_side(position), abs(position))


def base_for_notional(pair: Pair, opportunity: Opportunity, notional_usdt: Decimal) -> Decimal:
    """Return the asset units worth ``notional_usdt`` on leg B, at most what was evaluated."""
    price = Decimal(repr(opportunity.price_b)) / pair.b.instrument.multiplier
    return min(Decimal(repr(opportunity.qty)), notional_usdt / price)


def size_entry(pair: Pair, direction: Direction, base_qty: Decimal) -> SizedLegs:
    """Return the largest legs within ``base_qty`` (asset units) whose net base is equal."""
    side_a = direction.entry_side_a
    first, second = (pair.b, pair.a) if _is_coarser(pair.b, pair.a) else (pair.a, pair.b)
    side = {id(pair.a): side_a, id(pair.b): side_a.opposite}
    for leg in (pair.a, pair.b):
        if leg.rules.max_qty > 0:
            base_qty = min(base_qty, net_base(leg, side[id(leg)], leg.rules.max_qty))
    qty_first = venue_qty_for(first, side[id(first)], base_qty)
    net_first = net_base(first, side[id(first)], qty_first)
    qty_second = venue_qty_for(second, side[id(second)], net_first)
    qty_a, qty_b = (qty_second, qty_first) if first is pair.b else (qty_first, qty_second)
    residual = side_a.sign * (
        net_base(pair.a, side_a, qty_a) - net_base(pair.b, side_a.opposite, qty_b)
    )
    return SizedLegs(qty_a, qty_b, residual)


def size_exit(a: Leg, b: Leg, position_a: Decimal, position_b: Decimal) -> SizedLegs:
    """
    Return the orders that close both positions (asset units, signed) as far as lots allow.

    Where the coarser leg must leave a crumb, the finer leg leaves the opposite one, so that
    the net base of the whole trade comes out at zero; a crumb never turns a leg around.
    """
    if _is_coarser(b, a):
        qty_b, qty_a = _close_matched(b, a, position_b, position_a)
    else:
        qty_a, qty_b = _close_matched(a, b, position_a, position_b)
    residual = _after_close(a, position_a, qty_a) + _after_close(b, position_b, qty_b)
    return SizedLegs(qty_a, qty_b, residual)


def _close_matched(
    coarse: Leg, fine: Leg, position_coarse: Decimal, position_fine: Decimal
) -> tuple[Qty, Qty]:
    qty_coarse = closing_qty(coarse, position_coarse)
    target = position_fine + _after_close(coarse, position_coarse, qty_coarse)
    if target * position_fine <= 0:
        return qty_coarse, Qty(ZERO)
    bounded = min(abs(target), abs(position_fine)).copy_sign(position_fine)
    return qty_coarse, closing_qty(fine, bounded)


def _after_close(leg: Leg, position: Decimal, qty: Decimal) -> Decimal:
    side = closing_side(position)
    return position + side.sign * net_base(leg, side, qty)


def _is_coarser(leg: Leg, other: Leg) -> bool:
    return leg.to_base_qty(leg.rules.lot) >= other.to_base_qty(other.rules.lot)


def limit_price(
    rules: TradingRules, side: Side, decision_price: Decimal, allowance_bps: Decimal
) -> Price:
    """
    Return the worst price that an order accepts, on the tick grid.

    Rounded *towards* the decision price (a buy's limit down, a sale's up), so that it is
    never beyond the allowance: the reservation counts with it. A decision price is never
    better than the touch, which is on the grid, so the touch itself always stays within.
    """
    assert allowance_bps >= 0
    worst = decision_price * (1 + side.sign * allowance_bps / BPS)
    tick = rules.tick_size(worst)
    return Price(floor_to(worst, tick) if side is Side.BUY else ceil_to(worst, tick))


def order_problem(leg: Leg, purpose: Purpose, price: Decimal, qty: Decimal) -> str:
    """
    Name the first rule that an order breaks; empty when it breaks none.

    Reduce-only orders of a perpetual are free of the minimum notional (Binance USDT-M,
    error -4164: "... unless you choose reduce only"), so a position can always be closed.
    """
    rules = leg.rules
    if leg.instrument.kind is Kind.PERP and purpose in REDUCING:
        rules = replace(rules, min_notional=ZERO)
    return rules.problem_with(price, qty)


def entry_problem(
    pair: Pair,
    direction: Direction,
    legs: SizedLegs,
    *,
    limit_a: Decimal,
    limit_b: Decimal,
    exit_haircut_bps: Decimal,
) -> str:
    """
    Name the rule that either leg breaks now, or would break on its way out; empty if none.

    ``exit_haircut_bps`` is how far the price may fall until the exit and still leave each
    position worth the venue's minimum: what is opened must be possible to close.
    """
    side_a = direction.entry_side_a
    orders = (
        ("a", pair.a, side_a, legs.qty_a, limit_a),
        ("b", pair.b, side_a.opposite, legs.qty_b, limit_b),
    )
    for name, leg, side, qty, limit in orders:
        problem = order_problem(leg, Purpose.ENTRY, limit, qty)
        if problem:
            return f"leg {name}: {problem}"
        exit_qty = closing_qty(leg, side.sign * net_base(leg, side, qty))
        exit_price = limit * (1 - exit_haircut_bps / BPS)
        exit_price = floor_to(exit_price, leg.rules.tick_size(exit_price))
        problem = order_problem(leg, Purpose.EXIT, exit_price, exit_qty)
        if problem:
            return f"leg {name}, way out: {problem}"
    return ""


def worst_loss_usdt(
    notional_usdt: Decimal,
    stop_loss_bps: Decimal,
    round_trip_fees_bps: Decimal,
    slippage_allowance_bps: Decimal,
) -> Decimal:
    """
    Return the worst case to reserve, in USDT, rounded up.

    The stop's distance, all four fees, and the slippage allowance of each of four fills.
    A market that gaps past the stop can lose more; that is a gap loss (DESIGN section 3).
    """
    bps = stop_loss_bps + round_trip_fees_bps + 4 * slippage_allowance_bps
    return (notional_usdt * bps / BPS).quantize(USDT_QUANTUM, rounding=ROUND_UP)
