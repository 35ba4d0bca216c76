"""
The life of one arbitrage trade of one symbol, from signal to settled.

    IDLE ------- Signal ----------------> RESERVING
    RESERVING -- yes, in time ----------> CONFIRMING
                 no --------------------> IDLE
                 late yes, no answer ---> SETTLING   (void)
    CONFIRMING - EdgeConfirmed ---------> ENTERING   two legs
                 EdgeGone --------------> SETTLING   (void)
    ENTERING --- alike -----------------> HOLDING
                 unalike ---------------> HEDGING    until the net base is home
                 nothing filled --------> SETTLING   (zero)
    HEDGING ---- net base home ---------> HOLDING, or SETTLING when nothing is left
    HOLDING ---- ExitDecided -----------> EXITING    two legs (HEDGING may be left so too)
    EXITING ---- both closed -----------> SETTLING
                 short or unalike ------> UNWINDING  Retry after Retry, never given up
    UNWINDING -- rest is dust ----------> SETTLING
    SETTLING --- Settled ---------------> IDLE

``step`` is the whole machine. It reads no clock and draws no number, so the journal of
events replays to the same state and effects; recovery is that replay, then
``resume_effects``. Answers that come late or twice change nothing; whatever else has no
rule raises InvalidTransition and leaves the state unharmed.

An order without an answer is asked for, never assumed. When the venue does not know it, it
may be sent again *under the same id*: whatever race there is, one id executes at most once,
and its limit still bounds the price. Entry orders are the exception: after
``entry_ttl_ns`` the decision behind them is stale, and they are withdrawn; the legs are then
evened out at fresh prices. The shell goes further and sends no order at all whose decision
is older than that: it ends as cancelled, and the machine asks for new prices.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from arb_ray.domain.errors import InvalidTransition
from arb_ray.domain.ledger import Entry
from arb_ray.domain.order import OrderReport, OrderRequest, OrderStatus, Purpose
from arb_ray.domain.risk_intent import Granted, Verdict
from arb_ray.engine.trade_events import (
    AnyEffect,
    AnyEvent,
    ConfirmEdge,
    EdgeConfirmed,
    EdgeGone,
    ExitDecided,
    FundingPaid,
    Note,
    OrderReported,
    PostEntries,
    QueryAnswered,
    QueryOrder,
    RequestRetry,
    ReserveAnswered,
    ReserveRisk,
    ReserveUnanswered,
    Retry,
    Settled,
    SettleRisk,
    Signal,
    SubmitOrder,
    WithdrawOrder,
)
from arb_ray.engine.trade_funding import book_waiting, take_funding
from arb_ray.engine.trade_orders import (
    Prices,
    Wanted,
    closing_orders,
    entry_orders,
    has_entered,
    hedge_candidates,
    is_sendable,
    is_tradeable,
    net_reducing_order,
)
from arb_ray.engine.trade_plan import LegKey, OrderPrice, TradePlan
from arb_ray.engine.trade_settle import funding_entries, posted, voided
from arb_ray.engine.trade_state import (
    Confirming,
    ExitTerms,
    Finished,
    Idle,
    Live,
    Phase,
    Reserving,
    Settling,
    Trade,
)

Step = tuple[Trade, tuple[AnyEffect, ...]]

LATE = (
    ReserveAnswered,
    ReserveUnanswered,
    OrderReported,
    QueryAnswered,
    Retry,
    FundingPaid,
    Settled,
)
"""Events that may come late or twice, because someone outside repeats himself."""


def step(trade: Trade, event: AnyEvent) -> Step:
    """
    Apply one event.

    Returns:
        The next state, and the effects to carry out in that order.

    Raises:
        InvalidTransition: The state has no rule for the event. Nothing has changed.
    """
    match trade, event:
        case Idle(last_number=last), Signal(plan=plan) if plan.number > last:
            return Reserving(plan), (ReserveRisk(plan.intent),)
        case Reserving(), ReserveAnswered(verdict=verdict):
            return _on_verdict(trade, verdict, event.at_ns)
        case Reserving(plan=plan), ReserveUnanswered():
            return _void(plan, "no answer from RiskGuard", event.at_ns)
        case Confirming(plan=plan), EdgeConfirmed():
            return _enter(plan, event.at_ns)
        case Confirming(plan=plan), EdgeGone(reason=reason):
            return _void(plan, reason, event.at_ns)
        case Live(), _:
            return _step_live(trade, event)
        case Settling(plan=plan), Settled(trade_id=trade_id) if trade_id == plan.trade_id:
            return Idle(plan.number), ()
        case Settling(), ExitDecided():
            return trade, ()
    return _unmoved(trade, event)


def _step_live(live: Live, event: AnyEvent) -> Step:
    match event:
        case OrderReported(report=report):
            return _on_report(live, report, event.at_ns)
        case QueryAnswered(client_order_id=order_id, report=answer):
            return _on_answer(live, order_id, answer, event.at_ns)
        case ExitDecided():
            return _on_exit(live, event)
        case Retry() if not live.working:
            return _on_retry(live, event)
        case FundingPaid():
            live, booked = take_funding(live, event)
            return live, _posting(booked)
    return _unmoved(live, event)


def _unmoved(trade: Trade, event: AnyEvent) -> Step:
    if isinstance(event, LATE):
        return trade, ()
    raise InvalidTransition("trade", trade.phase, type(event).__name__)


def replay(events: Iterable[AnyEvent], last_number: int = 0) -> Trade:
    """Return the state that journaled events lead to; their effects were the past's."""
    trade: Trade = Idle(last_number)
    for event in events:
        trade, _ = step(trade, event)
    return trade


