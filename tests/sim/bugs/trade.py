"""Mistakes of the trade machine, of funding and of PnL."""

from __future__ import annotations

from typing import Any

import msgspec

from arb_ray.actors import funding_clerk, symbol_runner
from arb_ray.engine import funding_due, paper, pnl, trade, trade_orders
from arb_ray.engine import trade_settle as settle
from arb_ray.engine.trade_state import Idle, Phase
from tests.sim.bugs.register import bug, patch

replace = msgspec.structs.replace


@bug
def trade_enters_on_a_late_yes() -> Any:
    """A yes after the deadline is taken."""
    right = trade._on_verdict

    def wrong(state: Any, verdict: Any, at_ns: int) -> Any:
        return right(state, verdict, min(at_ns, state.plan.deadline_ns))

    return patch(trade, "_on_verdict", wrong)


@bug
def trade_forgets_the_void() -> Any:
    """No answer from the guard ends the attempt, and nobody voids it."""
    return patch(trade, "_void", lambda plan, reason, at_ns: (Idle(plan.number), ()))


@bug
def trade_counts_a_fill_twice() -> Any:
    """An order's fills are added to the position twice."""
    right = trade.Finished

    def wrong(key: Any, order: Any, report: Any) -> Any:
        return right(key, order, replace(report, fills=report.fills * 2))

    return patch(trade, "Finished", wrong)


@bug
def trade_never_hedges() -> Any:
    """Legs that filled unalike are held as they are."""
    return patch(trade, "hedge_candidates", lambda live: ())


@bug
def trade_hedges_the_wrong_way() -> Any:
    """The excess is bought once more."""
    right = trade_orders.closing_side
    return patch(trade_orders, "closing_side", lambda position: right(position).opposite)


@bug
def trade_gives_up_unwinding() -> Any:
    """An exit that filled short is settled with what is left."""
    return patch(trade, "_after_exit", trade._settle)


@bug
def trade_resends_under_a_new_id() -> Any:
    """An order without an answer is sent again as a new one."""
    right = trade._on_report

    def wrong(live: Any, report: Any, at_ns: int) -> Any:
        order = trade._working_order(live, report.client_order_id)
        if order is not None and str(report.status) == "unknown":
            again = replace(order, client_order_id=f"{live.plan.trade_id}:{live.orders_sent}")
            working = tuple(again if one is order else one for one in live.working)
            live = replace(live, working=working, orders_sent=live.orders_sent + 1)
            return live, (trade.SubmitOrder(again),)
        return right(live, report, at_ns)

    return patch(trade, "_on_report", wrong)


@bug
def trade_takes_silence_for_no() -> Any:
    """An order without an answer counts as cancelled."""
    right = trade._on_report

    def wrong(live: Any, report: Any, at_ns: int) -> Any:
        if str(report.status) == "unknown":
            report = replace(report, status=paper.OrderStatus.CANCELLED)
        return right(live, report, at_ns)

    return patch(trade, "_on_report", wrong)


@bug
def trade_forgets_orders_after_a_restart() -> Any:
    """A trade that is picked up waits for answers that nobody will give."""
    right = trade.resume_effects

    def wrong(state: Any) -> Any:
        return () if getattr(state, "working", ()) else right(state)

    return patch(symbol_runner, "resume_effects", wrong)


@bug
def trade_forgets_retries_after_a_restart() -> Any:
    """A trade that is picked up while it is evened out stays so."""
    right = trade.resume_effects

    def wrong(state: Any) -> Any:
        stuck = state.phase in {Phase.HEDGING, Phase.UNWINDING}
        return () if stuck else right(state)

    return patch(symbol_runner, "resume_effects", wrong)


@bug
def trade_pays_funding_twice() -> Any:
    """A funding instant that is known is added again."""
    right = settle.funding_entries

    def wrong(live: Any) -> Any:
        return right(replace(live, funding=live.funding + live.funding[-1:]))

    return (
        patch(settle, "funding_entries", wrong),
        patch(
            settle,
            "pnl_parts",
            lambda done, paid, rates: pnl.pnl_parts(
                done, (*(paid := tuple(paid)), *paid[-1:]), rates
            ),
        ),
    )


@bug
def pnl_uses_the_entrys_rate() -> Any:
    """KRW is valued at F of the entry, in parts and postings alike."""
    right = settle.posted

    def wrong(live: Any, at_ns: int) -> Any:
        if live.exit is None:
            return right(live, at_ns)
        terms = replace(live.exit, fx_mid_krw=live.plan.fx_mid_krw)
        return right(replace(live, exit=terms), at_ns)

    return patch(trade, "posted", wrong)


@bug
def pnl_forgets_an_exit_fee() -> Any:
    """The settlement tells of the fees of the way in only."""
    right = settle.posted

    def wrong(live: Any, at_ns: int) -> Any:
        entries, settlement = right(live, at_ns)
        return entries, replace(settlement, fees_usdt=settlement.fees_usdt / 2)

    return patch(trade, "posted", wrong)


@bug
def loss_is_clamped_to_its_reservation() -> Any:
    """A gap's loss is booked as no more than was reserved."""
    right = settle.posted

    def wrong(live: Any, at_ns: int) -> Any:
        entries, settlement = right(live, at_ns)
        least = max(settlement.realized_usdt, -live.plan.worst_loss_usdt)
        return entries, replace(settlement, realized_usdt=least)

    return patch(trade, "posted", wrong)


@bug
def trade_ends_without_its_last_funding() -> Any:
    """An instant between the last look and the settlement is not asked for."""

    async def wrong(self: Any, live: Any, take: Any) -> None:
        """Let it settle."""

    return patch(funding_clerk.FundingClerk, "before_the_end", wrong)


@bug
def trade_ends_before_a_rate_is_known() -> Any:
    """A process that has just started settles without a word of the stream."""
    return patch(funding_due.FundingWatch, "is_known", lambda self, after_ns, until_ns: True)
