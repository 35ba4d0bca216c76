"""
One symbol's strategy at work: the shell around ``SymbolStrategy`` and the trade machine.

Events are served one at a time. Each is journaled before the machine moves, and what the
machine asks for is carried out beside; every outcome comes back as the next event. Starting
is recovering: the symbol is claimed (which fences an older owner), the open trade's events
are replayed, and what was unfinished is resumed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec

from arb_ray.actors.tasks import Tasks
from arb_ray.domain.errors import ArbError, OutcomeUnknown, Remedy, StoreUnavailable
from arb_ray.domain.instrument import Pair, Symbol
from arb_ray.domain.opportunity import Opportunity, Refusal
from arb_ray.domain.order import OrderReport, OrderRequest, OrderStatus
from arb_ray.domain.risk_intent import Mark, Refused, RiskRefusal
from arb_ray.engine.evaluation import Evaluation
from arb_ray.engine.gates import Standing
from arb_ray.engine.market_view import MarketView
from arb_ray.engine.planning import (
    Identity,
    PlanTerms,
    fx_mid_krw,
    mark_usdt,
    plan_entry,
    prices_by_leg,
)
from arb_ray.engine.position import open_position
from arb_ray.engine.strategy import SymbolStrategy
from arb_ray.engine.trade import resume_effects, step
from arb_ray.engine.trade_events import (
    AnyEffect,
    AnyEvent,
    ConfirmEdge,
    EdgeConfirmed,
    EdgeGone,
    ExitDecided,
    ExitReason,
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
    decode_event,
    encode_event,
)
from arb_ray.engine.trade_orders import wanted
from arb_ray.engine.trade_plan import LegKey, TradePlan
from arb_ray.engine.trade_state import Idle, Live, Phase, Trade
from arb_ray.ports import Clock, Execution, LedgerStore, RiskClient

STORE_RETRY_NS = 200_000_000
"""Pace at which a write that must happen is tried again while the store is away."""


class RunnerParts(msgspec.Struct, frozen=True):
    """What all runners of a host share."""

    view: MarketView
    ledger: LedgerStore
    risk: RiskClient
    execution: Execution
    clock: Clock
    tasks: Tasks
    terms: PlanTerms
    max_age_ns: int  # a book older than this is not priced for an exit
    owner: str  # names this process in the claim of a symbol
    log: Any
    listener: Any  # ``HostLedger``: counts and keeps what people look at


class SymbolRunner:
    """Runs one pair until its process ends."""

    def __init__(self, pair: Pair, brain: SymbolStrategy, parts: RunnerParts) -> None:
        self.pair = pair
        self.brain = brain
        self.trade: Trade = Idle()
        self.owner_epoch = 0
        self.is_recovered = False
        self.is_fenced = False
        self.last: Evaluation | None = None
        self.mark: Mark | None = None
        self.exit_asked: ExitReason | None = None
        self._parts = parts
        self._seq = 0
        self._is_attempting = False
        self._is_deciding_exit = False
        self._turn = asyncio.Lock()
        self._funding_seen: Any = None

    @property
    def symbol(self) -> Symbol:
        """What is traded."""
        return self.pair.symbol

    @property
    def is_busy(self) -> bool:
        """Whether a trade is open, pending, or being prepared."""
        return self._is_attempting or not isinstance(self.trade, Idle)

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing is on its way: no trade, or one that only waits for its exit."""
        trade = self.trade
        is_held = isinstance(trade, Live) and trade.phase is Phase.HOLDING
        return not self._is_attempting and (isinstance(trade, Idle) or is_held)

    # -- recovery -----------------------------------------------------------------------

    async def recover(self) -> None:
        """Claim the symbol and pick up its open trade. Raises StoreUnavailable."""
        parts = self._parts
        self.owner_epoch = await parts.ledger.claim_symbol(self.symbol, parts.owner)
        stored = await parts.ledger.open_trade(self.symbol)
        trade: Trade = Idle()
        seq = 0
        for data in stored.events if stored else ():
            trade, _ = step(trade, decode_event(data))
            seq += 1
        self.trade, self._seq = trade, seq
        self.is_recovered = True
        if stored is not None:
            parts.log.warning(
                "trade_resumed",
                symbol=self.symbol,
                trade_id=stored.trade_id,
                phase=trade.phase,
                events=seq,
            )
            self._carry_out(resume_effects(trade))

    # -- looking at the market ----------------------------------------------------------

    def look(self, now_ns: int, mono_ns: int, standing: Standing) -> Evaluation | None:
        """Evaluate the newest books once; what follows runs beside."""
        trade = self.trade
        if isinstance(trade, Live) and trade.phase is Phase.HOLDING:
            self._review(trade, now_ns, mono_ns)
            return None
        evaluation = self.brain.evaluate(self._parts.view, now_ns, mono_ns, standing)
        self.last = evaluation
        if evaluation.opportunity is not None:
            self._is_attempting = True
            self._parts.tasks.spawn(self._attempt(evaluation.opportunity), f"attempt:{self.symbol}")
        return evaluation

    def _review(self, live: Live, now_ns: int, mono_ns: int) -> None:
        self._note_funding(live, now_ns)
        if self._is_deciding_exit:
            return
        review = self.brain.review(
            self._parts.view,
            open_position(live, self.pair),
            now_ns,
            mono_ns,
            asked=self.exit_asked,
        )
        if review.mark_usdt is not None:
            pnl = Decimal(repr(round(review.mark_usdt, 8)))
            self.mark = Mark(live.plan.trade_id, self.symbol, pnl, now_ns)
        if review.reason is None:
            return
        event = self._exit_decided(live, review.reason, now_ns, mono_ns)
        if event is not None:
            self._is_deciding_exit = True
            self._parts.tasks.spawn(self._decide_exit(event), f"exit:{self.symbol}")

    def _exit_decided(
        self, live: Live, reason: ExitReason, now_ns: int, mono_ns: int
    ) -> ExitDecided | None:
        parts = self._parts
        prices = self._prices(live, mono_ns)
        fx = fx_mid_krw(self.pair, parts.view) or live.plan.fx_mid_krw
        mark = mark_usdt(self.pair, parts.view) or live.mark_usdt
        if any(prices.get(one.key) is None for one in wanted(live)):
            return None  # a venue is dark; the next look tries again
        return ExitDecided(
            at_ns=now_ns,
            reason=reason,
            price_a=prices.get(LegKey.A),
            price_b=prices.get(LegKey.B),
            fx_mid_krw=fx,
            mark_usdt=mark,
        )

    def _prices(self, live: Live, mono_ns: int) -> dict[LegKey, Any]:
        parts = self._parts
        return dict(
            prices_by_leg(live, wanted(live), parts.view, parts.terms, parts.max_age_ns, mono_ns)
        )

    async def _decide_exit(self, event: ExitDecided) -> None:
        try:
            await self.serve(event)
        finally:
            self._is_deciding_exit = False

    def _note_funding(self, live: Live, now_ns: int) -> None:
        """Book a funding instant once the stream has moved past it."""
        update = self._parts.view.funding.get(self.pair.b.instrument.id)
        seen, self._funding_seen = self._funding_seen, update
        if update is None or seen is None or update.next_funding_ns <= seen.next_funding_ns:
            return
        if live.plan.decided_ns < seen.next_funding_ns <= now_ns:
            event = FundingPaid(
                at_ns=now_ns,
                funding_ns=seen.next_funding_ns,
                mark_price=Decimal(repr(seen.mark_price)),
                rate=Decimal(repr(seen.funding_rate)),
            )
            self._parts.tasks.spawn(self.serve(event), f"funding:{self.symbol}")

    # -- entering -----------------------------------------------------------------------

    async def _attempt(self, opportunity: Opportunity) -> None:
        try:
            refusal = await self._try_to_enter(opportunity)
        finally:
            self._is_attempting = False
        if refusal is not None:
            self._refused(refusal)

    async def _try_to_enter(self, opportunity: Opportunity) -> Refusal | None:
        parts = self._parts
        try:
            number = await parts.ledger.next_trade_number(self.symbol)
        except (StoreUnavailable, OutcomeUnknown):
            return Refusal.STORE_UNAVAILABLE
        now_ns = parts.clock.now_ns()
        plan = plan_entry(
            self.pair,
            opportunity,
            parts.view,
            parts.terms,
            Identity(number, self.owner_epoch),
            now_ns,
        )
        if isinstance(plan, Refusal):
            return plan
        self._seq = 0  # a new trade's journal begins
        await self.serve(Signal(at_ns=now_ns, plan=plan))
        return None

    def _refused(self, refusal: Refusal) -> None:
        now_ns = self._parts.clock.now_ns()
        self.brain.attempt_failed(now_ns, refusal)
        self._parts.listener.refused(self.symbol, refusal, now_ns)

    # -- serving events -----------------------------------------------------------------

    async def serve(self, event: AnyEvent) -> None:
        """Journal one event, move the machine, carry out what it asks for."""
        async with self._turn:
            # Step first: an event that the machine refuses must not poison the journal.
            before = self.trade
            trade, effects = step(before, event)
            if trade is before and not effects:
                return
            trade_id = _trade_id(before) or _trade_id(trade)
            if trade_id is not None:
                await self._journal(trade_id, event)
            self.trade = trade
            self._parts.listener.moved(self.symbol, before, trade, event)
        self._after(before, trade, event)
        self._carry_out(effects)

    async def _journal(self, trade_id: str, event: AnyEvent) -> None:
        parts = self._parts
        data = encode_event(event)
        while True:
            try:
                await parts.ledger.append_event(
                    self.symbol, self.owner_epoch, trade_id, self._seq, data
                )
            except (StoreUnavailable, OutcomeUnknown) as error:
                parts.log.warning("journal_waits", symbol=self.symbol, cause=str(error))
                await self._pause(STORE_RETRY_NS)
            else:
                self._seq += 1
                return

    def _after(self, before: Trade, trade: Trade, event: AnyEvent) -> None:
        if isinstance(trade, Idle) and not isinstance(before, Idle):
            self.mark = None
            self.exit_asked = None
            self._funding_seen = None
            self.brain.trade_closed(event.at_ns)
        if isinstance(event, ReserveAnswered) and isinstance(event.verdict, Refused):
            balance = event.verdict.reason is RiskRefusal.BALANCE
            self._refused(Refusal.INSUFFICIENT_BALANCE if balance else Refusal.RISK_REFUSED)
        elif isinstance(event, ReserveUnanswered):
            self._refused(Refusal.RISK_UNREACHABLE)
        elif isinstance(event, EdgeGone):
            self._refused(Refusal.EDGE_GONE)

    # -- effects ------------------------------------------------------------------------

    def _carry_out(self, effects: tuple[AnyEffect, ...]) -> None:
        in_turn: list[AnyEffect] = []
        for effect in effects:
            if isinstance(effect, Note):
                self._parts.listener.noted(self.symbol, effect)
            elif isinstance(effect, SubmitOrder | QueryOrder):
                # Both legs travel at the same time.
                self._parts.tasks.spawn(self._run(effect), f"order:{self.symbol}")
            else:
                in_turn.append(effect)
        if in_turn:
            self._parts.tasks.spawn(self._run_in_turn(in_turn), f"effects:{self.symbol}")

    async def _run_in_turn(self, effects: list[AnyEffect]) -> None:
        # The order is the machine's: what is posted must be there before the settlement
        # frees what is left.
        for effect in effects:
            await self._run(effect)

    async def _run(self, effect: AnyEffect) -> None:
        match effect:
            case ReserveRisk():
                await self._reserve(effect)
            case ConfirmEdge():
                await self._confirm()
            case SubmitOrder(order=order):
                await self._submit(order)
            case QueryOrder():
                await self._query(effect)
            case RequestRetry():
                await self._retry(effect)
            case PostEntries():
                await self._until_stored(
                    lambda: self._parts.ledger.post(self.symbol, self.owner_epoch, effect.entries)
                )
            case SettleRisk():
                await self._settle(effect)
            case _:
                raise AssertionError(f"no rule for {effect}")

    async def _reserve(self, effect: ReserveRisk) -> None:
        try:
            verdict = await self._parts.risk.reserve(effect.intent)
        except (OutcomeUnknown, StoreUnavailable) as error:
            self._parts.log.warning("risk_unanswered", symbol=self.symbol, cause=str(error))
            await self.serve(ReserveUnanswered(at_ns=self._parts.clock.now_ns()))
        else:
            await self.serve(ReserveAnswered(at_ns=self._parts.clock.now_ns(), verdict=verdict))

    async def _confirm(self) -> None:
        parts = self._parts
        plan = _plan(self.trade)
        if plan is None:
            return
        now_ns = parts.clock.now_ns()
        found = self.brain.recheck(parts.view, now_ns, parts.clock.mono_ns(), plan.opportunity)
        if isinstance(found, Refusal):
            await self.serve(EdgeGone(at_ns=now_ns, reason=str(found)))
        else:
            await self.serve(EdgeConfirmed(at_ns=now_ns))

    async def _submit(self, order: OrderRequest) -> None:
        try:
            report = await self._parts.execution.submit(self.owner_epoch, order)
        except ArbError as error:
            if error.remedy is Remedy.HALT:
                raise
            report = OrderReport(
                order.client_order_id,
                OrderStatus.UNKNOWN,
                (),
                self._parts.clock.now_ns(),
                str(error),
            )
        await self.serve(OrderReported(at_ns=self._parts.clock.now_ns(), report=report))

    async def _query(self, effect: QueryOrder) -> None:
        parts = self._parts
        await self._pause(effect.wait_ms * 1_000_000)
        while True:
            trade = self.trade
            working = trade.working if isinstance(trade, Live) else ()
            orders = [o for o in working if o.client_order_id == effect.client_order_id]
            if not orders:
                return  # its last word has come in the meantime
            try:
                report = await parts.execution.query(self.owner_epoch, orders[0])
            except (StoreUnavailable, OutcomeUnknown) as error:
                parts.log.warning("query_waits", symbol=self.symbol, cause=str(error))
                await self._pause(STORE_RETRY_NS)
                continue
            await self.serve(
                QueryAnswered(
                    at_ns=parts.clock.now_ns(),
                    client_order_id=effect.client_order_id,
                    report=report,
                )
            )
            return

    async def _retry(self, effect: RequestRetry) -> None:
        parts = self._parts
        await self._pause(effect.wait_ms * 1_000_000)
        trade = self.trade
        if not isinstance(trade, Live) or trade.plan.trade_id != effect.trade_id:
            return
        prices = self._prices(trade, parts.clock.mono_ns())
        await self.serve(
            Retry(
                at_ns=parts.clock.now_ns(),
                price_a=prices.get(LegKey.A),
                price_b=prices.get(LegKey.B),
                mark_usdt=mark_usdt(self.pair, parts.view) or trade.mark_usdt,
            )
        )

    async def _settle(self, effect: SettleRisk) -> None:
        await self._until_stored(lambda: self._parts.risk.settle(effect.settlement))
        self._parts.listener.settled(self.symbol, effect.settlement)
        await self.serve(
            Settled(at_ns=self._parts.clock.now_ns(), trade_id=effect.settlement.trade_id)
        )

    async def _until_stored(self, write: Callable[[], Any]) -> None:
        while True:
            try:
                await write()
            except (StoreUnavailable, OutcomeUnknown) as error:
                self._parts.log.warning("write_waits", symbol=self.symbol, cause=str(error))
                await self._pause(STORE_RETRY_NS)
            else:
                return

    async def _pause(self, wait_ns: int) -> None:
        clock = self._parts.clock
        await clock.sleep_until_ns(clock.now_ns() + wait_ns, f"{self.symbol}:pause")


def _plan(trade: Trade) -> TradePlan | None:
    return None if isinstance(trade, Idle) else trade.plan


def _trade_id(trade: Trade) -> str | None:
    plan = _plan(trade)
    return None if plan is None else plan.trade_id