def resume_effects(trade: Trade) -> tuple[AnyEffect, ...]:
    """
    Return what must be done, or done again, in this state after a restart.

    Orders in flight are asked for, not sent: their submission may or may not have happened.
    """
    match trade:
        case Reserving(plan=plan):
            return (ReserveRisk(plan.intent),)
        case Confirming(plan=plan):
            return (ConfirmEdge(plan.trade_id),)
        case Live():
            post = _posting(funding_entries(trade))
            ask = tuple(QueryOrder(order.client_order_id, 0) for order in trade.working)
            if not ask and trade.phase in {Phase.HEDGING, Phase.UNWINDING}:
                return (*post, RequestRetry(trade.plan.trade_id, trade.attempts, 0))
            return (*post, *ask)
        case Settling():
            return _settling_effects(trade)
        case Idle():
            return ()


def _on_verdict(trade: Reserving, verdict: Verdict, at_ns: int) -> Step:
    plan = trade.plan
    if verdict.trade_id != plan.trade_id:
        return trade, ()
    if not isinstance(verdict, Granted):
        note = Note("risk_refused", {"reason": verdict.reason, "detail": verdict.detail})
        return Idle(plan.number), (note,)
    if at_ns > plan.deadline_ns:
        return _void(plan, "the yes came after the deadline", at_ns)
    return Confirming(plan), (ConfirmEdge(plan.trade_id),)


def _void(plan: TradePlan, reason: str, at_ns: int) -> Step:
    # The room is given back by a settlement that is repeated until it is answered: a void
    # that got lost would hold the room for ever.
    settling = Settling(plan, (), voided(plan.trade_id, plan.symbol, reason, at_ns))
    return settling, _settling_effects(settling)


def _enter(plan: TradePlan, at_ns: int) -> Step:
    live = Live(plan, Phase.ENTERING, plan.mark_usdt)
    prices = {key: plan.planned(key).price for key in LegKey}
    return _send(live, Phase.ENTERING, entry_orders(live), prices, at_ns)


