"""
How each thing that happens to money becomes a balanced entry (``domain.ledger``).

Proceeds of a trade stay HELD for it until it is settled; then whatever is HELD goes to
FREE. Base amounts are in units of the asset, also on a perpetual with a multiplier. Entry
ids are pure functions of what they book, so a repeat is recognised as one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from decimal import ROUND_UP, Decimal

from arb_ray.domain.instrument import Instrument, Kind, Leg, Pair, Symbol, Venue
from arb_ray.domain.ledger import Account, Balance, Entry, EntryKind, Posting
from arb_ray.domain.money import USDT_QUANTUM, ZERO, Asset, Side
from arb_ray.domain.opportunity import Direction, SizedLegs
from arb_ray.domain.order import Fill, OrderReport, OrderRequest
from arb_ray.domain.risk_intent import Hold, ReserveIntent
from arb_ray.engine.sizing import fee_amount


def holds_for(
    pair: Pair,
    direction: Direction,
    legs: SizedLegs,
    *,
    limit_a: Decimal,
    limit_b: Decimal,
    worst_loss_usdt: Decimal,
    fx_krw: Decimal,
    margin_rate: Decimal,
    owed: Mapping[Venue, Decimal] | None = None,
) -> tuple[Hold, ...]:
    """
    Return what must be free before the first order is sent, both ways covered.

    A spot buy: its cost at the limit with the fee. A spot sale: the inventory. A perpetual:
    its initial margin (``margin_rate`` of the notional) and the fees of both ways. And the
    worst case in each quote asset, because an exit may have to pay it from either side.
    ``fx_krw`` values the worst case in KRW. ``owed`` base of a venue counts as free and is
    not there, so a sale needs as much more.
    """
    amounts: defaultdict[tuple[Venue, Asset], Decimal] = defaultdict(lambda: ZERO)
    side_a = direction.entry_side_a
    for leg, side, qty, limit in (
        (pair.a, side_a, legs.qty_a, limit_a),
        (pair.b, side_a.opposite, legs.qty_b, limit_b),
    ):
        asset, amount = _hold_of_leg(leg, side, qty, limit, margin_rate)
        if asset == leg.instrument.asset:
            amount += max(ZERO, (owed or {}).get(leg.instrument.venue, ZERO))
        amounts[leg.instrument.venue, asset] += amount
    worst_krw = (worst_loss_usdt * fx_krw).quantize(USDT_QUANTUM, rounding=ROUND_UP)
    amounts[pair.a.instrument.venue, pair.a.instrument.quote] += worst_krw
    amounts[pair.b.instrument.venue, pair.b.instrument.quote] += worst_loss_usdt
    return tuple(Hold(venue, asset, amount) for (venue, asset), amount in amounts.items() if amount)


def _hold_of_leg(
    leg: Leg, side: Side, qty: Decimal, limit: Decimal, margin_rate: Decimal
) -> tuple[Asset, Decimal]:
    notional = limit * qty
    fee = fee_amount(notional, leg.fees.taker_rate)
    if leg.instrument.kind is Kind.PERP:
        return leg.instrument.quote, fee_amount(notional, margin_rate) + 2 * fee
    if side is Side.SELL:
        return leg.instrument.asset, leg.to_base_qty(qty)
    return leg.instrument.quote, notional + (ZERO if leg.fees.is_taken_in_base(side) else fee)


def hold_entry(intent: ReserveIntent, at_ns: int) -> Entry:
    """Move what the intent asks for from FREE to HELD."""
    return Entry(
        entry_id=f"hold:{intent.trade_id}",
        kind=EntryKind.HOLD,
        symbol=intent.symbol,
        trade_id=intent.trade_id,
        at_ns=at_ns,
        postings=tuple(
            posting
            for hold in intent.holds
            for posting in _move(hold.venue, hold.asset, Account.FREE, Account.HELD, hold.amount)
        ),
    )


def release_entry(trade_id: str, symbol: Symbol, held: Sequence[Balance], at_ns: int) -> Entry:
    """
    Move whatever is left HELD for a trade to FREE.

    A negative remainder (a loss beyond the hold) moves too: FREE pays it.
    """
    assert all(balance.account is Account.HELD for balance in held)
    return Entry(
        entry_id=f"release:{trade_id}",
        kind=EntryKind.RELEASE,
        symbol=symbol,
        trade_id=trade_id,
        at_ns=at_ns,
        postings=tuple(
            posting
            for balance in held
            if balance.amount
            for posting in _move(
                balance.venue, balance.asset, Account.HELD, Account.FREE, balance.amount
            )
        ),
    )


def report_entries(leg: Leg, order: OrderRequest, report: OrderReport) -> tuple[Entry, ...]:
    """Book every fill of a report."""
    assert report.client_order_id == order.client_order_id
    return tuple(fill_entry(leg, order, fill) for fill in report.fills)


def fill_entry(leg: Leg, order: OrderRequest, fill: Fill) -> Entry:
    """Book one fill: what was exchanged with the market, and the fee."""
    assert order.instrument == leg.instrument.id
    book = _perp_postings if leg.instrument.kind is Kind.PERP else _spot_postings
    base = order.side.sign * leg.to_base_qty(fill.qty)
    quote = -order.side.sign * fill.price * fill.qty
    fee = _move(leg.instrument.venue, fill.fee.asset, Account.HELD, Account.FEES, fill.fee.amount)
    return Entry(
        entry_id=f"fill:{fill.fill_id}",
        kind=EntryKind.FILL,
        symbol=order.symbol,
        trade_id=order.trade_id,
        at_ns=fill.at_ns,
        postings=(*book(leg.instrument, base, quote), *(fee if fill.fee.amount else ())),
    )


def _spot_postings(instrument: Instrument, base: Decimal, quote: Decimal) -> tuple[Posting, ...]:
    venue = instrument.venue
    return (
        *_move(venue, instrument.asset, Account.MARKET, Account.HELD, base),
        *_move(venue, instrument.quote, Account.MARKET, Account.HELD, quote),
    )


def _perp_postings(instrument: Instrument, base: Decimal, quote: Decimal) -> tuple[Posting, ...]:
    # Nothing changes hands until the position closes: the notional waits in UNSETTLED.
    venue = instrument.venue
    return (
        *_move(venue, instrument.asset, Account.MARKET, Account.POSITION, base),
        *_move(venue, instrument.quote, Account.MARKET, Account.UNSETTLED, quote),
    )


def settle_perp_entry(
    instrument: Instrument, trade_id: str, symbol: Symbol, unsettled: Decimal, at_ns: int
) -> Entry:
    """Turn a closed position's net notional (signed: its price PnL) into cash, HELD."""
    return Entry(
        entry_id=f"settle_perp:{trade_id}",
        kind=EntryKind.SETTLE_PERP,
        symbol=symbol,
        trade_id=trade_id,
        at_ns=at_ns,
        postings=_move(
            instrument.venue, instrument.quote, Account.UNSETTLED, Account.HELD, unsettled
        ),
    )


