"""
What a trade earned, in USDT, and why.

The total is the sum of the trade's own postings, KRW valued at F's mid at the exit decision
and converted posting by posting, half-even at 1e-8. The parts are computed from the orders
and fills instead, each by itself and at full precision, and none is the remainder: that both
ways meet is a check of the books, held by property tests.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext

import msgspec

from arb_ray.domain.errors import AssetMismatch
from arb_ray.domain.instrument import InstrumentId, Leg
from arb_ray.domain.ledger import Entry, PnlParts
from arb_ray.domain.money import KRW, USDT, USDT_QUANTUM, ZERO, Asset, Side, to_usdt
from arb_ray.domain.order import Fill, OrderReport, OrderRequest, Purpose
from arb_ray.engine.sizing import fee_amount

FULL = Context(prec=60, rounding=ROUND_HALF_EVEN)
"""Digits enough that only the division by an exchange rate is ever rounded."""

PART_QUANTUM = Decimal("1e-16")
"""Parts leave this module with so many decimals: exact to far below a posting's 1e-8."""

ENTRY_GROUP = frozenset({Purpose.ENTRY, Purpose.HEDGE})
"""Purposes that are valued at the entry decision's FX; the others at the exit decision's."""


class ExecutedOrder(msgspec.Struct, frozen=True):
    """An order with the venue's last word on it."""

    leg: Leg
    order: OrderRequest
    report: OrderReport


class Valuation(msgspec.Struct, frozen=True):
    """
    The stated rates of a trade: F's mid (KRW per USDT) at both decisions, and the mark.

    ``mark_usdt`` values one unit of the asset that was left over.
    """

    fx_entry_krw: Decimal
    fx_exit_krw: Decimal
    mark_usdt: Decimal


def position(executed: Iterable[ExecutedOrder], leg: Leg, until_ns: int | None = None) -> Decimal:
    """
    Return the base that ``leg`` has gained since the trade began, asset units, signed.

    With ``until_ns`` only what was filled until then counts.
    """
    total = ZERO
    for done in executed:
        if done.leg.instrument.id == leg.instrument.id:
            for fill in done.report.fills:
                if until_ns is None or fill.at_ns <= until_ns:
                    total += done.order.side.sign * done.leg.to_base_qty(_net_qty(done, fill))
    return total


def pnl_parts(
    executed: Sequence[ExecutedOrder], funding_usdt: Iterable[Decimal], rates: Valuation
) -> PnlParts:
    """
    Split a trade's profit by cause.

    With ``q`` net of a fee taken in base, ``d`` the order's decision price and ``p`` the
    fill's: spread is what ``-sign·d·q`` sums to (and the residual at the mark), slippage
    ``-sign·(p-d)·q``, fees each fee at the fill's own price, all with the FX of their group;
    fx is the entry group's KRW times the change of the exchange rate.
    """
    spread, slippage, fees, entry_krw, residual = ZERO, ZERO, ZERO, ZERO, ZERO
    with localcontext(FULL):
        for done in executed:
            per_quote = _usdt_per_quote(done, rates)
            sign, decision = done.order.side.sign, done.order.decision_price
            for fill in done.report.fills:
                qty = _net_qty(done, fill)
                fee_quote = _fee_in_quote(done, fill)
                spread -= sign * decision * qty * per_quote
                slippage -= sign * (fill.price - decision) * qty * per_quote
                fees -= fee_quote * per_quote
                residual += sign * done.leg.to_base_qty(qty)
                if done.leg.instrument.quote == KRW and done.order.purpose in ENTRY_GROUP:
                    entry_krw -= sign * fill.price * qty + fee_quote
        spread += residual * rates.mark_usdt
        fx = entry_krw * (1 / rates.fx_exit_krw - 1 / rates.fx_entry_krw)
        funding = sum(funding_usdt, ZERO)
        return PnlParts(*map(_rounded, (spread, fx, fees, slippage, funding)))


