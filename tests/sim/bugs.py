"""
Bugs to plant, so that it can be seen what a checker is worth: ``python -m tests.sim --plant all``.

Each puts one mistake into the machines, the shells or the store that somebody could make. A
life under a planted bug must end with a violation in some of the seeds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any
from unittest import mock

import msgspec

from arb_ray.actors import effect_runner, risk_guard, symbol_runner
from arb_ray.adapters.storage import memory, spooled_ledger
from arb_ray.adapters.venues import paper_execution
from arb_ray.domain.errors import OutcomeUnknown, StoreUnavailable
from arb_ray.domain.risk_intent import Granted, RiskState
from arb_ray.engine import paper, pnl, postings, risk, risk_limits, trade, trade_orders
from arb_ray.engine import trade_settle as settle
from arb_ray.engine.trade_state import Idle, Phase
from tests.sim.actors import MoodyVenue
from tests.sim.spools import SimSpool

replace = msgspec.structs.replace
patch = mock.patch.object
BUGS: dict[str, Callable[[], Any]] = {}


def bug(plant: Callable[[], Any]) -> Callable[[], Any]:
    """Register a bug by its function's name; its docstring tells the mistake."""
    BUGS[plant.__name__] = plant
    return plant


@contextlib.contextmanager
def planted(name: str) -> Iterator[None]:
    """Run with a bug inside."""
    found = BUGS[name]()
    with contextlib.ExitStack() as stack:
        for one in found if isinstance(found, tuple) else (found,):
            stack.enter_context(one)
        yield


# -- RiskGuard's rules ------------------------------------------------------------------------


@bug
def guard_ignores_the_deadline() -> Any:
    """A yes is given however late the intent arrives."""
    right = risk.RiskBook._objection_to_asker
    return patch(
        risk.RiskBook, "_objection_to_asker", lambda self, intent, _now: right(self, intent, 0)
    )


@bug
def guard_grants_while_halted() -> Any:
    """The state is not asked for."""
    right = risk.RiskBook._objection_to_asker

    def wrong(self: Any, intent: Any, now_ns: int) -> Any:
        state, self._state = self._state, RiskState.ACTIVE
        try:
            return right(self, intent, now_ns)
        finally:
            self._state = state

    return patch(risk.RiskBook, "_objection_to_asker", wrong)


@bug
def guard_forgets_open_trades() -> Any:
    """What is reserved does not count against the limit."""
    return patch(risk.RiskBook, "_exposure_usdt", lambda self: Decimal(0))


@bug
def guard_forgets_losses() -> Any:
    """What was lost today does not count against the limit."""
    return patch(risk_limits.DayTally, "loss_usdt", Decimal(0))


@bug
def guard_forgets_a_symbols_losses() -> Any:
    """What a symbol lost today does not count against its own limit."""
    return patch(risk_limits.DayTally, "symbol_loss_usdt", lambda self, symbol: Decimal(0))


@bug
def guard_ignores_marks() -> Any:
    """A trade that stands below its reservation counts for its reservation."""
    return patch(risk.RiskBook, "apply_mark", lambda self, mark, now_ns: None)


@bug
def guard_starts_every_minute_anew() -> Any:
    """The day's figures are dropped at every minute."""

    def wrong(self: Any, now_ns: int) -> None:
        minute = now_ns // (5 * 10**9)
        if minute != getattr(self, "minute", minute):
            self.realized_usdt = self.peak_usdt = self.gap_loss_usdt = Decimal(0)
            self.by_symbol.clear()
        self.minute = minute

    return patch(risk_limits.DayTally, "roll", wrong)


@bug
def guard_forgets_to_halt() -> Any:
    """A loss beyond its reservation is posted like any other."""
    return (
        patch(risk.RiskBook, "halt_by", lambda self, settlement, now_ns: False),
        patch(risk.RiskBook, "_check_realized", lambda self, now_ns: None),
    )


@bug
def guard_halts_in_memory_only() -> Any:
    """The halt is in force and never written."""

    async def wrong(self: Any) -> None:
        self._changes.extend(self._book.take_state_changes())
        self._changes.clear()

    return patch(risk_guard.RiskGuard, "_write_changes", wrong)