def funding_entry(
    instrument: Instrument,
    trade_id: str,
    symbol: Symbol,
    amount: Decimal,
    funding_ns: int,
) -> Entry:
    """Book a funding payment: positive ``amount`` (quote units) was received."""
    return Entry(
        entry_id=f"funding:{trade_id}:{funding_ns}",
        kind=EntryKind.FUNDING,
        symbol=symbol,
        trade_id=trade_id,
        at_ns=funding_ns,
        postings=_move(instrument.venue, instrument.quote, Account.FUNDING, Account.HELD, amount),
    )


def dust_entry(
    instrument: Instrument, trade_id: str, symbol: Symbol, residual: Decimal, at_ns: int
) -> Entry:
    """
    Set aside ``residual`` base (asset units, signed) that is too small to trade.

    A negative one on spot is inventory that was not bought back: DUST owes it, and FREE has
    its whole inventory again after the release; what the venue holds is the two together. So
    the dust of an asset, summed over venues, is the exposure that trades have left behind,
    and the next trade on the symbol takes it along on its way out (decision 17).
    """
    source = Account.POSITION if instrument.kind is Kind.PERP else Account.HELD
    return Entry(
        entry_id=f"dust:{trade_id}:{instrument.venue}",
        kind=EntryKind.DUST,
        symbol=symbol,
        trade_id=trade_id,
        at_ns=at_ns,
        postings=_move(instrument.venue, instrument.asset, source, Account.DUST, residual),
    )


def balances_of(entries: Iterable[Entry]) -> dict[tuple[Venue, Account, Asset], Decimal]:
    """Return the sums of postings; accounts that came out at zero are left out."""
    sums: defaultdict[tuple[Venue, Account, Asset], Decimal] = defaultdict(lambda: ZERO)
    for entry in entries:
        for posting in entry.postings:
            sums[posting.venue, posting.account, posting.asset] += posting.amount
    return {key: amount for key, amount in sums.items() if amount}


def _move(
    venue: Venue, asset: Asset, source: Account, target: Account, amount: Decimal
) -> tuple[Posting, Posting]:
    return (
        Posting(venue, source, asset, -amount),
        Posting(venue, target, asset, amount),
    )