def _send(live: Live, phase: Phase, orders: Iterable[Wanted], prices: Prices, at_ns: int) -> Step:
    requests = []
    for number, wanted in enumerate(orders, start=live.orders_sent):
        price = prices[wanted.key]
        assert price is not None
        assert price.side is wanted.side
        requests.append(
            OrderRequest(
                # A pure function of the state: a replay after a crash arrives at the same id.
                client_order_id=f"{live.plan.trade_id}:{number}",
                trade_id=live.plan.trade_id,
                symbol=live.plan.symbol,
                instrument=live.plan.leg(wanted.key).instrument.id,
                side=wanted.side,
                qty=wanted.qty,
                limit_price=price.limit,
                decision_price=price.decision,
                purpose=wanted.purpose,
                decided_ns=at_ns,
            ),
        )
    assert requests
    live = replace(
        live,
        phase=phase,
        orders_sent=live.orders_sent + len(requests),
        working=tuple(requests),
    )
    return live, tuple(SubmitOrder(request) for request in requests)


def _on_report(live: Live, report: OrderReport, at_ns: int) -> Step:
    order = _working_order(live, report.client_order_id)
    if order is None:
        return live, ()  # late or doubled: this order is counted already
    if report.status is OrderStatus.UNKNOWN:
        live = replace(live, attempts=live.attempts + 1)
        query = QueryOrder(order.client_order_id, _wait_ms(live))
        return live, (query, *_alarm(live, "order_unanswered"))
    assert report.filled_qty <= order.qty, "a venue cannot fill more than was ordered"
    key = LegKey.A if order.instrument == live.plan.a.leg.instrument.id else LegKey.B
    live = replace(
        live,
        working=tuple(other for other in live.working if other is not order),
        finished=(*live.finished, Finished(key, order, report)),
        attempts=0 if report.fills else live.attempts,
    )
    live, booked = book_waiting(live)
    if live.working:
        return live, _posting(booked)
    is_entry = live.phase in {Phase.ENTERING, Phase.HEDGING}
    trade, effects = _after_entry(live, at_ns) if is_entry else _after_exit(live, at_ns)
    return trade, (*_posting(booked), *effects)


def _posting(entries: tuple[Entry, ...]) -> tuple[PostEntries, ...]:
    return (PostEntries(entries),) if entries else ()


def _on_answer(live: Live, order_id: str, answer: OrderReport | None, at_ns: int) -> Step:
    order = _working_order(live, order_id)
    if order is None or answer is not None:
        return _on_report(live, answer, at_ns) if answer else (live, ())
    age_ns = at_ns - order.decided_ns
    if order.purpose is Purpose.ENTRY and age_ns > live.plan.limits.entry_ttl_ns:
        return live, (WithdrawOrder(order),)
    return live, (SubmitOrder(order, is_repeat=True),)


def _working_order(live: Live, order_id: str) -> OrderRequest | None:
    return next((order for order in live.working if order.client_order_id == order_id), None)


def _after_entry(live: Live, at_ns: int) -> Step:
    if any(is_tradeable(live, wanted) for wanted in hedge_candidates(live)):
        return _ask_prices(live, Phase.HEDGING)
    # What is unalike is too small to be traded: the exit closes each leg by itself.
    if has_entered(live):
        return replace(live, phase=Phase.HOLDING, attempts=0), ()
    return _settle(live, at_ns)


def _after_exit(live: Live, at_ns: int) -> Step:
    if any(is_tradeable(live, wanted) for wanted in closing_orders(live)):
        return _ask_prices(live, Phase.UNWINDING)
    return _settle(live, at_ns)


def _ask_prices(live: Live, phase: Phase) -> Step:
    live = replace(live, phase=phase, attempts=live.attempts + 1)
    retry = RequestRetry(live.plan.trade_id, live.attempts, _wait_ms(live))
    return live, (retry, *_alarm(live, f"{phase}_stuck"))


def _wait_ms(live: Live) -> int:
    """The first try comes at once; then the wait doubles up to its bound."""
    limits = live.plan.limits
    if live.attempts <= 1:
        return 0
    doublings = min(live.attempts - 2, 30)
    return min(limits.retry_ms << doublings, limits.retry_max_ms)