@bug
def guard_counts_no_pace() -> Any:
    """Any number of entries, and of trades, at any time."""
    return patch(risk.RiskBook, "_objection_to_pace", lambda self, now_ns: None)


@bug
def guard_never_cools_down() -> Any:
    """Losses in a row bring no pause."""
    return patch(risk_limits.DayTally, "_count_run", lambda self, settlement: None)


@bug
def guard_forgets_drawdown() -> Any:
    """The fall from the day's best is not looked at."""
    return patch(risk.RiskBook, "drawdown_usdt", Decimal(0))


@bug
def guard_loses_marks_with_new_limits() -> Any:
    """A book that is rebuilt takes over nothing that only the old one knew."""
    return patch(risk.RiskBook, "inherit", lambda self, former, unproven: None)


@bug
def guard_keeps_the_old_limits() -> Any:
    """New limits are noted and not put in force."""

    async def wrong(self: Any, now_ns: int) -> None:
        """Keep the book."""

    return patch(risk_guard.RiskGuard, "_rebuild", wrong)


@bug
def guard_starts_without_asking_for_losses() -> Any:
    """A restarted guard grants before it has heard how open trades stand."""
    right = risk.RiskBook.__init__

    def wrong(self: Any, *arguments: Any) -> None:
        right(self, *arguments)
        self._unheard.clear()

    return patch(risk.RiskBook, "__init__", wrong)


@bug
def guard_forgets_sizes() -> Any:
    """No bound on notional."""
    return patch(risk.RiskBook, "_objection_to_size", lambda self, intent: None)


@bug
def guard_overdraws() -> Any:
    """Free balances are not looked at."""
    return patch(risk.RiskBook, "_objection_to_holds", lambda self, holds: None)


@bug
def guard_frees_twice() -> Any:
    """What a settlement released is added twice."""
    right = risk.RiskBook._add_free

    def wrong(self: Any, balances: Any) -> None:
        balances = tuple(balances)
        right(self, balances)
        if not any(str(one.account) == "opening" for one in balances):
            right(self, balances)

    return patch(risk.RiskBook, "_add_free", wrong)


@bug
def guard_frees_at_no_answer() -> Any:
    """A grant whose commit was not heard of gives its room back."""
    right = risk_guard.RiskGuard._reserve

    async def wrong(self: Any, intent: Any) -> Any:
        try:
            return await right(self, intent)
        except OutcomeUnknown:
            self._unproven.discard(intent.trade_id)
            self._book.undo_grant(intent.trade_id)
            raise

    return patch(risk_guard.RiskGuard, "_reserve", wrong)


@bug
def guard_answers_before_it_writes() -> Any:
    """A yes is given from memory when the store is away."""
    right = risk_guard.RiskGuard._reserve

    async def wrong(self: Any, intent: Any) -> Any:
        try:
            return await right(self, intent)
        except OutcomeUnknown:
            return Granted(intent.trade_id, self._epoch, self._clock.now_ns())

    return patch(risk_guard.RiskGuard, "_reserve", wrong)


@bug
def guard_starts_empty() -> Any:
    """A restarted guard does not load open reservations."""
    right = memory.MemoryStore.load

    async def wrong(self: Any, *arguments: Any) -> Any:
        return replace(await right(self, *arguments), open_reservations=())

    return patch(memory.MemoryStore, "load", wrong)


@bug
def guard_starts_with_a_clean_day() -> Any:
    """A restarted guard does not load what was lost today."""
    right = memory.MemoryStore.load

    async def wrong(self: Any, *arguments: Any) -> Any:
        return replace(await right(self, *arguments), settled_today=())

    return patch(memory.MemoryStore, "load", wrong)


@bug
def guard_starts_active() -> Any:
    """A restarted guard does not load the halt."""
    right = memory.MemoryStore.load

    async def wrong(self: Any, *arguments: Any) -> Any:
        return replace(await right(self, *arguments), state=RiskState.ACTIVE)

    return patch(memory.MemoryStore, "load", wrong)


@bug
def guard_works_on_when_fenced() -> Any:
    """The lease's epoch is not checked."""
    return patch(memory.MemoryStore, "_check_epoch", lambda self, epoch: None)


