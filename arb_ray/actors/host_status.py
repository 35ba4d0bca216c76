"""A strategy host's figures: its status for the supervisor, its snapshots for PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from arb_ray.actors.strategy_host import StrategyHost
from arb_ray.actors.symbol_runner import SymbolRunner
from arb_ray.engine.market_view import MarketView
from arb_ray.engine.status import HostStatus, SymbolRow, TradeLine
from arb_ray.engine.trade_state import Idle, Live
from arb_ray.ports import Snapshot


def host_status(host: StrategyHost) -> HostStatus:
    """Gather a host's status."""
    parts, record, counts = host.parts, host.parts.record, host.parts.view.counts
    return HostStatus(
        ready=not host.why,
        why=host.why,
        symbols=list(parts.symbols),
        live=host.live_symbols,
        draining=host.is_draining,
        decisions=counts.read,
        received=counts.accepted + counts.old,
        outdated=counts.old,
        conflated=counts.conflated,
        opportunities=record.opportunities,
        refusals=record.all_refusals(),
        trades_opened=record.trades_opened,
        trades_closed=record.trades_closed,
        trades_won=record.trades_won,
        open_positions=host.open_positions,
        order_failures=record.order_failures,
        realized_usdt=record.realized_usdt,
        fees_usdt=record.fees_usdt,
        parts=record.parts,
        latency_counts=host.latency.sparse(),
        latency_max_ns=host.latency.max_ns,
        rows=[symbol_row(host, runner) for runner in host.runners.values()],
        recent_opportunities=list(record.recent_opportunities),
        recent_trades=list(record.recent_trades),
        loop_lag_ms=host.loop_lag_ms,
        overloaded=host.overload.why,
        overwritten=sum(parts.view.overwritten.values()),
        rss_mb=parts.rss_mb(),
        decision_hash=record.decisions.hexdigest(),
        born_ns=host.born_ns,
        troubles=list(parts.keeper.troubles),
        plane=host.plane,
        plane_why=host.plane_why,
    )


def symbol_row(host: StrategyHost, runner: SymbolRunner) -> SymbolRow:
    """Describe one symbol as it stands."""
    view, clock, record = host.parts.view, host.parts.clock, host.parts.record
    row = SymbolRow(runner.symbol, phase=_phase(runner))
    row.trades_closed = record.closed_by_symbol[runner.symbol]
    row.realized_usdt = record.realized_by_symbol.get(runner.symbol, row.realized_usdt)
    row.mark_usdt = runner.mark.pnl_usdt if runner.mark else None
    if runner.last is not None and runner.last.refusal is not None:
        row.refusal = str(runner.last.refusal)
    _add_prices(row, runner, view, clock.mono_ns())
    quotes = [quote for quote in runner.brain.quote(view, clock.now_ns()) if quote is not None]
    if quotes:
        better = max(quotes, key=lambda quote: quote.net_bps)
        row.gross_bps, row.net_bps = better.gross_bps, better.net_bps
        row.direction = str(better.direction)
    return row


def _add_prices(row: SymbolRow, runner: SymbolRunner, view: MarketView, mono_ns: int) -> None:
    pair = runner.pair
    a = view.books.get(pair.a.instrument.id)
    b = view.books.get(pair.b.instrument.id)
    f = view.books.get(pair.fx.instrument.id)
    if a is not None and not a.problem:
        row.bid_a_krw, row.ask_a_krw = a.bids[0][0], a.asks[0][0]
        row.age_a_ms = a.age_ns(mono_ns) / 1e6
    if b is not None and not b.problem:
        row.bid_b_usdt, row.ask_b_usdt = b.bids[0][0], b.asks[0][0]
        row.age_b_ms = b.age_ns(mono_ns) / 1e6
    if f is not None and not f.problem and row.bid_a_krw and row.bid_b_usdt:
        fx = (f.bids[0][0] + f.asks[0][0]) / 2
        scale = float(pair.a.instrument.multiplier / pair.b.instrument.multiplier)
        ratio = (row.bid_a_krw + row.ask_a_krw) / (row.bid_b_usdt + row.ask_b_usdt) / fx / scale
        row.premium_bps = (ratio - 1) * 1e4


def _phase(runner: SymbolRunner) -> str:
    return "idle" if isinstance(runner.trade, Idle) else str(runner.trade.phase)


def trade_row(session_id: str, line: TradeLine) -> Snapshot:
    """Make the row of a trade that was opened or closed: an event, which no other row repeats."""
    payload: dict[str, Any] = msgspec.to_builtins(line)
    payload["phase"] = "holding" if line.what == "opened" else "idle"
    return Snapshot(
        "position_snapshots", line.at_ns, session_id, line.symbol, payload, is_event=True
    )


def snapshots(host: StrategyHost) -> Iterator[Snapshot]:
    """Make the rows that Persistence keeps: statistics a symbol, and every open position."""
    now_ns = host.parts.clock.now_ns()
    session_id = host.parts.session_id
    for runner in host.runners.values():
        row = symbol_row(host, runner)
        payload: dict[str, Any] = msgspec.to_builtins(row)
        stats = runner.brain.stats
        payload["evaluations"] = stats.evaluations
        payload["refusals"] = {str(key): count for key, count in stats.all_refusals().items()}
        yield Snapshot("metrics_snapshots", now_ns, session_id, runner.symbol, payload)
        trade = runner.trade
        if isinstance(trade, Live):
            yield Snapshot(
                "position_snapshots",
                now_ns,
                session_id,
                runner.symbol,
                {
                    "trade_id": trade.plan.trade_id,
                    "phase": str(trade.phase),
                    "direction": str(trade.plan.direction),
                    "notional_usdt": str(trade.plan.notional_usdt),
                    "mark_usdt": str(row.mark_usdt),
                },
            )
