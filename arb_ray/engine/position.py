"""What a strategy must know of the trade it holds, read off the trade machine's state."""

from __future__ import annotations

from decimal import Decimal

from arb_ray.domain.book import exact_levels, walk
from arb_ray.domain.instrument import Pair
from arb_ray.domain.money import ZERO
from arb_ray.engine.exits import ExitRules, OpenPosition
from arb_ray.engine.market_view import MarketView
from arb_ray.engine.pnl import closing_pnl_usdt
from arb_ray.engine.trade_plan import LegKey
from arb_ray.engine.trade_state import Live


def open_position(live: Live, pair: Pair) -> OpenPosition:
    """Return the position of a live trade; signal-grade float64."""
    plan = live.plan
    return OpenPosition(
        trade_id=plan.trade_id,
        symbol=plan.symbol,
        direction=plan.direction,
        base_qty=float(max(abs(live.position(key)) for key in LegKey)),
        notional_usdt=float(plan.notional_usdt),
        entry_krw=float(_cash(live, LegKey.A)),
        entry_usdt=float(_cash(live, LegKey.B)),
        fx_mid_entry_krw=float(plan.fx_mid_krw),
        opened_ns=plan.decided_ns,
        kind_b=pair.b.instrument.kind,
        rules=ExitRules(
            float(plan.limits.take_profit_bps),
            float(plan.limits.stop_loss_bps),
            float(plan.limits.reversal_bps),
            plan.limits.max_hold_ns,
        ),
        funding_usdt=float(sum((paid.amount_usdt for paid in live.funding), ZERO)),
    )


def live_mark_usdt(
    live: Live, view: MarketView, fx_mid_krw: Decimal, depth_short_penalty: Decimal
) -> Decimal:
    """
    Return what closing each leg now would realize: what a risk mark says of any live trade.

    Each position is walked into its book, which may be old: while a venue is dark the last
    known price is all there is. Without a usable side the newest price that was decided on
    serves. Depth that is short is worth the last level less the penalty (a ratio).
    """
    close_price = {
        live.plan.leg(key).instrument.id: _close_price(live, key, view, depth_short_penalty)
        for key in LegKey
        if live.position(key)
    }
    funding = (paid.amount_usdt for paid in live.funding)
    return closing_pnl_usdt(live.executed, funding, close_price, fx_mid_krw)


def _close_price(live: Live, key: LegKey, view: MarketView, penalty: Decimal) -> Decimal:
    leg, position = live.plan.leg(key), live.position(key)
    is_long = position > 0
    book = view.books.get(leg.instrument.id)
    levels = () if book is None else (book.bids if is_long else book.asks)
    if not levels:
        return live.reference_price(key).decision
    exact = exact_levels(levels)
    qty = abs(leg.to_venue_qty(position))
    taken, quote = walk(exact, qty)
    worst = exact[-1][0] * (1 - penalty if is_long else 1 + penalty)
    return (quote + (qty - taken) * worst) / qty


def _cash(live: Live, key: LegKey) -> Decimal:
    """Sum the signed quote flows of a leg, fees taken in quote included."""
    quote = live.plan.leg(key).instrument.quote
    total = ZERO
    for done in live.finished:
        if done.key is not key:
            continue
        for fill in done.report.fills:
            total -= done.order.side.sign * fill.price * fill.qty
            if fill.fee.asset == quote:
                total -= fill.fee.amount
    return total