def postings_total_usdt(entries: Iterable[Entry], asset: Asset, rates: Valuation) -> Decimal:
    """
    Return the value of the trade's postings on our accounts, in USDT.

    Raises:
        AssetMismatch: A posting is of an asset that this trade has no rate for.
    """
    total, base = ZERO, ZERO
    for entry in entries:
        for posting in entry.postings:
            if not posting.account.is_ours:
                continue
            if posting.asset == USDT:
                total += posting.amount
            elif posting.asset == KRW:
                total += to_usdt(posting.amount, rates.fx_exit_krw)
            elif posting.asset == asset:
                base += posting.amount
            else:
                raise AssetMismatch(asset, posting.asset)
    total += base * rates.mark_usdt
    return total.quantize(USDT_QUANTUM, rounding=ROUND_HALF_EVEN)


def turnover_usdt(executed: Iterable[ExecutedOrder], rates: Valuation) -> Decimal:
    """Return the notional of all fills of a trade, both legs and both ways."""
    with localcontext(FULL):
        total = sum(
            (done.report.notional * _usdt_per_quote(done, rates) for done in executed), ZERO
        )
        return total.quantize(USDT_QUANTUM, rounding=ROUND_HALF_EVEN)


def closing_pnl_usdt(
    executed: Sequence[ExecutedOrder],
    funding_usdt: Iterable[Decimal],
    close_price: Mapping[InstrumentId, Decimal],
    fx_krw: Decimal,
) -> Decimal:
    """
    Estimate what the trade would realize if it were closed now.

    ``close_price`` holds, per instrument with an open position, the average price (venue
    units) that closing its position would get. Everything is valued at ``fx_krw``, fees of
    the way out included; this is the figure of take-profit, stop-loss and risk marks.
    """
    rates = Valuation(fx_krw, fx_krw, ZERO)
    legs = {done.leg.instrument.id: done.leg for done in executed}
    with localcontext(FULL):
        total = sum(funding_usdt, ZERO)
        for done in executed:
            per_quote = _usdt_per_quote(done, rates)
            for fill in done.report.fills:
                total -= done.order.side.sign * fill.price * fill.qty * per_quote
                if fill.fee.asset == done.leg.instrument.quote:
                    total -= fill.fee.amount * per_quote
        for instrument_id, leg in legs.items():
            base = position(executed, leg)
            if base:
                worth = leg.to_venue_qty(base) * close_price[instrument_id]
                fee = fee_amount(abs(worth), leg.fees.taker_rate)
                total += (worth - fee) * _rate_of(leg, fx_krw)
        return total.quantize(USDT_QUANTUM, rounding=ROUND_HALF_EVEN)


def _net_qty(done: ExecutedOrder, fill: Fill) -> Decimal:
    """Venue units that moved, less a fee that was taken from them."""
    if done.order.side is Side.BUY and fill.fee.asset == done.leg.instrument.asset:
        return fill.qty - done.leg.to_venue_qty(fill.fee.amount)
    return fill.qty


def _fee_in_quote(done: ExecutedOrder, fill: Fill) -> Decimal:
    if fill.fee.asset == done.leg.instrument.quote:
        return fill.fee.amount
    if fill.fee.asset == done.leg.instrument.asset:
        return done.leg.to_venue_qty(fill.fee.amount) * fill.price
    raise AssetMismatch(done.leg.instrument.quote, fill.fee.asset)


def _usdt_per_quote(done: ExecutedOrder, rates: Valuation) -> Decimal:
    is_entry = done.order.purpose in ENTRY_GROUP
    return _rate_of(done.leg, rates.fx_entry_krw if is_entry else rates.fx_exit_krw)


def _rate_of(leg: Leg, fx_krw: Decimal) -> Decimal:
    if leg.instrument.quote == USDT:
        return Decimal(1)
    if leg.instrument.quote == KRW:
        return 1 / fx_krw
    raise AssetMismatch(USDT, leg.instrument.quote)


def _rounded(part: Decimal) -> Decimal:
    return part.quantize(PART_QUANTUM, rounding=ROUND_HALF_EVEN) + ZERO  # no negative zero
