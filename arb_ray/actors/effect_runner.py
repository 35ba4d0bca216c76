"""
How the trade machine's effects are carried out: RiskGuard asked, orders sent, books written.

Both legs' orders travel at the same time; everything else runs in the machine's order. Each
outcome is handed back as an event. What must happen is repeated until it has happened; an
order whose decision has grown old in a queue is not sent any more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec
import structlog

from arb_ray.actors.tasks import Tasks
from arb_ray.actors.trade_log import trade_facts
from arb_ray.domain.errors import ArbError, OutcomeUnknown, Remedy, StoreUnavailable
from arb_ray.domain.instrument import Symbol
from arb_ray.domain.order import OrderReport, OrderRequest, OrderStatus
from arb_ray.engine.market_view import MarketView
from arb_ray.engine.planning import PlanTerms
from arb_ray.engine.trade_events import (
    AnyEffect,
    AnyEvent,
    ConfirmEdge,
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
    SubmitOrder,
    WithdrawOrder,
)
from arb_ray.engine.trade_state import Live, Trade
from arb_ray.ports import Clock, Execution, LedgerStore, RiskClient

STORE_RETRY_NS = 200_000_000
"""Pace at which a write that must happen is tried again while the store is away."""

TOO_OLD = "too old to be sent"


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
    listener: Any  # ``HostRecord``: counts and keeps what people look at


class Master(Protocol):
    """The symbol's runner, which serves what comes back."""

    trade: Trade
    owner_epoch: int
    is_store_away: bool

    @property
    def symbol(self) -> Symbol:
        """What is traded."""
        ...

    async def serve(self, event: AnyEvent, *, is_patient: bool = True) -> bool:
        """Journal an event and move the machine; False when it was given up."""
        ...

    def confirmed(self) -> AnyEvent | None:
        """Look at the edge once more; None when there is nothing to confirm."""
        ...

    def priced(self, live: Live) -> Retry:
        """Price what is still to be done."""
        ...


