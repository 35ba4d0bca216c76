"""
When to leave a trade, and what leaving it now would realize.

A position is valued at what can be executed: both legs walked at the held quantity, each on
the side that would be paid, with the fees of the way out, KRW at F's mid. An exit needs no
yes from anyone, and the rules that do not depend on prices work with stale books too.
"""

from __future__ import annotations

import msgspec

from arb_ray.domain.book import Levels, walk
from arb_ray.domain.instrument import Kind, Pair, Symbol
from arb_ray.domain.money import Side
from arb_ray.domain.opportunity import Direction
from arb_ray.engine.spread import BPS, Sides
from arb_ray.engine.strategy_params import NS_PER_S, StrategyParams
from arb_ray.engine.trade_events import ExitReason


class ExitRules(msgspec.Struct, frozen=True):
    """The bounds of one trade, fixed when it began: its reservation was made for them."""

    take_profit_bps: float
    stop_loss_bps: float
    reversal_bps: float
    max_hold_ns: int

    @classmethod
    def of(cls, params: StrategyParams) -> ExitRules:
        """Take today's parameters, for a trade that begins now."""
        return cls(
            params.take_profit_bps,
            params.stop_loss_bps,
            params.reversal_bps,
            int(params.max_hold_s * NS_PER_S),
        )


class OpenPosition(msgspec.Struct, frozen=True):
    """
    What a strategy must know of the trade it holds; the shell builds it from the machine.

    ``base_qty`` is held on one leg and owed on the other, in units of the asset, after fees
    taken in base. ``entry_krw`` and ``entry_usdt`` are the signed cash flows of the way in,
    fees included (a perpetual's notional counts as if it had been paid).
    """

    trade_id: str
    symbol: Symbol
    direction: Direction
    base_qty: float
    notional_usdt: float
    entry_krw: float
    entry_usdt: float
    fx_mid_entry_krw: float
    opened_ns: int
    kind_b: Kind
    rules: ExitRules
    funding_usdt: float = 0.0  # booked so far, positive when received


class ExitTerms(msgspec.Struct, frozen=True):
    """What valuing a way out needs to know of a pair."""

    fee_a_rate: float
    fee_b_rate: float
    is_base_fee_on_buy_a: bool
    is_base_fee_on_buy_b: bool
    multiplier_a: float
    multiplier_b: float
    depth_short_penalty: float  # a ratio

    @classmethod
    def of(cls, pair: Pair, params: StrategyParams) -> ExitTerms:
        """Read them off the pair."""
        return cls(
            float(pair.a.fees.taker_rate),
            float(pair.b.fees.taker_rate),
            pair.a.fees.is_taken_in_base(Side.BUY),
            pair.b.fees.is_taken_in_base(Side.BUY),
            float(pair.a.instrument.multiplier),
            float(pair.b.instrument.multiplier),
            params.depth_short_penalty_bps / BPS,
        )


class Closing(msgspec.Struct, frozen=True):
    """
    What leaving now would realize.

    ``net_usdt`` is the whole round trip: entry, exit, all fees and funding, KRW at F's newest
    good mid. ``price_a`` and ``price_b`` are the exit's average prices in venue units: the
    decision prices of its orders.
    """

    net_usdt: float
    price_a: float
    price_b: float
    fx_mid_krw: float
    is_depth_short: bool


def closing(
    position: OpenPosition, u: Sides, n: Sides, fx_mid_krw: float, terms: ExitTerms
) -> Closing:
    """Value the way out; both books must have both sides."""
    qty_a = position.base_qty / terms.multiplier_a
    qty_b = position.base_qty / terms.multiplier_b
    penalty = terms.depth_short_penalty
    if position.direction is Direction.LONG_A_SHORT_B:
        krw, is_short_a = _sell(u[0], qty_a, terms.fee_a_rate, penalty)
        usdt, is_short_b = _buy(n[1], qty_b, terms.fee_b_rate, penalty, terms.is_base_fee_on_buy_b)
        price_a = krw / (1 - terms.fee_a_rate) / qty_a
        price_b = -usdt * _net_of_buy(terms.fee_b_rate, terms.is_base_fee_on_buy_b) / qty_b
    else:
        krw, is_short_a = _buy(u[1], qty_a, terms.fee_a_rate, penalty, terms.is_base_fee_on_buy_a)
        usdt, is_short_b = _sell(n[0], qty_b, terms.fee_b_rate, penalty)
        price_a = -krw * _net_of_buy(terms.fee_a_rate, terms.is_base_fee_on_buy_a) / qty_a
        price_b = usdt / (1 - terms.fee_b_rate) / qty_b
    net_usdt = (
        (position.entry_krw + krw) / fx_mid_krw + position.entry_usdt + usdt + position.funding_usdt
    )
    return Closing(net_usdt, price_a, price_b, fx_mid_krw, is_short_a or is_short_b)


def _sell(bids: Levels, qty: float, fee_rate: float, penalty: float) -> tuple[float, bool]:
    taken, quote = walk(bids, qty)
    is_short = taken != qty
    if is_short:
        quote += (qty - taken) * bids[-1][0] * (1 - penalty)
    return quote * (1 - fee_rate), is_short


def _buy(
    asks: Levels, qty: float, fee_rate: float, penalty: float, is_base_fee: bool
) -> tuple[float, bool]:
    # A fee in base makes less arrive, so more is bought: the owed quantity must be complete.
    gross_qty = qty / (1 - fee_rate) if is_base_fee else qty
    taken, quote = walk(asks, gross_qty)
    is_short = taken != gross_qty
    if is_short:
        quote += (gross_qty - taken) * asks[-1][0] * (1 + penalty)
    return -(quote if is_base_fee else quote * (1 + fee_rate)), is_short


def _net_of_buy(fee_rate: float, is_base_fee: bool) -> float:
    """Return what turns a purchase's whole outlay into its outlay without the fee."""
    return 1 - fee_rate if is_base_fee else 1 / (1 + fee_rate)


def exit_reason(
    position: OpenPosition,
    now_ns: int,
    *,
    asked: ExitReason | None,
    value: Closing | None,
    is_fx_fresh: bool,
    reverse_edge_bps: float | None,
) -> ExitReason | None:
    """
    Return the first rule that ends the trade: asked, stop, profit, reversal, time.

    ``asked`` is what RiskGuard, an operator or a shutdown wants, and needs no book. ``value``
    is None unless both legs' books are fresh; a stop-loss asks no more than that.
    ``reverse_edge_bps`` is the executable edge of the reverse direction before fees, over
    what is expected to remain (the basis): once it is there, waiting earns nothing more.
    """
    if asked is not None:
        return asked
    rules = position.rules
    if value is not None:
        net_bps = value.net_usdt / position.notional_usdt * BPS
        if net_bps <= -rules.stop_loss_bps:
            return ExitReason.STOP_LOSS
        if is_fx_fresh and not value.is_depth_short:
            if net_bps >= rules.take_profit_bps:
                return ExitReason.TAKE_PROFIT
            if reverse_edge_bps is not None and reverse_edge_bps >= rules.reversal_bps:
                return ExitReason.REVERSAL
    if now_ns - position.opened_ns >= rules.max_hold_ns:
        return ExitReason.MAX_HOLD
    return None
