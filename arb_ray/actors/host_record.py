"""What a strategy host remembers for people: counts, recent lines, the decision log."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from arb_ray.actors.trade_log import TradeLog
from arb_ray.domain.instrument import Symbol
from arb_ray.domain.ledger import NO_PNL, PnlParts
from arb_ray.domain.money import ZERO
from arb_ray.domain.opportunity import Opportunity, Refusal
from arb_ray.domain.order import OrderReport, OrderRequest, OrderStatus
from arb_ray.domain.risk_intent import SettleKind, Settlement
from arb_ray.engine.decision_log import DecisionLog
from arb_ray.engine.evaluation import Evaluation
from arb_ray.engine.status import RECENT_MAX, OpportunityLine, TradeLine
from arb_ray.engine.trade_events import AnyEvent, Note, OrderReported, QueryAnswered
from arb_ray.engine.trade_plan import LegKey
from arb_ray.engine.trade_state import Idle, Live, Phase, Trade
from arb_ray.ports import Metrics

NS_PER_MS = 1e6
FAILED = frozenset({OrderStatus.REJECTED, OrderStatus.CANCELLED, OrderStatus.UNKNOWN})


class HostRecord:
    """Told by the runners what happens; told apart by symbol."""

    def __init__(
        self,
        metrics: Metrics,
        log: Any,
        decisions: DecisionLog,
        on_trade: Callable[[TradeLine], None] = lambda _: None,
    ) -> None:
        """``on_trade`` hears of every trade that was opened or closed."""
        self._metrics = metrics
        self._on_trade = on_trade
        self._told = TradeLog(log)
        self.decisions = decisions
        self.refusals: Counter[str] = Counter()  # without the repeats
        self.repeats = 0
        self.opportunities = 0
        self.trades_opened = 0
        self.trades_closed = 0
        self.trades_won = 0
        self.order_failures = 0
        self.realized_usdt = ZERO
        self.fees_usdt = ZERO
        self.parts = NO_PNL
        self.realized_by_symbol: dict[str, Decimal] = {}
        self.closed_by_symbol: Counter[str] = Counter()
        self.recent_opportunities: deque[OpportunityLine] = deque(maxlen=RECENT_MAX)
        self.recent_trades: deque[TradeLine] = deque(maxlen=RECENT_MAX)
        self._counted: dict[str, str] = {}  # symbol -> its open trade that was counted

    def evaluated(self, symbol: Symbol, evaluation: Evaluation, now_ns: int) -> None:
        """
        Count one look at the market that led to a decision.

        The host counts repeats itself, in ``repeats``: they are most of all, and change nothing.
        """
        self.decisions.record_evaluation(symbol, now_ns, evaluation)
        if evaluation.refusal is not None:
            self.refusals[evaluation.refusal] += 1
            return
        found = evaluation.opportunity
        assert found is not None
        self.opportunities += 1
        self._metrics.inc("opportunities", symbol=symbol)
        self._metrics.observe("opportunity_net_bps", found.net_bps)
        self.recent_opportunities.append(_opportunity_line(found, "signalled"))
        self._told.found(found)

    def all_refusals(self) -> dict[str, int]:
        """Return how often each reason was given; a repeat repeats that there is no edge."""
        counts = Counter(self.refusals)
        if self.repeats:
            counts[Refusal.NO_EDGE] += self.repeats
        return dict(counts)

    def refused(self, found: Opportunity, refusal: Refusal, now_ns: int) -> None:
        """Count an attempt that came to nothing after its signal."""
        symbol = found.symbol
        self._told.refused(found, refusal)
        self.refusals[refusal] += 1
        self.decisions.record(symbol, now_ns, "attempt_failed", str(refusal))
        for line in reversed(self.recent_opportunities):
            if line.symbol == symbol:
                line.outcome = str(refusal)
                return

    def moved(self, symbol: Symbol, before: Trade, after: Trade, event: AnyEvent) -> None:
        """Note a move of the trade machine."""
        phase_before, phase = _phase(before), _phase(after)
        self.decisions.record(symbol, event.at_ns, "event", type(event).__name__, str(phase))
        if isinstance(event, OrderReported | QueryAnswered) and event.report is not None:
            self._reported(symbol, event.report)
        self._told.moved(before, after, event)
        if phase is Phase.HOLDING and phase_before in {Phase.ENTERING, Phase.HEDGING}:
            assert isinstance(after, Live)
            self._opened(symbol, after, event.at_ns)

    def noted(self, trade: Trade, note: Note) -> None:
        """Log what the machine remarks."""
        self._told.noted(trade, note)

    def settled(self, trade: Trade, settlement: Settlement) -> None:
        """Count the end of a trade; ``trade`` is idle when the journal knows of none."""
        symbol = settlement.symbol
        self.decisions.record(
            symbol,
            settlement.closed_ns,
            "settled",
            str(settlement.kind),
            settlement.realized_usdt,
            settlement.fees_usdt,
        )
        if settlement.kind is SettleKind.VOIDED or settlement.notional_usdt == 0:
            return
        if self._counted.pop(symbol, None) != settlement.trade_id:
            # Evened out before it was ever held, or held by a process before this one.
            self._count_opened(symbol)
        self.trades_closed += 1
        self.trades_won += settlement.realized_usdt > 0
        self.closed_by_symbol[symbol] += 1
        self.realized_usdt += settlement.realized_usdt
        self.fees_usdt += settlement.fees_usdt
        self.parts = _added(self.parts, settlement.parts)
        so_far = self.realized_by_symbol.get(symbol, ZERO)
        self.realized_by_symbol[symbol] = so_far + settlement.realized_usdt
        self._metrics.inc("trades_closed", symbol=symbol, exit_reason=settlement.exit_reason)
        opened = [line for line in self.recent_trades if line.trade_id == settlement.trade_id]
        first = opened[0] if opened else None
        self._remember(
            TradeLine(
                at_ns=settlement.closed_ns,
                trade_id=settlement.trade_id,
                symbol=symbol,
                what="closed",
                direction=first.direction if first else "",
                qty=first.qty if first else ZERO,
                notional_usdt=settlement.notional_usdt,
                realized_usdt=settlement.realized_usdt,
                parts=settlement.parts,
                reason=settlement.exit_reason,
                held_ms=(settlement.closed_ns - first.at_ns) // 1_000_000 if first else 0,
            )
        )
        self._told.closed(trade, settlement)

    def journaled(self, duration_ns: int) -> None:
        """Note how long one write of the journal took."""
        self._metrics.observe("journal_write_ms", duration_ns / NS_PER_MS)

    def reserve_answered(self, duration_ns: int) -> None:
        """Note how long RiskGuard took to answer, or not to."""
        self._metrics.observe("reserve_ms", duration_ns / NS_PER_MS)

    def unanswered(self, order: OrderRequest) -> None:
        """Count an order without an answer; its last word is asked for."""
        self._metrics.inc("order_failures", venue=order.instrument.split(":", 1)[0])

    def _opened(self, symbol: Symbol, live: Live, at_ns: int) -> None:
        plan = live.plan
        if self._counted.get(symbol) == plan.trade_id:
            return
        self._counted[symbol] = plan.trade_id
        self._count_opened(symbol)
        self._remember(
            TradeLine(
                at_ns=at_ns,
                trade_id=plan.trade_id,
                symbol=symbol,
                what="opened",
                direction=str(plan.direction),
                qty=abs(live.position(LegKey.A)),
                notional_usdt=plan.notional_usdt,
            )
        )
        self._told.opened(live)

    def _remember(self, line: TradeLine) -> None:
        self.recent_trades.append(line)
        self._on_trade(line)

    def _count_opened(self, symbol: Symbol) -> None:
        self.trades_opened += 1
        self._metrics.inc("trades_opened", symbol=symbol)

    def _reported(self, symbol: Symbol, report: OrderReport) -> None:
        if report.status in FAILED:
            self.order_failures += 1
        for fill in report.fills:
            self.decisions.record(symbol, fill.at_ns, "fill", fill.fill_id, fill.price, fill.qty)


def _phase(trade: Trade) -> Phase:
    return Phase.IDLE if isinstance(trade, Idle) else trade.phase


def _added(a: PnlParts, b: PnlParts) -> PnlParts:
    return PnlParts(
        a.spread + b.spread, a.fx + b.fx, a.fees + b.fees, a.slippage + b.slippage,
        a.funding + b.funding,
    )  # fmt: skip


def _opportunity_line(found: Opportunity, outcome: str) -> OpportunityLine:
    costs = found.costs
    return OpportunityLine(
        at_ns=found.at_ns,
        symbol=found.symbol,
        direction=str(found.direction),
        notional_usdt=found.notional_usdt,
        gross_bps=found.gross_bps,
        entry_fees_bps=costs.entry_fees_bps,
        exit_fees_bps=costs.exit_fee_a_bps + costs.exit_fee_b_bps,
        exit_spread_bps=costs.exit_spread_bps,
        slippage_bps=costs.slippage_allowance_bps,
        exit_premium_bps=costs.expected_exit_premium_bps,
        funding_bps=costs.expected_funding_bps,
        buffer_bps=costs.safety_buffer_bps,
        net_bps=found.net_bps,
        outcome=outcome,
    )