@bug
def tombstones_are_forgotten() -> Any:
    """An id whose reservation has ended can be granted."""

    async def wrong(self: Any, epoch: int, intent: Any, hold: Any, at_ns: int) -> Any:
        ended = self.settlements.pop(intent.trade_id, None)
        try:
            return await right(self, epoch, intent, hold, at_ns)
        finally:
            if ended is not None:
                self.settlements[intent.trade_id] = ended

    right = memory.MemoryStore.grant
    return (
        patch(memory.MemoryStore, "grant", wrong),
        patch(risk.RiskBook, "_remember", staticmethod(lambda memory, key, value: None)),
    )


# -- the trade machine ------------------------------------------------------------------------


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


# -- books and venue --------------------------------------------------------------------------


@bug
def fill_is_booked_without_its_fee() -> Any:
    """The fee's postings are left out."""
    right = postings.fill_entry

    def wrong(leg: Any, order: Any, fill: Any) -> Any:
        free = replace(fill, fee=replace(fill.fee, amount=Decimal(0)))
        return right(leg, order, free)

    return patch(postings, "fill_entry", wrong)


@bug
def fill_is_booked_twice() -> Any:
    """A fill has two entries, under two ids."""
    right = paper_execution.report_entries

    def wrong(leg: Any, order: Any, report: Any) -> Any:
        entries = right(leg, order, report)
        return entries + tuple(replace(one, entry_id=one.entry_id + "'") for one in entries[:1])

    return patch(paper_execution, "report_entries", wrong)


@bug
def release_forgets_an_asset() -> Any:
    """One of the assets that were held stays held."""
    right = postings.release_entry

    def wrong(trade_id: str, symbol: Any, held: Any, at_ns: int) -> Any:
        return right(trade_id, symbol, list(held)[1:], at_ns)

    return patch(memory, "release_entry", wrong)


@bug
def venue_fills_beyond_the_limit() -> Any:
    """The walk through the book ignores the limit."""
    right = paper._walk

    def wrong(leg: Any, order: Any, levels: Any, at_ns: int) -> Any:
        price = levels[-1][0] if levels else order.limit_price
        return right(leg, replace(order, limit_price=price), levels, at_ns)

    return patch(paper, "_walk", wrong)


@bug
def venue_forgets_what_it_filled() -> Any:
    """A query about an order that was filled says that it was cancelled."""

    async def wrong(self: Any, client_order_id: str) -> Any:
        return None

    return patch(memory.MemoryStore, "find_report", wrong)


# -- shells -----------------------------------------------------------------------------------


@bug
def host_acts_before_it_journals() -> Any:
    """A confirmed edge is acted on and never journaled."""
    right = symbol_runner.SymbolRunner._journal

    async def wrong(self: Any, plan: Any, event: Any, is_patient: bool) -> bool:
        if type(event).__name__ == "EdgeConfirmed":
            return True
        return await right(self, plan, event, is_patient)

    return patch(symbol_runner.SymbolRunner, "_journal", wrong)


@bug
def host_gives_up_a_report() -> Any:
    """An order's report is dropped when the journal is away."""
    right = symbol_runner.SymbolRunner._journal

    async def wrong(self: Any, plan: Any, event: Any, is_patient: bool) -> bool:
        return await right(
            self, plan, event, is_patient and type(event).__name__ != "OrderReported"
        )

    return patch(symbol_runner.SymbolRunner, "_journal", wrong)


@bug
def host_settles_once_and_hopes() -> Any:
    """A settlement without an answer counts as done."""
    right = effect_runner.EffectRunner._until_stored

    async def wrong(self: Any, write: Any) -> None:
        try:
            await write()
        except (StoreUnavailable, OutcomeUnknown):
            return

    assert right
    return patch(effect_runner.EffectRunner, "_until_stored", wrong)


@bug
def host_sends_old_orders() -> Any:
    """An order is sent however old its decision is."""
    return (
        patch(effect_runner.EffectRunner, "_is_too_old", lambda self, order: False),
        patch(trade, "LATE", trade.LATE),
        patch(symbol_runner, "IMPATIENT_TRIES", 10**6),
    )


@bug
def host_is_not_fenced() -> Any:
    """A host that was doubled goes on writing."""
    return patch(memory.MemoryStore, "_check_owner", lambda self, symbol, owner_epoch: None)