def _alarm(live: Live, kind: str) -> tuple[Note, ...]:
    if live.attempts % live.plan.limits.alarm_attempts:
        return ()
    return (Note(kind, {"trade_id": live.plan.trade_id, "attempts": str(live.attempts)}),)


def _on_exit(live: Live, event: ExitDecided) -> Step:
    if live.phase not in {Phase.HOLDING, Phase.HEDGING} or live.working:
        return live, ()  # on its way already; whoever wants it closed will say so again
    prices = {LegKey.A: event.price_a, LegKey.B: event.price_b}
    orders = [wanted for wanted in closing_orders(live) if _is_open(live, wanted, prices)]
    if any(_price_for(wanted, prices) is None for wanted in orders):
        # Leaving on one venue only would open the exposure that the pair closes.
        return live, (Note("exit_unpriced", {"trade_id": live.plan.trade_id}),)
    live = replace(
        live,
        exit=ExitTerms(event.reason, event.fx_mid_krw, event.at_ns),
        mark_usdt=event.mark_usdt,
        attempts=0,
    )
    if not orders:
        return _settle(live, event.at_ns)
    return _send(live, Phase.EXITING, orders, prices, event.at_ns)


def _on_retry(live: Live, event: Retry) -> Step:
    prices = {LegKey.A: event.price_a, LegKey.B: event.price_b}
    if live.phase is Phase.HEDGING:
        return _retry_hedge(replace(live, mark_usdt=event.mark_usdt), prices, event.at_ns)
    if live.phase is Phase.UNWINDING:
        return _retry_unwind(replace(live, mark_usdt=event.mark_usdt), prices, event.at_ns)
    return live, ()


def _retry_hedge(live: Live, prices: Prices, at_ns: int) -> Step:
    candidates = [w for w in hedge_candidates(live) if _is_open(live, w, prices)]
    for wanted in candidates:
        if _price_for(wanted, prices) is not None:
            return _send(live, Phase.HEDGING, (wanted,), prices, at_ns)
    if candidates:
        return _ask_prices(live, Phase.HEDGING)
    if has_entered(live):
        return replace(live, phase=Phase.HOLDING, attempts=0), ()
    return _settle(live, at_ns)


def _retry_unwind(live: Live, prices: Prices, at_ns: int) -> Step:
    orders = [wanted for wanted in closing_orders(live) if _is_open(live, wanted, prices)]
    if not orders:
        return _settle(live, at_ns)
    priced = [wanted for wanted in orders if _price_for(wanted, prices) is not None]
    if len(priced) < len(orders):
        alone = [net_reducing_order(live, wanted.key) for wanted in priced]
        priced = [w for w in alone if w is not None and _is_open(live, w, prices)]
    if not priced:
        return _ask_prices(live, Phase.UNWINDING)
    return _send(live, Phase.UNWINDING, priced, prices, at_ns)


def _price_for(wanted: Wanted, prices: Prices) -> OrderPrice | None:
    """The price for this order; one for the other side was meant for an older state."""
    price = prices[wanted.key]
    return price if price is not None and price.side is wanted.side else None


def _is_open(live: Live, wanted: Wanted, prices: Prices) -> bool:
    """Whether an order is worth sending: by its new price, else by the last one known."""
    price = _price_for(wanted, prices)
    return is_tradeable(live, wanted) if price is None else is_sendable(live, wanted, price.limit)


def _settle(live: Live, at_ns: int) -> Step:
    entries, settlement = posted(live, at_ns)
    settling = Settling(live.plan, entries, settlement)
    return settling, _settling_effects(settling)


def _settling_effects(settling: Settling) -> tuple[AnyEffect, ...]:
    # The ledger first: the settlement frees what is left HELD after these entries.
    settle = SettleRisk(settling.settlement)
    return (*_posting(settling.entries), settle)
