"""How a trade's books are closed: the last entries, and what RiskGuard is told."""

from __future__ import annotations

from arb_ray.domain.instrument import Kind, Symbol
from arb_ray.domain.ledger import NO_PNL, Entry
from arb_ray.domain.money import USDT_QUANTUM, ZERO
from arb_ray.domain.risk_intent import SettleKind, Settlement
from arb_ray.engine.pnl import pnl_parts, postings_total_usdt, turnover_usdt
from arb_ray.engine.postings import dust_entry, funding_entry, report_entries, settle_perp_entry
from arb_ray.engine.trade_plan import LegKey
from arb_ray.engine.trade_state import Live


def voided(trade_id: str, symbol: Symbol, reason: str, at_ns: int) -> Settlement:
    """Return the end of a reservation whose trade never began."""
    return Settlement(
        trade_id=trade_id,
        symbol=symbol,
        kind=SettleKind.VOIDED,
        parts=NO_PNL,
        realized_usdt=ZERO,
        fees_usdt=ZERO,
        notional_usdt=ZERO,
        closed_ns=at_ns,
        exit_reason=reason,
    )


def posted(live: Live, at_ns: int) -> tuple[tuple[Entry, ...], Settlement]:
    """
    Return the entries that close the trade's books, and its settlement.

    ``realized_usdt`` is the sum of the trade's postings; ``notional_usdt`` its turnover:
    all fills, both legs and both ways. The parts must meet the postings; that they do not
    would be a bug in one of the two, and nothing after it could be believed.
    """
    closing = closing_entries(live, at_ns)
    funding = funding_entries(live)
    entries = (*order_entries(live), *funding, *closing)
    asset = live.plan.a.leg.instrument.asset
    realized = postings_total_usdt(entries, asset, live.valuation)
    parts = pnl_parts(live.executed, (paid.amount_usdt for paid in live.funding), live.valuation)
    assert abs(parts.total - realized) <= USDT_QUANTUM * (
        1 + sum(len(entry.postings) for entry in entries)
    ), (parts, realized)
    turnover = turnover_usdt(live.executed, live.valuation)
    if live.exit is not None:
        reason = live.exit.reason
    else:
        reason = "evened_out" if turnover else "not_filled"
    settlement = Settlement(
        trade_id=live.plan.trade_id,
        symbol=live.plan.symbol,
        kind=SettleKind.POSTED,
        parts=parts,
        realized_usdt=realized,
        fees_usdt=(-parts.fees).quantize(USDT_QUANTUM),
        notional_usdt=turnover,
        closed_ns=at_ns,
        exit_reason=reason,
    )
    # Funding was posted when it was paid; a post that a crash took is made good here, and
    # the repeat of one that arrived changes nothing.
    return (*funding, *closing), settlement


def order_entries(live: Live) -> tuple[Entry, ...]:
    """Return the entries of all fills; the execution has posted the same ones."""
    return tuple(
        entry
        for done in live.finished
        for entry in report_entries(live.plan.leg(done.key), done.order, done.report)
    )


def funding_entries(live: Live) -> tuple[Entry, ...]:
    """Return one entry for each funding instant, in order."""
    plan = live.plan
    return tuple(
        funding_entry(
            plan.b.leg.instrument, plan.trade_id, plan.symbol, paid.amount_usdt, paid.funding_ns
        )
        for paid in live.funding
    )


def closing_entries(live: Live, at_ns: int) -> tuple[Entry, ...]:
    """
    Return the settlement of perpetuals and what is set aside as dust.

    A trade that took earlier dust along has sold (or bought) more than it had gained: its own
    residual is then the opposite of that dust, and takes it off the account.
    """
    plan = live.plan
    entries = []
    for key in LegKey:
        instrument, residual = plan.leg(key).instrument, live.position(key)
        is_perp = instrument.kind is Kind.PERP
        unsettled = -sum(
            (
                done.order.side.sign * done.report.notional
                for done in live.finished
                if done.key is key
            ),
            ZERO,
        )
        if is_perp and unsettled:
            entries.append(
                settle_perp_entry(instrument, plan.trade_id, plan.symbol, unsettled, at_ns)
            )
        if residual:
            entries.append(dust_entry(instrument, plan.trade_id, plan.symbol, residual, at_ns))
    return tuple(entries)