@bug
def host_ignores_flatten() -> Any:
    """An order to flatten is not obeyed."""
    from arb_ray.actors.strategy_host import StrategyHost

    right = StrategyHost.obey

    def wrong(self: Any, status: Any) -> None:
        right(self, replace(status, flatten_all=False, flatten=()))

    return patch(StrategyHost, "obey", wrong)


@bug
def venue_executes_an_order_twice() -> Any:
    """After a crash the venue knows no order, and an id that it knew travels and fills again."""

    async def carry(self: Any, owner_epoch: int, order: Any) -> Any:
        await self._ledger.accept_order(order.symbol, owner_epoch, order)
        leg = self._legs[order.instrument]
        report = self._meet_book(leg, order)
        await self._store(owner_epoch, leg, order, report)
        return report

    async def query(self: Any, owner_epoch: int, order: Any) -> Any:
        return None

    return patch(MoodyVenue, "_carry", carry), patch(MoodyVenue, "query", query)


# -- spools -----------------------------------------------------------------------------------


@bug
def spool_is_replayed_out_of_order() -> Any:
    """The newest record goes first."""

    async def wrong(self: Any, deliver: Any) -> int:
        count = len(self.records)
        while self.records:
            await deliver(self.records[-1])
            del self.records[-1]
        return count

    return patch(SimSpool, "replay", wrong)


@bug
def spool_is_replayed_twice_without_idempotence() -> Any:
    """Every record is delivered twice, and the books know no repeat of an entry."""

    async def replay(self: Any, deliver: Any) -> int:
        count = len(self.records)
        while self.records:
            await deliver(self.records[0])
            await deliver(self.records[0])
            del self.records[0]
        return count

    async def report(
        self: Any, symbol: Any, owner_epoch: int, order: Any, report: Any, entries: Any
    ) -> None:
        self._reports.pop(order.client_order_id, None)
        for entry in entries:
            self.entries.pop(entry.entry_id, None)
        await right(self, symbol, owner_epoch, order, report, entries)

    right = memory.MemoryStore.report_order
    return patch(SimSpool, "replay", replay), patch(memory.MemoryStore, "report_order", report)


@bug
def spool_is_replayed_after_the_claim() -> Any:
    """A host claims its symbols without looking for what was left on its node."""

    async def wrong(self: Any, symbol: Any, owner: str) -> int:
        if self._spool is None:
            self._spool = await self._place.open_own()
        return await self._inner.claim_symbol(symbol, owner)

    return patch(spooled_ledger.SpooledLedger, "claim_symbol", wrong)


@bug
def spool_is_left_where_it_is() -> Any:
    """Nobody takes up what a process left that was killed."""

    async def wrong(self: Any) -> None:
        """Look for nothing."""

    return patch(spooled_ledger.SpooledLedger, "_replay_left", wrong)


@bug
def spool_is_overtaken() -> Any:
    """As soon as PostgreSQL answers, writes go past what is still spooled."""

    async def wrong(self: Any, spool: Any) -> None:
        await self._probe()
        self._is_away = False
        await self._replayer.replay(spool, self._is_refused)

    return patch(spooled_ledger.SpooledLedger, "_catch_up", wrong)


@bug
def spool_takes_entries() -> Any:
    """While PostgreSQL is away entries go to the spool like exits."""

    async def wrong(self: Any, write: Any, call: Any, *, can_spool: bool = True) -> Any:
        return await right(self, write, call)

    right = spooled_ledger.SpooledLedger._written
    return patch(spooled_ledger.SpooledLedger, "_written", wrong)


@bug
def spool_is_not_waited_for_at_the_end() -> Any:
    """A trade is settled while its last fills are still spooled."""

    async def wrong(self: Any) -> None:
        """Wait for nothing."""

    return patch(spooled_ledger.SpooledLedger, "flush", wrong)


@bug
def spool_forgets_its_own_orders() -> Any:
    """An order that was sent without PostgreSQL is sent and filled again when it is repeated."""
    from arb_ray.adapters.storage.own_orders import OwnOrder, OwnOrders

    return (
        patch(OwnOrders, "begin", lambda self, order: OwnOrder()),
        patch(OwnOrders, "find", lambda self, order_id: OwnOrder(report=None)),
    )
