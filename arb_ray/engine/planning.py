"""
From a signal to an exact plan: sizes on the lot grids, prices on the tick grids, room to ask for.

The signal was float64; here everything is Decimal, priced again over the books as they stand
now. What cannot be ordered, or could not be closed again, is refused before anything is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_UP, Decimal

import msgspec

from arb_ray.domain.book import ExactLevels, Levels, depth_qty, exact_levels, walk
from arb_ray.domain.instrument import Leg, Pair, Venue
from arb_ray.domain.money import USDT_QUANTUM, ZERO, Price, Qty, Side
from arb_ray.domain.opportunity import Opportunity, Refusal
from arb_ray.engine.market_view import MarketView
from arb_ray.engine.postings import holds_for
from arb_ray.engine.sizing import (
    base_for_notional,
    entry_problem,
    limit_price,
    size_entry,
    worst_loss_usdt,
)
from arb_ray.engine.trade_orders import Wanted
from arb_ray.engine.trade_plan import (
    LegKey,
    OrderPrice,
    PlannedLeg,
    TradeLimits,
    TradePlan,
    trade_id_for,
)
from arb_ray.engine.trade_state import Live

MID_QUANTUM = Decimal("1e-8")


class PlanTerms(msgspec.Struct, frozen=True, kw_only=True):
    """What planning takes from the configuration; basis points, USDT, ns."""

    env: str
    session_id: str
    trade_notional_usdt: Decimal
    slippage_allowance_bps: Decimal  # how far an entry order may go beyond its decision price
    exit_slippage_bps: Decimal  # the same for the first try of an exit
    exit_slippage_max_bps: Decimal  # and for the last: doubled with each try until here
    stop_loss_bps: Decimal
    margin_rate: Decimal
    reserve_timeout_ns: int
    limits: TradeLimits


class Identity(msgspec.Struct, frozen=True):
    """Whose trade it is, and which."""

    number: int
    owner_epoch: int


def plan_entry(
    pair: Pair,
    opportunity: Opportunity,
    view: MarketView,
    terms: PlanTerms,
    identity: Identity,
    now_ns: int,
    dust: Mapping[Venue, Decimal] | None = None,
) -> TradePlan | Refusal:
    """
    Turn an opportunity into a plan at the books of now.

    ``dust`` is what earlier trades left on the venues; the trade takes it along on its way
    out, so its worth is part of what may be lost.

    The worst loss that is reserved covers the stop's distance, all fees, and the slippage
    allowance of four fills. It does not cover a gap: a price that jumps past the stop, a leg
    that stays naked while its venue is dark, or an exit that had to reach further than the
    allowance (up to ``exit_slippage_max_bps``, again at each try). What such a trade loses
    beyond its reservation is a gap loss, which halts RiskGuard (DESIGN section 3).

    Returns:
        DEPTH_SHORT or BELOW_MINIMUM when the exact sizes cannot be ordered or closed again.
    """
    direction = opportunity.direction
    base = base_for_notional(pair, opportunity, terms.trade_notional_usdt)
    sizes = size_entry(pair, direction, base)
    side_a = direction.entry_side_a
    if sizes.qty_a <= 0 or sizes.qty_b <= 0:
        return Refusal.BELOW_MINIMUM
    price_a = price_order(pair.a, side_a, sizes.qty_a, view, terms.slippage_allowance_bps)
    price_b = price_order(pair.b, side_a.opposite, sizes.qty_b, view, terms.slippage_allowance_bps)
    fx_mid = fx_mid_krw(pair, view)
    if price_a is None or price_b is None or fx_mid is None:
        return Refusal.DEPTH_SHORT
    if not (
        _has_depth(pair.a, side_a, sizes.qty_a, view)
        and _has_depth(pair.b, side_a.opposite, sizes.qty_b, view)
    ):
        return Refusal.DEPTH_SHORT
    problem = entry_problem(
        pair,
        direction,
        sizes,
        limit_a=price_a.limit,
        limit_b=price_b.limit,
        exit_haircut_bps=terms.stop_loss_bps,
    )
    if problem:
        return Refusal.BELOW_MINIMUM
    notional = (price_b.decision * sizes.qty_b).quantize(USDT_QUANTUM, rounding=ROUND_UP)
    fees_bps = 2 * (pair.a.fees.taker_bps + pair.b.fees.taker_bps)
    mark = price_b.decision / pair.b.instrument.multiplier
    dust_a, dust_b = (
        _dust_taken(leg, qty, dust or {})
        for leg, qty in ((pair.a, sizes.qty_a), (pair.b, sizes.qty_b))
    )
    dust_usdt = ((abs(dust_a) + abs(dust_b)) * mark).quantize(USDT_QUANTUM, rounding=ROUND_UP)
    worst = worst_loss_usdt(
        notional + dust_usdt, terms.stop_loss_bps, fees_bps, terms.slippage_allowance_bps
    )
    holds = holds_for(
        pair,
        direction,
        sizes,
        limit_a=price_a.limit,
        limit_b=price_b.limit,
        worst_loss_usdt=worst,
        fx_krw=fx_mid,
        margin_rate=terms.margin_rate,
        owed={pair.a.instrument.venue: -dust_a, pair.b.instrument.venue: -dust_b},
    )
    return TradePlan(
        number=identity.number,
        trade_id=trade_id_for(terms.env, pair.symbol, identity.number),
        session_id=terms.session_id,
        symbol=pair.symbol,
        owner_epoch=identity.owner_epoch,
        direction=direction,
        a=PlannedLeg(pair.a, side_a, Qty(sizes.qty_a), price_a),
        b=PlannedLeg(pair.b, side_a.opposite, Qty(sizes.qty_b), price_b),
        fx_mid_krw=fx_mid,
        mark_usdt=mark,
        worst_loss_usdt=worst,
        notional_usdt=notional,
        holds=holds,
        opportunity=opportunity,
        limits=terms.limits,
        decided_ns=now_ns,
        deadline_ns=now_ns + terms.reserve_timeout_ns,
        dust_a=dust_a,
        dust_b=dust_b,
    )


def _dust_taken(leg: Leg, qty: Decimal, dust: Mapping[Venue, Decimal]) -> Decimal:
    """Return what a leg takes along: never more than itself; the rest waits for the next trade."""
    found, most = dust.get(leg.instrument.venue, ZERO), leg.to_base_qty(qty)
    return max(-most, min(found, most))


def price_wanted(
    live: Live, wanted: Wanted, view: MarketView, terms: PlanTerms, *, max_age_ns: int, mono_ns: int
) -> OrderPrice | None:
    """
    Price an order that brings a live trade home; None when its book cannot be trusted now.

    Each try reaches twice as far as the one before, up to a bound: to be out matters more
    than the last basis points, but a venue in disorder gets no blank cheque.
    """
    leg = live.plan.leg(wanted.key)
    book = view.books.get(leg.instrument.id)
    if book is None or book.problem or not book.connection.is_up:
        return None
    if book.age_ns(mono_ns) > max_age_ns:
        return None
    reach = min(terms.exit_slippage_bps * 2 ** min(live.attempts, 10), terms.exit_slippage_max_bps)
    return price_order(leg, wanted.side, wanted.qty, view, reach)


def price_order(
    leg: Leg, side: Side, qty: Decimal, view: MarketView, allowance_bps: Decimal
) -> OrderPrice | None:
    """Return the average price over depth at ``qty``, and the worst one accepted."""
    book = view.books.get(leg.instrument.id)
    if book is None or book.problem:
        return None
    levels: Levels = book.asks if side is Side.BUY else book.bids
    exact: ExactLevels = exact_levels(levels)
    taken, notional = walk(exact, qty)
    if taken <= 0:
        return None
    decision = notional / taken
    limit = limit_price(leg.rules, side, decision, allowance_bps)
    # The touch is always within reach, however coarse the tick is (KRW-DOGE: 62 bps).
    touch = Price(exact[0][0])
    return OrderPrice(side, decision, max(limit, touch) if side is Side.BUY else min(limit, touch))


def _has_depth(leg: Leg, side: Side, qty: Decimal, view: MarketView) -> bool:
    """Tell whether an entry would find its whole size; an exit takes what there is."""
    book = view.books[leg.instrument.id]
    return depth_qty(exact_levels(book.asks if side is Side.BUY else book.bids)) >= qty


def fx_mid_krw(pair: Pair, view: MarketView) -> Decimal | None:
    """Return F's mid (KRW per USDT), the stated rate of reports."""
    book = view.books.get(pair.fx.instrument.id)
    if book is None or book.problem:
        return None
    bid, ask = Decimal(repr(book.bids[0][0])), Decimal(repr(book.asks[0][0]))
    return ((bid + ask) / 2).quantize(MID_QUANTUM)


def mark_usdt(pair: Pair, view: MarketView) -> Decimal | None:
    """Return what one unit of the asset is worth by leg B's mid, USDT."""
    book = view.books.get(pair.b.instrument.id)
    if book is None or book.problem:
        return None
    bid, ask = Decimal(repr(book.bids[0][0])), Decimal(repr(book.asks[0][0]))
    return (bid + ask) / 2 / pair.b.instrument.multiplier


def prices_by_leg(
    live: Live,
    wanted: tuple[Wanted, ...],
    view: MarketView,
    terms: PlanTerms,
    max_age_ns: int,
    mono_ns: int,
) -> dict[LegKey, OrderPrice | None]:
    """Price all that is wanted; of two candidates on one leg the first counts."""
    prices: dict[LegKey, OrderPrice | None] = {}
    for one in wanted:
        if one.key not in prices:
            prices[one.key] = price_wanted(
                live, one, view, terms, max_age_ns=max_age_ns, mono_ns=mono_ns
            )
    return prices
