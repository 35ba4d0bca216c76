"""
What a strategy host writes into the log about opportunities, trades and orders.

Each line carries the same four: ``symbol``, ``direction``, ``notional_usd`` and
``spread_bps``. The last two are those of the opportunity that began the trade, so that one
trade's lines can be found and set side by side; what was booked is in fields of its own, as
exact text.
"""

from __future__ import annotations

from typing import Any

from arb_ray.domain.opportunity import Opportunity, Refusal
from arb_ray.domain.order import OrderReport, OrderRequest, OrderStatus
from arb_ray.domain.risk_intent import Settlement
from arb_ray.engine.trade_events import AnyEvent, Note, OrderReported, QueryAnswered
from arb_ray.engine.trade_plan import TradePlan
from arb_ray.engine.trade_state import Idle, Live, Trade

Facts = dict[str, Any]


def opportunity_facts(found: Opportunity) -> Facts:
    """Return what every line about an opportunity, and what came of it, carries."""
    return {
        "symbol": found.symbol,
        "direction": found.direction,
        # Numbers, rounded: these are for finding lines and for charts, not for accounts.
        "notional_usd": round(found.notional_usdt, 2),
        "spread_bps": round(found.gross_bps, 2),
    }


def trade_facts(trade: Trade) -> Facts:
    """Return what every line about a trade carries; nothing when there is none."""
    return {} if isinstance(trade, Idle) else plan_facts(trade.plan)


def plan_facts(plan: TradePlan) -> Facts:
    """Return the same of a trade that is about to begin."""
    facts = opportunity_facts(plan.opportunity)
    # The plan's, which is on both lot grids, is what orders are sent for.
    facts["notional_usd"] = float(round(plan.notional_usdt, 2))
    return {**facts, "trade_id": plan.trade_id}


class TradeLog:
    """Writes the lines of one host."""

    def __init__(self, log: Any) -> None:
        self._log = log

    def found(self, found: Opportunity) -> None:
        """Tell of an edge that is worth an attempt."""
        costs = found.costs
        self._log.info(
            "opportunity",
            **opportunity_facts(found),
            net_bps=round(found.net_bps, 2),
            entry_fees_bps=round(costs.entry_fees_bps, 2),
            exit_fees_bps=round(costs.exit_fee_a_bps + costs.exit_fee_b_bps, 2),
            exit_spread_bps=round(costs.exit_spread_bps, 2),
            slippage_allowance_bps=round(costs.slippage_allowance_bps, 2),
            expected_exit_premium_bps=round(costs.expected_exit_premium_bps, 2),
            expected_funding_bps=round(costs.expected_funding_bps, 2),
            safety_buffer_bps=round(costs.safety_buffer_bps, 2),
        )

    def refused(self, found: Opportunity, refusal: Refusal) -> None:
        """Tell why an attempt came to nothing."""
        self._log.info("entry_refused", **opportunity_facts(found), reason=refusal)

    def moved(self, before: Trade, after: Trade, event: AnyEvent) -> None:
        """Tell of the machine's move, and of an order's last word."""
        facts = trade_facts(before) or trade_facts(after)
        if isinstance(event, OrderReported | QueryAnswered) and event.report is not None:
            self._order(before, event.report, facts)
        if after.phase is not before.phase:
            self._log.info(
                "trade_moved",
                **facts,
                phase_before=before.phase,
                phase=after.phase,
                event_name=type(event).__name__,
            )

    def _order(self, before: Trade, report: OrderReport, facts: Facts) -> None:
        order = _order_of(before, report.client_order_id)
        if order is None:
            return  # its last word came before, and is told already
        told: Facts = {
            **facts,
            "order_id": order.client_order_id,
            "instrument": order.instrument,
            "purpose": order.purpose,
            "side": order.side,
            "qty": order.qty,
            "filled_qty": report.filled_qty,
            "status": report.status,
            "reason": report.reason,
        }
        if report.status in {OrderStatus.FILLED, OrderStatus.PARTIAL}:
            self._log.info("order_reported", **told)
        else:
            self._log.warning("order_reported", **told)

    def opened(self, live: Live) -> None:
        """Tell that both legs of an entry have their fills."""
        self._log.info("trade_opened", **trade_facts(live))

    def closed(self, trade: Trade, settlement: Settlement) -> None:
        """Tell what a trade brought, with the parts of it."""
        parts = settlement.parts
        self._log.info(
            "trade_closed",
            **({"symbol": settlement.symbol} | trade_facts(trade)),
            realized_usdt=settlement.realized_usdt,
            pnl_spread_usdt=parts.spread,
            pnl_fx_usdt=parts.fx,
            pnl_fees_usdt=parts.fees,
            pnl_slippage_usdt=parts.slippage,
            pnl_funding_usdt=parts.funding,
            turnover_usdt=settlement.notional_usdt,
            reason=settlement.exit_reason,
        )

    def noted(self, trade: Trade, note: Note) -> None:
        """Pass on what the machine remarks."""
        self._log.warning("trade_note", **(trade_facts(trade) | dict(note.data)), kind=note.kind)


def _order_of(trade: Trade, order_id: str) -> OrderRequest | None:
    working = trade.working if isinstance(trade, Live) else ()
    return next((order for order in working if order.client_order_id == order_id), None)