class EffectRunner:
    """Carries out one symbol's effects."""

    def __init__(self, master: Master, parts: RunnerParts) -> None:
        self._master = master
        self._parts = parts

    def carry_out(self, effects: tuple[AnyEffect, ...]) -> None:
        """Begin all of them; what they lead to is served later."""
        symbol, tasks = self._master.symbol, self._parts.tasks
        in_turn: list[AnyEffect] = []
        for effect in effects:
            if isinstance(effect, Note):
                self._parts.listener.noted(self._master.trade, effect)
            elif isinstance(effect, SubmitOrder | WithdrawOrder | QueryOrder):
                # Both legs travel at the same time.
                tasks.spawn(self._run(effect), f"order:{symbol}")
            else:
                in_turn.append(effect)
        if in_turn:
            tasks.spawn(self._run_in_turn(in_turn), f"effects:{symbol}")

    async def pause(self, wait_ns: int) -> None:
        """Sleep on the host's clock."""
        clock = self._parts.clock
        await clock.sleep_until_ns(clock.now_ns() + wait_ns, f"{self._master.symbol}:pause")

    async def _run_in_turn(self, effects: list[AnyEffect]) -> None:
        # The order is the machine's: what is posted must be there before the settlement
        # frees what is left.
        for effect in effects:
            await self._run(effect)

    async def _run(self, effect: AnyEffect) -> None:
        # Whoever writes a line on the way, the paper venue or a library, says of which trade. Bound
        # in this task's own context and not unbound: a coroutine that is thrown away would do so
        # in whatever context the garbage collector runs, and CPython 3.11 crashes when it runs
        # while that very context is being changed (context.c holds its old variables unowned).
        structlog.contextvars.bind_contextvars(trade_facts=trade_facts(self._master.trade))
        await self._carry_out(effect)

    async def _carry_out(self, effect: AnyEffect) -> None:
        master, ledger = self._master, self._parts.ledger
        match effect:
            case ReserveRisk():
                await self._reserve(effect)
            case ConfirmEdge():
                event = master.confirmed()
                if event is not None:
                    await master.serve(event)
            case SubmitOrder(order=order):
                await self._submit(order, is_repeat=effect.is_repeat)
            case WithdrawOrder(order=order):
                await self._withdraw(order)
            case QueryOrder():
                await self._query(effect)
            case RequestRetry():
                await self._retry(effect)
            case PostEntries(entries=entries):
                await self._until_stored(
                    lambda: ledger.post(master.symbol, master.owner_epoch, entries)
                )
            case SettleRisk():
                await self._settle(effect)
            case _:
                raise AssertionError(f"no rule for {effect}")

    async def _reserve(self, effect: ReserveRisk) -> None:
        master, clock = self._master, self._parts.clock
        listener, began_ns = self._parts.listener, clock.mono_ns()
        try:
            verdict = await self._parts.risk.reserve(effect.intent)
        except (OutcomeUnknown, StoreUnavailable) as error:
            self._parts.log.warning("risk_unanswered", symbol=master.symbol, cause=str(error))
            listener.reserve_answered(clock.mono_ns() - began_ns)
            await master.serve(ReserveUnanswered(at_ns=clock.now_ns()))
        else:
            listener.reserve_answered(clock.mono_ns() - began_ns)
            await master.serve(ReserveAnswered(at_ns=clock.now_ns(), verdict=verdict))

    async def _submit(self, order: OrderRequest, *, is_repeat: bool) -> None:
        clock = self._parts.clock
        if not self._is_too_old(order):
            report = await self._sent(order)
        elif is_repeat:
            await self._withdraw(order)
            return
        else:
            # Nothing was sent under this id: the machine goes on as if the venue had
            # cancelled it, at the prices of now.
            self._note_too_old(order)
            report = OrderReport(
                order.client_order_id, OrderStatus.CANCELLED, (), clock.now_ns(), TOO_OLD
            )
        await self._master.serve(OrderReported(at_ns=clock.now_ns(), report=report))

    async def _withdraw(self, order: OrderRequest) -> None:
        parts, master = self._parts, self._master
        self._note_too_old(order)
        while True:
            try:
                report = await parts.execution.withdraw(master.owner_epoch, order)
            except (StoreUnavailable, OutcomeUnknown) as error:
                parts.log.warning("write_waits", symbol=master.symbol, cause=str(error))
                await self.pause(STORE_RETRY_NS)
            else:
                break
        await master.serve(OrderReported(at_ns=parts.clock.now_ns(), report=report))

    def _note_too_old(self, order: OrderRequest) -> None:
        self._parts.log.warning(
            "order_too_old", symbol=order.symbol, order_id=order.client_order_id
        )

    def _is_too_old(self, order: OrderRequest) -> bool:
        trade = self._master.trade
        if not isinstance(trade, Live):
            return False
        age_ns = self._parts.clock.now_ns() - order.decided_ns
        return age_ns > trade.plan.limits.entry_ttl_ns

    async def _sent(self, order: OrderRequest) -> OrderReport:
        try:
            return await self._parts.execution.submit(self._master.owner_epoch, order)
        except ArbError as error:
            if error.remedy is Remedy.HALT:
                raise
            now_ns = self._parts.clock.now_ns()
            self._parts.listener.unanswered(order)
            return OrderReport(order.client_order_id, OrderStatus.UNKNOWN, (), now_ns, str(error))

    async def _query(self, effect: QueryOrder) -> None:
        parts, master = self._parts, self._master
        await self.pause(effect.wait_ms * 1_000_000)
        while True:
            trade = master.trade
            working = trade.working if isinstance(trade, Live) else ()
            orders = [o for o in working if o.client_order_id == effect.client_order_id]
            if not orders:
                return  # its last word has come in the meantime
            try:
                report = await parts.execution.query(master.owner_epoch, orders[0])
            except (StoreUnavailable, OutcomeUnknown) as error:
                parts.log.warning("query_waits", symbol=master.symbol, cause=str(error))
                await self.pause(STORE_RETRY_NS)
                continue
            await master.serve(
                QueryAnswered(
                    at_ns=parts.clock.now_ns(),
                    client_order_id=effect.client_order_id,
                    report=report,
                )
            )
            return

    async def _retry(self, effect: RequestRetry) -> None:
        await self.pause(effect.wait_ms * 1_000_000)
        while True:
            trade = self._master.trade
            if not isinstance(trade, Live) or trade.plan.trade_id != effect.trade_id:
                return
            # Given up while the journal is away, it is priced anew: no old price is sent.
            if await self._master.serve(self._master.priced(trade), is_patient=False):
                return
            await self.pause(STORE_RETRY_NS)

    async def _settle(self, effect: SettleRisk) -> None:
        parts, settlement = self._parts, effect.settlement
        # RiskGuard ends the trade in PostgreSQL: what is spooled of it must be there before.
        await self._until_stored(parts.ledger.flush)
        await self._until_stored(lambda: parts.risk.settle(settlement))
        parts.listener.settled(self._master.trade, settlement)
        await self._master.serve(Settled(at_ns=parts.clock.now_ns(), trade_id=settlement.trade_id))

    async def _until_stored(self, write: Callable[[], Any]) -> None:
        master = self._master
        while True:
            try:
                await write()
            except (StoreUnavailable, OutcomeUnknown) as error:
                master.is_store_away = True
                self._parts.log.warning("write_waits", symbol=master.symbol, cause=str(error))
                await self.pause(STORE_RETRY_NS)
            else:
                master.is_store_away = False
                return
