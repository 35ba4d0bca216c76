"""What a strategy host tells of itself in metrics, beside what its record counts at once."""

from __future__ import annotations

import asyncio

from arb_ray.actors.host_status import symbol_row
from arb_ray.actors.strategy_host import StrategyHost
from arb_ray.actors.symbol_runner import SymbolRunner
from arb_ray.actors.totals import Totals
from arb_ray.domain.opportunity import Refusal
from arb_ray.domain.order import OrderStatus
from arb_ray.engine.market_view import LiveBook
from arb_ray.engine.trade_events import ExitReason
from arb_ray.ports import Metrics

METRICS_INTERVAL_S = 2.0


class HostMetrics:
    """One host's gauges, and the totals that its parts keep anyway."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._totals = Totals(metrics)
        self._initialised: set[str] = set()
        for refusal in Refusal:
            self._totals.tell("refusals", 0, reason=str(refusal))

    async def run(self, host: StrategyHost) -> None:
        """Tell, again and again."""
        while True:
            await asyncio.sleep(METRICS_INTERVAL_S)
            self.totals(host)
            for runner in list(host.runners.values()):
                self.symbol(host, runner)
                await asyncio.sleep(0)  # many symbols must not make one long turn

    def totals(self, host: StrategyHost) -> None:
        """Tell what the market view and the record have counted."""
        counts, tell = host.parts.view.counts, self._totals.tell
        tell("decisions", counts.read)
        tell("updates_conflated", counts.conflated)
        tell("updates_dropped_old", counts.old)
        self._metrics.set("plane_fallback_count", float(bool(host.plane_why)))
        if host.parts.boards is not None:
            tell("board_reads_torn", host.parts.boards.torn)
            tell("boards_unknown", host.parts.boards.unknown)
        self._metrics.set("decided_ratio", host.overload.decided_share)
        self._metrics.set("overloaded", float(host.overload.is_overloaded))
        for reason, count in host.parts.record.all_refusals().items():
            tell("refusals", count, reason=str(reason))

    def symbol(self, host: StrategyHost, runner: SymbolRunner) -> None:
        """Tell of one symbol's market; what is not known now is not told."""
        self._begin(runner)
        row = symbol_row(host, runner)
        books = host.parts.view.books
        fx = _mid(books.get(runner.pair.fx.instrument.id))
        self._known("fx_krw", fx)
        is_priced = row.bid_a_krw > 0 and row.bid_b_usdt > 0
        symbol = {"symbol": str(runner.symbol)}
        self._known("premium_bps", row.premium_bps if fx and is_priced else None, **symbol)
        self._known("net_edge_bps", row.net_bps if row.direction else None, **symbol)
        overwritten = host.parts.view.overwritten
        legs = (runner.pair.a.instrument.id, runner.pair.b.instrument.id)
        lost = sum(overwritten.get(instrument, 0) for instrument in legs)
        self._totals.tell("symbol_updates_overwritten", lost, **symbol)
        age_ms = max(row.age_a_ms, row.age_b_ms) if is_priced else None
        self._known("book_age_ms", age_ms, **symbol)

    def _known(self, name: str, value: float | None, **labels: str) -> None:
        if value is None:
            self._metrics.unset(name, **labels)
        else:
            self._metrics.set(name, value, **labels)

    def _begin(self, runner: SymbolRunner) -> None:
        """Let a symbol's counters begin at zero, so that its first event is an increase."""
        symbol = str(runner.symbol)
        if symbol in self._initialised:
            return
        self._initialised.add(symbol)
        inc = self._metrics.inc
        inc("opportunities", 0, symbol=symbol)
        inc("trades_opened", 0, symbol=symbol)
        for exit_reason in ExitReason:
            inc("trades_closed", 0, symbol=symbol, exit_reason=str(exit_reason))
        for leg in (runner.pair.a, runner.pair.b):
            venue = str(leg.instrument.venue)
            inc("order_failures", 0, venue=venue)
            for status in OrderStatus:
                if status is not OrderStatus.UNKNOWN:  # that one is no last word
                    inc("orders", 0, venue=venue, status=str(status))


def _mid(book: LiveBook | None) -> float | None:
    if book is None or book.problem:
        return None
    return (book.bids[0][0] + book.asks[0][0]) / 2
